"""Ways to make a site say what did not run: a name, what to do to the site, and what the verifier must say then.

The site is the one of `test_verify.good`.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from conftest import Site

from recipe_runner.machine import this_machine
from recipe_runner.record import Runs


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text, f"{file}: no {old!r}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def swapped_labels(file: Path) -> None:
    """Exchange the machines' names on all tabs, and nothing else."""
    other = {"box": "other", "other": "box"}
    text, count = re.subn(
        r"(sd-tab-label[^>]*>[^<]*\()(box|other)\)",
        lambda match: f"{match[1]}{other[match[2]]})",
        file.read_text(encoding="utf-8"),
    )
    assert count >= 2
    file.write_text(text, encoding="utf-8")


def page(site: Site, name: str = "recipes/first") -> Path:
    return site.root / "_build/html" / f"{name}.html"


def download(site: Site, name: str) -> Path:
    (file,) = (site.root / "_build/html/_downloads").glob(f"*/{name}")
    return file


def tampered_zip(site: Site) -> None:
    file = download(site, "first.zip")
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(b"seed 3", b"seed 4"))


def other_picture(site: Site) -> None:
    picture = next((site.root / "_build/html/_images").glob("sphx_glr_first_001.png"))
    picture.write_bytes(picture.read_bytes() + b"more")


def run_without_time(site: Site) -> None:
    for folder, machine in (("_build/runs", "box"), ("results", "other")):
        record = Runs(site.root / folder).load(machine, "first")
        Runs(site.root / folder).save(replace(record, run=replace(record.run, seconds=0.0)))


def without_runs(site: Site) -> None:
    for file in site.root.glob("*/**/third.ipynb"):
        if "html" not in file.parts and "source" not in file.parts:
            file.unlink()


def member_added(site: Site) -> None:
    with zipfile.ZipFile(download(site, "first.zip"), "a") as archive:
        archive.writestr("results.txt", "99 times faster")


def tampered_archive(site: Site) -> None:
    with zipfile.ZipFile(download(site, "recipes_jupyter.zip"), "a") as archive:
        archive.writestr("first.ipynb.txt", "99 times faster")


def broken_archive(site: Site) -> None:
    file = download(site, "first.zip")
    content = bytearray(file.read_bytes())
    content[60:400] = bytes(340)
    file.write_bytes(content)


def older_state(site: Site) -> None:
    edit(page(site, "results"), ">current<", ">best<")


DOWNLOAD = 'download="" href="../_downloads'

TAMPERING: dict[str, tuple[Callable[[Site], None], str]] = {
    "an output": (
        lambda s: edit(page(s), "seed 3", "seed 4"),
        "outputs of block 1 are not those of the run that it names",
    ),
    "another machine's output": (lambda s: edit(page(s), "seed 5", "seed 4"), "outputs of block 1"),
    "standard error": (lambda s: edit(page(s, "recipes/third"), ">bad\n", ">good\n"), "outputs of block 1"),
    "HTML": (lambda s: edit(page(s, "recipes/third"), "1 &lt; 2", "2 &lt; 1"), "outputs of block 2"),
    "a picture": (other_picture, "outputs of block 2"),
    "the code": (lambda s: edit(page(s), ">42<", ">43<"), "does not show the code of"),
    "HTML after a line break": (
        lambda s: edit(page(s, "recipes/third"), "<br/>after", "<br/>before"),
        "outputs of block 2",
    ),
    "a picture in HTML": (
        lambda s: edit(page(s, "recipes/third"), 'src="data:,x"', 'src="data:,y"'),
        "outputs of block 2",
    ),
    "an indent": (
        lambda s: edit(page(s, "recipes/third"), "</span>    indented", "</span>  indented"),
        "outputs of block 3",
    ),
    "the machine": (
        lambda s: edit(page(s), f"Ran on <strong>{this_machine().label}", "Ran on <strong>Cray"),
        "is about no passed run",
    ),
    "the machines of two panels": (lambda s: swapped_labels(page(s)), "outputs of block 1"),
    "the day": (lambda s: edit(page(s), "13 May 2025", "3 May 2025"), "is about no passed run"),
    "the seconds": (lambda s: edit(page(s), " s · ", "9 s · "), "is about no passed run"),
    "the memory": (lambda s: edit(page(s), "GiB of memory", "MiB of memory"), "is about no passed run"),
    "another fact": (
        lambda s: edit(page(s), "of memory at most", "of memory at most · H200"),
        "is about no passed run",
    ),
    "the version": (lambda s: edit(page(s), "Python 3", "Python 4"), "is about no passed run"),
    "no line about its runs": (lambda s: edit(page(s), "Ran on", "Seen on"), "names no machine"),
    "a metric": (lambda s: edit(page(s), "2.00 ×", "3.00 ×"), "first.html: says '3.00 ×' where its runs say '2.00 ×'"),
    "a metric, rounded": (lambda s: edit(page(s), "2.00 ×", "2 ×"), "says '2 ×' where its runs say '2.00 ×'"),
    "what a metric is": (
        lambda s: edit(page(s), "time of one ÷", "time ÷"),
        "says 'speed-up time ÷ time of the other",
    ),
    "a spread": (
        lambda s: edit(page(s), "IQR 0.10", "IQR 0.01"),
        "says '1.50 (IQR 0.01)' where its runs say '1.50 (IQR 0.10)'",
    ),
    "a unit": (lambda s: edit(page(s), ">call, ms<", ">call, µs<"), "says 'call, µs' where its runs say 'call, ms'"),
    "a machine of the results": (lambda s: edit(page(s), "(box)</p></th>", "(crate)</p></th>"), "(crate)' where its"),
    "a table without its class": (
        lambda s: edit(page(s), "</table>", "</table><table><tr><td>9.00 ×</td></tr></table>"),
        "says '9.00 ×' where",
    ),
    "a caption": (
        lambda s: edit(
            page(s), '<table class="recipe-table table">', '<table class="recipe-table"><caption>H200</caption>'
        ),
        "says 'H200' where its runs say 'Metric'",
    ),
    "a broken archive": (broken_archive, "first.zip: does not hold"),
    "the title of the results": (
        lambda s: edit(page(s), ">Results of this page<", ">Results of H200<"),
        "says 'Results of H",
    ),
    "a metric's name": (lambda s: edit(page(s), ">speed-up<", ">slowdown<"), "says 'slowdown time of one"),
    "a published figure": (
        lambda s: edit(page(s), "Published: 3.5", "Published: 5.3"),
        "Published: 5.3 × (ResNet",
    ),
    "its unit": (lambda s: edit(page(s), "Published: 3.5 ×", "Published: 3.5 ms"), "Published: 3.5 ms"),
    "its source": (lambda s: edit(page(s), "A tutorial", "B tutorial"), "torch 2.5; B tutorial)' where"),
    "its link": (lambda s: edit(page(s), "org/tutorial", "org/else"), "does not link https://example.org/tutorial"),
    "the front page": (lambda s: edit(page(s, "index"), "2.00 ×", "3.00 ×"), "index.html: says '3.00 ×' where"),
    "no table on the front page": (
        lambda s: edit(page(s, "index"), 'class="recipe-table table"', 'class="table"'),
        "index.html: lacks a line",
    ),
    "the page of results": (
        lambda s: edit(page(s, "results"), "2.00 ×", "3.00 ×"),
        "results.html: says '3.00 ×' where",
    ),
    "a title there": (lambda s: edit(page(s, "results"), ">First<a", ">Third<a"), "results.html: says 'Third' where"),
    "a claim there": (
        lambda s: edit(page(s, "results"), "<strong>did not hold</strong>", "held"),
        "results.html: says 'the other machine runs this: held on",
    ),
    "a refuted claim there": (
        lambda s: edit(page(s, "results"), ": the other machine runs this (", ": another claim ("),
        "results.html: says 'First: another claim (",
    ),
    "the table of runs": (
        lambda s: edit(page(s, "results"), ">2025-05-13<", ">2026-05-13<"),
        "its last table does not",
    ),
    "a state in the table of runs": (older_state, "results.html: its last table does not name"),
    "no page of results": (lambda s: page(s, "results").unlink(), "results.html: there is no such page"),
    "the JSON": (
        lambda s: edit(download(s, "results.json"), '"answer_count": 42', '"answer_count": 43'),
        "its runs are not",
    ),
    "a name twice in the JSON": (
        lambda s: edit(download(s, "results.json"), '"answer_count": 42', '"answer_count": 43, "answer_count": 42'),
        "results.json: not readable",
    ),
    "more in the JSON": (
        lambda s: edit(download(s, "results.json"), '"runs"', '"more": 1, "runs"'),
        "its runs are not",
    ),
    "the JSON's published figure": (
        lambda s: edit(download(s, "results.json"), '"value": 3.5', '"value": 5.3'),
        "published figures are not those",
    ),
    "the JSON's explanation": (
        lambda s: edit(download(s, "results.json"), "time of one", "time of two"),
        "does not name recipes and metrics as the recipes do",
    ),
    "a broken JSON": (lambda s: edit(download(s, "results.json"), '"runs"', '"walks"'), "results.json: not readable"),
    "the CSV": (lambda s: edit(download(s, "results.csv"), "answer_count,42", "answer_count,43"), "results.csv: its"),
    "the CSV's head": (lambda s: edit(download(s, "results.csv"), "metric,value", "value,metric"), "results.csv: its"),
    "no CSV": (lambda s: download(s, "results.csv").unlink(), "results.csv: there is no such file"),
    "a bad published.toml": (
        lambda s: edit(s.root / "results/published.toml", 'source = "A tutorial"', ""),
        "published.toml: figure 1 (speedup_x) has no 'source'",
    ),
    "a claim": (
        lambda s: edit(page(s), "<strong>did not hold</strong>", "held"),
        "says 'the other machine runs this: held on",
    ),
    "a claim that is exact": (
        lambda s: edit(page(s), "one and one is two: held on", "one and one is two: did not hold on"),
        "where its runs say 'one and one is two: held on",
    ),
    "a claim of nobody": (
        lambda s: edit(page(s), "<li><p>one and", "<li><p>it is fast</p></li>\n<li><p>one and"),
        "says 'it is fast' where its runs say",
    ),
    "the notebook's day": (
        lambda s: edit(download(s, "third.ipynb"), "\\u00b7 Python", "\\u00b7 Ruby"),
        "does not hold",
    ),
    "a raw cell": (
        lambda s: edit(download(s, "third.ipynb"), '"cell_type": "markdown"', '"cell_type": "raw"'),
        "does not hold",
    ),
    "a metric of a run": (
        lambda s: edit(s.root / "results/other/first.ipynb", '"speedup_x": 2.0', '"speedup_x": 9.0'),
        "does not match its hash",
    ),
    "no page": (lambda s: page(s).unlink(), "there is no such page"),
    "a page of nothing": (lambda s: page(s, "recipes/gone").write_text("<html>"), "the page of no recipe"),
    "the script": (lambda s: edit(download(s, "first.py"), "seed", "need"), "is not recipes_source/first.py"),
    "the notebook's output": (lambda s: edit(download(s, "first.ipynb"), "seed 3", "seed 4"), "does not hold"),
    "the notebook's code": (lambda s: edit(download(s, "first.ipynb"), "'seed'", "'need'"), "does not hold"),
    "no notebook": (lambda s: download(s, "first.ipynb").unlink(), "offers no first.ipynb"),
    "a download from elsewhere": (
        lambda s: edit(page(s), DOWNLOAD, 'download="" href="https://example.org/_downloads'),
        "offers https://example.org/_downloads/",
    ),
    "the bundle": (tampered_zip, "first.zip: does not hold"),
    "more in the bundle": (member_added, "first.zip: does not hold"),
    "a gallery's archive": (tampered_archive, "recipes/index.html: recipes_jupyter.zip is not an archive of"),
    "a published run": (
        lambda s: edit(s.root / "results/other/first.ipynb", "seed 5", "seed 6"),
        "does not match its hash",
    ),
    "a local run": (lambda s: edit(s.root / "_build/runs/box/first.ipynb", "seed 3", "seed 4"), "does not match its"),
    "a run of no time": (run_without_time, "no passed run of its code"),
    "no run": (without_runs, "no passed run of its code"),
    "a changed recipe": (lambda s: edit(s.root / "recipes_source/first.py", "'seed', 3", "'seed', 7"), "no passed run"),
    "a recipe that is no recipe": (lambda s: edit(s.root / "recipes_source/first.py", "# ///", "#"), "expected one"),
    "a new recipe": (lambda s: s.write("recipes_source/fourth.py", "print(4)"), "there is no such page"),
}
