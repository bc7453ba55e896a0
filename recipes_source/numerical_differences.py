# /// script
# requires-python = ">=3.11"
# dependencies = ["torch>=2.11", "matplotlib>=3.8", "numpy>=2", "tabulate>=0.9"]
#
# [tool.recipe]
# order = 27
# tags = ["correctness"]
# time_limit_s = 600
#
# [tool.recipe.metrics]
# float32_accuracy_x = "float32: error of eager mode ÷ error of compiled code, both against float64"
# float16_accuracy_x = "float16: error of eager mode ÷ error of compiled code, both against float64"
# bfloat16_accuracy_x = "bfloat16: error of eager mode ÷ error of compiled code, both against float64"
# eager_ms = "the function in bfloat16, eager mode, median"
# compiled_ms = "the function in bfloat16, compiled, median"
# emulated_ms = "the function in bfloat16, compiled to round as eager mode does, median"
# speedup_x = "the function in bfloat16: eager time ÷ compiled time"
# emulated_speedup_x = "the function in bfloat16: eager time ÷ time with eager rounding"
# ///
"""
Results that differ from eager mode
===================================

Compiled results differ a little from eager ones: this page finds out which are better, why, and when it is a bug.

**What you will learn**

- how large the differences are in float32, float16 and bfloat16, and which result is nearer to the truth;
- how to find the part of the compiler that changes a result, by hand and by search;
- how to get eager rounding and eager random numbers, and how to write a test that only fails for a real error.

**What you need:** PyTorch 2.11 or later. The page runs on a GPU if there is one, else on the CPU.
"""

import contextlib
import io

import matplotlib.pyplot as plt
import torch
from tabulate import tabulate
from torch._inductor.compiler_bisector import CompilerBisector
from torch.nn import functional as F
from torch.utils import benchmark

torch.manual_seed(0)
torch.set_grad_enabled(False)
device = "cuda" if torch.cuda.is_available() else "cpu"
shape = (4096, 4096) if device == "cuda" else (512, 1024)
print(f"torch {torch.__version__} on {device}")

# %%
# How large is the difference?
# ----------------------------
#
# The function is typical of language models: a gate, then a normalisation. We compute it in three types, in eager mode
# and compiled. The *distance* of two results is the norm of their difference, divided by the norm of the second.


def gated_norm(x, weight):
    hidden = F.silu(x) * weight
    return hidden * hidden.square().mean(-1, keepdim=True).add(1e-6).rsqrt()


def inputs(dtype):
    """The same values each time, rounded to `dtype`."""
    torch.manual_seed(0)
    x, weight = torch.randn(shape, device=device), torch.randn(shape[1], device=device)
    return x.to(dtype), weight.to(dtype)


def distance(result, other):
    """Norm of the difference, relative to `other`."""
    return ((result.double() - other.double()).norm() / other.double().norm()).item()


def unequal(result, other):
    """The share of elements that are not bit by bit the same."""
    return (result != other).double().mean().item()


def compiled(**options):
    """The function, compiled anew."""
    torch.compiler.reset()
    return torch.compile(gated_norm, **options)


types = [torch.float32, torch.float16, torch.bfloat16]
eager_results = {dtype: gated_norm(*inputs(dtype)) for dtype in types}
compiled_results = {dtype: compiled()(*inputs(dtype)) for dtype in types}
rows = [
    [
        dtype,
        unequal(compiled_results[dtype], eager),
        distance(compiled_results[dtype], eager),
    ]
    for dtype, eager in eager_results.items()
]
print(
    tabulate(
        rows,
        headers=["type", "unequal elements", "distance to eager"],
        floatfmt=("", ".1%", ".1e"),
    )
)

# %%
# Which one is right?
# -------------------
#
# Neither: both round. To know which is nearer to the truth, compute the same function in float64, from the same rounded
# inputs, and measure the distance of each from that *reference*: its error.


def reference(dtype):
    return gated_norm(*(value.double() for value in inputs(dtype)))


errors = {
    dtype: {
        "eager": distance(eager_results[dtype], reference(dtype)),
        "compiled": distance(compiled_results[dtype], reference(dtype)),
    }
    for dtype in types
}
print(
    tabulate(
        [
            [dtype, *e.values(), e["eager"] / e["compiled"]]
            for dtype, e in errors.items()
        ],
        headers=["type", "error, eager", "error, compiled", "eager ÷ compiled"],
        floatfmt=("", ".1e", ".1e", ".2f"),
    )
)

figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
for offset, way in [(-0.2, "eager"), (0.2, "compiled")]:
    heights = [errors[dtype][way] for dtype in types]
    axes.barh([n + offset for n in range(len(types))], heights, 0.4, label=way)
axes.set_yticks(range(len(types)), [str(dtype) for dtype in types])
axes.set_xscale("log")
axes.invert_yaxis()
axes.set_xlabel("error: relative distance to float64, logarithmic; shorter is better")
axes.set_title(f"Error of eager and compiled results, {device}")
axes.legend()
plt.show()

# %%
# A last column above 1 says that compiled code is more accurate than eager mode. In eager mode every operation writes
# its result to memory, rounded to 16 bits. Compiled code *fuses* operations: intermediate values stay in registers, in
# float32, and only the end is rounded. So a difference from eager mode is no error, and a larger one may be better.
#
# Which part of the compiler changes the result?
# ----------------------------------------------
#
# A compilation has stages, and there is a backend for each prefix of them:
#
# - ``"eager"``: TorchDynamo captures the graph, eager mode runs it;
# - ``"aot_eager"``: AOTAutograd also prepares the backward pass and removes in-place operations;
# - ``"aot_eager_decomp_partition"``: composed operations are also replaced by simpler ones;
# - ``"inductor"``, the default, also fuses and generates code.
#
# The first that changes the result is the part to look at.

stages = ["eager", "aot_eager", "aot_eager_decomp_partition", "inductor"]
dtype = torch.bfloat16
by_stage = {stage: compiled(backend=stage)(*inputs(dtype)) for stage in stages}
print(
    tabulate(
        [
            [
                stage,
                unequal(result, eager_results[dtype]),
                distance(result, eager_results[dtype]),
            ]
            for stage, result in by_stage.items()
        ],
        headers=["backend, in bfloat16", "unequal elements", "distance to eager"],
        floatfmt=("", ".3%", ".1e"),
    )
)
assert torch.equal(by_stage["eager"], eager_results[dtype]), "capture changes nothing"
assert torch.equal(by_stage["aot_eager"], eager_results[dtype]), (
    "AOTAutograd changes nothing"
)

# %%
# ``CompilerBisector`` does the same search, and goes on inside a stage: it changes settings and switches passes off,
# one after the other, until the result is good. You give it a function that says what good is. Here, good means near to
# the eager result, so that it has something to find. The *subsystem* is what had to change; it may find none.

log = io.StringIO()


def near_to_eager():
    result = compiled()(*inputs(dtype))
    return distance(result, eager_results[dtype]) < 1e-3


with contextlib.redirect_stdout(log):
    found = CompilerBisector.do_bisect(near_to_eager)
print(found)

# %%
# Round as eager mode does
# ------------------------
#
# The option ``emulate_precision_casts`` keeps the fused code and puts the rounding back. It makes a result comparable,
# not better. It does not reach every fused operation: look at the first column, and at the line for a softmax behind
# the function.

emulation = {"emulate_precision_casts": True}
emulated = compiled(options=emulation)
emulated_result = emulated(*inputs(dtype))


def with_softmax(x, weight):
    return F.softmax(gated_norm(x, weight), dim=-1)


softmax_result = torch.compile(with_softmax, options=emulation)(*inputs(dtype))
softmax_unequal = unequal(softmax_result, with_softmax(*inputs(dtype)))


def median_and_iqr_ms(call):
    """Milliseconds of a call in bfloat16: median and interquartile range."""
    timer = benchmark.Timer(
        "call(*arguments)",
        globals={"call": call, "arguments": inputs(dtype)},
        # The timer uses one thread unless we say otherwise.
        num_threads=torch.get_num_threads(),
    )
    measured = timer.blocked_autorange(min_run_time=1)
    return measured.median * 1e3, measured.iqr * 1e3


emulated_ms = median_and_iqr_ms(emulated)
default = compiled()
default(*inputs(dtype))
compiled_ms = median_and_iqr_ms(default)
eager_ms = median_and_iqr_ms(gated_norm)
print(
    tabulate(
        [
            ["eager", 0, errors[dtype]["eager"], *eager_ms],
            [
                "compiled",
                unequal(compiled_results[dtype], eager_results[dtype]),
                errors[dtype]["compiled"],
                *compiled_ms,
            ],
            [
                "compiled, eager rounding",
                unequal(emulated_result, eager_results[dtype]),
                distance(emulated_result, reference(dtype)),
                *emulated_ms,
            ],
        ],
        headers=["in bfloat16", "unequal to eager", "error", "median, ms", "IQR, ms"],
        floatfmt=("", ".1%", ".1e", ".2f", ".2f"),
    )
)
print(f"\nwith a softmax, eager rounding: {softmax_unequal:.1%} unequal to eager")

# %%
# Random numbers
# --------------
#
# Compiled code draws random numbers in another way. With the same seed, dropout leaves out other elements than in eager
# mode: both are equally random. The option ``fallback_random`` draws them as eager mode does, and costs some fusion.


def dropped(call):
    """Which elements dropout leaves out, with a fixed seed."""
    torch.manual_seed(1)
    return call(torch.ones(1000, device=device)) == 0


def dropout(x):
    return F.dropout(x, 0.5)


eager_mask = dropped(dropout)
masks = {}
for name, options in [("default", {}), ("fallback_random", {"fallback_random": True})]:
    torch.compiler.reset()
    call = torch.compile(dropout, options=options)
    masks[name] = dropped(call)
    assert torch.equal(masks[name], dropped(call)), "the same seed, the same numbers"
    print(
        f"{name}: {unequal(masks[name], eager_mask):.0%} of the mask differs from eager mode"
    )
assert unequal(masks["default"], eager_mask) > 0, "compiled code draws other numbers"
assert torch.equal(masks["fallback_random"], eager_mask), (
    "fallback_random draws the numbers of eager mode"
)

# %%
# A test that fails only for a real error
# ---------------------------------------
#
# ``assert_close(compiled, eager)`` takes eager mode for the truth. In 16 bits it fails for good code, or needs a
# tolerance that hides bad code. Compare errors instead: compiled code may be a little worse than eager mode against the
# float64 reference, not much. To see that the test can fail, we also give it a backend with a bug: it replaces the gate
# by a similar function.


def assert_as_accurate_as_eager(result, eager, reference, factor=2.0, floor=1e-6):
    """`result` may be `factor` times as far from `reference` as `eager` is."""
    allowed = factor * distance(eager, reference) + floor
    error = distance(result, reference)
    assert error <= allowed, f"error {error:.1e}, allowed {allowed:.1e}"


def with_a_bug(gm, example_inputs):
    for node in gm.graph.nodes:
        if node.target is F.silu:
            node.target = F.gelu
    gm.recompile()
    return gm.forward


for dtype, result in compiled_results.items():
    assert_as_accurate_as_eager(result, eager_results[dtype], reference(dtype))
    wrong = compiled(backend=with_a_bug)(*inputs(dtype))
    try:
        assert_as_accurate_as_eager(wrong, eager_results[dtype], reference(dtype))
    except AssertionError as error:
        print(f"{dtype}: the bug is found: {error}")
    else:
        raise RuntimeError("the test does not see the bug")

# %%
# What this run showed
# --------------------
#
# ``metrics`` are what this site records of a run. ``claims`` are sentences that another machine may refute, each with
# whether it was true here.

accuracy = {dtype: e["eager"] / e["compiled"] for dtype, e in errors.items()}
metrics = {
    "float32_accuracy_x": accuracy[torch.float32],
    "float16_accuracy_x": accuracy[torch.float16],
    "bfloat16_accuracy_x": accuracy[torch.bfloat16],
    "speedup_x": eager_ms[0] / compiled_ms[0],
    "emulated_speedup_x": eager_ms[0] / emulated_ms[0],
}
for name, (median, iqr) in [
    ("eager", eager_ms),
    ("compiled", compiled_ms),
    ("emulated", emulated_ms),
]:
    metrics[f"{name}_ms"], metrics[f"{name}_iqr_ms"] = median, iqr

claims = {
    "in bfloat16, compiled code is more accurate than eager mode": (
        accuracy[torch.bfloat16] > 1
    ),
    "in float16, compiled code is more accurate than eager mode": (
        accuracy[torch.float16] > 1
    ),
    "in float32, the two are equally accurate, to within a tenth": (
        0.9 < accuracy[torch.float32] < 1.1
    ),
    "with emulate_precision_casts, every element is that of eager mode": torch.equal(
        emulated_result, eager_results[torch.bfloat16]
    ),
    "emulate_precision_casts makes compiled code slower": emulated_ms[0]
    > compiled_ms[0],
}
for dtype, ratio in accuracy.items():
    print(f"{dtype}: compiled is {ratio:.2f} times as accurate as eager")
for sentence, held in claims.items():
    print(f"{'held here' if held else 'did not hold here'}: {sentence}")

# %%
# **When not to do this.** Do not ask for bit by bit equal results: another batch size, another GPU or another version
# changes them too, also in eager mode. Do not leave ``emulate_precision_casts`` on in production because a test
# compares with eager mode: mend the test. If the error of compiled code is many times that of eager mode, you have
# found a bug: `report it <https://github.com/pytorch/pytorch/issues>`_, with what the search above printed.
