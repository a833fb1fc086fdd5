"""What a page says first: short sentences that follow from the findings, for who reads no table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from qmvae_core.names import BEST
from qmvae_study import paper
from qmvae_study.evidence.records import Record
from qmvae_study.report import claims, tables, words
from qmvae_study.report.intervals import Interval
from qmvae_study.rows import SCALES, WITHOUT_LOSS

WORDS = {
    "agrees": "agrees with the paper's",
    "below": "is below the paper's",
    "above the paper": "is above the paper's",
}


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def long_runs(records: Iterable[Record], reading: str) -> list[Record]:
    """The finished runs of a reading that have the paper's length and data."""
    return claims.runs_of([record for record in records if record.profile == "paper" and record.real], reading)


def numbers(records: Sequence[Record], reading: str, columns: Iterable[str]) -> str:
    """Q-MVAE's numbers in some columns at the paper's length, each with its verdict, or that there is no such run."""
    group = long_runs(records, reading)
    if not group:
        return f"{words.reading(reading)}: no run of the paper's length yet."
    verdicts, shown = tables.row_verdicts(group), []
    for column in columns:
        values = next(iter(tables.cell_values(group, paper.CELLS[column]).values()))
        ours, verdict = Interval.spread(list(values.values())).plus_minus(), tables.spelled(verdicts[column])
        verb = WORDS.get(verdict, f"({verdict}) stands beside the paper's")
        shown.append(f"{column} {ours} {verb} {paper.ROWS['qmvae'][column]}")
    steps = max(record.steps for record in group)
    return f"{words.reading(reading)}, {words.count(len(group), 'run')} of {steps:,} steps: {'; '.join(shown)}."


def rulings(records: Sequence[Record], reading: str, keys: Mapping[str, str]) -> str:
    """The verdicts on claims. keys: of each claim -> what it is about, which is said where the verdicts differ."""
    found, about = claims.findings(records, reading), {}
    for key, name in keys.items():
        about.setdefault(str(found[key]), []).append(name)
    return "; ".join(said if len(about) == 1 else f"{', '.join(names)}: {said}" for said, names in about.items())


def places(records: Sequence[Record], reading: str, columns: Iterable[str]) -> str:
    """Which place a reading of Q-MVAE takes among the compared models, where most of them have runs of one length."""
    group = tables.widest(records)
    own, others = claims.runs_of(group, reading), claims.rivals(group)
    if not own or not others:
        return "no other model has a run of equal length"
    shown = []
    for column in columns:
        means = {name: _mean(runs, column) for name, runs in {reading: own, **others}.items()}
        there = {name: mean for name, mean in means.items() if mean is not None}
        place = 1 + sum(mean > there[reading] for mean in there.values())
        shown.append(f"{place} of {len(there)} in {column} ({there[reading]:.1f})")
    marks = ", stalled" if all(record.stalled for record in own) else ""
    return f"{words.count(len(own), 'run')} of {own[0].steps:,} steps{marks}: place {', '.join(shown)}"


def _mean(runs: Sequence[Record], column: str) -> float | None:
    values = tables.cell_values(runs, paper.CELLS[column])
    return float(np.mean(list(next(iter(values.values())).values()))) if values else None


def loss_adds(records: Sequence[Record], reading: str, columns: Iterable[str]) -> str:
    """What the quadruplet loss adds to a reading's numbers in points, by the longest runs that have it and lack it."""
    for group in tables.by_profile(records):
        own, without = (claims.runs_of(group, name) for name in (reading, WITHOUT_LOSS.format(reading)))
        gains = {column: _gain(own, without, paper.CELLS[column]) for column in columns}
        if all(gains.values()):
            shown = ", ".join(f"{np.mean(gain):+.1f} in {column}" for column, gain in gains.items())
            seeds = words.count(len(next(iter(gains.values()))), "seed")
            return f"points after {own[0].steps:,} steps ({seeds}): {shown}"
    return "no run with it has a run of equal length without it"


def _gain(own: Sequence[Record], without: Sequence[Record], path: Sequence[str]) -> list[float]:
    pairs = claims.paired(tables.cell_values(own, path), tables.cell_values(without, path))
    return list(next(iter(pairs.values()), {}).values())


def tally(records: Sequence[Record], reading: str) -> str:
    """How many of Q-MVAE's numbers in both tables agree, are above, below or undecided, at the paper's length."""
    group = long_runs(records, reading)
    if not group:
        return ""
    found = Counter(tables.spelled(each).split(":")[0] for each in tables.row_verdicts(group).values())
    return ", ".join(f"{number} {word}" for word, number in found.most_common())


def scales(hunted: Sequence[Record], columns: Iterable[str]) -> str:
    """What the hunt found of the printed equations with the printed screening, by the scale of their likelihood."""
    group = [record for record in tables.in_order(hunted) if record.done and record.reading in SCALES]
    if not group:
        return "the hunt has no run of it yet"
    by_scale = sorted((float(record.reading.split("=")[-1]), record) for record in group if record.seed == 0)
    shown = []
    for scale, record in by_scale:
        values = (f"{record.share(*paper.CELLS[column], code='mean').per_cent:.1f}" for column in columns)
        shown.append(f"{' / '.join(values)} at {scale:g}")
    return f"after {group[0].steps:,} steps, on validation digits, by the scale of the likelihood: {', '.join(shown)}"


def opening(records: Sequence[Record], hunted: Sequence[Record], keys: Mapping[str, str]) -> str:
    """Answers about a table, in Markdown: do the numbers come out, is Q-MVAE ahead, and what does its loss add.

    hunted: records of the hunt. keys: of the claims that compare Q-MVAE with the others -> the column.
    """
    columns = list(keys.values())
    return "\n".join(
        [
            *(f"- **Do the numbers come out?** {numbers(records, name, columns)}" for name in claims.READINGS[::-1]),
            f"- **Could the printed text do it?** {' / '.join(columns)} {scales(hunted, columns)}.",
            f"- **Is Q-MVAE ahead of the others?** {_sentence(rulings(records, BEST, keys))}"
            f" So far {places(records, BEST, columns)}.",
            f"- **What does the quadruplet loss add?** {_sentence(loss_adds(records, BEST, columns))}",
        ]
    )
