"""Brings the runs up to date, then builds the site from them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from recipe_runner import preflight, publishing
from recipe_runner.alone import alone_in_clone, alone_on_machine
from recipe_runner.collection import Collection, in_order
from recipe_runner.due import Options, remedy_for, select, versions_for
from recipe_runner.machine import this_machine
from recipe_runner.progress import Progress
from recipe_runner.published import load as load_figures
from recipe_runner.published import references_to_nothing
from recipe_runner.recipe import Recipe, RecipeError, load_all
from recipe_runner.record import Record, Runs, key_from
from recipe_runner.run import PASSED, run


def update_runs(recipes: Sequence[Recipe], runs: Runs, options: Options) -> dict[str, RecipeError]:
    """Run those of `recipes` whose kept run is stale. Returns what went wrong, by path."""
    problems: dict[str, RecipeError] = {}
    machine = this_machine()
    due: list[tuple[Recipe, float | None]] = []
    for recipe in recipes:
        try:
            versions = versions_for(recipe)
            if options.rerun or not runs.settle(recipe, machine, versions):
                last = None if options.rerun else runs.load(machine.name, recipe.name)
                due.append((recipe, last.run.seconds if last else None))
        except RecipeError as problem:
            problems[recipe.path] = problem
    if due and preflight.main(["compiler"]) != 0:
        why = RecipeError("recipes", "cannot run without what is named above", "Install it, then run make again")
        return problems | {recipe.path: why for recipe, _ in due}
    progress = Progress(len(due))
    for recipe, last_s in due:
        try:
            record = _run_now(recipe, options, progress, last_s)
            runs.save(record)
        except RecipeError as problem:
            problems[recipe.path] = problem
            continue
        done = record.run
        if done.status != PASSED:
            problems[recipe.path] = RecipeError(recipe.path, done.reason, remedy_for(done.status))
    return problems


def _run_now(recipe: Recipe, options: Options, progress: Progress, last_s: float | None) -> Record:
    """Run one recipe. Its key is made of what the run gets, as its files may be edited meanwhile."""
    with alone_on_machine(progress.waits):
        data = recipe.read_data()
        with progress.recipe(recipe.name, last_s):
            done = run(
                recipe.blocks,
                name=recipe.name,
                packages=[requirement.name for requirement in recipe.front_matter.dependencies],
                time_limit_s=options.time_limit_s or recipe.front_matter.time_limit_s,
                data=data,
                on_block=progress.block,
            )
    progress.done(done.status, done.seconds)
    return Record(done, recipe.path, key_from(done.blocks, data, done.machine, done.versions))


def bring_up_to_date(
    root: Path, recipes: Sequence[Recipe], runs: Runs, options: Options
) -> tuple[dict[str, RecipeError], list[str]]:
    """Run what is stale, here or on a cluster. Returns what went wrong, and the machines whose runs a site shows.

    Raises
    ------
    RecipeError
        If the cluster that is named cannot be used.
    """
    if options.cluster is None:
        return update_runs(recipes, runs, options), [this_machine().name]
    from recipe_runner import dispatch  # It imports dask, which a build without a cluster does not need.

    return dispatch.update_runs(root, recipes, runs, options)


def build_site(
    root: Path, runs: Runs, machines: Sequence[str], recipes: Sequence[Recipe], errors: dict[str, RecipeError]
) -> bool:
    """Render the site into ``_build/html``; returns whether Sphinx had nothing to complain about."""
    from sphinx.cmd.build import build_main

    from recipe_runner.stage import stage

    source, html = root / "_build" / "source", root / "_build" / "html"
    stage(root, source, html, recipes, errors)
    settings = ["-D", f"recipe_runs={runs.folder}", "-D", f"recipe_machine={','.join(machines)}"]
    settings += ["-D", f"recipe_results={root / 'results'}"]
    arguments = [
        "-b",
        "html",
        "-q",
        "-W",
        "--keep-going",
        "-c",
        str(root),
        "-d",
        str(root / "_build" / "doctrees"),
        *settings,
    ]
    clean = build_main([*arguments, str(source), str(html)]) == 0
    if clean:
        print(f"The site is in {html.relative_to(root)}/index.html")
    return clean


def check_collection(root: Path, recipes: Sequence[Recipe], runs: Runs, machines: Sequence[str]) -> list[RecipeError]:
    """What is wrong with the files that the site shows: runs, their order, published figures. One problem a file."""
    collection = Collection(runs, Runs(root / "results"), machines, recipes)
    shown, found = collection.shown, list(collection.problems)
    try:
        figures = load_figures(root / "results")
    except RecipeError as problem:
        found.append(problem)
    else:
        found += references_to_nothing(figures, shown)
    return list({str(problem.file): problem for problem in reversed(found)}.values())  # The first of each file stays.


def build(root: Path, options: Options) -> int:
    """``make html``: run what is stale, build all pages, then name what went wrong. Returns the exit status."""
    publishing.from_environment()  # A bad address is refused before anything runs.
    recipes, errors = load_all(root)
    chosen = select(recipes, errors, options.only)
    runs = Runs(root / "_build" / "runs")
    with alone_in_clone(root / "_build"):
        problems, machines = bring_up_to_date(root, chosen, runs, options)
        # Not by path: a recipe that failed may also name a page that does not exist.
        problems |= {str(problem): problem for problem in check_collection(root, recipes, runs, machines)}
        errors |= _unreadable(recipes)  # A data file may have gone meanwhile.
        clean = build_site(root, runs, machines, recipes, errors)
    return report(errors | problems, clean)


def _unreadable(recipes: Sequence[Recipe]) -> dict[str, RecipeError]:
    """The recipes whose data files cannot be read now, by path."""
    found: dict[str, RecipeError] = {}
    for recipe in recipes:
        try:
            recipe.read_data()
        except RecipeError as problem:
            found[recipe.path] = problem
    return found


def run_only(root: Path, options: Options) -> int:
    """``python -m recipe_runner run``: as `build`, without the site: for a machine that only measures."""
    recipes, errors = load_all(root)
    chosen = select(recipes, errors, options.only)
    with alone_in_clone(root / "_build"):
        problems, _ = bring_up_to_date(root, chosen, Runs(root / "_build" / "runs"), options)
    return report(errors | problems)


def replay(root: Path, machine: str | None) -> int:
    """``make replay``: build all pages from ``results/``, run nothing. Returns the exit status."""
    publishing.from_environment()
    recipes, errors = load_all(root)
    runs = Runs(root / "results")
    machines = in_order(runs)
    if not machines or (machine is not None and machine not in machines):
        cause = f"has no runs of '{machine}'" if machine else "has no runs"
        raise RecipeError("results", cause, f"Machines: {', '.join(machines) or 'none yet; run: make html record'}")
    machine = machine or machines[0]
    with alone_in_clone(root / "_build"):
        problems = {str(problem): problem for problem in check_collection(root, recipes, runs, [machine])}
        clean = build_site(root, runs, [machine], recipes, errors)
    return report(errors | problems, clean)


def report(problems: dict[str, RecipeError], clean: bool = True) -> int:
    """Print one line a problem, last of all, so that none scrolls away. Returns the exit status."""
    for problem in sorted({str(problem) for problem in problems.values()}):
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems or not clean else 0
