"""Codes whose experts and places are known: each number must be that of a loop over them, or come out as it must be."""

import math

import numpy as np
import pytest
import test_evaluation
import torch
from model_cases import generator, random
from naive import product
from test_evaluation import JUDGES, NAMES, paint, painted, read
from torch import nn

from qmvae_core.data import Digits
from qmvae_core.evaluation import Context, cross_generation, linear_probe, one_round, share, shared_codes
from qmvae_core.gaussians import DiagonalGaussian
from qmvae_core.models import ModalityConfig, QMVAEConfig
from qmvae_core.models.qmvae import QMVAE
from qmvae_study import codes
from qmvae_study.codes import between_classes, experts, weightings


def gaussians(count: int = 5, size: int = 4) -> dict[str, DiagonalGaussian]:
    return {
        name: DiagonalGaussian(random(count, size, seed=i), random(count, size, seed=10 + i))
        for i, name in enumerate("abc")
    }


def moments(mean: float, log_var: float, *others: tuple[float, float], prior: bool = True) -> tuple[float, float]:
    """The product of Gaussians in one dimension: mean and variance."""
    each = [(mean, log_var), *others]
    total = prior + sum(math.exp(-v) for _, v in each)
    return sum(math.exp(-v) * m for m, v in each) / total, 1 / total


@pytest.mark.parametrize("name", ["as run", "b / 8", "softmax scales", "equal shares", "without prior"])
def test_each_weighting_is_that_of_a_loop(name):
    given = gaussians()
    found = weightings(given, "b")
    assert list(found) == ["as run", "b / 8", "softmax scales", "equal shares", "without prior"]
    for i in range(5):
        scales = {k: [math.exp(v) for v in e.log_var[i].tolist()] for k, e in given.items()}
        for d in range(4):
            each = {k: (e.mean[i, d].item(), e.log_var[i, d].item()) for k, e in given.items()}
            if name == "b / 8":
                each["b"] = each["b"][0], math.log(8 * math.exp(each["b"][1]))
            if name == "softmax scales":
                each = {k: (m, 2 * math.log(4 * scales[k][d] / sum(scales[k]) + 1e-6)) for k, (m, _) in each.items()}
            if name == "equal shares":
                mean_precision = sum(math.exp(-v) for _, v in each.values()) / 3
                each = {k: (m, -math.log(mean_precision)) for k, (m, _) in each.items()}
            (first, *others) = each.values()
            expected = moments(*first, *others, prior=name != "without prior")
            assert found[name].mean[i, d].item() == pytest.approx(expected[0], rel=1e-9, abs=1e-12)
            assert found[name].log_var[i, d].exp().item() == pytest.approx(expected[1], rel=1e-9)
    assert found["as run"].mean[2].tolist() == pytest.approx([m for m, _ in product(given.values(), 2, prior=True)])


def test_shares_are_those_with_which_the_means_are_averaged():
    given = gaussians(size=1)
    shares = codes.shares_of_product(given)
    assert list(shares) == ["a", "b", "c", "prior"]
    assert sum(shares.values()).tolist() == pytest.approx([1.0] * 5)
    mean = sum(shares[name] * expert.mean[:, 0] for name, expert in given.items())
    assert mean.tolist() == pytest.approx(weightings(given, "a")["as run"].mean[:, 0].tolist())
    wide = gaussians()
    for i, value in enumerate(codes.shares_of_product(wide)["b"].tolist()):
        of_b = [
            math.exp(-wide["b"].log_var[i, d]) / (1 + sum(math.exp(-e.log_var[i, d]) for e in wide.values()))
            for d in range(4)
        ]
        assert value == pytest.approx(sum(of_b) / 4)


def test_the_precision_of_a_code_is_summed_over_its_dimensions():
    expert = gaussians()["a"]
    expected = [sum(math.exp(-v) for v in row) for row in expert.log_var.tolist()]
    assert codes.summed_precision(expert).tolist() == pytest.approx(expected)


# The experts of a model


class Sure(QMVAE):
    """Codes are one-hot digits. Photos are misread where their last pixel is bright and the one before is not dark.

    Ink's precision is 10 in each of the ten dimensions, the photo's 50, and 60 where it is misread.
    """

    def __init__(self):
        modalities = {name: ModalityConfig((1, 2, 2), "dense", (), 2) for name in NAMES}
        super().__init__(QMVAEConfig(shared=10, modalities=modalities))

    def encode_shared(self, images):
        found = [self.expert(name, value) for name, value in images.items()]
        return found[0] if len(found) == 1 else codes.product_of_experts(found)

    def expert(self, name, images):
        wrong = (images[:, 0, 1, 1] > 0.5) & (images[:, 0, 1, 0] > 0) & (name == "photo")
        mean = nn.functional.one_hot((read(images) + wrong) % 10, 10).float()
        precision = torch.where(wrong, 60.0, 50.0 if name == "photo" else 10.0)
        return DiagonalGaussian((1.2 if name == "ink" else 1.0) * mean, -precision.log()[:, None].expand_as(mean))


@pytest.fixture(scope="module")
def seen():
    """Training images of which none is misread, and judged ones."""
    train = {name: painted(600, seed) for seed, name in enumerate(NAMES)}
    for digits in train.values():
        digits.images[:, 0, 1, 0] = 0
    return train, {"ink": painted(400, 7, uneven=True), "photo": painted(300, 8)}


def misread(model: Sure, judged) -> np.ndarray:
    """Of one round of judged pairs, whether the photo is."""
    pairs, truth = one_round(judged, 4)
    photos = judged["photo"].batch(pairs["photo"].long())
    return np.array([a != b for a, b in zip(model.expert("photo", photos).mean.argmax(1), truth, strict=True)])


def test_an_over_precise_expert_is_found_and_what_weighs_it_down_helps(seen):
    model = Sure()
    found = experts(Context(model, *seen, JUDGES, seed=4))
    wrong = misread(model, seen[1])
    assert 30 < wrong.sum() < len(wrong) - 30
    for name, each in found["weightings"].items():
        follows_the_photo = name in ("as run", "without prior")
        assert each["probe"] == share(~wrong if follows_the_photo else np.ones_like(wrong))
        assert each["refitted"] == {
            "joint": each["probe"], "ink": share(np.ones_like(wrong)), "photo": share(~wrong)
        }  # fmt: skip
    assert list(found["weightings"])[1] == "photo / 8"
    assert found["precision"]["ink"] == {"right": {"mean": pytest.approx(100), "sd": 0, "n": len(wrong)}}
    of_photo = found["precision"]["photo"]
    assert of_photo["right"] == {"mean": pytest.approx(500), "sd": pytest.approx(0), "n": int((~wrong).sum())}
    assert of_photo["wrong"] == {"mean": pytest.approx(600), "sd": pytest.approx(0), "n": int(wrong.sum())}
    assert of_photo["auc"] == 0.0  # it is always surer of what is wrong
    of_all = [(10 / 71, 60 / 71, 1 / 71) if bad else (10 / 61, 50 / 61, 1 / 61) for bad in wrong]
    expected = dict(zip(("ink", "photo", "prior"), np.mean(of_all, axis=0), strict=True))
    assert found["shares"]["all"] == pytest.approx(expected)
    assert found["shares"]["photo wrong"] == pytest.approx({"ink": 10 / 71, "photo": 60 / 71, "prior": 1 / 71})
    assert found["shares"].keys() == {"all", "photo wrong"}


def test_a_refitted_probe_is_trained_on_the_training_pairs_of_its_weighting(seen):
    """Noise in place of ink's codes: only where its share is small does a probe of joint codes read the photo's."""

    class Noisy(Sure):
        def expert(self, name, images):
            found = super().expert(name, images)
            return found if name == "photo" else found._replace(mean=40 * images[:, 0, 1, :].repeat(1, 5))

    model = Noisy()
    of = Context(model, *seen, JUDGES, seed=4)
    found = experts(of)["weightings"]
    known, given = ({n: [] for n in found} for _ in range(2))
    labels = {}
    for store, digits in ((known, seen[0]), (given, seen[1])):
        pairs, truth = one_round(digits, 4)
        each = {name: model.expert(name, digits[name].batch(index.long())) for name, index in pairs.items()}
        store |= {name: value.mean.numpy() for name, value in weightings(each, "photo").items()}
        labels[id(store)] = truth
    for name, each in found.items():
        probe = linear_probe(known[name], labels[id(known)])
        assert each["refitted"]["joint"] == share(probe.predict(given[name]) == labels[id(given)])
        assert each["probe"] == share(of.probe.predict(given[name]) == labels[id(given)])
    assert found["as run"]["probe"] == found["as run"]["refitted"]["joint"]
    assert found["photo / 8"]["refitted"]["joint"]["accuracy"] < found["as run"]["refitted"]["joint"]["accuracy"]


def test_another_model_and_a_single_modality_have_no_experts_to_weigh(seen):
    train, judged = seen
    assert experts(Context(test_evaluation.Model(), train, judged, JUDGES)) == {}
    assert experts(Context(Sure(), train, {"ink": judged["ink"]}, JUDGES)) == {}


# Places of codes


def places(count: int = 60, size: int = 3, digits: int = 10) -> tuple[np.ndarray, np.ndarray]:
    return random(count, size).float().numpy(), np.arange(count) % digits


def test_centroids_and_spread_are_those_of_a_loop():
    given, labels = places(digits=9)
    found = codes.centroids(given, labels)
    rows = given.astype(float).tolist()
    for digit in range(10):
        chosen = [row for row, label in zip(rows, labels, strict=True) if label == digit] or rows  # no code shows a 9
        assert found[digit].tolist() == pytest.approx(
            [sum(c) / len(chosen) for c in zip(*chosen, strict=True)], abs=1e-6
        )
    middle = found.mean(axis=0)
    within = [math.dist(row, found[label]) ** 2 for row, label in zip(rows, labels, strict=True)]
    between = [math.dist(place, middle) ** 2 for place in found]
    assert codes.spread(given, labels) == pytest.approx(
        {"within": math.sqrt(np.mean(within)), "between": math.sqrt(np.mean(between))}, rel=1e-6
    )


def test_a_code_is_at_a_place_or_between_two():
    given, at = random(20, 3).float().numpy(), random(6, 3, seed=1).numpy()
    expected = [(lambda d: d[0] / d[1])(sorted(math.dist(row, place) for place in at)) for row in given.astype(float)]
    assert codes.nearest_two(given, at).tolist() == pytest.approx(expected)
    assert codes.nearest_two(at[:1], at).tolist() == [0.0]
    assert codes.nearest_two((at[:1] + at[1:2]) / 2, at[:2]).tolist() == pytest.approx([1.0])
    assert codes.nearest_two(at[:1], at[[0, 0]]).tolist() == [0.0]  # two centroids in one place


def test_shares_by_place_count_each_code_once():
    ratios = np.array([0.0, 0.1, 0.2, 0.39, 0.8, 0.999, 1.0])
    hits = np.array([1, 0, 1, 1, 1, 0, 0], dtype=bool)
    found = codes._by_place(ratios, hits)
    assert {name: (each["accuracy"], each["n"]) for name, each in found.items()} == {
        "0 to 0.2": (0.5, 2), "0.2 to 0.4": (1.0, 2), "0.8 to 1": (pytest.approx(1 / 3), 3),
    }  # fmt: skip


class Between(test_evaluation.Model):
    """A code is t of the way to the next digit's corner; from a third on the decoder paints nonsense, not the probe.

    t is from 0 to 0.45 by the third pixel, and 0 for ink. The photo's corners are `moved` from those of ink.
    """

    def __init__(self, moved: float = 0.0):
        super().__init__()
        self.moved = moved

    def encode_shared(self, images):
        found = [self.place(name, value) for name, value in images.items()]
        mean = torch.stack(found).mean(dim=0)
        return DiagonalGaussian(mean, torch.full_like(mean, self.log_var))

    def place(self, name, images):
        corner, after = (nn.functional.one_hot((read(images) + i) % 10, 10).float() for i in (0, 1))
        t = 0.45 * images[:, 0, 1, 0, None] if name == "photo" else 0.0
        return corner + t * (after - corner) + self.moved * (name == "photo")

    def decode(self, modality, shared, private):
        first, second = (shared - shared.amin(dim=1, keepdim=True)).topk(2, dim=1).values.T
        return paint((shared.argmax(dim=1) + 5 * (second / (first + second) > 1 / 3).long()) % 10)

    def cross_generate(self, source, images, target, generator=None, code=None):
        shared = self.encode_shared({source: images}).mean
        return self.decode(target, shared, self.sample_private(target, len(images), generator))


def test_codes_between_classes_are_told_from_those_that_the_probe_misreads(seen):
    train, judged = seen
    moved = {name: Digits(d.images.clone(), d.labels.clone()) for name, d in judged.items()}
    moved["photo"].labels[:40] = (moved["photo"].labels[:40] + 3) % 10  # which nobody can read rightly
    of = Context(Between(), train, moved, JUDGES, seed=2)
    found = between_classes(of, draws=3)
    for row in found["centroids"].values():
        assert {(each["accuracy"], each["n"]) for each in row.values()} == {(1.0, 30)}
    for way, record in cross_generation(of).items():
        assert found["directions"][way]["judged"] == record["mean"]
    back, forth = found["directions"]["photo->ink"], found["directions"]["ink->photo"]
    truth = moved["photo"].labels.numpy()
    right = np.arange(300) >= 40
    given = shared_codes(of.model, moved, {"photo": torch.arange(300)})
    assert (of.probe.predict(given) == truth).tolist() == right.tolist()
    painted_right = np.array([sorted(row)[-2] / sum(sorted(row)[-2:]) <= 1 / 3 for row in given.tolist()]) & right
    assert back["well_read"] == share(painted_right[right])
    assert 0.5 < back["well_read"]["accuracy"] < 0.9
    assert back["judged"] == share(painted_right)
    assert back["misread"]["n"] == back["misread_as_probe"]["n"] == 40
    assert back["misread"]["accuracy"] == 0.0
    assert 0.4 < back["misread_as_probe"]["accuracy"] < 1.0
    assert back["snapped"] == share(right)  # as right as the probe
    assert sum(each["n"] for each in back["by_place"].values()) == 260
    by_place = [each["accuracy"] for each in back["by_place"].values()]
    assert by_place == sorted(by_place, reverse=True)
    assert (by_place[0], by_place[-1]) == (1.0, 0.0)
    assert forth["well_read"]["accuracy"] == forth["train"]["accuracy"] == 1.0
    assert forth.keys() == {"train", "judged", "by_place", "snapped", "apart", "well_read"}  # nothing is misread
    assert (forth["train"]["n"], back["train"]["n"]) == (400, 300)  # as many as are judged


def test_train_is_of_the_first_training_images_and_so_are_the_centroids(seen):
    train, judged = seen
    late = {name: Digits(d.images.clone(), d.labels.clone()) for name, d in train.items()}
    late["photo"].images[300:, 0, 1, 0] = 255  # which would move the centroids and be decoded wrongly
    given = {"ink": judged["ink"], "photo": judged["photo"]}
    found, expected = (between_classes(Context(Between(), each, given, JUDGES)) for each in (late, train))
    assert found["directions"]["photo->ink"]["train"] == expected["directions"]["photo->ink"]["train"]
    assert found["spread"] == expected["spread"]


def test_modalities_whose_codes_lie_apart_are_so_by_the_distance_of_their_centroids(seen):
    train, judged = seen
    found = between_classes(Context(Between(moved=0.5), train, judged, JUDGES))
    steps = 0.5 * math.sqrt(10)  # in each of ten dimensions; the training photos are at their corners
    assert [each["apart"] for each in found["directions"].values()] == pytest.approx([steps, steps])
    assert found["spread"]["ink"] == pytest.approx({"within": 0.0, "between": math.sqrt(0.9)}, abs=1e-6)


def test_images_of_codes_have_private_codes_of_the_generator(seen):
    class Styled(Between):
        def decode(self, modality, shared, private):
            drawn.append(private)
            return super().decode(modality, shared, private)

    drawn, of = [], Context(Styled(), *seen, JUDGES)
    given = shared_codes(of.model, seen[0], {"ink": torch.arange(600)}).repeat(2, axis=0)
    found = codes.read_of(of, "photo", given, generator(5))
    assert found.tolist() == seen[0]["ink"].labels.repeat_interleave(2).tolist()
    assert [len(each) for each in drawn] == [1000, 200]  # as many at once as elsewhere
    first = generator(5)
    assert torch.equal(torch.cat(drawn), torch.cat([of.model.sample_private("photo", n, first) for n in (1000, 200)]))
