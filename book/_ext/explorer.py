"""Writes the trained model that the explorer page runs into the built book, from the committed record and weights."""

import base64
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from qmvae_core.kernels import TransposedConvolution
from qmvae_core.names import BEST
from qmvae_study.evidence.folder import RESULTS
from qmvae_study.evidence.pictures import panel_images
from qmvae_study.evidence.records import Record, RecordError, load_records
from qmvae_study.report import tables
from qmvae_study.runs import load_model


def best_record(evidence: Path) -> Record:
    """The record of the best reading with the lowest seed whose weights are there. Raises RecordError without any."""
    for record in tables.longest(load_records(evidence / "runs", reading=BEST)):
        if (evidence / "weights" / f"{record.id}.safetensors").exists():
            return record
    raise RecordError(
        f"the explorer needs weights of {BEST!r} in {evidence / 'weights'}; a run of its record writes them"
    )


def _numbers(values: torch.Tensor) -> str:
    return base64.b64encode(values.detach().numpy().astype("<f4").tobytes()).decode()


def _layers(decoder: nn.Module) -> list[dict]:
    found = []
    for layer in decoder:
        if isinstance(layer, nn.ReLU):
            found.append({"kind": "relu"})
        elif isinstance(layer, nn.Linear | TransposedConvolution):
            kind = "dense" if isinstance(layer, nn.Linear) else "upsample"
            found.append({"kind": kind, "weight": _numbers(layer.weight), "bias": _numbers(layer.bias)})
            if kind == "upsample":
                found[-1]["channels"] = [layer.in_channels, layer.out_channels]
        elif not isinstance(layer, nn.Unflatten):
            raise TypeError(f"the explorer cannot compute a layer of the kind {type(layer).__name__}")
    return found


@torch.no_grad()
def codes_of_digits(model: nn.Module, record: Record, evidence: Path) -> dict[str, torch.Tensor]:
    """Means of q(z | image) for the first test image of each digit, as the panels show them: name -> (10, shared)."""
    images = {}
    for source in model.config.modalities:
        target = next(name for name in model.config.modalities if name != source)
        pixels = panel_images(record.panel("cross_generation", source, target), evidence / "panels")
        images[source] = torch.from_numpy(pixels["conditions"][0].astype(np.float32) / 255)
    subsets = {" and ".join(name.upper() for name in images): images}
    subsets |= {name.upper(): {name: each} for name, each in images.items()}
    return {name: model.encode_shared(given).mean for name, given in subsets.items()}


def exported(evidence: Path) -> dict:
    """All that the page computes with."""
    record = best_record(evidence)
    model = load_model(record, evidence)
    return {
        "about": f"Record {record.id}: {record.steps:,} steps on {record.data.kind} data.",
        "codes": {name: each.tolist() for name, each in codes_of_digits(model, record, evidence).items()},
        "modalities": {
            name: {
                "shape": list(m.shape),
                "layers": _layers(model.decoders[name]),
                "information": record.private_information(name),
            }
            for name, m in model.config.modalities.items()
        },
    }


def write_model(app, exception):
    """At the end of a build, beside the page's script."""
    if exception is None and app.builder.format == "html":
        text = f"window.QMVAE_MODEL = {json.dumps(exported(RESULTS))};\n"
        (Path(app.outdir) / "_static" / "explorer-model.js").write_text(text)


def setup(app):
    """Called by Sphinx."""
    app.connect("build-finished", write_model)
    return {"version": "1", "parallel_read_safe": True}
