"""Two one-sided tests: against a formula by hand, at their edges, and on records."""

import math

import numpy as np
import pytest
from scipy import stats
from test_tables import in_bfloat16, record

from qmvae_study.evidence.records import Record, RecordError
from qmvae_study.report import equivalence, tables


def test_the_p_value_is_that_of_the_worse_of_two_welch_tests():
    first, second = np.array([80.0, 81.0, 80.5, 79.0]), np.array([79.0, 80.0, 81.5])
    variances = [v.var(ddof=1) / len(v) for v in (first, second)]
    error = math.sqrt(sum(variances))
    freedom = sum(variances) ** 2 / sum(v**2 / (n - 1) for v, n in zip(variances, (4, 3), strict=True))
    difference = first.mean() - second.mean()
    by_hand = max(stats.t.sf((difference + 2) / error, freedom), stats.t.cdf((difference - 2) / error, freedom))
    assert equivalence.two_one_sided(first, second) == pytest.approx(by_hand)
    assert equivalence.two_one_sided(second, first) == pytest.approx(by_hand)


@pytest.mark.parametrize(("shift", "equivalent"), [(0.0, True), (1.0, True), (-1.0, True), (2.0, False), (-3.0, False)])
def test_what_is_as_far_as_the_margin_is_not_equivalent(shift, equivalent):
    values = np.array([80.0, 80.2, 79.8, 80.1, 79.9])
    assert (equivalence.two_one_sided(values + shift, values) < equivalence.LEVEL) == equivalent


def test_noise_does_not_make_two_things_equivalent():
    noisy = np.array([70.0, 90.0, 80.0])
    assert stats.ttest_ind(noisy, noisy[::-1]).pvalue == 1.0  # no difference is found
    assert equivalence.two_one_sided(noisy, noisy[::-1]) > 0.3


def both(shift: float = 0.0, seeds=range(5)) -> list[Record]:
    noise = [0.001, -0.001, 0.002, -0.002, 0.0] * 2

    def run(seed: int, by: float, more: float = 0.0) -> Record:
        return record(seed, forth=0.92 + by + more, back=0.81 - by, probe=(0.98 + by, 0.80 + by, 0.97 - by))

    return [*(run(n, noise[n]) for n in seeds), *(in_bfloat16(run(n, noise[-n], shift)) for n in seeds)]


def test_every_metric_of_both_tables_has_a_row_and_a_word():
    found = equivalence.of_precisions(both(shift=0.03))
    columns = [*tables.paper.TABLE1_COLUMNS, *(f"probe {name}" for name in tables.paper.TABLE2_COLUMNS)]
    assert list(found.index) == columns
    words = found["within 2 points"]
    assert words["MNIST→SVHN"] == "not shown"
    assert words["SVHN→MNIST"] == "equivalent"
    assert found.loc["MNIST→SVHN", "difference"] == "+3.00"
    assert found.loc["MNIST→SVHN", ["float32", "bfloat16"]].tolist() == ["92.0 ± 0.2", "95.0 ± 0.2"]


def test_a_second_look_is_judged_at_half_the_level(monkeypatch):
    monkeypatch.setattr(equivalence, "two_one_sided", lambda *_: 0.03)
    assert set(equivalence.of_precisions(both())["within 2 points"]) == {"equivalent"}
    assert set(equivalence.of_precisions(both(seeds=range(10)))["within 2 points"]) == {"not shown"}


def test_seeds_that_one_precision_lacks_are_an_error():
    with pytest.raises(RecordError, match="the same seeds, two or more, in both precisions; there are .*'float32'"):
        equivalence.of_precisions(both()[:-1])
    with pytest.raises(RecordError, match="the same seeds"):
        equivalence.of_precisions(both(seeds=[0]))
    failed = both()
    failed[0]["status"] = "failed"
    with pytest.raises(RecordError, match="the same seeds"):
        equivalence.of_precisions(failed)
