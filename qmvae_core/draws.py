"""All that is random: which draws a loss needs, and generators whose seeds are functions of what they are for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


def seed_for(*parts: object) -> int:
    """A generator seed in 63 bits from any parts, e.g. seed_for(seed, "noise", epoch, chunk)."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator_for(*parts: object) -> torch.Generator:
    """A generator on the CPU for any device, so that a draw is the same on each; parts as in `seed_for`."""
    return torch.Generator().manual_seed(seed_for(*parts))


class NoiseSpec(NamedTuple):
    """One draw that a loss needs, and its shape for one batch.

    kind: "normal" for N(0, 1), "uniform" for U[0, 1), "laplace" for the density exp(-|x|) / 2; or "progress", no draw
    but the share of the training that is done, for a weight that changes with it (1 outside a training).
    """

    kind: str
    shape: tuple[int, ...]


def draw_noise(
    spec: Mapping[str, NoiseSpec], generator: torch.Generator, device: torch.device | str, lead: tuple[int, ...] = ()
) -> dict[str, Tensor]:
    """The draws of a spec, each with the leading dimensions `lead` (for many steps at once), in a fixed order."""
    return {
        name: DRAWS[item.kind]((*lead, *item.shape), generator=generator, device=device)
        for name, item in sorted(spec.items())
    }


def _laplace(shape: tuple[int, ...], generator: torch.Generator, device: torch.device | str) -> Tensor:
    """The difference of two exponential draws has the Laplace density."""
    two = torch.empty((2, *shape), device=device).exponential_(generator=generator)
    return two[0] - two[1]


def _all_done(shape: tuple[int, ...], generator: torch.Generator, device: torch.device | str) -> Tensor:
    return torch.ones(shape, device=device)


DRAWS = {"normal": torch.randn, "uniform": torch.rand, "laplace": _laplace, "progress": _all_done}
