# /// script
# requires-python = ">=3.11"
# dependencies = ["torch>=2.11", "matplotlib>=3.8", "numpy>=2", "tabulate>=0.9"]
#
# [tool.recipe]
# order = 25
# tags = ["recompilation", "inference"]
# see_also = ["fabric_compile", "compile_caching"]
# time_limit_s = 600
# # On a GPU, torch 2.11 recommends TF32. The recompile limit speaks up.
# expected_warnings = ["TensorFloat32 tensor cores", "torch/_dynamo/convert_frame.py"]
#
# [tool.recipe.metrics]
# default_first_round_s = "five requests of different length, without options, with two compilations"
# dynamic_first_round_s = "the same, compiled with dynamic=True"
# mark_dynamic_first_round_s = "the same, the length marked as dynamic"
# static_first_round_s = "the same, one graph a length"
# padded_first_round_s = "the same, padded to two lengths, one graph each"
# default_graphs_count = "graphs, without options"
# dynamic_graphs_count = "graphs, dynamic=True"
# mark_dynamic_graphs_count = "graphs, the length marked as dynamic"
# static_graphs_count = "graphs, dynamic=False"
# padded_graphs_count = "graphs, padded to two lengths"
# eager_ms = "five requests in eager mode, in turns with the next row, median"
# mark_dynamic_ms = "five requests, the length marked as dynamic, median"
# speedup_x = "five requests: eager time ÷ time with the length marked as dynamic"
# eager_over_default_x = "five requests: eager time ÷ time without options, measured in turns"
# eager_over_dynamic_x = "five requests: eager time ÷ time with dynamic=True, measured in turns"
# eager_over_static_x = "five requests: eager time ÷ time with one graph a length, measured in turns"
# eager_over_padded_x = "five requests: eager time ÷ time when padded to two lengths, measured in turns"
# ///
"""
Inputs that change their size
=============================

A new input size can compile the model again: this page shows when, and times five ways to deal with it.

**What you will learn**

- which call recompiles, and how PyTorch says why;
- what a graph for all sizes costs, beside one graph a size and beside padding;
- which sizes still compile again, and how to keep a server from compiling while it serves.

**What you need:** PyTorch 2.11 or later. The page runs on a GPU if there is one, else on the CPU.
"""

import logging
import time

import matplotlib.pyplot as plt
import torch
from tabulate import tabulate
from torch._dynamo.utils import counters
from torch._inductor.utils import fresh_cache
from torch.nn import functional as F
from torch.utils import benchmark

torch.manual_seed(0)
torch.set_grad_enabled(False)
device = "cuda" if torch.cuda.is_available() else "cpu"
width, unit = (1024, 256) if device == "cuda" else (128, 32)
print(f"torch {torch.__version__} on {device}")

# %%
# The model and its requests
# --------------------------
#
# Two causal transformer blocks answer requests of different length, as a language model does. *Causal* means that a
# token sees only itself and what stands before it. What we add at the end cannot change the answers before it: we will
# use that.


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1 = torch.nn.RMSNorm(width)
        self.qkv = torch.nn.Linear(width, 3 * width)
        self.out = torch.nn.Linear(width, width)
        self.norm2 = torch.nn.RMSNorm(width)
        self.up = torch.nn.Linear(width, 4 * width)
        self.down = torch.nn.Linear(4 * width, width)

    def forward(self, x):
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, 4, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList([Block(), Block()])

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


model = Model().eval().to(device)
lengths = [unit * n for n in (6, 4, 7, 3, 8)]
requests = [torch.randn(4, length, width, device=device) for length in lengths]
answers = [model(x) for x in requests]
print("lengths of the requests:", lengths)

# %%
# Which call compiles
# -------------------
#
# We send the requests one after the other, then once more. TorchDynamo, the front end of ``torch.compile``, turns
# Python code into *graphs* of operators, and counts them. Before the first request we compile something else, so that
# this request does not pay for the start-up of the compiler.


def clock():
    """Seconds, after the device has finished its work."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def graphs():
    """Number of graphs captured since the last reset."""
    return counters["stats"]["unique_graphs"]


def reset():
    torch.compiler.reset()
    counters.clear()


def serve(call, requests=requests):
    """Answer all requests, check the answers; a row for each: length, seconds, graphs."""
    rows = []
    for x, want in zip(requests, answers, strict=True):
        before, start = graphs(), clock()
        got = call(x)
        rows.append([x.shape[1], clock() - start, graphs() - before])
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    return rows


something_else = torch.nn.Sequential(torch.nn.Linear(width, 3), torch.nn.Tanh())
with fresh_cache():
    torch.compile(something_else.to(device))(requests[0])

reset()
with fresh_cache():
    compiled = torch.compile(model)
    rounds = [serve(compiled), serve(compiled)]
print(
    tabulate(
        rounds[0] + rounds[1],
        headers=["length", "seconds", "new graphs"],
        floatfmt=("", ".3f", ""),
    )
)
assert [row[2] for row in rounds[0] + rounds[1]] == [1, 1, *[0] * 8], (
    "the first length compiles, the second once more, then none does"
)

# %%
# The first graph is for one length only. When another length comes, PyTorch takes this dimension as one that changes,
# and compiles a graph in which it is a variable: it is *dynamic*. That graph served the other lengths here. The
# exceptions are below.
#
# With each graph come *guards*: conditions under which it may be used, for example a size. A call that fails the guards
# of all graphs compiles again. ``TORCH_LOGS="recompiles" python serve.py`` prints which guard failed. In a notebook,
# ``set_logs`` does the same. A *backend* turns graphs into code; the backend ``"eager"`` leaves them as they are, so it
# is quick.

reset()
captured = torch.compile(model, backend="eager")
captured(requests[0])
torch._logging.set_logs(recompiles=True)
captured(requests[1])
torch._logging.set_logs(recompiles=False)

# %%
# Five ways, timed
# ----------------
#
# - **As it is**: ``torch.compile`` without options, as in the table above, compiled anew.
# - **dynamic=True**: every size of the input starts as a variable. Where the code needs one value, it is fixed again:
#   here the width, which must fit the weights. One graph.
# - **mark_dynamic**: you name the dimension that changes. One graph; the other sizes stay fixed until one changes.
# - **One graph a length**: ``dynamic=False``. Each graph is made for its length, and each is compiled.
# - **Padded**: each request is filled up to one of two lengths, so that two graphs are enough. The model computes more
#   than it must. That is correct here, because a causal model does not look at what follows; other models need a mask.
#
# The first round compiles. A *steady* round does not. Timings drift while a page runs. So each way takes turns with
# eager mode, and is compared with what eager mode took meanwhile.

marked = [x.clone() for x in requests]
for x in marked:
    torch._dynamo.mark_dynamic(x, 1)


def padded(call):
    """Pads each request at the end to 4 or 8 units, and cuts the answer."""

    def pad_and_call(x):
        missing = -x.shape[1] % (4 * unit)
        return call(F.pad(x, (0, 0, 0, missing)))[:, : x.shape[1]]

    return pad_and_call


def round_timer(call):
    return benchmark.Timer(
        "for x in requests: call(x)",
        globals={"call": call, "requests": requests},
        # The timer uses one thread unless we say otherwise.
        num_threads=torch.get_num_threads(),
    )


def beside_eager_ms(call):
    """A round in eager mode and of `call`, in turns: median and IQR in ms of each."""
    before = graphs()
    timers = round_timer(model), round_timer(call)
    turns = [[t.blocked_autorange(min_run_time=0.4) for t in timers] for _ in range(5)]
    assert graphs() == before, "nothing compiles while we time"
    merged = [benchmark.Measurement.merge(each)[0] for each in zip(*turns, strict=True)]
    return [(m.median * 1e3, m.iqr * 1e3) for m in merged]


first_round_s, graph_count, eager_ms, steady_ms, speedup = {}, {}, {}, {}, {}
for way, dynamic, wrap, xs in [
    ("as it is", None, None, requests),
    ("dynamic=True", True, None, requests),
    ("mark_dynamic", None, None, marked),
    ("one graph a length", False, None, requests),
    ("padded to two lengths", False, padded, requests),
]:
    reset()
    call = torch.compile(model, dynamic=dynamic)
    if wrap:
        call = wrap(call)
    with fresh_cache():
        rows = serve(call, xs)
    first_round_s[way] = sum(row[1] for row in rows)
    graph_count[way] = graphs()
    eager_ms[way], steady_ms[way] = beside_eager_ms(call)
    speedup[way] = eager_ms[way][0] / steady_ms[way][0]

print(
    tabulate(
        [
            [
                way,
                graph_count[way],
                first_round_s[way],
                eager_ms[way][0],
                *steady_ms[way],
                speedup[way],
            ]
            for way in speedup
        ],
        headers=[
            "",
            "graphs",
            "first round, s",
            "eager, ms",
            "this, ms",
            "IQR",
            "eager ÷ this",
        ],
        floatfmt=("", "", ".1f", ".2f", ".2f", ".2f", ".2f"),
    )
)
assert list(graph_count.values()) == [2, 1, 1, len(lengths), 2]

# %%
# Compare the last column: the drift that you see in the times of eager mode has little effect on it. Below 1 is slower
# than eager mode. The interquartile range (IQR) is the spread of "this": half of its measurements lie within it. Where
# two ways differ by less than the IQR, do not call one of them faster; the last section names the ways that are that
# near to the fastest. A graph of its own for each length costs the most compilation: see whether its last column repays
# that. If not, start with ``mark_dynamic``. The same as a picture:

figure, (upper, lower) = plt.subplots(2, figsize=(5.5, 4.6), layout="constrained")
upper.barh(list(first_round_s), list(first_round_s.values()))
upper.set_xlabel("first round, with compilation, s")
whiskers = [x / 2 * steady_ms[way][1] / steady_ms[way][0] for way, x in speedup.items()]
lower.barh(list(speedup), list(speedup.values()), xerr=whiskers, capsize=3)
lower.axvline(1, color="tab:gray")
lower.set_xlabel("steady speed-up; the whisker is the IQR")
for axes in (upper, lower):
    axes.invert_yaxis()
figure.suptitle(f"Five requests of different length, {device}")
plt.show()

# %%
# Sizes that still compile again
# ------------------------------
#
# A dynamic size is not any size. The first row is the normal case: one graph. Then come three exceptions. All rows use
# the backend ``"eager"`` and ``dynamic=True``, except the row with ``mark_dynamic``, which leaves ``dynamic`` unset.
#
# - **One.** A size of 1 (or 0) has a graph of its own, because broadcasting treats it differently.
# - **Equal sizes.** Two sizes that are equal in the first call are taken to be equal always. If the first sequence is
#   as long as the model is wide, the weights fix the width, so the first graph fixes the length too. The next length
#   compiles a second graph, which serves the others. ``mark_dynamic`` does not take the two sizes to be equal.
# - **A loop** over a size is written out step by step, so the graph is for that number of steps.


class Loop(torch.nn.Module):
    def forward(self, x):
        state = torch.zeros_like(x[:, 0])
        for step in range(x.shape[1]):
            state = torch.tanh(state + x[:, step])
        return state


def graphs_for(module, *shapes, mark=False):
    """Number of graphs for inputs of these shapes, one after the other."""
    reset()
    call = torch.compile(module, backend="eager", dynamic=None if mark else True)
    for shape in shapes:
        x = torch.randn(*shape, device=device)
        if mark:
            torch._dynamo.mark_dynamic(x, 1)
        call(x)
    return graphs()


equal = [(4, width, width), (4, 6, width), (4, 7, width)]


again = {
    "length 5, 6, 7": graphs_for(model, (4, 5, width), (4, 6, width), (4, 7, width)),
    "length 5, 6, 1": graphs_for(model, (4, 5, width), (4, 6, width), (4, 1, width)),
    "batch 4, 3, 1": graphs_for(model, (4, 5, width), (3, 5, width), (1, 5, width)),
    "length as the width, 6, 7": graphs_for(model, *equal),
    "length as the width, 6, 7, mark_dynamic": graphs_for(model, *equal, mark=True),
    "a loop over length 5, 6, 7": graphs_for(Loop(), (4, 5, 2), (4, 6, 2), (4, 7, 2)),
}
print(tabulate(again.items(), headers=["dynamic=True", "graphs"]))
assert list(again.values()) == [1, 2, 2, 2, 1, 3]

# %%
# ``dynamic=True`` says nothing about the loop. ``mark_dynamic`` does: a size that you marked, but for which the code
# needs one fixed number, is an error. The error names the line.

reset()
x = torch.randn(4, 5, 2, device=device)
torch._dynamo.mark_dynamic(x, 1)
# The log would repeat the error, with the compiler's own stack.
torch._logging.set_logs(all=logging.CRITICAL)
try:
    torch.compile(Loop(), backend="eager")(x)
except RuntimeError as error:
    message = str(error)
    print(f"{type(error).__name__}: {message}")
else:
    raise AssertionError("a marked size that the code fixes is refused")
finally:
    torch._logging.set_logs()

# %%
# Do not compile while serving
# ----------------------------
#
# One graph a length has a limit: 8 graphs for one function, unless you set another. All modules of a class share this
# number, because they share ``forward``. Beyond it, PyTorch warns, goes on to use these graphs, and runs what fits none
# of them in eager mode. With ``fullgraph=True`` it stops instead.

reset()
strict = torch.compile(model, backend="eager", dynamic=False, fullgraph=True)
allowed = 0
try:
    for length in range(2, 20):
        strict(torch.randn(4, length, width, device=device))
        allowed += 1
except torch._dynamo.exc.FailOnRecompileLimitHit as error:
    print(f"length number {allowed + 1}: {type(error).__name__}")
assert allowed == graphs() == torch._dynamo.config.recompile_limit

# %%
# A *stance* says what PyTorch may do when no graph fits. Under ``"eager_on_recompile"`` it uses the graphs that it has,
# else eager mode, and compiles nothing. So warm up, then set it. Here we warm up two lengths of five, so that you see
# it; with a marked length, one call is enough.

reset()
served = torch.compile(model, backend="eager", dynamic=False)
for x in requests[:2]:
    served(x)
warmed_up = graphs()
with torch.compiler.set_stance("eager_on_recompile"):
    serve(served)
print(f"graphs after the warm-up: {warmed_up}, after serving: {graphs()}")
print(f"{len(requests) - warmed_up} of {len(requests)} requests ran in eager mode")
assert warmed_up == graphs() == 2, "nothing is compiled while serving"

# %%
# On a GPU, ``mode="reduce-overhead"`` also records a CUDA graph for each new size, as `PyTorch's documentation
# <https://docs.pytorch.org/docs/stable/user_guide/torch_compiler/torch.compiler_cudagraph_trees.html>`_ says. That is
# no recompilation, so nothing on this page counts it. Pad to a few sizes there.

# %%
# What this run showed
# --------------------
#
# ``metrics`` are what this site records of a run. ``claims`` are sentences that another machine may refute, each with
# whether it was true here.
# "Shortest" names the best value, even where the difference is small.

names = {
    "as it is": "default",
    "dynamic=True": "dynamic",
    "mark_dynamic": "mark_dynamic",
    "one graph a length": "static",
    "padded to two lengths": "padded",
}
metrics = {}
metrics["eager_ms"], metrics["eager_iqr_ms"] = eager_ms["mark_dynamic"]
metrics["mark_dynamic_ms"], metrics["mark_dynamic_iqr_ms"] = steady_ms["mark_dynamic"]
for way, name in names.items():
    metrics[f"{name}_first_round_s"] = first_round_s[way]
    metrics[f"{name}_graphs_count"] = graph_count[way]
    # Only ratios: each way was timed in turns with eager mode, not with the others.
    key = "speedup_x" if way == "mark_dynamic" else f"eager_over_{name}_x"
    metrics[key] = speedup[way]

# The largest spread of a way, as a part of its median.
spread_x = max(iqr / ms for ms, iqr in steady_ms.values())
claims = {
    "a graph for all lengths is as fast as one graph a length, to within a tenth": (
        speedup["mark_dynamic"] > 0.9 * speedup["one graph a length"]
    ),
    "one graph for all lengths is compiled at least twice as fast as one a length": (
        2 * metrics["mark_dynamic_first_round_s"] < metrics["static_first_round_s"]
    ),
    "padding is slower than no padding, in steady state, by more than the spread": (
        speedup["padded to two lengths"]
        < speedup["one graph a length"] * (1 - spread_x)
    ),
    "with one graph for all lengths, a round is faster than in eager mode": (
        speedup["mark_dynamic"] > 1
    ),
}

shortest = min(first_round_s, key=first_round_s.get)
near = [x for x in speedup if speedup[x] >= max(speedup.values()) * (1 - spread_x)]
print(f"shortest first round: {shortest}, {first_round_s[shortest]:.1f} s")
print(f"fastest steady round, within the spread: {', '.join(near)}")
for sentence, held in claims.items():
    print(f"{'held here' if held else 'did not hold here'}: {sentence}")

# %%
# **When not to do this.** If all inputs have one size, do not set ``dynamic``: PyTorch fixes all sizes by itself. If,
# in training, only the last batch of an epoch differs, drop that batch. If every request has a length of its own, and
# the steady round of "mark_dynamic" is not faster than eager mode by more than the IQR, do not compile.
#
# More: `dynamic shapes
# <https://docs.pytorch.org/docs/stable/user_guide/torch_compiler/torch.compiler_dynamic_shapes.html>`_ in PyTorch's
# documentation.
