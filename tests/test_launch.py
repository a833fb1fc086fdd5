"""The buttons that launch a chapter are there where the address is known, and open chapters that can start."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import pages  # noqa: E402 - an extension of the book, not a package

URL = "https://example.org/someone/book"
NOTEBOOKS = ROOT / "notebooks"


def options(monkeypatch, url: str | None) -> dict:
    config = SimpleNamespace(html_theme_options={"search_bar_text": "Search"})
    monkeypatch.delenv("QMVAE_REPOSITORY", raising=False)
    if url:
        monkeypatch.setenv("QMVAE_REPOSITORY", url)
    pages.add_launch_buttons(None, config)
    return config.html_theme_options


def test_without_an_address_there_is_no_button(monkeypatch):
    assert options(monkeypatch, None) == {"search_bar_text": "Search"}


def test_with_an_address_binder_and_colab_open_the_branch_that_the_workflow_makes(monkeypatch):
    found = options(monkeypatch, URL)
    assert found["repository_url"] == URL
    assert {"binderhub_url", "colab_url"} <= set(found["launch_buttons"])
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text(encoding="utf-8"))
    commands = "\n".join(step.get("run", "") for step in workflow["jobs"]["publish"]["steps"])
    assert f"HEAD:{found['repository_branch']}\n" in commands


def test_chapters_of_that_branch_install_the_package_before_they_import_it(tmp_path):
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    written = pages.write_launch_notebooks(URL, tmp_path / "notebooks")
    assert {path.name for path in written} == {path.name for path in NOTEBOOKS.glob("*.ipynb")}
    for path in written:
        before, after = (nbformat.read(each, 4) for each in (NOTEBOOKS / path.name, path))
        nbformat.validate(after)
        first, *rest = [cell for cell in after.cells if cell.cell_type == "code"]
        assert f"git clone -q --depth 1 {URL} qmvae" in first.source
        assert [cell.source for cell in rest] == [cell.source for cell in before.cells if cell.cell_type == "code"]
