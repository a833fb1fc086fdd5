"""The judges on disk: weights and the record of their training. Those of the real data are committed.

A folder holds one judge for each modality. Of the published recipe there are several, in folders named by their seeds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from qmvae_core.data import DigitData
from qmvae_core.files import file_hash
from qmvae_study.evidence.folder import alone
from qmvae_study.evidence.provenance import provenance
from qmvae_study.evidence.records import Record, read_json, write_json
from qmvae_study.evidence.weights import save_tensors
from qmvae_study.oracles import (
    CONFIGS,
    RECIPES,
    DigitClassifier,
    OracleConfig,
    PublishedConfig,
    train_oracle,
    train_published,
)  # fmt: skip


class OracleError(RuntimeError):
    """An oracle is missing or does not belong to the data; the message says what to do."""


def save_oracle(
    model: DigitClassifier,
    data: DigitData,
    config: OracleConfig | PublishedConfig,
    seconds: float,
    folder: Path,
    losses: Sequence[float] = (),
) -> dict:
    """Write the weights and the record of one oracle's training; returns the record. losses: of each epoch."""
    device = next(model.parameters()).device
    weights, about = _files(model.modality, folder)
    save_tensors(weights, model.state_dict())
    record = {
        "modality": model.modality,
        "recipe": next(name for name, kind in RECIPES.items() if isinstance(config, kind)),
        "config": asdict(config),
        "losses": list(losses),
        "accuracy": {"test": model.accuracy(data.test[model.modality].to(device))},
        "n_test": len(data.test[model.modality]),
        "data": data.identity,
        "provenance": provenance(device),
        "seconds": seconds,
        "weights_sha256": file_hash(weights),
    }
    write_json(about, record)
    return record


def _files(modality: str, folder: Path) -> tuple[Path, Path]:
    """Where the weights and the record of an oracle lie."""
    return Path(folder) / f"{modality}.safetensors", Path(folder) / f"{modality}.json"


def judges_there(folder: Path) -> dict[str, str]:
    """Modality -> the hash of its judge's weights, of the judges that have a record in a folder."""
    found = [read_json(path) for path in sorted(Path(folder).glob("[!.]*.json"))]
    return {about["modality"]: about["weights_sha256"] for about in found}


def load_oracle(modality: str, folder: Path, kind: str = "real") -> DigitClassifier:
    """The saved oracle of a modality, in eval mode, for data of a kind ("real" or "stand-in").

    Its `sha256` is that of its weights, by which records name it. Raises OracleError if there is none, if it was
    trained on another kind of data, and if its weights are not those that its record names.
    """
    weights, record = _files(modality, folder)
    if not (weights.exists() and record.exists()):
        raise OracleError(
            f"no oracle for {modality} in {folder}; train it with: python -m qmvae_study oracles --out {folder}"
        )
    about = Record(read_json(record))
    if about["data"]["kind"] != kind:
        raise OracleError(
            f"the oracle in {folder} was trained on {about['data']['kind']} data and cannot judge {kind} data; "
            "choose another folder"
        )
    if not about.holds(weights) or about["modality"] != modality:
        raise OracleError(f"{weights} is not the oracle of its record; fetch both, or delete both to train it anew")
    model = DigitClassifier(modality, RECIPES[about.get("recipe", "ours")](**about["config"]))
    model.load_state_dict(load_file(weights))
    model.sha256 = about["weights_sha256"]
    return model.eval()


def prepare_oracles(
    data: DigitData,
    folder: Path,
    configs: Mapping[str, OracleConfig] = CONFIGS,
    device: str | torch.device = "cpu",
    train_missing: bool = True,
) -> Mapping[str, DigitClassifier]:
    """One oracle for each modality that has a config, loaded from the folder, or trained and saved where missing."""
    found = {}
    for modality, digits in data.train.items():
        if modality not in configs:  # its judge has nothing to learn
            continue
        try:
            found[modality] = load_oracle(modality, folder, data.identity["kind"])
        except OracleError:
            if not train_missing or all(path.exists() for path in _files(modality, folder)):
                raise
            started = time.monotonic()
            trained = train_oracle(modality, digits, configs[modality], device)
            save_oracle(trained, data, configs[modality], time.monotonic() - started, folder)
            found[modality] = load_oracle(modality, folder, data.identity["kind"])
    return {modality: model.to(device) for modality, model in found.items()}


def prepare_published(
    data: DigitData, folder: Path, seeds: Sequence[int], config: PublishedConfig, work: Path, device: str = "cpu"
) -> dict[int, Mapping[str, DigitClassifier]]:
    """Judges of the published recipe of some seeds, trained where they are missing; work: for their checkpoints.

    Raises RuntimeError if another process trains one of them and does not end.
    """
    for seed in seeds:
        with alone(work / str(seed)):
            for modality in data.train:
                if all(path.exists() for path in _files(modality, folder / str(seed))):
                    continue
                started, own = time.monotonic(), replace(config, seed=seed)
                model, losses = train_published(modality, data.train, own, work / str(seed), device)
                save_oracle(model, data, own, time.monotonic() - started, folder / str(seed), losses)
    found = load_published(data, folder, device)
    return {seed: found[seed] for seed in seeds}


def load_published(
    data: DigitData, folder: Path, device: str | torch.device = "cpu"
) -> dict[int, Mapping[str, DigitClassifier]]:
    """Seed -> the judges of the published recipe in a folder; empty where there are none. Raises like `load_oracle`."""
    seeds = sorted(int(path.name) for path in folder.glob("[0-9]*")) if folder.is_dir() else []
    kind = data.identity["kind"]
    return {seed: {m: load_oracle(m, folder / str(seed), kind).to(device) for m in data.train} for seed in seeds}
