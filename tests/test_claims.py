"""The ledger decides only what its rule allows, from paired seeds, and puts failures first."""

import pytest
import test_tables

from qmvae_study import paper
from qmvae_study.evidence.records import Record, RecordError
from qmvae_study.report import claims, tables
from qmvae_study.report.intervals import Verdict
from qmvae_study.rows import BASELINES


def record(reading="default", seed=0, steps=100, **fields) -> Record:
    """fields: of the record, or "mnist_svhn" for the direction and mnist, svhn, joint for the probe, in per cent."""
    values = {"mnist_svhn": 92.2, "svhn_mnist": 81.3, "mnist": 98.3, "svhn": 80.2, "joint": 97.9}
    forth, back, *probe = (fields.pop(name, value) / 100 for name, value in values.items())
    model = "qmvae" if reading.startswith(("default", "as-printed")) else reading
    fields |= {"reading": reading, "model": model, "cost": {"steps": steps}}
    return test_tables.record(seed, forth=forth, back=back, probe=probe, n_back=1000, **fields)


def several(reading, values, key="svhn_mnist", **rest) -> list[Record]:
    return [record(reading, seed, **{key: value}, **rest) for seed, value in enumerate(values)]


def claim(words: str) -> claims.Claim:
    (found,) = [each for each in claims.CLAIMS if words in each.says]
    return found


GAIN, WITHOUT = claim("gains 4.9"), claim("aligns the codes")


def test_paired_differences_are_of_the_seeds_that_both_have():
    records = [*several("default", [80, 82, 84]), *several("dmvae", [79, 85])]
    path = paper.TABLE1_COLUMNS["SVHN→MNIST"]
    assert claims.paired_differences(records, "default", "dmvae", path) == pytest.approx({0: 1.0, 1: -3.0})
    assert claims.paired_differences(records, "default", "mvae", path) == {}


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        ([80, 81, 82], [70, 71.5, 72], "holds"), ([70, 71.5, 72], [80, 81, 82], "fails"),
        ([70, 80, 90], [75, 75, 75], "undecided"), ([80, 80.1], [70, 70.1], "undecided"),  # two seeds decide nothing
    ],
)  # fmt: skip
def test_a_comparison_holds_fails_or_is_undecided_by_its_interval(ours, theirs, says):
    records = [*several("default", ours), *several("default+beta=0", theirs)]
    assert WITHOUT.judge(records, "default").says == says


@pytest.mark.parametrize(
    ("shifts", "says"),
    [((0.4, 0.5, 0.6), "holds"), ((-0.4, -0.5, -0.6), "fails"), ((0.5, 0.5, 0.5), "holds"), ((0, 0, 0), "undecided")],
)
def test_half_a_point_is_enough_where_the_seeds_are_alike(shifts, says):
    records = [*several("default", [80 + each for each in shifts]), *several("default+beta=0", [80, 80, 80])]
    assert WITHOUT.judge(records, "default").says == says


def test_the_evidence_has_seeds_profile_and_interval():
    other = several("default+beta=0", [70.0, 70.0])
    beside = "points over default+beta=0 (paper profile"
    assert WITHOUT.judge([*several("default", [80]), *other], "default").evidence == f"+10.0 {beside}, 1 seed)"
    two = WITHOUT.judge([*several("default", [80.0, 81.0]), *other], "default")
    assert two == ("undecided", "", f"+10.5 {beside}, 2 seeds, +4.1 to +16.9)", True)  # t of one degree is 12.7


def test_one_short_or_unreal_run_among_those_compared_is_enough_to_decide_nothing():
    long = [*several("default", [80, 81, 82]), *several("default+beta=0", [70, 71.5, 72])]
    assert WITHOUT.judge(long, "default").says == "holds"
    for changes in ({"profile": "quick"}, {"kind": "stand-in"}):
        assert WITHOUT.judge([*long[:5], record("default+beta=0", 2, svhn_mnist=72, **changes)], "default").says == (
            "undecided"
        )


def test_runs_that_are_not_compared_have_no_say():
    other = several("default+beta=0", [70, 71.5, 72])
    ours = several("default", [80, 81, 82, 83])
    strangers = [*several("dmvae", [50, 50, 50]), record("default", 9, svhn_mnist=50)]
    stalled = [r | {"plateau": {"left": None}} for r in [ours[3], *strangers]]
    found = WITHOUT.judge([*stalled, *ours[:3], *other], "default")
    assert found == WITHOUT.judge([*ours[:3], *other], "default")


def test_a_claim_without_any_run_of_ours_is_incomplete():
    within = claim("better than codes of SVHN")
    assert within.judge([record("mvae")], "default") == ("undecided", "", "no record of default", False)
    assert within.judge([record(), record("mvae")], "default").evidence == (
        "+17.7 points over SVHN alone (paper profile, 1 seed)"
    )


def test_a_longer_profile_that_lacks_some_of_the_runs_compared_does_not_go_before_one_that_has_all():
    short = [r for name in ("default", *BASELINES) for r in several(name, [80, 81], profile="quick", steps=10)]
    long = [*several("default", [80, 81]), *several("dmvae", [70, 71])]
    above = claim("above every compared model in SVHN→MNIST").key
    found = claims.findings([*short, *long], "default")[above]
    assert found.complete
    assert found.evidence.count("quick profile") == len(BASELINES)


def test_a_reading_without_its_loss_is_compared_with_itself():
    records = [*several("as-printed", [80, 81, 82]), *several("default+beta=0", [70, 71.5, 72])]
    missing = Verdict("undecided", "", "no seed has both as-printed and as-printed+beta=0", complete=False)
    assert WITHOUT.judge(records, "as-printed") == missing
    records += several("as-printed+beta=0", [90, 91.5, 92])
    assert WITHOUT.judge(records, "as-printed").says == "fails"


@pytest.mark.parametrize("changes", [{"profile": "quick"}, {"kind": "stand-in"}])
def test_what_is_short_or_not_real_decides_nothing_but_is_shown(changes):
    records = [*several("default", [80, 81, 82], **changes), *several("default+beta=0", [70, 71, 72], **changes)]
    found = WITHOUT.judge(records, "default")
    assert found.says == "undecided"
    assert f"+10.0 points over default+beta=0 ({changes.get('profile', 'paper')} profile, 3 seeds" in found.evidence


@pytest.mark.parametrize(("gain", "verdict"), [(4.9, "holds"), (5.1, "holds"), (9.0, "fails"), (-4.9, "fails")])
def test_the_gain_is_compared_with_the_number_of_the_paper(gain, verdict):
    base = [70.0, 71.0, 72.0]
    ours = [value + gain + shift for value, shift in zip(base, (-0.2, 0.0, 0.2), strict=True)]
    records = [*several("default", ours), *several("dmvae", base)]
    assert GAIN.judge(records, "default").says == verdict


def test_above_every_model_fails_with_any_and_holds_only_with_all():
    best = claim("above every compared model in SVHN→MNIST")
    ours = several("default", [80, 81, 82])
    others = {name: several(name, [70, 71.5, 72]) for name in BASELINES}
    judge = lambda: best.judge([*ours, *(r for each in others.values() for r in each)], "default").says  # noqa: E731
    assert judge() == "holds"
    others["mmvae"] = []
    assert judge() == "undecided"
    others["dmvae"] = several("dmvae", [90, 91.5, 92])
    assert judge() == "fails"


def test_mmvae_has_no_joint_codes_to_compare_with():
    joint = claim("Joint codes classify better than those of")
    assert "mmvae" not in joint.judge([record()], "default").evidence


@pytest.mark.parametrize(
    ("mnist", "joint", "verdict"),
    [((98, 98.2, 98.1), (97, 97.1, 97.0), "holds"), ((97, 97.1, 97.0), (98, 98.2, 98.1), "fails")],
)
def test_one_column_against_another_of_the_same_runs(mnist, joint, verdict):
    records = [record(seed=i, mnist=a, joint=b) for i, (a, b) in enumerate(zip(mnist, joint, strict=True))]
    assert claim("worse than codes of MNIST").judge(records, "default").says == verdict


def test_every_reported_cell_is_a_claim_and_is_judged_as_in_its_table():
    said = [v for table in (paper.TABLE1, paper.TABLE2) for row in table.values() for v in row.values() if v]
    assert len(list(claims._cells())) == len(said) == 19
    cell = claim("Q-MVAE, SVHN→MNIST: 81.3 %")
    for values, table_verdict, verdict in (
        ((81.0, 81.3, 81.6), "agrees", "holds"),
        ((71.0, 71.3, 71.6), "below", "fails"),
        ((91.0, 91.3, 91.6), "above", "fails"),
    ):
        records = several("default", values)
        found = cell.judge(records, "default")
        assert found.says == verdict
        row = tables.table1(records).set_index("column").loc["SVHN→MNIST"]
        assert (row["verdict"], row["ours"]) == (table_verdict, found.evidence.split(" (")[0].removeprefix("ours "))
    assert cell.judge([], "default") == ("undecided", "", "no record of default", False)


def test_the_ledger_lists_every_claim_once_failures_first():
    records = [
        r
        for reading, value in (("default", 71), ("dmvae", 76.4), ("default+beta=0", 20))
        for r in several(reading, [value - 0.3, value, value + 0.3])
    ]
    table = claims.ledger(records, "default")
    assert len(table) == len(claims.CLAIMS) == table["the paper says"].nunique()
    ranks = [claims.ORDER.index(verdict) for verdict in table["verdict"]]
    assert ranks == sorted(ranks)
    assert set(table["verdict"]) == set(claims.ORDER)
    assert len(claims.findings(records, "default")) == len(claims.CLAIMS)


def test_runs_of_different_profiles_are_never_compared():
    long, short = several("default", [90]), several("default", [80, 81, 82], profile="quick", steps=10)
    short += several("dmvae", [70, 71, 72], profile="quick", steps=10)
    found = claims.findings([*short, *long], "default")
    assert found[GAIN.key].evidence.startswith("+10.0 points over dmvae (quick profile, 3 seeds")
    own = found[claim("Q-MVAE, SVHN→MNIST: 81.3 %").key]
    assert own == (
        "undecided",
        "",
        "ours 90.0 (paper profile, 1 seed), paper 81.3 ± 0.5: none: fewer than 3 seeds",
        True,
    )


def test_a_profile_that_decides_goes_before_one_that_has_more_runs():
    short = [r for name in ("default", *BASELINES) for r in several(name, [80, 81, 82], profile="quick", steps=10)]
    long = [*several("default", [80, 81, 82]), *several("dmvae", [90, 91.5, 92])]
    above = claim("above every compared model in SVHN→MNIST").key
    assert claims.findings([*short, *long], "default")[above].says == "fails"
    assert "no seed has both default and mvae" in claims.findings(long, "default")[above].evidence
    undecided = claims.findings([*short, *long[:1]], "default")[above]
    assert undecided.complete
    assert undecided.evidence.count("(quick profile, 3 seeds") == len(BASELINES)


def test_profiles_are_ordered_by_length_and_real_data_comes_first():
    records = [
        record(profile="quick", steps=10), record(profile="paper", steps=100, kind="stand-in"),
        record(profile="sensitivity", steps=20, status="failed"), record(profile="other", steps=15, seed=3),
        record("mvae", profile="quick", steps=12),
    ]  # fmt: skip
    assert [[r["profile"] for r in group] for group in tables.by_profile(records)] == [["other"], ["quick", "quick"]]
    assert [r["cost"]["steps"] for r in tables.finished(records)] == [15, 12, 10]
    assert [r["profile"] for r in tables.longest(records)] == ["other"]
    assert [r["reading"] for r in tables.widest(records)] == ["mvae", "default"]
    assert [r["profile"] for r in tables.widest(records[:4])] == ["other"]
    assert [r["profile"] for r in tables.longest(records[1:2])] == ["paper"]
    with pytest.raises(RecordError, match="no finished record"):
        tables.longest(records[2:3])


def test_a_profile_is_as_long_as_its_longest_run():
    uneven = [record(profile="quick", steps=10), record(profile="quick", seed=1, steps=100)]
    even = [record(profile="other", seed=seed, steps=50) for seed in range(2)]
    assert [group[0].profile for group in tables.by_profile([*even, *uneven])] == ["quick", "other"]
    assert {r.profile for r in tables.widest([*even, *uneven])} == {"quick"}


def test_a_claim_that_rests_on_a_stalled_run_says_so():
    stalled = [r | {"plateau": {"left": None}} for r in several("default+beta=0", [60, 61, 62])]
    assert "stalled: default+beta=0" in WITHOUT.judge([*several("default", [80, 81, 82]), *stalled], "default").evidence
    alone = WITHOUT.judge([*several("default", [80, 81, 82]), *several("default+beta=0", [60, 61, 62])], "default")
    assert "stalled" not in alone.evidence
    cell = claim("Q-MVAE, MNIST→SVHN")
    assert (
        "3 seeds, stalled"
        in cell.judge([stalled[0] | {"reading": "default"}, *several("default", [0, 81, 82])[1:]], "default").evidence
    )
    assert "3 seeds, stalled" in cell.judge([r | {"reading": "default"} for r in stalled], "default").evidence
    assert "stalled" not in cell.judge(several("default", [80, 81, 82]), "default").evidence
