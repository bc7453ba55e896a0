# /// script
# requires-python = ">=3.11"
# dependencies = ["torch>=2.11", "torchvision>=0.26", "matplotlib>=3.8", "numpy>=2", "tabulate>=0.9"]
#
# [tool.recipe]
# order = 10
# tags = ["basics", "training", "inference"]
# see_also = ["custom_backend_inspection", "numerical_differences"]
# time_limit_s = 600
# expected_warnings = ["Profiler record function"]
#
# [tool.recipe.metrics]
# inference_eager_ms = "one forward pass in eager mode, median"
# inference_compiled_ms = "one forward pass of the compiled model, median"
# inference_speedup_x = "forward pass: eager time ÷ compiled time"
# inference_first_call_s = "first forward pass of the compiled model, including compilation"
# inference_second_call_s = "second forward pass of the compiled model"
# inference_breakeven_calls_count = "forward passes until the time saved has repaid compilation"
# training_eager_ms = "one training step in eager mode, median"
# training_compiled_ms = "one training step, compiled including loss and optimizer, median"
# training_speedup_x = "training step: eager time ÷ compiled time"
# training_first_call_s = "first compiled training step, including compilation"
# training_second_call_s = "second compiled training step"
# training_breakeven_calls_count = "training steps until the time saved has repaid compilation"
# inference_start_up_breakeven_calls_count = "forward passes until start-up of the compiler is repaid too"
# training_start_up_breakeven_calls_count = "training steps until start-up of the compiler is repaid too"
# start_up_s = "first compilation of the process, a tiny function"
# batch_2_speedup_x = "forward pass at batch 2, one graph for all batch sizes: eager time ÷ compiled time"
# batch_4_speedup_x = "forward pass at batch 4, one graph for all batch sizes: eager time ÷ compiled time"
# batch_8_speedup_x = "forward pass at batch 8, one graph for all batch sizes: eager time ÷ compiled time"
# batch_16_speedup_x = "forward pass at batch 16, one graph for all batch sizes: eager time ÷ compiled time"
# batch_64_speedup_x = "forward pass at batch 64, one graph for all batch sizes: eager time ÷ compiled time"
# dynamic_graphs_count = "graphs for these batch sizes together, the size marked as dynamic"
# ///
"""
Introduction to torch.compile
=============================

One line compiles a function or a model: its first call is slow, later calls are faster, and this page measures how many
calls repay it.

**What you will learn**

- the ways to apply ``torch.compile``, and what each does to a model's ``state_dict``;
- how to time compiled code: first calls, steady state, inference and training;
- how many calls repay the compilation, and what the speed-up depends on.

**What you need:** PyTorch 2.11 or later and torchvision. The page runs on a GPU if there is one, else on the CPU, where
it uses a shallower model of the same family.
"""

import copy
import math
import time
from functools import partial

import matplotlib.pyplot as plt
import torch
import torchvision
from tabulate import tabulate
from torch._dynamo.utils import counters
from torch.utils import benchmark

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"

if device == "cuda":
    # Let matrix products use the tensor cores, in eager mode and compiled.
    torch.set_float32_matmul_precision("high")
    mode, batch, size = "reduce-overhead", 16, 128

    def make_model():
        return torchvision.models.densenet121().to(device)

else:
    mode, batch, size = "default", 8, 64

    def make_model():
        return torchvision.models.DenseNet(16, (1, 1, 1, 1), 32)


print(f"torch {torch.__version__} on {device}, mode={mode!r}")

# %%
# Compile a function
# ------------------
#
# ``torch.compile`` takes a function and returns one that you call in the same way. When that is called, TorchDynamo,
# the front end, captures the tensor operations; Inductor, the backend, writes code that does several of them in one
# pass over memory (*fusion*), and compiles it. The first compilation of a process also starts up the compiler, so we
# time it.


def foo(x, y):
    return torch.sin(x) + torch.cos(y)


x, y = torch.randn(10, 10, device=device), torch.randn(10, 10, device=device)
compiled_foo = torch.compile(foo)
start = time.perf_counter()
result = compiled_foo(x, y)
start_up_s = time.perf_counter() - start
torch.testing.assert_close(result, foo(x, y))
print("compiled function: matches eager mode within rounding")
print(f"first compilation of this process: {start_up_s:.1f} s")

# %%
# It is also a decorator.


@torch.compile
def decorated_foo(x, y):
    return torch.sin(x) + torch.cos(y)


torch.testing.assert_close(decorated_foo(x, y), foo(x, y))
print("decorated function: matches eager mode within rounding")

# %%
# Compile a module
# ----------------
#
# There are two forms. ``torch.compile(module)`` returns a new object around the module, and the names in its
# ``state_dict`` begin with ``_orig_mod``. ``module.compile()`` changes the module in place, and the names stay. Prefer
# ``module.compile()`` where you save checkpoints.


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(10, 10)

    def forward(self, x):
        return torch.nn.functional.relu(self.linear(x))


block = Block().to(device)
expected = block(x)

wrapped = torch.compile(block)
torch.testing.assert_close(wrapped(x), expected)
print("torch.compile(block):", list(wrapped.state_dict()))

block.compile()
torch.testing.assert_close(block(x), expected)
print("block.compile():     ", list(block.state_dict()))
assert list(wrapped.state_dict()) == [
    "_orig_mod.linear.weight",
    "_orig_mod.linear.bias",
], "torch.compile(module) adds a prefix to the names"
assert list(block.state_dict()) == ["linear.weight", "linear.bias"], (
    "module.compile() keeps the names"
)

# %%
# The first call compiles
# -----------------------
#
# Nothing is compiled until a function is called with real inputs. So first calls are slow. We time each call of a real
# model on its own. The first example above has paid the start-up of the compiler, so it is not charged to the model.
# ``torch.compiler.reset()`` makes the process forget compiled code.
# The cache on disk is empty when this page runs; on your machine a second run finds it filled, and starts faster.


def seconds_of(call):
    """Seconds that `call` takes, until the GPU has finished too."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def per_call_table(eager_s, compiled_s):
    """First calls of both, side by side."""
    rows = [
        [n, e, c] for n, (e, c) in enumerate(zip(eager_s, compiled_s, strict=True), 1)
    ]
    return tabulate(
        rows, headers=["call", "eager, s", "compiled, s"], floatfmt=("", ".4f", ".4f")
    )


model = make_model()
image = torch.randn(batch, 3, size, size, device=device)
parameter_count = sum(p.numel() for p in model.parameters())
print(f"DenseNet of {parameter_count / 1e6:.1f} million parameters")
print(f"batch {batch} of 3×{size}×{size}\n")

model.eval()
torch.compiler.reset()
compiled_model = torch.compile(model, mode=mode)
with torch.no_grad():
    eager_calls_s = [seconds_of(lambda: model(image)) for _ in range(5)]
    inference_calls_s = [seconds_of(lambda: compiled_model(image)) for _ in range(5)]
print(per_call_table(eager_calls_s, inference_calls_s))

# %%
# Look at the second compiled call, too. Under ``mode="reduce-overhead"`` the compiler records CUDA graphs: the first
# call compiles and warms up, the second records, and only later calls replay the recording. On the CPU there are no
# CUDA graphs, and the second call is already fast.

second_over_third = inference_calls_s[1] / inference_calls_s[2]
print(
    f"the second compiled call took {second_over_third:.1f} times as long as the third"
)
if device == "cpu":
    print("not run here: CUDA graphs (mode='reduce-overhead'), they need a GPU")

# %%
# The modes:
#
# - ``"default"``: a balance of compile time and speed;
# - ``"reduce-overhead"``: adds CUDA graphs, which remove the time between kernels. It helps small batches most, and
#   costs memory;
# - ``"max-autotune"``: also tries several implementations of matrix products and convolutions. Compiling takes much
#   longer.
#
# Inference: the speed-up
# -----------------------
#
# Now the steady state, without the first calls: the median of many calls, with its interquartile range (IQR). The
# outputs are compared first. Compiled code adds and multiplies in another order, so they are close, not equal.
#
# The IQR is the spread within this measurement. From one minute to the next a machine can change by more: compare with
# the calls 3 to 5 above.
#
# The timer of PyTorch uses one thread unless we say otherwise, so we give it all that the process has. It also waits
# for the GPU. Eager and compiled calls are timed in turns: if the machine is slow for some seconds, it is slow for
# both.


def in_turns_ms(*calls, seconds=2):
    """Milliseconds of each call: median and interquartile range."""
    timers = [
        benchmark.Timer(
            "call()", globals={"call": call}, num_threads=torch.get_num_threads()
        )
        for call in calls
    ]
    turns = [
        [timer.blocked_autorange(min_run_time=seconds / 5) for timer in timers]
        for _ in range(5)
    ]
    merged = [benchmark.Measurement.merge(each)[0] for each in zip(*turns, strict=True)]
    return [(m.median * 1e3, m.iqr * 1e3) for m in merged]


def steady_state_table(eager, compiled):
    """Medians, spreads and speed-up as text."""
    rows = [["eager", *eager, 1.0], ["compiled", *compiled, eager[0] / compiled[0]]]
    return tabulate(
        rows, headers=["", "median, ms", "IQR, ms", "speed-up"], floatfmt=".2f"
    )


with torch.no_grad():
    torch.testing.assert_close(
        compiled_model(image), model(image), rtol=1e-2, atol=1e-2
    )
    inference_eager, inference_compiled = in_turns_ms(
        partial(model, image), partial(compiled_model, image)
    )
inference_speedup = inference_eager[0] / inference_compiled[0]
print(steady_state_table(inference_eager, inference_compiled))

# %%
# Training: the whole step
# ------------------------
#
# A training step is more than a model: forward pass, loss, backward pass, optimizer. We put all of it into one function
# and compile that. TorchDynamo cannot follow some of it, such as ``loss.backward()``: it leaves that to Python and goes
# on behind it, in another graph (a *graph break*). The backward pass is compiled all the same, when its forward graph
# is. We print how many graphs there are, and the reason for each graph break. A reason need not come from your code:
# PyTorch's own optimizer calls ``torch._dynamo.graph_break()`` around its step, on purpose. These breaks raise no
# error, and the step is still right. Two copies of the model start from the same weights, so their first losses must be
# close. The first call takes longer than in inference: there is a backward pass to compile, and the optimizer works on
# every parameter.
#
# The warning concerns a label that the optimizer leaves for the profiler. Compiled code leaves it out.

targets = torch.randint(1000, (batch,), device=device)


def make_training_step(model, **compile_options):
    """A function that trains `model` for one step and returns the loss."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(image), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return torch.compile(step, **compile_options) if compile_options else step


torch.compiler.reset()
counters.clear()
start_model = make_model()
compiled_step = make_training_step(copy.deepcopy(start_model), mode=mode)
eager_step = make_training_step(copy.deepcopy(start_model))

losses = {"eager": [], "compiled": []}
training_eager_calls_s = [
    seconds_of(lambda: losses["eager"].append(eager_step().clone())) for _ in range(5)
]
training_calls_s = [
    seconds_of(lambda: losses["compiled"].append(compiled_step().clone()))
    for _ in range(5)
]
print(per_call_table(training_eager_calls_s, training_calls_s))
print(f"\ngraphs in the compiled step: {counters['stats']['unique_graphs']}")
for reason in counters["graph_break"]:
    print(f"graph break: {reason.splitlines()[0]}")

# Later losses drift apart, as two eager runs on a GPU do: each step adds its rounding.
torch.testing.assert_close(
    losses["compiled"][0], losses["eager"][0], rtol=1e-2, atol=1e-2
)
for kind, values in losses.items():
    print(f"loss of the first step, {kind}: {values[0]:.4f}")

# %%

training_eager, training_compiled = in_turns_ms(eager_step, compiled_step)
training_speedup = training_eager[0] / training_compiled[0]
print(steady_state_table(training_eager, training_compiled))

# %%
# When does it pay?
# -----------------
#
# The first calls cost seconds, each later call saves milliseconds. The break-even is the number of calls after which
# the saved time has repaid the compilation. First we take the time of the first two compiled calls, and subtract the
# time of two eager calls: that is the cost. We divide the cost by the time that each later call saves. Then we add the
# two calls. A process that compiles nothing else also pays the start-up of the compiler: the second number includes it.
# With a filled cache on disk both are smaller.


def break_even_calls(first_calls_s, eager_ms, compiled_ms, start_up_s=0):
    """Calls until compilation has paid; None if it never does."""
    saved_ms = eager_ms - compiled_ms
    compile_ms = (start_up_s + sum(first_calls_s[:2])) * 1e3 - 2 * eager_ms
    return 2 + math.ceil(compile_ms / saved_ms) if saved_ms > 0 else None


break_even = {}
for kind, first_calls_s, eager, compiled in [
    ("inference", inference_calls_s, inference_eager, inference_compiled),
    ("training", training_calls_s, training_eager, training_compiled),
]:
    calls, with_start_up = (
        break_even_calls(first_calls_s, eager[0], compiled[0], extra_s)
        for extra_s in (0, start_up_s)
    )
    break_even[kind] = calls, with_start_up
    if calls:
        print(f"{kind}: pays after {calls:,} calls, {with_start_up:,} with start-up")
    else:
        print(f"{kind}: does not pay, it is not faster")

# %%
# Does it depend on the batch size?
# ---------------------------------
#
# The speed-up may depend on the model, the hardware and the batch size. We measure three sizes. The last printed line
# says "it depends" if the speed-ups differ by more than a tenth. This limit is rough: it ignores the IQR. If the
# printed number is near the limit, compare it with the IQRs above. The difference may be noise. By default the second
# size would be a recompilation, after which TorchDynamo treats the dimension as dynamic. We mark it as dynamic at once,
# so that one graph can serve all, and print the number of graphs. A dynamic graph may have a bound; a size beyond it is
# compiled again. A dynamic graph can be slower than a graph for a fixed shape. It also uses the default mode here. So
# compare these figures only with each other.

batch_sizes = (4, 16, 64) if device == "cuda" else (2, 4, 8)
torch.compiler.reset()
counters.clear()
dynamic_model = torch.compile(model.eval())
speedup_by_batch = {}
with torch.no_grad():
    for n in batch_sizes:
        images = torch.randn(n, 3, size, size, device=device)
        torch._dynamo.mark_dynamic(images, 0)
        torch.testing.assert_close(
            dynamic_model(images), model(images), rtol=1e-2, atol=1e-2
        )
        (eager_ms, _), (compiled_ms, _) = in_turns_ms(
            partial(model, images), partial(dynamic_model, images), seconds=1
        )
        speedup_by_batch[n] = eager_ms / compiled_ms
dynamic_graphs = counters["stats"]["unique_graphs"]
print(f"graphs for {len(batch_sizes)} batch sizes: {dynamic_graphs}")
print(
    f"speed-up by batch size: { {n: round(s, 2) for n, s in speedup_by_batch.items()} }"
)
range_x = max(speedup_by_batch.values()) / min(speedup_by_batch.values())
print(
    f"largest ÷ smallest: {range_x:.2f}:",
    "it depends on the batch size here"
    if range_x > 1.1
    else "it hardly depends on it here",
)

figure, axes = plt.subplots(figsize=(5.5, 3), layout="constrained")
bars = axes.bar([str(n) for n in batch_sizes], speedup_by_batch.values(), width=0.5)
axes.bar_label(bars, fmt="%.2f×")
axes.axhline(1, color="tab:red", linestyle="--", label="as fast as eager")
axes.set_xlabel("batch size")
axes.set_ylabel("eager ÷ compiled")
axes.set_title(f"Inference speed-up of a DenseNet over batch size, {device}")
axes.margins(y=0.2)
figure.legend(loc="outside lower center")
plt.show()

# %%
# Results for many models, on hardware that is named, are on the `PyTorch performance dashboard
# <https://hud.pytorch.org/benchmark/compilers>`_.
#
# What this run showed
# --------------------
#
# ``metrics`` are what this site records of a run. ``claims`` are sentences that another machine may refute, each with
# whether it was true here.

metrics = {}
for kind, eager, compiled, first_calls in [
    ("inference", inference_eager, inference_compiled, inference_calls_s),
    ("training", training_eager, training_compiled, training_calls_s),
]:
    metrics |= {
        f"{kind}_eager_ms": eager[0],
        f"{kind}_eager_iqr_ms": eager[1],
        f"{kind}_compiled_ms": compiled[0],
        f"{kind}_compiled_iqr_ms": compiled[1],
        f"{kind}_speedup_x": eager[0] / compiled[0],
        f"{kind}_first_call_s": first_calls[0],
        f"{kind}_second_call_s": first_calls[1],
    }
    # There is no such number where compiled code is not faster.
    if break_even[kind][0]:
        metrics[f"{kind}_breakeven_calls_count"] = break_even[kind][0]
        metrics[f"{kind}_start_up_breakeven_calls_count"] = break_even[kind][1]
metrics |= {f"batch_{n}_speedup_x": s for n, s in speedup_by_batch.items()}
metrics |= {"dynamic_graphs_count": dynamic_graphs, "start_up_s": start_up_s}

claims = {
    "compiled inference is faster than eager": inference_speedup > 1,
    "a compiled training step is faster than an eager one": training_speedup > 1,
    "the speed-up differs by more than a tenth between batch sizes": range_x > 1.1,
}
for kind in ("inference", "training"):
    speedup = metrics[f"{kind}_speedup_x"]
    word = "faster" if speedup > 1 else "slower"
    print(
        f"{kind}: compiled is {max(speedup, 1 / speedup):.2f} times {word}, "
        f"after a first call of {metrics[f'{kind}_first_call_s']:.1f} s"
    )
for sentence, held in claims.items():
    print(f"{'held here' if held else 'did not hold here'}: {sentence}")

# %%
# When it is slower
# -----------------
#
# If compiled code is slower than eager mode for you, look for the cause in this order:
#
# - **The first calls.** Leave out the first two. They compile, and under ``"reduce-overhead"`` they record.
# - **Recompilations.** Compiled code is valid under conditions, its *guards*, such as the sizes of the inputs. If a
#   guard fails, TorchDynamo compiles again: a *recompilation*. Inputs that change their size are the usual cause. Run
#   with ``TORCH_LOGS="recompiles"``. After the first calls it must print nothing.
# - **Graph breaks.** Run with ``TORCH_LOGS="graph_breaks"``. It prints each break while the code is compiled, so look
#   at the first calls. A break costs time in every call.
# - **Too little work.** Each call checks the guards before compiled code runs. On small tensors this may cost more
#   than fusion saves. Compile a larger part of the program, or leave it in eager mode. On a GPU, try
#   ``mode="reduce-overhead"``.
# - **Nothing to fuse.** Large matrix products and convolutions call the same libraries as in eager mode.
# - **The time is elsewhere.** If loading data takes the time, a faster model changes nothing. Profile first.
#
# **When not to do this.** A program that makes fewer calls than the break-even is better off in eager mode. So is one
# that keeps recompiling because its inputs change.
#
# Measured by others, and not comparable with a small model on a CPU: DenseNet-121 at batch 16 of 3×128×128 with
# ``mode="reduce-overhead"``: the `Lightning Fabric guide
# <https://lightning.ai/docs/fabric/stable/advanced/compile.html>`_ reports 0.0151 s → 0.0056 s for inference, 2.7 times
# faster (A100, torch 2.1.2, CUDA 12.1); the `PyTorch tutorial
# <https://docs.pytorch.org/tutorials/intermediate/torch_compile_tutorial.html>`_ for torch 2.12 reports 17.43 → 8.19 ms
# for inference and 49.8 → 20.3 ms for training, on a GPU that it does not name.
