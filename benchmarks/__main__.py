"""`python -m benchmarks`: steps per second and memory of each contender, the share of the limit, and how they grow.

Each contender is a process of its own, so that its memory is its own. All that are compared are set up at the same
time and then take turns of about a second, for on a shared machine the speed of the same code drifts within minutes;
ratios are taken between neighbouring turns. On a CPU each has one thread, as runs of the study go side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack

from qmvae_core.kernels import bfloat16_here
from qmvae_study import shell
from qmvae_study.evidence.folder import REPOSITORY, opened
from qmvae_study.evidence.notebooks import MEMORY_SETTINGS
from qmvae_study.evidence.provenance import provenance
from qmvae_study.evidence.records import FORMAT, write_json

OUT = REPOSITORY / "runs" / "benchmarks"  # the committed records are in results/benchmarks
PEER, PEER_TOO = "multivae, MVAE", "multivae, MVAE, our memory settings"
CEILING, CEILING_BFLOAT16 = "ceiling", "ceiling, bfloat16"
LOOPS = {
    "cpu": {
        "plain loop, MVAE": {"model": "mvae", "loop": "plain"},
        "fast loop, MVAE": {"model": "mvae", "loop": "fast"},
        "plain loop, Q-MVAE": {"model": "qmvae", "loop": "plain"},
        "fast loop, Q-MVAE": {"model": "qmvae", "loop": "fast"},
        "fast loop, bfloat16, MVAE": {"model": "mvae", "loop": "fast", "precision": "bfloat16"},
        "fast loop, bfloat16, Q-MVAE": {"model": "qmvae", "loop": "fast", "precision": "bfloat16"},
        "fast loop, Q-MVAE as printed": {"model": "as-printed", "loop": "fast"},
        "fast loop, bfloat16, Q-MVAE as printed": {"model": "as-printed", "loop": "fast", "precision": "bfloat16"},
    },
    "cuda": {
        "plain loop, MVAE": {"model": "mvae", "loop": "plain"},
        "captured, MVAE": {"model": "mvae", "loop": "stacked"},
        "captured, 5 seeds, MVAE": {"model": "mvae", "loop": "stacked", "seeds": 5},
        "plain loop, Q-MVAE": {"model": "qmvae", "loop": "plain"},
        "captured, Q-MVAE": {"model": "qmvae", "loop": "stacked"},
        "captured, 5 seeds, Q-MVAE": {"model": "qmvae", "loop": "stacked", "seeds": 5},
        "captured, 5 seeds, tf32, Q-MVAE": {"model": "qmvae", "loop": "stacked", "seeds": 5, "precision": "tf32"},
    },
}
LIMITS = {
    "cpu": {
        CEILING: {"what": "ceiling"},
        CEILING_BFLOAT16: {"what": "ceiling", "precision": "bfloat16"},
        "layers, mvae": {"what": "layers", "model": "mvae"},
        "layers, qmvae": {"what": "layers", "model": "qmvae"},
    },
    "cuda": {CEILING: {"what": "ceiling"}},
}
# A training's heap is large, so what it frees stays in it; that of a few layers would go back to the system each time.
LAYERS_SETTINGS = MEMORY_SETTINGS | {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
DEFAULT = {
    "cpu": {"model": "qmvae", "loop": "fast", "precision": "bfloat16"},
    "cuda": {"model": "qmvae", "loop": "stacked"},
}
GROWTH = {
    # the first is about ten thousand pairs, the last the paper's 1,682,040
    "pairs": [{"rounds": 1, "images": 10_000}, {"rounds": 2}, {"rounds": 10}, {"rounds": 30}],
    "batch": [{"batch": batch, "steps": max(1, 1280 // batch)} for batch in (128, 256, 512, 1024, 2048, 4096)],
    "seeds": [{"seeds": seeds, "steps": max(1, 10 // seeds)} for seeds in (1, 2, 4, 8, 16)],
    "modalities": [{"modalities": count} for count in (2, 3, 4)],
}


def main() -> None:
    """Measure, print and write the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=sorted(LOOPS))
    parser.add_argument("--turns", type=int, default=25, help="of each contender")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU, for each contender")
    parser.add_argument("--out", type=opened, default=OUT, help="folder of the record")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        _contend(json.loads(options.contender), options.device)
        return
    from benchmarks import limits

    threads = options.threads

    def compare(tasks: dict[str, dict]) -> dict[str, dict]:
        return _in_turns(tasks, options.device, options.turns, threads)

    peers = {PEER: {"what": "multivae"}, PEER_TOO: {"what": "multivae"}}
    loops = _possible(LOOPS[options.device])
    tasks = peers | _possible(LIMITS[options.device]) | loops
    found = compare(tasks)
    record = {
        "format": FORMAT,
        "id": f"speed-{options.device}",
        "provenance": {**provenance(options.device), "threads": threads},
        "settings": {"turns": options.turns},
        "operations": {model: limits.operations(model) for model in ("mvae", "qmvae", "as-printed")},
        "contenders": {name: {"task": tasks[name], **each} for name, each in found.items()},
        "growth": {},
    }
    record["summary"] = {name: _summary(name, record) for name in (PEER, PEER_TOO, *loops)}
    for name, summary in record["summary"].items():
        print(_line(name, summary), flush=True)
    if options.device == "cpu":
        record["side_by_side"] = {
            precision: _side_by_side(task, options.turns, shell.cores())
            for precision, task in (("float32", loops["fast loop, Q-MVAE"]), ("bfloat16", _default("cpu")))
        }
        for precision, turns in record["side_by_side"].items():
            print(f"{precision}: side by side {_times_the_steps(turns):.2f} times the steps of one run", flush=True)
    for dimension, changes in GROWTH.items():
        found = compare({str(i): _default(options.device) | change for i, change in enumerate(changes)})
        values = [change.get(dimension, each["pairs"]) for change, each in zip(changes, found.values(), strict=True)]
        record["growth"][dimension] = [
            {"value": value, **each} for value, each in zip(values, found.values(), strict=True)
        ]
        medians = {value: statistics.median(each["ms"]) for value, each in zip(values, found.values(), strict=True)}
        print(f"{dimension}: " + ", ".join(f"{value} {ms:.1f} ms" for value, ms in medians.items()), flush=True)
    path = options.out / f"speed-{options.device}.json"
    write_json(path, record)
    print(f"record: {path}")


def _in_turns(tasks: dict[str, dict], device: str, turns: int, threads: int) -> dict[str, dict]:
    """Set all contenders up, let each warm up, and give each so many turns, one at a time."""
    with ExitStack() as stack:
        running = {name: [_started(stack, name, task, device, threads)] for name, task in tasks.items()}
        found = _turns(running, turns)
        return {
            name: {"ms": [turn[name][0] for turn in found], **_answer(name, process, "end")}
            for name, (process,) in running.items()
        }


def _turns(running: dict[str, list[subprocess.Popen]], turns: int) -> list[dict[str, list[float]]]:
    """Turn by turn the milliseconds of a step of each process; those under one name work at the same time."""
    for name, processes in running.items():
        for process in processes:
            _answer(name, process)
    found = []
    for _ in range(2 + turns):
        found.append({})
        for name, processes in running.items():
            for process in processes:
                _say_to(process, "go")
            found[-1][name] = [_answer(name, process) for process in processes]
    return found[2:]  # the first two warm up


def _started(stack: ExitStack, name: str, task: dict, device: str, threads: int) -> subprocess.Popen:
    """The process of a contender, which ends with the stack."""
    process = stack.enter_context(
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks", "--device", device, "--contender", json.dumps(task)],
            cwd=REPOSITORY,
            env={**os.environ, **_settings(name, task), "OMP_NUM_THREADS": str(threads)},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    )
    stack.callback(process.kill)
    return process


def _possible(tasks: dict[str, dict]) -> dict[str, dict]:
    """Those of the tasks whose precision this machine has."""
    return {name: task for name, task in tasks.items() if task.get("precision") != "bfloat16" or bfloat16_here()}


def _default(device: str) -> dict:
    return next(iter(_possible({"": DEFAULT[device]}).values()), {"model": "qmvae", "loop": "fast"})


def _side_by_side(task: dict, turns: int, cores: int) -> list[dict[str, list[float]]]:
    """One run on all cores against one run on each: turn by turn the milliseconds of a step of each process."""
    with ExitStack() as stack:
        together = {"one on all cores": [_started(stack, "alone", task, "cpu", cores)]}
        together["one on each core"] = [_started(stack, f"core {n}", task, "cpu", 1) for n in range(cores)]
        return _turns(together, turns)


def _times_the_steps(turns: list[dict[str, list[float]]]) -> float:
    """How many steps one run on each core takes in the time in which one on all of them takes one; the median."""
    alone, each = "one on all cores", "one on each core"
    return statistics.median(turn[alone][0] * sum(1 / ms for ms in turn[each]) for turn in turns)


def _settings(name: str, task: dict) -> dict[str, str]:
    if name == PEER:
        return {}  # as it comes; a second entry has our settings too
    return LAYERS_SETTINGS if task.get("what") == "layers" else MEMORY_SETTINGS


def _answer(name: str, process: subprocess.Popen, request: str | None = None):
    if request is not None:
        _say_to(process, request)
    for line in process.stdout:
        if line.startswith(MARK):
            return json.loads(line.removeprefix(MARK))
    alone = shlex.join(["python", *process.args[1:]])
    raise RuntimeError(f"the contender {name!r} ended; to see why, run it alone: {alone} < /dev/null")


def _say_to(process: subprocess.Popen, request: str) -> None:
    process.stdin.write(request + "\n")
    process.stdin.flush()


MARK = "benchmark answer: "


class _Turn:
    """A contender's side: waits for "go" on standard input, and answers with the milliseconds of a step."""

    def __init__(self, device: str):
        self.device, self.about, self.started = device, {}, None

    def over(self) -> bool:
        import torch

        on_gpu = self.device == "cuda"
        if on_gpu:
            torch.cuda.synchronize()
        if self.started is None:
            self._say("ready")
        else:
            self._say(1000 * (time.perf_counter() - self.started) / self.about["steps"])
        if sys.stdin.readline().strip() != "go":
            memory = {"peak_host_bytes": provenance("cpu")["peak_host_bytes"]}
            memory |= {"peak_device_bytes": torch.cuda.max_memory_allocated()} if on_gpu else {}
            settings = {name: os.environ[name] for name in LAYERS_SETTINGS if name in os.environ}
            self._say({**self.about, **memory, "environment": settings})
            return True
        self.started = time.perf_counter()
        return False

    def _say(self, answer) -> None:
        print(f"{MARK}{json.dumps(answer)}", flush=True)


def _contend(task: dict, device: str) -> None:
    from benchmarks import contenders, limits

    start = {"multivae": contenders.multivae, "ceiling": limits.ceiling, "layers": limits.layers}
    start.get(task.pop("what", None), contenders.ours)(_Turn(device), device=device, **task)


def _summary(name: str, record: dict) -> dict:
    """Medians over the turns; ratios and shares are taken in each round of turns first."""
    contenders = record["contenders"]
    task, ms = contenders[name]["task"], contenders[name]["ms"]
    model, seeds = task.get("model", "mvae"), task.get("seeds", 1)
    in_bfloat16 = task.get("precision") == "bfloat16"
    ceiling, operations = contenders[CEILING_BFLOAT16 if in_bfloat16 else CEILING], record["operations"][model]
    # a ceiling's milliseconds are of one product
    shares = [c * seeds * operations / (ceiling["operations"] * m) for m, c in zip(ms, ceiling["ms"], strict=True)]
    peer = name in (PEER, PEER_TOO)  # it does more arithmetic than is counted, so it gets no share
    alone = None if peer or in_bfloat16 else contenders.get(f"layers, {model}")
    return {
        "steps_per_second": 1000 / statistics.median(ms),
        "times_the_peer": statistics.median(p * seeds / m for m, p in zip(ms, contenders[PEER]["ms"], strict=True)),
        "share_of_ceiling": None if peer else statistics.median(shares),
        "share_of_layers": alone and statistics.median(a * seeds / m for m, a in zip(ms, alone["ms"], strict=True)),
    }


def _line(name: str, summary: dict) -> str:
    parts = [f"{name}: {summary['steps_per_second']:.1f} steps/s", f"{summary['times_the_peer']:.2f} times multivae"]
    if summary["share_of_ceiling"] is not None:
        parts.append(f"{summary['share_of_ceiling']:.0%} of the ceiling")
    if summary["share_of_layers"] is not None:
        parts.append(f"{summary['share_of_layers']:.0%} of its layers' speed")
    return "; ".join(parts)


if __name__ == "__main__":
    sys.exit(shell.carry_out(main))
