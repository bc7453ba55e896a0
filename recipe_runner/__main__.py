"""The command line: ``python -m recipe_runner build | run | record | …``. The Makefile calls it."""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from recipe_runner.machine import slugify, this_machine
from recipe_runner.recipe import Recipe, RecipeError, load_all
from recipe_runner.record import Record, Runs, code_hash
from recipe_runner.run import PASSED


def status(root: Path) -> int:
    """Print a table: recipe × machine, the state of its run, its age and its seconds."""
    from tabulate import tabulate

    recipes, errors = load_all(root)
    runs = Runs(root / "_build" / "runs")
    rows = []
    for machine in sorted({this_machine().name, *runs.machines()}):
        for recipe in recipes:
            try:
                state, record = _state(recipe, machine, runs)
            except RecipeError as error:
                record, state = None, error.cause
            age = (
                str(datetime.now(UTC) - datetime.fromisoformat(record.run.started)).partition(".")[0] if record else ""
            )
            rows.append([recipe.name, machine, state, age, f"{record.run.seconds:.1f}" if record else ""])
    rows += [[Path(path).stem, "", f"cannot run: {error.cause}", "", ""] for path, error in errors.items()]
    print(tabulate(rows, headers=["recipe", "machine", "state", "age", "seconds"], disable_numparse=True))
    return 0


def _state(recipe: Recipe, machine: str, runs: Runs) -> tuple[str, Record | None]:
    """The state of a recipe's run on a machine, and the run that is meant."""
    from recipe_runner.due import versions_for

    record = runs.newest(machine, recipe.name)
    if record is None:
        return "not run", None
    changed = runs.why_run(recipe, this_machine(), versions_for(recipe)) if machine == this_machine().name else None
    if changed == []:
        return "current", runs.load(machine, recipe.name)  # A failure of other code or versions is over.
    if record.run.status != PASSED:
        return record.run.status, record
    if changed is not None:
        return f"stale ({len(changed)} changed)", record
    return ("current code" if record.code_hash == code_hash(recipe.blocks) else "older code"), record


def why(root: Path, name: str) -> int:
    """Print which parts of a recipe's key changed since its kept run, old and new value."""
    from recipe_runner.due import select, versions_for

    recipes, errors = load_all(root)
    chosen = select(recipes, errors, name)
    for error in errors.values() if not chosen else []:
        if Path(error.file).stem == Path(name).stem:
            raise error
    for recipe in chosen:
        reasons = Runs(root / "_build" / "runs").why_run(recipe, this_machine(), versions_for(recipe))
        print(f"{recipe.path}: " + ("the kept run is current" if not reasons else "must run, because"))
        for reason in reasons:
            print(f"  {reason}")
    return 0


def _check_machine() -> None:
    """Refuse a ``MACHINE`` of which no name for a folder can be made."""
    name = os.environ.get("MACHINE")
    try:
        slugify(name or "this one")
    except ValueError:
        remedy = "Give one with letters or digits, such as MACHINE=old-laptop"
        raise RecipeError(f"MACHINE={name}", "not a name for a machine", remedy) from None


def _seconds(text: str | None) -> float | None:
    """The time limit that ``TIMEOUT=`` gives, if it is set."""
    try:
        seconds = None if text is None else float(text)
    except ValueError:
        seconds = 0
    if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
        raise RecipeError(f"TIMEOUT={text}", "not a time limit", "Give seconds above 0")
    return seconds


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run one command. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe_runner", description="Runs recipes, keeps their runs, builds the site."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for command, text in (("build", "run what is stale, then build the site"), ("run", "run what is stale")):
        sub = commands.add_parser(command, help=text)
        sub.add_argument("--only", metavar="NAME", help="only this recipe")
        sub.add_argument("--rerun", action="store_true", help="also what is current")
        sub.add_argument("--timeout", metavar="SECONDS", help="time limit instead of each recipe's own")
        sub.add_argument("--cluster", metavar="ADDRESS", help="run on the workers of this dask scheduler")
        sub.add_argument("--machines", metavar="NAMES", help="with --cluster: all, or which kinds of its machines")
    commands.add_parser("replay", help="build the site from results/, run nothing").add_argument("--machine")
    recording = commands.add_parser("record", help="put this machine's good runs into results/")
    recording.add_argument("--only", metavar="NAME", help="only this recipe")
    comparing = commands.add_parser("compare", help="what changed between two folders of runs")
    comparing.add_argument("old", help="a folder of runs, or a machine's name")
    comparing.add_argument("new")
    soaking = commands.add_parser("soak", help="run everything several times, say what differs")
    soaking.add_argument("--times", default="3", metavar="N", help="how often (default: 3)")
    soaking.add_argument("--only", metavar="NAME", help="only this recipe")
    commands.add_parser("new", help="write the file of a new recipe").add_argument("name")
    verifying = commands.add_parser("verify", help="does a built site show what ran, and only that?")
    verifying.add_argument("site", type=Path, nargs="?", default=Path("_build/html"), help="default: _build/html")
    commands.add_parser("status", help="the state of every run")
    commands.add_parser("why", help="why a recipe would run").add_argument("recipe")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the project's folder (default: this one)")
    options = parser.parse_args(arguments)

    from recipe_runner import build
    from recipe_runner.due import Options

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # End as cleanly as with Ctrl-C.
    try:
        _check_machine()
        if options.command == "status":
            return status(options.root)
        if options.command == "why":
            return why(options.root, options.recipe)
        if options.command == "new":
            from recipe_runner.skeleton import new

            return new(options.root, options.name)
        if options.command == "verify":
            from recipe_runner.verify import verify

            return verify(options.root, options.root / options.site)
        if options.command == "compare":
            from recipe_runner.compare import compare

            return compare(options.root, options.old, options.new)
        if options.command == "soak":
            from recipe_runner.soak import soak

            if not options.times.isdecimal():
                raise RecipeError(f"TIMES={options.times}", "not a number of runs", "Give 2 or more")
            return soak(options.root, int(options.times), options.only)
        if options.command == "record":
            from recipe_runner.promote import promote

            return promote(options.root, options.only)
        if options.command == "replay":
            return build.replay(options.root, options.machine)
        if options.machines is not None and options.cluster is None:
            cause = "chooses machines of a cluster, and no cluster is named"
            raise RecipeError(f"MACHINES={options.machines}", cause, "Name it too: CLUSTER=tcp://scheduler:8786")
        chosen = Options(options.only, options.rerun, _seconds(options.timeout), options.cluster, options.machines)
        return (build.build if options.command == "build" else build.run_only)(options.root, chosen)
    except RecipeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: finished runs are kept, the next build goes on from there", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
