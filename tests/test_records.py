"""Records are written whole or not at all, read with clear errors, and say by which code and machine they were made."""

import contextlib
import functools
import hashlib
import json
import math
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from qmvae_core import files
from qmvae_study.evidence import folder as places
from qmvae_study.evidence import provenance
from qmvae_study.evidence.records import (
    FORMAT,
    MISSING,
    Record,
    RecordError,
    config_hash,
    load_records,
    read_record,
    write_json,
)
from qmvae_study.evidence.weights import save_tensors

ROOT = Path(__file__).resolve().parents[1]
RECORD = {"format": FORMAT, "id": "one", "profile": "quick", "reading": "default", "seed": 0, "status": "ok"}


# Writing


def test_a_record_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "new" / "folder" / "one.json"
    value = {**RECORD, "metrics": {"accuracy": 0.1 + 0.2, "n": 10_000}, "name": "SVHN→MNIST", "list": [1, [2.5, None]]}
    write_json(path, value)
    assert read_record(path) == value
    assert [entry.name for entry in path.parent.iterdir()] == ["one.json"]


def test_the_bytes_do_not_depend_on_the_order_of_the_keys(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": {"y": 2, "x": 3}})
    write_json(tmp_path / "b.json", {"a": {"x": 3, "y": 2}, "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a.json").read_bytes().endswith(b"}\n")


def test_values_that_are_not_finite_become_words_and_the_file_stays_json(tmp_path):
    value = {**RECORD, "history": [{"objective": math.nan}, {"objective": -math.inf}], "deep": ({"x": math.inf},)}
    write_json(tmp_path / "one.json", value)

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    found = json.loads((tmp_path / "one.json").read_text(), parse_constant=refuse)
    assert found["history"] == [{"objective": "nan"}, {"objective": "-inf"}]
    assert found["deep"] == [{"x": "inf"}]


class Kill(BaseException):
    """Stands for the end of the process: nothing in the library may handle it."""


def test_a_kill_before_the_file_is_in_place_leaves_the_old_one(tmp_path, monkeypatch):
    write_json(tmp_path / "one.json", RECORD)
    save_tensors(tmp_path / "one.safetensors", {"weight": torch.ones(3)})

    def kill(*paths):
        raise Kill

    monkeypatch.setattr(files.os, "replace", kill)
    for write in (
        lambda: write_json(tmp_path / "one.json", {**RECORD, "status": "new"}),
        lambda: write_json(tmp_path / "two.json", RECORD),
        lambda: save_tensors(tmp_path / "one.safetensors", {"weight": torch.zeros(3)}),
    ):
        with pytest.raises(Kill):
            write()
    left = [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")]
    assert not left
    assert load_records(tmp_path) == [RECORD]
    assert load_file(tmp_path / "one.safetensors")["weight"].tolist() == [1, 1, 1]


def test_a_kill_while_the_bytes_are_written_leaves_the_old_file(tmp_path, monkeypatch):
    write_json(tmp_path / "one.json", RECORD)
    original = Path.write_text

    def half(self, text):
        original(self, text[: len(text) // 2])
        raise Kill

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(Kill):
        write_json(tmp_path / "one.json", {**RECORD, "status": "new"})
    assert load_records(tmp_path) == [RECORD]


def test_a_value_that_is_not_json_leaves_the_old_record(tmp_path):
    write_json(tmp_path / "one.json", RECORD)
    with pytest.raises(TypeError):
        write_json(tmp_path / "one.json", {**RECORD, "metrics": object()})
    assert load_records(tmp_path) == [RECORD]


def test_tensors_come_back_and_may_be_views_that_require_gradients(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3).requires_grad_()
    save_tensors(tmp_path / "deep" / "w.safetensors", {"turned": weight.T})
    assert torch.equal(load_file(tmp_path / "deep" / "w.safetensors")["turned"], weight.detach().T)
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["w.safetensors"]


# Reading


def test_a_missing_record_names_its_file_and_the_command_that_makes_it(tmp_path):
    path = tmp_path / "absent.json"
    with pytest.raises(RecordError, match=f"{re.escape(str(path))}.*python -m qmvae_study run"):
        read_record(path)


NO_RECORDS = [
    b"",
    b'{"format": 1, "id"',
    b"\xff\xfe\x00\x01",
    b"[1, 2]",
    b'"text"',
    b"{}",
    b'{"format": 0}',
    b'{"format": "1"}',
]


def flipped(content: bytes, place: int, bit: int) -> bytes:
    return content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_record_with_one_bit_flipped_is_refused_or_says_the_same(tmp_path_factory, place, bit):
    """The same where the bit made another way to write what was written, as a tab for a space."""
    path = tmp_path_factory.mktemp("flips") / "one.json"
    write_json(path, {**RECORD, "metrics": {"joint_coherence": {"accuracy": 0.1 + 0.2, "n": 10_000}}})
    content = path.read_bytes()
    before = read_record(path)
    path.write_bytes(flipped(content, int(place * len(content)), bit))
    with contextlib.suppress(RecordError):
        assert read_record(path) == before


def a_run(**changes) -> dict:
    config = {"model": {"model": "qmvae"}, "training": {}}
    about = {"id": "quick-qmvae-default-seed0", "model": "qmvae", "trained_together": [0], "metrics": {}}
    about["data"] = {"kind": "real", "content_hash": "x", "notes": []}
    return {**RECORD, **about, "config": config, "config_hash": config_hash(config), **changes}


def test_one_run_passed_off_as_two_seeds_is_refused(tmp_path):
    for seed in (0, 1):
        name = f"quick-qmvae-default-seed{seed}"
        about = a_run(id=name, seed=seed, trained_together=[seed], weights_sha256=f"of seed {seed}")
        write_json(tmp_path / f"{name}.json", about)
    assert len(load_records(tmp_path)) == 2
    write_json(tmp_path / f"{name}.json", about | {"weights_sha256": "of seed 0"})
    with pytest.raises(RecordError, match="seed1 and .*seed0 hold one run as two seeds; delete the copy"):
        load_records(tmp_path)


OTHER = {"model": {"model": "mvae"}}
CONTRADICTIONS = [  # changes, whose keys may be paths, and what is said
    ({"config.model.beta": 1}, "its config is not that of its hash"),
    ({"config": OTHER, "config_hash": config_hash(OTHER)}, "its config is of another model"),
    *((changes, "its id names another profile, model or seed") for changes in (
        {"seed": 1, "trained_together": [1]}, {"model": "mvae"}, {"profile": "paper"},
    )),
    ({"trained_together": [1, 2]}, "its seed 0 is not among those trained"),
    ({"status": "weird"}, "its status is 'weird'"),
    ({"id": "quick-qmvae-default-seed1"}, "its id is 'quick-qmvae-default-seed1'"),
    ({"id": MISSING}, "it has no id"), ({"profile": 7}, "its profile is 7"), ({"seed": "0"}, "its seed is '0'"),
    ({"seed": False}, "its seed is False"), ({"trained_together": 0}, "its trained_together is 0"),
    ({"data": "real"}, "it has no data.kind"), ({"data.notes": None}, "its data.notes is None"),
    ({"config.model.model": MISSING}, "it has no config.model.model"), ({"metrics": MISSING}, "it has no metrics"),
    ({"panels": []}, r"its panels is \[\]"), ({"cost": {"steps": 1.5}}, "its cost.steps is 1.5"),
    ({"cost": {"seconds": "1"}}, "its cost.seconds is '1'"), ({"plateau": {"left": True}}, "its plateau.left is True"),
    ({"history": {}}, r"its history is \{\}"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "fault"), CONTRADICTIONS)
def test_a_record_that_contradicts_itself_or_lacks_a_field_is_refused(tmp_path, changes, fault):
    path, made = tmp_path / "quick-qmvae-default-seed0.json", a_run()
    write_json(path, made)
    assert read_record(path).done
    for place, value in changes.items():
        *inner, last = place.split(".")
        holder = functools.reduce(dict.__getitem__, inner, made)
        holder[last] = value
        if value is MISSING:
            del holder[last]
    write_json(path, made)
    with pytest.raises(RecordError, match=f"seed0.json contradicts itself: {fault}.*; delete it and run it again"):
        read_record(path)


def test_a_record_may_lack_what_is_younger_and_a_failed_one_what_it_did_not_come_to(tmp_path):
    path = tmp_path / "quick-qmvae-default-seed0.json"
    failed = a_run(status="failed", plateau={"left": None}, cost={"steps": 3, "seconds": 2})
    del failed["metrics"]
    write_json(path, failed)
    found = read_record(path)
    assert (found.done, found.steps, found.seconds) == (False, 3, 2)


def test_a_word_of_javascript_for_a_number_is_no_json(tmp_path):
    (tmp_path / "one.json").write_text('{"format": 1, "cost": NaN}')
    with pytest.raises(RecordError, match=r"one.json is not a readable record \(NaN is not JSON\)"):
        read_record(tmp_path / "one.json")


def test_the_text_of_a_record_is_for_people_and_for_git(tmp_path):
    write_json(tmp_path / "one.json", {"b": "x", "a": [1]})
    lines = (tmp_path / "one.json").read_text().splitlines()
    assert lines[:5] == ["{", ' "a": [', "  1", " ],", ' "b": "x",']
    assert re.fullmatch(r' "sha256": "[0-9a-f]{64}"', lines[5])


def test_what_a_record_does_not_say_is_nothing():
    empty = Record({"data": {"kind": "real"}, "provenance": {}, "metrics": {}})
    assert (empty.steps, empty.seconds, empty.finished, empty.amended, empty.joint_code) == (0, 0.0, "", {}, {})
    assert Record({"seconds": 3.0}).seconds == 3.0  # of a record that is no run's
    assert empty.data == ("real", "", (), {}, {})
    assert empty.provenance == (None, None, {}, "", "", 0, 0)
    assert empty.provenance.short_commit == "none"
    assert Record({"provenance": {"commit": "0123456789", "unknown": 1}}).provenance.short_commit == "01234567"
    share = Record({"id": "x", "metrics": {"joint_coherence": {"accuracy": 0.5}}}).joint_coherence
    assert math.isnan(share.low)
    assert math.isnan(share.high)
    assert (share.n, share.per_cent) == (0, 50.0)


def test_weights_are_held_against_the_hash_in_the_record(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"x")
    right, wrong = files.file_hash(path), "0" * 64
    assert Record({"weights_sha256": right}).holds(path)
    assert Record({"tensors_sha256": right}).holds(path)
    assert not Record({"weights_sha256": wrong, "tensors_sha256": right}).holds(path)
    assert not Record({"weights_sha256": right}).holds(tmp_path / "absent")


def test_a_panel_counts_every_row():
    found = Record(
        {
            "id": "x",
            "panels": {
                "transfer": {"a->b": {"digits": [1, 2], "read": [[1, 2], [1, 3], [0, 0]], "rows": "draws of h"}}
            },
        }
    )
    panel = found.panel("transfer", "a", "b")
    assert (panel.right, panel.draws_of) == (0.5, "h")
    assert panel[2:6] == ({}, {}, (), ())
    for lacking in (found, Record({"id": "x", "panels": None}), Record({"id": "x"})):
        with pytest.raises(RecordError, match="record x has no panel transfer, b->a"):
            lacking.panel("transfer", "b", "a")


def test_a_metric_has_its_path_and_its_share():
    shares = {"accuracy": 0.0, "low": 0.0, "high": 0.0, "n": 1}, {"accuracy": 1.0, "low": 1.0, "high": 1.0}
    found = Record(a_run(metrics={"probe": {"joint": dict(shares[0]), "mnist": dict(shares[1])}, "oracle": 0.5}))
    assert found.share("probe", "joint") == (0.0, 0.0, 0.0, 1)
    assert found.share("probe", "mnist").per_cent == 100.0
    with pytest.raises(RecordError, match="seed0: metrics / oracle holds no share of images"):
        found.share("oracle")
    for path in (("oracle", "mnist"), ("absent",)):
        with pytest.raises(RecordError, match=f"seed0 has no metric {' / '.join(path)}; run it again"):
            found.share(*path)
    probes = ({}, {"probe": {"mnist": 1}}, found["metrics"])
    assert [Record({"metrics": each}).applies("probe", "joint") for each in probes] == [True, False, True]
    assert Record({"metrics": {"probe": {"mnist": 1}}}).applies("probe", "svhn")


def test_each_door_of_a_record_leads_to_its_metric():
    way, share = "a->b", {"accuracy": 0.5, "low": 0.25, "high": 0.75, "n": 8}
    joint = {"joint": share, "alone": {"a": share}, "only": {}, "precision": {"a": 2.0}}
    metrics = {
        "cross_generation": {way: {"mean": share, "sample": share | {"n": 9}}}, "confusion": {way: [[1, 0], [0, 2]]},
        "frechet": {"real": {"a": {"distance": 1.5}}}, "diversity": {way: {"features": {"ratio": 0.75}}},
        "private_information": {"a": {"nats": [0.5, 0.0]}}, "joint_code": {"train": joint},
        "leakage": {"a": {"p": share}}, "oracle": {"a": 0.75},
        "code_swaps": {way: {"source": {"prior": share}}}, "joint_coherence": share,
    }  # fmt: skip
    found = Record(a_run(metrics=metrics, config={"model": {"test_code": "sample"}}))
    assert found.directions == (way,)
    assert [found.accuracy(way).n, found.accuracy(way, "mean").n] == [9, 8]
    assert found.confusion(way) == [[1, 0], [0, 2]]
    assert (found.frechet("real", "a"), found.diversity(way)) == (1.5, 0.75)
    assert (found.private_information("a"), found.oracle) == ([0.5, 0.0], {"a": 0.75})
    half = (0.5, 0.25, 0.75, 8)
    assert found.joint_code == {"train": (half, {"a": half}, {}, {"a": 2.0})}
    assert (found.leakage, found.joint_coherence) == ({"a": {"p": half}}, half)
    assert found.code_swaps == {way: {"source": {"prior": half}}}


@pytest.mark.parametrize("value", ["nan", "0.5", None, True, [0.5, "inf"], {"mean": None}])
def test_what_is_no_number_gives_no_metric(value):
    record = Record(a_run(metrics={"joint_coherence": value}))
    with pytest.raises(
        RecordError, match=r"seed0: metrics / joint_coherence.* is .*, which is no number; run it again"
    ):
        _ = record.joint_coherence


@pytest.mark.parametrize(
    "share", [{"accuracy": 1.01}, {"accuracy": -0.1}, {"accuracy": 0.5, "low": 0.6}, {"accuracy": 0.5, "high": 0.4},
              {"accuracy": 0.5, "n": 0}, {"accuracy": {"mean": 0.5}, "low": 0.1}, {"accuracy": 0.5, "n": [1]}]
)  # fmt: skip
def test_what_is_no_share_gives_no_metric(share):
    record = Record(a_run(metrics={"probe": {"mnist": share}}))
    with pytest.raises(RecordError, match="seed0: metrics / probe / mnist holds .*no share from 0 to 1"):
        _ = record.probe


@pytest.mark.parametrize("content", [*NO_RECORDS, b'{"format": "1"}'], ids=repr)
def test_a_file_that_is_no_record_is_named_with_the_remedy(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=f"{re.escape(str(path))}.*delete it and run it again"):
        read_record(path)
    write_json(tmp_path / "a_good_one.json", RECORD)
    assert FORMAT == 1  # that of the records in the repository
    with pytest.raises(RecordError, match="broken.json"):
        load_records(tmp_path)  # a table never leaves a record out in silence


def test_a_missing_folder_of_records_is_an_error_with_the_remedy(tmp_path):
    with pytest.raises(RecordError, match=r"no folder of records .*absent.*python -m qmvae_study run"):
        load_records(tmp_path / "absent")


def test_records_come_in_the_order_of_their_names_and_filtered(tmp_path):
    for name, fields in {
        "c": {"profile": "paper", "seed": 1},
        "a": {"profile": "paper", "seed": 0},
        "b": {"profile": "quick", "seed": 0},
        "d": {"profile": "paper", "seed": 2, "status": "failed"},
    }.items():
        write_json(tmp_path / f"{name}.json", {**RECORD, "id": name, **fields})
    (tmp_path / "e.json.77.part").write_text("half")
    (tmp_path / "notes.txt").write_text("no record")

    def found(**wanted):
        return [record["id"] for record in load_records(tmp_path, **wanted)]

    assert found() == ["a", "b", "c", "d"]
    assert found(profile="paper") == ["a", "c", "d"]
    assert found(profile="paper", seed=0) == ["a"]
    assert found(profile="paper", status="ok") == ["a", "c"]
    assert found(profile="smoke") == []
    assert found(no_such_field="x") == []


# The hash of a config


CONFIG = {"model": {"beta": 1500.0, "negatives": "random", "widths": [32, 64]}, "training": {"epochs": 10}}


def test_the_hash_does_not_depend_on_the_order_of_keys_nor_on_json():
    turned = {"training": {"epochs": 10}, "model": dict(reversed(CONFIG["model"].items()))}
    assert list(turned) != list(CONFIG)
    assert config_hash(turned) == config_hash(CONFIG) == config_hash(json.loads(json.dumps(CONFIG)))
    assert config_hash(CONFIG) == hashlib.sha256(json.dumps(CONFIG, sort_keys=True).encode()).hexdigest()[:12]


@pytest.mark.parametrize(
    "changed",
    [
        {**CONFIG, "training": {"epochs": 11}},
        *({**CONFIG, "model": {**CONFIG["model"], **one}} for one in (
            {"beta": 1500.0000000000002}, {"negatives": "hardest"}, {"widths": [64, 32]}, {"extra": None},
        )),
        {"model": CONFIG["model"]},
    ],
)  # fmt: skip
def test_any_change_of_a_config_changes_its_hash(changed):
    assert config_hash(changed) != config_hash(CONFIG)


# Provenance


def test_provenance_names_code_versions_and_machine():
    found = provenance.provenance()
    assert found.keys() == {"commit", "dirty", "versions", "device", "device_type", "threads", "peak_host_bytes"}
    assert found["versions"]["torch"] == version("torch")
    assert found["versions"].keys() >= {"python", "torch", "torchvision", "numpy", "scikit-learn"}
    assert all(found["versions"].values())
    assert found["device_type"] == "cpu"
    assert "cores" in found["device"]
    assert found["threads"] == torch.get_num_threads()
    assert 2**25 < found["peak_host_bytes"] < 2**42  # bytes, not kilobytes: torch alone takes more than 32 MiB
    json.dumps(found, allow_nan=False)


def git(folder: Path, *command: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "core.hooksPath="]
    done = subprocess.run(["git", *identity, "-C", str(folder), *command], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one commit in which the library lies in a folder; "" is its root."""

    def at(below: str = "") -> Path:
        root = tmp_path / below
        module = root / "qmvae_study" / "evidence" / "provenance.py"
        module.parent.mkdir(parents=True)
        module.write_text("1")
        monkeypatch.setattr(places, "REPOSITORY", root)
        monkeypatch.setattr(provenance, "__file__", str(module))
        git(tmp_path, "init", "--quiet")
        return module

    return at


def commit(folder: Path) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "one")
    return git(folder, "rev-parse", "HEAD")


def test_commit_and_dirty_flag_are_those_of_the_start(tmp_path, monkeypatch, checkout):
    module = checkout()
    first = commit(tmp_path)
    monkeypatch.setenv("GIT_DIR", str(ROOT / ".git"))  # as in a hook of some repository
    found = provenance.provenance()
    assert (found["commit"], found["dirty"]) == (first, False)
    monkeypatch.delenv("GIT_DIR")
    module.write_text("2")
    assert provenance.trainer("cpu")["dirty"] is False  # this process has imported what was there before
    provenance.code.cache_clear()  # as in a process that starts now
    assert provenance.provenance()["dirty"] is True
    assert provenance.trainer("cpu")["torch"] == version("torch")
    commit(tmp_path)
    assert provenance.provenance()["commit"] == first


@pytest.mark.parametrize("below", ["vendor/qmvae", "untracked", ""])
def test_below_somebody_elses_repository_the_code_has_no_commit(tmp_path, monkeypatch, checkout, below):
    (tmp_path / "theirs.py").write_text("1")
    checkout(below)
    git(tmp_path, "add", "theirs.py" if below != "vendor/qmvae" else "--all")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    monkeypatch.setenv("QMVAE_COMMIT", "abc123")
    found = provenance.provenance()
    assert (found["commit"], found["dirty"]) == ("abc123", None)


def test_without_git_the_commit_is_what_the_environment_says_and_dirty_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "REPOSITORY", tmp_path / "absent")
    monkeypatch.delenv("QMVAE_COMMIT", raising=False)
    assert provenance.code(tmp_path / "absent") == {"commit": None, "dirty": None}


def test_a_package_that_is_not_installed_has_no_version():
    assert provenance._versions("no-such-package-at-all") == {"no-such-package-at-all": None}
