"""`python -m benchmarks`: steps per second and memory of each contender, the share of the limit, and how they grow.

Each measurement is a process of its own, so that memory is its own too. The contenders take turns, several rounds of
all, and ratios are taken within a round: on a shared machine the speed of the same code drifts by a fifth.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from qmvae_core.records import FORMAT, REPOSITORY, provenance, write_json
from qmvae_core.study import MEMORY_SETTINGS

PEER = "multivae, MVAE"
CONTENDERS = {
    "cpu": {
        PEER: {"what": "multivae"},
        "plain loop, MVAE": {"model": "mvae", "loop": "plain"},
        "fast loop, MVAE": {"model": "mvae", "loop": "fast"},
        "plain loop, Q-MVAE": {"model": "qmvae", "loop": "plain"},
        "fast loop, Q-MVAE": {"model": "qmvae", "loop": "fast"},
    },
    "cuda": {
        PEER: {"what": "multivae"},
        "plain loop, MVAE": {"model": "mvae", "loop": "plain"},
        "captured, MVAE": {"model": "mvae", "loop": "stacked"},
        "captured, 5 seeds, MVAE": {"model": "mvae", "loop": "stacked", "seeds": 5},
        "plain loop, Q-MVAE": {"model": "qmvae", "loop": "plain"},
        "captured, Q-MVAE": {"model": "qmvae", "loop": "stacked"},
        "captured, 5 seeds, Q-MVAE": {"model": "qmvae", "loop": "stacked", "seeds": 5},
        "captured, 5 seeds, tf32, Q-MVAE": {"model": "qmvae", "loop": "stacked", "seeds": 5, "precision": "tf32"},
    },
}
DEFAULT = {"cpu": {"model": "qmvae", "loop": "fast"}, "cuda": {"model": "qmvae", "loop": "stacked"}}
GROWTH = {
    "batch": [{"batch": batch} for batch in (128, 256, 512, 1024, 2048, 4096)],
    "seeds": [{"seeds": seeds} for seeds in (1, 2, 4, 8, 16)],
    "modalities": [{"modalities": count} for count in (2, 3, 4)],
}
PAIRS = [
    {"rounds": 1, "images": 10_000},  # about ten thousand pairs
    {"rounds": 2},
    {"rounds": 10},
    {"rounds": 30},  # the paper's 1,682,040
]


def main() -> None:
    """Measure, print and write the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=sorted(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement, after its warm-up")
    parser.add_argument("--threads", type=int, help="of the CPU; its cores unless given")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "results" / "benchmarks", help="folder of the record")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_child(json.loads(options.child), options.device, options.seconds)))
        return
    threads = options.threads or len(os.sched_getaffinity(0))

    def measure(**task) -> dict:
        return _in_a_process(task, options.device, options.seconds, threads)

    contenders: dict[str, list[dict]] = {name: [] for name in CONTENDERS[options.device]}
    ceilings = []
    for number in range(options.rounds):
        ceilings.append(measure(what="ceiling"))
        print(
            f"round {number + 1} of {options.rounds}: ceiling {ceilings[-1]['ceiling'] / 1e9:.0f} GFLOP/s", flush=True
        )
        for name, task in CONTENDERS[options.device].items():
            found = measure(**({"what": "ours"} | task))
            contenders[name].append(found)
            print(f"  {name}: {_per_second(found):.1f} steps/s", flush=True)
    growth = {"pairs": measure(what="pairs")["pairs"]}
    for dimension, changes in GROWTH.items():
        growth[dimension] = []
        for change in changes:
            found = measure(**({"what": "ours"} | DEFAULT[options.device] | change))
            growth[dimension].append({"value": change[dimension], **found})
            print(f"{dimension} {change[dimension]}: {_per_second(found):.2f} steps/s", flush=True)
    operations = measure(what="operations")
    record = {
        "format": FORMAT,
        "id": f"speed-{options.device}",
        "provenance": {**provenance(options.device), "threads": threads},
        "settings": {"rounds": options.rounds, "seconds": options.seconds, "environment": MEMORY_SETTINGS},
        "operations": operations,
        "ceilings": ceilings,
        "contenders": {
            name: {"task": CONTENDERS[options.device][name], "rounds": rounds, "summary": None}
            for name, rounds in contenders.items()
        },
        "growth": growth,
    }
    for name, each in record["contenders"].items():
        each["summary"] = _summary(name, record)
        print(_line(name, each["summary"]))
    pairs = [statistics.median(entry["ms"]) for entry in growth["pairs"]]
    print("time of a step by number of pairs, against the fewest:", [f"{value / pairs[0]:.3f}" for value in pairs])
    path = options.out / f"speed-{options.device}.json"
    write_json(path, record)
    print(f"record: {path}")


def _in_a_process(task: dict, device: str, seconds: float, threads: int) -> dict:
    command = [
        sys.executable, "-m", "benchmarks", "--device", device, "--seconds", str(seconds), "--child", json.dumps(task)
    ]  # fmt: skip
    environment = {**os.environ, **MEMORY_SETTINGS, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the measurement {task} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _child(task: dict, device: str, seconds: float) -> dict:
    from benchmarks import contenders, limits

    what = task.pop("what")
    if what == "operations":
        return {model: limits.operations(model) for model in ("mvae", "qmvae")}
    if what == "ceiling":
        layers = {model: limits.ceiling_of_the_layers(model, device) for model in ("mvae", "qmvae")}
        return {"ceiling": limits.ceiling(device), "seconds_of_the_layers": layers}
    if what == "pairs":
        return {"pairs": _pairs(device, seconds)}
    if what == "multivae":
        ends, about = contenders.multivae(device, steps=30 + int(seconds * (10 if device == "cpu" else 200)))
        ends = ends[20::10]  # the first twenty warm up
        milliseconds = [100 * (after - before) for before, after in zip(ends, ends[1:], strict=False)]
    else:
        take, about = contenders.ours(device=device, **task)
        take(20)
        milliseconds, end = [], time.perf_counter() + seconds
        while time.perf_counter() < end or len(milliseconds) < 2:
            milliseconds.append(_timed(take, device))
    return {"ms": milliseconds, **about, **_memory(device)}


def _pairs(device: str, seconds: float) -> list[dict]:
    """One loop for each number of pairs, all in one process and taking turns, for differences of a few per cent."""
    from benchmarks import contenders

    loops = [contenders.ours(device=device, **DEFAULT[device], **change) for change in PAIRS]
    for take, _ in loops:
        take(20)
    found = [{"value": about["pairs"], "ms": []} for _, about in loops]
    end = time.perf_counter() + seconds * len(loops) * 2
    while time.perf_counter() < end:
        for (take, _), entry in zip(loops, found, strict=True):
            entry["ms"].append(_timed(take, device))
    return found


def _timed(take, device: str) -> float:
    """Milliseconds a step, over ten steps; on a GPU until the device has done them."""
    import torch

    started = time.perf_counter()
    take(10)
    if device == "cuda":
        torch.cuda.synchronize()
    return 100 * (time.perf_counter() - started)


def _memory(device: str) -> dict:
    import torch

    memory = {"peak_host_bytes": provenance("cpu")["peak_host_bytes"]}
    if device == "cuda":
        memory["peak_device_bytes"] = torch.cuda.max_memory_allocated()
    return memory


def _per_second(found: dict) -> float:
    return 1000 / statistics.median(found["ms"])


def _summary(name: str, record: dict) -> dict:
    """Medians over the rounds; ratios and shares within each round first."""
    rounds, task = record["contenders"][name]["rounds"], record["contenders"][name]["task"]
    model = task.get("model", "mvae")
    seeds = task.get("seeds", 1)
    speeds = [_per_second(found) for found in rounds]
    peers = [_per_second(found) for found in record["contenders"][PEER]["rounds"]]
    work = record["operations"][model] * seeds
    shares = [s * work / c["ceiling"] for s, c in zip(speeds, record["ceilings"], strict=True)]
    layers = [s * seeds * c["seconds_of_the_layers"][model] for s, c in zip(speeds, record["ceilings"], strict=True)]
    return {
        "steps_per_second": statistics.median(speeds),
        "seed_steps_per_second": statistics.median(speeds) * seeds,
        "times_the_peer": statistics.median(s * seeds / p for s, p in zip(speeds, peers, strict=True)),
        "share_of_ceiling": None if name == PEER else statistics.median(shares),
        "share_of_layers": None if name == PEER else statistics.median(layers),
        "peak_host_bytes": max(found["peak_host_bytes"] for found in rounds),
        "peak_device_bytes": max((found.get("peak_device_bytes", 0) for found in rounds), default=0) or None,
    }


def _line(name: str, summary: dict) -> str:
    parts = [f"{name}: {summary['steps_per_second']:.1f} steps/s", f"{summary['times_the_peer']:.2f} times multivae"]
    if summary["share_of_ceiling"] is not None:
        parts.append(
            f"{summary['share_of_ceiling']:.0%} of the ceiling, {summary['share_of_layers']:.0%} of its layers'"
        )
    parts.append(f"{summary['peak_host_bytes'] / 1e9:.2f} GB of host memory")
    return "; ".join(parts)


if __name__ == "__main__":
    main()
