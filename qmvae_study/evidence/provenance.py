"""Which code, versions and machine made something."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from qmvae_study.evidence import folder


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
            ["git", "-C", str(folder.REPOSITORY), *command], capture_output=True, text=True, timeout=10, check=True
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
