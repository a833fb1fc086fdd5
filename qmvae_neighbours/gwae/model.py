"""The Gromov-Wasserstein auto-encoder (chapter B3): its objective and its three priors.

Source: Nakagawa, Togo, Ogawa and Haseyama, "Gromov-Wasserstein Autoencoders", ICLR 2023 (arXiv:2209.07007), with the
authors' public programme (github.com/ganmodokix/gwae) for weights and details. x is an image, z a code; data pairs are
(x, z ~ q(z|x)), model pairs are (decoder(z), z ~ prior). Distances between images are Euclidean, in pixel values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qmvae_core import networks
from qmvae_core.gaussians import DiagonalGaussian
from qmvae_neighbours.experiments import Best, Opponent, fit

PRIORS = ("neural", "factorised", "mixture")
SLOPE = 0.2  # of the leaky activations


# The terms of the objective


def distances(points: Tensor) -> Tensor:
    """Euclidean distance of each of the n (n - 1) / 2 pairs of points (n, ...), in the order (0, 1), (0, 2), …"""
    return F.pdist(points.flatten(1))


def gromov_cost(first: Tensor, second: Tensor, power: float = 1.0) -> Tensor:
    """Mean of |first - second| ** power over pairs, for the coupling that gives point i its partner i.

    first, second: distances between points and between their partners, of one shape. The Gromov-Wasserstein distance,
    to the power p, is the least such mean over all couplings, here of (n, n) matrices; so any coupling bounds it from
    above. `distances` leaves out the n pairs of a point with itself: its mean is n / (n - 1) times that of matrices.
    """
    if first.shape != second.shape:
        raise ValueError(f"one partner a point is needed, got distances {tuple(first.shape)}, {tuple(second.shape)}")
    return (first - second).abs().pow(power).mean()


def reconstruction_cost(images: Tensor, rebuilt: Tensor) -> Tensor:
    """Half the squared error of images (batch, c, h, w): a sum over pixels, a mean over the batch."""
    return 0.5 * (images - rebuilt).square().flatten(1).sum(dim=1).mean()


def entropy(posterior: DiagonalGaussian) -> Tensor:
    """Entropy of q(z|x) in nats: (batch,)."""
    return 0.5 * (posterior.log_var + 1.0 + math.log(2.0 * math.pi)).sum(dim=-1)


def gradient_penalty(critic: Callable[[Tensor, Tensor], Tensor], x: Tensor, z: Tensor) -> Tensor:
    """Mean of (|gradient| - 1)² of critic(x, z) -> (batch,) at the given points, over x and z together.

    It draws the critic towards Lipschitz constant 1, which makes its difference of means a Wasserstein distance.
    """
    x, z = x.detach().requires_grad_(True), z.detach().requires_grad_(True)
    gradients = torch.autograd.grad(critic(x, z).sum(), (x, z), create_graph=True)
    norm = torch.cat([part.flatten(1) for part in gradients], dim=1).norm(dim=1)
    return (norm - 1.0).square().mean()


# Priors: all that is asked of one is samples that depend smoothly on its parameters


class Prior(nn.Module):
    """Draws of codes, each dimension brought to mean 0 and variance 1, so that the scale is the objective's alone.

    In training the moments are the batch's, in evaluation the running ones. What is standardised comes from `raw`.
    """

    def __init__(self, latent: int):
        super().__init__()
        self.latent = latent
        self.standardise = nn.BatchNorm1d(latent, eps=1e-8, affine=False)

    def forward(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, latent)."""
        return self.standardise(self.raw(count, generator))


class NeuralPrior(Prior):
    """A network of standard normal noise, NP; with one group a dimension each sees its own noise only: factorised, FNP.

    groups: into how many parts without connections the network is cut, a divisor of latent.
    """

    def __init__(self, latent: int, groups: int, generator: torch.Generator):
        super().__init__(latent)
        self.groups = groups
        inner = latent // groups
        widths = [inner, 4 * inner, 4 * inner, 4 * inner, inner]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for before, after in zip(widths, widths[1:], strict=False):
            bound = math.sqrt(6 / (before * (1 + SLOPE**2)))  # keeps the variance from layer to layer
            self.weights.append(bound * (2 * torch.rand(groups, before, after, generator=generator) - 1))
            self.biases.append(bound * (2 * torch.rand(groups, 1, after, generator=generator) - 1))

    def raw(self, count: int, generator: torch.Generator) -> Tensor:
        """The network's outputs for fresh noise: (count, latent)."""
        h = torch.randn(self.groups, count, self.latent // self.groups, generator=generator)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, F.leaky_relu(h, SLOPE) if layer else h, weight)
        return h.transpose(0, 1).flatten(1)


class MixturePrior(Prior):
    """A mixture of Gaussians, GMP: means (k, d), factors of the covariances (k, d, d), logits of the weights (k,)."""

    def __init__(self, latent: int, components: int, generator: torch.Generator):
        super().__init__(latent)
        self.means = nn.Parameter(torch.randn(components, latent, generator=generator))
        self.factors = nn.Parameter(0.5 * torch.eye(latent).repeat(components, 1, 1))
        self.logits = nn.Parameter(torch.zeros(components))

    def raw(self, count: int, generator: torch.Generator) -> Tensor:
        """mean_k + factor_k ε of a component k drawn by `gumbel_max`: (count, latent)."""
        picked = gumbel_max(self.logits.expand(count, -1), generator)
        noise = torch.randn(count, self.latent, 1, generator=generator)
        return self.means[picked] + (self.factors[picked] @ noise).squeeze(-1)


def gumbel_max(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Indices (...,) drawn with probabilities softmax(logits (..., k)): argmax of logits plus Gumbel noise.

    It is the hard choice, as in the source: neither relaxed nor straight-through. No gradient reaches the logits.
    """
    exponential = torch.empty(logits.shape).exponential_(generator=generator)  # minus its logarithm is Gumbel's noise
    return (logits - exponential.log()).argmax(dim=-1)


class Critic(nn.Module):
    """A function of an image and a code, (batch,): after training the Kantorovich potential between both kinds of pair.

    It is high on model pairs and low on data pairs.
    """

    def __init__(self, shape: tuple[int, int, int], width: int, latent: int):
        super().__init__()
        self.of_image = nn.Sequential(nn.Flatten(), *_leaky(math.prod(shape), 2 * width, width))
        self.of_code = nn.Sequential(*_leaky(latent, width, width))
        self.of_both = nn.Sequential(*_leaky(2 * width, 2 * width), nn.Linear(2 * width, 1))

    def forward(self, images: Tensor, codes: Tensor) -> Tensor:
        """images (batch, c, h, w) and codes (batch, latent) -> (batch,)."""
        return self.of_both(torch.cat([self.of_image(images), self.of_code(codes)], dim=-1)).squeeze(-1)


def _leaky(*widths: int) -> list[nn.Module]:
    pairs = zip(widths, widths[1:], strict=False)
    return [layer for before, after in pairs for layer in (nn.Linear(before, after), nn.LeakyReLU(SLOPE))]


# The model


@dataclass(frozen=True)
class GWAEConfig:
    """One Gromov-Wasserstein auto-encoder. The weights of the three regularisers are the source's.

    prior: one of PRIORS. gromov, sufficiency: weights of these terms; that of the reconstruction is 1. entropy: weight
    of the entropy in nats, twice the source's, whose term is the sum of log variances. penalty: of the gradient.
    """

    prior: str = "neural"
    shape: tuple[int, int, int] = (1, 28, 28)
    widths: tuple[int, ...] = (256,)
    latent: int = 10
    components: int = 10
    critic_width: int = 64
    gromov: float = 1.0
    sufficiency: float = 1.0
    entropy: float = 0.06
    penalty: float = 10.0

    def __post_init__(self):
        if self.prior not in PRIORS:
            raise ValueError(f"unknown prior {self.prior!r}; the known ones are {list(PRIORS)}")


class Objective(NamedTuple):
    """What is minimised, and its parts before they are weighted: four numbers."""

    total: Tensor
    gromov: Tensor
    reconstruction: Tensor
    sufficiency: Tensor
    entropy: Tensor


class GWAE(nn.Module):
    """Encoder, decoder, prior, critic, and the scale c of distances between codes."""

    def __init__(self, config: GWAEConfig, generator: torch.Generator):
        super().__init__()
        self.config = config
        self.encoder = networks.encoder("dense", config.shape, config.widths, config.latent)
        self.decoder = networks.decoder("dense", config.shape, config.widths, config.latent)
        self.critic = Critic(config.shape, config.critic_width, config.latent)
        networks.initialise(self, generator)
        self.log_scale = nn.Parameter(torch.tensor(0.0))
        if config.prior == "mixture":
            self.prior = MixturePrior(config.latent, config.components, generator)
        else:
            groups = 1 if config.prior == "neural" else config.latent
            self.prior = NeuralPrior(config.latent, groups, generator)

    def decode(self, codes: Tensor) -> Tensor:
        """Images (batch, c, h, w) in [0, 1] for codes (batch, latent)."""
        return self.decoder(codes).sigmoid()

    def pairs(self, images: Tensor, generator: torch.Generator) -> tuple[DiagonalGaussian, Tensor, Tensor, Tensor]:
        """For images (batch, c, h, w): q(z|x), a code from it, and as many model pairs (images, codes)."""
        posterior = self.encoder(images)
        codes = posterior.sample(torch.randn(posterior.mean.shape, generator=generator))
        drawn = self.prior(len(images), generator)
        return posterior, codes, self.decode(drawn), drawn

    def objective(self, images: Tensor, generator: torch.Generator) -> Objective:
        """The relaxed objective for images (batch, c, h, w) in [0, 1]; its distances are those of model pairs."""
        posterior, codes, made, drawn = self.pairs(images, generator)
        gromov = gromov_cost(distances(made), self.log_scale.exp() * distances(drawn))
        reconstruction = reconstruction_cost(images, self.decode(codes))
        sufficiency = self.critic(made, drawn).mean() - self.critic(images, codes).mean()
        spread = entropy(posterior).mean()
        weigh = self.config
        total = weigh.gromov * gromov + reconstruction + weigh.sufficiency * sufficiency - weigh.entropy * spread
        return Objective(total, gromov, reconstruction, sufficiency, spread)

    def critic_loss(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Minus the critic's difference of means, with the gradient penalty on random points between both pairs."""
        with torch.no_grad():
            _, codes, made, drawn = self.pairs(images, generator)
        apart = self.critic(made, drawn).mean() - self.critic(images, codes).mean()
        share = torch.rand(len(images), 1, generator=generator)
        between = torch.lerp(images, made, share[..., None, None]), torch.lerp(codes, drawn, share)
        return self.config.penalty * gradient_penalty(self.critic, *between) - apart


def fitted(model: GWAE, images: Tensor, steps: int, batch: int, rate: float, rounds: int, seed: int, name: str) -> Best:
    """Train in place on images (n, c, h, w) uint8: in each step `rounds` steps of the critic, then one of the rest."""

    def picked(generator: torch.Generator) -> Tensor:
        return images[torch.randint(len(images), (batch,), generator=generator)].float() / 255

    critic = Opponent(model.critic, lambda generator: model.critic_loss(picked(generator), generator), rounds)
    return fit(model, lambda g: model.objective(picked(g), g).total, steps, rate, seed, name, opponent=critic)
