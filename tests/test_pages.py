"""Every page and file of the whole site: accessible, quiet, linked, light; in a real browser where it takes one."""

from __future__ import annotations

import gzip
import importlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import nbformat
import pytest
from chromium import needs_chromium, pages, policy, served, watched
from conftest import PREFIX, PROJECT, ROOT, Site

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


def test_a_replay_with_addresses_is_verified(whole: Site):
    done = whole.command("verify")
    assert (done.status, done.errors) == (0, []), done.output


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_page_is_accessible_fits_and_is_quiet(browser, address: str, html: Path, size: str, scheme: str):
    from axe_playwright_python.base import AXE_SCRIPT

    width, height = SIZES[size]
    # The policy forbids a test's script as it forbids anybody's; pages under the policy are visited in another test.
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, base_url=address, bypass_csp=True
    )
    found = []
    for name in pages(html):
        page = context.new_page()
        wrong = watched(page, address)
        page.goto(name, wait_until="networkidle")
        found += [f"{name}: {line}" for line in wrong]  # Before axe, which asks for style sheets itself.
        page.evaluate(AXE_SCRIPT)
        result = page.evaluate(
            "tags => axe.run({runOnly: {type: 'tag', values: tags}, resultTypes: ['violations']})", RULES
        )
        assert result["passes"], "axe ran"
        for violation in result["violations"]:
            found += [f"{name}: {violation['id']}: {node['html'][:150]}" for node in violation["nodes"]]
        over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        found += [f"{name}: {over} pixels too wide"] if over > 0 else []
        # A scroll bar is not drawn until it is used: a reader would take the visible part for all.
        cut = page.locator("div.highlight pre").evaluate_all(
            "boxes => boxes.filter(b => b.scrollHeight > b.clientHeight + 1).map(b => b.textContent.slice(0, 80))"
        )
        found += [f"{name}: shown in part: {text!r}" for text in cut]
        page.close()
    context.close()
    assert found == []


@needs_chromium
def test_every_page_works_under_the_policy(page, html: Path):
    for name in pages(html):
        page.goto(name)
        page.wait_for_function("document.documentElement.dataset.theme !== 'auto'")
    assert page.wrong == []


@needs_chromium
def test_the_policy_has_nothing_that_is_not_needed(browser, html: Path):
    hashes = re.findall(r"'sha256-[^']+'", policy())
    assert len(hashes) == 4
    for needless in hashes:
        with served(html, PREFIX, policy().replace(needless, "")) as address:
            page = browser.new_page()
            wrong = watched(page, address)
            page.goto(f"{address}search.html?q=regional")
            page.locator("#search-results li").first.wait_for()
            page.wait_for_timeout(300)
            page.close()
        assert wrong, f"{needless} is not needed any more: take it out of CONTRIBUTING.md"


@needs_chromium
def test_the_site_works_from_the_disk(browser, html: Path):
    page = browser.new_page()
    wrong = watched(page, "file://")
    for name in pages(html):
        if name != "404.html":  # Its addresses are those of the published site.
            page.goto((html / name).as_uri())
    page.goto((html / "index.html").as_uri())
    page.get_by_role("button", name="optimizer", exact=True).click()
    assert page.locator(".recipe-cards .sd-col:visible").count() == 1
    assert wrong == []
    # The search finds, too. Its excerpts need a server: a browser lets no page read other files of the disk.
    page.goto((html / "search.html").as_uri() + "?q=recompilation")
    page.locator("#search-results li").first.wait_for()
    page.close()


@needs_chromium
def test_without_javascript_there_are_all_cards_and_no_filter(browser, address: str):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(address)
    assert page.locator(".recipe-cards .sd-col").count() == page.locator(".recipe-cards .sd-col:visible").count() > 1
    assert page.get_by_role("status").count() == 0


def test_next_and_previous_follow_the_learning_path(whole: Site):
    from recipe_runner.recipe import load_all

    path = ["index", *(recipe.page for recipe in load_all(whole.root)[0]), "results"]
    for here, there in itertools.pairwise(path):
        for page, kind, other in ((here, "right-next", there), (there, "left-prev", here)):
            target = re.search(rf'class="{kind}"\s+href="([^"]+)"', whole.page(page)).group(1)
            assert os.path.normpath(f"{Path(page).parent}/{target}") == f"{other}.html", (page, target)


def test_all_links_lead_somewhere(html: Path):
    options = ["--offline", "--include-fragments", "--no-progress", "--root-dir", html, "--exclude-path", "404.html"]
    done = subprocess.run(
        [Path(sys.executable).parent / "lychee", *options, *[html / name for name in pages(html)]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and re.search(r"[1-9]\d* OK", done.stdout), done.stdout + done.stderr


def test_addresses_are_absolute_where_they_must_be(whole: Site, html: Path):
    base = f"https://example.org{PREFIX}"
    sitemap = [e.text for e in ET.parse(html / "sitemap.xml").getroot().iter() if e.tag.endswith("loc")]
    assert sorted(sitemap) == [base + name for name in pages(html) if name not in ("404.html", "search.html")]
    for name in ("index", "recipes/index", "recipes/regional_compilation", "results"):
        text = whole.page(name)
        assert f'<meta property="og:url" content="{base}{name}.html"' in text
        assert f'<link rel="canonical" href="{base}{name}.html"' in text
        assert re.search(r'<meta property="og:title" content="[^"]+"', text)
        assert len(re.findall(r'<meta [^>]*name="description"', text)) == 1
    image = re.search(r'og:image" content="([^"]+)"', whole.page("recipes/regional_compilation")).group(1)
    assert (html / image.removeprefix(base)).is_file()


def test_without_addresses_there_are_no_links_to_a_repository(site: Site):
    assert site.build().status == 0
    text = site.page("recipes/first")
    assert "colab" not in text and "github.com" not in text and "canonical" not in text
    assert not (site.root / "_build/html/sitemap.xml").exists()
    assert "/_static/" in site.page("404")


@pytest.mark.parametrize("setting", ["SITE_URL=example.org", "SITE_URL=https://a.b/?x", "REPOSITORY=owner/name"])
def test_a_bad_address_is_refused_before_anything_runs(site: Site, setting: str):
    name, _, value = setting.partition("=")
    done = site.build(**{name: value})
    assert (done.status, len(done.errors), done.ran) == (1, 1, [])
    assert setting in done.errors[0]


def test_the_colab_link_opens_the_notebook_of_the_page(whole: Site, html: Path):
    text = whole.page("recipes/regional_compilation")
    link = re.search(rf'href="https://colab.research.google.com/github/{PROJECT}/blob/gh-pages/([^"]+)"', text)
    assert (html / link.group(1)).is_file()
    assert f'href="https://github.com/{PROJECT}/edit/main/recipes_source/regional_compilation.py"' in text


def test_no_page_is_too_heavy(html: Path):
    for name in pages(html):
        assert len(gzip.compress((html / name).read_bytes())) < 150 * 1024, name


def test_names_of_pytorch_link_to_its_documentation(whole: Site):
    """Every name in the inventory exists, and is used: a dead line would mislead the next who adds one."""
    names = [line.split()[0] for line in (ROOT / "inventories/torch.txt").read_text().splitlines()[3:]]
    assert names == sorted(set(names))
    pages = "".join(file.read_text(encoding="utf-8") for file in (whole.root / "_build/html").glob("*/*.html"))
    for name in names:
        thing = importlib.import_module("torch")
        for part in name.split(".")[1:]:
            if not hasattr(thing, part):
                importlib.import_module(f"{thing.__name__}.{part}")
            thing = getattr(thing, part)
        assert f'html#{name}"' in pages, f"{name} is linked on no page"


@pytest.mark.parametrize("name", ["custom_backend_inspection", "torchscript_fx_comparison"])
def test_a_downloaded_notebook_runs_from_top_to_bottom(whole: Site, name: str, tmp_path: Path):
    (download,) = (whole.root / "_build/html/_downloads").glob(f"*/{name}.ipynb")
    shutil.copy(download, tmp_path)
    done = subprocess.run(
        [Path(sys.executable).parent / "jupyter", "execute", f"{name}.ipynb", "--inplace"],
        cwd=tmp_path,
        env=os.environ | {"IPYTHONDIR": str(tmp_path / "ipython"), "MPLBACKEND": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    before, after = (nbformat.read(file, as_version=4) for file in (download, tmp_path / f"{name}.ipynb"))

    def kinds(notebook) -> list[set[str]]:
        """What kinds of output each cell has; how often a stream is cut depends on the moment."""
        return [{output["output_type"] for output in cell.get("outputs", ())} for cell in notebook.cells]

    assert kinds(before) == kinds(after), "the same outputs as on the page"


def test_notebooks_begin_with_what_they_need_and_name_their_machine(whole: Site):
    for download in (whole.root / "_build/html/_downloads").glob("*/*.ipynb"):
        if not list((whole.root / "results").glob(f"*/{download.name}")):
            continue  # A new recipe, not recorded yet.
        notebook = nbformat.read(download, as_version=4)
        first, head = notebook.cells[:2]
        assert first.cell_type == "code" and all(line.startswith("#") for line in first.source.splitlines())
        assert "%pip install" in first.source
        assert head.source.lstrip().startswith("# ") and "**The outputs below:** ran on **" in head.source
