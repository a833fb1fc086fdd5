"""The door of the results chapters: which parameters papermill gave, what is shown of a run, and what is refused."""

import re
import shutil
import sys
from types import SimpleNamespace

import pytest
from test_tables import SEEDS, record

from qmvae_core import losses
from qmvae_core.names import BEST
from qmvae_study.evidence.folder import REPOSITORY
from qmvae_study.evidence.records import RecordError, write_json
from qmvae_study.report import pages, tables
from qmvae_study.report.sources import source_of


def executed(monkeypatch, *cells: str) -> None:
    """Stands for a notebook that has run these cells."""
    shell = SimpleNamespace(user_ns={"In": ["", *cells]})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))


@pytest.fixture
def evidence(tmp_path):
    for each in SEEDS:
        write_json(tmp_path / "runs" / f"{each.id}.json", each)
    return str(tmp_path)


def test_a_page_has_the_records_that_its_parameter_names(evidence, monkeypatch):
    executed(monkeypatch, "import this", 'evidence = "results"', f'# Parameters\nevidence = "{evidence}"\n')
    page = pages.open({"evidence": evidence})
    assert page.records == SEEDS == page.finished
    assert page.shown == {"default": SEEDS[0], BEST: SEEDS[0]}
    assert page.show("transfer", tables.LONGER, "mnist", "svhn") == "There is no record of a longer run."
    assert pages.load(evidence, seed=1) == SEEDS[1:2]


def test_a_parameter_that_the_chapter_does_not_have_is_refused(evidence, monkeypatch):
    executed(monkeypatch, 'evidence = "results"', '# Parameters\nevidense = "runs/quick"\n')
    with pytest.raises(ValueError, match="unknown parameter evidense; the known ones are \\['evidence'\\]"):
        pages.open({"evidence": evidence})
    executed(monkeypatch, 'evidence = "results"\nevidense = "mine"')  # a reader's own name is no parameter
    pages.open({"evidence": evidence})
    monkeypatch.delitem(sys.modules, "IPython")
    assert pages.given() == set()


def test_a_kernel_with_another_library_than_the_folders_is_refused_by_its_interpreter(tmp_path, monkeypatch):
    for wing in pages.WINGS:
        shutil.copytree(REPOSITORY / wing, tmp_path / wing, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    pages.check({})  # the same code, installed elsewhere
    (tmp_path / "qmvae_core" / "losses.py").write_text("")
    said = (
        f"this kernel, of {sys.executable}, runs the library in {REPOSITORY}, which is not that of {tmp_path}; choose"
    )
    with pytest.raises(RuntimeError, match=re.escape(said)):
        pages.check({})


def test_an_evidence_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RecordError, match="no folder of records .*absent"):
        pages.open({"evidence": str(tmp_path / "absent")})


def test_a_page_without_panels_names_the_record():
    with pytest.raises(RecordError, match="has no panel transfer, mnist->svhn"):
        pages.Page(None, [record()]).show("transfer", "default", "mnist", "svhn")


def test_the_source_of_functions_is_a_block_of_python_with_their_names():
    shown = source_of(losses.elbo, losses.joint_elbo)
    assert repr(shown) == "source of elbo, joint_elbo"
    text = shown._repr_markdown_()
    assert text.startswith("From `qmvae_core.losses`:\n\n```python\ndef elbo(")
    assert "\n\ndef joint_elbo(" in text
    assert text.endswith("return value\n```")
