"""What this machine is: its processor or accelerator, cores and memory. Imports neither torch nor Sphinx."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from recipe_runner.recipe import RecipeError

_GIB = 1024**3
#: Seconds that a driver or a system command may take to answer.
PATIENCE_S = 30

_OWN_GROUP, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")

#: Asks the CUDA driver itself, as PyTorch does: containers may lack nvidia-smi, and the driver knows what
#: CUDA_VISIBLE_DEVICES hides. In a process of its own, as a process that has started the driver must not fork.
_FIRST_GPU = """
import ctypes
try:
    cuda = ctypes.CDLL("libcuda.so.1")
except OSError:
    raise SystemExit  # No driver, no GPU.
device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
if cuda.cuInit(0) == 0 and cuda.cuDeviceGet(ctypes.byref(device), 0) == 0:
    cuda.cuDeviceGetName(name, len(name), device)
    print(name.value.decode())
"""


@dataclass(frozen=True)
class Machine:
    """A machine that runs recipes.

    Attributes
    ----------
    name : str
        A slug that names it in folders and tables: ``MACHINE`` from the environment, or made from its parts.
    cpu : str
        The processor's model, as the system gives it.
    cores : int
        Cores that this process may use: the smaller of its affinity and its control group's quota.
    memory_gib : int
        Memory that this process may use, in GiB.
    accelerator : str or None
        The model of the first GPU that CUDA sees; None where there is none, or it is hidden.
    system : str
        Operating system and architecture.
    """

    name: str
    cpu: str
    cores: int
    memory_gib: int
    accelerator: str | None
    system: str

    def as_dict(self) -> dict[str, str | int | None]:
        """Plain values, for JSON."""
        return asdict(self)

    @property
    def label(self) -> str:
        """One readable line, such as ``NVIDIA H200`` or ``AMD EPYC, 2 cores``."""
        return self.accelerator or f"{self.cpu}, {self.cores} core{'s' if self.cores != 1 else ''}"


@functools.cache
def this_machine() -> Machine:
    """Look at this machine, once a process.

    Raises
    ------
    RecipeError
        If the CUDA driver hangs.
    """
    cpu, cores, accelerator = _cpu_model(), _cores(), _accelerator()
    slug = slugify(os.environ.get("MACHINE") or accelerator or f"{cpu} {cores} cores")
    return Machine(
        slug, cpu, cores, round(_memory_bytes() / _GIB), accelerator, f"{platform.system()} {platform.machine()}"
    )


def slugify(text: str) -> str:
    """Lower-case letters, digits and single hyphens only: safe in a file name and an address.

    Raises
    ------
    ValueError
        If nothing is left.
    """
    text = re.sub(r"\((?:r|tm|c)\)|\b(?:cpu|processor)\b|@.*", " ", text, flags=re.IGNORECASE)
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if not slug:
        raise ValueError(f"no letter or digit in the machine name {text!r}")
    return slug


def _cpu_model() -> str:
    """The processor's model name, without trade marks and clock."""
    name = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", cpuinfo.read_text(errors="replace"), re.MULTILINE)
        name = found.group(1) if found else ""
    elif platform.system() == "Darwin":
        name = _output_of(["sysctl", "-n", "machdep.cpu.brand_string"])
    name = re.sub(r"\((?:R|TM|C)\)|\b(?:CPU|Processor)\b|@.*", " ", name or platform.processor() or platform.machine())
    return " ".join(name.split())


def _cores() -> int:
    """Cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for limit in _limits("cpu.max"):
        quota, _, period = limit.partition(" ")
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def _memory_bytes() -> int:
    """Bytes of memory this process may use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([total, *map(int, _limits("memory.max"))])


def _limits(file: str) -> list[str]:
    """What this process's control group (version 2) and those around it are limited to: the smallest holds."""
    try:
        own = re.search(r"^0::/(.*)$", _OWN_GROUP.read_text(), re.MULTILINE)
    except OSError:
        return []  # No control groups here.
    group = _GROUPS / (own.group(1) if own else "")
    found = []
    for folder in (group, *group.parents):
        # A group may have no such file: the outermost never has, and a container may not see its own.
        with contextlib.suppress(OSError):
            found += [(folder / file).read_text().strip()] if folder.is_relative_to(_GROUPS) else []
    return [limit for limit in found if not limit.startswith("max")]


def _accelerator() -> str | None:
    """The first GPU that CUDA programs started from here see."""
    try:
        # Isolated: what a user's start-up files print is no GPU's name.
        return _output_of([sys.executable, "-I", "-S", "-c", _FIRST_GPU]) or None
    except subprocess.TimeoutExpired:
        # Not the CPU instead: its runs would replace the GPU's without a word.
        cause = f"the CUDA driver does not answer within {PATIENCE_S} s"
        raise RecipeError("GPU", cause, "Mend that until nvidia-smi answers, then run make again") from None


def _output_of(command: list[str]) -> str:
    """The first line that a command prints; empty if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return done.stdout.strip().splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else ""
