"""The whole way on a tiny real site: what runs, what is reused, what a page shows, what bad input does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, Site
from sphinx.errors import ExtensionError

from recipe_runner import gallery


def test_a_build_runs_every_recipe_once_and_the_next_runs_none(site: Site):
    first = site.build()
    assert first.status == 0, first.output
    assert first.ran == ["second", "first"]
    assert "first says 42" in site.page("recipes/first")
    assert "second says 1" in site.page("intermediate/second")
    again = site.build()
    assert (again.status, again.ran) == (0, [])


def test_a_page_shows_what_sphinx_gallery_gives(site: Site):
    site.write(
        "recipes_source/third.py",
        "# sphinx_gallery_tags = ['cold']\nimport json\njson.dumps(1)",
    )
    assert site.build().status == 0
    page = site.page("recipes/third")
    for wanted in ("third.ipynb", "third.py", "third.zip", "Total running time", "cold"):
        assert wanted in page, wanted
    card = site.page("recipes/index")
    assert "One sentence about Third" in card and "sphx_glr_third_thumb" in card
    assert "00:00.00" not in site.page("recipes/sg_execution_times")


def test_a_prose_edit_runs_nothing_and_shows_in_page_and_notebook(site: Site):
    site.build()
    file = site.root / "recipes_source/first.py"
    file.write_text(file.read_text().replace("# Part 2\n# ------", "# Another heading\n# ---------------"))
    edited = site.build()
    assert (edited.status, edited.ran) == (0, [])
    assert "Another heading" in site.page("recipes/first") and "first says 42" in site.page("recipes/first")
    assert "Another heading" in str(site.notebook("first")) and "first says 42" in str(site.notebook("first"))


def test_a_code_edit_runs_that_recipe_only(site: Site):
    site.build()
    file = site.root / "recipes_source/first.py"
    file.write_text(file.read_text().replace("6 * 7", "6 * 8"))
    edited = site.build()
    assert (edited.status, edited.ran) == (0, ["first"])
    assert "first says 48" in site.page("recipes/first") and "first says 42" not in site.page("recipes/first")
    assert "first says 48" in str(site.notebook("first"))


def test_a_moved_cell_mark_runs_that_recipe_only(site: Site):
    site.write("recipes_source/first.py", "x = 1\ny = 2", "print(x)")
    site.build()
    file = site.root / "recipes_source/first.py"
    file.write_text(file.read_text().replace("x = 1\ny = 2", "x = 1\n\n# %%\n# Cut.\n\ny = 2"))
    assert site.build().ran == ["first"]


def test_another_version_of_a_declared_dependency_runs_that_recipe_only(site: Site, tmp_path: Path):
    info = tmp_path / "fakes" / "ingredient.dist-info"
    info.mkdir(parents=True)
    site.write("recipes_source/first.py", "print(1)", dependencies='"ingredient"')
    paths = os.pathsep.join([str(tmp_path / "fakes"), str(ROOT)])
    for version, ran in (("1.0", ["second", "first"]), ("1.0", []), ("2.0", ["first"])):
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ingredient\nVersion: {version}\n")
        assert site.build(PYTHONPATH=paths).ran == ran
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ingredient\nVersion: 3.0\n")
    assert "version of ingredient: 2.0 → 3.0" in site.command("why", "first", PYTHONPATH=paths).output


def test_a_changed_data_file_runs_that_recipe_only(site: Site):
    site.write("recipes_source/first.py", "print(open('a.csv').read())", front='data = ["a.csv"]')
    (site.root / "recipes_source/a.csv").write_text("one")
    assert site.build().status == 0
    (site.root / "recipes_source/a.csv").write_text("two")
    assert site.build().ran == ["first"]
    assert "two" in site.page("recipes/first")


def test_another_machine_runs_all_and_keeps_the_runs_of_the_first(site: Site):
    site.build(MACHINE="Old Box")
    assert site.build(MACHINE="new box").ran == ["second", "first"]
    assert [file.parent.name for file in site.runs()] == ["new-box", "new-box", "old-box", "old-box"]
    assert site.build(MACHINE="Old Box").ran == []
    table = site.command("status", MACHINE="Old Box").output
    assert table.count("current ") == 4 and "old-box" in table and "new-box" in table


def test_why_and_status_name_the_changed_part(site: Site):
    site.build()
    assert "the kept run is current" in site.command("why", "first").output
    file = site.root / "recipes_source/first.py"
    file.write_text(file.read_text().replace("6 * 7", "7 * 7"))
    assert "  code: " in site.command("why", "first").output
    assert "stale (1 changed)" in site.command("status").output


def test_only_runs_one_recipe_and_says_so_on_the_others(site: Site):
    first = site.build("--only", "first")
    assert (first.status, first.ran) == (0, ["first"])
    assert "Not run" in site.page("intermediate/second") and "make html ONLY=second" in site.page("intermediate/second")
    assert "Not run" not in site.page("recipes/first")
    assert site.build().ran == ["second"]
    assert "Not run" not in site.page("intermediate/second")


def test_rerun_ignores_kept_runs(site: Site):
    site.build()
    assert site.build("--rerun", "--only", "first").ran == ["first"]


def test_figures_get_alternative_text_a_card_and_twice_the_pixels(site: Site):
    site.write(
        "recipes_source/first.py",
        "import matplotlib.pyplot as plt\nplt.figure(figsize=(4, 3))\nplt.plot([1, 2])\nplt.title('A line')",
    )
    assert site.build().status == 0
    page = site.page("recipes/first")
    assert 'alt="A line"' in page and "sphx_glr_first_001.png" in page
    from PIL import Image

    image = site.root / "_build/html/_images/sphx_glr_first_001.png"
    with Image.open(image) as picture:
        assert f"width: {picture.width // 2}px" in page
    thumbnail = site.root / "_build/html/_images/sphx_glr_first_thumb.png"
    with Image.open(thumbnail) as picture:
        assert picture.convert("L").getextrema() == (0, 255) or picture.getcolors(maxcolors=16) is None


def test_html_and_expected_errors_are_shown(site: Site):
    site.write(
        "recipes_source/first.py",
        "class Table:\n    def _repr_html_(self):\n        return '<b>bold cell</b>'\nTable()",
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    print('expected:', error)",
    )
    assert site.build().status == 0
    page = site.page("recipes/first")
    assert "<b>bold cell</b>" in page and "expected: division by zero" in page


def test_the_notebook_is_valid_has_outputs_prose_and_no_rest(site: Site):
    site.build()
    for name in ("first", "second"):
        notebook = nbformat.reads(json.dumps(site.notebook(name)), as_version=4)
        nbformat.validate(notebook)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert code[0].source.startswith("# To install") and "%pip" in code[0].source
        assert [cell.execution_count for cell in code[1:]] == list(range(1, len(code)))
        assert any(cell.outputs for cell in code)
        prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        assert "One sentence about" in prose and ".. " not in prose and "/// script" not in prose
    import io
    import zipfile

    archive = next((site.root / "_build/html/_downloads").glob("*/first.zip"))
    with zipfile.ZipFile(archive) as zipped:
        member = next(name for name in zipped.namelist() if name.endswith(".ipynb"))
        assert "first says 42" in io.TextIOWrapper(zipped.open(member), encoding="utf-8").read()


def test_a_removed_recipe_loses_its_page(site: Site):
    site.build()
    (site.root / "intermediate_source/second.py").rename(site.root / "intermediate_source/renamed.py")
    assert site.build().ran == ["renamed"]
    assert not (site.root / "_build/html/intermediate/second.html").exists()
    assert "second" not in site.page("intermediate/index")


BAD_FILES = {
    "no docstring": "print(1)\n",
    "no title": '"""Only a sentence."""\nprint(1)\n',
    "syntax error": '"""\nTitle\n=====\n"""\ndef f(:\n',
    "bad front matter": '# /// script\n# dependencies = 1\n# ///\n"""\nTitle\n=====\n"""\nprint(1)\n',
}
BAD_BLOCKS = {
    "exception in the third block": "1 / 0",
    "sys.exit(0)": "import sys; sys.exit(0)",
    "sys.exit(3)": "import sys; sys.exit(3)",
    "os._exit(0)": "import os; os._exit(0)",
    "segfault": "import ctypes; ctypes.string_at(0)",
    "endless loop": "while True: pass",
    "child left": "import subprocess; subprocess.Popen(['sleep', '16180.5'], start_new_session=True)",
    "bad metrics": "metrics = {'a_s': float('nan')}",
}


@pytest.mark.parametrize("kind", [*BAD_FILES, *BAD_BLOCKS])
def test_a_bad_recipe_costs_its_own_page_only(site: Site, kind: str):
    if kind in BAD_FILES:
        (site.root / "recipes_source/bad.py").write_text(BAD_FILES[kind])
    else:
        site.write("recipes_source/bad.py", "print('good so far')", "x = 2", BAD_BLOCKS[kind])
    built = site.build("--timeout", "4")
    assert built.status == 1
    assert len(built.errors) == 1 and built.errors[0].startswith("error: recipes_source/bad.py: "), built.output
    assert "Traceback" not in built.output and "WARNING" not in built.output
    assert "first says 42" in site.page("recipes/first") and "second says 1" in site.page("intermediate/second")
    page = site.page("recipes/bad")
    if kind in BAD_FILES:
        assert "This page could not be made" in page
    else:
        assert "good so far" in page and "recipe-notice" in page
    assert len([file for file in site.runs() if "failed" not in file.name]) == 2, "all good runs are kept"
    again = site.build("--timeout", "4")
    assert again.status == 1 and again.ran == ([] if kind in BAD_FILES else ["bad"]), "a failed run is never reused"


def test_a_failure_does_not_cost_the_last_good_run(site: Site):
    site.build()
    file = site.root / "recipes_source/first.py"
    good = file.read_text()
    file.write_text(good.replace("6 * 7", "1 / 0"))
    assert site.build().status == 1
    assert "ZeroDivisionError" in site.page("recipes/first") and "first says 42" not in site.page("recipes/first")
    file.write_text(good)
    repaired = site.build()
    assert (repaired.status, repaired.ran) == (0, []), repaired.output
    assert "first says 42" in site.page("recipes/first")


def test_two_recipes_of_one_name(site: Site):
    shutil.copy(site.root / "recipes_source/first.py", site.root / "intermediate_source/first.py")
    built = site.build()
    assert built.status == 1 and len(built.errors) == 2 and "has the same name" in built.errors[0]
    assert "second says 1" in site.page("intermediate/second")


@pytest.mark.parametrize("damage", ["{", "", "[]"])
def test_a_corrupt_run_file(site: Site, damage: str):
    site.build()
    file = next(file for file in site.runs() if file.name == "first.ipynb")
    good = file.read_text()
    file.write_text(damage)
    built = site.build()
    assert (built.status, built.ran) == (1, [])
    assert (
        len(built.errors) == 1 and "first.ipynb: not a readable run" in built.errors[0] and "Delete" in built.errors[0]
    )
    assert "not a readable run" in site.page("recipes/first") and "second says 1" in site.page("intermediate/second")
    assert site.build("--rerun", "--only", "first").status == 0, "RERUN=1 heals it too"
    assert "first says 42" in site.page("recipes/first") and file.read_text() != damage and good


def test_only_that_matches_nothing_lists_the_recipes(site: Site):
    built = site.build("--only", "nothing")
    assert built.status == 1
    assert built.errors == ["error: ONLY=nothing: no recipe has this name. Recipes: first, second"]


def test_a_missing_package_is_named(site: Site):
    site.write("recipes_source/first.py", "print(1)", dependencies='"no-such-package"')
    built = site.build()
    assert built.status == 1 and "package 'no-such-package' is not installed" in built.errors[0]
    assert "second says 1" in site.page("intermediate/second")


def test_an_unsupported_version_is_named(site: Site):
    site.write("recipes_source/first.py", "print(1)", dependencies='"sphinx<2"')
    assert "needs sphinx <2" in site.build().errors[0]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_an_interrupted_build_keeps_what_finished(site: Site, end: signal.Signals):
    site.write(
        "recipes_source/first.py", "import time\ntime.sleep(60 if not __import__('os').path.exists(MARK) else 0)"
    )
    mark = site.root / "mark"
    file = site.root / "recipes_source/first.py"
    file.write_text(file.read_text().replace("MARK", repr(str(mark))))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "recipe_runner", "build"],
        cwd=site.root,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if "first: block 1" in line:
            break
    time.sleep(0.5)
    process.send_signal(end)
    words = process.stderr.read()
    assert process.wait(20) != 0
    if end != signal.SIGKILL:
        assert "finished runs are kept" in words and "Traceback" not in words
    mark.touch()
    built = site.build()
    assert (built.status, built.ran) == (0, ["first"])


def test_two_builds_at_once_do_not_mix(site: Site):
    from recipe_runner.build import alone

    with alone(site.root / "_build"):
        built = site.build()
    assert built.status == 1 and built.errors == [
        "error: _build: another build is running in this clone. Wait for its end"
    ]


def test_replay_shows_recorded_runs_and_runs_nothing(site: Site):
    site.build(MACHINE="box")
    shutil.copytree(site.root / "_build/runs", site.root / "results")
    shutil.rmtree(site.root / "_build")
    # A torch that cannot be imported: neither conf.py nor the seams may need it. The same for Jupyter.
    for module in ("torch", "nbclient", "ipykernel", "jupyter_client", "psutil"):
        (site.root / f"{module}.py").write_text("raise ImportError('must not be imported')")
    replayed = site.command("replay")
    assert (replayed.status, replayed.ran) == (0, []), replayed.output
    assert "first says 42" in site.page("recipes/first") and "first says 42" in str(site.notebook("first"))


def test_record_promotes_good_runs_of_committed_code_only(site: Site):
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=site.root, check=True, capture_output=True)

    site.write("recipes_source/loud.py", "import warnings\nwarnings.warn('beware')")
    site.write("recipes_source/stale.py", "print(1)")
    git("init", "-q")
    git("add", "recipes_source", "intermediate_source")
    git("commit", "-qm", "recipes")
    site.build(MACHINE="box")
    stale = site.root / "recipes_source/stale.py"
    stale.write_text(stale.read_text().replace("print(1)", "print(2)"))
    git("commit", "-qam", "edit")
    edited = site.root / "intermediate_source/second.py"
    edited.write_text(edited.read_text() + "# not committed\n")

    recorded = site.command("record", MACHINE="box")
    assert recorded.status == 1 and "1 runs are in results/box" in recorded.output
    assert [line.partition(": ")[2].partition(": ")[2].partition(".")[0] for line in recorded.errors] == [
        "has changes that are not committed",
        "shows a warning: loud",
        f"its run is not current ({recorded.errors[2].partition('(')[2].partition(')')[0]})",
    ]
    assert [file.name for file in (site.root / "results/box").iterdir()] == ["first.ipynb"]


def test_a_moved_seam_is_refused_with_a_clear_message(monkeypatch):
    gallery.check_seams()
    monkeypatch.setitem(gallery._ORIGINALS, "save_notebook", lambda notebook, path, extra: None)
    with pytest.raises(ExtensionError, match=r"save_notebook takes .*extra.* this Sphinx-Gallery moved a seam"):
        gallery.check_seams()
    monkeypatch.setitem(gallery._ORIGINALS, "execute_script", None)
    with pytest.raises(ExtensionError, match=r"execute_script takes None"):
        gallery.check_seams()
