"""``make soak``: runs the whole site several times, and says what differs between the runs.

What must be exact makes it fail; for what was timed it prints how far the runs are apart. The runs are kept in
``_build/soak/<n>`` until the next soak; those of the site are not touched.
"""

from __future__ import annotations

import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from recipe_runner.agreement import differences, made_of_timings
from recipe_runner.alone import alone_in_clone
from recipe_runner.build import report, update_runs
from recipe_runner.collection import split_unit
from recipe_runner.due import Options, select
from recipe_runner.machine import this_machine
from recipe_runner.recipe import Recipe, RecipeError, load_all
from recipe_runner.record import Record, Runs
from recipe_runner.run import PASSED

#: The runs of one recipe: number of the pass, from 1 -> the run.
Passes = Mapping[int, Record]


def soak(root: Path, times: int, only: str | None = None) -> int:
    """Run every recipe `times` times, print what differs. Returns the exit status: 1 if a run failed or is not exact.

    An interruption keeps and reports the runs that are finished.

    Raises
    ------
    RecipeError
        If there is nothing to compare, or `only` names no recipe.
    """
    if times < 2:
        raise RecipeError(f"TIMES={times}", "nothing to compare", "Give 2 or more")
    recipes, errors = load_all(root)
    chosen = select(recipes, errors, only)
    folder, interrupted = root / "_build" / "soak", False
    problems: dict[str, RecipeError] = dict(errors)
    with alone_in_clone(root / "_build"):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            for number in range(1, times + 1):
                print(f"run {number} of {times}", file=sys.stderr, flush=True)
                problems |= update_runs(chosen, Runs(folder / str(number)), Options(only, rerun=True))
        except KeyboardInterrupt:
            interrupted = True
        found = {recipe.name: _passes(folder, recipe, times) for recipe in chosen}
    for recipe in chosen:
        failed = _failures(recipe, found[recipe.name])
        if failed:
            problems.pop(recipe.path, None)  # The same failure, without the number of the run.
        inexact = _inexact(recipe, found[recipe.name])
        problems |= {str(problem): problem for problem in (*failed, *inexact)}
    print(_tables(found))
    print(f"The runs are in {folder.relative_to(root)}")
    status = report(problems)
    if interrupted:
        print("interrupted: only the finished runs are compared", file=sys.stderr)
    return 130 if interrupted else status


def _passes(folder: Path, recipe: Recipe, times: int) -> dict[int, Record]:
    """The finished runs of a recipe."""
    passes = {}
    for number in range(1, times + 1):
        if record := Runs(folder / str(number)).newest(this_machine().name, recipe.name):
            passes[number] = record
    return passes


def _failures(recipe: Recipe, passes: Passes) -> list[RecipeError]:
    return [
        RecipeError(
            recipe.path,
            f"run {number} {record.run.status}: {record.run.reason}",
            f"Its output is in _build/soak/{number}",
        )
        for number, record in passes.items()
        if record.run.status != PASSED
    ]


def _inexact(recipe: Recipe, passes: Passes) -> list[RecipeError]:
    """What differs between the first good run of a recipe and a later one, and must not."""
    good = _good(passes)
    first = min(good, default=0)
    remedy = "Find what it depends on; what must be exact may not depend on time or chance"
    return [
        RecipeError(recipe.path, line, remedy)
        for number, record in good.items()
        for line in differences(good[first], record, (f"in run {first}", f"in run {number}"))
    ]


def _good(passes: Passes) -> dict[int, Record]:
    return {number: record for number, record in passes.items() if record.run.status == PASSED}


def _tables(found: Mapping[str, Passes]) -> str:
    """How far the timings of all recipes are apart, and which claims held in some runs only."""
    from tabulate import tabulate

    rows = [row for name, passes in found.items() for row in spread(name, list(_good(passes).values()))]
    headers = ["recipe", "metric", "runs", "median", "min", "max", "(max − min) / median"]
    right = ("left", "left", *["right"] * 5)
    parts = [tabulate(rows, headers, disable_numparse=True, colalign=right) if rows else "No timing is on record."]
    claims = [row for name, passes in found.items() for row in unsteady_claims(name, _good(passes))]
    if claims:
        parts.append(tabulate(claims, ["recipe", "claim that held in some runs only", "held in", "did not hold in"]))
    else:
        parts.append("Each claim held in all runs, or in none.")
    return "\n\n".join(parts)


def spread(name: str, records: Sequence[Record]) -> list[list[str]]:
    """One row for each metric that is made of timings: runs, median, least, greatest, and the width in percent."""
    rows = []
    for metric in dict.fromkeys(metric for record in records for metric in record.run.metrics):
        if not made_of_timings(metric) or split_unit(metric)[0].endswith("_iqr"):
            continue
        values = [record.run.metrics[metric] for record in records if metric in record.run.metrics]
        median, low, high = statistics.median(values), min(values), max(values)
        width = f"{100 * (high - low) / abs(median):.1f} %" if median else ""
        rows.append([name, metric, str(len(values)), *(f"{value:.4g}" for value in (median, low, high)), width])
    return rows


def unsteady_claims(name: str, passes: Passes) -> list[list[str]]:
    """One row for each claim that held in some runs only: the numbers of the runs where it did and did not."""
    rows = []
    for claim in dict.fromkeys(claim for record in passes.values() for claim in record.run.claims):
        held = [number for number, record in passes.items() if record.run.claims.get(claim)]
        if 0 < len(held) < len(passes):
            rest = [number for number in passes if number not in held]
            rows.append([name, claim, *(", ".join(map(str, numbers)) for numbers in (held, rest))])
    return rows
