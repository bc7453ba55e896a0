"""How `test_recipes.py` runs recipes: in an order that can be repeated, and out of reach of any other host."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import cut_off
import pytest
from conftest import ROOT

on_linux = pytest.mark.skipif(not cut_off.POSSIBLE, reason="only Linux has LD_PRELOAD")

#: 192.0.2.1 and 2001:db8::1 are for documentation: no host has them.
REFUSALS = """
import ctypes, errno, socket, time, urllib.request
start = time.monotonic()
for family, host in [(socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"),
                     (socket.AF_INET6, "::ffff:192.0.2.1")]:
    for kind, act in [(socket.SOCK_STREAM, lambda s: s.connect((host, 80))),
                      (socket.SOCK_DGRAM, lambda s: s.sendto(b"x", (host, 80))),
                      (socket.SOCK_DGRAM, lambda s: s.sendmsg([b"x"], [], 0, (host, 80)))]:
        try:
            opened = socket.socket(family, kind)
        except OSError:
            continue  # No IPv6 here.
        with opened:
            try:
                act(opened)
                print("reached", host)
            except OSError as error:
                assert error.errno == errno.ENETUNREACH, error
                count = count + 1 if "count" in globals() else 1
try:
    urllib.request.urlopen("http://192.0.2.1/")
except OSError as error:
    print(error)
assert time.monotonic() - start < 2
assert ctypes.CDLL(None).no_network_refused() == count + 1 >= 4, "this library refused, not the system"
"""

LOOPBACK = """
import socket, tempfile
try:
    own = [socket.gethostbyname(socket.gethostname())]
except OSError:
    own = []  # Not every host knows its own name.
for family, host in [(socket.AF_INET, name) for name in ["127.0.0.1", "localhost", *own]]:
    with socket.create_server(("", 0), family=family) as server:
        with socket.create_connection((host, server.getsockname()[1])) as client:
            client.sendall(b"x")
            with server.accept()[0] as accepted:
                assert accepted.recv(1) == b"x"
    with socket.socket(family, socket.SOCK_DGRAM) as receiver, socket.socket(family, socket.SOCK_DGRAM) as sender:
        receiver.bind(("", 0))
        sender.sendto(b"y", (host, receiver.getsockname()[1]))
        sender.sendmsg([b"z"], [], 0, (host, receiver.getsockname()[1]))
        assert receiver.recv(1) + receiver.recv(1) == b"yz"
with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
    server.bind(folder + "/s")
    server.listen()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(folder + "/s")
print("all reached")
"""


def python(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"no_proxy": "*"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


@on_linux
def test_another_host_is_out_of_reach_at_once(no_network: dict[str, str]):
    done = python(REFUSALS, no_network)
    assert done.returncode == 0, done.stdout
    assert "Network is unreachable" in done.stdout and "reached 1" not in done.stdout


@on_linux
def test_a_child_process_is_cut_off_too(no_network: dict[str, str]):
    done = python(
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {REFUSALS!r}], check=True)", no_network
    )
    assert done.returncode == 0, done.stdout
    assert "Network is unreachable" in done.stdout


@on_linux
def test_this_host_is_reached(no_network: dict[str, str]):
    done = python(LOOPBACK, no_network)
    assert (done.returncode, done.stdout) == (0, "all reached\n")


@on_linux
def test_without_it_nothing_is_refused():
    loaded = "import ctypes; print(hasattr(ctypes.CDLL(None), 'no_network_refused'))"
    assert python(loaded, {"LD_PRELOAD": ""}).stdout == "False\n"


@on_linux
def test_torchrun_works(no_network: dict[str, str], tmp_path):
    pytest.importorskip("torch")
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\nx = torch.ones(1)\ndist.all_reduce(x)\n"
        "print(f'sum {x.item()}\\n', end='', flush=True)\n"
        "dist.destroy_process_group()\n"
    )
    code = "import subprocess, sys\nlaunch = [sys.executable, '-m', 'torch.distributed.run', '--standalone']\n"
    code += f"sys.exit(subprocess.run([*launch, '--nproc-per-node', '2', {str(worker)!r}]).returncode)"
    done = python(code, no_network)
    assert done.returncode == 0 and done.stdout.count("sum 2.0") == 2, done.stdout


def collected(seed: str) -> tuple[str, list[str]]:
    """The line on the order in the report's head, and the recipes in their order."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "tests/test_recipes.py"],
        cwd=ROOT,
        env=os.environ | {"RECIPE_SEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    head = next(line for line in done.stdout.splitlines() if "RECIPE_SEED=" in line)
    return head, re.findall(r"as_a_script\[(\w+)\]", done.stdout)


def test_the_order_of_recipes_is_shuffled_and_can_be_repeated():
    orders = [collected(seed) for seed in ("1", "1", "2", "3")]
    assert [re.search(r"RECIPE_SEED=(\w+)", head).group(1) for head, _ in orders] == ["1", "1", "2", "3"]
    assert orders[0] == orders[1]
    names = [recipes for _, recipes in orders]
    assert sorted(names[0]) == sorted(names[2]) and len({tuple(one) for one in names}) > 1
    assert re.search(r"RECIPE_SEED=\w+", collected("")[0]), "without one, a seed is made and named"
