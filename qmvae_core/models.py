"""Q-MVAE and MVAE, and the small protocol that every model of the book follows.

A loss is a pure function of parameters, batch and noise: the model says with `noise_spec` which draws it needs, and
never draws any itself. So runs with several seeds can be stacked into one, a step can be captured, and a training can
be resumed bit for bit.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor, nn

from qmvae_core import losses, negatives, networks
from qmvae_core.gaussians import DiagonalGaussian, product_of_experts


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
    """A model and all its choices. What the paper leaves open is marked (open)."""

    model: str = "qmvae"
    shared: int = 20  # dimensions of z, section 4.1
    alpha1: float = 2.0
    alpha2: float = 0.8
    beta: float = 1500.0
    negatives: str = "random"  # screening rule, one of negatives.RULES (open)
    candidates: int = 16  # random candidates a pair from which the screening rule chooses (open)
    test_code: str = "mean"  # z for cross generation: the "mean" of q(z|x) or a "sample" from it (open)
    mask_equal_negatives: bool = False  # leave the third term out where x₋ and y₋ show one digit (open)
    modalities: Mapping[str, ModalityConfig] = field(default_factory=dict)

    def to_dict(self) -> dict:
        """Plain dictionaries, lists and numbers, ready for JSON."""
        return _plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping) -> ModelConfig:
        """The inverse of `to_dict`. Raises ValueError for an unknown field."""
        values = dict(values)
        modalities = {
            name: from_known_fields(ModalityConfig, {**m, "shape": tuple(m["shape"]), "widths": tuple(m["widths"])})
            for name, m in values.pop("modalities", {}).items()
        }
        return from_known_fields(cls, {**values, "modalities": modalities})


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


MNIST = ModalityConfig(shape=(1, 28, 28), network="dense", widths=(400,))
SVHN = ModalityConfig(shape=(3, 32, 32), network="convolutional", widths=(32, 64, 128))


def _reading(mnist: Mapping | None = None, svhn: Mapping | None = None, **choices) -> ModelConfig:
    modalities = {
        "mnist": dataclasses.replace(MNIST, **(mnist or {})),
        "svhn": dataclasses.replace(SVHN, **(svhn or {})),
    }
    return ModelConfig(modalities=modalities, **choices)


# A reading is one complete answer to the paper's open points. "as-printed" adds nothing to the equations, gives every
# code the one latent dimension that is printed, and every encoder parameters of its own, as the notation has it.
# "default" keeps the digit out of the private codes, and lets z and h of a modality share an encoder up to its last
# layer: with separate encoders the quadruplet loss stays at 2 α1 + α2 for most of a short run (appendix A0).
READINGS = {
    "as-printed": _reading(mnist={"private": 20}, svhn={"private": 20}),
    "default": _reading(
        mnist={"encoders": "common", "weight": 3072 / 784, "private_kl_weight": 5.0},
        svhn={"encoders": "common", "private_kl_weight": 5.0},
    ),
    "mvae": _reading(
        model="mvae",
        mnist={"encoders": "common", "weight": 3072 / 784, "private": 0},
        svhn={"encoders": "common", "private": 0},
    ),
}


def reading(name: str) -> ModelConfig:
    """The named reading of the paper, with changes if the name has any.

    "default", or for example "default+negatives=hardest+svhn.private=4": each change names a field of the config, or a
    field of one modality, and a value in JSON or a plain word.
    Raises ValueError for an unknown reading, modality or field, and for a change that is not field=value.
    """
    base, *changes = name.split("+")
    if base not in READINGS:
        raise ValueError(f"unknown reading {base!r}; the known ones are {sorted(READINGS)}")
    values = READINGS[base].to_dict()
    for change in changes:
        place, equals, text = change.partition("=")
        modality, dot, key = place.rpartition(".")
        if not equals or (dot and modality not in values["modalities"]) or key == "modalities":
            raise ValueError(f"cannot read the change {change!r}; write field=value or modality.field=value")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        (values["modalities"][modality] if dot else values)[key] = value
    return ModelConfig.from_dict(values)


class NoiseSpec(NamedTuple):
    """One draw that a loss needs: "normal" for N(0, 1) or "uniform" for U[0, 1), and its shape for one batch."""

    kind: str
    shape: tuple[int, ...]


def draw_noise(
    spec: Mapping[str, NoiseSpec], generator: torch.Generator, device: torch.device | str, lead: tuple[int, ...] = ()
) -> dict[str, Tensor]:
    """The draws of a spec, each with the leading dimensions `lead` (for many steps at once), in a fixed order."""
    draws = {"normal": torch.randn, "uniform": torch.rand}
    return {
        name: draws[item.kind]((*lead, *item.shape), generator=generator, device=device)
        for name, item in sorted(spec.items())
    }


class Opponent(NamedTuple):
    """A part of a model that has an optimiser and an objective of its own, such as a discriminator.

    prefix: of its parameters' names. learning_rate and betas: of its Adam.
    """

    prefix: str
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)


class MultimodalVAE(nn.Module):
    """What all models have: encoders and decoders of each modality, and what is done with them after training.

    A model adds `noise_spec` and `loss`. Its loss may use several posteriors of a sample, K particles (a leading
    dimension of the draws) and `detach`. One with an `opponent` returns its objective as `LossTerms.opposing`: the
    opponent's parameters climb that, all others climb `objective`, from the gradients of one pass.

    config: at least two modalities. Each has a decoder of its own, and two encoders, or a common one whose
    last layer gives both posteriors.
    Raises ValueError for fewer than two modalities or an unknown network, encoders, likelihood or test code.
    """

    opponent: Opponent | None = None

    def __init__(self, config: ModelConfig):
        super().__init__()
        if len(config.modalities) < 2:
            raise ValueError(f"a multimodal model needs at least two modalities, got {sorted(config.modalities)}")
        if "joint" in config.modalities:
            raise ValueError("a modality cannot be named 'joint': that is the name of all modalities together")
        _known_code(config.test_code)
        self.config = config
        self.shared_encoders = nn.ModuleDict()
        self.private_encoders = nn.ModuleDict()
        self.common_encoders = nn.ModuleDict()
        self.decoders = nn.ModuleDict()
        for name, m in config.modalities.items():
            if m.likelihood not in losses.LIKELIHOODS:
                raise ValueError(
                    f"modality {name!r}: unknown likelihood {m.likelihood!r}; known: {sorted(losses.LIKELIHOODS)}"
                )
            if m.encoders == "separate" and m.private:
                self.shared_encoders[name] = networks.encoder(m.network, m.shape, m.widths, config.shared)
                self.private_encoders[name] = networks.encoder(m.network, m.shape, m.widths, m.private)
            elif m.encoders in ("separate", "common"):
                self.common_encoders[name] = networks.encoder(m.network, m.shape, m.widths, config.shared + m.private)
            else:
                raise ValueError(f'modality {name!r}: unknown encoders {m.encoders!r}; known: "separate", "common"')
            self.decoders[name] = networks.decoder(m.network, m.shape, m.widths, config.shared + m.private)

    # Inference

    def encode_shared(self, images: Mapping[str, Tensor]) -> DiagonalGaussian:
        """q(z | the given modalities): (batch, shared).

        One modality: its own encoder alone (equations 15-18); several: their product of experts with the prior (8).
        Raises ValueError for an empty subset, an unknown modality or a wrong shape.
        """
        if not images:
            raise ValueError(f"encode_shared needs images of at least one of {sorted(self.config.modalities)}")
        experts = [self._posteriors(name, value)[0] for name, value in images.items()]
        return experts[0] if len(experts) == 1 else product_of_experts(experts)

    def encode_private(self, modality: str, images: Tensor) -> DiagonalGaussian:
        """q(h_m | x_m): (batch, private). Raises ValueError for an unknown modality or a wrong shape."""
        return self._posteriors(modality, images)[1]

    def decode(self, modality: str, shared: Tensor, private: Tensor) -> Tensor:
        """The mean image of p(x_m | z, h_m): (..., c, h, w) in [0, 1], from codes (..., shared) and (..., private)."""
        self._known(modality)
        return self._decode(modality, shared, private).sigmoid()

    def sample_private(self, modality: str, count: int, generator: torch.Generator | None = None) -> Tensor:
        """`count` draws of h_m from its prior N(0, I): (count, private), on the device of the model."""
        return self._draw((count, self._known(modality).private), generator)

    def cross_generate(
        self,
        source: str,
        images: Tensor,
        target: str,
        generator: torch.Generator | None = None,
        code: str | None = None,
    ) -> Tensor:
        """Images of the target that show what the source shows, with a style drawn from the prior.

        images: (batch, c, h, w) of the source in [0, 1]. code: z is the "mean" of q(z|x) or a "sample" from it; None
        takes the config's `test_code`. Returns (batch, c', h', w') in [0, 1], the mean images.
        Raises ValueError for an unknown modality, shape or code.
        """
        self._known(target)
        posterior = self.encode_shared({source: images})
        shared = posterior.mean
        if _known_code(code or self.config.test_code) == "sample":
            shared = posterior.sample(self._draw(shared.shape, generator))
        return self.decode(target, shared, self.sample_private(target, len(images), generator))

    def transfer(self, content: tuple[str, Tensor], style: tuple[str, Tensor]) -> Tensor:
        """Images with the shared code of `content` and the private code of `style`, both by their means.

        content, style: (modality, images (batch, c, h, w)) of equal batch. Returns images of the style's modality.
        """
        modality, images = style
        return self.decode(
            modality, self.encode_shared(dict([content])).mean, self.encode_private(modality, images).mean
        )

    def generate(self, count: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """`count` joint draws from the priors: modality -> mean images (count, c, h, w) in [0, 1]."""
        shared = self._draw((count, self.config.shared), generator)
        return {
            name: self.decode(name, shared, self.sample_private(name, count, generator))
            for name in self.config.modalities
        }

    def _draw(self, shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
        where = generator.device if generator is not None else self._device
        return torch.randn(tuple(shape), generator=generator, device=where).to(self._device)

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    def _known(self, modality: str) -> ModalityConfig:
        if modality not in self.config.modalities:
            raise ValueError(f"unknown modality {modality!r}; the model has {sorted(self.config.modalities)}")
        return self.config.modalities[modality]

    def _posteriors(self, modality: str, images: Tensor) -> tuple[DiagonalGaussian, DiagonalGaussian]:
        """q(z|x) and q(h|x) of one modality."""
        shape = self._known(modality).shape
        if images.dim() != 4 or tuple(images.shape[1:]) != tuple(shape):
            raise ValueError(
                f"images of modality {modality!r} must be (batch, {', '.join(map(str, shape))}), "
                f"got {tuple(images.shape)}"
            )
        if not images.is_floating_point():
            raise ValueError(f"images of modality {modality!r} must be float in [0, 1], got {images.dtype}")
        if modality in self.common_encoders:
            parts = [value.split([self.config.shared, self._known(modality).private], dim=-1)
                     for value in self.common_encoders[modality](images)]  # fmt: skip
            shared, private = zip(*parts, strict=True)
            return DiagonalGaussian(*shared), DiagonalGaussian(*private)
        return self.shared_encoders[modality](images), self.private_encoders[modality](images)

    def _decode(self, modality: str, shared: Tensor, private: Tensor) -> Tensor:
        """Logits (..., c, h, w); any leading dimensions, flattened for the pass through the network."""
        codes = torch.cat([shared, private], dim=-1)
        logits = self.decoders[modality](codes.flatten(0, -2))
        return logits.unflatten(0, codes.shape[:-1])


class QMVAE(MultimodalVAE):
    """Shared code z, private code h_m for each modality, and the quadruplet loss on the means of q(z|x_m).

    Raises ValueError for an unknown screening rule or no candidate, and like MultimodalVAE.
    """

    def __init__(self, config: ModelConfig):
        if config.candidates < 1:
            raise ValueError(f"the quadruplet loss needs at least one candidate, got candidates={config.candidates}")
        if config.negatives not in negatives.RULES:
            raise ValueError(f"unknown screening rule {config.negatives!r}; known: {sorted(negatives.RULES)}")
        super().__init__(config)

    def noise_spec(self, batch: int) -> dict[str, NoiseSpec]:
        """The draws that `loss` needs for a batch: codes of the joint and of each unimodal bound, and candidates."""
        spec = {"joint/shared": NoiseSpec("normal", (batch, self.config.shared))}
        for name, m in self.config.modalities.items():
            spec[f"{name}/shared"] = NoiseSpec("normal", (batch, self.config.shared))
            spec[f"{name}/private"] = NoiseSpec("normal", (2, batch, m.private))  # joint bound, unimodal bound
            spec[f"{name}/negatives"] = NoiseSpec("uniform", (self.config.candidates, batch))
        return spec

    def loss(self, images: Mapping[str, Tensor], labels: Tensor, noise: Mapping[str, Tensor]) -> losses.LossTerms:
        """Equation (20) for a batch of matching images.

        images: modality -> (batch, c, h, w) in [0, 1]; labels: (batch,) digits; noise: draws of `noise_spec`.
        Returns LossTerms of (batch,) nats.
        """
        config = self.config
        posteriors = {name: self._posteriors(name, images[name]) for name in config.modalities}
        shared = {name: both[0] for name, both in posteriors.items()}
        private = {name: both[1] for name, both in posteriors.items()}
        joint = product_of_experts(list(shared.values()))
        joint_code = joint.sample(noise["joint/shared"])

        joint_likelihood, unimodal = {}, {}
        for name, m in config.modalities.items():
            codes = torch.stack([joint_code, shared[name].sample(noise[f"{name}/shared"])])
            styles = private[name].sample(noise[f"{name}/private"])
            logits = self._decode(name, codes, styles)  # both bounds in one pass through the decoder
            likelihood = m.weight * losses.log_likelihood(m.likelihood, logits, images[name], m.scale)
            joint_likelihood[name] = likelihood[0]
            unimodal[name] = losses.unimodal_elbo(likelihood[1], shared[name], private[name], m.private_kl_weight)

        kl_weights = {name: m.private_kl_weight for name, m in config.modalities.items()}
        joint_bound = losses.joint_elbo(joint_likelihood, joint, private, kl_weights)
        quadruplet = self._quadruplet(shared, labels, noise)
        terms = {"elbo/joint": joint_bound, "quadruplet": quadruplet, "kl/joint": joint.kl_to_prior()}
        for name in config.modalities:
            terms[f"elbo/{name}"] = unimodal[name]
            terms[f"kl_private/{name}"] = private[name].kl_to_prior()
        return losses.LossTerms(losses.objective(joint_bound, unimodal, quadruplet, config.beta), terms)

    forward = loss  # what torch.func.functional_call calls

    def _quadruplet(
        self, shared: Mapping[str, DiagonalGaussian], labels: Tensor, noise: Mapping[str, Tensor]
    ) -> Tensor:
        """Equation (19) summed over the pairs of modalities, with the screened negatives of the batch: (batch,)."""
        config = self.config
        picks = {name: negatives.draw_negatives(labels, noise[f"{name}/negatives"]) for name in shared}
        total = torch.zeros_like(labels, dtype=torch.get_default_dtype())
        for x, y in combinations(shared, 2):
            mu_x, mu_y = shared[x].mean, shared[y].mean
            mu_x_neg, mu_y_neg = mu_x[picks[x]], mu_y[picks[y]]
            keep = labels[picks[x]] != labels[picks[y]] if config.mask_equal_negatives else None
            each = losses.quadruplet_loss(mu_x, mu_y, mu_x_neg, mu_y_neg, config.alpha1, config.alpha2, keep)
            with torch.no_grad():
                positive = losses.distance(mu_x, mu_y).expand_as(each)
                nearer = torch.minimum(losses.distance(mu_x, mu_y_neg), losses.distance(mu_x_neg, mu_y))
            weights = negatives.screen(config.negatives, negatives.Candidates(each, positive, nearer, config.alpha1))
            total = total + (weights * each).sum(dim=0)
        return total


class MVAE(MultimodalVAE):
    """Wu and Goodman 2018: one shared code, no private codes, and the bounds of the joint and of each modality alone.

    Every posterior is a product of experts with the prior, also that of one modality. (With more than two modalities
    the authors add bounds of random subsets; this objective leaves them out.)
    Raises ValueError for a modality with a private code, and like MultimodalVAE.
    """

    def __init__(self, config: ModelConfig):
        private = sorted(name for name, m in config.modalities.items() if m.private)
        if private:
            raise ValueError(f"mvae has no private codes; set private=0 for {private}")
        super().__init__(config)

    def noise_spec(self, batch: int) -> dict[str, NoiseSpec]:
        """The draws that `loss` needs for a batch: the codes of the joint bound and of each unimodal one."""
        bounds = ("joint", *self.config.modalities)
        return {f"{name}/shared": NoiseSpec("normal", (batch, self.config.shared)) for name in bounds}

    def loss(self, images: Mapping[str, Tensor], labels: Tensor, noise: Mapping[str, Tensor]) -> losses.LossTerms:
        """The sum of the bounds; arguments and result as for Q-MVAE. The labels have a say in the pairing alone."""
        experts = {name: self._posteriors(name, images[name])[0] for name in self.config.modalities}
        joint = product_of_experts(list(experts.values()))
        joint_code = joint.sample(noise["joint/shared"])
        joint_bound, unimodal = -joint.kl_to_prior(), {}
        for name, m in self.config.modalities.items():
            alone = product_of_experts([experts[name]])
            codes = torch.stack([joint_code, alone.sample(noise[f"{name}/shared"])])
            logits = self._decode(name, codes, codes[..., :0])
            likelihood = m.weight * losses.log_likelihood(m.likelihood, logits, images[name], m.scale)
            joint_bound = joint_bound + likelihood[0]
            unimodal[name] = losses.elbo(likelihood[1], alone)
        terms = {"elbo/joint": joint_bound, "kl/joint": joint.kl_to_prior()}
        terms |= {f"elbo/{name}": value for name, value in unimodal.items()}
        return losses.LossTerms(joint_bound + sum(unimodal.values()), terms)

    forward = loss

    def encode_shared(self, images: Mapping[str, Tensor]) -> DiagonalGaussian:
        """The product of experts of the given modalities and the prior, also for one. Raises like MultimodalVAE's."""
        alone = super().encode_shared(images)
        return product_of_experts([alone]) if len(images) == 1 else alone


MODELS = {"qmvae": QMVAE, "mvae": MVAE}
TEST_CODES = ("mean", "sample")


def _known_code(code: str) -> str:
    if code not in TEST_CODES:
        raise ValueError(f"unknown test code {code!r}; the known ones are {list(TEST_CODES)}")
    return code


def build_model(config: ModelConfig | Mapping | str, seed: int = 0) -> nn.Module:
    """The model of a config, a config's dictionary, or a model's name (its default reading), initialised from the seed.

    The weights depend on config and seed alone; PyTorch's global generator is neither read nor advanced.
    Raises ValueError for an unknown model or field.
    """
    if isinstance(config, str):
        config = _named(config)
    elif isinstance(config, Mapping):
        config = ModelConfig.from_dict(config)
    _known_model(config.model)
    with torch.device("meta"):
        model = MODELS[config.model](config)
    return networks.initialise(model.to_empty(device="cpu"), torch.Generator().manual_seed(seed))


def _named(name: str) -> ModelConfig:
    _known_model(name)
    return READINGS["default" if name == "qmvae" else name]


def _known_model(name: str) -> None:
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; the known ones are {sorted(MODELS)}")
