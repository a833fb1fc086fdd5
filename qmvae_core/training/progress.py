"""What a training says of itself while it goes on, and the time that it takes."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from tqdm import tqdm

from qmvae_core.training.checkpoint import Position


class Clock:
    """Seconds of training: those before this process, and its own, less what is not training."""

    def __init__(self, before: float):
        self.started = time.monotonic() - before

    def seconds(self) -> float:
        return time.monotonic() - self.started

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        at = time.monotonic()
        yield
        self.started += time.monotonic() - at


class Report:
    """A bar for people, one line an epoch elsewhere, each with an estimate of the time that is left."""

    def __init__(self, mode: str, epochs: int, steps: int, chunk: int, at: Position, taken: int):
        """chunk: steps of a chunk. taken: steps of the current epoch that a resumed run has already taken."""
        if mode not in ("auto", "bar", "lines", "none"):
            raise ValueError(f'unknown progress {mode!r}; known: "auto", "bar", "lines", "none"')
        self.mode = ("bar" if sys.stdout.isatty() else "lines") if mode == "auto" else mode
        self.epochs, self.steps, self.chunk, self.done = epochs, steps, chunk, 0
        self.left = (epochs - at.epoch) * steps - taken
        self.started = time.monotonic()
        self.bar = None
        self.at = at

    def __enter__(self) -> Report:
        if self.mode != "none" and self.at.resumed and self.left:
            print(f"resumed in epoch {self.at.epoch + 1} of {self.epochs}", flush=True)
        if self.mode == "bar":
            self.bar = tqdm(total=self.left, unit="step", file=sys.stdout)
        return self

    def __exit__(self, *exception) -> None:
        if self.bar is not None:
            self.bar.close()

    def advance(self, steps: int) -> None:
        self.done += steps
        if self.bar is not None:
            self.bar.update(steps)

    def line(self, at: Position) -> None:
        if self.mode != "lines":
            return
        rate = self.done / max(time.monotonic() - self.started, 1e-9)
        left = max(self.left - self.done, 0) / rate
        means = at.history[-1]
        named = ("objective", "elbo/joint", "quadruplet")
        shown = ", ".join(f"{name} {sum(means[name]) / len(means[name]):.4g}" for name in named if name in means)
        done = at.epoch + min(at.chunk * self.chunk / self.steps, 1.0)
        print(f"epoch {done:.3g}/{self.epochs}: {shown}; {rate:.1f} steps/s, {left / 60:.1f} min left", flush=True)
