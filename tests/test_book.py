"""The notebooks and the book hang together: cheap checks of files, no notebook is run and no page is built."""

import inspect
import itertools
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import nbformat
import notebook_kinds
import pytest
import yaml

from qmvae_core import gaussians, losses

ROOT = Path(__file__).resolve().parents[1]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
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


def test_every_notebook_and_page_stands_once_in_the_table_of_contents():
    files = [*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "book").glob("*.md")]
    assert sorted(PAGES) == sorted(str(path.relative_to(ROOT).with_suffix("")) for path in files)


EQUATIONS = range(1, 21)  # of the paper


def functions_of_equations() -> dict[int, set[str]]:
    """Number of an equation -> names of the public functions whose docstrings say that they are it."""
    found: dict[int, set[str]] = {number: set() for number in EQUATIONS}
    for module in (gaussians, losses):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            first = (inspect.getdoc(function) or "").split("\n\n")[0]
            if function.__module__ != module.__name__ or name.startswith("_") or "quation" not in first:
                continue
            for number in re.findall(r"\((\d+)\)", first):
                found[int(number)].add(name)
    return found


@pytest.mark.parametrize("number", EQUATIONS)
def test_each_equation_has_a_derivation_a_function_that_is_it_and_a_check(number):
    """It is labelled in one chapter, whose code calls its function and ends with checks of what was computed."""
    functions = functions_of_equations()[number]
    assert functions, f"no function says in its docstring that it is equation ({number})"
    label = f"$$ (eq-paper-{number:02d})\n"
    chapters = [path for path in notebook_kinds.strict() if label in "\n".join(strings(nbformat.read(path, 4))) + "\n"]
    assert len(chapters) == 1, f"equation ({number}) is labelled in {[path.stem for path in chapters]}"
    sources = [cell.source for cell in code_cells(chapters[0])]
    used = {name for name in functions if any(re.search(rf"\b{name}\(", source) for source in sources)}
    assert used, f"{chapters[0].stem} has equation ({number}) and calls none of {sorted(functions)}"
    text = "\n".join(cell.source for cell in nbformat.read(chapters[0], 4).cells if cell.cell_type == "markdown")
    named = {name for name in used if re.search(rf"\b{name}\b", text)}
    assert named, f"{chapters[0].stem} does not say which function is equation ({number})"
    shown = re.findall(r"\w+", " ".join(source for source in sources if source.startswith("source_of(")))
    assert used & set(shown), f"{chapters[0].stem} does not show the source of equation ({number})"
    assert sources[-1].count("assert ") >= 5, f"{chapters[0].stem} does not end with checks"


THEORY = [path for path in notebook_kinds.strict() if path.name[:2] in ("01", "02", "03", "04", "05", "06")]


@pytest.mark.parametrize("notebook", THEORY, ids=lambda path: path.stem)
def test_a_theory_chapter_has_exercises_whose_solutions_are_folded_and_tested(notebook):
    cells = nbformat.read(notebook, as_version=4).cells
    asked = [i for i, cell in enumerate(cells) if "**Exercise " in cell.source]
    assert 3 <= len(asked) <= 5
    for number, i in enumerate(asked, start=1):
        assert f"**Exercise {number} (" in cells[i].source
        solution = cells[i + 1]
        assert "assert " in solution.source
        assert solution.metadata["tags"] == ["hide-cell"]
        assert solution.metadata["jupyter"]["source_hidden"]


WITHOUT_TYPED_NUMBERS = ("intro", "claims", "deviations")
NOT_PROSE = re.compile(
    r"```.*?```|\$\$.*?\$\$|\{[\w:]+\}`[^`]*`|`[^`]*`|\$[^$]*\$|\]\([^)]*\)|^:::.*?$", re.DOTALL | re.MULTILINE
)
NAMES_WITH_NUMBERS = re.compile(r"(?:[Ss]ections?|[Cc]hapters?|Tables?|Figures?)(?:(?:,| and)? \d+(?:\.\d+)*)+|\d×\d")


def typed_numbers(text: str) -> list[str]:
    """The numbers in the prose of a page: neither pasted from a chapter, nor code, nor formula, nor name of a table."""
    return re.findall(r"\d[\d.,]*", NAMES_WITH_NUMBERS.sub("", NOT_PROSE.sub("", text)))


@pytest.mark.parametrize("page", WITHOUT_TYPED_NUMBERS)
def test_no_number_is_typed_where_a_record_holds_it(page):
    text = (ROOT / "book" / f"{page}.md").read_text(encoding="utf-8")
    assert "{glue:text}`../notebooks/" in text
    assert not typed_numbers(re.sub(r"^\d\. ", "", text, flags=re.MULTILINE))


def test_a_typed_number_is_seen():
    assert typed_numbers("It reaches 88.8 % in Table 1 and {glue:text}`a::b:.1f`, 3×3, $x^2$, `beta=0`.") == ["88.8"]
    assert typed_numbers("Tables 1 and 2, Figure 3, sections 4.2.1 hold 12 or 1,024 cells") == ["12", "1,024"]


def test_every_notebook_that_does_not_train_is_named_for_the_comparison(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    runpy.run_path("tests/notebook_kinds.py", run_name="__main__")
    others = set((ROOT / "notebooks").glob("*.ipynb")) - set(notebook_kinds.training())
    assert {ROOT / name for name in capsys.readouterr().out.split()} == others


@training
def test_a_notebook_that_trains_is_stored_without_outputs_and_takes_parameters(notebook):
    cells = code_cells(notebook)
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in cells) == 1


@strict
def test_a_compared_notebook_was_run_once_from_top_to_bottom_without_an_error_or_a_warning(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


@strict
def test_each_figure_is_followed_by_its_caption(notebook):
    """Italics at the start of the next cell: what `book/_ext/pages.py` numbers."""
    cells = nbformat.read(notebook, as_version=4).cells
    figures = [
        i for i, cell in enumerate(cells) if any("image/png" in o.get("data", {}) for o in cell.get("outputs", []))
    ]
    assert not [i for i in figures if not cells[i + 1].source.startswith("*") or cells[i + 1].cell_type != "markdown"]


@every_notebook
def test_a_notebook_names_no_path_of_a_machine(notebook):
    content = nbformat.read(notebook, as_version=4)
    parts = [content.metadata, *(cell.metadata for cell in content.cells)]
    parts += [output for cell in content.cells for output in cell.get("outputs", [])]
    assert not [text for text in strings(parts) if MACHINE_PATH.search(text)]


def test_a_path_of_a_machine_is_found_and_other_text_with_slashes_is_not_taken_for_one():
    for before, folder in itertools.product(("", "in '", 'File "', "file://"), "work home root tmp opt Users".split()):
        assert MACHINE_PATH.search(f"{before}/{folder}/ada/x.py")
    for text in ("results/home/x", "a/tmp/b", "see https://example.org/home/x", "and/or"):
        assert not MACHINE_PATH.search(text)


def words(notebook: Path) -> int:
    """How many there are in its text cells."""
    cells = nbformat.read(notebook, as_version=4).cells
    return sum(len(cell.source.split()) for cell in cells if cell.cell_type == "markdown")


def test_the_part_on_qmvae_is_more_than_twice_as_long_as_that_on_its_neighbours():
    neighbours = notebook_kinds.neighbours()
    own = set((ROOT / "notebooks").glob("*.ipynb")) - set(neighbours)
    assert sum(map(words, own)) > 2 * sum(map(words, neighbours))


def test_equations_are_typeset_by_a_script_that_comes_with_the_book():
    (static,) = CONFIG["sphinx"]["config"]["html_static_path"]
    script = ROOT / static / CONFIG["sphinx"]["config"]["mathjax_path"]
    assert "MathJax" in script.read_text(encoding="utf-8")
    assert "Apache License" in (script.parent / "LICENSE").read_text(encoding="utf-8")


def test_the_configuration_loads_nothing_from_the_network():
    assert not [text for text in strings(CONFIG["sphinx"]["config"]) if "//" in text]
