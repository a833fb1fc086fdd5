"""The rules of all verdicts, with their dates, and the tests that they are made of.

The rule since NEW_RULE, written when of the paper's length three runs of one reading were known, and no others:

- A number *agrees* with the paper's where two one-sided tests by Welch's t show, each at LEVEL, that the difference of
  the means is within MARGIN points. No wider margin would do: the paper sets its model 4.9 points above DMVAE in one
  cell, and two margins must fit below that. A much narrower one would test the judges: two of them read the same
  images differently, and which instance the authors had is not known.
- Else it is *above* or *below* the paper's where the test of no difference rejects, at LEVEL by Holm's step-down over
  the cells of the model's row in both tables: of five cells one is extreme by chance more often than in twenty rows.
- A comparison *holds* where a one-sided t-test on paired seeds says so, and *fails* where the contrary test does, both
  by Holm over all comparisons.
- Runs of the paper's length decide, with LEAST_SEEDS seeds or more on real data. Three seeds of equal length below it
  let a claim *lean*, unless one of the runs stalled: of the lengths with three seeds the longest that has all runs, or
  else the longest. Judges whose decided verdicts differ leave a claim that *depends on the judge*. All else is
  *undecided*, and says for want of what.

The rule since OLD_RULE, before: "agrees" where the 95 % interval of the difference held zero, which noise makes
easier; "holds" where all of that of the paired differences lay on its side; one judge, no Holm, no leaning.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from qmvae_study.paper import SEEDS, Reported
from qmvae_study.report.intervals import Interval, Says, Verdict

OLD_RULE, NEW_RULE = "2026-11-21", "2026-11-26"
MARGIN, LEVEL = 2.0, 0.05  # points of accuracy; of each test
LEAST_SEEDS = 3


class Difference(NamedTuple):
    """A difference of means in points, its standard error, the degrees of freedom of Student's t, and our seeds."""

    mean: float
    error: float
    freedom: float
    seeds: int

    @classmethod
    def of_pairs(cls, differences: Sequence[float]) -> Difference | None:
        """Of paired seeds; None for fewer than two."""
        count = len(differences)
        if count < 2:
            return None
        return cls(float(np.mean(differences)), float(np.std(differences, ddof=1)) / count**0.5, count - 1, count)

    @classmethod
    def to_reported(cls, ours: Sequence[float], said: Reported) -> Difference | None:
        """Of the mean of our values from the paper's, which is over SEEDS seeds, by Welch; None for fewer than two."""
        if len(ours) < 2:
            return None
        parts = [(float(np.var(ours, ddof=1)) / len(ours), len(ours)), (said.std**2 / SEEDS, SEEDS)]
        variance = sum(value for value, _ in parts)
        freedom = variance**2 / sum(value**2 / (count - 1) for value, count in parts) if variance else 1
        return cls(float(np.mean(ours)) - said.mean, variance**0.5, freedom, len(ours))

    @property
    def interval(self) -> Interval:
        """Of 95 %."""
        return Interval.student(self.mean, self.error, self.freedom, self.seeds)

    def above(self, value: float = 0.0) -> float:
        """The p-value of the one-sided test that the true difference is above a value."""
        if not self.error:
            return float(self.mean <= value)
        return float(stats.t.sf((self.mean - value) / self.error, self.freedom))

    def below(self, value: float = 0.0) -> float:
        """The p-value of the one-sided test that the true difference is below a value."""
        return self._replace(mean=-self.mean).above(-value)

    def differs(self) -> float:
        """The p-value of the two-sided test that there is a difference."""
        return min(1.0, 2 * min(self.above(), self.below()))

    def within(self, margin: float = MARGIN) -> float:
        """The larger p-value of the two one-sided tests that the true difference is within a margin of zero."""
        return max(self.above(-margin), self.below(margin))


def holm(values: Mapping[Hashable, float]) -> dict[Hashable, float]:
    """The p-values of a family, adjusted by Holm's step-down (Holm 1979): no more than 1, in their order."""
    adjusted, highest = {}, 0.0
    for rank, key in enumerate(sorted(values, key=values.__getitem__)):
        highest = max(highest, min(1.0, (len(values) - rank) * values[key]))
        adjusted[key] = highest
    return {key: adjusted[key] for key in values}


class Question(NamedTuple):
    """What runs say to one claim, by the harness that measured them, first the one that counts.

    by_judge: harness -> differences; the claim is that all are above zero, or, with `equal`, that the one is none.
    of: how many differences the claim speaks of, whether they are known or not.
    """

    by_judge: Mapping[str, Sequence[Difference]]
    equal: bool = False
    of: int = 1

    def p_values(self, judge: str) -> tuple[float, float]:
        """Of the tests that the claim holds, and that it fails; 1 where nothing can be tested.

        All differences are above zero where the largest p-value says so, and one is below where the smallest does,
        times the number that the claim speaks of (Bonferroni), so what comes later takes no "fails" back. With fewer
        than LEAST_SEEDS seeds nothing is tested.
        """
        found = self.by_judge.get(judge) or self.by_judge.get(next(iter(self.by_judge), ""), ())
        tested = [each for each in found if each.seeds >= LEAST_SEEDS]
        if not tested:
            return 1.0, 1.0
        if self.equal:
            return tested[0].within(), tested[0].differs()
        holds = max(each.above() for each in tested) if len(tested) == self.of else 1.0
        return holds, min(1.0, self.of * min(each.below() for each in tested))


def answers(family: Mapping[str, Question], strict: bool) -> dict[str, dict[str, Says]]:
    """Claim -> harness -> HOLDS, FAILS, ABOVE (a number above the paper's) or UNDECIDED, for a family of claims.

    strict: whether Holm's step-down is also taken for what holds, and not only for what fails.
    """
    adjusted = {}
    for judge in {judge for question in family.values() for judge in question.by_judge}:
        p_values = {name: question.p_values(judge) for name, question in family.items()}
        holds = {name: pair[0] for name, pair in p_values.items()}
        adjusted[judge] = holm(holds) if strict else holds, holm({name: pair[1] for name, pair in p_values.items()})
    return {
        name: {judge: _word(question, judge, *(p[name] for p in adjusted[judge])) for judge in question.by_judge}
        for name, question in family.items()
    }


def _word(question: Question, judge: str, holds: float, fails: float) -> Says:
    if holds < LEVEL:
        return Says.HOLDS
    if fails < LEVEL:
        return Says.ABOVE if question.equal and question.by_judge[judge][0].mean > 0 else Says.FAILS
    return Says.UNDECIDED


def combined(words: Mapping[str, Says]) -> Verdict:
    """One verdict of the words of several harnesses, the first of which counts where no other contradicts it."""
    decided = {judge: says for judge, says in words.items() if says is not Says.UNDECIDED}
    if len(set(decided.values())) > 1:
        return Verdict(Says.DEPENDS, "; ".join(f"{judge}: {says}" for judge, says in decided.items()))
    return Verdict(next(iter(words.values()), Says.UNDECIDED))
