"""What a built page shows of a recipe: its code, and what stands as output below each block. Reads HTML only.

Part of the check that pages tell the truth, so it shares nothing with the modules that write them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}

#: One piece of output: its kind, "text", "html" or "image", and its text or address.
Piece = tuple[str, str]


def normal(text: str) -> str:
    """Text as far as a page keeps it: the highlighter drops blanks at the ends of lines, and blank lines around."""
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")


@dataclass
class Block:
    """One code block of a page and its outputs: a list of pieces for each machine's panel, or one without tabs."""

    code: str
    panels: list[list[Piece]] = field(default_factory=lambda: [[]])
    tabbed: bool = False


class PageText(HTMLParser):
    """Parses one page.

    Attributes
    ----------
    blocks : list of Block
        In the page's order.
    facts : str
        What stands in the strip below the page's first sentence: machine, versions, day, seconds.
    links : list of str
        All addresses of the page's links.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.blocks: list[Block] = []
        self.facts = ""
        self.links: list[str] = []
        self._open: list[str] = []
        self._capture: tuple[str, int] | None = None
        self._text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Notice where code, output, a panel or a figure begins."""
        values = {name: value or "" for name, value in attributes}
        classes = values.get("class", "").split()
        if tag == "a":
            self.links.append(values.get("href", ""))
        if self._capture is None:
            kinds = {"highlight-Python": "code", "sphx-glr-script-out": "text", "output_html": "html"}
            kinds |= {"recipe-facts": "facts"}
            kind = next((kinds[name] for name in classes if name in kinds), None)
            if tag == "div" and kind:
                self._capture, self._text = (kind, len(self._open)), []
            elif self.blocks and "recipe-machines" in classes:
                self.blocks[-1].panels, self.blocks[-1].tabbed = [], True
            elif self.blocks and "sd-tab-content" in classes:
                self.blocks[-1].panels.append([])
            elif self.blocks and tag == "img" and "recipe-figure" in classes:
                self._add("image", values.get("src", ""))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Notice where it ends."""
        while self._open and self._open.pop() != tag:
            pass  # An element that HTML lets stay open, such as a paragraph.
        if self._capture and len(self._open) <= self._capture[1]:
            kind, text = self._capture[0], "".join(self._text)
            self._capture = None
            if kind == "code":
                self.blocks.append(Block(normal(text)))
            elif kind == "facts":
                self.facts += text
            else:
                self._add(kind, normal(text))

    def handle_data(self, data: str) -> None:
        """Collect the text of what is open."""
        if self._capture:
            self._text.append(data)

    def _add(self, kind: str, text: str) -> None:
        if self.blocks:
            self.blocks[-1].panels[-1].append((kind, text))
