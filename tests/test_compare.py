"""`make compare`: what it names, what it ignores, what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from conftest import Site

from recipe_runner.compare import metric_changes, normalised
from recipe_runner.record import Runs


def test_numbers_that_may_differ_are_ignored_and_others_are_not():
    one = (
        "at 0x7f12 torch 2.15.0+cu132 took 1,234 calls, 1.25 ms\n----  -----\nfile.py:12 [0/1] 3 graphs\neager  12  0.5"
    )
    other = (
        "at 0x9a torch 2.11.0+cu130 took 999 calls, 10.5 ms\n-----  ------\nfile.py:99 [2/0] 3 graphs\neager  9  0.1"
    )
    assert normalised(one.replace("1,234", "2,222")) == normalised(one)
    assert normalised(one) == normalised(other)
    assert normalised(one.replace("3 graphs", "4 graphs")) != normalised(one)


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ({"a_ms": 2.0, "a_iqr_ms": 0.1}, {"a_ms": 2.15, "a_iqr_ms": 0.1}, []),
        ({"a_ms": 2.0, "a_iqr_ms": 0.1}, {"a_ms": 3.0, "a_iqr_ms": 0.1}, ["a_ms: 2 → 3, 1.50 times (spread 0.2)"]),
        ({"a_count": 3}, {"a_count": 4}, ["a_count: 3 → 4, 1.33 times (exact)"]),
        ({"a_x": 2.0}, {"a_x": 2.9}, []),
        ({"breakeven_calls_count": 100}, {"breakeven_calls_count": 120}, []),
        ({"a_x": 2.0}, {"a_x": 3.1}, ["a_x: 2 → 3.1, 1.55 times (no spread recorded)"]),
        ({"a_s": 1.0}, {"b_s": 1.0}, ["a_s: only in OLD", "b_s: only in NEW"]),
    ],
)
def test_metrics_are_compared_with_their_spread(old: dict, new: dict, lines: list[str]):
    assert metric_changes(old, new) == lines


def test_two_sets_of_runs_are_compared_recipe_by_recipe(site: Site):
    site.write("recipes_source/same.py", "import time\nprint(time.time())")
    site.write(
        "recipes_source/first.py",
        "print('graphs', 3)",
        "metrics = {'graphs_count': 3}\nclaims = {'it is fast': True}",
    )
    assert site.build(MACHINE="old").status == 0
    assert site.build(MACHINE="new").status == 0
    alike = site.command("compare", "old", "new")
    assert alike.status == 0 and "No difference: first, same, second" in alike.output

    # What another torch could have made of the same code.
    runs = Runs(site.root / "_build/runs")
    record = runs.load("new", "first")
    text = json.dumps(record.run.outputs).replace("graphs 3", "graphs 4\\nDeprecationWarning: this is old")
    run = replace(
        record.run, outputs=tuple(json.loads(text)), metrics={"graphs_count": 4}, claims={"it is fast": False}
    )
    runs.save(replace(record, run=run))
    changed = site.command("compare", "_build/runs/old", "_build/runs/new").output
    assert "No difference: same, second" in changed
    for line in (
        "-graphs 3",
        "+graphs 4",
        "graphs_count: 3 → 4, 1.33 times (exact)",
        "it is fast: held → did not hold",
        "New warnings",
    ):
        assert line in changed
    page = (site.root / "_build/compare.html").read_text()
    assert "graphs 4" in page and "<html" in page


def test_a_copied_folder_may_have_any_name(site: Site):
    assert site.build(MACHINE="box").status == 0
    shutil.copytree(site.root / "_build/runs/box", site.root / "before")
    compared = site.command("compare", "before", "box")
    assert compared.status == 0 and "No difference: first, second" in compared.output, compared.output


def test_a_folder_without_runs_is_refused_with_the_folders_that_have_some(site: Site):
    site.build(MACHINE="box")
    refused = site.command("compare", "nowhere", "box")
    assert (refused.status, refused.errors) == (
        1,
        ["error: OLD=nowhere: no runs there. Folders with runs: _build/runs/box"],
    )
