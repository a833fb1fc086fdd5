"""JMVAE and JMVAE-kl: how well the joint code knows one modality, and what is lost where the other one is missing.

Source: Suzuki, Nakayama and Matsuo 2016 (arXiv:1611.01891). The model is `qmvae_core.models.JMVAE`; here it gets a
label as its second modality, and joint, marginal and conditional likelihoods are estimated by importance sampling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from qmvae_core import losses
from qmvae_core.gaussians import DiagonalGaussian
from qmvae_core.models import JMVAE, JMVAEConfig, ModalityConfig
from qmvae_neighbours.vae.model import standard_normal

IMAGE, LABEL = "image", "label"
CLASSES = 10
PART = 25  # images whose draws are decoded together: less memory, the same result up to the draws


def one_hot(labels: Tensor) -> Tensor:
    """Labels (n,) of integers 0 to 9 as images of one row, (n, 1, 1, 10): one at the label, zero elsewhere."""
    return F.one_hot(labels.long(), CLASSES).float()[:, None, None]


def drawn_from(proposals: Sequence[DiagonalGaussian], draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Equally many draws from each of several proposals, and the log density of their mixture.

    proposals: P Gaussians over (n, d). Returns codes (P * draws, n, d), proposal after proposal, and ln of
    Σ_p q_p(z) / P in nats, (P * draws, n). With this density the mean of weights is unbiased, and no integral fares
    worse by a factor above P than with the proposal that suits it best.
    """
    codes = torch.cat([q.sample(torch.randn(draws, *q.mean.shape, generator=generator).to(q.mean)) for q in proposals])
    densities = torch.stack([q.log_prob(codes) for q in proposals])
    return codes, torch.logsumexp(densities, dim=0) - math.log(len(proposals))


def integrals(
    likelihoods: Mapping[str, Tensor], codes: Tensor, log_density: Tensor, single: Mapping[str, DiagonalGaussian]
) -> dict[str, Tensor]:
    """Five integrals over the code by importance sampling with one set of draws, (n,) nats each.

    With modalities x and w: "x, w" ln ∫ p(x|z) p(w|z) p(z), the joint likelihood; "x" ln ∫ p(x|z) p(z), and "w" alike;
    "x from w" ln ∫ p(x|z) q(z|w), the likelihood of what the decoder makes of w's own encoder, and "w from x" alike.
    likelihoods: ln p(m|z) at the draws, (S, n) for each of two modalities. codes (S, n, d) with the log density (S, n)
    from which they were drawn. single: q(z|m) of each. In expectation each estimate is too low, and less so with more
    draws (Burda et al. 2016). Raises ValueError for other than two modalities.
    """
    if len(likelihoods) != 2:
        raise ValueError(f"there must be two modalities, got {list(likelihoods)}")
    prior = standard_normal(codes).log_prob(codes)
    names = list(likelihoods)
    found = {", ".join(names): losses.log_evidence(sum(likelihoods.values()) + prior, log_density)}
    for name, other in (names, names[::-1]):
        found[name] = losses.log_evidence(likelihoods[name] + prior, log_density)
        generated = likelihoods[name] + single[other].log_prob(codes)
        found[f"{name} from {other}"] = losses.log_evidence(generated, log_density)
    return found


def bounds(
    likelihoods: Mapping[str, Tensor], joint: DiagonalGaussian, single: Mapping[str, DiagonalGaussian]
) -> dict[str, Tensor]:
    """Lower bounds of three of these integrals and the divergences in them, (n,) nats each.

    "bound x, w": E[ln p(x|z) + ln p(w|z)] - KL(q(z|x,w) ‖ p(z)).
    "bound x from w": E[ln p(x|z)] - KL(q(z|x,w) ‖ q(z|w)), and "bound w from x" alike.
    likelihoods: ln p(m|z) at draws from the joint posterior, (K, n) for each of two modalities.
    """
    names = list(likelihoods)
    mean = {name: value.mean(dim=0) for name, value in likelihoods.items()}
    found = {"kl": joint.kl_to_prior(), f"bound {', '.join(names)}": sum(mean.values()) - joint.kl_to_prior()}
    for name, other in (names, names[::-1]):
        found[f"kl to {other}"] = joint.kl_to(single[other])
        found[f"bound {name} from {other}"] = mean[name] - found[f"kl to {other}"]
    return found


@torch.no_grad()
def estimates(model: JMVAE, values: Mapping[str, Tensor], draws: int, seed: int) -> dict[str, Tensor]:
    """`integrals` and `bounds` of a model of two modalities for n pairs, (n,) nats each.

    The draws come equally from q(z|x,w), q(z|x), q(z|w) and the prior. "x by its encoder" is the marginal with q(z|x)
    as the only proposal: it shows what that encoder misses. draws: from each proposal.
    """
    generator = torch.Generator().manual_seed(seed)
    count = len(next(iter(values.values())))
    parts = []
    for start in range(0, count, PART):
        some = {name: value[start : start + PART] for name, value in values.items()}
        joint = model.encode_shared(some)
        single = {name: model.encode_shared({name: value}) for name, value in some.items()}
        codes, density = drawn_from([joint, *single.values(), standard_normal(joint.mean)], draws, generator)
        likelihoods = {name: model.log_likelihood(name, value, codes) for name, value in some.items()}
        found = integrals(likelihoods, codes, density, single)
        found |= bounds({name: value[:draws] for name, value in likelihoods.items()}, joint, single)
        for place, name in enumerate(some, start=1):
            own = slice(place * draws, (place + 1) * draws)
            joint_density = likelihoods[name][own] + standard_normal(codes[own]).log_prob(codes[own])
            found[f"{name} by its encoder"] = losses.log_evidence(joint_density, single[name].log_prob(codes[own]))
        parts.append(found)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@torch.no_grad()
def log_label_marginal(model: JMVAE, draws: int, seed: int) -> Tensor:
    """ln p(w) of every label, (10,) nats: the mean of p(w|z) over draws of the prior, which needs no proposal."""
    codes = model.sample_shared(draws, torch.Generator().manual_seed(seed))
    return torch.logsumexp(model.logits(LABEL, codes).log_softmax(dim=-1).flatten(1), dim=0) - math.log(draws)


@torch.no_grad()
def log_joint_of_labels(model: JMVAE, images: Tensor, draws: int, seed: int) -> Tensor:
    """ln p(x, w) for every label w, (n, 10) nats: its log-sum-exp is ln p(x), its softmax the model's own p(w|x).

    draws: from each q(z|x,w), w = 0..9, and from the prior, so that nothing here knows the right label.
    """
    generator = torch.Generator().manual_seed(seed)
    every = one_hot(torch.arange(CLASSES))
    parts = []
    for some in images.split(PART):
        proposals = [model.encode_shared({IMAGE: some, LABEL: label.expand(len(some), -1, -1, -1)}) for label in every]
        codes, density = drawn_from([*proposals, standard_normal(proposals[0].mean)], draws, generator)
        image = model.log_likelihood(IMAGE, some, codes) + standard_normal(codes).log_prob(codes)
        labels = model.logits(LABEL, codes).log_softmax(dim=-1)[..., 0, 0, :]
        parts.append(losses.log_evidence(image[..., None] + labels, density[..., None]))
    return torch.cat(parts)


@torch.no_grad()
def images_from_labels(model: JMVAE, draws: int, seed: int) -> Tensor:
    """Mean images from draws of q(z|w), `draws` for each label: (draws, 10, 1, h, w) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    posterior = model.encode_shared({LABEL: one_hot(torch.arange(CLASSES))})
    noise = torch.randn(draws, *posterior.mean.shape, generator=generator)
    return model.logits(IMAGE, posterior.sample(noise)).sigmoid()


@torch.no_grad()
def label_probabilities(model: JMVAE, images: Tensor, draws: int, seed: int) -> Tensor:
    """∫ p(w|z) q(z|x) dz, the labels that the image's own encoder and the decoder give: (n, 10), by plain draws."""
    posterior = model.encode_shared({IMAGE: images})
    noise = torch.randn(draws, *posterior.mean.shape, generator=torch.Generator().manual_seed(seed))
    return model.logits(LABEL, posterior.sample(noise)).softmax(dim=-1)[..., 0, 0, :].mean(dim=0)


def config(alpha: float, latent: int, widths: Sequence[int], shape: Sequence[int] = (1, 28, 28)) -> JMVAEConfig:
    """The model of a binary image and a label: dense networks, a plain bound."""
    common = {"network": "dense", "private": 0, "encoders": "common"}
    modalities = {
        IMAGE: ModalityConfig(shape=tuple(shape), widths=tuple(widths), likelihood="bernoulli", **common),
        LABEL: ModalityConfig(
            shape=(1, 1, CLASSES), widths=(max(widths[-1] // 8, 4),), likelihood="categorical", **common
        ),
    }
    return JMVAEConfig(modalities=modalities, shared=latent, alpha=alpha)
