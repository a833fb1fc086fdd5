"""Q-MVAE, the model of the paper."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from qmvae_core import losses, negatives
from qmvae_core.draws import NoiseSpec
from qmvae_core.gaussians import DiagonalGaussian, product_of_experts, softmax_scales
from qmvae_core.models.base import MultimodalVAE, Posteriors, Tensors
from qmvae_core.models.configs import ModelConfig
from qmvae_core.names import known
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
    cross_reconstruction: float = 0.0  # weight of a term that the paper does not have (`ablations`)

    @property
    def plateau(self) -> tuple[str, float] | None:
        """The quadruplet loss while all codes lie in one place, unless nothing is trained by it."""
        value = self.beta and quadruplet_plateau(self.alpha1, self.alpha2, len(self.modalities))
        return ("quadruplet", value) if value else None


class QMVAE(MultimodalVAE):
    """Shared code z, private code h_m for each modality, and the quadruplet loss on the means of q(z|x_m).

    Raises ValueError for an unknown screening rule, kind of scales or of bounds, and like MultimodalVAE.
    """

    takes_missing = True

    def __init__(self, config: QMVAEConfig):
        known(negatives.RULES, "screening rule", config.negatives)
        known(SHARED_SCALES, "shared_scales", config.shared_scales)
        known(BETA_AGAINST, "beta_against", config.beta_against)
        super().__init__(config)

    def noise_spec(self, batch: int) -> dict[str, NoiseSpec]:
        """The draws that `loss` needs for a batch: codes of the joint and of each unimodal bound, and candidates."""
        spec = {"joint/shared": NoiseSpec("normal", (batch, self.config.shared))}
        for name, m in self.config.modalities.items():
            spec[f"{name}/shared"] = NoiseSpec("normal", (batch, self.config.shared))
            spec[f"{name}/private"] = NoiseSpec("normal", (2, batch, m.private))  # of the joint and the unimodal bound
            spec[f"{name}/negatives"] = NoiseSpec("uniform", (self.config.candidates, batch))
        return spec

    def check_labels(self, labels: Tensor, batch: int) -> None:
        """Raise ValueError if the quadruplet loss counts and there is one modality, or never a negative in a batch."""
        if self.config.beta and len(self.config.modalities) < 2:
            raise ValueError(f"a quadruplet needs two modalities, got {list(self.config.modalities)}; or set beta=0")
        if self.config.beta and (batch < 2 or not negatives.has_negatives(labels)):
            raise ValueError(
                f"batches of {batch} from samples of the digits {labels.unique().tolist()} never hold a negative; "
                "use batches of at least two and data with at least two digits, or beta=0"
            )

    def loss(self, images: Tensors, labels: Tensor, noise: Tensors, there: Tensors | None = None) -> losses.LossTerms:
        """Equation (20) for a batch of matching images.

        images: modality -> (batch, *shape) in [0, 1]; labels: (batch,) digits; noise: draws of `noise_spec`. there:
        modality -> (batch,) booleans, True of what a sample has, one or more; None: all. Returns LossTerms of (batch,).
        """
        self.check(images, labels, noise)
        config = self.config
        images, there = self.present(images, there)
        posteriors = {name: self.posteriors(name, images[name]) for name in config.modalities}
        joint = product_of_experts([both.shared.where(there[name], math.inf) for name, both in posteriors.items()])
        shared = {name: both.shared.where(there[name], 0.0) for name, both in posteriors.items()}
        private = {name: both.private.where(there[name], 0.0) for name, both in posteriors.items()}
        joint_code = joint.sample(noise["joint/shared"])

        in_joint, unimodal = {}, {}
        for name, m in config.modalities.items():
            codes = torch.stack([joint_code, shared[name].sample(noise[f"{name}/shared"])])  # one pass for both bounds
            styles = private[name].sample(noise[f"{name}/private"])
            in_joint[name], alone = there[name] * self.log_likelihood(name, images[name], codes, styles)
            unimodal[name] = losses.unimodal_elbo(
                alone, shared[name], private[name], m.private_kl_weight, config.shared_kl_weight
            )
        kl_weights = {name: m.private_kl_weight for name, m in config.modalities.items()}
        joint_bound = losses.joint_elbo(in_joint, joint, private, kl_weights, config.shared_kl_weight)
        quadruplet = self._quadruplet(shared, labels, noise, there)

        terms = {"elbo/joint": joint_bound, "quadruplet": quadruplet, "kl/joint": joint.kl_to_prior()}
        terms["single_digit"] = (~negatives.has_negatives(labels)).to(joint_bound.dtype).expand_as(joint_bound)
        for name in config.modalities:
            terms[f"elbo/{name}"] = unimodal[name]
            terms[f"kl_private/{name}"] = private[name].kl_to_prior()
        beta = BETA_AGAINST[config.beta_against](config.beta, len(labels))
        return losses.LossTerms(losses.objective(joint_bound, unimodal, quadruplet, beta), terms)

    def posteriors(self, modality: str, images: Tensor) -> Posteriors:
        """q(z|x), its scales as the config has them, and q(h|x); arguments and errors as MultimodalVAE's."""
        found = super().posteriors(modality, images)
        return found._replace(shared=SHARED_SCALES[self.config.shared_scales](found.shared))

    def _quadruplet(
        self, shared: Mapping[str, DiagonalGaussian], labels: Tensor, noise: Tensors, there: Tensors
    ) -> Tensor:
        """Equation (19) summed over the pairs of modalities, with the screened negatives of the batch: (batch,).

        A pair counts where both are there, and the batch has a negative of each.
        """
        config = self.config
        picks = {name: negatives.draw_negatives(labels, noise[f"{name}/negatives"], there[name]) for name in shared}
        counts = {name: there[name] & negatives.other_digits(labels, there[name]).any(dim=-1) for name in shared}
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
            total = total + torch.where(counts[x] & counts[y], (weights * each).sum(dim=0), 0.0)
        return total
