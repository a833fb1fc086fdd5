"""JMVAE and JMVAE-kl, an encoder of all modalities together and no private codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from qmvae_core import losses, networks
from qmvae_core.draws import NoiseSpec
from qmvae_core.gaussians import DiagonalGaussian
from qmvae_core.models.base import MultimodalVAE
from qmvae_core.models.configs import ModelConfig


@dataclass(frozen=True)
class JMVAEConfig(ModelConfig, model="jmvae"):
    """JMVAE's choice: how hard the encoders of single modalities are drawn to the joint one, if there are any."""

    model: str = "jmvae"
    alpha: float = 0.0  # weight of Σ_m KL(q(z|x_1..x_M) ‖ q(z|x_m)); 0 is JMVAE, more is JMVAE-kl


class JMVAE(MultimodalVAE):
    """Suzuki, Nakayama and Matsuo 2016: one joint encoder q(z | x_1..x_M), and one bound, that of all modalities.

    The joint encoder has the network bodies of all modalities side by side and one linear layer on their features.
    (The authors have a hidden layer of 512 between the two; here the bodies are those of every other model.)
    With alpha > 0 each modality has an encoder of its own beside it (JMVAE-kl); with alpha = 0 it has none (JMVAE).
    Raises ValueError for a negative alpha or a modality with a private code, and like MultimodalVAE.
    """

    has_private_codes = False

    def __init__(self, config: JMVAEConfig):
        super().__init__(config)
        if not config.alpha:
            self.common_encoders.clear()
        parts = {name: (m.network, m.shape, m.widths) for name, m in config.modalities.items()}
        self.joint_encoder = networks.joint_encoder(parts, config.shared)

    def noise_spec(self, batch: int) -> dict[str, NoiseSpec]:
        """The draw that `loss` needs for a batch: the joint code."""
        return {"joint/shared": NoiseSpec("normal", (batch, self.config.shared))}

    def loss(self, images: Mapping[str, Tensor], labels: Tensor, noise: Mapping[str, Tensor]) -> losses.LossTerms:
        """The joint bound - α Σ_m KL(q(z|x_1..x_M) ‖ q(z|x_m)); arguments and result as for Q-MVAE.

        The labels have a say in the pairing alone.
        """
        self.check(images, labels, noise)
        joint = self.encode_shared({name: images[name] for name in self.config.modalities})
        code = joint.sample(noise["joint/shared"])
        bound = -joint.kl_to_prior()
        for name in self.config.modalities:
            bound = bound + self.log_likelihood(name, images[name], code)
        gaps = {
            f"kl_to/{name}": joint.kl_to(self.posteriors(name, images[name]).shared) for name in self.common_encoders
        }
        terms = {"elbo/joint": bound, "kl/joint": joint.kl_to_prior(), **gaps}
        return losses.LossTerms(bound - self.config.alpha * sum(gaps.values()), terms)

    def encode_shared(self, images: Mapping[str, Tensor]) -> DiagonalGaussian:
        """q(z | the given modalities): (batch, shared).

        All modalities: the joint encoder. One of them in JMVAE-kl: its own encoder. Some of them in JMVAE: the joint
        encoder with images of zeros in the place of the missing ones, with which the authors compare JMVAE-kl.
        Raises ValueError for several modalities but not all in JMVAE-kl, which has no encoder of those, for an empty
        subset, an unknown modality or a wrong shape.
        """
        missing = [name for name in self.config.modalities if name not in images]
        if not images or (missing and self.config.alpha and len(images) == 1):
            return super().encode_shared(images)
        for name, value in images.items():
            self._check(name, value)
        if missing and self.config.alpha:
            raise ValueError(f"JMVAE-kl encodes one modality or all of them, not {sorted(images)} without {missing}")
        some = next(iter(images.values()))
        zeros = {name: some.new_zeros((len(some), *self.config.modalities[name].shape)) for name in missing}
        return self.joint_encoder({**images, **zeros})

    def encode_private(self, modality: str, images: Tensor) -> DiagonalGaussian:
        """No code, (batch, 0): there is no encoder that could give one. Raises like MultimodalVAE's."""
        self._check(modality, images)
        none = images.new_zeros((len(images), 0))
        return DiagonalGaussian(none, none)
