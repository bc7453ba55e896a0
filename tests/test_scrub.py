"""Nothing of the build machine reaches a page: planted paths, names, process ids and colours are gone."""

from __future__ import annotations

import getpass
import html
import os
import re
import socket
import sys
import sysconfig
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT, Site

from recipe_runner.machine import this_machine
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


def test_nothing_that_is_planted_reaches_a_page_or_a_download(site: Site):
    """A recipe that tells all it can: the environment, paths, names; in streams, in results, in an error's text."""
    planted = {
        "HF_TOKEN": "planted-secret-one",
        "MY_API_KEY": "planted-secret-two",
        "DB_PASSWORD": "planted-secret-three",
        "http_proxy": "http://planted-user:planted-password@proxy.example:3128",
    }
    tell = (
        "import getpass, os, pathlib, socket, subprocess, sys, tempfile\n"
        "told = [dict(os.environ), os.getcwd(), sys.path, sys.executable, tempfile.gettempdir(), pathlib.Path.home(),\n"
        "        pathlib.Path('~/x').expanduser(), f'/home/{getpass.getuser()}/y', socket.gethostname(),\n"
        "        open('note.txt').read(), 'ghp' + '_' + 'a1B2' * 9]"  # The form of a real token.
    )
    (site.root / "recipes_source/note.txt").write_text("planted-secret-one, as read from a file")
    site.write(
        "recipes_source/first.py",
        tell,
        "print(told)",
        "print(told, file=sys.stderr)",
        "told",
        "subprocess.run(['env'])\nsubprocess.run([sys.executable, '-c', 'import json; json.loads(1)'])\nNone",
        "import matplotlib.pyplot as plt\nplt.title(str(told))\nplt.show()",
        "claims = {str(told): True}",
        front='data = ["note.txt"]',
    )
    site.write("recipes_source/bad.py", tell, "raise ValueError(str(told))", front='data = ["note.txt"]')
    built = site.build(**planted)
    assert set(built.ran) == {"bad", "first", "second"} and len(built.errors) == 1, built.output
    traces = ["planted-secret", "planted-user", "planted-password", sys.prefix, f"{Path.home()}/", "/recipe-"]
    traces += ["a1B2a1B2", f"/home/{getpass.getuser()}", str(ROOT), str(site.root)]
    traces += [socket.gethostname()] if len(socket.gethostname()) > 3 else []
    files = [file for file in (site.root / "_build").rglob("*") if file.is_file() and "doctrees" not in file.parts]
    inputs = ("conf.py", "note.txt")  # Copied to where Sphinx reads them.
    texts = {str(file): file.read_bytes() for file in files if file.suffix != ".zip" and file.name not in inputs}
    for file in files:
        if file.suffix == ".zip":
            with zipfile.ZipFile(file) as archive:
                texts |= {f"{file}:{name}": archive.read(name) for name in archive.namelist()}
    assert sum("first" in name for name in texts) > 5, "the run, the page, the notebook, the script and the archive"
    assert sum(b"HOME" in text for text in texts.values()) > 3, "it did tell"
    for name, data in texts.items():
        text = html.unescape(re.sub(r"<[^>]+>", "", data.decode("utf-8", "replace")))
        found = [trace for trace in traces if trace in text]
        assert found == [], name.removeprefix(str(site.root))


def test_other_text_stays_as_it_is():
    text = "graph 0, 2 inputs:\n  File of 12 lines; /usr/share and ./x stay; process of 3 steps\n"
    assert scrubber({})(text) == text


def test_a_run_is_scrubbed():
    code = "import os, sys\nprint(os.getcwd(), sys.executable)\nprint(chr(27) + '[1mbold')\n"
    done = run([code + "raise ValueError(os.getcwd())"], name="demo")
    everything = str(done.outputs) + done.reason
    assert "\\x1b" not in everything and "/recipe-" not in everything and sys.prefix not in everything
    assert done.reason == "block 1 raised ValueError: ."
    done = run(["import os\nclaims, metrics = {os.getcwd(): True}, {os.getcwd() + '/x_ms': 1}"], name="demo")
    assert (done.claims, done.metrics) == ({".": True}, {"./x_ms": 1})
    done = run(["import os\nmetrics = {os.getcwd(): 1}"], name="demo")
    assert done.reason.startswith("metrics['.'] names no unit")


def test_the_name_of_the_device_is_not_scrubbed(monkeypatch: pytest.MonkeyPatch):
    machine = replace(this_machine(), accelerator="Pretend GPU of box1")
    monkeypatch.setattr("recipe_runner.run.this_machine", lambda: machine)
    monkeypatch.setattr("socket.gethostname", lambda: "box1")
    fake = "import sys, types\nyes = lambda: True\ncuda = types.SimpleNamespace(is_available=yes, is_initialized=yes)\n"
    fake += "cuda.get_device_name, cuda.memory_stats = lambda: 'Pretend GPU of box1', dict\n"
    done = run([fake + "sys.modules['torch'] = types.SimpleNamespace(cuda=cuda)\nprint('on box1')"], name="demo")
    assert (done.status, done.device) == ("passed", "Pretend GPU of box1"), done.reason
    assert "box1" not in str(done.outputs)


def test_a_user_whom_the_system_does_not_know(monkeypatch: pytest.MonkeyPatch):
    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    assert scrubber({Path("/some/folder"): "."})("/some/folder/x, /home/x") == "./x, /home/x"
