"""The galleries' cards: picture, title, one-line result, and the tags by which `_static/filter.js` filters them.

Sphinx-Gallery's own cards hide the result in a tooltip, and their filter cannot be used with a keyboard.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import indent

from recipe_runner.collection import Shown, labels
from recipe_runner.render import plain

#: What the front page includes: the cards of all galleries.
ALL_CARDS = "cards.txt"
# Everything that Sphinx-Gallery puts between a gallery's header and its table of contents.
_THUMBNAILS = re.compile(
    r"\n\.\. raw:: html\n\n +<div id='sg-tag-list'.*?"
    r"\n\.\. thumbnail-parent-div-close\n\n\.\. raw:: html\n\n +</div>\n",
    re.DOTALL,
)


def cards_rst(several: Sequence[Shown]) -> str:
    """A grid of cards; without JavaScript it is whole and has no filter."""
    if not several:
        return "*No pages yet.*\n"
    # Of machines only: a run that failed has no place in a filter by device.
    label_of = labels([record for shown in several for record in shown.passed])
    cards = "\n".join(_card_rst(shown, label_of) for shown in several)
    roles = "".join(f".. role:: recipe-{kind}\n" for kind in ("topic", "device", "cost"))
    return f"{roles}\n.. grid:: 1 1 2 2\n   :gutter: 3\n   :class-container: recipe-cards\n\n{indent(cards, '   ')}\n"


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
