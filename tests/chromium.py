"""Chromium, driven by Playwright, and a server for a built site: what the browser tests share."""

from __future__ import annotations

import functools
import gzip
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

EXECUTABLE = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]

#: CI installs Chromium, and must not skip these.
needs_chromium = pytest.mark.skipif(
    EXECUTABLE is None and not os.environ.get("CI"),
    reason="no Chromium here; to run the browser tests: apt-get install chromium",
)


@contextmanager
def launched() -> Iterator[object]:
    """One headless browser."""
    from playwright.sync_api import sync_playwright

    assert EXECUTABLE, "CI must have Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=FLAGS)
        yield browser
        browser.close()


def pages(html: Path) -> list[str]:
    """All pages of a site but the theme's own template, which is a file among its scripts."""
    found = sorted(file.relative_to(html).as_posix() for file in html.rglob("*.html"))
    return [name for name in found if not name.startswith("_static/")]


def policy() -> str:
    """The Content-Security-Policy as CONTRIBUTING.md gives it."""
    text = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return re.search(r"Content-Security-Policy: (.*)", text).group(1)


def watched(page, address: str) -> list[str]:
    """Errors of the console and requests to others, as they come."""
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("console", lambda message: message.type == "error" and wrong.append(f"console: {message.text}"))
    page.on("request", lambda r: r.url.startswith((address, "data:", "blob:")) or wrong.append(f"request: {r.url}"))
    return wrong


class _Handler(SimpleHTTPRequestHandler):
    """As a static host: gzipped text, the site's own page for a missing address, a policy, and maybe a sub-path."""

    def __init__(self, *arguments: object, root: Path, prefix: str, policy: str) -> None:
        self.root, self.prefix, self.policy = root, prefix, policy
        super().__init__(*arguments, directory=str(root))

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path, status = self.path.partition("?")[0], 200
        file = self.root / path.removeprefix(self.prefix).lstrip("/")
        if file.is_dir():
            file /= "index.html"
        if not path.startswith(self.prefix) or not file.is_file():
            file, status = self.root / "404.html", 404
        kind = self.guess_type(file)
        body = file.read_bytes()
        self.send_response(status)
        if kind.startswith("text/") or kind.endswith(("javascript", "json", "xml")):
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.policy:
            self.send_header("Content-Security-Policy", self.policy)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def served(root: Path, prefix: str = "/", policy: str = "") -> Iterator[str]:
    """The address at which `root` is served, below `prefix`, with a Content-Security-Policy."""
    handler = functools.partial(_Handler, root=root, prefix=prefix, policy=policy)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}{prefix}"
    server.shutdown()
