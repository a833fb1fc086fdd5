"""In anybody's shell: missing letters, readers who leave, homes and folders of any kind, a system without POSIX."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from small_notebooks import write

from qmvae_study import shell
from qmvae_study.evidence import folder, notebooks
from qmvae_study.evidence.records import load_records

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = "import sys; from qmvae_study import shell; sys.exit(shell.carry_out(lambda: {}))"
NO_HOME = {"HOME": os.devnull}  # below which nobody, not even root, makes a folder
ASCII = ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})


def run(code: str, environment: dict[str, str] | None = None, **options) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | (
        environment or {}
    )
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, **options)


def gone() -> int:
    """The end to write to of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize("environment", ASCII)
def test_what_a_terminal_without_utf8_lacks_is_a_question_mark(environment):
    done = run(PROGRAM.format("print('SVHN\\u2192MNIST 57.1 \\xb1 3.4')"), environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"SVHN?MNIST 57.1 ? 3.4\n", b"")


@pytest.mark.parametrize("environment", [{}, {"PYTHONUNBUFFERED": "1"}])
@pytest.mark.parametrize("command", ["print(1)", "sys.exit(print(1))"])
def test_a_reader_who_leaves_hears_no_complaint(command, environment):
    code = PROGRAM.format(command)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | environment, stdout=gone(), stderr=subprocess.PIPE
    )
    assert (done.returncode, done.stderr) == (shell.READER_LEFT, b"")


def test_the_command_itself_is_carried_out_so():
    """Without UTF-8, without a home, into a pipe that is closed: unbuffered, so that its own clauses hear of it."""
    command = [sys.executable, "-m", "qmvae_study", "collect", "--evidence", "results"]
    environment = os.environ | NO_HOME | ASCII[0] | {"PYTHONUNBUFFERED": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=gone(), stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (shell.READER_LEFT, b"")


def test_a_home_that_can_be_written_is_used_and_left_as_it_was(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    before = dict(os.environ)
    with shell.home_to_write():
        assert dict(os.environ) == before
    assert list(tmp_path.iterdir()) == []


def test_another_folder_stands_in_for_a_home_that_cannot_be_written(monkeypatch):
    monkeypatch.setenv("HOME", NO_HOME["HOME"])
    monkeypatch.setenv("MPLCONFIGDIR", "/chosen")
    before = dict(os.environ)
    with shell.home_to_write():
        assert os.environ["MPLCONFIGDIR"] == "/chosen"
        assert Path(os.environ["JUPYTER_DATA_DIR"]).is_dir()
    assert dict(os.environ) == before


def test_a_chapter_is_executed_without_a_home(monkeypatch, tmp_path):
    import nbformat

    for name in ("HOME", "MPLCONFIGDIR", "IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", NO_HOME["HOME"])
    source = "import matplotlib.font_manager\nprint('\u03b2')"
    path = write(tmp_path / "B\u00e9 1.ipynb", source, parameters="")
    with shell.home_to_write():
        list(notebooks.refresh([path]))
    assert [(each.name, each.text) for each in nbformat.read(path, 4).cells[0].outputs] == [("stdout", "\u03b2\n")]


# Folders


def test_a_tilde_that_the_shell_leaves_is_the_home_folder(monkeypatch, tmp_path):
    from qmvae_study.__main__ import ARGUMENTS

    monkeypatch.setenv("HOME", str(tmp_path))
    assert {ARGUMENTS[name]["type"]("~/ev") for name in ("--evidence", "--notebooks", "--out")} == {tmp_path / "ev"}
    assert folder.evidence_folder("~/ev") == tmp_path / "ev"
    assert folder.absolute_root("~/my data") == str(tmp_path / "my data")
    assert folder.opened("~nobody-of-this-name/ev") == Path("~nobody-of-this-name/ev")


def test_foreign_files_among_records_and_chapters_are_not_read(monkeypatch, tmp_path):
    for name in ("._x.json", ".#x.json", "x.json~", "x.json.bak", ".DS_Store", "._01_data.ipynb"):
        (tmp_path / name).write_bytes(b"\x00\x05\x16\x07")
    assert load_records(tmp_path) == []
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path)
    assert notebooks.stored() == []


# Make, with a stand-in for Python that says what it is asked for

WORD = """#!/bin/sh
case "$*" in "-m venv"*) mkdir -p "$4/bin"; cp "$0" "$4/bin/python";; esac
for word in "$0" "$@"; do printf '%s|' "$word"; done >> "$SAID"
echo >> "$SAID"
"""


@pytest.fixture
def make(tmp_path):
    """A function: arguments of make -> what it printed; run in a checkout with a blank and an accent in its name."""
    checkout = tmp_path / "my b\u00f6ok"
    checkout.mkdir()
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, checkout)
    python = checkout / "my python"
    python.write_text(WORD)
    python.chmod(python.stat().st_mode | stat.S_IXUSR)

    def call(*arguments: str, **environment: str) -> str:
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SAID": str(tmp_path / "said")} | environment
        command = ["make", "--no-print-directory", *arguments]
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    call.checkout, call.said = checkout, lambda: (tmp_path / "said").read_text().splitlines()
    return call


def test_an_environment_with_a_blank_in_its_name_is_made_once_by_the_lock_and_its_hashes(make):
    make("lint", "VENV=my env", "PYTHON=./my python")
    said = make.said()
    (made,) = (line for line in said if "|venv|" in line)
    assert made == "./my python|-m|venv|--clear|my env|"
    python = "my env/bin/python"
    assert f"{python}|-m|ruff|check|" in said
    installs = [line for line in said if "|install|" in line or "|sync|" in line]
    first, second, own = installs
    assert "|--no-deps|" in first
    assert "|--require-hashes|" in first
    assert {"--no-build", "--require-hashes", "requirements.lock"} <= set(second.split("|"))
    assert {"--no-deps", "--no-build-isolation", "--editable"} <= set(own.split("|"))
    make("lint", "VENV=my env", "PYTHON=./my python")
    assert [line for line in make.said()[len(said) :] if "|install|" in line] == []  # it is ready


def test_a_tilde_in_the_name_of_an_environment_is_the_home_folder(make, tmp_path):
    make("lint", "VENV=~/my env", "PYTHON=./my python")
    assert f"{tmp_path}/my env/bin/python|-m|ruff|check|" in make.said()


@pytest.mark.parametrize(
    ("given", "root"),
    [
        ("my data", "{checkout}/my data"),
        ("../d\u00e4ta", "{checkout}/../d\u00e4ta"),
        ("/my data", "/my data"),
        ("~/my data", "~/my data"),  # which the library opens
        ("stand-in", "stand-in"),
    ],
)
@pytest.mark.parametrize("variable", ["DATA_ROOT", "QMVAE_DATA_ROOT"])
def test_a_data_root_of_any_form_reaches_the_commands_whole(make, given, root, variable):
    show = '--eval=show: ; @printf %s "$$QMVAE_DATA_ROOT"'
    where = {} if variable == "DATA_ROOT" else {variable: given}
    found = make(show, "show", *([] if where else [f"DATA_ROOT={given}"]), **where)
    assert found == root.format(checkout=make.checkout)


def test_make_keeps_caches_in_the_checkout_where_the_home_cannot_be_written(make, tmp_path):
    show = '--eval=show: ; @printf \'%s|\' "$$XDG_CACHE_HOME" "$$MPLCONFIGDIR" "$$JUPYTER_DATA_DIR"'
    assert make(show, "show") == "|||"
    own = f"{make.checkout}/_build/home"
    assert make(show, "show", **NO_HOME, MPLCONFIGDIR="/chosen") == f"{own}|/chosen|{own}|"
    assert [path.name for path in tmp_path.iterdir()] == [make.checkout.name]


# A system without POSIX

WINDOWS = """
import importlib, os, pkgutil, sys
sys.modules |= {"fcntl": None, "resource": None}
del os.sched_getaffinity, os.O_DIRECTORY
fsync = os.fsync
def only_written(number):
    os.write(number, b"")  # fails, as Windows does, for a file that is open to be read
    fsync(number)
os.fsync = only_written
import qmvae_core
for module in pkgutil.walk_packages(qmvae_core.__path__, "qmvae_core."):
    importlib.import_module(module.name)
with qmvae_core.files.replacing(sys.argv[1]) as part:
    part.write_text("whole")
from qmvae_study import __main__ as command_line
from qmvae_study.evidence.provenance import provenance
from qmvae_study.report import pages
assert provenance()["peak_host_bytes"] is None
assert pages.open({"evidence": "results"}).records
assert command_line.main(["status", "--profile", "smoke"]) == 0
command_line.expected_hours = lambda *_: 1.0
assert command_line.main(["plan", "--profile", "smoke"]) == 0
sys.exit(command_line.main(["run", "--profile", "smoke"]))
"""


def test_without_posix_the_library_and_what_reads_records_work_and_a_run_says_why_not(tmp_path):
    command = [sys.executable, "-c", WINDOWS, tmp_path / "file"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines() == [
        "qmvae_study: POSIX only: runs need the file locks of Linux or macOS; on Windows use its WSL"
    ]
    assert (tmp_path / "file").read_text() == "whole"
