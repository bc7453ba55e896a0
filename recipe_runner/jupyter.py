"""What we ask of Jupyter beyond what it does by itself: our own Python, joined and capped outputs, a clean end."""

from __future__ import annotations

import collections
import signal
import sys
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import v4

#: One block's text and pictures. A page above 150 KiB is too long to read; this is far above, and far below harm.
OUTPUT_CAP_BYTES = 4 * 1024**2

#: An error comes on top, whatever was printed before it; its message and its traceback are cut at half of this.
ERROR_CAP_BYTES = 256 * 1024

#: How long the kernel may take to tell what the recipe left, when the recipe's own time is over.
FACTS_LIMIT_S = 60

#: The kind of output in which `in_kernel.py` reports.
FACTS = "application/vnd.recipe-facts+json"


class ThisPython(KernelSpecManager):
    """Offers one kernel, this very Python: the user's installed kernels must not change a run."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, language="python", display_name="Python 3")


class FactsError(Exception):
    """The kernel did not tell what the recipe left, and why not."""


class Client(NotebookClient):
    """Joins stream outputs as they arrive, and drops what exceeds a block's cap."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._left = collections.defaultdict(lambda: OUTPUT_CAP_BYTES)
        self._capped: set[int] = set()

    def output(self, outs: list[Any], msg: dict[str, Any], display_id: str | None, cell_index: int) -> Any:
        if self.clear_before_next_output:  # nbclient would, but for a text that is joined.
            self.clear_before_next_output = False
            self.clear_output(outs, msg | {"content": {"wait": False}}, cell_index)
        content, is_stream, is_error = msg["content"], msg["msg_type"] == "stream", msg["msg_type"] == "error"
        if is_error:
            _cut_error(content)
        left = self._left[cell_index]
        room = max(0, left)
        size = sum(len(_encoded(text)) for text in _texts(content))
        if is_error and size > left + ERROR_CAP_BYTES:
            # The error that ends a block comes last: those that a recipe only showed make room for it.
            outs[:] = [output for output in outs if output["output_type"] != "error"]
        too_much = size > room and not is_error
        if too_much and is_stream:
            content["text"] = _cut(content["text"], room)
        if is_stream and outs and outs[-1].get("name") == content["name"]:
            outs[-1]["text"] += content["text"]
        elif not too_much or (is_stream and content["text"]):
            super().output(outs, msg, display_id, cell_index)
        self._left[cell_index] = min(0, left) if too_much else left - size
        if too_much and cell_index not in self._capped:
            self._capped.add(cell_index)
            notice = f"\n[Output capped at {OUTPUT_CAP_BYTES // 1024**2} MiB: the rest was dropped.]\n"
            outs.append(v4.new_output("stream", name="stderr", text=notice))
        return None

    def clear_output(self, outs: list[Any], msg: dict[str, Any], cell_index: int) -> None:
        super().clear_output(outs, msg, cell_index)
        if not outs:  # What a recipe cleared is not kept, and so does not count.
            self._left.pop(cell_index, None)
            self._capped.discard(cell_index)


def _texts(content: dict[str, Any]) -> list[str]:
    """All that a message wants to show."""
    data = content.get("data", {}).values()
    return [content.get("text", ""), content.get("evalue", ""), *content.get("traceback", []), *map(str, data)]


def _encoded(text: str) -> bytes:
    """As a file would hold it; half a surrogate pair, which no file can hold, is a question mark."""
    return text.encode(errors="replace")


def _cut(text: str, size: int) -> str:
    """The text, or its first `size` bytes without a part of a letter."""
    encoded = _encoded(text)
    return text if len(encoded) <= size else encoded[:size].decode(errors="ignore")


def _cut_error(content: dict[str, Any]) -> None:
    content["evalue"] = _cut(content["evalue"], ERROR_CAP_BYTES // 2)
    traceback = "\n".join(content["traceback"])
    if (cut := _cut(traceback, ERROR_CAP_BYTES // 2)) != traceback:
        content["traceback"] = [cut]


async def collect(client: Client) -> dict[str, Any]:
    """Ask the kernel what the recipe left: metrics, claims, device and its memory.

    Raises
    ------
    FactsError
        If no answer comes.
    """
    # The recipe may use the name `get_ipython` for something else.
    cell = v4.new_code_cell("__import__('IPython').get_ipython().publish_recipe_facts()")
    client.nb.cells.append(cell)
    client.timeout_func = lambda _: FACTS_LIMIT_S
    try:
        await client.async_execute_cell(cell, len(client.nb.cells) - 1, store_history=False)
    except CellTimeoutError:
        raise FactsError(f"its metrics and claims did not arrive within {FACTS_LIMIT_S} s") from None
    except CellExecutionError as error:
        line = str(error.evalue).strip().partition("\n")[0][:200]
        raise FactsError(f"what it left, its metrics and claims, cannot be read ({error.ename}: {line})") from None
    finally:
        client.nb.cells.pop()
    facts = next((output["data"][FACTS] for output in cell.outputs if FACTS in output.get("data", {})), None)
    if facts is None:
        raise FactsError(
            f"its metrics and claims did not arrive: they exceed {OUTPUT_CAP_BYTES // 1024**2} MiB, "
            "or the recipe changed how its kernel shows things"
        )
    return facts


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
