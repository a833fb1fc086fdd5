"""Verdicts about three modalities: made-up records in, the words of the rule out; and what is shown before any run."""

import pytest
import test_tables
from test_tables import hits

from qmvae_core.names import BEST
from qmvae_study.evidence.records import Record, config_hash
from qmvae_study.plan import Run
from qmvae_study.report import three, words
from qmvae_study.report.pages import Page
from qmvae_study.rows import WITH_TEXT

TITLE = words.reading(BEST)

HIGH = dict.fromkeys(three.DIRECTIONS, 0.9) | {way: 0.97 for way in three.DIRECTIONS if "+" in way}
LOW = dict.fromkeys(three.DIRECTIONS, 0.7) | {way: 0.78 for way in three.DIRECTIONS if "+" in way}
JITTER = (0.0, 0.002, -0.003)


def record(reading: str = BEST, seed: int = 0, shares=HIGH, joint: float = 0.6, **fields) -> Record:
    model = Run("text", reading, (seed,)).model
    config = {
        "model": {"model": model, "test_code": "mean", "modalities": {}},
        "training": {"precision": "bfloat16"},
    }
    jitter = JITTER[seed % 3] * (1 + len(reading) % 3)
    found = {way: {"mean": hits(share + jitter), "sample": hits(share - 0.3)} for way, share in shares.items()}
    probe = {name: hits(0.8) for name in (*three.SUBSETS, "joint")}
    given = test_tables.record(seed, profile="text", reading=reading, **fields)
    metrics = given["metrics"] | {
        "generation_by_subset": found, "probe_by_subset": probe, "joint_coherence": hits(joint + jitter),
    }  # fmt: skip
    return given | {
        "id": f"text-{model}-{reading}-seed{seed}", "model": model, "metrics": metrics, "config": config,
        "config_hash": config_hash(config), "cost": {"steps": 13_141, "seconds": 1.0},
    }  # fmt: skip


def several(reading: str, shares=HIGH, seeds=(0, 1, 2), **fields) -> list[Record]:
    return [record(reading, seed, shares, **fields) for seed in seeds]


OWN = several(BEST)
ALL = [
    *OWN, *several(f"{BEST}+beta=0", LOW, joint=0.3),
    *several("mvae", LOW, joint=0.3), *several("mopoe", LOW, joint=0.3),
    *several(f"{BEST}+training.missing=0.5", {way: share - 0.05 for way, share in HIGH.items()}),
]  # fmt: skip


def says(records, key: str) -> str:
    return str(three.findings(records)[key])


def test_nine_directions_and_ten_claims():
    assert three.DIRECTIONS == (
        "svhn->mnist", "text->mnist", "svhn+text->mnist", "mnist->svhn", "text->svhn", "mnist+text->svhn",
        "mnist->text", "svhn->text", "mnist+svhn->text",
    )  # fmt: skip
    assert len(three.CLAIMS) == len({claim.key for claim in three.CLAIMS}) == 10
    assert len({claim.says for claim in three.CLAIMS}) == 10
    assert three.CLAIMS[2].says == "Q-MVAE: MNIST+SVHN→Text is more coherent than MNIST→Text and SVHN→Text"


def test_where_all_is_clear_every_claim_holds():
    assert {str(each) for each in three.findings(ALL).values()} == {"holds"}


def test_where_it_is_the_other_way_round_every_claim_fails():
    low = dict.fromkeys(three.DIRECTIONS, 0.6) | {way: 0.5 for way in three.DIRECTIONS if "+" in way}
    records = [
        *several(BEST, low, joint=0.2), *several(f"{BEST}+beta=0", HIGH, joint=0.6), *several("mvae", HIGH, joint=0.6),
        *several("mopoe", HIGH, joint=0.6), *several(f"{BEST}+training.missing=0.5", HIGH),
    ]  # fmt: skip
    assert {str(each) for each in three.findings(records).values()} == {"fails"}


def test_one_subset_below_is_enough_for_above_from_every_subset_to_fail():
    worse = {**LOW, "svhn->mnist": 0.97, "svhn->text": 0.97}
    records = [*OWN, *several("mvae", worse, joint=0.3)]
    assert says(records, "above-mvae") == "fails"
    assert "from SVHN" in three.findings(records)["above-mvae"].evidence
    equal = {**LOW, "svhn->mnist": 0.9, "svhn->text": 0.9}
    assert says([*OWN, *several("mvae", equal)], "above-mvae") == "undecided: for want of more seeds"


def test_what_is_missing_is_said():
    assert {str(each) for each in three.findings([]).values()} == {
        f"undecided: for want of runs of {TITLE}",
        f"undecided: for want of runs of {TITLE}, {TITLE}, without the loss",
        f"undecided: for want of runs of {TITLE}, MVAE",
        f"undecided: for want of runs of {TITLE}, MoPoE",
        f"undecided: for want of runs of {TITLE}, {TITLE}, half of the pairs incomplete",
    }
    without = [each for each in ALL if each.reading != "mopoe"]
    assert says(without, "above-mopoe") == "undecided: for want of runs of MoPoE"
    assert says(without, "above-mvae") == "holds"
    two = [each for each in ALL if (each.reading, each.seed) != ("mvae", 2)]
    assert says(two, "above-mvae") == "undecided: for want of seeds, 2 of 3"
    failed = record("mvae", 2)
    failed["status"] = "failed"
    assert "1 failed" in three.findings([*two, failed])["above-mvae"].evidence


def test_unreal_and_stalled_runs_decide_nothing():
    unreal = [each for each in ALL if each.reading != "mvae"] + several("mvae", LOW, kind="stand-in")
    assert says(unreal, "above-mvae") == "undecided: for want of runs on real data"
    stalled = [each | {"plateau": {"left": None}} if each.seed == 1 else each for each in OWN] + ALL[3:]
    assert says(stalled, "above-mvae") == f"undecided: since {TITLE} stalled"
    assert says(stalled, "more-into-text") == f"undecided: since {TITLE} stalled"


def test_holm_counts_all_ten_whether_their_runs_are_there_or_not():
    """A difference that would hold alone does not in the family."""
    near = several(BEST, {**HIGH, "svhn->mnist": 0.9, "text->mnist": 0.9, "svhn+text->mnist": 0.91})
    shifts = (0.0, 0.006, 0.012)
    apart = [
        each | {"metrics": each["metrics"] | {"generation_by_subset": each["metrics"]["generation_by_subset"] | {
            "svhn+text->mnist": {"mean": hits(0.91 + JITTER[each.seed] + shift), "sample": hits(0.5)}}}}
        for each, shift in zip(near, shifts, strict=True)
    ]  # fmt: skip
    (claim,) = [each for each in three.CLAIMS if each.key == "more-into-mnist"]
    p = max(each.difference("our harness").above() for each in claim.compare(apart, BEST))
    assert 0.05 / 10 < p < 0.05
    assert says(apart, "more-into-mnist") == "undecided: for want of more seeds"


def test_the_reading_of_the_hunt_is_found_and_named():
    hunted = "as-printed+negatives=all-violating"
    records = [*several(hunted), *several(f"{hunted}+beta=0", LOW), *several("mvae", LOW)]
    assert three.own(records) == hunted
    assert list(three.rows(records)) == [
        hunted, f"{hunted}+beta=0", "mvae", "mopoe", f"{hunted}+training.missing=0.5",
    ]  # fmt: skip
    assert three.own([]) == BEST
    assert list(three.rows([])) == list(WITH_TEXT)


def test_tables_have_every_direction_and_subset_and_say_what_is_not_run():
    shown = three.generation(ALL[:9])
    assert shown.shape == (10, 5)
    assert shown.columns[0] == f"{TITLE} (bfloat16)"
    assert shown.iloc[8, 0] == "96.9 ± 0.5"
    assert set(shown["MoPoE"]) == {"not run yet"}
    assert shown.index[-1] == "all three from the prior"
    probed = three.probes(ALL)
    assert list(probed.index) == ["MNIST", "SVHN", "Text", "MNIST+SVHN", "MNIST+Text", "SVHN+Text", "all three"]
    assert set(probed.stack()) == {"80.0 ± 0.0"}
    assert set(three.generation([]).stack()) == {"not run yet"}
    assert three.ledger(ALL).shape == (10, 2)


def test_the_answer_says_what_is_there_first():
    assert three.answer([]) == "**The runs of this chapter are not run yet** (none of 15), so nothing is claimed."
    some = three.answer(OWN)
    assert some.startswith(f"3 of 15 runs are done; not run yet: {TITLE}, without the loss (0 of 3), MVAE (0 of 3)")
    assert three.answer(ALL).startswith("15 of 15 runs are done.\n\n- ")
    assert three.answer(ALL).count("**holds**") == 10


def test_triples_that_are_not_there_are_a_sentence():
    assert three.triples(Page(None, []), BEST, "prior") == f"{TITLE}: not run yet."


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_without_records_is_a_page_without_any(tmp_path, there):
    if there:
        (tmp_path / "runs").mkdir()
    assert three.open({"evidence": str(tmp_path)}).records == []
    with pytest.raises(ValueError, match="parameter evidence must be a text"):
        three.open({"evidence": 3})
