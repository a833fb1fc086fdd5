"""MMVAE, a mixture of experts without private codes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from qmvae_core import losses
from qmvae_core.draws import NoiseSpec
from qmvae_core.gaussians import softmax_scales
from qmvae_core.models.base import MultimodalVAE
from qmvae_core.models.configs import ModelConfig


@dataclass(frozen=True)
class MMVAEConfig(ModelConfig, model="mmvae"):
    """MMVAE's own choice."""

    positive = ("shared", "particles")

    model: str = "mmvae"
    particles: int = 4  # K, codes drawn from each expert; the authors take 30 for MNIST and SVHN


class DiagonalLaplace(NamedTuple):
    """Independent Laplace densities exp(-|z - mean| / scale) / (2 scale) for a batch of parameters.

    mean, scale: tensors (..., d), broadcastable; the scale is positive.
    """

    mean: Tensor
    scale: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + scale * noise: the reparameterisation of a draw of the density exp(-|x|) / 2, (..., d)."""
        return self.mean + self.scale * noise

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of value (..., d) in nats, summed over the d dimensions: (...,)."""
        return -((value - self.mean).abs() / self.scale + torch.log(2.0 * self.scale)).sum(dim=-1)

    def detach(self) -> DiagonalLaplace:
        """The same densities, with parameters through which no gradient flows."""
        return DiagonalLaplace(self.mean.detach(), self.scale.detach())


class MMVAE(MultimodalVAE):
    """Shi, Siddharth, Paige and Torr 2019: q(z | x_1..x_M) = 1/M Σ_m q(z|x_m), and every code decodes every modality.

    The objective is the looser of the authors' importance-weighted bounds, for K particles z_k ~ q(z|x_r) of each r:

        1/M Σ_r E ln 1/K Σ_k w_k,    w_k = p(z_k) Π_m p(x_m|z_k)^weight_m / (1/M Σ_j q(z_k|x_j)).

    Its gradient is the doubly reparameterised one (Tucker et al. 2019): the densities q have no gradient by their
    parameters, and what flows into the code z_k is multiplied by w_k / Σ_k w_k once more. That has no bias for K = 1,
    nor where the experts agree; else a small one, since the particles are draws of one expert and not of the mixture.

    Posteriors and prior are Laplace densities. As the authors have it, a scale is a softmax over the d dimensions times
    d, so that the scales of a code have mean 1, and that of the prior is learned; its mean is 0. (They add 1e-6 to the
    posteriors' scales alone. In their code the second weight is attached to a copy of the codes that the loss does not
    pass through, so there it has no effect; here it has.)
    Raises ValueError for a modality with a private code, and like MultimodalVAE.
    """

    has_joint_code = has_private_codes = False

    def __init__(self, config: MMVAEConfig):
        super().__init__(config)
        self.prior_scale = nn.Parameter(torch.zeros(config.shared))  # before the softmax: zeros are scales of 1

    @property
    def prior(self) -> DiagonalLaplace:
        """p(z), with parameters (shared,)."""
        return DiagonalLaplace(torch.zeros_like(self.prior_scale), softmax_scales(self.prior_scale))

    def noise_spec(self, batch: int) -> dict[str, NoiseSpec]:
        """The draws that `loss` needs for a batch: K codes from the expert of each modality."""
        shape = (self.config.particles, batch, self.config.shared)
        return {f"{name}/shared": NoiseSpec("laplace", shape) for name in self.config.modalities}

    def loss(self, images: Mapping[str, Tensor], labels: Tensor, noise: Mapping[str, Tensor]) -> losses.LossTerms:
        """The bound, arguments and result as for Q-MVAE. The labels have a say in the pairing alone.

        Terms: "iwae/m", the bound by the particles of modality m, in nats; and "particles/m", how many of them count,
        1 / Σ_k (w_k / Σ w)², from 1 to K.
        """
        self.check(images, labels, noise)
        modalities, count = self.config.modalities, self.config.particles
        experts = [_laplace(*self.posteriors(name, images[name]).shared) for name in modalities]
        drawn = [q.sample(noise[f"{name}/shared"]) for name, q in zip(modalities, experts, strict=True)]
        codes, zeros = _WeightedAgain.apply(torch.stack(drawn, dim=1))  # (particles, M, batch, d)
        mixture = torch.stack([q.detach().log_prob(codes) for q in experts]).logsumexp(dim=0) - math.log(len(experts))
        log_weights = self.prior.log_prob(codes) - mixture + zeros
        for name in modalities:
            log_weights = log_weights + self.log_likelihood(name, images[name], codes)
        bounds = log_weights.logsumexp(dim=0) - math.log(count)  # (M, batch)
        effective = 1.0 / log_weights.detach().softmax(dim=0).square().sum(dim=0)
        terms = {f"iwae/{name}": bound for name, bound in zip(modalities, bounds, strict=True)}
        terms |= {f"particles/{name}": value for name, value in zip(modalities, effective, strict=True)}
        return losses.LossTerms(bounds.mean(dim=0), terms)

    def encode_shared(self, images: Mapping[str, Tensor]) -> DiagonalLaplace:
        """q(z|x_m) of one modality: (batch, shared).

        Raises ValueError for several modalities, and like MultimodalVAE's.
        """
        if len(images) > 1:
            raise ValueError(f"a mixture of experts has no joint code: encode one modality, not {sorted(images)}")
        return _laplace(*super().encode_shared(images))

    def sample_shared(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """`count` draws of z from its learned prior: (count, shared), on the device of the model."""
        return self.prior.sample(self._draw((count, self.config.shared), generator, "laplace"))

    def sample_posterior(self, posterior: DiagonalLaplace, generator: torch.Generator | None = None) -> Tensor:
        """One draw from each posterior: (batch, shared)."""
        return posterior.sample(self._draw(posterior.mean.shape, generator, "laplace"))


def _laplace(mean: Tensor, values: Tensor) -> DiagonalLaplace:
    """The two outputs of an encoder, read as MMVAE reads them."""
    return DiagonalLaplace(mean, softmax_scales(values))


class _WeightedAgain(torch.autograd.Function):
    """Codes (particles, ..., d) as they are, and zeros (particles, ...) to be added to the logarithms of their weights.

    The gradient that reaches the zero of particle k is w_k / Σ w times what is common to all particles of a sample: so
    the backward pass knows the weights by which the gradient of the codes is to be multiplied once more. A hook on the
    codes would do the same, but hooks cannot be mapped over by torch.func.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(codes: Tensor) -> tuple[Tensor, Tensor]:
        return codes.clone(), torch.zeros_like(codes[..., 0])

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        """Nothing is kept for the backward pass."""

    @staticmethod
    def backward(ctx, for_codes: Tensor, for_zeros: Tensor) -> Tensor:
        common = for_zeros.sum(dim=0, keepdim=True)
        weights = for_zeros / torch.where(common == 0, 1.0, common)  # of a sample without gradient: zeros
        return for_codes * weights.unsqueeze(-1)
