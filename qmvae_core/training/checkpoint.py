"""Where a run is, kept in a file from which it goes on to the same bits."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from qmvae_core.data import Digits
from qmvae_core.files import replacing
from qmvae_core.models import ModelConfig
from qmvae_core.stops import CheckpointError
from qmvae_core.training.batches import Steps
from qmvae_core.training.config import TrainingConfig
from qmvae_core.training.learners import put_back, stored


def run_key(model: ModelConfig, training: TrainingConfig, seeds: Sequence[int], train: Mapping[str, Digits]) -> str:
    """A hash of all that decides a run's result; a checkpoint with another key is not resumed."""
    content = [(name, _digest(train[name].images), _digest(train[name].labels)) for name in model.modalities]
    text = json.dumps([model.to_dict(), asdict(training), list(seeds), content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.cpu().contiguous().numpy()).hexdigest()


@dataclass
class Position:
    """How far a run has come: the next chunk, the reports so far, and when each seed's loss left its plateau."""

    epoch: int = 0
    chunk: int = 0
    history: list[dict[str, list[float]]] = field(default_factory=list)
    left: dict[int, int] = field(default_factory=dict)  # place of the seed -> steps
    seconds: float = 0.0
    resumed: int = 0


def save(path: Path, key: str, loop: Steps, at: Position) -> None:
    """Write all that a run needs to go on, behind its digest, in the place of what was there, or not at all."""
    content = {
        "key": key,
        "state": stored(loop.learner),
        "means": loop.means[: at.chunk * loop.training.chunk].clone(),
        "names": loop.names,
        "position": asdict(at),
    }
    write(path, content)


def write(path: Path, content: Mapping) -> None:
    """What `read` reads: the digest of a content, and the content."""
    written = io.BytesIO()
    torch.save(content, written)
    with replacing(path, 64 + written.tell()) as part:
        part.write_bytes(_digest_of(written.getvalue()) + written.getvalue())


def _digest_of(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def read(path: Path, device: torch.device | str = "cpu") -> dict:
    """What a checkpoint holds. Raises CheckpointError for a file that is not byte for byte what was written."""
    content = path.read_bytes()
    if content[:64] != _digest_of(content[64:]):
        raise CheckpointError(f"{path} is damaged: it is not what this version wrote; delete it to start this run anew")
    return torch.load(io.BytesIO(content[64:]), map_location=device, weights_only=True)


def restore(path: Path, key: str, loop: Steps) -> Position:
    """Put a run where its checkpoint was. Raises CheckpointError for a file that is damaged or of another run."""
    content = read(path, loop.device)
    if content["key"] != key:
        raise CheckpointError(
            f"{path} belongs to a run with another config, data, seeds or device; choose another folder or delete it"
        )
    expected = {name: value.shape for name, value in stored(loop.learner).items()}
    if {name: value.shape for name, value in content["state"].items()} != expected:
        raise CheckpointError(f"{path} was written by another version of the model; delete it to start this run anew")
    put_back(loop.learner, content["state"])
    loop.names = content["names"]
    loop.means = torch.zeros((loop.steps, *content["means"].shape[1:]), device=loop.device)
    loop.means[: len(content["means"])] = content["means"]
    at = Position(**content["position"])
    at.resumed += 1
    return at
