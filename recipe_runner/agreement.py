"""What two good runs of the same code must have in common, on any machine with the same kind of device.

Times differ from run to run. Whether a run passes, which metrics it records and what it counts do not: a difference
there is a fault of the recipe, or of a package.
"""

from __future__ import annotations

from collections.abc import Iterable

from recipe_runner.collection import split_unit
from recipe_runner.recipe import Recipe
from recipe_runner.record import Record, Runs
from recipe_runner.run import PASSED

#: Counts whose names hold one of these are made of timings. A break-even is missing where nothing was faster, and the
#: claims that held are those that a busy machine may refute.
_OF_TIMINGS = ("breakeven", "claims_held")


def made_of_timings(metric: str) -> bool:
    """Whether a metric may differ between two good runs because it is a time, or was made of times."""
    stem, unit = split_unit(metric)
    return unit not in ("_count", "_bytes") or (unit == "_count" and any(part in stem for part in _OF_TIMINGS))


def is_exact(metric: str) -> bool:
    """Whether a metric is a count that is the same in each run of the same code."""
    return split_unit(metric)[1] == "_count" and not made_of_timings(metric)


def same_code(first: Record, second: Record) -> bool:
    """Whether two runs had the same code blocks and data files."""
    return _code(first) == _code(second)


def device_kind(record: Record) -> str:
    """``cpu`` or ``cuda``: a recipe may choose other sizes, and so count something else, on the other one."""
    return "cpu" if record.run.device == "cpu" else "cuda"


def differences(first: Record, second: Record, places: tuple[str, str] | None = None) -> list[str]:
    """What differs between two runs of the same code and must not, one line each.

    Parameters
    ----------
    first, second
        The runs.
    places
        Where they were, to be read in a sentence; without it, ``on <machine>``.

    Returns
    -------
    list of str
        Status, metrics that only one has, and counts. An assertion that failed is a status. If one run did not pass,
        its status only: such a run records no metrics.
    """
    here, there = places or (f"on {first.run.machine.name}", f"on {second.run.machine.name}")
    if first.run.status != PASSED or second.run.status != PASSED:
        states = [_state(record) for record in (first, second)]
        return [f"{states[0]} {here}, {states[1]} {there}"] if first.run.status != second.run.status else []
    lines = []
    one, other = first.run.metrics, second.run.metrics
    for metric in one | other:
        if split_unit(metric)[1] == "_count" and made_of_timings(metric):
            continue  # Such a count may even be missing.
        a, b = one.get(metric), other.get(metric)
        if a is None or b is None or (is_exact(metric) and a != b):
            lines.append(f"{metric}: {_value(a)} {here}, {_value(b)} {there}")
    return lines


def disagreements(recipes: Iterable[Recipe], runs: Runs, machine: str, published: Runs) -> list[str]:
    """What differs between the runs of `machine` and the published ones, and must not: one line each.

    Runs of other code, or of another kind of device, are not compared.

    Raises
    ------
    RecipeError
        If a run cannot be read.
    """
    lines = []
    for recipe in recipes:
        fresh = runs.shown(recipe, machine)
        for place in published.machines() if fresh else []:
            other = published.load(place, recipe.name)
            if other and same_code(fresh, other) and device_kind(fresh) == device_kind(other):
                places = (f"on {machine}", f"on {place} (published)")
                lines += [f"{recipe.name}: {line}" for line in differences(fresh, other, places)]
    return lines


def _code(record: Record) -> dict[str, str]:
    return {part: value for part, value in record.key.items() if part == "code" or part.startswith("data file ")}


def _state(record: Record) -> str:
    return record.run.status if record.run.status == PASSED else f"{record.run.status} ({record.run.reason})"


def _value(value: float | None) -> str:
    return "absent" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
