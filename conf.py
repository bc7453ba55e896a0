"""Settings of the site. `make html` builds it; what runs and renders recipes is in recipe_runner/."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # Finds recipe_runner when Sphinx is started by hand.

project = "torch.compile, executed"
author = "The contributors"
copyright = "2026, the contributors"
extensions = [
    "recipe_runner.gallery",
    "recipe_runner.publishing",
    "recipe_runner.theme",
    "sphinx.ext.intersphinx",
    "sphinx_gallery.gen_gallery",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["*_source/GALLERY_HEADER.rst", "**/README.rst", "**sg_execution_times.rst"]
templates_path = ["_templates"]
suppress_warnings = ["config.cache"]

sphinx_gallery_conf = {
    "examples_dirs": ["intermediate_source", "recipes_source"],
    "gallery_dirs": ["intermediate", "recipes"],
    "within_subsection_order": "recipe_runner.gallery.ByOrder",
    "filename_pattern": r"\.py$",
    # The runner executes recipes in kernels of their own: nothing to scrape, reset or inspect in Sphinx's process.
    "image_scrapers": (),
    "reset_modules": (),
    "inspect_global_variables": False,
    "remove_config_comments": True,
    "min_reported_time": 0,
    "thumbnail_size": (720, 360),
    "backreferences_dir": "backreferences",
    "doc_module": ("torch",),
    "show_signature": False,
}

# The names that the recipes use, as plain text: a build asks no other server.
intersphinx_mapping = {
    "torch": ("https://docs.pytorch.org/docs/stable", str(Path(__file__).parent / "inventories/torch.txt"))
}
ogp_use_first_image = True
ogp_social_cards = {"enable": False}
sitemap_url_scheme = "{link}"
sitemap_excludes = ["search.html", "404.html"]
notfound_context = {
    "title": "Page not found",
    "body": "<h1>Page not found</h1>\n<p>Nothing is at this address. Search and all pages are in the bar above.</p>",
}

html_theme = "pydata_sphinx_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["recipes.css"]
html_js_files = ["filter.js"]
html_favicon = "_static/favicon.svg"
html_use_index = False
html_sidebars = {"results": []}
html_context = {"default_mode": "auto"}
html_show_sourcelink = html_copy_source = False
html_theme_options = {
    "navbar_persistent": ["search-button"],
    "search_bar_text": "Search the pages",
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
}
copybutton_exclude = ".linenos, .gp, .go"
