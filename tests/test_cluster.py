"""Recipes on a real scheduler and real workers."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from conftest import ROOT, Site
from local_cluster import Building, LocalCluster

from recipe_runner.record import Runs

TIMES = "import time\nstart = time.time()\ntime.sleep({})\nprint('from', start, 'to', time.time())"


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Three workers on two machines: two of kind alpha on one machine, one with two threads, and beta."""
    local = LocalCluster()
    try:
        local.worker("alpha", threads=2)
        local.worker("alpha")
        local.worker("beta")
        yield local.wait(3)
    finally:
        local.end()


@pytest.fixture
def empty() -> Iterator[LocalCluster]:
    """A scheduler without workers."""
    local = LocalCluster()
    yield local
    local.end()


def intervals(site: Site) -> list[tuple[float, float]]:
    """When the recipes of `TIMES` ran."""
    texts = [file.read_text() for file in site.runs()]
    return sorted((float(a), float(b)) for text in texts for a, b in re.findall(r"from (\d[\d.]+) to (\d[\d.]+)", text))


def overlap(times: list[tuple[float, float]]) -> bool:
    return any(second[0] < first[1] for first, second in itertools.pairwise(times))


def where(site: Site) -> list[str]:
    return [f"{file.parent.name}/{file.stem}" for file in site.runs()]


def one_error(done, *parts: str) -> None:
    assert done.status == 1
    assert len(done.output.splitlines()) == len(done.errors) == 1, done.output
    assert all(part in done.output for part in parts), done.output


def test_workers_share_recipes_then_each_kind_fills_a_tab(site: Site, cluster: LocalCluster):
    (site.root / "recipes_source/data").mkdir()
    (site.root / "recipes_source/data/n.csv").write_text("3,4\n")
    site.write("recipes_source/first.py", "print(open('data/n.csv').read())", front='data = ["data/n.csv"]')
    site.write("intermediate_source/second.py", TIMES.format(0.5))
    done = site.build("--cluster", cluster.address)
    assert done.status == 0, done.output
    assert sorted(done.ran) == ["first", "second"]
    assert {file.parent.name for file in site.runs()} == {"alpha", "beta"}
    assert "3,4" in site.page("recipes/first") and "Ran on" in site.page("intermediate/second")
    again = site.build("--cluster", cluster.address)
    assert (again.status, again.ran) == (0, [])

    every = ("--cluster", cluster.address, "--machines", "all")
    done = site.build(*every)
    assert done.status == 0 and sorted(done.ran) == ["first", "second"], done.output
    assert where(site) == ["alpha/first", "alpha/second", "beta/first", "beta/second"]
    for page in ("recipes/first", "intermediate/second"):
        text = site.page(page)
        assert 0 < text.index("(alpha)") < text.index("(beta)") and "sd-tab-set" in text
    verified = site.command("verify")
    assert verified.status == 0, verified.output
    again = site.build(*every)
    assert (again.status, again.ran) == (0, [])
    for name in ("first", "second"):
        record = Runs(site.root / "_build/runs").load("beta", name)
        assert record.key["machine"].startswith("beta (")


def test_one_recipe_at_a_time_on_a_machine_and_the_longest_first(site: Site, cluster: LocalCluster):
    site.write("recipes_source/first.py", TIMES.format(0.3))
    site.write("intermediate_source/second.py", TIMES.format(1.5))
    alpha = ("run", "--cluster", cluster.address, "--machines", "alpha")
    done = site.command(*alpha)
    assert done.status == 0 and set(where(site)) == {"alpha/first", "alpha/second"}, done.output
    assert not overlap(intervals(site))
    site.write("recipes_source/first.py", TIMES.format(0.4))
    other = site.write("recipes_source/unknown.py", TIMES.format(0.1))
    done = site.command(*alpha, "--rerun")
    assert done.ran == ["second", "first", "unknown"], done.output
    assert re.search(r"^\[1/3\] second: starts on alpha, last time 2 s$", done.output, re.MULTILINE)
    assert re.search(r"^\[3/3\] unknown: passed after 0\.\d s on alpha$", done.output, re.MULTILINE)

    other.unlink()
    shutil.rmtree(site.root / "_build/runs")
    site.write("recipes_source/first.py", TIMES.format(2))
    site.write("intermediate_source/second.py", TIMES.format(2))
    done = site.command("run", "--cluster", cluster.address, "--machines", "alpha,beta")
    assert done.status == 0 and overlap(intervals(site)), done.output


def test_two_clients_do_not_meet_on_one_machine(site: Site, cluster: LocalCluster, tmp_path_factory):
    site.write("recipes_source/first.py", TIMES.format(1.5))
    other = Site(shutil.copytree(site.root, tmp_path_factory.mktemp("other") / "site"))
    arguments = ("run", "--cluster", cluster.address, "--machines", "alpha", "--only", "first")
    both = [Building(each, *arguments) for each in (site, other)]
    assert [each.end() for each in both] == [0, 0], [each.output for each in both]
    times = sorted(intervals(site) + intervals(other))
    assert len(times) == 2 and not overlap(times)


def test_a_failure_is_one_line_and_the_page_shows_it(site: Site, cluster: LocalCluster):
    site.write("recipes_source/first.py", "raise ValueError('no')")
    done = site.build("--cluster", cluster.address, "--machines", "beta")
    assert done.status == 1 and len(done.errors) == 1 and "Traceback" not in done.output, done.output
    assert "raised ValueError: no (on beta)" in done.errors[0]
    assert "_build/runs/beta/first.failed.ipynb" in done.errors[0]
    assert "ValueError" in site.page("recipes/first") and "second says 1" in site.page("intermediate/second")


def test_what_cannot_work_is_one_line(site: Site, cluster: LocalCluster, empty: LocalCluster):
    assert site.build(MACHINE="here").status == 0
    kept = where(site)
    one_error(site.build("--cluster", "tcp://127.0.0.1:1"), "CLUSTER=tcp://127.0.0.1:1", "no scheduler answers")
    one_error(site.build("--cluster", "what://is:this"), "CLUSTER=what://is:this")
    one_error(site.build("--cluster", empty.address), "has no worker", f"make worker CLUSTER={empty.address}")
    one_error(site.build("--cluster", cluster.address, "--machines", "gpu"), "MACHINES=gpu", "alpha, beta")
    one_error(site.build("--machines", "all"), "MACHINES=all", "CLUSTER=tcp://")
    assert where(site) == kept and "first says 42" in site.page("recipes/first")


def test_workers_of_other_versions_are_named_and_of_other_runners_refused(site: Site, empty: LocalCluster, tmp_path):
    patch = tmp_path / "patch"
    patch.mkdir()
    (patch / "sitecustomize.py").write_text(
        "import importlib.metadata as m\nold = m.version\n"
        "m.version = lambda name: '1.0' if name == 'numpy' else old(name)"
    )
    site.write("recipes_source/first.py", "print(1)", dependencies='"numpy"')
    site.write("intermediate_source/second.py", "print(1)", dependencies='"numpy>=2"')
    edited = tmp_path / "edited"
    shutil.copytree(ROOT / "recipe_runner", edited / "recipe_runner")
    with (edited / "recipe_runner" / "scrub.py").open("a") as stream:
        stream.write("# Edited.\n")
    empty.worker("without", path="")
    empty.worker("edited", path=str(edited))
    empty.wait(2)
    done = site.command("run", "--cluster", empty.address)
    assert done.status == 1 and len(done.errors) == 1 and "no worker can be used" in done.errors[0], done.output
    assert re.search(r"^worker tcp://\S+ is not used: it has no recipe_runner", done.output, re.MULTILINE)
    assert re.search(r"^worker tcp://\S+ is not used: its recipe_runner is another version", done.output, re.MULTILINE)

    empty.worker("older", path=f"{patch}:{ROOT}")
    empty.wait(3)
    done = site.command("run", "--cluster", empty.address, "--only", "first")
    assert done.status == 0, done.output
    assert re.search(r"^worker tcp://\S+ \(older\) has other versions: numpy 1\.0 there, \d", done.output, re.MULTILINE)
    assert Runs(site.root / "_build/runs").load("older", "first").run.versions["numpy"] == "1.0"
    done = site.command("run", "--cluster", empty.address)
    assert done.status == 1 and done.ran == [] and len(done.errors) == 1, done.output
    assert "needs numpy >=2, 1.0 is installed on older" in done.errors[0]


def test_a_lost_worker_a_lost_scheduler_and_ctrl_c(site: Site, empty: LocalCluster):
    (site.root / "intermediate_source/second.py").unlink()
    site.write("recipes_source/first.py", TIMES.format(3))
    workers = {name: empty.worker(name) for name in ("one", "two")}
    empty.wait(2)
    run = ("run", "--cluster", empty.address)
    building = Building(site, *run)
    first = building.until(r"first: starts on (\w+)")
    time.sleep(1)
    empty.kill(workers.pop(first))
    assert building.end() == 0, building.output
    ((second, process),) = workers.items()
    assert re.search(rf"first: worker tcp://\S+ \({first}\) is lost, the recipe runs again", building.output)
    assert f"first: starts on {second}" in building.output and where(site) == [f"{second}/first"]

    # Interrupted: its worker ends the recipe, and is free for the next.
    site.write("recipes_source/first.py", TIMES.format(60))
    building = Building(site, *run)
    building.until("first: starts on")
    time.sleep(2)  # Into its first block.
    building.process.send_signal(signal.SIGINT)
    assert building.end() == 130 and "Traceback" not in building.output, building.output
    interrupted = time.monotonic()
    site.write("recipes_source/first.py", TIMES.format(0.1))
    done = site.command(*run)
    assert done.status == 0 and where(site) == [f"{second}/first"], done.output
    assert time.monotonic() - interrupted < 30

    site.write("recipes_source/first.py", TIMES.format(30))
    building = Building(site, *run)
    for _ in range(3):
        building.until("first: starts on")
        empty.kill(process)
        process = empty.worker("two")
    assert building.end() == 1, building.output
    errors = [line for line in building.output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "its worker was lost 3 times" in errors[0] and "Traceback" not in building.output

    site.write("intermediate_source/second.py", "print('second says', 1)")
    empty.wait(1)
    empty.worker("one")
    empty.wait(2)
    building = Building(site, *run)
    building.until("second: passed")
    empty.kill(empty.scheduler)
    assert building.end() == 1, building.output
    errors = [line for line in building.output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "the scheduler is gone, 1 run is missing" in errors[0], building.output
    assert any(file.stem == "second" for file in site.runs())


def test_the_worker_needs_no_sphinx_and_knows_which_modules_make_a_run():
    code = (
        "import sys, recipe_runner.worker as w\n"
        "loaded = {name.partition('.')[2] for name in sys.modules if name.startswith('recipe_runner.')}\n"
        "assert loaded | {'in_kernel'} == set(w.MODULES), loaded\n"
        "assert not {'sphinx', 'dask', 'distributed', 'torch'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_a_cluster_no_dask_is_imported(site: Site):
    code = (
        "import sys\nfrom recipe_runner.__main__ import main\nassert main(['build']) == 0\n"
        "assert not {'dask', 'distributed'} & set(sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=site.root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
