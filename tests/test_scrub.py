"""Nothing of the build machine reaches a page: planted paths, names, process ids and colours are gone."""

from __future__ import annotations

import getpass
import os
import socket
import sys
import sysconfig
from pathlib import Path

from recipe_runner.run import run
from recipe_runner.scrub import scrubber


def test_planted_traces_of_the_machine_are_taken_out(tmp_path: Path):
    planted = [
        f"{tmp_path}/x.txt",
        f"{sysconfig.get_paths()['purelib']}/torch/nn.py",
        f"{sysconfig.get_paths()['stdlib']}/json/decoder.py",
        f"{sys.prefix}/bin/python",
        f"{Path.home()}/notes",
        f"/home/{getpass.getuser()}/notes",
        f"/tmp/torchinductor_{getpass.getuser()}/ab/cd.py",
        f"V1121 10:20:30.123000 {os.getpid()} torch/_dynamo/x.py:1] [0/0] text",
        f"pid: {os.getpid()}",
        "\x1b[31mred\x1b[0m",
        f"host {socket.gethostname()}",
    ]
    scrubbed = scrubber({tmp_path: "."})("\n".join(planted))
    assert scrubbed.splitlines()[:4] == [
        "./x.txt",
        "site-packages/torch/nn.py",
        scrubbed.splitlines()[2],
        "python/bin/python",
    ]
    for trace in (str(tmp_path), sys.prefix, f"/{getpass.getuser()}/", str(os.getpid()), "\x1b", "10:20:30"):
        assert trace not in scrubbed, trace
    if len(socket.gethostname()) > 3 and socket.gethostname() != "localhost":
        assert socket.gethostname() not in scrubbed


def test_other_text_stays_as_it_is():
    text = "graph 0, 2 inputs:\n  File of 12 lines; /usr/share and ./x stay; process of 3 steps\n"
    assert scrubber({})(text) == text


def test_a_run_is_scrubbed():
    code = "import os, sys\nprint(os.getcwd(), sys.executable)\nprint(chr(27) + '[1mbold')\n"
    done = run([code + "raise ValueError(os.getcwd())"], name="demo")
    everything = str(done.outputs) + done.reason
    assert "\\x1b" not in everything and "/recipe-" not in everything and sys.prefix not in everything
    assert done.reason == "block 1 raised ValueError: ."
