"""Brings the runs up to date on a cluster: which recipe goes to which worker, and what if the worker dies.

Each machine runs one recipe at a time. The longest recipes start first, so that no long one is left for the end.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe_runner.cluster import Cluster, SchedulerLostError, Worker, WorkerLostError, connected, one_line, say
from recipe_runner.collection import order_of_kinds
from recipe_runner.due import Options, remedy_for, versions_for
from recipe_runner.recipe import Recipe, RecipeError
from recipe_runner.record import Runs, from_notebook
from recipe_runner.run import PASSED

#: How often a recipe runs again after its worker died under it.
MORE_TRIES = 2
#: How long to wait for a worker when none is left: dask's nanny starts a dead one again.
WAIT_S = 15
POLL_S = 0.1
ALL = "all"


@dataclass
class Job:
    """A recipe that must run, on any kind of machine if `kind` is None."""

    recipe: Recipe
    kind: str | None
    number: int = 0
    lost: int = 0
    refused: str = ""
    without_worker_since: float | None = None


@dataclass(frozen=True)
class Started:
    """A job that a worker has."""

    job: Job
    worker: Worker
    future: Any
    id: str


def update_runs(
    root: Path, recipes: Sequence[Recipe], runs: Runs, options: Options
) -> tuple[dict[str, RecipeError], list]:
    """Run on a cluster those of `recipes` whose kept runs are stale.

    Returns
    -------
    problems : dict
        What went wrong, by path, or by path and kind.
    kinds : list of str
        Names of the kinds of machine whose runs the site shows, in order.

    Raises
    ------
    RecipeError
        If the cluster cannot be used at all.
    """
    packages = {requirement.name for recipe in recipes for requirement in recipe.front_matter.dependencies}
    published = Runs(root / "results")
    with connected(options.cluster, sorted(packages)) as cluster:
        dispatcher = Dispatcher(cluster, runs, published, options)
        dispatcher.choose_kinds()
        dispatcher.work(recipes)
        return dispatcher.problems, order_of_kinds(list(dispatcher.machines.values()), published)


class Dispatcher:
    """One build's jobs."""

    def __init__(self, cluster: Cluster, runs: Runs, published: Runs, options: Options) -> None:
        self.cluster, self.runs, self.published, self.options = cluster, runs, published, options
        self.every = options.machines == ALL
        self.kinds: list[str] | None = None
        self.machines = {}
        self.waiting: list[Job] = []
        self.started: list[Started] = []
        self.count = self.number = 0
        self.problems: dict[str, RecipeError] = {}

    def choose_kinds(self) -> None:
        """Read ``MACHINES=``: all kinds, or some by name.

        Raises
        ------
        RecipeError
            If the cluster has no machine of that name.
        """
        there = sorted({worker.kind for worker in self.cluster.workers.values()})
        if self.options.machines is not None and not self.every:
            self.kinds = [name.strip() for name in self.options.machines.split(",") if name.strip()]
            unknown = [name for name in self.kinds if name not in there]
            if unknown or not self.kinds:
                cause = f"the cluster has no machine '{unknown[0]}'" if unknown else "names no machine"
                remedy = f"Machines: {', '.join(there)}; or: {ALL}"
                raise RecipeError(f"MACHINES={self.options.machines}", cause, remedy)

    def usable(self) -> list[Worker]:
        """The workers that this build may use."""
        return [w for w in self.cluster.workers.values() if self.kinds is None or w.kind in self.kinds]

    def work(self, recipes: Sequence[Recipe]) -> None:
        """Run what is due, until nothing is left to do."""
        self.recipes = sorted(recipes, key=lambda recipe: -self.seconds(recipe))  # Stable: unknown ones keep order.
        try:
            self.meet(self.usable())
            if not self.every:
                self.plan(None)
            while self.waiting or self.started:
                self.meet([w for w in self.cluster.refresh() if self.kinds is None or w.kind in self.kinds])
                self.collect()
                self.start()
                time.sleep(POLL_S)
        except SchedulerLostError:
            left = len(self.waiting) + len(self.started)
            cause = f"the scheduler is gone, {left} {'run is' if left == 1 else 'runs are'} missing"
            where = f"CLUSTER={self.options.cluster}"
            self.problems[where] = RecipeError(where, cause, "Start it and its workers again, then run make again")
        finally:
            for started in self.started:  # None are left unless something above was raised, Ctrl-C for one.
                self.cluster.stop(started.future, started.worker, started.id)

    def meet(self, workers: Sequence[Worker]) -> None:
        """Note the kinds of workers that came; with ``MACHINES=all`` a new kind is to run everything."""
        for kind in dict.fromkeys(worker.kind for worker in workers):
            new = kind not in self.machines
            self.machines.setdefault(kind, next(worker.machine for worker in workers if worker.kind == kind))
            if new and self.every:
                self.plan(kind)

    def plan(self, kind: str | None) -> None:
        """Make a job of each recipe without a current run on this kind, or on any."""
        for recipe in self.recipes:
            try:
                if not self.is_current(recipe, kind):
                    self.waiting.append(Job(recipe, kind))
                    self.count += 1
            except RecipeError as problem:
                self.problems[recipe.path] = problem
        self.waiting.sort(key=lambda job: -self.seconds(job.recipe))

    def is_current(self, recipe: Recipe, kind: str | None) -> bool:
        """Whether a kept run is what one of the workers would make."""
        if self.options.rerun:
            return False
        for worker in self.usable():
            if kind in (None, worker.kind):
                try:
                    versions = versions_for(recipe, worker.installed)
                except RecipeError:
                    continue  # Said when no other worker accepts it.
                if self.runs.settle(recipe, worker.machine, versions):
                    return True
        return False

    def seconds(self, recipe: Recipe, kind: str | None = None) -> float:
        """Seconds of the longest kept run of a recipe, on any machine; -1 if there is none."""
        longest = -1.0
        for folder in (self.runs, self.published):
            for machine in folder.machines() if kind is None else [kind]:
                try:
                    record = folder.load(machine, recipe.name)
                except RecipeError:
                    continue  # Said where it is to be shown.
                longest = max(longest, record.run.seconds) if record else longest
        return longest

    def start(self) -> None:
        """Give waiting jobs to free machines."""
        for job in list(self.waiting):
            can = [worker for worker in self.usable() if self.accepts(worker, job)]
            if not can:
                self.give_up_in_time(job)
                continue
            job.without_worker_since = None
            busy = {started.worker.place for started in self.started}
            worker = next((worker for worker in can if worker.place not in busy), None)
            if worker is None:
                continue
            self.waiting.remove(job)
            if not job.number:
                self.number += 1
                job.number = self.number
            try:
                request_id = uuid.uuid4().hex
                request = self.request(job.recipe, request_id)
            except RecipeError as problem:
                self.fail(job, problem.cause, problem.remedy)
                continue
            last_s = self.seconds(job.recipe, worker.kind)
            tail = f"last time {last_s:.0f} s" if last_s >= 0 else "first run"
            say(f"{self.head(job)}: starts on {worker.kind}, {tail}")
            self.started.append(Started(job, worker, self.cluster.start(request, worker), request_id))

    def accepts(self, worker: Worker, job: Job) -> bool:
        """Whether a worker is of the kind, and has what the recipe declares."""
        if job.kind not in (None, worker.kind):
            return False
        try:
            versions_for(job.recipe, worker.installed)
        except RecipeError as problem:
            job.refused = f"{problem.cause} on {worker.kind} ({worker.address})"
            return False
        return True

    def give_up_in_time(self, job: Job) -> None:
        """Wait a moment for a worker that can run a job, then name the job."""
        now = time.monotonic()
        job.without_worker_since = job.without_worker_since or now
        if now - job.without_worker_since > WAIT_S:
            self.waiting.remove(job)
            kind = f" of kind {job.kind}" if job.kind else ""
            self.fail(job, job.refused or f"no worker{kind} is left to run it", self.cluster.start_worker())

    def request(self, recipe: Recipe, request_id: str) -> str:
        """What a worker needs to run a recipe, as JSON."""
        data = {name: base64.b64encode(content).decode() for name, content in recipe.read_data().items()}
        request = {
            "id": request_id,
            "name": recipe.name,
            "path": recipe.path,
            "blocks": list(recipe.blocks),
            "packages": [requirement.name for requirement in recipe.front_matter.dependencies],
            "time_limit_s": self.options.time_limit_s or recipe.front_matter.time_limit_s,
            "data": data,
        }
        return json.dumps(request)

    def collect(self) -> None:
        """Save what has ended, and put back what a dead worker left."""
        for started in list(self.started):
            gone = started.worker.address not in self.cluster.workers
            if started.future.status == "pending" and not gone:
                continue
            self.started.remove(started)
            try:
                if gone and started.future.status != "finished":
                    raise WorkerLostError
                text = self.cluster.fetch(started.future)
            except WorkerLostError:
                # Lost may mean that only the connection was: then the worker still has it.
                self.cluster.stop(started.future, started.worker, started.id)
                self.lose(started)
            except Exception as error:  # noqa: BLE001  Whatever the worker raised is this recipe's problem alone.
                cause = f"its worker {started.worker.address} failed ({one_line(error)})"
                self.fail(started.job, cause, "Look at that worker's log")
            else:
                self.keep(started, text)

    def keep(self, started: Started, text: str) -> None:
        """Save a run."""
        job, where = started.job, f"run of {started.job.recipe.path} from {started.worker.address}"
        try:
            record = from_notebook(text, where)
        except RecipeError as problem:
            self.fail(job, problem.cause, "Look at that worker's log")
            return
        try:
            file = self.runs.save(record)
        except RecipeError as problem:
            self.problems[str(problem.file)] = problem
            return
        run = record.run
        say(f"{self.head(job)}: {run.status} after {run.seconds:.1f} s on {run.machine.name}")
        if run.status != PASSED:
            # A page shows a failed run only where no other machine's passed.
            seen = f"Its output so far is in _build/runs/{file.relative_to(self.runs.folder)}"
            self.fail(job, f"{run.reason} (on {run.machine.name})", remedy_for(run.status, seen))

    def lose(self, started: Started) -> None:
        """Let a job run again after its worker died, or give it up."""
        job, worker = started.job, started.worker
        job.lost += 1
        if job.lost > MORE_TRIES:
            cause = f"its worker was lost {job.lost} times, last {worker.address} ({worker.kind})"
            self.fail(job, cause, "Does it need more memory than those machines have?")
            return
        say(f"{self.head(job)}: worker {worker.address} ({worker.kind}) is lost, the recipe runs again")
        self.waiting.insert(0, job)

    def fail(self, job: Job, cause: str, remedy: str) -> None:
        """Note what went wrong with a job."""
        key = f"{job.recipe.path} {job.kind or ''}".strip()
        self.problems[key] = RecipeError(job.recipe.path, cause, remedy)

    def head(self, job: Job) -> str:
        """How a line of progress begins."""
        return f"[{job.number}/{self.count}] {job.recipe.name}"
