# /// script
# requires-python = ">=3.11"
# dependencies = ["torch>=2.11", "matplotlib>=3.8", "numpy>=2", "tabulate>=0.9"]
#
# [tool.recipe]
# order = 30
# tags = ["cold start"]
# see_also = ["compile_caching", "accelerate_compile"]
# time_limit_s = 600
# # On a GPU, torch 2.11 recommends TF32. The layers are too small to gain by it.
# expected_warnings = ["TensorFloat32 tensor cores"]
#
# [tool.recipe.metrics]
# full_cold_start_s = "first forward and backward, whole model compiled, empty caches"
# regional_cold_start_s = "first forward and backward, each layer wrapped, empty caches, mean of two"
# in_place_cold_start_s = "first forward and backward, each layer compiled in place, empty caches"
# nested_cold_start_s = "first forward and backward, nested_compile_region, empty caches"
# cold_start_speedup_x = "cold start of the whole model ÷ cold start of wrapped layers"
# start_up_s = "first compilation in the process, a tiny model: not part of the other rows"
# full_warm_start_s = "first forward and backward, whole model compiled, only the disk cache filled"
# regional_warm_start_s = "first forward and backward, wrapped layers, only the disk cache filled"
# nested_warm_start_s = "first forward and backward, nested_compile_region, only the disk cache filled"
# eager_ms = "forward and backward in eager mode, median"
# full_ms = "forward and backward, whole model compiled, median"
# regional_ms = "forward and backward, wrapped layers, median"
# nested_ms = "forward and backward, nested_compile_region, median"
# full_step_speedup_x = "steady step, whole model compiled: eager time ÷ compiled time"
# regional_step_speedup_x = "steady step, wrapped layers: eager time ÷ compiled time"
# nested_step_speedup_x = "steady step, nested_compile_region: eager time ÷ compiled time"
# full_operators_count = "operators in the graph of the whole model"
# regional_operators_count = "operators in the graph of one layer"
# recompilations_count = "recompilations when the other layers run after the first one"
# ///
"""
Shorter cold starts with regional compilation
=============================================

Compile one repeated layer instead of the whole model: the first training step waits for one layer's compilation only.

**What you will learn**

- how large the graph of a whole model is, and how small that of its repeated layer;
- how to measure a cold start without charging one variant for another's start-up;
- what the shorter cold start costs in steady state, and three ways to say "region".

**What you need:** PyTorch 2.11 or later. The page runs on a GPU if there is one, else on the CPU.
"""

import statistics
import time

import matplotlib.pyplot as plt
import torch
from tabulate import tabulate
from torch._dynamo.utils import counters
from torch._inductor.utils import fresh_cache
from torch.utils import benchmark

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
depth, width, batch = 64, 10, 10
print(f"torch {torch.__version__} on {device}")

# %%
# The model
# ---------
#
# 64 layers of the same class stand behind one plain linear layer. The layers are small on purpose: here we look at the
# time to compile, which depends on the number of operators and hardly on their size.


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear1 = torch.nn.Linear(width, width)
        self.relu1 = torch.nn.ReLU()
        self.sigmoid = torch.nn.Sigmoid()
        self.linear2 = torch.nn.Linear(width, width)
        self.relu2 = torch.nn.ReLU()

    def forward(self, x):
        x = self.sigmoid(self.relu1(self.linear1(x)))
        return self.relu2(self.linear2(x))


class Model(torch.nn.Module):
    def __init__(self, layer_class=Layer):
        super().__init__()
        # Without this plain layer, the input of the first repeated layer would not
        # require a gradient and the inputs of the others would: two graphs, not one.
        self.linear = torch.nn.Linear(width, width)
        self.layers = torch.nn.ModuleList(layer_class() for _ in range(depth))

    def forward(self, x):
        x = self.linear(x)
        for layer in self.layers:
            x = layer(x)
        return x


x = torch.randn(batch, width, device=device)
eager_model = Model().to(device)
print(
    f"{depth} layers, {sum(p.numel() for p in eager_model.parameters()):,} parameters"
)

# %%
# Full compilation: one large graph
# ---------------------------------
#
# ``torch.compile(model)`` follows the calls into every layer and captures all of them. The backend ``"eager"`` captures
# the graph and compiles nothing, so this is quick. The counters are TorchDynamo's own.


def captured(call):
    """Number of graphs and of operators that TorchDynamo captures during `call`."""
    torch.compiler.reset()
    counters.clear()
    call()
    stats = counters["stats"]
    return stats["unique_graphs"], stats["calls_captured"]


full_graphs, full_operators = captured(
    lambda: torch.compile(eager_model, backend="eager")(x)
)
print(f"full: {full_graphs} graph of {full_operators} operators")
assert full_graphs == 1, "full compilation captures one graph"
assert full_operators == 5 * depth + 1, "the graph holds the operators of all layers"

# %%
# Regional compilation: one small graph, used 64 times
# ----------------------------------------------------
#
# Now each layer is compiled on its own. All layers share the code of ``Layer.forward``, and their parameters enter the
# graph as inputs. So the graph of the first layer serves the other 63. We do not take this on trust: under the stance
# ``"fail_on_recompile"`` any recompilation is an error.


def run_regionally():
    compiled_layers = [
        torch.compile(layer, backend="eager") for layer in eager_model.layers
    ]
    hidden = compiled_layers[0](eager_model.linear(x))
    with torch.compiler.set_stance("fail_on_recompile"):
        for layer in compiled_layers[1:]:
            hidden = layer(hidden)


regional_graphs, regional_operators = captured(run_regionally)
recompilations = regional_graphs - 1
print(f"regional: {regional_graphs} graph of {regional_operators} operators")
print(f"recompilations in the other {depth - 1} layers: {recompilations}")
assert regional_graphs == 1, "regional compilation captures one graph for all layers"
assert regional_operators == 5, "that graph holds the operators of one layer"

# %%
# Three ways to say "region"
# --------------------------
#
# - **wrapped**: replace each layer by ``torch.compile(layer)``;
# - **in place**: call ``layer.compile()``, which keeps the module object;
# - **nested**: mark the layer's ``forward`` with ``torch.compiler.nested_compile_region``, then compile the whole
#   model. TorchDynamo still traces all layers into one graph, in which the layer is a subgraph that all of them share.
#   So expect a first step between the other two.


class NestedLayer(Layer):
    @torch.compiler.nested_compile_region
    def forward(self, x):
        return super().forward(x)


def full():
    return torch.compile(Model().to(device))


def wrapped():
    model = Model().to(device)
    model.layers = torch.nn.ModuleList(torch.compile(layer) for layer in model.layers)
    return model


def in_place():
    model = Model().to(device)
    for layer in model.layers:
        layer.compile()
    return model


def nested():
    return torch.compile(Model(NestedLayer).to(device))


# %%
# Measuring a cold start
# ----------------------
#
# Two things spoil this measurement on most pages about it.
#
# - **Start-up.** The first compilation in a process also pays for what every later one finds ready: imports, worker
#   processes, and on the CPU a precompiled C++ header. Whoever is measured first looks slow. So we compile something
#   else first, and print what that took.
# - **Caches.** Compiled code stays in memory and on disk. ``torch.compiler.reset()`` clears the memory,
#   ``fresh_cache()`` gives the block an empty folder on disk.
#
# A *cold* start has neither. A *warm* start finds the disk cache of an earlier process, and we imitate it by clearing
# the memory only. We time the first training step, forward and backward: the backward pass is compiled too, and in
# training the entry that a warm start needs is written only after both.


def forward_and_backward(model):
    """One training step without the optimizer."""
    model(x).sum().backward()


def first_step_s(model):
    """Seconds for the next step of `model`, which compiles it."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    forward_and_backward(model)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def cold_and_warm_s(make_model):
    """Seconds of the first step with empty caches, then with a filled disk cache."""
    torch.compiler.reset()
    with fresh_cache():
        model = make_model()
        cold = first_step_s(model)
        torch.compiler.reset()
        return cold, first_step_s(model)


with fresh_cache():
    something_else = torch.nn.Sequential(torch.nn.Linear(width, 7), torch.nn.Tanh())
    start_up_s = first_step_s(torch.compile(something_else.to(device)))
print(f"start-up, paid once and charged to nobody: {start_up_s:.1f} s")

# %%
# Regional is measured before and after full, so that the order cannot decide.

cold_s, warm_s = {}, {}
for label, make_model in [
    ("regional, wrapped", wrapped),
    ("full", full),
    ("regional, wrapped, again", wrapped),
    ("regional, in place", in_place),
    ("regional, nested", nested),
]:
    cold_s[label], warm_s[label] = cold_and_warm_s(make_model)

print(
    tabulate(
        [[label, cold_s[label], warm_s[label]] for label in cold_s],
        headers=["first step", "cold, s", "warm disk, s"],
        floatfmt=".2f",
    )
)

regional_cold_s = statistics.mean(
    [cold_s["regional, wrapped"], cold_s["regional, wrapped, again"]]
)
speedup = cold_s["full"] / regional_cold_s
slower_regional_s = max(cold_s["regional, wrapped"], cold_s["regional, wrapped, again"])
assert slower_regional_s < cold_s["full"], (
    "a regional cold start is shorter than a full one"
)
with_start_up = (start_up_s + cold_s["full"]) / (start_up_s + regional_cold_s)
print(f"\nWith compiled layers, a cold start is {speedup:.1f} times shorter than full.")
print(
    f"With the start-up above added to both, it is {with_start_up:.1f} times shorter."
)

# %%
# The same as a picture. The disk cache holds compiled code. TorchDynamo must still trace the model in each new process,
# and check that the stored code fits: for 64 layers that takes longer than for one.

labels = [label for label in cold_s if not label.endswith("again")]
positions = range(len(labels))
figure, axes = plt.subplots(figsize=(5.5, 3), layout="constrained")
axes.barh([p - 0.2 for p in positions], [cold_s[n] for n in labels], 0.4, label="cold")
axes.barh(
    [p + 0.2 for p in positions],
    [warm_s[n] for n in labels],
    0.4,
    label="warm disk cache",
)
axes.set_yticks(positions, labels)
axes.invert_yaxis()
axes.set_xlabel("seconds of the first step")
axes.set_title(f"First step of {depth} layers: cold and warm, {device}")
axes.legend()
plt.show()

# %%
# The price: steady state
# -----------------------
#
# *Steady state* is the time of a step after compilation. One large graph lets the compiler work across layers, and
# Python enters compiled code once instead of 64 times. Each entry checks its guards and passes through PyTorch's
# wrapper for gradients. For layers as small as these that can cost more than the compiled code saves. So a regional
# step may be slower than a full one, and even slower than an eager one. In the last column of the table, below 1 is
# slower than eager mode.
#
# All variants get the same weights and the same input. Their outputs and gradients are compared with eager mode first,
# then forward and backward are timed together. The variants are timed in turns: if the machine is slow for some
# seconds, it is slow for all of them.


def compiled_variant(make_model):
    """A variant of the model with the weights of `eager_model`, already compiled."""
    model = make_model()
    # The order of the parameters is the same in every variant; their names are not.
    for mine, theirs in zip(model.parameters(), eager_model.parameters(), strict=True):
        mine.data.copy_(theirs.data)
    torch.testing.assert_close(model(x), eager_model(x))
    forward_and_backward(model)
    for mine, theirs in zip(model.parameters(), eager_model.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
    return model


def step_timer(model):
    return benchmark.Timer(
        "step(model)",
        globals={"step": forward_and_backward, "model": model},
        # The timer uses one thread unless we say otherwise.
        num_threads=torch.get_num_threads(),
    )


def in_turns_ms(models):
    """Milliseconds of a step of each model: median and interquartile range."""
    timers = [step_timer(model) for model in models]
    turns = [[t.blocked_autorange(min_run_time=0.2) for t in timers] for _ in range(5)]
    merged = [benchmark.Measurement.merge(each)[0] for each in zip(*turns, strict=True)]
    return [(m.median * 1e3, m.iqr * 1e3) for m in merged]


torch.compiler.reset()
forward_and_backward(eager_model)
variants = {
    "eager": eager_model,
    "full": compiled_variant(full),
    "regional, wrapped": compiled_variant(wrapped),
    "regional, in place": compiled_variant(in_place),
    "regional, nested": compiled_variant(nested),
}
steady_ms = dict(zip(variants, in_turns_ms(variants.values()), strict=True))
print("outputs and gradients of all variants agree with eager mode\n")
print(
    tabulate(
        [
            [n, median, iqr, steady_ms["eager"][0] / median]
            for n, (median, iqr) in steady_ms.items()
        ],
        headers=["step", "median, ms", "IQR, ms", "eager ÷ this"],
        floatfmt=".3f",
    )
)

# %%
# Compare a difference between two rows with their interquartile ranges (IQR). "Wrapped" and "in place" run the same
# compiled code, so a small difference between them is noise.
#
# What each way does to names and hooks
# -------------------------------------
#
# A checkpoint needs stable names, and many tools add *forward hooks*, functions that PyTorch calls after a module's
# ``forward``, to a model that is already compiled. We check whether the names are those of the plain model, so that its
# checkpoint loads. Then we add a hook to one layer and call the model twice.


def inspect_variant(model):
    """First layer's parameter name, whether all names are plain, calls of a late hook."""
    name = next(key for key in model.state_dict() if "layers.0" in key)
    plain = model.state_dict().keys() == eager_model.state_dict().keys()
    fired = []
    inner = getattr(model, "_orig_mod", model)
    handle = inner.layers[0].register_forward_hook(lambda *_: fired.append(1))
    model(x)
    model(x)
    handle.remove()
    return [name, "yes" if plain else "no", f"{len(fired)} of 2"]


inspected = {label: inspect_variant(model) for label, model in variants.items()}
print(
    tabulate(
        [[label, *row] for label, row in inspected.items()],
        headers=[
            "way",
            "name in state_dict",
            "names as in the plain model",
            "late hook fires",
        ],
    )
)
assert inspected["regional, in place"][1:] == inspected["eager"][1:], (
    "layer.compile() keeps names, and hooks that are added later"
)

# %%
# A hook that does not fire raises no error. The graph of the whole model was captured before the hook existed, and for
# speed TorchDynamo does not check for new hooks. Add hooks before the first call. If you compile layers, a late hook on
# a whole layer fires, as the table shows. Do not rely on a late hook on a module inside a compiled layer: TorchDynamo
# does not check for it either.
#
# What this run showed
# --------------------
#
# ``metrics`` are what this site records of a run. ``claims`` are sentences that another machine may refute, each with
# whether it was true here.

metrics = {
    "start_up_s": start_up_s,
    "full_cold_start_s": cold_s["full"],
    "regional_cold_start_s": regional_cold_s,
    "in_place_cold_start_s": cold_s["regional, in place"],
    "nested_cold_start_s": cold_s["regional, nested"],
    "cold_start_speedup_x": speedup,
    "full_warm_start_s": warm_s["full"],
    "regional_warm_start_s": warm_s["regional, wrapped"],
    "nested_warm_start_s": warm_s["regional, nested"],
    "recompilations_count": recompilations,
    "full_operators_count": full_operators,
    "regional_operators_count": regional_operators,
}
for key, label in [
    ("eager", "eager"),
    ("full", "full"),
    ("regional", "regional, wrapped"),
    ("nested", "regional, nested"),
]:
    metrics[f"{key}_ms"], metrics[f"{key}_iqr_ms"] = steady_ms[label]
for key in ("full", "regional", "nested"):
    metrics[f"{key}_step_speedup_x"] = metrics["eager_ms"] / metrics[f"{key}_ms"]

slower = metrics["regional_ms"] / metrics["full_ms"]
claims = {
    "in steady state, full compilation is faster than regional": slower > 1,
    "in steady state, regional compilation is faster than eager": metrics["regional_ms"]
    < metrics["eager_ms"],
    "a nested region starts faster than full compilation": cold_s["regional, nested"]
    < cold_s["full"],
}

print(
    f"cold start: full {metrics['full_cold_start_s']:.1f} s, "
    f"regional {metrics['regional_cold_start_s']:.1f} s ({speedup:.1f} times shorter)"
)
print(
    f"steady state: a regional step takes {slower:.2f} times as long as a full one "
    f"({metrics['regional_ms']:.2f} and {metrics['full_ms']:.2f} ms)"
)
if slower > 1:
    lost_ms = metrics["regional_ms"] - metrics["full_ms"]
    saved_s = metrics["full_cold_start_s"] - metrics["regional_cold_start_s"]
    print(f"full compilation has caught up after {saved_s / lost_ms * 1e3:,.0f} steps")
if metrics["regional_ms"] > metrics["eager_ms"]:
    print("a regional step is slower than an eager one: it never repays its start")
if metrics["nested_ms"] < metrics["regional_ms"]:
    print(
        f"nested: starts in {metrics['nested_cold_start_s']:.1f} s, and its step is "
        f"{metrics['regional_ms'] / metrics['nested_ms']:.2f} times as fast as a regional one"
    )
for sentence, held in claims.items():
    print(f"{'held here' if held else 'did not hold here'}: {sentence}")

# %%
# **Which one?**
#
# - **Full**, for long runs: more steps than the printed number after which full compilation has caught up.
# - **In place**, for large layers, where 64 entries into compiled code cost little. Names and hooks stay as they are.
# - **Nested**, for a start between the two and one large graph in steady state. Names get a prefix, and hooks that are
#   added later do not fire.
#
# The layers here are tiny, so a large part of each step is spent between them. Measure with your own layers before you
# decide: the page on Hugging Face Accelerate does, with larger ones.
#
# **When not to do this.** A model without repeated layers gains nothing. If a regional step is slower than an eager
# one, do not compile this way.
#
# Measured by others: the `PyTorch recipe on regional compilation
# <https://docs.pytorch.org/tutorials/recipes/regional_compilation.html>`_ reported 24.70 s for full and 1.70 s for
# regional compilation of a model of this shape, forward pass only, on a GPU that it does not name.
