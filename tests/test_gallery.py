"""The whole way on a tiny real site: what runs, what is reused, what a page shows, what bad input does."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, Site
from sphinx.errors import ExtensionError

from recipe_runner import gallery


def test_a_build_runs_every_recipe_once_and_the_next_runs_none(site: Site):
    first = site.build()
    assert first.status == 0, first.output
    assert first.ran == ["second", "first"]
    assert "first says 42" in site.page("recipes/first")
    assert "second says 1" in site.page("intermediate/second")
    again = site.build()
    assert (again.status, again.ran) == (0, [])


def test_a_page_shows_what_sphinx_gallery_gives(site: Site):
    site.write("recipes_source/third.py", "import json\njson.dumps(1)", front='tags = ["cold start"]')
    assert site.build().status == 0
    page = site.page("recipes/third")
    for wanted in ("third.ipynb", "third.py", "third.zip", "Total running time"):
        assert wanted in page, wanted
    for card in (site.page("recipes/index"), site.page("index")):
        assert "One sentence about Third" in card and "sphx_glr_third_thumb" in card
        assert '<span class="recipe-topic">cold start</span>' in card and "sphx-glr-thumbcontainer" not in card


def test_a_prose_edit_runs_nothing_and_shows_in_page_and_notebook(site: Site):
    site.build()
    file = site.root / "recipes_source/first.py"
    file.write_text(file.read_text().replace("# Part 2\n# ------", "# Another heading\n# ---------------"))
    edited = site.build()
    assert (edited.status, edited.ran) == (0, [])
    assert "Another heading" in site.page("recipes/first") and "first says 42" in site.page("recipes/first")
    assert "Another heading" in str(site.notebook("first")) and "first says 42" in str(site.notebook("first"))


def test_a_code_edit_runs_that_recipe_only(site: Site):
    site.build()
    file = site.root / "recipes_source/first.py"
    file.write_text(file.read_text().replace("6 * 7", "6 * 8"))
    edited = site.build()
    assert (edited.status, edited.ran) == (0, ["first"])
    assert "first says 48" in site.page("recipes/first") and "first says 42" not in site.page("recipes/first")
    assert "first says 48" in str(site.notebook("first"))


def test_a_build_that_stops_while_it_writes_a_page_leaves_it_to_the_next(site: Site):
    site.build()
    file = site.root / "recipes_source/first.py"
    file.write_text(file.read_text().replace("6 * 7", "6 * 8"))
    code = "import sys\nfrom sphinx_gallery import gen_rst\nfrom recipe_runner.__main__ import main\n"
    code += "def full(*_, **__):\n    raise OSError(28, 'No space left on device')\n"
    code += "gen_rst.save_rst_example = full\nsys.exit(main(['build']))"
    assert site.python(code).status != 0
    again = site.build()
    assert (again.status, again.ran) == (0, [])
    assert "first says 48" in site.page("recipes/first")


def test_a_moved_cell_mark_runs_that_recipe_only(site: Site):
    site.write("recipes_source/first.py", "x = 1\ny = 2", "print(x)")
    site.build()
    file = site.root / "recipes_source/first.py"
    file.write_text(file.read_text().replace("x = 1\ny = 2", "x = 1\n\n# %%\n# Cut.\n\ny = 2"))
    assert site.build().ran == ["first"]


def test_another_version_of_a_declared_dependency_runs_that_recipe_only(site: Site, tmp_path: Path):
    info = tmp_path / "fakes" / "ingredient.dist-info"
    info.mkdir(parents=True)
    site.write("recipes_source/first.py", "print(1)", dependencies='"ingredient"')
    paths = os.pathsep.join([str(tmp_path / "fakes"), str(ROOT)])
    for version, ran in (("1.0", ["second", "first"]), ("1.0", []), ("2.0", ["first"])):
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ingredient\nVersion: {version}\n")
        assert site.build(PYTHONPATH=paths).ran == ran
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ingredient\nVersion: 3.0\n")
    assert "version of ingredient: 2.0 → 3.0" in site.command("why", "first", PYTHONPATH=paths).output


def test_a_changed_data_file_runs_that_recipe_only(site: Site):
    site.write("recipes_source/first.py", "print(open('a.csv').read())", front='data = ["a.csv"]')
    (site.root / "recipes_source/a.csv").write_text("one")
    assert site.build().status == 0
    (site.root / "recipes_source/a.csv").write_text("two")
    assert site.build().ran == ["first"]
    assert "two" in site.page("recipes/first")


def test_another_machine_runs_all_and_keeps_the_runs_of_the_first(site: Site):
    site.build(MACHINE="Old Box")
    assert site.build(MACHINE="new box").ran == ["second", "first"]
    assert [file.parent.name for file in site.runs()] == ["new-box", "new-box", "old-box", "old-box"]
    assert site.build(MACHINE="Old Box").ran == []
    table = site.command("status", MACHINE="Old Box").output
    assert table.count("current ") == 4 and "old-box" in table and "new-box" in table


def test_why_and_status_name_the_changed_part(site: Site):
    site.build()
    assert "the kept run is current" in site.command("why", "first").output
    file = site.root / "recipes_source/first.py"
    file.write_text(file.read_text().replace("6 * 7", "7 * 7"))
    assert "  code: " in site.command("why", "first").output
    assert "stale (1 changed)" in site.command("status").output


def test_only_runs_one_recipe_and_says_so_on_the_others(site: Site):
    first = site.build("--only", "first")
    assert (first.status, first.ran) == (0, ["first"])
    assert "Not run" in site.page("intermediate/second") and "make html ONLY=second" in site.page("intermediate/second")
    assert "Not run" not in site.page("recipes/first")
    assert site.build().ran == ["second"]
    assert "Not run" not in site.page("intermediate/second")


def test_rerun_ignores_kept_runs(site: Site):
    site.build()
    assert site.build("--rerun", "--only", "first").ran == ["first"]


def test_figures_get_alternative_text_a_card_and_twice_the_pixels(site: Site):
    site.write(
        "recipes_source/first.py",
        "import matplotlib.pyplot as plt\nplt.figure(figsize=(4, 3))\nplt.plot([1, 2])\nplt.title('A line')",
    )
    assert site.build().status == 0
    page = site.page("recipes/first")
    assert 'alt="A line"' in page and "sphx_glr_first_001.png" in page
    from PIL import Image

    image = site.root / "_build/html/_images/sphx_glr_first_001.png"
    with Image.open(image) as picture:
        tag = re.search(r"<img[^>]*sphx_glr_first_001[^>]*>", page).group(0)
        assert f'width="{picture.width // 2}"' in tag and f'height="{round(picture.height / 2)}"' in tag, tag
        assert 'loading="lazy"' in tag and "style" not in tag, tag
    thumbnail = site.root / "_build/html/_images/sphx_glr_first_thumb.png"
    with Image.open(thumbnail) as picture:
        assert picture.convert("L").getextrema() == (0, 255) or picture.getcolors(maxcolors=16) is None


def test_html_and_expected_errors_are_shown(site: Site):
    site.write(
        "recipes_source/first.py",
        "class Table:\n    def _repr_html_(self):\n        return '<b>bold cell</b>'\nTable()",
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    print('expected:', error)",
    )
    assert site.build().status == 0
    page = site.page("recipes/first")
    assert "<b>bold cell</b>" in page and "expected: division by zero" in page


def test_the_notebook_is_valid_has_outputs_prose_and_no_rest(site: Site):
    site.build()
    for name in ("first", "second"):
        notebook = nbformat.reads(json.dumps(site.notebook(name)), as_version=4)
        nbformat.validate(notebook)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert code[0].source.startswith("# To install") and "%pip" in code[0].source
        assert [cell.execution_count for cell in code[1:]] == list(range(1, len(code)))
        assert any(cell.outputs for cell in code)
        prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        assert "One sentence about" in prose and ".. " not in prose and "/// script" not in prose
    import io
    import zipfile

    archive = next((site.root / "_build/html/_downloads").glob("*/first.zip"))
    with zipfile.ZipFile(archive) as zipped:
        member = next(name for name in zipped.namelist() if name.endswith(".ipynb"))
        assert "first says 42" in io.TextIOWrapper(zipped.open(member), encoding="utf-8").read()


def test_a_removed_recipe_loses_its_page(site: Site):
    site.build()
    (site.root / "intermediate_source/second.py").rename(site.root / "intermediate_source/renamed.py")
    assert site.build().ran == ["renamed"]
    assert not (site.root / "_build/html/intermediate/second.html").exists()
    assert "second" not in site.page("intermediate/index")


def test_related_pages_end_a_page_and_follow_their_titles(site: Site):
    site.write("recipes_source/first.py", "print('first says', 6 * 7)", front='see_also = ["second"]')
    assert site.build().status == 0
    related = site.page("recipes/first").partition("Related pages")[2]
    link = r'href="\.\./intermediate/second\.html"[^>]*>.*?Second.*?</a>: One sentence about Second\.'
    assert re.search(link, related, re.DOTALL)
    assert "Related pages" not in site.page("intermediate/second")
    file = site.root / "intermediate_source/second.py"
    file.write_text(file.read_text().replace("One sentence about", "Another sentence about"))
    assert site.build().ran == []
    assert ": Another sentence about Second." in site.page("recipes/first")
    assert site.command("verify").status == 0


def test_a_related_page_that_is_gone_is_named_and_costs_no_page(site: Site):
    site.write("recipes_source/first.py", "print('first says', 6 * 7)", front='see_also = ["second", "gone"]')
    built = site.build()
    assert built.status == 1
    assert built.errors == [
        "error: recipes_source/first.py: see_also names 'gone', which is no other recipe. Others: second"
    ]
    assert "first says 42" in (page := site.page("recipes/first")) and "intermediate/second.html" in page
    file = site.root / "recipes_source/first.py"
    file.write_text(file.read_text().replace("6 * 7", "1 / 0"))
    errors = site.build().errors
    assert len(errors) == 2 and "ZeroDivisionError" in errors[0] + errors[1], "its own failure is named too"


def test_replay_shows_recorded_runs_and_runs_nothing(site: Site):
    site.build(MACHINE="box")
    shutil.copytree(site.root / "_build/runs", site.root / "results")
    shutil.rmtree(site.root / "_build")
    # A torch that cannot be imported: neither conf.py nor the seams may need it. The same for Jupyter.
    for module in ("torch", "nbclient", "ipykernel", "jupyter_client", "psutil"):
        (site.root / f"{module}.py").write_text("raise ImportError('must not be imported')")
    replayed = site.command("replay")
    assert (replayed.status, replayed.ran) == (0, []), replayed.output
    assert "first says 42" in site.page("recipes/first") and "first says 42" in str(site.notebook("first"))


def test_lightning_changes_torch_compile_on_its_own_page_only(site: Site):
    # Importing Lightning replaces torch.compile in its process by a wrapper of its own.
    site.write(
        "intermediate_source/second.py",
        "import lightning, torch\nassert hasattr(torch.compile, '__wrapped__')",
        dependencies='"lightning", "torch"',
    )
    site.write(
        "recipes_source/first.py",
        "import torch\nassert not hasattr(torch.compile, '__wrapped__')",
        dependencies='"torch"',
    )
    built = site.build()
    assert (built.status, built.ran) == (0, ["first", "second"]), built.output


def test_a_moved_seam_is_refused_with_a_clear_message(monkeypatch):
    gallery.check_seams()
    monkeypatch.setitem(gallery._ORIGINALS, "save_notebook", lambda notebook, path, extra: None)
    with pytest.raises(ExtensionError, match=r"save_notebook takes .*extra.* this Sphinx-Gallery moved a seam"):
        gallery.check_seams()
    monkeypatch.setitem(gallery._ORIGINALS, "execute_script", None)
    with pytest.raises(ExtensionError, match=r"execute_script takes None"):
        gallery.check_seams()
