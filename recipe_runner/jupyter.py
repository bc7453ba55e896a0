"""What we ask of Jupyter beyond what it does by itself: our own Python, joined and capped outputs, a clean end."""

from __future__ import annotations

import collections
import signal
import sys
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import v4

#: One block's text and pictures. A page above 150 KiB is too long to read; this is far above, and far below harm.
OUTPUT_CAP_BYTES = 4 * 1024**2

#: The kind of output in which `in_kernel.py` reports.
FACTS = "application/vnd.recipe-facts+json"


class ThisPython(KernelSpecManager):
    """Offers one kernel, this very Python: the user's installed kernels must not change a run."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, language="python", display_name="Python 3")


class Client(NotebookClient):
    """Joins stream outputs as they arrive, and drops what exceeds a block's cap."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._left = collections.defaultdict(lambda: OUTPUT_CAP_BYTES)
        self._capped: set[int] = set()

    def output(self, outs: list[Any], msg: dict[str, Any], display_id: str | None, cell_index: int) -> Any:
        content, is_stream = msg["content"], msg["msg_type"] == "stream"
        size = len(content["text"]) if is_stream else sum(len(str(v)) for v in content.get("data", {}).values())
        too_much = size > self._left[cell_index] and msg["msg_type"] != "error"
        if too_much and is_stream:
            content["text"] = content["text"][: self._left[cell_index]]
        if is_stream and outs and outs[-1].get("name") == content["name"]:
            outs[-1]["text"] += content["text"]
        elif not too_much or (is_stream and content["text"]):
            super().output(outs, msg, display_id, cell_index)
        self._left[cell_index] = 0 if too_much else self._left[cell_index] - size
        if too_much and cell_index not in self._capped:
            self._capped.add(cell_index)
            notice = f"\n[Output capped at {OUTPUT_CAP_BYTES // 1024**2} MiB: the rest was dropped.]\n"
            outs.append(v4.new_output("stream", name="stderr", text=notice))
        return None


async def collect(client: Client) -> dict[str, Any]:
    """Ask the kernel what the recipe left: metrics, claims, device and its memory."""
    cell = v4.new_code_cell("get_ipython().publish_recipe_facts()")
    client.nb.cells.append(cell)
    try:
        await client.async_execute_cell(cell, len(client.nb.cells) - 1, store_history=False)
    finally:
        client.nb.cells.pop()
    return next(output["data"][FACTS] for output in cell.outputs if FACTS in output.get("data", {}))


async def leave(client: Client, manager: AsyncKernelManager) -> None:
    """Let the kernel end by itself, so that what the recipe registered with `atexit` runs."""
    client.kc.session.send(
        client.kc.control_channel.socket, client.kc.session.msg("shutdown_request", {"restart": False})
    )
    await manager.finish_shutdown(waittime=6)
    await manager.cleanup_resources()


async def how_it_ended(manager: AsyncKernelManager) -> str:
    """The exit code or signal of a dead kernel, in words."""
    code = await manager.provisioner.poll()
    if code is not None and code < 0:
        cause = ", as by the system when memory ends" if -code == signal.SIGKILL else ""
        return f"by {signal.Signals(-code).name}{cause}"
    return f"with exit code {code}"
