"""What a finished run leaves, made without a training."""

from pathlib import Path
from types import SimpleNamespace

import torch

from qmvae_core.files import file_hash
from qmvae_study import runs
from qmvae_study.evidence.records import Record, write_json
from qmvae_study.evidence.weights import save_tensors
from qmvae_study.judges import judges_there
from qmvae_study.plan import Run


def finish(run: Run, seed: int, evidence: Path, *, kind: str = "real", content: str = "x", **fields) -> Record:
    """Write the record and weights of one seed; content: the hash of its data."""
    weights = evidence / "weights" / f"{run.record_id(seed)}.safetensors"
    save_tensors(weights, {"seed": torch.tensor(seed)})
    record = runs._record(
        run, seed, SimpleNamespace(identity={"kind": kind, "content_hash": content, "notes": []}), "cpu"
    ) | {
        "status": "ok",
        "metrics": {},
        "history": [],
        "panels": {},
        "weights_sha256": file_hash(weights),
        "judges": judges_there(runs._judges_folder(kind, evidence)),
        **fields,
    }
    write_json(runs.record_path(run, seed, evidence), record)
    return record
