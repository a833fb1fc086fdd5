"""What carries runs out on this machine, one after the other or side by side."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

from qmvae_core.models import build_model
from qmvae_core.training import OutOfTime
from qmvae_study.evidence.notebooks import TRAINING_NOTEBOOK, Lifeline, execute
from qmvae_study.evidence.records import RecordError
from qmvae_study.plan import Run, model_config
from qmvae_study.runs import state
from qmvae_study.shell import cores
from qmvae_study.signals import STOPPED, sigterm_later

PARTS = ("runs", "weights", "panels", "oracles", "work")  # of an evidence folder
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


def check_room(runs: Iterable[Run], evidence_of: Callable[[Run], Path]) -> None:
    """Raise RuntimeError where a run's evidence folder cannot be written, or its disk has no room for what runs leave.

    That is, of each seed, its weights and a checkpoint with Adam's two moments, and one checkpoint that is replaced.
    """
    needed: dict[int, int] = defaultdict(int)
    folders, largest = {}, 0
    for run in runs:
        evidence = evidence_of(run)
        if evidence not in folders:
            folders[evidence] = _writable(evidence)
        weights = 4 * _parameters(run.profile, run.reading) * len(run.seeds)
        there = sum(path.stat().st_size for path in (evidence / "work" / run.id).glob("*/checkpoint.pt"))
        largest = max(largest, 3 * weights)
        needed[folders[evidence].stat().st_dev] += weights + max(3 * weights - there, 0)
    for evidence, folder in folders.items():
        if (missing := needed[folder.stat().st_dev] + largest - shutil.disk_usage(folder).free) > 0:
            raise RuntimeError(
                f"the disk of {evidence} is too small for these runs: {missing:,} bytes or more are missing; make room "
                "or name another folder with --evidence"
            )


@functools.cache
def _parameters(profile: str, name: str) -> int:
    """How many parameters a reading's model has in a profile."""
    return sum(each.numel() for each in build_model(model_config(profile, name)).parameters())


def _writable(evidence: Path) -> Path:
    """An evidence folder, or the one in which it would be made; both can be written, and the folder's parts too."""
    folder = evidence
    try:
        there = next(place for place in (evidence, *evidence.parents) if os.path.lexists(place))
        for folder in (there, *(evidence / part for part in PARTS if (evidence / part).exists())):
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        raise RuntimeError(f"{folder} cannot be written ({error.strerror}); name another with --evidence") from None
    return there


def recorded(run: Run, evidence: Path, at_hand: Mapping | None) -> bool:
    """Whether all that a run leaves is there, whatever ended it; at_hand: as of `state`."""
    try:
        return state(run, evidence, at_hand) == "done"
    except RecordError:
        return False


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
    all of them; the outcome of a run in which they end has OutOfTime as its error, and no other is begun. So has that
    of a run which SIGTERM stops, with a checkpoint if it trains; this process ends by it after the last outcome. No
    error of one run ends the others.
    """
    begun: set[Run] = set()
    started = time.monotonic()
    threads = max(cores() // workers, 1) if workers > 1 else None

    def one(run: Run, label: str, lifeline: int) -> Outcome:
        at, error, log = time.monotonic(), None, None
        left = None if minutes is None else minutes - (at - started) / 60
        try:
            if came or (left is not None and left <= 0):
                why = STOPPED if came else "the time given is over"
                raise OutOfTime(f"{why}; the same command goes on from there")
            if workers > 1:
                log = evidence_of(run) / "work" / run.id / "output.txt"
                log.parent.mkdir(parents=True, exist_ok=True)
            print(f"{label}: starts" + (f"; output in {log}" if log else ""), flush=True)
            carry_out(run, evidence_of(run), data_root, device, log, left, threads, lifeline)
        except Exception as caught:
            error = caught
        return Outcome(run, time.monotonic() - at, error, workers)

    with (
        sigterm_later(_terminate_children) as came,
        ThreadPoolExecutor(workers) as pool,
        Lifeline() as lifeline,  # closed first, so the threads end
    ):
        going: set[Future] = set()
        over = False
        while True:
            while not (over or came) and len(going) < workers and (chosen := next_run(begun)) is not None:
                begun.add(chosen[0])
                going.add(pool.submit(one, *chosen, lifeline))
            if not going:
                return
            done, going = wait(going, timeout=1.0, return_when=FIRST_COMPLETED)
            if came:  # again, for what was just about to start
                _terminate_children()
            for outcome in (future.result() for future in done):
                over |= isinstance(outcome.error, OutOfTime)
                yield outcome


def _terminate_children() -> None:
    """Send SIGTERM to the processes that carry out runs, which hand it on to their kernels."""
    import psutil

    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            child.terminate()
