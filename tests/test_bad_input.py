"""Bad input on a tiny real site: one clear line, a non-zero exit, every other page built, every good run kept."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, Site

BAD_FILES = {
    "no docstring": "print(1)\n",
    "no title": '"""Only a sentence."""\nprint(1)\n',
    "syntax error": '"""\nTitle\n=====\n"""\ndef f(:\n',
    "a word with a meaning in reStructuredText": (
        '# /// script\n# requires-python = ">=3.11"\n# dependencies = []\n# [tool.recipe]\n# "order_ |x" = 1\n# ///\n'
        '"""\nTitle\n=====\n"""\nprint(1)\n'
    ),
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
    assert re.search(r"first .* failed ", site.command("status").output)
    file.write_text(good)
    assert re.search(r"first .* current ", site.command("status").output), "the failure was of other code"
    repaired = site.build()
    assert (repaired.status, repaired.ran) == (0, []), repaired.output
    assert "first says 42" in site.page("recipes/first")
    assert [file.name for file in site.runs()] == ["first.ipynb", "second.ipynb"], "the failure is over"


def test_a_data_file_that_is_edited_under_its_run_makes_it_run_again(site: Site):
    data = site.root / "recipes_source/a.csv"
    data.write_text("one")
    block = f"print(open('a.csv').read())\nfrom pathlib import Path\nPath({str(data)!r}).write_text('two')"
    site.write("recipes_source/first.py", block, front='data = ["a.csv"]')
    assert site.build().status == 0
    again = site.build()
    assert (again.status, again.ran) == (0, ["first"])
    assert "two" in site.page("recipes/first")
    assert site.build().ran == []


def test_a_data_file_that_is_removed_under_its_run_is_one_line(site: Site):
    data = site.root / "recipes_source/a.csv"
    data.write_text("one")
    site.write("recipes_source/first.py", f"import os\nos.remove({str(data)!r})", front='data = ["a.csv"]')
    site.write("recipes_source/third.py", "1 / 0")
    built = site.build()
    assert built.status == 1 and "Traceback" not in built.output
    assert len(built.errors) == 2 and any("first.py: a data file cannot be read" in line for line in built.errors)
    assert any("third.py: block 1 raised ZeroDivisionError" in line for line in built.errors), built.output
    assert [file.name for file in site.runs() if file.name == "first.ipynb"], "its run is good and kept"
    assert "second says 1" in site.page("intermediate/second"), "the other pages are built"
    assert "This page could not be made" in site.page("recipes/first")


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
        len(built.errors) == 1
        and "first.ipynb: not a readable run" in built.errors[0]
        and "Restore the file" in built.errors[0]
    )
    assert file.read_text() == damage, "it is the reader's to restore or to delete"
    assert "not a readable run" in site.page("recipes/first") and "second says 1" in site.page("intermediate/second")
    assert site.build("--rerun", "--only", "first").status == 0, "RERUN=1 heals it too"
    assert "first says 42" in site.page("recipes/first")
    assert json.loads(file.read_text())["cells"] == json.loads(good)["cells"]


def test_only_that_matches_nothing_lists_the_recipes(site: Site):
    built = site.build("--only", "nothing")
    assert built.status == 1
    assert built.errors == ["error: ONLY=nothing: no recipe has this name. Recipes: first, second"]


@pytest.mark.parametrize(
    ("arguments", "environment", "line"),
    [
        (["status"], {"MACHINE": "///"}, "MACHINE=///: not a name for a machine"),
        (["build"], {"SITE_URL": "http://[::1"}, "SITE_URL=http://[::1: not the address of a site"),
        (["run", "--timeout", "nan"], {}, "TIMEOUT=nan: not a time limit"),
        (["run", "--timeout", "inf"], {}, "TIMEOUT=inf: not a time limit"),
        (["run", "--timeout", "abc"], {}, "TIMEOUT=abc: not a time limit"),
        (["run", "--timeout", "0"], {}, "TIMEOUT=0: not a time limit"),
        (["soak", "--times", "some"], {}, "TIMES=some: not a number of runs"),
    ],
)
def test_a_bad_option_is_one_line(site: Site, arguments: list[str], environment: dict[str, str], line: str):
    refused = site.command(*arguments, **environment)
    assert refused.status == 1 and "Traceback" not in refused.output
    assert len(refused.errors) == 1 and f"error: {line}" in refused.errors[0], refused.output
    assert not site.runs()


def test_locks_of_an_editor_are_not_read(site: Site):
    for lock in ("recipes_source/.#first.py", "recipes_source/.#GALLERY_HEADER.rst", ".#index.rst"):
        (site.root / lock).symlink_to("someone@host.1234:5678")
    built = site.build()
    assert (built.status, built.ran) == (0, ["second", "first"]), built.output


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
        # A shell starts what it puts into the background with Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
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
    from recipe_runner.alone import alone_in_clone

    with alone_in_clone(site.root / "_build"):
        built = site.build()
    assert built.status == 1 and built.errors == [
        "error: _build: another build is running in this clone. Wait for its end"
    ]
