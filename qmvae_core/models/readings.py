"""Named configurations: how the paper can be read, and the other models on the same networks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from qmvae_core.models.configs import ModalityConfig, ModelConfig
from qmvae_core.models.dmvae import DMVAEConfig
from qmvae_core.models.jmvae import JMVAEConfig
from qmvae_core.models.mmvae import MMVAEConfig
from qmvae_core.models.mopoe import MoPoEConfig
from qmvae_core.models.mvae import MVAEConfig
from qmvae_core.models.qmvae import QMVAEConfig
from qmvae_core.names import BEST, known

MNIST = ModalityConfig(shape=(1, 28, 28), network="dense", widths=(400,))
SVHN = ModalityConfig(shape=(3, 32, 32), network="convolutional", widths=(32, 64, 128))


def _reading(
    kind: type[ModelConfig], mnist: Mapping | None = None, svhn: Mapping | None = None, **choices
) -> ModelConfig:
    modalities = {
        "mnist": dataclasses.replace(MNIST, **(mnist or {})),
        "svhn": dataclasses.replace(SVHN, **(svhn or {})),
    }
    return kind(modalities=modalities, **choices)


# The modalities of the models without private codes, with the likelihoods and weights of "default".
_SHARED_ALONE = {
    "mnist": {"encoders": "common", "weight": 3072 / 784, "private": 0},
    "svhn": {"encoders": "common", "private": 0},
}

# A reading is one complete answer to the paper's open points. "as-printed" adds nothing to the equations, gives every
# code the one latent dimension that is printed, and every encoder parameters of its own, as the notation has it.
# "default" keeps the digit out of the private codes, and lets z and h of a modality share an encoder up to its last
# layer: with separate encoders the quadruplet loss stays at 2 α1 + α2 for most of a short run (appendix A1).
# The models without private codes have likelihoods as MMVAE's authors weigh them. "mmvae" has fewer particles than they
# have, since each is a pass through every decoder; "mmvae+particles=30" has theirs.
READINGS = {
    "as-printed": _reading(QMVAEConfig, mnist={"private": 20}, svhn={"private": 20}),
    "default": _reading(
        QMVAEConfig,
        mnist={"encoders": "common", "weight": 3072 / 784, "private_kl_weight": 5.0},
        svhn={"encoders": "common", "private_kl_weight": 5.0},
    ),
    "mvae": _reading(MVAEConfig, **_SHARED_ALONE),
    "mmvae": _reading(MMVAEConfig, **_SHARED_ALONE),
    "mopoe": _reading(MoPoEConfig, **_SHARED_ALONE),
    "jmvae": _reading(JMVAEConfig, **_SHARED_ALONE),
    # The digest of the JMVAE paper names no value of α; 0.1 is the default of the package multivae.
    "jmvae-kl": _reading(JMVAEConfig, **_SHARED_ALONE, alpha=0.1),
    # The sizes and weights of the authors' command for MNIST-SVHN. Their likelihood is the mean over the first group
    # plus the mean over the second, so it counts twice beside the terms that are means over the batch. What is of the
    # training and not of the model: Adam at 1e-3, batches of 1024, 50 epochs.
    "dmvae": _reading(
        DMVAEConfig,
        mnist={"encoders": "common", "scale": 0.1, "weight": 2 * 3.92, "private_kl_weight": 100.0},
        svhn={"encoders": "common", "scale": 0.1, "weight": 2.0, "private_kl_weight": 50.0},
        shared=10,
        total_correlation={"mnist": 500.0, "svhn": 100.0},
    ),
}


def reading(name: str) -> ModelConfig:
    """The named reading of the paper, with changes if the name has any.

    "best", or for example "default+negatives=hardest+svhn.private=4": each change names a field of the config, or a
    field of one modality ("all" for every modality), and a value in JSON or a plain word. Changes of the training,
    "training.field=value", have no say here.
    Raises ValueError for an unknown reading, modality or field, and for a change that is not field=value.
    """
    base, *changes = name.split("+")
    values = known(READINGS, "reading", base).to_dict()
    each = values["modalities"]
    parts = {"": [values], "all": list(each.values()), **{modality: [of] for modality, of in each.items()}}
    for change in changes:
        place, key, value = _parsed(change)
        if place not in (*parts, "training") or key == "modalities":
            raise _unreadable(change)
        if place != "training":
            for part in parts[place]:
                part[key] = value
    return ModelConfig.from_dict(values)


def training_changes(name: str) -> dict[str, object]:
    """The changes of the training in a reading's name: {"epochs": 50} for "default+training.epochs=50"."""
    parsed = [_parsed(change) for change in name.split("+")[1:]]
    return {key: value for place, key, value in parsed if place == "training"}


def _parsed(change: str) -> tuple[str, str, object]:
    place, equals, text = change.partition("=")
    if not equals:
        raise _unreadable(change)
    where, _, key = place.rpartition(".")
    try:
        return where, key, json.loads(text)
    except json.JSONDecodeError:
        return where, key, text


def _unreadable(change: str) -> ValueError:
    return ValueError(f"cannot read the change {change!r}; write field=value or modality.field=value")


# "default" with the values of the open points that helped, by the rule of `sensitivity` (appendix A1).
CHOSEN = "default+all.private=4+mnist.weight=1"
READINGS[BEST] = reading(CHOSEN)
