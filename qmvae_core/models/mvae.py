"""MVAE, a product of experts without private codes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qmvae_core import losses
from qmvae_core.draws import NoiseSpec
from qmvae_core.gaussians import DiagonalGaussian, product_of_experts
from qmvae_core.models.base import MultimodalVAE, Tensors
from qmvae_core.models.configs import ModelConfig


@dataclass(frozen=True)
class MVAEConfig(ModelConfig, model="mvae"):
    """MVAE has no choices of its own."""

    model: str = "mvae"


class MVAE(MultimodalVAE):
    """Wu and Goodman 2018: one shared code, no private codes, and the bounds of the joint and of each modality alone.

    Every posterior is a product of experts with the prior, also that of one modality. (With more than two modalities
    the authors add bounds of random subsets; this objective leaves them out.)
    Raises ValueError for a modality with a private code, and like MultimodalVAE.
    """

    has_private_codes = False
    takes_missing = True

    def noise_spec(self, batch: int) -> dict[str, NoiseSpec]:
        """The draws that `loss` needs for a batch: the codes of the joint bound and of each unimodal one."""
        bounds = ("joint", *self.config.modalities)
        return {f"{name}/shared": NoiseSpec("normal", (batch, self.config.shared)) for name in bounds}

    def loss(self, images: Tensors, labels: Tensor, noise: Tensors, there: Tensors | None = None) -> losses.LossTerms:
        """The sum of the bounds; arguments and result as for Q-MVAE. The labels have a say in the pairing alone."""
        self.check(images, labels, noise)
        images, there = self.present(images, there)
        experts = {name: self.posteriors(name, images[name]).shared for name in self.config.modalities}
        joint = product_of_experts([q.where(there[name], math.inf) for name, q in experts.items()])
        joint_code = joint.sample(noise["joint/shared"])
        joint_bound, unimodal = -joint.kl_to_prior(), {}
        for name in self.config.modalities:
            alone = product_of_experts([experts[name]]).where(there[name], 0.0)
            codes = torch.stack([joint_code, alone.sample(noise[f"{name}/shared"])])
            likelihood = there[name] * self.log_likelihood(name, images[name], codes)
            joint_bound = joint_bound + likelihood[0]
            unimodal[name] = losses.elbo(likelihood[1], alone)
        terms = {"elbo/joint": joint_bound, "kl/joint": joint.kl_to_prior()}
        terms |= {f"elbo/{name}": value for name, value in unimodal.items()}
        return losses.LossTerms(joint_bound + sum(unimodal.values()), terms)

    def encode_shared(self, images: Tensors) -> DiagonalGaussian:
        """The product of experts of the given modalities and the prior, also for one. Raises like MultimodalVAE's."""
        alone = super().encode_shared(images)
        return product_of_experts([alone]) if len(images) == 1 else alone
