"""The part of the training digits by which choices are made, so that no test digit has a say in them."""

from __future__ import annotations

import math

import torch

from qmvae_core.data import DataError, Digits, digit_counts


def validation_split(train: dict[str, Digits], fraction: float = 0.1) -> tuple[dict[str, Digits], dict[str, Digits]]:
    """What to fit on and what to choose by: (fit, validation), both in file order.

    Of each modality and digit the last fraction goes to validation, rounded up, so one image or more. Neighbours in
    SVHN's file are crops of one photograph: a random choice would put most photographs on both sides. Here that can
    happen only between the first and the last digit's cut, 550 places apart in SVHN's 73,257. Raises DataError for a
    fraction outside (0, 1), and for a digit of which nothing would be left to fit on.
    """
    if not 0 < fraction < 1:
        raise DataError(f"fraction must lie between 0 and 1, not {fraction}")
    fit, validation = {}, {}
    for name, digits in train.items():
        held_out = torch.zeros(len(digits), dtype=torch.bool, device=digits.labels.device)
        for digit, count in enumerate(digit_counts(digits.labels).tolist()):
            last = math.ceil(fraction * count)
            if last == count:
                raise DataError(f"{name} has {count} images of digit {digit}: too few to hold out {fraction:g} of them")
            held_out[(digits.labels == digit).nonzero().flatten()[count - last :]] = True
        fit[name], validation[name] = digits.select(~held_out), digits.select(held_out)
    return fit, validation
