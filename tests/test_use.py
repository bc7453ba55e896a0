"""The whole site as a person uses it: search, filter, copy, download, keyboard, paper. In a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from chromium import needs_chromium
from conftest import Site

pytestmark = needs_chromium


def test_search_with_the_keyboard(page):
    page.goto("index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("cold starts")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=*")
    result = page.locator("#search-results a", has_text="Shorter cold starts").first
    result.wait_for()
    result.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/recipes/regional_compilation.html*")
    assert page.locator("span.highlighted").count() > 0, "the words are marked"


def test_the_cards_are_filtered_by_keyboard_and_come_back_with_back(page):
    page.goto("index.html")
    cards = page.locator(".recipe-cards .sd-col:visible")
    everything = cards.count()
    button = page.get_by_role("button", name="cold start", exact=True)
    button.focus()
    page.keyboard.press("Space")
    some = cards.count()
    assert 0 < some < everything and button.get_attribute("aria-pressed") == "true"
    assert page.get_by_role("status").inner_text() == f"{some} of {everything} pages"
    for n in range(some):
        assert "cold start" in cards.nth(n).inner_text()

    cards.first.click()
    page.wait_for_url("**/recipes/*.html")
    page.go_back()
    page.get_by_role("status").wait_for()
    assert cards.count() == some, "the choice stands in the address"
    page.get_by_role("button", name="cold start", exact=True).click()
    assert cards.count() == everything


def test_the_copy_button_copies_the_code(page, address: str):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address.rstrip("/").rsplit("/", 1)[0])
    page.goto("recipes/regional_compilation.html")
    block = page.locator("div.highlight-Python").first
    block.hover()
    block.locator("button.copybtn").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.strip() == block.locator("pre").inner_text().strip() and "import torch" in copied


def test_the_downloads_are_what_they_say(page, whole: Site, tmp_path: Path):
    page.goto("recipes/regional_compilation.html")
    for text, suffix in (("notebook with these outputs", "ipynb"), ("script", "py")):
        with page.expect_download() as started:
            page.locator(".recipe-facts").get_by_role("link", name=text).click()
        assert started.value.suggested_filename == f"regional_compilation.{suffix}"
        started.value.save_as(tmp_path / f"it.{suffix}")
    assert (tmp_path / "it.py").read_bytes() == (whole.root / "recipes_source/regional_compilation.py").read_bytes()
    notebook = nbformat.read(tmp_path / "it.ipynb", as_version=4)
    assert sum(len(cell.get("outputs", ())) for cell in notebook.cells) > 5


def test_a_missing_address_gets_a_page_whose_links_work(page, address: str):
    page.goto("index.html")
    response = page.goto("recipes/gone/away.html")
    assert response.status == 404 and page.locator("h1").inner_text().startswith("Page not found")
    links = page.locator("a[href]").evaluate_all("links => [...new Set(links.map(link => link.href.split('#')[0]))]")
    inside = [link for link in links if link.startswith(address) and link != page.url]
    assert len(inside) >= 4
    for link in inside:
        assert page.request.get(link).status == 200, link
    page.wrong.clear()  # The browser reports the 404 that was asked for.
    page.get_by_role("link", name="Recipes").first.click()
    assert page.locator("h1").inner_text().startswith("Recipes")


def test_light_and_dark_can_be_chosen_and_stay(page):
    page.goto("index.html")
    seen = set()
    for _ in range(3):
        page.get_by_role("button", name="Color mode").first.click()
        page.locator(
            ".theme-switch-container button, .dropdown-menu button", has_text=re.compile("Dark|Light|Auto|System")
        )
        options = page.locator("[data-mode-value], .theme-switch-item, .dropdown-item:visible")
        options.nth(len(seen)).click()
        seen.add(page.evaluate("document.documentElement.dataset.mode"))
    assert seen == {"light", "dark", "auto"}
    last = page.evaluate("document.documentElement.dataset.mode")
    page.goto("results.html")
    assert page.evaluate("document.documentElement.dataset.mode") == last


def test_the_keyboard_reaches_what_a_page_offers(page):
    page.goto("recipes/compiling_optimizer.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent.trim()") == "Skip to main content"
    page.keyboard.press("Enter")
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim().replace(/\\s+/g, ' ')"))
    for wanted in ("notebook with these outputs", "script", "Open in Colab", "Edit this page"):
        assert wanted in reached, wanted


def test_paper_has_the_text_and_no_controls(page):
    page.goto("recipes/regional_compilation.html")
    page.emulate_media(media="print")
    for controls in (".bd-header", ".bd-sidebar-primary", ".bd-sidebar-secondary", ".copybtn", ".prev-next-footer"):
        found = page.locator(controls)
        assert found.count() > 0, controls
        assert not any(found.nth(n).is_visible() for n in range(found.count())), controls
    assert page.locator("div.highlight-Python").last.is_visible()
    assert page.locator(".recipe-facts").is_visible()
