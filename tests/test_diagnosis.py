"""Diagnosis on features, models and judges whose behaviour is known: each number must come out as it must be."""

import math

import numpy as np
import pytest
import test_evaluation
import torch
from model_cases import generator
from scipy.linalg import sqrtm
from test_evaluation import STEP, Judge, paint, read

from qmvae_core.data import Digits
from qmvae_core.evaluation import Context
from qmvae_core.gaussians import DiagonalGaussian
from qmvae_core.models import build_model
from qmvae_study import diagnosis
from qmvae_study.diagnosis import code_swaps, diversity, frechet_distance, private_information

# The Fréchet distance


def normals(count: int, size: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, size)) * scale


def by_definition(first: np.ndarray, second: np.ndarray) -> float:
    covariances = [np.cov(features, rowvar=False) for features in (first, second)]
    root = sqrtm(covariances[0] @ covariances[1])
    between = np.square(first.mean(axis=0) - second.mean(axis=0)).sum()
    return between + np.trace(covariances[0] + covariances[1] - 2 * root.real)


@pytest.mark.parametrize("size", [2, 7, 20])
def test_distance_is_that_of_the_matrix_root(size):
    mixing = normals(size, size, seed=3)
    first, second = normals(300, size), normals(200, size, seed=1) @ mixing + 0.5
    assert frechet_distance(first, second) == pytest.approx(by_definition(first, second), rel=1e-8)
    assert frechet_distance(second, first) == pytest.approx(frechet_distance(first, second), rel=1e-10)


@pytest.mark.parametrize("count", [2, 10, 41])
def test_distance_of_fewer_images_than_features_is_finite_and_not_negative(count):
    """Singular covariances, for which a root by iteration gives complex numbers or none."""
    first, second = normals(count, 40), normals(count, 40, seed=1)
    assert frechet_distance(first, first) == pytest.approx(0.0, abs=1e-10)
    assert 0 < frechet_distance(first, second) < np.inf
    with pytest.raises(ValueError, match=f"two or more images, got {count} and 1"):
        frechet_distance(first, second[:1])
    constant = np.ones((count, 40))
    trace = first.var(axis=0, ddof=1).sum()
    expected = np.square(first.mean(axis=0) - 1.0).sum() + trace
    assert frechet_distance(first, constant) == pytest.approx(expected, rel=1e-10)


def test_distance_of_single_precision_features_is_computed_in_double():
    first, second = (normals(1_000, 30, seed=i).astype(np.float32) + np.float32(100) for i in (0, 1))
    expected = frechet_distance(first.astype(np.float64), second.astype(np.float64))
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)


# Models and judges


def painted(per_digit: int = 30, seed: int = 0, digits: int = 10) -> Digits:
    """Images (n, 1, 2, 2): the first pixel tells the digit, the second is 0 or 1 by turns, the last is noise."""
    labels = torch.arange(digits).repeat(per_digit)
    images = torch.zeros(len(labels), 1, 2, 2)
    images[:, 0, 0, 0] = labels * STEP
    images[:, 0, 0, 1] = 255 * (torch.arange(len(labels)) // digits % 2)
    images[:, 0, 1, 1] = torch.randint(0, 256, (len(labels),), generator=generator(seed))
    return Digits(images.to(torch.uint8), labels)


class Doubled(Judge):
    """Reads the first pixel; its features are the pixels, doubled."""

    def features(self, images):
        return 2 * super().features(images)


class Model(test_evaluation.Model):
    """Both codes of an image are one-hot digits, tenfold; `decoded` says which of the two is painted."""

    def __init__(self, decoded: str = "shared", **moved: int):
        super().__init__(log_var=0.0)
        self.scale.data.fill_(10.0)
        self.decoded, self.moved = decoded, moved

    def shared_digits(self, modalities, digits):
        return (digits + self.moved.get(modalities[0] if len(modalities) == 1 else "joint", 0)) % 10

    def encode_private(self, modality, images):
        assert modality == "photo"
        return self.gaussian(read(images))

    def sample_private(self, modality, count, generator=None):
        return torch.randn(count, 10, generator=generator)

    def decode(self, modality, shared, private):
        assert modality == "photo"
        return paint((shared if self.decoded == "shared" else private).argmax(dim=-1))


JUDGED = {"ink": painted(), "photo": painted(25, seed=1)}


def of(model, judged=JUDGED, seed: int = 0) -> Context:
    return Context(model, {}, judged, dict.fromkeys(("ink", "photo"), Doubled()), seed)


def accuracies(found: dict) -> dict[str, dict[str, float]]:
    return {z: {h: value["accuracy"] for h, value in row.items()} for z, row in found.items()}


# Swaps


def test_swaps_of_a_decoder_that_takes_the_digit_from_z():
    found = code_swaps(of(Model()), "ink", "photo")
    right = {"prior": 1.0, "zero": 1.0, "same_digit": 1.0, "other_digit": 1.0, "digit_of_h": 0.0}
    assert accuracies(found) == {"source": right, "target": right, "joint": right}
    for row in found.values():
        for value in row.values():
            assert value == diagnosis.share(np.arange(250) < 250 * value["accuracy"])


def test_swaps_of_a_decoder_that_takes_the_digit_from_h():
    found = accuracies(code_swaps(of(Model("private")), "ink", "photo"))
    assert found["source"] == found["target"] == found["joint"]  # one h goes with every z
    row = found["source"]
    assert (row["same_digit"], row["other_digit"], row["digit_of_h"]) == (1.0, 0.0, 1.0)
    assert row["zero"] == pytest.approx(0.1)  # the largest of ten zeros is the first: each image is read as 0
    assert row["prior"] == pytest.approx(0.1, abs=0.06)


@pytest.mark.parametrize("place", ["ink", "photo", "joint"])
def test_swaps_find_the_code_that_lies_in_the_wrong_place(place):
    found = accuracies(code_swaps(of(Model(**{place: 1})), "ink", "photo"))
    column = {"ink": "source", "photo": "target", "joint": "joint"}[place]
    for z, row in found.items():
        assert [row[h] for h in ("prior", "zero", "same_digit", "other_digit")] == [float(z != column)] * 4


def test_swaps_without_a_joint_code_and_of_some_images_only():
    model = Model()
    model.has_joint_code = False
    found = code_swaps(of(model), "ink", "photo", limit=40)
    assert found.keys() == {"source", "target"}
    assert {value["n"] for row in found.values() for value in row.values()} == {40}


def test_swaps_are_a_function_of_the_generator():
    class Blurred(Model):
        def decode(self, modality, shared, private):
            return paint((shared + 8 * private).argmax(dim=-1))

    first, again, other = (accuracies(code_swaps(of(Blurred(), seed=seed), "ink", "photo")) for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("same_digit", [True, False])
def test_another_image_is_any_other_of_the_same_or_of_another_digit(same_digit):
    labels = torch.tensor([3, 1, 1, 7, 1, 3, 7, 7, 0])
    of = torch.arange(9).repeat_interleave(4_000)
    found = diagnosis._another(labels, of, generator(), same_digit)
    for position, digit in enumerate(labels.tolist()):
        drawn = found[of == position].bincount(minlength=9)
        allowed = (labels == digit) == same_digit
        allowed[position] = digit == 0 and same_digit  # the only 0: there is no other
        assert (drawn > 0).tolist() == allowed.tolist()
        share = 4_000 / allowed.sum().item()
        assert (drawn[allowed] - share).abs().max() < 5 * math.sqrt(share)


# Diversity


class Styled(Model):
    """The target's second pixel is its first private number, whatever it is; the first tells the digit."""

    def decode(self, modality, shared, private):
        images = super().decode(modality, shared, private)
        images[:, 0, 0, 1] = private[:, 0]
        return images


def flat(digits: Digits) -> Digits:
    """The same without the noise of the last pixel."""
    images = digits.images.clone()
    images[:, 0, 1, 1] = 0
    return Digits(images, digits.labels)


def test_diversity_is_the_mean_distance_of_two_draws_beside_that_of_two_images_of_one_digit():
    """Two draws of N(0, 1) are 2/√π apart; of 26 images of a digit, half of them light, 13 of 25 others differ."""
    judged = {"ink": JUDGED["ink"], "photo": flat(painted(26))}
    found = diversity(of(Styled(), judged), "ink", "photo", conditions=260, draws=30)
    assert (found["conditions"], found["draws"]) == (260, 30)
    assert found["pixels"]["generated"] == pytest.approx(2 / math.sqrt(math.pi), rel=0.02)
    assert found["pixels"]["real"] == pytest.approx(13 / 25, rel=0.04)
    for name, scale in (("pixels", 1.0), ("features", 2.0)):
        value = found[name]
        assert value["generated"] == pytest.approx(scale * found["pixels"]["generated"])
        assert value["real"] == pytest.approx(scale * found["pixels"]["real"])
        assert value["ratio"] == pytest.approx(value["generated"] / value["real"])


def test_diversity_does_not_count_what_differs_between_conditions():
    found = diversity(of(Model()), "ink", "photo", conditions=100)
    assert found["pixels"]["generated"] == found["features"]["ratio"] == 0.0
    assert found["pixels"]["real"] > 0
    assert (found["conditions"], found["draws"]) == (100, 5)


def test_diversity_of_the_data_is_unknown_where_each_digit_is_there_once():
    judged = {"ink": JUDGED["ink"], "photo": painted(1)}
    found = diversity(of(Styled(), judged), "ink", "photo")
    assert found["conditions"] == 10
    assert found["pixels"]["generated"] > 0
    assert math.isnan(found["pixels"]["real"])
    assert math.isnan(found["pixels"]["ratio"])


# Images from the prior


def test_images_from_the_prior_are_as_many_as_the_real_ones_and_of_their_own_modality():
    real = {"ink": normals(1_100, 4), "photo": normals(30, 4, seed=1)}

    class Prior:
        drawn = 0

        def generate(self, count, generator):
            rows = slice(self.drawn, self.drawn + count)
            self.drawn += count
            again = {"ink": real["ink"][rows], "photo": np.resize(real["photo"], (1_100, 4))[rows] + 1.0}
            return {name: torch.from_numpy(value).view(-1, 1, 2, 2) / 2 for name, value in again.items()}

    model = Prior()
    found = diagnosis.frechet_from_prior(of(model), real)
    assert model.drawn == 1_100
    assert {name: (value["n"], value["n_real"]) for name, value in found.items()} == {
        "ink": (1_100, 1_100), "photo": (30, 30),
    }  # fmt: skip
    assert found["ink"]["distance"] == pytest.approx(0.0, abs=1e-9)
    assert found["photo"]["distance"] == pytest.approx(4.0)  # each of four features moved by one


def test_features_of_all_digits_are_in_their_order():
    digits = painted(150)
    found = diagnosis.features_of(Doubled(), digits)
    assert found.shape == (1_500, 4)
    assert np.array_equal(found, 2 * digits.batch().flatten(1).numpy())


def test_halves_of_real_images_are_every_second_and_the_others():
    real = normals(21, 3)
    found = diagnosis.frechet_of_halves(real)
    assert found == {"distance": frechet_distance(real[::2], real[1::2]), "n": 11, "n_real": 10}


# Information


class Channel:
    """q(h|x) for an image whose number is in its first pixels: the d-th dimension is given by means and a deviation."""

    def __init__(self, means: torch.Tensor, deviations: list[float]):
        self.means, self.deviations = means, deviations

    def encode_private(self, modality, images):
        number = (images[:, 0, 0, 0] * 255).round().long() * 256 + (images[:, 0, 0, 1] * 255).round().long()
        mean = self.means[number].float()
        return DiagonalGaussian(mean, 2 * torch.tensor(self.deviations).log().expand_as(mean))


def numbered(count: int) -> Digits:
    images = torch.zeros(count, 1, 1, 2)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = torch.arange(count) // 256, torch.arange(count) % 256
    return Digits(images.to(torch.uint8), torch.arange(count) % 10)


def test_information_of_known_channels():
    """m ~ N(0, 1 - s²) seen with deviation s tells -ln s; four places far apart tell ln 4; one place tells nothing."""
    count = 4_000
    drawn = torch.randn(count, 2, generator=generator(), dtype=torch.float64)
    means = torch.stack(
        [math.sqrt(1 - 0.3**2) * drawn[:, 0], math.sqrt(1 - 0.9**2) * drawn[:, 1], 100.0 * (torch.arange(count) % 4)]
        + [torch.full((count,), 0.7)],
        dim=1,
    )
    found = private_information(Channel(means, [0.3, 0.9, 1.0, 0.5]), "ink", numbered(count), generator(1))
    assert found.shape == (4,)
    assert found[:2] == pytest.approx([-math.log(0.3), -math.log(0.9)], abs=0.05)
    assert found[2] == pytest.approx(math.log(4), abs=0.01)
    assert found[3] == pytest.approx(0.0, abs=1e-6)
    assert found.argsort()[::-1].tolist() == [2, 0, 1, 3]


def test_information_is_at_most_the_logarithm_of_the_number_of_images():
    means = 10.0 * torch.arange(500).unsqueeze(1)
    channel = Channel(means, [0.1])
    assert private_information(channel, "ink", numbered(500), generator()) == pytest.approx(math.log(500))
    assert private_information(channel, "ink", numbered(500), generator(), limit=50) == pytest.approx(math.log(50))


def test_information_of_a_model_without_private_codes_is_empty(small_config, small_digits):
    model = build_model(small_config(model="mvae", of_all={"private": 0}))
    assert private_information(model, "ink", small_digits()["ink"], generator()).shape == (0,)
