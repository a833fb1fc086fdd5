"""Deep LSTM networks that forecast the next day's runoff of a river, beside what they are compared with.

Source: chapter 2 of a thesis on deep representation learning, whose equations have the numbers (2-7) to (2-21). Its
gauges on the Yangtze are not public; here it is USGS 01031500 (CAMELS-US, Addor et al. 2017, doi:10.5065/D6G73C3Q).
Runoff is in mm a day over the catchment.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from qmvae_core.data import DataError
from qmvae_neighbours.experiments import Workshop, fit, series_file

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


def lstm_step(x: Tensor, hidden: Tensor, cell: Tensor, weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Equations (2-7) to (2-12), and (2-14) to (2-19) for a layer of several: one day of a long short-term memory.

    x: (batch, inputs). hidden, cell: (batch, units). weights: (4, units, units + inputs), bias: (4, units), both in the
    order forget, input, output, new. Returns the next (hidden, cell). The output gate sees the new cell, as in every
    implementation; (2-12) and (2-19) print the index of the old one.
    """
    gates = torch.einsum("guv,bv->gbu", weights, torch.cat([hidden, x], dim=-1)) + bias[:, None]
    forget, enter, leave = gates[:3].sigmoid()
    cell = forget * cell + enter * gates[3].tanh()
    return leave * cell.tanh(), cell


class DeepLSTM(nn.Module):
    """Layers of long short-term memory and a linear output, equation (2-20): every day a forecast of the next."""

    def __init__(self, layers: int = 2, units: int = 128, generator: torch.Generator | None = None):
        super().__init__()
        self.memory = nn.LSTM(1, units, num_layers=layers, batch_first=True)
        self.output = nn.Linear(units, 1)
        bound = units**-0.5
        with torch.no_grad():
            for value in self.parameters():
                value.uniform_(-bound, bound, generator=generator)

    def forward(self, values: Tensor) -> Tensor:
        """values (batch, days), normalised -> forecasts (batch, days); entry t is of day t + 1, from days 0 to t."""
        return self.output(self.memory(values.unsqueeze(-1))[0]).squeeze(-1)


class BackPropagation(nn.Module):
    """The network 4-4-1 of the thesis' comparison. Four days as inputs and sigmoid units are our reading of it."""

    DAYS = 4

    def __init__(self, generator: torch.Generator | None = None):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(self.DAYS, 4), nn.Sigmoid(), nn.Linear(4, 1))
        with torch.no_grad():
            for value in self.parameters():
                value.uniform_(-0.5, 0.5, generator=generator)

    def forward(self, values: Tensor) -> Tensor:
        """As DeepLSTM.forward; before the first day stands its own value."""
        before = values[:, :1].expand(-1, self.DAYS - 1)
        windows = torch.cat([before, values], dim=1).unfold(1, self.DAYS, 1)
        return self.layers(windows).squeeze(-1)


class Persistence(nn.Module):
    """Tomorrow is as today."""

    def forward(self, values: Tensor) -> Tensor:
        """As DeepLSTM.forward."""
        return values


def squared_error(forecasts: Tensor, values: Tensor) -> Tensor:
    """Equation (2-21): Σ (forecast of day t + 1 - value of day t + 1)², over days and sequences, both (batch, days)."""
    return (forecasts[:, :-1] - values[:, 1:]).square().sum()


class Indices(NamedTuple):
    """The five indices of the thesis, in per cent but for `m_printed`.

    m: mean of (y - x) / x. The thesis prints a sum of absolute values, which cannot be negative, while its tables have
    negative m: `m_printed` is the printed one. s: root of Σ (y - x)² / (n - 1), relative to the mean of x. largest,
    smallest: the largest positive and negative relative error, 0 where there is none; range: their difference.
    """

    m: float
    s: float
    largest: float
    smallest: float
    range: float
    m_printed: float


def indices(forecast: Sequence[float] | Tensor, observed: Sequence[float] | Tensor) -> Indices:
    """The indices of a stretch of days; forecast, observed: (days,) of positive values, at least two."""
    y, x = (torch.as_tensor(each, dtype=torch.float64) for each in (forecast, observed))
    if y.shape != x.shape or x.ndim != 1 or len(x) < 2:
        raise ValueError(f"forecast and observed must be one row of at least two days, got {y.shape} and {x.shape}")
    if not (x > 0).all():
        raise ValueError("relative errors need positive observations")
    relative = 100 * (y - x) / x
    largest, smallest = max(0.0, float(relative.max())), min(0.0, float(relative.min()))
    spread = 100 * float(((y - x).square().sum() / (len(x) - 1)).sqrt() / x.mean())
    return Indices(
        float(relative.mean()), spread, largest, smallest, largest - smallest, float((y - x).abs().div(x).sum())
    )


def skill(forecast: Tensor, observed: Tensor) -> float:
    """1 - Σ (y - x)² / Σ (yesterday - x)², from the second day on: 0 for persistence, 1 for no error; (days,)."""
    y, x = forecast[1:].double(), observed.double()
    return float(1 - (y - x[1:]).square().sum() / (x[1:] - x[:-1]).square().sum())


@dataclass(frozen=True)
class Scale:
    """A linear map of runoff to about [0, 1], by the lowest and the highest value of the training days."""

    low: float
    high: float

    def normalised(self, values: Tensor) -> Tensor:
        """(values - low) / (high - low)."""
        return (values - self.low) / (self.high - self.low)

    def runoff(self, values: Tensor) -> Tensor:
        """The inverse."""
        return values * (self.high - self.low) + self.low


@dataclass(frozen=True)
class Settings:
    """How long the trainings of chapter B5 are, and on which years.

    sequence: days that are unrolled in training, from a state of zeros. check: steps between two looks at the
    validation half-year; the weights that forecast it best are kept.
    """

    layers: tuple[int, ...] = (1, 2)
    units: int = 128
    sequence: int = 120
    steps: int = 500
    steps_without_memory: int = 5000  # of 4-4-1, whose steps are cheap and small
    learning_rate: float = 3e-3  # better on the validation half-year than 1e-3; the thesis: 1e-4 and 6,000 epochs
    check: int = 50
    short: int = 2000  # first year of the ten-year history
    long: int = 1995  # of the fifteen-year history
    after: int = 2010  # first year of validation and test
    last: int = 2012  # last year of the test
    seeds: tuple[int, ...] = (0, 1, 2)

    @property
    def validation(self) -> datetime.date:
        """The first day of the validation half-year, the day after the last that trains."""
        return datetime.date(self.after, 1, 1)

    @property
    def test(self) -> datetime.date:
        """The first day of the test, the day after the validation half-year."""
        return datetime.date(self.after, 7, 1)


SETTINGS = {
    "smoke": Settings(units=8, steps=4, steps_without_memory=4, check=2, short=2008, long=2007, seeds=(0,)),
    "quick": Settings(),
}


def load_runoff(root: str | None = None) -> Runoff:
    """The runoff below a data root, or the stand-in where the root has none (`series_file`)."""
    path = series_file(root, FILE)
    return standin_runoff() if path is None else read_runoff(path)


def flood_months(runoff: Runoff, settings: Settings) -> list[datetime.date]:
    """The first day of the wettest month of each test year, after the half-year of validation."""
    found = []
    for year in range(settings.after, settings.last + 1):
        months = [datetime.date(year, month, 1) for month in range(1, 13)]
        months = [month for month in months if month >= settings.test]
        found.append(max(months, key=lambda month: float(runoff.values[runoff.between(month, _next(month))].mean())))
    return found


def _next(month: datetime.date) -> datetime.date:
    return (month.replace(day=28) + datetime.timedelta(days=4)).replace(day=1)


def train(model: nn.Module, runoff: Runoff, first: int, settings: Settings, seed: int, name: str, workshop: Workshop):
    """Fit on the years from `first`, a sequence each, and keep the weights that forecast the validation half-year best.

    Returns (model, scale); the model's buffers `step` and `error` say which weights, and how they forecast it.
    """
    start = datetime.date(first, 1, 1)
    days = runoff.values[runoff.between(start, settings.validation)]
    scale = Scale(float(days.min()), float(days.max()))
    days = scale.normalised(days)
    checked = runoff.between(settings.validation, settings.test)
    before = scale.normalised(runoff.values[runoff.day(start) : checked.stop])[None]
    model.register_buffer("step", torch.tensor(0))
    model.register_buffer("error", torch.tensor(math.inf))
    best: dict[str, Tensor] = {"error": model.error}

    def keep(step: int) -> None:
        with torch.no_grad():
            count = checked.stop - checked.start + 1  # with the day before the first, from which that is forecast
            error = squared_error(model(before)[:, -count:], before[:, -count:]) / (count - 1)
        if error < best["error"]:
            model.step.fill_(step)
            model.error.copy_(error)
            best.update({name: value.clone() for name, value in model.state_dict().items()})

    steps = itertools.count()

    def loss(generator: torch.Generator) -> Tensor:
        step = next(steps)
        if step % settings.check == 0:
            keep(step)
        offset = int(torch.randint(settings.sequence, (), generator=generator))
        whole = (len(days) - offset) // settings.sequence * settings.sequence
        sequences = days[offset : offset + whole].view(-1, settings.sequence)
        return 1e4 * squared_error(model(sequences), sequences) / sequences.numel()

    def fitted(model: nn.Module) -> None:
        count = settings.steps_without_memory if isinstance(model, BackPropagation) else settings.steps
        fit(model, loss, count, settings.learning_rate, seed, name)
        keep(count)
        model.load_state_dict(best)

    what = {"name": name, "seed": seed, "settings": asdict(settings), "data": runoff.content_hash()}
    return workshop.trained(model, what, fitted), scale


@torch.no_grad()
def forecasts(model: nn.Module, scale: Scale, runoff: Runoff, first: int) -> Tensor:
    """A forecast of each day from the second of the year `first` on, made from the days before it; NaN before."""
    start = runoff.day(datetime.date(first, 1, 1))
    made = scale.runoff(model(scale.normalised(runoff.values[start:])[None])[0, :-1])
    return torch.cat([torch.full((start + 1,), math.nan), made])


def networks(settings: Settings) -> dict[str, tuple[int, int]]:
    """Name of each model of the chapter -> (layers of memory, 0 for 4-4-1; first year of its history)."""
    named = {f"LSTM, {n} layer{'s' * (n > 1)}, short": (n, settings.short) for n in settings.layers}
    last = settings.layers[-1]
    return named | {f"LSTM, {last} layers, long": (last, settings.long), "4-4-1": (0, settings.short)}


def carry_out(settings: Settings, workshop: Workshop) -> tuple[dict, dict, dict[str, Tensor]]:
    """Chapter B5: networks of one and two layers, short and long histories, 4-4-1 and persistence, by the indices."""
    runoff = load_runoff(workshop.data_root)
    stretches = {f"{month:%Y-%m}": runoff.between(month, _next(month)) for month in flood_months(runoff, settings)}
    test = runoff.between(settings.test, datetime.date(settings.last + 1, 1, 1))
    metrics: dict = {"indices": {}, "indices of all test days": {}, "skill": {}, "kept": {}}
    tensors = {f"{month}/observed": runoff.values[days] for month, days in stretches.items()}

    def judge(name: str, seed: int, made: Tensor) -> None:
        found = {month: indices(made[days], runoff.values[days])._asdict() for month, days in stretches.items()}
        metrics["indices"].setdefault(name, {})[str(seed)] = found
        metrics["indices of all test days"].setdefault(name, {})[str(seed)] = indices(
            made[test], runoff.values[test]
        )._asdict()
        metrics["skill"].setdefault(name, {})[str(seed)] = skill(made[test], runoff.values[test])
        if seed == settings.seeds[0]:
            tensors.update({f"{month}/{name}": made[days] for month, days in stretches.items()})

    for name, (layers, first) in networks(settings).items():
        for seed in settings.seeds:
            generator = torch.Generator().manual_seed(seed)
            model = DeepLSTM(layers, settings.units, generator) if layers else BackPropagation(generator)
            model, scale = train(model, runoff, first, settings, seed, f"{name}, seed {seed}", workshop)
            kept = {"step": int(model.step), "validation error": float(model.error)}
            metrics["kept"].setdefault(name, {})[str(seed)] = kept
            judge(name, seed, forecasts(model, scale, runoff, first))
    judge("persistence", settings.seeds[0], forecasts(Persistence(), Scale(0.0, 1.0), runoff, settings.short))
    notes = [] if runoff.kind == "real" else ["The runoff is made up: no evidence about any river"]
    identity = {
        "kind": runoff.kind, "days": len(runoff.values), "first": str(runoff.first), "notes": notes,
        "content_hash": runoff.content_hash(),
    }  # fmt: skip
    return identity, metrics, tensors
