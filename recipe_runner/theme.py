"""What a page loads, and which pages stand before and after it: changes to the theme's context for every page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sphinx.application import Sphinx

from recipe_runner.recipe import Recipe

#: Sphinx-Gallery adds these to every page. Its filter is replaced by ours; the others style what no page has.
_UNUSED = ("sg-tags.js", "sg_gallery-binder.css", "sg_gallery-dataframe.css")
#: Differs on every page, so a Content-Security-Policy could not name it; only a version switcher would read it.
_UNUSED_INLINE = "DOCUMENTATION_OPTIONS.pagename"
#: Inline scripts read this one at once.
_NOT_DEFERRED = "documentation_options.js"


def lean(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object) -> None:
    """Leave out what a page does not use, and let no script hold up the page."""

    def is_used(asset: Any) -> bool:
        return not str(asset.filename).endswith(_UNUSED) and _UNUSED_INLINE not in asset.attributes.get("body", "")

    for kind in ("script_files", "css_files"):
        context[kind] = [asset for asset in context.get(kind, ()) if is_used(asset)]
    context["script_files"] = [_deferred(script) for script in context["script_files"]]


def _deferred(script: Any) -> Any:
    if not script.filename or str(script.filename).endswith(_NOT_DEFERRED):
        return script
    return type(script)(script.filename, priority=script.priority, **script.attributes | {"defer": "defer"})


def follow_path(path: Sequence[Recipe], pagename: str, context: dict[str, Any]) -> None:
    """Let next and previous follow the learning path, which crosses the galleries."""
    stops = ["index", *(recipe.page for recipe in path), "results"]
    titles = [context["project"], *(recipe.title for recipe in path), "Results"]
    context["prev"] = context["next"] = None
    if pagename in stops:
        here = stops.index(pagename)
        for key, there in (("prev", here - 1), ("next", here + 1)):
            if 0 <= there < len(stops):
                context[key] = {"link": context["pathto"](stops[there]), "title": titles[there]}


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx calls this."""
    app.connect("html-page-context", lean, priority=900)  # After the theme, which adds some of them.
    return {"parallel_read_safe": True, "parallel_write_safe": True}
