"""``make record``: puts this machine's good runs of committed recipes into ``results/``, where others can see them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from recipe_runner.agreement import disagreements
from recipe_runner.alone import alone_in_clone
from recipe_runner.build import report
from recipe_runner.collection import changed_units, identity
from recipe_runner.due import select, versions_for
from recipe_runner.machine import this_machine
from recipe_runner.recipe import Recipe, RecipeError, load_all
from recipe_runner.record import Record, Runs, unexpected_warnings


def promote(root: Path, only: str | None = None) -> int:
    """Copy each run that is passed, current and of committed code; name the others. Returns the exit status.

    `only` names one recipe, as ``ONLY=`` does for a build; the others are left as they are.
    """
    recipes, errors = load_all(root)
    chosen = select(recipes, errors, only)
    results = Runs(root / "results")
    problems = {path: error for path, error in errors.items() if only is None or Path(path).stem == Path(only).stem}
    count = 0
    with alone_in_clone(root / "_build"):
        for recipe in chosen:
            try:
                record = _publishable(root, recipe)
                _check_against_published(record, results.load(record.run.machine.name, recipe.name))
                _warn_of_disagreements(root, recipe, results)
                results.save(record)
                count += 1
            except RecipeError as problem:
                problems[recipe.path] = problem
    print(f"{count} run{'s' if count != 1 else ''} put into results/{this_machine().name}")
    return report(problems)


def _publishable(root: Path, recipe: Recipe) -> Record:
    """The kept run of a recipe on this machine.

    Raises
    ------
    RecipeError
        If it is missing, stale or failed, if it shows a warning that the recipe does not expect, or if the recipe has
        changes that are not committed.
    """
    _check_committed(root, recipe)
    runs = Runs(root / "_build" / "runs")
    if reasons := runs.why_run(recipe, this_machine(), versions_for(recipe)):
        raise RecipeError(recipe.path, f"its run is not current ({reasons[0]})", f"Run: make html ONLY={recipe.name}")
    record = runs.load(this_machine().name, recipe.name)
    if warnings := unexpected_warnings(record, recipe.front_matter.expected_warnings):
        raise RecipeError(
            recipe.path, f"shows a warning: {warnings[0][:80]}", "Mend it, or add it to expected_warnings"
        )
    return record


def _check_committed(root: Path, recipe: Recipe) -> None:
    """Refuse a recipe whose files others could not get.

    Raises
    ------
    RecipeError
        If one of its files has changes that are not committed, or git ignores it.
    """
    files = [recipe.path, *(file.relative_to(root).as_posix() for file in recipe.data_files.values())]
    changed = _git(root, "status", "--porcelain", "--", *files)
    if changed.returncode != 0:
        raise RecipeError(recipe.path, "not in a git repository", "Record runs from a clone")
    if changed.stdout.strip():
        raise RecipeError(recipe.path, "has changes that are not committed", "Commit them, then record")
    for file in files:
        # `git status` says nothing of a file that .gitignore names.
        if not _git(root, "ls-files", "--", file).stdout.strip():
            raise RecipeError(recipe.path, f"git ignores {file}", f"Run git add --force {file}, commit, then record")


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise RecipeError("git", "not found, so nothing says what is committed", "Install git") from None


def _warn_of_disagreements(root: Path, recipe: Recipe, results: Runs) -> None:
    """Name what must be the same in the published runs and is not: another version may be the cause, or chance."""
    try:
        found = disagreements([recipe], Runs(root / "_build" / "runs"), this_machine().name, results)
    except RecipeError as problem:  # Another machine's damaged file is no reason to leave this run out.
        found = [str(problem)]
    for line in found:
        print(f"warning: {line}", file=sys.stderr)


def _check_against_published(record: Record, before: Record | None) -> None:
    """Refuse what would not fit beside the published runs.

    Raises
    ------
    RecipeError
        If the published run of this name is another machine's, or a metric changed its unit.
    """
    if before is None:
        return
    where = f"results/{before.run.machine.name}/{before.run.name}.ipynb"
    if identity(before) != identity(record):
        cause = f"two machines have this name: {identity(before)}, and {identity(record)}"
        raise RecipeError(where, cause, "Name this machine with MACHINE= and run make html record again")
    for problem in changed_units([before, record], lambda _: Path(where)):
        raise problem
