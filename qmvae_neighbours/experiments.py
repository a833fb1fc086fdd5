"""What the chapters on the neighbours share: a profile, a training loop, and a record with what there is to draw.

A chapter shows the committed record of its experiment, or carries the experiment out and shows what came of it.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from qmvae_core.data import STAND_IN
from qmvae_core.data.sources import DEFAULT_ROOT
from qmvae_study.evidence.folder import REPOSITORY
from qmvae_study.evidence.provenance import provenance
from qmvae_study.evidence.records import FORMAT, RecordError, config_hash, read_record, write_json
from qmvae_study.evidence.weights import save_tensors

COMMITTED = "committed"
PROFILES = (COMMITTED, "smoke", "quick")


class Found(NamedTuple):
    """What an experiment leaves. record: JSON, its numbers under "metrics". tensors: what figures are drawn from."""

    record: dict
    tensors: dict[str, Tensor]

    @property
    def metrics(self) -> dict:
        """The record's numbers."""
        return self.record["metrics"]

    @property
    def settings(self) -> dict:
        """What the experiment was carried out with."""
        return self.record["settings"]

    @property
    def real(self) -> bool:
        """Whether the data were real, and no stand-in."""
        return self.record["data"]["kind"] == "real"


class Workshop(NamedTuple):
    """What an experiment is given: a folder for finished trainings, and the data root to read, None to look for one.

    Trainings are kept there, so that an experiment that was killed repeats the last of them alone.
    """

    folder: Path
    data_root: str | None = None

    def trained(self, model: nn.Module, settings: Mapping, train: Callable[[nn.Module], object]) -> nn.Module:
        """The model with the weights of an earlier run with these settings, or trained now; in evaluation mode, frozen.

        settings: whatever the weights depend on: configuration, length, seed, the content hash of the data.
        Raises RecordError where the weights that were kept do not fit the model.
        """
        path = self.folder / f"{config_hash(settings)}.safetensors"
        if path.exists():
            try:
                model.load_state_dict(load_file(path))
            except RuntimeError as error:
                raise RecordError(f"{path} holds weights of another network; delete it: {error}") from None
        else:
            train(model)
            save_tensors(path, model.state_dict())
        return model.eval().requires_grad_(False)


def fit(
    model: nn.Module, loss: Callable[[torch.Generator], Tensor], steps: int, learning_rate: float, seed: int, name: str
) -> None:
    """Take `steps` steps of Adam on loss(generator), a mean over a batch in nats.

    Prints a line each tenth, with an estimate of what is left. Raises FloatingPointError where the loss is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], learning_rate)
    tenth, since, start = max(steps // 10, 1), [], time.monotonic()
    for step in range(1, steps + 1):
        value = loss(generator)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
        since.append(value.detach())
        if step % tenth == 0 or step == steps:
            mean = float(torch.stack(since).mean())
            since.clear()
            if not math.isfinite(mean):
                raise FloatingPointError(
                    f"{name}: the loss is not finite before step {step}; try a smaller learning rate"
                )
            left = (time.monotonic() - start) / step * (steps - step)
            print(f"{name}: step {step:,} of {steps:,}, loss {mean:.1f}, {left:.0f} s left", flush=True)


def series_file(root: str | Path | None, file: str) -> Path | None:
    """A file below a data root (without one: QMVAE_DATA_ROOT or data/), or None where the root has none.

    For the root "stand-in" it is None too. That the series is then made up is printed.
    """
    root = root or os.environ.get("QMVAE_DATA_ROOT") or DEFAULT_ROOT
    path = Path(root).expanduser() / file
    if str(root) != STAND_IN and path.is_file():
        return path
    reason = "was wanted" if str(root) == STAND_IN else f"{Path(root).expanduser()} has no {file}"
    # Printed and not warned: a warning goes to standard error, which a strict notebook check reads as a failure.
    print(f"STAND-IN DATA ({reason}): the series is made up. Its numbers say that the code runs, and nothing else.")
    return None


def obtain(
    name: str,
    profile: str,
    settings: Mapping[str, object],
    carry_out: Callable[[object, Workshop], tuple[Mapping, Mapping, Mapping[str, Tensor]]],
    data_root: str | None = None,
    out: str | Path | None = None,
) -> Found:
    """The committed record of an experiment, or that of a run made now; prints the notes on its data.

    settings: profile -> a dataclass. carry_out(settings, workshop) -> (identity of its data, metrics, tensors).
    data_root: a folder or "stand-in"; None: QMVAE_DATA_ROOT or data/, and for "smoke" the stand-in. out: the folder of
    records, from the root of the repository; None: results/neighbours for "committed", runs/neighbours/PROFILE else.
    Raises ValueError for an unknown profile, and RecordError where there is no committed record, or one whose
    tensors are others.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; the known ones are {list(PROFILES)}")
    usual = "results/neighbours" if profile == COMMITTED else f"runs/neighbours/{profile}"
    folder = REPOSITORY / (out or usual)
    if profile != COMMITTED:
        carried_out(name, profile, settings[profile], carry_out, data_root, folder)
    found = read(folder, name)
    for note in found.record["data"]["notes"]:
        print("-", note)
    return found


def carried_out(
    name: str, profile: str, settings: object, carry_out: Callable, data_root: str | None, folder: Path
) -> None:
    """Carry an experiment out and write its record and tensors to a folder; arguments as for `obtain`."""
    start, code = time.monotonic(), provenance()  # before the files that this run adds to the repository
    workshop = Workshop(folder / "work" / name, data_root or (STAND_IN if profile == "smoke" else None))
    identity, metrics, tensors = carry_out(settings, workshop)
    save_tensors(folder / f"{name}.safetensors", tensors)
    record = {
        "format": FORMAT, "id": name, "profile": profile, "settings": asdict(settings),
        "data": identity, "metrics": metrics, "seconds": time.monotonic() - start,
        "tensors_sha256": _sha256(folder / f"{name}.safetensors"),
        "provenance": {**provenance(), "commit": code["commit"], "dirty": code["dirty"]},
    }  # fmt: skip
    write_json(folder / f"{name}.json", record)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read(folder: Path, name: str) -> Found:
    """The record of an experiment in a folder, with its tensors."""
    record = read_record(folder / f"{name}.json")
    path = folder / f"{name}.safetensors"
    if not path.exists() or _sha256(path) != record["tensors_sha256"]:
        raise RecordError(f"{path} is missing or not the one that its record names; run the experiment again")
    return Found(record, load_file(path))
