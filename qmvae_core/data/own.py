"""Observations of your own: arrays with labels, checked before anything is trained on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from qmvae_core.data.digits import DataError, Digits


def observations(values: np.ndarray, labels: np.ndarray) -> Digits:
    """One modality from arrays: any shape, any number of classes.

    values: (n, ...) floats in [0, 1], kept as float32, or uint8, whose 255 stands for 1. labels: (n,) integers from 0.
    Raises DataError for other types, and like Digits.
    """
    values, labels = np.asarray(values), np.asarray(labels)
    if values.dtype.kind != "f" and values.dtype != np.uint8:
        raise DataError(f"values must be floats in [0, 1] or uint8, not {values.dtype}; cast them")
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"labels must be integers, not {labels.dtype}; numpy.unique(labels, return_inverse=True) numbers any labels"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < 2**16:
        raise DataError(
            f"labels must be 0 to 65535, not {labels.min()} to {labels.max()}; numpy.unique(labels, "
            "return_inverse=True) numbers any labels"
        )
    kept = values if values.dtype == np.uint8 else values.astype(np.float32)
    tensors = (torch.from_numpy(np.array(each)) for each in (kept, labels.astype(np.int64)))
    return Digits(*tensors, classes=int(labels.max(initial=0)) + 1)


def most_classes(modalities: Mapping[str, Digits]) -> int:
    """The number of classes of modalities whose labels mean the same."""
    return max(digits.classes for digits in modalities.values())


def read_observations(folder: str | Path) -> Digits:
    """One modality from a folder's values.npy and labels.npy, arrays as `observations` takes them.

    Raises DataError, with the file or folder, for what is missing, is no array or cannot be used.
    """
    folder, arrays = Path(folder), []
    for path in (folder / "values.npy", folder / "labels.npy"):
        try:
            arrays.append(np.load(path, allow_pickle=False))
        except (OSError, EOFError, ValueError) as error:
            raise DataError(f"{path} cannot be read as an array: {error}. Write it with numpy.save.") from error
    try:
        return observations(*arrays)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from None
