"""What the chapters on the neighbours share: a profile, a training loop, and a record with what there is to draw.

A chapter shows the committed record of its experiment, or carries the experiment out and shows what came of it.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from qmvae_core.data import STAND_IN
from qmvae_core.files import file_hash
from qmvae_core.stops import CheckpointError
from qmvae_core.training import checkpoint
from qmvae_study.evidence.folder import REPOSITORY, evidence_folder
from qmvae_study.evidence.provenance import code, provenance
from qmvae_study.evidence.records import FORMAT, Record, RecordError, config_hash, read_record, write_json
from qmvae_study.evidence.weights import save_tensors
from qmvae_study.report import pages

COMMITTED = "committed"
PROFILES = (COMMITTED, "smoke", "quick")


class Found(NamedTuple):
    """What an experiment leaves. record: JSON, its numbers under "metrics". tensors: what figures are drawn from."""

    record: Record
    tensors: dict[str, Tensor]

    metrics = property(lambda self: self.record["metrics"], doc="The record's numbers.")
    settings = property(lambda self: self.record["settings"], doc="What the experiment was carried out with.")
    real = property(lambda self: self.record.real, doc="Whether the data were real, and no stand-in.")


class Best(NamedTuple):
    """What a training leaves: the weights after so many steps, and what the validation found with them (nan: none)."""

    step: int
    error: float
    weights: dict[str, Tensor]


class Workshop(NamedTuple):
    """What an experiment is given: a folder for finished trainings, and the data root to read, None to look for one.

    Trainings are kept there, so that an experiment that was killed repeats the last of them alone.
    """

    folder: Path
    data_root: str | None = None

    def trained(self, model: nn.Module, settings: Mapping, train: Callable[[nn.Module], Best]) -> Best:
        """Give the model the weights of an earlier run with these settings, or train it now; leave it frozen.

        settings: whatever the weights depend on: configuration, length, seed, the content hash of the data.
        Raises CheckpointError for a file that is damaged, or whose weights are of other settings or another model.
        """
        path = self.folder / f"{config_hash(settings)}.pt"
        asked = json.dumps(settings, sort_keys=True)
        if not path.exists():
            checkpoint.write(path, {"settings": asked, **train(model)._asdict()})
        content = checkpoint.read(path)
        try:
            if content.pop("settings") != asked:
                raise ValueError("they were trained with other settings")
            best = Best(**content)
            model.load_state_dict(best.weights)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path} does not hold the weights of this training; delete it: {error}") from None
        model.eval().requires_grad_(False)
        return best


class Validation(NamedTuple):
    """measure(model): the error on what is held out. after: the numbers of steps after which it is measured."""

    measure: Callable[[nn.Module], float]
    after: range


class Opponent(NamedTuple):
    """A part of a model that only its own loss(generator) moves, `rounds` steps before each step of the rest."""

    part: nn.Module
    loss: Callable[[torch.Generator], Tensor]
    rounds: int


def fit(
    model: nn.Module, loss: Callable[[torch.Generator], Tensor], steps: int, learning_rate: float, seed: int, name: str,
    validation: Validation | None = None, opponent: Opponent | None = None,
) -> Best:  # fmt: skip
    """Take `steps` steps of Adam on loss(generator), a mean over a batch in nats; the model stays as the last left it.

    Returns the weights with the least error of the validation, the first of them; without one the last.
    name: for a line printed each tenth, with an estimate of what is left; nothing is printed without.
    Raises FloatingPointError where the loss is not finite, or the validation's error never is.
    """
    generator = torch.Generator().manual_seed(seed)
    if opponent:
        theirs = torch.optim.Adam(opponent.part.parameters(), learning_rate, betas=(0.5, 0.9))
        opponent.part.requires_grad_(False)  # the rest's optimiser and loss leave it alone
    ours = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], learning_rate)
    best = _looked(model, validation, 0, Best(0, math.inf, {}))
    tenth, since, start = max(steps // 10, 1), [], time.monotonic()
    for step in range(1, steps + 1):
        for _ in range(opponent.rounds if opponent else 0):
            opponent.part.requires_grad_(True)
            _take(theirs, opponent.loss(generator))
            opponent.part.requires_grad_(False)
        since.append(_take(ours, loss(generator)))
        if step % tenth == 0 or step == steps:
            mean = float(torch.stack(since).mean())
            since.clear()
            if not math.isfinite(mean):
                raise FloatingPointError(f"{name}: the loss is not finite before step {step}; try a smaller rate")
            left = (time.monotonic() - start) / step * (steps - step)
            if name:
                print(f"{name}: step {step:,} of {steps:,}, loss {mean:.1f}, {left:.0f} s left", flush=True)
        best = _looked(model, validation, step, best)
    if validation and not best.weights:
        raise FloatingPointError(f"{name}: the error was never finite; try a smaller rate")
    return best if validation else Best(steps, math.nan, model.state_dict())


def _take(optimiser: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return loss.detach()


@torch.no_grad()
def _looked(model: nn.Module, validation: Validation | None, step: int, best: Best) -> Best:
    if validation is None or step not in validation.after or not (error := validation.measure(model)) < best.error:
        return best
    return Best(step, error, {name: value.clone() for name, value in model.state_dict().items()})


def obtain(
    name: str, profile: str, settings: Mapping[str, object],
    carry_out: Callable[[object, Workshop], tuple[Mapping, Mapping, Mapping[str, Tensor]]],
    data_root: str | None = None, out: str | Path | None = None,
) -> Found:  # fmt: skip
    """The committed record of an experiment, or that of a run made now; prints the notes on its data.

    settings: profile -> a dataclass. carry_out(settings, workshop) -> (identity of its data, metrics, tensors).
    data_root: a folder or "stand-in"; None: QMVAE_DATA_ROOT or data/, and for "smoke" the stand-in. out: the folder of
    records, from the root of the repository; None: results/neighbours for "committed", runs/neighbours/PROFILE else.
    Raises ValueError for an unknown profile or parameter of the notebook that asks, and RecordError where there is no
    committed record, or one whose tensors are others.
    """
    pages.check({"profile": profile, "data_root": data_root, "out": out})
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; the known ones are {list(PROFILES)}")
    if profile == COMMITTED and data_root is not None:
        raise ValueError("data_root has no effect on the committed record; name a profile that is carried out")
    folder = evidence_folder(out or ("results/neighbours" if profile == COMMITTED else f"runs/neighbours/{profile}"))
    if profile != COMMITTED:
        _record(name, profile, settings[profile], carry_out, data_root, folder)
    found = read(folder, name)
    pages.own_up(found.record.profile, found.record.data.kind)
    for note in found.record.data.notes:
        print("-", note)
    return found


def _record(name: str, profile: str, settings, carry_out: Callable, data_root: str | None, folder: Path) -> None:
    code(REPOSITORY)  # which commit this is, asked for before the work
    start = time.monotonic()
    workshop = Workshop(folder / "work" / name, data_root or (STAND_IN if profile == "smoke" else None))
    identity, metrics, tensors = carry_out(settings, workshop)
    save_tensors(folder / f"{name}.safetensors", tensors)
    record = {
        "format": FORMAT, "id": name, "profile": profile, "settings": asdict(settings),
        "data": identity, "metrics": metrics, "seconds": time.monotonic() - start,
        "tensors_sha256": file_hash(folder / f"{name}.safetensors"),
        "provenance": provenance(),
    }  # fmt: skip
    write_json(folder / f"{name}.json", record)


def read(folder: Path, name: str) -> Found:
    """The record of an experiment in a folder, with its tensors.

    Raises RecordError for one that is missing, damaged, of another experiment or without its tensors, and for a metric
    that is not a number.
    """
    path = folder / f"{name}.json"
    record, again = read_record(path), "run the experiment again"
    if record.id != name:
        raise RecordError(f"{path} is the record of {record.id}; {again}")
    if wrong := re.search(r'"(nan|-?inf)"', json.dumps(record["metrics"])):
        raise RecordError(f"{path} has a metric that is {wrong[1]}, so nothing follows from it; {again}")
    tensors = path.with_suffix(".safetensors")
    if not record.holds(tensors):
        raise RecordError(f"{tensors} is missing or not the one that its record names; {again}")
    return Found(record, load_file(tensors))
