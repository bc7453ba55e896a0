"""Recipe files: front matter, titles, blocks, and what is refused."""

from __future__ import annotations

import ast
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from conftest import ROOT
from packaging.utils import canonicalize_name

from recipe_runner.recipe import Recipe, RecipeError, load, load_all, parse_front_matter

HEAD = '# /// script\n# requires-python = ">=3.11"\n# dependencies = ["torch>=2.11", "numpy"]\n'
GOOD = HEAD + '# ///\n"""\nTitle\n=====\n\nSentence.\n"""\nprint(1)\n'


def write(root: Path, text: str | bytes, name: str = "recipes_source/x.py") -> Path:
    file = root / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_front_matter_is_read():
    text = GOOD.replace(
        '# ///\n"""', '# [tool.recipe]\n# time_limit_s = 7\n# order = 3\n# data = ["a.csv"]\n# ///\n"""'
    )
    front = parse_front_matter("x.py", text)
    assert [requirement.name for requirement in front.dependencies] == ["torch", "numpy"]
    assert (front.time_limit_s, front.order, front.data) == (7, 3, ("a.csv",))
    assert "3.12.0" in front.requires_python


def test_blocks_are_cut_at_the_marks_and_lose_blank_lines_around_them(tmp_path: Path):
    file = write(tmp_path, GOOD + "\n\n# %%\n# Prose.\n\n\nx = 2\n\n# %%\n# More.\nx\n")
    assert load(tmp_path, file).blocks == ("print(1)", "x = 2", "x")


def test_extra_blank_lines_and_prose_do_not_change_the_blocks(tmp_path: Path):
    before = load(tmp_path, write(tmp_path, GOOD + "# %%\n# Prose.\nx = 2\n")).blocks
    assert load(tmp_path, write(tmp_path, GOOD + "# %%\n# Other prose,\n# longer.\n\n\nx = 2\n\n")).blocks == before


def test_recipes_come_in_the_order_of_the_learning_path(tmp_path: Path):
    late = GOOD.replace('# ///\n"""', '# [tool.recipe]\n# order = 9\n# ///\n"""')
    write(tmp_path, late.replace("9", "8"), "recipes_source/a.py")
    write(tmp_path, late.replace("9", "1"), "recipes_source/b.py")
    write(tmp_path, late, "intermediate_source/c.py")
    assert [recipe.name for recipe in load_all(tmp_path)[0]] == ["b", "a", "c"]


def test_a_dependency_that_is_meant_for_others_is_left_out():
    text = GOOD.replace('"numpy"', "\"pywin32; sys_platform == 'win32'\", \"numpy; python_version >= '3'\"")
    assert [one.name for one in parse_front_matter("x.py", text).dependencies] == ["torch", "numpy"]


def test_what_editors_leave_is_no_recipe(tmp_path: Path):
    write(tmp_path, GOOD)
    (tmp_path / "recipes_source/.#x.py").symlink_to("someone@host.1234:5678")  # The lock of Emacs.
    recipes, errors = load_all(tmp_path)
    assert [recipe.name for recipe in recipes] == ["x"] and not errors
    (tmp_path / "recipes_source/gone.py").symlink_to("nowhere")
    assert "cannot be read (No such file" in str(load_all(tmp_path)[1]["recipes_source/gone.py"])


BAD = {
    "no docstring": (HEAD + "# ///\nprint(1)\n", "no docstring"),
    "no title": (GOOD.replace("=====\n", ""), "does not begin with a title"),
    "short underline": (GOOD.replace("=====\n", "===\n"), "does not begin with a title"),
    "backticks": (GOOD.replace("Title\n=====", "``Title``\n========="), "backticks"),
    "syntax error": (GOOD + "def f(:\n", "syntax error in line 12"),
    "not UTF-8": (GOOD.encode() + b"# \xff\n", "not UTF-8"),
    "no code": (GOOD.replace("print(1)\n", ""), "no code block"),
    "no front matter": (GOOD.partition("# ///\n")[2], "0 '# /// script' blocks"),
    "broken TOML": (GOOD.replace('">=3.11"', '">=3.11'), "not TOML"),
    "no dependencies": (GOOD.replace("dependencies", "requirements"), "no 'dependencies'"),
    "bad dependency": (GOOD.replace("torch>=2.11", "torch>>2"), "bad dependency"),
    "bad Python": (GOOD.replace('">=3.11"', '"three"'), "bad dependency or Python version"),
    "unknown key": (GOOD.replace('# ///\n"""', '# [tool.recipe]\n# skip = true\n# ///\n"""'), "unknown key 'skip'"),
    "a tool that is no table": (GOOD.replace('# ///\n"""', '# [tool]\n# recipe = 3\n# ///\n"""'), "is not a table"),
    "dependencies as one string": (GOOD.replace('["torch>=2.11", "numpy"]', '"torch"'), "must be a list of strings"),
    "metrics with a sign for words": (
        GOOD.replace('# ///\n"""', '# [tool.recipe.metrics]\n# call_ms = "----"\n# ///\n"""'),
        'must be a table of name = "a few words"',
    ),
    "metrics without words": (
        GOOD.replace('# ///\n"""', '# [tool.recipe.metrics]\n# call_ms = 3\n# ///\n"""'),
        'must be a table of name = "a few words"',
    ),
    "a marker without a meaning": (GOOD.replace("torch>=2.11", "torch; sys_platform ~= 'a'"), "bad dependency"),
    "wrong type": (GOOD.replace('# ///\n"""', '# [tool.recipe]\n# order = "1"\n# ///\n"""'), "must be a whole number"),
    "no time": (GOOD.replace('# ///\n"""', '# [tool.recipe]\n# time_limit_s = 0\n# ///\n"""'), "more than 0"),
    "data elsewhere": (GOOD.replace('# ///\n"""', '# [tool.recipe]\n# data = ["../a"]\n# ///\n"""'), "outside"),
    "data missing": (GOOD.replace('# ///\n"""', '# [tool.recipe]\n# data = ["a"]\n# ///\n"""'), "does not exist"),
}


@pytest.mark.parametrize(("text", "cause"), BAD.values(), ids=BAD.keys())
def test_bad_recipe_is_refused_in_one_line(tmp_path: Path, text: str | bytes, cause: str):
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, write(tmp_path, text))
    line = str(caught.value)
    assert cause in line
    assert line.startswith("recipes_source/x.py: ")
    assert "\n" not in line and caught.value.remedy


def test_two_recipes_of_one_name_are_both_refused(tmp_path: Path):
    write(tmp_path, GOOD, "recipes_source/x.py")
    write(tmp_path, GOOD, "intermediate_source/x.py")
    write(tmp_path, GOOD, "recipes_source/y.py")
    recipes, errors = load_all(tmp_path)
    assert [recipe.path for recipe in recipes] == ["recipes_source/y.py"]
    assert sorted(errors) == ["intermediate_source/x.py", "recipes_source/x.py"]
    assert "recipes_source/x.py has the same name" in str(errors["intermediate_source/x.py"])


@pytest.mark.parametrize("recipe", load_all(ROOT)[0], ids=lambda recipe: recipe.name)
def test_a_recipe_declares_what_it_imports(recipe: Recipe):
    imported = set()
    for node in ast.walk(ast.parse((ROOT / recipe.path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.partition(".")[0])
    declared = {canonicalize_name(one.name) for one in recipe.front_matter.dependencies}
    packages = packages_distributions()
    missing = {
        module
        for module in imported - sys.stdlib_module_names
        if not declared & {canonicalize_name(package) for package in packages.get(module, [module])}
    }
    assert missing == set()


def test_the_recipes_of_this_site_are_good():
    recipes, errors = load_all(ROOT)
    assert not errors
    # The mission's minimum: a recipe that vanishes must not go unnoticed.
    assert {
        "torch_compile_tutorial",
        "fabric_compile",
        "accelerate_compile",
        "regional_compilation",
        "custom_backend_inspection",
        "compiling_optimizer",
        "torchscript_fx_comparison",
    } <= {recipe.name for recipe in recipes}
