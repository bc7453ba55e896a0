"""Where the site will be, and where its sources are: two addresses from the environment, both optional.

``SITE_URL`` gives absolute addresses to the sitemap, to Open Graph and to the page for missing addresses.
``REPOSITORY`` gives each recipe an edit link and a Colab link. Without them a page has none of these.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from recipe_runner.recipe import Recipe, RecipeError

if TYPE_CHECKING:  # The command line reads the addresses too, and starts faster without Sphinx.
    from sphinx.application import Sphinx
    from sphinx.config import Config

#: The branch that recipes are edited on, and the one that holds the published site, which Colab reads.
SOURCE_BRANCH, SITE_BRANCH = "main", "gh-pages"

_GITHUB = re.compile(r"https://github\.com/(?P<project>[\w.-]+/[\w.-]+?)(\.git)?/?")


@dataclass(frozen=True)
class Addresses:
    """The site's address, ending in a slash, and the repository's ``owner/name`` on GitHub; each may be empty."""

    site: str = ""
    project: str = ""

    def links(self, recipe: Recipe) -> list[tuple[str, str]]:
        """Text and address of what a page offers beside its downloads."""
        if not self.project:
            return []
        # Sphinx keeps a download in a folder named after its path.
        download = f"{recipe.page}.ipynb"
        folder = hashlib.md5(download.encode(), usedforsecurity=False).hexdigest()
        notebook = f"{SITE_BRANCH}/_downloads/{folder}/{recipe.name}.ipynb"
        return [
            ("Open in Colab", f"https://colab.research.google.com/github/{self.project}/blob/{notebook}"),
            ("Edit this page", f"https://github.com/{self.project}/edit/{SOURCE_BRANCH}/{recipe.path}"),
        ]


def from_environment() -> Addresses:
    """Read ``SITE_URL`` and ``REPOSITORY``.

    Raises
    ------
    RecipeError
        If one of them is set and is not an address that can be used.
    """
    site, repository = os.environ.get("SITE_URL", ""), os.environ.get("REPOSITORY", "")
    try:
        parts = urlsplit(site)
    except ValueError:  # A bracket without its pair, as in "http://[::1".
        parts = urlsplit("")
    if site and (parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment):
        remedy = "Give the address of the front page, such as https://example.org/compile/"
        raise RecipeError(f"SITE_URL={site}", "not the address of a site", remedy)
    found = _GITHUB.fullmatch(repository)
    if repository and not found:
        remedy = "Give https://github.com/owner/name, or leave REPOSITORY out"
        raise RecipeError(f"REPOSITORY={repository}", "not a repository on GitHub", remedy)
    return Addresses(site.rstrip("/") + "/" if site else "", found.group("project") if found else "")


def _configure(app: Sphinx, config: Config) -> None:
    site = from_environment().site
    config.html_baseurl = config.ogp_site_url = site
    config.notfound_urls_prefix = urlsplit(site).path or "/"


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx calls this."""
    app.setup_extension("notfound.extension")
    app.setup_extension("sphinxext.opengraph")
    if from_environment().site:
        app.setup_extension("sphinx_sitemap")  # It complains where there is no address.
    app.connect("config-inited", _configure, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
