"""What the tests of all models share: small configs, images and draws that are the same in every run, and oracles."""

import math
from collections.abc import Iterable

import pytest
import torch

from qmvae_core.gaussians import DiagonalGaussian
from qmvae_core.losses import LossTerms
from qmvae_core.models import ModelConfig, MultimodalVAE, build_model, draw_noise
from qmvae_core.training import fit

TWO, THREE = ("ink", "photo"), ("ink", "photo", "sketch")
LABELS = torch.tensor([3, 1, 1, 7])

# What `small_config` needs for each model.
SMALL = {
    "qmvae": {},
    "dmvae": {"discriminator": 6},
    **dict.fromkeys(("mvae", "mmvae", "mopoe", "jmvae"), {"of_all": {"private": 0}}),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def random_images(config: ModelConfig, batch: int = 4, dtype=torch.float64) -> dict[str, torch.Tensor]:
    draws = generator()
    return {
        name: torch.rand((batch, *m.shape), generator=draws, dtype=torch.float64).to(dtype)
        for name, m in config.modalities.items()
    }


def random_noise(model: MultimodalVAE, batch: int = 4, dtype=torch.float64, seed: int = 0) -> dict[str, torch.Tensor]:
    drawn = draw_noise(model.noise_spec(batch), generator(seed), "cpu")
    return {name: value.to(dtype) for name, value in drawn.items()}


def build(config: ModelConfig, dtype=torch.float64) -> MultimodalVAE:
    """A model of the config; MMVAE's prior is not the one that it starts with."""
    model = build_model(config, seed=0).to(dtype)
    if config.model == "mmvae":
        model.prior_scale.data = torch.linspace(-0.5, 0.7, config.shared, dtype=dtype)
    return model


def parameter_gradients(model: torch.nn.Module, value: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of every parameter by its name, zeros where the value does not depend on it."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


def assert_same_gradients(found: dict, expected: dict, rtol: float = 1e-10, atol: float = 1e-10) -> None:
    """Of the same parameters, and none of them zero."""
    assert set(found) == set(expected)
    for name, value in found.items():
        assert value.abs().max() > 0, name
        torch.testing.assert_close(value, expected[name], rtol=rtol, atol=atol, msg=lambda s, n=name: f"{n}: {s}")


# Oracles: the same equations sample by sample, with plain numbers; only the networks are the model's

Moments = list[tuple[float, float]]  # mean and variance in each dimension of a Gaussian


def naive_product(experts: Iterable[DiagonalGaussian], i: int, prior: bool = False) -> Moments:
    """The product of the Gaussians of sample i, and of N(0, I) if `prior`."""
    found = []
    for each in zip(*(zip(q.mean[i].tolist(), q.log_var[i].tolist(), strict=True) for q in experts), strict=True):
        precisions = [math.exp(-log_var) for _, log_var in each]
        variance = 1 / (prior + sum(precisions))
        found.append((variance * sum(p * mean for p, (mean, _) in zip(precisions, each, strict=True)), variance))
    return found


def naive_kl(gaussian: Moments, other: Moments | None = None) -> float:
    """KL from the Gaussian to the other, without one to N(0, I)."""
    other = other or [(0.0, 1.0)] * len(gaussian)
    pairs = zip(gaussian, other, strict=True)
    return sum(0.5 * (math.log(w / v) + (v + (m - n) ** 2) / w - 1) for (m, v), (n, w) in pairs)


def naive_sample(gaussian: Moments, noise: torch.Tensor) -> list[float]:
    return [mean + math.sqrt(variance) * e for (mean, variance), e in zip(gaussian, noise.tolist(), strict=True)]


def naive_likelihood(model: MultimodalVAE, name: str, code: list[float], image: torch.Tensor) -> float:
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


class Interruption(Exception):
    pass


def quiet(*arguments, **options):
    return fit(*arguments, **{"progress": "none", **options})


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in model.named_parameters()}


def same_bits(first, second) -> bool:
    first, second = weights(first), weights(second)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def assert_same_run(found, expected) -> None:
    """To the last bit."""
    assert found.histories == expected.histories
    assert all(map(same_bits, found.models, expected.models))
