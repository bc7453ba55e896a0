"""Do a site's results say what its runs found? Part of ``verify``.

Read are the table and the claims of each page, the front page's table, the page of all results with its JSON and CSV
files, and ``results/published.toml``. Not read is the picture of speed-ups. Nothing is shared with what writes these.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from recipe_runner.page_text import PageText, straight
from recipe_runner.recipe import Recipe
from recipe_runner.record import Record
from recipe_runner.verify_tables import labels, metrics_table, ratios_table, tables_problems

_IS_CLAIM = re.compile(r": (held|did not hold) on [^:]*\.$")


@dataclass(frozen=True)
class Said:
    """What a site has to say.

    Attributes
    ----------
    shown : dict of Recipe to list of Record
        The runs that each page shows, in its order.
    older : list of Record
        Passed runs of older code: the page of all results may list them.
    figures : list of dict
        The entries of ``results/published.toml``.
    """

    shown: Mapping[Recipe, Sequence[Record]]
    older: Sequence[Record]
    figures: Sequence[Mapping[str, Any]]

    @property
    def all_shown(self) -> list[Record]:
        """The runs of all pages."""
        return [record for shown in self.shown.values() for record in shown]


def published_figures(root: Path) -> list[dict[str, Any]]:
    """The entries of ``results/published.toml``; none if there is no such file, or none that can be read."""
    try:
        return tomllib.loads((root / "results" / "published.toml").read_text(encoding="utf-8")).get("figure", [])
    except (OSError, ValueError):
        return []


def listed_runs(site: Path) -> set[tuple[str, str, str]]:
    """Recipe, machine and start of the runs in ``results.json``: of two runs that look alike, that one is shown."""
    listed = set()
    for file in site.glob("_downloads/*/results.json"):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            runs = json.loads(file.read_text(encoding="utf-8"))["runs"]
            listed |= {(run["recipe"], run["machine"]["name"], run["started"]) for run in runs}
    return listed


def page_problems(
    recipe: Recipe, page: PageText, shown: Sequence[Record], figures: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """What is wrong with the results at the end of a recipe's page, which shows these runs."""
    where = f"{recipe.page}.html"
    yield from tables_problems(where, page, [metrics_table(recipe, shown, figures)])
    yield from _claims_problems(where, page, [shown])


def site_problems(site: Path, said: Said) -> Iterator[str]:
    """What is wrong with the front page's table and the page of all results."""
    front = PageText((site / "index.html").read_text(encoding="utf-8"))
    if front.tables:  # A site need not have one.
        yield from tables_problems(
            "index.html", front, [ratios_table(said.shown, "speedup_x", "batch_", explained=False)]
        )
    if not (file := site / "results.html").is_file():
        yield "results.html: there is no such page. Build it anew"
        return
    page = PageText(file.read_text(encoding="utf-8"))
    tables = [ratios_table(said.shown, ending) for ending in ("speedup_x", "breakeven_calls_count")]
    tables += [metrics_table(recipe, shown, said.figures) for recipe, shown in said.shown.items()]
    yield from tables_problems("results.html", page, tables, more=1)
    yield from _claims_problems("results.html", page, list(said.shown.values()))
    if not _names_the_runs(page.tables[-1] if page.tables else [], said):
        yield "results.html: its last table does not name the runs that its pages show. Build it anew"
    for suffix, problems in (("json", _json_problems), ("csv", _csv_problems)):
        links = [link for link in page.links if link.endswith(f"/results.{suffix}") and not urlsplit(link).scheme]
        files = [file for file in {site / unquote(link) for link in links} if file.is_file()]
        if not files:
            yield f"results.html: offers no results.{suffix}. Build it anew"
        for file in files:
            yield from problems(file.read_text(encoding="utf-8"), said)


def _names_the_runs(table: Sequence[Sequence[str]], said: Said) -> bool:
    """Whether the rows are the shown runs, each current, and runs of older code. A run's age is not checked."""
    titles = {recipe.name: recipe.title for recipe in said.shown}

    def row_of(record: Record) -> list[str]:
        run = record.run
        day = datetime.fromisoformat(run.started).date().isoformat()
        return [straight(titles.get(run.name, "")), run.versions.get("torch", ""), day, f"{run.seconds:.0f}"]

    rows = [([row[0], *row[2:4], row[5]], row[1], row[6]) for row in table[1:] if len(row) == 7]
    both = [*said.all_shown, *said.older]
    label_of = {record.run.machine.name: record.run.machine.label for record in both}
    machines = {straight(text) for name, label in label_of.items() for text in (label, f"{label} ({name})")}
    older = [row_of(record) for record in said.older]
    return (
        len(rows) == len(table) - 1
        and all(machine in machines for _, machine, _ in rows)
        and [cells for cells, _, state in rows if state == "current"] == [row_of(record) for record in said.all_shown]
        and all(cells in older for cells, _, state in rows if state != "current")
    )


def _claims_problems(where: str, page: PageText, groups: Sequence[Sequence[Record]]) -> Iterator[str]:
    """A page must say of every claim what the runs found, and nothing else of any."""
    wanted: dict[str, str] = {}  # The list's item, and its claim.
    for shown in groups:
        label_of = labels(shown)
        for sentence in (sentence for record in shown for sentence in _asserted(record.run.blocks)):
            wanted[_item(sentence, [f"held on {label}" for label in label_of.values()])] = sentence
        for sentence in (sentence for record in shown for sentence in record.run.claims):
            held = {r.run.machine.name: r.run.claims[sentence] for r in shown if sentence in r.run.claims}
            states = [f"{'held' if held[name] else 'did not hold'} on {label_of[name]}" for name in held]
            wanted[_item(sentence, states)] = sentence
    for sentence in dict.fromkeys(sentence for item, sentence in wanted.items() if item not in page.items):
        yield f"{where}: does not say of '{sentence}' what its runs found. Build it anew"
    for item in page.items:
        if _IS_CLAIM.search(item) and item not in wanted:
            yield f"{where}: says '{item}', which its runs did not find. Build it anew"


def _item(sentence: str, states: Sequence[str]) -> str:
    return straight(f"{sentence}: {', '.join(states)}.")


def _asserted(blocks: Sequence[str]) -> list[str]:
    """The sentences of ``assert condition, "sentence"`` in code that passed."""
    asserts = [node for block in blocks for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Assert)]
    texts = [node.msg.value for node in asserts if isinstance(node.msg, ast.Constant)]
    return [text for text in texts if isinstance(text, str)]


def _json_problems(text: str, said: Said) -> Iterator[str]:
    def entry(record: Record, current: bool) -> dict[str, Any]:
        run = record.run
        parts = {part: getattr(run, part) for part in ("started", "seconds", "device", "versions", "metrics", "claims")}
        return {"recipe": run.name, "machine": run.machine.as_dict(), "current_code": current, **parts}

    try:
        found = json.loads(text)
        runs, published, explained = found["runs"], found["published"], found["metrics"]
        current = [run for run in runs if run["current_code"]]
    except (ValueError, KeyError, TypeError):
        yield "results.json: not readable. Build it anew"
        return
    older = [entry(record, False) for record in said.older]
    shown = [entry(record, True) for record in said.all_shown]
    if current != shown or not all(run in older for run in runs if run not in current):
        yield "results.json: its runs are not those that the pages show. Build it anew"
    if explained != {recipe.name: dict(recipe.front_matter.metrics) for recipe in said.shown}:
        yield "results.json: does not explain the metrics as the recipes do. Build it anew"
    if published != list(said.figures):
        yield "results.json: its published figures are not those of results/published.toml. Build it anew"


def _csv_problems(text: str, said: Said) -> Iterator[str]:
    def rows_of(record: Record, kind: str) -> list[list[str]]:
        run = record.run
        version = f"torch {run.versions['torch']}" if "torch" in run.versions else ""
        facts = [run.machine.label, version, run.started, ""]
        return [[kind, run.name, name, str(value), *facts] for name, value in run.metrics.items()]

    wanted = [row for record in said.all_shown for row in rows_of(record, "measured")]
    parts = ("recipe", "metric", "value", "machine", "version", "date", "address")
    wanted += [["published", *(str(figure[part]) for part in parts)] for figure in said.figures]
    older = [row for record in said.older for row in rows_of(record, "measured, older code")]
    rows = list(csv.reader(text.splitlines()))[1:]
    if [row for row in rows if row not in older] != wanted:
        yield "results.csv: its rows are not the figures that the pages show. Build it anew"
