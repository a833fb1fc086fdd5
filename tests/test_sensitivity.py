"""The rule of the sensitivity plan: written before the runs, and applied as it is written."""

import pytest
import test_tables

from qmvae_core.models import reading
from qmvae_study import plan as study_plan
from qmvae_study import sensitivity
from qmvae_study.evidence.records import Record, RecordError

NOISE = [80.0, 82.0, 84.0]  # of default over its seeds: a standard deviation of 2 points


def record(name: str, score: float, seed: int = 0, **fields) -> Record:
    made = test_tables.record(
        seed, forth=score / 100 + 0.01, back=score / 100 - 0.01, n_back=1000, reading=name, **fields
    )
    made["metrics"]["leakage"] = {"mnist": {"nonlinear": {"accuracy": 0.5}}}
    return made


def base() -> list[Record]:
    return [record("default", value, seed) for seed, value in enumerate(NOISE)]


def words(*others: Record) -> dict[str, str]:
    table = sensitivity.effects([*base(), *others])
    return dict(zip(table["value"], table["word"], strict=True))


def test_every_reading_of_the_plan_is_one_and_the_profile_is_the_plan():
    for name in sensitivity.PLAN:
        reading(name)
    assert len(set(sensitivity.PLAN)) == len(sensitivity.PLAN)
    assert study_plan.profile("sensitivity").readings == sensitivity.PLAN
    assert study_plan.profile("sensitivity").validation


def test_a_score_is_the_mean_of_both_directions():
    assert sensitivity.score(record("default", 77.0)) == pytest.approx(77.0)


def test_noise_is_the_deviation_over_the_seeds_of_default():
    assert sensitivity.noise(base()) == pytest.approx(2.0)
    with pytest.raises(RecordError, match="two or more seeds of 'default', got 1"):
        sensitivity.noise(base()[:1])


@pytest.mark.parametrize(
    ("score", "word"), [(84.1, "helps"), (83.9, "undecided"), (76.1, "undecided"), (75.9, "hurts")]
)
def test_a_value_is_compared_with_its_own_seed_by_twice_the_noise(score, word):
    assert words(record("default+mnist.weight=1", score))["mnist.weight=1"] == word


def test_a_value_of_another_seed_is_compared_with_that_seed():
    assert words(record("default+mnist.weight=1", 84.1, seed=2))["mnist.weight=1"] == "undecided"
    with pytest.raises(RecordError, match="no record of 'default' with seed 7"):
        words(record("default+mnist.weight=1", 84.1, seed=7))


def test_the_combination_takes_the_best_helping_value_of_each_point():
    records = [
        *base(),
        record("default+all.private=4", 85), record("default+all.private=1", 86), record("default+all.private=20", 70),
        record("default+all.likelihood=normal+all.scale=0.5", 87), record("default+mnist.weight=1", 81),
        record("default+beta=0", 89), record("unscreened", 89),
    ]  # fmt: skip
    assert sensitivity.combination(records) == "default+all.private=1+all.likelihood=normal+all.scale=0.5"
    reading(sensitivity.combination(records))
    assert sensitivity.combination(base()) == "default"


def test_the_best_reading_waits_for_the_combination_and_needs_it_to_help():
    helped = [*base(), record("default+all.private=1", 86), record("default+mnist.weight=1", 85)]
    wanted = "default+all.private=1+mnist.weight=1"
    assert sensitivity.combination(helped) == wanted
    assert sensitivity.best_reading(helped) is None
    assert sensitivity.best_reading([*helped, record(wanted, 90)]) == wanted
    assert sensitivity.best_reading([*helped, record(wanted, 83)]) == "default"
    assert sensitivity.best_reading(base()) == "default"
    assert sensitivity.best_reading([*base(), record("default+mnist.weight=1", 85)]) == "default+mnist.weight=1"


def test_the_table_names_points_references_and_combinations_in_the_order_of_the_plan():
    others = [record("default+all.private=1+mnist.weight=1", 90), record("default+mnist.weight=1", 85)]
    failed = record("default+all.private=1", 85, status="failed")
    table = sensitivity.effects([*others, *base()[::-1], record("default+beta=0", 20), failed])
    assert list(table["open point"]) == ["reference"] * 4 + ["weight of MNIST", "combination"]
    assert list(table["seed"]) == [0, 1, 2, 0, 0, 0]
    assert table["leakage SVHN"].isna().all()
    assert table["leakage MNIST"].tolist() == [50.0] * 6
    assert table.loc[4, "difference"] == pytest.approx(5.0)


def test_a_stalled_run_has_the_word_beside_it_and_is_never_taken():
    stalled = record("default+cross_reconstruction=1", 89.0) | {"plateau": {"left": None}}
    assert words(stalled)["cross_reconstruction=1"] == "helps (stalled)"
    assert sensitivity.combination([*base(), stalled]) == "default"
    first = [each | {"plateau": {"left": None}} if each["seed"] == 0 else each for each in base()]
    table = sensitivity.effects(first)
    assert list(table["word"]) == ["(stalled)", "", ""]
