"""Runs one recipe's code blocks once, alone, and returns what happened as a value.

Knows no Sphinx and no page, so that it also works on a bare GPU machine or a cluster worker.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from recipe_runner.machine import Machine, this_machine

PASSED, FAILED = "passed", "failed"
#: The part of the machine's memory that a recipe may use, so that what it runs on stays alive.
MEMORY_SHARE = 0.8
#: What a metric's name must end in: seconds, a ratio, a count, bytes.
UNITS = ("_s", "_ms", "_us", "_x", "_count", "_bytes")


@dataclass(frozen=True)
class Run:
    """What one execution of one recipe was.

    Attributes
    ----------
    name : str
        The recipe's name.
    blocks : tuple of str
        The code blocks that were to run.
    outputs : tuple of list of dict
        For each block its outputs, in nbformat's form, scrubbed; empty for blocks that did not run.
    status : str
        ``passed``, ``failed``, ``timed out``, ``out of memory`` or ``died``.
    reason : str
        Why it did not pass, in one line; empty if it did.
    started : str
        Start in UTC, ISO 8601.
    seconds : float
        From the start of the first block to the end of the last, without the kernel's own start.
    host_peak_bytes : int
        Peak resident memory of the kernel and its descendants.
    device : str
        ``cpu``, or the model of the GPU that the kernel used.
    device_peak_bytes : int or None
        Peak GPU memory that PyTorch reserved; None on the CPU.
    machine : Machine
        Where it ran.
    versions : dict
        Python, the recipe's declared dependencies, and triton where it is installed.
    metrics : dict
        What the recipe measured.
    claims : dict
        Sentences that the recipe tested, and whether each held.
    """

    name: str
    blocks: tuple[str, ...] = field(repr=False)
    outputs: tuple[list[dict[str, Any]], ...] = field(repr=False)
    status: str
    reason: str
    started: str
    seconds: float
    host_peak_bytes: int
    device: str
    device_peak_bytes: int | None
    machine: Machine
    versions: dict[str, str]
    metrics: dict[str, int | float]
    claims: dict[str, bool]


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of Python, of `packages`, and of triton, which every compiled GPU kernel depends on.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        If one of `packages` is not installed.
    """
    versions = {"python": platform.python_version()}
    versions |= {package: importlib.metadata.version(package) for package in sorted(packages)}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # Not every platform has it.
        versions["triton"] = importlib.metadata.version("triton")
    return versions


def run(
    blocks: Sequence[str],
    *,
    name: str,
    packages: Sequence[str] = (),
    time_limit_s: float = 600,
    memory_limit_bytes: float | None = None,
    data: dict[str, bytes] | None = None,
    on_block: Callable[[int, int], None] = lambda number, count: None,
) -> Run:
    """Execute `blocks` one after the other in one fresh kernel of this Python.

    Parameters
    ----------
    blocks
        Code, at least one block.
    name
        The recipe's name: names the blocks in stacks.
    packages
        Packages whose versions the run notes.
    time_limit_s
        Seconds for all blocks together.
    memory_limit_bytes
        Resident memory of all its processes together; default four fifths of this machine's.
    data
        Files for the working directory: name -> content.
    on_block
        Called with (number, count) as each block starts; numbers begin at 1.

    Returns
    -------
    Run
        Also when the recipe fails, exits, dies or hangs. Its kernel and all that it started are gone by then.

    Raises
    ------
    ValueError
        If there is no block, or the time limit is not above zero.
    """
    if not blocks or time_limit_s <= 0:
        raise ValueError("run() needs at least one block and a time limit above zero")
    # Not at the top: building a site from kept runs needs this module's Run, and no Jupyter.
    from recipe_runner.kernel import execute

    started = datetime.now(UTC).isoformat(timespec="seconds")
    execution = execute(
        blocks,
        name=name,
        time_limit_s=time_limit_s,
        memory_limit_bytes=memory_limit_bytes or MEMORY_SHARE * this_machine().memory_gib * 1024**3,
        data=data or {},
        on_block=on_block,
    )
    metrics, metrics_problem = _checked(execution.facts.get("metrics", []), _metric_problem)
    claims, claims_problem = _checked(execution.facts.get("claims", []), _claim_problem)
    status, reason = execution.status, execution.reason
    if status == PASSED and (problem := metrics_problem or claims_problem or _device_problem(execution.facts)):
        status, reason = FAILED, problem
    return Run(
        name=name,
        blocks=tuple(blocks),
        outputs=tuple(execution.outputs),
        status=status,
        reason=reason,
        started=started,
        seconds=round(execution.seconds, 3),
        host_peak_bytes=execution.host_peak_bytes,
        device=execution.facts.get("device", "cpu"),
        device_peak_bytes=execution.facts.get("device_peak_bytes"),
        machine=this_machine(),
        versions=installed_versions(packages),
        metrics=metrics,
        claims=claims,
    )


def _device_problem(facts: dict[str, Any]) -> str:
    """What is wrong if the page would name this machine over what another device did."""
    machine, device = this_machine(), facts.get("device", "cpu")
    if machine.accelerator and facts.get("has_cuda") is False:
        return (
            f"PyTorch cannot use this machine's {machine.accelerator}: its driver is too old, PyTorch has no CUDA, or "
            "the recipe hides it. Mend that, or hide the GPU with CUDA_VISIBLE_DEVICES=-1"
        )
    if device not in ("cpu", machine.accelerator):
        return (
            f"it used {device}, and the page would name {machine.label}. "
            "With CUDA_VISIBLE_DEVICES, show only the GPU that it shall use, or -1 for none"
        )
    return ""


def _checked(entries: list[Any] | str, problem_of: Callable[[str, str, Any], str]) -> tuple[dict[str, Any], str]:
    """The entries that a kernel reported as a dict, or an empty one and what is wrong with the first bad entry."""
    if isinstance(entries, str):
        return {}, entries
    problems = [problem for entry in entries if (problem := problem_of(*entry))]
    return ({}, problems[0]) if problems else ({key: value for key, _, value in entries}, "")


def _metric_problem(key: str, kind: str, value: Any) -> str:
    if kind not in ("int", "float"):
        return f"metrics[{key!r}] is {kind}, must be int or float"
    if isinstance(value, str):
        return f"metrics[{key!r}] is {value}, must be finite"
    return "" if key.endswith(UNITS) else f"metrics[{key!r}] names no unit, must end in one of {', '.join(UNITS)}"


def _claim_problem(key: str, kind: str, value: Any) -> str:
    return "" if kind == "bool" else f"claims[{key!r}] is {kind}, must be bool"
