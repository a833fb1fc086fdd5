"""What nobody should give is refused in the project's own words, or does what it says: nothing else.

500 inputs drawn over readings, runs, configs, records, parameters and the command line. An error is one of the
project's classes with a message that says what was given; never an inner library's words, and never silence.
"""

import copy
import json
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmvae_core.models import READINGS, ModelConfig, from_known_fields, reading
from qmvae_core.names import FIRST_BEST
from qmvae_core.training import TrainingConfig
from qmvae_study import __main__ as command_line
from qmvae_study.evidence.records import RecordError, config_hash, read_record, write_json
from qmvae_study.plan import PROFILES, Run
from qmvae_study.report import pages, tables

NASTY = st.one_of(
    st.sampled_from([
        "", " ", "False", "True", "true", "null", "None", "nan", "NaN", "inf", "-1", "-0.5", ".5", "64.0", "1e999",
        "1_0", "0x10", "0", "1", "1.5", "[]", "[0]", "[1.5]", "[-3]", '"1"', "{}", '{"mnist": -1}', "[[1]]", "random",
        "o\u0308", "../x", "9" * 400, "[9, 9, 9, 9, 9, 9]", "4294967296", "a=b", "%s", "\x00",
    ]),
    st.integers().map(str), st.floats().map(str), st.text(max_size=8),
)  # fmt: skip
BEST = READINGS[FIRST_BEST].to_dict()
FIELDS = sorted({*BEST, *BEST["modalities"]["mnist"], "epochs", "rounds", "chunk", "colour"})
PLACES = ["", "mnist.", "svhn.", "all.", "training.", "x."]
CHANGES = st.builds("{}{}={}".format, st.sampled_from(PLACES), st.sampled_from(FIELDS), NASTY)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip
quietly = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def attempt(make: Callable, kind: type[Exception] = ValueError):
    """(what was made, None), or (None, what was said of an error of that kind, which must be in words of ours)."""
    try:
        return make(), None
    except kind as error:
        said = str(error)
    foreign = ("object is not", "unhashable", "NoneType", "unexpected keyword", "has no attribute", "Traceback")
    assert len(said) > 10
    assert not any(words in said for words in foreign), said
    return None, said


@settings(quietly, max_examples=150)
@given(st.sampled_from([*READINGS, "quick", ""]), st.lists(CHANGES, min_size=1, max_size=3))
def test_a_reading_is_refused_or_is_the_model_that_it_spells(base, changes):
    name = "+".join([base, *changes])
    run, said = attempt(lambda: Run("quick", name, (0,)))
    if said is None:
        assert reading(name).to_dict() == run.config()["model"]
        json.dumps(run.config(), allow_nan=False)
        longest = f"{run.record_id(0)}-cross_generation-mnist-to-svhn-conditions.png.4194304.part"
        assert len(longest.encode()) <= 255
        assert "\x00" not in longest
        assert "/" not in longest


@settings(quietly, max_examples=100)
@given(st.sampled_from(["quick", "smoke", "fast", 7, None]), VALUES, VALUES, st.one_of(st.just("float32"), VALUES))
def test_a_run_is_refused_or_is_what_was_asked(name, asked, seeds, precision):
    for each in (asked, "default"):
        run, said = attempt(lambda each=each: Run(name, each, seeds, precision))
        if said is None:
            assert (run.profile, run.reading, list(run.seeds), run.precision) == (name, each, list(seeds), precision)


@settings(quietly, max_examples=100)
@given(st.sampled_from(sorted(TrainingConfig.__dataclass_fields__)), VALUES)
def test_a_training_is_refused_or_has_the_value_that_was_given(field, value):
    training, said = attempt(lambda: from_known_fields(TrainingConfig, {field: value}))
    if said is None:
        assert getattr(training, field) == value
        assert not isinstance(value, bool)


@settings(quietly, max_examples=100)
@given(st.sampled_from(FIELDS), VALUES, st.booleans())
def test_a_config_is_refused_or_has_the_value_that_was_given(field, value, of_modality):
    values = copy.deepcopy(BEST)
    (values["modalities"]["mnist"] if of_modality else values)[field] = value
    model, said = attempt(lambda: ModelConfig.from_dict(values))
    if said is None:
        assert model.to_dict() == json.loads(json.dumps(values))


def paths(value, path=()):
    yield path
    if isinstance(value, dict):
        for key, each in value.items():
            yield from paths(each, (*path, key))


def a_record() -> dict:
    share = {"accuracy": 0.9, "low": 0.8, "high": 0.95, "n": 100}
    config = {"model": BEST, "training": {"precision": "float32"}}
    return {
        "format": 1, "id": "quick-qmvae-first-best-seed0", "profile": "quick", "model": "qmvae", "reading": FIRST_BEST,
        "seed": 0, "status": "ok", "trained_together": [0], "config": config, "config_hash": config_hash(config),
        "cost": {"steps": 10, "seconds": 1.0}, "plateau": {"left": 5},
        "data": {"kind": "real", "content_hash": "x", "notes": []},
        "metrics": {
            "cross_generation": {way: {"mean": dict(share)} for way in ("mnist->svhn", "svhn->mnist")},
            "probe": {name: dict(share) for name in ("mnist", "svhn", "joint")},
        },
    }  # fmt: skip


@settings(quietly, max_examples=150)
@given(st.sampled_from([path for path in paths(a_record()) if path and path[:2] != ("config", "model")]), VALUES)
def test_a_record_is_refused_or_says_what_is_written(tmp_path_factory, place, value):
    """Its digest is right, as that of whoever writes it by this very library."""
    record = a_record()
    inner = record
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path = tmp_path_factory.mktemp("records") / "quick-qmvae-first-best-seed0.json"
    write_json(path, record)
    tried, said = attempt(lambda: read_record(path), RecordError)
    if said is not None:
        assert str(path) in said
        return
    shown, said = attempt(lambda: (tables.table1([tried]), tables.table2([tried])), RecordError)
    if said is None and place[0] != "metrics":
        assert shown[0]["ours"].tolist() == ["90.0", "90.0"]
    assert said is None or tried.id in said or "no finished record" in said


@settings(quietly, max_examples=50)
@given(st.sampled_from(["profile", "seeds", "minutes", "data_root", "evidence", "out"]), VALUES)
def test_a_parameter_of_another_type_is_refused(name, value):
    _, said = attempt(lambda: pages.check({name: value}))
    assert said is None or name in said
    assert (said is None) <= (not isinstance(value, bool | dict))


OPTIONS = ["--profile", "--readings", "--seeds", "--precision", "--device", "--minutes", "--workers"]


@settings(quietly, max_examples=100)
@given(
    st.sampled_from(["plan", "run", "status"]), st.lists(st.sampled_from(OPTIONS), max_size=3, unique=True), st.data()
)
def test_the_command_line_refuses_in_one_line(tmp_path, capsys, monkeypatch, command, options, data):
    monkeypatch.setattr(command_line, "expected_hours", lambda *_: 1.0)
    monkeypatch.setattr(command_line, "side_by_side", lambda *_: (none for none in ()))
    monkeypatch.setattr(command_line, "state", lambda *_: "to do")
    known = st.sampled_from([*PROFILES, "cpu", "cuda", "1", "bfloat16"])
    line = [command, "--evidence", str(tmp_path), *(["--data-root", "stand-in"] if command == "run" else [])]
    for option in options if command != "status" else [each for each in options if each in OPTIONS[:5]]:
        line += [f"{option}={data.draw(st.one_of(NASTY, known))}"]
    if command == "plan":
        line = [each for each in line if not each.startswith("--minutes")]
    try:
        status = command_line.main(line)
    except SystemExit as stopped:  # argparse, which says in its own words what it does not know
        status = stopped.code
    error = capsys.readouterr().err
    assert status in (0, 1, 2)
    assert (status == 0) == (error == "")
    assert "Traceback" not in error
    if status == 1:
        assert error.startswith("qmvae_study: ")
        assert error.count("\n") == 1, error


@pytest.mark.parametrize("value", [{"mnist": 7}, {"mnist": None}, 7, None])
def test_modalities_that_are_none_are_refused(value):
    _, said = attempt(lambda: ModelConfig.from_dict({**BEST, "modalities": value}))
    assert "modalities" in said or "ModalityConfig" in said
