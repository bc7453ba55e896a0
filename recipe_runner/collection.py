"""All runs that a site shows: those of its own machine, and those that other machines published in ``results/``.

A run of older code is never shown as output; it is listed as older. What is wrong with a file is a problem of that
file: it gets one line, and the rest of the site is built.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass

from recipe_runner.recipe import Recipe, RecipeError
from recipe_runner.record import Record, Runs, code_hash
from recipe_runner.run import PASSED, UNITS

ORDER_FILE = "order.toml"


@dataclass(frozen=True)
class Shown:
    """A recipe and its runs.

    Attributes
    ----------
    recipe : Recipe
        The recipe as it is now.
    own : Record or None
        The newest run of exactly this code on the site's own machine, failed or not.
    others : tuple of Record
        Passed runs of exactly this code on other machines, in the site's order of machines.
    older : tuple of Record
        Passed runs of older code on machines that have none of this code.
    problem : RecipeError or None
        Why the own run cannot be read.
    """

    recipe: Recipe
    own: Record | None
    others: tuple[Record, ...] = ()
    older: tuple[Record, ...] = ()
    problem: RecipeError | None = None

    @property
    def records(self) -> tuple[Record, ...]:
        """The runs whose outputs the page shows, the own machine's first."""
        return (*(() if self.own is None else (self.own,)), *self.others)

    @property
    def passed(self) -> tuple[Record, ...]:
        """All passed runs of this code, the own machine's first."""
        return tuple(record for record in self.records if record.run.status == PASSED)


class Collection:
    """The runs of a site.

    Parameters
    ----------
    own
        Where the own machine's runs are: ``_build/runs``, or ``results`` in a replay.
    published
        Where the other machines' runs are: ``results``.
    machine
        Name of the own machine.
    recipes
        The site's recipes.
    """

    def __init__(self, own: Runs, published: Runs, machine: str, recipes: Sequence[Recipe]) -> None:
        self.machine = machine
        self.problems: list[RecipeError] = []
        try:
            order = in_order(published)
        except RecipeError as problem:
            self.problems.append(problem)
            order = published.machines()
        others = [name for name in order if name != machine]
        self.shown = {recipe.name: self._shown(recipe, own, published, others) for recipe in recipes}
        for folder, machines in ((own, [machine]), (published, others)):
            self._find_orphans(folder, machines)
        self._find_machines_of_one_name()
        for shown in self.shown.values():
            self.problems += changed_units([*shown.passed, *shown.older])

    def _shown(self, recipe: Recipe, own: Runs, published: Runs, others: Sequence[str]) -> Shown:
        wanted, current, older = code_hash(recipe.blocks), [], []
        for machine in others:
            try:
                record = published.load(machine, recipe.name)
            except RecipeError as problem:
                self.problems.append(problem)
                continue
            if record is not None:
                (current if record.code_hash == wanted else older).append(record)
        try:
            record = own.shown(recipe, self.machine)
        except RecipeError as problem:
            self.problems.append(problem)
            return Shown(recipe, None, tuple(current), tuple(older), problem)
        return Shown(recipe, record, tuple(current), tuple(older))

    def _find_orphans(self, runs: Runs, machines: Sequence[str]) -> None:
        if runs.folder.name != "results":
            return  # Runs in _build are this clone's own business: a recipe may come back with its branch.
        for machine in machines:
            for file in sorted((runs.folder / machine).glob("*.ipynb")):
                if file.name.partition(".")[0] not in self.shown:
                    cause = "the run of a recipe that does not exist"
                    self.problems.append(RecipeError(f"results/{machine}/{file.name}", cause, "Delete it"))

    def _find_machines_of_one_name(self) -> None:
        seen: dict[str, Record] = {}
        for shown in self.shown.values():
            for record in (*shown.passed, *shown.older):
                first = seen.setdefault(record.run.machine.name, record)
                if identity(first) != identity(record):
                    cause = f"two machines have this name: {identity(first)}, and {identity(record)}"
                    where = f"results/{record.run.machine.name}"
                    remedy = "Name one of them with MACHINE= and run it anew"
                    if where not in {str(problem.file) for problem in self.problems}:
                        self.problems.append(RecipeError(where, cause, remedy))


def labels(records: Sequence[Record]) -> dict[str, str]:
    """A readable label for each machine, by its name: two of one kind are told apart by their names."""
    by_name = {record.run.machine.name: record.run.machine.label for record in records}
    several = {label for label in by_name.values() if list(by_name.values()).count(label) > 1}
    return {name: f"{label} ({name})" if label in several else label for name, label in by_name.items()}


def identity(record: Record) -> str:
    """What two runs of one machine have in common: its processor or accelerator, and its cores."""
    machine = record.run.machine
    return f"{machine.label} ({machine.cores} cores, {machine.system})"


def changed_units(records: Sequence[Record]) -> list[RecipeError]:
    """One problem for each metric that has another unit in a later run: they cannot stand in one row."""
    problems, units = [], {}
    for record in records:
        for metric in record.run.metrics:
            stem, unit = split_unit(metric)
            first_unit, first = units.setdefault(stem, (unit, record))
            if first_unit != unit and not stem.endswith("_iqr"):
                where = f"results/{record.run.machine.name}/{record.run.name}.ipynb"
                cause = (
                    f"metric '{stem}' is in {unit.lstrip('_')}, in the run of {first.run.machine.name} "
                    f"in {first_unit.lstrip('_')}"
                )
                problems.append(RecipeError(where, cause, "Keep the unit, or give the metric another name"))
    return problems


def split_unit(metric: str) -> tuple[str, str]:
    """A metric's name without its unit, and the unit with its underscore."""
    unit = max((unit for unit in UNITS if metric.endswith(unit)), key=len)
    return metric.removesuffix(unit), unit


def in_order(published: Runs) -> list[str]:
    """Names of the machines in ``results/``: those in ``order.toml`` first, in its order, then the others by name.

    Raises
    ------
    RecipeError
        If ``order.toml`` cannot be read or names a machine that has no runs.
    """
    machines, file = published.machines(), published.folder / ORDER_FILE
    if not file.exists():
        return machines
    where = f"{published.folder.name}/{ORDER_FILE}"
    try:
        first = tomllib.loads(file.read_text(encoding="utf-8"))["machines"]
    except (KeyError, ValueError, OSError) as error:
        cause = f"not readable ({type(error).__name__}: {error})"
        raise RecipeError(where, cause, 'Write one line: machines = ["name", …]') from None
    for name in first:
        if name not in machines:
            raise RecipeError(where, f"names '{name}', which has no runs", f"Machines: {', '.join(machines)}")
    return [*first, *(name for name in machines if name not in first)]
