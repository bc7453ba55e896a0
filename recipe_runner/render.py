"""A block's outputs as reStructuredText, and the lines at the top of a page that say what ran, where and when."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Callable, Sequence
from datetime import datetime
from textwrap import indent
from typing import Any

from recipe_runner.collection import Shown, labels
from recipe_runner.recipe import Recipe
from recipe_runner.record import Record
from recipe_runner.run import PASSED

#: Stores a PNG and returns the address that an image directive may use.
SaveFigure = Callable[[bytes], str]

#: Lines of output that a page shows unfolded.
LONGEST_OUTPUT = 40

#: A beginning that reStructuredText would take for that of a list or of a comment.
_LIKE_A_LIST = re.compile(r"([-+*•‣⁃]|\.\.|[(]?(#|[A-Za-z]|[0-9]+|[ivxlcdmIVXLCDM]+)[.)])(\s|$)")

#: A block of code as Sphinx-Gallery writes it, and the line that makes it bookkeeping.
_CODE = re.compile(r"^\.\. code-block:: Python\n(?:\n|    [^\n]*\n)+", re.MULTILINE)
_FILLS_METRICS = re.compile(r"^    metrics = ", re.MULTILINE)
_ASSERTS = re.compile(r"^ +assert ", re.MULTILINE)

#: What only a table or a drawing has: blanks within a line, to put things below each other.
_COLUMNS = re.compile(r"\S(?: {2,}|\t)\S")

#: All but what a terminal would show: progress bars overwrite their line.
_OVERWRITTEN = re.compile(r"[^\n]*\r(?!\n|$)")


def block_rst(outputs: Sequence[dict[str, Any]], save_figure: SaveFigure) -> str:
    """The outputs of one block, in the form and with the classes that Sphinx-Gallery's style sheet knows."""
    return "\n".join(_output_rst(output, save_figure) for output in outputs)


def _output_rst(output: dict[str, Any], save_figure: SaveFigure) -> str:
    kind = output["output_type"]
    if kind == "stream":
        text = output["text"]
        look = " recipe-stderr" if output["name"] == "stderr" else "" if _COLUMNS.search(text) else " recipe-words"
        return _literal(text, "none", f"sphx-glr-script-out{look}")
    if kind == "error":
        return _literal("\n".join(output["traceback"]), "pytb", "sphx-glr-script-out")
    data, plain = output["data"], output["data"].get("text/plain", "")
    if "image/png" in data:
        png = base64.b64decode(data["image/png"])
        width, height = _size(png, output["metadata"].get("image/png", {}).get("width"))
        # Without a unit they become attributes: the browser keeps the place free, and no inline style is needed.
        size = f"   :width: {width}\n   :height: {height}\n   :loading: lazy\n"
        return f"\n.. image:: {save_figure(png)}\n   :alt: {plain}\n{size}   :class: recipe-figure\n\n"
    if "text/html" in data:
        body = f'<div class="output_subarea output_html rendered_html output_result">\n{data["text/html"]}\n</div>'
        return "\n.. raw:: html\n\n" + indent(body, "    ") + "\n\n"
    return _literal(plain, "none", "sphx-glr-script-out")


def _size(png: bytes, shown_width: int | None) -> tuple[int, int]:
    """Width and height on the page: a sharp picture has more pixels than that. A PNG's size stands in its header."""
    width, height = struct.unpack(">II", png[16:24])
    shown_width = shown_width or width
    return shown_width, round(height * shown_width / width)


def _literal(text: str, language: str, classes: str) -> str:
    text = _OVERWRITTEN.sub("", text).expandtabs().strip("\n")
    if not text.strip():
        return ""
    # With an option line above it, text whose every line is indented keeps its indent.
    block = (
        f"\n.. rst-class:: {classes}\n\n .. code-block:: {language}\n    :force:\n\n" + indent(text, "    ") + "\n\n"
    )
    lines = text.count("\n") + 1
    if lines <= LONGEST_OUTPUT:
        return block
    return f"\n.. dropdown:: Output of {lines} lines\n   :class-container: recipe-fold\n\n{indent(block, '   ')}"


def tabs_rst(panels: Sequence[tuple[str, str, str]]) -> str:
    """One block's outputs on several machines, as tabs that switch together over all pages.

    `panels` are the machines' names, labels and outputs. One machine only: its output without a tab.
    """
    if len(panels) == 1 or not any(text.strip() for _, _, text in panels):
        return panels[0][2]
    parts = ["\n.. tab-set::\n   :sync-group: machine\n   :class: recipe-machines\n"]
    for name, label, text in panels:
        parts.append(f"   .. tab-item:: {label}\n      :sync: {name}\n")
        parts.append(indent(text if text.strip() else "*No output.*\n", "      "))
    return "\n".join(parts) + "\n"


def facts_rst(record: Record, label: str) -> str:
    """One line: the machine, the versions, the day, the time and the memory of a run."""
    run = record.run
    versions = [f"{package} {run.versions[package]}" for package in ("torch",) if package in run.versions]
    parts = [
        f"Ran on **{label}**",
        *versions,
        f"Python {run.versions['python']}",
        _day(record),
        f"{run.seconds:.0f} s",
    ]
    parts.append(f"{run.host_peak_bytes / 1024**3:.1f} GiB of memory at most")
    if run.device_peak_bytes is not None:
        parts.append(f"{run.device_peak_bytes / 1024**3:.1f} GiB of GPU memory at most")
    return " · ".join(parts)


def notice_rst(title: str, text: str) -> str:
    """A box that no reader overlooks: the page is not what it should be, and why."""
    return f".. admonition:: {title}\n   :class: warning recipe-notice\n\n" + indent(plain(text), "   ") + "\n"


def status_rst(shown: Shown, links: Sequence[tuple[str, str]] = ()) -> str:
    """What stands between a page's first sentence and the rest: notices, then one line a run, then the downloads.

    `links` are texts and addresses of what else a page offers.
    """
    own, name, parts = shown.own, shown.recipe.name, []
    if shown.problem is not None:
        parts.append(notice_rst("This page shows no run of this machine", str(shown.problem)))
    elif own is None:
        text = f"This build has no run of this code on this machine. To run it: make html ONLY={name}"
        parts.append(notice_rst("Not run", text))
    elif own.run.status != PASSED:
        parts.append(notice_rst(f"This run {own.run.status}", own.run.reason))
    if shown.older:
        text = "; ".join(f"{record.run.machine.label}, {_day(record)}" for record in shown.older)
        parts.append(notice_rst("Published runs of older code", f"{text}. Their outputs are not on this page."))
    by_label = zip(shown.records, labels(shown.records).values(), strict=True)
    lines = [facts_rst(record, label) for record, label in by_label]
    lines.append(f"Downloads: :download:`notebook with these outputs <{name}.ipynb>` · :download:`script <{name}.py>`")
    lines += [" · ".join(f"`{text} <{address}>`__" for text, address in links)] if links else []
    block = ".. rst-class:: recipe-facts\n\n" + "\n".join(f"| {line}" for line in lines) + "\n"
    return "\n".join([*parts, block])


def fold_bookkeeping(text: str) -> str:
    """Fold the code that fills ``metrics``: it is for this site, and what it prints is the page's conclusion.

    Code that also asserts something is part of the lesson, and stays open.
    """

    def fold(block: re.Match[str]) -> str:
        if not _FILLS_METRICS.search(block.group()) or _ASSERTS.search(block.group()):
            return block.group()
        title = "Code: what this site records of the run"
        return f".. dropdown:: {title}\n   :class-container: recipe-fold\n\n{indent(block.group(), '   ')}"

    return _CODE.sub(fold, text)


def related_rst(recipes: Sequence[Recipe]) -> str:
    """Where a reader goes on: a link to each page, and the sentence that says what it gives; nothing without pages."""
    if not recipes:
        return ""
    items = "\n".join(f"- :doc:`/{recipe.page}`: {recipe.result}" for recipe in recipes)
    return f"Related pages\n-------------\n\n{items}\n"


def description_rst(result: str) -> str:
    """A page's one-line result for search engines and link previews; else they take what stands at its top."""
    text = plain(re.sub(r"[`*]", "", result))
    return f":og:description: {text}\n\n.. meta::\n   :description: {text}\n\n"


def _day(record: Record) -> str:
    return datetime.fromisoformat(record.run.started).strftime("%d %B %Y").lstrip("0")


def plain(text: str) -> str:
    """Text on one line, with reStructuredText's own characters taken literally."""
    text = re.sub(r"([\\*`_|<>:])", r"\\\1", " ".join(text.split()))
    return f"\\{text}" if _LIKE_A_LIST.match(text) else text
