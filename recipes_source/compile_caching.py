# /// script
# requires-python = ">=3.11"
# dependencies = ["torch>=2.11", "matplotlib>=3.8", "numpy>=2", "tabulate>=0.9"]
#
# [tool.recipe]
# order = 35
# tags = ["cold start", "inference"]
# see_also = ["regional_compilation", "changing_sizes"]
# time_limit_s = 600
# # On a GPU, torch 2.11 recommends TF32. Start-up is the subject here.
# expected_warnings = ["TensorFloat32 tensor cores"]
#
# [tool.recipe.metrics]
# cold_start_s = "until the first output, nothing in the cache folder"
# folder_start_s = "until the first output, with a copy of the filled cache folder"
# artifacts_start_s = "until the first output, saved artifacts loaded into an empty cache folder"
# package_start_s = "until the first output, exported package loaded, empty cache folder"
# eager_start_s = "until the first output in eager mode"
# next_start_s = "until the first output, cache folder filled by an earlier process, median of three"
# package_next_start_s = "until the first output, exported package loaded once more, median of three"
# next_start_speedup_x = "start with nothing in the cache folder ÷ start with a filled one"
# artifacts_start_speedup_x = "start with nothing in the cache folder ÷ start with loaded artifacts"
# package_start_speedup_x = "start with nothing in the cache folder ÷ start with the package"
# package_build_s = "export of the model and compilation into a package, once, cache folder filled"
# eager_ms = "one forward pass in eager mode, median"
# compiled_ms = "one forward pass, torch.compile, median"
# package_ms = "one forward pass, package, median"
# artifacts_bytes = "size of the saved artifacts"
# package_bytes = "size of the package, weights included"
# ///
"""
Start a process with code that is already compiled
==================================================

A new process can reuse what an earlier one compiled, also on another machine: this page times three ways to carry it.

**What you will learn**

- what ``torch.compile`` keeps on disk, and what makes it compile again;
- how to carry compiled code to another machine: the cache folder, saved artifacts, or an exported package;
- how long each takes until the first output, and which needs a compiler where it runs.

**What you need:** PyTorch 2.11 or later. The page runs on a GPU if there is one, else on the CPU.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from tabulate import tabulate
from torch._dynamo.utils import counters
from torch._inductor.utils import fresh_cache
from torch.nn import functional as F

device = "cuda" if torch.cuda.is_available() else "cpu"
print(f"torch {torch.__version__} on {device}")

# %%
# What finds its code again, and what does not
# --------------------------------------------
#
# Inductor, the default backend of ``torch.compile``, writes compiled code into a *cache folder* on disk, by default in
# the temporary folder. ``TORCHINDUCTOR_CACHE_DIR`` names another place. The key of an entry is a hash of the graph, of
# what the inputs look like, of the settings that matter to the code, of PyTorch's version and of the GPU. In newer
# versions of PyTorch, the number of CPU threads is in it too: the last line of the table shows whether it is in yours.
#
# Here, in one process, we empty the compiler's memory before each call. So each call looks on disk: a *hit* finds
# compiled code, a *miss* compiles, a *bypass* does not look, because the graph cannot be kept.


def scaled_gelu(x):
    return F.gelu(x) * 2


def the_same_in_other_words(x):
    # Another name, another comment, one more line.
    result = F.gelu(x)
    return result * 2


def another_constant(x):
    return F.gelu(x) * 3


def linear():
    """A layer with new random weights."""
    return torch.nn.Linear(64, 64, device=device)


def look_up(function, *args, **options):
    """Compile `function` with an empty memory: "hit", "miss" or "bypass" on disk."""
    torch.compiler.reset()
    counters.clear()
    torch.compile(function, **options)(*args)
    (result,) = (
        result
        for result in ("hit", "miss", "bypass")
        if counters["inductor"][f"fxgraph_cache_{result}"]
    )
    return result


x = torch.randn(64, 64, device=device)
with fresh_cache(), torch.no_grad():
    found = {
        "a function": look_up(scaled_gelu, x),
        "the same function": look_up(scaled_gelu, x),
        "other values in the input": look_up(scaled_gelu, x + 1),
        "other names, lines and comments": look_up(the_same_in_other_words, x),
        "another constant in the code": look_up(another_constant, x),
        "another size": look_up(scaled_gelu, x[:32].clone()),
        "another type": look_up(scaled_gelu, x.double()),
        "other strides (a transposed view)": look_up(scaled_gelu, x.t()),
        "another option": look_up(scaled_gelu, x, options={"max_fusion_size": 8}),
        "a layer": look_up(linear(), x),
        "the same layer, other weights": look_up(linear(), x),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    found["the same function, other number of CPU threads"] = look_up(scaled_gelu, x)
    torch.set_num_threads(threads)

print(tabulate(found.items(), headers=["compiled in this order", "on disk"]))
hits = {label for label, result in found.items() if result == "hit"}
assert hits >= {
    "the same function",
    "other values in the input",
    "other names, lines and comments",
    "the same layer, other weights",
}, "values, weights, names and comments are not in the key"
assert not hits & {
    "another constant in the code",
    "another size",
    "another type",
    "other strides (a transposed view)",
    "another option",
}, "constants, shapes, types, strides and options are in the key"

# %%
# Weights are inputs of the graph, so a newly trained checkpoint finds the code of the old one. Look at the last line
# before you build on one machine and run on another. If it is a miss, a container with another number of cores compiles
# again. If it is a hit, code that was made for another number of threads is used.
#
# A program that starts
# ---------------------
#
# Only a new process shows a real start. So we write small programs into a temporary folder and run them one after the
# other, each in a process of its own, as a server would start. This file is what they share. The clock starts after the
# model has been built, and stops at the first output. ``import torch`` and building the model are not in it.

shared = """
import json
import subprocess
import time
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils import benchmark

device = "cuda" if torch.cuda.is_available() else "cpu"
width, tokens = (512, 256) if device == "cuda" else (64, 64)
heads, depth, batch = 4, 6, 8


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1 = torch.nn.LayerNorm(width)
        self.qkv = torch.nn.Linear(width, 3 * width)
        self.out = torch.nn.Linear(width, width)
        self.norm2 = torch.nn.LayerNorm(width)
        self.up = torch.nn.Linear(width, 4 * width)
        self.down = torch.nn.Linear(4 * width, width)

    def forward(self, x):
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def clock():
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


torch.manual_seed(0)
torch.set_grad_enabled(False)
model = torch.nn.Sequential(*(Block() for _ in range(depth))).eval().to(device)
x = torch.randn(batch, tokens, width, device=device)
start = clock()


def write(**results):
    Path("results.json").write_text(json.dumps(results))


def report(call):
    try:
        output = call(x)
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        # TorchDynamo's error holds the one of its backend.
        cause = getattr(error, "inner_exception", error)
        return write(error=type(cause).__name__)
    first_s = clock() - start

    torch.testing.assert_close(output, model(x), rtol=1e-4, atol=1e-4)
    timers = [
        benchmark.Timer(
            "f(x)", globals={"f": f, "x": x}, num_threads=torch.get_num_threads()
        )
        for f in (call, model)
    ]
    turns = [[t.blocked_autorange(min_run_time=0.2) for t in timers] for _ in range(5)]
    steady, in_eager = (benchmark.Measurement.merge(each)[0] for each in zip(*turns))
    found = torch._dynamo.utils.counters["inductor"]
    write(
        first_s=first_s,
        steady_ms=[steady.median * 1e3, steady.iqr * 1e3],
        eager_ms=[in_eager.median * 1e3, in_eager.iqr * 1e3],
        hits=found["fxgraph_cache_hit"],
        misses=found["fxgraph_cache_miss"],
    )
"""

folder = tempfile.TemporaryDirectory()
here = Path(folder.name)
(here / "shared.py").write_text(shared)


def run(program, cache, compiler=True):
    """Run `program` in a new process with the cache folder `cache`; its report.

    `libraries` counts the shared libraries (.so) that this start built. Without a
    `compiler`, the process finds none, and may report an `error` instead.
    """
    libraries = set((here / cache).rglob("*.so"))
    (here / "program.py").write_text(program)
    environment = os.environ | {
        "TORCHINDUCTOR_CACHE_DIR": str(here / cache),
        "TRITON_CACHE_DIR": str(here / cache / "triton"),
    }
    if not compiler:
        environment = {k: v for k, v in environment.items() if k not in ("CC", "CXX")}
        environment["PATH"] = str(here / "no-programs")
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((here / "results.json").read_text())
    assert not compiler or "error" not in results, done.stderr
    return results | {"libraries": len(set((here / cache).rglob("*.so")) - libraries)}


def show(label, reported):
    print(
        f"{label}: {reported['first_s']:.2f} s, hits {reported['hits']}, "
        f"misses {reported['misses']}, libraries built {reported['libraries']}"
    )


def median_s(starts):
    return statistics.median(reported["first_s"] for reported in starts)


eager = run("from shared import *; report(model)", "eager")
print(f"eager: first output after {eager['first_s']:.2f} s")

# %%
# On the same machine: the cache folder
# -------------------------------------
#
# The first process finds nothing and compiles. The next ones find the folder filled. *Libraries built* counts the
# shared libraries (``.so`` files) that a start built. On the CPU, one graph can need several of them.
#
# One cost is not in these times: on the CPU, the first compilation on a machine builds a precompiled C++ header, which
# lies outside this folder. The section above did that.

compile_program = """
from shared import *

report(torch.compile(model))
"""

# For later: this program also saves what it compiled or found.
compile_and_save_program = """
from shared import *

report(torch.compile(model))
artifacts, info = torch.compiler.save_cache_artifacts()
Path("artifacts").write_bytes(artifacts)
"""

first, following = {}, {}
first["torch.compile"] = run(compile_program, "cache")
following["torch.compile"] = [
    run(program, "cache")
    for program in (compile_and_save_program, compile_program, compile_program)
]
show("empty folder ", first["torch.compile"])
for reported in following["torch.compile"]:
    show("filled folder", reported)


def found_all(reported):
    return (reported["hits"], reported["misses"]) == (1, 0)


assert first["torch.compile"]["misses"] == 1, "the first process compiles one graph"
assert all(map(found_all, following["torch.compile"])), "the next ones find it on disk"

# %%
# With a filled folder, there is still work to do. The process imports the compiler. TorchDynamo, its front end, traces
# the model again to know what to look for, and sets up *guards*: the conditions under which the code is valid. On the
# CPU, PyTorch also tries which vector instructions work here, and starts a small process for each.
#
# To another machine: copy the folder
# -----------------------------------
#
# Here, "another machine" is another folder on this machine. So we see what is carried, and do not see whether the other
# machine fits. Carry compiled code between machines of one kind only: the same version of PyTorch, the same GPU, the
# same CPU. The key names the first two. It does not name the kind of CPU: code for one kind may be found and used on
# another.
#
# All three ways carry code that is executed: load it only from a source that you trust. The first is to copy the cache
# folder, for example into a container image.

shutil.copytree(here / "cache", here / "copy")
first["folder copied"] = run(compile_program, "copy")
show("folder copied", first["folder copied"])
assert found_all(first["folder copied"]), "what is in a copied folder is found"

# %%
# To another machine: save artifacts
# ----------------------------------
#
# The second process above called `torch.compiler.save_cache_artifacts
# <https://docs.pytorch.org/docs/stable/generated/torch.compiler.save_cache_artifacts.html>`_. It returns what the
# process compiled or found, as bytes, to be kept in a file or a database. ``load_cache_artifacts`` writes them into the
# cache folder of another process.

load_program = """
from shared import *

torch.compiler.load_cache_artifacts(Path("artifacts").read_bytes())
report(torch.compile(model))
"""

artifacts_bytes = (here / "artifacts").stat().st_size
print(f"artifacts: {artifacts_bytes / 1e6:.2f} MB")
first["artifacts loaded"] = run(load_program, "loaded")
show("artifacts loaded", first["artifacts loaded"])
assert found_all(first["artifacts loaded"]), "what loaded artifacts hold is found"

# %%
# A hit does not mean that nothing is compiled. For the CPU, artifacts hold the generated C++ source, not the libraries
# built from it. Where this process built libraries, a C++ compiler ran again. That can take most of the time: compare
# this start with the one from an empty folder. If they are about equal, copy the folder instead. For a GPU, artifacts
# hold the machine code of Triton's kernels.
#
# To another machine: export a package
# ------------------------------------
#
# ``torch.export`` captures the model as one graph. It must be one: no place where PyTorch would go back to Python (a
# *graph break*). *AOTInductor* is the same compiler, run ahead of time: it compiles the graph into a file, weights
# included. The process that loads the file needs neither the model's Python code nor TorchDynamo. The package is for
# inference, here for one input shape. ``aoti_compile_and_package`` and ``aoti_load_package`` are documented, but the
# name of their module begins with an underscore, so they may change.

build_program = """
from shared import *
from torch._inductor import aoti_compile_and_package
from torch._inductor.exc import CppCompileError

exported = torch.export.export(model, (x,))
try:
    aoti_compile_and_package(exported, package_path="model.pt2")
    write(first_s=clock() - start)
except (RuntimeError, OSError) as error:
    # For a GPU, this needs the CUDA toolkit. Inductor's error may hold another one.
    cause = getattr(error, "inner_exception", error)
    if not isinstance(cause, (CppCompileError, OSError)):
        raise
    write(not_built=f"{type(cause).__name__}: {cause}".splitlines()[0])
"""
package_program = """
from shared import *
from torch._inductor import aoti_load_package

report(aoti_load_package("model.pt2"))
"""

built = run(build_program, "cache")
if "not_built" in built:
    print("no package could be built here:", built["not_built"])
else:
    package_bytes = (here / "model.pt2").stat().st_size
    print(f"export and compilation: {built['first_s']:.1f} s")
    print(f"package: {package_bytes / 1e6:.2f} MB")
    first["package"] = run(package_program, "package")
    following["package"] = [run(package_program, "package") for _ in range(3)]
    show("empty folder ", first["package"])
    for reported in following["package"]:
        show("filled folder", reported)

# %%
# A package is no entry in the cache, so it has neither hits nor misses. But where the line "empty folder" counts
# libraries, a compiler ran. When PyTorch loads a package, it compares this machine with the one that built it. For
# that, it builds tiny libraries that try which vector instructions the C++ compiler knows. Compare the two kinds of
# lines to see what this costs; a cache folder that is kept avoids it. These libraries are also part of what the other
# ways build in an empty folder. ``TORCHINDUCTOR_VEC_ISA_OK=1`` skips the test and takes the instructions for granted:
# set it only where you know the CPU. The reading of the weights is in these times. The other programs had them before
# the clock started.
#
# Where there is no compiler
# --------------------------
#
# Small container images have no C++ compiler. We start the three ways to carry code once more, each with a fresh
# folder, and hide all programs from the process. In the table, an empty field means "not measured".

shutil.copytree(here / "cache", here / "copy-alone")
without = {
    "folder copied": run(compile_program, "copy-alone", compiler=False),
    "artifacts loaded": run(load_program, "loaded-alone", compiler=False),
}
if "package" in first:
    without["package"] = run(package_program, "package-alone", compiler=False)

all_starts = {"eager": eager} | first
print(
    tabulate(
        [
            [
                label,
                start["first_s"],
                median_s(following[label]) if label in following else None,
                start["libraries"],
                start["steady_ms"][0],
                start["eager_ms"][0] / start["steady_ms"][0],
                without[label].get("error", "runs") if label in without else "",
            ]
            for label, start in all_starts.items()
        ],
        headers=[
            "way",
            "first, s",
            "next, s",
            "libraries",
            "later, ms",
            "eager ÷ later",
            "without compiler",
        ],
        floatfmt=("", ".2f", ".2f", "", ".2f", ".2f"),
    )
)
folder.cleanup()

print()
for label, start in first.items():
    later_s = start["first_s"] - eager["first_s"]
    gain_ms = start["eager_ms"][0] - start["steady_ms"][0]
    if gain_ms > max(start["eager_ms"][1], start["steady_ms"][1]):
        verdict = f"repaid after {later_s * 1e3 / gain_ms:,.0f} calls"
    else:
        verdict = "later calls are not faster than eager by more than the spread"
    print(f"{label}: starts {later_s:.1f} s after eager; {verdict}")

# %%
# - **First** and **next** are the starts. **Libraries** counts those that the first start built.
# - **Without compiler.** On the CPU, ``torch.compile`` asks for a C++ compiler even where it then builds nothing. So
#   an image that relies on the cache folder or on artifacts needs one. A name in this column is the error that the
#   process reported.
# - **Later** calls are the steady state. Each process times them in turns with eager mode: above 1 in the next column
#   is faster than eager. The spread in the lines below is the interquartile range.
# - **Eager mode starts at once.** The lines below the table say after how many calls each way has repaid its start. If
#   later calls are not clearly faster than in eager mode, do not carry compiled code: do not compile.
# - **What may get lost.** Without the cache folder, ``torch.compile`` compiles again in the next process. A package
#   holds the compiled model itself. Without the folder, it only repeats the test of the vector instructions.
#
# The same as a picture:

labels = list(first)
positions = range(len(labels))
figure, axes = plt.subplots(figsize=(5.5, 3), layout="constrained")
axes.barh(
    [p - 0.2 for p in positions],
    [first[label]["first_s"] for label in labels],
    0.4,
    label="first process",
)
axes.barh(
    [labels.index(label) + 0.2 for label in following],
    [median_s(starts) for starts in following.values()],
    0.4,
    label="next processes, median",
)
axes.set_yticks(positions, labels)
axes.invert_yaxis()
axes.set_xlabel("seconds to the first output")
axes.set_title(f"First output of a new process, {device}")
axes.legend()
plt.show()

# %%
# What this run showed
# --------------------
#
# ``metrics`` are what this site records of a run. ``claims`` are sentences that another machine may refute, each with
# whether it was true here.

cold_s = first["torch.compile"]["first_s"]
next_s = median_s(following["torch.compile"])
loaded_s = first["artifacts loaded"]["first_s"]
metrics = {
    "cold_start_s": cold_s,
    "next_start_s": next_s,
    "folder_start_s": first["folder copied"]["first_s"],
    "artifacts_start_s": loaded_s,
    "eager_start_s": eager["first_s"],
    "next_start_speedup_x": cold_s / next_s,
    "artifacts_start_speedup_x": cold_s / loaded_s,
    "artifacts_bytes": artifacts_bytes,
}
steady = {"eager": eager, "compiled": first["torch.compile"]}
claims = {
    "with a filled cache folder, a process starts at least twice as fast": cold_s
    > 2 * next_s,
    "with loaded artifacts, a process starts at least twice as fast": cold_s
    > 2 * loaded_s,
    "with a filled cache folder, the start is still slower than in eager mode": next_s
    > eager["first_s"],
}
if "package" in first:
    steady["package"] = first["package"]
    metrics |= {
        "package_start_s": first["package"]["first_s"],
        "package_next_start_s": median_s(following["package"]),
        "package_start_speedup_x": cold_s / first["package"]["first_s"],
        "package_build_s": built["first_s"],
        "package_bytes": package_bytes,
    }
    claims |= {
        "a package starts faster than torch.compile with a filled cache folder": (
            median_s(following["package"]) < next_s
        ),
        "a package runs where there is no C++ compiler": "error"
        not in without["package"],
    }
for name, reported in steady.items():
    metrics[f"{name}_ms"], metrics[f"{name}_iqr_ms"] = reported["steady_ms"]

fastest = min(first, key=lambda label: first[label]["first_s"])
print(
    f"first output of torch.compile with an empty cache folder: {cold_s:.1f} s, "
    f"with a filled one: {next_s:.1f} s"
)
print(f"fastest in the first process: {fastest}, {first[fastest]['first_s']:.1f} s")
for sentence, held in claims.items():
    print(f"{'held here' if held else 'did not hold here'}: {sentence}")

# %%
# **When not to do this.** A training run of hours does not notice one start. A model whose shapes or settings change
# with every release is compiled again anyway. Do not carry compiled code to another kind of machine: this page cannot
# see what would happen there. If your model has graph breaks, or needs Python at run time, it cannot become a package.
#
# More, from PyTorch: `compile-time caching
# <https://docs.pytorch.org/tutorials/recipes/torch_compile_caching_tutorial.html>`_, `a cache on a Redis server
# <https://docs.pytorch.org/tutorials/recipes/torch_compile_caching_configuration_tutorial.html>`_ for many machines,
# and an experimental way, `aot_compile
# <https://docs.pytorch.org/docs/stable/user_guide/torch_compiler/torch.compiler_aot_compile.html>`_.
