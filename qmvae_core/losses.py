"""The paper's equations as pure functions: sums over dimensions, one value per sample, no mean over the batch.

The mean over the batch is taken once, in `LossTerms.loss`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from qmvae_core.gaussians import DiagonalGaussian


class LossTerms(NamedTuple):
    """What a model's loss returns: the objective of each sample and the named terms that make it up.

    objective: (batch,) nats, to be maximised by the model.
    terms: name -> (batch,), for the history and for the message when one is not finite; units: `names.unit_of`.
    opposing: (batch,), what the model's opponent maximises in the same step (a discriminator, say), or None.
    """

    objective: Tensor
    terms: dict[str, Tensor]
    opposing: Tensor | None = None

    @property
    def loss(self) -> Tensor:
        """What the optimiser minimises: minus the mean of the objective over the batch."""
        return -self.objective.mean()


def log_joint(log_likelihoods: Mapping[str, Tensor], codes: Sequence[Tensor]) -> Tensor:
    """Equations (3), (9) and (10): ln p of the given modalities and of their codes, in nats.

    Σ_m ln p(x_m | z, h_m) + Σ ln p(code), with p(code) = N(0, I). log_likelihoods: (...) for each modality that is
    there; codes: z and the private codes of those modalities, (..., d) each. Returns (...).
    """
    return sum(log_likelihoods.values()) + sum(
        DiagonalGaussian(torch.zeros_like(code), torch.zeros_like(code)).log_prob(code) for code in codes
    )


def log_posterior(posteriors: Sequence[DiagonalGaussian], codes: Sequence[Tensor]) -> Tensor:
    """Equations (6), (15) and (16): ln q of codes that are independent given the images, in nats.

    For example ln q(z|x,y) + ln q(h_x|x) + ln q(h_y|y). codes: (..., d), one for each posterior. Returns (...).
    """
    return sum(posterior.log_prob(code) for posterior, code in zip(posteriors, codes, strict=True))


def log_evidence(log_joint: Tensor, log_posterior: Tensor) -> Tensor:
    """Equations (1), (4), (11) and (12): the integral over the codes by importance sampling, in nats.

    ln of the mean over K draws from q of p(images, codes) / q(codes | images). Its expectation is a lower bound that
    rises with K to ln p(images); for K = 1 it is the evidence lower bound. log_joint, log_posterior: (K, ...) at the
    draws. Returns (...).
    """
    return torch.logsumexp(log_joint - log_posterior, dim=0) - math.log(len(log_joint))


def elbo(log_likelihood: Tensor, posterior: DiagonalGaussian, kl_weight: float = 1.0) -> Tensor:
    """Equation (2): E_q[ln p(x|z)] - w KL(q(z|x) ‖ p(z)), the expectation by the given draw, w = 1 in the paper.

    log_likelihood: (batch,) nats at a sample of the posterior. Returns (batch,) nats.
    """
    return log_likelihood - kl_weight * posterior.kl_to_prior()


def joint_elbo(
    log_likelihoods: Mapping[str, Tensor],
    shared: DiagonalGaussian,
    private: Mapping[str, DiagonalGaussian],
    private_kl_weights: Mapping[str, float] | None = None,
    shared_kl_weight: float = 1.0,
) -> Tensor:
    """Equation (7), the bound of (5): the evidence lower bound of all modalities together, (batch,) nats.

    Σ_m E[ln p(x_m | z, h_m)] - w KL(q(z | x_1..x_M) ‖ p(z)) - Σ_m w_m KL(q(h_m | x_m) ‖ p(h_m)), weights 1 in print.
    shared: the product of experts of equation (8). log_likelihoods and private: one entry a modality.
    """
    weights = private_kl_weights or {}
    value = -shared_kl_weight * shared.kl_to_prior()
    for name, likelihood in log_likelihoods.items():
        value = value + likelihood - weights.get(name, 1.0) * private[name].kl_to_prior()
    return value


def unimodal_elbo(
    log_likelihood: Tensor,
    shared: DiagonalGaussian,
    private: DiagonalGaussian,
    private_kl_weight: float = 1.0,
    shared_kl_weight: float = 1.0,
) -> Tensor:
    """Equations (17) and (18), the bounds of (13) and (14): the evidence lower bound of one modality, (batch,) nats.

    E[ln p(x | z, h)] - w KL(q(z|x) ‖ p(z)) - w' KL(q(h|x) ‖ p(h)), weights 1 in print; z from this modality's own code.
    """
    return elbo(log_likelihood, shared, shared_kl_weight) - private_kl_weight * private.kl_to_prior()


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distance over the last dimension, with the gradient zero (not undefined) where a equals b."""
    squared = (a - b).square().sum(dim=-1)
    apart = squared > 0
    return torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)


def quadruplet_loss(
    mu_x: Tensor,
    mu_y: Tensor,
    mu_x_neg: Tensor,
    mu_y_neg: Tensor,
    alpha1: float = 2.0,
    alpha2: float = 0.8,
    keep_third: Tensor | None = None,
) -> Tensor:
    """Equation (19): the quadruplet metric loss of each (x, y, x₋, y₋), not averaged.

    max{d(μx, μy) − d(μx, μy₋) + α1, 0} + max{d(μx, μy) − d(μx₋, μy) + α1, 0} + max{d(μx, μy) − d(μx₋, μy₋) + α2, 0}
    with d the Euclidean distance and the μ the means of the shared posteriors.

    mu_*: (..., batch, d), broadcastable against one another. keep_third: optional (..., batch) booleans; where
    False the third term is left out (for negatives of one digit, an open point of the paper). Returns (..., batch).
    Raises ValueError if the last dimensions differ or if a margin is negative.
    """
    sizes = {name: value.shape[-1] for name, value in zip(QUADRUPLET, (mu_x, mu_y, mu_x_neg, mu_y_neg), strict=True)}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"the four codes of a quadruplet must have one number of dimensions, got {sizes}")
    if not (alpha1 >= 0 and alpha2 >= 0):
        raise ValueError(f"the margins must not be negative, got alpha1={alpha1}, alpha2={alpha2}")
    positive = distance(mu_x, mu_y)
    first = F.relu(positive - distance(mu_x, mu_y_neg) + alpha1)
    second = F.relu(positive - distance(mu_x_neg, mu_y) + alpha1)
    third = F.relu(positive - distance(mu_x_neg, mu_y_neg) + alpha2)
    if keep_third is not None:
        third = torch.where(keep_third, third, 0.0)
    return first + second + third


QUADRUPLET = ("mu_x", "mu_y", "mu_x_neg", "mu_y_neg")


def objective(joint: Tensor, unimodal: Mapping[str, Tensor], quadruplet: Tensor, beta: float = 1500.0) -> Tensor:
    """Equation (20): L_ELBO(x,y) + Σ_m L_ELBO(x_m) − β L_quad, (batch,), to be maximised."""
    return joint + sum(unimodal.values()) - beta * quadruplet
