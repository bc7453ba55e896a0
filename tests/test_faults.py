"""What may go wrong around a recipe, each really caused: one clear line, and nothing that was good before is lost."""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import libfaketime
import psutil
import pytest
from conftest import ROOT, Built, Site

from recipe_runner.alone import alone_on_machine
from recipe_runner.jupyter import OUTPUT_CAP_BYTES
from recipe_runner.run import run

#: Without these a superuser, too, must respect a folder's permissions.
AS_ANYBODY = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


def text_of(outputs: list[dict]) -> str:
    return "".join(output.get("text", "") for output in outputs)


def test_a_kernel_killed_at_a_random_block(site: Site):
    seed = random.randrange(10**6)
    victim = random.Random(seed).randrange(1, 9)
    block = "import os, time\nprint('pid', end=' ')\ntime.sleep(0.4)\nprint('end of a block')"
    site.write("recipes_source/first.py", *[block] * 8)
    process = subprocess.Popen(
        [sys.executable, "-m", "recipe_runner", "build"],
        cwd=site.root,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output = ""
    for line in process.stdout:
        output += line
        if f"first: block {victim} of 8" in line:
            kernels = [p for p in psutil.Process(process.pid).children() if "ipykernel_launcher" in p.cmdline()]
            kernels[0].send_signal(signal.SIGKILL)
    built = Built(process.wait(), output)
    assert built.status == 1, f"seed {seed}"
    (error,) = built.errors
    assert f"first.py: its process ended in block {victim} by SIGKILL" in error, f"seed {seed}: {built.output}"
    assert site.page("recipes/first").count("end of a block\n") == victim - 1
    assert "second says 1" in site.page("intermediate/second"), "the next recipe ran"


def test_what_a_killed_build_left_is_ended_and_removed_by_the_next_run(site: Site, tmp_path_factory):
    # A short folder of its own, so that no other test's runs are in it.
    temporary = Path(tempfile.mkdtemp(prefix="t-"))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
    try:
        site.write("recipes_source/first.py", "import time\nprint('sleeps')\ntime.sleep(300)")
        process = subprocess.Popen(
            [sys.executable, "-m", "recipe_runner", "build"],
            cwd=site.root,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for line in process.stderr:
            if "first: block 1 of 1" in line or "first: starts" in line:
                break
        deadline = time.monotonic() + 30
        while not (kernels := psutil.Process(process.pid).children()) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(3)  # Into the block: an idle kernel would see by itself that its parent is gone.
        process.kill()
        process.wait()
        (room,) = temporary.glob("recipe-run-*/")
        assert kernels[0].is_running() and (room / "work").is_dir(), "they are left"

        other = Site(shutil.copytree(site.root, tmp_path_factory.mktemp("other") / "site"))
        other.write("recipes_source/first.py", "print('at once')")
        assert other.build(TMPDIR=str(temporary)).status == 0
        assert not kernels[0].is_running() and list(temporary.glob("recipe-run-*/")) == []
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def test_a_disk_that_is_full_while_a_run_is_written(site: Site):
    assert site.build().status == 0
    runs = {file: file.read_bytes() for file in site.runs()}
    file = next(file for file in runs if file.name == "first.ipynb")
    site.write("recipes_source/first.py", "print('first says', 43)")
    # Each write to this device is refused by the system as one to a full disk is.
    program = (
        "import os, sys\n"
        f"os.symlink('/dev/full', {str(file.parent)!r} + f'/.first.ipynb.{{os.getpid()}}.part')\n"
        "from recipe_runner.__main__ import main\n"
        "sys.exit(main(['build']))"
    )
    built = site.python(program)
    assert (built.status, len(built.errors)) == (1, 1), built.output
    assert "first.ipynb: cannot be written (No space left on device)" in built.errors[0]
    assert "Make room" in built.errors[0] and "Traceback" not in built.output
    assert {file: file.read_bytes() for file in site.runs()} == runs, "the good runs are as they were"
    assert not list(file.parent.glob(".*")), "no part of a file is left"
    again = site.build()
    assert (again.status, again.ran) == (0, ["first"])


def test_a_build_folder_that_is_read_only(site: Site):
    assert site.build().status == 0
    before = {file: file.read_bytes() for file in (site.root / "_build").rglob("*") if file.is_file()}
    folders = [site.root / "_build", *(folder for folder in (site.root / "_build").rglob("*") if folder.is_dir())]
    files = list(before)
    for path in [*files, *folders]:
        path.chmod(0o444 if path in before else 0o555)
    try:
        built = site.build_below(*AS_ANYBODY)
    finally:
        for path in [*folders, *files]:
            path.chmod(0o755)
    assert built.status == 1 and built.ran == []
    assert built.errors == [
        "error: _build: cannot be written (Permission denied). Make the folder writable, then run make again"
    ], built.output
    assert "Traceback" not in built.output
    assert {file: file.read_bytes() for file in before} == before


def test_two_builds_at_once_in_one_clone(site: Site):
    site.write("recipes_source/first.py", "import time\ntime.sleep(4)\nprint('first says 42')")
    first = subprocess.Popen(
        [sys.executable, "-m", "recipe_runner", "build"],
        cwd=site.root,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert any("first: block 1" in line for line in first.stderr)
    second = site.build()
    assert (second.status, second.ran) == (1, [])
    assert second.errors == ["error: _build: another build is running in this clone. Wait for its end"]
    first.stderr.read()
    assert first.wait() == 0 and "first says 42" in site.page("recipes/first")


def test_builds_in_two_clones_take_turns(site: Site, tmp_path_factory):
    """They time things: no two recipes run on one machine, also not in two clones."""
    stamp = "import time\nprint('from', time.time())\ntime.sleep(3)\nprint('to', time.time())"
    site.write("recipes_source/first.py", stamp)
    other = Site(tmp_path_factory.mktemp("other") / "clone")
    shutil.copytree(site.root, other.root)
    with ThreadPoolExecutor() as pool:
        built = list(pool.map(lambda clone: clone.command("run", "--only", "first"), [site, other]))
    assert [one.status for one in built] == [0, 0], built
    assert sum("another recipe runs on this machine: waiting for its end" in one.output for one in built) == 1
    times = []
    for clone in (site, other):
        (run_file,) = clone.runs()
        times.append([float(t) for t in re.findall(r"(?:from|to) ([0-9.]+)", run_file.read_text())])
    (_, end), (start, _) = sorted(times)
    assert end <= start


def test_a_lock_that_is_removed_during_the_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    lock = tmp_path / "recipe-runner.lock"
    lock.touch()
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        def clean() -> None:
            lock.unlink()
            fcntl.flock(held, fcntl.LOCK_UN)

        with alone_on_machine(clean), lock.open() as found, pytest.raises(BlockingIOError):
            fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)


def clock(days: int) -> dict[str, str]:
    """An environment in which the system's clock is that many days off, for a process and all that it starts."""
    library = next(Path(libfaketime.__file__).parent.rglob("libfaketime.so.1"))
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"{days:+d}d",
        # As when a clock is set: what counts from the machine's start goes on.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


def test_a_clock_that_is_set_back(site: Site):
    now = time.time()
    told = site.python("import time; print(time.time())", **clock(-3))
    assert float(told.output) == pytest.approx(now - 3 * 86400, abs=60), "the clock is off in a process of ours"
    assert site.build().status == 0
    file = site.write("recipes_source/first.py", "print('first says', 43)")
    os.utime(file, (now - 3 * 86400, now - 3 * 86400))  # As an editor writes it after the clock was set back.
    built = site.build(**clock(-3))
    assert (built.status, built.ran, built.errors) == (0, ["first"], []), built.output
    assert "first says 43" in site.page("recipes/first") and "first says 42" not in site.page("recipes/first")
    status = site.command("status")
    assert status.status == 0 and status.output.count("current") == 2
    # An edit of prose, too, is dated before the page that it changes.
    file.write_text(file.read_text().replace("One sentence about", "Another sentence about"))
    os.utime(file, (now - 3 * 86400, now - 3 * 86400))
    built = site.build(**clock(-3))
    assert (built.status, built.ran) == (0, []), built.output
    assert "Another sentence about" in site.page("recipes/first")
    assert site.command("verify").status == 0
    assert site.build().status == 0, "and after the clock is right again"


@pytest.mark.parametrize("how", ["many lines", "one text", "a child"])
def test_a_kernel_that_writes_200_megabytes(how: str):
    code = {
        "many lines": "line = 'x' * 999\nfor _ in range(200_000): print(line)",
        "one text": "import sys\nsys.stdout.write('x' * 200_000_000)\nNone",
        "a child": "import subprocess\nsubprocess.run(['head', '-c', '200000000', '/dev/zero'])\nNone",
    }[how]
    done = run([code, "print('after')"], name="demo")
    assert (done.status, done.reason) == ("passed", "")
    text = text_of(done.outputs[0])
    assert OUTPUT_CAP_BYTES <= len(text) <= OUTPUT_CAP_BYTES + 100, "what fits is kept"
    assert text.endswith("[Output capped at 4 MiB: the rest was dropped.]\n")
    assert text_of(done.outputs[1]) == "after\n", "the next block has a cap of its own"
    if how == "many lines":  # One text of 200 MB is one message, which must be held to be read.
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1.5 * 1024**2, "kilobytes"


def test_the_next_recipe_sees_nothing_of_what_one_changes(site: Site):
    site.write(
        "recipes_source/first.py",
        "import os, sys, warnings\nimport numpy, torch",
        "os.makedirs('folder')\nopen('left.txt', 'w').write('left')\nos.chdir('folder')\nos.environ['PLANTED'] = 'yes'",
        "torch.set_default_dtype(torch.float64)\ntorch.set_num_threads(1)\nnumpy.set_printoptions(precision=1)\n"
        "torch.manual_seed(5)\nsys.path.insert(0, '/planted')\nwarnings.simplefilter('ignore')\nprint = None",
        front="order = 1",
    )
    look = (
        "import os, sys, torch, numpy\n"
        "print(os.listdir(), 'PLANTED' in os.environ, torch.get_default_dtype(), '/planted' in sys.path)\n"
        "print(numpy.get_printoptions()['precision'], torch.get_num_threads(), torch.initial_seed() == 5)"
    )
    site.write("intermediate_source/second.py", look, front="order = 2")
    built = site.build()
    assert (built.status, built.ran) == (0, ["first", "second"]), built.output
    command = [sys.executable, "-c", "import torch; print(torch.get_num_threads())"]
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    threads = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    page = site.page("intermediate/second")
    assert "[] False torch.float32 False" in page and f"8 {threads} False" in page
    assert not list(site.root.rglob("left.txt"))


def test_what_is_preloaded_to_turn_the_clock_is_locked():
    assert f"libfaketime=={importlib.metadata.version('libfaketime')}" in (ROOT / "requirements.txt").read_text()
