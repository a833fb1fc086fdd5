"""What is measured of a trained model: Table 1, Table 2, coherence and leakage, and all of `diagnosis` beside them.

Everything is a function of a model, digits and a generator, so that a validation part can be judged like the test set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from qmvae_core import diagnosis
from qmvae_core.data import Digits, tuple_indices
from qmvae_core.diagnosis import BATCH, share
from qmvae_core.draws import generator_for
from qmvae_core.gaussians import DiagonalGaussian
from qmvae_core.models import TEST_CODES
from qmvae_core.oracles import DigitClassifier


@torch.no_grad()
def cross_generated(
    model: nn.Module,
    source: str,
    digits: Digits,
    target: str,
    generator: torch.Generator,
    code: str = "mean",
) -> Tensor:
    """An image of the target for each of the source's digits: (n, c, h, w) in [0, 1].

    code: z is the "mean" of q(z|x) or a "sample" from it; h is drawn from its prior.
    """
    parts = _all_rows(digits).split(BATCH)
    return torch.cat([model.cross_generate(source, digits.batch(i), target, generator, code) for i in parts])


def confusion(labels: Tensor, predicted: Tensor) -> list[list[int]]:
    """Counts (10, 10): row the digit of the condition, column the digit that the oracle reads."""
    flat = torch.bincount(labels.cpu() * 10 + predicted.cpu(), minlength=100)
    return flat.reshape(10, 10).tolist()


@torch.no_grad()
def shared_codes(model: nn.Module, digits: Mapping[str, Digits], index: Mapping[str, Tensor]) -> np.ndarray:
    """The means of q(z | the given modalities): (n, shared) for index tensors (n,) into each modality's digits."""
    return torch.cat([posterior.mean.cpu() for posterior in _shared_posteriors(model, digits, index)]).numpy()


def _shared_posteriors(
    model: nn.Module, digits: Mapping[str, Digits], index: Mapping[str, Tensor]
) -> Iterator[DiagonalGaussian]:
    parts = zip(*(rows.split(BATCH) for rows in index.values()), strict=True)
    for part in parts:
        yield model.encode_shared({name: digits[name].batch(i.long()) for name, i in zip(index, part, strict=True)})


@torch.no_grad()
def private_codes(model: nn.Module, modality: str, digits: Digits) -> np.ndarray:
    """The means of q(h|x) of all digits of a modality: (n, private)."""
    parts = _all_rows(digits).split(BATCH)
    return torch.cat([model.encode_private(modality, digits.batch(i)).mean.cpu() for i in parts]).numpy()


def linear_probe(codes: np.ndarray, labels: np.ndarray):
    """One linear classifier, Table 2's: multinomial logistic regression on the codes as they are."""
    return LogisticRegression(max_iter=1000).fit(codes, labels)


def nonlinear_probe(codes: np.ndarray, labels: np.ndarray, seed: int):
    """A small network (one hidden layer of 64) on standardised codes, stopped on a tenth of its training part."""
    network = MLPClassifier((64,), early_stopping=True, n_iter_no_change=5, max_iter=1000, random_state=seed % 2**32)
    return make_pipeline(StandardScaler(), network).fit(codes, labels)


def _all_rows(digits: Digits) -> Tensor:
    return torch.arange(len(digits), device=digits.labels.device)


def probe_accuracies(
    model: nn.Module, train: Mapping[str, Digits], judged: Mapping[str, Digits], seed: int = 0, probe=None
) -> dict[str, dict]:
    """Table 2: one linear classifier, trained on joint codes, applied to each modality's codes and to joint codes.

    It is trained on one round of the pairing, in which each paired training image occurs once, and applied to every
    judged image of each modality and to one round of pairs of judged images. A model without a joint code has it
    trained on the codes of the same images, each modality's on its own and all of them together, and has no entry
    "joint". probe: that classifier, where it is there already.
    """
    probe = probe or _table2_probe(model, train, seed)
    found = {}
    for name, digits in judged.items():
        predicted = probe.predict(shared_codes(model, judged, {name: _all_rows(digits)}))
        found[name] = share(predicted == digits.labels.cpu().numpy())
    if not model.has_joint_code:
        return found
    pairs, truth = _one_round(judged, seed)
    found["joint"] = share(probe.predict(shared_codes(model, judged, pairs)) == truth)
    return found


@torch.no_grad()
def joint_code(
    model: nn.Module, train: Mapping[str, Digits], judged: Mapping[str, Digits], seed: int = 0, probe=None
) -> dict[str, dict]:
    """Whom the joint code follows where the codes of a pair disagree, by the probe of Table 2: "train" and "judged".

    On one round of pairs of each: the accuracy on their "joint" codes and on the codes of each modality "alone"; the
    accuracy on the joint codes of those pairs where one modality "only" is read rightly by its own code; and the
    median "precision" of q(z|x), over images and dimensions. Without joint codes there is nothing: {}.
    probe: as of `probe_accuracies`.
    """
    if not model.has_joint_code:
        return {}
    probe = probe or _table2_probe(model, train, seed)
    found = {}
    for split, digits in (("train", train), ("judged", judged)):
        pairs, truth = _one_round(digits, seed)
        joint = probe.predict(shared_codes(model, digits, pairs)) == truth
        right, precision = {}, {}
        for name, index in pairs.items():
            posteriors = list(_shared_posteriors(model, digits, {name: index}))
            right[name] = probe.predict(torch.cat([p.mean.cpu() for p in posteriors]).numpy()) == truth
            precision[name] = float(np.median(torch.cat([(-p.log_var).exp().cpu() for p in posteriors]).numpy()))
        only = {name: hits & (sum(right.values()) == 1) for name, hits in right.items()}
        found[split] = {
            "joint": share(joint),
            "alone": {name: share(hits) for name, hits in right.items()},
            "only": {name: share(joint[where]) for name, where in only.items() if where.any()},
            "precision": precision,
        }
    return found


def _table2_probe(model: nn.Module, train: Mapping[str, Digits], seed: int):
    pairs, truth = _one_round(train, seed)
    given = [pairs] if model.has_joint_code else [{name: index} for name, index in pairs.items()]
    codes = np.concatenate([shared_codes(model, train, index) for index in given])
    return linear_probe(codes, np.tile(truth, len(given)))


def _one_round(digits: Mapping[str, Digits], seed: int) -> tuple[dict[str, Tensor], np.ndarray]:
    """One round of the pairing, in which each paired image occurs once, and the digits of the pairs."""
    pairs = tuple_indices({name: each.labels for name, each in digits.items()}, rounds=1, seed=seed)
    first = next(iter(pairs))
    return pairs, digits[first].labels[pairs[first].long()].cpu().numpy()


def leakage(
    model: nn.Module, train: Mapping[str, Digits], judged: Mapping[str, Digits], seed: int = 0, limit: int = 20_000
) -> dict[str, dict]:
    """How well the digit can be read from each private code, by a linear and by a small non-linear probe.

    A tenth is chance: nothing leaks. The probes see the first `limit` training images of each modality. A modality
    without a private code has no entry.
    """
    found = {}
    for name, digits in judged.items():
        known = train[name].select(slice(0, limit))
        codes, labels = private_codes(model, name, known), known.labels.cpu().numpy()
        if not codes.shape[1]:
            continue
        test_codes, truth = private_codes(model, name, digits), digits.labels.cpu().numpy()
        found[name] = {
            "linear": share(linear_probe(codes, labels).predict(test_codes) == truth),
            "nonlinear": share(nonlinear_probe(codes, labels, seed).predict(test_codes) == truth),
        }
    return found


@torch.no_grad()
def joint_coherence(
    model: nn.Module, oracles: Mapping[str, DigitClassifier], generator: torch.Generator, count: int
) -> dict[str, float | int]:
    """How often all oracles read one digit in `count` images generated together from the prior."""
    agree = []
    for start in range(0, count, BATCH):
        images = model.generate(min(BATCH, count - start), generator)
        read = torch.stack([oracles[name].predict(value) for name, value in images.items()])
        agree.append((read == read[0]).all(dim=0).cpu())
    return share(torch.cat(agree))


@torch.no_grad()
def at_a_glance(
    model: nn.Module,
    train: Mapping[str, Digits],
    judged: Mapping[str, Digits],
    oracles: Mapping[str, DigitClassifier],
    seed: int = 0,
    known: int = 5000,
    limit: int = 2000,
) -> dict[str, float]:
    """Tables 1 and 2 in short, for the history of a training: shares in [0, 1] under names that begin with "accuracy/".

    Always the first `limit` judged images of each modality, z by its mean, and a probe that was fitted on the first
    `known` training images.
    """
    few = {name: digits.select(slice(limit)) for name, digits in judged.items()}
    found = {}
    for source, target in permutations(judged, 2):
        direction = f"{source}->{target}"
        images = cross_generated(model, source, few[source], target, generator_for(seed, "glance", direction))
        found[f"accuracy/{direction}"] = (oracles[target].predict(images) == few[source].labels).float().mean().item()
    probed = probe_accuracies(model, {name: digits.select(slice(known)) for name, digits in train.items()}, few, seed)
    return found | {f"accuracy/probe {name}": share["accuracy"] for name, share in probed.items()}


def evaluate(
    model: nn.Module,
    train: Mapping[str, Digits],
    judged: Mapping[str, Digits],
    oracles: Mapping[str, DigitClassifier],
    seed: int = 0,
) -> dict[str, dict]:
    """All numbers of a run: cross generation, probe, joint coherence, leakage, the judges' own accuracy, and diagnosis.

    judged: the test digits, or a validation part when a choice is to be made. model, digits and oracles on one device.
    Accuracies are shares in [0, 1] with n and a 95 % interval (`share`). Fréchet distances are those of all judged
    images to images from the "prior" and to the cross-generated ones of the config's test code, and between the halves
    of the "real" images. What is said of private codes has entries for modalities that have one.
    Raises ValueError if an oracle is missing.
    """
    missing = sorted(set(judged) - set(oracles))
    if missing:
        raise ValueError(f"no oracle for the modalities {missing}; there are {sorted(oracles)}")
    model.eval()
    real = {name: diagnosis.features_of(oracles[name], digits) for name, digits in judged.items()}
    distances = {
        "real": {name: diagnosis.frechet_of_halves(features) for name, features in real.items()},
        "prior": diagnosis.frechet_from_prior(model, oracles, real, generator_for(seed, "frechet")),
        "cross_generation": {},
    }
    cross, tables = {}, {}
    directions = {f"{source}->{target}": (source, target) for source, target in permutations(judged, 2)}
    for direction, (source, target) in directions.items():
        digits = judged[source]
        cross[direction] = {}
        for code in TEST_CODES:
            generator = generator_for(seed, "cross", direction, code)
            images = cross_generated(model, source, digits, target, generator, code)
            read = oracles[target].predict(images)
            cross[direction][code] = share(read == digits.labels)
            if code == model.config.test_code:
                tables[direction] = confusion(digits.labels, read)
                features = oracles[target].features(images).cpu().numpy()
                distances["cross_generation"][direction] = diagnosis.frechet(features, real[target])
    private = [name for name in judged if model.config.modalities[name].private]
    probe = _table2_probe(model, train, seed)
    return {
        "cross_generation": cross,
        "confusion": tables,
        "probe": probe_accuracies(model, train, judged, seed, probe),
        "joint_code": joint_code(model, train, judged, seed, probe),
        "joint_coherence": joint_coherence(
            model, oracles, generator_for(seed, "coherence"), count=max(map(len, judged.values()))
        ),
        "leakage": leakage(model, train, judged, seed),
        "oracle": {name: oracles[name].accuracy(judged[name]) for name in judged},
        "frechet": distances,
        "diversity": {
            direction: diagnosis.diversity(model, oracles[t], s, judged, generator_for(seed, "diversity", direction))
            for direction, (s, t) in directions.items()
        },
        "code_swaps": {
            direction: diagnosis.code_swaps(model, oracles[t], s, judged, generator_for(seed, "swaps", direction))
            for direction, (s, t) in directions.items()
            if t in private
        },
        "private_information": {
            name: {
                "nats": diagnosis.private_information(
                    model, name, judged[name], generator_for(seed, "information", name)
                ).tolist(),
                "n": min(diagnosis.LIMIT, len(judged[name])),
            }
            for name in private
        },
    }
