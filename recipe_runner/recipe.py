"""A recipe file: its front matter, its title and its code blocks.

The only module that calls Sphinx-Gallery's parser, so that a page, a notebook and a run cut a file at the same places.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

#: Where recipes live, and the folder of the site that each becomes.
GALLERIES = {"intermediate_source": "intermediate", "recipes_source": "recipes"}

DEFAULT_TIME_LIMIT_S = 600

# The reference expression of PEP 723.
_SCRIPT_BLOCK = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
_WHOLE = ("a whole number", lambda value: type(value) is int)
_LIST = ("a list of strings", lambda value: type(value) is list and all(type(item) is str for item in value))
_TABLE = (
    'a table of name = "a few words"',
    lambda value: type(value) is dict and all(type(text) is str and re.search(r"\w", text) for text in value.values()),
)
#: The keys of [tool.recipe]: what each must be, and the check.
_KEYS = {
    "time_limit_s": _WHOLE,
    "order": _WHOLE,
    "data": _LIST,
    "tags": _LIST,
    "see_also": _LIST,
    "expected_warnings": _LIST,
    "metrics": _TABLE,
}
_TAG = re.compile(r"[A-Za-z0-9]+([ -][A-Za-z0-9]+)*")
_TITLE_RULE = re.compile(r"([=\-~^\"'#*+.:_`])\1{2,}")


class RecipeError(Exception):
    """Something a person must mend: one line that names the file, the cause and the remedy."""

    def __init__(self, file: str | Path, cause: str, remedy: str) -> None:
        self.file, self.cause, self.remedy = str(file), cause, remedy
        super().__init__(f"{file}: {cause}. {remedy}")


@dataclass(frozen=True)
class FrontMatter:
    """What a recipe declares about itself in its PEP 723 block, and nowhere else.

    Attributes
    ----------
    dependencies : tuple of Requirement
        Packages that the recipe imports, without those whose marker leaves this machine out.
    requires_python : SpecifierSet
        Python versions it runs on.
    time_limit_s : int
        Seconds after which a run is ended.
    data : tuple of str
        Files beside the recipe that it reads; they are copied into its working directory and are part of its key.
    order : int
        Position on the learning path, over all galleries, smallest first.
    tags : tuple of str
        Topics, by which a reader filters the cards.
    see_also : tuple of str
        Names of other recipes, to which the end of the page leads.
    expected_warnings : tuple of str
        Parts of warnings that the recipe shows on purpose.
    metrics : dict of str to str
        What its metrics are, for readers of tables, in their order there: name -> a few words.
    """

    dependencies: tuple[Requirement, ...]
    requires_python: SpecifierSet
    time_limit_s: int = DEFAULT_TIME_LIMIT_S
    data: tuple[str, ...] = ()
    order: int = 100
    tags: tuple[str, ...] = ()
    see_also: tuple[str, ...] = ()
    expected_warnings: tuple[str, ...] = ()
    metrics: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Recipe:
    """One recipe, read and checked.

    Attributes
    ----------
    root : Path
        The project's folder.
    path : str
        The file, relative to `root`.
    title, result : str
        The docstring's title and, as reStructuredText, the paragraph below it: what a reader gets, in one line.
    front_matter : FrontMatter
        What the recipe declares about itself.
    blocks : tuple of str
        The texts of its code blocks, in order.
    """

    root: Path
    path: str
    title: str
    result: str
    front_matter: FrontMatter
    blocks: tuple[str, ...] = field(repr=False)

    @property
    def name(self) -> str:
        """The file's stem: names the recipe on the command line, and its run on disk."""
        return Path(self.path).stem

    @property
    def page(self) -> str:
        """The page's name in the site, without suffix: ``recipes/regional_compilation``."""
        return f"{GALLERIES[Path(self.path).parent.as_posix()]}/{self.name}"

    @property
    def data_files(self) -> dict[str, Path]:
        """The declared data files: name in the working directory -> file on disk."""
        return {name: self.root / Path(self.path).parent / name for name in self.front_matter.data}

    def read_data(self) -> dict[str, bytes]:
        """What is in the data files now, by name.

        Raises
        ------
        RecipeError
            If one cannot be read.
        """
        try:
            return {name: file.read_bytes() for name, file in self.data_files.items()}
        except OSError as error:
            raise RecipeError(self.path, f"a data file cannot be read ({error})", "Restore it") from None


def find(root: Path) -> list[Path]:
    """All recipe files under `root`, in no order that means anything; not what editors leave there, such as locks."""
    files = [file for gallery in GALLERIES for file in sorted((root / gallery).glob("*.py"))]
    return [file for file in files if not file.name.startswith(".")]


def load(root: Path, file: Path) -> Recipe:
    """Read and check one recipe.

    Raises
    ------
    RecipeError
        If the file cannot become a page: not readable, not UTF-8, a syntax error, no docstring, no title, bad front
        matter, missing data file, no code.
    """
    path = file.relative_to(root).as_posix()
    try:
        text = file.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except OSError as error:
        raise RecipeError(path, f"cannot be read ({error.strerror})", "Make it a file that you may read") from None
    except UnicodeDecodeError as error:
        raise RecipeError(path, f"not UTF-8 ({error.reason} at byte {error.start})", "Save it as UTF-8") from None
    except SyntaxError as error:
        raise RecipeError(path, f"syntax error in line {error.lineno}: {error.msg}", "Mend that line") from None
    title, result = _title_and_result(path, ast.get_docstring(tree))
    front_matter = parse_front_matter(path, text)
    blocks = split_blocks(file)
    if not blocks:
        raise RecipeError(path, "no code block", "Add code below the docstring")
    recipe = Recipe(root, path, title, result, front_matter, blocks)
    for name, data_file in recipe.data_files.items():
        if not data_file.is_file():
            raise RecipeError(
                path, f"data file '{name}' does not exist", "Add it, or take it out of [tool.recipe] data"
            )
    return recipe


def load_all(root: Path) -> tuple[list[Recipe], dict[str, RecipeError]]:
    """Read every recipe: those that are good, in the order of the learning path, and the others' errors by path."""
    recipes: dict[str, Recipe] = {}
    errors: dict[str, RecipeError] = {}
    seen: dict[str, str] = {}
    for file in find(root):
        path = file.relative_to(root).as_posix()
        try:
            recipes[path] = load(root, file)
        except RecipeError as error:
            errors[path] = error
        if (other := seen.setdefault(file.stem, path)) != path:
            for this, that in ((path, other), (other, path)):
                recipes.pop(this, None)
                errors[this] = RecipeError(this, f"{that} has the same name", "Rename one of the two")
    return sorted(recipes.values(), key=lambda recipe: (recipe.front_matter.order, recipe.name)), errors


def split_blocks(file: Path) -> tuple[str, ...]:
    """The code blocks of a file, as Sphinx-Gallery cuts them (see `code_blocks`)."""
    from sphinx_gallery.py_source_parser import split_code_and_text_blocks  # Slow: it imports Sphinx.

    return code_blocks(split_code_and_text_blocks(file)[1])


def code_blocks(blocks: list[tuple[str, str, int]]) -> tuple[str, ...]:
    """Pick the code out of Sphinx-Gallery's blocks, without the blank lines around it, which belong to the prose."""
    return tuple(content.strip("\n") for kind, content, _ in blocks if kind == "code")


def parse_front_matter(path: str, text: str) -> FrontMatter:
    """Read the PEP 723 block of a recipe's text.

    Raises
    ------
    RecipeError
        If there is none, or a key is missing, unknown or of the wrong type.
    """
    remedy = "See 'Front matter' in README.md"
    found = [match for match in _SCRIPT_BLOCK.finditer(text) if match.group("type") == "script"]
    if len(found) != 1:
        raise RecipeError(path, f"{len(found)} '# /// script' blocks, expected one", remedy)
    lines = found[0].group("content").splitlines()
    try:
        document = tomllib.loads("\n".join(line[2:] for line in lines))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(path, f"front matter is not TOML ({error})", remedy) from None

    tables = document.get("tool", {})
    tool = tables.get("recipe", {}) if isinstance(tables, dict) else None
    if not isinstance(tool, dict):
        raise RecipeError(path, "[tool.recipe] is not a table", remedy)
    for key, value in tool.items():
        if key not in _KEYS:
            raise RecipeError(path, f"unknown key '{key}' in [tool.recipe]", f"Known: {', '.join(_KEYS)}")
        wanted, is_right = _KEYS[key]
        if not is_right(value):
            raise RecipeError(path, f"[tool.recipe] {key} must be {wanted}, is {value!r}", remedy)
    if tool.get("time_limit_s", 1) <= 0:
        raise RecipeError(path, "[tool.recipe] time_limit_s must be more than 0", remedy)
    for tag in tool.get("tags", []):
        if not _TAG.fullmatch(tag):
            raise RecipeError(path, f"bad tag '{tag}'", "Use letters, digits, spaces and hyphens")
    for name in tool.get("data", []):
        if not name or "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise RecipeError(path, f"data file '{name}' lies outside the recipe's folder", "Move it beside the recipe")
    try:
        if not _LIST[1](document["dependencies"]) or not isinstance(document["requires-python"], str):
            raise TypeError("dependencies must be a list of strings, requires-python a string")
        declared = [Requirement(item) for item in document["dependencies"]]
        # `x; sys_platform == "win32"` declares nothing elsewhere.
        dependencies = tuple(one for one in declared if one.marker is None or one.marker.evaluate())
        requires_python = SpecifierSet(document["requires-python"])
    except KeyError as error:
        raise RecipeError(path, f"front matter has no {error}", remedy) from None
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise RecipeError(path, f"front matter has a bad dependency or Python version ({reason})", remedy) from None
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in tool.items()}
    return FrontMatter(dependencies, requires_python, **values)


def _title_and_result(path: str, docstring: str | None) -> tuple[str, str]:
    """The first line of a docstring, which an underline must follow, and the paragraph below."""
    if docstring is None:
        raise RecipeError(path, "no docstring", "Begin with a docstring: title, underline, one sentence")
    lines = docstring.strip().splitlines()
    if len(lines) < 2 or not _TITLE_RULE.fullmatch(lines[1].strip()) or len(lines[1].strip()) < len(lines[0].strip()):
        raise RecipeError(path, "the docstring does not begin with a title", "Underline its first line with ====")
    if "`" in lines[0]:
        raise RecipeError(path, "the title has backticks, which menus show as they are", "Take them out")
    paragraphs = "\n".join(lines[2:]).strip().split("\n\n")
    if not paragraphs[0]:
        raise RecipeError(path, "no sentence below the title", "Say there in one sentence what a reader gets")
    return lines[0].strip(), " ".join(paragraphs[0].split())
