"""What a newcomer is told works: a new recipe passes every check; the workflows refuse and restrict."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT, Site

from recipe_runner.record import Runs


def test_a_new_recipe_passes_every_check(site: Site):
    done = site.command("new", "my_question")
    assert done.status == 0 and "make html ONLY=my_question" in done.output
    file = site.root / "recipes_source/my_question.py"
    ruff = [sys.executable, "-m", "ruff"]
    for check in (
        [*ruff, "check", "--config", ROOT / "pyproject.toml", file],
        [*ruff, "format", "--check", "--isolated", "--line-length", "88", file],
        [sys.executable, "-m", "codespell_lib", file],
        [sys.executable, "-m", "sphinxlint", "--enable", "all", "--disable", "line-too-long", file],
    ):
        checked = subprocess.run(check, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr

    built = site.build("--only", "my_question")
    assert (built.status, built.ran) == (0, ["my_question"]), built.output
    page = site.page("recipes/my_question")
    for wanted in ("My question", "compiled and eager agree", "sphx_glr_my_question_001.png", "Results of this page"):
        assert wanted in page, wanted
    assert "the compiled function is faster than eager mode" in page, "its claim is listed"
    assert "sphx_glr_my_question_thumb.png" in site.page("recipes/index"), "it has a card"
    assert site.notebook("my_question")["cells"][2]["outputs"]
    assert site.build("--only", "my_question").ran == [], "its run is kept"


def test_a_new_recipe_is_last_on_the_path_and_may_be_a_lesson(site: Site):
    assert site.command("new", "intermediate_source/my_lesson.py").status == 0
    text = (site.root / "intermediate_source/my_lesson.py").read_text()
    assert "# order = 110" in text and ast.get_docstring(ast.parse(text)).startswith("My lesson\n=========")


@pytest.mark.parametrize(
    "name", ["", "My Question", "first", "elsewhere/it", "../it", "it.txt", "1st", "index", "torch", "inspect"]
)
def test_a_bad_name_is_one_line(site: Site, name: str):
    before = sorted(site.root.rglob("*.py"))
    done = site.command("new", name)
    assert (done.status, len(done.errors)) == (1, 1) and f"NAME={name}:" in done.errors[0], done.output
    assert sorted(site.root.rglob("*.py")) == before


def resave_with_another_count(results: Path) -> None:
    """What the machine `box` would have published if it had counted something else."""
    record = Runs(results).load("box", "first")
    Runs(results).save(replace(record, run=replace(record.run, metrics={"answer_count": 41})))


def test_record_promotes_good_runs_of_committed_code_only(site: Site):
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=site.root, check=True, capture_output=True)

    site.write("recipes_source/loud.py", "import warnings\nwarnings.warn('beware')")
    site.write("recipes_source/stale.py", "print(1)")
    site.write("recipes_source/ignored.py", "print(1)", front='data = ["a.csv"]')
    (site.root / "recipes_source/a.csv").write_text("1")
    (site.root / ".gitignore").write_text("*.csv\n")
    git("init", "-q")
    git("add", "recipes_source", "intermediate_source")
    git("commit", "-qm", "recipes")
    site.build(MACHINE="box")
    stale = site.root / "recipes_source/stale.py"
    stale.write_text(stale.read_text().replace("print(1)", "print(2)"))
    git("commit", "-qam", "edit")
    edited = site.root / "intermediate_source/second.py"
    edited.write_text(edited.read_text() + "# not committed\n")

    recorded = site.command("record", MACHINE="box")
    assert recorded.status == 1 and "1 run put into results/box" in recorded.output
    expected = [
        "intermediate_source/second.py: has changes that are not committed.",
        "recipes_source/ignored.py: git ignores recipes_source/a.csv.",
        "recipes_source/loud.py: shows a warning: loud.py",
        "recipes_source/stale.py: its run is not current (code: ",
    ]
    for line, start in zip(recorded.errors, expected, strict=True):
        assert line.startswith(f"error: {start}")
    resave_with_another_count(site.root / "results")
    again = site.command("record", "--only", "first", MACHINE="box")
    assert again.status == 0 and "warning: first: answer_count: 42 on box, 41 on box (published)" in again.output
    no_git = site.command("record", MACHINE="box", PATH="")
    assert (no_git.status, len(no_git.errors)) == (1, 1) and "error: git: not found" in no_git.errors[0]
    assert [file.name for file in (site.root / "results/box").iterdir()] == ["first.ipynb"]


def test_publishing_verifies_before_it_may_write():
    import yaml

    workflow = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text())
    build, publish = workflow["jobs"]["build"], workflow["jobs"]["publish"]
    commands = [step["run"] for step in build["steps"] if "run" in step]
    assert commands[-1] == "make verify" and "make replay" in commands[-2]
    assert publish["needs"] == "build", "what is not verified never reaches the job that pushes"
    assert "if" not in publish and "if" not in build
    assert not any("continue-on-error" in step or "if" in step for job in (build, publish) for step in job["steps"])


@pytest.mark.parametrize(
    ("repository", "address"),
    [
        ("ann/compile", "https://ann.github.io/compile/"),
        ("ann/ann.github.io", "https://ann.github.io/"),
        ("Ann/ann.github.io", "https://Ann.github.io/"),
        ("ann/bob.github.io", "https://ann.github.io/bob.github.io/"),
    ],
)
def test_the_site_is_published_where_pages_serves_it(repository: str, address: str):
    import yaml

    workflow = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text())
    command = next(step["run"] for step in workflow["jobs"]["build"]["steps"] if "make replay" in step.get("run", ""))
    owner = repository.partition("/")[0]
    done = subprocess.run(
        ["bash", "-euc", f"make() {{ printf '%s\n' \"$@\"; }}\n{command}"],
        env=os.environ | {"GITHUB_REPOSITORY": repository, "GITHUB_REPOSITORY_OWNER": owner},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["replay", f"SITE_URL={address}", f"REPOSITORY=https://github.com/{repository}"]


def test_a_change_from_a_fork_can_write_nothing():
    import yaml

    for file in sorted((ROOT / ".github/workflows").glob("*.yml")):
        workflow = yaml.safe_load(file.read_text())
        triggers = workflow[True]  # YAML reads "on" as true.
        assert workflow["permissions"] == {"contents": "read"}, file
        assert "pull_request_target" not in triggers and "workflow_run" not in triggers, file
        if "pull_request" in triggers:
            assert all("permissions" not in job for job in workflow["jobs"].values()), file
            assert "secrets." not in file.read_text() and "github.token" not in file.read_text(), file
        for job in workflow["jobs"].values():
            for step in job["steps"]:
                if step.get("uses", "").startswith("actions/checkout@"):
                    assert step["with"]["persist-credentials"] is False, file


def test_what_is_told_exists():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))  # Those that `make help` lists.
    for document in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text()
        told = set(re.findall(r"`make (?:[A-Z_]+=\S+ )*([a-z-]+)", text)) | set(
            re.findall(r"^    make ([a-z-]+)", text, re.M)
        )
        assert told and told <= targets, told - targets
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (ROOT / Path(link)).exists(), link
    rows = "\n".join(re.findall(r"^\| .*", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert targets - set(re.findall(r"`make ([a-z-]+)", rows)) == set(), "the README's table names every command"


def test_the_readme_names_each_module_and_none_is_long():
    rooms = (ROOT / "README.md").read_text().partition("## Where things are")[2]
    modules = {file.stem for file in (ROOT / "recipe_runner").glob("*.py")} - {"__init__"}
    assert modules - set(re.findall(r"`(\w+)`", rooms)) == set()
    files = [*(ROOT / "recipe_runner").glob("*.py"), *(ROOT / "tests").glob("*.py")]
    lengths = {file.name: len(file.read_text().splitlines()) for file in files}
    assert {name: lines for name, lines in lengths.items() if lines > 300} == {}
