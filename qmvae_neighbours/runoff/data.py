"""Daily runoff of a river from a CAMELS file, checked, and a stand-in for it."""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from qmvae_core.data import DataError
from qmvae_neighbours.experiments import series_file

FILE = "river/usgs_01031500_daily.txt"  # below a data root
COLUMNS = ("YR", "MNTH", "DY", "OBS_RUN")


class Runoff(NamedTuple):
    """Daily runoff without gaps. first: the first day. values: (days,) mm a day. kind: real or stand-in."""

    first: datetime.date
    values: Tensor
    kind: str

    def day(self, date: datetime.date) -> int:
        """The index of a date, at most the day after the last. Raises DataError for another day."""
        index = (date - self.first).days
        if not 0 <= index <= len(self.values):
            last = self.first + datetime.timedelta(days=len(self.values) - 1)
            raise DataError(f"the runoff goes from {self.first} to {last} and has no {date}")
        return index

    def content_hash(self) -> str:
        """SHA-256 of the first day and the values."""
        return hashlib.sha256(f"{self.first}".encode() + self.values.numpy().tobytes()).hexdigest()

    def between(self, first: datetime.date, after: datetime.date) -> slice:
        """The days from `first` to the one before `after`."""
        return slice(self.day(first), self.day(after))


def read_runoff(path: Path) -> Runoff:
    """The observed runoff of a CAMELS file. Raises DataError for missing columns or days, or values below 0."""
    lines = Path(path).read_text(encoding="ascii").split("\n")
    header = lines[0].split()
    absent = [name for name in COLUMNS if name not in header]
    if absent:
        raise DataError(f"{path} has no column {absent[0]}; its first line must name {', '.join(COLUMNS)}")
    places = [header.index(name) for name in COLUMNS]
    days, values = [], []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        fields = line.split()
        try:
            year, month, day, value = (fields[place] for place in places)
            days.append(datetime.date(int(year), int(month), int(day)))
            values.append(float(value))
        except (ValueError, IndexError) as error:
            raise DataError(f"{path}, line {number}, cannot be read: {error}; get the file anew") from None
        if len(days) > 1 and days[-1] - days[-2] != datetime.timedelta(days=1):
            raise DataError(f"{path}, line {number}: {days[-1]} does not follow {days[-2]}")
        if not values[-1] >= 0:
            raise DataError(f"{path}, line {number}: a runoff of {values[-1]} cannot be")
    if not days:
        raise DataError(f"{path} has no day; get the file anew")
    return Runoff(days[0], torch.tensor(values), "real")


def standin_runoff(seed: int = 0) -> Runoff:
    """Thirty-four made-up years: storms at random, more of them in spring, and water that leaves slowly."""
    first, last = datetime.date(1980, 10, 1), datetime.date(2015, 1, 1)
    days = np.arange((last - first).days)
    generator = np.random.default_rng(seed)
    season = 1.2 + np.sin(2 * np.pi * (days + 180) / 365.25)
    storms = generator.gamma(0.6, 4.0, len(days)) * (generator.random(len(days)) < 0.15) * season
    water, values = 5.0, []
    for storm in storms:
        water = 0.93 * water + storm
        values.append(0.1 + 0.07 * water)
    return Runoff(first, torch.tensor(values, dtype=torch.float32), "stand-in")


def load_runoff(root: str | None = None) -> Runoff:
    """The runoff below a data root, or the stand-in where the root has none (`series_file`)."""
    path = series_file(root, FILE)
    return standin_runoff() if path is None else read_runoff(path)
