"""The claim ledger: what the paper says, and what our records say to it, failures first.

The rules are those of `rules`: a claim about one number is judged like a cell of the tables, a claim that compares on
paired seeds. Runs of different profiles are never compared. The word of the rule that was in force before stands
beside the new one wherever the two differ (`changed`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from qmvae_core.names import BEST, FIRST_BEST, TITLES
from qmvae_study import paper
from qmvae_study.evidence.records import OURS, PAPERS, Record
from qmvae_study.report import tables, words
from qmvae_study.report.intervals import Interval, Says, Verdict
from qmvae_study.report.rules import LEAST_SEEDS, NEW_RULE, OLD_RULE, Difference, Question, answers, combined
from qmvae_study.rows import BASELINES, INSTEAD, WITHOUT_LOSS

ORDER = (Says.FAILS, Says.DEPENDS, Says.ABOVE, Says.LEANS, Says.UNDECIDED, Says.HOLDS)
READINGS = (BEST, FIRST_BEST)  # of Q-MVAE, by which the ledger judges each claim
LONG_RUNS = "for want of runs of the paper's length"
COMPARISONS = "comparisons"  # the family of the claims that are about no single number of the paper
ByJudge = Mapping[str, Mapping[int, float]]  # harness -> seed -> per cent or points, as of `tables.cell_values`


class Comparison(NamedTuple):
    """Numbers of one profile beside what they are compared with.

    values: their difference in points, or with a target, a number of the paper's, the numbers themselves. used: the
    records. lacks: the readings of which there is no run. failed: how many runs of them ended in a loss that is not
    finite.
    """

    beside: str
    values: ByJudge
    used: Sequence[Record]
    target: paper.Reported | None = None
    lacks: Sequence[str] = ()
    failed: int = 0

    def difference(self, judge: str) -> Difference | None:
        """By one harness; None for fewer than two seeds."""
        values = list(self.values[judge].values())
        return Difference.to_reported(values, self.target) if self.target else Difference.of_pairs(values)

    @property
    def seeds(self) -> int:
        """How many there are."""
        return len(next(iter(self.values.values()), ()))

    def __str__(self) -> str:
        failed = [f"{self.failed} failed"] if self.failed else []
        if not self.values:
            lacks = ", ".join(map(words.reading, self.lacks))
            missing = f"no run of {lacks}" if lacks else f"no seed of both {self.beside}"
            return ", ".join([missing, *failed])
        judge, by_seed = next(iter(self.values.items()))
        found = Interval.of_mean(list(by_seed.values()))
        parts = [f"{self.used[0].profile} profile", f"{self.seeds} seed{'s' * (self.seeds > 1)}"]
        parts += [f"{found.ends()}"] if found and self.target is None else []
        parts += [*([judge] if judge != OURS else []), *failed]
        precisions = sorted({record.precision for record in self.used})
        parts += [" and ".join(precisions)] if precisions != ["float32"] else []
        if stalled := sorted({words.reading(record.reading) for record in self.used if record.stalled}):
            parts.append(f"stalled: {', '.join(stalled)}")
        shown = f"{np.mean(list(by_seed.values())):+.1f} points {self.beside}"
        if self.target is not None and not self.beside:
            spread = Interval.spread(list(by_seed.values()))
            shown = f"ours {spread.plus_minus() if spread.n > 1 else f'{spread.centre:.1f}'}"
        said = f", paper {self.target}" if self.target is not None else ""
        return f"{shown} ({', '.join(parts)}){said}"


class Claim(NamedTuple):
    """key: its name on other pages. where: in the paper. says: in our words. family: what Holm counts it among.

    compare: (records of one profile, reading of Q-MVAE) -> the comparisons that it makes, all of which must hold.
    """

    key: str
    where: str
    says: str
    family: str
    compare: Callable[[Sequence[Record], str], list[Comparison]]


class Finding(NamedTuple):
    """The verdict on a claim, with the numbers behind it, and the word of the rule that was in force before.

    used: the records of the length that has the say.
    """

    verdict: Verdict
    before: Says
    used: Sequence[Record] = ()

    def __str__(self) -> str:
        return self.verdict.spelled({Says.ABOVE: "above the paper"})


# What is compared


def runs_of(records: Sequence[Record], reading: str) -> list[Record]:
    """The finished runs of a reading, those of the precision that most seeds have; of float32 where as many do.

    Where there is none, those of the reading that stands in its place (`rows.INSTEAD`).
    """
    found = [record for record in records if record.done and record.reading == reading]
    if not found and reading in INSTEAD:
        return runs_of(records, INSTEAD[reading])
    counts = Counter(record.precision for record in found)
    chosen = max(counts, key=lambda name: (counts[name], name == "float32"), default=None)
    return [record for record in found if record.precision == chosen]


def rivals(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The compared models that have finished runs, and these."""
    return {name: runs for name in BASELINES if (runs := runs_of(records, name))}


def paired(first: ByJudge, second: ByJudge) -> dict[str, dict[int, float]]:
    """first - second for the harnesses and the seeds of both; empty where there are none."""
    found = {
        judge: {seed: value - second[judge][seed] for seed, value in by_seed.items() if seed in second[judge]}
        for judge, by_seed in first.items()
        if judge in second
    }
    return {judge: by_seed for judge, by_seed in found.items() if by_seed}


def _over(records, one: str, other: str, path: Sequence[str], target: paper.Reported | None = None) -> Comparison:
    """One reading over another on the seeds that both have."""
    runs = {name: runs_of(records, name) for name in (one, other)}
    values = paired(*(tables.cell_values(group, path) for group in runs.values()))
    seeds = next(iter(values.values()), {})
    used = [record for group in runs.values() for record in group if record.seed in seeds]
    lacks = [name for name, group in runs.items() if not group]
    both = " and ".join(map(words.reading, (one, other)))
    beside = f"over {words.reading(runs[other][0].reading)}" if values else both
    return Comparison(beside, values, used, target, lacks, _failed(records, one, other))


def _failed(records: Sequence[Record], *readings: str) -> int:
    return sum(not record.done and record.reading in readings for record in records)


def _above(*others: str, path: Sequence[str], target: paper.Reported | None = None):
    """Above other readings; braces in a name stand for the reading of Q-MVAE itself."""
    return lambda records, reading: [_over(records, reading, each.format(reading), path, target) for each in others]


def _within(one: Sequence[str], other: Sequence[str], beside: str):
    """One accuracy of Q-MVAE above another of the same runs."""

    def compare(records, reading):
        group = runs_of(records, reading)
        values = paired(tables.cell_values(group, one), tables.cell_values(group, other))
        return [Comparison(beside, values, group, None, [] if group else [reading], _failed(records, reading))]

    return compare


def _cell(model: str, column: str):
    """A cell of a table."""

    def compare(records, reading):
        name = reading if model == "qmvae" else model
        group = runs_of(records, name)
        values = tables.cell_values(group, paper.CELLS[column])
        said, lacks = paper.ROWS[model][column], [] if group else [name]
        return [Comparison("", values, group, said, lacks, _failed(records, name))]

    return compare


def cell_key(model: str, column: str) -> str:
    """The key of the claim about a cell of either table."""
    table = "table 1" if column in paper.TABLE1_COLUMNS else "table 2"
    return f"{table} {model} {column}".lower().replace(" ", "-").replace("→", "-to-")


def _cells() -> Iterator[Claim]:
    for table, reported in (("Table 1", paper.TABLE1), ("Table 2", paper.TABLE2)):
        for model, column in ((m, c) for m, row in reported.items() for c, said in row.items() if said is not None):
            says = f"{TITLES[model]}, {column}: {reported[model][column].mean:.1f} %"
            yield Claim(cell_key(model, column), table, says, model, _cell(model, column))


TO_SVHN, TO_MNIST = paper.TABLE1_COLUMNS.values()
MNIST, SVHN, JOINT = paper.TABLE2_COLUMNS.values()
ABOVE_ALL, BETTER = "Q-MVAE is above every compared model in", "classify better than every compared model's"
GAIN = f"Q-MVAE gains {paper.GAIN_OVER_DMVAE.mean} points over DMVAE in SVHN→MNIST"
JOINT_BETTER = "Joint codes classify better than those of MVAE and DMVAE"
ALIGNS = "The quadruplet loss aligns the codes: SVHN→MNIST is above the same model without it"
CLAIMS = (
    *(
        Claim(key, where, says, COMPARISONS, compare)
        for key, where, says, compare in (
            ("above-all-mnist-to-svhn", "section 4.2.1", f"{ABOVE_ALL} MNIST→SVHN", _above(*BASELINES, path=TO_SVHN)),
            ("above-all-svhn-to-mnist", "section 4.2.1", f"{ABOVE_ALL} SVHN→MNIST", _above(*BASELINES, path=TO_MNIST)),
            ("gain-over-dmvae", "section 4.2.1", GAIN, _above("dmvae", path=TO_MNIST, target=paper.GAIN_OVER_DMVAE)),
            ("codes-of-mnist", "section 4.3", f"Codes of MNIST {BETTER}", _above(*BASELINES, path=MNIST)),
            ("codes-of-svhn", "section 4.3", f"Codes of SVHN {BETTER}", _above(*BASELINES, path=SVHN)),
            ("joint-codes", "section 4.3", JOINT_BETTER, _above("mvae", "dmvae", path=JOINT)),
            (
                "joint-above-svhn", "section 4.3", "Joint codes classify better than codes of SVHN",
                _within(JOINT, SVHN, "over SVHN alone"),
            ),
            (
                "joint-below-mnist", "section 4.3", "Joint codes classify worse than codes of MNIST",
                _within(MNIST, JOINT, "over joint codes"),
            ),
            ("loss-aligns", "section 4.3", ALIGNS, _above(WITHOUT_LOSS, path=TO_MNIST)),
        )
    ),
    *_cells(),
)  # fmt: skip


# What follows


def question(comparisons: Sequence[Comparison]) -> Question:
    """What a claim asks, of the harnesses that measured all that there is of its comparisons."""
    there = [each for each in comparisons if each.values]
    judges = [judge for judge in (there[0].values if there else ()) if all(judge in each.values for each in there)]
    found = {judge: [d for each in there if (d := each.difference(judge))] for judge in judges}
    equal = any(each.target for each in comparisons)
    return Question({judge: every for judge, every in found.items() if every}, equal, len(comparisons))


def _words(compared: Mapping[str, Sequence[Comparison]]) -> dict[str, Verdict]:
    """Key of each claim -> what the tests say, whatever the length of the runs, with Holm over each family."""
    found = {}
    for family in dict.fromkeys(claim.family for claim in CLAIMS):
        questions = {c.key: question(compared[c.key]) for c in CLAIMS if c.family == family}
        found |= {k: combined(by_judge) for k, by_judge in answers(questions, strict=family == COMPARISONS).items()}
    return found


def _ruling(comparisons: Sequence[Comparison], word: Verdict) -> tuple[Verdict, bool]:
    """The verdict of one profile's runs, of which the tests say a word; and whether no other runs can change it."""
    used = [record for each in comparisons for record in each.used]
    complete = all(each.values for each in comparisons)
    found = Verdict(Says.UNDECIDED, "for want of runs", "; ".join(map(str, comparisons)), complete)
    if not used:
        return found, False
    if not all(record.real for record in used):
        return found._replace(why="for want of runs on real data"), False
    if used[0].profile == "paper":
        least = min(each.seeds for each in comparisons)
        final = word.says is not Says.UNDECIDED or least >= LEAST_SEEDS
        why = word.why if word.says is not Says.UNDECIDED else _want(comparisons, least)
        return found._replace(says=word.says, why=why), final
    length = f"at {max(record.steps for record in used):,} steps"
    if any(record.stalled for record in used):
        return found._replace(why=f"{LONG_RUNS}; stalled {length}"), False
    if word.says in (Says.HOLDS, Says.FAILS, Says.ABOVE):
        return found._replace(says=Says.LEANS, why=f"{word.says} {length}"), False
    return found._replace(
        why=f"{LONG_RUNS}; {word.says} {length}" if _seeds(comparisons) >= LEAST_SEEDS else LONG_RUNS
    ), False


def _seeds(comparisons: Sequence[Comparison]) -> int:
    """The fewest seeds of the comparisons that have any."""
    return min((each.seeds for each in comparisons if each.values), default=0)


def _want(comparisons: Sequence[Comparison], least: int) -> str:
    """For want of what runs of the paper's length decide nothing; least: the fewest seeds of a comparison."""
    if lacking := list(dict.fromkeys(name for each in comparisons for name in each.lacks)):
        return f"for want of runs of {', '.join(map(words.reading, lacking))}"
    return f"for want of seeds, {least} of {LEAST_SEEDS}" if least < LEAST_SEEDS else "for want of more seeds"


def _before(comparisons: Sequence[Comparison]) -> Says:
    """The word of the rule of OLD_RULE on one profile's runs: intervals by our harness alone."""
    used = [record for each in comparisons for record in each.used]
    if not _long(used):
        return Says.UNDECIDED
    said = []
    for each in comparisons:
        found = each.difference(OURS) if each.seeds >= LEAST_SEEDS else None
        side = found.interval.against() if found else None
        if each.target:
            said.append({None: Says.UNDECIDED, Says.AGREES: Says.HOLDS}.get(side, Says.FAILS))
        else:
            said.append({Says.ABOVE: Says.HOLDS, Says.BELOW: Says.FAILS}.get(side, Says.UNDECIDED))
    return min(said, key=(Says.FAILS, Says.UNDECIDED, Says.HOLDS).index)


def findings(records: Sequence[Record], reading: str) -> dict[str, Finding]:
    """Key of each claim -> what the records say to it, Q-MVAE by `reading`.

    The first of these that there is: what runs of the paper's length say, if they decide or have all that the claim
    needs; what the longest runs say that have all of them, with three seeds or more; what the longest with three seeds
    say; else undecided, with the numbers of the longest that have all runs.
    records: finished ones and those that failed, which are counted. Raises RecordError if none is finished.
    """
    by_length = []
    for group in tables.by_profile(records):
        failed = [record for record in records if not record.done and record.profile == group[0].profile]
        compared = {claim.key: claim.compare([*group, *failed], reading) for claim in CLAIMS}
        by_length.append((compared, _words(compared)))
    return {claim.key: _finding(claim.key, by_length) for claim in CLAIMS}


def _finding(key: str, by_length: Sequence[tuple[Mapping, Mapping]]) -> Finding:
    every = [compared[key] for compared, _ in by_length]
    rulings = [_ruling(compared, words[key]) for compared, (_, words) in zip(every, by_length, strict=True)]
    used = [[record for each in compared for record in each.used] for compared in every]
    final = [place for place, (_, is_final) in enumerate(rulings) if is_final]
    enough = [place for place, compared in enumerate(every) if _seeds(compared) >= LEAST_SEEDS]
    whole = [place for place, (found, _) in enumerate(rulings) if found.complete]
    has_say = [*final, *(place for place in enough if place in whole), *enough, *whole, 0][0]
    verdict = rulings[has_say][0]
    if not final and verdict.says is Says.UNDECIDED:
        long = [found.why for (found, _), records in zip(rulings, used, strict=True) if records and _long(records)]
        verdict = verdict._replace(why=next(iter(long), verdict.why if has_say in enough else LONG_RUNS))
    before = min((_before(compared) for compared in every), key=lambda says: says is Says.UNDECIDED)
    return Finding(verdict, before, used[has_say])


def _long(used: Sequence[Record]) -> bool:
    return all(record.real and record.profile == "paper" for record in used)


def leaning(verdict: Verdict) -> Verdict:
    """A verdict that leans as the word to which it leans; another as it is."""
    return verdict._replace(says=Says(verdict.why.split(" at ")[0])) if verdict.says is Says.LEANS else verdict


def ledger(records: Sequence[Record], readings: Sequence[str] = READINGS) -> pd.DataFrame:
    """All claims, failures of the first reading first: a column with the verdict by each reading, and the evidence.

    records: finished ones and those that failed, which are counted.
    """
    found = {reading: findings(records, reading) for reading in readings}
    rows = [
        {
            "the paper says": claim.says,
            "where": claim.where,
            **{words.reading(reading): str(by_key[claim.key]) for reading, by_key in found.items()},
            "our records": " | ".join(dict.fromkeys(by_key[claim.key].verdict.evidence for by_key in found.values())),
        }
        for claim in sorted(CLAIMS, key=lambda claim: ORDER.index(found[readings[0]][claim.key].verdict.says))
    ]
    return pd.DataFrame(rows)


def brief(records: Sequence[Record], readings: Sequence[str] = READINGS) -> pd.DataFrame:
    """The verdicts on the claims that compare, without their evidence: a column for each reading."""
    found = {words.reading(reading): findings(records, reading) for reading in readings}
    rows = [
        {"the paper says": claim.says, **{name: str(by_key[claim.key]) for name, by_key in found.items()}}
        for claim in CLAIMS
        if claim.family == COMPARISONS
    ]
    return pd.DataFrame(rows).set_index("the paper says").rename_axis(None)


def changed(records: Sequence[Record], readings: Sequence[str] = READINGS) -> pd.DataFrame:
    """The claims on which the rule before and the rule now differ, by reading, each named by its date."""
    rows = [
        {
            "reading": words.reading(reading),
            "the paper says": claim.says,
            OLD_RULE: str(by_key[claim.key].before),
            NEW_RULE: str(by),
        }
        for reading in readings
        for by_key in [findings(records, reading)]
        for claim in CLAIMS
        if (by := by_key[claim.key]).before != by.verdict.says
    ]
    return pd.DataFrame(rows, columns=["reading", "the paper says", OLD_RULE, NEW_RULE])


def standing(records: Sequence[Record], reading: str) -> pd.DataFrame:
    """Q-MVAE by a reading beside the compared models and itself without the loss, at equal length.

    A row for each profile that has the reading and another of them, each cell of both tables, and each harness: our
    mean, its place among the models that have the cell, and the paired differences over the others in points, with
    their 95 % intervals.
    """
    others = {TITLES[name]: name for name in BASELINES} | {"itself without the loss": WITHOUT_LOSS.format(reading)}
    rows = []
    for group in tables.by_profile(records):
        own, runs = runs_of(group, reading), {title: runs_of(group, name) for title, name in others.items()}
        if not own or not any(runs.values()):
            continue
        for column, path in paper.CELLS.items():
            values = tables.cell_values(own, path)
            over = {title: paired(values, tables.cell_values(other, path)) for title, other in runs.items()}
            for judge in [each for each in (PAPERS, OURS) if each in values]:
                row = {"profile": group[0].profile, "cell": column, "by": judge}
                row["ours"] = f"{np.mean(list(values[judge].values())):.1f}"
                means = {title: np.mean(list(by[judge].values())) for title, by in over.items() if judge in by}
                models = [mean for title, mean in means.items() if title in TITLES.values()]
                row["place"] = f"{1 + sum(mean < 0 for mean in models)} of {1 + len(models)}"
                for title, by in over.items():
                    found = Interval.of_mean(list(by[judge].values())) if judge in by else None
                    shown = "" if title not in means else f"{means[title]:+.1f}"
                    row[f"over {title}"] = f"{shown} ({found.ends()})" if found else shown
                rows.append(row)
    return pd.DataFrame(rows)
