"""What appears with other machines, long outputs and failures, in a real browser. Needs Chromium."""

from __future__ import annotations

import re

import pytest
from chromium import needs_chromium
from conftest import Site

pytestmark = needs_chromium


def page_address(site: Site, name: str) -> str:
    return (site.root / "_build" / "html" / f"{name}.html").as_uri()


def seeds(page) -> list[bool]:
    """Whether the outputs of the own and of the other machine are visible."""
    return [page.get_by_text(f"seed {number}", exact=True).is_visible() for number in (3, 5)]


def test_tabs_switch_together_and_stay_on_the_choice(two: Site, browser):
    assert two.build(MACHINE="box").status == 0
    page = browser.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(page_address(two, "recipes/first"))
    assert seeds(page) == [True, False], "the own machine comes first"
    figures = page.get_by_alt_text("Line", exact=True)
    assert [figures.nth(n).is_visible() for n in range(figures.count())] == [True, False]

    page.locator(".sd-tab-label", has_text=re.compile(r"\(other\)")).first.click()
    assert seeds(page) == [False, True]
    assert [figures.nth(n).is_visible() for n in range(figures.count())] == [False, True], "all blocks switched"

    page.goto(page_address(two, "intermediate/second"))
    assert page.locator("input:checked + .sd-tab-label").all_inner_texts()[0].endswith("(other)"), "the next page too"
    page.goto(page_address(two, "recipes/first"))
    assert seeds(page) == [False, True]
    assert errors == []


def test_tabs_work_with_the_keyboard(two: Site, browser):
    assert two.build(MACHINE="box").status == 0
    page = browser.new_page()
    page.goto(page_address(two, "recipes/first"))
    page.locator(".recipe-machines > input").first.focus()
    page.keyboard.press("ArrowRight")
    assert seeds(page) == [False, True]
    page.keyboard.press("ArrowLeft")
    assert seeds(page) == [True, False]


def test_without_javascript_every_panel_is_reachable(two: Site, browser):
    assert two.build(MACHINE="box").status == 0
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(page_address(two, "recipes/first"))
    page.locator(".sd-tab-label", has_text=re.compile(r"\(other\)")).first.click()
    assert seeds(page) == [False, True]


def test_print_shows_every_panel(two: Site, browser):
    assert two.build(MACHINE="box").status == 0
    page = browser.new_page()
    page.goto(page_address(two, "recipes/first"))
    page.emulate_media(media="print")
    assert seeds(page) == [True, True]
    labels = page.locator(".sd-tab-label")
    assert all(labels.nth(n).is_visible() for n in range(labels.count()))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_tabs_folds_and_notices_are_accessible(two: Site, browser, scheme: str):
    from axe_playwright_python.base import AXE_SCRIPT

    two.write("recipes_source/long.py", "for n in range(41):\n    print('line', n)", "1 / 0")
    two.write("recipes_source/bad.py", "def")
    assert two.build(MACHINE="box").status == 1
    context = browser.new_context(color_scheme=scheme)
    for name in ("recipes/first", "recipes/long", "recipes/bad", "recipes/index"):
        page = context.new_page()
        page.goto(page_address(two, name))
        for fold in page.locator("details").all():
            fold.locator("summary").click()
        page.evaluate(AXE_SCRIPT)
        found = page.evaluate("axe.run({preload: false, resultTypes: ['violations']})")["violations"]
        assert [(name, v["id"], n["html"][:200]) for v in found for n in v["nodes"]] == []
        page.close()


def test_long_output_is_folded_on_the_screen_and_whole_on_paper(site: Site, browser):
    site.write("recipes_source/first.py", "for n in range(40):\n    print('short', n)")
    site.write("recipes_source/third.py", "for n in range(41):\n    print('long', n)")
    assert site.build().status == 0
    page = browser.new_page()
    page.goto(page_address(site, "recipes/first"))
    assert page.get_by_text("short 39").is_visible() and page.locator("details").count() == 0
    page.goto(page_address(site, "recipes/third"))
    last = page.get_by_text("long 40")
    assert not last.is_visible()
    page.emulate_media(media="print")
    assert last.is_visible()
    page.emulate_media(media="screen")
    summary = page.get_by_text("Output of 41 lines")
    summary.focus()
    page.locator("details summary").focus()
    page.keyboard.press("Enter")
    assert last.is_visible()
