"""Known limits are written down in one place: what is private and used anywhere is listed there, and nothing else."""

from __future__ import annotations

import ast
import re

from conftest import ROOT

from recipe_runner.run import UNITS

LIMITS = (ROOT / "LIMITS.md").read_text(encoding="utf-8")
SOURCES = [
    file
    for folder in ("recipe_runner", "recipes_source", "intermediate_source")
    for file in (ROOT / folder).glob("*.py")
]


def dotted(node: ast.AST) -> str:
    """``a.b.c`` of an expression; only the last names of one that does not begin with a name."""
    if isinstance(node, ast.Attribute):
        head = dotted(node.value)
        return f"{head}.{node.attr}" if head else node.attr
    return node.id if isinstance(node, ast.Name) else ""


def is_private(part: str) -> bool:
    return part.startswith("_") and not part.startswith("__") and part != "_"


def private_names(text: str) -> set[str]:
    """Names with a private part that code uses and does not define itself: attributes, imports, keywords, texts."""
    tree = ast.parse(text)
    modules = {
        a.asname or a.name.partition(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names
    }
    own = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and dotted(n) == f"self.{n.attr}"}
    own |= {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            name = dotted(node)
            if name.partition(".")[0] in modules:
                found.add(name)
            elif node.attr not in own:
                found.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and any(map(is_private, (node.module or "").split("."))):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.keyword) and is_private(node.arg or ""):
            found.add(node.arg)
        elif isinstance(node, ast.Constant) and re.match(r"\s*(import \w|from \S+ import )", str(node.value)):
            found |= private_names(node.value)  # A script that a recipe writes to a file.
        elif isinstance(node, ast.Constant) and re.fullmatch(r"_[a-z]+(_[a-z]+)+(\.\w+)*", str(node.value)):
            # A name that is looked up, as in a state_dict; what ends in a unit is part of a metric's name.
            found |= set() if node.value.endswith(UNITS) else {node.value.partition(".")[0]}
    # `torch._dynamo.explain`: the private part is in the middle.
    chains = {dotted(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    chains = {c for c in chains if c.partition(".")[0] in modules and any(map(is_private, c.split(".")[:-1]))}
    found |= {c for c in chains if not any(other.startswith(f"{c}.") for other in chains)}
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)}


def test_every_private_name_is_listed_with_the_file_that_uses_it_and_no_other():
    table = dict(re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", LIMITS, re.MULTILINE))
    used: dict[str, set[str]] = {}
    for file in SOURCES:
        for name in private_names(file.read_text(encoding="utf-8")):
            used.setdefault(name, set()).add(file.stem)
    assert {name: set(re.findall(r"`(\w+)`", where)) for name, where in table.items()} == used
