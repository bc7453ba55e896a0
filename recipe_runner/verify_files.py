"""Are the files that a site offers what its pages show? Part of ``verify``.

Scripts, notebooks, their archives, and the results as JSON and CSV. Of a notebook, the code and the outputs are read,
not the prose.
"""

from __future__ import annotations

import contextlib
import csv
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from recipe_runner.page_text import PageText
from recipe_runner.recipe import Recipe
from recipe_runner.record import Record
from recipe_runner.verify_results import Said

_CSV_HEAD = ["kind", "recipe", "metric", "value", "machine", "version", "date", "source"]
_ANEW = "Build it anew"


def is_named(record: Record, facts: Sequence[str]) -> bool:
    """Whether the parts of a line about a run, on a page or in a notebook, are those of this run."""
    run, day = record.run, datetime.fromisoformat(record.run.started)
    versions = [f"torch {run.versions['torch']}"] if "torch" in run.versions else []
    wanted = [*versions, f"Python {run.versions['python']}", f"{day.day} {day:%B %Y}", f"{run.seconds:.0f} s"]
    wanted.append(f"{run.host_peak_bytes / 1024**3:.1f} GiB of memory at most")
    if run.device_peak_bytes is not None:
        wanted.append(f"{run.device_peak_bytes / 1024**3:.1f} GiB of GPU memory at most")
    machine = run.machine
    names = (f"Ran on {machine.label}", f"Ran on {machine.label} ({machine.name})")
    return facts[0] in names and list(facts[1:]) == wanted


def download_problems(recipe: Recipe, page_file: Path, page: PageText, record: Record) -> Iterator[str]:
    """What is wrong with a page's downloads: the recipe's file, a notebook with the outputs of the run, both zipped."""
    source = (recipe.root / recipe.path).read_bytes()
    data = {file.read_bytes() for file in recipe.data_files.values()}
    files = {suffix: [] for suffix in ("py", "ipynb", "zip")}
    for link in page.downloads:
        file, suffix = page_file.parent / unquote(link), link.rpartition(".")[2]
        elsewhere = bool(urlsplit(link).scheme or urlsplit(link).netloc)
        if file.name == f"{recipe.name}.{suffix}" and suffix in files and not elsewhere:
            files[suffix] += [file] if file.is_file() else []
        elif suffix in files or not (elsewhere or (file.is_file() and file.read_bytes() in data)):
            yield f"{recipe.page}.html: offers {link}, which is not a file of this recipe. {_ANEW}"
    for suffix in [suffix for suffix, found in files.items() if not found]:
        yield f"{recipe.page}.html: offers no {recipe.name}.{suffix}. {_ANEW}"
    for file in files["py"]:
        if file.read_bytes() != source:
            yield f"{file.name}: is not {recipe.path}. {_ANEW}"
    for file in files["ipynb"]:
        if not _is_run(file.read_bytes(), record):
            yield f"{file.name}: does not hold the code and the outputs of its page. {_ANEW}"
    for file in files["zip"]:
        script, notebook = _members(file, "py"), _members(file, "ipynb")
        good = len(script) == len(notebook) == 1 and len(_members(file)) == 2
        if not good or script[0] != source or not _is_run(notebook[0], record):
            yield f"{file.name}: does not hold the script and the notebook of its page. {_ANEW}"


def archive_problems(site: Path, recipes: Sequence[Recipe]) -> Iterator[str]:
    """What is wrong with the archives of whole galleries, if the pages' own files are right."""
    names = {recipe.name for recipe in recipes}
    good = {(recipe.root / recipe.path).read_bytes() for recipe in recipes}
    good |= {file.read_bytes() for name in names for file in site.glob(f"_downloads/*/{name}.ipynb")}
    for folder in sorted({Path(recipe.page).parent for recipe in recipes}):
        index = site / folder / "index.html"
        page = PageText(index.read_text(encoding="utf-8", errors="replace")) if index.is_file() else PageText("")
        for file in [index.parent / unquote(link) for link in page.downloads if link.endswith(".zip")]:
            if not file.is_file() or not set(_members(file)) <= good:
                yield f"{folder}/index.html: {file.name} is not an archive of its scripts or notebooks. {_ANEW}"


def _members(file: Path, suffix: str = "") -> list[bytes]:
    """The contents of an archive's files with a suffix; one that matches nothing if it is not an archive."""
    try:
        with zipfile.ZipFile(file) as archive:
            return [archive.read(member) for member in archive.infolist() if member.filename.endswith(suffix)]
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError):
        return [b""]


def listed_runs(site: Path) -> set[tuple[str, str, str]]:
    """Recipe, machine and start of the runs in ``results.json``: of two runs that look alike, that one is shown."""
    listed = set()
    for file in site.glob("_downloads/*/results.json"):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            runs = json.loads(file.read_text(encoding="utf-8"))["runs"]
            listed |= {(run["recipe"], run["machine"]["name"], run["started"]) for run in runs}
    return listed


def results_problems(site: Path, said: Said) -> Iterator[str]:
    """What is wrong with the results as JSON and as CSV, which the page of all results offers."""
    page = PageText((site / "results.html").read_text(encoding="utf-8", errors="replace"))
    problems = {"results.json": _json_problems, "results.csv": _csv_problems}
    names = [Path(unquote(link)).name for link in page.downloads]
    elsewhere = [link for link in page.downloads if urlsplit(link).scheme or urlsplit(link).netloc]
    if sorted(names) != sorted(problems) or elsewhere:
        yield f"results.html: offers no results.json, no results.csv, or another file. {_ANEW}"
        return
    for name, link in zip(names, page.downloads, strict=True):
        if (file := site / unquote(link)).is_file():
            yield from problems[name](file.read_text(encoding="utf-8", errors="replace"), said)
        else:
            yield f"{name}: there is no such file. {_ANEW}"


def _json_problems(text: str, said: Said) -> Iterator[str]:
    def entry(record: Record, current: bool) -> str:
        run = record.run
        parts = {part: getattr(run, part) for part in ("started", "seconds", "device", "versions", "metrics", "claims")}
        return canonical({"recipe": run.name, "machine": run.machine.as_dict(), "current_code": current, **parts})

    def canonical(value: Any) -> str:
        return json.dumps(value, sort_keys=True)  # Python's own equality takes 1 for true.

    def without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError
        return dict(pairs)

    try:
        found = json.loads(text, object_pairs_hook=without_doubles)
        recipes, runs, published = (found[key] for key in ("recipes", "runs", "published"))
        current = [canonical(run) for run in runs if run["current_code"] is not False]
        others = [canonical(run) for run in runs if run["current_code"] is False]
    except (ValueError, KeyError, TypeError):
        yield f"results.json: not readable. {_ANEW}"
        return
    older = [entry(record, False) for record in said.older]
    shown = [entry(record, True) for record in said.all_shown]
    if current != shown or not all(run in older for run in others) or len(found) != 3:
        yield f"results.json: its runs are not those that the pages show. {_ANEW}"
    named = {r.name: {"title": r.title, "metrics": dict(r.front_matter.metrics)} for r in said.shown}
    if recipes != named:
        yield f"results.json: does not name recipes and metrics as the recipes do. {_ANEW}"
    if canonical(published) != canonical([vars(figure) for figure in said.figures]):
        yield f"results.json: its published figures are not those of results/published.toml. {_ANEW}"


def _csv_problems(text: str, said: Said) -> Iterator[str]:
    def rows_of(record: Record, kind: str) -> list[list[str]]:
        run = record.run
        version = f"torch {run.versions['torch']}" if "torch" in run.versions else ""
        facts = [run.machine.label, version, run.started, ""]
        return [[kind, run.name, name, str(value), *facts] for name, value in run.metrics.items()]

    wanted = [_CSV_HEAD, *(row for record in said.all_shown for row in rows_of(record, "measured"))]
    wanted += [
        ["published", f.recipe, f.metric, str(f.value), f.machine, f.version, f.date, f.address] for f in said.figures
    ]
    older = [row for record in said.older for row in rows_of(record, "measured, older code")]
    if [row for row in csv.reader(text.splitlines()) if row not in older] != wanted:
        yield f"results.csv: its rows are not the figures that the pages show. {_ANEW}"


def _is_run(notebook: bytes, record: Record) -> bool:
    try:
        every = json.loads(notebook)["cells"]
        if {cell["cell_type"] for cell in every} != {"code", "markdown"}:
            return False
        prose = "\n".join("".join(cell["source"]) for cell in every if cell["cell_type"] == "markdown")
        named = re.search(r"^\*\*The outputs below:\*\* ran on \*\*(.*?)\*\*(.*)$", prose, re.MULTILINE)
        cells = [cell for cell in every if cell["cell_type"] == "code"]
        code = ["".join(cell["source"]).strip("\n") for cell in cells]
        outputs = [[_joined(output) for output in cell["outputs"]] for cell in cells]
    except (ValueError, KeyError, TypeError):
        return False
    # The first cell installs packages, commented out.
    installs = code and all(line.startswith("#") for line in code[0].splitlines()) and outputs[0] == []
    facts = [f"Ran on {named[1]}", *map(str.strip, named[2].split("·")[1:])] if named else [""]
    return (
        bool(installs)
        and is_named(record, facts)
        and (code[1:], outputs[1:]) == (list(record.run.blocks), list(map(list, record.run.outputs)))
    )


def _joined(output: dict[str, Any]) -> dict[str, Any]:
    """A notebook may hold a text as a list of its lines."""
    joined = {k: "".join(v) if k == "text" else v for k, v in output.items()}
    if "data" in output:
        joined["data"] = {k: "".join(v) if isinstance(v, list) else v for k, v in output["data"].items()}
    return joined
