"""Which of the paper's open points decide its result: the plan, written before the runs, and the rule that reads it.

Each value of each open point is tried alone, all else as in the reading "default", on a validation part of the training
digits. A run's score is the mean of both directions of cross generation, z by its mean. Noise is the standard deviation
of the scores of "default" over its seeds. The rule:

- A value "helps" or "hurts" if its score is more than twice the noise above or below that of "default" with the same
  seed; else the point is "undecided" at this length.
- For each point the best value that helps is taken; "default" keeps its own where none does.
- The values taken are combined and that reading is run too. It is the best reading if it helps; else "default" is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from qmvae_core.names import DEFAULT, UNSCREENED
from qmvae_core.negatives import RULES
from qmvae_study.evidence.records import Record, RecordError
from qmvae_study.paper import TABLE1_COLUMNS, TABLE2_COLUMNS
from qmvae_study.report.intervals import Interval, Says, Verdict
from qmvae_study.rows import WITHOUT_LOSS

WORDS = {Says.ABOVE: "helps", Says.BELOW: "hurts", Says.AGREES: "undecided"}
BASE, SEEDS = DEFAULT, (0, 1, 2)
REFERENCES = (UNSCREENED, WITHOUT_LOSS.format(BASE))  # shown beside the rest, and candidates for nothing
POINTS = {
    "weight of the private KL": ("all.private_kl_weight=1", "all.private_kl_weight=20"),
    "size of the private codes": ("all.private=20", "all.private=4", "all.private=1"),
    "likelihood": ("all.likelihood=bernoulli", "all.scale=0.1", "all.likelihood=normal+all.scale=0.5"),
    "weight of MNIST": ("mnist.weight=1",),
    "cross reconstruction": ("cross_reconstruction=1",),
    "learning rate": ("training.learning_rate=0.0001",),
    "encoders of z and h": ("all.encoders=separate",),
    "screening of negatives": tuple(f"negatives={rule}" for rule in RULES if rule != "random"),
    "equal negatives": ("mask_equal_negatives=true",),
}
PLAN = (BASE, *REFERENCES, *(f"{BASE}+{value}" for values in POINTS.values() for value in values))


def score(record: Record) -> float:
    """The mean of both directions of cross generation by the mean of q(z|x), in per cent."""
    return 100.0 * float(np.mean([record.share(*path, code="mean").accuracy for path in TABLE1_COLUMNS.values()]))


def noise(records: Sequence[Record]) -> float:
    """The standard deviation of the scores of "default" over its seeds. Raises RecordError for fewer than two."""
    scores = [score(r) for r in records if r.reading == BASE]
    if len(scores) < 2:
        raise RecordError(
            f"the noise needs two or more seeds of {BASE!r}, got {len(scores)}; run the profile sensitivity"
        )
    return float(np.std(scores, ddof=1))


def effects(records: Sequence[Record]) -> pd.DataFrame:
    """A row for each record that finished: what was changed, accuracies, leakage, and the rule's word on it.

    Accuracies in per cent; difference: of the score to that of "default" with the same seed, in points.
    Raises RecordError as `noise`, and if "default" lacks a seed.
    """
    done = [r for r in records if r.done]
    base = {r.seed: score(r) for r in done if r.reading == BASE}
    reach = 2 * noise(done)
    point_of = {f"{BASE}+{value}": point for point, values in POINTS.items() for value in values}
    rows = []
    for record in done:
        if record.seed not in base:
            raise RecordError(f"there is no record of {BASE!r} with seed {record.seed} to compare {record.id} with")
        reading, leakage = record.reading, record.leakage
        difference = Interval.around(score(record) - base[record.seed], reach)
        word = Verdict(difference.against(0.0)).spelled(WORDS) if reading != BASE else ""
        row = {
            "open point": point_of.get(reading, "combination" if _is_combination(reading) else "reference"),
            "value": reading.removeprefix(f"{BASE}+"),
            "reading": reading,
            "seed": record.seed,
            **{name: record.share(*path, code="mean").per_cent for name, path in TABLE1_COLUMNS.items()},
            "score": score(record),
            "difference": difference.centre,
            "word": f"{word} {'(stalled)' if record.stalled else ''}".strip(),
            **{f"probe {name}": record.share(*path).per_cent for name, path in TABLE2_COLUMNS.items()},
        }
        for name in ("mnist", "svhn"):
            row[f"leakage {name.upper()}"] = leakage[name]["nonlinear"].per_cent if name in leakage else None
        rows.append(row)
    order = {reading: place for place, reading in enumerate(PLAN)}
    rows.sort(key=lambda row: (order.get(row["reading"], len(order)), row["seed"]))
    return pd.DataFrame(rows)


def _is_combination(reading: str) -> bool:
    changes = set(reading.split("+")[1:])
    return reading not in PLAN and changes <= {c for values in POINTS.values() for v in values for c in v.split("+")}


def combination(records: Sequence[Record]) -> str:
    """The reading with the best value of each point that helps; "default" where none does. Raises as `effects`."""
    table = effects(records)
    taken = []
    for point in POINTS:
        helping = table[(table["open point"] == point) & (table["word"] == "helps")]
        if len(helping):
            taken.append(helping.loc[helping["score"].idxmax(), "value"])
    return "+".join([BASE, *taken])


def best_reading(records: Sequence[Record]) -> str | None:
    """The best reading by the rule, or None while the combination has not been run. Raises as `effects`."""
    wanted = combination(records)
    table = effects(records).set_index("reading")
    if wanted in PLAN:
        return wanted
    if wanted not in table.index:
        return None
    return wanted if table.loc[wanted, "word"] == "helps" else BASE
