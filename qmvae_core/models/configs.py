"""What a model is made of: one modality, and the choices that every model has."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class ModalityConfig:
    """One modality. What the paper leaves open is marked (open)."""

    shape: tuple[int, int, int]  # channels, height, width
    network: str  # "dense" for MNIST and "convolutional" for SVHN in the paper
    widths: tuple[int, ...]  # hidden units or channels, from the image inwards (open)
    private: int = 10  # dimensions of the private code h (open; Figure 5 shows ten)
    encoders: str = "separate"  # networks for z and h: "separate", or "common" up to the last layer (open)
    likelihood: str = "laplace"  # "laplace", "bernoulli" or "normal" (open)
    scale: float = 0.75  # of the Laplace or normal likelihood (open)
    weight: float = 1.0  # of the log-likelihood, against the other modalities (open; 1 is the plain bound)
    private_kl_weight: float = 1.0  # of KL(q(h|x) ‖ p(h)) (open; 1 is the plain bound)


@dataclass(frozen=True)
class ModelConfig:
    """The choices that every model has. A model adds its own in a subclass, declared with the model's name.

    What the paper leaves open is marked (open).
    """

    model: str
    shared: int = 20  # dimensions of z, section 4.1
    test_code: str = "mean"  # z for cross generation: the "mean" of q(z|x) or a "sample" from it (open)
    modalities: Mapping[str, ModalityConfig] = field(default_factory=dict)

    of_model: ClassVar[dict[str, type[ModelConfig]]] = {}

    def __init_subclass__(cls, model: str | None = None):
        if model is not None:
            ModelConfig.of_model[model] = cls

    def to_dict(self) -> dict:
        """Plain dictionaries, lists and numbers, ready for JSON."""
        return _plain(dataclasses.asdict(self))

    @staticmethod
    def from_dict(values: Mapping) -> ModelConfig:
        """The inverse of `to_dict`. Raises ValueError for an unknown model or field."""
        values = dict(values)
        kind = known(ModelConfig.of_model, "model", values.get("model"))
        modalities = {
            name: from_known_fields(ModalityConfig, {**m, "shape": tuple(m["shape"]), "widths": tuple(m["widths"])})
            for name, m in values.pop("modalities", {}).items()
        }
        return from_known_fields(kind, {**values, "modalities": modalities})


def known(table: Mapping, what: str, name: str):
    """table[name], with a ValueError that lists the known names if it has none."""
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}; the known ones are {sorted(table)}")
    return table[name]


def from_known_fields(cls: type, values: Mapping):
    """cls(**values), with a ValueError that lists the known fields if one of them is unknown."""
    known = {f.name for f in dataclasses.fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"unknown {cls.__name__} field {', '.join(unknown)}; the known ones are {sorted(known)}")
    return cls(**values)


def _plain(value):
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
