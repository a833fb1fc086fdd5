"""Which factors of a code carry information: mutual information as an indicator, and what it bounds.

Source: chapter 3 of Liu's thesis, whose equations are named here by its numbers; its results are those of Liu et al.
(arXiv:1809.01804). A "factor" is one dimension of a code z, drawn from a diagonal Gaussian q(z|x). Its sigma is a
variance. Everything is in nats and in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import entr
from scipy.stats import spearmanr
from torch import Tensor, nn

from qmvae_core.data import Digits, load_digits
from qmvae_core.evaluation import linear_probe
from qmvae_core.gaussians import DiagonalGaussian
from qmvae_core.models import build_model, reading
from qmvae_neighbours.experiments import Workshop
from qmvae_neighbours.vae import VAE, VAEConfig, train
from qmvae_study.evidence.folder import REPOSITORY
from qmvae_study.evidence.records import read_record
from qmvae_study.runs import load_model

# The estimator: Algorithm 3-1


def aggregate(posterior: DiagonalGaussian) -> DiagonalGaussian:
    """Equation (3-26): the Gaussian q* with mean zero that is nearest to the posteriors of n images on average.

    Its variance is the mean over the images of variance plus squared mean. posterior: (n, d). Returns (d,).
    """
    second = (posterior.log_var.double().exp() + posterior.mean.double().square()).mean(dim=0)
    return DiagonalGaussian(torch.zeros_like(second), second.log())


def divergences(posterior: DiagonalGaussian, other: DiagonalGaussian | None = None) -> Tensor:
    """The terms of (3-11): the mean over n images of KL(q(z_h|x) ‖ other_h), one a factor: (d,).

    posterior: (n, d). other: (d,), or None for the prior N(0, 1).
    """
    each = DiagonalGaussian(*(value.double().unsqueeze(-1) for value in posterior))
    if other is None:
        return each.kl_to_prior().mean(dim=0)
    return each.kl_to(DiagonalGaussian(*(value.unsqueeze(-1) for value in other))).mean(dim=0)


def information(posterior: DiagonalGaussian) -> Tensor:
    """Equation (3-22), Algorithm 3-1: the estimate of I(x; z_h) from n images, (d,). Its sum is the total of (3-21).

    It exceeds I(x; z_h) by KL(q(z_h) ‖ q*_h), lemma 3.1, so it is exact only where the aggregate is a Gaussian with
    mean zero. posterior: (n, d).
    """
    return divergences(posterior, aggregate(posterior))


# The same information without the Gaussian, a factor at a time


def mixture_entropy(posterior: DiagonalGaussian, finest: int = 40_000) -> Tensor:
    """Entropy of the aggregate (1/n) Σ_i N(mean_i, variance_i) in nats, each factor on its own, by quadrature: (d,).

    The steps are half the least deviation of a factor, for which the trapezoidal rule is all but exact. posterior:
    (n, d). Raises ValueError where that takes more than `finest` points.
    """
    mean, log_var = (value.double() for value in posterior)
    deviation = (0.5 * log_var).exp()
    low, high = (mean - 9 * deviation).amin(dim=0), (mean + 9 * deviation).amax(dim=0)
    counts = (2 * (high - low) / deviation.amin(dim=0)).ceil().long() + 1
    if counts.max() > finest:
        raise ValueError(
            f"factor {int(counts.argmax())} needs {int(counts.max()):,} points, more than finest={finest:,}: its least "
            "deviation is too small for its range; leave that image out, or allow more points"
        )
    found = []
    for h, count in enumerate(counts.tolist()):
        each = DiagonalGaussian(mean[:, h, None], log_var[:, h, None])
        grid = torch.linspace(low[h], high[h], count, dtype=torch.float64)
        parts = [each.log_prob(part[:, None, None]).logsumexp(dim=1) for part in grid.split(128)]
        log_density = torch.cat(parts) - math.log(len(mean))
        found.append(-(log_density.exp() * log_density).sum() * (grid[1] - grid[0]))
    return torch.stack(found)


def mixture_information(posterior: DiagonalGaussian) -> Tensor:
    """I(x; z_h) where x is one of n images, all equally likely: (d,), each at most ln n; the I of (3-10) and (3-12).

    The entropy of the aggregate minus that of the posteriors. posterior: (n, d).
    """
    noise = 0.5 * (math.log(2 * math.pi * math.e) + posterior.log_var.double()).mean(dim=0)
    return mixture_entropy(posterior) - noise


def label_information(posterior: DiagonalGaussian, labels: Tensor) -> Tensor:
    """I(y; z_h) of the labels of n images, (d,): what a factor tells of the label. posterior: (n, d); labels: (n,)."""
    within = 0.0
    for label in labels.unique():
        rows = labels == label
        share = rows.double().mean()
        within = within + share * mixture_entropy(DiagonalGaussian(posterior.mean[rows], posterior.log_var[rows]))
    return mixture_entropy(posterior) - within


def total_correlation(posterior: DiagonalGaussian) -> float:
    """What theorem 3.3 leaves out: the sum of I(x; z_h) minus I(x; z), if the aggregate were jointly Gaussian, in nats.

    Minus half the log determinant of the aggregate's correlations. posterior: (n, d).
    """
    mean = posterior.mean.double()
    covariance = mean.T.cov(correction=0) + posterior.log_var.double().exp().mean(dim=0).diag()
    return 0.5 * float(covariance.diagonal().log().sum() - torch.logdet(covariance))


def linear_information(weights: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """The known case: z = W y + noise, y ~ N(0, I). I(y; z) in nats as one number, and I(y; z_h): (d,).

    ½ ln det(I + W Wᵀ / variances), and ½ ln(1 + |w_h|² / variance_h). weights: (d, p). variances: (d,), of the noise.
    """
    scaled = weights.double() / variances.double().sqrt()[:, None]
    together = torch.eye(len(scaled), dtype=torch.float64) + scaled @ scaled.T
    return 0.5 * torch.logdet(together), 0.5 * together.diagonal().log()


# What information bounds


def error_bound(entropy: float, nats: float, dimensions: int = 1) -> float:
    """Equation (3-16): least squared error, summed over the dimensions, of a guess at x from a code with I(x; z) nats.

    d / (2 π e) · exp(2 (h(x) - I) / d). The thesis prints d = 1 for any x, which does not hold for vectors. entropy:
    the differential entropy of x in nats.
    """
    return dimensions / (2 * math.pi * math.e) * math.exp(2 * (entropy - nats) / dimensions)


def gaussian_distortion(variances: np.ndarray, nats: float) -> float:
    """The least squared error at which a Gaussian x with these variances can be known from `nats` of information.

    Reverse water-filling (Cover and Thomas, theorem 10.3.3): variances above a level are cut to it, Σ ½ ln(v / level)
    over those is the information. Raises ValueError for negative nats or variances that are not positive.
    """
    variances = np.sort(np.asarray(variances, dtype=float))[::-1]
    if nats < 0 or not len(variances) or variances[-1] <= 0:
        raise ValueError("nats must not be negative and variances must be positive: leave out what is constant")
    # With the k largest cut, the level follows from the nats; the right k is the one whose level lies below them only.
    counts = np.arange(1, len(variances) + 1)
    levels = np.exp((np.cumsum(np.log(variances)) - 2 * nats) / counts)
    below = np.append(variances[1:], 0.0)
    k = int(np.argmax(levels >= below))
    return float((k + 1) * levels[k] + variances[k + 1 :].sum())


def fano_error(entropy: float, nats: float, choices: float) -> float:
    """Equation (3-18): the least P with H(P) + P ln(choices) ≥ H(y) - I, H the binary entropy, all in nats.

    choices: |Y| as printed, or |Y| - 1 for the sharp inequality. nats: I(y; z), or I(x; z), which is not less.
    """
    missing = entropy - nats

    def surplus(error: float) -> float:
        return float(entr(error) + entr(1 - error)) + error * math.log(choices) - missing

    if missing <= 0:
        return 0.0
    top = choices / (choices + 1)  # where the left side is largest
    return float(brentq(surplus, 0.0, top)) if surplus(top) > 0 else top


def weak_fano_error(entropy: float, nats: float, choices: float) -> float:
    """Equation (3-20): (H(y) - I - 1) / ln(choices); 1 exceeds the binary entropy, which is ln 2 at most."""
    return (entropy - nats - 1) / math.log(choices)


# Keeping some factors


def kept_factors(indicator: Tensor, share: float) -> Tensor:
    """Indices of the factors with the largest indicator, best first: the share of them in per cent, rounded up."""
    if not 0 <= share <= 100:
        raise ValueError(f"share is in per cent, 0 to 100, got {share}")
    return indicator.argsort(descending=True, stable=True)[: math.ceil(share / 100 * len(indicator))]


def only(codes: Tensor, factors: Tensor) -> Tensor:
    """The codes (..., d) with all but the given factors set to zero."""
    kept = torch.zeros_like(codes)
    kept[..., factors] = codes[..., factors]
    return kept


# The experiment of chapter B4

SHARES = (100, 20, 10, 7, 5, 3, 1, 0)  # of table 3-2, in per cent
READINGS = ("best", "best+beta=0")  # of Q-MVAE: with the quadruplet loss and without


@dataclass(frozen=True)
class Settings:
    """How large the experiment is.

    scale: where the learned scale of the noise starts; 0.25 is about the deviation of MNIST's pixels. unit_steps: of
    the training with a scale of one. judged: test images; probed: training images for the classifiers; removed: test
    images on which factors are taken away one by one.
    """

    steps: int = 10_000
    batch_size: int = 128
    learning_rate: float = 1e-3
    latent: int = 128
    beta: float = 10.0
    scale: float = 0.25
    unit_steps: int = 1500
    judged: int = 10_000
    probed: int = 5_000
    removed: int = 1_000
    seed: int = 0


SETTINGS = {
    "smoke": Settings(steps=20, latent=16, unit_steps=10, judged=60, probed=60, removed=20),
    "quick": Settings(),
}


def factors_of(posterior: DiagonalGaussian, labels: Tensor) -> dict[str, list[float]]:
    """All that is measured of each factor: three kinds of information in nats, two variances and the aggregate mean."""
    return {
        "information": information(posterior).tolist(),
        "mixture": mixture_information(posterior).tolist(),
        "label": label_information(posterior, labels).tolist(),
        "divergence": divergences(posterior).tolist(),
        "variance": aggregate(posterior).log_var.exp().tolist(),
        "variance_of_mean": posterior.mean.double().var(dim=0, correction=0).tolist(),
        "mean": posterior.mean.double().mean(dim=0).tolist(),
    }


def error(model: VAE, codes: Tensor, images: Tensor) -> float:
    """Mean over the images of the squared error of a decoded code, summed over the pixels in [0, 1]."""
    parts = zip(codes.split(1000), images.split(1000), strict=True)
    sums = [float((model.decode(c).sigmoid() - x).square().sum()) for c, x in parts]
    return sum(sums) / len(images)


def judged_vae(model: VAE, fit: Digits, test: Digits, settings: Settings) -> tuple[dict, dict[str, Tensor]]:
    """Factors, shares kept, factors removed one by one and classifiers of a trained VAE, and images to be drawn."""
    generator = torch.Generator().manual_seed(settings.seed)
    images, known = test.batch(), fit.batch()
    posterior, taught = model.encode(images), model.encode(known)
    sample, taught_sample = (q.sample(torch.randn(q.mean.shape, generator=generator)) for q in (posterior, taught))

    def accuracy(kept: Tensor) -> float:
        """Of a linear classifier on draws of these factors: Fano's inequality is about z, not about its mean."""
        probe = linear_probe(taught_sample[:, kept].numpy(), fit.labels.numpy())
        return float((probe.predict(sample[:, kept].numpy()) == test.labels.numpy()).mean())

    factors = factors_of(posterior, test.labels)
    nats, mixture = torch.tensor(factors["information"]), torch.tensor(factors["mixture"])
    rows, tensors = [], {"images": test.images[:10]}
    for share in SHARES:
        kept = kept_factors(nats, share)
        rows.append({
            "share": share, "kept": len(kept), "information": float(nats[kept].sum()),
            "mixture": float(mixture[kept].sum()),
            "error": error(model, only(posterior.mean, kept), images),
            "error_of_sample": error(model, only(sample, kept), images),
            "accuracy": accuracy(kept) if len(kept) else None,
        })  # fmt: skip
        shown = model.decode(only(posterior.mean[:10], kept)).sigmoid()
        tensors[f"kept/{share}"] = (255 * shown).round().to(torch.uint8)

    few, codes = images[: settings.removed], posterior.mean[: settings.removed]
    whole = error(model, codes, few)
    ranked = kept_factors(nats, 100)
    removed = [error(model, only(codes, ranked[ranked != h]), few) - whole for h in range(len(nats))]
    walk = torch.linspace(-3, 3, 7)
    drawn = torch.cat([ranked[:6], ranked[-1:]])
    traversed = posterior.mean[0].repeat(len(drawn), len(walk), 1)
    for row, h in enumerate(drawn.tolist()):
        traversed[row, :, h] = walk
    tensors["traversed"] = (255 * model.decode(traversed).sigmoid()).round().to(torch.uint8)
    indicators = ("information", "mixture", "variance", "variance_of_mean")
    return {
        "factors": factors | {"removed": removed},
        "shares": rows,
        "single": [{"factor": h, "accuracy": accuracy(ranked[i : i + 1])} for i, h in enumerate(ranked[:30].tolist())],
        "ranks": {name: float(spearmanr(factors[name], removed).statistic) for name in indicators},
        "scale": float(model.log_scale.exp()),
        "total_correlation": total_correlation(posterior),
    }, tensors


def qmvae_models(real: bool) -> Iterable[tuple[str, nn.Module]]:
    """Q-MVAE's readings, with the committed weights that their records name.

    Without real data: one untrained model with small networks, so that the code runs.
    """
    if not real:
        small = f"{READINGS[0]}+mnist.widths=[8]+svhn.widths=[2,2]"
        yield "untrained", build_model(reading(small)).eval()
        return
    evidence = REPOSITORY / "results"
    for name in READINGS:
        record = read_record(evidence / "runs" / f"quick-qmvae-{name}-seed0.json")
        yield name, load_model(record, evidence)


def judged_qmvae(model: nn.Module, test: dict[str, Digits]) -> dict[str, dict]:
    """The factors of the shared and the private code of each modality: "shared mnist" and so on."""
    found = {}
    for modality, digits in test.items():
        parts = [
            (model.encode_shared({modality: images}), model.encode_private(modality, images))
            for images in digits.batch().split(1000)
        ]
        for name, posteriors in zip(("shared", "private"), zip(*parts, strict=True), strict=True):
            joined = DiagonalGaussian(*(torch.cat(value) for value in zip(*posteriors, strict=True)))
            found[f"{name} {modality}"] = factors_of(joined, digits.labels) | {
                "total_correlation": total_correlation(joined)
            }
    return found


@torch.no_grad()
def carry_out(settings: Settings, workshop: Workshop) -> tuple[dict, dict, dict[str, Tensor]]:
    """Chapter B4: the VAE with many factors on MNIST, the same with noise of unit scale, and Q-MVAE's codes."""
    data = load_digits(workshop.data_root)
    test = {name: digits.select(slice(0, settings.judged)) for name, digits in data.test.items()}
    config = VAEConfig(latent=settings.latent, beta=settings.beta, noise="learned", scale=settings.scale)
    unit = VAEConfig(latent=settings.latent, beta=settings.beta, noise="normal")
    with torch.enable_grad():
        model = train(config, data, settings, workshop, "β-VAE")
        plain = train(unit, data, replace(settings, steps=settings.unit_steps), workshop, "β-VAE, unit scale")
    fit = data.train["mnist"].select(slice(0, settings.probed))
    found, tensors = judged_vae(model, fit, test["mnist"], settings)
    images = test["mnist"].batch()
    flat = images.flatten(1).double()
    posterior = plain.encode(images)
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(settings.seed))
    values = torch.linalg.eigvalsh(flat.T.cov(correction=0)).flip(0)
    tensors["eigenvalues"] = values.float()
    metrics = {
        "vae": found,
        "unit": {
            "information": float(information(posterior).sum()),
            "error": error(plain, posterior.mean, images),
            "error_of_sample": error(plain, posterior.sample(noise), images),
        },
        "mean_image_error": float(values.sum()),
        "label_entropy": float(entr(np.bincount(test["mnist"].labels) / len(images)).sum()),
        "qmvae": {name: judged_qmvae(q, test) for name, q in qmvae_models(data.identity["kind"] == "real")},
    }
    return data.identity, metrics, tensors
