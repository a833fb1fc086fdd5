"""What SIGTERM does: schedulers, containers and machines that shut down send it, and a kill some seconds later."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

STOPPED = "stopped by SIGTERM"


@contextlib.contextmanager
def sigterm_later(meanwhile: Callable[[], object] = lambda: None) -> Iterator[list[int]]:
    """SIGTERM does what it did before, by default end the process, only when the block has ended.

    The first one calls `meanwhile` at once. The block gets the list of those that came so far. What it raises after
    one is printed, as nobody else may come to see it. Outside the main thread, and where SIGTERM is ignored, nothing is
    changed.
    """
    came: list[int] = []
    before = signal.getsignal(signal.SIGTERM)
    mine = threading.current_thread() is threading.main_thread() and before not in (None, signal.SIG_IGN)

    def note(number: int, frame) -> None:
        came.append(number)
        if len(came) == 1:
            meanwhile()

    if mine:
        signal.signal(signal.SIGTERM, note)
    try:
        yield came
    except Exception as error:
        if came:
            print(error, flush=True)
        raise
    finally:
        if mine:
            signal.signal(signal.SIGTERM, before)
        if came:
            signal.raise_signal(signal.SIGTERM)
