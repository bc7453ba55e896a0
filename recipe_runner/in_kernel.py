"""Runs inside the recipe's kernel, before its first block. Never imported: `run.py` writes it into a start-up folder.

It changes how outputs leave the kernel, not how code runs in it, and leaves no name behind in the recipe's namespace.
"""


def _prepare_kernel():
    import contextlib
    import ctypes
    import fcntl
    import os
    import struct
    import sys
    import termios
    import time
    from pathlib import Path

    # Where memory ends in spite of the runner's limit, the system ends this process and not the runner.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")

    shell = get_ipython()  # noqa: F821  IPython puts it there.
    stem = os.environ["RECIPE_RUNNER_NAME"]

    # Stacks then say "regional_compilation.py, block 3" instead of a file in a temporary folder.
    shell.compile.get_code_name = lambda raw, code, number: f"{stem}.py, block {number}"

    def figure_title(figure, printer, cycle):
        # The text form of a figure output is its title: it becomes the picture's alternative text on the page.
        titles = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
        printer.text(": ".join(title.replace("\n", " ") for title in titles if title))

    text = shell.display_formatter.formatters["text/plain"]
    text.for_type_by_name("matplotlib.figure", "Figure", figure_title)
    # The inline backend, when it starts, takes Figure out of every formatter; this one keeps it.
    text.pop = lambda *_: None

    # ipykernel ends the children of its process group on its way out. The runner wants to see who is left.
    async def leave_children():
        pass

    shell.kernel._progressively_terminate_all_children = leave_children

    def keep_order(stream, other):
        # Each stream has a buffer of its own. Without this, what was printed between two warnings arrives after both.
        write = stream.write

        def write_in_order(text):
            if writer[0] is not stream:
                writer[0] = stream
                other.flush()
            return write(text)

        stream.write = write_in_order

    writer = [sys.stdout]
    keep_order(sys.stdout, sys.stderr)
    keep_order(sys.stderr, sys.stdout)

    def unread(stream):
        buffer = struct.pack("i", 0)
        return struct.unpack("i", fcntl.ioctl(stream._fid, termios.FIONREAD, buffer))[0]

    def drain(*_):
        # What child processes and C++ wrote travels through pipes that threads of the kernel read. Without this wait
        # it would arrive with the next block's output, or never.
        ctypes.CDLL(None).fflush(None)
        for stream in (sys.stdout, sys.stderr):
            if getattr(stream, "_fid", None) is None:
                continue  # The recipe replaced the stream, or this ipykernel does not watch file descriptors.
            deadline = time.monotonic() + 2
            while unread(stream) and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.01)  # Read, but perhaps not yet handed on.
            stream.flush()

    shell.events.register("post_run_cell", drain)

    def facts():
        """What the run leaves to be recorded, as plain JSON: every value with its type, checked by the runner."""

        def entries(name):
            value = shell.user_ns.get(name, {})
            if type(value) is not dict:
                return f"{name} is not a dict but {type(value).__name__}"
            # NaN and infinity are not JSON: the runner gets them as text, and refuses them by their type.
            plain = {True: lambda v: v, False: repr}
            return [
                [
                    str(key),
                    type(v).__name__,
                    plain[type(v) in (int, bool) or (type(v) is float and abs(v) < float("inf"))](v),
                ]
                for key, v in value.items()
            ]

        torch = sys.modules.get("torch")
        has_cuda = torch.cuda.is_available() if torch else None
        on_cuda = bool(has_cuda and torch.cuda.is_initialized())
        return {
            "metrics": entries("metrics"),
            "claims": entries("claims"),
            "has_cuda": has_cuda,
            "device": torch.cuda.get_device_name() if on_cuda else "cpu",
            "device_peak_bytes": torch.cuda.memory_stats().get("reserved_bytes.all.peak") if on_cuda else None,
        }

    def publish_facts():
        # On its way out, ipykernel may flush a stream whose thread has already ended, and would wait for 10 s.
        sys.stdout.flush_timeout = sys.stderr.flush_timeout = 0.2
        shell.display_pub.publish({"application/vnd.recipe-facts+json": facts()})

    shell.publish_recipe_facts = publish_facts


_prepare_kernel()
del _prepare_kernel
