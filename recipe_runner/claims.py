"""The claims of runs: exact ones, which are assertions, and measured ones, which a machine may refute."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from recipe_runner.collection import Shown, labels
from recipe_runner.record import Record
from recipe_runner.render import plain


def claims_rst(records: Sequence[Record]) -> str:
    """A list of all claims: those that a run must keep to pass, then those that a machine may refute."""
    label_of = labels(records)
    everywhere = ", ".join(f"held on {plain(label)}" for label in label_of.values())
    exact = {sentence: None for record in records for sentence in exact_claims(record.run.blocks)}
    lines = [f"- {plain(sentence)}: {everywhere}." for sentence in exact]
    for sentence in measured_claims(records):
        states = [
            f"{'held' if run.claims[sentence] else '**did not hold**'} on {plain(label_of[run.machine.name])}"
            for run in (record.run for record in records)
            if sentence in run.claims
        ]
        lines.append(f"- {plain(sentence)}: {', '.join(states)}.")
    return "\n".join(lines) + "\n" if lines else ""


def measured_claims(records: Sequence[Record]) -> list[str]:
    """The sentences of ``claims`` in some runs of the same code, as they come in the code; others last."""
    nodes = [node for block in records[0].run.blocks for node in _constants(block)] if records else []
    places = {node.value: place for place, node in reversed(list(enumerate(nodes)))}
    sentences = dict.fromkeys(sentence for record in records for sentence in record.run.claims)
    return sorted(sentences, key=lambda sentence: places.get(sentence, len(nodes)))


def _constants(block: str) -> list[ast.Constant]:
    """A block's constants, in the order of its text."""
    found = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Constant)]
    return sorted(found, key=lambda node: (node.lineno, node.col_offset))


def exact_claims(blocks: Sequence[str]) -> list[str]:
    """The sentences of a recipe's own ``assert condition, "sentence"`` lines: a run that passed has kept them.

    Only those that every run reaches: not in a function, which may never be called, nor in a branch. The body of a loop
    counts as reached: whether it is empty is not looked at.
    """
    return [
        node.msg.value
        for block in blocks
        for node in _always_reached(ast.parse(block).body)
        if isinstance(node, ast.Assert) and isinstance(node.msg, ast.Constant) and type(node.msg.value) is str
    ]


def _always_reached(statements: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """These statements, and those within ``with`` and ``for``."""
    for statement in statements:
        yield statement
        if isinstance(statement, ast.With | ast.For):
            yield from _always_reached(statement.body)


def refuted_rst(all_shown: Sequence[Shown]) -> str:
    """A list of the claims that some run refuted, each with its page and the machines where it did not hold."""
    lines = []
    for shown in all_shown:
        label_of = labels(shown.passed)
        for sentence in measured_claims(shown.passed):
            places = [label_of[r.run.machine.name] for r in shown.passed if r.run.claims.get(sentence) is False]
            if places:
                page = f":doc:`{shown.recipe.title} </{shown.recipe.page}>`"
                lines.append(f"- {page}: {plain(sentence)} ({', '.join(map(plain, places))})")
    return "\n".join(lines or ["Every claim held on every machine."]) + "\n"
