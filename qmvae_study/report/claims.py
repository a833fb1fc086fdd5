"""The claim ledger: what the paper says, and what our records say to it, failures first.

The rule, written before the runs. A claim about one number is judged like a cell of the tables (`tables.verdict`). A
claim that compares is judged on paired seeds: the differences of the runs with one seed have a 95 % interval by
Student's t, and the claim "holds" if all of the interval is on its side, "fails" if none of it is, and is "undecided"
else. Only runs of the paper's length, on real data, with at least `tables.LEAST_SEEDS` seeds decide; with less the
claim is "undecided", and the numbers of the longest profile that has all its runs stand beside it. Runs of different
profiles are never compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from qmvae_study import paper, plateau
from qmvae_study.report import tables
from qmvae_study.rows import BASELINES, WITHOUT_LOSS

ORDER = ("fails", "undecided", "holds")


class Finding(NamedTuple):
    """verdict: one of ORDER. evidence: the numbers behind it, in words. complete: whether all its runs were there."""

    verdict: str
    evidence: str
    complete: bool = True


class Claim(NamedTuple):
    """key: its name on other pages. where: in the paper. says: in our words. judge: (records, reading) -> Finding.

    The records are of one profile, and the reading is Q-MVAE's.
    """

    key: str
    where: str
    says: str
    judge: Callable[[Sequence[Mapping], str], Finding]


def paired_differences(records: Sequence[Mapping], one: str, other: str, path: Sequence[str]) -> dict[int, float]:
    """seed -> (reading `one` - reading `other`), in points, for the seeds that both have."""
    values = [
        {r["seed"]: tables.metric(r, path) for r in records if r["reading"] == reading} for reading in (one, other)
    ]
    return {seed: values[0][seed] - values[1][seed] for seed in sorted(values[0].keys() & values[1].keys())}


def interval_of(differences: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """The interval of the mean of paired differences by Student's t; None for fewer than two."""
    count = len(differences)
    if count < 2:
        return None
    mean, spread = float(np.mean(differences)), float(np.std(differences, ddof=1))
    reach = stats.t.ppf(0.5 + level / 2, count - 1) * spread / math.sqrt(count)
    return mean - reach, mean + reach


def _judged(differences: Sequence[float], used: Sequence[Mapping], beside: str, target: float | None = None) -> Finding:
    """The finding on a difference that a claim calls positive, or equal to `target`, in points; used: its records."""
    count, interval = len(differences), interval_of(differences)
    spread = f", {interval[0]:+.1f} to {interval[1]:+.1f}" if interval else ""
    said = f"{np.mean(differences):+.1f} points {beside} ({used[0]['profile']} profile, {_seeds(count)}{spread})"
    if stalled := sorted({record["reading"] for record in used if plateau.is_stalled(record)}):
        said += f", stalled: {', '.join(stalled)}"
    long_enough = all(r["data"]["kind"] == "real" and r["profile"] == "paper" for r in used)
    if not long_enough or count < tables.LEAST_SEEDS:
        return Finding("undecided", said)
    low, high = interval
    if target is not None:
        return Finding("holds" if low <= target <= high else "fails", said)
    return Finding("holds" if low > 0 else "fails" if high < 0 else "undecided", said)


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count > 1)}"


def _difference(records, one: str, other: str, path: Sequence[str], target: float | None = None) -> Finding:
    found = paired_differences(records, one, other, path)
    if not found:
        return Finding("undecided", f"no seed has both {one} and {other}", complete=False)
    used = [r for r in records if r["reading"] in (one, other) and r["seed"] in found]
    return _judged(list(found.values()), used, f"over {other}", target)


def _above_all(path: Sequence[str], models: Sequence[str] = BASELINES):
    """Above each of the models: fails with any of them, and holds only with all."""

    def judge(records, reading):
        findings = [_difference(records, reading, model, path) for model in models]
        verdict = min((finding.verdict for finding in findings), key=ORDER.index)
        evidence = "; ".join(finding.evidence for finding in findings)
        return Finding(verdict, evidence, all(finding.complete for finding in findings))

    return judge


def _above(other: str, path: Sequence[str], target: float | None = None):
    """Above another reading; braces in its name stand for the reading of Q-MVAE itself."""
    return lambda records, reading: _difference(records, reading, other.format(reading), path, target)


def _within(one: Sequence[str], other: Sequence[str], beside: str):
    """One accuracy of Q-MVAE above another of the same runs."""

    def judge(records, reading):
        group = [r for r in records if r["reading"] == reading]
        if not group:
            return Finding("undecided", f"no record of {reading}", complete=False)
        return _judged([tables.metric(r, one) - tables.metric(r, other) for r in group], group, beside)

    return judge


def _cell(model: str, column: str, reported: Mapping, columns: Mapping):
    """A cell of a table, judged by the rule of the tables; a value above the paper's fails it as one below does."""

    def judge(records, reading):
        name = reading if model == "qmvae" else model
        group = [r for r in records if r["reading"] == name]
        if not group:
            return Finding("undecided", f"no record of {name}", complete=False)
        row = tables.compare(group, reported, {column: columns[column]}).iloc[0]
        verdict = {"agrees": "holds", "above": "fails", "below": "fails"}.get(row["verdict"], "undecided")
        word = ", stalled" if any(map(plateau.is_stalled, group)) else ""
        ours = f"ours {row['ours']} ({row['profile']} profile, {_seeds(len(group))}{word})"
        return Finding(verdict, f"{ours}, paper {row['paper']}: {row['verdict']}")

    return judge


def _cells() -> list[Claim]:
    found = []
    for table, reported, columns in (
        ("Table 1", paper.TABLE1, paper.TABLE1_COLUMNS),
        ("Table 2", paper.TABLE2, paper.TABLE2_COLUMNS),
    ):
        for model, row in reported.items():
            for column, said in row.items():
                if said is not None:
                    key = f"{table} {model} {column}".lower().replace(" ", "-").replace("→", "-to-")
                    says = f"{paper.NAMES[model]}, {column}: {said.mean:.1f} %"
                    found.append(Claim(key, table, says, _cell(model, column, reported, columns)))
    return found


CROSS, SVHN_TO_MNIST = paper.TABLE1_COLUMNS, paper.TABLE1_COLUMNS["SVHN→MNIST"]
MNIST, SVHN, JOINT = paper.TABLE2_COLUMNS.values()
CLAIMS = (
    *(
        Claim(key, "section 4.2.1", f"Q-MVAE is above every compared model in {column}", _above_all(path))
        for key, (column, path) in zip(
            ("above-all-mnist-to-svhn", "above-all-svhn-to-mnist"), CROSS.items(), strict=True
        )
    ),
    Claim(
        "gain-over-dmvae",
        "section 4.2.1",
        f"Q-MVAE gains {paper.GAIN_OVER_DMVAE} points over DMVAE in SVHN→MNIST",
        _above("dmvae", SVHN_TO_MNIST, paper.GAIN_OVER_DMVAE),
    ),
    Claim(
        "codes-of-mnist",
        "section 4.3",
        "Codes of MNIST classify better than every compared model's",
        _above_all(MNIST),
    ),
    Claim(
        "codes-of-svhn", "section 4.3", "Codes of SVHN classify better than every compared model's", _above_all(SVHN)
    ),
    Claim(
        "joint-codes",
        "section 4.3",
        "Joint codes classify better than those of MVAE and DMVAE",
        _above_all(JOINT, ("mvae", "dmvae")),
    ),
    Claim(
        "joint-above-svhn",
        "section 4.3",
        "Joint codes classify better than codes of SVHN",
        _within(JOINT, SVHN, "over SVHN alone"),
    ),
    Claim(
        "joint-below-mnist",
        "section 4.3",
        "Joint codes classify worse than codes of MNIST",
        _within(MNIST, JOINT, "over joint codes"),
    ),
    Claim(
        "loss-aligns",
        "section 4.3",
        "The quadruplet loss aligns the codes: SVHN→MNIST is above the same model without it",
        _above(WITHOUT_LOSS, SVHN_TO_MNIST),
    ),
    *_cells(),
)


def findings(records: Sequence[Mapping], reading: str) -> dict[str, Finding]:
    """Key of each claim -> what the records say to it, Q-MVAE by `reading`.

    The finding is that of a profile that decides the claim, else of the longest that has all its runs.
    """
    found = {}
    for claim in CLAIMS:
        by_length = [claim.judge(group, reading) for group in tables.by_profile(records)]
        found[claim.key] = max(by_length, key=lambda finding: (finding.verdict != "undecided", finding.complete))
    return found


def ledger(records: Sequence[Mapping], reading: str) -> pd.DataFrame:
    """All claims with verdict and evidence, failures first; arguments as of `findings`."""
    found = findings(records, reading)
    rows = [
        {
            "verdict": found[claim.key].verdict,
            "the paper says": claim.says,
            "where": claim.where,
            "our records": found[claim.key].evidence,
        }
        for claim in CLAIMS
    ]
    return pd.DataFrame(sorted(rows, key=lambda row: ORDER.index(row["verdict"])))
