"""Bytes that are not what was written are refused, and so is what does not fit: nothing damaged is taken."""

import pickle
import re

import pytest
import torch

from qmvae_core.training import CheckpointError, TrainingConfig, checkpoint, fit

TRAINING = TrainingConfig(epochs=2, batch_size=8, rounds=1, chunk=2)


@pytest.fixture(scope="module")
def trained(small_config, small_digits, tmp_path_factory):
    """What trains a run in a folder, and the checkpoint that it leaves."""

    def train(folder):
        return fit(small_config(), TRAINING, small_digits(), folder=folder, progress="none")

    folder = tmp_path_factory.mktemp("run")
    train(folder)
    return train, (folder / "checkpoint.pt").read_bytes()


@pytest.fixture
def path(trained, tmp_path):
    """A copy of the checkpoint."""
    (tmp_path / "checkpoint.pt").write_bytes(trained[1])
    return tmp_path / "checkpoint.pt"


@pytest.fixture
def refused(trained, path, monkeypatch):
    """A function: words of the error with which nothing is taken of the checkpoint, which stays as it is."""

    def go_on(words: str) -> None:
        before = path.read_bytes()
        monkeypatch.setattr(checkpoint, "put_back", lambda *_: pytest.fail("something was taken"))
        with pytest.raises(CheckpointError, match=words):
            trained[0](path.parent)
        assert path.read_bytes() == before

    return go_on


BITS = [(place, bit) for place in (0.001, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999) for bit in (0, 6)]


@pytest.mark.parametrize("damage", [*BITS, "truncated", "empty", "text"])
def test_a_checkpoint_with_other_bytes_is_refused(path, refused, damage):
    content = bytearray(path.read_bytes())
    if isinstance(damage, tuple):
        content[int(damage[0] * len(content))] ^= 1 << damage[1]
    else:
        content = {"truncated": content[: len(content) // 2], "empty": b"", "text": b"not a checkpoint"}[damage]
    path.write_bytes(content)
    refused(rf"{re.escape(str(path))} is damaged: .*delete it")


def at(**where):
    """In another position."""
    return lambda content: content["position"].update(where)


def no_epoch_of(content: dict) -> None:
    """As within an epoch whose losses it does not hold."""
    content["position"].update(epoch=1, chunk=1)
    content["position"]["history"].pop()


def losses(shape: tuple[int, ...], epoch: int, chunk: int):
    """Of a shape of their own, within an epoch."""

    def change(content: dict) -> None:
        content["position"].update(epoch=epoch, chunk=chunk, history=content["position"]["history"][:epoch])
        content.update(names=[str(i) for i in range(7)], means=torch.zeros(shape))

    return change


FITS = [  # what is changed, and what is said of it; two epochs of two chunks end in the first chunk of the third
    (lambda content: content["state"].__setitem__("new", content["state"].pop(min(content["state"]))), ""),
    (lambda content: content["state"].update({n: torch.cat([v, v]) for n, v in content["state"].items()}), ""),
    (lambda content: content["state"].update({n: v.double() for n, v in content["state"].items()}), ""),
    (lambda content: content["state"].pop(min(content["state"])), ""),
    (lambda content: content.pop("state"), ""),
    *((at(epoch=epoch, chunk=chunk), rf"it stands in chunk {chunk} of epoch {epoch}\)")
      for epoch, chunk in [(2, 1), (3, 0), (0, 2), (0, -1), (-1, 0), (1, 2)]),
    (at(epoch="two"), ""),
    (at(colour=1), ""),
    (lambda content: content["position"]["history"].pop(), ""),
    (no_epoch_of, ""),
    *((losses(shape, epoch, chunk), rf"its losses have the shape \({', '.join(map(str, shape))}\)")
      for shape, epoch, chunk in [((2, 5, 1), 0, 1), ((1, 7, 1), 1, 1), ((2, 7, 2), 1, 1)]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), FITS)
def test_a_checkpoint_that_does_not_fit_the_run_is_refused(path, refused, change, said):
    """Its digest and its key are right, as somebody could write them; its content cannot be."""
    content = checkpoint.read(path)
    change(content)
    checkpoint.write(path, content)
    refused(rf"checkpoint\.pt does not fit this run \(.*{said}.*; delete it to start anew")


ALL = "model, training, seeds, data, device, code, torch"


@pytest.mark.parametrize("part", [*ALL.split(", "), ALL])
def test_a_run_goes_on_only_with_all_that_decided_its_result(path, refused, part):
    content = checkpoint.read(path)
    if part == ALL:
        content["key"] = "abc on cpu"  # of an earlier form
    else:
        content["key"][part] = "another"
    checkpoint.write(path, content)
    refused(f"another {part}; go on with the same, .* or delete it")


class Trap:
    """What runs code when it is read back by pickle."""

    def __reduce__(self):
        return pytest.fail, ("code from a checkpoint was run",)


def test_a_checkpoint_is_read_as_data_and_never_as_code(tmp_path):
    checkpoint.write(tmp_path / "checkpoint.pt", {"trap": Trap()})
    with pytest.raises(pickle.UnpicklingError):
        checkpoint.read(tmp_path / "checkpoint.pt")


def test_the_key_of_a_run_has_the_hash_of_every_source_of_the_library(monkeypatch):
    checkpoint._code.cache_clear()
    first = checkpoint._code()
    assert re.fullmatch("[0-9a-f]{64}", first)
    original, changed = checkpoint.file_hash, "losses.py"
    monkeypatch.setattr(checkpoint, "file_hash", lambda path: "other" if path.name == changed else original(path))
    checkpoint._code.cache_clear()
    assert checkpoint._code() != first
    checkpoint._code.cache_clear()
