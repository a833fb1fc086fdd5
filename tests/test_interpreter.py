"""Whatever runs a notebook runs it by this interpreter and this library, and says what ended it."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import notebook_kinds
import pytest
from small_notebooks import write

import qmvae_study
from qmvae_core.stops import OutOfTime
from qmvae_study import __main__ as command_line
from qmvae_study.evidence import interpreter, notebooks
from qmvae_study.evidence.folder import REPOSITORY, default_evidence

ABOUT = """
import os, sys, qmvae_study
print(sys.executable, qmvae_study.__file__, os.environ.get("CHANGED"))
"""


def said(path: Path) -> str:
    outputs = [out for cell in nbformat.read(path, 4).cells for out in cell.get("outputs", [])]
    return "".join(out.text for out in outputs if out.output_type == "stream")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A machine with another kernel and another library of the same names, and start-up files of the user's."""
    other = tmp_path / "other"
    spec = {"argv": [sys.executable, "-c", "raise SystemExit(1)"], "display_name": "Python 3", "language": "python"}
    for name, text in {
        "jupyter/kernels/python3/kernel.json": json.dumps(spec),
        "ipython/profile_default/startup/change.py": "import os\nos.environ['CHANGED'] = 'yes'\n",
        "library/qmvae_study/__init__.py": "",
    }.items():
        (other / name).parent.mkdir(parents=True)
        (other / name).write_text(text)
    monkeypatch.setenv("JUPYTER_PATH", str(other / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(other / "ipython"))
    monkeypatch.setenv("PYTHONPATH", str(other / "library"))


def by_papermill(path: Path, tmp_path: Path) -> str:
    notebooks.execute(path, tmp_path / "out.ipynb", {"seeds": [1]})
    return said(tmp_path / "out.ipynb")


def by_refresh(path: Path, tmp_path: Path) -> str:
    assert list(notebooks.refresh([path])) == [(path.stem, True)]
    return said(path)


@pytest.mark.parametrize("by", [by_papermill, by_refresh])
def test_a_kernel_is_this_interpreter_with_this_library_and_nobody_reads_along(tmp_path, elsewhere, capfd, by):
    expected = f"{sys.executable} {qmvae_study.__file__} None\n"
    assert by(write(tmp_path / "about.ipynb", ABOUT), tmp_path) == expected
    assert "encryption" not in "".join(capfd.readouterr())  # of which a kernel without it warns


def test_the_neighbours_are_run_so_too(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(notebooks, "execute", lambda *parts: given.append(parts))
    assert command_line.main(["neighbours"]) == 0
    folder = default_evidence("neighbours")
    assert given == [(path, folder / path.name, {"profile": "quick"}) for path in notebook_kinds.neighbours()]


def test_the_lab_offers_the_kernel_of_its_own_environment_first(elsewhere):
    """And a kernel.json of that environment names "python", which Jupyter takes for its own interpreter."""
    asked = ["make", "-n", "--no-print-directory", "lab", f"VENV={sys.prefix}"]
    *_, line = subprocess.run(asked, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.splitlines()
    assert line.endswith(" -m jupyterlab notebooks")
    listed = line.replace("jupyterlab notebooks", "jupyter kernelspec list --json")
    found = subprocess.run(listed, shell=True, capture_output=True, text=True, check=True).stdout
    spec = json.loads(found)["kernelspecs"]["python3"]
    assert Path(spec["resource_dir"]).is_relative_to(sys.prefix)
    assert spec["spec"]["argv"][0] in ("python", sys.executable)


# What ends a notebook


def test_a_kernel_that_is_killed_is_named_with_the_remedy(tmp_path):
    path = write(tmp_path / "dies.ipynb", "import os\nos.kill(os.getpid(), 9)")
    with pytest.raises(RuntimeError, match="dies.ipynb failed: .* out of memory.*--workers 1.*last checkpoint"):
        notebooks.execute(path, tmp_path / "out.ipynb", {})
    with pytest.raises(RuntimeError, match="dies.ipynb failed: .* out of memory"):
        list(notebooks.refresh([path]))


def test_sigterm_is_handed_on_to_the_kernel_and_counts_as_a_stop(tmp_path):
    source = """
import os, signal, time
def save(*_):
    print("saved", flush=True)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(1)
    signal.raise_signal(signal.SIGTERM)
signal.signal(signal.SIGTERM, save)
os.kill(os.getppid(), signal.SIGTERM)
time.sleep(60)
"""
    with pytest.raises(OutOfTime, match="stopped by SIGTERM; the same command goes on"):
        notebooks.execute(write(tmp_path / "stops.ipynb", source), tmp_path / "out.ipynb", {}, tmp_path / "log")
    assert "saved" in (tmp_path / "log").read_text()


def test_a_half_written_notebook_is_no_traceback(tmp_path, monkeypatch):
    """As an earlier version left one on a full disk, which ended the whole plan."""
    output = tmp_path / "out.ipynb"

    def run(*_, **__):
        output.write_text('{"cells": [{"outp')
        return subprocess.CompletedProcess([], 1)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(RuntimeError, match="tiny.ipynb failed; the cell is in"):
        notebooks.execute(write(tmp_path / "tiny.ipynb"), output, {})


@pytest.mark.parametrize("then", ["", "\nraise OSError(28, 'No space left on device')"])
def test_a_disk_without_room_for_the_notebook_does_not_end_what_it_does(tmp_path, monkeypatch, capfd, then):
    """A folder in the place of the notebook stands for the full disk."""
    (tmp_path / "out.ipynb").mkdir()
    path = write(tmp_path / "tiny.ipynb", f"open({str(tmp_path / 'record')!r}, 'w').write('done'){then}")
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    with pytest.raises(RuntimeError, match=r"out.ipynb could not be written to .*, where [\d,]+ bytes are free"):
        notebooks.execute(path, tmp_path / "out.ipynb", {})
    assert (tmp_path / "record").read_text() == "done"
    assert ("No space left on device" in capfd.readouterr().err) == bool(then)


# What a kernel leaves


def folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob(f"{interpreter.PREFIX}*"))


def test_papermill_that_is_killed_is_named_and_the_next_kernel_takes_away_what_it_left(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    path = write(tmp_path / "dies.ipynb", "import os\nos.kill(os.getppid(), 9)\nimport time\ntime.sleep(60)")
    with pytest.raises(RuntimeError, match="dies.ipynb failed: .* out of memory"):
        notebooks.execute(path, tmp_path / "out.ipynb", {})
    (left,) = folders()
    assert (left / "kernel.json").exists()
    by_refresh(write(tmp_path / "about.ipynb", ABOUT), tmp_path)
    assert folders() == {left}  # so new that its starter may not have locked it yet
    os.utime(left, (0, 0))
    by_papermill(tmp_path / "about.ipynb", tmp_path)
    assert not folders()
