"""Runs of several machines on one site: tabs, facts, results, and what is refused."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT, Site

from recipe_runner.collection import Collection
from recipe_runner.recipe import load_all
from recipe_runner.record import Runs
from recipe_runner.run import Run

FIGURE = """[[figure]]
recipe = "first"
metric = "answer_count"
value = 41
unit = "count"
what = "a smaller answer"
machine = "GPU, not named"
version = "torch 2.0"
source = "A guide"
address = "https://example.org/guide"
date = "2026-01-02"
"""


def edit(file: Path, *changes: tuple[str, str]) -> None:
    text = file.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)


def resave(results: Path, changes: Callable[[Run], dict[str, object]]) -> None:
    """Publish another run for `first` on the other machine, whole and with its own hash."""
    record = Runs(results).load("other", "first")
    Runs(results).save(replace(record, run=replace(record.run, **changes(record.run))))


def panels(page: str) -> list[list[str]]:
    """The machines' names of each set of tabs on a page."""
    return [re.findall(r'data-sync-id="([^"]*)"', text) for text in re.split(r'class="[^"]*\bsd-tab-set\b', page)[1:]]


def test_each_block_has_a_tab_for_each_machine_the_own_first(two: Site):
    built = two.build(MACHINE="box")
    assert built.status == 0, built.output
    page = two.page("recipes/first")
    assert panels(page) == [["box", "other"]] * 2, "the last block prints nothing: no tabs"
    assert re.search(r"cores? \(box\)</label>", page), "two machines of one kind are told apart"
    assert "seed 3" in page and "seed 5" in page
    assert page.count('alt="Line"') >= 2, "the figures of both machines"
    assert "seed 3" in str(two.notebook("first")) and "seed 5" not in str(two.notebook("first"))


def test_one_machine_has_no_tabs(site: Site):
    assert site.build(MACHINE="box").status == 0
    assert not panels(site.page("recipes/first")) and "sd-tab-set" not in site.page("recipes/first")


def test_the_top_of_a_page_has_every_run_and_the_downloads(two: Site):
    two.build(MACHINE="box")
    top = two.page("recipes/first").partition("<h2")[0]
    assert top.count("Ran on") == 2 and "(box)" in top and "(other)" in top
    assert re.search(r'href="[^"]*first\.ipynb"', top) and re.search(r'href="[^"]*first\.py"', top)


def test_a_run_of_older_code_is_named_and_not_shown(two: Site):
    edit(two.root / "recipes_source/first.py", ("'seed', 3", "'new seed', 3"))
    assert two.build(MACHINE="box").status == 0
    page = two.page("recipes/first")
    assert "Published runs of older code" in page and "seed 5" not in page and not panels(page)
    assert "older code" in two.page("results")


def test_results_are_tables_claims_json_and_csv(two: Site):
    (two.root / "results/published.toml").write_text(FIGURE)
    assert two.build(MACHINE="box").status == 0
    for page in (two.page("recipes/first"), two.page("results")):
        assert "1.50 (IQR 0.10)" in page and "call, ms" in page and "call iqr" not in page
        assert "Published: 41" in page and "https://example.org/guide" in page
        text = re.sub(r"<[^>]+>", "", page)
        assert re.search(r"the other machine runs this: did not hold on .*\(box\), held on .*\(other\)", text)
        assert re.search(r"one and one is two: held on .*\(box\), held on .*\(other\)", text)
    found = {file.suffix: file.read_text() for file in (two.root / "_build/html/_downloads").glob("*/results.*")}
    data = json.loads(found[".json"])
    assert {(run["recipe"], run["machine"]["name"]) for run in data["runs"]} == {
        ("first", "box"),
        ("first", "other"),
        ("second", "box"),
        ("second", "other"),
    }
    rows = list(csv.DictReader(found[".csv"].splitlines()))
    assert {row["kind"] for row in rows} == {"measured", "published"}
    assert [row["value"] for row in rows if row["metric"] == "answer_count"] == ["42", "42", "41"]


def test_a_new_figure_shows_though_no_recipe_changed(two: Site):
    two.build(MACHINE="box")
    (two.root / "results/published.toml").write_text(FIGURE)
    assert two.build(MACHINE="box").status == 0
    assert "Published: 41" in two.page("recipes/first")


@pytest.mark.filterwarnings("error")
def test_a_new_site_has_a_picture_of_no_results():
    from recipe_runner.overview import speedups_svg

    assert b"<svg" in speedups_svg([])


def test_the_published_runs_of_this_site_are_small():
    files = [file for file in (ROOT / "results").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 5 * 1024**2


def test_replay_follows_the_order_file(two: Site):
    two.build(MACHINE="box")
    shutil.copytree(two.root / "_build/runs/box", two.root / "results/box")
    (two.root / "results/order.toml").write_text('machines = ["other"]\n')
    replayed = two.command("replay")
    assert replayed.status == 0, replayed.output
    assert panels(two.page("recipes/first"))[0] == ["other", "box"]


def test_a_file_that_does_not_fit_is_named_where_it_is(two: Site):
    own, published = Runs(two.root / "_build/runs"), Runs(two.root / "results")
    record = own.load("box", "first")
    machine = replace(record.run.machine, cores=99)
    own.save(replace(record, run=replace(record.run, machine=machine)))
    problems = Collection(own, published, ["box"], load_all(two.root)[0]).problems
    assert len(problems) == 1 and problems[0].cause.startswith("two machines have this name")
    assert problems[0].file.endswith("_build/runs/box")


def test_a_time_and_a_size_of_one_thing_are_two_metrics(two: Site):
    resave(two.root / "results", lambda run: {"metrics": {**run.metrics, "call_bytes": 7}})
    built = two.build(MACHINE="box")
    assert built.status == 0, built.output
    assert all(row in two.page("results") for row in (">call, ms<", ">call, bytes<"))


BAD = {
    "a run of a recipe that is gone": (
        lambda results: shutil.copy(results / "other/first.ipynb", results / "other/gone.ipynb"),
        "results/other/gone.ipynb: the run of a recipe that does not exist. Delete it",
    ),
    "two machines of one name": (
        lambda results: resave(results, lambda run: {"machine": replace(run.machine, cores=run.machine.cores + 90)}),
        "results/other: two machines have this name",
    ),
    "another unit": (
        lambda results: resave(
            results, lambda run: {"metrics": {k.replace("_ms", "_us"): v for k, v in run.metrics.items()}}
        ),
        "results/other/first.ipynb: metric 'call' is in us, in the run of box in ms",
    ),
    "edited by hand": (
        lambda results: edit(results / "other/first.ipynb", ("seed 5", "seed 6")),
        "results/other/first.ipynb: its content does not match its hash: it was edited or damaged",
    ),
    "a figure without a source": (
        lambda results: (results / "published.toml").write_text(FIGURE.replace('source = "A guide"\n', "")),
        "results/published.toml: figure 1 (answer_count) has no 'source'",
    ),
    "a figure in another unit": (
        lambda results: (results / "published.toml").write_text(FIGURE.replace('"count"', '"ms"')),
        "results/published.toml: figure 1 (answer_count) is in 'ms'",
    ),
    "a figure about a metric that no run has": (
        lambda results: (results / "published.toml").write_text(FIGURE.replace("answer_count", "other_count")),
        "results/published.toml: figure 1 is about 'other_count', which no run of first has",
    ),
    "a figure about no recipe": (
        lambda results: (results / "published.toml").write_text(FIGURE.replace('"first"', '"gone"')),
        "results/published.toml: figure 1 is about 'gone', which is not a recipe",
    ),
    "an order of machines that are not there": (
        lambda results: (results / "order.toml").write_text('machines = ["nowhere"]'),
        "results/order.toml: names 'nowhere', which has no runs",
    ),
}


@pytest.mark.parametrize(("harm", "line"), BAD.values(), ids=BAD.keys())
def test_bad_results_get_one_line_and_harm_nothing(two: Site, harm, line: str):
    two.build(MACHINE="box")
    harm(two.root / "results")
    before = {file: file.read_bytes() for file in (two.root / "results").rglob("*") if file.is_file()}
    built = two.build(MACHINE="box")
    assert built.status == 1 and "Traceback" not in built.output
    assert len(built.errors) == 1 and line in built.errors[0], built.output
    assert "seed 3" in two.page("recipes/first")
    assert {file: file.read_bytes() for file in before} == before
