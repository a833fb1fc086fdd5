"""What a command meets in anybody's shell: a home that is not to be written, missing letters, a reader who leaves."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Where Matplotlib, IPython and Jupyter, and with it the kernels of chapters, keep what they otherwise keep at home.
KEPT_AT_HOME = ("MPLCONFIGDIR", "IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR")
READER_LEFT = 128 + 13  # as of a program that SIGPIPE ends


def carry_out(command: Callable[[], int | None]) -> int | None:
    """Carry out a command, and return its status, or READER_LEFT where what it prints to was closed, as by `head`.

    A letter that the terminal's encoding lacks is printed as "?".
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")
    try:
        with home_to_write():
            try:
                return command()
            finally:
                sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the very end
        return READER_LEFT


def cores() -> int:
    """How many of the processor's cores this process may use; all, where the system does not say (macOS, Windows)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def home_to_write() -> Iterator[None]:
    """Where nothing can be written at home, a folder in its place for this process and those that it starts."""
    with contextlib.ExitStack() as stack:
        try:
            with tempfile.TemporaryDirectory(prefix=".qmvae.", dir=Path.home()):
                pass
        except (OSError, RuntimeError):  # it cannot be written, or nobody knows it
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            new = {name: folder for name in KEPT_AT_HOME if name not in os.environ}
            os.environ.update(new)
            stack.callback(lambda: [os.environ.pop(name) for name in new])
        yield
