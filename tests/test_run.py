"""The runner: one kernel, a clean room, every ending a value, nothing left behind."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from recipe_runner.jupyter import ERROR_CAP_BYTES, OUTPUT_CAP_BYTES
from recipe_runner.machine import this_machine
from recipe_runner.room import new_room
from recipe_runner.run import run


def text_of(outputs: list[dict]) -> str:
    """All stream text of one block."""
    return "".join(output["text"] for output in outputs if output["output_type"] == "stream")


def test_a_run_notes_what_happened():
    done = run(
        ["x = 20", "x += 1\nprint(x)\nx * 2", "metrics = {'a_ms': 1.5, 'b_count': 2}\nclaims = {'x is 21': x == 21}"],
        name="demo",
        packages=["pytest"],
    )
    assert (done.status, done.reason) == ("passed", "")
    assert [len(outputs) for outputs in done.outputs] == [0, 2, 0]
    assert text_of(done.outputs[1]) == "21\n"
    assert done.outputs[1][1]["data"]["text/plain"] == "42"
    assert done.metrics == {"a_ms": 1.5, "b_count": 2} and type(done.metrics["b_count"]) is int
    assert done.claims == {"x is 21": True}
    assert done.versions["pytest"] == importlib.metadata.version("pytest")
    assert done.seconds > 0 and done.host_peak_bytes > 10 * 1024**2 and done.device == "cpu"


@pytest.mark.parametrize(
    ("accelerator", "used", "reason"),
    [
        ("Pretend GPU", None, "PyTorch cannot use this machine's Pretend GPU"),
        ("Pretend GPU", "Another GPU", "it used Another GPU, and the page would name Pretend GPU"),
        (None, "Another GPU", "it used Another GPU, and the page would name"),
        ("Pretend GPU", "Pretend GPU", ""),
        ("Pretend GPU", "no torch", ""),
    ],
)
def test_a_run_is_of_the_device_that_the_page_names(accelerator, used, reason: str, monkeypatch: pytest.MonkeyPatch):
    machine = replace(this_machine(), accelerator=accelerator)
    monkeypatch.setattr("recipe_runner.run.this_machine", lambda: machine)
    pretend = (
        "import sys\nfrom unittest.mock import Mock\n"
        "torch = sys.modules['torch'] = Mock()\ntorch.cuda.memory_stats.return_value = {}\n"
        f"torch.cuda.is_available.return_value, torch.cuda.get_device_name.return_value = {bool(used)}, {used!r}"
    )
    done = run(["'no torch here'" if used == "no torch" else pretend], name="demo")
    assert done.reason.startswith(reason) and done.status == ("failed" if reason else "passed"), done.reason


def test_output_of_children_and_of_c_is_in_the_block_that_caused_it():
    done = run(
        [
            "import subprocess, ctypes, sys\nsubprocess.run([sys.executable, '-c', 'print(\"child\")'])",
            "ctypes.CDLL(None).puts(b'from C')\nNone",
            "import os\nos.write(2, b'raw')\nNone",
            "print('end')",
        ],
        name="demo",
    )
    assert [text_of(outputs).strip() for outputs in done.outputs] == ["child", "from C", "raw", "end"]


def test_streams_arrive_as_one_output():
    done = run(["import sys, time\nfor i in range(3):\n    print(i); sys.stdout.flush(); time.sleep(0.3)"], name="demo")
    assert [output["text"] for output in done.outputs[0]] == ["0\n1\n2\n"]


def test_streams_keep_their_order():
    code = "import sys\nfor i in range(3):\n    print('out', i)\n    print('err', i, file=sys.stderr)"
    outputs = run([code], name="demo").outputs[0]
    assert [output["text"] for output in outputs] == ["out 0\n", "err 0\n", "out 1\n", "err 1\n", "out 2\n", "err 2\n"]


def test_each_run_has_a_room_of_its_own():
    names = ["TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "IPYTHONDIR", "JUPYTER_CONFIG_DIR"]
    look = "import os, zlib; print(sorted(os.listdir())); open('left.txt', 'w').close()\n"
    # As numbers, as paths are taken out of a text.
    look += f"metrics = {{f'{{name}}_count': zlib.crc32(os.environ[name].encode()) for name in {names}}}"
    first, second = run([look], name="demo"), run([look], name="demo")
    assert text_of(first.outputs[0]) == text_of(second.outputs[0]) == "[]\n"
    folders = {*first.metrics.values(), *second.metrics.values()}
    assert len(folders) == 2 * len(names)
    rooms = Path(tempfile.gettempdir()).glob("recipe-run-*")
    assert not [room for room in rooms if (room / "work" / "left.txt").exists()]


def test_a_users_settings_stay_outside(monkeypatch, tmp_path: Path):
    startup = tmp_path / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "mine.py").write_text("print('intruder')\nintruder = 1\n")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    outside = ["TORCH_LOGS", "PYTHONHASHSEED", "CUDA_LAUNCH_BLOCKING", "OMP_NUM_THREADS", "MKL_NUM_THREADS"]
    for name in (*outside, "PYTHONOPTIMIZE", "PYTHONNOUSERSITE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    look = f"import os, sys\nprint('intruder' in globals(), [n for n in {outside} if n in os.environ], __debug__)\n"
    look += f"print({str(tmp_path)!r} in sys.path, sys.flags.no_user_site)"
    done = run([look], name="demo")
    assert text_of(done.outputs[0]) == "False [] True\nTrue 1\n"


def test_the_runner_leaves_no_name_in_the_recipes_namespace():
    done = run(["print([n for n in globals() if 'kernel' in n or 'recipe' in n.lower()])"], name="demo")
    assert text_of(done.outputs[0]) == "[]\n"


def test_data_files_lie_in_the_working_directory():
    done = run(["print(open('data/numbers.csv').read())"], name="demo", data={"data/numbers.csv": b"1,2\n"})
    assert "1,2" in text_of(done.outputs[0])


def test_figures_are_sharp_and_titled():
    code = "import matplotlib.pyplot as plt\nplt.figure(figsize=(4, 3))\nplt.plot([1, 2])\n"
    output = run([code + "plt.title('A rising line')\nplt.show()"], name="demo").outputs[0][0]
    assert output["data"]["text/plain"] == "A rising line"
    assert output["metadata"]["image/png"]["width"] < 450, "shown at half its pixels"


ENDINGS = {
    "exception": ("1 / 0", "failed", "block 2 raised ZeroDivisionError: division by zero"),
    "assertion": ("assert False, 'three graphs'", "failed", "block 2 raised AssertionError: three graphs"),
    "sys.exit(0)": ("import sys; sys.exit(0)", "failed", "block 2 called sys.exit(0)"),
    "sys.exit(3)": ("import sys; sys.exit(3)", "failed", "block 2 called sys.exit(3)"),
    "os._exit(0)": ("import os; os._exit(0)", "died", "its process ended in block 2 with exit code 0"),
    "segfault": ("import ctypes; ctypes.string_at(0)", "died", "its process ended in block 2 by SIGSEGV"),
    "killed": ("import os; os.kill(os.getpid(), 9)", "died", "its process ended in block 2 by SIGKILL"),
    "input": ("input()", "failed", "block 2 raised StdinNotImplementedError"),
    "metrics: NaN": ("metrics = {'a_s': float('nan')}", "failed", "metrics['a_s'] is nan, must be finite"),
    "metrics: infinite": ("metrics = {'a_s': float('inf')}", "failed", "metrics['a_s'] is inf, must be finite"),
    "metrics: bool": ("metrics = {'a_s': True}", "failed", "metrics['a_s'] is bool, must be int or float"),
    "metrics: NumPy": ("import numpy; metrics = {'a_s': numpy.float64(1)}", "failed", "metrics['a_s'] is float64"),
    "metrics: text": ("metrics = {'a_s': '1'}", "failed", "metrics['a_s'] is str"),
    "metrics: no unit": ("metrics = {'a': 1}", "failed", "metrics['a'] names no unit"),
    "metrics: list": ("metrics = [1]", "failed", "metrics is not a dict but list"),
    "metrics: a key": (
        "class Key: __str__ = lambda key: 1 / 0\nmetrics = {Key(): 1}",
        "failed",
        "what it left, its metrics and claims, cannot be read (ZeroDivisionError: division by zero)",
    ),
    "claims: 5 MB": ("claims = {'a' * 5_000_000: True}", "failed", "its metrics and claims did not arrive"),
    "claims: int": ("claims = {'a': 1}", "failed", "claims['a'] is int, must be bool"),
}


@pytest.mark.parametrize(("code", "status", "reason"), ENDINGS.values(), ids=ENDINGS.keys())
def test_every_ending_is_a_run_that_says_why(code: str, status: str, reason: str):
    done = run(["print('before')", code], name="demo")
    assert done.status == status
    assert done.reason.startswith(reason)
    assert text_of(done.outputs[0]) == "before\n", "what was printed before is kept"
    assert not (done.metrics or done.claims)


def test_an_endless_loop_ends_at_the_time_limit():
    start = time.monotonic()
    done = run(["print('before')", "while True: pass"], name="demo", time_limit_s=2)
    assert (done.status, done.reason) == ("timed out", "block 2 was running at the limit of 2 s")
    assert text_of(done.outputs[0]) == "before\n"
    assert time.monotonic() - start < 15


def test_output_is_capped_while_it_arrives():
    done = run(["line = 'x' * 999\nfor _ in range(20_000): print(line)", "print('after')"], name="demo")
    assert done.status == "passed"
    assert len(text_of(done.outputs[0])) <= OUTPUT_CAP_BYTES + 100
    assert "capped at 4 MiB" in text_of(done.outputs[0])


def test_the_cap_counts_bytes_and_errors_too():
    done = run(["print('é' * 3_000_000)", "raise ValueError('é' * 20_000_000)"], name="demo")
    assert done.reason.startswith("block 2 raised ValueError: éé")
    texts = [text_of(done.outputs[0]), str(done.outputs[1])]
    assert OUTPUT_CAP_BYTES - 2 <= len(texts[0].encode()) <= OUTPUT_CAP_BYTES + 100
    assert "ValueError" in texts[1] and "éé" in texts[1] and len(texts[1].encode()) <= ERROR_CAP_BYTES + 500


def test_what_a_recipe_clears_is_gone_and_does_not_count():
    code = "from IPython.display import clear_output\nfor i in range(3):\n    print(i, 'x' * {})\n    clear_output({})"
    done = run([code.format(0, True), code.format(3_000_000, True) + "\nprint('end')"], name="demo")
    assert [text_of(outputs) for outputs in done.outputs] == ["2 \n", "end\n"]


def test_a_recipe_may_use_the_name_of_ipythons_function():
    done = run(["get_ipython = None\nmetrics = {'a_s': 1}"], name="demo")
    assert (done.status, done.reason, done.metrics) == ("passed", "", {"a_s": 1})


def test_stacks_name_the_recipe_and_the_block():
    done = run(["def f():\n    import traceback; traceback.print_stack()", "f()"], name="demo")
    stack = text_of(done.outputs[1])
    assert 'File "demo.py, block 2", line 1' in stack and 'File "demo.py, block 1", line 2' in stack
    assert "ipykernel" not in stack and "IPython" not in stack


def test_misuse_raises():
    with pytest.raises(ValueError, match="at least one block"):
        run([], name="demo")
    with pytest.raises(ValueError, match="time limit"):
        run(["1"], name="demo", time_limit_s=0)


def test_a_long_temporary_folder_does_not_break_the_kernels_sockets(tmp_path: Path):
    long = tmp_path / ("d" * 100)
    long.mkdir()
    code = "from recipe_runner.run import run; print(run(['1'], name='demo').status)"
    env = os.environ | {"TMPDIR": str(long), "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "passed\n"


def test_only_folders_of_dead_runs_are_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name, content in {"other": "my own program's lock", "dead": "0" * 32, "unfinished": ""}.items():
        (tmp_path / f"recipe-run-{name}").mkdir()
        (tmp_path / f"recipe-run-{name}" / "run.lock").write_text(content)
    (tmp_path / "recipe-run-pipe").mkdir()
    os.mkfifo(tmp_path / "recipe-run-pipe" / "run.lock")  # Whoever opens it to read waits.
    with new_room() as (first, _), new_room() as (second, _):
        assert first.is_dir() and second.is_dir() and first != second, "a living run's folder stays"
    left = {file.name for file in tmp_path.iterdir()} - {"recipe-runner.lock"}
    assert left == {"recipe-run-other", "recipe-run-unfinished", "recipe-run-pipe"}
