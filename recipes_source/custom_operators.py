# /// script
# requires-python = ">=3.11"
# dependencies = ["torch>=2.11", "scipy>=1.11", "matplotlib>=3.8", "numpy>=2", "tabulate>=0.9"]
#
# [tool.recipe]
# order = 22
# tags = ["graph breaks", "training"]
# see_also = ["custom_backend_inspection", "torchscript_fx_comparison"]
# time_limit_s = 300
# expected_warnings = ["Dynamo does not know how to trace the builtin"]
#
# [tool.recipe.metrics]
# plain_graphs_count = "graphs of the layer with a plain call of SciPy"
# disabled_graphs_count = "graphs of the layer with the call under torch.compiler.disable"
# operator_graphs_count = "graphs of the layer with the custom operator"
# faults_found_count = "wrong cases on this page that opcheck finds, each an operator with one input"
# eager_ms = "pointwise function in eager mode, median"
# opaque_ms = "pointwise function compiled, its tanh inside a custom operator, median"
# fused_ms = "pointwise function compiled, all of it visible to the compiler, median"
# opaque_speedup_x = "tanh inside a custom operator: eager time ÷ compiled time"
# fused_speedup_x = "all visible to the compiler: eager time ÷ compiled time"
# ///
"""
Your own operators in compiled code
===================================

A call of a C library breaks the graph, and its gradient is lost unless you declare it: a custom operator keeps both.

**What you will learn**

- what a call of a C library does to the graph and to the gradient;
- how to declare it as an operator: its results' shape, its gradient, what it changes in place;
- how ``opcheck`` finds a wrong declaration, one of which gives wrong results and no error;
- what an operator costs: the compiler cannot fuse it with its neighbours.

**What you need:** PyTorch 2.11 or later and SciPy. The page runs on a GPU if there is one, else on the CPU.
"""

import textwrap
from functools import partial

import matplotlib.pyplot as plt
import scipy.fft
import torch
from tabulate import tabulate
from torch._dynamo.utils import counters
from torch.nn import functional as F
from torch.utils import benchmark

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
print(f"torch {torch.__version__} on {device}")

# %%
# A call that cannot be followed
# ------------------------------
#
# TorchDynamo, the front end of ``torch.compile``, records tensor operations in a *graph*, which the compiler then turns
# into code. Where it meets a call that it cannot follow, it ends the graph, lets Python make the call, and starts a new
# graph after it: a *graph break*. With ``fullgraph=True`` a graph break is an error.  PyTorch has no discrete cosine
# transform. SciPy has one, written in C++. The layer below calls it. To have something to compare with, we also write
# the transform as a product with a matrix. That is plain PyTorch; for long rows it needs more arithmetic.

width = 64
x = torch.randn(8, width, device=device)
weight = torch.rand(width, device=device, requires_grad=True)


def scipy_dct(x):
    on_cpu = x.detach().cpu().numpy()
    return torch.from_numpy(scipy.fft.dct(on_cpu, norm="ortho")).to(x.device)


matrix = scipy_dct(torch.eye(width, device=device))


def layer(transform, x, weight):
    h = x * weight
    return F.gelu(transform(h)) + h


def reference(x, weight):
    return layer(lambda h: h @ matrix, x, weight)


def graphs_and_result(transform, backend="eager", **options):
    """Number of graphs that TorchDynamo captures, and the layer's result."""
    torch.compiler.reset()
    counters.clear()
    compiled = torch.compile(layer, backend=backend, **options)
    result = compiled(transform, x, weight)
    return counters["stats"]["unique_graphs"], result


plain_graphs, result = graphs_and_result(scipy_dct)
torch.testing.assert_close(result, reference(x, weight), rtol=1e-4, atol=1e-4)
print(f"graphs: {plain_graphs}; the result is right")
assert plain_graphs > 1, "a plain call of SciPy breaks the graph"

# %%
# The result is right, as TorchDynamo leaves to Python what it cannot follow. It followed SciPy's Python code as far as
# it could, so there are more than the two graphs that you may expect. The warning names the remedy of this page, a
# custom operator. (The backend ``"eager"`` captures graphs and generates no code, so this is quick.)
#
# The gradient is another matter, in eager mode too. NumPy does not know of gradients, so the call needs ``detach()``.
# The other path through the layer still has a gradient: no error is raised, and a part is missing.


def gradient(call):
    return torch.autograd.grad(call(x, weight).square().sum(), weight)[0]


def relative_error(result, expected):
    return ((result - expected).norm() / expected.norm()).item()


true_gradient = gradient(reference)
plain_gradient_error = relative_error(
    gradient(partial(layer, scipy_dct)), true_gradient
)
print(f"relative error of the gradient: {plain_gradient_error:.2f}")
assert plain_gradient_error > 0.01, (
    "without the operator a part of the gradient is lost"
)

# %%
# Declare an operator
# -------------------
#
# ``torch.library.custom_op`` makes a function one node of the graph. The compiler does not look inside. So it must be
# told two things:
#
# - **which arguments the function changes**: ``mutates_args``, here none;
# - **what comes out**: the *fake* function gets tensors without data and returns one of the same shape, type and
#   strides as the real result. The type hints become the operator's *schema*: its declared arguments, results and
#   changes in place.


@torch.library.custom_op("recipes::first_dct", mutates_args=())
def first_dct(x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(scipy.fft.dct(x.cpu().numpy(), norm="ortho")).to(x.device)


@first_dct.register_fake
def _(x):
    return torch.empty_like(x)


def show_graph(gm, example_inputs):
    rows = [
        [node.op, getattr(node.target, "__name__", node.target)]
        for node in gm.graph.nodes
    ]
    print(tabulate(rows, headers=["node", "target"]))
    return gm.forward


with torch.no_grad():
    operator_graphs, result = graphs_and_result(first_dct, show_graph, fullgraph=True)
    torch.testing.assert_close(result, reference(x, weight), rtol=1e-4, atol=1e-4)
assert operator_graphs == 1, "with the operator there is one graph"

# %%
# One graph, also under ``fullgraph=True``. The operator is a call in it, between the product and the GELU.
#
# Test the declaration
# --------------------
#
# The compiler plans with what you declare. ``torch.library.opcheck`` compares it with what the operator does. Give it
# the inputs that you expect: other types, other strides, with a gradient.


def faults(operator, *arguments):
    """What opcheck finds: its test's name and the first line of the message."""
    report = torch.library.opcheck(operator, arguments, raise_exception=False)
    return [
        (test, str(getattr(outcome, "reason", None) or outcome).splitlines()[0])
        for test, outcome in report.items()
        if outcome != "SUCCESS"
    ]


def show_faults(found):
    for name, problems in found.items():
        print(f"{name}: {'no fault' if not problems else ''}")
        for test, message in problems:
            print(textwrap.fill(f"{test}: {message}", 80, initial_indent="  "))


inputs = {
    "float32": torch.randn(3, 8, device=device),
    "float16": torch.randn(3, 8, device=device, dtype=torch.float16),
    "float32, transposed": torch.randn(8, 3, device=device).t(),
}
first_faults = {name: faults(first_dct, value) for name, value in inputs.items()}
show_faults(first_faults)
assert not first_faults["float32"], "the first operator is right for plain float32"
assert first_faults["float16"], "opcheck finds the wrong type"

# %%
# There are two faults. SciPy computes float16 in float32. And it returns rows one after the other, where ``empty_like``
# keeps the strides of a transposed input. (torch 2.11 does not compare strides: there, "no fault" stands above.) A user
# with such an input gets an error, or, in an older torch, wrong results without an error: torch 2.11 does this with
# float16. Compiled code reads the result as if it had the promised type and strides.


def doubled(x):
    return first_dct(x * 2) + 1


torch.compiler.reset()
for name in ("float16", "float32, transposed"):
    try:
        result = torch.compile(doubled)(inputs[name])
    except (RuntimeError, AssertionError) as error:
        print(f"{name}: {type(error).__name__}:")
        print(textwrap.fill(str(error).splitlines()[0], 80, initial_indent="  "))
    else:
        largest = (result - doubled(inputs[name])).abs().max()
        print(f"{name}: no error, and results differ by up to {largest:.2g}")
        assert not largest < 0.1, "code that got other memory than promised is wrong"

# %%
# Recent compiled code checks the type, the sizes and the strides of what comes back. (torch 2.11 does not check the
# type.) ``TORCHINDUCTOR_SIZE_ASSERTS=0`` turns these checks off. In a message about strides, each pair is *got ==
# promised*. Nothing checks a change in place: see below.
#
# The second version, with its gradient
# -------------------------------------
#
# The function now returns what the fake function promises. The transform is orthogonal, so its gradient is the inverse
# transform. That is an operator too, because the compiler must find it in the backward graph. Inside an operator
# autograd is off, so ``detach()`` is not needed.
#
# Without ``register_autograd`` the result counts as differentiable, and the backward pass raises an error. That is
# safer than the silence above.


def transform_operator(name, function):
    """An operator for a transform of SciPy: real function and fake function."""

    @torch.library.custom_op(f"recipes::{name}", mutates_args=())
    def operator(x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(function(x.cpu().numpy(), norm="ortho")).to(x)

    @operator.register_fake
    def _(x):
        return torch.empty(x.shape, dtype=x.dtype, device=x.device)

    return operator


dct = transform_operator("dct", scipy.fft.dct)
idct = transform_operator("idct", scipy.fft.idct)

try:
    gradient(partial(layer, dct))
except RuntimeError as error:
    print("before register_autograd:")
    print(textwrap.fill(f"{type(error).__name__}: {error}", 80))
else:
    raise AssertionError("an operator without a formula has no gradient")

dct.register_autograd(lambda ctx, grad: idct(grad))
idct.register_autograd(lambda ctx, grad: dct(grad))

dct_faults = {name: faults(dct, value) for name, value in inputs.items()}
dct_faults["with a gradient"] = faults(dct, inputs["float32"].clone().requires_grad_())
show_faults(dct_faults)
assert not any(dct_faults.values()), "opcheck finds no fault in the second version"

# %%
# This formula needs nothing from the forward pass. If yours does, save it with ``register_autograd(backward,
# setup_context=...)``.
#
# ``opcheck`` does not know whether your formula is right. ``gradcheck`` does: it changes each input a little and
# compares the formula with the change of the result, in float64. After that we run the compiled layer forward and
# backward, and compare its gradient with that of the matrix product. The relative error should be no more than
# rounding, and there should be one graph.

double = torch.randn(3, 8, dtype=torch.float64, device=device, requires_grad=True)
assert torch.autograd.gradcheck(dct, double), "the gradient agrees with differences"

torch.compiler.reset()
counters.clear()
compiled_layer = torch.compile(partial(layer, dct), fullgraph=True)
operator_gradient_error = relative_error(gradient(compiled_layer), true_gradient)
print(f"relative error of the compiled gradient: {operator_gradient_error:.0e}")
print(f"graphs: {counters['stats']['unique_graphs']}")
assert operator_gradient_error < 1e-4, "the compiled gradient is right"

# %%
# A wrong declaration that raises nothing
# ---------------------------------------
#
# This operator changes its argument in place and does not say so. In eager mode all is well. The compiler sees a call
# without a result that, as declared, changes nothing: it may leave it out.


@torch.library.custom_op("recipes::double_undeclared", mutates_args=())
def double_undeclared(x: torch.Tensor) -> None:
    x.mul_(2)


@torch.library.custom_op("recipes::double_declared", mutates_args={"x"})
def double_declared(x: torch.Tensor) -> None:
    x.mul_(2)


for operator in (double_undeclared, double_declared):
    operator.register_fake(lambda x: None)


def six_times(operator, x):
    y = x * 1
    operator(y)
    return y * 3


rows, in_place_faults = [], {}
ones = torch.ones(2, device=device)
for name, operator in [
    ("undeclared", double_undeclared),
    ("declared", double_declared),
]:
    torch.compiler.reset()
    eager = six_times(operator, ones)[0].item()
    compiled = torch.compile(six_times, fullgraph=True)(operator, ones)[0].item()
    rows.append([name, eager, compiled, "right" if eager == compiled else "wrong"])
    in_place_faults[name] = faults(operator, ones.clone())
print(tabulate(rows, headers=["change in place", "eager", "compiled", ""]), "\n")
show_faults(in_place_faults)
assert [row[3] for row in rows] == ["wrong", "right"], (
    "an undeclared change is lost in compiled code, without an error"
)
assert in_place_faults["undeclared"] and not in_place_faults["declared"], (
    "opcheck finds the undeclared change"
)

# %%
# In the row "undeclared", compiled code left out the call, so the doubling is missing, and no error was raised. With
# ``mutates_args={"x"}`` the compiler keeps the call. ``opcheck`` finds the fault in its test of the schema. Put
# ``opcheck`` into the tests of each operator that you write.
#
# What an operator costs
# ----------------------
#
# The compiler fuses neighbouring pointwise operations into one loop over memory. It cannot fuse what it cannot see. We
# put ``tanh`` into an operator, which nobody needs to do, and compare. The calls are timed in turns: if the machine is
# slow for some seconds, it is slow for all.


@torch.library.custom_op("recipes::opaque_tanh", mutates_args=())
def opaque_tanh(x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x)


opaque_tanh.register_fake(torch.empty_like)


def pointwise(tanh, x):
    return tanh(x * 0.8 + 0.1) * torch.sigmoid(x) + x


side = 8192 if device == "cuda" else 1024
large = torch.randn(side, side, device=device)
calls = {
    "eager": partial(pointwise, torch.tanh),
    "compiled, opaque tanh": torch.compile(partial(pointwise, opaque_tanh)),
    "compiled, all visible": torch.compile(partial(pointwise, torch.tanh)),
}
for call in calls.values():
    torch.testing.assert_close(call(large), calls["eager"](large), rtol=1e-4, atol=1e-4)

timers = [
    benchmark.Timer(
        "call(large)",
        globals={"call": call, "large": large},
        # The timer uses one thread unless we say otherwise.
        num_threads=torch.get_num_threads(),
    )
    for call in calls.values()
]
turns = [[t.blocked_autorange(min_run_time=0.2) for t in timers] for _ in range(5)]
merged = [benchmark.Measurement.merge(each)[0] for each in zip(*turns, strict=True)]
times_ms = {
    n: (m.median * 1e3, m.iqr * 1e3) for n, m in zip(calls, merged, strict=True)
}
eager_ms = times_ms["eager"][0]
print(
    tabulate(
        [[name, ms, iqr, eager_ms / ms] for name, (ms, iqr) in times_ms.items()],
        headers=["", "median, ms", "IQR, ms", "eager ÷ this"],
        floatfmt=".2f",
    )
)

figure, axes = plt.subplots(figsize=(5.5, 2.4), layout="constrained")
bars = axes.barh(
    list(times_ms),
    [ms for ms, _ in times_ms.values()],
    xerr=[iqr / 2 for _, iqr in times_ms.values()],
    capsize=3,
)
axes.bar_label(bars, fmt="%.2f", label_type="center", color="white")
axes.invert_yaxis()
axes.set_xlabel("ms a call; the whisker is the interquartile range (IQR)")
axes.set_title(f"Tanh visible to the compiler, or not, {device}")
plt.show()

# %%
# Compare the last two rows: their difference is the price of hiding ``tanh``. The compiler can still fuse the
# operations before and after it. If the difference is not larger than the IQRs, do not trust it.
#
# The ways side by side
# ---------------------
#
# You have seen a plain call and a custom operator. ``torch.compiler.disable`` is another way: you choose where the
# graph breaks. TorchDynamo does not look into the function, so there are two graphs, one before and one after the call.
# Use it for what is not arithmetic, such as logging. It does not bring the gradient back. ``torch.autograd.Function``
# does, so the table has a row with both. The column *graphs* counts graphs of the compiled layer. The column
# *fullgraph=True* says whether the compiler accepts the layer as one graph. The column *right gradient* is checked in
# eager mode. For the operator, the compiled gradient was checked above.


class WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return scipy_dct(x)

    @staticmethod
    def backward(ctx, grad):
        on_cpu = grad.cpu().numpy()
        return torch.from_numpy(scipy.fft.idct(on_cpu, norm="ortho")).to(grad)


disabled_graphs, _ = graphs_and_result(torch.compiler.disable(scipy_dct))
with_gradient = torch.compiler.disable(WithGradient.apply)


def fullgraph_accepts(transform):
    try:
        graphs_and_result(transform, fullgraph=True)
    except torch._dynamo.exc.Unsupported:
        return False
    return True


ways = {
    "plain call": (scipy_dct, plain_graphs),
    "torch.compiler.disable": (torch.compiler.disable(scipy_dct), disabled_graphs),
    "disable, autograd.Function": (with_gradient, graphs_and_result(with_gradient)[0]),
    "custom operator": (dct, operator_graphs),
}
accepted = {name: fullgraph_accepts(transform) for name, (transform, _) in ways.items()}
errors = {
    name: relative_error(gradient(partial(layer, transform)), true_gradient)
    for name, (transform, _) in ways.items()
}
yes = {True: "yes", False: "no"}
print(
    tabulate(
        [
            [name, graphs, yes[accepted[name]], yes[errors[name] < 1e-4]]
            for name, (_, graphs) in ways.items()
        ],
        headers=["way", "graphs", "fullgraph=True", "right gradient"],
    )
)
assert disabled_graphs == 2, "a disabled call splits the layer into two graphs"
assert list(accepted.values()) == [False, False, False, True], (
    "fullgraph=True accepts the operator only"
)
assert [error < 1e-4 for error in errors.values()] == [False, False, True, True], (
    "autograd.Function and the operator have the right gradient"
)

# %%
# What this run showed
# --------------------
#
# ``metrics`` are what this site records of a run. ``claims`` are sentences that another machine may refute, each with
# whether it was true here.

opaque_ms, fused_ms = (
    times_ms[name][0] for name in ("compiled, opaque tanh", "compiled, all visible")
)
wrong_operators = [*list(first_faults.values())[1:], in_place_faults["undeclared"]]
metrics = {
    "plain_graphs_count": plain_graphs,
    "disabled_graphs_count": disabled_graphs,
    "operator_graphs_count": operator_graphs,
    "faults_found_count": sum(map(bool, wrong_operators)),
    "opaque_speedup_x": eager_ms / opaque_ms,
    "fused_speedup_x": eager_ms / fused_ms,
}
for key, name in zip(("eager", "opaque", "fused"), times_ms, strict=True):
    metrics[f"{key}_ms"], metrics[f"{key}_iqr_ms"] = times_ms[name]

claims = {
    "code that hides tanh from the compiler is slower than code that shows it": opaque_ms
    > fused_ms,
    "it is still faster than eager mode": opaque_ms < eager_ms,
}
print(
    f"graphs: {plain_graphs} with a plain call, {disabled_graphs} with a disabled one, "
    f"{operator_graphs} with an operator"
)
print(f"gradient of the plain call: {plain_gradient_error:.0%} wrong, without an error")
print(
    f"an opaque tanh takes {opaque_ms / fused_ms:.2f} times as long as one that the "
    "compiler sees"
)
for sentence, held in claims.items():
    print(f"{'held here' if held else 'did not hold here'}: {sentence}")

# %%
# **When not to do this.** Do not wrap what TorchDynamo can follow: an operator hides it from the compiler. It follows
# much of NumPy, too: it turns NumPy's functions into PyTorch's where a counterpart exists. A kernel written in Triton
# does not need to be hidden either: declare it with ``torch.library.triton_op``, and the compiler sees into it. For
# kernels in C++ and CUDA, and for Triton, see `PyTorch's pages on custom operators
# <https://docs.pytorch.org/tutorials/advanced/custom_ops_landing_page.html>`_. On a GPU, the transform of this page
# copies its data to the CPU and back: it shows how to declare an operator, not how to make a fast one.
