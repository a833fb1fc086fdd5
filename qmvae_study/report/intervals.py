"""One interval and one verdict for all that is compared, in this study and in the chapters on the neighbours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95


class Says(StrEnum):
    """The words of a verdict. A chapter may spell them otherwise (`Verdict.spelled`), but has no others."""

    AGREES = "agrees"  # the interval holds the number that it is compared with
    ABOVE = "above"
    BELOW = "below"
    HOLDS = "holds"
    IN_PART = "holds in part"
    FAILS = "fails"
    DEPENDS = "depends on the judge"
    LEANS = "leans"
    UNDECIDED = "undecided"
    NONE = "none"  # there is nothing to judge by, or the rule gives no verdict


class Interval(NamedTuple):
    """A number with the ends of an interval, of LEVEL or a spread. n: how many values it is of."""

    centre: float
    low: float
    high: float
    n: int | None = None

    @classmethod
    def around(cls, centre: float, half: float, n: int | None = None) -> Interval:
        """The same distance to both sides."""
        return cls(centre, centre - half, centre + half, n)

    @classmethod
    def spread(cls, values: Sequence[float]) -> Interval:
        """Mean ± standard deviation (with n - 1) of the values; without width for one value alone."""
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        return cls.around(float(np.mean(values)), deviation, len(values))

    @classmethod
    def student(cls, centre: float, error: float, freedom: float, n: int | None = None) -> Interval:
        """By Student's t, from a standard error and its degrees of freedom."""
        reach = stats.t.ppf(0.5 + LEVEL / 2, freedom) * error if error else 0.0
        return cls.around(centre, float(reach), n)

    @classmethod
    def of_mean(cls, values: Sequence[float]) -> Interval | None:
        """Of the mean of values, such as paired differences over seeds, by Student's t; None for fewer than two."""
        count = len(values)
        if count < 2:
            return None
        error = float(np.std(values, ddof=1)) / math.sqrt(count)
        return cls.student(float(np.mean(values)), error, count - 1, count)

    def against(self, value: float = 0.0) -> Says:
        """Where all of it lies: ABOVE or BELOW the value, or AGREES where it holds the value."""
        return Says.ABOVE if self.low > value else Says.BELOW if self.high < value else Says.AGREES

    def plus_minus(self, form: str = ".1f") -> str:
        """For example "75.6 ± 0.9"."""
        return f"{self.centre:{form}} ± {self.high - self.centre:{form.lstrip('+')}}"

    def ends(self, form: str = "+.1f") -> str:
        """For example "-2.4 to +2.8"."""
        return f"{self.low:{form}} to {self.high:{form}}"

    def in_full(self, form: str = ".1f") -> str:
        """For example "50.0 (46.9 to 53.1)"."""
        return f"{self.centre:{form}} ({self.ends(form)})"


class Verdict(NamedTuple):
    """says: one of `Says`. why: the reason of one that is none. evidence: the numbers behind it, in words.

    complete: whether all that it is judged by was there.
    """

    says: Says
    why: str = ""
    evidence: str = ""
    complete: bool = True

    def __str__(self) -> str:
        return f"{self.says}: {self.why}" if self.why else str(self.says)

    def spelled(self, words: Mapping[Says, str]) -> str:
        """Its word as a chapter has it: that of `words`, or its own."""
        return words.get(self.says, str(self))
