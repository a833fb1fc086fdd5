"""Where things lie.

An evidence folder holds what a profile's runs leave: runs/*.json (a record for each seed), weights/, panels/, oracles/
and work/ (checkpoints and executed notebooks). `results/` is the committed one; a run writes to `runs/<profile>/`.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

from qmvae_core.names import STAND_IN

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "results"
NOTEBOOKS = REPOSITORY / "notebooks"
PATIENCE = 120.0  # seconds to wait for another process's lock; one whose parent has died is gone in two


def opened(path: str | Path) -> Path:
    """A path whose ~ stands for the home folder, as in --evidence=~/ev, where the shell leaves it as it is."""
    return Path(os.path.expanduser(path))


def evidence_folder(name: str | Path) -> Path:
    """The folder that a notebook or command names, from the root of the repository unless absolute."""
    return REPOSITORY / opened(name)


def default_evidence(name: str) -> Path:
    """Where the runs of a profile go."""
    return REPOSITORY / "runs" / name


def absolute_root(root: str | None) -> str | None:
    """A data root in full, wherever it is used from then on; "stand-in" and None, for none given, as they are."""
    return root if root in (STAND_IN, None) else str(opened(root).absolute())


def root_here() -> str | None:
    """The data root that this process's environment names, in full: another folder or machine does not have it."""
    return absolute_root(os.environ.get("QMVAE_DATA_ROOT") or None)


def check_locks() -> None:
    """Raise RuntimeError on a system without the locks by which runs keep out of each other's way."""
    if fcntl is None:
        raise RuntimeError("POSIX only: runs need the file locks of Linux or macOS; on Windows use its WSL")


def remove_parts(folder: Path, pattern: str) -> None:
    """Remove the parts of files that nobody writes any more, since this process alone may; pattern: of their names."""
    for part in folder.glob(f"{pattern}.*.part"):
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(folder: Path, patience: float | None = None) -> Iterator[None]:
    """Hold the lock of a work folder; the system gives it back when this process ends, however it ends.

    Raises RuntimeError, with the name of the process that holds it, if it is not free within patience (PATIENCE)
    seconds, or as `check_locks`, and OSError on a file system without locks.
    """
    check_locks()
    patience = PATIENCE if patience is None else patience
    folder.mkdir(parents=True, exist_ok=True)
    started, waiting = time.monotonic(), False
    with open(folder / "lock", "a+", encoding="utf-8") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                holder = f"{file.read().strip() or 'another process'} works in {folder}"
                if time.monotonic() - started > patience:
                    raise RuntimeError(f"{holder}, and still did after {patience:.0f} s; end it or wait") from None
                if not waiting:
                    print(f"{holder}; waiting for it", flush=True)
                waiting = True
                time.sleep(0.2)
        remove_parts(folder, "*/checkpoint.pt")
        file.truncate(0)
        print(f"process {os.getpid()} on {platform.node()}", file=file, flush=True)
        yield
