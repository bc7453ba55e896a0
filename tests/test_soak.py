"""`make soak`: what must be exact makes it fail, what was timed is shown with its spread."""

from __future__ import annotations

import re

from conftest import Site

#: Counts the runs of a recipe, outside of its working directory.
TURN = "from pathlib import Path\nfile = Path({!r})\nturn = int(file.read_text()) + 1 if file.exists() else 1\n"
TURN += "file.write_text(str(turn))\n"


def test_a_good_site_passes_and_shows_the_spread(site: Site):
    turn = TURN.format(str(site.root / "turn"))
    site.write(
        "recipes_source/first.py",
        f"{turn}assert turn, 'it has run'",
        "metrics = {'answer_count': 42, 'call_ms': 1.0 + turn, 'call_iqr_ms': turn / 10}\n"
        "if turn > 1:\n    metrics['breakeven_calls_count'] = 10 * turn\n"
        "claims = {'the second run is slow': turn != 2, 'always': True}",
    )
    done = site.command("soak", MACHINE="box")
    assert (done.status, done.errors) == (0, []), done.output
    assert done.ran == ["first", "second"] * 3 or done.ran == ["second", "first"] * 3
    row = re.search(r"^first +call_ms +3 +3 +2 +4 +66\.7 %$", done.output, re.MULTILINE)
    assert row, done.output
    assert re.search(r"^first +breakeven_calls_count +2 +25 +20 +30 +40\.0 %$", done.output, re.MULTILINE)
    assert "call_iqr_ms" not in done.output and "answer_count" not in done.output
    assert re.search(r"^first +the second run is slow +1, 3 +2$", done.output, re.MULTILINE), done.output
    assert "always" not in done.output
    kept = sorted(file.relative_to(site.root).as_posix() for file in site.root.glob("_build/soak/*/*/*.ipynb"))
    assert kept == [f"_build/soak/{n}/box/{name}.ipynb" for n in (1, 2, 3) for name in ("first", "second")]
    assert site.runs() == [], "the site's own runs are not touched"


def test_a_count_that_differs_fails_and_is_named(site: Site):
    site.write(
        "recipes_source/first.py", TURN.format(str(site.root / "turn")) + "metrics = {'answer_count': min(turn, 2)}"
    )
    done = site.command("soak", "--times", "2", "--only", "first")
    assert (done.status, done.ran) == (1, ["first", "first"]), done.output
    assert len(done.errors) == 1, done.errors
    assert done.errors[0].startswith("error: recipes_source/first.py: answer_count: 1 in run 1, 2 in run 2. ")


def test_a_failed_run_fails_the_soak_with_its_number(site: Site):
    site.write("recipes_source/first.py", TURN.format(str(site.root / "turn")) + "assert turn != 2, 'not the second'")
    done = site.command("soak", "--only", "first")
    assert done.status == 1
    line = "error: recipes_source/first.py: run 2 failed: block 1 raised AssertionError: not the second. "
    assert done.errors == [f"{line}Its output is in _build/soak/2"], done.output


def test_an_interruption_keeps_and_compares_the_finished_runs(site: Site):
    turn = TURN.format(str(site.root / "turn"))
    ask = (
        "import os, signal\nif turn == 3:\n    os.kill(int(Path(os.environ['SOAK_PID']).read_text()), signal.SIGINT)\n"
    )
    ask += "    import time; time.sleep(60)\n"
    site.write("recipes_source/first.py", f"{turn}{ask}metrics = {{'call_ms': float(turn)}}")
    code = "import os, signal, sys\nfrom pathlib import Path\nfrom recipe_runner.__main__ import main\n"
    code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "Path(os.environ['SOAK_PID']).write_text(str(os.getpid()))\nsys.exit(main(['soak', '--only', 'first']))"
    done = site.python(code, SOAK_PID=str(site.root / "pid"))
    assert done.status == 130, done.output
    assert re.search(r"^first +call_ms +2 ", done.output, re.MULTILINE), done.output
    assert len(list(site.root.glob("_build/soak/*/*/first.ipynb"))) == 2
    assert "only the finished runs are compared" in done.output


def test_one_run_is_refused(site: Site):
    done = site.command("soak", "--times", "1")
    assert (done.status, done.errors) == (1, ["error: TIMES=1: nothing to compare. Give 2 or more"])


def test_a_name_that_no_recipe_has_is_refused_before_old_runs_go(site: Site):
    (site.root / "_build/soak/1").mkdir(parents=True)
    done = site.command("soak", "--only", "third")
    assert done.status == 1 and done.errors[0].startswith("error: ONLY=third: no recipe has this name")
    assert (site.root / "_build/soak/1").exists()
