"""The hunt for the reading: its plan and its rule, written before its first run.

The paper leaves the scale of the likelihood, the screening of negatives and much else open. Every reading of PLAN is
trained once, seed 0, at the profile `hunt`: 13,141 steps on nine tenths of the training digits, judged on the rest. All
runs are published, stalled and failed ones too.

The rule:

- A run's score is the mean of three accuracies on the validation digits, in per cent: both directions of cross
  generation, z by its mean, and the probe of Table 2 on joint codes.
- A run whose quadruplet loss never left its plateau is stalled and cannot be chosen.
- The FINALISTS readings with the highest scores at seed 0 are trained with the other SEEDS too.
- Noise is the standard deviation of the score over seeds, pooled over the finalists. Two readings are told apart if
  their mean scores differ by more than the half-width of the 95 % interval of that difference by Student's t, with the
  noise and its degrees of freedom, each reading with the number of its seeds.
- The best reading is the finalist with the highest mean score or, if others are not told apart from it, the one of them
  that changes the fewest choices of "as-printed", where the likelihood and its scale do not count, since the paper
  names none. Of equal ones the higher score wins.
- The scale of "as-printed" itself is that with the highest score among the readings of SCALES, which add the screening
  that section 3.4 asks for and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from qmvae_core.models.readings import reading
from qmvae_study.evidence.records import Record
from qmvae_study.paper import TABLE1_COLUMNS, TABLE2_COLUMNS
from qmvae_study.report import words
from qmvae_study.report.intervals import Interval
from qmvae_study.rows import PRINTED, SCALES

PROFILE, SEEDS, FINALISTS = "hunt", (0, 1, 2), 3
_WIDE = f"{PRINTED}+all.scale=3.75"
PLAN = (
    # the scale of the likelihood, with the printed screening and without any
    *SCALES,
    *(f"as-printed+negatives=random+all.scale={scale}" for scale in ("0.75", "3.75", "10.0")),
    # the other rules of screening
    *(f"as-printed+negatives={rule}+all.scale=3.75" for rule in ("semi-hard", "hardest")),
    # the prices of the codes: with the narrow likelihood, where both together are the wide one with another beta
    f"{PRINTED}+all.scale=0.75+shared_kl_weight=5",
    f"{PRINTED}+all.scale=0.75+all.private_kl_weight=5",
    f"{PRINTED}+all.scale=0.75+shared_kl_weight=5+all.private_kl_weight=5",
    f"{_WIDE}+all.private_kl_weight=5",
    # softmax scales, with and without screening, with the wide likelihood and the narrow one
    f"{_WIDE}+shared_scales=softmax",
    "as-printed+negatives=random+all.scale=3.75+shared_scales=softmax",
    f"{PRINTED}+all.scale=0.75+shared_scales=softmax",
    # the private codes and the encoders
    f"{_WIDE}+all.private=10",
    f"{_WIDE}+all.private=4",
    f"{_WIDE}+all.encoders=common",
    f"{_WIDE}+all.encoders=common+all.private=4",
    # the weight of MNIST, the kind of the likelihood, the bounds that beta weighs against
    f"{_WIDE}+mnist.weight=3.92",
    f"{PRINTED}+all.scale=0.75+all.likelihood=bernoulli",
    f"{PRINTED}+all.likelihood=normal+all.scale=1.0",
    f"{_WIDE}+beta_against=sum",
    # what was best before: with its own screening, and with the price of z and the screening
    "default+all.private=4+mnist.weight=1",
    "default+all.private=4+mnist.weight=1+shared_kl_weight=5+negatives=all-violating",
)
# What each choice does, alone and together with others: (the choice, the setting, the reading without it, and with it).
_NARROW, _PLAIN = f"{PRINTED}+all.scale=0.75", "as-printed+negatives=random+all.scale="
_SOFTMAX = "+shared_scales=softmax"
QUESTIONS = (
    ("scale 2 for 0.75", "screened", _NARROW, f"{PRINTED}+all.scale=2.0"),
    ("scale 3.75 for 0.75", "screened", _NARROW, _WIDE),
    ("scale 10 for 0.75", "screened", _NARROW, f"{PRINTED}+all.scale=10.0"),
    ("scale 3.75 for 0.75", "not screened", f"{_PLAIN}0.75", f"{_PLAIN}3.75"),
    ("scale 10 for 0.75", "not screened", f"{_PLAIN}0.75", f"{_PLAIN}10.0"),
    ("scale 3.75 for 0.75", "screened, softmax scales", f"{_NARROW}{_SOFTMAX}", f"{_WIDE}{_SOFTMAX}"),
    ("screening", "scale 0.75", f"{_PLAIN}0.75", _NARROW),
    ("screening", "scale 3.75", f"{_PLAIN}3.75", _WIDE),
    ("screening", "scale 10", f"{_PLAIN}10.0", f"{PRINTED}+all.scale=10.0"),
    ("screening", "scale 3.75, softmax scales", f"{_PLAIN}3.75{_SOFTMAX}", f"{_WIDE}{_SOFTMAX}"),
    ("softmax scales", "screened, scale 0.75", _NARROW, f"{_NARROW}{_SOFTMAX}"),
    ("softmax scales", "screened, scale 3.75", _WIDE, f"{_WIDE}{_SOFTMAX}"),
    ("softmax scales", "not screened, scale 3.75", f"{_PLAIN}3.75", f"{_PLAIN}3.75{_SOFTMAX}"),
    ("KL of z weighed 5", "screened, scale 0.75", _NARROW, f"{_NARROW}+shared_kl_weight=5"),
    ("KL of h weighed 5", "screened, scale 0.75", _NARROW, f"{_NARROW}+all.private_kl_weight=5"),
    ("both weighed 5", "screened, scale 0.75", _NARROW, f"{_NARROW}+shared_kl_weight=5+all.private_kl_weight=5"),
    ("KL of h weighed 5", "screened, scale 3.75", _WIDE, f"{_WIDE}+all.private_kl_weight=5"),
    ("private codes of 10", "screened, scale 3.75", _WIDE, f"{_WIDE}+all.private=10"),
    ("private codes of 4", "screened, scale 3.75", _WIDE, f"{_WIDE}+all.private=4"),
    ("common encoders", "screened, scale 3.75", _WIDE, f"{_WIDE}+all.encoders=common"),
    (
        "common encoders and private codes of 4", "screened, scale 3.75",
        _WIDE, f"{_WIDE}+all.encoders=common+all.private=4",
    ),
    ("MNIST weighed 3.92", "screened, scale 3.75", _WIDE, f"{_WIDE}+mnist.weight=3.92"),
    ("beta against the sum", "screened, scale 3.75", _WIDE, f"{_WIDE}+beta_against=sum"),
    ("KL of z weighed 5, and screening", "best before", PLAN[-2], PLAN[-1]),
)  # fmt: skip
COUNTED = {**TABLE1_COLUMNS, "joint probe": TABLE2_COLUMNS["MNIST-SVHN"]}


def score(record: Record) -> float:
    """The mean of the three accuracies that count, in per cent."""
    return float(np.mean([_accuracy(record, path) for path in COUNTED.values()]))


def _accuracy(record: Record, path: Sequence[str]) -> float:
    return record.share(*path, code="mean").per_cent


def changes(name: str) -> int:
    """How many choices of "as-printed" a reading changes, each counted once; likelihood and scale are none of them."""
    ours, printed = (reading(each).to_dict() for each in (name, "as-printed"))
    found = {key for key, value in ours.items() if key != "modalities" and printed[key] != value}
    for modality, choices in ours["modalities"].items():
        found |= {key for key, value in choices.items() if printed["modalities"][modality][key] != value}
    return len(found - {"likelihood", "scale", "negatives"}) + (ours["negatives"] == "random")


def finalists(records: Sequence[Record]) -> list[str] | None:
    """The readings that go on to more seeds, the highest score first; None while a reading of the plan is missing."""
    first = {record.reading: record for record in records if record.seed == SEEDS[0]}
    if set(PLAN) - set(first):
        return None
    return [record.reading for record in _by_score(first[name] for name in PLAN)[:FINALISTS]]


def _by_score(records: Iterable[Record]) -> list[Record]:
    """Those that can be chosen, the highest score first: finished and not stalled."""
    return sorted((r for r in records if r.done and not r.stalled), key=score, reverse=True)


def scores(records: Sequence[Record]) -> dict[str, list[float]]:
    """The scores of each reading that finished, in the order of the plan."""
    found = {name: [score(r) for r in records if r.done and r.reading == name] for name in PLAN}
    return {name: values for name, values in found.items() if values}


def noise(records: Sequence[Record]) -> tuple[float, int] | None:
    """The pooled standard deviation of the score and its degrees of freedom; None while a finalist lacks a seed."""
    chosen = finalists(records)
    found = scores(records)
    if chosen is None or any(len(found[name]) < len(SEEDS) for name in chosen):
        return None
    groups = [found[name] for name in chosen]
    freedom = sum(len(group) - 1 for group in groups)
    return math.sqrt(sum(np.var(group, ddof=1) * (len(group) - 1) for group in groups) / freedom), freedom


def reach(spread: tuple[float, int], first: int, second: int) -> float:
    """The difference beyond which mean scores of so many seeds each are told apart; spread: as of `noise`."""
    deviation, freedom = spread
    return Interval.student(0.0, deviation * math.sqrt(1 / first + 1 / second), freedom).high


def best(records: Sequence[Record]) -> str | None:
    """The best reading by the rule; None while a run of it is missing."""
    spread = noise(records)
    if spread is None:
        return None
    found = {name: scores(records)[name] for name in finalists(records)}
    means = {name: float(np.mean(values)) for name, values in found.items()}
    top = max(means, key=means.get)
    level = [n for n in means if means[top] - means[n] <= reach(spread, len(found[top]), len(found[n]))]
    return min(level, key=lambda name: (changes(name), -means[name]))


def printed(records: Sequence[Record]) -> str | None:
    """The reading of SCALES with the highest score; None while one is missing, or if all are stalled."""
    found = {r.reading: r for r in records if r.reading in SCALES and r.seed == SEEDS[0]}
    if set(SCALES) - set(found):
        return None
    able = _by_score(found[name] for name in SCALES)
    return able[0].reading if able else None


def effects(records: Sequence[Record]) -> pd.DataFrame:
    """What each of QUESTIONS found, by seed 0 alone: differences in points, and whether the scores are told apart.

    A question whose runs are not both finished has no row. "stalled" says which of the two readings never left its
    plateau: "with" or "without" the choice. Nobody is told apart before the noise is known.
    """
    first = {r.reading: r for r in records if r.seed == SEEDS[0] and r.done}
    spread = noise(records)
    rows = []
    for choice, setting, without, having in QUESTIONS:
        if without not in first or having not in first:
            continue
        pair = {"without": first[without], "with": first[having]}
        row = {"choice": choice, "where": setting}
        row |= {c: _accuracy(pair["with"], path) - _accuracy(pair["without"], path) for c, path in COUNTED.items()}
        row["score"] = score(pair["with"]) - score(pair["without"])
        row["told apart"] = "" if spread is None else "yes" if abs(row["score"]) > reach(spread, 1, 1) else "no"
        row["stalled"] = " and ".join(name for name, record in pair.items() if record.stalled)
        rows.append(row)
    return pd.DataFrame(rows)


def table(records: Sequence[Record]) -> pd.DataFrame:
    """A row a reading, in the order of the plan: accuracies by the mean over its seeds, score, and what the rule says.

    Accuracies and score in per cent. "told apart": whether the mean score is told apart from the highest one.
    """
    spread = noise(records)
    found = scores(records)
    top = max(found, key=lambda name: np.mean(found[name])) if found else None
    rows = []
    for name in PLAN:
        group = [r for r in records if r.reading == name]
        done = [r for r in group if r.done]
        row = {"reading": name, "seeds": len(group), "changes": changes(name), "note": ""}
        if len(done) < len(group) or not group:
            row["note"] = "failed" if group else "not run"
        if done:
            row |= {column: np.mean([_accuracy(r, path) for r in done]) for column, path in COUNTED.items()}
            row["score"] = np.mean(found[name])
            if any(r.stalled for r in done):
                row["note"] = "stalled"
            if spread is not None:
                gap = np.mean(found[top]) - row["score"]
                row["told apart"] = bool(gap > reach(spread, len(found[top]), len(found[name])))
        rows.append(row)
    return pd.DataFrame(rows)


def answer(records: Sequence[Record]) -> str:
    """What the hunt has found, in Markdown: what its rule chose, the highest scores, and which choice moves it most."""
    first = [record for record in records if record.seed == SEEDS[0]]
    chosen, top = best(records), _by_score(first)[:FINALISTS]
    run = len({record.reading for record in records})
    waits = (
        f"The hunt is not over: {run} of the {len(PLAN)} readings of the plan have been run, and by its rule nothing"
    )
    said = _why(records, chosen) if chosen else f"{waits} is chosen yet."
    lines = [f"- **What is the best reading?** {said}"]
    if top:
        shown = (f"{words.reading(r.reading)} ({_in_short(r)})" for r in top)
        lines.append(f"- **What scores highest with one seed?** {'; '.join(shown)}.")
    found = effects(records)
    if len(found := found[found["stalled"] == ""] if len(found) else found):
        rows = found.loc[found["score"].abs().sort_values(ascending=False).index].head(3)
        moves = (f"{row.choice}, {row.where}: {row.score:+.1f}" for row in rows.itertuples())
        lines.append(f"- **Which choice moves the score most?** In points: {'; '.join(moves)}.")
    return "\n".join(lines)


def _why(records: Sequence[Record], chosen: str) -> str:
    found, beyond = scores(records), reach(noise(records), len(SEEDS), len(SEEDS))
    means = (f"{words.reading(name)} {np.mean(found[name]):.1f}" for name in finalists(records))
    return (
        f"{words.reading(chosen)}, by the rule: over {words.count(len(SEEDS), 'seed')} the finalists score "
        f"{'; '.join(means)}. They are told apart beyond {beyond:.1f} points, and of those level with the highest the "
        "one that changes the fewest choices of the printed text is taken."
    )


def _in_short(record: Record) -> str:
    return " / ".join(f"{_accuracy(record, path):.1f}" for path in COUNTED.values())
