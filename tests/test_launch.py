"""The buttons that launch a chapter are there where the address is known, and open chapters that can start."""

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pages
import yaml
from test_book import CONFIG, ROOT

URL = "https://example.org/someone/book"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NOTEBOOKS = ROOT / "notebooks"


def options(monkeypatch, url: str | None, written: str = "") -> dict:
    """Of the theme, where the environment has an address or none, and _config.yml one."""
    config = SimpleNamespace(html_theme_options={"repository_url": written})
    monkeypatch.delenv("QMVAE_REPOSITORY", raising=False)
    if url:
        monkeypatch.setenv("QMVAE_REPOSITORY", url)
    pages.add_launch_buttons(None, config)
    return config.html_theme_options


def test_without_an_address_there_is_no_button(monkeypatch):
    assert options(monkeypatch, None) == {"repository_url": ""}
    assert CONFIG["repository"] == {"url": ""}


def test_the_address_is_written_in_one_place_and_whoever_publishes_may_name_another(monkeypatch):
    assert options(monkeypatch, None, written=URL) == options(monkeypatch, URL)
    assert options(monkeypatch, URL, written="https://example.org/another")["repository_url"] == URL


def test_with_an_address_binder_and_colab_open_the_commit_that_the_workflow_makes(monkeypatch):
    monkeypatch.delenv("QMVAE_LAUNCH", raising=False)
    found = options(monkeypatch, URL)
    assert found["repository_url"] == URL
    assert {"binderhub_url", "colab_url"} <= set(found["launch_buttons"])
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text(encoding="utf-8"))["jobs"]
    (push,) = (step["run"] for step in jobs["launch"]["steps"] if "git push" in step.get("run", ""))
    assert f"HEAD:refs/heads/{found['repository_branch']}\n" in push
    assert 'echo "commit=$(git rev-parse HEAD)" >> "$GITHUB_OUTPUT"' in push
    assert jobs["publish"]["env"]["LAUNCH"] == "${{ needs.launch.outputs.commit }}"
    monkeypatch.setenv("QMVAE_LAUNCH", COMMIT)
    assert options(monkeypatch, URL)["repository_branch"] == COMMIT


def test_chapters_of_that_branch_install_the_package_before_they_import_it(tmp_path):
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    (tmp_path / "notebooks" / "._01_data.ipynb").write_bytes(b"\x00\x05\x16\x07")
    written = pages.write_launch_notebooks(URL, COMMIT, tmp_path / "notebooks")
    assert {path.name for path in written} == {path.name for path in NOTEBOOKS.glob("*.ipynb")}
    for path in written:
        before, after = (nbformat.read(each, 4) for each in (NOTEBOOKS / path.name, path))
        nbformat.validate(after)
        first, *rest = [cell for cell in after.cells if cell.cell_type == "code"]
        assert first.source == pages.FIRST_CELL.format(url=URL, commit=COMMIT)
        assert [cell.source for cell in rest] == [cell.source for cell in before.cells if cell.cell_type == "code"]


def test_colab_gets_that_commit_and_the_files_of_its_lock_before_its_own(tmp_path, monkeypatch):
    commands, standard = [], os.path.dirname(os.__file__)

    def run(command, cwd=".", check=False):
        assert check
        commands.append((os.path.relpath(cwd, tmp_path), command))
        (tmp_path / "qmvae" / "notebooks").mkdir(exist_ok=True)

    cell = pages.FIRST_CELL.format(url=URL, commit=COMMIT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "path", ["", standard, "/python/dist-packages"])
    exec(cell, {})
    assert commands == []  # elsewhere it does nothing
    monkeypatch.setitem(sys.modules, "google.colab", None)
    exec(cell, {})
    in_git = [command for where, command in commands if where == "qmvae"]
    assert in_git[1:] == [
        ["git", *f"fetch -q --depth 1 {URL} {COMMIT}".split()],
        ["git", "checkout", "-q", "FETCH_HEAD"],
    ]
    where, install = commands[-1]
    assert install[:4] == [sys.executable, "-m", "pip", "install"]
    assert {"--require-hashes", "--no-deps"} <= set(install)
    assert (tmp_path / where / install[-1]).resolve() == tmp_path / "qmvae" / "requirements.lock"
    checkout = str(tmp_path / "qmvae")
    assert sys.path == ["", standard, checkout, f"{checkout}/locked", "/python/dist-packages"]
