"""Whether a precision changes a result: two one-sided tests on the profile `precision`, planned before its runs.

The same seeds of one reading are trained in both precisions. For each metric of both tables two one-sided Welch tests
ask whether the difference of the means lies within MARGIN points on either side; it is "equivalent" where both reject
at LEVEL. That no difference was found would not say so: with few seeds none is found easily.

A second look was planned after the first, which had shown four metrics of five: with SECOND_LOOK beside the first
seeds, all are judged again at half the level.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from qmvae_study.evidence.records import Record, RecordError
from qmvae_study.paper import TABLE1_COLUMNS, TABLE2_COLUMNS
from qmvae_study.report.intervals import Interval

MARGIN, LEVEL = 2.0, 0.05  # points of accuracy; of each one-sided test
PRECISIONS = ("float32", "bfloat16")
SECOND_LOOK = (5, 6, 7, 8, 9)


def two_one_sided(first: Sequence[float], second: Sequence[float], margin: float = MARGIN) -> float:
    """The larger p-value of the two tests that the mean of `first` is within `margin` of that of `second`.

    Each tests, by Welch's t, against a true difference of the margin, from below and from above. Both need two values.
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    above = stats.ttest_ind(first + margin, second, equal_var=False, alternative="greater").pvalue
    below = stats.ttest_ind(first - margin, second, equal_var=False, alternative="less").pvalue
    return float(max(above, below))


def of_precisions(records: Sequence[Record]) -> pd.DataFrame:
    """A row for each metric of both tables: means and standard deviations by precision, their difference, the verdict.

    records: those of the profile `precision`; accuracies in per cent. Raises RecordError unless both precisions have
    finished the same two or more seeds.
    """
    groups = {name: [r for r in records if r.done and r.precision == name] for name in PRECISIONS}
    seeds = {name: sorted(record.seed for record in group) for name, group in groups.items()}
    if len(set(map(tuple, seeds.values()))) > 1 or len(seeds["float32"]) < 2:
        raise RecordError(f"the comparison needs the same seeds, two or more, in both precisions; there are {seeds}")
    level = LEVEL / 2 if set(SECOND_LOOK) <= set(seeds["float32"]) else LEVEL
    rows = {}
    for column, path in {**TABLE1_COLUMNS, **{f"probe {k}": v for k, v in TABLE2_COLUMNS.items()}}.items():
        values = {name: [record.share(*path).per_cent for record in group] for name, group in groups.items()}
        p = two_one_sided(*reversed(values.values()))
        means = {name: Interval.spread(found) for name, found in values.items()}
        rows[column] = {
            **{name: found.plus_minus() for name, found in means.items()},
            "difference": f"{means['bfloat16'].centre - means['float32'].centre:+.2f}",
            "p": f"{p:.4f}",
            f"within {MARGIN:g} points": "equivalent" if p < level else "not shown",
        }
    return pd.DataFrame(rows).T
