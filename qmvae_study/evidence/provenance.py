"""Which code, versions and machine made something."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from qmvae_study.evidence import folder

try:
    import resource
except ImportError:  # Windows
    resource = None


@functools.cache
def code(repository: Path) -> dict:
    """The commit of this code and whether its checkout has changes, as they were when this process first asked.

    What it has imported by then does not change any more. Both are None where the code is not in a repository of its
    own: below somebody else's, git would name theirs; there the commit is what QMVAE_COMMIT says.
    """
    here = Path(__file__).resolve()
    at_home = here.is_relative_to(repository) and here.relative_to(repository).as_posix()
    if not at_home or git(repository, "ls-files", "--full-name", at_home) != at_home:
        return {"commit": os.environ.get("QMVAE_COMMIT"), "dirty": None}
    return {"commit": git(repository, "rev-parse", "HEAD"), "dirty": bool(git(repository, "status", "--porcelain"))}


def trainer(device: torch.device | str) -> dict:
    """Who trains: what a checkpoint keeps of each process that went on with it."""
    return {**code(folder.REPOSITORY), "torch": version("torch"), "device": _name(torch.device(device))}


def provenance(device: torch.device | str = "cpu") -> dict:
    """Code, versions and machine: git commit and dirty flag, library versions, device, threads, peak host memory."""
    device = torch.device(device)
    return {
        **code(folder.REPOSITORY),
        "versions": {"python": platform.python_version(), **_versions("torch", "torchvision", "numpy", "scikit-learn")},
        "device": _name(device),
        "device_type": device.type,
        "threads": torch.get_num_threads(),
        "peak_host_bytes": _peak_host_bytes(),
    }


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()


def git(repository: Path, *command: str) -> str | None:
    """What a command of git prints about a repository; None where it fails, or where there is no git."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}  # which name repositories
    try:
        done = subprocess.run(
            ["git", "-C", str(repository), *command], capture_output=True, text=True, timeout=10, check=True, env=own
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
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _peak_host_bytes() -> int | None:
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes everywhere but on macOS
