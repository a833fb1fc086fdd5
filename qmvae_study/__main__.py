"""`python -m qmvae_study plan | run | status | collect | amend | render | oracles`: the study from the command line."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from qmvae_core.data import DataError, load_digits, real_data_at_hand
from qmvae_core.training import OutOfTime, check_precision
from qmvae_study import queue
from qmvae_study.evidence import notebooks
from qmvae_study.evidence.folder import RESULTS, absolute_root, default_evidence
from qmvae_study.evidence.records import RecordError, load_records
from qmvae_study.execution import SIDE_BY_SIDE, Outcome, one_by_one, side_by_side
from qmvae_study.judges import OracleError, prepare_oracles
from qmvae_study.plan import PROFILES, Run, plan
from qmvae_study.report import tables
from qmvae_study.runs import amend, device_here, expected_hours, state


def main(arguments: list[str] | None = None) -> int:
    """Carry out one command; 0 if it succeeded, 1 with one line on standard error if not, 75 if its time is over."""
    options = _parser().parse_args(arguments)
    try:
        return COMMANDS[options.command](options)
    except (DataError, RecordError, OracleError, ValueError, RuntimeError) as error:
        print(f"qmvae_study: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("qmvae_study: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m qmvae_study", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in HELP.items():
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        if name == "oracles":
            command.add_argument("--out", type=Path, default=RESULTS / "oracles", help="folder of the judges")
            command.add_argument("--device", default="cpu")
            command.add_argument("--data-root", help="a data root, or 'stand-in'")
            continue
        if name == "queue":
            command.add_argument("--data-root", help="a data root")
            command.add_argument("--device", default="cpu", help="cpu, cuda, or auto")
            command.add_argument("--minutes", type=float, help=MINUTES)
            command.add_argument("--workers", type=int, help=WORKERS)
            command.add_argument("--list", action="store_true", help="say how each run stands, and carry out none")
            continue
        if name == "refresh":
            command.add_argument("chapters", nargs="*", help="such as 08 or A1; all unless given")
            continue
        command.add_argument("--profile", default="quick", choices=sorted(PROFILES))
        command.add_argument("--evidence", type=Path, help="evidence folder; runs/PROFILE unless given")
        if name in ("plan", "run", "status"):
            command.add_argument("--readings", nargs="+", help="instead of the profile's own")
            command.add_argument("--seeds", nargs="+", type=int, help="instead of the profile's own")
            command.add_argument("--precision", help="instead of the profile's own: float32, tf32 or bfloat16")
            command.add_argument("--device", default="auto", help="cpu, cuda, or auto")
        if name in ("run", "amend"):
            command.add_argument("--data-root", help="a data root, or 'stand-in'")
        if name == "run":
            command.add_argument("--minutes", type=float, help=MINUTES)
            command.add_argument("--scheduler", help=SCHEDULER)
        if name in ("plan", "run"):
            command.add_argument("--workers", type=int, help=WORKERS)
        if name == "render":
            command.add_argument("--notebooks", type=Path, required=True, help="folder of the copied notebooks")
    return parser


def _evidence(options: argparse.Namespace) -> Path:
    return options.evidence.resolve() if options.evidence else default_evidence(options.profile)


def _runs(options: argparse.Namespace) -> list[Run]:
    return plan(options.profile, options.readings, options.seeds, options.precision, _device(options) == "cuda")


def _device(options: argparse.Namespace) -> str:
    return device_here() if options.device == "auto" else options.device


def _workers(options: argparse.Namespace, runs: int) -> int:
    """How many processes train side by side: on a CPU two, which together take more steps than one of two threads."""
    if options.workers is not None:
        return _at_least_one(options.workers)
    return max(1, min(SIDE_BY_SIDE, len(os.sched_getaffinity(0)), runs)) if _device(options) == "cpu" else 1


def _at_least_one(workers: int) -> int:
    if workers < 1:
        raise ValueError(f"--workers must be at least 1, got {workers}")
    return workers


def _plan(options: argparse.Namespace) -> int:
    runs = _runs(options)
    for number, run in enumerate(runs):
        print(f"{number:3d}  {run.profile}  {run.id}", flush=True)
    _expect(runs, options)
    return 0


def _expect(runs: list[Run], options: argparse.Namespace) -> None:
    device, workers = _device(options), _workers(options, len(runs))
    hours = expected_hours(runs, device, workers)
    beside = f", {workers} side by side" if workers > 1 else ""
    about = f"{hours:.1f} hours" if hours >= 1 else f"{math.ceil(60 * hours)} min"
    print(f"about {about} of training on this {device}{beside}, by steps timed now; judging comes on top")


def _run(options: argparse.Namespace) -> int:
    runs, evidence = _runs(options), _evidence(options)
    if options.minutes is not None and (options.scheduler or options.minutes <= 0):
        raise ValueError("--minutes must be positive, and is for runs on this machine, without --scheduler")
    if not options.scheduler:  # whose workers may be of another kind
        for run in runs:
            check_precision(run.training.precision, _device(options))
    data_root = absolute_root(options.data_root) if options.data_root else None
    real_data = real_data_at_hand(data_root)
    todo = {}
    for number, run in enumerate(runs, start=1):
        found = state(run, evidence, real_data)
        print(f"run {number} of {len(runs)}: {run.profile} {run.id} ({found})", flush=True)
        if found != "done":
            todo[run] = f"run {number} of {len(runs)}"
    if options.scheduler and todo:
        from qmvae_study import cluster

        outcomes = cluster.carry_out(todo, evidence, data_root, options.device, options.scheduler, options.workers)
    elif (workers := _workers(options, len(todo))) > 1:
        waiting = iter(todo.items())
        outcomes = side_by_side(
            lambda begun: next(waiting, None), lambda run: evidence, data_root, options.device, workers, options.minutes
        )
    else:
        outcomes = one_by_one(todo, evidence, data_root, options.device, options.minutes)
    with contextlib.closing(outcomes):  # an interrupt anywhere below stops the runs in progress at once
        return _report(todo, outcomes, len(runs))


def _report(todo: Mapping[Run, str], outcomes: Iterator[Outcome], total: int) -> int:
    seconds, failed, stopped = [], [], False
    for run, took, error, at_once in outcomes:
        if isinstance(error, OutOfTime):
            print(f"{todo[run]}: {error}", flush=True)
            stopped = True
            continue
        if error is not None:
            print(f"qmvae_study: {todo[run]}: {error}", file=sys.stderr, flush=True)
            failed.append(run.id)
            continue
        seconds.append(took)
        left = len(todo) - len(seconds) - len(failed)
        estimate = math.ceil(left / at_once) * sum(seconds) / len(seconds)
        print(
            f"{todo[run]}: finished in {took / 60:.1f} min; {total - left - len(failed)} of {total} runs done"
            + (f", about {estimate / 60:.0f} min left" if left else ""),
            flush=True,
        )
    if failed:
        print(f"qmvae_study: {len(failed)} of {total} runs failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else TO_BE_CONTINUED if stopped else 0


def _queue(options: argparse.Namespace) -> int:
    if options.minutes is not None and options.minutes <= 0:
        raise ValueError("--minutes must be positive")
    data_root = absolute_root(options.data_root) if options.data_root else None
    if not real_data_at_hand(data_root):
        raise ValueError("the queue needs real data; name a root with MNIST and SVHN with --data-root")
    runs = queue.runs()
    if options.list:
        states = {run: state(run, default_evidence(run.profile), real_data=True) for run in runs}
        for run, found in states.items():
            print(f"{run.profile}  {run.id}  {found}", flush=True)
        _expect([run for run, found in states.items() if found not in ("done", "failed")], options)
        return 0
    failed = stopped = False
    with contextlib.closing(
        queue.carry_out(data_root, options.device, _workers(options, len(runs)), options.minutes)
    ) as outcomes:
        for run, took, error, _ in outcomes:
            name = f"{run.profile} {run.id}"
            stopped |= isinstance(error, OutOfTime)
            failed |= error is not None and not isinstance(error, OutOfTime)
            print(f"{name}: {error or f'finished in {took / 60:.1f} min'}", flush=True)
    return 1 if failed else TO_BE_CONTINUED if stopped else 0


def _status(options: argparse.Namespace) -> int:
    evidence = _evidence(options)
    for number, run in enumerate(_runs(options)):
        found = state(run, evidence, real_data_at_hand())
        print(f"{number:3d}  {run.profile}  {run.id}  {found}")
    return 0


def _collect(options: argparse.Namespace) -> int:
    evidence = _evidence(options)
    found = load_records(evidence / "runs", profile=options.profile)
    for title, table in (("Table 1, cross generation", tables.table1), ("Table 2, linear probe", tables.table2)):
        print(f"\n{title} (accuracy in per cent)\n")
        print(table(found).fillna("").to_string(index=False))
    kinds = sorted({record["data"]["kind"] for record in found})
    notes = sorted({note for record in found for note in record["data"]["notes"]})
    print(f"\nData: {', '.join(kinds)}. " + " ".join(notes))
    print(f"Records: {evidence / 'runs'}")
    return 0


def _amend(options: argparse.Namespace) -> int:
    for name, outcome in amend(_evidence(options), options.profile, options.data_root):
        print(f"{name}: {outcome}", flush=True)
    return 0


def _render(options: argparse.Namespace) -> int:
    notebooks.render(_evidence(options), options.notebooks.resolve())
    return 0


def _refresh(options: argparse.Namespace) -> int:
    chapters = notebooks.stored()
    unknown = [name for name in options.chapters if not any(path.stem.startswith(name) for path in chapters)]
    if unknown:
        raise ValueError(f"there is no stored chapter {unknown[0]!r}; there are {[path.stem for path in chapters]}")
    wanted = [path for path in chapters if path.stem.startswith(tuple(options.chapters) or "")]
    for name, changed in notebooks.refresh(wanted):
        print(f"{name}: {'written anew' if changed else 'as it was'}", flush=True)
    return 0


def _oracles(options: argparse.Namespace) -> int:
    data = load_digits(options.data_root)
    for name, oracle in prepare_oracles(data, options.out, device=options.device).items():
        print(f"{name}: {100 * oracle.accuracy(data.test[name].to(options.device)):.2f} % of the test digits")
    return 0


TO_BE_CONTINUED = 75  # the exit status by which shells and schedulers know a command that should be given again
MINUTES = "stop training after so many, with a checkpoint and exit status 75; the same command then goes on from there"
SCHEDULER = (
    "carry out runs side by side with Dask: 'local', 'slurm', the address of a scheduler (tcp://host:8786) or its file"
)
WORKERS = "how many runs side by side; under --scheduler local or slurm, how many workers"
HELP = {
    "plan": "list the runs of a profile",
    "run": "carry out the runs that are not done",
    "queue": "carry out all runs that the book's verdicts wait for, in order",
    "status": "say which runs are done, failed, started or to do",
    "collect": "print the tables that the records give",
    "amend": "give records what evaluation came to measure after them, from their weights",
    "refresh": "execute stored chapters anew, and write those whose outputs change",
    "render": "execute the results notebooks of a copied book on the records",
    "oracles": "train the digit judges that are missing",
}
COMMANDS = {
    "plan": _plan, "run": _run, "queue": _queue, "status": _status, "collect": _collect, "amend": _amend,
    "refresh": _refresh, "render": _render, "oracles": _oracles,
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
