"""The real site, built from the real recipes on this machine: nothing is missing, stale, failed or given away."""

from __future__ import annotations

import getpass
import html
import json
import re
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

from recipe_runner.machine import this_machine
from recipe_runner.recipe import GALLERIES, Recipe, load_all
from recipe_runner.record import Record, Runs, unexpected_warnings

RECIPES = load_all(ROOT)[0]
HTML = ROOT / "_build" / "html"
pytestmark = pytest.mark.usefixtures("built")
every_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)


def page_of(recipe: Recipe) -> str:
    gallery = GALLERIES[Path(recipe.path).parent.as_posix()]
    return (HTML / gallery / f"{recipe.name}.html").read_text(encoding="utf-8")


def record_of(recipe: Recipe) -> Record:
    record = Runs(ROOT / "_build" / "runs").shown(recipe, this_machine().name)
    assert record is not None
    return record


def download(recipe: Recipe, suffix: str) -> Path:
    found = list((HTML / "_downloads").glob(f"*/{recipe.name}{suffix}"))
    assert len(found) == 1, found
    return found[0]


def text_of(page: str) -> str:
    """A page's text, without its tags."""
    return html.unescape(re.sub(r"<[^>]+>", "", page))


@every_recipe
def test_every_recipe_has_a_passed_run_of_its_code_that_took_time(recipe: Recipe):
    run = record_of(recipe).run
    assert (run.status, run.reason) == ("passed", "")
    assert run.blocks == recipe.blocks
    assert run.seconds > 0 and run.host_peak_bytes > 0
    assert run.metrics, "a recipe measures or counts something"


@every_recipe
def test_every_page_shows_the_outputs_of_its_run(recipe: Recipe):
    page = text_of(page_of(recipe))
    assert "Not run" not in page and this_machine().label in page
    for outputs in record_of(recipe).run.outputs:
        for output in outputs:
            if output["output_type"] == "stream":
                # Pygments drops blanks at the ends of lines.
                for line in output["text"].splitlines():
                    assert line.rstrip() in page


@every_recipe
def test_every_page_has_a_card_with_a_picture(recipe: Recipe):
    gallery = GALLERIES[Path(recipe.path).parent.as_posix()]
    index = (HTML / gallery / "index.html").read_text(encoding="utf-8")
    assert recipe.title in text_of(index) and f"{recipe.name}.html" in index
    assert (HTML / "_images" / f"sphx_glr_{recipe.name}_001.png").exists(), "the card shows a figure of the page"


@every_recipe
def test_every_figure_has_an_alternative_text(recipe: Recipe):
    figures = re.findall(r'<img alt="([^"]*)"', page_of(recipe))
    assert figures and all(len(alt) > 10 and not alt.startswith("<Figure") for alt in figures), figures


@every_recipe
def test_every_notebook_is_valid_and_executed(recipe: Recipe):
    notebook = nbformat.read(download(recipe, ".ipynb"), as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"][1:]
    assert [cell.source.strip("\n") for cell in code] == list(recipe.blocks)
    assert json.dumps([cell.outputs for cell in code]) == json.dumps(record_of(recipe).run.outputs)
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert not re.search(r"^\s*\.\. |:\w+:`", prose, re.MULTILINE), "no raw reST in a notebook"
    with zipfile.ZipFile(download(recipe, ".zip")) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".ipynb"))
        assert nbformat.reads(archive.read(member).decode(), as_version=4) == notebook


@every_recipe
def test_no_run_warns_beyond_what_its_recipe_expects(recipe: Recipe):
    assert unexpected_warnings(record_of(recipe), recipe.front_matter.expected_warnings) == []


@every_recipe
def test_every_metric_is_explained(recipe: Recipe):
    explained = recipe.front_matter.metrics
    measured = {name for name in record_of(recipe).run.metrics if "_iqr_" not in name}
    assert measured - explained.keys() == set(), "say in [tool.recipe.metrics] what these are"
    # A machine where compiled code is not faster has no break-even, and a GPU has other batch sizes.
    sometimes = re.compile(r".*_breakeven_calls_count|batch_\d+_speedup_x")
    assert {name for name in explained.keys() - measured if not sometimes.fullmatch(name)} == set(), "no run has these"
    page = text_of(page_of(recipe)).replace("’", "'")
    assert [name for name in measured if explained[name] not in page] == []


@every_recipe
def test_nothing_of_this_machine_is_on_a_page_or_in_a_download(recipe: Recipe):
    home, user, host = str(Path.home()), getpass.getuser(), socket.gethostname()
    traces = [str(ROOT), sys.prefix, sys.base_prefix, f"{home}/", f"/home/{user}", f"torchinductor_{user}", "/recipe-"]
    traces += [host] if len(host) > 3 and host != "localhost" else []
    for text in (page_of(recipe), download(recipe, ".ipynb").read_text(encoding="utf-8")):
        assert [trace for trace in traces if trace in text] == []
        assert "\x1b[" not in text and "\\u001b" not in text, "no colour codes"


def test_the_site_is_verified():
    done = subprocess.run(
        [sys.executable, "-m", "recipe_runner", "verify"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert f"verified: {len(RECIPES)} pages" in done.stdout


def test_conf_and_the_seams_do_not_import_torch():
    code = "import sys, conf, recipe_runner.gallery; print(sorted({'torch', 'nbclient'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_front_page_and_the_results_have_what_the_runs_measured():
    for record in map(record_of, RECIPES):
        speedups = {name: value for name, value in record.run.metrics.items() if name.endswith("speedup_x")}
        results = text_of((HTML / "results.html").read_text(encoding="utf-8"))
        front = text_of((HTML / "index.html").read_text(encoding="utf-8"))
        assert record.run.machine.label in results
        for name, value in speedups.items():
            assert f"{value:,.2f}" in results, name
            assert name.startswith("batch_") or f"{value:,.2f}" in front, name
