"""Daily runoff of a river from a CAMELS-US file, checked, and a stand-in for it."""

import datetime
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from qmvae_core.data import STAND_IN, DataError
from qmvae_neighbours.series import content_notes, lines_of, number, series_file

RIVER = "01031500"  # the gauge of all networks but those of the table of stations
FILE = f"river/usgs_{RIVER}_daily.txt"  # below a data root
KNOWN_CONTENT = {  # gauge -> hash of what the committed records are of
    RIVER: "9fa4f7f850a9d29d7074b37fb529f12ea5b401bc0d9a6f3438b765a26f713567",
    "01022500": "9ad3b7526870580ba46cd65fc516c55e89a0479f7c95a8e6b144c9a6adee3b84",
    "01547700": "01cf9707bb7764fea296807419711a2602bbc75d79d1af338544eef8acc09c4a",
    "02064000": "46621bb59fdc8b9474d9cf3ec700efe9859388cb278a30dfff19cad3dd21bd86",
    "03015500": "995c5dcaebea08a7728c80624ac54861dd66fc2d9945092b11d82a84c1123c01",
}
DATE = ("YR", "MNTH", "DY")
GAUGE_FILE = ("GAUGE", *DATE, "FLOW", "FLAG")  # the columns of usgs_streamflow, whose files have no header
UNITS = {"OBS_RUN": "mm a day", "FLOW": "cubic feet a second"}
MOST = {"OBS_RUN": 2e3, "FLOW": 1e7}  # more than the most rain of a day and the largest river: a mark, no measurement
FLAGS = ("A", "A:e")  # approved; approved, and estimated. M is for missing
REMEDY = "get the file anew"


class Runoff(NamedTuple):
    """Daily runoff without gaps. first: the first day. values: (days,) in `unit`. kind: real or stand-in.

    notes: sentences for a reader, on what was left out or is not known."""

    first: datetime.date
    values: Tensor
    kind: str
    notes: tuple[str, ...] = ()
    unit: str = UNITS["OBS_RUN"]

    def day(self, date: datetime.date) -> int:
        """The index of a date, at most the day after the last. Raises DataError for another day."""
        index = (date - self.first).days
        if not 0 <= index <= len(self.values):
            last = self.first + datetime.timedelta(days=len(self.values) - 1)
            raise DataError(f"the runoff goes from {self.first} to {last} and has no {date}; choose other years")
        return index

    def content_hash(self) -> str:
        """SHA-256 of the first day and the values."""
        return hashlib.sha256(f"{self.first}".encode() + self.values.numpy().tobytes()).hexdigest()

    def between(self, first: datetime.date, after: datetime.date) -> slice:
        """The days from `first` to the one before `after`."""
        return slice(self.day(first), self.day(after))


class _Day(NamedTuple):
    """A line of a file. fault: why its value cannot be judged, if it cannot."""

    where: str
    gauge: str
    date: datetime.date
    value: float | None
    flag: str
    fault: str


def read_runoff(path: Path, longest: bool = False) -> Runoff:
    """The observed runoff of a CAMELS-US file: of model_output, with a header, or a gauge's of usgs_streamflow.

    longest: where days are missing or cannot be judged (a mark such as -999, NaN, a flag of a value that is not
    approved), take the longest stretch without one, and say in `notes` how many days are left out.
    Raises DataError, with file and line, for such days without `longest`, and for a file that is doubtful as a whole:
    other columns or fields, days twice or out of order, two gauges, a last line that was cut."""
    lines = lines_of(path, REMEDY)
    header = lines[0].split()
    of_gauge = bool(header) and header[0].isdigit()
    names, column = (GAUGE_FILE, "FLOW") if of_gauge else (header, "OBS_RUN")
    for name in (*DATE, column):
        if names.count(name) != 1:
            wrong = f"two columns {name}" if name in names else f"no column {name}"
            raise DataError(f"{path} has {wrong}; its first line must name {', '.join(DATE)} and {column} once each")
    others = [len(line) for line in lines[1:-1] if line.strip()]
    if lines[-1] and (not others or len(lines[-1]) < min(others)):
        raise DataError(f"{path}, line {len(lines)}, is short and has no end: the file was cut; {REMEDY}")
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    days = [_day(f"{path}, line {n}", names, line.split(), column) for n, line in numbered[0 if of_gauge else 1 :]]
    kept = max(_stretches(days, longest), key=len)
    if not kept:
        raise DataError(f"{path} has no day that can be judged; {REMEDY}")
    total, estimated = (days[-1].date - days[0].date).days + 1, sum(day.flag == "A:e" for day in kept)
    left = f"{total - len(kept):,} of {total:,} days are left out; the rest is the longest stretch without a gap"
    notes = (left,) * (len(kept) < total)
    notes += (f"{estimated:,} of {len(kept):,} days are estimates that were approved",) * (estimated > 0)
    return Runoff(kept[0].date, torch.tensor([day.value for day in kept]), "real", notes, UNITS[column])


def _day(where: str, names: Sequence[str], fields: Sequence[str], column: str) -> _Day:
    if len(fields) != len(names):
        raise DataError(f"{where}, cannot be read: {len(fields)} fields in place of {len(names)}; {REMEDY}")
    named = dict(zip(names, fields, strict=True))
    try:
        date = datetime.date.fromisoformat("-".join(named[name].zfill(2) for name in DATE))
    except ValueError as error:
        raise DataError(f"{where}, cannot be read: {error}; {REMEDY}") from None
    value, flag, fault = number(named[column]), named.get("FLAG", FLAGS[0]), ""
    if value is None or not 0 <= value <= MOST[column]:
        fault = f"a runoff of {named[column] if value is None else value} cannot be"
    elif flag not in FLAGS:
        fault = f"the flag {flag} is neither {' nor '.join(FLAGS)}"
    return _Day(where, named.get("GAUGE", ""), date, value, flag, fault)


def _stretches(days: Sequence[_Day], longest: bool) -> list[list[_Day]]:
    """The days cut at each gap, which is an error unless the longest stretch is wanted."""
    stretches: list[list[_Day]] = [[]]
    for before, day in zip([None, *days], days, strict=False):
        fault, choice = day.fault, ", or take the longest stretch without a gap: read_runoff(path, longest=True)"
        if before and day.date - before.date != datetime.timedelta(days=1):
            fault = f"{day.date} does not follow {before.date}"
        if before and day.gauge != before.gauge:
            fault = f"gauge {day.gauge} stands among days of gauge {before.gauge}"
        doubtful = before and (day.date <= before.date or day.gauge != before.gauge)
        if fault and (doubtful or not longest):
            raise DataError(f"{day.where}: {fault}; {REMEDY}{'' if doubtful else choice}")
        if fault:
            stretches.append([])
        if not day.fault:
            stretches[-1].append(day)
    return stretches


def standin_runoff(seed: int = 0) -> Runoff:
    """Thirty-four made-up years: storms at random, more of them in spring, and water that leaves slowly."""
    first, last = datetime.date(1980, 10, 1), datetime.date(2015, 1, 1)
    days, generator = np.arange((last - first).days), np.random.default_rng(seed)
    season = 1.2 + np.sin(2 * np.pi * (days + 180) / 365.25)
    storms = generator.gamma(0.6, 4.0, len(days)) * (generator.random(len(days)) < 0.15) * season
    water, values = 5.0, []
    for storm in storms:
        water = 0.93 * water + storm
        values.append(0.1 + 0.07 * water)
    values, note = torch.tensor(values, dtype=torch.float32), "The runoff is made up: no evidence about any river"
    return Runoff(first, values, STAND_IN, (note,))


def load_runoff(root: str | None = None, gauge: str = RIVER) -> Runoff:
    """The runoff of a known gauge below a data root, or the stand-in where the root has none (`series_file`)."""
    path = series_file(root, FILE if gauge == RIVER else f"river/usgs_streamflow/{gauge}_streamflow_qc.txt")
    if path is None:
        return standin_runoff([*KNOWN_CONTENT].index(gauge))
    runoff = read_runoff(path)
    return runoff._replace(notes=(*runoff.notes, *content_notes(runoff.content_hash(), KNOWN_CONTENT[gauge])))
