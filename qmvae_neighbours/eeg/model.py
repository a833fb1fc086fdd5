"""β-VAE and LSTM on an electroencephalogram: frames become factors, a sequence of factors becomes a decision.

Source: chapter 4 of the thesis behind chapter B6, with its ablations (an auto-encoder, a convolutional network), its
baseline (a support vector machine on band powers) and its Theorem 4.1. The recording is another one than the thesis's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qmvae_core import networks
from qmvae_neighbours.vae import VAE

# Models


class SequenceClassifier(nn.Module):
    """Equations (4-2) to (4-9): an LSTM over factors, and a softmax on its last hidden state.

    forward: (batch, length, factors) -> log probabilities of the classes, (batch, classes)."""

    def __init__(self, factors: int, hidden: int, generator: torch.Generator, classes: int = 2):
        super().__init__()
        self.lstm = nn.LSTM(factors, hidden, batch_first=True)
        self.output = nn.Linear(hidden, classes)
        networks.initialise(self.output, generator)
        with torch.no_grad():
            for weight in self.lstm.parameters():
                weight.uniform_(-(hidden**-0.5), hidden**-0.5, generator=generator)

    def forward(self, codes: Tensor) -> Tensor:  # noqa: D102
        _, (last, _) = self.lstm(codes)
        return F.log_softmax(self.output(last[-1]), dim=-1)


class Centre(nn.Module):
    """Takes 0.5 from each pixel, so that the mean frame is 0.

    Frames are near 0.5: uncentred, the first steps move all inputs of a unit one way and most units fall silent."""

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102
        return images - 0.5


class ConvolutionalClassifier(nn.Module):
    """The ablation without a model of frames: convolutions in the encoder's place, trained with the LSTM as one.

    forward: frames (batch, length, 3, 32, 32) -> log probabilities, (batch, 2)."""

    def __init__(self, channels: Sequence[int], latent: int, hidden: int, generator: torch.Generator):
        super().__init__()
        self.body, features = networks.BODIES["convolutional"]((3, 32, 32), channels)
        self.body.insert(0, Centre())
        self.head = nn.Linear(features, latent)
        networks.initialise(self, generator)
        self.classifier = SequenceClassifier(latent, hidden, generator)

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102
        codes = self.head(self.body(images.flatten(0, 1)))
        return self.classifier(codes.unflatten(0, images.shape[:2]))


def frame_loss(model: VAE, images: Tensor, noise: Tensor) -> Tensor:
    """Minus equation (4-1), mean over images (batch, 3, 32, 32), in nats; noise: (batch, latent), standard normal.

    beta 0 is the plain auto-encoder: neither a divergence nor a draw, so noise is not looked at."""
    return model.free_energy(images, noise if model.config.beta > 0 else torch.zeros_like(noise)).total.mean()


# Theorem 4.1, in a model whose sums can be carried out


class Bound(NamedTuple):
    """The terms of Theorem 4.1 in nats. lstm: (4-10). frames: the sum of (4-11). evidence: ln p(X, y). to_posterior:
    KL(q(Z) || p(Z|X, y)). to_prior: KL(q(Z) || p(Z))."""

    lstm: Tensor
    frames: Tensor
    evidence: Tensor
    to_posterior: Tensor
    to_prior: Tensor


def discrete_bound(log_q: Tensor, log_prior: Tensor, log_emission: Tensor, log_label: Tensor, beta: float) -> Bound:
    """All terms of Theorem 4.1 where a factor has k values, by summing over all k^M sequences of factors.

    log_q: ln q(z|x_i), (M, k). log_prior: ln p(z), (k,). log_emission: ln p(x_i|z), (M, k). log_label: ln p(y|Z) for
    the label that was seen, (k,) * M. Raises ValueError for another shape of log_label."""
    length, k = log_q.shape
    if log_label.shape != (k,) * length:
        raise ValueError(f"log_label must be {(k,) * length}, one entry a sequence, got {tuple(log_label.shape)}")

    def over_sequences(each: Tensor) -> Tensor:
        """Sum over i of each[i, z_i], for all sequences: (k,) * M."""
        return sum(each[i].reshape([k if axis == i else 1 for axis in range(length)]) for i in range(length))

    joint_q = over_sequences(log_q)
    prior = over_sequences(log_prior.expand(length, k))
    joint = prior + over_sequences(log_emission) + log_label
    evidence = torch.logsumexp(joint.flatten(), dim=0)
    q = log_q.exp()
    divergence = (q * (log_q - log_prior)).sum(dim=1)
    return Bound(
        lstm=(joint_q.exp() * log_label).sum(),
        frames=((q * log_emission).sum(dim=1) - beta * divergence).sum(),
        evidence=evidence,
        to_posterior=(joint_q.exp() * (joint_q - joint + evidence)).sum(),
        to_prior=divergence.sum(),
    )


def best_encoder(log_prior: Tensor, log_emission: Tensor, beta: float) -> Tensor:
    """The q(z|x_i) with the largest (4-11): proportional to p(z) p(x_i|z)^(1/β); ln q, (M, k)."""
    return torch.log_softmax(log_prior + log_emission / beta, dim=1)
