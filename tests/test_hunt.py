"""The hunt's rule on invented records: what counts, who goes on, who is told apart, who wins."""

import itertools
import math

import numpy as np
import pytest
import test_tables
from scipy import stats

from qmvae_core.models import reading
from qmvae_core.names import AS_PRINTED
from qmvae_study import hunt
from qmvae_study import plan as study_plan
from qmvae_study.evidence.folder import RESULTS
from qmvae_study.evidence.records import Record, load_records
from qmvae_study.plan import plan

LOW = {name: 50.0 + 0.1 * number for number, name in enumerate(hunt.PLAN)}


def record(name: str, score: float, seed: int = 0, stalled: bool = False, **fields) -> Record:
    fields |= {
        "reading": name,
        "config": {"model": reading(name).to_dict()},
        "plateau": {"left": None if stalled else 1},
    }
    parts = {"forth": score / 100, "back": score / 100, "probe": (0.0, 0.0, score / 100)}
    return test_tables.record(seed, n_back=1000, **parts, **fields)


def records(scores: dict[str, tuple[float, ...]], **of_all) -> list[Record]:
    """Every reading of the plan: those of `scores` with a seed for each of their scores, the others low ones."""
    found = [record(name, low) for name, low in LOW.items() if name not in scores]
    return found + [record(name, s, seed) for name, values in scores.items() for seed, s in enumerate(values)]


FIRST, SECOND, THIRD = hunt.PLAN[2], hunt.PLAN[17], hunt.PLAN[11]  # which change 0, 1 and 2 choices


def test_the_plan_can_be_carried_out_on_validation_digits_and_repeats_nothing():
    runs = plan("hunt")
    assert [run.reading for run in runs] == list(hunt.PLAN)
    assert len({str(reading(name)) for name in hunt.PLAN}) == len(hunt.PLAN)
    assert {(run.seeds, run.precision) for run in runs} == {((0,), "bfloat16")}
    assert study_plan.profile("hunt").validation
    training = study_plan.profile("hunt").training
    assert training.epochs * training.steps_per_epoch == 13_141
    assert training.learning_rate * 13_141 == pytest.approx(1e-4 * 131_410)


def test_the_score_is_the_mean_of_both_directions_and_the_joint_probe():
    one = test_tables.record(forth=0.9, back=0.6, probe=(0.5, 0.5, 0.99))
    assert hunt.score(one) == pytest.approx(83.0)


def test_changes_are_choices_and_not_modalities_and_the_likelihood_is_none_of_them():
    assert [hunt.changes(name) for name in (FIRST, SECOND, THIRD)] == [0, 1, 2]
    assert hunt.changes("as-printed+negatives=all-violating+all.likelihood=bernoulli") == 0
    assert hunt.changes("as-printed+negatives=all-violating+all.private=4") == 1
    assert hunt.changes("as-printed+negatives=all-violating+mnist.private=4+svhn.private=5") == 1
    assert hunt.changes("as-printed+negatives=random") == 1  # the paper says that it screens
    assert hunt.changes("as-printed+negatives=hardest") == 0  # and not how


def test_nothing_is_said_before_the_runs_are_there():
    found = records({})
    assert hunt.finalists(found[1:]) is None
    assert hunt.best(found) is hunt.noise(found) is None
    assert hunt.printed([r for r in found if r["reading"] != hunt.SCALES[0]]) is None
    assert hunt.finalists([]) is hunt.best([]) is hunt.printed([]) is None
    three = {FIRST: (90.0, 90.0, 91.0), SECOND: (80.0, 81.0, 80.0), THIRD: (70.0, 70.0)}
    assert hunt.best(records(three)) is None  # a finalist lacks a seed


def test_the_three_highest_at_seed_0_go_on_but_no_stalled_and_no_failed_run():
    found = records({FIRST: (90.0,), SECOND: (92.0,), THIRD: (91.0,)})
    assert hunt.finalists(found) == [SECOND, THIRD, FIRST]
    spoilt = [r for r in found if r["reading"] not in (SECOND, THIRD)]
    spoilt += [record(SECOND, 92.0, stalled=True), record(THIRD, 91.0, status="failed")]
    rest = [name for name in hunt.PLAN if name not in (FIRST, SECOND, THIRD)]
    assert hunt.finalists(spoilt) == [FIRST, *sorted(rest, key=LOW.get, reverse=True)[:2]]
    later = [record(hunt.PLAN[5], 99.0, seed=1)]
    assert hunt.finalists([*found, *later]) == [SECOND, THIRD, FIRST]  # by seed 0 alone


def test_noise_is_pooled_over_the_finalists_and_gives_the_reach():
    values = {FIRST: (90.0, 92.0, 91.0), SECOND: (85.0, 85.0, 88.0), THIRD: (80.0, 80.5, 80.0)}
    deviation, freedom = hunt.noise(records(values))
    assert freedom == 6
    assert deviation == pytest.approx(math.sqrt(np.mean([np.var(v, ddof=1) for v in values.values()])))
    expected = stats.t.ppf(0.975, 6) * deviation * math.sqrt(1 / 3 + 1)
    assert hunt.reach((deviation, freedom), 3, 1) == pytest.approx(expected)


def test_the_highest_mean_wins_where_it_is_told_apart():
    for order in itertools.permutations((FIRST, SECOND, THIRD)):
        values = dict(zip(order, ((90.0, 90.1, 90.0), (80.0, 80.1, 80.0), (70.0, 70.1, 70.0)), strict=True))
        assert hunt.best(records(values)) == order[0]


def test_of_those_not_told_apart_the_one_with_the_fewest_changes_wins():
    values = {THIRD: (90.0, 92.0, 91.0), SECOND: (89.0, 91.0, 91.0), FIRST: (80.0, 80.0, 81.0)}
    assert hunt.best(records(values)) == SECOND
    values[FIRST] = (89.0, 90.0, 91.0)
    assert hunt.best(records(values)) == FIRST


def test_the_printed_scale_is_that_of_the_highest_score_among_readings_that_change_nothing_else():
    low, wide, wider = hunt.SCALES[0], hunt.SCALES[2], hunt.SCALES[3]
    found = records({low: (60.0,), wide: (81.0,), wider: (80.0,), SECOND: (99.0,)})
    assert hunt.printed(found) == wide
    stalled = [r for r in found if r["reading"] != wide] + [record(wide, 81.0, stalled=True)]
    assert hunt.printed(stalled) == wider
    assert all(hunt.changes(name) == 0 for name in hunt.SCALES)


def test_the_table_has_every_reading_and_a_word_for_what_is_no_result():
    values = {FIRST: (90.0, 90.5, 91.0), SECOND: (89.9, 90.5, 91.0), THIRD: (80.0, 80.0, 80.3)}
    found = [r for r in records(values) if r["reading"] != hunt.PLAN[3]]
    found = [r for r in found if r["reading"] not in hunt.PLAN[4:6]]
    found += [record(hunt.PLAN[4], 30.0, stalled=True), record(hunt.PLAN[5], 0.0, status="failed")]
    table = hunt.table(found).set_index("reading")
    assert list(table.index) == list(hunt.PLAN)
    assert [table.loc[name, "note"] for name in hunt.PLAN[3:6]] == ["not run", "stalled", "failed"]
    assert table.loc[FIRST, "score"] == pytest.approx(90.5)
    assert math.isnan(table.loc[hunt.PLAN[5], "score"])
    assert "told apart" not in table.columns  # not before every run of the plan is there
    table = hunt.table(records(values)).set_index("reading")
    told = [table.loc[name, "told apart"] for name in (FIRST, SECOND, THIRD, hunt.PLAN[0])]
    assert told == [False, False, True, True]


def test_every_question_is_asked_of_readings_of_the_plan_that_differ_in_what_it_names():
    for choice, _, without, having in hunt.QUESTIONS:
        assert {without, having} <= set(hunt.PLAN), choice
        assert reading(without) != reading(having)
    answered = {name for *_, without, having in hunt.QUESTIONS for name in (without, having)}
    rules = {f"as-printed+negatives={rule}+all.scale=3.75" for rule in ("semi-hard", "hardest")}
    kinds = {name for name in hunt.PLAN if "likelihood" in name}
    assert set(hunt.PLAN) - answered == rules | kinds  # which stand in the table alone


def test_an_effect_is_the_difference_of_two_runs_and_stalled_ones_are_named():
    choice, _, without, having = hunt.QUESTIONS[0]
    found = [r for r in records({}) if r["reading"] not in (without, having)]
    found += [record(without, 60.0, stalled=True), record(having, 75.0)]
    (row,) = [r for r in hunt.effects(found).to_dict("records") if (r["choice"], r["where"]) == (choice, "screened")]
    assert [row[name] for name in ("MNIST→SVHN", "joint probe", "score")] == pytest.approx([15.0] * 3)
    assert (row["stalled"], row["told apart"]) == ("without", "")
    assert not len(hunt.effects(found[:-2]).query("choice == @choice"))
    values = {FIRST: (90.0, 90.5, 91.0), SECOND: (89.9, 90.5, 91.0), THIRD: (80.0, 80.0, 80.3)}
    known = {(r["choice"], r["where"]): r["told apart"] for r in hunt.effects(records(values)).to_dict("records")}
    assert known["private codes of 4", "screened, scale 3.75"] == "no"
    assert known["scale 3.75 for 0.75", "screened"] == "yes"


def test_the_answer_says_what_is_chosen_or_that_nothing_is_and_which_choice_moves_most():
    found = [record(name, 60.0 + i) for i, name in enumerate(hunt.SCALES)]
    state, top, moves = hunt.answer(found).split("\n")
    assert "4 of the 26 readings of the plan have been run, and by its rule nothing is chosen yet" in state
    assert "one seed?** Q-MVAE as printed, screened, scale 10 (63.0 / 63.0 / 63.0); Q-MVAE as printed, scre" in top
    assert "In points: scale 10 for 0.75, screened: +3.0; scale 3.75 for 0.75, screened: +2.0;" in moves
    stalled = [found[0], *(record(r["reading"], 90.0, stalled=True) for r in found[1:])]
    assert "choice moves" not in hunt.answer(stalled)  # it would say when a loss begins to fall
    assert hunt.answer([]).count("\n") == 0
    values = {THIRD: (90.0, 92.0, 91.0), SECOND: (89.0, 91.0, 91.0), FIRST: (80.0, 80.0, 81.0)}
    said = hunt.answer(records(values)).split("\n")[0]
    assert said.startswith("- **What is the best reading?** Q-MVAE as printed, screened, ")
    assert "over three seeds the finalists score" in said
    assert all(f" {mean}" in said for mean in ("91.0", "90.3", "80.3"))


def test_the_reading_as_printed_has_the_scale_that_the_committed_runs_name():
    found = load_records(RESULTS / "hunt" / "runs", profile=hunt.PROFILE)
    assert reading(hunt.printed(found)) == reading(AS_PRINTED)
