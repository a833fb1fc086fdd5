"""What is measured, on models and judges whose behaviour is known: each number must come out as it must be."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from qmvae_core import evaluation
from qmvae_core.data import Digits, tuple_indices
from qmvae_core.evaluation import (
    Context,
    cross_generated,
    evaluate,
    generator_for,
    joint_coherence,
    probe_accuracies,
    share,
)
from qmvae_core.gaussians import DiagonalGaussian
from qmvae_core.models import ModalityConfig, QMVAEConfig
from qmvae_study import diagnosis

NAMES = ("ink", "photo")
STEP = 25  # an image's first pixel is its digit times this


def painted(count: int, seed: int = 0, uneven: bool = False) -> Digits:
    """Images (count, 1, 2, 2) whose first pixel tells the digit; the others are noise. uneven: many 3s, few 7s."""
    random = np.random.RandomState(seed)
    shares = np.array([1, 1, 1, 4, 1, 1, 1, 0.5, 1, 1]) if uneven else np.ones(10)
    labels = random.choice(10, count, p=shares / shares.sum())
    labels[:10] = range(10)
    images = random.randint(0, 256, (count, 1, 2, 2))
    images[:, 0, 0, 0] = labels * STEP
    return Digits(torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(labels))


def read(images: torch.Tensor) -> torch.Tensor:
    return (images[:, 0, 0, 0] * 255 / STEP).round().long()


def paint(digits: torch.Tensor) -> torch.Tensor:
    images = torch.zeros(len(digits), 1, 2, 2)
    images[:, 0, 0, 0] = digits * STEP / 255
    return images


class Judge:
    """Reads the first pixel, as it should."""

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        return read(images)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)

    def accuracy(self, digits: Digits) -> float:
        return (self.predict(digits.batch()) == digits.labels).double().mean().item()


PRIVATE = {"ink": 10, "photo": 2}


class Model(nn.Module):
    """Codes are one-hot digits. A code is decoded to its largest entry's digit. Parts are replaced by the tests."""

    has_joint_code = True

    def __init__(self, log_var: float = -80.0, test_code: str = "mean"):
        super().__init__()
        self.log_var = log_var
        modalities = {name: ModalityConfig((1, 2, 2), "dense", (), private) for name, private in PRIVATE.items()}
        self.config = QMVAEConfig(test_code=test_code, modalities=modalities)
        self.scale = nn.Parameter(torch.ones(()))
        self.encoded = 0
        self.generators = []

    def shared_digits(self, modalities: tuple[str, ...], digits: torch.Tensor) -> torch.Tensor:
        return digits

    def shared_noise(self, modalities: tuple[str, ...]) -> bool:
        return False

    def answer(self, target: str, digits: torch.Tensor) -> torch.Tensor:
        return digits

    def gaussian(self, digits: torch.Tensor) -> DiagonalGaussian:
        mean = nn.functional.one_hot(digits, 10).float() * self.scale.detach()
        return DiagonalGaussian(mean, torch.full_like(mean, self.log_var))

    def encode_shared(self, images) -> DiagonalGaussian:
        first = next(iter(images.values()))
        assert all(torch.equal(read(first), read(other)) for other in images.values()), "a pair of two digits"
        if self.shared_noise(tuple(images)):
            mean = first[:, 0, 1, :].repeat(1, 5)
            return DiagonalGaussian(mean, torch.full_like(mean, self.log_var))
        return self.gaussian(self.shared_digits(tuple(images), read(first)))

    def encode_private(self, modality, images) -> DiagonalGaussian:
        self.encoded += len(images)
        if modality == "ink":
            return self.gaussian(read(images))
        mean = images[:, 0, 1, :]  # the noise
        return DiagonalGaussian(mean, torch.zeros_like(mean))

    def cross_generate(self, source, images, target, generator=None, code=None):
        self.generators.append((source, target, code, generator.initial_seed()))
        posterior = self.encode_shared({source: images})
        mean = posterior.mean
        if code == "sample":
            mean = posterior.sample(torch.randn(mean.shape, generator=generator))
        return paint(self.answer(target, mean.argmax(dim=-1)))

    def generate(self, count, generator=None):
        digits = torch.randint(0, 10, (count,), generator=generator)
        return {name: paint(self.answer(name, digits)) for name in NAMES}

    def sample_private(self, modality, count, generator=None):
        return torch.randn(count, PRIVATE[modality], generator=generator)

    def decode(self, modality, shared, private):
        return paint(self.answer(modality, shared.argmax(dim=-1)))


JUDGES = dict.fromkeys(NAMES, Judge())


@pytest.fixture(scope="module")
def train():
    return {name: painted(600, seed) for seed, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def judged():
    """More images than fit in one batch, and not a whole number of batches."""
    return {"ink": painted(2_345, 7, uneven=True), "photo": painted(1_203, 8)}


# Shares


@pytest.mark.parametrize(("hit", "count"), [(0, 10), (10, 10), (813, 1000), (1, 3), (9_220, 10_000)])
def test_a_share_has_its_wilson_interval(hit, count):
    found = share(np.arange(count) < hit)
    z, p = 1.959963984540054, hit / count
    centre = (p + z * z / (2 * count)) / (1 + z * z / count)
    reach = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    assert found == pytest.approx(
        {"accuracy": p, "n": count, "low": centre - reach, "high": centre + reach}, rel=1e-9, abs=1e-12
    )
    assert share(torch.arange(count) < hit) == found
    assert {type(value) for value in found.values()} == {int, float}  # JSON, not NumPy's own numbers


# Cross generation


def test_a_perfect_model_gets_every_image_right_in_both_directions(train, judged):
    model = Model().train()
    found = evaluate(model, train, judged, JUDGES)
    assert not model.training
    assert found["joint_coherence"]["n"] == 2_345  # as many as are judged
    assert found["cross_generation"].keys() == {"ink->photo", "photo->ink"}
    for direction, count in (("ink->photo", 2_345), ("photo->ink", 1_203)):
        for how in ("mean", "sample"):
            value = found["cross_generation"][direction][how]
            assert (value["accuracy"], value["n"]) == (1.0, count)


def test_a_constant_model_gets_the_share_of_its_digit_and_a_column_of_the_confusion(train, judged):
    class Three(Model):
        def answer(self, target, digits):
            return torch.full_like(digits, 3)

    found = evaluate(Three(), train, judged, JUDGES, metrics=diagnosis.METRICS)
    for direction, source in (("ink->photo", "ink"), ("photo->ink", "photo")):
        labels = judged[source].labels
        assert found["cross_generation"][direction]["mean"]["accuracy"] == pytest.approx(
            (labels == 3).double().mean().item()
        )
        table = np.array(found["confusion"][direction])
        assert table[:, 3].tolist() == torch.bincount(labels, minlength=10).tolist()  # rows are conditions
        assert table.sum() == table[:, 3].sum() == len(labels)


def test_each_direction_is_judged_by_the_judge_of_its_target(train, judged):
    class Blind(Judge):
        def predict(self, images):
            return torch.zeros(len(images), dtype=torch.int64)

    found = evaluate(Model(), train, judged, {"ink": Judge(), "photo": Blind()})
    assert found["cross_generation"]["photo->ink"]["mean"]["accuracy"] == 1.0
    zeros = (judged["ink"].labels == 0).double().mean().item()
    assert found["cross_generation"]["ink->photo"]["mean"]["accuracy"] == pytest.approx(zeros)
    zeros = (judged["photo"].labels == 0).double().mean().item()
    assert zeros != (train["photo"].labels == 0).double().mean().item()
    assert found["oracle"] == {"ink": 1.0, "photo": pytest.approx(zeros)}  # on the judged digits


@pytest.mark.parametrize("code", ["mean", "sample"])
def test_mean_and_sample_differ_where_the_posterior_is_wide_and_the_confusion_is_of_the_test_code(train, judged, code):
    found = evaluate(Model(log_var=2.0, test_code=code), train, judged, JUDGES, metrics=diagnosis.METRICS)
    wide, narrow = found["cross_generation"], evaluate(Model(), train, judged, JUDGES)["cross_generation"]
    for direction, table in found["confusion"].items():
        assert np.trace(table) / np.sum(table) == pytest.approx(wide[direction][code]["accuracy"])
        assert wide[direction]["mean"]["accuracy"] == 1.0
        assert wide[direction]["sample"]["accuracy"] < 0.5
        assert narrow[direction]["mean"] == narrow[direction]["sample"]


def test_each_seed_direction_and_way_has_draws_of_its_own(train, judged):
    seen = set()
    for seed in (0, 1):
        model = Model()
        evaluate(model, train, judged, JUDGES, seed, diagnosis.METRICS)
        given = set(model.generators)
        assert len({entry[:3] for entry in given}) == len(given) == 4
        seen |= {entry[-1] for entry in given}
    assert len(seen) == 8


def test_images_are_made_a_thousand_at_a_time_since_the_draws_depend_on_it(train, judged):
    class Counted(Model):
        def cross_generate(self, source, images, *others):
            made.append(len(images))
            return super().cross_generate(source, images, *others)

        def generate(self, count, generator=None):
            made.append(count)
            return super().generate(count, generator)

    made = []
    of = Context(Counted(), train, judged, JUDGES)
    cross_generated(of.model, "ink", judged["ink"], "photo", of.generator("x"))
    assert of.model.generators[0][2] == "mean"
    joint_coherence(of)
    assert made == [1000, 1000, 345] * 2


def test_the_seed_is_the_first_one_unless_another_is_given(train, judged):
    assert Context(Model(), train, judged, JUDGES).seed == 0
    wide = Model(log_var=0.0)
    assert evaluate(wide, train, judged, JUDGES) == evaluate(wide, train, judged, JUDGES, seed=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Context(Model(), train, judged, JUDGES).seed = 1


# The probe


def test_the_probe_is_that_of_the_records_and_has_its_draws_from_the_seed(train, judged):
    of = Context(Model(), train, judged, JUDGES, seed=5)
    pairs, truth = evaluation.one_round(judged, 5)
    expected = tuple_indices({name: d.labels for name, d in judged.items()}, rounds=1, seed=5)
    assert all(torch.equal(pairs[name], index) for name, index in expected.items())
    assert truth.tolist() == judged["ink"].labels[expected["ink"].long()].tolist()
    assert of.probe.max_iter == 1000
    assert of.probe is of.probe  # trained once


def test_the_probe_counts_every_judged_image_and_one_round_of_pairs(train, judged):
    found = probe_accuracies(Context(Model(), train, judged, JUDGES))
    counts = [torch.bincount(judged[name].labels, minlength=10) for name in NAMES]
    assert found["ink"]["n"] == 2_345
    assert found["photo"]["n"] == 1_203
    assert found["joint"]["n"] == torch.minimum(*counts).sum().item()
    assert [found[name]["accuracy"] for name in ("ink", "photo", "joint")] == [1.0, 1.0, 1.0]


def test_the_probe_does_not_find_what_the_codes_do_not_hold(train, judged):
    class Blind(Model):
        def shared_noise(self, modalities):
            return modalities == ("photo",)

    found = probe_accuracies(Context(Blind(), train, judged, JUDGES))
    assert found["photo"]["accuracy"] < 0.2
    assert (found["ink"]["accuracy"], found["joint"]["accuracy"]) == (1.0, 1.0)


def test_the_probe_is_trained_on_joint_codes_alone(train, judged):
    """Each modality's own codes name the next digit: a probe of their own would read them, the joint one must not."""

    class Shifted(Model):
        def shared_digits(self, modalities, digits):
            return digits if len(modalities) == 2 else (digits + 1) % 10

    found = probe_accuracies(Context(Shifted(), train, judged, JUDGES))
    assert (found["ink"]["accuracy"], found["photo"]["accuracy"]) == (0.0, 0.0)
    assert found["joint"]["accuracy"] == 1.0


def test_no_probe_ever_sees_judged_labels(train, judged):
    """With the judged labels moved by one, probes of the training labels are wrong everywhere."""
    moved = {name: Digits(d.images, (d.labels + 1) % 10) for name, d in judged.items()}
    found = probe_accuracies(Context(Model(), train, moved, JUDGES))
    assert all(value["accuracy"] == 0.0 for value in found.values())
    found = diagnosis.leakage(Context(Model(), train, moved, JUDGES))["ink"]
    assert [value["accuracy"] for value in found.values()] == pytest.approx([0, 0], abs=0.01)


def test_the_probe_of_a_model_without_joint_codes_is_trained_on_the_codes_of_each_modality_pooled(train, judged):
    """A half of the codes name the next digit: one probe of all codes cannot know which half it is shown."""
    asked = []

    class Apart(Model):
        has_joint_code = False

        def shared_digits(self, modalities, digits):
            asked.append(modalities)
            return (digits + self.turn) % 10 if modalities == ("photo",) else digits

    model = Apart()
    model.turn = 0
    found = probe_accuracies(Context(model, train, judged, JUDGES))
    assert {name: (value["accuracy"], value["n"]) for name, value in found.items()} == {
        "ink": (1.0, 2_345), "photo": (1.0, 1_203),
    }  # fmt: skip
    assert set(asked) == {("ink",), ("photo",)}
    model.turn = 1
    turned = probe_accuracies(Context(model, train, judged, JUDGES))
    assert turned["ink"]["accuracy"] + turned["photo"]["accuracy"] < 1.4
    found = evaluate(model, train, judged, JUDGES, metrics=diagnosis.METRICS)
    assert found["probe"] == turned
    assert found["joint_code"] == {}
    assert all(swaps.keys() == {"source", "target"} for swaps in found["code_swaps"].values())


def test_the_joint_code_follows_a_modality_where_the_two_disagree(train, judged):
    """Judged photos with a bright last pixel are misread, and dark ones of ink; the joint code believes the photo."""

    class Torn(Model):
        def read(self, name, images):
            turned = images[:, 0, 1, 1] > 0.5 if name == "photo" else images[:, 0, 1, 1] < 0.2
            return torch.where(turned & (images[:, 0, 1, 0] > 0), read(images) + 1, read(images)) % 10

        def encode_shared(self, images):
            name = "photo" if "photo" in images else "ink"
            mean = nn.functional.one_hot(self.read(name, images[name]), 10).float()
            return DiagonalGaussian(mean, torch.full_like(mean, -math.log(4.0) if name == "photo" else 0.0))

    taught = {name: Digits(d.images.clone(), d.labels) for name, d in train.items()}
    for digits in taught.values():
        digits.images[:, 0, 1, 0] = 0  # nothing is misread there
    model = Torn()
    found = diagnosis.joint_code(Context(model, taught, judged, JUDGES, seed=3))
    assert found == evaluate(model, taught, judged, JUDGES, 3, diagnosis.METRICS)["joint_code"]
    assert found["train"]["joint"]["accuracy"] == 1.0
    assert found["train"]["only"] == {}
    hits = {}
    for name, rows in tuple_indices({name: d.labels for name, d in judged.items()}, rounds=1, seed=3).items():
        seen = model.read(name, judged[name].batch(rows.long())).tolist()
        hits[name] = [a == b for a, b in zip(seen, judged[name].labels[rows.long()].tolist(), strict=True)]
    for name, each in hits.items():
        assert found["judged"]["alone"][name] == share(np.array(each))
    assert found["judged"]["joint"] == share(np.array(hits["photo"]))
    torn = [(a, b) for a, b in zip(hits["ink"], hits["photo"], strict=True) if a != b]
    counts = {"ink": sum(a for a, _ in torn), "photo": sum(b for _, b in torn)}
    assert min(counts.values()) > 50
    for name, accuracy in (("ink", 0.0), ("photo", 1.0)):
        only = found["judged"]["only"][name]
        assert (only["accuracy"], only["n"]) == (accuracy, counts[name])
    assert found["judged"]["precision"] == {"ink": 1.0, "photo": pytest.approx(4.0)}


# Leakage


def test_leakage_tells_codes_that_hold_the_digit_from_noise(train, judged):
    model = Model()
    found = diagnosis.leakage(Context(model, train, judged, JUDGES))
    assert model.encoded == 2 * 600 + 2_345 + 1_203  # no training image is left out
    for probe in ("linear", "nonlinear"):
        assert found["ink"][probe]["accuracy"] > 0.99
        assert found["ink"][probe]["n"] == 2_345
        assert found["photo"][probe]["accuracy"] == pytest.approx(0.1, abs=0.04)
        assert found["photo"][probe]["n"] == 1_203
    model.encoded = 0
    diagnosis.leakage(Context(model, train, judged, JUDGES), limit=200)
    assert model.encoded == 2 * 200 + 2_345 + 1_203


def test_only_the_nonlinear_probe_reads_a_code_that_hides_the_digit_in_a_product():
    """Two classes by the sign of a product: no straight line tells them apart."""
    random = np.random.RandomState(0)
    codes = random.uniform(-1, 1, (3_000, 2))
    labels = (codes[:, 0] * codes[:, 1] > 0).astype(int)
    linear = evaluation.linear_probe(codes[:2_000], labels[:2_000]).predict(codes[2_000:])
    nonlinear = diagnosis.nonlinear_probe(codes[:2_000], labels[:2_000], 0).predict(codes[2_000:])
    assert (linear == labels[2_000:]).mean() < 0.65
    assert (nonlinear == labels[2_000:]).mean() > 0.9


# Coherence


def test_joint_coherence_is_the_share_of_images_in_which_all_judges_agree():
    class Third(Model):
        def generate(self, count, generator=None):
            digits = torch.arange(count) % 10
            return {"a": paint(digits), "b": paint(digits), "c": paint((digits // 5) * 5)}

    found = joint_coherence(Context(Third(), {}, {}, dict.fromkeys("abc", Judge())), count=1_500)
    assert (found["accuracy"], found["n"]) == (0.2, 1_500)


def test_the_images_of_one_modality_alone_always_agree(judged):
    class Alone(Model):
        def generate(self, count, generator=None):
            return {"ink": super().generate(count, generator)["ink"]}

    assert joint_coherence(Context(Alone(), {}, judged, JUDGES), count=7)["accuracy"] == 1.0


# The whole


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(train, judged):
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first = evaluate(Model(log_var=0.0), train, judged, JUDGES, seed=1)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    torch.manual_seed(6)
    assert evaluate(Model(log_var=0.0), train, judged, JUDGES, seed=1) == first
    other = evaluate(Model(log_var=0.0), train, judged, JUDGES, seed=2)
    assert other["cross_generation"]["ink->photo"]["sample"] != first["cross_generation"]["ink->photo"]["sample"]


def test_the_judges_are_asked_before_anything_is_computed(train, judged):
    with pytest.raises(ValueError, match=r"no judge for the modalities \['photo'\]; there are \['ink'\]"):
        evaluate(Model(), train, judged, {"ink": JUDGES["ink"]})


def test_diagnosis_stands_beside_the_other_numbers_ready_for_json(train, judged):
    found = evaluate(Model(), train, judged, JUDGES, metrics=diagnosis.METRICS)
    json.dumps(found)
    assert {name: found["frechet"]["prior"][name]["n"] for name in NAMES} == {"ink": 2_345, "photo": 1_203}
    assert {name: found["frechet"]["real"][name]["n_real"] for name in NAMES} == {"ink": 1_172, "photo": 601}
    direction = found["frechet"]["cross_generation"]["ink->photo"]
    assert (direction["n"], direction["n_real"]) == (2_345, 1_203)
    images = cross_generated(Model(), "ink", judged["ink"], "photo", generator_for(0, "cross", "ink->photo", "mean"))
    expected = diagnosis.frechet_distance(images.flatten(1).numpy(), judged["photo"].batch().flatten(1).numpy())
    assert direction["distance"] == pytest.approx(expected)
    for direction, target in (("ink->photo", "photo"), ("photo->ink", "ink")):
        assert found["diversity"][direction]["pixels"]["generated"] == 0.0  # h has no say in this decoder
        assert found["code_swaps"][direction]["source"]["prior"]["accuracy"] == 1.0
        assert found["code_swaps"][direction]["joint"]["digit_of_h"]["accuracy"] == 0.0
        assert len(found["private_information"][target]["nats"]) == PRIVATE[target]
    assert {name: value["n"] for name, value in found["private_information"].items()} == {"ink": 2_000, "photo": 1_203}


def test_a_modality_without_a_private_code_has_no_swaps_and_no_private_information(train, judged):
    class Half(Model):
        def encode_private(self, modality, images):
            found = super().encode_private(modality, images)
            return found if modality == "ink" else DiagonalGaussian(found.mean[:, :0], found.log_var[:, :0])

    model = Half()
    photo = dataclasses.replace(model.config.modalities["photo"], private=0)
    model.config = dataclasses.replace(model.config, modalities={**model.config.modalities, "photo": photo})
    found = evaluate(model, train, judged, JUDGES, metrics=diagnosis.METRICS)
    assert found["leakage"].keys() == found["private_information"].keys() == {"ink"}
    assert found["code_swaps"].keys() == {"photo->ink"}
    assert found["diversity"].keys() == {"ink->photo", "photo->ink"}
