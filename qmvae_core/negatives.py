"""Negatives of the quadruplet loss: drawn at random among other digits, then screened with the model being trained.

The paper says no more than that (section 3.4), so the rule is a field of the config. Every rule has one interface:
it turns the losses and distances of K random candidate quadruplets into weights over the candidates that sum to one
(or to zero, where nothing is left), without a data-dependent shape, so that a step can be stacked and captured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from qmvae_core.names import known


class Candidates(NamedTuple):
    """What a screening rule may look at; all (K, batch), K candidate quadruplets for each anchor pair.

    loss: the quadruplet loss. positive: d(μx, μy). negative: the smaller of d(μx, μy₋) and d(μx₋, μy).
    margin: α1.
    """

    loss: Tensor
    positive: Tensor
    negative: Tensor
    margin: float


def draw_negatives(labels: Tensor, uniform: Tensor, there: Tensor | None = None) -> Tensor:
    """Positions in the batch, each uniformly drawn among the samples that are there and show another digit.

    labels: (batch,) digits. uniform: (..., batch) draws from U[0, 1). there: (batch,) booleans; None: all are there.
    Returns int64 positions (..., batch).
    A batch is a random part of the data set, so this is a random draw from the data set that costs no further encoding.
    Where there is no negative, the positions are of no use: see `other_digits`.
    """
    there = torch.ones_like(labels, dtype=torch.bool) if there is None else there
    order = torch.argsort(torch.where(there, labels, torch.iinfo(labels.dtype).max), stable=True)
    others = other_digits(labels, there).sum(dim=-1)
    start = ((labels.unsqueeze(-2) < labels.unsqueeze(-1)) & there).sum(dim=-1)  # in label order, the anchor's digit
    same = there.sum() - others  # fills the positions start to start + same
    rank = torch.minimum((uniform * others).long(), (others - 1).clamp(min=0))
    rank = torch.where(rank >= start, rank + same, rank).clamp(max=labels.shape[0] - 1)
    return order[rank]


def other_digits(labels: Tensor, there: Tensor) -> Tensor:
    """Whether the sample of a column is there and shows another digit than that of the row: (batch, batch) booleans."""
    return (labels.unsqueeze(-2) != labels.unsqueeze(-1)) & there


def has_negatives(labels: Tensor) -> Tensor:
    """Whether a batch shows more than one digit, so that there are negatives in it: a boolean, for labels (batch,)."""
    return labels.amin() != labels.amax()


def _random(candidates: Candidates) -> Tensor:
    return _one_hot_first(torch.ones_like(candidates.loss, dtype=torch.bool))


def _semi_hard(candidates: Candidates) -> Tensor:
    """The first candidate whose negative is farther than the positive but inside the margin; else the first of all."""
    inside = (candidates.negative > candidates.positive) & (
        candidates.negative < candidates.positive + candidates.margin
    )
    return _one_hot_first(inside)


def _hardest(candidates: Candidates) -> Tensor:
    loss = candidates.loss
    return (torch.arange(loss.shape[0], device=loss.device).unsqueeze(-1) == loss.argmax(dim=0)).to(loss.dtype)


def _all_violating(candidates: Candidates) -> Tensor:
    violating = (candidates.loss > 0).to(candidates.loss.dtype)
    return violating / violating.sum(dim=0).clamp(min=1.0)


def _one_hot_first(wanted: Tensor) -> Tensor:
    first = wanted.to(torch.int64).argmax(dim=0)  # argmax gives the first of equals, and 0 where none is wanted
    return (torch.arange(wanted.shape[0], device=wanted.device).unsqueeze(-1) == first).to(torch.get_default_dtype())


RULES: dict[str, Callable[[Candidates], Tensor]] = {
    "random": _random,
    "semi-hard": _semi_hard,
    "hardest": _hardest,
    "all-violating": _all_violating,
}


def screen(rule: str, candidates: Candidates) -> Tensor:
    """Weights (K, batch) over the candidates, without gradient.

    "random" keeps the first candidate, "semi-hard" the first inside the margin, "hardest" the one with the largest
    loss, "all-violating" the mean of those whose loss is not zero.
    Raises ValueError for an unknown rule.
    """
    chosen = known(RULES, "screening rule", rule)
    return chosen(Candidates(*(v.detach() if isinstance(v, Tensor) else v for v in candidates)))
