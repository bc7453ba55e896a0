"""What a built page shows of a recipe: its code, what stands as output below each block, and its text by sections.

Reads HTML only. Part of the check that pages tell the truth, so it shares nothing with the modules that write them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
#: Classes of what is captured as text, and its kind.
_BOXES = {"highlight-Python": "code", "sphx-glr-script-out": "text", "output_html": "html", "line": "fact"}
#: Elements whose text is one line of a section, and its kind.
_LINES = {"p": "paragraph", "li": "item", "td": "cell", "th": "cell"} | {f"h{n}": "heading" for n in range(1, 7)}

#: One piece of output: its kind, "text", "html" or "image", and its text or address.
Piece = tuple[str, str]


#: What Sphinx makes of straight quotes, dashes and dots in prose.
_TYPOGRAPHY = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "--", "—": "---", "…": "..."})


def straight(text: str) -> str:
    """Prose on one line, with quotes and dashes as they are typed: so a page's and a recipe's can be compared."""
    return " ".join(text.translate(_TYPOGRAPHY).split())


def normal(text: str) -> str:
    """Text as far as a page keeps it: the highlighter drops blanks at the ends of lines, and blank lines around."""
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")


@dataclass
class Block:
    """One code block of a page and its outputs: a list of pieces for each machine's panel, or one without tabs."""

    code: str
    panels: list[list[Piece]] = field(default_factory=lambda: [[]])
    labels: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Line:
    """A heading, a paragraph, a list's item, a table's cell, or other "text"; its text is `straight`.

    Attributes
    ----------
    sections : tuple of str
        The ids of the sections that it is in, the innermost last.
    classes : set of str
        The classes of all elements around it.
    """

    kind: str
    text: str
    sections: tuple[str, ...]
    classes: frozenset[str]


class PageText(HTMLParser):
    """Parses one page.

    Attributes
    ----------
    blocks : list of Block
        In the page's order.
    facts : list of list of str
        The lines of the strip below the page's first sentence, each cut at its dots: machine, versions, day, seconds.
    lines : list of Line
        The text of all sections, without code and outputs.
    links, downloads : list of str
        The addresses of the page's links, and of those to files.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.blocks: list[Block] = []
        self.facts: list[list[str]] = []
        self.lines: list[Line] = []
        self.links: list[str] = []
        self.downloads: list[str] = []
        self._sections: list[str] = []
        self._open: list[tuple[str, list[str]]] = []
        self._capture: tuple[str, int] | None = None
        self._text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Notice where code, output, a panel, a figure or a cell begins."""
        values = {name: value or "" for name, value in attributes}
        classes = values.get("class", "").split()
        if tag == "a":
            self.links.append(values.get("href", ""))
            if "download" in classes and (self._capture is None or self._capture[0] in _LINES.values()):
                self.downloads.append(values.get("href", ""))
        if tag == "section":
            self._sections.append(values.get("id", ""))
        if self._capture:
            self._text.append(f" {values['src']} " if "src" in values else "")
        elif kind := self._kind(tag, classes):
            self._capture, self._text = (kind, len(self._open)), []
        elif self.blocks:
            block = self.blocks[-1]
            if "recipe-machines" in classes:
                block.panels, block.labels = [], []
            elif "sd-tab-content" in classes:
                block.panels.append([])
            elif tag == "img" and "recipe-figure" in classes:
                self._add("image", values.get("src", ""))
        if tag not in _VOID:
            self._open.append((tag, classes))

    def handle_endtag(self, tag: str) -> None:
        """Notice where it ends."""
        if tag not in [name for name, _ in self._open]:
            return  # A void element, or a stray end.
        while True:
            closed = self._open.pop()[0]
            if closed == "section":
                self._sections.pop()
            if closed == tag:
                break  # Others are elements that HTML lets stay open, such as a paragraph.
        if self._capture and len(self._open) <= self._capture[1]:
            kind, text = self._capture[0], "".join(self._text)
            self._capture = None
            if kind == "code":
                self.blocks.append(Block(normal(text)))
            elif kind == "fact":
                self.facts.append([part.strip() for part in text.split("·")])
            elif kind in _LINES.values():
                self._add_line(kind, straight(text).removesuffix("#") if kind == "heading" else straight(text))
            elif kind == "label":
                self.blocks[-1].labels.append(text.strip())
            else:
                self._add(kind, normal(text))

    def handle_data(self, data: str) -> None:
        """Collect the text of what is open."""
        if self._capture:
            self._text.append(data)
        elif self._sections and data.strip():
            self._add_line("text", straight(data))

    def _kind(self, tag: str, classes: list[str]) -> str | None:
        if tag == "label" and "sd-tab-label" in classes and self.blocks:
            return "label"
        if tag in _LINES:
            return _LINES[tag] if self._sections else None
        kind = next((_BOXES[name] for name in classes if name in _BOXES), None)
        return kind if tag == "div" and (kind != "fact" or self._inside("recipe-facts")) else None

    def _inside(self, wanted: str) -> bool:
        return any(wanted in classes for _, classes in self._open)

    def _add_line(self, kind: str, text: str) -> None:
        classes = frozenset(name for _, names in self._open for name in names)
        self.lines.append(Line(kind, text, tuple(self._sections), classes))

    def _add(self, kind: str, text: str) -> None:
        if self.blocks and not self.blocks[-1].panels:
            self.blocks[-1].panels.append([])  # Output outside of the panels: it is in none of a run's.
        if self.blocks:
            self.blocks[-1].panels[-1].append((kind, text))
