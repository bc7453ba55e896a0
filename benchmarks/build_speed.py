"""How fast the build is, beside the bare scripts and beside plain Sphinx-Gallery, all from equally cold caches.

``make bench`` copies the project into temporary folders and times, with a fresh ``TMPDIR`` and so without Inductor's
on-disk caches: the bare scripts; our cold build; a build without a change; after an edit of prose; after an edit of the
cheapest recipe's code; and the same for plain Sphinx-Gallery on the same recipes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
GALLERIES = {"intermediate_source": "intermediate", "recipes_source": "recipes"}

PLAIN_CONF = """
project = "plain"
extensions = ["sphinx_gallery.gen_gallery"]
html_theme = "pydata_sphinx_theme"
sphinx_gallery_conf = {"examples_dirs": %r, "gallery_dirs": %r, "filename_pattern": r"\\.py$"}
"""


def project(folder: Path) -> Path:
    """A copy of what a build reads, without runs and outputs."""
    for name in ("recipe_runner", "_static", *GALLERIES):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conf.py", "index.rst"):
        shutil.copy(ROOT / name, folder)
    return folder


def plain(folder: Path) -> Path:
    """The same recipes in a site of plain Sphinx-Gallery with the same theme."""
    project(folder)
    (folder / "conf.py").write_text(PLAIN_CONF % (list(GALLERIES), list(GALLERIES.values())))
    return folder


def recipes(folder: Path) -> list[Path]:
    """The recipe files of a copy."""
    return [file for gallery in GALLERIES for file in sorted((folder / gallery).glob("*.py"))]


def command(folder: Path, temporary: Path, *arguments: str, may_fail: bool = False) -> float:
    """Seconds that a command takes in `folder` with its temporary files in `temporary`."""
    environment = os.environ | {"TMPDIR": str(temporary), "MPLBACKEND": "agg"}
    environment.pop("TORCHINDUCTOR_CACHE_DIR", None)
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seconds = time.monotonic() - start
    if done.returncode and not may_fail:
        sys.exit(f"error: {' '.join(arguments)} failed in {folder}:\n{done.stdout[-3000:]}")
    return seconds


def scripts(folder: Path, temporary: Path) -> dict[str, float]:
    """Seconds of each recipe as a bare script; each has compile caches of its own, as in our build."""
    seconds = {}
    for file in recipes(folder):
        work = Path(tempfile.mkdtemp(dir=temporary))
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(work)
        seconds[file.stem] = command(work, temporary, str(file))
    os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)
    return seconds


def four_builds(folder: Path, temporary: Path, cheapest: str, build: tuple[str, ...], may_fail: bool) -> list[float]:
    """Seconds of a cold build, one without a change, one after a prose edit, one after a code edit."""
    file = next(file for file in recipes(folder) if file.stem == cheapest)

    def edit(change: Callable[[str], str]) -> None:
        changed = change(file.read_text(encoding="utf-8"))
        assert changed != file.read_text(encoding="utf-8")
        file.write_text(changed, encoding="utf-8")

    seconds = [command(folder, temporary, *build, may_fail=may_fail) for _ in range(2)]
    edit(lambda text: text.replace("**What you will learn**", "**What you will see**"))
    seconds.append(command(folder, temporary, *build, may_fail=may_fail))
    edit(lambda text: text.replace("torch.manual_seed(0)", "torch.manual_seed(1)"))
    seconds.append(command(folder, temporary, *build, may_fail=may_fail))
    return seconds


def fresh(temporary: Path, name: str) -> Path:
    """An empty temporary folder: without compile caches and without Inductor's precompiled header."""
    folder = temporary / name
    folder.mkdir()
    return folder


def main() -> None:
    """Measure, print as the figures come, and end with one table."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        base = Path(name)
        bare = scripts(project(base / "bare"), fresh(base, "tmp-bare"))
        for recipe, seconds in bare.items():
            print(f"bare script {recipe}: {seconds:.1f} s", flush=True)
        cheapest = min(bare, key=bare.get)
        total = sum(bare.values())
        build = ("-m", "recipe_runner", "build")
        ours = four_builds(project(base / "ours"), fresh(base, "tmp-ours"), cheapest, build, may_fail=False)
        print("ours: " + ", ".join(f"{seconds:.1f} s" for seconds in ours), flush=True)
        build = ("-m", "sphinx", "-q", "-b", "html", ".", "_build/html")
        # Plain Sphinx-Gallery runs all recipes in one process, where one may break the next.
        theirs = four_builds(plain(base / "plain"), fresh(base, "tmp-plain"), cheapest, build, may_fail=True)
        print("plain Sphinx-Gallery: " + ", ".join(f"{seconds:.1f} s" for seconds in theirs), flush=True)

    goal = 1.10 * total + 10
    labels = ["cold build", "no change", "prose edit", f"code edit of {cheapest}"]
    goals = [f"≤ {goal:.1f}", "≤ 4", "≤ 5, nothing run", ""]
    print(f"\nbare scripts: {total:.1f} s in all\n")
    headers = ["build", "ours, s", "plain Sphinx-Gallery, s", "goal, s"]
    print(tabulate(zip(labels, ours, theirs, goals, strict=True), headers=headers, floatfmt=".1f"))


if __name__ == "__main__":
    main()
