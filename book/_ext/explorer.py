"""Writes what the explorer page computes with into the built book, from committed records, weights and judges.

`explorer-data.js` is loaded with the page: codes, images given, and the first pictures. The weights, as large as they
are in 32-bit floats, follow in `explorer-NAME.js` when a reader first touches a control. They are scripts, because a
browser refuses to fetch other files for a page that is opened from a disk.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

from qmvae_core import kernels
from qmvae_core.names import BEST
from qmvae_study.evidence.folder import RESULTS
from qmvae_study.evidence.pictures import panel_images
from qmvae_study.evidence.records import Record, RecordError, load_records
from qmvae_study.judges import load_oracle
from qmvae_study.runs import load_model

FIRST, SECOND = 4, 9  # the digit that the page opens with, and that to which it can walk


def records_to_show(evidence: Path) -> dict[str, Record]:
    """The records "long" and "short": of the best reading, with the most and the fewest steps, lowest seed first.

    Raises RecordError where no record of it has its weights.
    """
    found = [
        record
        for record in load_records(evidence / "runs", reading=BEST, status="ok")
        if (evidence / "weights" / f"{record.id}.safetensors").exists()
    ]
    if not found:
        raise RecordError(
            f"the explorer needs weights of {BEST!r} in {evidence / 'weights'}; a run of its record writes them"
        )
    found.sort(key=lambda record: (record.steps, record.seed))
    return {"long": next(each for each in found if each.steps == found[-1].steps), "short": found[0]}


def judges(evidence: Path, modalities: Mapping) -> dict[str, nn.Module]:
    """Modality -> its judge."""
    return {name: load_oracle(name, evidence / "oracles") for name in modalities}


def _text(values: torch.Tensor | np.ndarray) -> str:
    """Floats as they are, and bytes."""
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _leaves(network: nn.Module) -> list[nn.Module]:
    """The layers in order, each normalisation of a batch as a part of the convolution before it."""
    found = []
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            found[-1] = fuse_conv_bn_eval(found[-1], layer)
        elif not list(layer.children()) and not isinstance(layer, nn.Flatten | nn.Unflatten | nn.Dropout):
            found.append(layer)
    return found


KINDS = {
    nn.Linear: "dense",
    kernels.Linear: "dense",
    nn.Conv2d: "convolve",
    kernels.TransposedConvolution: "upsample",
    nn.ReLU: "relu",
    nn.MaxPool2d: "pool",
    nn.AdaptiveAvgPool2d: "quarters",
}


@torch.no_grad()
def layers_of(network: nn.Module) -> list[dict]:
    """What the page computes a network with. Raises TypeError for a layer that it cannot compute."""
    found, channels = [], 0
    for layer in _leaves(network):
        if type(layer) not in KINDS:
            raise TypeError(f"the explorer cannot compute a layer of the kind {type(layer).__name__}")
        channels = getattr(layer, "out_channels", channels)
        found.append({"kind": KINDS[type(layer)], "channels": channels})
        if hasattr(layer, "weight"):
            found[-1] |= {"weight": _text(layer.weight), "bias": _text(layer.bias)}
    return found


def images_given(record: Record, evidence: Path) -> dict[str, np.ndarray]:
    """Modality -> the first test image of each digit, as its panels have them: (10, c, h, w) uint8."""
    names = list(record.setting("model", "modalities"))
    pairs = zip(names, reversed(names), strict=True)
    panels = {source: record.panel("cross_generation", source, target) for source, target in pairs}
    return {name: panel_images(panel, evidence / "panels")["conditions"][0] for name, panel in panels.items()}


@torch.no_grad()
def codes_of(model: nn.Module, given: Mapping[str, np.ndarray]) -> dict[str, dict[str, torch.Tensor]]:
    """Means of the codes of given images: "shared", by which of them an encoder sees, and "private", by modality."""
    images = {name: torch.from_numpy(each.astype(np.float32) / 255) for name, each in given.items()}
    seen = {" and ".join(name.upper() for name in images): images}
    seen |= {name.upper(): {name: each} for name, each in images.items()}
    return {
        "shared": {name: model.encode_shared(each).mean for name, each in seen.items()},
        "private": {name: model.encode_private(name, each).mean for name, each in images.items()},
    }


@torch.no_grad()
def pictures(model: nn.Module, of_judges: Mapping, shared: torch.Tensor, private: Mapping) -> dict[str, tuple]:
    """Modality -> the image (c, h, w) from its codes, and the probabilities (10,) that its judge gives the digits."""
    found = {}
    for name, judge in of_judges.items():
        image = model.decode(name, shared[None], private[name][None])
        found[name] = (image[0], judge(image).softmax(dim=-1)[0])
    return found


def _first(model: nn.Module, of_judges: Mapping, shared: torch.Tensor) -> dict[str, dict]:
    """The pictures before a control is touched, with private codes of zero."""
    zeros = {name: torch.zeros(m.private) for name, m in model.config.modalities.items()}
    found = pictures(model, of_judges, shared, zeros)
    return {name: {"image": _text(image), "read": read.tolist()} for name, (image, read) in found.items()}


def exported(evidence: Path) -> dict[str, dict]:
    """Name of a file -> what it holds: "data", and the weights of "long", "short" and "judges"."""
    records = records_to_show(evidence)
    models = {name: load_model(record, evidence) for name, record in records.items()}
    modalities = models["long"].config.modalities
    given = images_given(records["long"], evidence)
    codes = {name: codes_of(model, given) for name, model in models.items()}
    of_judges = judges(evidence, modalities)
    first = next(iter(codes["long"]["shared"].values()))[FIRST]
    networks = {name: model.decoders for name, model in models.items()} | {"judges": of_judges}
    weights = {name: {each: layers_of(found[each]) for each in modalities} for name, found in networks.items()}
    data = {
        "digit": FIRST,
        "to": SECOND,
        "megabytes": {name: len(json.dumps(each)) / 1e6 for name, each in weights.items()},
        "shapes": {name: list(m.shape) for name, m in modalities.items()},
        "given": {name: _text(each) for name, each in given.items()},
        "first": _first(models["long"], of_judges, first),
        "models": {
            name: {
                "record": record.id,
                "steps": record.steps,
                "information": {each: record.private_information(each) for each in modalities},
                **{code: {of: each.tolist() for of, each in found.items()} for code, found in codes[name].items()},
            }
            for name, record in records.items()
        },
    }
    return {"data": data} | weights


def write_models(app, exception):
    """At the end of a build, beside the page's script."""
    if exception is None and app.builder.format == "html":
        for name, content in exported(RESULTS).items():
            text = f"(window.QMVAE ??= {{}}).{name} = {json.dumps(content)};\n"
            (Path(app.outdir) / "_static" / f"explorer-{name}.js").write_text(text)


def setup(app):
    """Called by Sphinx."""
    app.connect("build-finished", write_models)
    return {"version": "1", "parallel_read_safe": True}
