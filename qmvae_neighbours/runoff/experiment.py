"""The experiment of chapter B5: one and two layers of memory, short and long histories, beside simpler forecasts."""

from __future__ import annotations

import datetime
import functools
import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from qmvae_core.data import DataError
from qmvae_neighbours.experiments import Best, Validation, Workshop, fit
from qmvae_neighbours.runoff.data import Runoff, load_runoff
from qmvae_neighbours.runoff.model import BackPropagation, DeepLSTM, Scale, indices, skill, squared_error


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


SMOKE = Settings(units=8, steps=4, steps_without_memory=4, check=2, short=2008, long=2007, seeds=(0,))
SETTINGS = {"smoke": SMOKE, "quick": Settings()}


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


def check_river(runoff: Runoff, settings: Settings) -> list[str]:
    """What a reader must know of the river. Raises DataError, before anything is trained, where nothing can be judged:

    years that the series does not have, years of training or a test whose runoff never changes, a dry flood month.
    """
    years = {f"the years from {first}": (datetime.date(first, 1, 1), settings.validation)
             for first in (settings.long, settings.short)}  # fmt: skip
    test = settings.test, datetime.date(settings.last + 1, 1, 1)
    for name, span in {**years, "the test": test}.items():
        days = runoff.values[runoff.between(*span)]
        if days.min() == days.max():
            raise DataError(f"the runoff of {name} is always {float(days[0]):g}: nothing can be learned or judged; "
                            "choose other years in the settings")  # fmt: skip
    for month in flood_months(runoff, settings):
        if not runoff.values[runoff.between(month, _next(month))].any():
            raise DataError(f"no water flows in the test days of {month.year}; choose other years in the settings")
    days = runoff.values[runoff.between(*test)]
    dry = int((days == 0).sum())
    return [f"{dry:,} of {len(days):,} test days are without flow and have no relative error"] if dry else []


def train(
    model: nn.Module, runoff: Runoff, first: int, settings: Settings, seed: int, name: str, workshop: Workshop
) -> tuple[Best, Scale]:
    """Fit on the years from `first`, a sequence each, and keep the weights that forecast the validation half-year best.

    Returns which weights those are, with their mean squared error, and the scale.
    """
    start = datetime.date(first, 1, 1)
    days = runoff.values[runoff.between(start, settings.validation)]
    scale = Scale(float(days.min()), float(days.max()))
    days = scale.normalised(days)
    checked = runoff.between(settings.validation, settings.test)
    before = scale.normalised(runoff.values[runoff.day(start) : checked.stop])[None]
    count = checked.stop - checked.start + 1  # with the day before the first, from which that is forecast

    def error(model: nn.Module) -> float:
        return float(squared_error(model(before)[:, -count:], before[:, -count:]) / (count - 1))

    def loss(generator: torch.Generator) -> Tensor:
        offset = int(torch.randint(settings.sequence, (), generator=generator))
        whole = (len(days) - offset) // settings.sequence * settings.sequence
        sequences = days[offset : offset + whole].view(-1, settings.sequence)
        return 1e4 * squared_error(model(sequences), sequences) / sequences.numel()

    steps = settings.steps_without_memory if isinstance(model, BackPropagation) else settings.steps
    validation = Validation(error, range(0, steps + 1, settings.check))
    what = {"name": name, "seed": seed, "settings": asdict(settings), "data": runoff.content_hash()}
    train = functools.partial(fit, loss=loss, steps=steps, learning_rate=settings.learning_rate, seed=seed, name=name)
    return workshop.trained(model, what, functools.partial(train, validation=validation)), scale


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
    notes = [*runoff.notes, *check_river(runoff, settings)]
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
            best, scale = train(model, runoff, first, settings, seed, f"{name}, seed {seed}", workshop)
            metrics["kept"].setdefault(name, {})[str(seed)] = {"step": best.step, "validation error": best.error}
            judge(name, seed, forecasts(model, scale, runoff, first))
    judge("persistence", settings.seeds[0], forecasts(nn.Identity(), Scale(0.0, 1.0), runoff, settings.short))
    identity = {
        "kind": runoff.kind, "days": len(runoff.values), "first": str(runoff.first), "notes": notes,
        "content_hash": runoff.content_hash(),
    }  # fmt: skip
    return identity, metrics, tensors
