"""What a page says first: short sentences that follow from the findings, for who reads no table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from qmvae_core.names import BEST, TITLES
from qmvae_study import paper
from qmvae_study.evidence.records import Record
from qmvae_study.report import claims, tables, words
from qmvae_study.report.intervals import Interval, Says, Verdict
from qmvae_study.report.rules import LEAST_SEEDS
from qmvae_study.rows import BASELINES, SCALES, WITHOUT_LOSS

# What the verdict on one number of Q-MVAE says -> of the number itself, and of all numbers with that verdict.
WORDS = {Says.HOLDS: "agrees with", Says.FAILS: "is below", Says.ABOVE: "is above"}
REACHED = {Says.HOLDS: "matches", Says.ABOVE: "exceeds", Says.FAILS: "falls short of"}
NO_RUN = "has no run of the paper's length yet, and no three of a shorter one"
AHEAD = ("above-all-mnist-to-svhn", "above-all-svhn-to-mnist")  # the claims on cross generation


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _all(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


class Reach(NamedTuple):
    """How far a reading of Q-MVAE comes. runs: those that have the say. verdicts: column -> that on its number.

    leans: whether the runs are shorter than the paper's, so that each verdict only leans. failed: how many more failed.
    """

    runs: Sequence[Record]
    verdicts: dict[str, Verdict]
    leans: bool
    failed: int

    @property
    def length(self) -> str:
        """How many runs of how many steps, and how many of them stalled or failed."""
        counts = {"stalled": sum(record.stalled for record in self.runs), "failed": self.failed}
        marks = "".join(f", {count} {word}" for word, count in counts.items() if count)
        return f"{words.count(len(self.runs), 'run')} of {self.runs[0].steps:,} steps{marks}"

    @property
    def weight(self) -> str:
        """The same, and what such runs can say."""
        return f"{self.length}{', which only lean' * self.leans}"

    def said(self) -> str:
        """Which numbers it matches, exceeds and falls short of, in a clause."""
        found: dict[str, list[str]] = {}
        for column, verdict in self.verdicts.items():
            word = REACHED.get(verdict.says, "leaves undecided")
            found.setdefault(word, []).append(words.CELLS.get(column, column))
        order = (*REACHED.values(), "leaves undecided")
        return ", ".join(f"{word} {_all(found[word])}" for word in order if word in found)

    def number(self, column: str) -> tuple[str, str]:
        """Mean and standard deviation over the seeds, and the harness that measured them."""
        judge, by_seed = next(iter(tables.cell_values(self.runs, paper.CELLS[column]).items()))
        return Interval.spread(list(by_seed.values())).plus_minus(), judge


def reach(records: Sequence[Record], reading: str) -> Reach | None:
    """How far a reading comes, by the verdicts of the ledger and the runs that have the say there (`claims.findings`).

    None where these are too few for a verdict, and shorter than the paper's. records: as of the ledger.
    """
    found = claims.findings(records, reading)
    cells = {column: found[claims.cell_key("qmvae", column)] for column in paper.CELLS}
    runs = next(iter(cells.values())).used
    leans = bool(runs) and runs[0].profile != "paper"
    if not runs or not all(record.real for record in runs) or (leans and len(runs) < LEAST_SEEDS):
        return None
    failed = sum(not r.done and (r.reading, r.profile) == (reading, runs[0].profile) for r in records)
    return Reach(runs, {column: claims.leaning(each.verdict) for column, each in cells.items()}, leans, failed)


def numbers(records: Sequence[Record], reading: str, columns: Iterable[str]) -> str:
    """Q-MVAE's numbers in some columns, each with its verdict, or that there is no run to judge."""
    found = reach(records, reading)
    if not found:
        return f"{words.reading(reading)} {NO_RUN}."
    shown = []
    for column in columns:
        verdict, said = found.verdicts[column], paper.ROWS["qmvae"][column]
        verb = WORDS.get(verdict.says, f"({verdict.says if found.leans else verdict}) stands beside")
        number, judge = found.number(column)
        shown.append(f"{column} {number} by {judge} {verb} the paper's {said}")
    return f"{words.reading(reading)} ({found.weight}): {'; '.join(shown)}."


def rulings(records: Sequence[Record], reading: str, keys: Mapping[str, str]) -> str:
    """The verdicts on claims. keys: of each claim -> what it is about, which is said where the verdicts differ."""
    found, about = claims.findings(records, reading), {}
    for key, name in keys.items():
        about.setdefault(str(found[key]), []).append(name)
    words_of = {said.replace(": ", ", ", 1): names for said, names in about.items()}
    return "; ".join(said if len(about) == 1 else f"{', '.join(names)}: {said}" for said, names in words_of.items())


def places(records: Sequence[Record], reading: str, columns: Iterable[str]) -> str:
    """Which place a reading of Q-MVAE takes among the compared models by runs of one length.

    By the length at which most models have three seeds, and then at which most have runs.
    """
    lengths = [(claims.runs_of(group, reading), claims.rivals(group)) for group in tables.by_profile(records)]

    def known(length: tuple[Sequence[Record], Mapping[str, Sequence[Record]]]) -> tuple[int, int]:
        own, others = length
        enough = sum(len(runs) >= LEAST_SEEDS for runs in others.values())
        return (enough if len(own) >= LEAST_SEEDS and enough > 1 else 0, len(others)) if own else (0, 0)

    own, others = max(lengths, key=known)
    if not own or not others:
        return "no other model has a run of equal length"
    shown = []
    for column in columns:
        values = {
            name: tables.cell_values(runs, paper.CELLS[column]) for name, runs in {reading: own, **others}.items()
        }
        values = {name: by_judge for name, by_judge in values.items() if by_judge}
        judge = next(judge for judge in values[reading] if all(judge in each for each in values.values()))
        means = {name: np.mean(list(by_judge[judge].values())) for name, by_judge in values.items()}
        place = 1 + sum(mean > means[reading] for mean in means.values())
        shown.append(f"{place} of {len(means)} in {column} ({means[reading]:.1f} by {judge})")
    marks = ", stalled" if all(record.stalled for record in own) else ""
    lacking = [TITLES[name] for name in BASELINES if name not in others]
    lacks = f"; {_all(lacking)} {'has' if len(lacking) == 1 else 'have'} no run of this length" if lacking else ""
    return f"{words.count(len(own), 'run')} of {own[0].steps:,} steps{marks}: place {', '.join(shown)}{lacks}"


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
    where = f"at scale {_all(reached)}" if reached else "at no scale"
    return (
        f"With its screening it is as high as the paper in {_all(columns)} {where} of the likelihood, which is left "
        f"open: {', '.join(shown)}; the paper has {_slashed(said)}. One run each of {found[0].steps:,} steps, on "
        "digits held out of training and no test digits, so without a verdict."
    )


def _slashed(values: Iterable[float]) -> str:
    return " / ".join(f"{value:.1f}" for value in values)


def own_numbers(records: Sequence[Record]) -> pd.DataFrame:
    """Q-MVAE's row of both tables: a row for each number, the paper's and ours by each reading, as far as it `reach`es.

    The cells of ours are HTML of three lines, number, verdict and who read it, and their names of two, reading and
    length (`tables.in_html`).
    """
    shown = {"the paper": {column: str(said) for column, said in paper.ROWS["qmvae"].items()}}
    for name in claims.READINGS:
        found = reach(records, name)
        title = f"{words.reading(name)}<br>{found.length}" if found else words.reading(name)
        shown[title] = dict.fromkeys(paper.ROWS["qmvae"], "no run yet")
        for column, verdict in found.verdicts.items() if found else ():
            number, judge = found.number(column)
            leans = "leans: " * (found.leans and verdict.says in REACHED)
            said = words.marked(tables.spelled(verdict._replace(why="") if found.leans else verdict))
            by = judge.replace("harness", "judge" if column in paper.TABLE1_COLUMNS else "classifier")
            shown[title][column] = f"<strong>{number}</strong><br>{leans}{said}<br>{by}"
    return pd.DataFrame(shown)


def sentence(records: Sequence[Record]) -> str:
    """The book in a sentence or two: how many numbers each reading reaches and misses, and whether Q-MVAE is ahead."""
    parts = []
    for name in claims.READINGS:
        found = reach(records, name)
        parts.append(f"{words.reading(name)} {_counted(found) if found else NO_RUN}")
    ahead = rulings(records, BEST, dict(zip(AHEAD, paper.TABLE1_COLUMNS, strict=True)))
    asked = "Is it ahead of MVAE, MMVAE and DMVAE?"
    return f"Of the paper's five numbers, {'; '.join(parts)}. {asked} {_sentence(ahead)}"


def _counted(found: Reach) -> str:
    """How many numbers are reached, missed and open, by name where they are not open; and by what runs."""
    sides = {"reaches": (Says.HOLDS, Says.ABOVE), "misses": (Says.FAILS,)}
    said, left = [], dict(found.verdicts)
    for verb, says in sides.items():
        columns = [words.CELLS.get(column, column) for column, each in found.verdicts.items() if each.says in says]
        left = {column: each for column, each in left.items() if each.says not in says}
        said += [f"{verb} {words.number(len(columns))} ({', '.join(columns)})"] if columns else []
    said += [f"leaves {words.number(len(left))} open"] if left else []
    length = f"after {found.runs[0].steps:,} steps"
    weight = f"{length}, fewer than the paper's, so provisionally" if found.leans else f"{length}, the paper's length"
    return f"{_all(said)} {weight}"


def verdict(records: Sequence[Record], hunted: Sequence[Record]) -> dict[str, str]:
    """The answers to the book's questions: does it reproduce, is Q-MVAE ahead, what does its loss add."""
    said = []
    for name in claims.READINGS:
        found = reach(records, name)
        said.append(f"{words.reading(name)} {f'({found.weight}) {found.said()}' if found else NO_RUN}.")
    keys = dict(zip(AHEAD, paper.TABLE1_COLUMNS, strict=True))
    return {"Does it reproduce?": " ".join(said)} | _compared(records, hunted, keys)


def opening(records: Sequence[Record], hunted: Sequence[Record], keys: Mapping[str, str]) -> dict[str, str]:
    """Answers about a table: do the numbers come out, is Q-MVAE ahead, and what does its loss add.

    hunted: records of the hunt. keys: of the claims that compare Q-MVAE with the others -> the column.
    """
    said = (numbers(records, name, list(keys.values())) for name in claims.READINGS)
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
