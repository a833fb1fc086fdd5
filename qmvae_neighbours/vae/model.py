"""The variational auto-encoder and its nearest relatives: weighted (β-VAE), conditional, with full covariance.

Source of the formulas: Kingma and Welling 2014 (arXiv:1312.6114); of β: Higgins et al. 2017; of the condition: Sohn et
al. 2015. What is minimised is the free energy, minus the evidence lower bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qmvae_core import networks
from qmvae_core.gaussians import DiagonalGaussian
from qmvae_core.likelihoods import Bernoulli, Normal
from qmvae_core.losses import log_evidence

COVARIANCES = ("isotropic", "diagonal", "full")
NOISES = ("bernoulli", "normal", "learned", "network", "bits")
PART = 100  # images whose importance draws are decoded together


class CholeskyGaussian(NamedTuple):
    """N(mean, L Lᵀ): a Gaussian with full covariance by its Cholesky factor.

    mean: (..., d). factor: L (..., d, d), lower triangular with a positive diagonal.
    """

    mean: Tensor
    factor: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + L noise: the reparameterisation of a standard normal draw, (..., d)."""
        return self.mean + (self.factor @ noise.unsqueeze(-1)).squeeze(-1)

    def log_determinant(self) -> Tensor:
        """ln |det L|, half of that of the covariance: (...,)."""
        return self.factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)

    def kl_to_prior(self) -> Tensor:
        """KL divergence to N(0, I) in nats: ½ (tr(L Lᵀ) + |mean|² - d) - ln |det L|, (...,)."""
        trace = self.factor.square().sum(dim=(-2, -1))
        return 0.5 * (trace + self.mean.square().sum(dim=-1) - self.mean.shape[-1]) - self.log_determinant()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of value (..., d) in nats: that of the noise behind it, minus ln |det L|."""
        apart = (value - self.mean).unsqueeze(-1)
        factor = self.factor.expand(*apart.shape[:-2], *self.factor.shape[-2:])
        noise = torch.linalg.solve_triangular(factor, apart, upper=False).squeeze(-1)
        constant = 0.5 * value.shape[-1] * math.log(2.0 * math.pi)
        return -0.5 * noise.square().sum(dim=-1) - self.log_determinant() - constant


def standard_normal(like: Tensor) -> DiagonalGaussian:
    """N(0, I), the prior, in the shape of a tensor (..., d)."""
    return DiagonalGaussian(torch.zeros_like(like), torch.zeros_like(like))


@dataclass(frozen=True)
class VAEConfig:
    """One variational auto-encoder.

    covariance: of the posterior, one of COVARIANCES; "isotropic" has one variance for all dimensions. noise: the
    likelihood of an image, one of NOISES; "normal" has the standard deviation `scale`, "learned" one that is a
    parameter and starts there, "network" `scale` times a factor for each code by a network of its own; "bits" is
    "learned" given that each pixel is 0 or 1. beta: weight of the divergence. labels: classes that both networks are
    told of, 0 for none.
    """

    shape: tuple[int, int, int] = (1, 28, 28)
    widths: tuple[int, ...] = (400,)
    latent: int = 10
    covariance: str = "diagonal"
    noise: str = "bernoulli"
    scale: float = 1.0
    beta: float = 1.0
    labels: int = 0

    def __post_init__(self):
        for name, value, known in (("covariance", self.covariance, COVARIANCES), ("noise", self.noise, NOISES)):
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}; the known ones are {list(known)}")
        if self.scale <= 0 or self.beta < 0:
            raise ValueError(f"scale must be positive and beta not negative, got {self.scale} and {self.beta}")


class FreeEnergy(NamedTuple):
    """The parts of minus the bound, (batch,) nats each: total = -log_likelihood + beta * divergence."""

    total: Tensor
    log_likelihood: Tensor
    divergence: Tensor


class VAE(nn.Module):
    """Encoder, decoder and free energy of a VAEConfig.

    images: (batch, c, h, w) in [0, 1]; labels: (batch,) of integers, needed where the config has labels.
    """

    def __init__(self, config: VAEConfig, generator: torch.Generator):
        super().__init__()
        self.config = config
        d = config.latent
        outputs = d + {"isotropic": 1, "diagonal": d, "full": d * (d + 1) // 2}[config.covariance]
        body, features = networks.BODIES["dense"](config.shape, config.widths)
        self.body = body
        self.head = nn.Linear(features + config.labels, outputs)
        self.decoder = networks.decoder("dense", config.shape, config.widths, d + config.labels)
        if config.noise == "network":
            hidden = config.widths[-1]
            self.spread = nn.Sequential(nn.Linear(d + config.labels, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        networks.initialise(self, generator)
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.scale)), requires_grad=config.noise == "learned")

    def _told(self, value: Tensor, labels: Tensor | None) -> Tensor:
        """The value (..., d) with the labels as further dimensions, if the model has a condition."""
        if self.config.labels == 0:
            return value
        if labels is None:
            raise ValueError("a conditional model needs labels; pass labels=")
        told = F.one_hot(labels.long(), self.config.labels).to(value)
        return torch.cat([value, told.expand(*value.shape[:-1], -1)], dim=-1)

    def encode(self, images: Tensor, labels: Tensor | None = None) -> DiagonalGaussian | CholeskyGaussian:
        """q(z|x), or q(z|x, label): a posterior over (batch, latent)."""
        parameters = self.head(self._told(self.body(images), labels))
        d = self.config.latent
        mean, entries = parameters[..., :d], parameters[..., d:]
        if self.config.covariance != "full":
            return DiagonalGaussian(mean, entries.expand_as(mean))
        rows, columns = torch.tril_indices(d, d, device=images.device)
        entries = torch.where(rows == columns, F.softplus(entries + math.log(math.e - 1)), entries)
        factor = entries.new_zeros(*entries.shape[:-1], d, d)
        factor[..., rows, columns] = entries
        return CholeskyGaussian(mean, factor)

    def decode(self, codes: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits of the mean image: (..., c, h, w) for codes (..., latent)."""
        flat = self._told(codes, labels).flatten(0, -2)
        return self.decoder(flat).unflatten(0, codes.shape[:-1])

    def scale(self, codes: Tensor, labels: Tensor | None = None) -> Tensor:
        """Standard deviation of a pixel under normal noise: (), or (...,) by the network for codes (..., latent)."""
        by_code = self.spread(self._told(codes, labels)).squeeze(-1) if self.config.noise == "network" else 0.0
        return (self.log_scale + by_code).exp()

    def log_likelihood(self, codes: Tensor, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """ln p(x|z) in nats, summed over the pixels: (...,) for codes (..., latent).

        With noise "bits": N(1; m, s²) / (N(0; m, s²) + N(1; m, s²)) is the sigmoid of (m - ½) / s².
        """
        logits, kind = self.decode(codes, labels), self.config.noise
        if kind == "bernoulli":
            return Bernoulli().log_prob(logits, images)
        scale = self.scale(codes, labels)
        if kind == "bits":
            return Bernoulli().log_prob((logits.sigmoid() - 0.5) / scale.square(), images)
        return Normal(scale).log_prob(logits, images)

    def free_energy(self, images: Tensor, noise: Tensor, labels: Tensor | None = None) -> FreeEnergy:
        """Minus the evidence lower bound, its expectation by one reparameterised draw; noise: (batch, latent)."""
        posterior = self.encode(images, labels)
        likelihood = self.log_likelihood(posterior.sample(noise), images, labels)
        divergence = posterior.kl_to_prior()
        return FreeEnergy(self.config.beta * divergence - likelihood, likelihood, divergence)

    @torch.no_grad()
    def log_evidence(self, images: Tensor, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """ln p(x), or that given the label, by importance sampling from q(z|x), in nats: (batch,).

        noise: (K, batch, latent).
        """
        if len(images) > PART:
            parts = [slice(start, start + PART) for start in range(0, len(images), PART)]
            told = [None if labels is None else labels[part] for part in parts]
            return torch.cat([self.log_evidence(images[p], noise[:, p], t) for p, t in zip(parts, told, strict=True)])
        posterior = self.encode(images, labels)
        codes = posterior.sample(noise)
        joint = self.log_likelihood(codes, images, labels) + standard_normal(codes).log_prob(codes)
        return log_evidence(joint, posterior.log_prob(codes))
