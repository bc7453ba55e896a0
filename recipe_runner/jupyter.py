"""What we ask of Jupyter beyond what it does by itself: our own Python, joined and capped outputs, a clean end."""

from __future__ import annotations

import signal
import sys
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import v4

#: A run's text and pictures together. A page above 150 KiB is too long to read; this is far above, and far below harm.
OUTPUT_CAP_BYTES = 4 * 1024**2

#: The kind of output in which `in_kernel.py` reports.
FACTS = "application/vnd.recipe-facts+json"


class ThisPython(KernelSpecManager):
    """Offers one kernel, this very Python: the user's installed kernels must not change a run."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, language="python", display_name="Python 3")


class Client(NotebookClient):
    """Joins stream outputs as they arrive, and drops what exceeds the cap."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bytes = 0
        self._capped = False

    def output(self, outs: list[Any], msg: dict[str, Any], display_id: str | None, cell_index: int) -> Any:
        content = msg["content"]
        size = (
            len(content["text"])
            if msg["msg_type"] == "stream"
            else sum(len(str(v)) for v in content.get("data", {}).values())
        )
        if self._bytes + size > OUTPUT_CAP_BYTES and msg["msg_type"] != "error":
            if not self._capped:
                self._capped = True
                notice = f"\n[Output capped at {OUTPUT_CAP_BYTES // 1024**2} MiB: the rest was dropped.]\n"
                outs.append(v4.new_output("stream", name="stderr", text=notice))
            return None
        self._bytes += size
        if msg["msg_type"] == "stream" and outs and outs[-1].get("name") == content["name"]:
            outs[-1]["text"] += content["text"]
            return outs[-1]
        return super().output(outs, msg, display_id, cell_index)


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
        return f"by {signal.Signals(-code).name}"
    return f"with exit code {code}"
