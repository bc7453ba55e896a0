"""What runs on a worker of a cluster: says what the machine is, runs one recipe, stops it. Text in, text out.

No class of ours crosses the wire, no file is shared, and neither dask nor Sphinx is imported here.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from recipe_runner import kernel, processes  # noqa: F401  Loaded now, so that later edits of its file cannot mix with this code.
from recipe_runner.alone import alone_on_machine, place
from recipe_runner.machine import this_machine
from recipe_runner.record import SCHEMA, Record, key_from, to_notebook
from recipe_runner.run import installed_versions, run

#: The modules that make a run. All others only show runs: they may differ between a worker and its client.
MODULES = (
    "alone",
    "in_kernel",
    "jupyter",
    "kernel",
    "machine",
    "processes",
    "recipe",
    "record",
    "room",
    "run",
    "scrub",
    "worker",
)


def _digest() -> str:
    """A hash of the source of `MODULES`."""
    digest = hashlib.sha256()
    for module in MODULES:
        digest.update(module.encode() + Path(__file__).with_name(f"{module}.py").read_bytes())
    return digest.hexdigest()[:16]


#: Ids of the request that runs, or ran last, and of those that their clients took back.
_requests = SimpleNamespace(running="", taken_back=set())


class TakenBackError(Exception):
    """The client that asked for a run does not want it any more."""


#: Computed when this process starts, as the loaded code is of that moment.
DIGEST = _digest()


def installed(packages: Sequence[str]) -> dict[str, str | None]:
    """As `installed_versions`, with None for a package that is missing."""
    versions: dict[str, str | None] = dict(installed_versions([]))
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def describe(packages_json: str) -> str:
    """Tell this machine, its versions of the packages asked for, and which runner it has, as JSON."""
    facts = {
        "machine": this_machine().as_dict(),
        "versions": installed(json.loads(packages_json)),
        "schema": SCHEMA,
        "digest": DIGEST,
        # Workers that share the lock's file share the machine.
        "place": place(),
    }
    return json.dumps(facts)


def run_text(request_json: str) -> str:
    """Run one recipe, alone on this machine; returns the text of the notebook that keeps the run.

    Raises
    ------
    TakenBackError
        If `stop` was called with the request's id.
    """
    request = json.loads(request_json)
    data = {name: base64.b64decode(text) for name, text in request["data"].items()}

    def still_wanted(*_: int) -> None:
        if request["id"] in _requests.taken_back:
            raise TakenBackError

    with alone_on_machine():
        still_wanted()
        _requests.running = request["id"]
        _forget_nanny()
        done = run(
            request["blocks"],
            name=request["name"],
            packages=request["packages"],
            time_limit_s=request["time_limit_s"],
            data=data,
            on_block=still_wanted,
        )
    return to_notebook(Record(done, request["path"], key_from(done.blocks, data, done.machine, done.versions)))


def stop(request_id: str) -> None:
    """End the run that a request asked for, now or when its turn comes."""
    _requests.taken_back.add(request_id)
    if request_id == _requests.running:
        processes.kill_kernels()


def _forget_nanny() -> None:
    """Take out what dask's nanny put into the environment: one thread for numpy and torch, a fixed hash seed.

    A recipe on a worker must find what it finds in a build without a cluster.
    """
    if "distributed" not in sys.modules:
        return
    import dask.config

    ours = dict(dask.config.get("distributed.nanny.pre-spawn-environ", {})) | {"PYTHONHASHSEED": 6640}
    for name, value in ours.items():
        if os.environ.get(name) == str(value):
            del os.environ[name]
