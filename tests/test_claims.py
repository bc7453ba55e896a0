"""Claims on pages: which assertions are listed as kept, and which claims as refuted."""

from __future__ import annotations

import re

from conftest import Site

from recipe_runner.claims import exact_claims


def test_assertions_that_every_run_reaches_are_claims():
    block = "assert 1, 'alone'\nfor x in y:\n    assert x, 'in a loop'\n"
    block += "with z:\n    for x in y:\n        assert x, 'deep'"
    assert exact_claims([block, "assert 2, 'second block'"]) == ["alone", "in a loop", "deep", "second block"]


def test_assertions_that_a_run_may_not_reach_are_none():
    places = ["if x:\n    {}", "def f():\n    {}", "try:\n    {}\nexcept E:\n    {}", "while x:\n    {}", "lambda: 0"]
    assert exact_claims([place.replace("{}", "assert 1, 'perhaps'") for place in places]) == []
    assert exact_claims(["assert 1", "assert 1, f'{x}'"]) == []


def test_the_page_of_results_lists_what_did_not_hold(two: Site):
    assert two.build(MACHINE="box").status == 0
    section = re.search(r'<section id="what-did-not-hold">.*?</section>', two.page("results"), re.DOTALL).group()
    items = [re.sub(r"<[^>]+>", "", item) for item in re.findall(r"<li>.*?</li>", section, re.DOTALL)]
    assert len(items) == 1 and re.fullmatch(r"First: the other machine runs this \(.*\(box\)\)", items[0].strip())


def test_where_all_holds_the_page_of_results_says_so(site: Site):
    assert site.build(MACHINE="other").status == 0
    assert "Every claim held on every machine." in site.page("results")
