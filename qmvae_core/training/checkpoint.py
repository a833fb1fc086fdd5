"""Where a run is, kept in a file from which it goes on to the same bits."""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from qmvae_core.data import Digits
from qmvae_core.files import file_hash, replacing
from qmvae_core.models import ModelConfig
from qmvae_core.stops import CheckpointError
from qmvae_core.training.batches import Steps
from qmvae_core.training.config import TrainingConfig
from qmvae_core.training.learners import put_back, stored


def run_key(
    model: ModelConfig, training: TrainingConfig, seeds: Sequence[int], train: Mapping[str, Digits], device: str = "cpu"
) -> dict[str, str]:
    """All that decides a run's result, each with its hash or version; a checkpoint with another key is not resumed.

    device: the type, whose generators draw other noise. Of the code all of this package counts.
    """
    content = [(name, _digest(train[name].images), _digest(train[name].labels)) for name in model.modalities]
    parts = {"model": model.to_dict(), "training": asdict(training), "seeds": list(seeds), "data": content}
    hashes = {name: _digest_of(json.dumps(part, sort_keys=True).encode()) for name, part in parts.items()}
    return {**hashes, "device": device, "code": _code(), "torch": str(torch.__version__)}


@functools.cache
def _code() -> str:
    """A hash of the sources of this package as they were when this process first asked."""
    package = Path(__file__).resolve().parents[1]
    sources = sorted((path.relative_to(package).as_posix(), file_hash(path)) for path in package.rglob("*.py"))
    return _digest_of(json.dumps(sources).encode())


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.cpu().contiguous().numpy()).hexdigest()


@dataclass
class Position:
    """How far a run has come: the next chunk, the reports so far, and when each seed's loss left its plateau.

    by: what `fit` was told of those who trained, each once, in the order in which they came.
    """

    epoch: int = 0
    chunk: int = 0
    history: list[dict[str, list[float]]] = field(default_factory=list)
    left: dict[int, int] = field(default_factory=dict)  # place of the seed -> steps
    seconds: float = 0.0
    resumed: int = 0
    by: list[dict] = field(default_factory=list)


def save(path: Path, key: Mapping[str, str], loop: Steps, at: Position) -> None:
    """Write all that a run needs to go on, behind its digest, in the place of what was there, or not at all."""
    content = {
        "key": dict(key),
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
        part.write_bytes(_digest_of(written.getvalue()).encode() + written.getvalue())


def _digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read(path: Path, device: torch.device | str = "cpu") -> dict:
    """What a checkpoint holds. Raises CheckpointError for a file that is not byte for byte what was written."""
    content = path.read_bytes()
    if content[:64] != _digest_of(content[64:]).encode():
        raise CheckpointError(f"{path} is damaged: it is not what this version wrote; delete it to start this run anew")
    return torch.load(io.BytesIO(content[64:]), map_location=device, weights_only=True)


def restore(path: Path, key: Mapping[str, str], loop: Steps) -> Position:
    """Put a run where its checkpoint was. Raises CheckpointError for a file that is damaged or of another run."""
    content = read(path, loop.device)
    found = content.get("key")
    other = [name for name in key if not isinstance(found, dict) or found.get(name) != key[name]]
    if other:
        raise CheckpointError(
            f"{path} belongs to a run with another {', '.join(other)}; go on with the same, choose another folder, or "
            f"delete it to start anew. It was trained by {content.get('position', {}).get('by') or 'nobody named'}"
        )
    try:
        at = _position(content, loop)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not fit this run ({error}); delete it to start anew") from None
    put_back(loop.learner, content["state"])
    loop.names = content["names"]
    loop.means = torch.zeros((loop.steps, *content["means"].shape[1:]), device=loop.device)
    loop.means[: len(content["means"])] = content["means"]
    return at


def _position(content: Mapping, loop: Steps) -> Position:
    """Where a content is. Raises KeyError, TypeError or ValueError unless all of it fits the run; changes nothing."""
    at = Position(**content["position"])
    training, taken = loop.training, at.chunk * loop.training.chunk
    state, expected = content["state"], stored(loop.learner)
    if {n: (v.shape, v.dtype) for n, v in state.items()} != {n: (v.shape, v.dtype) for n, v in expected.items()}:
        raise ValueError("its weights have other names, shapes or types")
    ended = (at.epoch, at.chunk) == (training.epochs, 0)
    if not (ended or (0 <= at.epoch < training.epochs and 0 <= at.chunk < loop.chunks)):
        raise ValueError(f"it stands in chunk {at.chunk} of epoch {at.epoch}")
    ends = [loop.report_before(chunk) is not None for chunk in range(1, at.chunk + 1)]
    if len(at.history) != at.epoch * min(training.reports, loop.chunks) + sum(ends):
        raise ValueError(f"it has {len(at.history)} reports")
    if taken and content["means"].shape != (taken, len(content["names"]), len(loop.seeds)):
        raise ValueError(f"its losses have the shape {tuple(content['means'].shape)}")
    return at
