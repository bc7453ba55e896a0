"""The checker is itself checked: each way to make a site say what did not run must be found."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Site
from tampering import TAMPERING, download, edit, page

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
    (site.root / "recipes_source/data").mkdir()
    (site.root / "recipes_source/data/n.csv").write_text("3,4\n")
    site.write(
        "recipes_source/third.py",
        "import sys\nfor n in range(60):\n    print('line', n)\nprint('bad', file=sys.stderr)",
        "class Table:\n    def _repr_html_(self):\n"
        "        return '<table><tr><td>1 &lt; 2<br/>after <img src=\"data:,x\"></td></tr></table>'\nTable()",
        "print('    indented\\ttab\\n      more')",
        "claims = dict.fromkeys(['1. looks like a list', '- so does this', \"isn't *bold* -- held on: all\"], True)\n"
        "metrics = {'many_count': 3}",
        docstring="1. *Third*\n==========\n\nOne sentence, and :download:`its numbers </recipes_source/data/n.csv>`.",
        front='data = ["data/n.csv"]\n[tool.recipe.metrics]\nmany_count = "e. g. this, held on the page"',
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
