"""The harness of reference [14]: its judges as its code makes them, its two measures against plain loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from model_cases import noise

from qmvae_core.data import MODALITIES, DigitData, Digits, tuple_indices
from qmvae_core.evaluation import Context, cross_generated, one_round
from qmvae_core.gaussians import DiagonalGaussian
from qmvae_core.models import build_model, reading
from qmvae_study import harness, judges, oracles
from qmvae_study.judges import load_published, prepare_published
from qmvae_study.oracles import DigitClassifier, PublishedConfig, train_published

TINY = PublishedConfig(epochs=3, rounds=2, batch_size=16)
SMALL = "default+mnist.widths=[4]+svhn.widths=[2,2]"


TRAIN = noise({"mnist": [3, 2] + [4] * 8, "svhn": [2, 5] + [3] * 8})
JUDGED = noise({"mnist": [2] * 10, "svhn": [9, 1, 3, *[2] * 7]}, seed=1)


def digit_data() -> DigitData:
    return DigitData(dict(TRAIN), dict(JUDGED), {"kind": "stand-in", "notes": [], "content_hash": "x"})


# Judges


@pytest.mark.parametrize(("modality", "flat"), [("mnist", 320), ("svhn", 500)])
def test_a_judge_is_the_network_of_that_code(modality, flat):
    judge = DigitClassifier(modality, PublishedConfig()).eval()
    first, second, hidden, last = (layer for layer in judge.network if hasattr(layer, "weight"))
    x = JUDGED[modality].batch()
    found = judge(x)
    x = F.relu(F.max_pool2d(F.conv2d(x, first.weight, first.bias), 2))
    x = F.relu(F.max_pool2d(F.conv2d(x, second.weight, second.bias), 2))
    x = F.relu(F.linear(x.reshape(-1, flat), hidden.weight, hidden.bias))
    torch.testing.assert_close(found, F.linear(x, last.weight, last.bias))
    assert [tuple(layer.weight.shape) for layer in (first, second, hidden, last)] == [
        (10, MODALITIES[modality][0], 5, 5), (20, 10, 5, 5), (50, flat), (10, 50)
    ]  # fmt: skip
    dropped = [(type(layer).__name__, layer.p) for layer in judge.network if hasattr(layer, "p")]
    assert dropped == [("Dropout2d", 0.5), ("Dropout", 0.5)]
    assert (PublishedConfig().epochs, PublishedConfig().rounds, PublishedConfig().batch_size) == (30, 30, 256)


def trained(work, config=TINY, **options) -> torch.Tensor:
    model, losses = train_published("svhn", TRAIN, config, work, verbose=False, **options)
    assert not model.training
    assert len(losses) == config.epochs
    return torch.cat([value.flatten() for value in model.state_dict().values()] + [torch.tensor(losses)])


def test_training_is_a_function_of_the_seed_and_leaves_the_global_generator_alone(tmp_path):
    state = torch.get_rng_state()
    first = trained(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(7)
    assert torch.equal(trained(tmp_path), first)
    assert not torch.equal(trained(tmp_path, replace(TINY, seed=1)), first)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("epoch", range(TINY.epochs))
def test_a_killed_training_ends_in_the_same_bits(tmp_path, monkeypatch, epoch):
    whole = trained(tmp_path / "whole")
    take = oracles._epoch_of_pairs

    def killed(*parts):
        if parts[-1] == epoch:
            raise KeyboardInterrupt
        return take(*parts)

    with monkeypatch.context() as patch:
        patch.setattr(oracles, "_epoch_of_pairs", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path)
    taken = []
    monkeypatch.setattr(oracles, "_epoch_of_pairs", lambda *parts: taken.append(parts[-1]) or take(*parts))
    assert torch.equal(trained(tmp_path), whole)
    assert taken == list(range(epoch, TINY.epochs))


def test_a_checkpoint_of_another_training_is_not_gone_on_from(tmp_path, monkeypatch):
    other = replace(TINY, learning_rate=0.1)
    with monkeypatch.context() as patch:
        patch.setattr(oracles.Path, "unlink", lambda *_, **__: None)
        trained(tmp_path, other)
    assert (tmp_path / "svhn.pt").exists()
    assert torch.equal(trained(tmp_path), trained(tmp_path / "new"))


def test_each_epoch_shows_every_paired_image_as_often_as_there_are_rounds(tmp_path, monkeypatch):
    seen = []
    batch = Digits.batch
    monkeypatch.setattr(Digits, "batch", lambda self, rows: seen.append(rows) or batch(self, rows))
    trained(tmp_path)
    pairs = tuple_indices({name: each.labels for name, each in TRAIN.items()}, 1)["svhn"].long()
    counts = torch.cat(seen).bincount(minlength=len(TRAIN["svhn"]))
    expected = torch.zeros_like(counts)
    expected[pairs] = TINY.epochs * TINY.rounds
    assert counts.equal(expected)
    assert (expected == 0).any()  # images without a partner are never shown
    assert not torch.equal(torch.cat(seen[: len(seen) // 3]), torch.cat(seen[len(seen) // 3 : 2 * len(seen) // 3]))


def test_judges_are_made_where_they_are_missing_and_come_back_as_they_were(tmp_path, monkeypatch):
    data, where = digit_data(), (tmp_path / "published", (2, 0), TINY, tmp_path / "work")
    made = prepare_published(data, *where)
    assert list(made) == [2, 0]
    with monkeypatch.context() as patch:
        patch.setattr(judges, "train_published", lambda *_: pytest.fail("trained again"))
        prepare_published(data, *where)
    found = load_published(data, tmp_path / "published")
    assert list(found) == [0, 2]
    images = JUDGED["svhn"].batch()
    assert torch.equal(found[2]["svhn"](images), made[2]["svhn"](images))
    assert not torch.equal(found[0]["svhn"](images), made[2]["svhn"](images))
    record = judges.read_json(tmp_path / "published" / "2" / "svhn.json")
    assert (record["recipe"], record["config"]["seed"], len(record["losses"])) == ("published", 2, 3)
    assert record["weights_sha256"] == found[2]["svhn"].sha256
    assert load_published(data, tmp_path / "nowhere") == {}


# Measures


class Reads:
    """A judge that reads the brightest of ten pixels, and one digit further each."""

    def __init__(self, further: int):
        self.further = further

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        return (images.flatten(1)[:, :10].argmax(dim=1) + self.further) % 10


def context(name: str = SMALL, seed: int = 0) -> Context:
    ours = {name: Reads(0) for name in MODALITIES}
    return Context(build_model(reading(name), 5).eval(), TRAIN, JUDGED, ours, seed)


def test_several_judges_read_the_images_that_ours_read_by_image_and_by_pair():
    of = context()
    found = harness.cross_generation(of, {4: {name: Reads(1) for name in MODALITIES}, 7: of.judges})
    assert found.keys() == {"4", "7"}
    for direction, (source, target) in of.directions.items():
        digits, other = of.judged[source], of.judged[target]
        for code in ("mean", "sample"):
            images = cross_generated(of.model, source, digits, target, of.generator("cross", direction, code), code)
            read = {"7": images.flatten(1)[:, :10].argmax(dim=1)}
            read["4"] = (read["7"] + 1) % 10
            for seed, by_direction in found.items():
                right, left = [], {d: min(*(int((e.labels == d).sum()) for e in (digits, other))) for d in range(10)}
                for label, said in zip(digits.labels.tolist(), read[seed].tolist(), strict=True):
                    if left[label]:
                        left[label] -= 1
                        right.append(label == said)
                measured = by_direction[direction][code]
                assert measured["images"]["accuracy"] == (read[seed] == digits.labels).double().mean().item()
                assert (measured["pairs"]["accuracy"], measured["pairs"]["n"]) == (np.mean(right), len(right))
    assert measured["pairs"]["n"] < measured["images"]["n"]  # of digit 0 there are nine images and two partners


@torch.no_grad()
def by_hand(of: Context, name: str, index, truth, passes: int) -> tuple[np.ndarray, np.ndarray]:
    """The layer of `harness._trained`, by the gradient of the softmax and Adam's own formulas."""
    posterior, generator = harness._posteriors(of, of.train, index), of.generator("published probe", name)
    width = posterior.mean.shape[1]
    weight, bias = (
        ((2 * torch.rand(shape, generator=generator) - 1) / width**0.5).double().numpy() for shape in ((10, width), 10)
    )
    parameters = [weight, bias]
    moments = [[np.zeros_like(each), np.zeros_like(each)] for each in parameters]
    step = 0
    for _ in range(passes):
        codes = of.model.sample_posterior(posterior, generator)
        order = torch.randperm(len(truth), generator=generator)
        for start in range(0, len(order), harness.BATCH):
            rows, step = order[start : start + harness.BATCH], step + 1
            x, y = codes[rows].double().numpy(), np.eye(10)[truth[rows].numpy()]
            logits = x @ weight.T + bias
            p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            for value, gradient, (m, v) in zip(
                parameters, [(p - y).T @ x / len(x), (p - y).mean(axis=0)], moments, strict=True
            ):
                m += 0.1 * (gradient - m)
                v += 0.001 * (gradient**2 - v)
                value -= 1e-3 * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    return weight, bias


@torch.no_grad()
@pytest.mark.parametrize("name", [SMALL, "mmvae+mnist.widths=[4]+svhn.widths=[2,2]"])
def test_the_probe_is_a_layer_that_adam_trains_on_drawn_codes(name, monkeypatch):
    monkeypatch.setattr(harness, "BATCH", 32)
    of = context(name, seed=3)
    found = harness.probe(of, passes=4)
    assert found == harness.probe(of, passes=4) != harness.probe(context(name, seed=4), passes=4)
    pairs = tuple_indices({m: digits.labels for m, digits in TRAIN.items()}, harness.ROUNDS, 3)
    truth = TRAIN["mnist"].labels[pairs["mnist"].long()]
    judged = {m: ({m: torch.arange(len(digits))}, digits.labels) for m, digits in JUDGED.items()}
    if joint := of.model.has_joint_code:
        index, labels = one_round(JUDGED, 3)
        judged["joint"] = index, torch.from_numpy(labels)
    assert found.keys() == judged.keys()
    for m, (index, labels) in judged.items():
        asked = of, *(("joint", pairs) if joint else (m, {m: pairs[m]})), truth, 4
        weight, bias = by_hand(*asked)
        layer = harness._trained(*asked)
        np.testing.assert_allclose(layer.weight.detach(), weight, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(layer.bias.detach(), bias, rtol=1e-3, atol=1e-5)
        generator = of.generator("published probe", m, "judged")
        codes = of.model.sample_posterior(harness._posteriors(of, JUDGED, index), generator).double().numpy()
        right = (codes @ weight.T + bias).argmax(axis=1) == labels.numpy()
        assert (found[m]["accuracy"], found[m]["n"]) == (right.mean(), len(labels))


def test_the_recipe_is_that_of_the_code_that_the_paper_names():
    """Thirty epochs of thirty rounds in batches of 256, by Adam at 0.001; the judges of three seeds."""
    assert (harness.ROUNDS * harness.PASSES, harness.BATCH, harness.RATE) == (30 * 30, 256, 1e-3)
    assert harness.ROUNDS == 3
    assert harness.SEEDS == (0, 1, 2)


def test_the_layer_learns_what_can_be_learned(monkeypatch):
    """Codes of one digit are its one-hot vector, with little noise: a layer that is trained reads all of them."""
    monkeypatch.setattr(harness, "RATE", 0.05)
    of = context()
    ten = lambda digits: torch.nn.functional.one_hot(digits, 20).float()  # noqa: E731
    flat = {name: {d.batch()[i].sum().item(): int(d.labels[i]) for i in range(len(d))} for name, d in JUDGED.items()}
    for name, digits in TRAIN.items():
        flat[name] |= {digits.batch()[i].sum().item(): int(digits.labels[i]) for i in range(len(digits))}

    def encode(images):
        name, value = next(iter(images.items()))
        digits = torch.tensor([flat[name][each.sum().item()] for each in value])
        return DiagonalGaussian(ten(digits), torch.full((len(digits), 20), -6.0))

    monkeypatch.setattr(of.model, "encode_shared", encode)
    assert [each["accuracy"] for each in harness.probe(of, passes=60).values()] == [1.0, 1.0, 1.0]


def test_what_needs_judges_is_measured_only_where_there_are_some():
    assert harness.metrics({}, 1).keys() == {"published_probe"}
    assert harness.metrics({0: {}}, 1).keys() == {"published_judges", "published_probe"}
