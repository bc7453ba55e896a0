"""How outputs and code look on a page."""

from __future__ import annotations

import pytest

from recipe_runner.render import block_rst, fold_bookkeeping


def test_code_that_fills_metrics_is_folded_and_no_other():
    code = ".. code-block:: Python\n\n\n    x = 1\n\n    print(x)\n\n\nProse.\n"
    filling = code.replace("x = 1", "metrics = {'a_s': x}")
    assert fold_bookkeeping(code) == code
    folded = fold_bookkeeping(code + filling)
    asserting = filling.replace("print(x)", "assert x")
    assert fold_bookkeeping(asserting) == asserting
    assert folded.startswith(code) and folded.count(".. dropdown:: Code") == 1
    assert "\n       metrics = {'a_s': x}\n" in folded and folded.endswith("\nProse.\n")


@pytest.mark.parametrize(
    ("text", "wraps"),
    [
        ("graphs: 3\nThe second call is faster.", True),
        ("RuntimeError:\n    it is indented", True),
        ("name    graphs\n------  ------\nfull         1", False),
        ("a\tb", False),
    ],
)
def test_sentences_wrap_and_tables_do_not(text: str, wraps: bool):
    output = {"output_type": "stream", "name": "stdout", "text": text}
    assert (" recipe-words" in block_rst([output], lambda png: "")) == wraps
