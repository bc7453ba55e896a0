"""``python -m recipe_runner verify FOLDER``: does a built site show what ran, and only that?

Every recipe must have a page, a notebook and a script; the code on them must be the recipe's; the outputs must be
those of a passed run of exactly this code, and all tables and lists of results those of the runs on the pages. There is
no list of exceptions. It reads the recipes, the runs and the site's files; it shares no code with what renders pages.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from recipe_runner.page_text import Block, PageText, Piece, normal
from recipe_runner.published import load as load_figures
from recipe_runner.recipe import Recipe, RecipeError, load_all
from recipe_runner.record import Record, Runs, from_notebook
from recipe_runner.verify_files import archive_problems, download_problems, is_named, listed_runs, results_problems
from recipe_runner.verify_results import Said, page_problems, site_problems

_PASSED = "passed"

#: What a page shows of one machine: for each block its pieces of output.
Column = Sequence[Sequence[Piece]]


def verify(root: Path, site: Path) -> int:
    """Print one line for each thing that is not so. Returns the exit status.

    Raises
    ------
    RecipeError
        If there is no site in the folder.
    """
    if not (site / "index.html").is_file():
        raise RecipeError(site, "no site is here", "Build one with: make html, or: make replay")
    recipes, errors = load_all(root)
    problems = [str(error) for error in errors.values()]
    records: list[Record] = []
    for folder in (root / "_build" / "runs", root / "results"):
        for file in sorted(folder.glob("*/*.ipynb")):
            try:
                record = from_notebook(file.read_text(encoding="utf-8"), file.relative_to(root))
            except (RecipeError, UnicodeDecodeError) as error:
                problems.append(str(error))
                continue
            if record.run.status == _PASSED and Runs(folder).file(record.run.machine.name, record.run.name) == file:
                records.append(record)
    listed = listed_runs(site)
    records.sort(key=lambda record: (record.run.name, record.run.machine.name, record.run.started) not in listed)
    if not recipes:
        problems.append("no recipe: a site of nothing is not verified")
    figures, shown, older = [], {}, []
    try:
        figures = load_figures(root / "results")
    except RecipeError as problem:
        problems.append(str(problem))
    for recipe in recipes:
        of_recipe = [record for record in records if record.run.name == recipe.name]
        older += [record for record in of_recipe if record.run.blocks != recipe.blocks]
        page_file = site / f"{recipe.page}.html"
        try:
            page = PageText(page_file.read_text(encoding="utf-8", errors="replace")) if page_file.is_file() else None
            shown[recipe] = _shown(recipe, page_file, page, of_recipe)
            problems += page_problems(recipe, page, shown[recipe], figures)
            problems += download_problems(recipe, page_file, page, shown[recipe][0])
        except _PageError as problem:
            problems.append(f"{recipe.page}.html: {problem}")
        except Exception as error:  # noqa: BLE001  Whatever a damaged file makes a parser raise says that it is damaged.
            problems.append(f"{recipe.page}.html: it or its downloads cannot be read ({error!r}). Build it anew")
    if recipes and len(shown) == len(recipes):  # Else it is not known what the other pages must say.
        said = Said(shown, older, figures)
        try:
            problems += site_problems(root, site, said)
            problems += results_problems(site, said) if (site / "results.html").is_file() else []
            problems += archive_problems(site, recipes)
        except Exception as error:  # noqa: BLE001  As above.
            problems.append(f"results.html: it, its downloads or an archive cannot be read ({error!r}). Build it anew")
    pages = {f"{recipe.page}.html" for recipe in recipes}
    for folder in {Path(page).parent for page in pages}:
        for file in sorted((site / folder).glob("*.html")):
            name = file.relative_to(site).as_posix()
            if file.name != "index.html" and name not in pages:
                problems.append(f"{name}: the page of no recipe. Build anew after: make clean")
    for problem in problems:
        print(f"error: {problem}")
    if not problems:
        print(f"verified: {len(recipes)} pages, notebooks and scripts show passed runs of their own code")
    return 1 if problems else 0


class _PageError(Exception):
    """What is wrong with a page, and what to do."""


def _shown(recipe: Recipe, page_file: Path, page: PageText | None, records: Sequence[Record]) -> list[Record]:
    """The runs whose outputs a page shows, in its order."""
    if page is None:
        raise _PageError("there is no such page. Run: make html")
    own_code = [record for record in records if record.run.blocks == recipe.blocks and record.run.seconds > 0]
    if not own_code:
        raise _PageError("no passed run of its code, with a time above zero, is on record. Run: make html")
    if [block.code for block in page.blocks] != [normal(block) for block in recipe.blocks]:
        raise _PageError(f"does not show the code of {recipe.path}. Build it anew")
    shown: list[Record] = []
    for number, facts in enumerate(facts for facts in page.facts if facts[0].startswith("Ran on ")):
        column = [_panel(block, number, facts) for block in page.blocks]
        named = [record for record in own_code if is_named(record, facts) and record not in shown]
        found = next((record for record in named if not _differing(column, record, page_file)), None)
        if found is None:
            raise _PageError(f"{_why_not(column, own_code, named, page_file)}. Build it anew")
        shown.append(found)
    if not shown:
        raise _PageError("names no machine that ran it. Build it anew")
    return shown


def _panel(block: Block, number: int, facts: Sequence[str]) -> list[Piece]:
    """What a block shows as the output of one machine, the one of the facts' line."""
    if not block.labels:  # Without tabs there is one machine, or no output.
        return block.panels[0]
    if number >= len(block.panels) or facts[0] != f"Ran on {block.labels[number]}":
        return [("text", f"a tab for: {facts[0]}")]  # A panel under another machine's name is no run's output.
    return block.panels[number]


def _why_not(column: Column, own_code: Sequence[Record], named: Sequence[Record], page_file: Path) -> str:
    if not named:
        return "the line about its runs is about no passed run of its code"
    closest = min(named, key=lambda record: len(_differing(column, record, page_file)))
    blocks = ", ".join(map(str, _differing(column, closest, page_file)))
    return f"outputs of block {blocks} are not those of the run that it names"


def _differing(column: Column, record: Record, page_file: Path) -> list[int]:
    """Numbers, from 1, of the blocks whose outputs on the page are not those of the run."""
    pairs = zip(column, record.run.outputs, strict=True)
    return [
        number
        for number, (pieces, outputs) in enumerate(pairs, start=1)
        if [_on_page(piece, page_file) for piece in pieces] != list(_expected(outputs))
    ]


def _on_page(piece: Piece, page_file: Path) -> Piece:
    kind, text = piece
    if kind != "image":
        return ("text", " ".join(text.split())) if kind == "html" else ("text", text)
    file = page_file.parent / unquote(text)
    return kind, hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "missing"


def _expected(outputs: Sequence[dict[str, Any]]) -> Iterator[Piece]:
    """What a page must show of a run's outputs."""
    for output in outputs:
        data = output.get("data", {})
        if "image/png" in data:
            yield "image", hashlib.sha256(base64.b64decode(data["image/png"])).hexdigest()
        elif "text/html" in data:
            yield "text", _text_of_html(data["text/html"])
        else:
            text = output.get("text") or "\n".join(output.get("traceback", ())) or data.get("text/plain", "")
            # A progress bar overwrites its line: a terminal shows what came last.
            text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")).expandtabs()
            if text.strip():
                yield "text", normal(text)


def _text_of_html(html: str) -> str:
    page = PageText(f'<div class="highlight-Python"></div><div class="output_html">{html}</div>')
    return " ".join(" ".join(text for _, text in page.blocks[0].panels[0]).split())
