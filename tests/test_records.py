"""Records are written whole or not at all, read with clear errors, and say by which code and machine they were made."""

import json
import math
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qmvae_core import files
from qmvae_study.evidence import folder as places
from qmvae_study.evidence import provenance
from qmvae_study.evidence.records import FORMAT, RecordError, config_hash, load_records, read_record, write_json
from qmvae_study.evidence.weights import save_tensors

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


@pytest.mark.parametrize("content", [*NO_RECORDS, b'{"format": "1"}'], ids=repr)
def test_a_file_that_is_no_record_is_named_with_the_remedy(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=f"{re.escape(str(path))}.*delete it and run it again"):
        read_record(path)
    write_json(tmp_path / "a_good_one.json", RECORD)
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
    assert re.fullmatch("[0-9a-f]{12}", config_hash(CONFIG))


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


def test_commit_and_dirty_flag_follow_the_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "REPOSITORY", tmp_path)
    monkeypatch.delenv("GIT_DIR", raising=False)
    git(tmp_path, "init", "--quiet")
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    found = provenance.provenance()
    assert (found["commit"], found["dirty"]) == (git(tmp_path, "rev-parse", "HEAD"), False)
    (tmp_path / "code.py").write_text("2")
    assert provenance.provenance()["dirty"] is True


def test_without_git_the_commit_is_what_the_environment_says_and_dirty_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "REPOSITORY", tmp_path / "absent")
    monkeypatch.setenv("QMVAE_COMMIT", "abc123")
    found = provenance.provenance()
    assert (found["commit"], found["dirty"]) == ("abc123", None)
    monkeypatch.delenv("QMVAE_COMMIT")
    assert provenance.provenance()["commit"] is None


def test_a_package_that_is_not_installed_has_no_version():
    assert provenance._versions("no-such-package-at-all") == {"no-such-package-at-all": None}
