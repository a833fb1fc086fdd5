"""The notebooks and the book hang together: cheap checks of files, no notebook is run and no page is built."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import notebook_kinds
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
MACHINE_PATH = re.compile(r"(?<![\w.-])/(?:work|home|root|tmp|opt|Users)/")

strict = pytest.mark.parametrize("notebook", notebook_kinds.strict(), ids=lambda path: path.stem)
training = pytest.mark.parametrize("notebook", notebook_kinds.training(), ids=lambda path: path.stem)
every_notebook = pytest.mark.parametrize(
    "notebook", notebook_kinds.strict() + notebook_kinds.training(), ids=lambda path: path.stem
)


def toc_pages(node: object) -> Iterator[str]:
    """Every page that a table of contents names, at any depth."""
    if isinstance(node, dict):
        yield from (node[key] for key in ("root", "file") if key in node)
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from toc_pages(child)


def strings(node: object) -> Iterator[str]:
    """Every string of a notebook's or a configuration's tree, pictures left out."""
    if isinstance(node, dict):
        for key, child in node.items():
            if not key.startswith("image/"):
                yield from strings(child)
    elif isinstance(node, list):
        for child in node:
            yield from strings(child)
    elif isinstance(node, str):
        yield node


def code_cells(notebook: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]


PAGES = list(toc_pages(yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))))


def test_every_notebook_is_a_chapter_of_the_book():
    in_toc = {page for page in PAGES if page.startswith("notebooks/")}
    assert in_toc == {f"notebooks/{path.stem}" for path in notebook_kinds.NOTEBOOKS.glob("*.ipynb")}


def test_every_page_of_the_book_is_in_its_table_of_contents():
    in_toc = {page for page in PAGES if page.startswith("book/")}
    assert in_toc == {f"book/{path.stem}" for path in (ROOT / "book").glob("*.md")}


def test_no_page_stands_twice_in_the_table_of_contents():
    assert len(PAGES) == len(set(PAGES))


def test_make_test_compares_every_notebook_that_does_not_train():
    (recipe,) = re.findall(r"^test:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert "$$($(PY) tests/notebook_kinds.py)" in recipe
    assert "--nbval " in recipe
    printed = subprocess.run(
        [sys.executable, "tests/notebook_kinds.py"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    others = set((ROOT / "notebooks").glob("*.ipynb")) - set(notebook_kinds.training())
    assert {ROOT / name for name in printed.stdout.split()} == others


@training
def test_a_notebook_that_trains_is_run_by_a_test(notebook):
    texts = [path.read_text(encoding="utf-8") for path in ROOT.glob("tests/test_*.py") if path != Path(__file__)]
    runners = [text for text in texts if "papermill" in text]
    assert any(notebook.stem in text or "notebook_kinds" in text for text in runners)


@training
def test_a_notebook_that_trains_is_stored_without_outputs_and_takes_parameters(notebook):
    cells = code_cells(notebook)
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in cells) == 1


@strict
def test_a_compared_notebook_was_run_once_from_top_to_bottom(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@strict
def test_a_compared_notebook_stores_neither_an_error_nor_a_warning(notebook):
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


@every_notebook
def test_a_notebook_names_no_path_of_a_machine(notebook):
    content = nbformat.read(notebook, as_version=4)
    parts = [content.metadata, *(cell.metadata for cell in content.cells)]
    parts += [output for cell in content.cells for output in cell.get("outputs", [])]
    assert not [text for text in strings(parts) if MACHINE_PATH.search(text)]


@pytest.mark.parametrize("before", ["", "in '", 'File "', "file://"])
@pytest.mark.parametrize("folder", ["work", "home", "root", "tmp", "opt", "Users"])
def test_a_path_of_a_machine_is_found(before, folder):
    assert MACHINE_PATH.search(f"{before}/{folder}/ada/x.py")


@pytest.mark.parametrize("text", ["results/home/x", "a/tmp/b", "see https://example.org/home/x", "and/or"])
def test_other_text_with_slashes_is_not_taken_for_one(text):
    assert not MACHINE_PATH.search(text)


def test_equations_are_typeset_by_a_script_that_comes_with_the_book():
    (static,) = CONFIG["sphinx"]["config"]["html_static_path"]
    script = ROOT / static / CONFIG["sphinx"]["config"]["mathjax_path"]
    assert "MathJax" in script.read_text(encoding="utf-8")
    assert "Apache License" in (script.parent / "LICENSE").read_text(encoding="utf-8")


def test_the_configuration_loads_nothing_from_the_network():
    assert not [text for text in strings(CONFIG["sphinx"]["config"]) if "//" in text]


def test_the_book_is_built_strictly():
    (build,) = re.findall(r"^\t.*jupyter-book build.*$", MAKEFILE.replace("\\\n", ""), re.MULTILINE)
    assert {"-W", "-n", "--keep-going", "--all"} <= set(build.split())
