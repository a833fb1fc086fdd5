"""What is measured of a trained model: cross generation, a linear probe and joint coherence.

A metric is a function of a Context, and stands in METRICS under a name. A validation part can be judged like the test
set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Protocol

import numpy as np
import torch
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from qmvae_core.data import Digits, most_classes, tuple_indices
from qmvae_core.draws import generator_for
from qmvae_core.gaussians import DiagonalGaussian
from qmvae_core.models import TEST_CODES, MultimodalVAE

BATCH = 1000


def share(hits: np.ndarray | Tensor) -> dict[str, float | int]:
    """The share of hits with n and its 95 % Wilson interval, which holds for the images judged, not for the seeds."""
    count, hit = len(hits), int(hits.sum())
    interval = binomtest(hit, count).proportion_ci(method="wilson")
    return {"accuracy": hit / count, "n": count, "low": float(interval.low), "high": float(interval.high)}


class Judge(Protocol):
    """Reads the digit in generated observations of its modality, (n, *shape) in [0, 1], always in evaluation mode.

    One that may see no digit says -1, which is never right and agrees with no other judge.
    """

    modality: str

    def predict(self, images: Tensor) -> Tensor:
        """(n,) int64."""

    def features(self, images: Tensor) -> Tensor:
        """(n, features): what images are compared by."""

    def accuracy(self, digits: Digits) -> float:
        """The share of real digits that it reads as labelled."""


@dataclass(frozen=True)
class Context:
    """What a metric is a function of; it keeps what several metrics need. All on one device.

    judged: the test digits, or a validation part when a choice is to be made. judges: one for each of its modalities.
    Accuracies are shares in [0, 1] with n and a 95 % interval (`share`).
    Raises ValueError if a judge is missing.
    """

    model: MultimodalVAE
    train: Mapping[str, Digits]
    judged: Mapping[str, Digits]
    judges: Mapping[str, Judge]
    seed: int = 0

    def __post_init__(self):
        missing = sorted(set(self.judged) - set(self.judges))
        if missing:
            raise ValueError(f"no judge for the modalities {missing}; there are {sorted(self.judges)}")

    @cached_property
    def directions(self) -> dict[str, tuple[str, str]]:
        """ "source->target" -> (source, target)."""
        return {f"{source}->{target}": (source, target) for source, target in permutations(self.judged, 2)}

    @cached_property
    def private(self) -> list[str]:
        """The modalities that have a private code."""
        return [name for name in self.judged if self.model.config.modalities[name].private]

    @cached_property
    def probe(self) -> LogisticRegression:
        """The classifier of Table 2."""
        pairs, truth = one_round(self.train, self.seed)
        given = [pairs] if self.model.has_joint_code else [{name: index} for name, index in pairs.items()]
        codes = np.concatenate([shared_codes(self.model, self.train, index) for index in given])
        return linear_probe(codes, np.tile(truth, len(given)))

    @cached_property
    def crossed(self) -> dict[str, dict[str, tuple[Tensor, np.ndarray]]]:
        """Direction -> test code -> what the target's judge sees in an image generated from each judged source image.

        That is the digit that it reads, (n,), and its features, (n, features).
        """
        found = {}
        for direction, (source, target) in self.directions.items():
            found[direction] = {}
            for code in TEST_CODES:
                generator, judge = self.generator("cross", direction, code), self.judges[target]
                images = cross_generated(self.model, source, self.judged[source], target, generator, code)
                found[direction][code] = judge.predict(images), judge.features(images).cpu().numpy()
        return found

    def generator(self, *parts: str) -> torch.Generator:
        """The draws of one metric."""
        return generator_for(self.seed, *parts)


@torch.no_grad()
def cross_generated(
    model: nn.Module, source: str, digits: Digits, target: str, generator: torch.Generator, code: str = "mean"
) -> Tensor:
    """An image of the target for each of the source's digits: (n, c, h, w) in [0, 1].

    code: z is the "mean" of q(z|x) or a "sample" from it; h is drawn from its prior.
    """
    parts = all_rows(digits).split(BATCH)
    return torch.cat([model.cross_generate(source, digits.batch(i), target, generator, code) for i in parts])


@torch.no_grad()
def shared_codes(model: nn.Module, digits: Mapping[str, Digits], index: Mapping[str, Tensor]) -> np.ndarray:
    """The means of q(z | the given modalities): (n, shared) for index tensors (n,) into each modality's digits."""
    return torch.cat([posterior.mean.cpu() for posterior in shared_posteriors(model, digits, index)]).numpy()


def shared_posteriors(
    model: nn.Module, digits: Mapping[str, Digits], index: Mapping[str, Tensor]
) -> Iterator[DiagonalGaussian]:
    """q(z | the given modalities) in batches: index tensors (n,) into each modality's digits."""
    parts = zip(*(rows.split(BATCH) for rows in index.values()), strict=True)
    for part in parts:
        yield model.encode_shared({name: digits[name].batch(i.long()) for name, i in zip(index, part, strict=True)})


def linear_probe(codes: np.ndarray, labels: np.ndarray):
    """One linear classifier, Table 2's: multinomial logistic regression on the codes as they are."""
    return LogisticRegression(max_iter=1000).fit(codes, labels)


def all_rows(digits: Digits) -> Tensor:
    """The places of all digits, on their device: (n,)."""
    return torch.arange(len(digits), device=digits.labels.device)


def probe_accuracies(of: Context) -> dict[str, dict]:
    """Table 2: one linear classifier, trained on joint codes, applied to each modality's codes and to joint codes.

    It is trained on one round of the pairing, in which each paired training image occurs once, and applied to every
    judged image of each modality and to one round of pairs of judged images. A model without a joint code has it
    trained on the codes of the same images, each modality's on its own and all of them together, and has no entry
    "joint".
    """
    found = {}
    for name, digits in of.judged.items():
        predicted = of.probe.predict(shared_codes(of.model, of.judged, {name: all_rows(digits)}))
        found[name] = share(predicted == digits.labels.cpu().numpy())
    if of.model.has_joint_code:
        pairs, truth = one_round(of.judged, of.seed)
        found["joint"] = share(of.probe.predict(shared_codes(of.model, of.judged, pairs)) == truth)
    return found


def one_round(digits: Mapping[str, Digits], seed: int) -> tuple[dict[str, Tensor], np.ndarray]:
    """One round of the pairing, in which each paired image occurs once, and the digits of the pairs."""
    pairs = tuple_indices({name: each.labels for name, each in digits.items()}, 1, seed, most_classes(digits))
    first = next(iter(pairs))
    return pairs, digits[first].labels[pairs[first].long()].cpu().numpy()


@torch.no_grad()
def joint_coherence(of: Context, count: int | None = None) -> dict[str, float | int]:
    """How often all judges read one digit in images generated together from the prior.

    count: of images; None: as many as there are judged images of one modality, at most.
    """
    count, generator = count or max(map(len, of.judged.values())), of.generator("coherence")
    agree = []
    for start in range(0, count, BATCH):
        images = of.model.generate(min(BATCH, count - start), generator)
        read = torch.stack([of.judges[name].predict(value) for name, value in images.items()])
        agree.append(((read == read[0]) & (read >= 0)).all(dim=0).cpu())
    return share(torch.cat(agree))


def cross_generation(of: Context) -> dict[str, dict]:
    """Table 1: direction -> test code -> the share of generated images in which the judge reads the condition's digit.

    z is the "mean" of q(z|x) or a "sample" from it.
    """
    return {
        direction: {
            code: share(read == of.judged[of.directions[direction][0]].labels) for code, (read, _) in by_code.items()
        }
        for direction, by_code in of.crossed.items()
    }


def own_accuracy(of: Context) -> dict[str, float]:
    """Modality -> the share of real judged images that its judge reads as labelled."""
    return {name: of.judges[name].accuracy(digits) for name, digits in of.judged.items()}


METRICS: dict[str, Callable[[Context], dict]] = {
    "cross_generation": cross_generation,
    "probe": probe_accuracies,
    "joint_coherence": joint_coherence,
    "oracle": own_accuracy,
}


@torch.no_grad()
def evaluate(
    model: MultimodalVAE,
    train: Mapping[str, Digits],
    judged: Mapping[str, Digits],
    judges: Mapping[str, Judge],
    seed: int = 0,
    metrics: Mapping[str, Callable[[Context], dict]] = METRICS,
) -> dict[str, dict]:
    """The metrics, by name, measured on the model in evaluation mode; arguments and errors are a Context's."""
    of = Context(model.eval(), train, judged, judges, seed)
    return {name: metric(of) for name, metric in metrics.items()}
