"""Deep LSTM networks that forecast the next day's runoff of a river, beside what they are compared with.

Source: chapter 2 of a thesis on deep representation learning, whose equations have the numbers (2-3) to (2-21). Its
gauges on the Yangtze are not public; here are five of CAMELS-US (Addor et al. 2017, doi:10.5065/D6G73C3Q)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn


def lstm_step(x: Tensor, hidden: Tensor, cell: Tensor, weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Equations (2-7) to (2-12), and (2-14) to (2-19) for a layer of several: one day of a long short-term memory.

    x: (batch, inputs). hidden, cell: (batch, units). weights: (4, units, units + inputs), bias: (4, units), both in the
    order forget, input, output, new. Returns the next (hidden, cell). The output gate sees the new cell, as in every
    implementation; (2-12) and (2-19) print the index of the old one."""
    gates = torch.einsum("guv,bv->gbu", weights, torch.cat([hidden, x], dim=-1)) + bias[:, None]
    forget, enter, leave = gates[:3].sigmoid()
    cell = forget * cell + enter * gates[3].tanh()
    return leave * cell.tanh(), cell


class Recurrent(nn.Module):
    """Layers of memory and a linear output: every day a forecast of the next.

    memory: nn.LSTM, with the output (2-20); nn.RNN is the A of (2-3) to (2-5), whose output W has no constant."""

    def __init__(
        self, layers: int = 2, units: int = 128, generator: torch.Generator | None = None, memory: type = nn.LSTM
    ):
        super().__init__()
        self.memory = memory(1, units, num_layers=layers, batch_first=True)
        self.output = nn.Linear(units, 1, bias=memory is nn.LSTM)
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
        """As Recurrent.forward; before the first day stands its own value."""
        before = values[:, :1].expand(-1, self.DAYS - 1)
        windows = torch.cat([before, values], dim=1).unfold(1, self.DAYS, 1)
        return self.layers(windows).squeeze(-1)


def squared_error(forecasts: Tensor, values: Tensor) -> Tensor:
    """Equations (2-6) and (2-21): Σ (forecast of day t + 1 - value of day t + 1)²; both (batch, days)."""
    return (forecasts[:, :-1] - values[:, 1:]).square().sum()


class Indices(NamedTuple):
    """The five indices of the thesis, in per cent but for `m_printed`.

    m: mean of (y - x) / x; the thesis prints a sum of absolute values, `m_printed`, while its tables have negative m.
    s: root of Σ (y - x)² / (n - 1), relative to the mean of x. largest, smallest: the largest positive and negative
    relative error, 0 where there is none; range: their difference. A day of x = 0 has none: it counts in s alone."""

    m: float
    s: float
    largest: float
    smallest: float
    range: float
    m_printed: float


def indices(forecast: Sequence[float] | Tensor, observed: Sequence[float] | Tensor) -> Indices:
    """The indices of a stretch of days; forecast, observed: (days,), at least two, some of them with flow.

    Raises ValueError for other shapes, observations below zero or without any flow, and what is not a finite number."""
    y, x = (torch.as_tensor(each, dtype=torch.float64) for each in (forecast, observed))
    if y.shape != x.shape or x.ndim != 1 or len(x) < 2:
        raise ValueError(f"forecast and observed must be one row of at least two days, got {y.shape} and {x.shape}")
    _check_finite(y, x)
    if (x < 0).any() or not x.any():
        raise ValueError("relative errors need observations of zero and more, and one that is positive")
    flows = x > 0
    relative = (100 * (y - x) / x)[flows]
    largest, smallest = max(0.0, float(relative.max())), min(0.0, float(relative.min()))
    spread = 100 * float(((y - x).square().sum() / (len(x) - 1)).sqrt() / x.mean())
    printed = float((y - x).abs().div(x)[flows].sum())
    return Indices(float(relative.mean()), spread, largest, smallest, largest - smallest, printed)


def _check_finite(forecast: Tensor, observed: Tensor) -> None:
    for name, values in (("forecast", forecast), ("observation", observed)):
        wrong = values[~values.isfinite()]
        if len(wrong):
            raise ValueError(f"{len(wrong)} of {len(values)} days have the {name} {float(wrong[0])}: nothing is judged")


def skill(forecast: Tensor, observed: Tensor) -> float:
    """1 - Σ (y - x)² / Σ (yesterday - x)², from the second day on: 0 for persistence, 1 for no error; (days,).

    Raises ValueError for what is not finite, and for observations that never change, where persistence has no error."""
    y, x = forecast[1:].double(), observed.double()
    _check_finite(y, x)
    changes = (x[1:] - x[:-1]).square().sum()
    if changes == 0:
        raise ValueError("skill needs observations that change: persistence is without an error")
    return float(1 - (y - x[1:]).square().sum() / changes)


@dataclass(frozen=True)
class Scale:
    """A linear map of runoff to about [0, 1], by the lowest and the highest value of the training days.

    Raises ValueError where the two are not apart."""

    low: float
    high: float

    def __post_init__(self):
        if not self.low < self.high:
            raise ValueError(f"a scale needs values that are apart, not {self.low:g} to {self.high:g}")

    def normalised(self, values: Tensor) -> Tensor:
        """(values - low) / (high - low)."""
        return (values - self.low) / (self.high - self.low)

    def runoff(self, values: Tensor) -> Tensor:
        """The inverse."""
        return values * (self.high - self.low) + self.low
