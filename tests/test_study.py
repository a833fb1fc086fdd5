"""The plan, the state of a run, what a run leaves behind, and the command line. The notebook itself: test_papermill."""

import copy
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from finished import finish

from qmvae_core.data import MODALITIES, STAND_IN, DigitData, Digits
from qmvae_core.evaluation import Context, evaluate
from qmvae_core.models import MODELS, READINGS, build_model, reading
from qmvae_core.names import BEST
from qmvae_core.training import NonFiniteLoss, OutOfTime, Trained, TrainingConfig
from qmvae_core.training.batches import Steps
from qmvae_study import __main__ as command_line
from qmvae_study import diagnosis, execution
from qmvae_study import plan as study_plan
from qmvae_study import runs as study_runs
from qmvae_study.evidence import notebooks, records
from qmvae_study.evidence.pictures import panel_images
from qmvae_study.evidence.records import Panel, RecordError, config_hash, load_records, read_record
from qmvae_study.judges import OracleError
from qmvae_study.oracles import DigitClassifier, OracleConfig
from qmvae_study.plan import Run, plan, profile
from qmvae_study.report.tables import leakage_table
from qmvae_study.rows import MODELS_COMPARED
from qmvae_study.runs import record_path, state

ROOT = Path(__file__).resolve().parents[1]
SMALL = "default+mnist.widths=[6]+svhn.widths=[2,2]"  # trains in milliseconds


# The plan


def test_the_paper_profile_is_every_reading_with_five_seeds_in_one_stack():
    runs = plan("paper", stacked=True)
    assert [run.seeds for run in plan("paper")][:6] == [(0,), (1,), (2,), (3,), (4,), (0,)]  # on a CPU each seed alone
    assert [(run.reading, run.seeds) for run in runs] == [(name, (0, 1, 2, 3, 4)) for name in MODELS_COMPARED]
    training = profile("paper").training
    assert (training.epochs, training.steps_per_epoch, training.batch_size) == (10, None, 128)
    assert (training.learning_rate, training.rounds, training.pair_seed) == (1e-4, 30, 0)
    assert not profile("paper").validation


def test_the_other_profiles():
    assert [(run.reading, run.seeds) for run in plan("quick")] == [(name, (0,)) for name in MODELS_COMPARED]
    assert [(run.reading, run.seeds) for run in plan("smoke")] == [(BEST, (0,))]
    assert profile("smoke").data_root == STAND_IN
    assert profile("quick").data_root is profile("paper").data_root is None  # whatever data root there is


def test_the_compared_models_cover_the_rows_of_the_tables_and_every_model():
    """Each row of the paper by a reading of the model's own name, as the claims need it, Q-MVAE by several."""
    assert {Run("quick", name, (0,)).model for name in MODELS_COMPARED} == set(MODELS)
    assert {f"{name}{loss}" for name in (BEST, "as-printed") for loss in ("", "+beta=0")} < set(MODELS_COMPARED)


def test_readings_and_seeds_replace_the_profiles_own():
    assert [run.seeds for run in plan("quick", ["default"], [3, 5])] == [(3,), (5,)]
    assert [run.seeds for run in plan("paper", ["default"], [3, 5], stacked=True)] == [(3, 5)]
    assert [run.precision for run in plan("quick", ["default"], precision="bfloat16")] == ["bfloat16"]
    assert [run.reading for run in plan("quick", ["as-printed", SMALL])] == ["as-printed", SMALL]


def test_every_run_of_every_plan_builds_and_has_names_of_its_own():
    runs = [run for name in study_plan.PROFILES for run in plan(name)]
    for run in runs:
        build_model(reading(run.reading))
        json.dumps(run.config(), allow_nan=False)
    names = [run.record_id(seed) for run in runs for seed in run.seeds]
    assert len(set(names)) == len(names)


def test_ids_say_what_a_run_is():
    run = Run("paper", "default", (0, 2))
    assert run.id == "qmvae-default-s0_2"
    assert run.record_id(2) == "paper-qmvae-default-seed2"
    assert record_path(run, 2, Path("folder")) == Path("folder/runs/paper-qmvae-default-seed2.json")
    assert run.model == "qmvae"
    other = dataclasses.replace(run, precision="bfloat16")
    assert other.id == "qmvae-default-bfloat16-s0_2"
    assert other.record_id(2) == "paper-qmvae-default-bfloat16-seed2"
    assert (run.training.precision, other.training.precision) == ("float32", "bfloat16")
    assert dataclasses.replace(other.training, precision="float32") == run.training


def test_the_config_holds_all_choices_of_model_and_training():
    config = Run("quick", "default+beta=7", (0,)).config()
    assert config["model"]["beta"] == 7
    assert config["training"]["steps_per_epoch"] == profile("quick").training.steps_per_epoch
    others = (("quick", "default"), ("quick", "as-printed"), ("paper", "default"), ("quick", "default+beta=7"))
    assert len({config_hash(Run(*parts, (0,)).config()) for parts in others}) == 4
    assert config_hash(Run("quick", "default", (0,)).config()) == config_hash(Run("quick", "default", (9,)).config())


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("paper ", "default", (0,)), r"unknown profile 'paper '; the known ones are .*'quick'"),
        (("paper", "defalt", (0,)), r"unknown reading 'defalt'; the known ones are .*'as-printed'"),
        (("paper", "default+negative=hardest", (0,)), r"unknown QMVAEConfig field negative; .*negatives"),
        (("paper", "default+svhn.privat=3", (0,)), "unknown ModalityConfig field privat"),
        (("paper", "default+all.privat=3", (0,)), "unknown ModalityConfig field privat"),
        (("paper", "default+audio.private=3", (0,)), "unknown place in the change 'audio.private=3': 'audio'"),
        (("paper", "default+negatives", (0,)), "change 'negatives'; write field=value or modality.field=value"),
        (("paper", "default+", (0,)), "cannot read the change ''"),
        (("paper", "default+modalities=3", (0,)), "cannot read the change 'modalities=3'"),
        (("paper", "+beta=3", (0,)), "unknown reading ''"),
        (("paper", "default+training.epoch=3", (0,)), r"unknown TrainingConfig field epoch; .*epochs"),
        (("paper", "default", ()), r"must be seeds, and none twice, got \[\]"),
        (("paper", "default", (2**32,)), r"not \(4294967296,\); integers lie below 2\*\*32"),
        (("paper", "default", (0,), "float8"), r"unknown precision 'float8'; the known ones are .*'bfloat16'"),
        (("paper", "default+mask_equal_negatives=False", (0,)), r"mask_equal_negatives must be bool, not 'False'"),
        (("paper", "default+all.scale=.5", (0,)), r"ModalityConfig: scale must be positive float, not '.5'"),
        (("paper", "default+all.private=64.0", (0,)), r"ModalityConfig: private must be int, not 64.0"),
        (("paper", "default+all.private=-1", (0,)), r"ModalityConfig: private must be int, not -1"),
        (("paper", "default+beta=NaN", (0,)), r"QMVAEConfig: beta must be float, not nan"),
        (("paper", "default+beta=true", (0,)), r"QMVAEConfig: beta must be float, not True"),
        (("paper", "default+svhn.widths=5", (0,)), r"widths must be positive tuple\[int, ...\], not 5"),
        (("paper", "default+mnist.shape=[28,28]", (0,)), "images of mnist have the shape"),
        (("quick", "default+negatives=typo", (0,)), "unknown screening rule 'typo'"),
        (("quick", "default+model=foo", (0,)), "unknown model 'foo'"),
        (("paper", "default+all.network=deep", (0,)), r"unknown network 'deep'"),
        (("paper", "default+shared=", (0,)), r"shared must be positive int, not ''"),
        (("paper", 'dmvae+total_correlation={"mnist":-1}', (0,)), r"total_correlation must be Mapping\[str, float\]"),
        (("paper", "mmvae+particles=0", (0,)), "particles must be positive int, not 0"),
        (("paper", "default+training.learning_rate=0", (0,)), r"TrainingConfig: learning_rate must be positive float"),
        (("paper", "default", (1, 1)), r"none twice, got \[1, 1\]"),
        (("paper", "default", (0, -1)), r"Run: seeds must be .*not \(0, -1\)"),
    ],
)
def test_a_run_that_cannot_be_is_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        Run(*parts)


def test_a_plan_refuses_what_a_run_refuses():
    with pytest.raises(ValueError, match="unknown profile"):
        plan("papr")
    with pytest.raises(ValueError, match="there must be seeds, and none twice"):
        plan("quick", seeds=[])


# Readings


def test_a_reading_takes_changes_of_the_whole_and_of_one_modality():
    changed = reading("default+negatives=hardest+svhn.private=4+beta=0.5+mask_equal_negatives=true+mnist.widths=[8,9]")
    expected = READINGS["default"].to_dict()
    expected |= {"negatives": "hardest", "beta": 0.5, "mask_equal_negatives": True}
    expected["modalities"]["svhn"]["private"] = 4
    expected["modalities"]["mnist"]["widths"] = [8, 9]
    assert changed.to_dict() == expected
    assert reading("default") == READINGS["default"]  # nothing was changed in place
    changed = reading("default+all.private=4+svhn.private=5")
    assert [m.private for m in changed.modalities.values()] == [4, 5]


def test_a_reading_can_change_the_training_but_not_the_model_by_that():
    run = Run("quick", "default+training.learning_rate=1e-4+training.epochs=2", (0,))
    assert reading(run.reading) == reading("default")
    plain = Run("quick", "default", (0,))
    assert run.config() == {
        "model": plain.config()["model"],
        "training": plain.config()["training"] | {"learning_rate": 1e-4, "epochs": 2},
    }


def test_the_sensitivity_plan_repeats_its_default_and_judges_on_validation_digits():
    runs = plan("sensitivity")
    assert [run.seeds for run in runs if run.reading == "default"] == [(0,), (1,), (2,)]
    assert {run.seeds for run in runs if run.reading != "default"} == {(0,)}
    assert profile("sensitivity").validation
    assert len({json.dumps(run.config(), sort_keys=True) for run in runs}) == len(runs) - 2  # no choice is made twice


# The state of a run


def test_a_run_is_to_do_started_done_or_failed(tmp_path):
    run = Run("paper", "default", (0, 1))
    assert state(run, tmp_path) == "to do"
    finish(run, 0, tmp_path)
    assert state(run, tmp_path) == "to do"  # one seed of two
    assert state(Run("quick", "default", (0, 1)), tmp_path) == "to do"
    checkpoint = tmp_path / "work" / run.id / "of-some-data" / "checkpoint.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    assert state(run, tmp_path) == "started"
    finish(run, 1, tmp_path)
    assert state(run, tmp_path) == "done"
    assert state(Run("paper", "default", (0,)), tmp_path) == "done"
    assert state(Run("paper", "default", (0, 2)), tmp_path) == "to do"
    assert state(Run("paper", "as-printed", (0, 1)), tmp_path) == "to do"
    assert state(Run("paper", "default", (0, 1), "bfloat16"), tmp_path) == "to do"
    finish(run, 1, tmp_path, status="failed")
    assert state(run, tmp_path) == "failed"


@pytest.mark.parametrize(
    ("made", "at_hand", "found"),
    [
        ((STAND_IN, "s"), {"kind": STAND_IN, "content_hash": "s"}, "done"),
        ((STAND_IN, "s"), {"kind": STAND_IN, "content_hash": "other"}, "to do"),
        ((STAND_IN, "s"), {"kind": "real", "content_hash": "r"}, "to do"),
        ((STAND_IN, "s"), {"kind": "real"}, "to do"),
        (("real", "r"), {"kind": "real", "content_hash": "r", "notes": []}, "done"),
        (("real", "r"), {"kind": "real", "content_hash": "other"}, "of other data"),
        (("real", "r"), {"kind": STAND_IN, "content_hash": "s"}, "of other data"),
        (("real", "r"), {"kind": "real"}, "done"),
        (("real", "r"), None, "done"),
    ],
)
def test_done_is_done_on_the_data_at_hand(tmp_path, made, at_hand, found):
    run = Run("quick", "default", (0,))
    finish(run, 0, tmp_path, kind=made[0], content=made[1])
    assert state(run, tmp_path, at_hand) == found


def test_a_record_of_other_real_data_is_neither_taken_nor_written_over(tmp_path, monkeypatch, capsys):
    run = Run("quick", "default", (0,))
    finish(run, 0, tmp_path)
    monkeypatch.setattr(command_line, "data_for", lambda name, root: small_data("real"))
    monkeypatch.setattr(execution, "carry_out", lambda *_: pytest.fail("a run was begun"))
    command = ["run", "--readings", "default", "--evidence", str(tmp_path), "--data-root", "elsewhere"]
    assert command_line.main(command) == 0  # of the same content
    monkeypatch.setattr(command_line, "data_for", lambda name, root: small_data())
    assert command_line.main(command) == 1
    assert "other real data than those at hand; name their root with --data-root" in capsys.readouterr().err


@pytest.mark.parametrize("lost", ["weights", "other weights", "panel", "other panel", "judge"])
def test_a_run_whose_outputs_are_not_there_is_not_done(tmp_path, monkeypatch, small_profile, lost):
    run, (record, _) = train_and_judge(tmp_path, monkeypatch)
    assert state(run, tmp_path) == "done"
    if "weights" in lost:
        path = tmp_path / "weights" / f"{record.id}.safetensors"
    elif "panel" in lost:
        path = tmp_path / "panels" / record.panel("traversal", "mnist", "svhn").files["generated"]
    else:
        path = tmp_path / "oracles" / "svhn.json"
        records.write_json(path, {"modality": "svhn", "weights_sha256": "of another judge"})
    if lost.startswith("other"):
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    elif lost != "judge":
        path.unlink()
    assert state(run, tmp_path) == "started"  # its checkpoint is there, so only the judging is done again


def test_a_record_that_is_older_than_a_field_of_the_config_is_done_where_the_field_has_its_default(tmp_path):
    run = Run("quick", "default", (0,))
    config = copy.deepcopy(run.config())
    del config["model"]["shared_kl_weight"], config["training"]["reports"]
    older = {"config": config, "config_hash": config_hash(config)}
    finish(run, 0, tmp_path, **older)
    assert state(run, tmp_path) == "done"
    assert state(Run("quick", "default+shared_kl_weight=2", (0,)), tmp_path) == "to do"
    finish(Run("quick", "default+shared_kl_weight=2", (0,)), 0, tmp_path, **older)
    assert state(Run("quick", "default+shared_kl_weight=2", (0,)), tmp_path) == "to do"
    finish(Run("quick", "default+training.epochs=11", (0,)), 0, tmp_path, **older)
    assert state(Run("quick", "default+training.epochs=11", (0,)), tmp_path) == "to do"
    config["model"]["unheard"] = 1
    finish(run, 0, tmp_path, config=config, config_hash=config_hash(config))
    assert state(run, tmp_path) == "to do"


def test_a_reading_of_any_length_has_names_that_a_file_system_takes(tmp_path):
    longer = "default" + "".join(f"+{place}weight={'1' * 30}" for place in ("mnist.", "svhn.", "all."))
    runs = [Run("quick", name, tuple(range(40))) for name in (longer + "+beta=1099", longer + "+beta=7")]
    assert len({run.record_id(0) for run in runs} | {run.id for run in runs}) == 4
    assert Run("quick", longer, tuple(range(40))).id != Run("quick", longer, tuple(range(41))).id
    for run in runs:
        assert run.record_id(0).startswith("quick-qmvae-default+")
        assert run.config()["model"]["beta"] == (7 if run.reading.endswith("=7") else 1099)
        for seed in run.seeds:
            finish(run, seed, tmp_path)
        (tmp_path / f"{run.record_id(0)}-cross_generation-mnist-to-svhn-conditions.png.4194304.part").touch()
        assert state(run, tmp_path) == "done"


def test_a_damaged_record_is_an_error_and_not_a_state(tmp_path):
    run = Run("quick", "default", (0,))
    finish(run, 0, tmp_path)
    record_path(run, 0, tmp_path).write_text("{")
    with pytest.raises(RecordError, match="delete it and run it again"):
        state(run, tmp_path)


# Notebooks with parameters


@pytest.fixture
def notebook(tmp_path):
    """A notebook that writes its parameter into a file beside itself, and fails for "fail"."""
    book = nbformat.v4.new_notebook(metadata={"language_info": {"name": "python"}})
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    book.cells = [
        nbformat.v4.new_code_cell('word = "default"\nseeds = [0]', metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(
            'from pathlib import Path\nPath("heard.txt").write_text(f"{word} {seeds}")\n'
            'assert word != "fail", "as asked"\n'
            "class OutOfTime(RuntimeError): pass\n"
            'if word == "time": raise OutOfTime("as asked")'
        ),
    ]
    for number, cell in enumerate(book.cells):
        cell["id"] = f"cell{number}"
    path = tmp_path / "books" / "tiny.ipynb"
    path.parent.mkdir()
    nbformat.write(book, path)
    return path


def test_an_unknown_parameter_stops_before_anything_runs(notebook, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("something was run"))
    with pytest.raises(ValueError, match="unknown parameter devise, wrod; .*'seeds', 'word'"):
        notebooks.execute(notebook, tmp_path / "out" / "tiny.ipynb", {"wrod": "x", "seeds": [1], "devise": 2})
    assert not (tmp_path / "out").exists()


def test_a_failing_cell_is_an_error_that_names_the_kept_output(notebook, tmp_path, capfd):
    output = tmp_path / "deep" / "out.ipynb"
    expected = rf"tiny.ipynb failed with AssertionError: as asked; .* {re.escape(str(output))}"
    with pytest.raises(RuntimeError, match=expected):
        notebooks.execute(notebook, output, {"word": "fail", "seeds": [4, 2]})
    # it ran in the notebook's own folder, with the parameters given
    assert (notebook.parent / "heard.txt").read_text() == "fail [4, 2]"
    assert "as asked" in output.read_text()
    assert "as asked" in "".join(capfd.readouterr())


def test_carry_out_hands_the_run_to_the_training_notebook(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(execution, "execute", lambda *parts: given.append(parts))
    execution.carry_out(Run("paper", "as-printed", (3, 4)), tmp_path, "stand-in", "cuda")
    assert given == [
        (
            ROOT / "notebooks" / "07_train.ipynb",
            tmp_path / "work" / "qmvae-as-printed-s3_4" / "07_train.ipynb",
            {"profile": "paper", "reading": "as-printed", "seeds": [3, 4], "precision": "float32", "device": "cuda",
             "data_root": "stand-in", "evidence": str(tmp_path), "minutes": None},
            None, None, None,
        )
    ]  # fmt: skip
    (cell,) = [c for c in nbformat.read(given[0][0], 4).cells if "parameters" in c.metadata.get("tags", [])]
    assert re.findall(r"^(\w+) = ", cell.source, re.MULTILINE) == list(given[0][2])


def test_render_executes_every_results_notebook_in_place(tmp_path, monkeypatch):
    given, described = [], []
    monkeypatch.setattr(notebooks, "execute", lambda *parts: given.append(parts))
    monkeypatch.setattr(notebooks, "alternative_texts", described.append)
    notebooks.render(tmp_path / "evidence", tmp_path / "copy")
    paths = [tmp_path / "copy" / f"{name}.ipynb" for name in notebooks.RESULTS_NOTEBOOKS]
    assert given == [(path, path, {"evidence": str(tmp_path / "evidence")}) for path in paths]
    assert described == paths


@pytest.fixture
def chapter(tmp_path):
    """A function that writes a chapter with one cell, and executes it once."""

    def make(source: str) -> Path:
        path = tmp_path / "08_chapter.ipynb"
        cell = nbformat.v4.new_code_cell(source)
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), path)
        list(notebooks.refresh([path]))
        return path

    return make


def test_refreshing_writes_only_what_comes_out_differently(chapter, tmp_path):
    (tmp_path / "number").write_text("1")
    path = chapter("print(open('number').read())")
    before = path.read_bytes()
    assert nbformat.read(path, 4).cells[0].outputs[0].text == "1\n"
    metadata = nbformat.read(path, 4).metadata
    assert metadata.keys() == {"kernelspec", "qmvae"}  # no version of a language
    assert 1 <= metadata.qmvae.seconds < 300
    assert list(notebooks.refresh([path])) == [("08_chapter", False)]
    assert path.read_bytes() == before
    (tmp_path / "number").write_text("2")
    assert list(notebooks.refresh([path])) == [("08_chapter", True)]
    assert nbformat.read(path, 4).cells[0].outputs[0].text == "2\n"


def test_a_chapter_that_fails_is_named_and_stays_as_it_was(chapter, tmp_path):
    (tmp_path / "number").write_text("1")
    path = chapter("print(open('number').read())")
    before = path.read_bytes()
    (tmp_path / "number").unlink()
    with pytest.raises(RuntimeError, match="08_chapter.ipynb failed with FileNotFoundError: .*number"):
        list(notebooks.refresh([path]))
    assert path.read_bytes() == before


def test_refresh_names_chapters_by_their_beginning(monkeypatch):
    given = []
    monkeypatch.setattr(notebooks, "refresh", lambda paths: [(given.append(p.stem) or p.stem, False) for p in paths])
    assert command_line.main(["refresh", "08", "A1"]) == 0
    assert given == ["08_table1", "A1_sensitivity"]
    given.clear()
    assert command_line.main(["refresh"]) == 0
    assert given == [path.stem for path in notebooks.stored()]
    assert not [name for name in given if name.startswith("07")]


def test_alternative_texts_of_figures_are_copied_to_their_cells_alone(tmp_path):
    def shown(**data):
        return nbformat.v4.new_output("display_data", data={name.replace("_", "/"): v for name, v in data.items()})

    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_code_cell(name, id=name) for name in ("figure", "table", "silent")]
    book.cells[0].outputs = [shown(image_png="AAAA", text_plain="Two bars, the left one higher.")]
    book.cells[1].outputs = [shown(text_html="<table></table>", text_plain="a table")]
    book.cells.append(nbformat.v4.new_markdown_cell("words", id="words"))
    nbformat.write(book, tmp_path / "book.ipynb")
    notebooks.alternative_texts(tmp_path / "book.ipynb")
    found = nbformat.read(tmp_path / "book.ipynb", as_version=4)
    assert [dict(cell.metadata) for cell in found.cells] == [
        {"mystnb": {"image": {"alt": "Two bars, the left one higher."}}}, {}, {}, {},
    ]  # fmt: skip
    assert found.cells[0].outputs == book.cells[0].outputs


# What a run leaves behind


def small_data(kind: str = "stand-in") -> DigitData:
    generator = torch.Generator().manual_seed(0)
    splits = []
    for per_digit in (15, 3):
        labels = torch.arange(10).repeat(per_digit)
        splits.append(
            {name: Digits(torch.randint(0, 256, (len(labels), *shape), dtype=torch.uint8, generator=generator), labels)
             for name, shape in MODALITIES.items()}
        )  # fmt: skip
    counts = {"n_train": dict.fromkeys(MODALITIES, 150), "n_test": dict.fromkeys(MODALITIES, 30)}
    return DigitData(*splits, {"kind": kind, "notes": ["A first note"], "content_hash": "x", "files": {}, **counts})


@pytest.fixture
def small_profile(monkeypatch):
    training = TrainingConfig(epochs=2, steps_per_epoch=2, batch_size=20, rounds=1, chunk=1)
    monkeypatch.setitem(study_plan.PROFILES, "smoke", dataclasses.replace(profile("smoke"), training=training))


METRICS = {"cross_generation": {"mnist->svhn": {"mean": {"accuracy": 0.5, "n": 30}}}}
JUDGES = {name: DigitClassifier(name, OracleConfig(epochs=1, channels=2)) for name in MODALITIES}
for name, judge in JUDGES.items():
    judge.sha256 = f"of the {name} judge"


def train_and_judge(evidence: Path, monkeypatch, seeds=(0, 3)) -> tuple[Run, list[dict]]:
    run, data = Run("smoke", SMALL, seeds), small_data()
    judged = []
    monkeypatch.setattr(study_runs, "evaluate", lambda *parts: judged.append(parts) or copy.deepcopy(METRICS))
    monkeypatch.setattr(study_runs, "published_for", lambda *where: {5: JUDGES})
    trained = study_runs.train(run, data, evidence, progress="none")
    written = study_runs.judge(run, trained, data, JUDGES, evidence)
    for name, oracle in JUDGES.items():
        records.write_json(evidence / "oracles" / f"{name}.json", {"modality": name, "weights_sha256": oracle.sha256})
    assert [parts[0] for parts in judged] == trained.models
    assert [parts[4] for parts in judged] == list(seeds)
    for _, train, test, *_ in judged:  # trained probes see training digits, judged are test digits
        assert (len(train["mnist"]), len(test["svhn"])) == (150, 30)
    return run, written


def test_sigterm_saves_a_checkpoint_says_so_and_does_what_it_did_before(tmp_path, monkeypatch, small_profile, capsys):
    """By default, what it did before is to end the process."""
    heard, chunks = [], []
    run_chunk = Steps.run_chunk

    def signalled(steps, epoch, chunk):
        chunks.append((epoch, chunk))
        signal.raise_signal(signal.SIGTERM)
        return run_chunk(steps, epoch, chunk)

    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("as before"))
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Steps, "run_chunk", signalled)
            with pytest.raises(OutOfTime):
                study_runs.train(Run("smoke", SMALL, (0,)), small_data(), tmp_path, progress="none")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (chunks, heard) == ([(0, 0)], ["as before"])
    said = capsys.readouterr().out
    assert said == "stopped by SIGTERM in epoch 1 of 2; the same command goes on from there\n"
    assert state(Run("smoke", SMALL, (0,)), tmp_path) == "started"
    on = study_runs.train(Run("smoke", SMALL, (0,)), small_data(), tmp_path, progress="none")
    assert on.cost["resumed"] == 1


@pytest.fixture
def amendable(tmp_path, monkeypatch, small_profile):
    """Two records to which "joint_code" can be added from their weights."""
    _, written = train_and_judge(tmp_path, monkeypatch)
    monkeypatch.setattr(study_runs, "data_for", lambda name, root: small_data())
    monkeypatch.setattr(study_runs, "oracles_for", lambda *where: JUDGES)
    monkeypatch.setattr(study_runs, "evaluate", evaluate)
    found = dict.fromkeys(METRICS) | {"joint_code": diagnosis.joint_code}
    monkeypatch.setattr(study_runs, "metrics_of", lambda panel, name: found)
    return written


def test_judging_writes_a_whole_record_weights_and_panels_for_each_seed(tmp_path, monkeypatch, small_profile):
    for name in ("runs", "weights", "panels"):  # what a killed process left
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{Run('smoke', SMALL, (0, 3)).record_id(3)}.png.7.part").touch()
    run, written = train_and_judge(tmp_path, monkeypatch)
    assert state(run, tmp_path) == "done"
    assert load_records(tmp_path / "runs", status="ok") == written
    for seed, record in zip(run.seeds, written, strict=True):
        assert record == read_record(record_path(run, seed, tmp_path))
        assert (record["id"], record["seed"], record["trained_together"]) == (run.record_id(seed), seed, [0, 3])
        assert (record["profile"], record["model"], record["reading"]) == ("smoke", "qmvae", SMALL)
        assert record["config"] == run.config()
        assert record["config_hash"] == config_hash(run.config())
        assert record["metrics"] == METRICS
        assert record["data"] == small_data().identity
        assert len(record["history"]) == 2
        assert record["cost"]["steps"] == 4
        assert record["provenance"]["device_type"] == "cpu"
        assert record["panels"].keys() == {"cross_generation", "transfer", "traversal"}
        for kind, panels in record["panels"].items():
            for panel in panels.values():
                rows, columns = panel_images(Panel(**panel), tmp_path / "panels")["generated"].shape[:2]
                assert (rows, columns) == (len(panel["read"]), 20 if kind == "traversal" else 10)
    assert written[0]["history"] != written[1]["history"]
    assert written[0]["weights_sha256"] != written[1]["weights_sha256"]
    assert not list(tmp_path.rglob("*.part"))


def test_weights_are_loaded_only_if_they_are_those_of_the_record(tmp_path, monkeypatch, small_profile):
    run, (first, second) = train_and_judge(tmp_path, monkeypatch)
    trained = study_runs.train(run, small_data(), tmp_path, progress="none").models[0]  # from its checkpoint
    model = study_runs.load_model(first, tmp_path)
    assert not model.training
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in model.state_dict().items())
    weights = tmp_path / "weights"
    path = weights / f"{first['id']}.safetensors"
    path.write_bytes((weights / f"{second['id']}.safetensors").read_bytes())
    with pytest.raises(RecordError, match=f"{re.escape(str(path))} does not hold the weights .*run it again"):
        study_runs.load_model(first, tmp_path)
    path.unlink()
    with pytest.raises(RecordError, match=f"no weights {re.escape(str(path))}; .*python -m qmvae_study run"):
        study_runs.load_model(first, tmp_path)


def test_amending_adds_what_a_record_lacks_from_its_weights_and_changes_nothing_else(tmp_path, monkeypatch, amendable):
    asked = []
    monkeypatch.setattr(study_runs, "provenance", lambda: asked.append("once") or {"commit": f"state {len(asked)}"})
    command = ["amend", "--profile", "smoke", "--evidence", str(tmp_path)]
    assert command_line.main(command) == 0
    data = small_data()
    for before, after in zip(amendable, load_records(tmp_path / "runs"), strict=True):
        model = study_runs.load_model(before, tmp_path)
        expected = diagnosis.joint_code(Context(model, data.train, data.test, JUDGES, before["seed"]))
        assert after["metrics"] == METRICS | {"joint_code": expected}
        assert after["amended"] == {"joint_code": {"commit": "state 1"}}  # before any record was changed
        assert {key: after[key] for key in before if key != "metrics"} == {
            key: before[key] for key in before if key != "metrics"
        }
    content = {path: path.read_bytes() for path in (tmp_path / "runs").iterdir()}
    assert command_line.main(command) == 0
    assert content == {path: path.read_bytes() for path in (tmp_path / "runs").iterdir()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": small_data().identity | {"content_hash": "other"}}, "was judged on other data than those given"),
        ({"data": small_data().identity | {"n_test": {"mnist": 1}}}, "was judged on other data than those given"),
        ({"weights_sha256": "0"}, "does not hold the weights that its record names"),
        ({"judges": {"mnist": "x", "svhn": "y"}}, "was judged by other judges than those at hand"),
        ({"status": "failed"}, "has no finished record of the profile 'smoke'"),
    ],
    ids=["data", "part", "weights", "judges", "failed"],
)
def test_a_record_that_cannot_be_amended_is_named_and_left_as_it_is(tmp_path, amendable, change, message):
    for record in amendable:
        path = tmp_path / "runs" / f"{record['id']}.json"
        value = {key: f"{each}{record.seed}" if key == "weights_sha256" else each for key, each in change.items()}
        records.write_json(path, record | value)
    content = path.read_bytes()
    with pytest.raises(RecordError, match=message):
        list(study_runs.amend(tmp_path, "smoke"))
    assert path.read_bytes() == content


def test_other_judges_of_the_papers_harness_read_the_images_again(tmp_path, monkeypatch, amendable):
    """Those that a record names have read them; a record without any, or with one seed fewer, is amended."""
    given = []
    reads = {"joint_code": lambda of: {}, "published_judges": lambda of: given.append(of.seed) or {"5": {}}}
    monkeypatch.setattr(study_runs, "metrics_of", lambda panel, name: dict.fromkeys(METRICS) | reads)
    assert set(dict(study_runs.amend(tmp_path, "smoke")).values()) == {"added joint_code, published_judges"}
    assert set(dict(study_runs.amend(tmp_path, "smoke")).values()) == {"lacks nothing"}
    assert given == [0, 3]
    monkeypatch.setattr(study_runs, "published_for", lambda *where: {5: JUDGES, 6: JUDGES})
    assert set(dict(study_runs.amend(tmp_path, "smoke")).values()) == {"added published_judges"}
    assert given == [0, 3, 0, 3]
    for record in load_records(tmp_path / "runs"):
        assert record["published_judges"].keys() == {"5", "6"}
        assert record["judges"] == {name: judge.sha256 for name, judge in JUDGES.items()}


def test_the_papers_harness_measures_the_runs_of_the_tables_alone():
    for name in ("quick", "epoch", "paper", "published", "smoke"):
        assert {"published_judges", "published_probe"} <= study_runs.metrics_of({0: JUDGES}, name).keys()
    for name in ("hunt", "precision", "sensitivity", "deviations"):
        assert study_runs.metrics_of({}, name) == diagnosis.METRICS
        assert study_runs.published_for(name, small_data(), Path("nowhere")) == {}


def test_a_record_without_weights_is_passed_over_by_amending(tmp_path, amendable):
    first, second = amendable
    (tmp_path / "weights" / f"{first['id']}.safetensors").unlink()
    found = dict(study_runs.amend(tmp_path, "smoke"))
    assert found[first["id"]].endswith("so joint_code cannot be added")
    assert found[second["id"]] == "added joint_code"
    lacking, amended = load_records(tmp_path / "runs")
    assert (lacking, "joint_code" in amended["metrics"]) == (first, True)


def test_a_loss_that_is_not_finite_leaves_a_failure_record_for_each_seed(tmp_path, monkeypatch, small_profile):
    def fail(*_, **__):
        raise NonFiniteLoss("quadruplet is nan at epoch 1, step 7, seed 3")

    monkeypatch.setattr(study_runs, "fit", fail)
    run = Run("smoke", SMALL, (0, 3))
    with pytest.raises(NonFiniteLoss):
        study_runs.train(run, small_data(), tmp_path)
    found = load_records(tmp_path / "runs")
    assert [(record["seed"], record["status"]) for record in found] == [(0, "failed"), (3, "failed")]
    for record in found:
        assert "step 7" in record["error"]
        assert record["data"]["kind"] == "stand-in"
        assert record["config_hash"] == config_hash(run.config())
        assert "metrics" not in record
    assert state(run, tmp_path) == "failed"


def test_a_record_names_its_judges_and_everybody_who_trained_it(tmp_path, monkeypatch, small_profile):
    run, data = Run("smoke", SMALL, (0,)), small_data()
    monkeypatch.setattr(study_runs, "evaluate", lambda *_: copy.deepcopy(METRICS))
    monkeypatch.setattr(study_runs, "published_for", lambda *where: {5: JUDGES})
    monkeypatch.setattr(study_runs, "trainer", lambda device: {"commit": "first", "torch": "1"})
    with pytest.raises(OutOfTime):
        study_runs.train(run, data, tmp_path, progress="none", minutes=1e-9)
    monkeypatch.setattr(study_runs, "trainer", lambda device: {"commit": "second", "torch": "1"})
    for _ in range(2):  # who comes twice is named once
        trained = study_runs.train(run, data, tmp_path, progress="none")
    judges = {name: DigitClassifier(name, OracleConfig(epochs=1, channels=2)) for name in MODALITIES}
    for name, oracle in judges.items():
        oracle.sha256 = f"of {name}"
    (record,) = study_runs.judge(run, trained, data, judges, tmp_path)
    assert record["trained_by"] == [{"commit": "first", "torch": "1"}, {"commit": "second", "torch": "1"}]
    assert record["judges"] == {"mnist": "of mnist", "svhn": "of svhn"}
    assert record["published_judges"] == {"5": {name: judge.sha256 for name, judge in JUDGES.items()}}


def test_training_gets_the_runs_own_folder_and_settings(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(
        study_runs, "fit", lambda *parts, **options: given.append((parts, options)) or Trained([], [], {}, [], [])
    )
    data = small_data()
    run = Run("quick", f"{SMALL}+training.epochs=1", (5,))
    study_runs.train(run, data, tmp_path, "cpu", minutes=7)
    ((model, training, train, seeds), options) = given[0]
    expected = dataclasses.replace(profile("quick").training, epochs=1)
    assert (model, training, seeds) == (reading(SMALL), expected, (5,))
    assert train is data.train
    assert options["folder"] == tmp_path / "work" / run.id / data.identity["content_hash"][:8]
    assert (options["device"], options["minutes"]) == ("cpu", 7)


# Data and judges of a profile


def test_a_choice_is_made_on_held_out_training_digits(monkeypatch):
    whole, asked = small_data(), []
    monkeypatch.setattr(study_runs, "load_digits", lambda root: asked.append(root) or whole)
    data = study_runs.data_for("sensitivity")
    for name in MODALITIES:
        assert len(data.train[name]) + len(data.test[name]) == 150
        together = torch.cat([data.train[name].images, data.test[name].images]).flatten(1)
        assert len(torch.unique(together, dim=0)) == 150  # every training image, on one side or the other
        assert data.identity["n_train"][name] == len(data.train[name])
        assert data.identity["n_test"][name] == len(data.test[name]) == 20
    assert data.identity["notes"] == [
        "A first note",
        "Judged on a validation part of the training digits, not on the test set.",
    ]
    assert whole.identity["notes"] == ["A first note"]
    assert study_runs.data_for("quick") is study_runs.data_for("smoke") is whole
    study_runs.data_for("smoke", "somewhere")
    assert asked == [None, None, STAND_IN, "somewhere"]


def test_real_data_are_judged_by_the_committed_judges_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(study_runs, "RESULTS", tmp_path / "results")
    with pytest.raises(OracleError, match=f"no oracle for mnist in {re.escape(str(tmp_path / 'results' / 'oracles'))}"):
        study_runs.oracles_for("smoke", small_data("real"), tmp_path / "evidence")
    given = []
    monkeypatch.setattr(study_runs, "prepare_oracles", lambda *parts, **options: given.append((parts, options)))
    data = small_data()
    study_runs.oracles_for("smoke", data, tmp_path / "evidence")
    assert given == [((data, tmp_path / "evidence" / "oracles", profile("smoke").oracles, "cpu"), {})]


# The command line


def test_plan_and_status_list_every_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(study_runs, "seconds_a_step", lambda *_: 0.36)
    assert command_line.main(["plan", "--profile", "paper", "--device", "cpu", "--workers", "2"]) == 0
    *lines, _ = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [[str(n), "paper", run.id] for n, run in enumerate(plan("paper"))]
    finish(Run("quick", "default", (1,)), 1, tmp_path)
    assert command_line.main(["status", "--evidence", str(tmp_path), "--readings", "default", "--seeds", "0", "1"]) == 0
    assert [line.split(maxsplit=3)[1:] for line in capsys.readouterr().out.splitlines()] == [
        ["quick", "qmvae-default-s0", "to do"],
        ["quick", "qmvae-default-s1", "done"],
    ]


def test_the_hours_are_of_the_steps_that_a_run_takes(monkeypatch):
    assert [study_plan.steps_of(plan(name)[0]) for name in ("smoke", "quick", "epoch", "paper", "published")] == [
        16, 3000, 13_141, 131_410, 82_150,
    ]  # fmt: skip
    asked = []
    monkeypatch.setattr(study_runs, "seconds_a_step", lambda *parts: asked.append(parts) or 1.2)
    runs = [*plan("quick", ["default", "mvae"], [0, 1]), Run("quick", "default", (3, 4, 5))]
    threads = torch.get_num_threads()
    assert study_runs.expected_hours(runs, "cpu", 1) == pytest.approx((2 + 2 + 3) * 1.0)
    assert study_runs.expected_hours(runs, "cpu", 2) == pytest.approx(3.5)
    assert [(model.model, training, device) for model, training, device in asked[:2]] == [
        (name, runs[0].training, "cpu") for name in ("qmvae", "mvae")
    ]
    assert len(asked) == 4  # each kind of run once
    assert torch.get_num_threads() == threads


@pytest.fixture
def given(monkeypatch):
    """A function: number of a run -> the error that it ends with; its list `runs` is of what each run was given."""

    def fails(number: int, error: BaseException) -> None:
        fails.errors[number] = error

    def carry_out(run, evidence, data_root, device, log, minutes, *_):
        fails.runs.append((run.reading, run.seeds, data_root, device, minutes))
        if len(fails.runs) in fails.errors:
            raise fails.errors[len(fails.runs)]

    fails.errors, fails.runs = {}, []
    monkeypatch.setattr(execution, "carry_out", carry_out)
    return fails


def test_run_skips_what_is_done_and_goes_on_after_a_failure(tmp_path, monkeypatch, given, capsys):
    given(1, RuntimeError("07_train.ipynb failed; the cell and its error are in somewhere"))
    monkeypatch.setattr(command_line, "data_for", lambda name, root: small_data())
    finish(Run("quick", "default", (0,)), 0, tmp_path, kind=STAND_IN)
    line = f"run --evidence {tmp_path} --readings default --seeds 0 1 2 --device cpu --workers 1"
    assert command_line.main(line.split()) == 1
    assert given.runs == [("default", (seed,), None, "cpu", None) for seed in (1, 2)]
    assert "qmvae-default-s1" in capsys.readouterr().err.splitlines()[-1]


def test_a_relative_data_root_is_the_callers_and_not_the_notebooks(tmp_path, monkeypatch, given):
    """The notebook runs in its own folder, so what the caller names from here must be named from the root."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command_line, "data_for", lambda name, root: small_data())
    for root in ("digits", str(tmp_path / "digits"), STAND_IN):
        command_line.main(["run", "--evidence", str(tmp_path), "--readings", "default", "--data-root", root])
    assert [root for _, _, root, _, _ in given.runs] == [str(tmp_path / "digits"), str(tmp_path / "digits"), STAND_IN]


@pytest.mark.parametrize(("named", "heard"), [("digits", "{here}/digits"), (STAND_IN, STAND_IN), (None, None)])
def test_a_relative_data_root_in_the_environment_is_the_callers_too(tmp_path, monkeypatch, notebook, named, heard):
    given = []

    class Done:
        returncode = 0

    monkeypatch.setattr(subprocess, "run", lambda command, env, **_: given.append(env) or Done)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QMVAE_DATA_ROOT", raising=False)
    if named:
        monkeypatch.setenv("QMVAE_DATA_ROOT", named)
    notebooks.execute(notebook, tmp_path / "out.ipynb", {})
    assert given[0].get("QMVAE_DATA_ROOT") == (heard and heard.format(here=tmp_path))
    assert given[0]["PATH"] == os.environ["PATH"]


def test_a_command_whose_time_is_over_starts_no_other_run(tmp_path, given, capsys):
    given(2, OutOfTime("the time given is over in epoch 3 of 10; the same command goes on from there"))
    readings = ["default", "default+beta=1", "default+beta=2"]
    start = ["run", "--evidence", str(tmp_path), "--data-root", STAND_IN, "--readings", *readings]
    assert command_line.main([*start, "--minutes", "8", "--workers", "1"]) == 75
    assert [reading for reading, *_ in given.runs] == readings[:2]
    first, second = (minutes for *_, minutes in given.runs)
    assert 7.9 < second < first <= 8
    assert capsys.readouterr().err == ""


def test_a_run_is_not_started_when_the_time_is_over(tmp_path, monkeypatch, given):
    clock = iter([0.0, 0.0, 90.0, 90.0, 90.0])
    monkeypatch.setattr(execution.time, "monotonic", lambda: next(clock))
    runs = iter([(run, run.id) for run in plan("quick", ["default", "default+beta=1"])])
    asked = (lambda begun: next(runs, None)), (lambda run: tmp_path)
    outcomes = list(execution.side_by_side(*asked, STAND_IN, "cpu", workers=1, minutes=1.5))
    assert [minutes for *_, minutes in given.runs] == [1.5]
    assert outcomes[0].error is None
    assert isinstance(outcomes[1].error, OutOfTime)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The data of that profile, and its judges in a folder of evidence."""
    data, evidence = study_runs.data_for("smoke"), tmp_path_factory.mktemp("evidence")
    return data, study_runs.oracles_for("smoke", data, evidence), evidence


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mvae", "jmvae", "jmvae-kl"])
def test_a_model_without_private_codes_is_trained_and_judged_like_any_other(smoke, name):
    run, (data, oracles, evidence) = Run("smoke", f"{name}+mnist.widths=[6]+svhn.widths=[2,2]", (0,)), smoke
    (record,) = study_runs.judge(run, study_runs.train(run, data, evidence, progress="none"), data, oracles, evidence)
    assert record["model"] == name.removesuffix("-kl")
    assert record["metrics"]["leakage"] == record["metrics"]["code_swaps"] == {}
    assert all(value["pixels"]["ratio"] < 1e-5 for value in record["metrics"]["diversity"].values())
    assert record["metrics"]["probe"].keys() == {"mnist", "svhn", "joint"}
    assert leakage_table([record]).loc[0, "joint coherence"]
    assert state(run, evidence) == "done"


def test_the_error_of_an_earlier_execution_is_not_that_of_a_process_that_dies_before_it_writes(
    notebook, tmp_path, monkeypatch
):
    output = tmp_path / "out.ipynb"
    with pytest.raises(OutOfTime):
        notebooks.execute(notebook, output, {"word": "time"})
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 3))
    with pytest.raises(RuntimeError, match="tiny.ipynb failed; the cell is in") as caught:
        notebooks.execute(notebook, output, {"word": "time"})
    assert not isinstance(caught.value, OutOfTime)


def test_a_notebook_can_be_executed_in_place(notebook):
    notebooks.execute(notebook, notebook, {"word": "here"})
    assert (notebook.parent / "heard.txt").read_text() == "here [0]"
    assert any('word = "here"' in cell.source for cell in nbformat.read(notebook, as_version=4).cells)


def test_an_interrupt_has_the_status_of_one(tmp_path, given):
    given(1, KeyboardInterrupt())
    assert command_line.main(["run", "--evidence", str(tmp_path), "--workers", "1"]) == 130


@pytest.mark.parametrize(
    ("line", "words"),
    [
        *(
            (f"{command} --device cpu --readings {SMALL} --precision {precision}", words)
            for command in ("plan", "run")
            for precision, words in (("bfloat16", "processor"), ("tf32", "GPU"), ("float8", "'float8'"))
        ),
        ("run --data-root stand-in --minutes 0", "--minutes must be positive"),
        ("run --data-root stand-in --minutes 5 --scheduler local --workers 2", "--minutes must be positive"),
        ("run --data-root stand-in --device cpu --workers 0", "--workers must be at least 1, got 0"),
        ("queue --data-root stand-in", "the queue needs real data"),
        ("queue --workers 0", "--workers must be at least 1, got 0"),
        ("collect", "python -m qmvae_study run"),
        ("collect --profile paper", "python -m qmvae_study run"),
        ("amend", "has no finished record of the profile 'quick'"),
        ("plan --readings defalt", "'defalt'"),
        ("refresh 77", "there is no stored chapter '77'"),
    ],
)
def test_what_cannot_be_done_is_one_line_on_standard_error(tmp_path, monkeypatch, capsys, line, words):
    """And no run is begun; there are records of another profile."""
    finish(Run("smoke", "default", (0,)), 0, tmp_path)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    monkeypatch.setattr(command_line, "real_data_at_hand", lambda root: root is None)
    monkeypatch.setattr(execution, "carry_out", lambda *_, **__: pytest.fail("a run was begun"))
    evidence = ["--evidence", str(tmp_path)] if line.startswith(("run", "collect", "amend")) else []
    assert command_line.main([*line.split(), *evidence]) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert words in error


@pytest.mark.parametrize(
    "arguments",
    [[], ["reproduce"], ["plan", "--profil", "paper"], ["plan", "--profile", "papr"], ["run", "--sedes", "1"],
     ["plan", "--seeds", "one"]],
    ids=" ".join,
)  # fmt: skip
def test_what_the_command_line_does_not_know_is_refused(arguments):
    with pytest.raises(SystemExit, match="2"):
        command_line.main(arguments)


def test_the_module_runs_as_a_program(tmp_path):
    """From a foreign folder, as a process: the exit status and one clear line."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "qmvae_study", "collect", "--evidence", "absent"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert str(tmp_path / "absent" / "runs") in line
