"""The seams into Sphinx-Gallery: it parses recipes and writes pages, notebooks and cards; the outputs come from runs.

Two of its private functions are replaced, `execute_script` and `save_notebook` of `sphinx_gallery.gen_rst`. Neither
replacement runs anything: `build.py` has brought the runs up to date before Sphinx starts. So a plain ``sphinx-build``
is a replay, and this module needs neither torch nor Jupyter.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx_gallery import gen_rst
from sphinx_gallery.utils import get_md5sum

from recipe_runner import publishing, render, results, theme
from recipe_runner import recipe as recipes_module
from recipe_runner.cards import ALL_CARDS, cards_rst, shrink_thumbnails, size_pictures, with_cards
from recipe_runner.collection import Collection, Shown, labels
from recipe_runner.machine import this_machine
from recipe_runner.overview import speedups_svg
from recipe_runner.published import Figure
from recipe_runner.published import load as load_figures
from recipe_runner.publishing import Addresses
from recipe_runner.recipe import GALLERIES, RecipeError, code_blocks
from recipe_runner.record import Runs, outputs_hash, write_whole
from recipe_runner.run import PASSED

#: What the replaced functions looked like when this was written; `check_seams` refuses to guess about others.
SEAMS = {
    "execute_script": ["script_blocks", "script_vars", "gallery_conf", "file_conf"],
    "save_notebook": ["work_notebook", "write_file"],
}
#: Where Sphinx-Gallery's downloads begin, at the end of a page.
_FOOTER = "\n.. _sphx_glr_download_"
_TITLE_AND_SENTENCE = re.compile(r"(^[^\n]+\n(?P<rule>[=\-~#*^])(?P=rule){2,}\n\n*(?:[^\n]+\n)+)", re.MULTILINE)


class Pages:
    """All pages of this build, by the name of their recipe; holds the replacements of Sphinx-Gallery's functions."""

    def __init__(self, collection: Collection, figures: Sequence[Figure], addresses: Addresses) -> None:
        self.shown, self.figures, self.addresses = collection.shown, figures, addresses
        self.all = list(collection.shown.values())
        self.rendered: list[Path] = []

    def in_gallery(self, folder: str) -> list[Shown]:
        """The pages of one gallery, in order."""
        return [shown for shown in self.all if shown.recipe.page.startswith(f"{folder}/")]

    @staticmethod
    def head(shown: Shown) -> str:
        """What stands above a page's title."""
        return render.description_rst(shown.recipe.result)

    def status(self, shown: Shown) -> str:
        """What stands below a page's first sentence."""
        return render.status_rst(shown, self.addresses.links(shown.recipe))

    def tail(self, shown: Shown) -> str:
        """What stands below a page's own text: its results, and where to read on."""
        names = shown.recipe.front_matter.see_also
        related = [self.shown[name].recipe for name in names if name in self.shown]
        return f"{results.slice_rst(shown, self.figures)}\n{render.related_rst(related)}"

    @staticmethod
    def fingerprint(shown: Shown) -> str:
        """Changes when a page's outputs must be written anew."""
        own_code = b"".join(Path(module.__file__).read_bytes() for module in (inspect.getmodule(Pages), render))
        parts = [str(shown.problem)]
        for record in (*shown.records, *shown.older):
            parts += [str(record.key), record.run.started, outputs_hash(record.run.outputs)]
        return hashlib.sha256(own_code + "\n".join(parts).encode()).hexdigest()

    def forget_outdated(self, source: Path) -> None:
        """Make Sphinx-Gallery render anew what shows another run than last time: its own check sees only the file."""
        for shown in self.shown.values():
            target = source / f"{shown.recipe.page}.py"
            if write_whole(target.with_suffix(".shown"), self.fingerprint(shown)):
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
        # Its page is written after this function: until then nothing may say that it is up to date.
        target.with_suffix(".py.md5").unlink(missing_ok=True)
        shown = self.shown.get(target.stem)
        script_vars |= {"example_globals": {}, "memory_delta": 0.0}
        records = shown.records if shown else ()
        if not records:
            script_vars["passing"] = True
            return ["" for _ in script_blocks], 0.0
        if records[0].run.blocks != code_blocks(script_blocks):
            raise ExtensionError(
                f"{shown.recipe.path}: Sphinx-Gallery cut other blocks than ran; this is a defect of gallery.py"
            )
        root = Path(gallery_conf["src_dir"])

        def save_figure(png: bytes) -> str:
            file = Path(next(script_vars["image_path_iterator"]))
            write_whole(file, png)
            return "/" + file.relative_to(root).as_posix()

        label_of = labels(records)

        def outputs_rst(number: int) -> str:
            names = [r.run.machine.name for r in records]
            texts = [render.block_rst(r.run.outputs[number], save_figure) for r in records]
            return render.tabs_rst([(name, label_of[name], text) for name, text in zip(names, texts, strict=True)])

        numbers = iter(range(len(records[0].run.blocks)))
        texts = [outputs_rst(next(numbers)) if block[0] == "code" else "" for block in script_blocks]
        run = records[0].run
        script_vars["memory_delta"] = run.host_peak_bytes / 1024**2
        if run.status == PASSED:
            script_vars["passing"] = True
            self.rendered.append(target)
        else:
            script_vars["formatted_exception"] = run.reason
        return texts, run.seconds

    def remember_rendered(self, *_: Any) -> None:
        """Spare the next build the pages of this one. A build that stops before leaves them to be written anew."""
        for target in self.rendered:
            write_whole(target.with_suffix(".py.md5"), get_md5sum(target, mode="t"))

    def save_notebook(self, work_notebook: dict[str, Any], write_file: str | Path) -> None:
        """Write the download: current prose, and the outputs of the run that the page shows."""
        name = Path(write_file).name.partition(".")[0]
        shown = self.shown.get(name)
        cells = work_notebook["cells"]
        records = shown.records if shown else ()
        if records:
            code_cells = [cell for cell in cells if cell["cell_type"] == "code"]
            # Sphinx-Gallery leaves out a last block that holds only its own settings.
            for number, (cell, outputs) in enumerate(zip(code_cells, records[0].run.outputs, strict=False), start=1):
                cell |= {"outputs": outputs, "execution_count": number}
            if cells[0]["cell_type"] == "markdown":
                facts = render.facts_rst(records[0], records[0].run.machine.label)
                cells[0]["source"] += [f"\n**The outputs below:** {facts[0].lower()}{facts[1:]}"]
        if shown is not None:
            # In double quotes, which every system's shell knows.
            needs = [str(requirement).replace('"', "'") for requirement in shown.recipe.front_matter.dependencies]
            packages = " ".join(f'"{need}"' for need in needs)
            note = f"# To install what this notebook needs, uncomment the next line.\n# %pip install {packages}"
            cells.insert(
                0, {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": [note]}
            )
        _ORIGINALS["save_notebook"](work_notebook, write_file)

    def add_results(self, app: Sphinx, docname: str, content: list[str]) -> None:
        """Put the facts of the runs below a page's first sentence, its tail at its end, and cards in a gallery."""
        folder, _, name = docname.rpartition("/")
        if folder not in GALLERIES.values():
            return
        if name == "index":
            content[0] = with_cards(content[0], self.in_gallery(folder))
        if (shown := self.shown.get(name)) is None:
            return
        status = self.status(shown)
        text = self.head(shown) + content[0]
        text = _TITLE_AND_SENTENCE.sub(lambda match: f"{match.group(1)}\n{status}\n", text, count=1)
        page, footer, downloads = text.rpartition(_FOOTER)
        page = render.fold_bookkeeping(page)
        content[0] = f"{page}\n{self.tail(shown)}\n{footer}{downloads}" if footer else text

    def outdated(self, app: Sphinx, env: BuildEnvironment, *_: set[str]) -> list[str]:
        """Pages that Sphinx must read again because what `add_results` adds has changed; it looks at files only."""
        before = getattr(env, "recipe_additions", {})
        # Kept with Sphinx's own books, so that a build that fails leaves it as it was.
        env.recipe_additions = {s.recipe.page: self.head(s) + self.status(s) + self.tail(s) for s in self.all}
        env.recipe_additions |= {f"{folder}/index": cards_rst(self.in_gallery(folder)) for folder in GALLERIES.values()}
        return [
            page for page, text in env.recipe_additions.items() if page in env.found_docs and before.get(page) != text
        ]


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
    source, machines = Path(app.srcdir), app.config.recipe_machine or [this_machine().name]
    published = Runs(Path(app.config.recipe_results))
    recipes = recipes_module.load_all(source)[0]
    # `build.py` has reported what is wrong with the files. Here the rest of the site is built.
    collection = Collection(Runs(Path(app.config.recipe_runs)), published, machines, recipes)
    try:
        figures = load_figures(published.folder)
    except RecipeError:
        figures = []
    pages = Pages(collection, figures, publishing.from_environment())
    pages.forget_outdated(source)
    write_whole(source / "results.rst", results.results_page_rst(pages.all, pages.figures, datetime.now(UTC).date()))
    write_whole(source / results.HEADLINES, results.headlines_rst(pages.all))
    write_whole(source / ALL_CARDS, cards_rst(pages.all))
    measured = write_whole(source / "results.json", results.as_json(pages.all, pages.figures))
    if measured or not (source / results.PLOT).exists():
        write_whole(source / results.PLOT, speedups_svg(pages.all))
    write_whole(source / "results.csv", results.as_csv(pages.all, pages.figures))
    gen_rst.execute_script = pages.execute_script
    gen_rst.save_notebook = pages.save_notebook
    # A failed run is reported once, in one line, by the build; without this Sphinx-Gallery adds a page of traceback.
    failed = [s.recipe.path for s in pages.all if s.own and s.own.run.status != PASSED]
    app.config.sphinx_gallery_conf["expected_failing_examples"] = failed
    app.connect("source-read", pages.add_results)
    app.connect("env-get-outdated", pages.outdated)
    app.connect("env-before-read-docs", pages.remember_rendered)  # All pages of recipes are written by then.
    path = [shown.recipe for shown in pages.all]
    app.connect(
        "html-page-context", lambda _app, name, _template, context, _doctree: theme.follow_path(path, name, context)
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx calls this."""
    app.add_config_value("recipe_runs", "_build/runs", "")
    app.add_config_value("recipe_results", "results", "")
    app.add_config_value("recipe_machine", [], "")  # A list: `-D recipe_machine=a,b`.
    app.connect("builder-inited", _prepare, priority=100)
    app.connect("doctree-read", size_pictures)
    app.connect("builder-inited", lambda app: shrink_thumbnails(Path(app.srcdir)), priority=900)  # They are there now.
    return {"parallel_read_safe": True, "parallel_write_safe": True}
