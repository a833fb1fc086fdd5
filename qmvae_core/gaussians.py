"""Diagonal Gaussians and their products: the posteriors and the prior of every model in the book."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class DiagonalGaussian(NamedTuple):
    """N(mean, diag(exp(log_var))) for a batch of parameters.

    mean, log_var: tensors (..., d) of one shape. It is a named tuple, so torch.func maps over it like over a tensor.
    """

    mean: Tensor
    log_var: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + exp(log_var / 2) * noise: the reparameterisation of a standard normal draw, (..., d)."""
        return self.mean + torch.exp(0.5 * self.log_var) * noise

    def kl_to_prior(self) -> Tensor:
        """KL divergence to N(0, I) in nats, summed over the d dimensions: (...,)."""
        return 0.5 * (self.mean.square() + self.log_var.exp() - 1.0 - self.log_var).sum(dim=-1)

    def kl_to(self, other: DiagonalGaussian) -> Tensor:
        """KL divergence from this Gaussian to another in nats, summed over the d dimensions: (...,).

        KL(self ‖ other) = E_self[ln self - ln other]; the shapes of the two broadcast.
        """
        log_ratio = self.log_var - other.log_var
        apart = (self.mean - other.mean) * torch.exp(-0.5 * other.log_var)
        return 0.5 * (apart.square() + log_ratio.exp() - 1.0 - log_ratio).sum(dim=-1)

    def where(self, there: Tensor, log_var: float) -> DiagonalGaussian:
        """The same where `there` (...,) is True; elsewhere N(0, exp(log_var) I).

        That is the prior for 0, and for infinity an expert of precision 0, which has no say in a product.
        """
        there = there.unsqueeze(-1)
        return DiagonalGaussian(torch.where(there, self.mean, 0.0), torch.where(there, self.log_var, log_var))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of value (..., d) in nats, summed over the d dimensions: (...,)."""
        scaled = (value - self.mean).square() * torch.exp(-self.log_var)
        return -0.5 * (scaled + self.log_var + math.log(2.0 * math.pi)).sum(dim=-1)


def product_of_experts(experts: Sequence[DiagonalGaussian], prior: bool = True) -> DiagonalGaussian:
    """The normalised product of Gaussian experts, equation (8) of the paper.

    The product of Gaussians is Gaussian: its precision is the sum of the experts' precisions, its mean the
    precision-weighted mean. With prior=True, N(0, I) is one more expert, as in q(z|x,y) ∝ p(z) q(z|x) q(z|y).

    experts: at least one DiagonalGaussian, all of one shape (..., d).
    Returns a DiagonalGaussian (..., d).
    Raises ValueError if there is no expert or if the shapes differ.
    """
    if not experts:
        raise ValueError("product_of_experts needs at least one expert, got none")
    shapes = [tuple(values.shape) for expert in experts for values in expert]
    if len(set(shapes)) > 1:
        raise ValueError(f"the experts of a product must have one shape, got {shapes}")
    means = [expert.mean for expert in experts]
    log_precisions = [-expert.log_var for expert in experts]
    if prior:
        means.append(torch.zeros_like(means[0]))
        log_precisions.append(torch.zeros_like(log_precisions[0]))
    stacked = torch.stack(log_precisions)
    # softmax and logsumexp stay finite where exp(-log_var) alone would overflow
    weights = torch.softmax(stacked, dim=0)
    return DiagonalGaussian((weights * torch.stack(means)).sum(dim=0), -torch.logsumexp(stacked, dim=0))


SMALLEST_SCALE = 1e-6  # keeps a scale away from zero


def softmax_scales(values: Tensor) -> Tensor:
    """Positive scales (..., d) with mean 1: a softmax over the d dimensions, times d, plus SMALLEST_SCALE.

    As MMVAE's published code has it: a posterior can be sure of one dimension only at the cost of another.
    """
    return torch.softmax(values, dim=-1) * values.shape[-1] + SMALLEST_SCALE
