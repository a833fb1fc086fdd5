"""The first steps of a training, `python -m benchmarks.plateau`: what codes know while the quadruplet loss stands.

Each rule of screening is tried for 400 steps by three seeds, and every 25 steps the codes of the first images of both
modalities are looked at: how far they lie from their mean, how much of their variance tells the digit, and how far the
modalities lie apart.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from qmvae_core.data import Digits, load_digits
from qmvae_core.models import reading
from qmvae_core.training import Trained, TrainingConfig, fit
from qmvae_study.evidence.folder import REPOSITORY, default_evidence
from qmvae_study.evidence.provenance import code, provenance
from qmvae_study.evidence.records import FORMAT, write_json
from qmvae_study.plateau import distance_from_mean, known

READINGS = ("unscreened", *(f"unscreened+negatives={rule}" for rule in ("all-violating", "semi-hard", "hardest")))
SEEDS, STEPS, EVERY, SEEN = (0, 1, 2), 400, 25, 1000


def seen(model: nn.Module, few: Mapping[str, Digits]) -> dict[str, float]:
    """Of the codes of two modalities' digits: "spread" and "known" of each, and how far "apart" their means lie."""
    with torch.no_grad():
        codes = {name: model.encode_shared({name: digits.batch()}).mean for name, digits in few.items()}
    found = {f"spread/{name}": distance_from_mean(each) for name, each in codes.items()}
    found |= {f"known/{name}": known(each, few[name].labels) for name, each in codes.items()}
    first, second = (each.mean(dim=0) for each in codes.values())
    return found | {"apart": (first - second).norm().item()}


def watched(name: str, train: Mapping[str, Digits], seeds=SEEDS, steps: int = STEPS, every: int = EVERY) -> Trained:
    """Train a reading for so many steps at the rate of short runs; each row of a history has what was `seen` then."""
    few = {modality: digits.select(slice(SEEN)) for modality, digits in train.items()}
    training = TrainingConfig(
        epochs=1, steps_per_epoch=steps, learning_rate=1e-3, chunk=every, reports=steps // every, rounds=3
    )
    return fit(
        reading(name), training, train, seeds, progress="none", measure=lambda model, seed: seen(model.eval(), few)
    )


def main(arguments: list[str] | None = None) -> int:
    """Train all of it, print a line each and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", help="a data root, or 'stand-in'")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--every", type=int, default=EVERY)
    parser.add_argument("--out", type=Path, default=default_evidence("plateau"), help="folder of the record")
    options = parser.parse_args(arguments)
    code(REPOSITORY)  # which commit this is, asked for before the work
    data, started, runs = load_digits(options.data_root), time.monotonic(), {}
    for name in READINGS:
        trained = watched(name, data.train, steps=options.steps, every=options.every)
        runs[name] = {"histories": trained.histories, "left": trained.left}
        print(f"{name}: left by {trained.left}", flush=True)
    record = {"format": FORMAT, "id": "plateau", "seeds": SEEDS, "steps": options.steps, "every": options.every}
    write_json(options.out / "plateau.json", record | {
        "runs": runs, "data": data.identity, "seconds": time.monotonic() - started, "provenance": provenance(),
    })  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
