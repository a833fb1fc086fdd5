"""Images with their labels: bytes on a device, from which batches are gathered."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MODALITIES = {"mnist": (1, 28, 28), "svhn": (3, 32, 32)}


class DataError(ValueError):
    """Data that is missing, damaged or unsuitable; the message names the file or argument and the remedy."""


@dataclass(frozen=True, eq=False)
class Digits:
    """Images of one modality with their labels, on one device.

    images: (n, channels, height, width), or (n, ...) of another kind of observation, such as one-hot labels: uint8,
    whose 255 stands for 1, or float32 in [0, 1]. labels: (n,) int64, 0 to 9 or below another number of classes.
    Raises DataError for other shapes, types, values or labels.
    """

    images: Tensor
    labels: Tensor
    classes: int = 10

    def __post_init__(self):
        if self.images.ndim < 2 or self.images.dtype not in (torch.uint8, torch.float32):
            raise DataError(
                f"images must be (n, c, h, w) uint8, or (n, ...) float32 in [0, 1], "
                f"not {_shape(self.images)} {self.images.dtype}"
            )
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != torch.int64:
            raise DataError(
                f"labels must be ({len(self.images)},) int64, one an image, "
                f"not {_shape(self.labels)} {self.labels.dtype}"
            )
        check_range(self.labels, self.classes)
        if self.images.is_floating_point() and self.images.numel():
            low, high = (float(value) for value in self.images.aminmax())
            if not 0 <= low <= high <= 1:
                raise DataError(
                    f"float values must lie in [0, 1], these go from {low:g} to {high:g}; scale them (bytes by 255, or "
                    "keep them uint8), and fill or drop what is not a number"
                )

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device) -> Digits:
        """The same digits on another device."""
        return Digits(self.images.to(device), self.labels.to(device), self.classes)

    def select(self, index) -> Digits:
        """The digits at index: (m,) integers, a mask (n,) or a slice."""
        return Digits(self.images[index], self.labels[index], self.classes)

    def batch(self, index: Tensor | None = None) -> Tensor:
        """Images as float32 in [0, 1].

        index: integers of any shape (...) on the images' device; the result is (..., *shape). None: all images, in
        order. Nothing waits for the device. Raises DataError for an index that is not int32 or int64: torch would read
        bool and uint8 as a mask, whose size the host must wait for.
        """
        if index is not None and index.dtype not in (torch.int32, torch.int64):
            raise DataError(f"index must be int32 or int64, not {index.dtype}; for a mask use select(mask).batch()")
        chosen = self.images.clone() if index is None else self.images[index]
        return chosen if chosen.is_floating_point() else chosen.float().div_(255)


@dataclass(frozen=True, eq=False)
class DigitData:
    """Both modalities of both splits, keyed by MODALITIES, and a record of what they are.

    identity (JSON): kind "real" or "stand-in"; files, each with its status ("official", "known rebuild" or "unknown")
    and the sha256 of its content; n_train, n_test and n_test_official by modality; notes, sentences for a reader;
    content_hash, one hash of everything.
    """

    train: dict[str, Digits]
    test: dict[str, Digits]
    identity: dict

    def to(self, device) -> DigitData:
        """The same data on another device."""
        moved = ({name: digits.to(device) for name, digits in split.items()} for split in (self.train, self.test))
        return DigitData(*moved, self.identity)


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def check_range(labels: Tensor, classes: int = 10) -> None:
    """Raises DataError for labels that are no digits, or not below so many classes."""
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(f"labels must be 0 to {classes - 1}, not {int(labels.min())} to {int(labels.max())}")
