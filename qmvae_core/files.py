"""Files that are written whole or not at all, and known by their content."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | Path, size: int = 1) -> Iterator[Path]:
    """A path to write to, whose file takes the place of `path` at the end: readers see the old one or the new one.

    The bytes are on the disk before the name is, and the name before this ends. Where the block raises, the old file
    stays and the part, `path` with a number and ".part", is removed; one of a killed process stays. Raises OSError on a
    full disk, with the folder and what is missing; size: in bytes, where it is known before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        with open(part, "r+b") as file:  # Windows asks for a file that can be written
            os.fsync(file.fileno())
        os.replace(part, path)
        if hasattr(os, "O_DIRECTORY"):  # on Windows a folder cannot be opened
            folder = os.open(path.parent, os.O_DIRECTORY)
            os.fsync(folder)
            os.close(folder)
    except BaseException as error:
        size = max(size, part.stat().st_size if part.exists() else 0)
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            missing = max(size - shutil.disk_usage(path.parent).free, 1)
            text = f"{error.strerror} in {path.parent}: {missing:,} bytes or more are missing for {path.name}"
            raise OSError(error.errno, text) from None
        raise


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
