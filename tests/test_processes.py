"""A run's processes: all are found, all are measured, none is left."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from recipe_runner import processes
from recipe_runner.run import run


def text_of(outputs: list[dict]) -> str:
    """All stream text of one block."""
    return "".join(output["text"] for output in outputs if output["output_type"] == "stream")


def alive(seconds: str) -> list[int]:
    """Processes that sleep for exactly `seconds`: the tests' own mark."""
    return [p.pid for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] and p.info["cmdline"][-1] == seconds]


@pytest.mark.parametrize("session", [False, True], ids=["child", "child in a session of its own"])
def test_a_child_left_running_fails_the_run_and_is_ended(session: bool):
    seconds = str(31415.5 + session)
    code = f"import subprocess\nsubprocess.Popen(['sleep', '{seconds}'], start_new_session={session})\nNone"
    done = run([code], name="demo")
    assert (done.status, done.reason) == ("failed", "left 1 child process(es) running: sleep")
    assert not alive(seconds)


def test_a_time_out_ends_children_too():
    code = "import subprocess, time\nsubprocess.Popen(['sleep', '27182.5'], start_new_session=True)\ntime.sleep(99)"
    assert run([code], name="demo", time_limit_s=2).status == "timed out"
    assert not alive("27182.5")


def test_a_time_out_ends_what_torchrun_started(tmp_path: Path):
    worker = tmp_path / "worker.py"
    worker.write_text("import subprocess\nprint('worker starts', flush=True)\nsubprocess.run(['sleep', '16180.3'])")
    code = (
        "import subprocess, sys\n"
        "launch = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']\n"
        f"subprocess.run([*launch, {str(worker)!r}])"
    )
    done = run([code], name="demo", time_limit_s=20)
    assert done.status == "timed out"
    assert text_of(done.outputs[0]).count("worker starts") == 2, "both workers were running"
    assert not alive("16180.3")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen]:
    """A process that carries the marker of a run of the id `test`."""
    process = subprocess.Popen(["sleep", "14142.5"], env=os.environ | {processes.MARKER: "test"})
    yield process
    process.kill()
    process.wait()


def test_a_process_that_ends_while_it_is_looked_at_is_no_error(sleeper: subprocess.Popen, monkeypatch):
    status = psutil.Process.status

    def status_of_one_that_ends(process: psutil.Process) -> str:
        sleeper.kill()
        sleeper.wait()
        return status(process)

    assert [process.pid for process in processes.of_run("test", None)] == [sleeper.pid]
    monkeypatch.setattr(psutil.Process, "status", status_of_one_that_ends)
    assert processes.of_run("test", None) == set()


def test_a_process_that_got_a_kernels_number_is_left_alone(sleeper: subprocess.Popen, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr("psutil._pslinux.Process.create_time", lambda process, monotonic=False: 1.0)
        kernel = psutil.Process(sleeper.pid)
    assert processes.end_all("another run", kernel) == [] and sleeper.poll() is None


@pytest.mark.parametrize("where", ["itself", "a child", "a child that left its parent"])
def test_a_recipe_that_takes_all_memory(where: str):
    greed = "kept = []\nwhile True: kept.append(bytearray(64 * 1024**2))"
    child = f"sys.executable, '-c', {greed!r}"
    code = {
        "itself": greed,
        "a child": f"subprocess.run([{child}])",
        "a child that left its parent": f"subprocess.run(['sh', '-c', '\"$0\" \"$@\" &', {child}])\ntime.sleep(60)",
    }[where]
    blocks = ["print('before')\nimport subprocess, sys, time", code]
    done = run(blocks, name="demo", memory_limit_bytes=1024**3)
    assert done.status == "out of memory"
    assert done.reason.startswith("block 2 used ") and done.reason.endswith("GiB of memory, the limit is 1.0 GiB")
    assert text_of(done.outputs[0]) == "before\n" and done.host_peak_bytes > 1024**3
    assert not [p for p in psutil.process_iter(["cmdline"]) if greed in (p.info["cmdline"] or ())]


def test_without_a_limit_given_a_recipe_may_use_four_fifths_of_the_memory(monkeypatch):
    import dataclasses

    from recipe_runner import run as module

    small = dataclasses.replace(module.this_machine(), memory_gib=1)
    monkeypatch.setattr(module, "this_machine", lambda: small)
    done = run(["kept = []\nwhile True: kept.append(bytearray(64 * 1024**2))"], name="demo")
    assert done.reason.endswith("the limit is 0.8 GiB")


def test_the_system_would_end_the_kernel_before_the_runner():
    code = "print(open('/proc/self/oom_score_adj').read())"
    assert text_of(run([code], name="demo").outputs[0]).strip() == "1000"
