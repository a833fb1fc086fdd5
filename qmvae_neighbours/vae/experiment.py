"""The experiment of chapter B1: one change to the variational auto-encoder at a time, each judged on digits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from qmvae_core.data import Digits, load_digits
from qmvae_core.gaussians import DiagonalGaussian
from qmvae_neighbours.experiments import Workshop, fit
from qmvae_neighbours.vae.model import VAE, VAEConfig


@dataclass(frozen=True)
class Settings:
    """How large the experiment of chapter B1 is. judged: test images; draws: of importance sampling."""

    steps: int = 2500
    batch_size: int = 128
    learning_rate: float = 1e-3
    betas: tuple[float, ...] = (0.25, 1.0, 4.0, 16.0)
    judged: int = 1000
    draws: int = 500
    seed: int = 0


@dataclass(frozen=True)
class Repeated(Settings):
    """How large the chapter's second experiment is: the same length, fewer draws, each of `seeds` in place of seed."""

    draws: int = 100
    seeds: tuple[int, ...] = (0, 1, 2)


SETTINGS = {"smoke": Settings(steps=20, betas=(1.0, 4.0), judged=40, draws=5), "quick": Settings()}
REPEATED = {"smoke": Repeated(steps=20, judged=40, draws=5, seeds=(0, 1)), "quick": Repeated()}
BASE = VAEConfig()
NEAR = replace(BASE, noise="learned", scale=0.2)  # it starts near its end, since it moves by a step's rate at most
BITS = "binarised, Bernoulli noise", "binarised, normal noise"
KINDER = f"{BITS[1]}, mean as probability"  # another reading of the same model, added after a look at the first
REPEATS = {
    "VAE": BASE,
    "isotropic covariance": replace(BASE, covariance="isotropic"),
    "one learned scale": NEAR,
    "scale by a network": replace(NEAR, noise="network"),
    **dict(zip(BITS, (BASE, NEAR), strict=True)),
}


def variants(settings: Settings) -> dict[str, VAEConfig]:
    """Name of each model of the chapter -> its config: one change at a time."""
    named = {
        "VAE": BASE,
        "full covariance": replace(BASE, covariance="full"),
        "normal noise, scale 1": replace(BASE, noise="normal"),
        "normal noise, learned scale": replace(BASE, noise="learned"),
        "conditional": replace(BASE, labels=10),
    }
    return named | {f"beta {beta:g}": replace(BASE, beta=beta) for beta in settings.betas if beta != BASE.beta}


def train(config: VAEConfig, digits: Digits, settings, workshop: Workshop, name: str, told: Mapping) -> VAE:
    """A VAE trained on digits and, if it is conditional, their labels; or the one that the workshop has kept.

    settings: a dataclass with steps, batch_size, learning_rate and seed. told: what the digits are.
    """
    model = VAE(config, torch.Generator().manual_seed(settings.seed))

    def loss(generator: torch.Generator) -> Tensor:
        picked = torch.randint(len(digits), (settings.batch_size,), generator=generator)
        noise = torch.randn(settings.batch_size, config.latent, generator=generator)
        known = digits.labels[picked] if config.labels else None
        return model.free_energy(digits.batch(picked), noise, known).total.mean()

    length = {"steps": settings.steps, "learning_rate": settings.learning_rate, "seed": settings.seed}
    what = {"config": asdict(config), "batch": settings.batch_size, **length, **told}
    workshop.trained(model, what, lambda m: fit(m, loss, **length, name=name))
    return model


@torch.no_grad()
def measured(model: VAE, images: Tensor, labels: Tensor, settings: Settings) -> tuple[dict, dict[str, Tensor]]:
    """Means over images (n, c, h, w) in [0, 1], and of some the value of each image, (n,).

    All in nats but `squared_error`, a sum over the pixels, and `active`: dimensions with more than 0.01 nats.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    labels = labels if model.config.labels else None
    noise = torch.randn(len(images), model.config.latent, generator=generator)
    found = model.free_energy(images, noise, labels)
    many = torch.randn(settings.draws, len(images), model.config.latent, generator=generator)
    evidence = model.log_evidence(images, many, labels)
    posterior = model.encode(images, labels)
    mean = model.decode(posterior.mean, labels).sigmoid()
    bound = found.log_likelihood - found.divergence
    result = {
        "bound": float(bound.mean()),
        "log_likelihood": float(found.log_likelihood.mean()),
        "divergence": float(found.divergence.mean()),
        "log_evidence": float(evidence.mean()),
        "squared_error": float((mean - images).square().sum(dim=(1, 2, 3)).mean()),
        "scale": float(model.scale(posterior.mean, labels).mean()),
    }
    if isinstance(posterior, DiagonalGaussian):
        result["active"] = int((nats_by_dimension(posterior) > 0.01).sum())
    return result, {"bound": bound, "log_evidence": evidence}


def nats_by_dimension(posterior: DiagonalGaussian) -> Tensor:
    """The mean divergence to the prior of each dimension, (d,) nats, for posteriors (batch, d)."""
    return DiagonalGaussian(*(value.unsqueeze(-1) for value in posterior)).kl_to_prior().mean(dim=0)


@torch.no_grad()
def carry_out(settings: Settings, workshop: Workshop) -> tuple[dict, dict, dict[str, Tensor]]:
    """Chapter B1: all variants trained and judged on the first test images of MNIST, and images to be drawn."""
    data = load_digits(workshop.data_root)
    test = data.test["mnist"].select(slice(0, settings.judged))
    images, labels, told = test.batch(), test.labels, {"data": data.identity["content_hash"]}
    metrics, tensors = {}, {"images": test.images[:10]}
    generator = torch.Generator().manual_seed(settings.seed)
    prior = torch.randn(10, BASE.latent, generator=generator)
    for name, config in variants(settings).items():
        with torch.enable_grad():
            model = train(config, data.train["mnist"], settings, workshop, name, told)
        metrics[name], each = measured(model, images, labels, settings)
        tensors |= {f"{name}/{quantity}": values for quantity, values in each.items()}
        each_label = torch.arange(10) if config.labels else None
        reconstructed = model.decode(model.encode(images[:10], labels[:10]).mean, labels[:10]).sigmoid()
        tensors[f"{name}/reconstructed"] = (255 * reconstructed).round().to(torch.uint8)
        # With a condition: rows share a code, columns a label; without: one draw of the prior each.
        codes = prior[:5, None].expand(5, 10, -1) if config.labels else prior
        tensors[f"{name}/generated"] = (255 * model.decode(codes, each_label).sigmoid()).round().to(torch.uint8)
    return data.identity, metrics, tensors


def binarised(digits: Digits, seed: int) -> Digits:
    """Black and white digits, drawn once with the grey values as probabilities (Salakhutdinov and Murray, 2008)."""
    drawn = torch.bernoulli(digits.batch(), generator=torch.Generator().manual_seed(seed))
    return Digits(255 * drawn.to(torch.uint8), digits.labels)


@torch.no_grad()
def carry_out_repeats(settings: Repeated, workshop: Workshop) -> tuple[dict, dict, dict[str, Tensor]]:
    """Chapter B1's second experiment: REPEATS over seeds, and each test image's bound: (seeds, judged)."""
    data = load_digits(workshop.data_root)
    grey = data.train["mnist"], data.test["mnist"].select(slice(0, settings.judged))
    drawn = [binarised(digits, seed) for seed, digits in enumerate(grey)]
    metrics, bounds = {}, {}
    for seed in settings.seeds:
        each = replace(settings, seed=seed)
        for name, config in REPEATS.items():
            told = {"data": data.identity["content_hash"], "binarised": name in BITS}
            fitted, judged = drawn if name in BITS else grey
            with torch.enable_grad():
                model = train(config, fitted, each, workshop, f"{name}, seed {seed}", told)
            # As a density it could not be compared.
            readings = {name: "bits", KINDER: "bernoulli"} if name == BITS[1] else {name: config.noise}
            for read, noise in readings.items():
                model.config = replace(config, noise=noise)
                row, values = measured(model, judged.batch(), judged.labels, each)
                metrics.setdefault(read, []).append(row)
                bounds.setdefault(f"{read}/bound", []).append(values["bound"])
    return data.identity, metrics, {name: torch.stack(values) for name, values in bounds.items()}
