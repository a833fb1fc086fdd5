"""Likelihoods p(x | code): what the numbers that a decoder gives say of an observation. A new one is one class here.

Each sums over the dimensions of an observation, its last `dims`, and gives one value a sample, in nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from qmvae_core.names import known


@dataclass(frozen=True)
class Likelihood:
    """What all likelihoods have. scale: of the noise, if it has one. dims: of an observation, 3 for (c, h, w).

    A likelihood adds `log_prob`, and `mean` where that is not the sigmoid of the logits.
    Raises ValueError for a scale that is not positive.
    """

    scale: float | Tensor = 1.0
    dims: int = 3

    def __post_init__(self):
        if not isinstance(self.scale, Tensor) and not 0 < self.scale < math.inf:
            raise ValueError(f"the scale of a likelihood must be positive, got {self.scale}")

    def log_prob(self, logits: Tensor, x: Tensor) -> Tensor:
        """ln p(x | code) in nats: (...,), for broadcastable logits and observations (..., *shape)."""
        raise NotImplementedError

    def mean(self, logits: Tensor) -> Tensor:
        """The mean of x: (..., *shape), in [0, 1]."""
        return logits.sigmoid()

    def _sum(self, value: Tensor) -> Tensor:
        return value.sum(dim=tuple(range(-self.dims, 0)))

    def _size(self, x: Tensor) -> int:
        return math.prod(x.shape[-self.dims :])


class Bernoulli(Likelihood):
    """Each value is a probability of one, sigmoid(logits); it has no scale. For x in [0, 1]."""

    def log_prob(self, logits: Tensor, x: Tensor) -> Tensor:
        """Σ x ln p + (1 - x) ln (1 - p)."""
        logits, x = torch.broadcast_tensors(logits, x)  # the function below alone would refuse two shapes
        return -self._sum(F.binary_cross_entropy_with_logits(logits, x, reduction="none"))


# What is the same for every value is taken out of the sum: each pass over an image costs as much as a small network.


class Laplace(Likelihood):
    """Density exp(-|x - sigmoid(logits)| / scale) / (2 scale) of each value."""

    def log_prob(self, logits: Tensor, x: Tensor) -> Tensor:
        """-Σ |x - sigmoid(logits)| / scale - D ln (2 scale)."""
        return -self._sum((logits.sigmoid() - x).abs()) / self.scale - self._size(x) * math.log(2.0 * self.scale)


class Normal(Likelihood):
    """N(sigmoid(logits), scale²) of each value; the scale may be a tensor that is learned."""

    def log_prob(self, logits: Tensor, x: Tensor) -> Tensor:
        """-½ Σ (x - sigmoid(logits))² / scale² - D (ln scale + ½ ln 2π)."""
        error = self._sum((logits.sigmoid() - x).square())
        log_scale = self.scale.log() if isinstance(self.scale, Tensor) else math.log(self.scale)
        return -0.5 * error / self.scale**2 - self._size(x) * (log_scale + 0.5 * math.log(2.0 * math.pi))


class Categorical(Likelihood):
    """Classes along the last dimension with probabilities softmax(logits); x is one-hot. It has no scale."""

    def log_prob(self, logits: Tensor, x: Tensor) -> Tensor:
        """Σ x ln softmax(logits)."""
        return self._sum(x * logits.log_softmax(dim=-1))

    def mean(self, logits: Tensor) -> Tensor:
        """The probabilities of the classes."""
        return logits.softmax(dim=-1)


LIKELIHOODS: dict[str, type[Likelihood]] = {
    "bernoulli": Bernoulli, "laplace": Laplace, "normal": Normal, "categorical": Categorical,
}  # fmt: skip


def likelihood(kind: str, scale: float | Tensor = 1.0, dims: int = 3) -> Likelihood:
    """The likelihood of a kind, one of LIKELIHOODS. Raises ValueError for an unknown one, and like Likelihood."""
    return known(LIKELIHOODS, "likelihood", kind)(scale, dims)
