"""What ends a training before its last step, and what keeps a loss where it is."""

from __future__ import annotations

import math

LEFT = 0.9  # the share of its plateau below which the mean of a chunk must be for a loss to have left it


class NonFiniteLoss(RuntimeError):
    """A term of the loss was not finite; the message names seed, epoch, step and term."""


class OutOfTime(RuntimeError):
    """The minutes given to a training are over; its checkpoint is written."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read or belongs to another run."""


def quadruplet_plateau(alpha1: float, alpha2: float, modalities: int) -> float:
    """The quadruplet loss (19) of codes that all lie in one place: 2 α₁ + α₂ for each pair of modalities."""
    return math.comb(modalities, 2) * (2 * alpha1 + alpha2)
