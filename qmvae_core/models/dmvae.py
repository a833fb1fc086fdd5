"""DMVAE of Daunhawer et al. 2020: content by contrast, style by likelihood, and a discriminator that keeps them apart.

(Lee and Pavlovic's model of the same name is another one.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qmvae_core import losses, networks
from qmvae_core.draws import NoiseSpec
from qmvae_core.gaussians import DiagonalGaussian, product_of_experts
from qmvae_core.kernels import Linear
from qmvae_core.models.base import MultimodalVAE, Opponent
from qmvae_core.models.configs import ModelConfig
from qmvae_core.names import known


@dataclass(frozen=True)
class DMVAEConfig(ModelConfig, model="dmvae"):
    """DMVAE's choices. The defaults are those of the authors' code for MNIST-SVHN.

    A modality's `weight`, `private` and `private_kl_weight` are those of its likelihood, style and style's divergence.
    """

    positive = ("shared", "temperature", "discriminator")

    model: str = "dmvae"
    contrastive: float = 1000.0  # weight of the contrastive term
    temperature: float = 1.0  # of the contrastive term
    total_correlation: Mapping[str, float] = field(default_factory=dict)  # weight by modality; 1 where it has none
    warm_up: float = 0.12  # share of the training over which the weight of the style's divergence rises from 0
    empty_group: bool = True  # whether a sample's modalities may all fall into one group, as the authors' code has it
    discriminator: int = 500  # hidden units for each of a discriminator's two inputs; twice as many after they meet


class DMVAE(MultimodalVAE):
    """Content c, shared, and style s_m, private, of Daunhawer et al. 2020; the objective of a sample, in nats, is

    Σ_m [w_m ln p(x_m | c_m, s_m) - t β_m KL(q(s_m|x_m) ‖ p(s_m)) - δ_m TC_m] - γ NTXent

    | symbol | meaning | code name |
    |---|---|---|
    | c_m | content of x_m's group of modalities, without a gradient | `random_partition`, `_product` |
    | w_m, β_m | weights of likelihood and of the style's divergence | `weight`, `private_kl_weight` |
    | t | 0 to 1 in the first part of the training | `warm_up` |
    | TC_m, δ_m | dependence of s_m and content: a log density ratio | `DensityRatio`, `total_correlation` |
    | NTXent, γ | all modalities' content against that of a subset | `nt_xent`, `random_subset`, `contrastive` |

    No gradient of the first three reaches the content, so contrast alone teaches it, and it has no divergence from a
    prior: codes drawn from N(0, I) by `generate` are not of its distribution. The discriminators are the opponent.
    Raises ValueError for a modality without style, a choice out of range, and like MultimodalVAE.
    """

    opponent = Opponent("discriminators.", learning_rate=1e-4, betas=(0.5, 0.9))

    def __init__(self, config: DMVAEConfig):
        without = sorted(name for name, m in config.modalities.items() if not m.private)
        if without:
            raise ValueError(f"dmvae needs a style of each modality; set private for {without}")
        for name in config.total_correlation:
            known(config.modalities, "modality in total_correlation", name)
        if not 0 <= config.warm_up <= 1:
            raise ValueError(f"warm_up is a share of the training, from 0 to 1, got {config.warm_up}")
        super().__init__(config)
        self.discriminators = nn.ModuleDict(
            {
                name: DensityRatio(m.private, config.shared, config.discriminator)
                for name, m in config.modalities.items()
            }
        )

    def noise_spec(self, batch: int) -> dict[str, NoiseSpec]:
        """The draws that `loss` needs for a batch: codes, groups, the contrasted subset, and orders of the samples."""
        count = len(self.config.modalities)
        spec = {
            "joint/shared": NoiseSpec("normal", (2, batch, self.config.shared)),  # of all modalities, of the subset
            "partition": NoiseSpec("uniform", (batch, count)),
            "subset": NoiseSpec("uniform", (count,)),
            "progress": NoiseSpec("progress", ()),
        }
        for name, m in self.config.modalities.items():
            spec[f"{name}/private"] = NoiseSpec("normal", (2, batch, m.private))  # to decode, to discriminate
            spec[f"{name}/shared"] = NoiseSpec("normal", (batch, self.config.shared))
            spec[f"{name}/order"] = NoiseSpec("uniform", (batch,))
        return spec

    def loss(self, images: Mapping[str, Tensor], labels: Tensor, noise: Mapping[str, Tensor]) -> losses.LossTerms:
        """The objective above; arguments and result as for Q-MVAE. The labels have a say in the pairing alone.

        Raises ValueError for a batch of one sample, which has nothing to be contrasted with.
        """
        self.check(images, labels, noise)
        config = self.config
        posteriors = {name: self.posteriors(name, images[name]) for name in config.modalities}
        contents = [both.shared for both in posteriors.values()]
        held = [DiagonalGaussian(q.mean.detach(), q.log_var.detach()) for q in contents]

        everything = product_of_experts(contents, prior=False).sample(noise["joint/shared"][0])
        some = _product(contents, random_subset(noise["subset"])).sample(noise["joint/shared"][1])
        contrast = nt_xent(everything, some, config.temperature)

        first_group = random_partition(noise["partition"], config.empty_group)
        warmth = (noise["progress"] / config.warm_up).clamp(max=1.0) if config.warm_up else 1.0
        objective, opposing, terms = -config.contrastive * contrast, 0.0, {"contrastive": contrast}
        for i, (name, m) in enumerate(config.modalities.items()):
            content = _product(held, first_group == first_group[:, i : i + 1])
            style = posteriors[name].private
            decoded, judged = style.sample(noise[f"{name}/private"])
            likelihood = self.log_likelihood(name, images[name], content.mean, decoded)
            divergence = style.kl_to_prior()
            bound = likelihood - warmth * m.private_kl_weight * divergence
            estimate, guessed = total_correlation(
                self.discriminators[name], judged, content.sample(noise[f"{name}/shared"]), noise[f"{name}/order"]
            )
            objective = objective + bound - config.total_correlation.get(name, 1.0) * estimate
            opposing = opposing + guessed
            terms |= {
                f"elbo/{name}": bound,
                f"kl_private/{name}": divergence,
                f"total_correlation/{name}": estimate,
            }
        return losses.LossTerms(objective, terms, opposing)

    def encode_shared(self, images: Mapping[str, Tensor]) -> DiagonalGaussian:
        """The product of experts of the given modalities, without the prior. Raises like MultimodalVAE's."""
        if len(images) < 2:
            return super().encode_shared(images)
        return product_of_experts([self.posteriors(name, value).shared for name, value in images.items()], prior=False)


class DensityRatio(nn.Module):
    """An estimate of ln q(s, c) - ln q(s) q(c), as the difference of the two scores of a classifier."""

    def __init__(self, style: int, content: int, hidden: int):
        super().__init__()
        self.of_style = _leaky(style, hidden, hidden, hidden)
        self.of_content = _leaky(content, hidden, hidden, hidden)
        self.of_both = _leaky(2 * hidden, 2 * hidden, 2 * hidden)
        self.scores = Linear(2 * hidden, 2)

    def forward(self, style: Tensor, content: Tensor) -> Tensor:
        """style (..., batch, s), content (..., batch, c) -> (..., batch) nats."""
        both = torch.cat([self.of_style(style), self.of_content(content)], dim=-1)
        joint, product = networks.in_float32(self.scores(self.of_both(both))).unbind(dim=-1)
        return joint - product


def _leaky(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip(sizes, sizes[1:], strict=False):
        layers += [Linear(before, after), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)


def total_correlation(
    discriminator: nn.Module, style: Tensor, content: Tensor, uniform: Tensor
) -> tuple[Tensor, Tensor]:
    """How far style and content are from independent, and what the discriminator maximises, both (batch,) in nats.

    As in FactorVAE (Kim and Mnih 2018). The first is the discriminator's log density ratio of each pair, whose mean is
    the mutual information if the discriminator is right. The second is the log-likelihood of telling the pairs from
    pairs whose styles were put in the order of `uniform` (batch,); it has no gradient to the codes, and its best
    discriminator is the true ratio. style: (batch, s) and content: (batch, c), codes.
    """
    style_held, content_held = style.detach(), content.detach()
    styles = torch.stack([style_held, style_held[uniform.argsort()]])
    paired, shuffled = discriminator(styles, content_held.expand(2, *content.shape))
    return discriminator(style, content), 0.5 * (F.logsigmoid(paired) + F.logsigmoid(-shuffled))


def nt_xent(a: Tensor, b: Tensor, temperature: float = 1.0) -> Tensor:
    """Chen et al. 2020: the cross entropy, (batch,) in nats, of finding a code's partner among all others.

    For each of the 2 n codes u, -ln exp(cos(u, u') / τ) / Σ_{v ≠ u} exp(cos(u, v) / τ) with u' the partner; the
    mean of the two codes of a sample is its loss. a, b: (batch, d), partners in one row.
    Raises ValueError for fewer than two samples.
    """
    count = len(a)
    if count < 2:
        raise ValueError(f"a contrastive loss needs at least two samples in the batch, got {count}")
    codes = F.normalize(torch.cat([a, b]), dim=-1)
    similarity = codes @ codes.T / temperature
    itself = torch.eye(2 * count, dtype=torch.bool, device=codes.device)
    of_a, of_b = similarity.masked_fill(itself, -math.inf).logsumexp(dim=-1).chunk(2)
    return 0.5 * (of_a + of_b) - similarity.diagonal(offset=count)


def random_subset(uniform: Tensor) -> Tensor:
    """A subset of the modalities from a fair coin for each; one at random if the coins leave out all.

    uniform: draws (..., modalities). Returns (..., modalities) booleans, not all False.
    """
    return (uniform < 0.5) | (_rank(uniform) == 0)


def random_partition(uniform: Tensor, empty_group: bool) -> Tensor:
    """Which modalities are in the first of two groups, from a fair coin for each: (..., modalities) booleans.

    uniform: draws (..., modalities). Without empty_group, a group that the coins leave empty gets one at random.
    """
    if empty_group:
        return uniform < 0.5
    return random_subset(uniform) & (_rank(uniform) < uniform.shape[-1] - 1)


def _rank(values: Tensor) -> Tensor:
    """0 for the least along the last dimension, 1 for the next; equal values have different ranks too."""
    return values.argsort(dim=-1).argsort(dim=-1)


def _product(experts: list[DiagonalGaussian], keep: Tensor) -> DiagonalGaussian:
    """The product of those experts that are kept, without the prior; keep: (..., experts), in no row all False."""
    return product_of_experts([q.where(keep[..., i], math.inf) for i, q in enumerate(experts)], prior=False)
