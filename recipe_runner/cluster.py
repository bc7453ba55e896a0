"""A dask.distributed cluster, as the dispatcher needs it. The only module that imports distributed.

Imported only if a cluster is named, so that a build without one needs no dask. What runs there is in `worker.py`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dask
from distributed import Client, Future
from distributed.client import ClosedClientError, FutureCancelledError
from distributed.scheduler import KilledWorker

from recipe_runner import worker
from recipe_runner.machine import Machine
from recipe_runner.recipe import RecipeError
from recipe_runner.record import SCHEMA

START_WORKER = "Start one on each machine: make worker CLUSTER={}"
#: What a worker evaluates. A text, as the scheduler unpacks what it hands on, and has none of our modules.
RUN_TEXT = "__import__('recipe_runner.worker', fromlist=['run_text']).run_text(request)"
#: How long a result may take from its worker to here.
FETCH_S = 60


class WorkerLostError(Exception):
    """The worker that had a recipe is gone."""


class SchedulerLostError(Exception):
    """There is no connection to the scheduler any more."""


@dataclass(frozen=True)
class Worker:
    """A worker that may run recipes.

    Attributes
    ----------
    address : str
        Where dask finds it.
    place : str
        The same for all workers that must not run recipes at the same time.
    machine : Machine
        What it runs on; the machine's name is the worker's kind.
    versions : dict
        Versions of Python and of packages; None for what is not installed.
    """

    address: str
    place: str
    machine: Machine
    versions: dict[str, str | None]

    @property
    def kind(self) -> str:
        """Name of its kind of machine."""
        return self.machine.name

    def installed(self, packages: Sequence[str]) -> dict[str, str]:
        """As `run.installed_versions`, of this worker."""
        for package in packages:
            if self.versions.get(package) is None:
                raise importlib.metadata.PackageNotFoundError(package)
        names = ["python", *sorted(packages), *(["triton"] if self.versions.get("triton") else [])]
        return {name: self.versions[name] for name in names}


class Cluster:
    """The connection to a scheduler, and the workers it has at the moment.

    Parameters
    ----------
    client
        The connection.
    address
        The scheduler's address, as the user gave it.
    packages
        Packages whose versions matter.
    """

    def __init__(self, client: Client, address: str, packages: Sequence[str]) -> None:
        self.client, self.address = client, address
        self.packages = sorted(packages)
        self.workers: dict[str, Worker] = {}
        self._refused: set[str] = set()

    def refresh(self) -> list[Worker]:
        """See which workers came or went; returns those that came and can be used.

        Raises
        ------
        SchedulerLostError
            If the scheduler does not answer.
        """
        if self.client.status != "running":
            raise SchedulerLostError
        try:
            present = set(self.client.nthreads())
            self.workers = {address: found for address, found in self.workers.items() if address in present}
            self._refused &= present
            new = sorted(present - self.workers.keys() - self._refused)
            asked = {}
            if new:
                question = json.dumps(self.packages)
                asked = self.client.run(worker.describe, question, workers=new, on_error="return")
        except (OSError, FutureCancelledError):
            raise SchedulerLostError from None
        came = [found for address in new if (found := self._accepted(address, asked.get(address)))]
        self.workers |= {found.address: found for found in came}
        return came

    def _accepted(self, address: str, answer: str | Exception | None) -> Worker | None:
        """A worker from what it says of itself; None if it cannot be used, which is said in one line."""
        if isinstance(answer, OSError) or answer is None:
            return None  # It went meanwhile, or is just coming: the next look tells.
        # A worker that cannot import our module sends the text of its error, not the error.
        if isinstance(answer, Exception) and (missing := re.search(r"No module named '([\w.]+)'", str(answer))):
            return self._refuse(address, f"it has no {missing[1]}: start it in the project's folder, with its Python")
        if isinstance(answer, Exception):
            return self._refuse(address, f"it cannot describe itself ({one_line(answer)})")
        facts = json.loads(answer)
        if (facts["schema"], facts["digest"]) != (SCHEMA, worker.DIGEST):
            return self._refuse(address, "its recipe_runner is another version: give it this one, and start it again")
        found = Worker(address, facts["place"], Machine(**facts["machine"]), facts["versions"])
        here = worker.installed(self.packages)
        differing = [
            f"{package} {found.versions.get(package) or 'missing'} there, {here.get(package) or 'missing'} here"
            for package in sorted(here.keys() | found.versions.keys())
            if found.versions.get(package) != here.get(package)
        ]
        if differing:
            say(f"worker {address} ({found.kind}) has other versions: {'; '.join(differing)}")
        return found

    def _refuse(self, address: str, why: str) -> None:
        self._refused.add(address)
        say(f"worker {address} is not used: {why}")

    def start(self, request: str, on: Worker) -> Future:
        """Give one recipe to one worker."""
        return self.client.submit(
            eval, RUN_TEXT, {"request": request}, workers=[on.address], allow_other_workers=False, pure=False, retries=0
        )

    def fetch(self, future: Future) -> str:
        """The notebook's text of a recipe that has ended.

        Raises
        ------
        WorkerLostError
            If its worker died.
        Exception
            Whatever the worker raised.
        """
        if future.status in ("cancelled", "lost"):
            raise WorkerLostError
        try:
            return future.result(timeout=FETCH_S)
        except (KilledWorker, TimeoutError, FutureCancelledError):
            raise WorkerLostError from None

    def _forget(self, future: Future) -> None:
        """Let the scheduler forget a recipe."""
        with contextlib.suppress(OSError, FutureCancelledError, ClosedClientError):
            self.client.cancel([future], force=True)

    def stop(self, future: Future, on: Worker, request_id: str) -> None:
        """Take back a recipe, and end it on its worker, if that is there."""
        self._forget(future)
        with contextlib.suppress(OSError, FutureCancelledError, ClosedClientError):
            # To one that is gone the scheduler would try to connect for half a minute.
            if self.client.status == "running" and on.address in self.workers:
                self.client.run(worker.stop, request_id, workers=[on.address], on_error="ignore")

    def start_worker(self) -> str:
        """How to get more workers, in one sentence."""
        return START_WORKER.format(self.address)


@contextlib.contextmanager
def connected(address: str, packages: Sequence[str]) -> Iterator[Cluster]:
    """Connect to a scheduler that has at least one worker that can be used.

    Raises
    ------
    RecipeError
        If the address is bad, nobody answers there, or no worker can be used.
    """
    where = f"CLUSTER={address}"
    remedy = "Give the address that 'dask scheduler' prints, such as tcp://host:8786"
    # Checked here: after a bad address dask's client waits long, and ends with a traceback.
    if not re.fullmatch(r"(tcp|tls|ws|wss|ucx)://\S+:\d+", address):
        raise RecipeError(where, "not the address of a scheduler", remedy)
    # What dask says in many lines is said here in one.
    logging.getLogger("distributed").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module="distributed")
    dask.config.set({"distributed.comm.timeouts.connect": "10s", "distributed.comm.retry.count": 0})
    try:
        client = Client(address, timeout=10, set_as_default=False)
    except (OSError, ValueError, RuntimeError, TypeError, ImportError) as error:
        raise RecipeError(where, f"no scheduler answers there ({one_line(error)})", remedy) from None
    try:
        cluster = Cluster(client, address, packages)
        try:
            cluster.refresh()
        except SchedulerLostError:
            raise RecipeError(where, "the scheduler went away", "Start it again: dask scheduler") from None
        if not cluster.workers:
            cause = "no worker can be used" if cluster._refused else "the scheduler has no worker"
            raise RecipeError(where, cause, cluster.start_worker())
        yield cluster
    finally:
        with contextlib.suppress(OSError):
            client.close(timeout=2)


def say(line: str) -> None:
    """Print one line beside the progress."""
    print(line, file=sys.stderr, flush=True)


def one_line(error: BaseException) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
