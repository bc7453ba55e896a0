# /// script
# requires-python = ">=3.11"
# dependencies = ["torch>=2.11", "safetensors>=0.4", "accelerate>=1.15", "matplotlib>=3.8", "numpy>=2", "tabulate>=0.9"]
#
# [tool.recipe]
# order = 60
# tags = ["training", "cold start"]
# see_also = ["regional_compilation", "fabric_compile"]
# time_limit_s = 600
# # Where a kernel has no ipywidgets; the float32 model of the training loop, on a GPU with torch 2.11.
# expected_warnings = ["TqdmWarning", "TensorFloat32 tensor cores"]
#
# [tool.recipe.metrics]
# full_cold_start_s = "first forward pass of the larger model, no gradients, whole model compiled, empty caches"
# regional_cold_start_s = "first forward pass of the larger model, no gradients, each part compiled, empty caches"
# cold_start_speedup_x = "cold start of the whole model ÷ cold start with each part compiled"
# full_first_training_step_s = "first training step of the larger model, whole model compiled, empty caches"
# regional_first_training_step_s = "first training step of the larger model, each part compiled, empty caches"
# eager_ms = "one forward pass of the larger model, no gradients, eager mode, median"
# full_ms = "one forward pass of the larger model, no gradients, whole model compiled, median"
# regional_ms = "one forward pass of the larger model, no gradients, each part compiled, median"
# claims_count = "findings of the Accelerate guide that this page tests"
# claims_held_count = "how many of them held here, by this page's own limits"
# ///
"""
Compiling with Hugging Face Accelerate
======================================

Accelerate compiles a whole model or only its repeated blocks; this page tests five published claims about the choice.

**What you will learn**

- how to ask Accelerate for compilation, and what silently leaves a model uncompiled, or recompiling;
- what regional compilation compiles, and what happens when a model has no repeated blocks;
- how full and regional compilation compare, over model size and batch size;
- how to train, save and launch with it.

**What you need:** PyTorch 2.11 or later and Accelerate 1.15 or later: the versions 1.7 to 1.14 left a model uncompiled
under mixed precision and regional compilation. The page runs on a GPU if there is one, else on the CPU.
"""

import copy
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import accelerate
import matplotlib.pyplot as plt
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import TorchDynamoPlugin
from safetensors.torch import load_file
from tabulate import tabulate
from torch._dynamo.utils import counters
from torch._inductor.utils import fresh_cache
from torch.nn import functional as F
from torch.utils import benchmark

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
if device == "cuda":
    # (width, number of blocks) of a small and a large model
    sizes, dtype, tolerance = [(1024, 12), (2048, 16)], torch.bfloat16, 0.05
else:
    sizes, dtype, tolerance = [(128, 4), (256, 24)], torch.float32, 1e-4
batches, sequence, vocabulary = [1, 4], 128, 1000
print(f"torch {torch.__version__}, accelerate {accelerate.__version__}, on {device}")

# %%
# The model
# ---------
#
# A small language model: an embedding, a stack of equal transformer blocks in an ``nn.ModuleList``, and a head.


class Block(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm1 = torch.nn.RMSNorm(width)
        self.qkv = torch.nn.Linear(width, 3 * width, bias=False)
        self.out = torch.nn.Linear(width, width, bias=False)
        self.norm2 = torch.nn.RMSNorm(width)
        self.gate = torch.nn.Linear(width, 3 * width, bias=False)
        self.up = torch.nn.Linear(width, 3 * width, bias=False)
        self.down = torch.nn.Linear(3 * width, width, bias=False)

    def forward(self, x):
        heads = 4
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, heads, -1)).unbind(-3)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        hidden = self.norm2(x)
        return x + self.down(F.silu(self.gate(hidden)) * self.up(hidden))


class LanguageModel(torch.nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.embed = torch.nn.Embedding(vocabulary, width)
        self.blocks = torch.nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = torch.nn.RMSNorm(width)
        self.head = torch.nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def make_model(width, depth, dtype=dtype):
    """A model on the device; the same weights each time."""
    torch.manual_seed(0)
    with torch.device(device):
        return LanguageModel(width, depth).to(dtype)


def make_tokens(batch):
    return torch.randint(0, vocabulary, (batch, sequence), device=device)


small, tokens = make_model(*sizes[0]), make_tokens(2)
print(f"small model: {sum(p.numel() for p in small.parameters()):,} parameters")

# %%
# Ask for compilation
# -------------------
#
# At the first call TorchDynamo records the Python code of a model as a *graph*, and a *backend*, usually ``inductor``,
# turns the graph into fast code. This call is the *cold start*. A script asks for it with a plugin. ``backend``,
# ``mode``, ``fullgraph``, ``dynamic`` and ``options`` mean what they mean for ``torch.compile``.
# ``use_regional_compilation`` is Accelerate's own: without it, the whole model is compiled at once, which we call
# *full*.

plugin = TorchDynamoPlugin(backend="inductor", mode="default", fullgraph=True)
accelerator = Accelerator(dynamo_plugin=plugin)
prepared = accelerator.prepare(small)
print("prepared:", type(prepared).__name__)

again = accelerator.prepare(small)
print("prepared a second time:", type(again).__name__)
assert again is small, "prepared again after full compilation, a model is uncompiled"

later = Accelerator(dynamo_plugin=TorchDynamoPlugin(backend="no"))
print("second Accelerator, backend:", later.state.dynamo_plugin.backend.value)
assert later.state.dynamo_plugin.backend.value == "INDUCTOR", (
    "the plugin of a second Accelerator is ignored"
)

# %%
# The first line is what we want. The other two surprise people in a notebook, where cells run again. After full
# compilation the *original* model is marked as prepared: prepare it once more and it comes back *uncompiled*. And the
# accelerators of a process share one state: the *first* decides how to compile, and the plugin of a later one is
# ignored. For the comparisons below, ``accelerator_with`` clears that state each time, by a method that is private to
# Accelerate; you would restart the kernel.


def accelerator_with(**settings):
    """A new Accelerator that compiles as `settings` say."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(dynamo_plugin=TorchDynamoPlugin(**settings))


def graphs_captured(model):
    """How many graphs TorchDynamo captures in a call of `model`."""
    torch.compiler.reset()
    counters.clear()
    with torch.no_grad():
        model(tokens)
    return counters["stats"]["unique_graphs"]


# %%
# A trap: the backend is "no" until you name one
# ----------------------------------------------
#
# Regional compilation is switched on below. Nothing is compiled, and nothing is said, because the plugin's backend is
# ``"no"``, unless the environment variable ``ACCELERATE_DYNAMO_BACKEND`` names another. The backend ``"eager"``
# captures graphs and generates no code: enough to count, and quick.

rows = {}
for label, settings in {
    "use_regional_compilation=True": {"use_regional_compilation": True},
    'backend="eager"': {"backend": "eager"},
    "both": {"backend": "eager", "use_regional_compilation": True},
}.items():
    prepared = accelerator_with(**settings).prepare(make_model(*sizes[0]))
    rows[label] = graphs_captured(prepared)
print(tabulate(rows.items(), headers=["settings", "graphs"]))
assert rows["use_regional_compilation=True"] == 0, "without a backend, no compilation"
assert rows['backend="eager"'] == 1, "the whole model is one graph"
assert rows["both"] == 4, "embedding, block, norm and head are a graph each"

# %%
# What is compiled
# ----------------
#
# ``use_regional_compilation`` looks for an ``nn.ModuleList`` whose entries are all of one class, and compiles each
# entry. The graph of the first block serves all of them. Each module beside the list is compiled on its own. The code
# in the model's own ``forward`` is not compiled.

regional = accelerator_with(backend="eager", use_regional_compilation=True)
for name, child in regional.prepare(make_model(*sizes[0])).named_children():
    print(f"{name}: {type(child).__name__}", end="")
    print(f" of {len(child)} {type(child[0]).__name__}" if name == "blocks" else "")

# %%
# The same blocks in an ``nn.Sequential`` are not found. Then Accelerate compiles the whole model, without a word: the
# result is right, and the cold start is the long one.

stack = torch.nn.Sequential(small.embed, *small.blocks, small.norm, small.head)
prepared_stack = regional.prepare(stack)
print("nn.Sequential:", type(prepared_stack).__name__)
print("graphs:", graphs_captured(prepared_stack))
assert isinstance(prepared_stack, torch._dynamo.OptimizedModule), (
    "without a ModuleList the whole model is compiled"
)

# %%
# Under mixed precision the blocks are compiled too.

AcceleratorState._reset_state(reset_partial_state=True)
mixed = Accelerator(
    mixed_precision="bf16",
    dynamo_plugin=TorchDynamoPlugin(backend="eager", use_regional_compilation=True),
)
mixed_graphs = graphs_captured(mixed.prepare(make_model(*sizes[0])))
print(f"mixed precision, graphs: {mixed_graphs}")
assert mixed_graphs >= 4, "regional compilation works under mixed precision"

# %%
# Full against regional
# ---------------------
#
# For two models and two batch sizes we measure the cold start, which is the first call with an empty disk cache, and
# the steady state, without gradients. Before that we compile a tiny model, so that the start-up of the compiler in this
# process is not counted in a first call. The steady states of the three are timed in turns: if the machine is slow for
# some seconds, it is slow for all. (The published benchmark kept gradients on.) "Error" is the relative difference to
# the eager outputs, as a norm.


def clock():
    """Seconds, after the device has finished its work."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(call):
    start = clock()
    call()
    return clock() - start


def in_turns_ms(calls):
    """Milliseconds of each call: median and interquartile range, which is the spread."""
    # The timer uses one thread unless we say otherwise.
    timers = [
        benchmark.Timer(
            "call()", globals={"call": call}, num_threads=torch.get_num_threads()
        )
        for call in calls
    ]
    turns = [[t.blocked_autorange(min_run_time=0.4) for t in timers] for _ in range(5)]
    merged = [benchmark.Measurement.merge(each)[0] for each in zip(*turns, strict=True)]
    return [(m.median * 1e3, m.iqr * 1e3) for m in merged]


ways = {
    "full": {"backend": "inductor"},
    "regional": {"backend": "inductor", "use_regional_compilation": True},
}
graph_counts = {"full": 1, "regional": 4}  # As counted above.


def measure(size, tokens):
    """Of each way: cold start in s, steady state in ms with its IQR, relative error."""
    torch.compiler.reset()
    model = make_model(*size)
    calls, cold_s, errors = {"eager": partial(model, tokens)}, {}, {}
    want = model(tokens)
    for way, options in ways.items():
        # A copy each: a model that was prepared before comes back uncompiled.
        before = counters["stats"]["unique_graphs"]
        prepared = accelerator_with(**options).prepare(copy.deepcopy(model))
        calls[way] = partial(prepared, tokens)
        with fresh_cache():
            cold_s[way] = seconds(calls[way])
        captured = counters["stats"]["unique_graphs"] - before
        assert captured == graph_counts[way], "what is timed is compiled"
        error = (prepared(tokens) - want).norm() / want.norm()
        assert error < tolerance, "compiled and eager outputs are close"
        errors[way] = error.item()
    steady = dict(zip(calls, in_turns_ms(calls.values()), strict=True))
    return {n: (cold_s.get(n), *steady[n], errors.get(n)) for n in calls}


measured = {}
with torch.no_grad():
    with fresh_cache():
        other = accelerator_with(backend="inductor").prepare(make_model(64, 1))
        start_up_s = seconds(partial(other, tokens))
    for width, depth in sizes:
        for batch in batches:
            case = (f"{depth} blocks of {width}", batch)
            measured[case] = measure((width, depth), make_tokens(batch))
print(f"first compilation of this process, a tiny model: {start_up_s:.1f} s\n")
print(
    tabulate(
        [
            [*case, way, *m]
            for case, cells in measured.items()
            for way, m in cells.items()
        ],
        headers=["model", "batch", "", "cold, s", "ms", "IQR, ms", "error"],
        floatfmt=("", "", "", ".1f", ".2f", ".2f", ".0e"),
    )
)

# %%
# A new process also pays for the start-up in the first line, whichever way you choose. Add it to both cold starts: the
# share that regional compilation saves is then smaller. The picture has the cold start above, the steady state below.

figure, (upper, lower) = plt.subplots(2, figsize=(5.5, 6), layout="constrained")
labels = [f"{name},\nbatch {batch}" for name, batch in measured]
places = torch.arange(len(labels))
for axes, column, shown in [
    (upper, 0, ["full", "regional"]),
    (lower, 1, ["eager", *ways]),
]:
    for number, way in enumerate(shown):
        values = [cells[way][column] for cells in measured.values()]
        color = {"eager": "tab:gray", "full": "tab:blue", "regional": "tab:orange"}[way]
        high = 0.8 / len(shown)
        axes.barh(places + number * high, values, high, color=color, label=way)
    axes.set_yticks(places + 0.4 - high / 2, labels)
    axes.invert_yaxis()
upper.set_xlabel("cold start, s")
lower.set_xlabel("steady state, ms")
figure.suptitle(f"Full and regional compilation of a language model, {device}")
figure.legend(*lower.get_legend_handles_labels(), loc="outside lower center", ncols=3)
plt.show()

# %%
# Train with it
# -------------
#
# A training loop needs no change but the plugin. We time the first training step of the larger model, full and
# regional. That step compiles the forward and the backward pass.


def first_training_step_s(way):
    torch.compiler.reset()
    accelerator = accelerator_with(**ways[way])
    model = make_model(*sizes[1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model, optimizer = accelerator.prepare(model, optimizer)

    def step():
        loss = F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
        accelerator.backward(loss)
        optimizer.step()

    with fresh_cache():
        return seconds(step)


tokens = make_tokens(batches[0])
first_step_s = {way: first_training_step_s(way) for way in ("full", "regional")}
for way, value in first_step_s.items():
    print(f"first training step, {way}: {value:.1f} s")

# %%
# Now the loop. The task is to repeat the input, so that the loss must fall quickly. The data loader drops the last,
# smaller batch: another size would compile again.

torch.compiler.reset()
accelerator = accelerator_with(**ways["regional"])
plain = make_model(128, 4, torch.float32)
optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-3)
data = torch.utils.data.TensorDataset(make_tokens(122).cpu())
loader = torch.utils.data.DataLoader(data, batch_size=8, drop_last=True)
model, optimizer, loader = accelerator.prepare(plain, optimizer, loader)

losses = []
for _ in range(2):
    for (tokens,) in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
        accelerator.backward(loss)
        optimizer.step()
        losses.append(loss.item())
print(f"{len(losses)} steps, loss {losses[0]:.2f} → {losses[-1]:.2f}")
assert losses[-1] < losses[0] / 2, "the model learns"

# %%
# Save and load
# -------------
#
# The prepared model shares its weights with the model that you gave. It is another object, and the compiler's
# ``_orig_mod`` is in its names. A checkpoint has these names too, even one from ``accelerator.save_model``, so a plain
# model cannot load it. ``unwrap_model`` keeps the compiled parts by default: pass ``keep_torch_compile=False``.

unwrapped = accelerator.unwrap_model(model, keep_torch_compile=False)
with tempfile.TemporaryDirectory() as folder:
    for label, saved in [("as it is", model), ("unwrapped", unwrapped)]:
        accelerator.save_model(saved, folder)
        weights = load_file(Path(folder, "model.safetensors"))
        print(f"{label}: {sorted(weights)[0]}")
        fresh = make_model(128, 4, torch.float32)
        try:
            fresh.load_state_dict({k: v.to(device) for k, v in weights.items()})
            loaded = True
        except RuntimeError as error:
            loaded = False
            print(f"  {type(error).__name__}: {str(error).splitlines()[0]}")
        assert loaded == (label == "unwrapped")
with torch.no_grad():
    torch.testing.assert_close(fresh(tokens), unwrapped(tokens))
print("the reloaded model gives the same outputs")

# %%
# Launch with settings from outside
# ---------------------------------
#
# A script can leave the settings to ``accelerate launch``: to a file that ``accelerate config`` writes, to arguments
# such as ``--dynamo_use_regional_compilation``, or to environment variables. This script prints what it got, how often
# the blocks recompile when the batch size changes twice, and how many graphs a plain ``nn.Sequential`` gives.

script = """
import torch
from accelerate import Accelerator
from torch._dynamo.utils import counters


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(x).relu()


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList([Block(), Block()])

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def graphs(model, batches):
    counters.clear()
    model = accelerator.prepare(model)
    with torch.no_grad():
        for batch in batches:
            model(torch.ones(batch, 4, device=accelerator.device))
    names = [type(module).__name__ for module in model.modules()]
    return " > ".join(names[:4]), counters["stats"]["unique_graphs"]


accelerator = Accelerator()
plugin = accelerator.state.dynamo_plugin
names, blocks = graphs(Net(), (8, 4, 2))
_, plain = graphs(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()), (8,))
text = (
    f"[rank {accelerator.process_index}] {plugin.backend.value}, dynamic={plugin.dynamic}"
    f"\\n  {names}\\n  {blocks - 1} recompilations; nn.Sequential: {plain} graphs"
)
for rank in range(accelerator.num_processes):  # One rank after the other.
    if rank == accelerator.process_index:
        print(text, flush=True)
    accelerator.wait_for_everyone()
"""
configuration = """
compute_environment: LOCAL_MACHINE
distributed_type: "NO"
num_processes: 1
use_cpu: true
dynamo_config:
  dynamo_backend: EAGER
  dynamo_use_regional_compilation: true
"""


def launch(title, *command, **environment):
    """Run the script in processes of its own, and return what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "train.py").write_text(script)
        Path(folder, "config.yaml").write_text(configuration)
        done = subprocess.run(
            [sys.executable, *command, "train.py"],
            cwd=folder,
            # Accelerate's barrier would use the second GPU even with use_cpu.
            env=os.environ
            | {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
            | environment,
            capture_output=True,
            text=True,
        )
    print(f"{title}\n{done.stdout}")
    assert done.returncode == 0, done.stderr
    return done.stdout


settings = {
    "ACCELERATE_DYNAMO_BACKEND": "eager",
    "ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION": "true",
}
variables = " ".join(f"{name}={value}" for name, value in settings.items())

by_variable = launch(f"{variables} python train.py", **settings)
accelerate_launch = ["-m", "accelerate.commands.launch", "--config_file", "config.yaml"]
by_file = launch(
    "accelerate launch --config_file config.yaml train.py", *accelerate_launch
)
by_argument = launch(
    "accelerate launch --config_file config.yaml --dynamo_use_dynamic train.py",
    *[*accelerate_launch, "--dynamo_use_dynamic"],
)
by_torchrun = launch(
    f"{variables} torchrun --nproc-per-node 2 train.py",
    *["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    **settings,
    OMP_NUM_THREADS="1",
)
assert "dynamic=None" in by_variable and "1 recompilations" in by_variable
assert "dynamic=False" in by_file and "2 recompilations" in by_file, (
    "accelerate launch turns dynamic shapes off unless it is told otherwise"
)
assert "dynamic=True" in by_argument and "0 recompilations" in by_argument
assert "nn.Sequential: 1 graphs" in by_file
assert by_torchrun.count("nn.Sequential: 0 graphs") == 2, (
    "inside DDP, a plain nn.Sequential is not compiled"
)

# %%
# - **Dynamic shapes.** A plain Python run leaves ``dynamic`` at ``None``: PyTorch compiles for one size, and on the
#   first other size once more, for all larger than 1. ``accelerate launch`` sets it to ``False`` unless you ask
#   otherwise, even when your script has a plugin that leaves it open. Then *every* new size recompiles, also a last,
#   smaller batch. Ask for ``--dynamo_use_dynamic`` where sizes change.
# - **Two processes.** Each rank compiles for itself. Regional compilation finds the blocks inside DDP's wrapper.
# - **A plain nn.Sequential inside DDP** is not compiled at all, and nothing says so. TorchDynamo handles it when it is
#   the model itself, as in the first three runs. Behind DDP it does not look into PyTorch's own classes. Write a class
#   of your own.
#
# Five findings, tested
# ---------------------
#
# The `Accelerate guide <https://huggingface.co/docs/accelerate/usage_guides/compilation>`_ gives five findings from its
# own benchmarks, which keep gradients on. It does not give limits. Here are ours, and whether they held in this run,
# which measures the steady state without gradients:
#
# 1. *Comparable performance*: at the larger model, regional is at most a tenth slower than full.
# 2. *Faster compilation*: the regional cold start is shorter, in all four cases.
# 3. *Batch size*: full and regional differ less at the larger batch, at both models.
# 4. *Model size*: the larger model saves more seconds of cold start, at both batch sizes.
# 5. *Practical application*: the first training step of the larger model is shorter with regional compilation.

(small_name, few), (_, many), (large_name, _), _ = measured


def slower_x(name, batch):
    """Steady-state time of regional ÷ full."""
    cells = measured[name, batch]
    return cells["regional"][1] / cells["full"][1]


def saved_s(name, batch):
    cells = measured[name, batch]
    return cells["full"][0] - cells["regional"][0]


claims = {
    "comparable performance at the larger model": all(
        slower_x(large_name, batch) <= 1.1 for batch in batches
    ),
    "faster compilation, in all four cases": all(
        saved_s(*case) > 0 for case in measured
    ),
    "full and regional differ less at the larger batch": all(
        abs(slower_x(name, many) - 1) < abs(slower_x(name, few) - 1)
        for name in (small_name, large_name)
    ),
    "the larger model saves more seconds of cold start": all(
        saved_s(large_name, batch) > saved_s(small_name, batch) for batch in batches
    ),
    "a shorter first training step": first_step_s["regional"] < first_step_s["full"],
}
for sentence, held in claims.items():
    print(f"{'held here' if held else 'did not hold here'}: {sentence}")
for name, batch in measured:
    print(
        f"{name}, batch {batch}: regional ÷ full {slower_x(name, batch):.2f} in steady "
        f"state; saves {saved_s(name, batch):.1f} s of cold start"
    )
    lost_ms = measured[name, batch]["regional"][1] - measured[name, batch]["full"][1]
    if lost_ms > 0:
        calls = saved_s(name, batch) * 1e3 / lost_ms
        print(f"  full compilation has caught up after {calls:,.0f} calls")

# %%
# Where regional compilation is slower in steady state, it costs time in each call. A graph that ends at each block
# cannot fuse the end of one block with the start of the next, or plan memory for both, and each block checks its guards
# in Python. This page does not measure which of these it was. After the printed number of calls, full compilation wins.
#
# What this run showed
# --------------------
#
# ``metrics`` are what this site records of a run. They are those of the larger model at the smaller batch.

case = measured[large_name, few]
metrics = {
    "full_cold_start_s": case["full"][0],
    "regional_cold_start_s": case["regional"][0],
    "cold_start_speedup_x": case["full"][0] / case["regional"][0],
    "full_first_training_step_s": first_step_s["full"],
    "regional_first_training_step_s": first_step_s["regional"],
    "claims_held_count": sum(claims.values()),
    "claims_count": len(claims),
}
for way in ("eager", "full", "regional"):
    metrics[f"{way}_ms"], metrics[f"{way}_iqr_ms"] = case[way][1:3]

print(f"{metrics['claims_held_count']} of {metrics['claims_count']} findings held here")
print(
    f"cold start: full {metrics['full_cold_start_s']:.1f} s, "
    f"regional {metrics['regional_cold_start_s']:.1f} s"
)
for way in ("full", "regional"):
    ratio = metrics["eager_ms"] / metrics[f"{way}_ms"]
    word = "faster" if ratio > 1 else "slower"
    print(f"steady state, {way}: {max(ratio, 1 / ratio):.2f} times {word} than eager")

# %%
# **When not to do this.** A model whose blocks are not in an ``nn.ModuleList`` gains nothing from the regional setting.
# A service that starts rarely and runs for long may prefer the whole graph, if that is faster in its table.
#
# Measured by others, on a GPU that they do not name, fp16, 128 tokens, gradients on: the `benchmark of Accelerate
# <https://github.com/huggingface/accelerate/tree/main/benchmarks/torch.compile>`_ reports for Llama-3.2-1B at batch 1
# eager, full and regional 18.3, 6.3 and 9.7 ms, with 10.7 s and 1.95 s of compilation; for Llama-2-13B 45.5, 29.4 and
# 29.4 ms, with 23.1 s and 2.95 s, and at batch 4 100.4, 89.7 and 87.5 ms.
