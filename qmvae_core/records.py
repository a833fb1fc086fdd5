"""The record of a run, as JSON: what was asked, what came out, on which data, by which code, at which cost."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from safetensors.torch import save_file

REPOSITORY = Path(__file__).resolve().parent.parent
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


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors in the safetensors format, atomically."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, part)
    os.replace(part, path)


def _finite(value):
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def provenance(device: torch.device | str = "cpu") -> dict:
    """Code, versions and machine: git commit and dirty flag, library versions, device, threads, peak host memory."""
    device = torch.device(device)
    return {
        "commit": _git("rev-parse", "HEAD") or os.environ.get("QMVAE_COMMIT"),
        "dirty": None if (status := _git("status", "--porcelain")) is None else bool(status),
        "versions": {"python": platform.python_version(), **_versions("torch", "torchvision", "numpy", "scikit-learn")},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "device_type": device.type,
        "threads": torch.get_num_threads(),
        "peak_host_bytes": _peak_host_bytes(),
    }


def _git(*command: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(REPOSITORY), *command], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _versions(*packages: str) -> dict[str, str | None]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _peak_host_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes everywhere but on macOS


def read_record(path: Path) -> dict:
    """One record. Raises RecordError if the file is missing, is not JSON, or has another format."""
    path = Path(path)
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        raise RecordError(f"there is no record {path}; run it with: python -m qmvae_core run") from None
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
        raise RecordError(f"there is no folder of records {folder}; make it with: python -m qmvae_core run")
    records = [read_record(path) for path in sorted(folder.glob("*.json"))]
    return [record for record in records if all(record.get(key) == value for key, value in wanted.items())]
