"""Of three modalities or more: what is generated from every subset of them, and what a probe reads in its codes.

Beside the library's metrics, which take single modalities as conditions and hold the same for those.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from qmvae_core.evaluation import BATCH, Context, cross_generation, one_round, probe_accuracies, share, shared_codes
from qmvae_core.models import TEST_CODES


def joined(of: Context) -> tuple[dict[str, dict[str, Tensor]], np.ndarray]:
    """Some modalities together, "mnist+text" -> their rows in one round of the tuples of all, and the digits.

    Two or more and not all; none of a model without joint codes.
    """
    rows, digits = one_round(of.judged, of.seed)
    sizes = range(2, len(rows)) if of.model.has_joint_code else ()
    subsets = (names for size in sizes for names in combinations(rows, size))
    return {"+".join(names): {name: rows[name] for name in names} for names in subsets}, digits


def _generated(of: Context, rows: dict[str, Tensor], target: str, generator: torch.Generator, code: str) -> Tensor:
    return torch.cat([of.model.generate_from(images, target, generator, code) for images in _batches(of, rows)])


def _batches(of: Context, rows: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    for part in zip(*(index.split(BATCH) for index in rows.values()), strict=True):
        yield {name: of.judged[name].batch(index.long()) for name, index in zip(rows, part, strict=True)}


@torch.no_grad()
def generation_by_subset(of: Context) -> dict[str, dict]:
    """`cross_generation`, and the same from two modalities or more to each other one: "mnist+svhn->text"."""
    found, (subsets, digits) = cross_generation(of), joined(of)
    for subset, rows in subsets.items():
        for target in (name for name in of.judged if name not in rows):
            direction, read = f"{subset}->{target}", {}
            for code in TEST_CODES:
                made = _generated(of, rows, target, of.generator("cross", direction, code), code)
                read[code] = share(of.judges[target].predict(made).cpu().numpy() == digits)
            found[direction] = read
    return found


def probe_by_subset(of: Context) -> dict[str, dict]:
    """`probe_accuracies`, and the same on codes of two modalities or more that are not all."""
    subsets, digits = joined(of)
    read = {subset: of.probe.predict(shared_codes(of.model, of.judged, rows)) for subset, rows in subsets.items()}
    return probe_accuracies(of) | {subset: share(found == digits) for subset, found in read.items()}


METRICS = {"generation_by_subset": generation_by_subset, "probe_by_subset": probe_by_subset}
