"""``make new NAME=…``: a recipe that already runs and passes every check, to be changed step by step."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

from recipe_runner.recipe import GALLERIES, RecipeError, find, load_all

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")

_TEXT = '''\
# /// script
# requires-python = ">=3.11"
# dependencies = ["torch>=2.11", "matplotlib>=3.8", "tabulate>=0.9"]
#
# [tool.recipe]
# order = {order}
# tags = ["basics"]
# time_limit_s = 600
#
# [tool.recipe.metrics]
# eager_ms = "one call in eager mode, median"
# compiled_ms = "one compiled call, median"
# speedup_x = "eager time ÷ compiled time"
# ///
"""
{title}
{rule}

State here in one sentence what the reader gets: this line is on the card, too.

**What you will learn**

- the first thing;
- the second thing.

**What you need:** PyTorch 2.11 or later. The page runs on a GPU if there is one, else on the CPU.
"""

import matplotlib.pyplot as plt
import torch
from tabulate import tabulate
from torch.utils import benchmark

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
size = 4_000_000 if device == "cuda" else 1_000_000
print(f"torch {{torch.__version__}} on {{device}}")

# %%
# The function
# ------------
#
# Say what the reader will see, show it, say what it means. What must hold on every machine is an ``assert``: the
# sentence in it becomes a claim on the page.


def function(x):
    return torch.sin(x) ** 2 + torch.cos(x) ** 2


x = torch.rand(size, device=device)
compiled = torch.compile(function)
torch.testing.assert_close(compiled(x), function(x))
print("compiled and eager agree")

# %%
# Eager against compiled
# ----------------------
#
# Times move from run to run, so each has its spread beside it: the interquartile range. Type no measured number into
# the text; print it.


def median_and_iqr_ms(call):
    """Milliseconds of a call: median and interquartile range."""
    timer = benchmark.Timer(
        "call(x)",
        globals={{"call": call, "x": x}},
        # The timer uses one thread unless we say otherwise.
        num_threads=torch.get_num_threads(),
    )
    measured = timer.blocked_autorange(min_run_time=1)
    return measured.median * 1e3, measured.iqr * 1e3


times_ms = {{
    "eager": median_and_iqr_ms(function),
    "compiled": median_and_iqr_ms(compiled),
}}
print(
    tabulate(
        [[name, *times] for name, times in times_ms.items()],
        headers=["variant", "median, ms", "IQR, ms"],
        floatfmt=".3f",
    )
)

# %%
# The same as a picture. Its title is read to those who cannot see it.

figure, axes = plt.subplots(figsize=(7, 2.5), layout="constrained")
axes.barh(
    list(times_ms),
    [median for median, _ in times_ms.values()],
    xerr=[iqr for _, iqr in times_ms.values()],
)
axes.invert_yaxis()
axes.set_xlabel("milliseconds a call")
axes.set_title(f"Eager and compiled call, {{device}}")
plt.show()

# %%
# What this run showed
# --------------------
#
# Say also when *not* to do this. ``metrics`` goes into the tables of results, with what the front matter says of
# each. ``claims`` holds what a busy machine may refute; the page says on which machines each one held.

(eager_ms, eager_iqr_ms), (compiled_ms, compiled_iqr_ms) = times_ms.values()
metrics = {{
    "eager_ms": eager_ms,
    "eager_iqr_ms": eager_iqr_ms,
    "compiled_ms": compiled_ms,
    "compiled_iqr_ms": compiled_iqr_ms,
    "speedup_x": eager_ms / compiled_ms,
}}
claims = {{"the compiled function is faster than eager mode": compiled_ms < eager_ms}}
result = "faster" if compiled_ms < eager_ms else "not faster"
print(f"Here the compiled call was {{result}}: {{eager_ms / compiled_ms:.2f}} times.")
'''


def new(root: Path, name: str) -> int:
    """Write the file of a new recipe: ``NAME`` is ``my_question``, or a path such as ``intermediate_source/my_lesson``.

    Raises
    ------
    RecipeError
        If the name cannot be a recipe's, or is taken.
    """
    path = Path(name)
    gallery = path.parent.as_posix() if path.parent != Path() else "recipes_source"
    if gallery not in GALLERIES or not _NAME.fullmatch(path.stem) or path.suffix not in ("", ".py"):
        remedy = f"Use lower case, digits and underscores, maybe after one of: {', '.join(f'{g}/' for g in GALLERIES)}"
        raise RecipeError(f"NAME={name}", "not the name of a recipe", remedy)
    # A script's folder is searched first: its neighbours must not hide what recipes import.
    if path.stem == "index" or path.stem in sys.stdlib_module_names or importlib.util.find_spec(path.stem):
        raise RecipeError(f"NAME={name}", "the name of a module, or of a gallery's own page", "Choose another")
    taken = {file.stem: file for file in find(root)}
    if path.stem in taken:
        raise RecipeError(f"NAME={name}", f"{taken[path.stem].relative_to(root)} has this name", "Choose another")
    orders = [recipe.front_matter.order for recipe in load_all(root)[0]]
    title = path.stem.replace("_", " ").capitalize()
    file = root / gallery / f"{path.stem}.py"
    text = _TEXT.format(order=max(orders, default=0) + 10, title=title, rule="=" * len(title))
    file.write_text(text, encoding="utf-8")
    print(f"Wrote {file.relative_to(root)}. Change it, then see its page with: make html ONLY={path.stem}")
    return 0
