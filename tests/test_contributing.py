"""What a newcomer is told works: a new recipe passes every check; the workflows refuse and restrict."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Site


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


def test_publishing_verifies_before_it_may_write():
    import yaml

    workflow = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text())
    build, publish = workflow["jobs"]["build"], workflow["jobs"]["publish"]
    commands = [step["run"] for step in build["steps"] if "run" in step]
    assert commands[-1] == "make verify" and commands[-2].startswith("make replay")
    assert publish["needs"] == "build", "what is not verified never reaches the job that pushes"
    assert "if" not in publish and "if" not in build
    assert not any("continue-on-error" in step or "if" in step for job in (build, publish) for step in job["steps"])


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
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for document in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text()
        told = set(re.findall(r"`make (?:[A-Z_]+=\S+ )*([a-z]+)", text)) | set(
            re.findall(r"^    make ([a-z]+)", text, re.M)
        )
        assert told and told <= targets, told - targets
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (ROOT / Path(link)).exists(), link
    assert targets <= set(re.findall(r"[a-z]+", (ROOT / "README.md").read_text())), "the README names every command"
