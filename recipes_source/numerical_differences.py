# /// script
# requires-python = ">=3.11"
# dependencies = ["torch>=2.11", "matplotlib>=3.8", "numpy>=2", "tabulate>=0.9"]
#
# [tool.recipe]
# order = 27
# tags = ["correctness"]
# see_also = ["custom_backend_inspection"]
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
# ///
"""
Results that differ from eager mode
===================================

Compiled results differ a little from eager ones: measure which are better, find the cause, and test for real errors.

**What you will learn**

- how large the differences are in float32, float16 and bfloat16, and which result is nearer to the truth;
- how to find the part of the compiler that changes a result, by hand and by search;
- how to get eager rounding and eager random numbers, and how to write a test that compares errors.

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
# The function is typical of language models: an activation (SiLU), multiplied by a weight, then RMS normalisation. We
# compute it in three types, in eager mode and compiled. The *distance* of two results is the norm of their difference,
# divided by the norm of the second.


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
    """The share of elements with another value."""
    return (result != other).double().mean().item()


def compiled(**options):
    """The function, compiled again after a reset."""
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
# Neither is exact: both round their results. To know which is nearer to the truth, compute the same function in
# float64, from the same rounded inputs, and measure the distance of each from that *reference*: its error.


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

figure, axes = plt.subplots(figsize=(5.5, 2.8), layout="constrained")
for offset, way in [(-0.1, "eager"), (0.1, "compiled")]:
    positions = [n + offset for n in range(len(types))]
    axes.plot([errors[dtype][way] for dtype in types], positions, "o", label=way)
axes.set_yticks(range(len(types)), [str(dtype) for dtype in types])
axes.set_xscale("log")
axes.invert_yaxis()
axes.set_xlabel("error: relative distance to float64, logarithmic; left is better")
axes.set_title(f"Error of eager and compiled results, {device}")
axes.legend()
plt.show()

# %%
# A value above 1 in the last column means that compiled code is more accurate *for this function*. In 16 bits, eager
# mode rounds the result of every operation. Compiled code *fuses* operations: it computes several in one *kernel*, a
# function in machine code. Inside a kernel, values stay in float32; only what it writes to memory is rounded. In
# float32 there is no such rounding to save. There, results differ because compiled code adds in another order, and
# computes functions such as ``exp`` in another way. So a difference alone does not prove an error.
#
# The difference can be total. A float16 value above 65504 becomes infinite. In eager mode, this can happen to the
# square inside the normalisation. Division by infinity gives zeros. So the output holds no infinite value and no NaN
# that would show the problem.

large = [value * 16 for value in inputs(torch.float16)]
truth = gated_norm(*(value.double() for value in large))
large_errors = {
    "eager": distance(gated_norm(*large), truth),
    "compiled": distance(compiled()(*large), truth),
}
for way, error in large_errors.items():
    print(f"float16, inputs 16 times as large, {way}: error {error:.1e}")

# %%
# An error of 1 is that of a result of zeros. So a model that was only ever run compiled may overflow in eager mode.
#
# Which part of the compiler changes the result?
# ----------------------------------------------
#
# A compilation has stages. Each backend below runs the stages up to one point, and eager mode runs the rest:
#
# - ``"eager"``: TorchDynamo captures the graph;
# - ``"aot_eager"``: AOTAutograd also rewrites in-place operations, and in training captures the backward pass;
# - ``"aot_eager_decomp_partition"``: larger operators are also replaced by simpler ones, and in training the graph is
#   split into forward and backward;
# - ``"inductor"``, the default, also fuses operations and generates code.
#
# The first backend whose result differs shows the stage to look at. This page has no backward pass: in training,
# compare the gradients in the same way.

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
# ``CompilerBisector`` searches by itself. It tries the backends in turn, then the settings and passes of the first bad
# one, until a change makes the result good. It calls your function each time. The function returns whether the result
# is good. It must reset the compiler and use the same inputs each time. Here, "good" means near to eager mode, so that
# there is something to find.

log = io.StringIO()


def near_to_eager():
    result = compiled()(*inputs(dtype))
    return distance(result, eager_results[dtype]) < 1e-3


with contextlib.redirect_stdout(log):
    found = CompilerBisector.do_bisect(near_to_eager)
print("\n".join(log.getvalue().splitlines()[-5:]), "\n")
print(found)

# %%
# In the result, *subsystem* is the setting or pass whose change made the result good, or ``None``. For a pass,
# *bisect_number* and *debug_info* say which use of it. For a setting they say nothing more. What changes a result need
# not be a bug.
#
# Round as eager mode does
# ------------------------
#
# The option ``emulate_precision_casts`` keeps fused code, and adds roundings where eager mode rounds. The aim is a
# result like that of eager mode, not a more accurate one. Where "unequal to eager" is the same with and without it,
# your version of PyTorch does not have it for this device. Read the times too: rounding has a cost, and the code can
# become slower than eager mode. The three are timed in turns. The interquartile range (IQR) is the spread: half of the
# measurements lie within it.

emulation = {"emulate_precision_casts": True}
default, emulated = compiled(), torch.compile(gated_norm, options=emulation)
default(*inputs(dtype))
emulated_result = emulated(*inputs(dtype))


def in_turns_ms(*calls):
    """Milliseconds of each call in bfloat16: median and interquartile range."""
    timers = [
        benchmark.Timer(
            "call(*arguments)",
            globals={"call": call, "arguments": inputs(dtype)},
            # The timer uses one thread unless we say otherwise.
            num_threads=torch.get_num_threads(),
        )
        for call in calls
    ]
    turns = [[t.blocked_autorange(min_run_time=0.2) for t in timers] for _ in range(5)]
    merged = [benchmark.Measurement.merge(each)[0] for each in zip(*turns, strict=True)]
    return [(m.median * 1e3, m.iqr * 1e3) for m in merged]


eager_ms, compiled_ms, emulated_ms = in_turns_ms(gated_norm, default, emulated)
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

# %%
# The option has limits. We put a softmax after the function.


def with_softmax(x, weight):
    return F.softmax(gated_norm(x, weight), dim=-1)


want = with_softmax(*inputs(dtype))
rows = []
for name, options in [("compiled", {}), ("compiled, eager rounding", emulation)]:
    torch.compiler.reset()
    result = torch.compile(with_softmax, options=options)(*inputs(dtype))
    rows.append([name, unequal(result, want), distance(result, want)])
print(
    tabulate(
        rows,
        headers=["with a softmax", "unequal to eager", "distance to eager"],
        floatfmt=("", ".1%", ".1e"),
    )
)

# %%
# Where the second row is not zero, at least one rounding is missing. Likely it is that of the normalised values: eager
# mode rounds them before the softmax, fused code need not.
#
# Random numbers
# --------------
#
# Compiled code uses another random number generator. With the same seed, dropout sets other elements to zero than in
# eager mode. Both are valid, but it looks like an error. To compare a model that has dropout, call ``model.eval()``, or
# use the option ``fallback_random``: it runs the random operations of eager mode, without fusion.


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
# A test that compares errors, not results
# ----------------------------------------
#
# ``assert_close(compiled, eager)`` treats the eager result as the truth. Use it first; if it passes, that is enough. It
# can fail for good code: see whether a row "compiled" says "fails" below. A larger tolerance could then hide bad code.
# So compare errors: the error of compiled code, against the float64 reference, may be a few times that of eager mode.
# The norm over all elements does not see a single wrong one, so the largest error counts as well. ``limit`` is for the
# case that eager mode itself is wrong.


def worst(result, other):
    """Largest difference, relative to the root mean square of `other`."""
    other = other.double()
    root_mean_square = other.square().mean().sqrt()
    return ((result.double() - other).abs().max() / root_mean_square).item()


def assert_as_accurate_as_eager(
    result, eager, reference, factor=3, floor=1e-6, limit=0.5
):
    """`result` may be `factor` times as far from `reference` as `eager`, within `limit`."""
    for measure in (distance, worst):
        allowed = min(limit, factor * measure(eager, reference) + floor)
        error = measure(result, reference)
        assert error <= allowed, (
            f"{measure.__name__} {error:.1e}, allowed {allowed:.1e}"
        )


def with_a_bug(gm, example_inputs):
    """A backend that computes another activation."""
    for node in gm.graph.nodes:
        if node.target is F.silu:
            node.target = F.gelu
    gm.recompile()
    return gm.forward


def verdict(test, *results):
    """Whether a test passes."""
    try:
        test(*results)
    except AssertionError:
        return "fails"
    return "passes"


verdicts = []
for dtype, good in compiled_results.items():
    eager, truth = eager_results[dtype], reference(dtype)
    one_wrong = good.clone()
    one_wrong.view(-1)[good.abs().argmax()] = 0
    for name, result in [
        ("compiled", good),
        ("compiled, backend with a bug", compiled(backend=with_a_bug)(*inputs(dtype))),
        ("compiled, one element wrong", one_wrong),
    ]:
        by_errors = verdict(assert_as_accurate_as_eager, result, eager, truth)
        by_result = verdict(torch.testing.assert_close, result, eager)
        verdicts.append([dtype, name, by_result, by_errors])
print(tabulate(verdicts, headers=["type", "result", "assert_close", "compares errors"]))
assert [row[3] for row in verdicts] == ["passes", "fails", "fails"] * len(types), (
    "the test passes for good code and fails for both errors"
)

# %%
# What this run showed
# --------------------
#
# ``metrics`` are what this site records of a run. ``claims`` are sentences that another machine may refute, each with
# whether it was true here. All claims but the one on large inputs are about ``gated_norm`` with the inputs above,
# not about the softmax after it.

accuracy = {dtype: e["eager"] / e["compiled"] for dtype, e in errors.items()}
metrics = {
    "float32_accuracy_x": accuracy[torch.float32],
    "float16_accuracy_x": accuracy[torch.float16],
    "bfloat16_accuracy_x": accuracy[torch.bfloat16],
    "speedup_x": eager_ms[0] / compiled_ms[0],
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
    "with large inputs in float16, eager mode overflows and compiled code does not": (
        large_errors["eager"] > 0.5 and large_errors["compiled"] < 0.01
    ),
    "emulate_precision_casts makes compiled code slower": emulated_ms[0]
    > compiled_ms[0],
}
for dtype, ratio in accuracy.items():
    print(f"{dtype}: compiled is {ratio:.2f} times as accurate as eager")
for sentence, held in claims.items():
    print(f"{'held here' if held else 'did not hold here'}: {sentence}")

# %%
# **When not to do this.** By default, do not expect results that are equal bit by bit: another batch size, GPU or
# version can change them, also in eager mode. Do not leave ``emulate_precision_casts`` on in production because a test
# compares with eager mode: correct the test. If compiled code fails a test like the one above, look at the error of
# eager mode first. If that one is small, you have probably found a bug: `report it
# <https://github.com/pytorch/pytorch/issues>`_, with what the search printed.
