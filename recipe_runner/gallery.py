"""The seams into Sphinx-Gallery: it parses recipes and writes pages, notebooks and cards; the outputs come from runs.

Two of its private functions are replaced, `execute_script` and `save_notebook` of `sphinx_gallery.gen_rst`. Neither
replacement runs anything: `build.py` has brought the runs up to date before Sphinx starts. So a plain ``sphinx-build``
is a replay, and this module needs neither torch nor Jupyter.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx_gallery import gen_rst
from sphinx_gallery.utils import get_md5sum

from recipe_runner import recipe as recipes_module
from recipe_runner import render
from recipe_runner.machine import this_machine
from recipe_runner.recipe import GALLERIES, Recipe, RecipeError, code_blocks
from recipe_runner.record import Record, Runs, outputs_hash, write_whole
from recipe_runner.run import PASSED

#: What the replaced functions looked like when this was written; `check_seams` refuses to guess about others.
SEAMS = {
    "execute_script": ["script_blocks", "script_vars", "gallery_conf", "file_conf"],
    "save_notebook": ["work_notebook", "write_file"],
}
_TITLE_AND_SENTENCE = re.compile(r"(^[^\n]+\n(?P<rule>[=\-~#*^])(?P=rule){2,}\n\n*(?:[^\n]+\n)+)", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """A recipe and the run that its page shows, or why it shows none."""

    recipe: Recipe
    record: Record | None
    problem: RecipeError | None = None

    @property
    def fingerprint(self) -> str:
        """Changes when the page's outputs must be written anew."""
        own_code = b"".join(Path(module.__file__).read_bytes() for module in (inspect.getmodule(Page), render))
        shown = str(self.problem) if self.record is None else str(self.record.key) + self.record.run.started
        outputs = outputs_hash(self.record.run.outputs) if self.record else ""
        return hashlib.sha256(own_code + shown.encode() + outputs.encode()).hexdigest()


class Pages:
    """All pages of this build, by the name of their recipe; holds the replacements of Sphinx-Gallery's functions."""

    def __init__(self, source: Path, runs: Runs, machine: str) -> None:
        self.by_name = {}
        for recipe in recipes_module.load_all(source)[0]:
            try:
                page = Page(recipe, runs.shown(recipe, machine))
            except RecipeError as problem:
                page = Page(recipe, None, problem)
            self.by_name[recipe.name] = page

    def forget_outdated(self, source: Path) -> None:
        """Make Sphinx-Gallery render anew what shows another run than last time: its own check sees only the file."""
        for name, page in self.by_name.items():
            target = source / GALLERIES[page.recipe.path.split("/")[0]] / f"{name}.py"
            if write_whole(target.with_suffix(".shown"), page.fingerprint):
                target.with_suffix(".py.md5").unlink(missing_ok=True)

    def execute_script(
        self,
        script_blocks: list[Any],
        script_vars: dict[str, Any],
        gallery_conf: dict[str, Any],
        file_conf: dict[str, Any],
    ) -> tuple[list[str], float]:
        """Return the outputs of the kept run, one text a block, and its seconds; keeps Sphinx-Gallery's own books."""
        target = Path(script_vars["target_file"])
        page = self.by_name.get(target.stem)
        record = page.record if page else None
        script_vars |= {"example_globals": {}, "memory_delta": 0.0}
        if record is None:
            script_vars["passing"] = True
            return ["" for _ in script_blocks], 0.0
        if record.run.blocks != code_blocks(script_blocks):
            raise ExtensionError(
                f"{page.recipe.path}: Sphinx-Gallery cut other blocks than ran; this is a defect of gallery.py"
            )
        root = Path(gallery_conf["src_dir"])

        def save_figure(png: bytes) -> str:
            file = Path(next(script_vars["image_path_iterator"]))
            write_whole(file, png)
            return "/" + file.relative_to(root).as_posix()

        outputs = iter(record.run.outputs)
        texts = [render.block_rst(next(outputs), save_figure) if block[0] == "code" else "" for block in script_blocks]
        script_vars["memory_delta"] = record.run.host_peak_bytes / 1024**2
        if record.run.status == PASSED:
            script_vars["passing"] = True
            write_whole(target.with_suffix(".py.md5"), get_md5sum(target, mode="t"))
        else:
            script_vars["formatted_exception"] = record.run.reason
        return texts, record.run.seconds

    def save_notebook(self, work_notebook: dict[str, Any], write_file: str | Path) -> None:
        """Write the download: current prose, and the outputs of the run that the page shows."""
        name = Path(write_file).name.partition(".")[0]
        page = self.by_name.get(name)
        cells = work_notebook["cells"]
        if page is not None and page.record is not None:
            code_cells = [cell for cell in cells if cell["cell_type"] == "code"]
            # Sphinx-Gallery leaves out a last block that holds only its own settings.
            for number, (cell, outputs) in enumerate(zip(code_cells, page.record.run.outputs, strict=False), start=1):
                cell |= {"outputs": outputs, "execution_count": number}
        if page is not None:
            packages = " ".join(f'"{requirement}"' for requirement in page.recipe.front_matter.dependencies)
            note = f"# To install what this notebook needs, uncomment the next line.\n# %pip install {packages}"
            cells.insert(
                0, {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": [note]}
            )
        _ORIGINALS["save_notebook"](work_notebook, write_file)

    def add_status(self, app: Sphinx, docname: str, content: list[str]) -> None:
        """Put the facts of the run, or why there is none, below a page's first sentence."""
        folder, _, name = docname.rpartition("/")
        page = self.by_name.get(name)
        if folder not in GALLERIES.values() or page is None:
            return
        if page.problem is not None:
            status = render.notice_rst("This page shows no run", str(page.problem))
        else:
            status = render.status_rst(page.record, name)
        content[0] = _TITLE_AND_SENTENCE.sub(lambda match: f"{match.group(1)}\n{status}\n", content[0], count=1)


_ORIGINALS = {name: getattr(gen_rst, name, None) for name in SEAMS}


def check_seams() -> None:
    """Refuse an unknown Sphinx-Gallery.

    Raises
    ------
    ExtensionError
        If a function that this module replaces is gone or takes other arguments.
    """
    for name, expected in SEAMS.items():
        original = _ORIGINALS[name]
        found = list(inspect.signature(original).parameters) if original else None
        if found != expected:
            raise ExtensionError(
                f"sphinx_gallery.gen_rst.{name} takes {found}, expected {expected}: this Sphinx-Gallery moved a seam. "
                "Adapt recipe_runner/gallery.py, or install the version in requirements.txt"
            )


class ByOrder:
    """Sphinx-Gallery's sort key: the recipe's ``order``, then its name; what cannot be read goes last."""

    def __init__(self, src_dir: str | Path) -> None:
        self.folder = Path(src_dir)

    def __call__(self, filename: str) -> tuple[int, str]:
        try:
            text = (self.folder / filename).read_text(encoding="utf-8")
            return recipes_module.parse_front_matter(filename, text).order, filename
        except RecipeError:
            return 10**6, filename


def _prepare(app: Sphinx) -> None:
    """Before Sphinx-Gallery starts: read the runs, and hand it the replacements."""
    check_seams()
    source = Path(app.srcdir)
    pages = Pages(source, Runs(Path(app.config.recipe_runs)), app.config.recipe_machine or this_machine().name)
    pages.forget_outdated(source)
    gen_rst.execute_script = pages.execute_script
    gen_rst.save_notebook = pages.save_notebook
    # A failed run is reported once, in one line, by the build; without this Sphinx-Gallery adds a page of traceback.
    failed = [p.recipe.path for p in pages.by_name.values() if p.record and p.record.run.status != PASSED]
    app.config.sphinx_gallery_conf["expected_failing_examples"] = failed
    app.connect("source-read", pages.add_status)


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx calls this."""
    app.add_config_value("recipe_runs", "_build/runs", "")
    app.add_config_value("recipe_machine", "", "")
    app.connect("builder-inited", _prepare, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
