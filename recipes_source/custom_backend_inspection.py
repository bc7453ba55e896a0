# /// script
# requires-python = ">=3.11"
# dependencies = ["torch>=2.11", "torchvision>=0.26", "matplotlib>=3.8", "numpy>=2", "tabulate>=0.9"]
#
# [tool.recipe]
# order = 20
# tags = ["graph breaks", "backends"]
# see_also = ["custom_operators", "torchscript_fx_comparison", "changing_sizes"]
# time_limit_s = 300
#
# [tool.recipe.metrics]
# graphs_count = "graphs over two calls of the function with a branch"
# graph_breaks_count = "graph breaks in one call of the function with a branch"
# graphs_without_break_count = "graphs over two calls when torch.cond replaces the branch"
# densenet_graphs_count = "graphs of the whole DenseNet"
# densenet_operations_count = "operations in the DenseNet's graph"
# ///
"""
Looking inside with a custom backend
====================================

A backend of a few lines shows which graphs ``torch.compile`` captures, where it breaks them, and which one runs.

**What you will learn**

- how TorchDynamo hands graphs to a backend, and how to write one;
- how to read a graph break: its reason and the line that caused it;
- how to remove a break, and how to forbid breaks with ``fullgraph=True`` and ``torch.export``.

**What you need:** PyTorch 2.11 or later and torchvision. Only one small function is compiled to machine code, so the
page is quick on any machine.
"""

import collections
import contextlib
import io
import re

import matplotlib.pyplot as plt
import torch
import torchvision
from tabulate import tabulate
from torch._inductor.utils import run_and_get_code

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
print(f"torch {torch.__version__} on {device}")

# %%
# A backend is a function
# -----------------------
#
# ``torch.compile`` works in two steps. TorchDynamo reads the Python bytecode of a function and captures its tensor
# operations as FX graphs. A backend receives each graph, with example inputs, and returns something callable that
# computes it. The default backend, ``"inductor"``, generates fast code. Ours prints the graph as a table and returns
# a function that calls the graph's own ``forward``, so the result is that of eager mode.

graphs = []


def target_name(node):
    """What a node calls or reads, without the memory address that `repr` shows."""
    return getattr(node.target, "__name__", str(node.target))


def inspecting_backend(gm, example_inputs):
    """Print a captured graph, keep it, and say whenever it runs."""
    number = len(graphs)
    graphs.append(gm)
    rows = [
        [node.op, node.name, target_name(node), node.args] for node in gm.graph.nodes
    ]
    print(f"graph {number}, {len(example_inputs)} inputs:")
    print(tabulate(rows, headers=["op", "name", "target", "args"]) + "\n")

    def run(*inputs):
        print(f"graph {number} runs")
        return gm.forward(*inputs)

    return run


def two_operations(a, b):
    return torch.relu(a) + b


a, b = torch.randn(4, device=device), torch.randn(4, device=device)
result = torch.compile(two_operations, backend=inspecting_backend)(a, b)
torch.testing.assert_close(result, two_operations(a, b))
assert len(graphs) == 1, "a function without branches on data is one graph"

# %%
# Every row is a node. A ``placeholder`` is an input, ``call_function`` an operation, ``call_method`` a method of a
# tensor, ``output`` the result.
#
# What the default backend writes
# -------------------------------
#
# Inductor makes code of the same graph: C++ on a CPU, Triton on a GPU. The kernel is a text between three quotes, and
# we show its lines that hold values. It loads both inputs, computes both operations, and stores one result: nothing
# goes to memory in between. Such *fusion* is where most of the speed of compiled code comes from. To see whole files,
# set ``TORCH_LOGS="output_code"``.

_, sources = run_and_get_code(torch.compile(two_operations), a, b)
kernel = re.split("'''|\"\"\"", sources[0])[1]
print("\n".join(line.strip() for line in kernel.splitlines() if "tmp" in line))
assert kernel.count("store(") == 1, (
    "the kernel stores one result, after both operations"
)

# %%
# A real model: count, do not print
# ---------------------------------
#
# A DenseNet has too many nodes for a table. A backend can count instead. The weights are random: they do not change the
# graph.


def counting_backend(gm, example_inputs):
    """Keep a captured graph without printing it."""
    graphs.append(gm)
    return gm.forward


graphs.clear()
densenet = torchvision.models.densenet121(weights=None).eval().to(device)
image = torch.randn(1, 3, 64, 64, device=device)
with torch.no_grad():
    compiled_densenet = torch.compile(densenet, backend=counting_backend)
    torch.testing.assert_close(compiled_densenet(image), densenet(image))

densenet_graphs = len(graphs)
kinds = collections.Counter(
    target_name(node) for node in graphs[0].graph.nodes if node.op == "call_function"
)
inputs = sum(node.op == "placeholder" for node in graphs[0].graph.nodes)
print(f"{densenet_graphs} graph of {len(graphs[0].graph.nodes)} nodes:")
print(
    f"{sum(kinds.values())} operations; {inputs} inputs, most of them the model's weights"
)
assert densenet_graphs == 1, "DenseNet-121 is captured as one graph"

names, counts = zip(*kinds.most_common(8), strict=True)
figure, axes = plt.subplots(figsize=(5.5, 3), layout="constrained")
bars = axes.barh(names, counts)
axes.bar_label(bars, padding=3)
axes.margins(x=0.1)
axes.invert_yaxis()
axes.set_xlabel("operations in the graph")
axes.set_title("Operations in the captured graph of DenseNet-121")
plt.show()

# %%
# A branch on data breaks the graph
# ---------------------------------
#
# ``bar`` looks at the *value* of ``b.sum()`` to decide what to do next. At capture time there is no value, so
# TorchDynamo must stop, let Python take the branch, and go on behind it. One function becomes three graphs: the part
# before the branch, and one part for each side.


def bar(a, b):
    x = a / (torch.abs(a) + 1)
    if b.sum() < 0:
        b = b * -1
    return x * b


graphs.clear()
torch.compiler.reset()
compiled_bar = torch.compile(bar, backend=inspecting_backend)
b_positive = torch.ones(4, device=device)
b_negative = -torch.ones(4, device=device)

print("call 1: b.sum() >= 0, the branch is not taken")
torch.testing.assert_close(compiled_bar(a, b_positive), bar(a, b_positive))
graphs_after_first_call = len(graphs)

print("\ncall 2: b.sum() < 0, the branch is taken")
torch.testing.assert_close(compiled_bar(a, b_negative), bar(a, b_negative))
bar_graphs = len(graphs)

# %%
# Read the tables in the order in which they were printed.
#
# - **Graph 0** is the part before the branch. Both calls run it.
# - **Graph 1** was captured in call 1, with the positive ``b``: it holds one multiplication, ``x * b``.
# - **Graph 2** was captured in call 2, with the negative ``b``: it holds two, ``b * -1`` and ``x * b``.
#
# We check just that. Calls 3 and 4 repeat the two kinds: they capture nothing more.


def multiplications(gm):
    return sum(target_name(node) == "mul" for node in gm.graph.nodes)


assert graphs_after_first_call == 2 and bar_graphs == 3, (
    "bar becomes three graphs over two calls"
)
assert [multiplications(gm) for gm in graphs] == [0, 1, 2], (
    "graph 1 is the side of the positive b, graph 2 that of the negative b"
)
print("call 3: as call 1")
compiled_bar(a, b_positive)
print("\ncall 4: as call 2")
compiled_bar(a, b_negative)
assert len(graphs) == 3, "later calls reuse the three graphs"
print(f"\n{graphs_after_first_call} graphs after call 1, {bar_graphs} after call 2")
print(f"{len(graphs)} after call 4: no more")

# %%
# Where it broke, and why
# -----------------------
#
# ``torch._dynamo.explain`` runs a function once and reports the breaks. Its name begins with an underscore, but it is
# documented. The report is long; what matters is the reason and the last line of the user's stack. In the reason,
# ``generic_jump`` is an ``if`` or a ``while``, and ``TensorVariable`` says that its condition is a tensor.

torch.compiler.reset()
explanation = torch._dynamo.explain(bar)(a, b_positive)
graph_breaks = explanation.graph_break_count
print(f"{explanation.graph_count} graphs, {graph_breaks} break in this call")
for break_reason in explanation.break_reasons:
    frame = break_reason.user_stack[-1]
    print(f"reason: {break_reason.reason.splitlines()[0]}")
    print(f"in {frame.name}, line {frame.lineno}: {frame.line}")
assert graph_breaks == 1, "one branch on data is one graph break"

# %%
# Without a change to the code, the environment variable ``TORCH_LOGS="graph_breaks"`` prints each break with its reason
# while a program runs, and ``TORCH_LOGS="recompiles"`` each recompilation. For a large model, set
# ``TORCH_TRACE=folder`` and give the folder to `tlparse <https://github.com/meta-pytorch/tlparse>`_, which makes a
# report of all graphs and breaks. Here a child process runs a small program with the variable set, and we show the
# lines that carry the message.

import os
import pathlib
import subprocess
import sys
import textwrap

program = pathlib.Path("breaks.py")
program.write_text("""
import torch

@torch.compile(backend="eager")
def bar(a, b):
    x = a / (torch.abs(a) + 1)
    if b.sum() < 0:
        b = b * -1
    return x * b

bar(torch.randn(4), torch.ones(4))
""")
child = subprocess.run(
    [sys.executable, str(program)],
    env=os.environ | {"TORCH_LOGS": "graph_breaks"},
    capture_output=True,
    text=True,
    check=True,
)
log_lines = [
    line.rpartition("[__graph_breaks] ")[2] for line in child.stderr.splitlines()
]
for line in log_lines:
    if "Graph break" in line or "Explanation" in line or "Hint" in line:
        print(textwrap.fill(line.strip(), 88, subsequent_indent="    "))
assert any("Graph break" in line for line in log_lines), (
    "TORCH_LOGS names the graph break"
)
program.unlink()

# %%
# A break as an error
# -------------------
#
# With ``fullgraph=True`` a break is not tolerated: the call raises. Use it where a break would cost too much to go
# unnoticed.

from torch._dynamo.exc import Unsupported

torch.compiler.reset()
try:
    torch.compile(bar, backend="eager", fullgraph=True)(a, b_positive)
    refused = None
except Unsupported as error:
    refused = type(error)
    print(f"{refused.__name__}: {str(error).splitlines()[0]}")
assert refused is Unsupported, (
    "fullgraph=True turns the break into torch._dynamo.exc.Unsupported"
)

# %%
# DenseNet-121 has no break, so it passes.

with torch.no_grad():
    strict_densenet = torch.compile(densenet, backend="eager", fullgraph=True)
    torch.testing.assert_close(strict_densenet(image), densenet(image))
print("DenseNet-121 compiles with fullgraph=True")

# %%
# The same function without the break
# -----------------------------------
#
# There are two ways to keep a decision inside the graph. ``torch.where`` computes both sides and picks one: right when
# the sides are cheap. ``torch.cond`` computes one side only: both become subgraphs, and the value decides at run time.
# A side of ``torch.cond`` may not return its own input, so one of them clones it.


def bar_where(a, b):
    x = a / (torch.abs(a) + 1)
    b = torch.where(b.sum() < 0, b * -1, b)
    return x * b


def bar_cond(a, b):
    x = a / (torch.abs(a) + 1)
    b = torch.cond(b.sum() < 0, lambda b: b * -1, lambda b: b.clone(), (b,))
    return x * b


whole_graphs = {}
for function in (bar_where, bar_cond):
    graphs.clear()
    torch.compiler.reset()
    compiled = torch.compile(function, backend=counting_backend, fullgraph=True)
    for b in (b_positive, b_negative):
        torch.testing.assert_close(compiled(a, b), bar(a, b))
    whole_graphs[function.__name__] = len(graphs)
    print(f"{function.__name__}: {len(graphs)} graph, right for both signs")
assert set(whole_graphs.values()) == {1}, "torch.where and torch.cond leave one graph"

# %%
# Next: export
# ------------
#
# ``torch.export`` captures a whole model as one graph that can be saved and run without its Python code. It accepts no
# break at all. Here it takes ``bar_cond`` and refuses ``bar``; it refuses ``bar`` without ``strict=True`` too, and then
# its message is longer. The class of the error depends on the version of PyTorch and on how export traces, so we list
# those that mean a decision on data. Before the error, export prints the graph as far as it came on standard error,
# which we leave out.


from torch._dynamo.exc import UserError
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode


class Bar(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, a, b):
        return self.function(a, b)


exported = torch.export.export(Bar(bar_cond), (a, b_positive))
torch.testing.assert_close(exported.module()(a, b_negative), bar(a, b_negative))
print(f"bar_cond: exported, {len(exported.graph.nodes)} nodes")

try:
    with contextlib.redirect_stderr(io.StringIO()):
        torch.export.export(Bar(bar), (a, b_positive), strict=True)
    export_error = None
except (Unsupported, UserError, GuardOnDataDependentSymNode) as error:
    export_error = type(error)
    print(f"bar: {export_error.__name__}: {str(error).splitlines()[0]}")
assert export_error is not None, "torch.export refuses a branch on data"

# %%
# What this run showed
# --------------------

metrics = {
    "graphs_count": bar_graphs,
    "graph_breaks_count": graph_breaks,
    "densenet_graphs_count": densenet_graphs,
    "densenet_operations_count": sum(kinds.values()),
    "graphs_without_break_count": whole_graphs["bar_cond"],
}
print(
    f"bar: {metrics['graphs_count']} graphs over two calls; {metrics['graph_breaks_count']} break in "
    f"the call that was explained;\n"
    f"the same with torch.where or torch.cond: {metrics['graphs_without_break_count']} graph;\n"
    f"DenseNet-121: {metrics['densenet_graphs_count']} graph of "
    f"{metrics['densenet_operations_count']} operations"
)

# %%
# **When not to do this.** The backends of this page are for looking: they run each graph operation by operation, as
# eager mode does. A backend can also generate fast code, as the default one does. And a graph break is not always worth
# its removal. It costs most inside a loop or a hot function; once per call of a large model it may cost nothing that
# you can measure.
