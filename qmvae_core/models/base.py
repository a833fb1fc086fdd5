"""The small protocol that every model of the book follows.

A loss is a pure function of parameters, batch and noise: the model says with `noise_spec` which draws it needs, and
never draws any itself. So runs with several seeds can be stacked into one, a step can be captured, and a training can
be resumed bit for bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from qmvae_core import networks
from qmvae_core.draws import DRAWS, NoiseSpec
from qmvae_core.gaussians import DiagonalGaussian, product_of_experts
from qmvae_core.losses import LossTerms
from qmvae_core.models.configs import ModalityConfig, ModelConfig
from qmvae_core.names import known

# How z is taken from q(z|x) after training: model, posterior and generator -> code.
TEST_CODES = {
    "mean": lambda model, posterior, generator: posterior.mean,
    "sample": lambda model, posterior, generator: model.sample_posterior(posterior, generator),
}


Tensors = Mapping[str, Tensor]  # one of each modality, or of each draw


class Posteriors(NamedTuple):
    """q(z|x) and q(h|x) of one modality's batch."""

    shared: DiagonalGaussian
    private: DiagonalGaussian


class Opponent(NamedTuple):
    """A part of a model that has an optimiser and an objective of its own, such as a discriminator.

    prefix: of its parameters' names. learning_rate and betas: of its Adam.
    """

    prefix: str
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)


class MultimodalVAE(nn.Module, ABC):
    """What all models have: encoders and decoders of each modality, and what is done with them after training.

    A model adds `noise_spec` and `loss`. Its loss may use several posteriors of a sample, K particles (a leading
    dimension of the draws) and `detach`. One with an `opponent` returns its objective as `LossTerms.opposing`: the
    opponent's parameters climb that, all others climb `objective`, from the gradients of one pass.

    config: one modality or more, each with values in [0, 1] of a shape of its own ("images", whatever they are). Each
    has a decoder, and two encoders, or a common one whose last layer gives both posteriors.
    Raises ValueError for no modality or an unknown network, encoders, likelihood or test code; and for a private code
    in a model that has none.
    """

    opponent: Opponent | None = None
    has_joint_code = True  # whether encode_shared takes several modalities
    has_private_codes = True  # whether a modality may have a private code
    takes_missing = False  # whether `loss` takes as a fourth argument which modalities are there (`present`)
    checks = True  # of batches and images; `fit` makes them itself, from bytes, and does without

    def __init__(self, config: ModelConfig):
        super().__init__()
        if not config.modalities:
            raise ValueError("a model needs at least one modality, got none")
        for name in config.modalities:
            if name in ("all", "joint") or hasattr(nn.ModuleDict(), name):
                raise ValueError(f"a modality cannot be named {name!r}: that name has another meaning here")
            if not name.isidentifier():
                raise ValueError(f"a modality's name is a word of letters, digits and _, not {name!r}")
        private = sorted(name for name, m in config.modalities.items() if m.private)
        if private and not self.has_private_codes:
            raise ValueError(f"{config.model} has no private codes; set private=0 for {private}")
        known(TEST_CODES, "test code", config.test_code)
        self.config = config
        self.shared_encoders = nn.ModuleDict()
        self.private_encoders = nn.ModuleDict()
        self.common_encoders = nn.ModuleDict()
        self.decoders = nn.ModuleDict()
        self.likelihoods = {}
        for name, m in config.modalities.items():
            try:
                self._add(name, m)
            except ValueError as error:
                raise ValueError(f"modality {name!r}: {error}") from None

    def _add(self, name: str, m: ModalityConfig) -> None:
        shared = self.config.shared
        self.likelihoods[name] = m.observed()
        if m.encoders == "separate" and m.private:
            self.shared_encoders[name] = networks.encoder(m.network, m.shape, m.widths, shared)
            self.private_encoders[name] = networks.encoder(m.network, m.shape, m.widths, m.private)
        elif m.encoders in ("separate", "common"):
            self.common_encoders[name] = networks.encoder(m.network, m.shape, m.widths, shared + m.private)
        else:
            raise ValueError(f'unknown encoders {m.encoders!r}; the known ones are ["common", "separate"]')
        self.decoders[name] = networks.decoder(m.network, m.shape, m.widths, shared + m.private)

    # Training

    @abstractmethod
    def noise_spec(self, batch: int) -> dict[str, NoiseSpec]:
        """The draws that `loss` needs for a batch of so many samples, by name."""

    @abstractmethod
    def loss(self, images: Mapping[str, Tensor], labels: Tensor, noise: Mapping[str, Tensor]) -> LossTerms:
        """The objective of a batch of matching images, to be maximised: LossTerms of (batch,).

        images: modality -> (batch, *shape) in [0, 1]; labels: (batch,) integers; noise: draws of `noise_spec`.
        """

    def forward(self, *batch) -> LossTerms:
        """`loss`, under the name that torch.func.functional_call calls."""
        return self.loss(*batch)

    def check_labels(self, labels: Tensor, batch: int) -> None:
        """Raise ValueError, before the first step, if it can never train on batches of so many; labels (n,) of all."""

    def check(self, images: Mapping[str, Tensor], labels: Tensor, noise: Mapping[str, Tensor]) -> None:
        """Raise ValueError, at the start of every loss, for a batch or draws that do not fit the model."""
        if not self.checks:
            return
        for name in self.config.modalities:
            self._check_form(name, images[name])
        sizes = {name: len(images[name]) for name in self.config.modalities} | (
            {} if labels is None else {"labels": len(labels)}
        )
        if len(set(sizes.values())) > 1:
            raise ValueError(f"a batch has as many images of each modality as labels, got {sizes}")
        wanted = {name: item.shape for name, item in self.noise_spec(max(sizes.values())).items()}
        if (given := {name: tuple(noise[name].shape) for name in wanted}) != wanted:
            raise ValueError(f"the draws must be those of noise_spec({max(sizes.values())}), {wanted}, got {given}")

    def present(self, images: Tensors, there: Tensors | None) -> tuple[Tensors, Tensors]:
        """The images, zeros for missing ones, and which are there, modality -> (batch,) booleans; None: all are."""
        if there is None:
            return images, {n: torch.ones(len(x), dtype=torch.bool, device=x.device) for n, x in images.items()}
        return {n: torch.where(there[n].view(-1, *[1] * (x.dim() - 1)), x, 0.0) for n, x in images.items()}, there

    # Inference

    def encode_shared(self, images: Mapping[str, Tensor]) -> DiagonalGaussian:
        """q(z | the given modalities): (batch, shared).

        One modality: its own encoder alone (equations 15-18); several: their product of experts with the prior (8).
        Raises ValueError for an empty subset, an unknown modality or a wrong shape.
        """
        if not images:
            raise ValueError(f"encode_shared needs images of at least one of {sorted(self.config.modalities)}")
        experts = [self.posteriors(name, value).shared for name, value in images.items()]
        return experts[0] if len(experts) == 1 else product_of_experts(experts)

    def encode_private(self, modality: str, images: Tensor) -> DiagonalGaussian:
        """q(h_m | x_m): (batch, private). Raises ValueError for an unknown modality or a wrong shape."""
        return self.posteriors(modality, images).private

    def decode(self, modality: str, shared: Tensor, private: Tensor) -> Tensor:
        """The mean of p(x_m | z, h_m): (..., *shape) in [0, 1], from codes (..., shared) and (..., private)."""
        logits = self.logits(modality, shared, private)
        return self.likelihoods[modality].mean(logits)

    def logits(self, modality: str, shared: Tensor, private: Tensor | None = None) -> Tensor:
        """What the decoder says: (..., *shape), for codes (..., shared) and (..., private), None where there is none.

        Any leading dimensions, flattened for the pass through the network. Raises ValueError for codes of other sizes.
        """
        wanted = [self.config.shared, self._known(modality).private]
        if [shared.shape[-1], 0 if private is None else private.shape[-1]] != wanted:
            got = [None if code is None else tuple(code.shape) for code in (shared, private)]
            raise ValueError(f"{modality!r} is decoded from z (..., {wanted[0]}) and h (..., {wanted[1]}), got {got}")
        codes = shared if private is None else torch.cat([shared, private], dim=-1)
        logits = networks.in_float32(self.decoders[modality](codes.flatten(0, -2)))
        return logits.unflatten(0, codes.shape[:-1])

    def log_likelihood(self, modality: str, images: Tensor, shared: Tensor, private: Tensor | None = None) -> Tensor:
        """weight_m ln p(x_m | z, h_m) in nats: (...,); images (..., *shape), codes as for `logits`."""
        found = self.likelihoods[modality].log_prob(self.logits(modality, shared, private), images)
        return self.config.modalities[modality].weight * found

    def sample_shared(self, count: int, generator: Generator | None = None) -> Tensor:
        """`count` draws of z from its prior N(0, I): (count, shared), on the device of the model."""
        return self._draw((count, self.config.shared), generator)

    def sample_posterior(self, posterior: DiagonalGaussian, generator: Generator | None = None) -> Tensor:
        """One draw from each posterior: (batch, shared)."""
        return posterior.sample(self._draw(posterior.mean.shape, generator))

    def sample_private(self, modality: str, count: int, generator: Generator | None = None) -> Tensor:
        """`count` draws of h_m from its prior N(0, I): (count, private), on the device of the model."""
        return self._draw((count, self._known(modality).private), generator)

    def cross_generate(
        self, source: str, images: Tensor, target: str, generator: Generator | None = None, code: str | None = None
    ) -> Tensor:
        """Images of the target that show what the source shows, with a style drawn from the prior.

        images: (batch, c, h, w) of the source in [0, 1]. code: z is the "mean" of q(z|x) or a "sample" from it; None
        takes the config's `test_code`. Returns (batch, c', h', w') in [0, 1], the mean images.
        Raises ValueError for an unknown modality, shape or code.
        """
        return self.generate_from({source: images}, target, generator, code)

    def generate_from(
        self, images: Tensors, target: str, generator: Generator | None = None, code: str | None = None
    ) -> Tensor:
        """`cross_generate` from the images (batch, *shape) of all modalities that are given."""
        self._known(target)
        posterior = self.encode_shared(images)
        shared = known(TEST_CODES, "test code", code or self.config.test_code)(self, posterior, generator)
        return self.decode(target, shared, self.sample_private(target, len(shared), generator))

    def transfer(self, content: tuple[str, Tensor], style: tuple[str, Tensor]) -> Tensor:
        """Images with the shared code of `content` and the private code of `style`, both by their means.

        content, style: (modality, images (batch, c, h, w)) of equal batch. Returns images of the style's modality.
        """
        modality, images = style
        return self.decode(
            modality, self.encode_shared(dict([content])).mean, self.encode_private(modality, images).mean
        )

    def generate(self, count: int, generator: Generator | None = None) -> dict[str, Tensor]:
        """`count` joint draws from the priors: modality -> mean images (count, c, h, w) in [0, 1]."""
        shared = self.sample_shared(count, generator)
        return {
            name: self.decode(name, shared, self.sample_private(name, count, generator))
            for name in self.config.modalities
        }

    def _draw(self, shape: Sequence[int], generator: Generator | None, kind: str = "normal") -> Tensor:
        where = generator.device if generator is not None else self._device
        return DRAWS[kind](tuple(shape), generator=generator, device=where).to(self._device)

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    def _known(self, modality: str) -> ModalityConfig:
        return known(self.config.modalities, "modality", modality)

    def posteriors(self, modality: str, images: Tensor) -> Posteriors:
        """q(z|x) and q(h|x) of one modality, for images (batch, *shape) in [0, 1].

        Raises ValueError for an unknown modality, a wrong shape or images that are not floats.
        """
        self._check(modality, images)
        if modality in self.common_encoders:
            sizes = [self.config.shared, self._known(modality).private]
            parts = [value.split(sizes, dim=-1) for value in self.common_encoders[modality](images)]
            return Posteriors(*(DiagonalGaussian(*both) for both in zip(*parts, strict=True)))
        return Posteriors(self.shared_encoders[modality](images), self.private_encoders[modality](images))

    def _check(self, modality: str, images: Tensor) -> None:
        """Raise ValueError unless the modality is known and the images are a batch of its shape in [0, 1]."""
        self._check_form(modality, images)
        if self.checks and images.numel():
            low, high = (end.item() for end in images.detach().aminmax())
            if not (low >= 0 and high <= 1):
                raise ValueError(f"images of {modality!r} must be in [0, 1], not {low:g} to {high:g}; scale them")

    def _check_form(self, modality: str, images: Tensor) -> None:
        shape, own = self._known(modality).shape, next(self.parameters()).dtype
        if tuple(images.shape[1:]) != tuple(shape):
            wanted = f"(batch, {', '.join(map(str, shape))})"
            raise ValueError(f"images of modality {modality!r} must be {wanted}, got {tuple(images.shape)}")
        if images.dtype != own:
            raise ValueError(f"images of {modality!r} must be {own}, as the model is, not {images.dtype}; cast them")
