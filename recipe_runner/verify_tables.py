"""Does a table of results show the metrics of its runs, and figures that others published? Part of ``verify``.

Nothing is shared with what writes the tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from recipe_runner.page_text import PageText, straight
from recipe_runner.recipe import Recipe
from recipe_runner.record import Record

_UNITS = {"s": "s", "ms": "ms", "us": "µs", "x": "", "count": "", "bytes": "bytes"}

#: What a row must be: its name for the reader of an error, and the check of its cells.
Row = tuple[str, Callable[[Sequence[str]], bool]]


@dataclass(frozen=True)
class Table:
    """What a table must be: the names of its machines, in order, and its rows."""

    machines: list[str]
    rows: list[Row]


def labels(records: Sequence[Record]) -> dict[str, str]:
    """How the machines of these runs are called, by their names: two of one kind are told apart."""
    machines = {record.run.machine.name: record.run.machine.label for record in records}
    kinds = list(machines.values())
    several = {kind for kind in kinds if kinds.count(kind) > 1}
    return {name: straight(f"{kind} ({name})" if kind in several else kind) for name, kind in machines.items()}


def metrics_table(recipe: Recipe, shown: Sequence[Record], figures: Sequence[Mapping[str, Any]]) -> Table:
    """The table of one recipe: its metrics with their spreads, below each what others published for it."""
    rows: list[Row] = []
    for name in _in_order(recipe, shown):
        stem, _, unit = name.rpartition("_")
        label = stem.replace("_", " ") + (f", {_UNITS[unit]}" if _UNITS[unit] else "") + _explained(recipe, name)
        values = [(record.run.metrics.get(name), record.run.metrics.get(f"{stem}_iqr_{unit}")) for record in shown]
        rows.append((f"metric '{name}'", _measured(label, values, unit)))
        for figure in figures:
            if (figure["recipe"], figure["metric"]) == (recipe.name, name):
                rows.append((f"the published figure of '{name}'", _quoted(figure, len(shown))))
    return Table(list(labels(shown).values()), rows)


def ratios_table(
    all_shown: Mapping[Recipe, Sequence[Record]], ending: str, but: str = " ", explained: bool = True
) -> Table:
    """A table over all recipes: the metrics with an ending, but not those with a beginning; without spreads."""
    label_of = labels([record for shown in all_shown.values() for record in shown])
    rows: list[Row] = []
    for recipe, shown in all_shown.items():
        metrics_of = {record.run.machine.name: record.run.metrics for record in shown}
        for name in _in_order(recipe, shown):
            stem, _, unit = name.rpartition("_")
            if name.endswith(ending) and not name.startswith(but):
                values = [(metrics_of.get(machine, {}).get(name), None) for machine in label_of]
                label = f"{recipe.title}: {stem.replace('_', ' ')}" + (_explained(recipe, name) if explained else "")
                rows.append((f"metric '{name}' of {recipe.name}", _measured(label, values, unit)))
    return Table(list(label_of.values()), rows)


def tables_problems(where: str, page: PageText, wanted: Sequence[Table], more: int = 0) -> Iterator[str]:
    """What is wrong with a page that must have these tables, but those without a row, and then some more."""
    wanted = [table for table in wanted if table.rows]
    if len(page.tables) != len(wanted) + more:
        yield f"{where}: {len(page.tables)} tables of results, expected {len(wanted) + more}. Build it anew"
        return
    for table, (head, *found) in zip(wanted, page.tables, strict=False):
        if len(found) != len(table.rows):
            yield f"{where}: {len(found)} rows of results, expected {len(table.rows)}. Build it anew"
            continue
        if head[1:] != table.machines:
            yield f"{where}: the columns '{', '.join(head[1:])}' are not the machines of its runs. Build it anew"
        for cells, (name, is_row) in zip(found, table.rows, strict=True):
            if not is_row(cells):
                yield f"{where}: the row '{cells[0] if cells else ''}' is not {name} of its runs. Build it anew"


def _in_order(recipe: Recipe, shown: Sequence[Record]) -> list[str]:
    """The metrics of some runs, as the front matter names them, then the others; without the spreads."""
    measured = {name: None for record in shown for name in record.run.metrics}
    names = dict.fromkeys([*(name for name in recipe.front_matter.metrics if name in measured), *measured])
    return [name for name in names if not re.search(r"_iqr_[a-z]+$", name)]


def _explained(recipe: Recipe, metric: str) -> str:
    text = recipe.front_matter.metrics.get(metric, "")
    return f" {text}" if text else ""


def _measured(label: str, values: Sequence[tuple[float | None, float | None]], unit: str) -> Callable:
    def is_row(row: Sequence[str]) -> bool:
        cells = [_is_value(cell, *value, unit) for cell, value in zip(row[1:], values, strict=False)]
        return row[:1] == [straight(label)] and len(row) == len(values) + 1 and all(cells)

    return is_row


def _is_value(cell: str, value: float | None, spread: float | None, unit: str) -> bool:
    """Whether a cell shows a value and its spread, and nothing more."""
    if value is None:
        return cell == ""
    numbers = [value] if spread is None else [value, spread]
    parts = cell.removesuffix(" ×").split(" ± ")
    right = len(parts) == len(numbers) and cell.endswith(" ×") == (unit == "x")
    return right and all(map(_reads, parts, numbers))


def _quoted(figure: Mapping[str, Any], machines: int) -> Callable:
    def is_row(row: Sequence[str]) -> bool:
        number = re.match(r"Published: (\S+)", row[0]) if row else None
        said = [straight(figure[part]) for part in ("what", "machine", "source")]
        return (
            number is not None
            and _reads(number[1], figure["value"])
            and all(part in row[0] for part in said)
            and row[1:] == [""] * machines
        )

    return is_row


def _reads(text: str, value: float) -> bool:
    """Whether a number is a value, to the last digit that it has."""
    try:
        number = Decimal(text.replace(",", ""))
    except InvalidOperation:
        return False
    half_a_digit = Decimal(5).scaleb(number.as_tuple().exponent - 1)
    return abs(number - Decimal(value)) <= half_a_digit * Decimal("1.001")
