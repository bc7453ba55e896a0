"""What is settled before a recipe runs, here or on a cluster: which recipes, which options, which versions."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from recipe_runner.recipe import Recipe, RecipeError
from recipe_runner.run import installed_versions


@dataclass(frozen=True)
class Options:
    """What the command line may change."""

    only: str | None = None
    rerun: bool = False
    time_limit_s: float | None = None
    cluster: str | None = None
    machines: str | None = None


def select(recipes: Sequence[Recipe], errors: dict[str, RecipeError], only: str | None) -> list[Recipe]:
    """The recipes that ``ONLY=`` names, or all.

    Raises
    ------
    RecipeError
        If it names none.
    """
    if only is None:
        return list(recipes)
    wanted = Path(only).stem
    names = sorted([recipe.name for recipe in recipes] + [Path(path).stem for path in errors])
    if wanted not in names:
        raise RecipeError(f"ONLY={only}", "no recipe has this name", f"Recipes: {', '.join(names)}")
    return [recipe for recipe in recipes if recipe.name == wanted]


def versions_for(
    recipe: Recipe, installed: Callable[[Sequence[str]], dict[str, str]] = installed_versions
) -> dict[str, str]:
    """Installed versions of what a recipe declares, here or where `installed` looks.

    Raises
    ------
    RecipeError
        If a package is missing, or has a version that the recipe does not accept.
    """
    try:
        versions = installed([requirement.name for requirement in recipe.front_matter.dependencies])
    except importlib.metadata.PackageNotFoundError as error:
        remedy = "Add it to requirements.in, then run: make lock html"
        raise RecipeError(recipe.path, f"package '{error.name}' is not installed", remedy) from None
    accepted = {requirement.name: requirement.specifier for requirement in recipe.front_matter.dependencies}
    accepted["python"] = recipe.front_matter.requires_python
    for package, specifier in accepted.items():
        if not specifier.contains(versions[package], prereleases=True):
            cause = f"needs {package} {specifier}, {versions[package]} is installed"
            raise RecipeError(recipe.path, cause, "Install that version, or change the front matter")
    return versions


def remedy_for(status: str, otherwise: str = "Its page shows the output so far") -> str:
    """What to do about a run that did not pass; `otherwise` for one that failed by itself."""
    remedies = {
        "timed out": "Raise its time_limit_s, or make it faster",
        "out of memory": "Make it smaller, or run it on a machine with more memory",
    }
    return remedies.get(status, otherwise)
