"""What a bare machine lacks is said in one line, before anything is downloaded."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from conftest import ROOT

from recipe_runner.machine import Machine, slugify, this_machine

_OF_MAKE = ("MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "MFLAGS", "TORCH", "VENV", "LOCK", "PYTHON")


def preflight(*names: str, patch: str = "", **environment: str) -> subprocess.CompletedProcess:
    """Run the checks with a patch of what they look at."""
    code = f"import sys; sys.path.insert(0, 'recipe_runner')\nimport preflight, sysconfig\n{patch}\n"
    code += f"sys.exit(preflight.main({list(names)}))"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_this_machine_has_what_is_needed():
    assert preflight().returncode == 0


@pytest.mark.parametrize(
    ("name", "patch", "cause", "remedy"),
    [
        ("python", "preflight.OLDEST_PYTHON = (9, 9)", "is too old", "PYTHON=python9.9"),
        ("venv", "sys.modules['ensurepip'] = None", "no module 'ensurepip'", "python3-venv"),
        (
            "compiler",
            "preflight.shutil.which = lambda name: None",
            "C++ compiler: found none of",
            "apt-get install g++",
        ),
        ("compiler", "sysconfig.get_paths = lambda: {'include': '/nowhere'}", "no Python.h in /nowhere", "python3-dev"),
    ],
)
def test_what_is_missing_is_one_line_with_a_remedy(name: str, patch: str, cause: str, remedy: str):
    done = preflight(name, patch=patch, CXX="")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and cause in lines[0] and remedy in lines[0]


def test_make_refuses_an_environment_that_is_not_there():
    done = subprocess.run(["make", "VENV=nowhere", "html"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "error: VENV=nowhere: no bin/python there" in done.stderr


def test_make_serve_refuses_a_cluster_before_it_builds():
    serve = ["make", "--no-print-directory", "serve", "CLUSTER=tcp://nowhere:1"]
    done = subprocess.run(serve, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and done.stdout == ""
    assert "error: make serve: it shows the runs of this machine only. Leave CLUSTER out" in done.stderr


def test_make_help_lists_every_command():
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE).group(1).split()
    missing = [name for name in phony if f"make {name} " not in listed and not name.startswith("check-")]
    assert missing == []


def test_locks_hold_hashes_and_no_address():
    for name in ("requirements.txt", "requirements-site.txt"):
        text = (ROOT / name).read_text()
        packages = re.findall(r"^[a-z0-9][\w.-]*==\S+", text, re.MULTILINE)
        assert len(packages) > 30 and text.count("--hash=sha256:") >= len(packages)
        assert "://" not in text and "index" not in text
    site = (ROOT / "requirements-site.txt").read_text()
    assert not re.search(r"^(torch|triton|nvidia)", site, re.MULTILINE), "a replay needs no torch"


def install(folder: Path, lock: str) -> subprocess.CompletedProcess:
    """The Makefile's own installation, of another lock into an environment of its own."""
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "requirements.txt").write_text(lock)
    # Options of a `make test` around this test are not for this make.
    environment = {name: value for name, value in os.environ.items() if name not in _OF_MAKE}
    options = [f"PYTHON={sys.executable}", f"VENV={folder / 'venv'}", "LOCK=requirements.txt"]
    return subprocess.run(
        ["make", ".install", *options],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_an_installation_checks_the_hashes_of_the_lock(tmp_path: Path):
    lock = (ROOT / "requirements.txt").read_text()
    uv, tabulate = (re.search(rf"^{name}==(?:.*\\\n)*.*\n", lock, re.MULTILINE).group() for name in ("uv", "tabulate"))
    good = install(tmp_path / "good", uv + tabulate)
    assert good.returncode == 0, good.stdout
    assert list((tmp_path / "good" / "venv").glob("lib/python*/site-packages/tabulate/__init__.py"))

    def other_digit(found: re.Match) -> str:
        return f"{found.group(1)}{(int(found.group(2), 16) + 1) % 16:x}"

    # Each file of the package: else another one of them, with a good hash, would be installed.
    wrong = re.sub(r"(sha256:)([0-9a-f])", other_digit, tabulate)
    refused = install(tmp_path / "wrong", uv + wrong)
    assert refused.returncode != 0 and "Hash mismatch for `tabulate" in refused.stdout, refused.stdout
    assert not list((tmp_path / "wrong" / "venv").glob("lib/python*/site-packages/tabulate*"))
    # pip fetches uv, so it must check as well.
    refused = install(tmp_path / "uv", re.sub(r"(sha256:)([0-9a-f])", other_digit, uv) + tabulate)
    assert refused.returncode != 0 and "DO NOT MATCH THE HASHES" in refused.stdout, refused.stdout


def test_machine_names_are_slugs(monkeypatch):
    assert slugify("NVIDIA H200") == "nvidia-h200"
    assert slugify("Intel(R) Xeon(R) CPU @ 2.20GHz 2 cores") == "intel-xeon"
    with pytest.raises(ValueError, match="no letter or digit"):
        slugify("///")
    this_machine.cache_clear()
    monkeypatch.setenv("MACHINE", "My Box")
    machine = this_machine()
    this_machine.cache_clear()
    assert isinstance(machine, Machine) and machine.name == "my-box"
    assert 1 <= machine.cores <= (os.cpu_count() or 1) and machine.memory_gib > 0


def test_limits_of_the_control_groups_around_hold_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    inner = tmp_path / "fs" / "slice" / "box" / "job"
    inner.mkdir(parents=True)
    for folder, cpu, memory in [(inner, "max 100000", "max"), (inner.parent, "100000 100000", f"{3 * 1024**3}")]:
        (folder / "cpu.max").write_text(f"{cpu}\n")
        (folder / "memory.max").write_text(f"{memory}\n")
    (inner.parents[1] / "memory.max").write_text(f"{5 * 1024**3}\n")
    (tmp_path / "memory.max").write_text("1\n")  # Not a group.
    (tmp_path / "own").write_text("10:cpu:/other\n0::/slice/box/job\n")
    monkeypatch.setattr("recipe_runner.machine._OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr("recipe_runner.machine._GROUPS", tmp_path / "fs")
    this_machine.cache_clear()
    machine = this_machine()
    this_machine.cache_clear()
    assert (machine.cores, machine.memory_gib) == (1, 3)


def with_driver(folder: Path, arguments: list[str], init: str = "return 0;", devices: int = 1):
    """Run Python where this CUDA driver is found, and a start-up file that prints."""
    (folder / "driver.cpp").write_text(f"""
        #include <string.h>
        #include <unistd.h>
        extern "C" {{
        int cuInit(unsigned flags) {{ {init} }}
        int cuDeviceGet(int *device, int number) {{ *device = 7; return number < {devices} ? 0 : 101; }}
        int cuDeviceGetName(char *name, int size, int device) {{
            strncpy(name, device == 7 ? "Pretend GPU" : "wrong", size); return 0;
        }}
        }}""")
    # As in `cut_off.py`.
    compiler = shlex.split(os.environ.get("CXX", "")) or [next(filter(shutil.which, ("g++", "clang++")), "g++")]
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", "libcuda.so.1", "driver.cpp"], cwd=folder, check=True)
    (folder / "sitecustomize.py").write_text("print('hello')")
    paths = {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    paths["PYTHONUNBUFFERED"] = "1"  # What it prints and its errors come in order.
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | paths,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the driver has another name there")
@pytest.mark.parametrize(("devices", "accelerator"), [(1, "Pretend GPU"), (0, None)])
def test_the_cuda_driver_names_the_machine(tmp_path: Path, devices: int, accelerator: str | None):
    code = "from recipe_runner.machine import this_machine; print(this_machine().accelerator)"
    assert with_driver(tmp_path, ["-c", code], devices=devices).stdout == f"hello\n{accelerator}\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the driver has another name there")
def test_a_cuda_driver_that_hangs_is_one_line(tmp_path: Path):
    code = "from recipe_runner import __main__, machine; machine.PATIENCE_S = 1; print(__main__.main(['status']))"
    hangs, error = with_driver(tmp_path, ["-c", code], init="sleep(60); return 0;").stdout.split("\n", 1)
    assert hangs == "hello" and error == (
        "error: GPU: the CUDA driver does not answer within 1 s. "
        "Mend that until nvidia-smi answers, then run make again\n1\n"
    )


def test_nothing_tracked_names_this_machine():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    # A clone may lie directly in the temporary folder, whose name says nothing.
    folder = ROOT if ROOT.parent == Path(tempfile.gettempdir()) else ROOT.parent
    for name in filter(None, tracked.split("\0")):
        content = (ROOT / name).read_bytes().decode("utf-8", "replace")
        assert f"{Path.home()}/" not in content and f"{folder}/" not in content, name
