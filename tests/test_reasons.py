"""Tables of what experts and places of codes tell, and of when losses fell: every number is the record's."""

import math

import pytest
from test_plateau import record as trained
from test_tables import failed, hits, record

from qmvae_study.report import reasons

EXPERTS = {
    "weightings": {
        name: {"probe": hits(0.9 + i / 100), "refitted": {"joint": hits(0.91), "mnist": hits(0.98), "svhn": hits(0.8)}}
        for i, name in enumerate(("equal shares", "as run", "svhn / 8", "softmax scales", "without prior"))
    },
    "precision": {
        "mnist": {"right": {"mean": 38.6, "sd": 1, "n": 9}, "wrong": {"mean": 33.4, "sd": 1, "n": 1}, "auc": 0.604},
        "svhn": {"right": {"mean": 481.3, "sd": 1, "n": 8}, "wrong": {"mean": 470.6, "sd": 1, "n": 2}, "auc": 0.53},
    },
    "shares": {
        "all": {"mnist": 0.11, "svhn": 0.8321, "prior": 0.06},
        "mnist wrong": {"mnist": 0.1, "svhn": 0.84, "prior": 0.06},
        "svhn wrong": {"mnist": 0.12, "svhn": 0.82, "prior": 0.06},
    },
}  # fmt: skip
WAY = {
    "train": hits(0.86), "judged": hits(0.75), "well_read": hits(0.87), "misread": hits(0.16, 100),
    "misread_as_probe": hits(0.53, 100), "snapped": hits(0.82), "apart": 2.013,
    "by_place": {"0.2 to 0.4": hits(0.99, 100), "0.8 to 1": hits(0.61, 100)},
}  # fmt: skip
BETWEEN = {
    "centroids": {
        "mnist": {"mnist": hits(0.978), "svhn": hits(0.979)},
        "svhn": {"mnist": hits(0.9), "svhn": hits(0.93)},
    },
    "spread": {"mnist": {"within": 1.9435, "between": 6.8139}, "svhn": {"within": 4.67, "between": 5.54}},
    "directions": {"mnist->svhn": {k: v for k, v in WAY.items() if "misread" not in k}, "svhn->mnist": WAY},
}


@pytest.fixture
def measured():
    found = record(1)
    found["metrics"] |= {"experts": EXPERTS, "between_classes": BETWEEN}
    return found


@pytest.fixture
def others():
    """A record that is older than the metrics, one of another model, and one of a run that failed."""
    mixture = record(3)
    mixture["metrics"] |= {"experts": {}, "between_classes": {}}
    return [record(2), mixture, failed(4)]


TABLES = (reasons.weightings, reasons.precisions, reasons.directions, reasons.centroids, reasons.spreads)


@pytest.mark.parametrize("table", TABLES)
def test_only_what_was_measured_has_rows(table, measured, others):
    assert set(table([*others, measured])["seed"]) == {1}
    assert len(table(others)) == 0


def test_weightings_begin_with_the_product_as_it_was_run(measured):
    rows = reasons.weightings([measured]).to_dict("records")
    assert [row["weighting"] for row in rows] == [
        "as run", "without prior", "svhn / 8", "softmax scales", "equal shares"
    ]  # fmt: skip
    assert [row["joint, as trained"] for row in rows] == [91.0, 94.0, 92.0, 93.0, 90.0]
    assert (rows[0]["joint"], rows[0]["mnist"], rows[0]["svhn"]) == (91.0, 98.0, 80.0)


def test_each_expert_has_its_precision_and_its_share(measured):
    mnist, svhn = reasons.precisions([measured]).to_dict("records")
    assert (mnist["expert"], mnist["right"], mnist["wrong"], mnist["auc"]) == ("mnist", 39, 33, 0.6)
    assert (mnist["share"], mnist["share where wrong"]) == (11.0, 10.0)
    assert (svhn["right"], svhn["wrong"], svhn["share"], svhn["share where wrong"]) == (481, 471, 83.2, 82.0)


def test_an_expert_that_is_never_wrong_has_no_cells_of_wrong_codes(measured):
    measured["metrics"]["experts"] = {
        "precision": {"mnist": {"right": {"mean": 38.6, "sd": 1, "n": 9}}}, "shares": {"all": {"mnist": 0.11}},
    }  # fmt: skip
    (row,) = reasons.precisions([measured]).to_dict("records")
    assert row == {
        "run": "Q-MVAE default", "profile": "paper", "seed": 1, "expert": "mnist", "right": 39, "share": 11.0,
    }  # fmt: skip


def test_a_direction_has_what_is_lost_where(measured):
    forth, back = reasons.directions([measured]).to_dict("records")
    assert {key: back[key] for key in list(back)[3:]} == {
        "direction": "svhn->mnist", "train": 86.0, "judged": 75.0, "code read": 80.2, "of these decoded": 87.0,
        "of the others": 16.0, "others, as probe": 53.0, "at centroids": 82.0,
    }  # fmt: skip
    assert forth["code read"] == 98.3
    assert math.isnan(forth["of the others"])  # there are none


def test_centroids_spreads_and_places_are_the_records(measured):
    (row,) = reasons.centroids([measured]).to_dict("records")
    assert list(row.values())[3:] == [97.8, 97.9, 90.0, 93.0]
    assert list(row)[3:] == ["mnist at mnist's", "mnist at svhn's", "svhn at mnist's", "svhn at svhn's"]
    (row,) = reasons.spreads([measured]).to_dict("records")
    assert list(row.values())[3:] == ["1.9", "6.8", "4.7", "5.5", "2"]
    middles, shares = reasons.by_place(measured, "svhn->mnist")
    assert middles == pytest.approx([0.3, 0.9])
    assert shares == pytest.approx([99.0, 61.0])


def run(name="unscreened", seed=0, **fields):
    found = trained(name, **fields) | {"status": "ok", "profile": "quick", "reading": name, "seed": seed}
    found["config"]["training"] = {"learning_rate": 0.001, "chunk": 100, "precision": "float32"}
    return found


def test_runs_are_grouped_by_what_decides_when_the_loss_falls():
    given = [
        run(), run(seed=1, quadruplet=(4.8, 4.8, 4.8, 4.8)), run(seed=2, plateau={"left": 700}), run("default"),
        run("unscreened+negatives=hardest", quadruplet=(4.8,)), run("unscreened+beta=0"),
    ]  # fmt: skip
    found = reasons.leavings(given)
    assert found["left by"].fillna(0).tolist() == [900, 0, 700, 900, 0]  # 0: it never did
    assert found["left by"].isna().sum() == 2
    assert found["interval"].tolist() == [300, 300, 100, 300, 300]
    assert (found["encoders"].tolist()[0], found["encoders"].tolist()[3]) == ("separate", "common")
    assert (found["scale"].iloc[0], found["rate"].iloc[0]) == ("0.75", 0.001)
    rows = {(r["encoders"], r["negatives"]): r for r in reasons.by_setting(found).to_dict("records")}
    assert rows["separate", "random"] == {
        "encoders": "separate", "negatives": "random", "rate": 0.001, "runs": 3, "never left": 1,
        "left by step": "700 to 900", "steps of a run": "1,200 to 1,200",
    }  # fmt: skip
    assert (rows["separate", "hardest"]["left by step"], rows["separate", "hardest"]["never left"]) == ("", 1)
    assert rows["common", "random"]["runs"] == 1


def test_a_course_ends_with_its_run():
    assert reasons.course(run(quadruplet=(4.8, 3.0, 1.0), cost={"steps": 1_000})) == ([333, 666, 1000], [4.8, 3.0, 1.0])
