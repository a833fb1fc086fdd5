"""The second part of the book: what its chapters promise together, and each run with papermill's parameters."""

import dataclasses
import functools
import importlib
import itertools
import json
import math
import os
import re
from pathlib import Path

import nbformat
import notebook_kinds
import pytest
import torch
from small_notebooks import run

from qmvae_core import data
from qmvae_core.stops import CheckpointError
from qmvae_neighbours import experiments, gwae, runoff
from qmvae_neighbours.eeg import data as eeg_data
from qmvae_neighbours.eeg import experiment as eeg
from qmvae_neighbours.factors import experiment as factors
from qmvae_neighbours.runoff import data as rivers
from qmvae_neighbours.vae import experiment as vae
from qmvae_study.evidence import notebooks
from qmvae_study.evidence.records import RecordError

ROOT = Path(__file__).resolve().parents[1]

chapters = pytest.mark.parametrize("notebook", notebook_kinds.neighbours(), ids=lambda path: path.stem)


# Chapter -> its experiments: name of a record -> settings and how long it took at most, in minutes. Those that came
# later were carried out beside other work on two cores.
COMMITTED = {
    path.stem: {path.stem: (importlib.import_module(f"qmvae_neighbours.{path.stem.split('_')[1]}").SETTINGS, 6)}
    for path in notebook_kinds.neighbours()
}
COMMITTED["B1_vae"]["B1_seeds"] = vae.REPEATED, 60
COMMITTED["B3_gwae"] = {"B3_gwae": (gwae.SETTINGS, 90)}
COMMITTED["B4_factors"]["B4_eeg"] = eeg.OF_SHARES, 60
COMMITTED["B5_runoff"]["B5_stations"] = runoff.STATIONS, 60


def test_each_committed_experiment_is_shown_by_its_chapter_and_each_chapter_has_one():
    committed = {path.stem for path in (ROOT / "results" / "neighbours").glob("*.json")}
    assert committed == {name for named in COMMITTED.values() for name in named}
    for notebook in notebook_kinds.neighbours():
        shown = re.findall(r"obtain\(\\?\"(\w+)", notebook.read_text(encoding="utf-8"))
        assert sorted(shown) == sorted(COMMITTED[notebook.stem])


@pytest.mark.parametrize(
    ("name", "settings", "minutes"), [(name, *of) for named in COMMITTED.values() for name, of in named.items()]
)
def test_a_committed_record_is_of_the_settings_that_quick_has_now_on_real_data_from_a_clean_commit(
    name, settings, minutes
):
    record = experiments.read(ROOT / "results" / "neighbours", name).record
    assert (record.profile, record.real) == ("quick", True)
    assert record.provenance.dirty is False
    assert record.seconds < minutes * 60
    assert record["settings"] == json.loads(json.dumps(dataclasses.asdict(settings["quick"])))


def test_a_committed_record_is_of_the_series_that_is_known_by_its_content():
    known = {"B4_eeg": eeg_data.KNOWN_CONTENT, "B6_eeg": eeg_data.KNOWN_CONTENT}
    for name, content in (known | {"B5_runoff": rivers.KNOWN_CONTENT[rivers.RIVER]}).items():
        assert experiments.read(ROOT / "results" / "neighbours", name).record.data.content_hash == content
    stations = experiments.read(ROOT / "results" / "neighbours", "B5_stations").record
    assert stations["data"]["gauges"] == rivers.KNOWN_CONTENT


@chapters
def test_a_chapter_has_its_symbols_what_its_source_says_and_checks_at_the_end(notebook):
    cells = nbformat.read(notebook, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert "\n## What the source says, what we find\n" in text
    assert "| symbol | meaning |" in text
    assert cells[-2].source.endswith("## Checks")
    assert "assert " in cells[-1].source


@pytest.fixture(scope="module")
def standin():
    return data.standin_digits()


@chapters
def test_a_chapter_runs_on_the_stand_in_and_says_so(notebook, tmp_path, monkeypatch, standin):
    monkeypatch.setenv("QMVAE_DATA_ROOT", "/no/such/folder")
    monkeypatch.setattr(data.sources, "standin_digits", lambda **_: standin)
    seen = run(notebook, {"profile": "smoke", "out": str(tmp_path)})
    assert seen.stderr == ""
    assert "no evidence" in seen.stdout
    record = experiments.read(tmp_path, notebook.stem).record
    assert (record.profile, record.real) == ("smoke", False)
    assert any("no evidence" in note for note in record.data.notes)


# Chapter -> settings that take seconds, and how many trainings they keep.
TINY = {
    "vae": ({"steps": 3, "betas": (1.0,), "judged": 10}, 5),
    "jmvae": ({"steps": 2, "judged": 6, "draws": 3, "generated": 2, "pair_steps": 2, "pair_judged": 3}, 7),
    "gwae": ({"steps": 1, "judged": 12, "mixed": 60, "trees": 1}, 16),
    "factors": ({"steps": 2, "unit_steps": 2, "latent": 4, "judged": 30, "probed": 30, "removed": 5}, 2),
    "runoff": ({"units": 3}, 4),
    "eeg": ({"frame_steps": 2, "sequence_steps": 2, "check": 1, "random_splits": 1}, 12),
    "shares": ({"frame_steps": 2, "sequence_steps": 2, "check": 1, "latent": 6}, 4),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def carry_out(standin, folder):
    """A function: a chapter -> what its experiment finds now with these settings."""
    commits = itertools.cycle([{"commit": "before", "dirty": False}, {"commit": "after", "dirty": True}])

    def run(chapter: str) -> experiments.Found:
        experiment = eeg.OF_SHARES, eeg.carry_out_shares
        if chapter != "shares":
            module = importlib.import_module(f"qmvae_neighbours.{chapter}")
            experiment = module.SETTINGS, module.carry_out
        settings = {"smoke": dataclasses.replace(experiment[0]["smoke"], **TINY[chapter][0])}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(data.sources, "standin_digits", lambda **_: standin)
            patch.setattr(experiments, "provenance", lambda: next(commits))
            return experiments.obtain(chapter, "smoke", settings, experiment[1], out=folder)

    return run


@pytest.fixture(scope="module")
def carried_out(carry_out):
    """The same, but each experiment once."""
    return functools.cache(carry_out)


@pytest.mark.parametrize("chapter", TINY)
def test_an_experiment_is_taken_up_where_it_was_left(chapter, carry_out, carried_out, folder, capsys):
    def trained() -> int:
        return len(set(re.findall(r"^(.*): step", capsys.readouterr().out, flags=re.MULTILINE)))

    first, at_first = carried_out(chapter), trained()
    assert first.record["provenance"] == {"commit": "before", "dirty": False}
    kept = sorted((folder / "work" / chapter).iterdir())
    assert len(kept) == TINY[chapter][1]
    kept[0].unlink()
    again = carry_out(chapter)
    assert trained() <= 1 <= at_first
    assert again.metrics == first.metrics
    assert all(torch.equal(again.tensors[name], value) for name, value in first.tensors.items())


def test_jmvae_keeps_the_values_behind_its_means(carried_out, standin):
    tensors, found = carried_out("jmvae").tensors, carried_out("jmvae").metrics["image-label"]["0.1"]
    values = tensors["0.1/image given label"]
    assert found["image given label"]["mean"] == pytest.approx(values.mean().item())
    assert found["image given label"]["error"] == pytest.approx(values.std().item() / math.sqrt(len(values)))
    marginal = torch.tensor(found["log label marginal"])[standin.test["mnist"].labels[: len(values)]]
    torch.testing.assert_close(values, tensors["0.1/image, label"] - marginal)
    assert found["reconstruction"]["mean"] > found["bound image from label"]["mean"]


def test_every_factor_and_every_share_is_measured(carried_out):
    found, codes = (carried_out("factors").metrics[name] for name in ("vae", "qmvae"))
    assert [row["share"] for row in found["shares"]] == list(factors.SHARES)
    assert {len(values) for values in found["factors"].values()} == {4}
    first, *_, last = found["shares"]
    assert first["information"] == pytest.approx(sum(found["factors"]["information"]), rel=1e-5)
    assert (last["information"], last["accuracy"]) == (0, None)
    assert set(codes["untrained"]) == {"shared mnist", "shared svhn", "private mnist", "private svhn"}
    assert len(codes["untrained"]["private svhn"]["label"]) == 4


def test_every_forecast_is_judged_and_persistence_is_yesterday(carried_out):
    metrics, tensors = carried_out("runoff").metrics, carried_out("runoff").tensors
    names = {"LSTM, 1 layer, short", "LSTM, 2 layers, short", "LSTM, 2 layers, long", "4-4-1", "persistence"}
    assert [set(metrics[key]) for key in ("indices", "skill", "indices of all test days")] == [names] * 3
    assert set(metrics["kept"]) == names - {"persistence"}
    assert metrics["skill"]["persistence"] == {"0": pytest.approx(0.0, abs=1e-6)}
    for month, judged in metrics["indices"]["persistence"]["0"].items():
        observed, made = tensors[f"{month}/observed"], tensors[f"{month}/persistence"]
        torch.testing.assert_close(made[1:], observed[:-1])
        assert judged == pytest.approx(runoff.indices(made, observed)._asdict())


# What is read back


@pytest.fixture
def workshop(tmp_path):
    return experiments.Workshop(tmp_path)


def kept(workshop: experiments.Workshop, seed: int = 0, size: int = 3) -> experiments.Best:
    """A training that is kept under its settings, and never made twice."""

    def train(model: torch.nn.Module) -> experiments.Best:
        return experiments.Best(7, 0.5, model.state_dict())

    return workshop.trained(torch.nn.Linear(size, size), {"seed": seed, "settings": (1, 2)}, train)


def test_kept_weights_come_back_and_are_frozen(workshop):
    first, again = kept(workshop), kept(workshop)
    assert (again.step, again.error) == (7, 0.5)
    assert all(torch.equal(again.weights[name], value) for name, value in first.weights.items())
    assert kept(workshop, seed=1).weights["weight"].ne(first.weights["weight"]).any()


@pytest.mark.parametrize("place", [0.0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_kept_weights_with_one_bit_flipped_are_refused(workshop, place):
    kept(workshop)
    (path,) = workshop.folder.iterdir()
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{path.name} is damaged.*delete it"):
        kept(workshop)


def test_weights_of_another_training_or_model_under_the_name_of_this_one_are_refused(workshop):
    kept(workshop)
    (path,) = workshop.folder.iterdir()
    with pytest.raises(CheckpointError, match=rf"(?s){path.name} does not hold the weights.*delete it.*size mismatch"):
        kept(workshop, size=4)
    kept(workshop, seed=1)
    (other,) = set(workshop.folder.iterdir()) - {path}
    other.replace(path)
    with pytest.raises(CheckpointError, match=rf"{path.name} does not hold the weights.*delete it.*other settings"):
        kept(workshop)


@dataclasses.dataclass(frozen=True)
class Nothing:
    """No settings."""


def recorded(folder: Path, name: str = "B0", value: float = 0.25) -> Path:
    """The record of an experiment that measures one number."""
    made = {"kind": "real", "notes": []}, {"measured": value}, {"drawn": torch.ones(3)}
    experiments.obtain(name, "quick", {"quick": Nothing()}, lambda *_: made, out=folder)
    return folder / f"{name}.json"


def test_a_record_is_read_back_as_it_was_written(tmp_path):
    found = experiments.read(tmp_path, recorded(tmp_path).stem)
    assert found.metrics == {"measured": 0.25}
    assert found.tensors["drawn"].tolist() == [1.0] * 3


@pytest.mark.parametrize(
    ("before", "after"), [("0.25", "0.35"), ('"quick"', '"quack"'), ('"real"', '"unreal"'), ('"sha256"', '"sha257"')]
)
def test_a_record_in_which_anything_was_changed_is_refused(tmp_path, before, after):
    path = recorded(tmp_path)
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.raises(RecordError, match=r"B0\.json is damaged.*run it again"):
        experiments.read(tmp_path, "B0")


def test_a_record_or_tensors_of_another_experiment_are_refused(tmp_path):
    path, other = recorded(tmp_path), recorded(tmp_path, "B9", 0.5)
    other.write_bytes(path.read_bytes())
    with pytest.raises(RecordError, match=r"B9\.json is the record of B0; run the experiment again"):
        experiments.read(tmp_path, "B9")
    tensors = path.with_suffix(".safetensors")
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    with pytest.raises(RecordError, match=r"B0\.safetensors is .*not the one.*run the experiment again"):
        experiments.read(tmp_path, "B0")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nothing_follows_from_what_is_not_a_number(tmp_path, value):
    with pytest.raises(RecordError, match=rf"B0\.json has a metric that is {value}.*run the experiment again"):
        recorded(tmp_path, value=value)


@chapters
def test_a_parameter_that_a_chapter_does_not_have_is_refused_before_anything_runs(notebook, tmp_path):
    with pytest.raises(ValueError, match="unknown parameter seeds"):
        notebooks.execute(notebook, tmp_path / notebook.name, {"profile": "smoke", "seeds": [1]})
    assert os.listdir(tmp_path) == []
