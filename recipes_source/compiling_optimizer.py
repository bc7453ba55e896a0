# /// script
# requires-python = ">=3.11"
# dependencies = ["torch>=2.11", "matplotlib>=3.8", "numpy>=2", "tabulate>=0.9"]
#
# [tool.recipe]
# order = 40
# tags = ["optimizer", "recompilation"]
# see_also = ["fabric_compile"]
# time_limit_s = 600
# expected_warnings = ["Profiler record function"]
#
# [tool.recipe.metrics]
# eager_us = "one Adam step with PyTorch's default settings, median"
# foreach_us = "one Adam step with foreach=True, median"
# fused_us = "one Adam step with fused=True, PyTorch's own kernel, not compiled, median"
# compiled_us = "one compiled Adam step, median"
# speedup_x = "default step ÷ compiled step"
# fused_speedup_x = "default step ÷ fused step, which is not compiled"
# foreach_speedup_x = "default step ÷ foreach step, which is not compiled"
# own_us = "one step of an update written on this page, compiled, median"
# own_speedup_x = "default step ÷ the page's own update, compiled"
# floor_us = "estimated minimum: bytes that a step must move ÷ measured memory bandwidth"
# compiled_over_floor_x = "compiled step ÷ floor"
# recompilations_float_lr_count = "recompilations in five steps with other learning rates, each a float"
# recompilations_static_float_lr_count = "recompilations in five steps, learning rate a float, dynamic=False"
# recompilations_tensor_lr_count = "recompilations in five steps, learning rate a tensor"
# ///
"""
Compiling the optimizer step
============================

Put ``optimizer.step()`` into a compiled function, then compare it with PyTorch's own faster variants.

**What you will learn**

- how to compile an optimizer step, and what that saves beside PyTorch's own faster variants;
- why a float learning rate recompiles under a scheduler and a tensor does not;
- how far each variant is from the limit that memory bandwidth sets, and how to find the cause in generated code.

**What you need:** PyTorch 2.11 or later. On CUDA the compiler needs a GPU of compute capability 7.0 or later; with an
older one the page says so and uses the CPU.
"""

import copy
import itertools
from functools import partial

import matplotlib.pyplot as plt
import torch
from tabulate import tabulate
from torch._dynamo.utils import counters
from torch._inductor.utils import run_and_get_code
from torch.utils import benchmark

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
if device == "cuda" and torch.cuda.get_device_capability() < (7, 0):
    print(
        f"{torch.cuda.get_device_name()} has compute capability below 7.0: using the CPU"
    )
    device = "cpu"
depth, width = 10, 1024
print(f"torch {torch.__version__} on {device}")

# %%
# The model, and what is timed
# ----------------------------
#
# Ten linear layers without bias. The forward and backward pass run once, to fill the gradients. After that only
# ``optimizer.step()`` is timed: Adam reads the parameter ``p``, the gradient ``g`` and the two moments ``m`` and ``v``,
# and writes ``p``, ``m`` and ``v``.

model = torch.nn.Sequential(
    *[torch.nn.Linear(width, width, bias=False) for _ in range(depth)]
).to(device)
model(torch.rand(width, device=device)).sum().backward()

parameter_count = sum(p.numel() for p in model.parameters())
parameter_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
print(f"{parameter_count:,} parameters, {parameter_bytes / 2**20:.0f} MiB")

# %%
# Compiling the step
# ------------------
#
# The step goes into a function of its own, and that function is compiled. ``fullgraph=False`` is the default: a step
# may contain parts that cannot be captured. Every variant below gets a copy of the model, so that none trains on
# another's results.
#
# The warning below concerns a label that the optimizer leaves for the profiler. The compiled step leaves it out.


def copy_with_gradients(source):
    """A copy of a model that has the same gradients."""
    other = copy.deepcopy(source)
    for mine, theirs in zip(other.parameters(), source.parameters(), strict=True):
        mine.grad = theirs.grad.clone()
    return other


def make_step(compiled=False, **options):
    """A model's copy, its Adam, and a function that makes one step."""
    other = copy_with_gradients(model)
    optimizer = torch.optim.Adam(other.parameters(), lr=0.01, **options)

    def step():
        optimizer.step()

    if compiled:
        step = torch.compile(step, fullgraph=False)
    return other, optimizer, step


variants = {
    "eager": make_step(),
    "foreach=True": make_step(foreach=True),
    "fused=True": make_step(fused=True),
    "compiled": make_step(compiled=True),
}
for _, _, step in variants.values():
    for _ in range(5):
        step()  # The first call of the compiled variant compiles; the others warm up.

# %%
# The update agrees within rounding
# ---------------------------------
#
# Each variant has made five steps from the same start with the same gradients. We compare the parameters and all of the
# optimizer's state: step count and both moments. The second moment holds very small numbers, so the state is compared
# with a relative tolerance only.

eager_model, eager_optimizer, _ = variants["eager"]
for label, (other, optimizer, _) in variants.items():
    for mine, theirs in zip(other.parameters(), eager_model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
        for key, value in eager_optimizer.state[theirs].items():
            torch.testing.assert_close(
                optimizer.state[mine][key].cpu(), value.cpu(), rtol=1e-4, atol=0
            )
    print(f"{label}: parameters and state agree with eager after five steps")

# %%
# What is in the loop?
# --------------------
#
# Adam divides by corrections that depend on the number of steps, such as ``1 - 0.9 ** step``. In eager mode Python
# computes them as plain numbers: in each step, once for each parameter tensor. TorchDynamo traces the optimizer as with
# ``capturable=True``: there the number of steps is a tensor, and its powers are part of the graph. The compiler puts
# them into the loop over the parameters. We look for them in the generated code, which is C++ on a CPU and Triton on a
# GPU. ``pow`` is a power. Where it stands in the loop, it is computed again and again with the same result.

_, sources = run_and_get_code(variants["compiled"][2])
code = [line.strip() for source in sources for line in source.splitlines()]
powers = [line for line in code if "pow(" in line and not line.startswith("#")]
print(f"lines of generated code with a power: {len(powers)}; the first ones:")
print("\n".join(powers[:2]))

# %%
# So we also write the update ourselves, for comparison. It computes the two corrections once a step and hands them to
# compiled code as tensors. It is the same arithmetic, in another order. It also leaves out what an optimizer object
# does around the step, such as parameter groups and hooks. So the comparison below shows the effect of both together.
# The powers in the generated code are the likely main cause.


def make_own_step(lr=0.01, beta1=0.9, beta2=0.999, eps=1e-8):
    """A model's copy, and a function that makes one Adam step without an optimizer."""
    other = copy_with_gradients(model)
    parameters = list(other.parameters())
    gradients = [p.grad for p in parameters]
    means = [torch.zeros_like(p) for p in parameters]
    squares = [torch.zeros_like(p) for p in parameters]
    count = itertools.count(1)

    @torch.compile(fullgraph=True)
    @torch.no_grad()
    def update(parameters, gradients, means, squares, rate, correction):
        for p, g, m, v in zip(parameters, gradients, means, squares, strict=True):
            m.lerp_(g, 1 - beta1)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            p.sub_(rate * m / (v.sqrt() * correction + eps))

    def step():
        n = next(count)
        rate = torch.full((), lr / (1 - beta1**n), device=device)
        correction = torch.full((), (1 - beta2**n) ** -0.5, device=device)
        update(parameters, gradients, means, squares, rate, correction)

    return other, step


own_model, own_step = make_own_step()
for _ in range(5):
    own_step()
for mine, theirs in zip(own_model.parameters(), eager_model.parameters(), strict=True):
    torch.testing.assert_close(mine, theirs)
print("own update: parameters agree with eager after five steps")

# %%
# The floor: memory traffic
# -------------------------
#
# A step must move seven times the parameters' bytes: four read and three written. How fast memory moves on this machine
# is measured here, in two ways, and the faster counts: a copy, and an addition in place. A processor that copies may
# have to read the target too before it writes it: three transfers, where we count two. That explains a factor of up to
# 1.5 between the two. If the printed numbers differ by more, there is another cause too. This page does not look for
# it: it takes the faster one. The floor is an estimate. A step can be below it where part of the data stays in the
# processor's caches, or where it reads and writes in a better order.
#
# The copy, the addition and all steps are timed in turns: if other programs use the memory for some seconds, all are
# slow. The timer of PyTorch uses one thread unless we say otherwise, so we give it all that the process has.


def in_turns_us(calls):
    """Microseconds of each call: median and interquartile range."""
    timers = [
        benchmark.Timer(
            "call()", globals={"call": call}, num_threads=torch.get_num_threads()
        )
        for call in calls.values()
    ]
    turns = [[t.blocked_autorange(min_run_time=0.4) for t in timers] for _ in range(5)]
    merged = [benchmark.Measurement.merge(each)[0] for each in zip(*turns, strict=True)]
    return {
        n: (m.median * 1e6, m.iqr * 1e6) for n, m in zip(calls, merged, strict=True)
    }


source = torch.empty(parameter_bytes * 7 // 2 // 4, device=device).normal_()
target = torch.empty_like(source)
traffic = (
    2 * source.numel() * source.element_size()
)  # Each byte is read once and written once.
memory = {
    "target.copy_(source)": partial(target.copy_, source),
    "source.add_(1)": partial(source.add_, 1),
}
steps = {label: step for label, (_, _, step) in variants.items()}
steps["compiled, own update"] = own_step
times_us = in_turns_us(memory | steps)
bandwidths = {
    statement: traffic / times_us.pop(statement)[0] * 1e6 for statement in memory
}
for statement, bandwidth in bandwidths.items():
    print(f"{statement}: {bandwidth / 1e9:.1f} GB/s")
floor_us = 7 * parameter_bytes / max(bandwidths.values()) * 1e6
print(f"floor: {floor_us:.0f} µs a step")
del source, target, memory

# %%
# Five ways to make a step
# ------------------------
#
# - **eager**: what ``torch.optim.Adam(parameters)`` does by default. On CUDA the default is already ``foreach``.
# - **foreach=True**: the same arithmetic on lists of tensors, with fewer kernel launches. That helps on CUDA; a CPU may
#   be slower with it.
# - **fused=True**: one hand-written kernel for all. PyTorch does not compile it, and it may win.
# - **compiled**: the step of the default optimizer, compiled.
# - **compiled, own update**: the update above, with its corrections computed once a step.

eager_us = times_us["eager"][0]
print(
    tabulate(
        [
            [n, us, iqr, eager_us / us, us / floor_us]
            for n, (us, iqr) in times_us.items()
        ],
        headers=["variant", "median, µs", "IQR, µs", "eager ÷ this", "this ÷ floor"],
        floatfmt=("", ".0f", ".0f", ".2f", ".2f"),
    )
)
fastest = min(times_us, key=lambda label: times_us[label][0])
print(f"\nfastest here: {fastest}")
if fastest == "fused=True":
    print("It is not compiled: a hand-written kernel wins on this machine.")
if fastest == "compiled, own update":
    print("It is the update written on this page, compiled.")
own_x = times_us["compiled"][0] / times_us["compiled, own update"][0]
print(f"corrections once a step: {own_x:.2f} times as fast as corrections in the loop")

# %%
# The nearer a bar is to the dashed line, the less a better step can still gain.

labels = list(times_us)
figure, axes = plt.subplots(figsize=(5.5, 3), layout="constrained")
bars = axes.barh(
    labels,
    [times_us[n][0] for n in labels],
    xerr=[times_us[n][1] / 2 for n in labels],
    capsize=3,
)
axes.bar_label(
    bars, [f"{times_us[n][0] / floor_us:.2f} × floor" for n in labels], padding=8
)
axes.axvline(floor_us, color="tab:red", linestyle="--", label="memory-bandwidth floor")
axes.set_xlim(right=1.4 * max(us + iqr / 2 for us, iqr in times_us.values()))
axes.invert_yaxis()
axes.set_xlabel("µs a step; the whisker is the interquartile range (IQR)")
axes.set_title(f"Adam step of {parameter_count / 1e6:.0f} million parameters, {device}")
figure.legend(loc="outside lower center")
plt.show()

# %%
# A learning rate that changes
# ----------------------------
# A scheduler writes a new learning rate after each step. In the first graph a Python float is a constant, so its first
# change is a recompilation. By default the second graph takes the number as an input, and later changes are free. With
# ``dynamic=False`` each new value is a recompilation, up to a limit; after that the step runs uncompiled. A tensor is
# an input from the start: write ``lr=torch.tensor(0.01)``. With ``foreach=True``, Adam refuses a tensor unless it also
# has ``capturable=True``.
#
# The graphs are only captured here, not compiled (backend ``"eager"``), so that the counts come fast.

scheduled_steps = 5


def recompilations_under_a_scheduler(learning_rate, dynamic=None):
    """Recompilations of a compiled step during some steps under a scheduler."""
    torch.compiler.reset()
    counters.clear()
    other = copy_with_gradients(model)
    optimizer = torch.optim.Adam(other.parameters(), lr=learning_rate)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.9)

    @torch.compile(fullgraph=False, backend="eager", dynamic=dynamic)
    def step():
        optimizer.step()

    for _ in range(scheduled_steps):
        step()
        scheduler.step()
    return counters["stats"]["unique_graphs"] - 1


recompilations = {
    "float": recompilations_under_a_scheduler(0.01),
    "float, dynamic=False": recompilations_under_a_scheduler(0.01, dynamic=False),
    "tensor": recompilations_under_a_scheduler(torch.tensor(0.01)),
}
print(f"recompilations in {scheduled_steps} steps:")
print(tabulate(recompilations.items(), headers=["learning rate", "recompilations"]))
assert recompilations["tensor"] == 0, "a tensor learning rate never recompiles"
assert recompilations["float"] >= 1, "a float learning rate recompiles"
assert recompilations["float, dynamic=False"] == scheduled_steps - 1, (
    "with dynamic=False each new float is a recompilation"
)

# %%
# What this run showed
# --------------------
#
# ``metrics`` are what this site records of a run. ``claims`` are sentences that another machine may refute, each with
# whether it was true here.

metrics = {
    "speedup_x": eager_us / times_us["compiled"][0],
    "foreach_speedup_x": eager_us / times_us["foreach=True"][0],
    "own_speedup_x": eager_us / times_us["compiled, own update"][0],
    "fused_speedup_x": eager_us / times_us["fused=True"][0],
    "compiled_over_floor_x": times_us["compiled"][0] / floor_us,
    "floor_us": floor_us,
    "recompilations_float_lr_count": recompilations["float"],
    "recompilations_static_float_lr_count": recompilations["float, dynamic=False"],
    "recompilations_tensor_lr_count": recompilations["tensor"],
}
for key, label in [
    ("eager", "eager"),
    ("foreach", "foreach=True"),
    ("fused", "fused=True"),
    ("compiled", "compiled"),
    ("own", "compiled, own update"),
]:
    metrics[f"{key}_us"], metrics[f"{key}_iqr_us"] = times_us[label]


def clearly_faster(fast, slow):
    """Whether the medians differ by more than both spreads together."""
    spread = metrics[f"{fast}_iqr_us"] + metrics[f"{slow}_iqr_us"]
    return metrics[f"{slow}_us"] - metrics[f"{fast}_us"] > spread


claims = {
    "the compiled step is faster than the eager one, by more than the spread": (
        clearly_faster("compiled", "eager")
    ),
    "the compiled step is faster than the fused one, by more than the spread": (
        clearly_faster("compiled", "fused")
    ),
    "corrections computed once a step make the compiled step faster, by more than the spread": (
        clearly_faster("own", "compiled")
    ),
}
word = "faster" if metrics["speedup_x"] > 1 else "slower"
factor = max(metrics["speedup_x"], 1 / metrics["speedup_x"])
print(f"the compiled step is {factor:.2f} times {word} than the eager one")
print(
    f"it takes {metrics['compiled_over_floor_x']:.2f} times the memory-bandwidth floor"
)
print(f"fastest of all: {fastest}")
for sentence, held in claims.items():
    print(f"{'held here' if held else 'did not hold here'}: {sentence}")

# %%
# **When not to do this.** If ``fused=True`` exists for your optimizer, try it first: it needs no compilation. A
# compiled step is the way where no fused version exists. An update of your own must be tested against the optimizer
# that it replaces, as above. And if the step is a small part of your training time, look elsewhere.
#
# Measured by others: the `PyTorch recipe on compiling the optimizer
# <https://docs.pytorch.org/tutorials/recipes/compiling_optimizer.html>`_ reported 747.2 µs for the eager and 392.1 µs
# for the compiled step of a model of this shape, on a GPU that it does not name.
