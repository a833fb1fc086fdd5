"""What is tried on a run is tried: a library without its digests, or one that forgets, would be found out."""

import dataclasses
import io
import random
from types import SimpleNamespace

import nbformat
import pytest
import torch
from model_cases import noise

from benchmarks import torture
from qmvae_core.data import MODALITIES
from qmvae_core.training import checkpoint
from qmvae_study.evidence.folder import NOTEBOOKS


@pytest.fixture
def training(tmp_path, monkeypatch):
    short = dataclasses.replace(torture.TRAINING, epochs=1, steps_per_epoch=2, chunk=1)
    monkeypatch.setattr(torture, "TRAINING", short)
    train = noise(dict.fromkeys(MODALITIES, [4] * 10))
    return torture.Training("mvae", SimpleNamespace(train=train), tmp_path)


def test_kills_and_full_disks_are_survived_and_counted(training):
    assert training.writes == 4 * 2  # each file's bytes, its safety, its name, and the safety of that
    for tally in (
        torture.kills(training, 2, random.Random(0)),
        torture.stops(training, torture.killed),
        torture.stops(training, torture.full_disk),
    ):
        assert tally["tried"] == tally["survived"] > 0


def test_a_flipped_bit_is_refused_and_would_be_silent_without_the_digest(training, monkeypatch):
    tally = torture.checkpoint_bits(training, 10, random.Random(0))
    assert tally == {"tried": 10, "refused": 10, "survived": 0, "silent": 0, "lost": 0}

    def read(path, device="cpu"):
        return torch.load(io.BytesIO(path.read_bytes()[64:]), weights_only=True)

    monkeypatch.setattr(checkpoint, "read", read)
    tally = torture.checkpoint_bits(training, 20, random.Random(0))
    assert tally["silent"] > 0


def test_a_step_that_never_comes_is_an_error(training):
    with pytest.raises(RuntimeError, match="step 99 of 8 did not stop the training"):
        training.disturbed(99, torture.killed)


def test_the_page_shows_its_answer_before_any_code():
    code = [cell for cell in nbformat.read(NOTEBOOKS / "A4_trust.ipynb", 4).cells if cell.cell_type == "code"]
    answer = next(place for place, cell in enumerate(code) if cell.outputs)
    assert all({"hide-cell", "hide-input"} & set(cell.metadata.get("tags", [])) for cell in code[: answer + 1])
    assert code[answer].outputs[-1].text.endswith("0 silent, 0 lost\n")
