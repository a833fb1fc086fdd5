"""`python -m qmvae_study plan | run | status | collect | amend ...`: the study from the command line."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from qmvae_core.data import DataError, load_digits, real_data_at_hand
from qmvae_core.training import OutOfTime, check_precision
from qmvae_study import harness, queue, shell
from qmvae_study.evidence import notebooks
from qmvae_study.evidence.folder import RESULTS, absolute_root, check_locks, default_evidence, opened
from qmvae_study.evidence.records import RecordError, load_records
from qmvae_study.execution import SIDE_BY_SIDE, Outcome, check_room, recorded, side_by_side
from qmvae_study.judges import OracleError, prepare_oracles, prepare_published
from qmvae_study.oracles import PublishedConfig
from qmvae_study.plan import PROFILES, Run, plan
from qmvae_study.report import tables
from qmvae_study.runs import amend, data_for, device_named, expected_hours, not_of_other_data, state


def main(arguments: list[str] | None = None) -> int:
    """Carry out one command; 0 if it succeeded, 1 with one line on standard error if not, 75 if its time is over."""
    options = _parser().parse_args(arguments)
    try:
        return options.carry_out(options) or 0
    except BrokenPipeError:  # of whoever reads what this prints
        raise
    except (DataError, RecordError, OracleError, ValueError, RuntimeError, OSError) as error:
        print(f"qmvae_study: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("qmvae_study: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m qmvae_study", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (carry_out, *arguments) in COMMANDS.items():
        text = carry_out.__doc__
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        for argument in arguments:
            command.add_argument(argument, **ARGUMENTS[argument])
        command.set_defaults(carry_out=carry_out, **({"device": "cpu"} if name in ON_A_CPU else {}))
    return parser


def _evidence(options: argparse.Namespace) -> Path:
    return options.evidence.resolve() if options.evidence else default_evidence(options.profile)


def _runs(options: argparse.Namespace) -> list[Run]:
    runs = plan(options.profile, options.readings, options.seeds, options.precision, _device(options) == "cuda")
    if (
        (workers := getattr(options, "workers", None))
        and not getattr(options, "scheduler", None)
        and workers > len(runs)
    ):
        raise ValueError(f"--workers {workers} is more than the {len(runs)} runs; each has one, so give fewer")
    return runs


def _device(options: argparse.Namespace) -> str:
    elsewhere = getattr(options, "scheduler", None) and options.device != "auto"
    return options.device if elsewhere else device_named(options.device)


def _workers(options: argparse.Namespace, runs: int) -> int:
    """How many processes train side by side: on a CPU two, which together take more steps than one of two threads."""
    if options.workers is None:
        return max(1, min(SIDE_BY_SIDE, shell.cores(), runs)) if _device(options) == "cpu" else 1
    if options.workers < 1:
        raise ValueError(f"--workers must be at least 1, got {options.workers}")
    return options.workers


def _plan(options: argparse.Namespace) -> None:
    """List the runs of a profile, and say if they lack room."""
    runs, evidence = _runs(options), _evidence(options)
    for number, run in enumerate(runs):
        print(f"{number:3d}  {run.profile}  {run.id}", flush=True)
    _expect(runs, options)
    at_hand = _kind_at_hand(options.profile)
    check_room([run for run in runs if state(run, evidence, at_hand) != "done"], lambda run: evidence)


def _expect(runs: list[Run], options: argparse.Namespace) -> None:
    device, workers = _device(options), _workers(options, len(runs))
    hours = expected_hours(runs, device, workers)
    beside = f", {workers} side by side" if workers > 1 else ""
    about = f"{hours:.1f} hours" if hours >= 1 else f"{math.ceil(60 * hours)} min"
    print(f"about {about} of training on this {device}{beside}, by steps timed now; judging comes on top")


def _run(options: argparse.Namespace) -> int:
    """Carry out the runs that are not done."""
    check_locks()
    runs, evidence = _runs(options), _evidence(options)
    if options.minutes is not None and (options.scheduler or not 0 < options.minutes < math.inf):
        raise ValueError("--minutes must be positive, and is for runs on this machine, without --scheduler")
    if not options.scheduler:  # whose workers may be of another kind
        for run in runs:
            check_precision(run.training.precision, _device(options))
    data_root = absolute_root(options.data_root)
    if options.scheduler:  # whose workers may have data that this machine lacks
        at_hand = _kind_at_hand(options.profile, data_root)
    else:
        at_hand = data_for(options.profile, data_root).identity
    todo = {}
    for number, run in enumerate(runs, start=1):
        found = state(run, evidence, at_hand)
        print(f"run {number} of {len(runs)}: {run.profile} {run.id} ({found})", flush=True)
        not_of_other_data(found, evidence)
        if found != "done":
            todo[run] = f"run {number} of {len(runs)}"
    check_room(todo, lambda run: evidence)
    if options.scheduler and todo:
        from qmvae_study import cluster

        outcomes = cluster.carry_out(todo, evidence, data_root, options.device, options.scheduler, options.workers)
    else:
        waiting, workers = iter(todo.items()), _workers(options, len(todo))
        where = data_root, options.device, workers, options.minutes
        outcomes = side_by_side(lambda begun: next(waiting, None), lambda run: evidence, *where)
    return _report(outcomes, lambda run: recorded(run, evidence, at_hand), todo)


def _kind_at_hand(name: str, data_root: str | None = None) -> dict[str, str] | None:
    """That real data are there for a profile, where it wants them; they are not read."""
    return {"kind": "real"} if real_data_at_hand(data_root or PROFILES[name].data_root) else None


def _report(outcomes: Iterator[Outcome], done: Callable[[Run], bool], todo: Mapping[Run, str] | None = None) -> int:
    """Say how each run went. done: whether a run has its records, though an error came behind them.

    todo: all that there are, with their names, by which the time left is estimated.
    """
    seconds, failed, stopped, faulty = [], [], False, False
    with contextlib.closing(outcomes):  # an interrupt anywhere below stops the runs in progress at once
        for run, took, error, at_once in outcomes:
            name = todo[run] if todo else f"{run.profile} {run.id}"
            if error is None:
                seconds.append(took)
                left = len(todo or ()) - len(seconds) - len(failed)
                minutes = math.ceil(left / at_once) * sum(seconds) / len(seconds) / 60
                about = f"; about {minutes:.0f} min left" if left > 0 else ""
                print(f"{name}: finished in {took / 60:.1f} min{about}", flush=True)
            elif isinstance(error, OutOfTime):
                print(f"{name}: {error}", flush=True)
                stopped = True
            else:
                faulty = True
                if done(run):
                    error = f"its record is written, but {error}"
                else:
                    failed.append(run.id)
                print(f"qmvae_study: {name}: {error}", file=sys.stderr, flush=True)
    if failed:
        print(f"qmvae_study: {len(failed)} runs failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if faulty else TO_BE_CONTINUED if stopped else 0


def _queue(options: argparse.Namespace) -> int:
    """Carry out all runs that the book's verdicts wait for, in order."""
    if options.minutes is not None and (options.list or not 0 < options.minutes < math.inf):
        raise ValueError("--minutes has no effect on --list" if options.list else "--minutes must be positive")
    data_root = absolute_root(options.data_root)
    if not real_data_at_hand(data_root):
        raise ValueError("the queue needs real data; name a root with MNIST and SVHN with --data-root")
    runs = queue.runs()
    if options.list:
        at_hand = load_digits(data_root).identity
        states = {run: state(run, queue.evidence_of(run), at_hand) for run in runs}
        for run, found in states.items():
            print(f"{run.profile}  {run.id}  {found}", flush=True)
        _expect([run for run, found in states.items() if found not in ("done", "failed")], options)
        return 0
    check_locks()
    outcomes = queue.carry_out(data_root, _device(options), _workers(options, len(runs)), options.minutes)
    return _report(outcomes, lambda run: recorded(run, queue.evidence_of(run), {"kind": "real"}))


def _status(options: argparse.Namespace) -> None:
    """Say which runs are done, failed, started or to do."""
    evidence = _evidence(options)
    at_hand = _kind_at_hand(options.profile)
    for number, run in enumerate(_runs(options)):
        found = state(run, evidence, at_hand)
        print(f"{number:3d}  {run.profile}  {run.id}  {found}")


def _collect(options: argparse.Namespace) -> None:
    """Print the tables that the records give."""
    evidence = _evidence(options)
    found = load_records(evidence / "runs", profile=options.profile)
    for title, table in (("Table 1, cross generation", tables.table1), ("Table 2, linear probe", tables.table2)):
        print(f"\n{title} (accuracy in per cent)\n")
        print(table(found).fillna("").to_string(index=False))
    kinds = sorted({record.data.kind for record in found})
    notes = sorted({note for record in found for note in record.data.notes})
    print(f"\nData: {', '.join(kinds)}. " + " ".join(notes))
    print(f"Records: {evidence / 'runs'}")


def _amend(options: argparse.Namespace) -> None:
    """Give records what evaluation came to measure after them, from their weights."""
    for name, outcome in amend(_evidence(options), options.profile, options.data_root):
        print(f"{name}: {outcome}", flush=True)


def _render(options: argparse.Namespace) -> None:
    """Execute the results notebooks of a copied book on the records."""
    notebooks.render(_evidence(options), options.notebooks.resolve())


def _neighbours(options: argparse.Namespace) -> None:
    """Carry out the experiments of the book's second part."""
    for name in notebooks.neighbours():
        print(name, flush=True)


def _refresh(options: argparse.Namespace) -> None:
    """Execute stored chapters anew, and write those whose outputs change."""
    chapters = notebooks.stored()
    unknown = [name for name in options.chapters if not any(path.stem.startswith(name) for path in chapters)]
    if unknown:
        raise ValueError(f"there is no stored chapter {unknown[0]!r}; there are {[path.stem for path in chapters]}")
    wanted = [path for path in chapters if path.stem.startswith(tuple(options.chapters) or "")]
    for name, changed in notebooks.refresh(wanted):
        print(f"{name}: {'written anew' if changed else 'as it was'}", flush=True)


def _oracles(options: argparse.Namespace) -> None:
    """Train the digit judges that are missing."""
    device, data = _device(options), load_digits(options.data_root)
    for name, oracle in prepare_oracles(data, options.out, device=device).items():
        print(f"{name}: {100 * oracle.accuracy(data.test[name].to(device)):.2f} % of the test digits")


def _published(options: argparse.Namespace) -> None:
    """Train the judges of the paper's harness that are missing."""
    check_locks()
    device, data = _device(options), load_digits(options.data_root)
    seeds, work = options.seeds or harness.SEEDS, default_evidence("published")
    for seed, judges in prepare_published(data, RESULTS / "published", seeds, PublishedConfig(), work, device).items():
        for name, judge in judges.items():
            print(f"{name}, seed {seed}: {100 * judge.accuracy(data.test[name].to(device)):.2f} % of the test digits")


TO_BE_CONTINUED = 75  # the exit status by which shells and schedulers know a command that should be given again
INSTEAD = "instead of the profile's own"
ARGUMENTS = {
    "--profile": {"default": "quick", "choices": sorted(PROFILES)},
    "--evidence": {"type": opened, "help": "evidence folder; runs/PROFILE unless given"},
    "--readings": {"nargs": "+", "help": INSTEAD},
    "--seeds": {"nargs": "+", "type": int, "help": INSTEAD},
    "--precision": {"help": f"{INSTEAD}: float32, tf32 or bfloat16"},
    "--device": {"default": "auto", "help": "cpu, cuda, or auto"},
    "--data-root": {"help": "a data root, or 'stand-in'"},
    "--minutes": {"type": float, "help": "stop training after so many, with a checkpoint to go on from and status 75"},
    "--scheduler": {
        "help": "side by side with Dask: 'local', 'slurm', a scheduler's address (tcp://host:8786) or file"
    },
    "--workers": {"type": int, "help": "how many runs side by side; with --scheduler local or slurm, workers"},
    "--list": {"action": "store_true", "help": "say how each run stands, and carry out none"},
    "--notebooks": {"type": opened, "required": True, "help": "folder of the copied notebooks"},
    "--out": {"type": opened, "default": RESULTS / "oracles", "help": "folder of the judges"},
    "chapters": {"nargs": "*", "help": "such as 08 or A1; all unless given"},
}
WHERE = ("--profile", "--evidence")
WHICH = (*WHERE, "--readings", "--seeds", "--precision", "--device")
COMMANDS = {
    "plan": (_plan, *WHICH, "--workers"),
    "run": (_run, *WHICH, "--data-root", "--minutes", "--scheduler", "--workers"),
    "queue": (_queue, "--data-root", "--device", "--minutes", "--workers", "--list"),
    "status": (_status, *WHICH),
    "collect": (_collect, *WHERE),
    "amend": (_amend, *WHERE, "--data-root"),
    "refresh": (_refresh, "chapters"),
    "neighbours": (_neighbours,),
    "render": (_render, *WHERE, "--notebooks"),
    "oracles": (_oracles, "--out", "--device", "--data-root"),
    "published": (_published, "--seeds", "--device", "--data-root"),
}
ON_A_CPU = ("queue", "oracles", "published")  # unless --device says otherwise


if __name__ == "__main__":
    sys.exit(shell.carry_out(main))
