"""The quadruplet loss where all codes lie in one place, or one modality's codes know nothing: what moves them away.

The codes are drawn, not learned: N(0, I) times a spread, a part of whose variance tells the digit. The loss, the draws
of negatives and their screening are the library's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qmvae_core.losses import distance, quadruplet_loss
from qmvae_core.models.readings import reading
from qmvae_core.negatives import Candidates, draw_negatives, screen
from qmvae_core.stops import quadruplet_plateau

PRINTED = reading("unscreened")
BATCH, PLATEAU = 128, quadruplet_plateau(PRINTED.alpha1, PRINTED.alpha2, 2)


def screened_loss(rule: str, mu_x: Tensor, mu_y: Tensor, labels: Tensor, uniform: Sequence[Tensor]) -> Tensor:
    """Equation (19) of each pair of a batch with its screened negatives, as Q-MVAE takes it, by the paper's margins.

    mu_x, mu_y: (batch, d). labels: (batch,). uniform: draws (candidates, batch) for x₋ and for y₋. Returns (batch,).
    """
    x_neg, y_neg = (mu[draw_negatives(labels, u)] for mu, u in zip((mu_x, mu_y), uniform, strict=True))
    each = quadruplet_loss(mu_x, mu_y, x_neg, y_neg, PRINTED.alpha1, PRINTED.alpha2)
    positive = distance(mu_x, mu_y).expand_as(each)
    nearer = torch.minimum(distance(mu_x, y_neg), distance(x_neg, mu_y))
    return (screen(rule, Candidates(each, positive, nearer, PRINTED.alpha1)) * each).sum(dim=0)


@dataclass(frozen=True)
class Place:
    """Codes of both modalities around one place, or around two.

    spread: their standard deviation in each dimension. share_x, share_y: the part of the variance that is between
    digits, whose centres both modalities have in common; 0: they know nothing. offset: the distance of the modalities'
    places, in root mean square distances of a code from its own.
    """

    share_x: float = 0.0
    share_y: float = 0.0
    spread: float = 1e-3
    offset: float = 0.0

    def codes(self, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Codes of pairs that show these digits: μ_x and μ_y, (batch, d), and how far a digit moves each, (batch, d).

        The last is ∂μ/∂s, where s is the square root of a modality's share, its strength.
        """
        size = PRINTED.shared
        centres = torch.randn(10, size, generator=generator)
        centres = (centres - centres.mean(dim=0)) / centres.std(dim=0, correction=0)
        towards = self.spread * centres[labels]
        apart = torch.nn.functional.normalize(torch.randn(size, generator=generator), dim=0) * self.offset * size**0.5
        noise = self.spread * torch.randn(2, len(labels), size, generator=generator)
        mu_x, mu_y = (
            share**0.5 * towards + (1 - share) ** 0.5 * n
            for share, n in zip((self.share_x, self.share_y), noise, strict=True)
        )
        return mu_x, mu_y + self.spread * apart, towards


def at(place: Place, rule: str, batches: int = 40, seed: int = 0) -> dict[str, np.ndarray]:
    """What the loss does at a place under a screening rule, a value for each of so many random batches.

    "excess": the mean loss less PLATEAU, in spreads. While every hinge is open, this is also the loss's derivative by
    the spread: the loss is 2α₁ + α₂ plus a sum of distances, so all codes moved apart by a factor move what is above
    the plateau, or below, by that factor. Positive: the loss draws the codes together; negative: it drives them apart.
    "strength": the derivative of the mean loss by the strength s of the digit in y's codes, in spreads; negative: the
    loss makes y learn. "force": the mean length of the gradient of the batch's loss by a code of y, times the size of
    the batch. "open": the share of hinges that are.
    """
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, list[float]] = {name: [] for name in ("excess", "strength", "force", "open")}
    for _ in range(batches):
        labels = torch.randint(0, 10, (BATCH,), generator=generator)
        mu_x, mu_y, towards = place.codes(labels, generator)
        mu_y.requires_grad_()
        uniform = torch.rand(2, PRINTED.candidates, BATCH, generator=generator)
        loss = screened_loss(rule, mu_x, mu_y, labels, uniform).mean()
        (gradient,) = torch.autograd.grad(loss, mu_y)
        found["excess"].append((loss.item() - PLATEAU) / place.spread)
        found["strength"].append((gradient * towards).sum().item() / place.spread)
        found["force"].append(gradient.norm(dim=-1).mean().item() * BATCH)
        found["open"].append(_open(mu_x, mu_y, labels, uniform))
    return {name: np.array(values) for name, values in found.items()}


@torch.no_grad()
def _open(mu_x: Tensor, mu_y: Tensor, labels: Tensor, uniform: Tensor) -> float:
    """The share of the hinges of all candidates that are not closed."""
    x_neg, y_neg = (mu[draw_negatives(labels, u)] for mu, u in zip((mu_x, mu_y), uniform, strict=True))
    positive = distance(mu_x, mu_y)
    short = [
        positive - distance(a, b) + margin
        for a, b, margin in (
            (mu_x, y_neg, PRINTED.alpha1), (x_neg, mu_y, PRINTED.alpha1), (x_neg, y_neg, PRINTED.alpha2),
        )
    ]  # fmt: skip
    return torch.stack(short).gt(0).float().mean().item()


def known(codes: Tensor, labels: Tensor) -> float:
    """The share of the variance of codes (n, d) that is between digits, labels (n,), less what chance alone gives.

    Hays's ω², summed over the dimensions; near zero, of either sign, for codes that know nothing.
    """
    digits = labels.unique()
    centred = codes.double() - codes.double().mean(dim=0)
    centres = torch.stack([centred[labels == digit].mean(dim=0) for digit in digits])
    total = centred.square().sum()
    between = (centres.square().sum(dim=1) * torch.stack([(labels == digit).sum() for digit in digits])).sum()
    within = (total - between) / (len(codes) - len(digits))
    return ((between - (len(digits) - 1) * within) / (total + within)).item()


def distance_from_mean(codes: Tensor) -> float:
    """The root mean square distance of codes (n, d) from their mean."""
    return (codes - codes.mean(dim=0)).square().sum(dim=1).mean().sqrt().item()


def batches_needed(values: np.ndarray) -> float:
    """How many batches must be averaged until the mean of (n,) is one standard deviation of it from zero."""
    return float((values.std(ddof=1) / values.mean()) ** 2)
