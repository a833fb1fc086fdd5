"""One interval and one verdict: against scipy, at their edges, and as they are spelled."""

import pytest
from scipy import stats

from qmvae_study.report.intervals import Interval, Says, Verdict


def test_the_interval_of_a_mean_is_that_of_scipy():
    values = [1.0, 2.5, 2.0, 4.0]
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    found = Interval.of_mean(values)
    assert found[:3] == pytest.approx((2.375, expected.low, expected.high))
    assert found.n == 4
    assert Interval.of_mean([1.0]) is None
    assert Interval.of_mean([3.0, 3.0])[:3] == (3.0, 3.0, 3.0)


def test_a_spread_is_one_deviation_to_both_sides_and_a_single_value_has_none():
    assert Interval.spread([1.0, 2.0, 3.0]) == (2.0, 1.0, 3.0, 3)
    assert Interval.spread([5.0]) == (5.0, 5.0, 5.0, 1)


@pytest.mark.parametrize(
    ("ends", "says"),
    [((-1, 1), "agrees"), ((0, 1), "agrees"), ((-1, 0), "agrees"), ((0.1, 1), "above"), ((-1, -0.1), "below")],
)
def test_an_interval_lies_above_below_or_holds_a_value(ends, says):
    assert Interval(0.0, *ends).against() == says
    assert Interval(5.0, ends[0] + 5, ends[1] + 5).against(5.0) == says


def test_an_interval_is_spelled_in_three_ways():
    found = Interval.around(75.64, 0.91)
    assert found.plus_minus() == "75.6 ± 0.9"
    assert found.plus_minus("+.2f") == "+75.64 ± 0.91"
    assert found.ends() == "+74.7 to +76.5"
    assert found.in_full() == "75.6 (74.7 to 76.5)"


def test_a_verdict_says_why_it_is_none_and_may_be_spelled_otherwise_by_a_chapter():
    assert str(Verdict(Says.NONE, "stand-in data")) == "none: stand-in data"
    assert str(Verdict(Says.HOLDS, evidence="+1.0 points")) == "holds"
    assert Verdict(Says.FAILS).spelled({Says.FAILS: "does not hold"}) == "does not hold"
    assert Verdict(Says.AGREES).spelled({}) == "agrees"
