"""What a page says first: short sentences that follow from the findings, for who reads no table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

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
# What is said of the numbers of Q-MVAE -> how their verdicts begin.
REACHED = {
    "matches": ("agrees",), "exceeds": ("above",), "falls short of": ("below",),
    "does not decide": ("undecided", "depends"),
}  # fmt: skip
NO_RUN = "has no run of the paper's length yet"
AHEAD = ("above-all-mnist-to-svhn", "above-all-svhn-to-mnist")  # the claims on cross generation


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _all(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def long_runs(records: Iterable[Record], reading: str) -> list[Record]:
    """The finished runs of a reading that have the paper's length and data."""
    return claims.runs_of([record for record in records if record.profile == "paper" and record.real], reading)


def numbers(records: Sequence[Record], reading: str, columns: Iterable[str]) -> str:
    """Q-MVAE's numbers in some columns at the paper's length, each with its verdict, or that there is no such run."""
    group = long_runs(records, reading)
    if not group:
        return f"{words.reading(reading)} {NO_RUN}."
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
    words_of = {said.replace(": ", ", ", 1): names for said, names in about.items()}
    return "; ".join(said if len(about) == 1 else f"{', '.join(names)}: {said}" for said, names in words_of.items())


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


def scales(hunted: Sequence[Record], columns: Sequence[str]) -> str:
    """What the hunt found of the printed equations with the printed screening, by the scale of their likelihood."""
    found = [record for record in hunted if record.done and record.seed == 0 and record.reading in SCALES]
    if not found:
        return "The hunt has no run of it yet."
    said = [paper.ROWS["qmvae"][column].mean for column in columns]
    shown, reached = [], []
    for scale, record in sorted((float(record.reading.split("=")[-1]), record) for record in found):
        values = [record.share(*paper.CELLS[column], code="mean").per_cent for column in columns]
        shown.append(f"{_slashed(values)} at {scale:g}{' (stalled)' * record.stalled}")
        reached += [f"{scale:g}"] if all(ours >= theirs for ours, theirs in zip(values, said, strict=True)) else []
    where = f"it gets there on validation digits at scale {_all(reached)}" if reached else "it gets there at no scale"
    return (
        f"With its screening {where} of the likelihood, which the paper leaves open: {' / '.join(columns)} "
        f"{', '.join(shown)}; the paper has {_slashed(said)}. One run each of {found[0].steps:,} steps, no test digits."
    )


def _slashed(values: Iterable[float]) -> str:
    return " / ".join(f"{value:.1f}" for value in values)


def own_numbers(records: Sequence[Record]) -> pd.DataFrame:
    """Q-MVAE's row of both tables: a row for each number, the paper's and ours by each reading at the paper's length.

    The cells of ours are HTML of two lines, number and verdict (`tables.in_html`).
    """
    shown = {"the paper": {column: str(said) for column, said in paper.ROWS["qmvae"].items()}}
    for name in claims.READINGS[::-1]:
        group = long_runs(records, name)
        verdicts = tables.row_verdicts(group) if group else {}
        for column in paper.ROWS["qmvae"]:
            cell = "no run yet"
            if group:
                values = next(iter(tables.cell_values(group, paper.CELLS[column]).values()))
                number = Interval.spread(list(values.values())).plus_minus()
                cell = f"<strong>{number}</strong><br>{words.marked(tables.spelled(verdicts[column]))}"
            shown.setdefault(words.reading(name), {})[column] = cell
    return pd.DataFrame(shown)


def _reached(group: Sequence[Record]) -> dict[str, list[str]]:
    """Word of REACHED -> the numbers of Q-MVAE of which these runs of the paper's length say it."""
    found: dict[str, list[str]] = {word: [] for word in REACHED}
    for column, each in tables.row_verdicts(group).items() if group else ():
        said = tables.spelled(each)
        word = next((word for word, beginnings in REACHED.items() if said.startswith(beginnings)), "does not decide")
        found[word].append(words.CELLS.get(column, column))
    return {word: columns for word, columns in found.items() if columns}


def sentence(records: Sequence[Record]) -> str:
    """The book in a sentence or two: what reproduces by each reading, what does not, and whether Q-MVAE is ahead."""
    parts = []
    for name in claims.READINGS[::-1]:
        found = _reached(long_runs(records, name))
        shown = ", ".join(f"{word} {_all(columns)}" for word, columns in found.items())
        parts.append(f"{words.reading(name)} {shown or NO_RUN}")
    ahead = rulings(records, BEST, dict(zip(AHEAD, paper.TABLE1_COLUMNS, strict=True)))
    return f"Of the paper's five numbers, {'; '.join(parts)}. Ahead of MVAE, MMVAE and DMVAE? {_sentence(ahead)}"


def verdict(records: Sequence[Record], hunted: Sequence[Record]) -> dict[str, str]:
    """The answers to the book's questions: does it reproduce, is Q-MVAE ahead, what does its loss add."""
    columns, said = list(paper.TABLE1_COLUMNS), []
    for name in claims.READINGS[::-1]:
        group = long_runs(records, name)
        found = "; ".join(f"{word} {', '.join(cells)}" for word, cells in _reached(group).items())
        runs = f" ({words.count(len(group), 'run')} of {group[0].steps:,} steps)" if group else ""
        said.append(f"{words.reading(name)} {found or NO_RUN}{runs}.")
    keys = dict(zip(AHEAD, columns, strict=True))
    return {"Does it reproduce?": " ".join(said)} | _compared(records, hunted, keys)


def opening(records: Sequence[Record], hunted: Sequence[Record], keys: Mapping[str, str]) -> dict[str, str]:
    """Answers about a table: do the numbers come out, is Q-MVAE ahead, and what does its loss add.

    hunted: records of the hunt. keys: of the claims that compare Q-MVAE with the others -> the column.
    """
    said = (numbers(records, name, list(keys.values())) for name in claims.READINGS[::-1])
    return {"Do the numbers come out?": " ".join(said)} | _compared(records, hunted, keys)


def _compared(records: Sequence[Record], hunted: Sequence[Record], keys: Mapping[str, str]) -> dict[str, str]:
    columns = list(keys.values())
    ahead = f"{_sentence(rulings(records, BEST, keys))} So far {places(records, BEST, columns)}."
    return {
        "Could the printed text do it?": scales(hunted, columns),
        "Is Q-MVAE ahead of the others?": ahead,
        "What does the quadruplet loss add?": _sentence(loss_adds(records, BEST, columns)),
    }


def in_markdown(answers: Mapping[str, str]) -> str:
    """Questions and their answers as a list."""
    return "\n".join(f"- **{question}** {answer}" for question, answer in answers.items())


def panels(runs: Mapping[str, Record], names: Sequence[str], kind: str) -> str:
    """How much of a figure's panels is read rightly, in Markdown, a line a model. kind: as of `Record.panel`."""
    lines = []
    for name in names:
        if name not in runs:
            lines.append(f"- {words.reading(name)}: no run yet.")
            continue
        shares = [
            f"{words.direction(way)} {100 * runs[name].panel(kind, *way.split('->')).right:.0f}"
            for way in runs[name].directions
        ]
        lines.append(f"- **{tables.called([runs[name]])}**, {runs[name].steps:,} steps: {', '.join(shares)} of 100.")
    if len({record.steps for record in runs.values()}) > 1:
        lines.append(
            "- The runs differ in length, so these lines do not compare the models; below are runs of equal length."
        )
    return "\n".join(["How many images show the digit of their condition, as the judge reads them:", "", *lines])


def dimensions(record: Record) -> int:
    """How many private dimensions a run has, in the modality that has fewer."""
    return min(len(record.private_information(modality)) for modality in ("mnist", "svhn"))


def traversals(*records: Record) -> str:
    """How much the private dimensions of runs hold, and how often the digit stays when they move, in Markdown."""
    lines = []
    for record in {record.id: record for record in records}.values():
        said = []
        for way in record.directions:
            nats, panel = record.private_information(way.split("->")[1]), record.panel("traversal", *way.split("->"))
            said.append(
                f"{words.direction(way)} {100 * panel.right:.0f} % of the images keep the digit, "
                f"{sum(nats):.1f} nats in {sum(each > 0.01 for each in nats)} of {len(nats)} dimensions"
            )
        lines.append(f"- **{tables.called([record])}**, {record.steps:,} steps: {'; '.join(said)}.")
    return "\n".join(["Does the digit stay while a private dimension moves, and how much do they hold?", "", *lines])
