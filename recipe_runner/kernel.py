"""Drives one Jupyter kernel through a list of code blocks, in a clean room, and ends everything it started.

nbclient executes; this module adds the clean room, one time limit for all blocks, the cap on output, and the end of
every process. It knows nothing of recipes: `run.py` makes a value of what comes back.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import v4

from recipe_runner import processes
from recipe_runner.jupyter import Client, FactsError, ThisPython, collect, how_it_ended, leave
from recipe_runner.room import new_room
from recipe_runner.scrub import scrubber, secrets_in

Status = Literal["passed", "failed", "timed out", "out of memory", "died"]

#: How long processes that a recipe started may take to end on their own once the kernel has ended.
GRACE_S = 5

#: A user's settings for these would change what a recipe prints, asserts or measures, and no page would say so. What is
#: kept of Python's own says where it finds packages: the run notes the versions that are found here.
_DROPPED_ENVIRONMENT = re.compile(
    r"(TORCH|PYTORCH|TRITON|INDUCTOR|IPYTHON|IPYKERNEL|JUPYTER|JPY|MPL|PYTEST|MAKE|MFLAGS)"
    r"|PYTHON(?!(PATH|HOME|USERBASE|NOUSERSITE)$)"
    r"|(MACHINE|DEVICE|CUDA_LAUNCH_BLOCKING|(OMP|MKL|OPENBLAS)_NUM_THREADS)$"
)


@dataclass
class Execution:
    """What came of executing blocks in a kernel.

    Attributes
    ----------
    outputs : list of list of dict
        For each block its outputs, in nbformat's form, scrubbed; empty for blocks that did not run.
    status, reason : str
        How it ended; one line why, if not ``passed``.
    seconds : float
        From the start of the first block to the end of the last.
    host_peak_bytes : int
        Peak resident memory of the kernel and its descendants.
    facts : dict
        What `in_kernel.py` collected after the last block; empty if it did not come so far.
    """

    outputs: list[list[dict[str, Any]]] = field(default_factory=list)
    status: Status = "passed"
    reason: str = ""
    seconds: float = 0.0
    host_peak_bytes: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


def execute(
    blocks: Sequence[str],
    *,
    name: str,
    time_limit_s: float,
    memory_limit_bytes: float,
    data: dict[str, bytes],
    on_block: Callable[[int, int], None],
) -> Execution:
    """Execute `blocks` in a fresh kernel; parameters as in `run.run`. Never raises for what the blocks do."""
    with new_room() as (room, run_id):
        work = room / "work"
        scrub = scrubber({work: ".", room: tempfile.gettempdir()})
        work.mkdir()
        for target, content in data.items():
            (work / target).parent.mkdir(parents=True, exist_ok=True)
            (work / target).write_bytes(content)
        notebook = v4.new_notebook(cells=[v4.new_code_cell(block) for block in blocks])
        session = _Session(notebook, room, run_id, name, (time_limit_s, memory_limit_bytes), on_block)
        asyncio.run(session.run())
        execution = session.execution
        scrubbed = [[_scrubbed(output, scrub) for output in cell.outputs] for cell in notebook.cells]
        # A stream may have held nothing but what was scrubbed.
        execution.outputs = [[output for output in outputs if output.get("text") != ""] for outputs in scrubbed]
        execution.reason = scrub(execution.reason)
        # What the recipe wrote, and nothing else: the name of a GPU may hold that of the host.
        for part in {"metrics", "claims"} & execution.facts.keys():
            execution.facts[part] = _scrubbed_entries(execution.facts[part], scrub)
        return execution


class _Session:
    """One kernel's life."""

    def __init__(
        self,
        notebook: Any,
        room: Path,
        run_id: str,
        name: str,
        limits: tuple[float, float],
        on_block: Callable[[int, int], None],
    ):
        self.notebook, self.room, self.id, self.name, self.on_block = notebook, room, run_id, name, on_block
        self.time_limit_s, self.memory_limit_bytes = limits
        self.execution = Execution()
        self.block_number = 0
        self.deadline = math.inf

    def end(self, status: Status, reason: str) -> None:
        self.execution.status, self.execution.reason = status, reason

    async def run(self) -> None:
        """Start a kernel, run the blocks in it, collect the facts; end everything whatever happens."""
        manager = AsyncKernelManager(
            transport="ipc", connection_file=str(self.room / "kernel.json"), kernel_spec_manager=ThisPython()
        )
        client = Client(self.notebook, km=manager, timeout_func=self.remaining_s, startup_timeout=120)
        client.log = logging.getLogger(f"{__name__}.nbclient")
        client.log.disabled = True  # What went wrong is in the Execution.
        log = self.room / "kernel.log"
        kernel: psutil.Process | None = None
        try:
            with log.open("wb") as log_file:
                await client.async_start_new_kernel(
                    env=self.environment(), cwd=str(self.room / "work"), stdout=log_file, stderr=log_file
                )
            kernel = psutil.Process(manager.provisioner.process.pid)
            await client.async_start_new_kernel_client()
            with processes.MemoryWatch.of(self.id, kernel, self.memory_limit_bytes) as memory:
                await self.blocks(client)
                self.execution.facts = await collect(client)
            await leave(client, manager)
            self.refuse_left_processes(kernel)
        except FactsError as error:
            self.end("failed", str(error))
        except CellTimeoutError:
            self.end("timed out", f"block {self.block_number} was running at the limit of {self.time_limit_s:g} s")
        except CellExecutionError as error:
            line = str(error.evalue).strip().partition("\n")[0][:200]
            what = f"called sys.exit({line})" if error.ename == "SystemExit" else f"raised {error.ename}: {line}"
            self.end("failed", f"block {self.block_number} {what}")
        except DeadKernelError:
            if await manager.is_alive():
                # nbclient takes the cancellation after Ctrl-C for a dead kernel.
                raise asyncio.CancelledError from None
            if memory.exceeded:
                used, limit = memory.bytes / 1024**3, self.memory_limit_bytes / 1024**3
                block = f"block {self.block_number}"
                self.end("out of memory", f"{block} used {used:.1f} GiB of memory, the limit is {limit:.1f} GiB")
            else:
                self.end("died", f"its process ended in block {self.block_number} {await how_it_ended(manager)}")
        except RuntimeError as error:  # nbclient's word for a kernel that does not come up.
            last_words = log.read_text(errors="replace").strip().rpartition("\n")[2]
            self.end("died", f"the kernel did not start ({error}) {last_words}".strip())
        finally:
            if self.block_number:
                self.execution.host_peak_bytes = memory.bytes
            if client.kc is not None:
                client.kc.stop_channels()
            processes.end_all(self.id, kernel)
            if manager.has_kernel:
                await manager.shutdown_kernel(now=True)
            manager.cleanup_connection_file()

    async def blocks(self, client: Client) -> None:
        """Run the blocks in order; the first that fails ends it."""
        start = time.monotonic()
        self.deadline = start + self.time_limit_s
        try:
            for number, cell in enumerate(self.notebook.cells, start=1):
                self.block_number = number
                self.on_block(number, len(self.notebook.cells))
                await client.async_execute_cell(cell, number - 1)
        finally:
            self.execution.seconds = time.monotonic() - start

    def remaining_s(self, cell: Any) -> float:
        """What is left of the time limit; nbclient takes zero for "no limit"."""
        return max(0.1, self.deadline - time.monotonic())

    def environment(self) -> dict[str, str]:
        """The environment of the kernel, with configuration and compile caches of its own."""
        room = self.room
        profile = room / "ipython" / "profile_default"
        (profile / "startup").mkdir(parents=True)
        shutil.copyfile(Path(__file__).with_name("in_kernel.py"), profile / "startup" / "00-recipe.py")
        (profile / "ipython_kernel_config.py").write_text(
            "c = get_config()\n"
            "c.HistoryManager.enabled = False\n"
            "c.InteractiveShell.colors = 'nocolor'\n"
            "c.InlineBackend.figure_formats = {'retina'}\n"
        )
        secrets = secrets_in(os.environ)
        kept = {
            key: value
            for key, value in os.environ.items()
            if not _DROPPED_ENVIRONMENT.match(key) and key not in secrets
        }
        return kept | {
            processes.MARKER: self.id,
            "RECIPE_RUNNER_NAME": self.name,
            "IPYTHONDIR": str(room / "ipython"),
            "JUPYTER_CONFIG_DIR": str(room / "jupyter"),
            "JUPYTER_DATA_DIR": str(room / "jupyter"),
            "JUPYTER_RUNTIME_DIR": str(room / "jupyter"),
            # Cold on purpose: a recipe that times a first call must not find an earlier run's compiled code.
            "TORCHINDUCTOR_CACHE_DIR": str(room / "inductor"),
            "TRITON_CACHE_DIR": str(room / "triton"),
            # Output of a child that is a Python program arrives in order.
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
        }

    def refuse_left_processes(self, kernel: psutil.Process) -> None:
        """Fail the run if it left processes behind; compile workers get a moment to follow their kernel."""
        deadline = time.monotonic() + GRACE_S
        while processes.of_run(self.id, kernel) and time.monotonic() < deadline:
            time.sleep(0.1)
        if left := processes.end_all(self.id, kernel):
            self.end("failed", f"left {len(left)} child process(es) running: {', '.join(left)}")


def _scrubbed_entries(entries: list[Any] | str, scrub: Callable[[str], str]) -> list[Any] | str:
    """The entries of a dict, or what is wrong with it, without traces: the sentence of a claim may hold a path."""
    if isinstance(entries, str):
        return scrub(entries)
    return [[scrub(key), kind, scrub(v) if isinstance(v, str) else v] for key, kind, v in entries]


def _scrubbed(output: dict[str, Any], scrub: Callable[[str], str]) -> dict[str, Any]:
    """A copy of an output whose texts are scrubbed; pictures stay as they are."""
    output = dict(output)
    if output["output_type"] == "stream":
        output["text"] = scrub(output["text"])
    elif output["output_type"] == "error":
        output |= {"evalue": scrub(output["evalue"]), "traceback": [scrub(line) for line in output["traceback"]]}
    else:
        data = {kind: scrub(v) if kind.startswith("text/") else v for kind, v in output["data"].items()}
        output |= {"data": data}
    # The number of the block is its place; the kernel's own counter is not the recipe's matter.
    output.pop("execution_count", None)
    if output["output_type"] == "execute_result":
        output["execution_count"] = None
    return output
