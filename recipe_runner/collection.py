"""All runs that a site shows: of its own machines (one, or a cluster's), and those published in ``results/``.

A run of older code is never shown as output; it is listed as older. What is wrong with a file is a problem of that
file: it gets one line, and the rest of the site is built.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from recipe_runner.machine import Machine
from recipe_runner.recipe import Recipe, RecipeError, find
from recipe_runner.record import Record, Runs, code_hash, short
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
        The newest run of exactly this code on the site's own machine, failed or not. If the site has several own
        machines: on the first of them where it passed, else on the first where it failed.
    others : tuple of Record
        Passed runs of exactly this code on other machines, own ones first, in the site's order of machines.
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
        Where the own machines' runs are: ``_build/runs``, or ``results`` in a replay.
    published
        Where the other machines' runs are: ``results``.
    machines
        Names of the own machines, in order: one, or all kinds of a cluster.
    recipes
        The site's recipes.
    """

    def __init__(self, own: Runs, published: Runs, machines: Sequence[str], recipes: Sequence[Recipe]) -> None:
        self.machines = list(machines)
        self.problems: list[RecipeError] = []
        self.folders: dict[tuple[str, str], Path] = {}  # Of each run that is shown, by machine and recipe.
        try:
            order = in_order(published)
        except RecipeError as problem:
            self.problems.append(problem)
            order = published.machines()
        # A cluster need not run every recipe on each of its kinds: what one of them published may be all there is.
        others = [name for name in order if len(self.machines) > 1 or name not in self.machines]
        self.shown = {recipe.name: self._shown(recipe, own, published, others) for recipe in recipes}
        for folder, names in ((own, self.machines), (published, others)):
            self._find_orphans(folder, names)
        self._find_machines_of_one_name()
        self.problems += dead_ends(recipes)
        for shown in self.shown.values():
            self.problems += changed_units([*shown.passed, *shown.older], self._file)

    def _shown(self, recipe: Recipe, own: Runs, published: Runs, others: Sequence[str]) -> Shown:
        wanted, found, unreadable = code_hash(recipe.blocks), [], None
        for machine in self.machines:
            try:
                record = own.shown(recipe, machine)
            except RecipeError as problem:
                self.problems.append(problem)
                unreadable = unreadable or problem
                continue
            if record is not None:
                found.append(record)
                self.folders[machine, recipe.name] = own.folder
        passed = [record for record in found if record.run.status == PASSED]
        first = (passed or found or [None])[0]
        current, older = passed[1:], []
        here = {record.run.machine.name for record in found}
        for machine in others:
            if machine in here:
                continue
            try:
                record = published.load(machine, recipe.name)
            except RecipeError as problem:
                self.problems.append(problem)
                continue
            if record is not None:
                (current if record.code_hash == wanted else older).append(record)
                self.folders[machine, recipe.name] = published.folder
        problem = unreadable if first is None else None
        return Shown(recipe, first, tuple(current), tuple(older), problem)

    def _file(self, record: Record) -> Path:
        machine, name = record.run.machine.name, record.run.name
        return self.folders[machine, name] / machine / f"{name}.ipynb"

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
                    where = short(self._file(record).parent)
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


def dead_ends(recipes: Sequence[Recipe]) -> list[RecipeError]:
    """One problem for each related page that no file stands for; one that cannot be read has its own problem."""
    problems = []
    for recipe in recipes:
        names = {file.stem for file in find(recipe.root)} - {recipe.name}
        for name in recipe.front_matter.see_also:
            if name not in names:
                cause = f"see_also names '{name}', which is no other recipe"
                problems.append(RecipeError(recipe.path, cause, f"Others: {', '.join(sorted(names))}"))
    return problems


def changed_units(records: Sequence[Record], file_of: Callable[[Record], Path]) -> list[RecipeError]:
    """One problem for each metric that has another unit in a later run: they cannot stand in one row."""
    problems, first = [], {}
    for record in records:
        units: dict[str, set[str]] = {}  # One run may have a time and a size of one thing: `file_s`, `file_bytes`.
        for metric in record.run.metrics:
            stem, unit = split_unit(metric)
            units.setdefault(stem, set()).add(unit.lstrip("_"))
        for stem, now in units.items():
            before, machine = first.setdefault(stem, (now, record.run.machine.name))
            if before - now and now - before and not stem.endswith("_iqr"):
                cause = (
                    f"metric '{stem}' is in {', '.join(sorted(now))}, in the run of {machine} "
                    f"in {', '.join(sorted(before))}"
                )
                remedy = "Keep the unit, or give the metric another name"
                problems.append(RecipeError(short(file_of(record)), cause, remedy))
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
    machines, first = published.machines(), chosen_order(published)
    for name in first:
        if name not in machines:
            where = f"{published.folder.name}/{ORDER_FILE}"
            raise RecipeError(where, f"names '{name}', which has no runs", f"Machines: {', '.join(machines)}")
    return [*first, *(name for name in machines if name not in first)]


def chosen_order(published: Runs) -> list[str]:
    """The names in ``order.toml``; none if there is no such file.

    Raises
    ------
    RecipeError
        If it cannot be read.
    """
    file = published.folder / ORDER_FILE
    if not file.exists():
        return []
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))["machines"]
    except (KeyError, ValueError, OSError) as error:
        cause = f"not readable ({type(error).__name__}: {error})"
        where = f"{published.folder.name}/{ORDER_FILE}"
        raise RecipeError(where, cause, 'Write one line: machines = ["name", …]') from None


def order_of_kinds(machines: Sequence[Machine], published: Runs) -> list[str]:
    """Names of a cluster's kinds of machine: as in ``order.toml``, then those with an accelerator, then by name."""
    try:
        first = chosen_order(published)
    except RecipeError:
        first = []  # The collection reports it.
    ranks = {
        machine.name: (
            first.index(machine.name) if machine.name in first else len(first),
            machine.accelerator is None,
            machine.name,
        )
        for machine in machines
    }
    return sorted(ranks, key=ranks.get)
