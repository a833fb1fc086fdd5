"""The claim ledger: what the paper says, and what our records say to it, failures first.

The rule, written before the runs. A claim about one number is judged like a cell of the tables (`tables.verdict`). A
claim that compares is judged on paired seeds: the differences of the runs with one seed have a 95 % interval by
Student's t, and the claim "holds" if all of the interval is on its side, "fails" if none of it is, and is "undecided"
else. Only runs of the paper's length, on real data, with at least `tables.LEAST_SEEDS` seeds decide; with less the
claim is "undecided", and the numbers of the longest profile that has all its runs stand beside it. Runs of different
profiles are never compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from qmvae_core.names import TITLES
from qmvae_study import paper
from qmvae_study.evidence.records import Record
from qmvae_study.report import tables
from qmvae_study.report.intervals import Interval, Says, Verdict
from qmvae_study.rows import BASELINES, WITHOUT_LOSS

ORDER = (Says.FAILS, Says.UNDECIDED, Says.HOLDS)
COMPARED = {Says.ABOVE: Says.HOLDS, Says.BELOW: Says.FAILS, Says.AGREES: Says.UNDECIDED}  # a claim that it is above
EQUAL = {Says.AGREES: Says.HOLDS, Says.ABOVE: Says.FAILS, Says.BELOW: Says.FAILS}  # a claim that it is this number


class Claim(NamedTuple):
    """key: its name on other pages. where: in the paper. says: in our words. judge: (records, reading) -> its verdict.

    The records are of one profile, and the reading is Q-MVAE's.
    """

    key: str
    where: str
    says: str
    judge: Callable[[Sequence[Record], str], Verdict]


def paired_differences(records: Sequence[Record], one: str, other: str, path: Sequence[str]) -> dict[int, float]:
    """seed -> (reading `one` - reading `other`), in points, for the seeds that both have."""
    ours, theirs = ({r.seed: r.share(*path).per_cent for r in records if r.reading == each} for each in (one, other))
    return {seed: ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())}


def _judged(differences: Sequence[float], used: Sequence[Record], beside: str, target: float | None = None) -> Verdict:
    """The verdict on a difference that a claim calls positive, or equal to `target`, in points; used: its records."""
    count, interval = len(differences), Interval.of_mean(differences)
    spread = f", {interval.ends()}" if interval else ""
    said = f"{np.mean(differences):+.1f} points {beside} ({used[0].profile} profile, {_seeds(count)}{spread})"
    if stalled := sorted({record.reading for record in used if record.stalled}):
        said += f", stalled: {', '.join(stalled)}"
    if count < tables.LEAST_SEEDS or not all(r.real and r.profile == "paper" for r in used):
        return Verdict(Says.UNDECIDED, evidence=said)
    says = COMPARED[interval.against(0.0)] if target is None else EQUAL[interval.against(target)]
    return Verdict(says, evidence=said)


def _missing(what: str) -> Verdict:
    return Verdict(Says.UNDECIDED, evidence=what, complete=False)


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count > 1)}"


def _difference(records, one: str, other: str, path: Sequence[str], target: float | None = None) -> Verdict:
    found = paired_differences(records, one, other, path)
    if not found:
        return _missing(f"no seed has both {one} and {other}")
    used = [r for r in records if r.reading in (one, other) and r.seed in found]
    return _judged(list(found.values()), used, f"over {other}", target)


def _above_all(path: Sequence[str], models: Sequence[str] = BASELINES):
    """Above each of the models: fails with any of them, and holds only with all."""

    def judge(records, reading):
        verdicts = [_difference(records, reading, model, path) for model in models]
        says = min((verdict.says for verdict in verdicts), key=ORDER.index)
        evidence = "; ".join(verdict.evidence for verdict in verdicts)
        return Verdict(says, evidence=evidence, complete=all(verdict.complete for verdict in verdicts))

    return judge


def _above(other: str, path: Sequence[str], target: float | None = None):
    """Above another reading; braces in its name stand for the reading of Q-MVAE itself."""
    return lambda records, reading: _difference(records, reading, other.format(reading), path, target)


def _within(one: Sequence[str], other: Sequence[str], beside: str):
    """One accuracy of Q-MVAE above another of the same runs."""

    def judge(records, reading):
        group = [r for r in records if r.reading == reading]
        if not group:
            return _missing(f"no record of {reading}")
        return _judged([r.share(*one).per_cent - r.share(*other).per_cent for r in group], group, beside)

    return judge


def _cell(model: str, column: str, reported: Mapping, columns: Mapping):
    """A cell of a table, judged by the rule of the tables; a value above the paper's fails it as one below does."""

    def judge(records, reading):
        name = reading if model == "qmvae" else model
        group = [r for r in records if r.reading == name]
        if not group:
            return _missing(f"no record of {name}")
        row = tables.compare(group, reported, {column: columns[column]}).iloc[0]
        word = ", stalled" if any(record.stalled for record in group) else ""
        ours = f"ours {row['ours']} ({row['profile']} profile, {_seeds(len(group))}{word})"
        says = EQUAL.get(row["verdict"], Says.UNDECIDED)
        return Verdict(says, evidence=f"{ours}, paper {row['paper']}: {row['verdict']}")

    return judge


def _cells() -> Iterator[Claim]:
    for table, reported, columns in (
        ("Table 1", paper.TABLE1, paper.TABLE1_COLUMNS),
        ("Table 2", paper.TABLE2, paper.TABLE2_COLUMNS),
    ):
        for model, column in ((m, c) for m, row in reported.items() for c, said in row.items() if said is not None):
            key = f"{table} {model} {column}".lower().replace(" ", "-").replace("→", "-to-")
            says = f"{TITLES[model]}, {column}: {reported[model][column].mean:.1f} %"
            yield Claim(key, table, says, _cell(model, column, reported, columns))


TO_SVHN, TO_MNIST = paper.TABLE1_COLUMNS.values()
MNIST, SVHN, JOINT = paper.TABLE2_COLUMNS.values()
ABOVE_ALL, BETTER = "Q-MVAE is above every compared model in", "classify better than every compared model's"
GAIN = f"Q-MVAE gains {paper.GAIN_OVER_DMVAE} points over DMVAE in SVHN→MNIST"
JOINT_BETTER = "Joint codes classify better than those of MVAE and DMVAE"
ALIGNS = "The quadruplet loss aligns the codes: SVHN→MNIST is above the same model without it"
CLAIMS = (
    Claim("above-all-mnist-to-svhn", "section 4.2.1", f"{ABOVE_ALL} MNIST→SVHN", _above_all(TO_SVHN)),
    Claim("above-all-svhn-to-mnist", "section 4.2.1", f"{ABOVE_ALL} SVHN→MNIST", _above_all(TO_MNIST)),
    Claim("gain-over-dmvae", "section 4.2.1", GAIN, _above("dmvae", TO_MNIST, paper.GAIN_OVER_DMVAE)),
    Claim("codes-of-mnist", "section 4.3", f"Codes of MNIST {BETTER}", _above_all(MNIST)),
    Claim("codes-of-svhn", "section 4.3", f"Codes of SVHN {BETTER}", _above_all(SVHN)),
    Claim("joint-codes", "section 4.3", JOINT_BETTER, _above_all(JOINT, ("mvae", "dmvae"))),
    Claim(
        "joint-above-svhn", "section 4.3", "Joint codes classify better than codes of SVHN",
        _within(JOINT, SVHN, "over SVHN alone"),
    ),
    Claim(
        "joint-below-mnist", "section 4.3", "Joint codes classify worse than codes of MNIST",
        _within(MNIST, JOINT, "over joint codes"),
    ),
    Claim("loss-aligns", "section 4.3", ALIGNS, _above(WITHOUT_LOSS, TO_MNIST)),
    *_cells(),
)  # fmt: skip


def findings(records: Sequence[Record], reading: str) -> dict[str, Verdict]:
    """Key of each claim -> what the records say to it, Q-MVAE by `reading`.

    The verdict is that of a profile that decides the claim, else of the longest that has all its runs.
    """
    found = {}
    for claim in CLAIMS:
        by_length = [claim.judge(group, reading) for group in tables.by_profile(records)]
        found[claim.key] = max(by_length, key=lambda verdict: (verdict.says != Says.UNDECIDED, verdict.complete))
    return found


def ledger(records: Sequence[Record], reading: str) -> pd.DataFrame:
    """All claims with verdict and evidence, failures first; arguments as of `findings`."""
    found = findings(records, reading)
    claims = sorted(CLAIMS, key=lambda claim: ORDER.index(found[claim.key].says))
    rows = [(str(found[each.key]), each.says, each.where, found[each.key].evidence) for each in claims]
    return pd.DataFrame(rows, columns=["verdict", "the paper says", "where", "our records"])
