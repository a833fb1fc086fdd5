"""The numbers that the paper reports, as data: Tables 1 and 2 of doi 10.13364/j.issn.1672-6510.20220039.

Per cent, mean and standard deviation over five seeds; None where the paper says "not applicable".
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Reported(NamedTuple):
    """Mean and standard deviation of an accuracy in per cent."""

    mean: float
    std: float

    def __str__(self) -> str:
        return f"{self.mean:.1f} ± {self.std:.1f}"


SEEDS = 5
TRAIN_PAIRS, TEST_PAIRS = 1_682_040, 300_000

# Column -> where the value lies in a record's metrics (`Record.share`).
TABLE1_COLUMNS = {"MNIST→SVHN": ("cross_generation", "mnist->svhn"), "SVHN→MNIST": ("cross_generation", "svhn->mnist")}
TABLE2_COLUMNS = {"MNIST": ("probe", "mnist"), "SVHN": ("probe", "svhn"), "MNIST-SVHN": ("probe", "joint")}

TABLE1 = {
    "mvae": {"MNIST→SVHN": Reported(31.8, 1.4), "SVHN→MNIST": Reported(57.1, 3.4)},
    "mmvae": {"MNIST→SVHN": Reported(86.4, 0.5), "SVHN→MNIST": Reported(69.1, 2.5)},
    "dmvae": {"MNIST→SVHN": Reported(91.6, 0.8), "SVHN→MNIST": Reported(76.4, 0.4)},
    "qmvae": {"MNIST→SVHN": Reported(92.2, 0.3), "SVHN→MNIST": Reported(81.3, 0.5)},
}
TABLE2 = {
    "mvae": {"MNIST": Reported(79.8, 3.8), "SVHN": Reported(65.1, 4.6), "MNIST-SVHN": Reported(80.2, 3.6)},
    "mmvae": {"MNIST": Reported(91.3, 0.4), "SVHN": Reported(68.0, 0.6), "MNIST-SVHN": None},
    "dmvae": {"MNIST": Reported(95.0, 0.6), "SVHN": Reported(79.9, 1.4), "MNIST-SVHN": Reported(92.9, 1.8)},
    "qmvae": {"MNIST": Reported(98.3, 0.1), "SVHN": Reported(80.2, 0.2), "MNIST-SVHN": Reported(97.9, 0.1)},
}

# Points, SVHN→MNIST, section 4.2; the deviation is that of the difference of the two cells, over as many seeds.
GAIN_OVER_DMVAE = Reported(4.9, math.hypot(TABLE1["qmvae"]["SVHN→MNIST"].std, TABLE1["dmvae"]["SVHN→MNIST"].std))

CELLS = {**TABLE1_COLUMNS, **TABLE2_COLUMNS}  # of a model's row in both tables
ROWS = {model: {**TABLE1[model], **TABLE2[model]} for model in TABLE1}
