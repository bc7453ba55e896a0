"""The site in a real browser, as a person uses it. Needs Chromium; CI installs it, and must not skip these."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator

import pytest
from conftest import Site

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"),
    reason="no Chromium here; to run the browser tests: apt-get install chromium",
)


@pytest.fixture
def browser() -> Iterator[object]:
    """One headless browser."""
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "CI must have Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def address(site: Site, name: str) -> str:
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
    page.goto(address(two, "recipes/first"))
    assert seeds(page) == [True, False], "the own machine comes first"
    figures = page.get_by_alt_text("Line", exact=True)
    assert [figures.nth(n).is_visible() for n in range(figures.count())] == [True, False]

    page.locator(".sd-tab-label", has_text=re.compile(r"\(other\)")).first.click()
    assert seeds(page) == [False, True]
    assert [figures.nth(n).is_visible() for n in range(figures.count())] == [False, True], "all blocks switched"

    page.goto(address(two, "intermediate/second"))
    assert page.locator("input:checked + .sd-tab-label").all_inner_texts()[0].endswith("(other)"), "the next page too"
    page.goto(address(two, "recipes/first"))
    assert seeds(page) == [False, True]
    assert errors == []


def test_tabs_work_with_the_keyboard(two: Site, browser):
    assert two.build(MACHINE="box").status == 0
    page = browser.new_page()
    page.goto(address(two, "recipes/first"))
    page.locator(".recipe-machines > input").first.focus()
    page.keyboard.press("ArrowRight")
    assert seeds(page) == [False, True]
    page.keyboard.press("ArrowLeft")
    assert seeds(page) == [True, False]


def test_without_javascript_every_panel_is_reachable(two: Site, browser):
    assert two.build(MACHINE="box").status == 0
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(address(two, "recipes/first"))
    page.locator(".sd-tab-label", has_text=re.compile(r"\(other\)")).first.click()
    assert seeds(page) == [False, True]


def test_print_shows_every_panel(two: Site, browser):
    assert two.build(MACHINE="box").status == 0
    page = browser.new_page()
    page.goto(address(two, "recipes/first"))
    page.emulate_media(media="print")
    assert seeds(page) == [True, True]
    labels = page.locator(".sd-tab-label")
    assert all(labels.nth(n).is_visible() for n in range(labels.count()))
