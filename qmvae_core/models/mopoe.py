"""MoPoE, a mixture of products of experts without private codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from qmvae_core import losses
from qmvae_core.draws import NoiseSpec
from qmvae_core.gaussians import DiagonalGaussian, product_of_experts
from qmvae_core.models.base import MultimodalVAE
from qmvae_core.models.configs import ModelConfig


@dataclass(frozen=True)
class MoPoEConfig(ModelConfig, model="mopoe"):
    """MoPoE's own choice."""

    model: str = "mopoe"
    beta: float = 1.0  # of the KL divergences; 1 is the plain bound (the authors, with text as a third modality: 2.5)


class MoPoE(MultimodalVAE):
    """Sutter, Daunhawer and Vogt 2021: the joint posterior is the mixture, in equal parts, of q_S for all subsets S.

    S runs over the non-empty subsets of the modalities, and q_S is the product of the experts of S. As in the authors'
    code, the prior is one more expert in the product of all modalities, and in no other. The objective is

        E Σ_m weight_m ln p(x_m|z) - β mean_S KL(q_S ‖ p(z)),    z ~ mean_S q_S.

    Each sample draws its code from one subset, and as in the authors' code it is its place in the batch that tells
    which: the batch is cut into equal parts, one a subset, and the last subset, that of all modalities, takes what
    remains. Batches are shuffled, so any sample may come to any subset; a batch smaller than the number of subsets goes
    to the last alone.
    Raises ValueError for a modality with a private code, and like MultimodalVAE.
    """

    has_private_codes = False

    def noise_spec(self, batch: int) -> dict[str, NoiseSpec]:
        """The draws that `loss` needs for a batch: one code a sample."""
        return {"joint/shared": NoiseSpec("normal", (batch, self.config.shared))}

    def loss(self, images: Mapping[str, Tensor], labels: Tensor, noise: Mapping[str, Tensor]) -> losses.LossTerms:
        """The bound, arguments and result as for Q-MVAE. The labels have a say in the pairing alone.

        Terms: "log_likelihood/m", weighted, of the sample's one code; "kl/S" of each subset, its names joined by "+",
        and "kl/joint" of all modalities.
        """
        self.check(images, labels, noise)
        modalities = self.config.modalities
        experts = {name: self.posteriors(name, images[name]).shared for name in modalities}
        posteriors = {
            "joint" if size == len(modalities) else "+".join(subset): self._product([experts[name] for name in subset])
            for size in range(1, len(modalities) + 1)
            for subset in combinations(modalities, size)
        }
        codes = _one_part_each(list(posteriors.values())).sample(noise["joint/shared"])
        terms = {f"log_likelihood/{name}": self.log_likelihood(name, images[name], codes) for name in modalities}
        divergences = {f"kl/{subset}": q.kl_to_prior() for subset, q in posteriors.items()}
        bound = sum(terms.values()) - self.config.beta * torch.stack(list(divergences.values())).mean(dim=0)
        return losses.LossTerms(bound, terms | divergences)

    def encode_shared(self, images: Mapping[str, Tensor]) -> DiagonalGaussian:
        """q_S of the given modalities, the product of their experts, with the prior only for all of them.

        Returns (batch, shared). Raises like MultimodalVAE's.
        """
        if not images:
            return super().encode_shared(images)
        return self._product([self.posteriors(name, value).shared for name, value in images.items()])

    def _product(self, experts: list[DiagonalGaussian]) -> DiagonalGaussian:
        return product_of_experts(experts, prior=len(experts) == len(self.config.modalities))


def _one_part_each(posteriors: list[DiagonalGaussian]) -> DiagonalGaussian:
    """The first part of the batch from the first posterior, the second from the second, ...: (batch, d)."""
    batch, last = len(posteriors[0].mean), len(posteriors) - 1
    part = batch // len(posteriors)
    sizes = [part] * last + [batch - part * last]
    parameters = zip(*posteriors, strict=True)
    return DiagonalGaussian(*(torch.cat([each.split(sizes)[i] for i, each in enumerate(kind)]) for kind in parameters))
