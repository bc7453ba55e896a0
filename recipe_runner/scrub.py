"""Takes the build machine out of a text: paths, host names, tokens, process ids, colours, IPython's frames.

A page must read the same wherever it was built, and must not give away where that was.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import socket
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
#: TORCH_LOGS lines begin with level, date, time, process id and file; a reader needs level, file and line.
_TORCH_LOG = re.compile(r"^([VDIWEC])\d{4} \d\d:\d\d:\d\d\.\d+ \d+ ", re.MULTILINE)
_PROCESS_ID = re.compile(r"\b(pid[ =:]*)\d+\b", re.IGNORECASE)
#: Variables whose values nobody else may see.
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|_AUTH$", re.IGNORECASE)
#: Tokens that can be told by their form: GitHub's, Hugging Face's, AWS's; and a password in an address.
_TOKEN = re.compile(r"\b(?:gh[pousr]_\w{36,}|github_pat_\w{60,}|hf_[A-Za-z0-9]{30,}|AKIA[0-9A-Z]{16})\b")
_PASSWORD_IN_ADDRESS = re.compile(r"(?<=://)[^\s/:@]+:[^\s/@]+@")
#: A shorter value, such as "1" or "none", is not a secret, and taking it out would harm the text.
_SHORTEST_SECRET = 8
#: PyTorch says this once where a CUDA toolkit is installed and no GPU is there: about the machine, not the recipe.
_NO_GPU_HERE = re.compile(r"^.*No CUDA runtime is found, using CUDA_HOME=.*\n?", re.MULTILINE)
#: Frames between the kernel's main loop and the recipe's own code, in a traceback or in a Dynamo user stack.
_KERNEL_FRAME = re.compile(
    r'^(?P<prefix>.*?)File "(?:[^"]*/(?:IPython|ipykernel(?:_launcher)?|traitlets|tornado|asyncio|runpy)\b[^"]*'
    r'|<frozen runpy>)", line \d+, in .*\n(?:(?P=prefix)  .*\n)?',
    re.MULTILINE,
)


def secrets_in(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that hold a token, a password or a key, by their names."""
    return {name: value for name, value in environment.items() if _SECRET_NAME.search(name)}


def scrubber(folders_of_run: dict[Path, str]) -> Callable[[str], str]:
    """Make a function that scrubs a text printed by a kernel on this machine.

    `folders_of_run` says what the run's own folders become. Other paths become what a reader has: a package's file
    starts at the package, a file of the standard library at ``python3.N``. Other text comes back as it was.
    """
    library = sysconfig.get_paths()
    user, home = _user_and_home()
    folders = {str(form): name for folder, name in folders_of_run.items() for form in (folder, folder.resolve())}
    # Where the runner is may be on Python's path, and need not be where it was started.
    folders |= {str(folder): "~" for folder in (Path.cwd(), Path(__file__).resolve().parent.parent)}
    folders |= {
        library["purelib"]: "site-packages",
        library["platlib"]: "site-packages",
        library["stdlib"]: Path(library["stdlib"]).name,
    }
    folders |= {sys.prefix: "python", sys.base_prefix: "python", tempfile.gettempdir(): "/tmp"}
    if len(home) > 1:
        folders[home] = "~"
    # Longest first: the working directory lies in the temporary folder, site-packages in the standard library's.
    replacements = sorted(((k, v) for k, v in folders.items() if len(k) > 1), key=lambda item: -len(item[0]))
    paths = re.compile("|".join(re.escape(folder) + r"(?![\w-])" for folder, _ in replacements))
    names = dict(replacements)
    values = sorted({v for v in secrets_in(os.environ).values() if len(v) >= _SHORTEST_SECRET}, key=len, reverse=True)
    secret = re.compile("|".join(map(re.escape, values))) if values else None
    torch_cache = re.compile(rf"torchinductor_{re.escape(user)}\b") if user else None
    user_folder = re.compile(rf"/(home|Users)/{re.escape(user)}\b") if user else None
    host = socket.gethostname()
    # A host called "localhost" or "a" gives nothing away, and replacing it would harm the text.
    host_name = re.compile(rf"\b{re.escape(host)}\b") if len(host) > 3 and host != "localhost" else None

    def scrub(text: str) -> str:
        text = _ANSI.sub("", text)
        text = _KERNEL_FRAME.sub("", text)
        text = _NO_GPU_HERE.sub("", text)
        text = _TORCH_LOG.sub(r"\1 ", text)
        text = paths.sub(lambda match: names[match.group()], text)
        text = torch_cache.sub("torchinductor", text) if torch_cache else text
        text = user_folder.sub("~", text) if user_folder else text
        text = _PROCESS_ID.sub(r"\1…", text)
        text = _PASSWORD_IN_ADDRESS.sub("…@", _TOKEN.sub("…", text))
        text = secret.sub("…", text) if secret else text
        return host_name.sub("host", text) if host_name else text

    return scrub


def _user_and_home() -> tuple[str, str]:
    """Who runs this, and where that user is at home; empty where the system does not know, as in some containers."""
    user = home = ""
    with contextlib.suppress(KeyError, OSError):  # Python 3.13 raises the second.
        user = getpass.getuser()
    with contextlib.suppress(RuntimeError):
        home = str(Path.home())
    return user, home
