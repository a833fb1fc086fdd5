"""Which factors of a code carry information: mutual information as an indicator, and what it bounds.

Source: chapter 3 of Liu's thesis, by its equations' numbers; its results are those of Liu et al. (arXiv:1809.01804). A
"factor" is a dimension of a code z, drawn from a diagonal Gaussian q(z|x); nats and double precision everywhere."""

import math

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import entr
from torch import Tensor

from qmvae_core.gaussians import DiagonalGaussian

# The estimator: Algorithm 3-1


def aggregate(posterior: DiagonalGaussian) -> DiagonalGaussian:
    """Equation (3-26): the Gaussian q* with mean zero that is nearest to the posteriors of n images on average.

    Its variance is the mean over the images of variance plus squared mean. posterior: (n, d). Returns (d,)."""
    second = (posterior.log_var.double().exp() + posterior.mean.double().square()).mean(dim=0)
    return DiagonalGaussian(torch.zeros_like(second), second.log())


def divergences(posterior: DiagonalGaussian, other: DiagonalGaussian | None = None) -> Tensor:
    """The terms of (3-11): the mean over n images of KL(q(z_h|x) ‖ other_h), one a factor: (d,).

    posterior: (n, d). other: (d,), or None for the prior N(0, 1)."""
    each = DiagonalGaussian(*(value.double().unsqueeze(-1) for value in posterior))
    to_other = each.kl_to(DiagonalGaussian(*(value.unsqueeze(-1) for value in other))) if other else each.kl_to_prior()
    return to_other.mean(dim=0)


def information(posterior: DiagonalGaussian) -> Tensor:
    """Equation (3-22), Algorithm 3-1: the estimate of I(x; z_h) from n images, (d,). Its sum is the total of (3-21).

    By lemma 3.1 it is exact only where the aggregate is a Gaussian of mean zero, else too large. posterior: (n, d)."""
    return divergences(posterior, aggregate(posterior))


# The same information without the Gaussian, a factor at a time


def mixture_entropy(posterior: DiagonalGaussian, finest: int = 40_000) -> Tensor:
    """Entropy of the aggregate (1/n) Σ_i N(mean_i, variance_i) in nats, each factor on its own, by quadrature: (d,).

    The steps are half the least deviation of a factor, for which the trapezoidal rule is all but exact. posterior:
    (n, d). Raises ValueError where that takes more than `finest` points."""
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

    The entropy of the aggregate minus that of the posteriors. posterior: (n, d)."""
    noise = 0.5 * (math.log(2 * math.pi * math.e) + posterior.log_var.double()).mean(dim=0)
    return mixture_entropy(posterior) - noise


def label_information(posterior: DiagonalGaussian, labels: Tensor) -> Tensor:
    """I(y; z_h) of the labels of n images, (d,): what a factor tells of the label. posterior: (n, d); labels: (n,)."""
    within = 0.0
    for rows in (labels == label for label in labels.unique()):
        part = DiagonalGaussian(*(value[rows] for value in posterior))
        within = within + rows.double().mean() * mixture_entropy(part)
    return mixture_entropy(posterior) - within


def total_correlation(posterior: DiagonalGaussian) -> float:
    """What theorem 3.3 leaves out: the sum of I(x; z_h) minus I(x; z), if the aggregate were jointly Gaussian, in nats.

    Minus half the log determinant of the aggregate's correlations. posterior: (n, d)."""
    mean = posterior.mean.double()
    covariance = mean.T.cov(correction=0) + posterior.log_var.double().exp().mean(dim=0).diag()
    return 0.5 * float(covariance.diagonal().log().sum() - torch.logdet(covariance))


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


def linear_information(weights: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """The known case: z = W y + noise, y ~ N(0, I). I(y; z) in nats as one number, and I(y; z_h): (d,).

    ½ ln det(I + W Wᵀ / variances), and ½ ln(1 + |w_h|² / variance_h). weights: (d, p); variances: (d,), of noise."""
    scaled = weights.double() / variances.double().sqrt()[:, None]
    together = torch.eye(len(scaled), dtype=torch.float64) + scaled @ scaled.T
    return 0.5 * torch.logdet(together), 0.5 * together.diagonal().log()


# Which factors: section 3.5


def turned(codes: Tensor, turn: Tensor) -> Tensor:
    """Equation (3-42), y = Q z, for codes (..., d); with Q transposed (3-43) and (3-44), z = Qᵀ y.

    Raises ValueError for a turn Q (d, d) that is not orthogonal: factors would not stay independent."""
    if not torch.allclose(turn @ turn.T, torch.eye(len(turn), dtype=turn.dtype), atol=1e-6):
        raise ValueError("the matrix is not orthogonal, so independent factors would not stay independent")
    return codes @ turn.T


# What information bounds


def error_bound(entropy: float, nats: float, dimensions: int = 1) -> float:
    """Equation (3-16): least squared error, summed over the dimensions, of a guess at x from a code with I(x; z) nats.

    d / (2 π e) · exp(2 (h(x) - I) / d), h the entropy. As printed, d = 1 for any x, it does not hold for vectors."""
    return dimensions / (2 * math.pi * math.e) * math.exp(2 * (entropy - nats) / dimensions)


def gaussian_distortion(variances: np.ndarray, nats: float) -> float:
    """The least squared error at which a Gaussian x with these variances can be known from `nats` of information.

    Reverse water-filling (Cover and Thomas, theorem 10.3.3): variances above a level are cut to it, Σ ½ ln(v / level)
    over those is the information. Raises ValueError for negative nats or variances that are not positive."""
    variances = np.asarray(variances, dtype=float)
    if nats < 0 or not len(variances) or variances.min() <= 0:
        raise ValueError("nats must not be negative and variances must be positive: leave out what is constant")
    lowest, highest = np.log(variances.min()) - 2 * nats, np.log(variances.max())
    level = brentq(lambda level: np.maximum(np.log(variances) - level, 0).sum() / 2 - nats, lowest, highest)
    return float(np.minimum(variances, math.exp(level)).sum())


def fano_error(entropy: float, nats: float, choices: float) -> float:
    """Equation (3-18): the least P with H(P) + P ln(choices) ≥ H(y) - I, H the binary entropy, all in nats.

    choices: |Y| as printed, or |Y| - 1 for the sharp inequality. nats: I(y; z), or I(x; z), which is not less."""
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
