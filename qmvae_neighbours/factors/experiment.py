"""The experiment of chapter B4: a code of many factors, which of them carry information, and Q-MVAE's codes."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.special import entr
from scipy.stats import spearmanr
from torch import Tensor, nn

from qmvae_core.data import Digits, load_digits
from qmvae_core.evaluation import linear_probe
from qmvae_core.gaussians import DiagonalGaussian
from qmvae_core.models import build_model, reading
from qmvae_core.names import FIRST_BEST
from qmvae_neighbours.experiments import Workshop
from qmvae_neighbours.factors.model import factors_of, information, total_correlation
from qmvae_neighbours.vae import VAE, VAEConfig, train
from qmvae_study.evidence.folder import REPOSITORY
from qmvae_study.evidence.records import read_record
from qmvae_study.runs import load_model

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
INDICATORS = ("information", "mixture", "variance", "variance_of_mean")
READINGS = (FIRST_BEST, f"{FIRST_BEST}+beta=0")  # of Q-MVAE: with the quadruplet loss and without


@dataclass(frozen=True)
class Settings:
    """How large the experiment is.

    scale: where that of the noise starts, about the deviation of MNIST's pixels. unit_steps: of the training with a
    scale of one. judged, removed: test images, the latter to take a factor away. probed: images for the classifiers."""

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


SMOKE = Settings(steps=20, latent=16, unit_steps=10, judged=60, probed=60, removed=20)
SETTINGS = {"smoke": SMOKE, "quick": Settings()}


def error(model: VAE, codes: Tensor, images: Tensor) -> float:
    """Mean over the images of the squared error of a decoded code, summed over the pixels in [0, 1]."""
    parts = zip(codes.split(1000), images.split(1000), strict=True)
    return sum(float((model.decode(c).sigmoid() - x).square().sum()) for c, x in parts) / len(images)


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
            "share": share, "kept": len(kept),
            "information": float(nats[kept].sum()), "mixture": float(mixture[kept].sum()),
            "error": error(model, only(posterior.mean, kept), images),
            "error_of_sample": error(model, only(sample, kept), images),
            "accuracy": accuracy(kept) if len(kept) else None,
        })  # fmt: skip
        shown = model.decode(only(posterior.mean[:10], kept)).sigmoid()
        tensors[f"kept/{share}"] = (255 * shown).round().to(torch.uint8)

    few, codes = images[: settings.removed], posterior.mean[: settings.removed]
    whole, ranked = error(model, codes, few), kept_factors(nats, 100)
    removed = [error(model, only(codes, ranked[ranked != h]), few) - whole for h in range(len(nats))]
    walk, drawn = torch.linspace(-3, 3, 7), torch.cat([ranked[:6], ranked[-1:]])
    traversed = posterior.mean[0].repeat(len(drawn), len(walk), 1)
    for row, h in enumerate(drawn.tolist()):
        traversed[row, :, h] = walk
    tensors["traversed"] = (255 * model.decode(traversed).sigmoid()).round().to(torch.uint8)
    return {
        "factors": factors | {"removed": removed},
        "shares": rows,
        "single": [{"factor": h, "accuracy": accuracy(ranked[i : i + 1])} for i, h in enumerate(ranked[:30].tolist())],
        "ranks": {name: float(spearmanr(factors[name], removed).statistic) for name in INDICATORS},
        "scale": float(model.log_scale.exp()),
        "total_correlation": total_correlation(posterior),
    }, tensors


def qmvae_models(real: bool) -> Iterable[tuple[str, nn.Module]]:
    """Q-MVAE's readings, with the committed weights that their records name.

    Without real data: one untrained model with small networks, so that the code runs."""
    if not real:
        yield "untrained", build_model(reading(f"{READINGS[0]}+mnist.widths=[8]+svhn.widths=[2,2]")).eval()
    for name in READINGS if real else ():
        evidence = REPOSITORY / "results"
        yield name, load_model(read_record(evidence / "runs" / f"quick-qmvae-{name}-seed0.json"), evidence)


def judged_qmvae(model: nn.Module, test: dict[str, Digits]) -> dict[str, dict]:
    """The factors of the shared and the private code of each modality: "shared mnist" and so on."""
    found = {}
    for modality, digits in test.items():
        parts = [(model.encode_shared({modality: images}), model.encode_private(modality, images))
                 for images in digits.batch().split(1000)]  # fmt: skip
        for name, posteriors in zip(("shared", "private"), zip(*parts, strict=True), strict=True):
            joined = DiagonalGaussian(*map(torch.cat, zip(*posteriors, strict=True)))
            found[f"{name} {modality}"] = factors_of(joined, digits.labels)
            found[f"{name} {modality}"]["total_correlation"] = total_correlation(joined)
    return found


@torch.no_grad()
def carry_out(settings: Settings, workshop: Workshop) -> tuple[dict, dict, dict[str, Tensor]]:
    """Chapter B4: the VAE with many factors on MNIST, the same with noise of unit scale, and Q-MVAE's codes."""
    data = load_digits(workshop.data_root)
    test = {name: digits.select(slice(0, settings.judged)) for name, digits in data.test.items()}
    config = VAEConfig(latent=settings.latent, beta=settings.beta, noise="learned", scale=settings.scale)
    unit = VAEConfig(latent=settings.latent, beta=settings.beta, noise="normal")
    digits, told = data.train["mnist"], {"data": data.identity["content_hash"]}
    with torch.enable_grad():
        model = train(config, digits, settings, workshop, "β-VAE", told)
        plain = train(unit, digits, replace(settings, steps=settings.unit_steps), workshop, "β-VAE, unit scale", told)
    found, tensors = judged_vae(model, digits.select(slice(0, settings.probed)), test["mnist"], settings)
    images, generator = test["mnist"].batch(), torch.Generator().manual_seed(settings.seed)
    posterior = plain.encode(images)
    noise = torch.randn(posterior.mean.shape, generator=generator)
    values = torch.linalg.eigvalsh(images.flatten(1).double().T.cov(correction=0)).flip(0)
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
