"""Pairs. The pairing is MMVAE's (Shi et al. 2019), as the paper uses it: 1,682,040 training pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from qmvae_core.data.digits import DataError, _shape, check_range


def digit_counts(labels: Tensor, classes: int = 10) -> Tensor:
    """How many (n,) labels there are of each digit: (classes,) int64. Raises DataError for others than its integers."""
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise DataError(f"labels must be one row of integers, not {_shape(labels)} {labels.dtype}")
    check_range(labels, classes)
    return torch.bincount(labels.long(), minlength=classes)


def pair_indices(labels_a: Tensor, labels_b: Tensor, rounds: int = 30, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pairs of images that show the same digit: two (pairs,) int32 index tensors, each on the device of its labels.

    labels_a, labels_b: (n_a,) and (n_b,) integers, 0 to 9. The rule, its order and its errors are tuple_indices'.
    """
    return tuple(tuple_indices({"a": labels_a, "b": labels_b}, rounds, seed).values())


def tuple_indices(labels: dict[str, Tensor], rounds: int = 30, seed: int = 0, classes: int = 10) -> dict[str, Tensor]:
    """Tuples of images, one a modality, that show the same digit: MMVAE's rule for one modality or more.

    For each digit n is the least count of any modality. The first n images of each, in file order, are permuted anew,
    each modality on its own, in each of the rounds; so every one of them occurs `rounds` times. The result is ordered
    by digit, then round, then place in the permutation, and the permutations are drawn in that order too, modality by
    modality. They come from NumPy's RandomState, whose stream is frozen: a seed gives the same tuples everywhere.

    labels: one or more names with (n,) integer labels, 0 to 9 or below another number of classes. Returns (tuples,)
    int32 for each name, on its labels' device. A digit that no modality has gives no tuples. Raises DataError for no
    modality, rounds below 1, labels out of range, no labels at all, and a digit that some modalities have and others
    lack.
    """
    if not labels or rounds < 1:
        raise DataError(f"pairing needs one or more modalities and one or more rounds, not {len(labels)} and {rounds}")
    counts = {name: digit_counts(values, classes).cpu().numpy() for name, values in labels.items()}
    sizes = np.min(list(counts.values()), axis=0)
    for name, count in counts.items():
        absent = np.flatnonzero((count == 0) & (np.max(list(counts.values()), axis=0) > 0))
        if len(absent):
            raise DataError(
                f"labels of {name} lack {', '.join(map(str, absent))}, which others have, so it cannot be paired; "
                "a label has one meaning in all modalities"
            )
    if not 0 < sizes.sum() * rounds < 2**31:
        raise DataError(f"{rounds} rounds give {sizes.sum() * rounds} pairs; there must be some, and fewer than 2**31")

    firsts = {name: _first_of_each(values, counts[name], sizes) for name, values in labels.items()}
    random = np.random.RandomState(seed)
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in labels}
    for digit in np.flatnonzero(sizes):
        for _ in range(rounds):
            for name in labels:
                pieces[name].append(random.permutation(firsts[name][digit]))
    return {name: torch.from_numpy(np.concatenate(pieces[name])).to(labels[name].device) for name in labels}


def missing_at_random(names: Sequence[str], count: int, share: float, seed: int = 0) -> dict[str, Tensor]:
    """Which modalities are there in each of so many tuples: name -> (count,) booleans, a function of the seed.

    A share of the tuples is incomplete: there a proper subset of the modalities, drawn evenly, is left, and never none.
    Raises DataError for fewer than two modalities, none of which could be missing.
    """
    if len(names) < 2:
        raise DataError(f"of the modalities {list(names)} none can be missing; there must be two or more")
    random = np.random.RandomState(seed)
    complete, left = random.uniform(size=count) >= share, random.randint(1, 2 ** len(names) - 1, size=count)
    return {name: torch.from_numpy(complete | (left >> place & 1 == 1)) for place, name in enumerate(names)}


def _first_of_each(labels: Tensor, counts: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """For each digit the indices, int32 and in file order, of the first sizes[digit] images that show it."""
    order = np.argsort(labels.cpu().numpy(), kind="stable").astype(np.int32)
    starts = np.cumsum(counts) - counts
    return [order[start : start + size] for start, size in zip(starts, sizes, strict=True)]


def pair_checksum(*index: Tensor) -> str:
    """SHA-256, in hexadecimal, of the index tensors one after the other as little-endian int32."""
    return hashlib.sha256(b"".join(part.cpu().numpy().astype("<i4").tobytes() for part in index)).hexdigest()
