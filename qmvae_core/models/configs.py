"""What a model is made of: one modality, and the choices that every model has. Values are checked as they are given."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from qmvae_core.likelihoods import Likelihood, likelihood
from qmvae_core.names import known

LARGEST = 2**32  # of seeds in NumPy, and no size or count of a run comes near it


class Checked:
    """A dataclass whose fields are held against their types when it is made.

    No number may be negative, infinite or NaN, no integer as large as LARGEST, and none of the fields in `positive`
    zero. True is no number, and an integer will do for a float. Raises ValueError that names class, field, type, value.
    """

    positive: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        hints = typing.get_type_hints(type(self))
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            zero = each.name in self.positive and 0 in (value if isinstance(value, tuple) else (value,))
            if zero or not _fits(value, hints[each.name]):
                sign = "positive " if each.name in self.positive else ""
                below = "; integers lie below 2**32" if "int" in each.type else ""
                raise ValueError(f"{type(self).__name__}: {each.name} must be {sign}{each.type}, not {value!r}{below}")


def _fits(value: object, hint: object) -> bool:
    parts = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, tuple):
            return False
        wanted = parts[:1] * len(value) if parts[1:] == (...,) else parts
        return len(wanted) == len(value) and all(map(_fits, value, wanted))
    if parts:  # of a mapping
        return isinstance(value, Mapping) and all(_fits(k, parts[0]) and _fits(v, parts[1]) for k, v in value.items())
    if hint in (int, float):
        number = isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
        return number and 0 <= value < (LARGEST if hint is int else math.inf)
    return isinstance(value, hint)


@dataclass(frozen=True)
class ModalityConfig(Checked):
    """One modality. What the paper leaves open is marked (open). Raises ValueError like Checked."""

    positive = ("shape", "widths", "scale")

    shape: tuple[int, ...]  # (channels, height, width); of one-hot (classes,) labels or (places, characters) text
    network: str  # "dense" for MNIST and "convolutional" for SVHN in the paper; "sequence" for text
    widths: tuple[int, ...]  # hidden units or channels, from the image inwards (open)
    private: int = 10  # dimensions of the private code h (open; Figure 5 shows ten)
    encoders: str = "separate"  # networks for z and h: "separate", or "common" up to the last layer (open)
    likelihood: str = "laplace"  # one of likelihoods.LIKELIHOODS; "laplace", "bernoulli" or "normal" of images (open)
    scale: float = 0.75  # of the Laplace or normal likelihood (open)
    weight: float = 1.0  # of the log-likelihood, against the other modalities (open; 1 is the plain bound)
    private_kl_weight: float = 1.0  # of KL(q(h|x) ‖ p(h)) (open; 1 is the plain bound)

    def observed(self) -> Likelihood:
        """The likelihood of an observation. Raises ValueError for an unknown one."""
        return likelihood(self.likelihood, self.scale, len(self.shape))


@dataclass(frozen=True)
class ModelConfig(Checked):
    """The choices that every model has. A model adds its own in a subclass, declared with the model's name.

    What the paper leaves open is marked (open). Raises ValueError like Checked.
    """

    positive = ("shared",)

    model: str
    shared: int = 20  # dimensions of z, section 4.1
    test_code: str = "mean"  # z for cross generation: the "mean" of q(z|x) or a "sample" from it (open)
    modalities: Mapping[str, ModalityConfig] = field(default_factory=dict)

    of_model: ClassVar[dict[str, type[ModelConfig]]] = {}

    @property
    def plateau(self) -> tuple[str, float] | None:
        """A term of the loss and its value while all codes lie in one place, where it can stand still; or None."""
        return None

    def __init_subclass__(cls, model: str | None = None):
        if model is not None:
            ModelConfig.of_model[model] = cls

    def to_dict(self) -> dict:
        """Plain dictionaries, lists and numbers, ready for JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @staticmethod
    def from_dict(values: Mapping) -> ModelConfig:
        """The inverse of `to_dict`. Raises ValueError for an unknown model or field."""
        values = dict(values)
        kind = known(ModelConfig.of_model, "model", values.get("model"))
        if isinstance(given := values.get("modalities", {}), Mapping):
            values["modalities"] = {name: from_known_fields(ModalityConfig, m) for name, m in given.items()}
        return from_known_fields(kind, values)


def from_known_fields(cls: type, values: Mapping):
    """cls(**values), lists as tuples, with a ValueError that lists the known fields if one of them is unknown."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{cls.__name__} needs a mapping of its fields, not {values!r}")
    known = {f.name for f in dataclasses.fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"unknown {cls.__name__} field {', '.join(unknown)}; the known ones are {sorted(known)}")
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
