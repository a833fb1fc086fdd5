"""Every verdict of the book again, from the raw JSON of the committed records, by formulas of its own.

Nothing of `qmvae_study.report` is used but the verdicts that are compared; the tests are scipy's, Holm's is written
out.
"""

import json
import math

import numpy as np
import pytest
import test_claims
from scipy import stats
from test_paper import TABLE1, TABLE2, typed

from qmvae_study.evidence.folder import RESULTS
from qmvae_study.evidence.records import load_records
from qmvae_study.report import claims

RAW = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((RESULTS / "runs").glob("*.json"))]
# The paper's five-seed rows: MNIST->SVHN, SVHN->MNIST, and the probe on MNIST, SVHN and joint codes.
ROWS = typed(TABLE1, [0, 1]), typed(TABLE2, [2, 3, 4])
SAID = {model: [*row.values(), *ROWS[1][model].values()] for model, row in ROWS[0].items()}
KEYS = [
    "table-1-{}-mnist-to-svhn",
    "table-1-{}-svhn-to-mnist",
    *(f"table-2-{{}}-{n}" for n in ("mnist", "svhn", "mnist-svhn")),
]
OTHERS = ("mvae", "mmvae", "dmvae")
# Claim -> what must be above what: a reading and a column, twice; braces stand for the reading of Q-MVAE.
ABOVE = {
    "above-all-mnist-to-svhn": [(("{}", 0), (other, 0)) for other in OTHERS],
    "above-all-svhn-to-mnist": [(("{}", 1), (other, 1)) for other in OTHERS],
    "codes-of-mnist": [(("{}", 2), (other, 2)) for other in OTHERS],
    "codes-of-svhn": [(("{}", 3), (other, 3)) for other in OTHERS],
    "joint-codes": [(("{}", 4), (other, 4)) for other in ("mvae", "dmvae")],
    "joint-above-svhn": [(("{}", 4), ("{}", 3))],
    "joint-below-mnist": [(("{}", 2), ("{}", 4))],
    "loss-aligns": [(("{}", 1), ("{}+beta=0", 1))],
    "gain-over-dmvae": [(("{}", 1), ("dmvae", 1))],
}


def by_harness(raw: dict, column: int) -> dict[str, float]:
    metrics = raw["metrics"]
    if column < 2:
        direction = ("mnist->svhn", "svhn->mnist")[column]
        ours = metrics["cross_generation"][direction][raw["config"]["model"]["test_code"]]["accuracy"]
        judges = metrics.get("published_judges", {})
        found = {j: 100 * read[direction]["sample"]["pairs"]["accuracy"] for j, read in judges.items()}
    else:
        name = ("mnist", "svhn", "joint")[column - 2]
        if name not in metrics["probe"]:
            return {}
        ours, found = metrics["probe"][name]["accuracy"], {}
        if "published_probe" in metrics:
            found = {"all": 100 * metrics["published_probe"][name]["accuracy"]}
    return {"ours": 100 * ours, **({"theirs": float(np.mean(list(found.values())))} if found else {}), **found}


def runs_of(reading: str, profile: str) -> list[dict]:
    """The real runs of a length, of the precision with most seeds."""
    wanted = (profile, reading, "ok", "real")
    runs = [raw for raw in RAW if (raw["profile"], raw["reading"], raw["status"], raw["data"]["kind"]) == wanted]
    if not runs:
        return runs_of("mmvae+particles=8", profile) if reading == "mmvae" else []
    precisions = [raw["config"]["training"]["precision"] for raw in runs]
    most = max(sorted(set(precisions), reverse=True), key=precisions.count)
    return [raw for raw, each in zip(runs, precisions, strict=True) if each == most]


def values_of(reading: str, column: int, profile: str) -> dict[str, dict[int, float]]:
    """Harness -> seed -> per cent."""
    cells = {raw["seed"]: by_harness(raw, column) for raw in runs_of(reading, profile)}
    judges = set.intersection(*(set(cell) for cell in cells.values())) if cells else ()
    return {judge: {seed: cell[judge] for seed, cell in cells.items()} for judge in judges}


def p_of_number(values: list[float], said: tuple[float, float]) -> tuple[float, float, float]:
    """Equivalent within two points; different; the difference."""
    moments = np.mean(values), np.std(values, ddof=1), len(values), *said, 5, False
    low = stats.ttest_ind_from_stats(moments[0] + 2, *moments[1:], alternative="greater").pvalue
    high = stats.ttest_ind_from_stats(moments[0] - 2, *moments[1:], alternative="less").pvalue
    return max(low, high), stats.ttest_ind_from_stats(*moments).pvalue, moments[0] - said[0]


def holm(p: list[float]) -> list[float]:
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate([min(1.0, (len(p) - i) * p[k]) for i, k in enumerate(order)])
    return [float(stepped[list(order).index(k)]) for k in range(len(p))]


def words_of(tested: list[dict[str, tuple]], strict: bool) -> list[dict[str, str]]:
    """For each claim of a family harness -> word; tested: harness -> (p that it holds, p that it fails, above)."""
    main = ["theirs" if "theirs" in each else "ours" for each in tested]
    found: list[dict[str, str]] = [{} for _ in tested]
    for judge in {judge for each in tested for judge in each}:
        rows = [each.get(judge) or each.get(m) or (1.0, 1.0, False) for each, m in zip(tested, main, strict=True)]
        holds = holm([row[0] for row in rows]) if strict else [row[0] for row in rows]
        fails = holm([row[1] for row in rows])
        for words, each, p, q, row in zip(found, tested, holds, fails, rows, strict=True):
            if judge in each:
                words[judge] = "holds" if p < 0.05 else ("above" if row[2] else "fails") if q < 0.05 else "undecided"
    return found


def verdict(words: dict[str, str]) -> str:
    decided = {word for word in words.values() if word != "undecided"}
    return "depends on the judge" if len(decided) > 1 else words.get("theirs", words.get("ours", "undecided"))


def expected(reading: str, profile: str = "paper") -> dict[str, str]:
    found = {}
    for model, cells in SAID.items():
        tested = []
        for column, said in enumerate(cells):
            runs = values_of(reading if model == "qmvae" else model, column, profile)
            tested.append({})
            for judge, by_seed in runs.items() if said else ():
                if len(by_seed) >= 3:
                    p, q, difference = p_of_number(list(by_seed.values()), said)
                    tested[-1][judge] = p, q, difference > 0
        kept = [(key, each) for key, each, said in zip(KEYS, tested, cells, strict=True) if said]
        words = words_of([each for _, each in kept], strict=False)
        found |= {key.format(model): verdict(each) for (key, _), each in zip(kept, words, strict=True)}
    tested = []
    for key, pairs in ABOVE.items():
        differences = []
        for (one, column), (other, against) in pairs:
            first, second = (
                values_of(one.format(reading), column, profile),
                values_of(other.format(reading), against, profile),
            )
            both = {j: [first[j][s] - second[j][s] for s in first[j] if s in second[j]] for j in first if j in second}
            differences.append({judge: values for judge, values in both.items() if len(values) >= 3})
        there = [each for each in differences if each]
        tested.append({})
        for judge in set.intersection(*map(set, there)) if there else ():
            values = [each[judge] for each in there]
            if key == "gain-over-dmvae":
                p, q, difference = p_of_number(values[0], (4.9, math.hypot(0.5, 0.4)))
                tested[-1][judge] = p, q, difference > 0
            else:
                above = [stats.ttest_1samp(each, 0, alternative="greater").pvalue for each in values]
                holds = max(above) if len(there) == len(pairs) else 1.0
                tested[-1][judge] = holds, min(1.0, len(pairs) * min(1 - p for p in above)), False
    return found | dict(zip(ABOVE, map(verdict, words_of(tested, strict=True)), strict=True))


def readings_of(key: str, reading: str) -> set[str]:
    """The readings that a claim is about."""
    if key in ABOVE:
        return {each.format(reading) for pair in ABOVE[key] for each, _ in pair}
    model = key.split("-")[2]
    return {reading if model == "qmvae" else model}


def seeds_of(key: str, reading: str, profile: str) -> tuple[bool, int]:
    """Whether a length has all runs of a claim, and the fewest seeds of those that it has."""
    runs = {name: {run["seed"] for run in runs_of(name, profile)} for name in readings_of(key, reading)}
    own = runs.pop(reading, None)
    counts = [len(own & each if own is not None else each) for each in runs.values()] or [len(own or ())]
    return all(counts), min([count for count in counts if count], default=0)


def leaning(reading: str) -> dict[str, str]:
    """Claim -> the word to which shorter runs let it lean: the longest of three seeds with all runs, or the longest."""
    steps = {run["profile"]: run["cost"]["steps"] for run in RAW if run["status"] == "ok"}
    decided, found = expected(reading), {}
    for key in decided:
        lengths = {name: seeds_of(key, reading, name) for name in sorted(steps, key=steps.get, reverse=True)}
        enough = [name for name, (_, seeds) in lengths.items() if seeds >= 3]
        length = next((name for name in enough if lengths[name][0]), next(iter(enough), None))
        if decided[key] != "undecided" or length in (None, "paper"):
            continue
        short = [run for name in readings_of(key, reading) for run in runs_of(name, length)]
        word = expected(reading, length)[key]
        if word in ("holds", "fails", "above") and all(
            (run.get("plateau") or {}).get("left", 0) is not None for run in short
        ):
            found[key] = word
    return found


@pytest.mark.parametrize("reading", claims.READINGS)
def test_every_verdict_follows_from_the_raw_records(reading):
    found = {key: each.verdict for key, each in claims.findings(load_records(RESULTS / "runs"), reading).items()}
    by_hand = expected(reading)
    assert found.keys() == by_hand.keys()
    decided = {key: str(each.says) for key, each in found.items() if each.says not in ("undecided", "leans")}
    assert decided == {key: word for key, word in by_hand.items() if word != "undecided"}
    leans = {key: each.why.split(" at ")[0] for key, each in found.items() if each.says == "leans"}
    assert leans == leaning(reading)


def test_the_committed_records_decide_something():
    """Or the comparisons above would hold of nothing."""
    assert any(word != "undecided" for reading in claims.READINGS for word in expected(reading).values())
    assert any(map(leaning, claims.READINGS))


@pytest.mark.parametrize("draw", range(12))
def test_made_up_records_of_every_kind_give_the_same_verdicts(draw, monkeypatch):
    """All rows, near the paper's numbers or far from them, with much noise or little, some with the paper's judges."""
    random, made = np.random.default_rng(draw), []
    for reading in ("default", "default+beta=0", *OTHERS):
        if random.random() < 0.15:
            continue
        said = SAID.get(reading, SAID["qmvae"])
        centre = [(each or (60.0, 0))[0] + random.choice([0.0, 0.0, -3.0, 2.5]) for each in said]
        for seed in range(random.integers(2, 6)):
            values = np.clip(centre + random.normal(0, random.choice([0.1, 1.0]), 5), 0, 100)
            names = ("mnist_svhn", "svhn_mnist", "mnist", "svhn", "joint")
            record = test_claims.record(reading, seed, **dict(zip(names, values, strict=True)))
            if reading == "mmvae":
                del record["metrics"]["probe"]["joint"]
            if draw % 3:
                shift = random.choice([0.0, 4.0])
                record = test_claims.measured(record, {0: values[1], 1: min(100.0, values[1] + shift)}, values[3])
            made.append(record)
    monkeypatch.setattr("test_verdicts.RAW", made)
    found = {key: str(each.verdict.says) for key, each in claims.findings(made, "default").items()}
    assert found == expected("default")
