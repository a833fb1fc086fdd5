"""The training notebook, run by the study's own command on the smoke profile, then the results notebooks on that.

One run serves the whole file. It is killed in the middle of training and started again, as on a machine that is lost.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import notebook_kinds
import papermill
import psutil
import pytest

from qmvae_core.names import BEST
from qmvae_study import __main__ as command_line
from qmvae_study import plan as study_plan
from qmvae_study import runs as study_runs
from qmvae_study.evidence import folder as places
from qmvae_study.evidence import notebooks
from qmvae_study.evidence.interpreter import kernel_manager
from qmvae_study.evidence.pictures import panel_images
from qmvae_study.evidence.records import Panel, config_hash, load_records

ROOT = Path(__file__).resolve().parents[1]
RUN = study_plan.Run("smoke", BEST, (0,))
PATIENCE = 900  # seconds until a process counts as stuck, for machines that do much else

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def evidence(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("evidence")


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Kernels find the library; the smoke profile must not look at a data root."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "QMVAE_DATA_ROOT": "/no/such/folder"}


@pytest.fixture(scope="module")
def command(evidence) -> list[str]:
    return [sys.executable, "-m", "qmvae_study", "run", "--profile", "smoke", "--evidence", str(evidence)]


@pytest.fixture(scope="module")
def killed(evidence, command, environment) -> str:
    """The state that a run leaves which is killed, kernel and all, as soon as there is a checkpoint."""
    folder = evidence / "work" / RUN.id
    process = psutil.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started = time.monotonic()
    try:
        while not any(folder.glob("*/checkpoint.pt")):
            assert process.poll() is None, "the run ended without a checkpoint"
            assert time.monotonic() - started < PATIENCE, "there was never a checkpoint"
            time.sleep(0.02)
    finally:
        family = [process, *process.children(recursive=True)] if process.poll() is None else []
        for member in family:
            member.kill()
        process.wait()
        psutil.wait_procs(family, timeout=30)
    assert len(family) >= 3  # the command, papermill and the kernel
    return study_runs.state(RUN, evidence)


@pytest.fixture(scope="module")
def output(killed, command, environment) -> str:
    """What the second start prints, which goes on from there."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def record(output, evidence) -> dict:
    (found,) = load_records(evidence / "runs")
    return found


@pytest.fixture(scope="module")
def executed(output, evidence):
    return nbformat.read(evidence / "work" / RUN.id / "07_train.ipynb", as_version=4)


def test_the_command_runs_every_training_notebook():
    assert notebook_kinds.training() == [notebooks.TRAINING_NOTEBOOK]


def test_a_killed_run_is_started_and_goes_on_from_its_checkpoint(killed, output, record, evidence):
    assert killed == "started"
    assert record["cost"]["resumed"] == 1
    assert record["cost"]["steps"] == 16
    assert study_runs.state(RUN, evidence) == "done"


def test_the_record_is_complete(record, evidence):
    assert record["status"] == "ok"
    assert (record["profile"], record["reading"], record["seed"]) == ("smoke", BEST, 0)
    assert record["config"] == json.loads(json.dumps(RUN.config()))
    assert record["config_hash"] == config_hash(RUN.config())
    metrics, counts = record["metrics"], record["data"]["n_test"]
    for direction in ("mnist->svhn", "svhn->mnist"):
        source = direction.split("->")[0]
        assert {value["n"] for value in metrics["cross_generation"][direction].values()} == {counts[source]}
    assert {name: metrics["probe"][name]["n"] for name in counts} == counts
    assert metrics["probe"]["joint"]["n"] <= min(counts.values())
    assert metrics["leakage"].keys() == counts.keys()
    assert len(record["history"]) == 2
    assert record["data"]["kind"] == "stand-in"
    assert any("no evidence about the paper" in note for note in record["data"]["notes"])
    assert re.fullmatch("[0-9a-f]{64}", record["data"]["content_hash"])
    assert record["provenance"].keys() >= {"commit", "dirty", "versions", "device", "threads", "peak_host_bytes"}
    assert record["cost"]["seconds"] > 0
    study_runs.load_model(record, evidence)
    for panels in record["panels"].values():
        for panel in panels.values():
            panel_images(Panel(**panel), evidence / "panels")


def test_the_judges_can_read(record, evidence):
    """Judges at chance would make the smoke run's numbers noise, and a fault in judging invisible."""
    for name, accuracy in record["metrics"]["oracle"].items():
        assert accuracy > 0.8
        about = json.loads((evidence / "oracles" / f"{name}.json").read_text())
        assert about["accuracy"]["test"] == pytest.approx(accuracy, abs=1e-6)
        assert about["data"]["kind"] == "stand-in"


def test_every_cell_ran_without_a_word_on_standard_error(executed):
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    said = [out.text for cell in code for out in cell.outputs if out.get("name") == "stderr"]
    assert said == []


def unmarked(book: nbformat.NotebookNode) -> list[str]:
    """The texts of pictures that do not say that they are of a smoke run."""
    data = [output.get("data", {}) for cell in book.cells for output in cell.get("outputs", [])]
    texts = [each["text/plain"] for each in data if "image/png" in each]
    return [text for text in texts if not text.startswith("smoke run: shows that the code works, nothing else. ")]


def test_each_picture_of_a_smoke_run_says_that_it_is_one(executed):
    assert not unmarked(executed)


def test_the_notebook_in_the_repository_is_left_as_it_is(output):
    for cell in nbformat.read(notebooks.TRAINING_NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            assert "injected-parameters" not in cell.metadata.get("tags", [])


def test_a_second_run_has_nothing_to_do(record, evidence):
    before = {path: path.stat().st_mtime_ns for path in evidence.rglob("*")}
    assert command_line.main(["run", "--profile", "smoke", "--evidence", str(evidence)]) == 0
    assert {path: path.stat().st_mtime_ns for path in evidence.rglob("*")} == before


def test_collect_prints_the_numbers_of_the_record(record, evidence, capsys):
    assert command_line.main(["collect", "--profile", "smoke", "--evidence", str(evidence)]) == 0
    printed, metrics = capsys.readouterr().out, record["metrics"]
    for value in (metrics["cross_generation"]["mnist->svhn"]["mean"], metrics["probe"]["mnist"]):
        assert f" {100 * value['accuracy']:.1f} " in printed


# The results notebooks


@pytest.fixture(scope="module")
def rendered(record, evidence, tmp_path_factory) -> Path:
    """The results notebooks, executed on the smoke run's evidence in a copy of their folder."""
    folder = tmp_path_factory.mktemp("book") / "notebooks"
    shutil.copytree(places.NOTEBOOKS, folder, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        notebooks.render(evidence, folder)
    return folder


@pytest.mark.parametrize("name", notebooks.RESULTS_NOTEBOOKS)
def test_results_notebooks_show_the_evidence_and_that_it_is_a_stand_in(rendered, name):
    book = nbformat.read(rendered / f"{name}.ipynb", as_version=4)
    outputs = json.dumps([cell.outputs for cell in book.cells if cell.cell_type == "code"], ensure_ascii=False)
    assert "STAND-IN DATA" in outputs
    assert "smoke" in outputs
    assert '"stderr"' not in outputs
    assert not unmarked(book)
    source = nbformat.read(places.NOTEBOOKS / f"{name}.ipynb", as_version=4)  # which is left alone
    assert not any("injected-parameters" in cell.metadata.get("tags", []) for cell in source.cells)


# Papermill without the study


def test_a_misspelt_parameter_is_an_error_by_plain_papermill_too(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(places, "REPOSITORY", tmp_path)
    with pytest.raises(papermill.PapermillExecutionError, match="unknown parameter sedes; the known ones are"):
        papermill.execute_notebook(
            notebooks.TRAINING_NOTEBOOK, tmp_path / "out.ipynb", parameters={"sedes": [1]},
            cwd=places.NOTEBOOKS, progress_bar=False, kernel_manager_class=kernel_manager(),
        )  # fmt: skip
