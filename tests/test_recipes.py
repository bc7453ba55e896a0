"""Every recipe runs as its download does: ``python recipe.py`` in an empty folder.

In shuffled order, because no recipe may need what another left behind, and without the network. The report's first
lines name the order: ``RECIPE_SEED=123`` repeats it.

Needs pytest and what the recipes import, nothing else, so that it also runs on a bare GPU machine. ``DEVICE=cuda``
demands that each recipe used the GPU, ``DEVICE=cpu`` hides it.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import cut_off
import pytest
from conftest import SEED

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted(
    file for folder in ("intermediate_source", "recipes_source") for file in (ROOT / folder).glob("[!.]*.py")
)
random.Random(SEED).shuffle(RECIPES)
DEVICE = os.environ.get("DEVICE", "")

# Python imports `sitecustomize` at its start. This one reports, at exit, whether the recipe computed on the GPU, and
# whether the network was cut off.
_REPORT_DEVICE = """
import atexit, os, sys

@atexit.register
def report():
    torch = sys.modules.get("torch")
    used = bool(torch and torch.cuda.is_initialized() and torch.cuda.max_memory_reserved())
    with open(os.environ["RECIPE_DEVICE_FILE"], "a") as file:
        file.write("cuda\\n" if used else "cpu\\n")
    import ctypes  # Not before: the recipe shall find what a plain Python has.
    if not hasattr(ctypes.CDLL(None), "no_network_refused"):
        open(os.environ["RECIPE_DEVICE_FILE"] + ".network", "w").close()
"""


def test_device_is_one_that_exists():
    if DEVICE not in ("", "cpu", "cuda"):
        pytest.fail(f"DEVICE={DEVICE}: not a device. Use DEVICE=cpu or DEVICE=cuda")
    if DEVICE == "cuda":
        import torch

        assert torch.cuda.is_available(), "DEVICE=cuda: PyTorch sees no GPU here. Leave DEVICE out, or use DEVICE=cpu"


def test_there_are_recipes():
    assert RECIPES


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)
def test_recipe_runs_as_a_script(recipe: Path, tmp_path: Path, no_network: dict[str, str]):
    work, support = tmp_path / "empty", tmp_path / "support"
    work.mkdir()
    support.mkdir()
    (support / "sitecustomize.py").write_text(_REPORT_DEVICE)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(support), os.environ.get("PYTHONPATH")])),
        "RECIPE_DEVICE_FILE": str(tmp_path / "device"),
        "MPLBACKEND": "agg",
        **no_network,
    }
    environment.pop("PYTHONOPTIMIZE", None)  # It takes out assertions.
    done = subprocess.run(
        [sys.executable, str(recipe)],
        cwd=work,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"RECIPE_SEED={SEED}\n{done.stdout[-6000:]}"
    assert list(work.iterdir()) == [], "a recipe leaves no file behind"
    assert (tmp_path / "device").exists(), "the recipe reports its device at its end"
    assert not cut_off.POSSIBLE or not (tmp_path / "device.network").exists(), "a process of the recipe had the network"
    if DEVICE == "cuda":
        assert "cuda" in (tmp_path / "device").read_text(), "the recipe did not use the GPU"
