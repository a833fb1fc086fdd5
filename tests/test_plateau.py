"""When a loss left its plateau: in training, in records of today and in older ones."""

import pytest
import torch

from qmvae_core import training
from qmvae_core.losses import quadruplet_loss
from qmvae_core.models import ModalityConfig, QMVAEConfig, reading
from qmvae_core.training import TrainingConfig, fit
from qmvae_study.evidence.records import Record

TRAINING = TrainingConfig(epochs=3, steps_per_epoch=6, batch_size=16, rounds=2, chunk=2)
PLATEAU = 2 * 2.0 + 0.8


def record(name: str = "default", quadruplet=(4.8, 4.6, 4.2, 4.7), **fields) -> Record:
    history = [{"quadruplet": value} for value in quadruplet]
    config = {"model": reading(name).to_dict()}
    cost = {"steps": 300 * len(history)}
    return Record({"id": "x", "config": config, "history": history, "cost": cost, **fields})


def test_the_plateau_is_the_loss_of_codes_that_lie_in_one_place():
    codes = torch.zeros(1, 3)
    assert reading("default").plateau == ("quadruplet", pytest.approx(float(quadruplet_loss(*[codes] * 4))))
    modality = ModalityConfig((1, 4, 4), "dense", (3,))
    three = QMVAEConfig(alpha1=1.0, alpha2=0.5, modalities={"a": modality, "b": modality, "c": modality})
    assert three.plateau == ("quadruplet", 3 * 2.5)  # one quadruplet a pair of modalities


def test_what_is_not_trained_by_the_loss_has_no_plateau():
    for name in ("default+beta=0", "mvae", "dmvae", "mmvae"):
        assert reading(name).plateau is None
        flat = record(name, quadruplet=(4.8, 4.8))
        assert not flat.stalled
        with pytest.raises(ValueError, match="record x has no plateau"):
            flat.left_after()


def test_an_older_record_leaves_at_the_first_epoch_below_nine_tenths():
    assert record().left_after() == 900
    assert not record().stalled
    assert record(quadruplet=(4.8, 4.33)).left_after() is None  # 0.9 of 4.8 is 4.32
    assert record(quadruplet=(4.8, 4.33)).stalled
    assert record(quadruplet=(4.31, 4.8)).left_after() == 300
    assert record(quadruplet=(4.8, 0.9 * record().plateau, 4.0)).left_after() == 900  # at the edge it has not left
    assert record(cost={"steps": 1_003}).left_after() == 750
    assert record("mvae").plateau is record("default+beta=0").plateau is None


def test_a_record_that_says_it_itself_is_believed():
    assert record(plateau={"left": 100}).left_after() == 100
    assert record(plateau={"left": None}).stalled


@pytest.fixture
def planned():
    """A function: a loop, the losses of each seed by step -> the loop's steps have these."""

    def arrange(loop: str, *losses: list[float]) -> None:
        steps, update = iter(zip(*losses, strict=True)), training.LOOPS[loop].update
        patch.setattr(
            training.LOOPS[loop],
            "update",
            lambda self, *batch: update(self, *batch) | {"quadruplet": torch.tensor(next(steps))},
        )

    with pytest.MonkeyPatch.context() as patch:
        yield arrange


@pytest.mark.parametrize("loop", ["plain", "fast", "stacked"])
def test_training_says_after_how_many_steps_each_seed_left(small_config, small_digits, planned, loop):
    """The loss is set by step: the first seed falls in step 9, so in the fifth chunk of two; the second never does."""
    planned(loop, [PLATEAU] * 8 + [0.1] * 10, [PLATEAU * 0.95] * 18)
    found = fit(small_config(), TRAINING, small_digits(), [0, 1], loop=loop, progress="none")
    assert found.left == [10, None]


def test_what_a_run_has_seen_of_its_plateau_outlives_a_stop(small_config, small_digits, planned, interrupted, tmp_path):
    planned("plain", [PLATEAU] * 2 + [1.0] * 2 + [PLATEAU] * 100)
    given = small_config(), TRAINING, small_digits()
    interrupted(12, *given, loop="plain")
    assert fit(*given, folder=tmp_path, progress="none", loop="plain").left == [4]


def test_a_model_without_a_plateau_says_nothing(small_config, small_digits):
    assert fit(small_config(beta=0.0), TRAINING, small_digits(), progress="none").left == []
