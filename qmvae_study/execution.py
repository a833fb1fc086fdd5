"""What carries runs out on this machine, one after the other or side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

from qmvae_core.training import OutOfTime
from qmvae_study.evidence.notebooks import TRAINING_NOTEBOOK, Lifeline, execute
from qmvae_study.plan import Run
from qmvae_study.shell import cores

SIDE_BY_SIDE = 2  # processes that train on a CPU by default


def carry_out(
    run: Run,
    evidence: Path,
    data_root: str | None = None,
    device: str = "auto",
    log: Path | None = None,
    minutes: float | None = None,
    threads: int | None = None,
    lifeline: int | None = None,
) -> None:
    """One run by papermill on the training notebook; its records are then in the evidence folder.

    minutes: of training, at most. Raises like `execute`, whose log, threads and lifeline these are.
    """
    parameters = {
        "profile": run.profile,
        "reading": run.reading,
        "seeds": list(run.seeds),
        "precision": run.precision,
        "device": device,
        "data_root": data_root,
        "evidence": str(evidence),
        "minutes": minutes,
    }
    output = evidence / "work" / run.id / TRAINING_NOTEBOOK.name
    execute(TRAINING_NOTEBOOK, output, parameters, log, threads, lifeline)


class Outcome(NamedTuple):
    """How one run went, for the command that reports it."""

    run: Run
    seconds: float
    error: BaseException | None = None
    at_once: int = 1  # how many runs go on side by side


def side_by_side(
    next_run: Callable[[set[Run]], tuple[Run, str] | None],
    evidence_of: Callable[[Run], Path],
    data_root: str | None,
    device: str,
    workers: int,
    minutes: float | None = None,
) -> Iterator[Outcome]:
    """Carry out runs in so many processes that share the cores, each outcome as it comes.

    next_run: given the runs that are begun, one more with its name in messages, or None if there is none now; it is
    asked again after each outcome. The output of several goes to files beside their executed notebooks. minutes: for
    all of them; the outcome of a run in which they end has OutOfTime as its error, and no other is begun.
    """
    begun: set[Run] = set()
    started = time.monotonic()
    threads = max(cores() // workers, 1) if workers > 1 else None

    def one(run: Run, label: str, lifeline: int) -> Outcome:
        at, error, log = time.monotonic(), None, None
        left = None if minutes is None else minutes - (at - started) / 60
        try:
            if left is not None and left <= 0:
                raise OutOfTime("the time given is over; the same command goes on from there")
            if workers > 1:
                log = evidence_of(run) / "work" / run.id / "output.txt"
                log.parent.mkdir(parents=True, exist_ok=True)
            print(f"{label}: starts" + (f"; output in {log}" if log else ""), flush=True)
            carry_out(run, evidence_of(run), data_root, device, log, left, threads, lifeline)
        except RuntimeError as caught:
            error = caught
        return Outcome(run, time.monotonic() - at, error, workers)

    with ThreadPoolExecutor(workers) as pool, Lifeline() as lifeline:  # closed first, so the threads end
        going: set[Future] = set()
        over = False
        while True:
            while not over and len(going) < workers and (chosen := next_run(begun)) is not None:
                begun.add(chosen[0])
                going.add(pool.submit(one, *chosen, lifeline))
            if not going:
                return
            done, going = wait(going, return_when=FIRST_COMPLETED)
            for outcome in (future.result() for future in done):
                over |= isinstance(outcome.error, OutOfTime)
                yield outcome
