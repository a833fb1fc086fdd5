"""Bytes that are not what was written are refused, and so is what does not fit: nothing damaged is taken."""

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


@pytest.mark.parametrize("change", ["a name", "a shape", "a part that is missing"])
def test_a_checkpoint_of_another_form_of_the_model_is_refused(started, monkeypatch, change):
    """As it is when the code changed between the two: the digest is right, and the content does not fit."""
    go_on, path = started
    content = checkpoint.read(path)
    name = next(iter(content["state"]))
    value = content["state"].pop(name)
    if change == "a name":
        content["state"][f"{name}_old"] = value
    elif change == "a shape":
        content["state"][name] = torch.cat([value, value], dim=-1)
    monkeypatch.setattr(checkpoint, "read", lambda *_: content)
    with pytest.raises(CheckpointError, match="another version of the model; delete it"):
        go_on()
