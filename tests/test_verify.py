"""The checker is itself checked: each way to make a site say what did not run must be found."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Site

from recipe_runner.machine import this_machine
from recipe_runner.record import Runs

FIGURE = """
[[figure]]
recipe = "first"
metric = "speedup_x"
value = 3.5
unit = "x"
what = "ResNet-18, batch 16"
machine = "Cray-1"
version = "torch 2.5"
source = "A tutorial"
address = "https://example.org/tutorial"
date = "2026-01-31"
"""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of two machines that verifies, built once; each test gets a copy."""
    import conftest

    site = conftest.site.__wrapped__(tmp_path_factory.mktemp("good"))
    with (site.root / "index.rst").open("a") as index:
        index.write("\n.. include:: headlines.txt\n")
    (site.root / "results").mkdir()
    (site.root / "results" / "published.toml").write_text(FIGURE)
    conftest.two.__wrapped__(site)
    site.write(
        "recipes_source/third.py",
        "import sys\nfor n in range(60):\n    print('line', n)\nprint('bad', file=sys.stderr)",
        "class Table:\n    def _repr_html_(self):\n"
        "        return '<table><tr><td>1 &lt; 2<br/>after <img src=\"data:,x\"></td></tr></table>'\nTable()",
        "print('    indented\\ttab\\n      more')",
    )
    assert site.build(MACHINE="box").status == 0
    # A local run of another day with the same outputs: a replay shows the published one.
    third = Runs(site.root / "_build/runs").load("box", "third")
    published = replace(third, run=replace(third.run, started="2025-05-03T10:00:00+00:00", seconds=15.0))
    Runs(site.root / "results").save(published)
    first = Runs(site.root / "results").load("other", "first")
    Runs(site.root / "results").save(replace(first, run=replace(first.run, started="2025-05-13T10:00:00+00:00")))
    assert site.build(MACHINE="box").status == 0
    return site.root


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Site:
    import shutil

    shutil.copytree(good, tmp_path / "copy", symlinks=True)
    return Site(tmp_path / "copy")


def test_a_site_that_shows_what_ran_is_verified(copy: Site):
    done = copy.command("verify")
    assert (done.status, done.errors) == (0, []), done.output
    assert "verified: 3 pages" in done.output


def test_indents_and_tabs_are_shown_as_a_terminal_shows_them(copy: Site):
    assert ">    indented    tab\n      more\n" in copy.page("recipes/third").replace("<span></span>", "")


def test_a_replay_of_the_same_outputs_on_another_day_is_verified(copy: Site):
    for name in ("recipes_source/first.py", "intermediate_source/second.py", "results/published.toml"):
        (copy.root / name).unlink()
    (copy.root / "results/other").rename(copy.root / "results_of_other")
    assert copy.command("replay", "--machine", "box").status == 0
    assert "3 May 2025" in copy.page("recipes/third")
    done = copy.command("verify")
    assert (done.status, done.errors) == (0, []), done.output


def test_a_replay_that_lacks_a_run_is_not_verified(copy: Site):
    (copy.root / "results/box/third.ipynb").unlink()
    assert copy.command("replay", "--machine", "other").status == 0
    done = copy.command("verify")
    assert done.status == 1 and len(done.errors) == 1 and "third.html" in done.errors[0], done.output


def test_a_whole_replay_is_verified(copy: Site):
    (copy.root / "recipes_source/third.py").unlink()
    (copy.root / "results/box/third.ipynb").unlink()
    assert copy.command("replay", "--machine", "other").status == 0
    done = copy.command("verify")
    assert (done.status, done.errors) == (0, []), done.output


def test_runs_of_older_code_are_listed_and_verified(copy: Site):
    copy.write("recipes_source/first.py", "print('seed', 4)", "metrics = {'speedup_x': 2.5}")
    assert copy.build(MACHINE="box").status == 0
    results = page(copy, "results").read_text(encoding="utf-8")
    assert "older code" in results and "older code" in download(copy, "results.csv").read_text(encoding="utf-8")
    done = copy.command("verify")
    assert (done.status, done.errors) == (0, []), done.output
    edit(page(copy, "results"), "2025-05-13", "2026-05-13")
    assert "does not name the runs" in copy.command("verify").output


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text, f"{file}: no {old!r}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def swapped_labels(file: Path) -> None:
    """Exchange the machines' names on all tabs, and nothing else."""
    other = {"box": "other", "other": "box"}
    text, count = re.subn(
        r"(sd-tab-label[^>]*>[^<]*\()(box|other)\)",
        lambda match: f"{match[1]}{other[match[2]]})",
        file.read_text(encoding="utf-8"),
    )
    assert count >= 2
    file.write_text(text, encoding="utf-8")


def page(site: Site, name: str = "recipes/first") -> Path:
    return site.root / "_build/html" / f"{name}.html"


def download(site: Site, name: str) -> Path:
    (file,) = (site.root / "_build/html/_downloads").glob(f"*/{name}")
    return file


def tampered_zip(site: Site) -> None:
    file = download(site, "first.zip")
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(b"seed 3", b"seed 4"))


def other_picture(site: Site) -> None:
    picture = next((site.root / "_build/html/_images").glob("sphx_glr_first_001.png"))
    picture.write_bytes(picture.read_bytes() + b"more")


def run_without_time(site: Site) -> None:
    for folder, machine in (("_build/runs", "box"), ("results", "other")):
        record = Runs(site.root / folder).load(machine, "first")
        Runs(site.root / folder).save(replace(record, run=replace(record.run, seconds=0.0)))


def without_runs(site: Site) -> None:
    for file in site.root.glob("*/**/third.ipynb"):
        if "html" not in file.parts and "source" not in file.parts:
            file.unlink()


TAMPERING: dict[str, tuple[Callable[[Site], None], str]] = {
    "an output": (
        lambda s: edit(page(s), "seed 3", "seed 4"),
        "outputs of block 1 are not those of the run that it names",
    ),
    "another machine's output": (lambda s: edit(page(s), "seed 5", "seed 4"), "outputs of block 1"),
    "standard error": (lambda s: edit(page(s, "recipes/third"), ">bad\n", ">good\n"), "outputs of block 1"),
    "HTML": (lambda s: edit(page(s, "recipes/third"), "1 &lt; 2", "2 &lt; 1"), "outputs of block 2"),
    "a picture": (other_picture, "outputs of block 2"),
    "the code": (lambda s: edit(page(s), ">42<", ">43<"), "does not show the code of"),
    "HTML after a line break": (
        lambda s: edit(page(s, "recipes/third"), "<br/>after", "<br/>before"),
        "outputs of block 2",
    ),
    "a picture in HTML": (
        lambda s: edit(page(s, "recipes/third"), 'src="data:,x"', 'src="data:,y"'),
        "outputs of block 2",
    ),
    "an indent": (
        lambda s: edit(page(s, "recipes/third"), "</span>    indented", "</span>  indented"),
        "outputs of block 3",
    ),
    "the machine": (lambda s: edit(page(s), this_machine().label, "Cray"), "is about no passed run"),
    "the machines of two panels": (lambda s: swapped_labels(page(s)), "outputs of block 1"),
    "the day": (lambda s: edit(page(s), "13 May 2025", "3 May 2025"), "is about no passed run"),
    "the seconds": (lambda s: edit(page(s), " s · ", "9 s · "), "is about no passed run"),
    "the version": (lambda s: edit(page(s), "Python 3", "Python 4"), "is about no passed run"),
    "no line about its runs": (lambda s: edit(page(s), "Ran on", "Seen on"), "names no machine"),
    "a metric": (lambda s: edit(page(s), "2.00 ×", "3.00 ×"), "is not metric 'speedup_x'"),
    "what a metric is": (
        lambda s: edit(page(s), "time of one ÷ time of the other", "time of all"),
        "is not metric 'speedup_x'",
    ),
    "a spread": (lambda s: edit(page(s), "± 0.10", "± 0.01"), "is not metric 'call_ms'"),
    "no spread": (lambda s: edit(page(s), " ± 0.10", ""), "is not metric 'call_ms'"),
    "a unit": (lambda s: edit(page(s), ">call, ms<", ">call, µs<"), "is not metric 'call_ms'"),
    "a machine of the results": (
        lambda s: edit(page(s), "(box)</p></th>", "(crate)</p></th>"),
        "are not the machines of its runs",
    ),
    "a published figure": (
        lambda s: edit(page(s), "Published: 3.5", "Published: 5.3"),
        "is not the published figure of 'speedup_x'",
    ),
    "the source of a published figure": (
        lambda s: edit(page(s), "A tutorial", "B tutorial"),
        "is not the published figure of 'speedup_x'",
    ),
    "the front page": (lambda s: edit(page(s, "index"), "2.00 ×", "3.00 ×"), "index.html: the row"),
    "the page of results": (lambda s: edit(page(s, "results"), "2.00 ×", "3.00 ×"), "results.html: the row"),
    "a claim on the page of results": (
        lambda s: edit(page(s, "results"), "<strong>did not hold</strong>", "held"),
        "results.html: does not say of",
    ),
    "the table of runs": (
        lambda s: edit(page(s, "results"), ">2025-05-13<", ">2026-05-13<"),
        "results.html: its last table does not name",
    ),
    "a row less in the table of runs": (
        lambda s: edit(page(s, "results"), ">current<", ">older<"),
        "results.html: its last table does not name",
    ),
    "no page of results": (lambda s: page(s, "results").unlink(), "results.html: there is no such page"),
    "the JSON": (
        lambda s: edit(download(s, "results.json"), '"answer_count": 42', '"answer_count": 43'),
        "results.json:",
    ),
    "the JSON's published figure": (
        lambda s: edit(download(s, "results.json"), '"value": 3.5', '"value": 5.3'),
        "published figures are not those",
    ),
    "the JSON's explanation": (
        lambda s: edit(download(s, "results.json"), "time of one", "time of two"),
        "does not explain the metrics as the recipes do",
    ),
    "a broken JSON": (lambda s: edit(download(s, "results.json"), '"runs"', '"walks"'), "results.json: not readable"),
    "the CSV": (lambda s: edit(download(s, "results.csv"), "answer_count,42", "answer_count,43"), "results.csv: its"),
    "no CSV": (lambda s: download(s, "results.csv").unlink(), "offers no results.csv"),
    "a metric's name": (lambda s: edit(page(s), ">speedup<", ">slowdown<"), "is not metric 'speedup_x'"),
    "a claim": (lambda s: edit(page(s), "<strong>did not hold</strong>", "held"), "does not say of"),
    "a claim that is exact": (
        lambda s: edit(page(s), "one and one is two: held on", "one and one is two: did not hold on"),
        "does not say of 'one and one is two'",
    ),
    "a claim of nobody": (
        lambda s: edit(page(s), "<li><p>one and", "<li><p>it is fast: held on Cray.</p></li>\n<li><p>one and"),
        "says 'it is fast: held on Cray.', which its runs did not find",
    ),
    "the notebook's day": (
        lambda s: edit(download(s, "third.ipynb"), "\\u00b7 Python", "\\u00b7 Ruby"),
        "does not hold",
    ),
    "a metric of a run": (
        lambda s: edit(s.root / "results/other/first.ipynb", '"speedup_x": 2.0', '"speedup_x": 9.0'),
        "does not match its hash",
    ),
    "no page": (lambda s: page(s).unlink(), "there is no such page"),
    "a page of nothing": (lambda s: page(s, "recipes/gone").write_text("<html>"), "the page of no recipe"),
    "the script": (lambda s: edit(download(s, "first.py"), "seed", "need"), "is not recipes_source/first.py"),
    "the notebook's output": (lambda s: edit(download(s, "first.ipynb"), "seed 3", "seed 4"), "does not hold"),
    "the notebook's code": (lambda s: edit(download(s, "first.ipynb"), "'seed'", "'need'"), "does not hold"),
    "no notebook": (lambda s: download(s, "first.ipynb").unlink(), "offers no first.ipynb"),
    "the bundle": (tampered_zip, "first.zip: does not hold"),
    "a published run": (
        lambda s: edit(s.root / "results/other/first.ipynb", "seed 5", "seed 6"),
        "does not match its hash",
    ),
    "a local run": (lambda s: edit(s.root / "_build/runs/box/first.ipynb", "seed 3", "seed 4"), "does not match its"),
    "a run of no time": (run_without_time, "no passed run of its code"),
    "no run": (without_runs, "no passed run of its code"),
    "a changed recipe": (lambda s: edit(s.root / "recipes_source/first.py", "'seed', 3", "'seed', 7"), "no passed run"),
    "a recipe that is no recipe": (lambda s: edit(s.root / "recipes_source/first.py", "# ///", "#"), "expected one"),
    "a new recipe": (lambda s: s.write("recipes_source/fourth.py", "print(4)"), "there is no such page"),
}


@pytest.mark.parametrize("tamper", TAMPERING)
def test_what_is_not_so_is_found(copy: Site, tamper: str):
    change, expected = TAMPERING[tamper]
    change(copy)
    done = copy.command("verify")
    assert done.status == 1 and done.errors, done.output
    assert any(expected in line for line in done.errors), done.output
    assert "verified:" not in done.output


def test_an_only_build_of_a_fresh_clone_is_not_verified(site: Site):
    assert site.build("--only", "first").status == 0
    done = site.command("verify")
    assert done.status == 1 and re.search(r"second\.html: no passed run", done.output), done.output


def test_a_failed_recipe_is_not_verified(site: Site):
    site.write("recipes_source/first.py", "print('so far')\n1 / 0")
    assert site.build().status == 1
    done = site.command("verify")
    assert done.status == 1 and "first.html: no passed run" in done.output, done.output


def test_no_site_is_one_line(site: Site):
    done = site.command("verify")
    assert done.status == 1 and len(done.errors) == 1 and "make html" in done.errors[0]
