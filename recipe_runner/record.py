"""A run on disk: a valid notebook with the run's facts in its metadata, and the key that says when it is stale.

The key holds all that may change what a recipe prints: the code blocks, the versions of Python and of the declared
packages, the machine, and the data files. It leaves out prose, front matter and this project's own code: an edit there
changes no output. A failed run is kept beside the last good one, is shown, and is never reused.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat

from recipe_runner.machine import Machine
from recipe_runner.recipe import Recipe, RecipeError
from recipe_runner.run import PASSED, Run

#: Raised when the meaning of a run's metadata changes.
SCHEMA = 2
_REMEDY = "Restore the file, or delete it, then run: make html"


@dataclass(frozen=True)
class Record:
    """A run, the recipe file it was made from, and the key under which it is kept."""

    run: Run
    path: str
    key: dict[str, str]

    @property
    def code_hash(self) -> str:
        """Identifies the code blocks that ran."""
        return self.key["code"]


def code_hash(blocks: Sequence[str]) -> str:
    """A hash of the list of blocks, so that a moved ``# %%`` counts too."""
    return hashlib.sha256(json.dumps(list(blocks)).encode()).hexdigest()[:16]


def outputs_hash(outputs: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """A hash of all outputs."""
    return hashlib.sha256(json.dumps(list(outputs), sort_keys=True).encode()).hexdigest()[:16]


def _whole_hash(facts: Mapping[str, Any], blocks: Sequence[str], outputs: Sequence[Any]) -> str:
    """A hash of all that a record holds, to notice one that was edited or damaged: metrics and dates as well."""
    content = json.dumps([dict(facts), list(blocks), list(outputs)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def key_from(
    blocks: Sequence[str], data: Mapping[str, bytes], machine: Machine, versions: Mapping[str, str]
) -> dict[str, str]:
    """The key of a run of `blocks` with data files of this content on `machine`: part -> value."""
    key = {"code": code_hash(blocks)}
    key |= {f"data file {name}": hashlib.sha256(content).hexdigest()[:16] for name, content in data.items()}
    key |= {f"version of {package}": version for package, version in versions.items()}
    return key | {"machine": f"{machine.name} ({machine.label}, {machine.cores} cores, {machine.system})"}


def key_of(recipe: Recipe, machine: Machine, versions: Mapping[str, str]) -> dict[str, str]:
    """The key of a run of `recipe` on `machine` with packages of `versions`."""
    return key_from(recipe.blocks, recipe.read_data(), machine, versions)


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """What differs between two keys, one readable line a part."""
    parts = sorted(old.keys() | new.keys())
    return [
        f"{part}: {old.get(part, 'absent')} → {new.get(part, 'absent')}"
        for part in parts
        if old.get(part) != new.get(part)
    ]


def write_whole(file: Path, content: str | bytes) -> bool:
    """Write a file whole or not at all, and only if its bytes change. Returns whether it wrote.

    An unchanged file keeps its time, so that Sphinx does not read it again.
    """
    data = content.encode() if isinstance(content, str) else content
    with contextlib.suppress(FileNotFoundError):
        if file.read_bytes() == data:
            return False
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return True


def to_notebook(record: Record) -> str:
    """The text of the notebook that keeps `record`."""
    run = record.run
    cells = []
    for number, (block, outputs) in enumerate(zip(run.blocks, run.outputs, strict=True), start=1):
        cell = nbformat.v4.new_code_cell(
            block, id=f"block-{number}", outputs=[nbformat.from_dict(output) for output in outputs]
        )
        cells.append(cell)
    facts = {k: v for k, v in asdict(run).items() if k not in ("blocks", "outputs")}
    facts |= {"schema": SCHEMA, "path": record.path, "key": record.key}
    facts["hash"] = _whole_hash(facts, run.blocks, run.outputs)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "recipe": facts})
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def from_notebook(text: str, file: str | Path) -> Record:
    """Read back what `to_notebook` wrote.

    Raises
    ------
    RecipeError
        If it is not such a notebook, comes from a newer version of this project, or was changed since.
    """
    try:
        notebook = json.loads(text)
        facts = dict(notebook["metadata"]["recipe"])
        schema = facts.pop("schema")
        if schema != SCHEMA:
            raise RecipeError(file, f"written in format {schema}, this version reads format {SCHEMA}", _REMEDY)
        expected = facts.pop("hash")
        blocks = tuple(_joined(cell["source"]) for cell in notebook["cells"])
        outputs = tuple([_joined_output(output) for output in cell["outputs"]] for cell in notebook["cells"])
        found = _whole_hash(facts | {"schema": schema}, blocks, outputs)
        path, key = facts.pop("path"), facts.pop("key")
        facts["machine"] = Machine(**facts["machine"])
        run = Run(blocks=blocks, outputs=outputs, **facts)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecipeError(file, f"not a readable run ({type(error).__name__}: {error})", _REMEDY) from None
    if found != expected or code_hash(blocks) != key.get("code"):
        raise RecipeError(file, "its content does not match its hash: it was edited or damaged", _REMEDY)
    return Record(run, path, key)


def _joined(text: str | list[str]) -> str:
    """A notebook on disk may hold a text as a list of its lines."""
    return text if isinstance(text, str) else "".join(text)


def _joined_output(output: dict[str, Any]) -> dict[str, Any]:
    if "text" in output:
        return output | {"text": _joined(output["text"])}
    if "data" in output:
        return output | {
            "data": {kind: v if kind.endswith("json") else _joined(v) for kind, v in output["data"].items()}
        }
    return output


def read(file: Path) -> Record:
    """The run in a file, whatever the file and its folder are called.

    Raises
    ------
    RecipeError
        If it cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(short(file), f"cannot be read ({error})", _REMEDY) from None
    return from_notebook(text, short(file))


def newest(records: Iterable[Record | None]) -> Record | None:
    """The last of the kept runs of one recipe: the failed one if there is one, as a later good one removes it."""
    return min(filter(None, records), key=lambda record: record.run.status == PASSED, default=None)


class Runs:
    """The runs under one folder: ``<machine>/<recipe>.ipynb``, and ``<recipe>.failed.ipynb`` after a failure."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, machine: str, name: str, *, failed: bool = False) -> Path:
        """Where a run is kept."""
        return self.folder / machine / f"{name}{'.failed' if failed else ''}.ipynb"

    def save(self, record: Record) -> Path:
        """Keep a run. A failed one does not replace the last good one; a good one ends the failure.

        Raises
        ------
        RecipeError
            If it cannot be written, as when the disk is full. What was kept before is as it was.
        """
        failed = record.run.status != PASSED
        file = self.file(record.run.machine.name, record.run.name, failed=failed)
        try:
            write_whole(file, to_notebook(record))
            if not failed:
                self.file(record.run.machine.name, record.run.name, failed=True).unlink(missing_ok=True)
        except OSError as error:
            remedy = "Make room, or make the folder writable, then run: make html"
            raise RecipeError(short(file), f"cannot be written ({error.strerror})", remedy) from None
        return file

    def load(self, machine: str, name: str, *, failed: bool = False) -> Record | None:
        """The last good run of a recipe on a machine, or the failed one since.

        Raises
        ------
        RecipeError
            If there is a file and it cannot be read.
        """
        file = self.file(machine, name, failed=failed)
        if not file.exists():
            return None
        record = read(file)
        # A folder may have been renamed, or a run copied under another name.
        if (record.run.name, record.run.machine.name) != (name, machine):
            where = f"{record.run.machine.name}/{record.run.name}"
            raise RecipeError(short(file), f"holds the run of {where}", "Move it there, or delete it")
        return record

    def newest(self, machine: str, name: str) -> Record | None:
        """The last run of a recipe on a machine, good or not; None if there is none."""
        return newest(self.load(machine, name, failed=failed) for failed in (True, False))

    def machines(self) -> list[str]:
        """Names of the machines that have runs here."""
        return sorted(p.name for p in self.folder.iterdir() if p.is_dir()) if self.folder.is_dir() else []

    def shown(self, recipe: Recipe, machine: str) -> Record | None:
        """The run that a page shows: the newest of exactly this code, failed or not; None if there is none."""
        wanted = code_hash(recipe.blocks)
        for failed in (True, False):
            record = self.load(machine, recipe.name, failed=failed)
            if record is not None and record.code_hash == wanted:
                return record
        return None

    def why_run(self, recipe: Recipe, machine: Machine, versions: Mapping[str, str]) -> list[str]:
        """Why `recipe` must run: one line a reason; empty if the kept run is still good."""
        key = key_of(recipe, machine, versions)
        failed = self.load(machine.name, recipe.name, failed=True)
        if failed is not None and failed.key == key:
            return [f"its last run {failed.run.status}: {failed.run.reason}"]
        passed = self.load(machine.name, recipe.name)
        if passed is None:
            return [f"it has not run on {machine.name}"]
        return changes(passed.key, key)

    def settle(self, recipe: Recipe, machine: Machine, versions: Mapping[str, str]) -> bool:
        """Whether the kept run is still good. A failure of other code or versions is over then, and is removed."""
        if self.why_run(recipe, machine, versions):
            return False
        failure = self.file(machine.name, recipe.name, failed=True)
        try:
            failure.unlink(missing_ok=True)
        except OSError as error:
            raise RecipeError(short(failure), f"cannot be removed ({error.strerror})", "Remove it") from None
        return True


def unexpected_warnings(record: Record, expected: Sequence[str]) -> list[str]:
    """Lines of a run's outputs that are warnings, without those that the recipe shows on purpose."""
    lines = [
        line
        for outputs in record.run.outputs
        for o in outputs
        if o["output_type"] == "stream"
        for line in o["text"].splitlines()
    ]
    warnings = [line for line in lines if re.search(r"\w*Warning: |^W(ARNING)?[ :]", line)]
    return [line for line in warnings if not any(part in line for part in expected)]


def short(file: Path) -> str:
    """A path as a person would type it."""
    try:
        return file.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(file)
