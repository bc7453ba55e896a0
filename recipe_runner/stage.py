"""The source tree that Sphinx sees: a copy below ``_build``, so that nothing is generated among the recipes.

A recipe that cannot become a page is replaced there by one that says why; otherwise it would end the whole build.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from recipe_runner.recipe import GALLERIES, Recipe, RecipeError, find
from recipe_runner.record import write_whole
from recipe_runner.render import plain


def stage(root: Path, source: Path, html: Path, recipes: Sequence[Recipe], errors: Mapping[str, RecipeError]) -> None:
    """Bring `source` in line with the project at `root`; `errors` are the recipes that cannot be shown, by path."""
    wanted: dict[Path, bytes] = {}
    for folder in ("", *GALLERIES):
        for file in (root / folder).glob("[!.]*.rst"):  # Not the locks of editors.
            wanted[source / folder / file.name] = file.read_bytes()
    for recipe in (recipe for recipe in recipes if recipe.path not in errors):
        for name, content in recipe.read_data().items():
            wanted[source / recipe.data_files[name].relative_to(root)] = content
    for file in find(root):
        path = file.relative_to(root).as_posix()
        wanted[source / path] = _stand_in(errors[path]).encode() if path in errors else file.read_bytes()

    for gallery, pages in GALLERIES.items():
        gone = [file for file in (source / gallery).rglob("*") if file.is_file() and file not in wanted]
        for file in gone:
            file.unlink()
        if gone:
            # Neither Sphinx-Gallery nor Sphinx removes the pages of a recipe that is gone.
            shutil.rmtree(source / pages, ignore_errors=True)
            shutil.rmtree(html / pages, ignore_errors=True)
    for file, content in wanted.items():
        write_whole(file, content)


def _stand_in(error: RecipeError) -> str:
    """A recipe without code whose page says what is wrong with the real one."""
    title = Path(error.file).name
    # As reStructuredText, and that within a string of Python.
    text = plain(f"{error.cause}. {error.remedy}.").replace("\\", "\\\\").replace('"', "'")
    return f'"""\n{title}\n{"=" * len(title)}\n\nThis page could not be made: {text}\n"""\n'
