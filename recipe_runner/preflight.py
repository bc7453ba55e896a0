"""Does this machine have what a build needs? Prints one line per thing that is missing and exits with 1.

The Makefile runs this file with the *system's* Python, before anything is installed. So it imports the standard
library only, and its syntax must be readable by an old Python: a clear line is the purpose of this file.
"""

import os
import shutil
import sys
import sysconfig

OLDEST_PYTHON = (3, 11)


def missing_python():
    """Return one line if this Python is too old, else nothing."""
    if sys.version_info[:2] >= OLDEST_PYTHON:
        return []
    return [
        "%s: Python %d.%d is too old. Install Python %d.%d or newer, then run: make PYTHON=python%d.%d html"
        % ((sys.executable,) + sys.version_info[:2] + OLDEST_PYTHON + OLDEST_PYTHON)
    ]


def missing_venv():
    """Return one line if virtual environments cannot be made, else nothing."""
    try:
        import ensurepip  # noqa: F401  Debian ships venv without ensurepip, and venv then fails half way.
        import venv  # noqa: F401
    except ImportError as error:
        return [
            "%s: no module '%s'. Install it (Debian: apt-get install python3-venv), then run make again"
            % (sys.executable, error.name)
        ]
    return []


def missing_compiler():
    """Return one line each for a missing C++ compiler and missing Python headers: Inductor needs both on the CPU."""
    missing = []
    compilers = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
    # CXX may hold a command with arguments, such as "ccache g++".
    if not any(shutil.which(compiler.split()[0]) for compiler in compilers):
        missing.append(
            "C++ compiler: found none of %s. Install one (Debian: apt-get install g++), then run make again"
            % ", ".join(compilers)
        )
    headers = sysconfig.get_paths()["include"]
    if not os.path.exists(os.path.join(headers, "Python.h")):
        missing.append(
            "Python headers: no Python.h in %s. Install them (Debian: apt-get install python3-dev), then run make again"
            % headers
        )
    return missing


CHECKS = {"python": missing_python, "venv": missing_venv, "compiler": missing_compiler}


def main(names):
    """Run the named checks, or all of them. Stop at the first that finds something."""
    for name in names or list(CHECKS):
        missing = CHECKS[name]()
        if missing:
            sys.stderr.write("".join("error: %s\n" % line for line in missing))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
