"""The long study: all runs that the book's verdicts wait for, in their order, as `python -m qmvae_study queue`.

A stage is a function of the records so far that gives its runs, or none while they are not known yet. The first run
that is not done is the next one, of whichever stage: so no processor waits for the last run of a stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from qmvae_core.data import load_digits
from qmvae_core.models import READINGS, reading
from qmvae_core.names import AS_PRINTED, DEFAULT
from qmvae_study import hunt
from qmvae_study.evidence.folder import default_evidence
from qmvae_study.evidence.records import load_records
from qmvae_study.execution import Outcome, check_room, side_by_side
from qmvae_study.plan import Run, plan
from qmvae_study.report.equivalence import SECOND_LOOK
from qmvae_study.rows import INCOMPLETE, INSTEAD, KIN, TEXT_RIVALS, WITHOUT_LOSS
from qmvae_study.runs import not_of_other_data, state

SEEDS = (0, 1, 2)
PRECISION = "bfloat16"
_OTHERS = ("mvae", "dmvae", INSTEAD["mmvae"])
_PRINTED = (AS_PRINTED, WITHOUT_LOSS.format(AS_PRINTED))
_WIDE = "mvae+all.scale=10.0"  # whether the wide likelihood of "as-printed" alone would do for MVAE


def _hunted() -> list[dict]:
    folder = default_evidence(hunt.PROFILE) / "runs"
    return load_records(folder, profile=hunt.PROFILE) if folder.is_dir() else []


def _found() -> list[str]:
    """The paper's own reading and the best one by the hunt, without repeats; empty until it is over."""
    found = _hunted()
    best, printed = hunt.best(found), hunt.printed(found)
    return [] if best is None or printed is None else list(dict.fromkeys(map(_named, (printed, best))))


def _named(spelled: str) -> str:
    """The name in READINGS of the reading that is spelled so, under which the tables have its runs, or the spelling."""
    return next((name for name, config in READINGS.items() if config == reading(spelled)), spelled)


def _of(profile: str, readings: Sequence[str], seeds: Sequence[int] = SEEDS) -> list[Run]:
    """The runs of a stage; none of no readings, which would be the profile's own."""
    return plan(profile, readings, seeds, PRECISION) if readings else []


STAGES = (
    lambda: plan("precision"),
    lambda: plan(hunt.PROFILE),
    lambda: _of(hunt.PROFILE, hunt.finalists(_hunted()) or [], hunt.SEEDS[1:]),
    lambda: plan("quick", _PRINTED) if _found() else [],  # the rows of a name that was another reading's before
    # Equal lengths first: all models by an epoch cost less than two of them at the paper's length.
    lambda: _of("epoch", [*_found(), *map(WITHOUT_LOSS.format, _found())]),
    lambda: _of("epoch", (*_OTHERS, _WIDE, *KIN, DEFAULT)),
    lambda: _of("paper", [*_found(), *map(WITHOUT_LOSS.format, _found()[-1:])]),
    lambda: _of("paper", ("mvae", "dmvae")),
    lambda: _of("text", [name for best in _found()[-1:] for name in (best, WITHOUT_LOSS.format(best))]),
    lambda: _of("text", TEXT_RIVALS),
    lambda: _of("text", [INCOMPLETE.format(best) for best in _found()[-1:]]),
    lambda: plan("precision", seeds=SECOND_LOOK),
    lambda: _of("published", ("dmvae",), SEEDS[:1]),  # as its authors train it: about a day of one thread
)


def runs() -> list[Run]:
    """All runs that are known now, in order."""
    return list(dict.fromkeys(run for stage in STAGES for run in stage()))


def evidence_of(run: Run) -> Path:
    """Where a run of the queue goes."""
    return default_evidence(run.profile)


def carry_out(data_root: str | None, device: str, workers: int, minutes: float | None = None) -> Iterator[Outcome]:
    """Carry out the queue side by side, to its end or for so many minutes; arguments as of `side_by_side`.

    Raises RecordError for a record on other real data than those at hand, which is neither done nor to do.
    """

    at_hand = load_digits(data_root).identity

    def left() -> Iterator[Run]:
        for run in runs():
            found = not_of_other_data(state(run, evidence_of(run), at_hand), evidence_of(run))
            if found in ("to do", "started"):
                yield run

    def next_run(begun: set[Run]) -> tuple[Run, str] | None:
        for run in left():
            if run not in begun:
                return run, f"{run.profile} {run.id}"
        return None

    check_room(left(), evidence_of)
    yield from side_by_side(next_run, evidence_of, data_root, device, workers, minutes)
