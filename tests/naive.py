"""Oracles of the models: their equations sample by sample, with plain numbers; only the networks are the model's."""

import math
from collections.abc import Iterable

import pytest
import torch

from qmvae_core.gaussians import DiagonalGaussian
from qmvae_core.losses import LossTerms
from qmvae_core.models import MultimodalVAE

Moments = list[tuple[float, float]]  # mean and variance in each dimension of a Gaussian


def product(experts: Iterable[DiagonalGaussian], i: int, prior: bool = False) -> Moments:
    """The product of the Gaussians of sample i, and of N(0, I) if `prior`."""
    found = []
    for each in zip(*(zip(q.mean[i].tolist(), q.log_var[i].tolist(), strict=True) for q in experts), strict=True):
        precisions = [math.exp(-log_var) for _, log_var in each]
        variance = 1 / (prior + sum(precisions))
        found.append((variance * sum(p * mean for p, (mean, _) in zip(precisions, each, strict=True)), variance))
    return found


def kl(gaussian: Moments, other: Moments | None = None) -> float:
    """KL from the Gaussian to the other, without one to N(0, I)."""
    other = other or [(0.0, 1.0)] * len(gaussian)
    pairs = zip(gaussian, other, strict=True)
    return sum(0.5 * (math.log(w / v) + (v + (m - n) ** 2) / w - 1) for (m, v), (n, w) in pairs)


def sample(gaussian: Moments, noise: torch.Tensor) -> list[float]:
    return [mean + math.sqrt(variance) * e for (mean, variance), e in zip(gaussian, noise.tolist(), strict=True)]


def likelihood(model: MultimodalVAE, name: str, code: list[float], image: torch.Tensor) -> float:
    """weight · ln p(image | code), pixel by pixel from the densities; code: shared and private together."""
    m, total = model.config.modalities[name], 0.0
    logits = model.decoders[name](torch.tensor([code], dtype=torch.float64))
    for logit, x in zip(logits.flatten().tolist(), image.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-logit))
        if m.likelihood == "laplace":
            total += math.log(math.exp(-abs(x - p) / m.scale) / (2 * m.scale))
        elif m.likelihood == "normal":
            total += math.log(math.exp(-((x - p) ** 2) / (2 * m.scale**2)) / math.sqrt(2 * math.pi * m.scale**2))
        else:
            total += x * math.log(p) + (1 - x) * math.log(1 - p)
    return m.weight * total


def assert_terms(result: LossTerms, expected: list[dict[str, float]], rel: float = 1e-9) -> None:
    """The objective, what opposes it, and every term; expected: of each sample, all of them by their names."""
    found = {"objective": result.objective, "opposing": result.opposing, **result.terms}
    found = {name: value.tolist() for name, value in found.items() if value is not None}
    assert found.keys() == expected[0].keys()
    for name, values in found.items():
        assert values == pytest.approx([each[name] for each in expected], rel=rel), name
