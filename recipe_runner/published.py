"""Figures that others published: ``results/published.toml``, one entry a figure, each with its source."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from recipe_runner.collection import Shown, split_unit
from recipe_runner.recipe import RecipeError
from recipe_runner.run import UNITS

FILE = "results/published.toml"


@dataclass(frozen=True)
class Figure:
    """One published figure.

    Attributes
    ----------
    recipe, metric : str
        What it is a reference for; the metric's suffix is the unit.
    value : float
        In the metric's unit.
    unit : str
        The unit once more, so that a wrong suffix is noticed.
    what : str
        What was measured: model, sizes, mode.
    machine, version : str
        As the source names them; where it does not, "unnamed GPU" or the like, and "not named".
    source, address : str
        Title and address of the source.
    date : str
        When it was taken from there, ISO 8601.
    """

    recipe: str
    metric: str
    value: float
    unit: str
    what: str
    machine: str
    version: str
    source: str
    address: str
    date: str


def load(folder: Path) -> list[Figure]:
    """Read all figures in the folder of published runs; none if there is no file.

    Raises
    ------
    RecipeError
        If the file is not TOML, or an entry lacks a field, has one too many, or a value of a wrong type or unit.
    """
    file = folder / Path(FILE).name
    if not file.exists():
        return []
    try:
        entries = tomllib.loads(file.read_text(encoding="utf-8")).get("figure", [])
    except (ValueError, OSError) as error:
        raise RecipeError(FILE, f"not readable ({error})", "Mend that line") from None
    return [_figure(number, entry) for number, entry in enumerate(entries, start=1)]


def references_to_nothing(figures: Sequence[Figure], all_shown: Mapping[str, Shown]) -> list[RecipeError]:
    """One problem for each figure that no table would show: its recipe does not exist, or no run has its metric."""
    problems = []
    for number, figure in enumerate(figures, start=1):
        shown = all_shown.get(figure.recipe)
        if shown is None:
            cause = f"figure {number} is about '{figure.recipe}', which is not a recipe"
        elif shown.passed and not any(figure.metric in record.run.metrics for record in shown.passed):
            cause = f"figure {number} is about '{figure.metric}', which no run of {figure.recipe} has"
        else:
            continue
        problems.append(RecipeError(FILE, cause, "Correct its name, or remove it"))
    return problems


def _figure(number: int, entry: dict[str, object]) -> Figure:
    name = f"figure {number} ({entry.get('metric', 'no metric')})"
    wanted = {field.name for field in fields(Figure)}
    if missing := sorted(wanted - entry.keys()):
        raise RecipeError(FILE, f"{name} has no '{missing[0]}'", "Every figure needs all fields, its source above all")
    if unknown := sorted(entry.keys() - wanted):
        raise RecipeError(FILE, f"{name} has an unknown field '{unknown[0]}'", f"Fields: {', '.join(sorted(wanted))}")
    for key, value in entry.items():
        good = type(value) in (int, float) if key == "value" else type(value) is str and value.strip()
        if not good:
            raise RecipeError(FILE, f"{name}: '{key}' is {value!r}", "Give a number for value, text for the rest")
    if not str(entry["metric"]).endswith(UNITS) or split_unit(str(entry["metric"]))[1] != f"_{entry['unit']}":
        raise RecipeError(FILE, f"{name} is in '{entry['unit']}'", "The metric's suffix and the unit must agree")
    return Figure(**entry)
