"""When a loss left its plateau: in training, in records of today and in older ones; and what moves codes off it."""

import math

import numpy as np
import pytest
import torch
from model_cases import generator, random

from qmvae_core import training
from qmvae_core.gaussians import DiagonalGaussian
from qmvae_core.losses import quadruplet_loss
from qmvae_core.models import ModalityConfig, QMVAEConfig, build_model, reading
from qmvae_core.negatives import RULES, draw_negatives
from qmvae_core.training import TrainingConfig, fit
from qmvae_study import plateau
from qmvae_study.evidence.records import Record
from qmvae_study.plateau import Place, at, screened_loss

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


# What moves codes off it


@pytest.mark.parametrize("rule", RULES)
def test_the_loss_of_drawn_codes_is_the_models_own(small_config, rule):
    labels, draws = torch.arange(12) % 3, generator()
    model = build_model(small_config(negatives=rule, candidates=5))
    mu = {name: random(12, 4, seed=i) for i, name in enumerate(("ink", "photo"))}
    uniform = [torch.rand(5, 12, generator=draws) for _ in mu]
    noise = {f"{name}/negatives": u for name, u in zip(mu, uniform, strict=True)}
    shared = {name: DiagonalGaussian(mean, torch.zeros_like(mean)) for name, mean in mu.items()}
    found = screened_loss(rule, *mu.values(), labels, uniform)
    there = dict.fromkeys(mu, torch.ones(12, dtype=torch.bool))
    assert found.tolist() == pytest.approx(model._quadruplet(shared, labels, noise, there).tolist())


def test_codes_have_the_variance_and_the_share_that_are_asked_for():
    labels = torch.arange(40_000) % 10
    mu_x, mu_y, towards = Place(share_x=0.25, share_y=0.0, spread=0.1, offset=3.0).codes(labels, generator())
    for codes, share in ((mu_x, 0.25), (mu_y, 0.0)):
        centres = torch.stack([codes[labels == digit].mean(dim=0) for digit in range(10)])
        total = (codes - codes.mean(dim=0)).square().sum(dim=1).mean()
        assert total.item() == pytest.approx(20 * 0.1**2, rel=0.02)
        assert (centres - centres.mean(dim=0)).square().sum(dim=1).mean() / total == pytest.approx(share, abs=0.01)
    assert (mu_y - mu_x).mean(dim=0).norm().item() == pytest.approx(3 * math.sqrt(20) * 0.1, rel=0.02)
    all_digit = Place(share_x=1.0, spread=0.1).codes(labels, generator())
    assert torch.equal(all_digit[0], all_digit[2])  # the square root of the share moves the codes by `towards`
    assert torch.equal(all_digit[2], towards)


def loop(labels, mu_x, mu_y, picks) -> list[list[list[float]]]:
    """The three hinges, before they are cut at zero, of each candidate of each pair."""
    x, y = mu_x.tolist(), mu_y.tolist()
    return [
        [
            [
                math.dist(x[i], y[i]) - math.dist(a, b) + margin
                for a, b, margin in ((x[i], y[k], 2.0), (x[j], y[i], 2.0), (x[j], y[k], 0.8))
            ]
            for j, k in zip(*(column.tolist() for column in picks[:, :, i]), strict=True)
        ]
        for i in range(len(labels))
    ]


@pytest.mark.parametrize("spread", [0.02, 1.0])
def test_what_the_loss_does_at_a_place_is_that_of_a_loop_and_of_finite_differences(spread):
    place, draws = Place(share_x=0.3, share_y=0.2, spread=spread, offset=1.0), torch.Generator().manual_seed(5)
    found = at(place, "all-violating", batches=1, seed=5)
    labels = torch.randint(0, 10, (128,), generator=draws)
    mu_x, mu_y, towards = (value.double() for value in place.codes(labels, draws))
    uniform = torch.rand(2, 16, 128, generator=draws)
    picks = torch.stack([draw_negatives(labels, u) for u in uniform])

    def mean(x, y) -> float:
        losses = [[sum(max(h, 0.0) for h in hinges) for hinges in each] for each in loop(labels, x, y, picks)]
        return sum(sum(each) / max(sum(v > 0 for v in each), 1) for each in losses) / 128

    loss, step = mean(mu_x, mu_y), 1e-5
    hinges = np.array(loop(labels, mu_x, mu_y, picks))
    assert found["open"][0] == pytest.approx((hinges > 0).mean())
    assert found["excess"][0] == pytest.approx((loss - PLATEAU) / spread, abs=1e-4)
    by_strength = (mean(mu_x, mu_y + step * towards) - mean(mu_x, mu_y - step * towards)) / (2 * step)
    assert found["strength"][0] == pytest.approx(by_strength / spread, rel=1e-3)
    moved = [mean(*(codes * (1 + sign * step) for codes in (mu_x, mu_y))) for sign in (1, -1)]
    by_factor = (moved[0] - moved[1]) / (2 * step)  # what is above the plateau, while all hinges are open
    assert (by_factor == pytest.approx(loss - PLATEAU, rel=1e-3)) == (spread == 0.02)
    lengths = torch.autograd.functional.jacobian(
        lambda y: screened_loss("all-violating", mu_x, y, labels, uniform.double()).mean(), mu_y
    ).norm(dim=1)
    assert found["force"][0] == pytest.approx(128 * lengths.mean().item(), rel=1e-4)


def zero(values: np.ndarray) -> bool:
    """Whether the mean is within four standard errors of zero."""
    return abs(values.mean()) < 4 * values.std(ddof=1) / math.sqrt(len(values))


def test_codes_of_one_modality_that_know_nothing_hold_the_loss_at_its_plateau_whatever_the_others_know():
    for rule in ("random", "all-violating"):
        for place in (Place(), Place(share_x=0.25), Place(share_x=0.9, offset=5.0)):
            assert zero(at(place, rule)["excess"])
        assert zero(at(Place(), rule)["strength"])
        informed = at(Place(share_x=0.25, share_y=0.25), rule)["excess"]
        assert informed.mean() < -1
        assert not zero(informed)


def test_the_hardest_negatives_draw_codes_together_and_semi_hard_ones_drive_them_apart():
    assert at(Place(), "hardest")["excess"].min() > 0 > at(Place(), "semi-hard")["excess"].max()
    assert at(Place(0.25, 0.25, offset=5.0), "hardest")["excess"].min() > 0  # though both know something


def test_the_force_does_not_fade_with_the_spread_but_its_sum_over_random_draws_does():
    near, far = (at(Place(share_x=0.25, spread=spread), "random") for spread in (1e-4, 0.1))
    assert near["force"] == pytest.approx(far["force"], rel=1e-3)
    assert near["open"].min() == far["open"].min() == 1.0
    assert at(Place(spread=5.0), "random")["open"].max() < 0.7


def test_many_candidates_do_not_make_y_learn_faster_but_more_surely():
    """Modalities far apart: a code is pulled and pushed along one line, by as often as it is drawn as a negative."""
    one, many = (at(Place(share_x=0.25, offset=10.0), rule)["strength"] for rule in ("random", "all-violating"))
    assert one.mean() == pytest.approx(many.mean(), abs=0.15)
    assert one.std() / many.std() == pytest.approx(4, rel=0.3)  # √16
    assert plateau.batches_needed(np.array([1.0, 2.0, 3.0])) == pytest.approx((1 / 2) ** 2)
    assert plateau.batches_needed(one) > 8 * plateau.batches_needed(many)


def test_what_codes_know_of_the_digit_is_the_variance_between_digits_beyond_chance():
    labels = torch.tensor([3, 5, 5, 8, 3, 5, 8, 8, 3, 3])
    codes = random(10, 3)
    rows, mean = codes.tolist(), codes.mean(dim=0).tolist()
    of_digit = {d: [row for row, label in zip(rows, labels.tolist(), strict=True) if label == d] for d in (3, 5, 8)}
    centre = {d: [sum(column) / len(each) for column in zip(*each, strict=True)] for d, each in of_digit.items()}
    between = sum(len(of_digit[d]) * math.dist(centre[d], mean) ** 2 for d in of_digit)
    within = sum(math.dist(row, centre[d]) ** 2 for d, each in of_digit.items() for row in each) / (10 - 3)
    total = sum(math.dist(row, mean) ** 2 for row in rows)
    assert plateau.known(codes, labels) == pytest.approx((between - 2 * within) / (total + within))
    assert plateau.distance_from_mean(codes) == pytest.approx(math.sqrt(total / 10))
    many = torch.arange(5_000) % 10
    mu_x, mu_y, _ = Place(share_x=0.3, share_y=0.0).codes(many, generator())
    assert plateau.known(mu_x, many) == pytest.approx(0.3, abs=0.01)
    assert plateau.known(mu_y, many) == pytest.approx(0.0, abs=0.002)
