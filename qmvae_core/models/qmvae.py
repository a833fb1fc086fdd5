"""Q-MVAE, the model of the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from qmvae_core import losses, negatives
from qmvae_core.draws import NoiseSpec
from qmvae_core.gaussians import DiagonalGaussian, product_of_experts, softmax_scales
from qmvae_core.models.base import MultimodalVAE
from qmvae_core.models.configs import ModelConfig, known
from qmvae_core.stops import quadruplet_plateau


def _softmax(posterior: DiagonalGaussian) -> DiagonalGaussian:
    return DiagonalGaussian(posterior.mean, 2.0 * softmax_scales(posterior.log_var).log())


SHARED_SCALES = {"free": lambda posterior: posterior, "softmax": _softmax}
# The weight of the quadruplet loss beside bounds that are means over the batch, as all of ours are. If the authors
# summed the bounds over the batch and took the mean of the quadruplet loss, theirs is smaller by the size of the batch.
BETA_AGAINST = {"mean": lambda beta, batch: beta, "sum": lambda beta, batch: beta / batch}


@dataclass(frozen=True)
class QMVAEConfig(ModelConfig, model="qmvae"):
    """Q-MVAE's choices. What the paper leaves open is marked (open)."""

    positive = ("shared", "candidates")

    model: str = "qmvae"
    alpha1: float = 2.0
    alpha2: float = 0.8
    beta: float = 1500.0
    negatives: str = "random"  # screening rule, one of negatives.RULES (open)
    candidates: int = 16  # random candidates a pair from which the screening rule chooses (open)
    mask_equal_negatives: bool = False  # leave the third term out where x₋ and y₋ show one digit (open)
    shared_kl_weight: float = 1.0  # of KL(q(z|·) ‖ p(z)), joint and unimodal (open; 1 is the plain bound)
    shared_scales: str = "free"  # standard deviations of q(z|x_m): "free", or "softmax" as MMVAE's code has them (open)
    beta_against: str = "mean"  # whether beta weighs against the bounds' "mean" over the batch or their "sum" (open)
    cross_reconstruction: float = 0.0  # weight of ln p(x_m | z of another modality, h_m), which the paper does not have

    @property
    def plateau(self) -> tuple[str, float] | None:
        """The quadruplet loss while all codes lie in one place, unless nothing is trained by it."""
        return ("quadruplet", quadruplet_plateau(self.alpha1, self.alpha2, len(self.modalities))) if self.beta else None


class QMVAE(MultimodalVAE):
    """Shared code z, private code h_m for each modality, and the quadruplet loss on the means of q(z|x_m).

    Raises ValueError for an unknown screening rule, kind of scales or of bounds, and like MultimodalVAE.
    """

    def __init__(self, config: QMVAEConfig):
        if config.negatives not in negatives.RULES:
            raise ValueError(f"unknown screening rule {config.negatives!r}; known: {sorted(negatives.RULES)}")
        known(SHARED_SCALES, "shared_scales", config.shared_scales)
        known(BETA_AGAINST, "beta_against", config.beta_against)
        super().__init__(config)

    def noise_spec(self, batch: int) -> dict[str, NoiseSpec]:
        """The draws that `loss` needs for a batch: codes of the joint and of each unimodal bound, and candidates."""
        spec = {"joint/shared": NoiseSpec("normal", (batch, self.config.shared))}
        for name, m in self.config.modalities.items():
            spec[f"{name}/shared"] = NoiseSpec("normal", (batch, self.config.shared))
            # for the joint bound, the unimodal bound and, if it has a weight, reconstruction from each other modality
            decoded = 2 + (len(self.config.modalities) - 1) * (self.config.cross_reconstruction > 0)
            spec[f"{name}/private"] = NoiseSpec("normal", (decoded, batch, m.private))
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
        own_codes = {name: each.sample(noise[f"{name}/shared"]) for name, each in shared.items()}

        joint_likelihood, unimodal, crossed = {}, {}, torch.zeros_like(joint_code[:, 0])
        for name, m in config.modalities.items():
            others = [code for other, code in own_codes.items() if other != name] if config.cross_reconstruction else []
            codes = torch.stack([joint_code, own_codes[name], *others])
            styles = private[name].sample(noise[f"{name}/private"])
            logits = self._decode(name, codes, styles)  # all in one pass through the decoder
            likelihood = m.weight * losses.log_likelihood(m.likelihood, logits, images[name], m.scale)
            joint_likelihood[name] = likelihood[0]
            unimodal[name] = losses.unimodal_elbo(
                likelihood[1], shared[name], private[name], m.private_kl_weight, config.shared_kl_weight
            )
            crossed = crossed + likelihood[2:].sum(dim=0)

        kl_weights = {name: m.private_kl_weight for name, m in config.modalities.items()}
        joint_bound = losses.joint_elbo(joint_likelihood, joint, private, kl_weights, config.shared_kl_weight)
        quadruplet = self._quadruplet(shared, labels, noise)
        terms = {"elbo/joint": joint_bound, "quadruplet": quadruplet, "kl/joint": joint.kl_to_prior()}
        for name in config.modalities:
            terms[f"elbo/{name}"] = unimodal[name]
            terms[f"kl_private/{name}"] = private[name].kl_to_prior()
        beta = BETA_AGAINST[config.beta_against](config.beta, len(labels))
        objective = losses.objective(joint_bound, unimodal, quadruplet, beta)
        if config.cross_reconstruction:
            terms["cross_reconstruction"] = crossed
            objective = objective + config.cross_reconstruction * crossed
        return losses.LossTerms(objective, terms)

    forward = loss  # what torch.func.functional_call calls

    def _posteriors(self, modality: str, images: Tensor) -> tuple[DiagonalGaussian, DiagonalGaussian]:
        shared, private = super()._posteriors(modality, images)
        return SHARED_SCALES[self.config.shared_scales](shared), private

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
