# /// script
# requires-python = ">=3.11"
# dependencies = ["torch>=2.11", "scipy>=1.11", "matplotlib>=3.8", "numpy>=2", "tabulate>=0.9"]
#
# [tool.recipe]
# order = 70
# tags = ["graph breaks", "migration"]
# see_also = ["custom_operators", "custom_backend_inspection", "compile_caching"]
# time_limit_s = 300
# expected_warnings = [
#   "`torch.jit.trace` is deprecated", "`torch.jit.script` is deprecated", "TracerWarning: ",
#   "Was not able to add assertion", "Dynamo does not know how to trace the builtin",
# ]
#
# [tool.recipe.metrics]
# right_count = "pairs of tool and function whose results match eager mode"
# silently_wrong_count = "pairs with a wrong result and no error"
# error_count = "pairs that raise an error"
# f1_graph_breaks_count = "torch.compile's graph breaks in the function with a branch"
# f3_graph_breaks_count = "torch.compile's graph breaks in the function that calls SciPy"
# ///
"""
torch.compile beside TorchScript and FX tracing
===============================================

Each older tool fails on at least one of three small functions; torch.compile matches eager mode on all of them.

**What you will learn**

- what ``torch.jit.trace``, ``torch.jit.script`` and ``torch.fx.symbolic_trace`` do with a branch on data, with an
  argument that is no tensor, and with code that leaves PyTorch;
- how ``torch.compile`` differs: what it cannot capture, it leaves to Python;
- what replaces TorchScript, which is deprecated.

**What you need:** PyTorch 2.11 or later and SciPy. The page runs on a GPU if there is one, else on the CPU.
"""

import textwrap
import warnings

import matplotlib.pyplot as plt
import scipy.fft
import torch
import torch.fx
from tabulate import tabulate

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
print(f"torch {torch.__version__} on {device}")

# %%
# How we judge
# ------------
#
# A tool gets a function and an example input. What it returns is then called on every test input and compared with the
# function itself in eager mode. The code computes one of three verdicts: **right** on all inputs, **silently wrong** on
# one (another result and no exception; a warning does not stop a program), or **error** with its class, from the tool
# or from the call.
#
# The errors that we expect are listed by class. Any other ends the page.

EXPECTED_ERRORS = (
    torch.fx.proxy.TraceError,
    torch.jit.frontend.NotSupportedError,
    RuntimeError,
    TypeError,
    ValueError,
)
verdicts = {}


def judge(case, tool, make, function, inputs):
    """Make a callable with a tool, compare it with `function` on all `inputs`, note the verdict."""
    try:
        candidate = make()
        results = [candidate(*arguments) for arguments in inputs]
    except EXPECTED_ERRORS as error:
        verdict = f"error: {type(error).__name__}"
        print(f"{tool}: {type(error).__name__}")
        print(textwrap.fill(textwrap.shorten(str(error), 160), 80, initial_indent="  "))
    else:
        same = [
            torch.equal(result, function(*arguments))
            for result, arguments in zip(results, inputs, strict=True)
        ]
        verdict = "right" if all(same) else "silently wrong"
        print(f"{tool}: equal to eager {same}")
    verdicts[case, tool] = verdict


# %%
# Case 1: a branch on data
# ------------------------
#
# ``f1`` takes one way for a negative sum and another for a positive one.


def f1(x):
    if x.sum() < 0:
        return -x
    return x


positive = torch.tensor([1.0, 2.0, 3.0, 4.0], device=device)
negative = torch.tensor([-8.0, -7.0, -6.0, -5.0], device=device)
both_signs = [(positive,), (negative,)]

# %%
# **torch.jit.trace** runs the function once and records the operations. The branch itself is no operation: what is
# recorded is the side that the example took. The tracer warns, and that warning is the only sign. It also warns that it
# is deprecated.

judge("f1", "jit.trace", lambda: torch.jit.trace(f1, positive), f1, both_signs)

# %%
# **torch.jit.script** translates the source code to a language of its own. It knows branches.

judge("f1", "jit.script", lambda: torch.jit.script(f1), f1, both_signs)

# %%
# **torch.fx.symbolic_trace** runs the function with stand-ins instead of tensors. A stand-in has no value to branch on.
# With ``concrete_args`` it gets one: then tracing works, and the result is the side of that value. The warning says
# that nothing checks the inputs of later calls.

judge("f1", "fx", lambda: torch.fx.symbolic_trace(f1), f1, both_signs)
judge(
    "f1",
    "fx, concrete_args",
    lambda: torch.fx.symbolic_trace(f1, concrete_args={"x": positive}),
    f1,
    both_signs,
)

# %%
# **torch.compile** captures what comes before the ``if`` and what comes after it, and Python runs the ``if``: a graph
# break. ``torch._dynamo.explain`` lists the breaks of one call, and we count them here and below. The backend
# ``"eager"`` captures graphs and runs them as they are: this page is about what is captured, not about speed.


def compiled(function):
    """`function` under torch.compile, with a clean slate."""
    torch.compiler.reset()
    return torch.compile(function, backend="eager")


def graph_breaks(function, *arguments):
    """Number of graph breaks in one call."""
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The call that we judged has shown them.
        reasons = torch._dynamo.explain(function)(*arguments).break_reasons
    for number, reason in enumerate(reasons, start=1):
        frame = reason.user_stack[-1]
        print(f"graph break {number}: {reason.reason.splitlines()[0]}")
        print(f"  in {frame.name}: {frame.line}")
    return len(reasons)


judge("f1", "torch.compile", lambda: compiled(f1), f1, both_signs)
f1_breaks = graph_breaks(f1, positive)
assert f1_breaks == 1, "a branch on data is one graph break"

# %%
# Case 2: an argument that is no tensor
# -------------------------------------
# Nothing in the source of ``f2`` says that ``y`` is an integer. ``torch.jit.script`` takes every argument without a
# type for a tensor, and the call fails; with ``y: int`` it works. ``torch.jit.trace`` takes nothing but tensors as
# examples.


def f2(x, y):
    return x + y


integers = [(positive, 5), (negative, 7)]
judge("f2", "jit.trace", lambda: torch.jit.trace(f2, (positive, 5)), f2, integers)
judge("f2", "jit.script", lambda: torch.jit.script(f2), f2, integers)
judge("f2", "fx", lambda: torch.fx.symbolic_trace(f2), f2, integers)
judge("f2", "torch.compile", lambda: compiled(f2), f2, integers)

# %%
# Case 3: code that leaves PyTorch
# --------------------------------
#
# ``f3`` goes through NumPy and SciPy and back. The tracer sees a tensor appear from nowhere and keeps it as a constant:
# the traced function returns the same result for every input. ``torch.jit.script`` and FX tracing cannot enter SciPy,
# and their messages do not say that: one comes from SciPy's internals, the other from NumPy, which got a stand-in
# instead of an array.
#
# ``torch.compile`` cannot enter SciPy either. It leaves the call to Python, and goes on behind it. It follows what it
# can of SciPy's and NumPy's own Python code, so there may be more than one break, also inside these libraries. The
# warning names the way to have none: a custom operator, which has a page of its own.


def f3(x):
    x = x * 2
    x = scipy.fft.dct(x.cpu().numpy())
    return torch.from_numpy(x).to(device) * 2


ramp = torch.arange(4.0, device=device)
two_inputs = [(positive,), (ramp,)]

judge("f3", "jit.trace", lambda: torch.jit.trace(f3, positive), f3, two_inputs)
judge("f3", "jit.script", lambda: torch.jit.script(f3), f3, two_inputs)
judge("f3", "fx", lambda: torch.fx.symbolic_trace(f3), f3, two_inputs)
judge("f3", "torch.compile", lambda: compiled(f3), f3, two_inputs)
f3_breaks = graph_breaks(f3, positive)
assert f3_breaks >= 1, "SciPy is a graph break, not an error"

# %%
# All verdicts
# ------------
#
# A dash means that we did not try: ``concrete_args`` is for branches.

tools = ["jit.trace", "jit.script", "fx", "fx, concrete_args", "torch.compile"]
cases = {
    "f1": "f1: branch on data",
    "f2": "f2: integer argument",
    "f3": "f3: NumPy and SciPy",
}
table = [
    [text, *[verdicts.get((case, tool), "–") for tool in tools]]
    for case, text in cases.items()
]
print(
    tabulate(
        list(zip(["tool", *tools], *table, strict=True))[1:],
        headers=["tool", *cases.values()],
    )
)

# %%
# The same as a picture.

kinds = ["–", "error", "silently wrong", "right"]
colors = ["#e8e8e8", "#f7dc92", "#f4a6ad", "#a8d5ba"]
figure, axes = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
for row, tool in enumerate(tools):
    for column, case in enumerate(cases):
        verdict = verdicts.get((case, tool), "–")
        color = colors[kinds.index(verdict.partition(":")[0])]
        axes.add_patch(plt.Rectangle((column, row), 0.96, 0.92, color=color))
        text = verdict.replace("error: ", "error:\n")
        axes.text(
            column + 0.48,
            row + 0.46,
            text,
            ha="center",
            va="center",
            color="black",
            fontsize=9,
        )
axes.set(xlim=(0, len(cases)), ylim=(len(tools), 0))
axes.set_xticks(
    [i + 0.48 for i in range(len(cases))],
    [text.replace(": ", ":\n") for text in cases.values()],
)
axes.set_yticks([i + 0.46 for i in range(len(tools))], tools)
axes.tick_params(length=0)
axes.spines[:].set_visible(False)
axes.set_title("Verdicts on three functions, compared with eager mode")
plt.show()

# %%
# What this run showed
# --------------------

kinds_seen = [verdict.partition(":")[0] for verdict in verdicts.values()]
metrics = {
    "right_count": kinds_seen.count("right"),
    "silently_wrong_count": kinds_seen.count("silently wrong"),
    "error_count": kinds_seen.count("error"),
    "f1_graph_breaks_count": f1_breaks,
    "f3_graph_breaks_count": f3_breaks,
}
print(
    f"{len(verdicts)} verdicts: {metrics['right_count']} right, "
    f"{metrics['silently_wrong_count']} silently wrong, {metrics['error_count']} errors"
)
expected = {
    ("f1", "jit.trace"): "silently wrong",
    ("f1", "jit.script"): "right",
    ("f1", "fx"): "error: TraceError",
    ("f1", "fx, concrete_args"): "silently wrong",
    ("f2", "jit.script"): "error: RuntimeError",
    ("f2", "fx"): "right",
    ("f3", "jit.trace"): "silently wrong",
}
for (case, tool), verdict in expected.items():
    assert verdicts[case, tool] == verdict, f"{tool} on {case} is {verdict}"
for tool in ("jit.script", "fx"):
    assert verdicts["f3", tool].startswith("error"), f"{tool} on f3 is an error"
for case in cases:
    assert verdicts[case, "torch.compile"] == "right", (
        f"torch.compile on {case} is right"
    )

# %%
# **What to use today.** ``torch.jit.trace`` and ``torch.jit.script`` are deprecated. To make a model faster, use
# ``torch.compile``. To take it out of Python, use ``torch.export``, which refuses a branch on data instead of guessing.
#
# **When not to use torch.compile here.** We used the backend ``"eager"``, which captures and compiles nothing. "Right"
# does not mean "fast": each graph break leaves compiled code and comes back. A function like ``f3`` spends its time in
# SciPy, and compiling the rest of it gains little. And FX tracing is still the right tool to rewrite a model's graph,
# if the model has no branch on data.
