"""What the book says of a chapter's status is what its code names, what its records hold and what git knows."""

import nbformat
import pytest
import status
from finished import finish
from test_book import ROOT

from qmvae_core.names import BEST
from qmvae_study.plan import Run


@pytest.fixture
def chapter(tmp_path):
    """A function: sources of cells, the second of them its parameters -> a stored chapter."""

    def make(*sources: str, seconds: int | None = None, outputs: tuple = ()):
        cells = [nbformat.v4.new_code_cell(source, outputs=list(outputs)) for source in sources]
        for cell, tag in zip(cells[1:], ("parameters", "injected-parameters"), strict=False):
            cell.metadata.tags = [tag]
        path = tmp_path / "99_chapter.ipynb"
        metadata = {"qmvae": {"seconds": seconds}} if seconds else {}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
        return path

    return make


SAID = (nbformat.v4.new_output("stream", text="x\n"),)


def test_a_chapter_shows_the_records_that_it_was_given(chapter, tmp_path):
    for seed in (0, 1):
        finish(Run("smoke", BEST, (seed,)), seed, tmp_path, kind="stand-in", cost={"steps": 1600, "seconds": 1.0})
    path = chapter("import pandas", 'evidence = "results"', f'evidence = "{tmp_path}"', seconds=7, outputs=SAID)
    data, shows, code, time = status.status(path)
    assert (data, shows, time) == ("stand-in", "smoke, 1,600 steps, two seeds", "7 s of a core")
    assert code == ""  # git knows no such chapter


def test_a_chapter_without_records_or_outputs_says_so(chapter):
    assert status.status(chapter("print(1)", outputs=SAID))[:2] == ("", "computed on the page")
    status.status.cache_clear()
    assert status.status(chapter("print(1)"))[:2] == ("", "stored without outputs")


def test_committed_chapters_name_their_evidence():
    shown = {
        name: status.status(ROOT / "notebooks" / f"{name}.ipynb")[:2] for name in ("08_table1", "A4_trust", "B1_vae")
    }
    assert shown["08_table1"][0] == "real"
    assert shown["08_table1"][1].startswith("paper, 131,410 steps, ")
    assert shown["A4_trust"] == ("", "results/mutants; results/torture")
    assert shown["B1_vae"] == ("real", "its own experiment")
