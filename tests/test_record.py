"""Runs on disk: whole or not at all, refused when damaged, reused only under the same key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nbformat
import pytest

from recipe_runner import record as record_module
from recipe_runner.machine import Machine
from recipe_runner.recipe import RecipeError, load
from recipe_runner.record import (
    Record,
    Runs,
    changes,
    code_hash,
    from_notebook,
    key_of,
    to_notebook,
    unexpected_warnings,
    write_whole,
)
from recipe_runner.run import Run

MACHINE = Machine("box", "Some CPU", 2, 8, None, "Linux x86_64")
VERSIONS = {"python": "3.11.7", "numpy": "2.0"}
HEAD = '# /// script\n# requires-python = ">=3.11"\n# dependencies = ["numpy"]\n'
HEAD += '# [tool.recipe]\n# data = ["a.csv"]\n# ///\n'
TEXT = HEAD + '"""\nTitle\n=====\n\nSentence.\n"""\nx = 1\n\n# %%\n# Prose.\n\nprint(x)\nprint(x)\n'


@pytest.fixture
def recipe(tmp_path: Path):
    (tmp_path / "recipes_source").mkdir()
    (tmp_path / "recipes_source" / "a.csv").write_text("1\n")
    return write_recipe(tmp_path, TEXT)


def write_recipe(root: Path, text: str):
    file = root / "recipes_source" / "demo.py"
    file.write_text(text)
    return load(root, file)


def make_record(recipe, status: str = "passed", **changed) -> Record:
    stream = {"output_type": "stream", "name": "stdout", "text": "1\n1\n"}
    picture = {
        "output_type": "display_data",
        "data": {"image/png": "aGk=", "text/plain": "A\nB"},
        "metadata": {"image/png": {"width": 3}},
    }
    run = Run(
        name=recipe.name,
        blocks=recipe.blocks,
        outputs=([], [stream, picture]),
        status=status,
        reason="" if status == "passed" else "block 2 raised ValueError: x",
        started="2026-01-02T03:04:05+00:00",
        seconds=1.5,
        host_peak_bytes=10,
        device="cpu",
        device_peak_bytes=None,
        machine=MACHINE,
        versions=VERSIONS,
        metrics={"a_ms": 1.25, "b_count": 3},
        claims={"it holds": True},
    )
    return Record(replace(run, **changed), recipe.path, key_of(recipe, MACHINE, VERSIONS))


def test_a_record_is_a_valid_notebook_and_reads_back_equal(recipe):
    text = to_notebook(make_record(recipe))
    nbformat.validate(nbformat.reads(text, as_version=4))
    assert from_notebook(text, "x.ipynb") == make_record(recipe)
    assert to_notebook(from_notebook(text, "x.ipynb")) == text


@pytest.mark.parametrize("damage", ["truncated", "empty", "bit", "output", "code", "future", "list", "not UTF-8"])
def test_a_damaged_record_is_refused_in_one_line(recipe, tmp_path: Path, damage: str):
    runs = Runs(tmp_path / "runs")
    file = runs.save(make_record(recipe))
    text = file.read_text()
    damaged = {
        "truncated": text[: len(text) // 2],
        "empty": "",
        "bit": text.replace("1.5", "1,5"),
        "output": text.replace('"1\\n"', '"2\\n"'),
        "code": text.replace("print(x)", "print(y)"),
        "future": text.replace(f'"schema": {record_module.SCHEMA}', '"schema": 99'),
        "list": "[1, 2]",
        "not UTF-8": None,
    }[damage]
    assert damaged != text
    file.write_bytes(b"\xff\xfe" if damaged is None else damaged.encode())
    with pytest.raises(RecipeError) as caught:
        runs.load("box", "demo")
    assert "demo.ipynb: " in str(caught.value) and "\n" not in str(caught.value)
    assert "Restore the file" in caught.value.remedy


def test_a_record_under_another_name_is_refused(recipe, tmp_path: Path):
    runs = Runs(tmp_path)
    runs.save(make_record(recipe)).rename(tmp_path / "box" / "other.ipynb")
    with pytest.raises(RecipeError, match="holds the run of box/demo"):
        runs.load("box", "other")


def test_a_current_run_is_not_run_again(recipe, tmp_path: Path):
    runs = Runs(tmp_path / "runs")
    assert runs.why_run(recipe, MACHINE, VERSIONS) == ["it has not run on box"]
    runs.save(make_record(recipe))
    assert runs.why_run(recipe, MACHINE, VERSIONS) == []


def test_each_part_of_the_key_is_named_with_its_old_and_new_value(recipe, tmp_path: Path):
    runs = Runs(tmp_path / "runs")
    runs.save(make_record(recipe))
    assert runs.why_run(recipe, MACHINE, VERSIONS | {"numpy": "2.1"}) == ["version of numpy: 2.0 → 2.1"]
    assert runs.why_run(recipe, MACHINE, VERSIONS | {"triton": "3"}) == ["version of triton: absent → 3"]
    assert runs.why_run(recipe, replace(MACHINE, cores=4), VERSIONS)[0].startswith("machine: box (Some CPU, 2 cores, ")
    (tmp_path / "recipes_source" / "a.csv").write_text("2\n")
    assert runs.why_run(recipe, MACHINE, VERSIONS)[0].startswith("data file a.csv: ")


@pytest.mark.parametrize(
    ("old", "new", "stale"),
    [
        ("Prose.", "Other prose, longer.", False),
        ("Sentence.", "Another sentence.", False),
        ("# Prose.\n\n", "# Prose.\n\n\n", False),
        ("x = 1", "x = 2", True),
        ("x = 1", "x = 1  # why", True),
        ("print(x)\nprint(x)", "print(x)\n# %%\nprint(x)", True),
    ],
)
def test_code_and_its_cuts_count_and_prose_does_not(recipe, tmp_path: Path, old: str, new: str, stale: bool):
    runs = Runs(tmp_path / "runs")
    runs.save(make_record(recipe))
    edited = write_recipe(tmp_path, TEXT.replace(old, new))
    reasons = runs.why_run(edited, MACHINE, VERSIONS)
    assert [reason.partition(":")[0] for reason in reasons] == (["code"] if stale else [])
    assert (runs.shown(edited, "box") is None) == stale


def test_a_failed_run_is_kept_beside_the_good_one_shown_and_never_reused(recipe, tmp_path: Path):
    runs = Runs(tmp_path / "runs")
    runs.save(make_record(recipe))
    runs.save(make_record(recipe, status="failed"))
    assert runs.load("box", "demo").run.status == "passed", "the good run is not lost"
    assert runs.shown(recipe, "box").run.status == "failed"
    assert runs.why_run(recipe, MACHINE, VERSIONS) == ["its last run failed: block 2 raised ValueError: x"]
    runs.save(make_record(recipe))
    assert runs.shown(recipe, "box").run.status == "passed"
    assert runs.why_run(recipe, MACHINE, VERSIONS) == []


def test_a_failure_is_over_when_the_good_run_is_current_again(recipe, tmp_path: Path):
    runs, newer = Runs(tmp_path / "runs"), VERSIONS | {"numpy": "2.1"}
    good = make_record(recipe)
    runs.save(good)
    failed = make_record(recipe, status="failed", versions=newer)
    runs.save(replace(failed, key=key_of(recipe, MACHINE, newer)))
    assert not runs.settle(recipe, MACHINE, newer) and runs.newest("box", "demo").run.status == "failed"
    assert runs.settle(recipe, MACHINE, VERSIONS)
    assert runs.shown(recipe, "box") == runs.newest("box", "demo") == good
    assert runs.why_run(recipe, MACHINE, newer) == ["version of numpy: 2.0 → 2.1"]


def test_files_are_written_whole_and_only_when_they_change(tmp_path: Path, monkeypatch):
    file = tmp_path / "folder" / "file"
    assert write_whole(file, "one")
    before = file.stat().st_mtime_ns
    assert not write_whole(file, "one")
    assert file.stat().st_mtime_ns == before

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record_module.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_whole(file, "two, longer than before")
    assert file.read_text() == "one"
    assert [p.name for p in file.parent.iterdir()] == ["file"], "no half-written file is left"


def test_hashes_and_changes():
    assert code_hash(["a", "b"]) != code_hash(["a\nb"]) != code_hash(["ab"])
    assert changes({"a": "1", "b": "2"}, {"a": "1", "b": "3"}) == ["b: 2 → 3"]


def test_unexpected_warnings_are_found(recipe):
    text = "x.py:1: FutureWarning: old\n  code\nW torch/x.py:3] [0/0] odd\nDeprecationWarning: meant\nno warning here\n"
    record = make_record(recipe, outputs=([], [{"output_type": "stream", "name": "stderr", "text": text}]))
    assert unexpected_warnings(record, ["meant"]) == ["x.py:1: FutureWarning: old", "W torch/x.py:3] [0/0] odd"]
