"""Records in, tables out: every printed number follows from the records, and the verdict from its rule alone."""

import copy
import functools

import pandas as pd
import pytest
from scipy import stats

from qmvae_core.evaluation import share
from qmvae_core.names import TITLES
from qmvae_study import paper
from qmvae_study.evidence.records import Record, RecordError, config_hash
from qmvae_study.report import pages, tables
from qmvae_study.report.intervals import Interval
from qmvae_study.report.rules import Difference


@functools.cache
def counted(right: int, n: int) -> dict:
    """What `evaluation.share` gives for so many of n images; once for the many records that have the same."""
    return share(pd.Series([True] * right + [False] * (n - right)))


def hits(accuracy: float, n: int = 1000) -> dict:
    """The same for this share of n images."""
    return dict(counted(round(accuracy * n), n))


def record(
    seed: int = 0, *, forth=0.922, back=0.813, probe=(0.983, 0.802, 0.979), kind="real", n_back: int = 500, **fields
) -> Record:
    """A finished record as `runs.judge` writes it; by default a paper-profile run that gives the paper's means."""
    profile, reading = fields.get("profile", "paper"), fields.get("reading", "default")
    config = {"model": {"model": "qmvae", "test_code": "mean"}, "training": {"precision": "float32"}}
    return Record({
        "format": 1, "id": f"{profile}-qmvae-{reading}-seed{seed}", "profile": profile, "model": "qmvae",
        "reading": reading, "seed": seed, "status": "ok", "plateau": {"left": 100},
        "trained_together": [seed], "config": config, "config_hash": config_hash(config),
        "data": {"kind": kind, "content_hash": kind, "notes": [f"A note on {kind} data"]},
        "metrics": {
            "cross_generation": {
                "mnist->svhn": {"mean": hits(forth), "sample": hits(forth - 0.1)},
                "svhn->mnist": {"mean": hits(back, n_back), "sample": hits(back - 0.2, n_back)},
            },
            "probe": dict(zip(("mnist", "svhn", "joint"), map(hits, probe), strict=True)),
            "joint_coherence": hits(0.5),
            "leakage": {
                "mnist": {"linear": hits(0.11), "nonlinear": hits(0.12)},
                "svhn": {"linear": hits(0.13), "nonlinear": hits(0.14)},
            },
            "oracle": {"mnist": 0.9942, "svhn": 0.9358},
        },
        "panels": {
            "cross_generation": {
                "mnist->svhn": {"digits": [0, 1, 2, 3], "read": [[0, 1, 2, 3], [0, 1, 9, 9], [3, 2, 1, 0]]},
                "svhn->mnist": {"digits": [0, 1], "read": [[0, 1]]},
            }
        },
        "provenance": {"device": "a machine", "commit": "0123456789abcdef", "dirty": False},
        "cost": {"steps": 131_410, "seconds": 90.0},
        **fields,
    })  # fmt: skip


def failed(seed: int) -> Record:
    """A failure record, as `study_runs.train` writes it."""
    unfinished = ("metrics", "panels", "cost")
    kept = {key: value for key, value in record(seed).items() if key not in unfinished}
    return Record({**kept, "status": "failed", "error": "objective is nan at epoch 1, step 7, seed 0"})


FORTH = (0.912, 0.934, 0.925)
SEEDS = [record(seed, forth=value) for seed, value in enumerate(FORTH)]


def cell(table: pd.DataFrame, column: str = "MNIST→SVHN") -> pd.Series:
    (row,) = table[table["column"] == column].to_dict("records")
    return row


# Numbers


def test_a_row_says_what_paper_and_records_say():
    assert cell(tables.table1(SEEDS)) == {
        "model": "Q-MVAE", "reading": "Q-MVAE default", "profile": "paper", "data": "real", "column": "MNIST→SVHN",
        "paper": "92.2 ± 0.3", "the paper's harness": None, "by single judges": None,
        "ours": "92.4 ± 1.1",  # 91.2, 93.4, 92.5: mean 92.367, deviation with n - 1 1.106 (with n it would be 0.903)
        "seeds": 3, "difference": "+0.2", "95 % interval": "-2.4 to +2.8", "verdict": "agrees",
    }  # fmt: skip


def test_both_tables_have_their_columns_in_the_papers_order():
    assert tables.table1(SEEDS)["column"].tolist() == ["MNIST→SVHN", "SVHN→MNIST"]
    assert tables.table2(SEEDS)["column"].tolist() == ["MNIST", "SVHN", "MNIST-SVHN"]
    assert tables.table1(SEEDS)["ours"].tolist() == ["92.4 ± 1.1", "81.2 ± 0.0"]  # 406 or 407 of 500: see `hits`
    assert tables.table2([record()])["ours"].tolist() == ["98.3", "80.2", "97.9"]


def test_two_seeds_have_a_deviation():
    assert cell(tables.table1(SEEDS[:2]))["ours"] == "92.3 ± 1.6"


def test_one_seed_has_neither_deviation_nor_interval():
    row = cell(tables.table1(SEEDS[:1]))
    assert (row["ours"], row["seeds"], row["difference"], row["95 % interval"]) == ("91.2", 1, "-1.0", None)


@pytest.mark.parametrize("values", [FORTH, (0.9, 0.91), (0.921, 0.922, 0.922), (0.1, 0.99, 0.5, 0.6, 0.2, 0.3)])
def test_the_interval_is_scipys_welch_interval(values):
    values = [100 * value for value in values]
    reported, shape = paper.Reported(81.3, 0.5), pd.Series([-2.0, -1.0, 0.0, 1.0, 2.0])
    # scipy gives an interval for values, not for their mean and deviation, so five are made up that have the paper's
    theirs = reported.mean + shape * reported.std / shape.std(ddof=1)
    expected = stats.ttest_ind(pd.Series(values), theirs, equal_var=False).confidence_interval()
    found = Difference.to_reported(values, reported).interval
    assert found[1:3] == pytest.approx((expected.low, expected.high))


def test_the_interval_is_a_point_if_nothing_varies():
    assert Difference.to_reported([50.0, 50.0], paper.Reported(49.0, 0.0)).interval[:3] == (1.0, 1.0, 1.0)


def test_changing_any_metric_of_any_record_changes_its_cell_alone():
    for table, columns in ((tables.table1, paper.TABLE1_COLUMNS), (tables.table2, paper.TABLE2_COLUMNS)):
        before = table(SEEDS)
        for number in range(len(SEEDS)):
            for place, path in enumerate(columns.values()):
                changed = copy.deepcopy(SEEDS)
                value = changed[number]["metrics"]
                for key in (*path, "mean") if path[0] == "cross_generation" else path:
                    value = value[key]
                value = value.get("mean", value)
                value.update({end: value[end] - 0.3 for end in ("accuracy", "low", "high") if end in value})
                same = (table(changed)["ours"] == before["ours"]).tolist()
                assert same == [other != place for other in range(len(columns))], path


def test_the_order_of_the_records_does_not_matter():
    mixed = [*SEEDS, record(0, reading="as-printed"), record(0, profile="quick")]
    pd.testing.assert_frame_equal(tables.table1(mixed), tables.table1(mixed[::-1]))


def test_each_profile_and_reading_has_rows_of_its_own():
    both = tables.table1([*SEEDS, record(0, reading="as-printed", forth=0.5), record(7, profile="quick", forth=0.4)])
    shown = both[both["column"] == "MNIST→SVHN"][["profile", "reading", "ours", "seeds"]].values.tolist()
    assert shown == [
        ["paper", "Q-MVAE as printed", "50.0", 1],
        ["paper", "Q-MVAE default", "92.4 ± 1.1", 3],
        ["quick", "Q-MVAE default", "40.0", 1],
    ]


# The verdict


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ((0.921, 0.923, 0.922), "agrees"), ((0.99,) * 3, "above the paper"), ((0.6,) * 3, "below"),
        ((0.90, 0.99, 0.93), "undecided"),  # noise does not make it agree
    ],
)  # fmt: skip
def test_the_verdict_in_the_table(values, word):
    found = tables.table1([record(seed, forth=value) for seed, value in enumerate(values)])
    assert cell(found)["verdict"] == word
    assert cell(found, "SVHN→MNIST")["verdict"] == "agrees"


@pytest.mark.parametrize(
    ("fields", "seeds", "why"),
    [
        *(({"profile": name}, 5, f"{name} profile") for name in ("quick", "smoke", "sensitivity")),
        ({"kind": "stand-in"}, 5, "stand-in data"),
        ({}, 2, "fewer than 3 seeds"),
        ({}, 1, "fewer than 3 seeds"),
    ],
)
def test_only_three_seeds_of_the_papers_length_on_real_data_get_a_verdict(fields, seeds, why):
    found = [record(seed, forth=0.1, **fields) for seed in range(seeds)]
    for table in (tables.table1(found), tables.table2(found)):
        assert set(table["verdict"]) == {f"none: {why}"}
        assert set(table["data"]) == {fields.get("kind", "real")}


def test_a_cell_that_the_paper_leaves_empty_says_so():
    others = [record(seed, model="mmvae") for seed in range(3)]
    row = cell(tables.table2(others), "MNIST-SVHN")
    assert not any(pd.notna(row[name]) for name in ("paper", "difference", "95 % interval"))
    assert row["ours"] == "97.9 ± 0.0"
    assert row["verdict"] == "none: not reported"
    assert cell(tables.table2(others), "MNIST")["verdict"] == "above the paper"


@pytest.fixture
def without_joint_code():
    """Records of a model whose probe has no joint codes to be trained on or applied to."""
    found = [record(seed, model="mmvae") for seed in range(3)]
    for each in found:
        del each["metrics"]["probe"]["joint"]
    return found


def test_a_model_without_joint_codes_has_no_joint_cell_and_says_so(without_joint_code):
    table = tables.table2(without_joint_code)
    assert table.columns.tolist() == tables.table2(SEEDS).columns.tolist()
    assert table["column"].tolist() == ["MNIST", "SVHN", "MNIST-SVHN"]
    row = cell(table, "MNIST-SVHN")
    assert not any(pd.notna(row[name]) for name in ("paper", "difference", "95 % interval"))
    assert (row["ours"], row["seeds"], row["verdict"]) == ("not applicable", 3, "none: not applicable")
    assert cell(table, "SVHN")["ours"] == "80.2 ± 0.0"
    both = tables.table2([*without_joint_code, *SEEDS])
    assert both.loc[both["column"] == "MNIST-SVHN", "ours"].tolist() == ["not applicable", "97.9 ± 0.0"]
    gaps = tables.probe_gaps([*without_joint_code[:1], *SEEDS[:1]])
    assert gaps["mnist - joint"].tolist() == ["not applicable", "+0.4"]
    said, ours = tables.as_points(without_joint_code, paper.TABLE2, paper.TABLE2_COLUMNS)
    joint = "MNIST-SVHN", "Q-MVAE default\n131,410 steps"
    assert said[joint] is None
    assert ours.keys() == said.keys() - {joint}


def test_some_seeds_without_a_joint_cell_are_an_error_and_not_left_out(without_joint_code):
    with pytest.raises(RecordError, match="no metric probe / joint"):
        tables.table2([*without_joint_code[:2], record(2, model="mmvae")])


def test_a_record_without_any_probe_is_broken_and_not_one_without_joint_codes():
    broken = record()
    del broken["metrics"]["probe"]
    with pytest.raises(RecordError, match="no metric probe / mnist"):
        tables.table2([broken])
    with pytest.raises(RecordError, match="no metric probe / joint"):
        tables.probe_gaps([broken])


def test_a_model_that_the_paper_does_not_have_stands_in_the_tables_without_a_verdict():
    others = [record(seed, model="jmvae") for seed in range(3)]
    for table in (tables.table1(others), tables.table2(others)):
        assert set(table["model"]) == {"JMVAE"}
        assert set(table["verdict"]) == {"none: not reported"}
        assert table["paper"].isna().all()
    said, ours = tables.as_points(others, paper.TABLE1, paper.TABLE1_COLUMNS)
    assert set(said.values()) == {None}
    assert ours.keys() == said.keys()
    assert tables.with_missing_models(tables.table1(others), paper.TABLE1)["model"].iloc[-1] == "JMVAE"


def in_the_papers_harness(record: Record, forth: dict[int, float], probe: float | None = None) -> Record:
    """The record with what judges of some seeds read, MNIST->SVHN, and what that harness's probe does."""
    cell = lambda value: {"sample": {"pairs": hits(value), "images": hits(0.1)}, "mean": {"pairs": hits(0.2)}}  # noqa: E731
    judges = {str(j): {"mnist->svhn": cell(v), "svhn->mnist": cell(0.813)} for j, v in forth.items()}
    more = {"published_probe": dict.fromkeys(("mnist", "svhn", "joint"), hits(probe))} if probe else {}
    return record | {"metrics": record["metrics"] | {"published_judges": judges} | more}


def test_the_papers_harness_comes_first_and_ours_beside_it():
    found = [in_the_papers_harness(each, {0: 0.91 + i / 100, 1: 0.93}, 0.5) for i, each in enumerate(SEEDS)]
    row = cell(tables.table1(found))
    assert row["the paper's harness"] == "92.5 ± 0.5"  # of each seed the mean over judges: 92, 92.5, 93
    assert row["ours"] == "92.4 ± 1.1"
    assert row["by single judges"] == "92.0 to 93.0"
    assert (row["difference"], row["verdict"]) == ("+0.3", "agrees")
    names = list(row)
    assert names.index("paper") + 1 == names.index("the paper's harness") == names.index("ours") - 1
    probe = cell(tables.table2(found), "MNIST")
    assert (probe["the paper's harness"], probe["ours"], probe["by single judges"]) == (
        "50.0 ± 0.0",
        "98.3 ± 0.0",
        None,
    )
    assert probe["verdict"] == "depends on the judge"
    assert cell(tables.table1([*found[:2], SEEDS[2]]))["the paper's harness"] is None  # not all were measured


def test_a_page_shows_no_column_that_says_nothing():
    table = tables.table1([record()])
    assert set(table.columns) - set(tables.shown(table).columns) == {
        "data", "the paper's harness", "by single judges", "95 % interval"
    }  # fmt: skip
    mixed = tables.shown(tables.table1([*SEEDS, record(kind="stand-in", profile="quick")]))
    assert {"data", "95 % interval"} <= set(mixed.columns)
    assert not mixed.isna().any(axis=None)


# What is refused


def test_failed_records_are_left_out():
    pd.testing.assert_frame_equal(tables.table1([*SEEDS, failed(3)]), tables.table1(SEEDS))
    assert cell(tables.table1([*SEEDS[:2], failed(2)]))["verdict"] == "none: fewer than 3 seeds"


@pytest.mark.parametrize("found", [[], [failed(0)]], ids=["none", "failed"])
def test_no_finished_record_is_an_error_with_the_remedy(found):
    with pytest.raises(RecordError, match="no finished record.*python -m qmvae_study run"):
        tables.table1(found)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (record(3, config_hash="another"), "paper qmvae default have different configs"),
        (record(3, kind="stand-in"), "paper qmvae default .*different data"),
        (record(1), "seed 1 .*twice"),
    ],
)
def test_seeds_of_different_configs_or_data_are_not_averaged_and_none_counts_twice(other, words):
    with pytest.raises(RecordError, match=words):
        tables.table1([*SEEDS, other])
    tables.table1([*SEEDS, other | {"reading": "as-printed"}])  # another reading is another group


@pytest.mark.parametrize("path", paper.TABLE1_COLUMNS.values(), ids=" ".join)
def test_a_missing_metric_names_record_and_metric(path):
    for keys in (path, (*path, "mean")):
        broken = copy.deepcopy(SEEDS)
        value = broken[1]["metrics"]
        for key in keys[:-1]:
            value = value[key]
        del value[keys[-1]]
        with pytest.raises(RecordError, match=f"record paper-qmvae-default-seed1 has no metric {' / '.join(path)}"):
            tables.table1(broken)


# Points of the picture


def test_points_are_mean_and_one_deviation_to_both_sides():
    said, ours = tables.as_points(SEEDS, paper.TABLE1, paper.TABLE1_COLUMNS)
    forth, back = (("MNIST→SVHN", "Q-MVAE default\n131,410 steps"), ("SVHN→MNIST", "Q-MVAE default\n131,410 steps"))
    assert said.keys() == ours.keys() == {forth, back}
    assert said[forth][:3] == pytest.approx((92.2, 91.9, 92.5))
    assert ours[forth] == pytest.approx(Interval.spread([91.2, 93.4, 92.5]))


# The smaller tables


def test_the_config_says_whether_the_mean_or_the_sample_counts():
    sampled = record(config={"model": {"test_code": "sample"}, "training": {"precision": "float32"}})
    assert record().accuracy("mnist->svhn").per_cent == pytest.approx(92.2)
    assert sampled.accuracy("mnist->svhn").per_cent == pytest.approx(82.2)
    assert tables.table1([sampled])["ours"].tolist() == ["82.2", "61.2"]
    assert tables.panel_shares([sampled])["all, %"].tolist() == ["82.2", "61.2"]


def test_cross_generation_by_code_keeps_mean_and_sample_apart():
    found = tables.cross_generation_by_code([record(4, forth=0.9, back=0.8)]).to_dict("records")
    assert [(row["direction"], row["n"], row["seed"]) for row in found] == [
        ("mnist->svhn", 1000, 4), ("svhn->mnist", 500, 4),
    ]  # fmt: skip
    assert found[0]["mean"] == "90.0 (88.0 to 91.7)"  # Wilson, 900 of 1000
    assert [row[code].split(" (")[0] for row in found for code in ("mean", "sample")] == [
        "90.0",
        "80.0",
        "80.0",
        "60.0",
    ]


def test_oracle_accuracies_are_in_per_cent():
    (row,) = tables.oracle_accuracies([record(2)]).to_dict("records")
    assert row == {"run": "Q-MVAE default", "profile": "paper", "seed": 2, "mnist": "99.42", "svhn": "93.58"}


def test_leakage_names_code_and_probe():
    (row,) = tables.leakage_table([record()]).to_dict("records")
    assert [row[f"{name}, {probe} probe"] for name in ("mnist", "svhn") for probe in ("linear", "nonlinear")] == [
        "11.0", "12.0", "13.0", "14.0",
    ]  # fmt: skip
    assert row["joint coherence"] == "50.0 (46.9 to 53.1)"


def test_a_model_without_private_codes_stands_beside_the_others_in_words():
    without = record()
    without["metrics"] = {**without["metrics"], "leakage": {}}
    table = tables.leakage_table([without, record()])
    assert list(table["mnist, linear probe"]) == ["no private code", "11.0"]


def test_joint_codes_have_a_row_for_training_and_for_test_pairs():
    found = {"joint": hits(0.9), "alone": {"mnist": hits(0.95), "svhn": hits(0.8)}}
    judged = found | {"only": {"mnist": hits(0.7, 200), "svhn": hits(0.25, 4)}, "precision": {"mnist": 1, "svhn": 2.25}}
    train = found | {"only": {}, "precision": {"mnist": 1.5, "svhn": 3.0}}
    measured, lacking, mixture = record(1), record(2), record(3)
    measured["metrics"]["joint_code"] = {"train": train, "judged": judged}
    mixture["metrics"]["joint_code"] = {}
    first, second = tables.joint_codes([lacking, measured, mixture]).to_dict("records")
    assert (first["pairs"], second["pairs"]) == ("train", "test")
    assert (second["mnist"], second["svhn"], second["joint"]) == ("95.0", "80.0", "90.0")
    assert second["joint, only mnist right"] == "70 (of 200)"
    assert second["joint, only svhn right"] == "25 (of 4)"
    assert first["joint, only mnist right"] == ""
    assert (second["precision, mnist"], second["precision, svhn"]) == ("1.0", "2.2")
    assert first["seed"] == second["seed"] == 1


def test_probe_gaps_are_single_minus_joint():
    (row,) = tables.probe_gaps([record(probe=(0.95, 0.80, 0.90))]).to_dict("records")
    assert (row["mnist - joint"], row["svhn - joint"]) == ("+5.0", "-10.0")


def test_tables_and_pictures_have_the_papers_order_of_models_whatever_the_files_are_called():
    mixed = [record(model=name, reading=name) for name in ("mopoe", "dmvae", "mvae")] + [record()]
    mixed.append(record(model="qmvae", reading="as-printed"))
    expected = ["MVAE", "DMVAE", "Q-MVAE", "Q-MVAE", "MoPoE"]
    assert tables.table1(mixed)["model"].tolist()[::2] == expected
    assert tables.table1(mixed)["reading"].tolist()[4:8:2] == ["Q-MVAE as printed", "Q-MVAE default"]
    points = tables.as_points(mixed, paper.TABLE1, paper.TABLE1_COLUMNS)
    assert [row.split()[0] for column, row in points[1] if column == "MNIST→SVHN"] == expected
    assert [r.title for r in tables.first_seeds(mixed)] == expected


def test_first_seeds_are_the_lowest_of_each_group_in_a_stable_order():
    mixed = [record(3), record(1), record(2, reading="as-printed"), record(5, profile="quick"), record(4)]
    expected = ["paper-qmvae-as-printed-seed2", "paper-qmvae-default-seed1", "quick-qmvae-default-seed5"]
    assert [r["id"] for r in tables.first_seeds(mixed)] == expected
    assert [r["id"] for r in tables.first_seeds(mixed[::-1])] == expected


def test_pictures_show_runs_of_equal_length_and_then_a_longer_one_of_the_main_reading():
    few = {"profile": "quick", "cost": {"steps": 10}}
    short = [record(2, **few), record(1, **few), record(5, model="mvae", reading="mvae", **few)]
    long = [record(4), record(3), record(0, reading="as-printed")]

    def shown(records):
        found = tables.to_show(records, "default")
        return {name: (r["profile"], r["reading"], r["seed"]) for name, r in found.items()}

    alike = {"default": ("quick", "default", 1), "mvae": ("quick", "mvae", 5)}
    assert shown(short) == alike
    assert shown([*long[:2], *short]) == alike | {tables.LONGER: ("paper", "default", 3)}
    assert shown([*short, long[2]]) == alike
    assert shown(long) == {"as-printed": ("paper", "as-printed", 0), "default": ("paper", "default", 3)}
    assert shown(short[2:]) == {"default": ("quick", "mvae", 5), "mvae": ("quick", "mvae", 5)}
    with pytest.raises(RecordError, match="no finished record"):
        shown([])


def test_the_title_of_a_picture_says_model_reading_steps_and_direction():
    assert tables.title(record(), "mnist", "svhn") == "Q-MVAE default, 131,410 steps, MNIST→SVHN"


def test_panel_shares_count_every_image_of_a_panel():
    found = tables.panel_shares([record(forth=0.9, back=0.8)]).to_dict("records")
    assert [(row["direction"], row["panel, %"], row["all, %"]) for row in found] == [
        ("mnist->svhn", "50", "90.0"),  # 4 + 2 + 0 of 12
        ("svhn->mnist", "100", "80.0"),
    ]


# What the records are


def test_describe_says_what_the_runs_are_and_is_loud_about_stand_in_data(capsys):
    rows = tables.describe([record(0), record(1, provenance={"device": "x", "commit": None, "dirty": True})])
    assert "STAND-IN" not in capsys.readouterr().out
    first, second = rows.to_dict("records")
    assert (first["data"], first["steps"], first["minutes"], first["on"]) == ("real", 131_410, 1.5, "a machine")
    assert (first["commit"], second["commit"]) == ("01234567", "none (changed)")
    tables.describe([record(0), record(1, kind="stand-in")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("STAND-IN DATA")
    assert "say nothing about the paper" in lines[0]
    assert lines[1:] == ["- A note on real data", "- A note on stand-in data"]


def test_minutes_have_one_digit_behind_the_point():
    assert tables.describe([record(cost={"steps": 1, "seconds": 100.0})])["minutes"].tolist() == [1.7]


def test_a_failed_run_is_described_and_is_no_point_of_a_picture():
    rows = tables.describe([record(0), failed(1)]).to_dict("records")
    assert [(row["steps"], row["minutes"]) for row in rows] == [(131_410, 1.5), ("failed", "")]
    points = [
        tables.as_points(each, paper.TABLE1, paper.TABLE1_COLUMNS) for each in ([record(0)], [record(0), failed(1)])
    ]
    assert points[0] == points[1]


def test_describe_of_nothing_is_an_error_with_the_remedy():
    with pytest.raises(RecordError, match="python -m qmvae_study run"):
        tables.describe([])


def test_models_without_a_record_have_their_rows_and_say_so():
    table = tables.with_missing_models(tables.table2([record(reading="mvae", model="mvae")]), paper.TABLE2)
    assert list(table["model"]) == [TITLES[model] for model in paper.TABLE2 for _ in paper.TABLE2_COLUMNS]
    assert list(table.index) == list(range(len(table)))
    assert list(table.columns) == list(tables.table2([record()]).columns)
    for row in table[table["model"] != "MVAE"].fillna("").to_dict("records"):
        assert (row["seeds"], row["verdict"]) == (0, "none: no record")
        reported = paper.TABLE2[{v: k for k, v in TITLES.items()}[row["model"]]][row["column"]]
        assert row["paper"] == ("" if reported is None else f"{reported.mean:.1f} ± {reported.std:.1f}")
    assert (table[table["model"] == "MVAE"]["seeds"] == 1).all()


def diagnosed(**fields) -> Record:
    """A record with the metrics of `diagnosis`, each number another."""
    made = record(**fields)
    made["metrics"] |= {
        "frechet": {
            "real": {"mnist": {"distance": 0.21}, "svhn": {"distance": 0.43}},
            "prior": {"mnist": {"distance": 16.04}, "svhn": {"distance": 7.96}},
            "cross_generation": {"mnist->svhn": {"distance": 3.94}, "svhn->mnist": {"distance": 7.16}},
        },
        "diversity": {"mnist->svhn": {"features": {"ratio": 0.861}}, "svhn->mnist": {"features": {"ratio": 1.404}}},
        "code_swaps": {
            "svhn->mnist": {
                "source": {"prior": hits(0.64), "zero": hits(0.72), "digit_of_h": hits(0.06)},
                "target": {"prior": hits(0.86), "zero": hits(0.95), "digit_of_h": hits(0.02)},
            }
        },
    }
    return made


def test_what_accuracy_leaves_out_stands_beside_it():
    rows = tables.beyond([diagnosed()]).to_dict("records")
    images = ["mnist->svhn", "svhn->mnist", "mnist, from the prior", "svhn, from the prior"]
    assert [row["images"] for row in rows] == images
    forth, back, *prior = rows
    assert (forth["read rightly, %"], forth["Fréchet"], forth["Fréchet, real"], forth["diversity"]) == (
        "92.2", "3.9", "0.4", "0.86",
    )  # fmt: skip
    assert (back["Fréchet"], back["Fréchet, real"], back["diversity"]) == ("7.2", "0.2", "1.40")
    assert [(row["Fréchet"], row["read rightly, %"]) for row in prior] == [("16.0", ""), ("8.0", "")]
    assert all(row["both read alike, %"] == "50.0 (46.9 to 53.1)" for row in prior)


def test_swaps_have_a_row_for_each_origin_of_z_and_a_column_for_each_h():
    rows = tables.swaps([diagnosed()]).to_dict("records")
    assert [(row["direction"], row["z of"]) for row in rows] == [("svhn->mnist", "source"), ("svhn->mnist", "target")]
    assert [row["h: prior"] for row in rows] == ["64.0", "86.0"]
    assert [row["read as h's digit"] for row in rows] == ["6.0", "2.0"]


# Words that stand beside a run


def in_bfloat16(record: Record) -> Record:
    return record | {"config": {"model": {"test_code": "mean"}, "training": {"precision": "bfloat16"}}}


def test_a_stalled_run_is_never_shown_without_the_word():
    """In every table and title that shows a reading."""
    runs = [record(0), record(1, plateau={"left": None}), record(2, plateau={"left": None})]
    assert set(tables.table1(runs)["reading"]) == {"Q-MVAE default (2 of 3 stalled)"}
    assert set(tables.table2(runs[1:])["reading"]) == {"Q-MVAE default (stalled)"}
    assert set(tables.table1(runs[:1])["reading"]) == {"Q-MVAE default"}
    each = (
        tables.describe, tables.cross_generation_by_code, tables.oracle_accuracies, tables.leakage_table,
        tables.probe_gaps, tables.panel_shares,
    )  # fmt: skip
    for table in each:
        shown = table(runs)
        assert set(shown[shown["seed"] == 0]["run"]) == {"Q-MVAE default"}, table
        assert set(shown[shown["seed"] != 0]["run"]) == {"Q-MVAE default (stalled)"}, table
    said, ours = tables.as_points(runs[1:], tables.paper.TABLE1, tables.paper.TABLE1_COLUMNS)
    assert all("default (stalled)" in row for _, row in (*said, *ours))
    assert "Q-MVAE default (stalled), 131,410 steps" in tables.title(runs[1], "mnist", "svhn")


def test_precisions_are_never_pooled_and_stand_beside_what_is_not_float32():
    runs = [record(0), record(1), *(in_bfloat16(record(seed, forth=0.5)) for seed in (0, 1, 2))]
    found = tables.table1(runs).set_index(["reading", "column"])
    assert list(dict.fromkeys(reading for reading, _ in found.index)) == ["Q-MVAE default", "Q-MVAE default (bfloat16)"]
    assert found.loc[("Q-MVAE default", "MNIST→SVHN"), "seeds"] == 2
    assert found.loc[("Q-MVAE default (bfloat16)", "MNIST→SVHN"), "seeds"] == 3
    assert found.loc[("Q-MVAE default (bfloat16)", "MNIST→SVHN"), "ours"].startswith("50.0")
    both = in_bfloat16(record(0, plateau={"left": None}))
    assert set(tables.table1([both])["reading"]) == {"Q-MVAE default (stalled, bfloat16)"}


def test_the_table_as_the_paper_prints_it_has_its_number_ours_and_the_verdict_in_each_cell():
    baseline = record(model="mvae", reading="mvae", back=0.571)
    found = tables.beside([*SEEDS, baseline], paper.TABLE1, paper.TABLE1_COLUMNS)
    assert list(found) == ["MNIST→SVHN", "SVHN→MNIST"]
    assert found.index.tolist() == ["MVAE<br>one seed", "MMVAE", "DMVAE", "Q-MVAE default<br>three seeds"]
    assert found.iloc[3, 0] == "paper 92.2 ± 0.3<br><strong>92.4 ± 1.1</strong><br>= agrees"
    assert found.iloc[0, 1] == "paper 57.1 ± 3.4<br><strong>57.2</strong>"  # one seed has no verdict
    assert found.iloc[1, 0] == "paper 86.4 ± 0.5<br><strong>no run yet</strong>"
    low = tables.beside([record(seed, forth=0.5 + seed / 100) for seed in range(3)], paper.TABLE1, paper.TABLE1_COLUMNS)
    assert low.iloc[3, 0].endswith("<br>▼ below")
    kin = tables.beside([record(model="mopoe", reading="mopoe")], paper.TABLE1, paper.TABLE1_COLUMNS)
    assert kin.loc["MoPoE<br>one seed", "MNIST→SVHN"] == "<strong>92.2</strong>"


def test_rows_by_different_harnesses_name_them_and_each_length_has_its_own_table():
    ours = record(profile="quick", cost={"steps": 3000, "seconds": 1.0})
    other = ours | {"reading": "as-printed", "id": "other"}
    other["metrics"] = ours["metrics"] | {"published_probe": dict.fromkeys(("mnist", "svhn", "joint"), hits(0.9))}
    args = paper.TABLE2, paper.TABLE2_COLUMNS
    alike = tables.beside([ours], *args)
    assert "Q-MVAE default<br>one seed" in alike.index
    mixed = tables.beside([ours, other], *args)
    assert mixed.loc["Q-MVAE default<br>one seed<br>our harness", "SVHN"].endswith("<strong>80.2</strong>")
    assert mixed.loc["Q-MVAE as printed<br>one seed<br>the paper's harness", "SVHN"].endswith("<strong>90.0</strong>")
    html = tables.at_lengths([[record()], [ours]], *args)
    assert [part.split(" steps")[0] for part in html.split("<p><strong>")[1:]] == ["131,410", "3,000"]
    assert html.count('class="dataframe beside"') == 2
    assert html.count("<strong>80.2</strong>") == 2


def test_mmvae_with_fewer_particles_stands_in_its_row_of_the_pictures():
    few = record(model="mmvae", reading="mmvae+particles=8")
    assert tables.to_show([record(), few], "default").keys() == {"default", "mmvae"}
    assert pages.Page(None, [few, record()]).longest(("mmvae", "dmvae")) == {"mmvae": few}
