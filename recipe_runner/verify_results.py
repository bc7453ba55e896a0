"""Do a site's results say what its runs found? Part of ``verify``.

Each line of a page's results, of the front page's table and of the page of all results is compared with what it must
be. Not read are the picture of speed-ups, the ages of runs, and the paragraphs around the tables. Nothing is shared
with what writes all this: its rules are stated here once more.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from pathlib import Path

from recipe_runner.page_text import PageText, straight
from recipe_runner.published import Figure
from recipe_runner.recipe import Recipe
from recipe_runner.record import Record

_UNITS = {"s": "s", "ms": "ms", "us": "µs", "x": "×", "count": "", "bytes": "bytes"}
_RUNS_HEAD = ("Recipe", "Machine", "torch", "Day", "Age", "Seconds", "State")
_ANEW = "Build it anew"
_SPREAD = "A time with an IQR is a median; the IQR is its interquartile range, in full width."

#: The kind and the text of a line of a page.
Expected = tuple[str, str]


@dataclass(frozen=True)
class Said:
    """What a site has to say.

    Attributes
    ----------
    shown : dict of Recipe to list of Record
        The runs that each page shows, in its order.
    older : list of Record
        Passed runs of older code: the page of all results may list them.
    figures : list of Figure
        What ``results/published.toml`` holds.
    """

    shown: Mapping[Recipe, Sequence[Record]]
    older: Sequence[Record]
    figures: Sequence[Figure]

    @property
    def all_shown(self) -> list[Record]:
        """The runs of all pages."""
        return [record for shown in self.shown.values() for record in shown]


def page_problems(recipe: Recipe, page: PageText, shown: Sequence[Record], figures: Sequence[Figure]) -> Iterator[str]:
    """What is wrong with the results at the end of a recipe's page, which shows these runs."""
    found = [
        (line.kind, line.text)
        for line in page.lines
        if "results-of-this-page" in line.sections and "sphx-glr-footer" not in line.classes
    ]
    claims = _claims(shown)
    wanted = [
        ("heading", "Results of this page"),
        *([("paragraph", _SPREAD)] if any("_iqr_" in name for r in shown for name in r.run.metrics) else []),
        *_table(recipe, shown, figures),
        *([("paragraph", "Claims of this page"), *claims] if claims else []),
        ("paragraph", "All pages together: Results."),
    ]
    yield from _difference(f"{recipe.page}.html", found, wanted)
    yield from _missing_sources(f"{recipe.page}.html", page, found, figures)


def site_problems(root: Path, site: Path, said: Said) -> Iterator[str]:
    """What is wrong with the front page's table, and with the page of all results."""
    front = root / "index.rst"
    if front.is_file() and "headlines.txt" in front.read_text(encoding="utf-8"):
        lines = PageText((site / "index.html").read_text(encoding="utf-8", errors="replace")).lines
        found = [(line.kind, line.text) for line in lines if line.kind == "cell" and "recipe-table" in line.classes]
        yield from _difference("index.html", found, _ratios(said.shown, "speedup_x", but="batch_"))
    if not (file := site / "results.html").is_file():
        yield f"results.html: there is no such page. {_ANEW}"
        return
    page = PageText(file.read_text(encoding="utf-8", errors="replace"))
    parts = ("results", "speed-ups", "calls-until-compilation-is-repaid", "what-did-not-hold")
    lines = [line for line in page.lines if not (line.kind == "paragraph" and line.sections[-1] in parts)]
    found = [(line.kind, line.text) for line in lines if "runs" not in line.sections]
    yield from _difference("results.html", found, _all_results(said))
    yield from _missing_sources("results.html", page, found, said.figures)
    runs = [line.text for line in lines if "runs" in line.sections]
    if not _names_the_runs(runs, said):
        yield f"results.html: its last table does not name the runs that its pages show. {_ANEW}"


def _difference(where: str, found: Sequence[Expected], wanted: Sequence[Expected]) -> Iterator[str]:
    """The first line that is not what it must be."""
    for is_there, must_be in zip_longest(found, [(kind, straight(text)) for kind, text in wanted]):
        if is_there != must_be:
            there = f"says '{is_there[1]}'" if is_there else "lacks a line"
            yield f"{where}: {there} where its runs say {repr(must_be[1]) if must_be else 'nothing'}. {_ANEW}"
            return


# What pages must say


def _all_results(said: Said) -> list[Expected]:
    lines = [("heading", "Results"), ("heading", "Speed-ups"), *_ratios(said.shown, "speedup_x")]
    lines += [("heading", "Calls until compilation is repaid"), *_ratios(said.shown, "breakeven_calls_count")]
    lines += [("heading", "What did not hold"), *_refuted(said.shown), ("heading", "Recipe by recipe")]
    for recipe, shown in said.shown.items():
        table = _table(recipe, shown, said.figures) or [("paragraph", "Nothing on record.")]
        lines += [("heading", recipe.title), ("paragraph", "To the page"), *table, *_claims(shown)]
    return lines


def _table(recipe: Recipe, shown: Sequence[Record], figures: Sequence[Figure]) -> list[Expected]:
    """The cells of one recipe's table: its metrics with their spreads, below each what others published for it."""
    names = _metrics(recipe, shown)
    cells = ["Metric", *_labels(shown).values()] if names else []
    for name in names:
        stem, _, unit = name.rpartition("_")
        text = _UNITS[unit] if unit != "x" else ""
        quoted = [_quoted(figure) for figure in figures if (figure.recipe, figure.metric) == (recipe.name, name)]
        cells.append(" ".join([_words(stem) + (f", {text}" if text else "") + _explained(recipe, name), *quoted]))
        for record in shown:
            value, spread = record.run.metrics.get(name), record.run.metrics.get(f"{stem}_iqr_{unit}")
            numbers = [_number(number, unit) for number in (value, spread) if number is not None]
            text = numbers[0] + (f" (IQR {numbers[1]})" if spread is not None else "") if numbers else ""
            cells.append(f"{text} ×" if text and unit == "x" else text)
    return [("cell", cell) for cell in cells]


def _ratios(all_shown: Mapping[Recipe, Sequence[Record]], ending: str, but: str = " ") -> list[Expected]:
    """The cells of a table over all recipes: the metrics with an ending, but not those with a beginning."""
    label_of = _labels([record for shown in all_shown.values() for record in shown])
    cells = []
    for recipe, shown in all_shown.items():
        metrics_of = {record.run.machine.name: record.run.metrics for record in shown}
        for name in _metrics(recipe, shown):
            if name.endswith(ending) and not name.startswith(but):
                stem, _, unit = name.rpartition("_")
                cells.append(recipe.title + (_explained(recipe, name) or f": {_words(stem)}"))
                values = [metrics_of.get(machine, {}).get(name) for machine in label_of]
                times = " ×" if unit == "x" else ""
                cells += ["" if value is None else _number(value, unit) + times for value in values]
    return [("cell", cell) for cell in (["Recipe: metric", *label_of.values(), *cells] if cells else [])]


def _claims(shown: Sequence[Record]) -> list[Expected]:
    """The items of a list of claims: those that a passed run must have kept, then those that it may refute."""
    label_of = _labels(shown)
    items = {}
    for sentence in (sentence for record in shown for sentence in _asserted(record.run.blocks)):
        items[f"!{sentence}"] = ", ".join(f"held on {label}" for label in label_of.values())
    for sentence in _measured(shown):
        held = {r.run.machine.name: r.run.claims[sentence] for r in shown if sentence in r.run.claims}
        items[f"?{sentence}"] = ", ".join(
            f"{'held' if held[name] else 'did not hold'} on {label_of[name]}" for name in held
        )
    return [("item", f"{sentence[1:]}: {states}.") for sentence, states in items.items()]


def _measured(shown: Sequence[Record]) -> list[str]:
    """The sentences that a passed run may refute, in the order of the code."""
    places = _places(shown[0].run.blocks) if shown else {}
    sentences = dict.fromkeys(sentence for record in shown for sentence in record.run.claims)
    return sorted(sentences, key=lambda sentence: places.get(sentence, len(places)))


def _refuted(all_shown: Mapping[Recipe, Sequence[Record]]) -> list[Expected]:
    """The items of the list of claims that a run refuted."""
    items = []
    for recipe, shown in all_shown.items():
        label_of = _labels(shown)
        for sentence in _measured(shown):
            names = [label_of[r.run.machine.name] for r in shown if not r.run.claims.get(sentence, True)]
            items += [("item", f"{recipe.title}: {sentence} ({', '.join(names)})")] if names else []
    return items


def _asserted(blocks: Sequence[str]) -> list[str]:
    """The sentences of ``assert condition, "sentence"`` in code that passed, where no function or branch holds them."""
    waiting = [node for block in reversed(blocks) for node in reversed(ast.parse(block).body)]
    texts = []
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.With | ast.For):
            waiting += reversed(node.body)
        elif isinstance(node, ast.Assert) and isinstance(node.msg, ast.Constant):
            texts.append(node.msg.value)
    return [text for text in texts if isinstance(text, str)]


def _places(blocks: Sequence[str]) -> dict[object, int]:
    """Where in the code each constant comes first: claims are listed in this order."""
    nodes = [(number, node) for number, block in enumerate(blocks) for node in ast.walk(ast.parse(block))]
    constants = [(n, node.lineno, node.col_offset, node.value) for n, node in nodes if isinstance(node, ast.Constant)]
    values = [value for *_, value in sorted(constants, key=lambda constant: constant[:3])]
    return {value: values.index(value) for value in values}


def _metrics(recipe: Recipe, shown: Sequence[Record]) -> list[str]:
    """The metrics of some runs, as the front matter names them, then the others; without the spreads."""
    measured = {name: None for record in shown for name in record.run.metrics}
    names = dict.fromkeys([*(name for name in recipe.front_matter.metrics if name in measured), *measured])
    return [name for name in names if not re.search(r"_iqr_[a-z]+$", name)]


def _labels(records: Sequence[Record]) -> dict[str, str]:
    """How the machines of these runs are called, by their names: two of one kind are told apart."""
    machines = {record.run.machine.name: record.run.machine.label for record in records}
    kinds = list(machines.values())
    return {name: kind if kinds.count(kind) == 1 else f"{kind} ({name})" for name, kind in machines.items()}


def _words(stem: str) -> str:
    return " ".join(stem.replace("speedup", "speed-up").replace("breakeven", "break-even").split("_")).strip()


def _explained(recipe: Recipe, metric: str) -> str:
    text = recipe.front_matter.metrics.get(metric, "")
    return f" {text}" if text else ""


def _number(value: float, unit: str) -> str:
    """Two decimals; below a tenth two digits; none from a hundred on, and none for what is counted."""
    whole = type(value) is int or unit in ("count", "bytes") or abs(value) >= 100
    return f"{value:,.0f}" if whole else f"{value:.2g}" if 0 < abs(value) < 0.1 else f"{value:.2f}"


def _quoted(figure: Figure) -> str:
    number = f"{figure.value:,} {_UNITS[figure.unit]}".strip()
    version = "version not named" if figure.version == "not named" else figure.version
    return f"Published: {number} ({figure.what}; {figure.machine}, {version}; {figure.source})"


def _missing_sources(where: str, page: PageText, found: Sequence[Expected], figures: Sequence[Figure]) -> Iterator[str]:
    for figure in figures:
        quoted = straight(_quoted(figure))
        if any(quoted in text for kind, text in found if kind == "cell") and figure.address not in page.links:
            yield f"{where}: does not link {figure.address}, the source of a published figure. {_ANEW}"


def _names_the_runs(lines: Sequence[str], said: Said) -> bool:
    """Whether the rows are the shown runs, each current, and runs of older code."""
    cells, columns = lines[1:], len(_RUNS_HEAD)
    rows = [tuple(cells[start : start + columns]) for start in range(0, len(cells), columns)]
    titles = {recipe.name: recipe.title for recipe in said.shown}

    def is_run(row: Sequence[str], record: Record, state: str) -> bool:
        run = record.run
        label = run.machine.label
        day = datetime.fromisoformat(run.started).date().isoformat()
        facts = (titles.get(run.name, ""), run.versions.get("torch", ""), day, f"{run.seconds:.0f}", state)
        return (
            (row[0], *row[2:4], *row[5:]) == tuple(map(straight, facts))
            and row[1] in (straight(label), straight(f"{label} ({run.machine.name})"))
            and re.fullmatch(r"-?\d+ days?", row[4]) is not None
        )

    if not rows or rows[0] != _RUNS_HEAD or len(rows[-1]) != columns:
        return False
    current = [row for row in rows[1:] if row[-1] == "current"]
    older = [row for row in rows[1:] if row[-1] != "current"]
    return (
        len(current) == len(said.all_shown)
        and all(is_run(row, record, "current") for row, record in zip(current, said.all_shown, strict=True))
        and all(any(is_run(row, record, "older code") for record in said.older) for row in older)
    )
