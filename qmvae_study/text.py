"""MNIST-SVHN-Text: the name of the digit as a third modality, and the judge that reads it.

The data set is that of Sutter, Daunhawer and Vogt (2020, 2021), after the published code of the second paper: eight
characters, one-hot over an alphabet of 71, all blank but for the English name of the digit, which begins at a random
place; the last character is always blank. Their text is drawn anew each time that a pair is shown. Here each image of
MNIST's file has one text, so what a run is trained on is a function of the files.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from qmvae_core.data import DigitData, Digits
from qmvae_core.models import ModalityConfig, ModelConfig

TEXT = "text"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LENGTH = 8
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"\\/|_@#$%^&*~`+-=<>()[]{} \n"  # "-" stands twice, as there
SEEDS = {"train": 0, "test": 1}
WIDTHS = (128, 128)
WEIGHT = 3072 / LENGTH  # as the authors have it: the size of the largest modality over the number of characters


def texts(labels: Tensor, seed: int) -> Tensor:
    """The text of each label: (n, LENGTH, 71) uint8 whose 255 stands for 1, a function of labels (n,) and seed."""
    digits = labels.cpu().numpy()
    drawn = np.random.RandomState(seed).uniform(size=len(digits))
    letters = np.full((len(digits), LENGTH), ALPHABET.index(" "))
    for digit, name in enumerate(NAMES):
        rows = np.flatnonzero(digits == digit)
        places = (drawn[rows] * (LENGTH - len(name))).astype(int)
        letters[rows[:, None], places[:, None] + np.arange(len(name))] = [ALPHABET.index(letter) for letter in name]
    blank = torch.zeros((len(digits), LENGTH, len(ALPHABET)), dtype=torch.uint8)
    return blank.scatter_(-1, torch.from_numpy(letters)[..., None], 255).to(labels.device)


def with_text(data: DigitData) -> DigitData:
    """The data with a text for each image of MNIST. The content hash stays: the texts follow from the labels."""
    identity = dict(data.identity)
    splits = {}
    for split, seed in SEEDS.items():
        digits = getattr(data, split)
        labels = digits["mnist"].labels
        splits[split] = {**digits, TEXT: Digits(texts(labels, seed), labels)}
        identity[f"n_{split}"] = {**identity[f"n_{split}"], TEXT: len(labels)}
    note = "Text: the English name of the digit at a random place among eight characters, one for each image of MNIST."
    return DigitData(**splits, identity={**identity, "notes": [*identity["notes"], note]})


def with_text_modality(config: ModelConfig) -> ModelConfig:
    """The model with text as its third modality, in all but network and likelihood as MNIST is in it.

    Where MNIST's likelihood is weighed by size, so is the text's.
    """
    mnist = config.modalities["mnist"]
    text: ModalityConfig = replace(
        mnist, shape=(LENGTH, len(ALPHABET)), network="sequence", widths=WIDTHS, likelihood="categorical",
        weight=mnist.weight if mnist.weight == 1 else WEIGHT,
    )  # fmt: skip
    return replace(config, modalities={**config.modalities, TEXT: text})


def written(values: Tensor) -> list[str]:
    """The most likely characters of each text: values (n, LENGTH, 71)."""
    return ["".join(ALPHABET[letter] for letter in row) for row in values.argmax(dim=-1).tolist()]


def digit_named(text: str) -> int:
    """The digit whose name stands in a text at some place, letter by letter; -1 for no name or two of them.

    What stands beside the name has no say. A name with one wrong letter is none: "ohree" is not "three".
    """
    found = [digit for digit, name in enumerate(NAMES) if name in text]
    return found[0] if len(found) == 1 else -1


class TextJudge:
    """The judge of text, which has learned nothing and errs never: it reads the most likely characters."""

    modality = TEXT
    sha256 = None  # it has no weights by which a record could name it

    def predict(self, images: Tensor) -> Tensor:
        """The digit named in each text, or -1: (n,) int64, for values (n, LENGTH, 71)."""
        return torch.tensor([digit_named(text) for text in written(images)], dtype=torch.int64, device=images.device)

    def features(self, images: Tensor) -> Tensor:
        """The probabilities themselves: (n, 568)."""
        return images.flatten(1)

    def accuracy(self, digits: Digits) -> float:
        """The share of the texts that are read as labelled."""
        return (self.predict(digits.batch()) == digits.labels).float().mean().item()
