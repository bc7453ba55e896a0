"""What another torch, or another machine, changed: two folders of runs, recipe by recipe, as text and as a page.

A maintainer runs this before a new version is locked. It reads finished runs only.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recipe_runner.agreement import is_exact
from recipe_runner.collection import split_unit
from recipe_runner.recipe import RecipeError
from recipe_runner.record import Record, newest, read, unexpected_warnings, write_whole
from recipe_runner.run import PASSED

#: Lines of a difference that are shown for one block; the rest is counted.
_SHOWN_LINES = 12
#: A metric without a recorded spread is named when it changed by more than this factor.
_LARGE = 1.5
_CHANGING = [
    (re.compile(r"0x[0-9a-fA-F]+"), "0x…"),
    (re.compile(r"(\.py):\d+"), r"\1:…"),  # Lines of other people's files move with each version.
    (re.compile(r"\b\d+(?:\.\d+)+(?:[+\w]*)?|\b\d{1,3}(?:,\d{3})+\b|\b\d+e[+-]?\d+\b"), "#"),
    (re.compile(r"\[\d+/\d+(?:_\d+)?\]"), "[#/#]"),  # Numbers of TorchDynamo's compilations, in log lines.
    (re.compile(r"-{3,}"), "---"),  # The rules of a table are as wide as its numbers.
    (re.compile(r"[ \t]+"), " "),
]


@dataclass(frozen=True)
class Difference:
    """What changed in one recipe: a heading -> the lines below it. No heading: nothing changed."""

    name: str
    found: dict[str, list[str]]


def compare(root: Path, old: str, new: str) -> int:
    """Print the differences between two sets of runs, and write them to ``_build/compare.html``. Returns 0.

    `old` and `new` are folders of runs, or names of machines in ``_build/runs`` or ``results``.

    Raises
    ------
    RecipeError
        If one of them has no runs, or a run cannot be read.
    """
    before, after = _load(root, "OLD", old), _load(root, "NEW", new)
    differences = [difference(name, before.get(name), after.get(name)) for name in sorted(before | after)]
    text = as_rst(old, new, differences)
    print(text)
    page = root / "_build" / "compare.html"
    write_whole(page, _html(text))
    print(f"The same as a page: {page.relative_to(root)}")
    return 0


def _load(root: Path, option: str, where: str) -> dict[str, Record]:
    candidates = [root / where, root / "_build" / "runs" / where, root / "results" / where]
    folder = next((folder for folder in candidates if where and any(folder.glob("*.ipynb"))), None)
    if folder is None:
        known = sorted({f.parent.relative_to(root).as_posix() for f in root.glob("_build/runs/*/*.ipynb")})
        known += sorted({f.parent.relative_to(root).as_posix() for f in root.glob("results/*/*.ipynb")})
        raise RecipeError(f"{option}={where}", "no runs there", f"Folders with runs: {', '.join(known) or 'none'}")
    records: dict[str, list[Record]] = {}
    for file in sorted(folder.glob("*.ipynb")):
        # By its own name: the folder may be a renamed copy, to compare two versions on one machine.
        record = read(file)
        records.setdefault(record.run.name, []).append(record)
    return {name: newest(found) for name, found in records.items()}


def difference(name: str, old: Record | None, new: Record | None) -> Difference:
    """What changed from one run of a recipe to another."""
    if old is None or new is None:
        return Difference(name, {"Only on one side": [f"only in {'NEW' if old is None else 'OLD'}"]})
    found = {
        "Status": _status(old, new),
        "Code": ["the blocks differ: outputs were not compared"] if old.run.blocks != new.run.blocks else [],
        "Versions": _changed(old.run.versions, new.run.versions),
        "Outputs": _outputs(old, new) if old.run.blocks == new.run.blocks else [],
        "Metrics": metric_changes(old.run.metrics, new.run.metrics),
        "Claims": _changed(
            {k: "held" if v else "did not hold" for k, v in old.run.claims.items()},
            {k: "held" if v else "did not hold" for k, v in new.run.claims.items()},
        ),
        "New warnings": _new_warnings(old, new),
    }
    return Difference(name, {heading: lines for heading, lines in found.items() if lines})


def _status(old: Record, new: Record) -> list[str]:
    if (old.run.status, old.run.reason) == (new.run.status, new.run.reason):
        return []
    texts = [run.status if run.status == PASSED else f"{run.status}: {run.reason}" for run in (old.run, new.run)]
    return [" → ".join(texts)]


def _changed(old: dict[str, str], new: dict[str, str]) -> list[str]:
    names = list(old | new)
    return [f"{n}: {old.get(n, 'absent')} → {new.get(n, 'absent')}" for n in names if old.get(n) != new.get(n)]


def metric_changes(old: dict[str, float], new: dict[str, float]) -> list[str]:
    """Metrics that changed by more than their spread; counts that changed at all; new and lost ones."""
    lines = []
    for name in old | new:
        stem, unit = split_unit(name)
        if stem.endswith("_iqr"):
            continue
        if name not in old or name not in new:
            lines.append(f"{name}: only in {'NEW' if name not in old else 'OLD'}")
            continue
        a, b = old[name], new[name]
        spread = f"{stem}_iqr{unit}"
        if is_exact(name):
            changed, why = a != b, "exact"
        elif spread in old and spread in new:
            limit = old[spread] + new[spread]
            changed, why = abs(a - b) > limit, f"spread {limit:.3g}"
        else:
            low, high = sorted((abs(a), abs(b)))
            changed, why = high > _LARGE * low, "no spread recorded"
        if changed:
            ratio = f", {b / a:.2f} times" if a else ""
            lines.append(f"{name}: {a:.4g} → {b:.4g}{ratio} ({why})")
    return lines


def normalised(text: str) -> list[str]:
    """A block's text without what differs between two good runs: addresses, versions, timings, widths of tables."""
    for pattern, replacement in _CHANGING:
        text = pattern.sub(replacement, text)
    # Where one number of a line was measured, its whole numbers are too, as in the row of a table.
    lines = [re.sub(r"\b\d+\b", "#", line) if " #" in line else line for line in text.splitlines()]
    return [line.strip() for line in lines if line.strip()]


def _block_text(outputs: Sequence[dict]) -> str:
    texts = []
    for output in outputs:
        if output["output_type"] == "stream":
            texts.append(output["text"])
        elif output["output_type"] == "error":
            texts.append(f"{output['ename']}: {output['evalue']}")
        else:
            texts.append(output["data"].get("text/plain", ""))
    return "\n".join(texts)


def _outputs(old: Record, new: Record) -> list[str]:
    lines = []
    for number, (before, after) in enumerate(zip(old.run.outputs, new.run.outputs, strict=True), start=1):
        texts = [normalised(_block_text(outputs)) for outputs in (before, after)]
        found = [line for line in difflib.unified_diff(*texts, n=0, lineterm="") if line[:3] not in ("---", "+++")]
        found = [line for line in found if not line.startswith("@@")]
        if found:
            lines += [f"block {number}:", *(f"  {line[:160]}" for line in found[:_SHOWN_LINES])]
            if len(found) > _SHOWN_LINES:
                lines.append(f"  … and {len(found) - _SHOWN_LINES} lines more")
    return lines


def _new_warnings(old: Record, new: Record) -> list[str]:
    known = {line for warning in unexpected_warnings(old, []) for line in normalised(warning)}
    found = dict.fromkeys(line for warning in unexpected_warnings(new, []) for line in normalised(warning))
    return [line[:160] for line in found if line not in known]


def as_rst(old: str, new: str, differences: Sequence[Difference]) -> str:
    """All differences, in a form that reads well as text too."""
    title = f"What changed from {old} to {new}"
    same = [d.name for d in differences if not d.found]
    parts = [title, "=" * len(title), "", "``#`` stands for a number that may differ between two good runs.", ""]
    if same:
        parts += [f"No difference: {', '.join(same)}.", ""]
    for one in differences:
        if one.found:
            parts += [one.name, "-" * len(one.name), ""]
            for heading, lines in one.found.items():
                parts += [f"{heading}::", "", *(f"    {line}" for line in lines), ""]
    return "\n".join(parts)


def _html(rst: str) -> str:
    from docutils.core import publish_string

    return publish_string(rst, writer="html5", settings_overrides={"report_level": 5, "output_encoding": "unicode"})
