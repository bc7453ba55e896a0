"""Cuts programs off from the network: a download at run time would make a recipe fail, or hide that it needs one.

Needs a C++ compiler, which the recipes need as well, and no rights: a small library stands before the C library.
A program that does without the C library is not stopped.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

#: Whether programs can be cut off here.
POSSIBLE = sys.platform == "linux"
_SOURCE = Path(__file__).with_name("no_network.c")


def compiled(folder: Path) -> Path:
    """Compile the library into `folder`."""
    # CXX may hold a command with arguments, such as "ccache g++".
    named = shlex.split(os.environ.get("CXX", ""))
    compiler = named or [next(filter(shutil.which, ("g++", "clang++")), "g++")]
    library = folder / "no_network.so"
    # As needed: a program that is not C++ shall not load its library for this.
    options = ["-x", "c++", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-Wl,--as-needed"]
    command = [*compiler, *options, "-o", str(library), str(_SOURCE), "-ldl"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return library


def environment(library: Path) -> dict[str, str]:
    """What a program's environment needs, and what its children inherit."""
    return {"LD_PRELOAD": " ".join(filter(None, [str(library), os.environ.get("LD_PRELOAD")]))}
