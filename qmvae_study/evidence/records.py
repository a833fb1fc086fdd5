"""The record of a run, as JSON: what was asked, what came out, on which data, by which code, at which cost."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

FORMAT = 1  # of the record; raised when a field changes its meaning


class RecordError(RuntimeError):
    """A record is missing or cannot be read; the message names the file and the remedy."""


def config_hash(config: Mapping) -> str:
    """Twelve hexadecimal digits that stand for a config, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def write_json(path: Path, value: Mapping) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a half; NaN and infinity become strings."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(_finite(value), indent=1, sort_keys=True, allow_nan=False) + "\n")
    os.replace(part, path)


def _finite(value):
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def read_record(path: Path) -> dict:
    """One record. Raises RecordError if the file is missing, is not JSON, or has another format."""
    path = Path(path)
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        raise RecordError(f"there is no record {path}; run it with: python -m qmvae_study run") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} is not a readable record ({error}); delete it and run it again") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise RecordError(f"{path} is not a record of format {FORMAT}; delete it and run it again")
    return record


def load_records(folder: Path, **wanted) -> list[dict]:
    """All records of a folder in the order of their names, those only whose fields equal `wanted`.

    For example load_records("results/runs", profile="paper", reading="default"). An empty list means no match.
    Raises RecordError if the folder does not exist or a record in it cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RecordError(f"there is no folder of records {folder}; make it with: python -m qmvae_study run")
    records = [read_record(path) for path in sorted(folder.glob("*.json"))]
    return [record for record in records if all(record.get(key) == value for key, value in wanted.items())]
