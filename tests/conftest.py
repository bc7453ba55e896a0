"""What several test files share: a tiny real site, and the command line that builds it.

Imports nothing but pytest and the standard library, so that `test_recipes.py` also runs on a bare GPU machine.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cut_off
import pytest
from chromium import launched, policy, served, watched

#: Where the whole site is served and published, for the tests.
PREFIX = "/compile/"
PROJECT = "owner/name"

ROOT = Path(__file__).resolve().parent.parent

#: The order in which the recipes run as scripts: RECIPE_SEED repeats one.
SEED = os.environ.get("RECIPE_SEED") or str(random.randrange(10**6))

if os.environ.get("DEVICE") == "cpu":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Hides the GPU from the tests, the recipes and the machine's name.


def pytest_report_header() -> list[str]:
    """What a reader of the report needs to repeat the script pass."""
    network = "cut off" if cut_off.POSSIBLE else f"NOT cut off: {sys.platform} has no LD_PRELOAD"
    return [f"recipes as scripts: shuffled by RECIPE_SEED={SEED}, network {network}"]


@pytest.fixture(scope="session")
def no_network(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a program that shall reach this host only; empty where that is not possible."""
    return cut_off.environment(cut_off.compiled(tmp_path_factory.mktemp("cut_off"))) if cut_off.POSSIBLE else {}


@dataclass
class Built:
    """What one build printed, and its exit status."""

    status: int
    output: str

    @property
    def ran(self) -> list[str]:
        """Names of the recipes that ran, in order."""
        return re.findall(r"^\[\d+/\d+\] (\w+): starts", self.output, re.MULTILINE)

    @property
    def errors(self) -> list[str]:
        """The error lines."""
        return [line for line in self.output.splitlines() if line.startswith("error: ")]


@dataclass
class Site:
    """A small project: two galleries, recipes that finish at once."""

    root: Path

    def write(
        self, path: str, *blocks: str, front: str = "", docstring: str | None = None, dependencies: str = ""
    ) -> Path:
        """Write one recipe of some code blocks."""
        file = self.root / path
        title = file.stem.replace("_", " ").title()
        docstring = f"{title}\n{'=' * len(title)}\n\nOne sentence about {title}." if docstring is None else docstring
        head = f'# /// script\n# requires-python = ">=3.11"\n# dependencies = [{dependencies}]\n'
        head += "".join(f"# {line}\n" for line in ["[tool.recipe]", *front.splitlines()]) if front else ""
        texts = [f"# %%\n# Part {n}\n# ------\n\n{block}\n" for n, block in enumerate(blocks, start=1)]
        file.write_text(f'{head}# ///\n"""\n{docstring}\n"""\n\n' + "\n".join(texts), encoding="utf-8")
        return file

    def command(self, *arguments: str, **environment: str) -> Built:
        """Run ``python -m recipe_runner`` here."""
        return self._run([], "-m", "recipe_runner", *arguments, **environment)

    def build_below(self, *command: str) -> Built:
        """``make html``, started by another command."""
        return self._run(command, "-m", "recipe_runner", "build")

    def python(self, code: str, **environment: str) -> Built:
        """Run some Python here."""
        return self._run([], "-c", code, **environment)

    def _run(self, before: Sequence[str], *arguments: str, **environment: str) -> Built:
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])} | environment
        done = subprocess.run(
            [*before, sys.executable, *arguments],
            cwd=self.root,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        return Built(done.returncode, done.stdout)

    def build(self, *arguments: str, **environment: str) -> Built:
        """``make html``."""
        return self.command("build", *arguments, **environment)

    def page(self, name: str) -> str:
        """A page's HTML."""
        return (self.root / "_build" / "html" / f"{name}.html").read_text(encoding="utf-8")

    def notebook(self, name: str) -> dict:
        """The notebook that a page offers for download."""
        found = list((self.root / "_build" / "html" / "_downloads").glob(f"*/{name}.ipynb"))
        assert len(found) == 1, found
        return json.loads(found[0].read_text(encoding="utf-8"))

    def runs(self) -> list[Path]:
        """Files of the kept runs."""
        return sorted((self.root / "_build" / "runs").glob("*/*.ipynb"))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty site with the real settings, named machine, and one good recipe in each gallery."""
    shutil.copy(ROOT / "conf.py", tmp_path)
    (tmp_path / "index.rst").write_text(
        "Tiny\n====\n\n.. include:: cards.txt\n\n.. toctree::\n\n   intermediate/index\n   recipes/index\n"
    )
    for folder in ("_static", "_templates", "inventories"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for gallery in ("recipes_source", "intermediate_source"):
        (tmp_path / gallery).mkdir()
        shutil.copy(ROOT / gallery / "GALLERY_HEADER.rst", tmp_path / gallery)
    site = Site(tmp_path)
    site.write("recipes_source/first.py", "print('first says', 6 * 7)", "metrics = {'answer_count': 42}")
    site.write("intermediate_source/second.py", "print('second says', 1)", front="order = 2")
    return site


@pytest.fixture
def two(site: Site) -> Site:
    """A site whose own machine is `box`, with published runs of `other`."""
    from recipe_runner.record import Runs

    site.write(
        "recipes_source/first.py",
        "print('seed', 3)",
        "import matplotlib.pyplot as plt\nplt.title('Line')\nplt.plot([1, 2])\nplt.show()",
        "assert 1 + 1 == 2, 'one and one is two'\n"
        "metrics = {'answer_count': 42, 'call_ms': 1.5, 'call_iqr_ms': 0.1, 'speedup_x': 2.0}\n"
        "claims = {'the other machine runs this': False}",
        front='[tool.recipe.metrics]\nspeedup_x = "time of one ÷ time of the other"',
    )
    assert site.build(MACHINE="box").status == 0
    # What another machine of this kind would have recorded.
    runs = Runs(site.root / "_build/runs")
    for name in ("first", "second"):
        record = runs.load("box", name)
        outputs = json.loads(json.dumps(record.run.outputs).replace("seed 3", "seed 5"))
        machine = replace(record.run.machine, name="other")
        run = replace(
            record.run, machine=machine, outputs=tuple(outputs), claims=dict.fromkeys(record.run.claims, True)
        )
        Runs(site.root / "results").save(replace(record, run=run))
    return site


@pytest.fixture(scope="session")
def built() -> None:
    """The clone's own site is up to date: runs that are current are not run again."""
    done = subprocess.run(
        [sys.executable, "-m", "recipe_runner", "build"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The real site with addresses, built in a copy, so that the clone's own site stays as it is."""
    copy = tmp_path_factory.mktemp("whole") / "site"
    ignore = shutil.ignore_patterns("_build", ".*", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=ignore)
    site = Site(copy)
    addresses = {"SITE_URL": f"https://example.org{PREFIX}", "REPOSITORY": f"https://github.com/{PROJECT}"}
    done = site.command("replay", **addresses)
    assert done.status == 0, done.output
    return site


@pytest.fixture(scope="session")
def html(whole: Site) -> Path:
    return whole.root / "_build" / "html"


@pytest.fixture(scope="session")
def address(html: Path) -> Iterator[str]:
    with served(html, PREFIX, policy()) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """One headless browser; not for the session: while it is open, no test in this process can run a kernel."""
    with launched() as browser:
        yield browser


@pytest.fixture
def page(browser, address: str) -> Iterator[object]:
    """A page of a desktop window; whatever goes wrong in it fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, base_url=address)
    page = context.new_page()
    page.wrong = watched(page, address)
    yield page
    wrong = list(page.wrong)
    context.close()
    assert wrong == []
