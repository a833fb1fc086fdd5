"""Files that are written whole or not at all: on a full disk, after a kill, when the power goes."""

import errno
import os
import re
import shutil
from types import SimpleNamespace

import pytest
import torch

from qmvae_core.files import replacing
from qmvae_core.training.checkpoint import write
from qmvae_study.evidence.folder import alone
from qmvae_study.evidence.records import write_json
from qmvae_study.evidence.weights import save_tensors


def test_the_file_and_then_its_name_are_on_the_disk(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append(os.readlink(f"/proc/self/fd/{file}")) or fsync(file))
    monkeypatch.setattr(os, "replace", lambda *paths: done.append("replaced") or replace(*paths))
    write_json(tmp_path / "a.json", {})
    assert done == [str(tmp_path / f"a.json.{os.getpid()}.part"), "replaced", str(tmp_path)]


WRITERS = {
    "checkpoint": lambda path: write(path, {"state": torch.zeros(100_000)}),
    "weights": lambda path: save_tensors(path, {"a": torch.zeros(100_000)}),
    "record": lambda path: write_json(path, {"a": "x" * 400_000}),
}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_says_which_folder_and_what_is_missing_and_keeps_the_old_file(tmp_path, monkeypatch, name, number):
    def full(file):
        raise OSError(number, os.strerror(number))

    path = tmp_path / name
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=re.escape(f"{os.strerror(number)} in {tmp_path}: ")) as caught:
        WRITERS[name](path)
    assert caught.value.errno == number
    missing = int(re.search(r"([\d,]+) bytes or more are missing", str(caught.value))[1].replace(",", ""))
    assert 399_000 < missing < 405_000
    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert path.read_text() == "old"


def test_what_is_missing_is_known_before_the_disk_is_full(tmp_path):
    """A disk takes a first part of what is written; /dev/full takes nothing."""

    def write_it() -> None:
        with replacing(tmp_path / "a", 1 << 60) as part:
            part.symlink_to("/dev/full")
            part.write_text("x")

    with pytest.raises(OSError, match=f"in {tmp_path}: .* are missing for a"):
        write_it()
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_run_removes_what_a_killed_process_left_of_its_checkpoint_alone(tmp_path):
    part, others = (
        tmp_path / "data" / "checkpoint.pt.7.part",
        [tmp_path / "data" / "checkpoint.pt", tmp_path / "a.part"],
    )
    part.parent.mkdir()
    for path in (part, *others):
        path.touch()
    with alone(tmp_path):
        assert not part.exists()
    assert all(path.exists() for path in others)
