"""The galleries' cards: picture, title, one-line result, and the tags by which `_static/filter.js` filters them.

Sphinx-Gallery's own cards hide the result in a tooltip, and their filter cannot be used with a keyboard.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from textwrap import indent

from docutils import nodes
from sphinx.application import Sphinx

from recipe_runner.collection import Shown, labels
from recipe_runner.render import plain

#: Groups of costs: name, and the seconds above and up to which a run counts.
_COSTS = (("up to 1 minute", -1, 60), ("1 to 2 minutes", 60, 120), ("more than 2 minutes", 120, 10**6))
#: What the front page includes: the cards of all galleries.
ALL_CARDS = "cards.txt"
# Everything that Sphinx-Gallery puts between a gallery's header and its table of contents.
_THUMBNAILS = re.compile(
    r"\n\.\. raw:: html\n\n +<div id='sg-tag-list'.*?"
    r"\n\.\. thumbnail-parent-div-close\n\n\.\. raw:: html\n\n +</div>\n",
    re.DOTALL,
)


def cards_rst(several: Sequence[Shown]) -> str:
    """A filter and a grid of cards; without JavaScript the grid is whole and there is no filter."""
    if not several:
        return "*No pages yet.*\n"
    # Of machines only: a run that failed has no place in a filter by device.
    label_of = labels([record for shown in several for record in shown.passed])
    cards = "\n".join(_card_rst(shown, label_of) for shown in several)
    roles = "".join(f".. role:: recipe-{kind}\n" for kind in ("topic", "device", "cost"))
    grid = f".. grid:: 1 1 2 2\n   :gutter: 3\n   :class-container: recipe-cards\n\n{indent(cards, '   ')}"
    buttons = _filter_html(several, label_of)
    raw = f".. raw:: html\n\n{indent(buttons, '   ')}\n" if buttons else ""
    return f"{roles}\n{raw}{grid}\n"


def _filter_html(several: Sequence[Shown], label_of: dict[str, str]) -> str:
    """The filter's buttons. They stand in the page from the start, so that nothing moves when the script arrives."""
    topics = sorted({tag for shown in several for tag in shown.recipe.front_matter.tags})
    seconds = [round(shown.passed[0].run.seconds) for shown in several if shown.passed]
    costs = [(name, f"{low} {high}") for name, low, high in _COSTS if any(low < s <= high for s in seconds)]
    rows = [
        ("topic", "Topic", [(topic, topic) for topic in topics]),
        ("device", "Measured on", [(label, label) for label in label_of.values()]),
        ("cost", "Runs for", costs),
    ]
    parts = []
    for group, name, values in rows:
        if len(values) > 1:  # A filter that all cards pass is none.
            buttons = "".join(
                f'<button type="button" aria-pressed="false" data-group="{group}" data-value="{escape(value)}">'
                f"{escape(text)}</button>"
                for text, value in values
            )
            label = f'<span class="recipe-filter-name">{name}</span>'
            parts.append(f'<div role="group" aria-label="{name}">{label}{buttons}</div>')
    if not parts:
        return ""
    parts.append(f'<p class="recipe-filter-status" role="status">{len(several)} of {len(several)} pages</p>')
    return '<div class="recipe-filter pst-js-only">\n' + "\n".join(parts) + "\n</div>\n"


def _card_rst(shown: Shown, label_of: dict[str, str]) -> str:
    recipe = shown.recipe
    folder, _, name = recipe.page.partition("/")
    tags = [f":recipe-topic:`{tag}`" for tag in recipe.front_matter.tags]
    tags += [f":recipe-device:`{plain(label_of[record.run.machine.name])}`" for record in shown.passed]
    tags += [f":recipe-cost:`{record.run.seconds:.0f} s`" for record in shown.passed[:1]]
    return (
        f".. grid-item-card:: {recipe.title}\n"
        f"   :link: /{recipe.page}\n"
        f"   :link-type: doc\n"
        f"   :img-top: /{folder}/images/thumb/sphx_glr_{name}_thumb.png\n\n"
        f"   {recipe.result}\n\n"
        f"   .. card-footer::\n\n"
        f"      {' '.join(tags) or 'No run on record'}\n"
    )


def with_cards(page: str, several: Sequence[Shown]) -> str:
    """A gallery's page with our cards in the place of Sphinx-Gallery's.

    Raises
    ------
    ValueError
        If the page has no cards where they are expected: this Sphinx-Gallery writes them otherwise.
    """
    text, count = _THUMBNAILS.subn(lambda _: "\n" + cards_rst(several), page)
    if count != 1:
        raise ValueError(f"{count} lists of cards in a gallery's page, expected 1")
    return text


def size_pictures(app: Sphinx, doctree: nodes.document) -> None:
    """Say how large the cards' pictures are, so that nothing moves, and load those below the first row when needed."""
    width, height = app.config.sphinx_gallery_conf["thumbnail_size"]
    pictures = [image for image in doctree.findall(nodes.image) if "sd-card-img-top" in image["classes"]]
    for number, image in enumerate(pictures):
        image["width"], image["height"] = str(width), str(height)
        image["classes"].append("no-scaled-link")  # The whole card is a link already.
        if number >= 2:
            image["loading"] = "lazy"


def shrink_thumbnails(source: Path) -> None:
    """Give the cards' pictures a palette: they are charts of few colours, and a quarter of the bytes will do."""
    from PIL import Image

    for file in source.glob("*/images/thumb/*.png"):
        with Image.open(file) as picture:
            if picture.mode != "P":
                picture.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(file, optimize=True)
