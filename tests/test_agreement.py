"""What two runs of the same code must have in common: planted differences, and this machine against published runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT

from recipe_runner.agreement import differences, disagreements, is_exact, made_of_timings
from recipe_runner.machine import this_machine
from recipe_runner.recipe import Recipe, load, load_all
from recipe_runner.record import Record, Runs, code_hash
from recipe_runner.run import Run

BLOCK = "assert 1 < 2, 'one is less than two'"


def made(machine: str = "box", blocks: tuple[str, ...] = (BLOCK,), **changes: object) -> Record:
    """A run without a kernel."""
    run = Run(
        name="first",
        blocks=blocks,
        outputs=tuple([] for _ in blocks),
        status="passed",
        reason="",
        started="2026-01-01T00:00:00+00:00",
        seconds=1.0,
        host_peak_bytes=1,
        device="cpu",
        device_peak_bytes=None,
        machine=replace(this_machine(), name=machine),
        versions={},
        metrics={"graphs_count": 3, "call_ms": 1.5, "breakeven_calls_count": 7},
        claims={"it is fast": True},
    )
    return Record(replace(run, **changes), "recipes_source/first.py", {"code": code_hash(blocks)})


def test_which_metrics_are_exact():
    exact = ["graphs_count", "claims_count", "recompilations_before_count"]
    timed = ["call_s", "call_ms", "call_us", "speedup_x", "inference_breakeven_calls_count", "claims_held_count"]
    assert [is_exact(name) for name in exact] == [True] * 3 and not any(map(made_of_timings, exact))
    assert not any(map(is_exact, timed)) and [made_of_timings(name) for name in timed] == [True] * 6
    assert not is_exact("model_bytes") and not made_of_timings("model_bytes")


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, []),
        ({"claims": {"it is fast": False}, "seconds": 9.0}, []),
        ({"metrics": {"graphs_count": 3, "call_ms": 9.5, "breakeven_calls_count": 900}}, []),
        ({"metrics": {"graphs_count": 3, "call_ms": 9.5}}, []),  # Where nothing is faster, there is no break-even.
        ({"metrics": {"graphs_count": 4, "call_ms": 1.5}}, ["graphs_count: 3 on box, 4 on other"]),
        ({"metrics": {"graphs_count": 3}}, ["call_ms: 1.5 on box, absent on other"]),
        (
            {"metrics": {"graphs_count": 3, "call_ms": 1.5, "more_count": 0}},
            ["more_count: absent on box, 0 on other"],
        ),
        (
            {"status": "failed", "reason": "block 1 raised AssertionError: no", "metrics": {}},
            ["passed on box, failed (block 1 raised AssertionError: no) on other"],
        ),
    ],
)
def test_planted_differences_are_named(changes: dict, lines: list[str]):
    assert differences(made(), made("other", **changes)) == lines


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    file = tmp_path / "recipes_source" / "first.py"
    file.parent.mkdir()
    head = '# /// script\n# requires-python = ">=3.11"\n# dependencies = []\n# ///\n"""\nFirst\n=====\n\nOne.\n"""\n\n'
    file.write_text(f"{head}{BLOCK}\n")
    return load(tmp_path, file)


def test_published_runs_of_the_same_code_and_kind_of_device_are_compared(tmp_path: Path, recipe: Recipe):
    runs, published = Runs(tmp_path / "runs"), Runs(tmp_path / "results")
    blocks, four = recipe.blocks, {"graphs_count": 4, "call_ms": 1.5}
    runs.save(made(blocks=blocks))
    published.save(made("alike", blocks))
    published.save(made("gpu", blocks, device="NVIDIA H200", metrics=four))
    published.save(made("older", ("print(1)",), metrics=four))
    assert disagreements([recipe], runs, "box", published) == []
    published.save(made("other", blocks, metrics=four))
    expected = ["first: graphs_count: 3 on box, 4 on other (published)"]
    assert disagreements([recipe], runs, "box", published) == expected

    runs.save(made(blocks=blocks, device="NVIDIA A100"))
    expected = ["first: graphs_count: 3 on box, 4 on gpu (published)"]
    assert disagreements([recipe], runs, "box", published) == expected


def test_this_machine_agrees_with_the_published_runs(built: None):
    found = disagreements(load_all(ROOT)[0], Runs(ROOT / "_build/runs"), this_machine().name, Runs(ROOT / "results"))
    assert found == [], "\n".join(found)
