"""Bytes that are not what was written are refused, and so is what does not fit: nothing damaged is taken."""

import pickle
import re

import pytest
import torch

from qmvae_core.training import CheckpointError, TrainingConfig, checkpoint, fit

TRAINING = TrainingConfig(epochs=2, batch_size=8, rounds=1, chunk=2)


@pytest.fixture
def started(small_config, small_digits, tmp_path):
    """A run with a checkpoint: a function that goes on with it, and the file."""

    def go_on():
        return fit(small_config(), TRAINING, small_digits(), folder=tmp_path, progress="none")

    go_on()
    return go_on, tmp_path / "checkpoint.pt"


@pytest.mark.parametrize("place", [0.001, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
@pytest.mark.parametrize("bit", [0, 6])
def test_a_checkpoint_with_one_bit_flipped_is_refused_and_kept(started, place, bit):
    go_on, path = started
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt is damaged: .*delete it"):
        go_on()
    assert path.read_bytes() == content


def no_epoch_of(content: dict) -> None:
    """As within an epoch whose losses it does not hold."""
    content["position"].update(epoch=1, chunk=1)
    content["position"]["history"].pop()


FITS = {
    "a name": lambda content: content["state"].__setitem__("new", content["state"].pop(min(content["state"]))),
    "a shape": lambda content: content["state"].update({n: torch.cat([v, v]) for n, v in content["state"].items()}),
    "a type": lambda content: content["state"].update({n: v.double() for n, v in content["state"].items()}),
    "a part that is missing": lambda content: content["state"].pop(min(content["state"])),
    "no state": lambda content: content.pop("state"),
    "an epoch that cannot be": lambda content: content["position"].update(epoch=3),
    "a chunk that cannot be": lambda content: content["position"].update(epoch=0, chunk=77),
    "a position of words": lambda content: content["position"].update(epoch="two"),
    "an unknown field": lambda content: content["position"].update(colour=1),
    "a report too few": lambda content: content["position"]["history"].pop(),
    "losses of another shape": no_epoch_of,
}


@pytest.mark.parametrize("change", FITS)
def test_a_checkpoint_that_does_not_fit_the_run_is_refused_and_nothing_of_it_is_taken(started, monkeypatch, change):
    """Its digest and its key are right, as somebody could write them; its content cannot be."""
    go_on, path = started
    content = checkpoint.read(path)
    FITS[change](content)
    checkpoint.write(path, content)
    monkeypatch.setattr(checkpoint, "put_back", lambda *_: pytest.fail("something was taken"))
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt does not fit this run .*; delete it to start anew"):
        go_on()


@pytest.mark.parametrize("part", ["model", "training", "seeds", "data", "device", "code", "torch"])
def test_a_run_goes_on_only_with_all_that_decided_its_result(started, part):
    go_on, path = started
    content = checkpoint.read(path)
    content["key"][part] = "another"
    checkpoint.write(path, content)
    with pytest.raises(CheckpointError, match=f"another {part}; go on with the same, .* or delete it"):
        go_on()


def test_a_checkpoint_of_an_earlier_form_is_refused(started):
    go_on, path = started
    checkpoint.write(path, {**checkpoint.read(path), "key": "abc on cpu"})
    with pytest.raises(CheckpointError, match="another model, training, seeds, data, device, code, torch; go on"):
        go_on()


@pytest.mark.parametrize(("epoch", "chunk"), [(2, 1), (3, 0), (0, 2), (0, -1), (-1, 0), (1, 2)])
def test_a_place_outside_the_run_is_named(started, epoch, chunk):
    """Two epochs of two chunks; a finished run stands in the first chunk of the third."""
    go_on, path = started
    content = checkpoint.read(path)
    content["position"].update(epoch=epoch, chunk=chunk)
    checkpoint.write(path, content)
    with pytest.raises(
        CheckpointError, match=rf"does not fit this run \(it stands in chunk {chunk} of epoch {epoch}\)"
    ):
        go_on()


@pytest.mark.parametrize(("shape", "taken"), [((2, 5, 1), (0, 1)), ((1, 7, 1), (1, 1)), ((2, 7, 2), (1, 1))])
def test_losses_of_another_shape_are_refused(started, shape, taken):
    go_on, path = started
    content = checkpoint.read(path)
    content["names"] = [str(i) for i in range(7)]
    epoch, chunk = taken
    content["position"].update(epoch=epoch, chunk=chunk, history=content["position"]["history"][:epoch])
    content["means"] = torch.zeros(shape)
    checkpoint.write(path, content)
    with pytest.raises(CheckpointError, match=rf"its losses have the shape \({', '.join(map(str, shape))}\)"):
        go_on()


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
