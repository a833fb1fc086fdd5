"""The experiments of chapter B5: layers of memory, histories, simpler forecasts; and four stations."""

import datetime
import functools
import hashlib
import itertools
import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

from qmvae_core.data import DataError
from qmvae_neighbours.experiments import Best, Validation, Workshop, fit
from qmvae_neighbours.runoff.data import KNOWN_CONTENT, RIVER, Runoff, load_runoff
from qmvae_neighbours.runoff.model import BackPropagation, Recurrent, Scale, indices, skill, squared_error


@dataclass(frozen=True)
class Settings:
    """How long the trainings of chapter B5 are, and on which years.

    sequence: days that are unrolled in training, from a state of zeros. check: steps between two looks at the
    validation half-year; the weights that forecast it best are kept."""

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


@dataclass(frozen=True)
class Stations:
    """Of the four stations: rate and length nearer the source's; the seed of each is one above that of the last.

    river: of the plain recurrent network, which is judged on the river of the other networks, as they are."""

    stations: Settings = Settings(
        steps=2000, learning_rate=5e-4, check=100, short=2000, long=2000, after=2002, last=2002, seeds=(0,)
    )
    river: Settings = Settings()


SMOKE = Settings(units=8, steps=4, steps_without_memory=4, check=2, short=2008, long=2007, seeds=(0,))
SETTINGS = {"smoke": SMOKE, "quick": Settings()}
STATIONS = {"smoke": Stations(replace(SMOKE, short=2000, long=2000, after=2002, last=2002), SMOKE), "quick": Stations()}


def flood_months(runoff: Runoff, settings: Settings) -> dict[str, slice]:
    """The wettest month of each test year, after the half-year of validation: "2010-12" and so on -> its days."""
    years = range(settings.after, settings.last + 1)
    months = [datetime.date(year, month, 1) for year in years for month in range(1, 13)]
    ends = itertools.pairwise([*months, datetime.date(settings.last + 1, 1, 1)])
    spans = {f"{first:%Y-%m}": runoff.between(first, after) for first, after in ends if first >= settings.test}
    by_year = itertools.groupby(spans, key=lambda month: month[:4])
    wettest = [max(of, key=lambda month: float(runoff.values[spans[month]].mean())) for _, of in by_year]
    return {month: spans[month] for month in wettest}


def judged_days(runoff: Runoff, settings: Settings) -> slice:
    """From the day after the validation half-year to the last of the test years."""
    return runoff.between(settings.test, datetime.date(settings.last + 1, 1, 1))


def check_river(runoff: Runoff, settings: Settings) -> list[str]:
    """What a reader must know of the river. Raises DataError, before anything is trained, where nothing can be judged:

    years that the series does not have, years of training or a test whose runoff never changes, a dry flood month."""
    spans = {f"the years from {first}": runoff.between(datetime.date(first, 1, 1), settings.validation)
             for first in (settings.long, settings.short)} | {"the test": judged_days(runoff, settings)}  # fmt: skip
    for name, span in spans.items():
        days = runoff.values[span]
        if days.min() == days.max():
            raise DataError(f"the runoff of {name} is always {float(days[0]):g}: nothing can be learned or judged; "
                            "choose other years in the settings")  # fmt: skip
    for month, span in flood_months(runoff, settings).items():
        if not runoff.values[span].any():
            raise DataError(f"no water flows in the test days of {month[:4]}; choose other years in the settings")
    days = runoff.values[spans["the test"]]
    dry = int((days == 0).sum())
    return [f"{dry:,} of {len(days):,} test days are without flow and have no relative error"] if dry else []


def train(
    model: nn.Module, runoff: Runoff, first: int, settings: Settings, seed: int, name: str, workshop: Workshop
) -> tuple[Best, Scale]:
    """Fit on the years from `first`, a sequence each, and keep the weights that forecast the validation half-year best.

    Returns which weights those are, with their mean squared error, and the scale."""
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


def networks(settings: Settings) -> dict[str, tuple[Callable[..., nn.Module], int]]:
    """Name of each network of the chapter -> (what makes it of a generator, first year of its history)."""
    lstm = {n: functools.partial(Recurrent, n, settings.units) for n in settings.layers}
    named = {f"LSTM, {n} layer{'s' * (n > 1)}, short": (make, settings.short) for n, make in lstm.items()}
    last = settings.layers[-1]
    named[f"LSTM, {last} layers, long"] = lstm[last], settings.long
    return named | {"4-4-1": (BackPropagation, settings.short)}


def judged(
    runoff: Runoff, settings: Settings, made: Mapping, seeds: Sequence[int], workshop: Workshop
) -> tuple[dict, dict[str, Tensor]]:
    """Networks and persistence on a river, by the indices; and its days, with each forecast of the first seed."""
    metrics, drawn = defaultdict(lambda: defaultdict(dict)), {"observed": runoff.values}
    spans, test = flood_months(runoff, settings), judged_days(runoff, settings)

    def judge(name: str, seed: int, found: Tensor) -> None:
        of = {key: indices(found[days], runoff.values[days])._asdict() for key, days in (spans | {"": test}).items()}
        metrics["indices of all test days"][name][str(seed)] = of.pop("")
        metrics["indices"][name][str(seed)] = of
        metrics["skill"][name][str(seed)] = skill(found[test], runoff.values[test])
        drawn.setdefault(name, found)

    for name, (make, first) in made.items():
        for seed in seeds:
            model = make(generator=torch.Generator().manual_seed(seed))
            best, scale = train(model, runoff, first, settings, seed, f"{name}, seed {seed}", workshop)
            metrics["kept"][name][str(seed)] = {"step": best.step, "validation error": best.error}
            judge(name, seed, forecasts(model, scale, runoff, first))
    judge("persistence", seeds[0], forecasts(nn.Identity(), Scale(0.0, 1.0), runoff, settings.short))
    return metrics, drawn


def carry_out(settings: Settings, workshop: Workshop) -> tuple[dict, dict, dict[str, Tensor]]:
    """Chapter B5: networks of one and two layers, short and long histories, 4-4-1 and persistence, by the indices."""
    runoff = load_runoff(workshop.data_root)
    notes = [*runoff.notes, *check_river(runoff, settings)]
    metrics, drawn = judged(runoff, settings, networks(settings), settings.seeds, workshop)
    months = flood_months(runoff, settings).items()
    tensors = {f"{month}/{name}": values[days] for month, days in months for name, values in drawn.items()}
    identity = {
        "kind": runoff.kind, "days": len(runoff.values), "first": str(runoff.first), "notes": notes,
        "content_hash": runoff.content_hash(),
    }  # fmt: skip
    return identity, metrics, tensors


def carry_out_stations(settings: Stations, workshop: Workshop) -> tuple[dict, dict, dict[str, Tensor]]:
    """Chapter B5: LSTMs of one and two layers on four gauges, and the plain recurrent network on the river of the rest.

    Metrics by gauge, as those of `carry_out`; tensors: all test days."""
    rivers = {gauge: load_runoff(workshop.data_root, gauge) for gauge in KNOWN_CONTENT}
    chosen = {gauge: settings.river if gauge == RIVER else settings.stations for gauge in rivers}
    notes = {gauge: [*runoff.notes, *check_river(runoff, chosen[gauge])] for gauge, runoff in rivers.items()}
    metrics, tensors, hashes = {}, {}, {gauge: runoff.content_hash() for gauge, runoff in rivers.items()}
    for number, (gauge, runoff) in enumerate(rivers.items()):
        of, seeds = chosen[gauge], [number + seed for seed in chosen[gauge].seeds]
        made = {"RNN, short": (functools.partial(Recurrent, 1, of.units, memory=nn.RNN), of.short)}
        if gauge != RIVER:
            made = {name: network for name, network in networks(of).items() if re.match("LSTM.*short", name)}
        metrics[gauge], drawn = judged(runoff, of, made, seeds, workshop)
        tensors |= {f"{gauge}/{name}": values[judged_days(runoff, of)] for name, values in drawn.items()}
    identity = {
        "kind": next((runoff.kind for runoff in rivers.values() if runoff.kind != "real"), "real"),
        "notes": [f"{gauge}: {note}" for gauge, said in notes.items() for note in said],
        "gauges": hashes, "content_hash": hashlib.sha256("".join(hashes.values()).encode()).hexdigest(),
    }  # fmt: skip
    return identity, metrics, tensors
