"""The experiment of chapter B3: Gromov-Wasserstein auto-encoders beside VAEs, on scenes with known factors and digits.

`model` has the model, `scenes` the scenes and their scores. Asked of the codes: does each dimension have a factor of
its own, and does a score tell strange images from the digits that were trained on?
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from torch import Tensor

from qmvae_core.data import DigitData, Digits, load_digits
from qmvae_neighbours import vae
from qmvae_neighbours.experiments import Workshop
from qmvae_neighbours.gwae import scenes
from qmvae_neighbours.gwae.model import GWAE, PRIORS, GWAEConfig, distances, fitted, gromov_cost
from qmvae_neighbours.vae.model import standard_normal


@dataclass(frozen=True)
class Settings:
    """How large the experiment is. steps, batch_size, learning_rate: of every model. rounds: of the critic in a step.

    learning_rate: of 0.0003, 0.001 and 0.002 the one with the lowest objective of a GWAE after some hundred steps, on
    the validation part of the digits. judged: images of a test set. mixed: training images that a mixture is fitted to.
    """

    steps: int = 750
    rounds: int = 2
    batch_size: int = 64
    learning_rate: float = 2e-3
    betas: tuple[float, ...] = (1.0, 8.0)
    seeds: tuple[int, ...] = (0, 1, 2)
    scene_latent: int = 6
    digit_latent: int = 10
    judged: int = 1000
    mixed: int = 5000
    trees: int = 20


SMOKE = Settings(steps=4, rounds=1, betas=(8.0,), seeds=(0, 1), judged=40, mixed=400, trees=1)
SETTINGS = {"smoke": SMOKE, "quick": Settings()}
DRAWN = 40  # model pairs whose distances are kept


def trained(config, digits: Digits, settings: Settings, seed: int, workshop: Workshop, told: dict) -> GWAE | vae.VAE:
    """A model of either config trained without labels, or the one that was kept; told: what the digits are."""
    s, which = settings, f"{told['data']}, seed {seed}"
    if isinstance(config, vae.VAEConfig):
        length = vae.Settings(s.steps, s.batch_size, s.learning_rate, seed=seed)
        return vae.train(config, digits, length, workshop, f"VAE, beta {config.beta:g}, {which}", told)
    model = GWAE(config, torch.Generator().manual_seed(seed))
    what = {"config": asdict(config), "settings": asdict(s), "seed": seed, **told}
    length = s.steps, s.batch_size, s.learning_rate, s.rounds, seed, f"GWAE, {config.prior} prior, {which}"
    workshop.trained(model, what, lambda m: fitted(m, digits.images, *length))
    return model


def vae_of(shape: tuple[int, int, int], latent: int, beta: float = 1.0) -> vae.VAEConfig:
    """A VAE of the widths of the GWAEs."""
    return vae.VAEConfig(shape, GWAEConfig.widths, latent, beta=beta)


def gwaes(shape: tuple[int, int, int], latent: int) -> dict[str, GWAEConfig]:
    """Name -> the GWAE of each prior."""
    return {f"GWAE, {prior}": GWAEConfig(prior, shape, latent=latent) for prior in PRIORS}


def coded(model: GWAE | vae.VAE, images: Tensor) -> tuple[Tensor, Tensor]:
    """The mean code (n, latent) of images (n, c, h, w), and the image in [0, 1] that is decoded from it."""
    ours = isinstance(model, GWAE)
    codes = (model.encoder if ours else model.encode)(images).mean
    return codes, model.decode(codes) if ours else model.decode(codes).sigmoid()


def noise_ratio(images: Tensor, rebuilt: Tensor) -> float:
    """Peak signal-to-noise ratio in decibels of images in [0, 1]: -10 log10 of the mean squared error of a pixel."""
    return float(-10 * (images - rebuilt).square().mean().log10())


def features(images: Tensor, codes: Tensor, rebuilt: Tensor) -> np.ndarray:
    """What DAGMM's mixture sees, (n, latent + 2): codes, and relative distance and cosine of images and rebuilt ones.

    Source: Zong et al., "Deep Autoencoding Gaussian Mixture Model for Unsupervised Anomaly Detection", ICLR 2018.
    """
    x, r = images.flatten(1), rebuilt.flatten(1)
    apart = (x - r).norm(dim=1) / x.norm(dim=1), F.cosine_similarity(x, r)
    return torch.column_stack([codes, *apart]).double().numpy()


def strangeness(model: GWAE | vae.VAE, images: Tensor, seed: int, mixture=None) -> dict[str, Tensor]:
    """Scores (n,) of images (n, c, h, w) that should be higher outside the training distribution.

    The source's are "potential, decoded", of the code with its decoded image; "prior", minus its log density of the
    code; and "mixture", minus the log density of `features` by a GaussianMixture that was fitted to them, if any.
    """
    codes, rebuilt = coded(model, images)
    scores = {"squared error": (images - rebuilt).square().flatten(1).sum(dim=1)}
    if mixture:
        scores["mixture"] = -torch.from_numpy(mixture.score_samples(features(images, codes, rebuilt)))
    if isinstance(model, GWAE):
        return scores | {"potential, decoded": model.critic(rebuilt, codes), "potential": model.critic(images, codes)}
    noise = torch.randn(codes.shape, generator=torch.Generator().manual_seed(seed))
    energy = model.free_energy(images, noise).total
    return scores | {"prior": -standard_normal(codes).log_prob(codes), "free energy": energy}


def detection(inside: Tensor, outside: Tensor) -> float:
    """Area under the ROC curve of scores (n,) and (m,): the chance that one outside is higher than one inside."""
    return float(roc_auc_score([0] * len(inside) + [1] * len(outside), torch.cat([inside, outside]).numpy()))


def fit_of_distances(model: GWAE, seed: int, count: int = 400) -> tuple[dict[str, float], dict[str, Tensor]]:
    """How well the distances of `count` model pairs agree, and the first of the pairs' distances to be drawn."""
    codes = model.prior(count, torch.Generator().manual_seed(seed))
    scale = model.log_scale.exp()
    between_images, between_codes = distances(model.decode(codes)), scale * distances(codes)
    both = torch.stack([between_images, between_codes])
    numbers = {
        "cost": float(gromov_cost(*both)),
        "mean_distance": float(between_images.mean()),
        "scale": float(scale),
        "correlation": float(both.corrcoef()[0, 1]),
    }
    few = codes[:DRAWN]
    return numbers, {"distances/images": distances(model.decode(few)), "distances/codes": scale * distances(few)}


@torch.no_grad()
def carry_out(settings: Settings, workshop: Workshop) -> tuple[dict, dict, dict[str, Tensor]]:
    """Chapter B3: scenes with known factors by DCI, then strange images told from digits, and what is to be drawn."""
    data = load_digits(workshop.data_root)
    metrics, tensors = {"scenes": {}, "digits": {}}, {}
    for seed in settings.seeds:
        _scenes(settings, seed, workshop, metrics["scenes"], tensors)
        _digits(settings, seed, workshop, data, metrics["digits"], tensors)
    return data.identity, metrics, tensors


def _scenes(settings: Settings, seed: int, workshop: Workshop, metrics: dict, tensors: dict) -> None:
    images, factors = scenes.scenes()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    held_out, kept = order[: len(order) // 10], order[len(order) // 10 :]
    shown = Digits(images[kept], factors[kept, 0])
    tensors["scenes"] = images[held_out[:10]]
    form = tuple(images.shape[1:]), settings.scene_latent
    configs = {f"VAE, β = {beta:g}": vae_of(*form, beta) for beta in settings.betas} | gwaes(*form)
    for name, config in configs.items():
        with torch.enable_grad():
            model = trained(config, shown, settings, seed, workshop, {"data": "scenes"})
        codes, rebuilt = coded(model, images.float() / 255)
        scores, importance, right = scenes.dci(codes, factors, seed, settings.trees)
        row = scores._asdict() | {
            "right": dict(zip(scenes.FACTORS, right.tolist(), strict=True)),
            "axis": dict(zip(scenes.FACTORS, importance.amax(dim=0).tolist(), strict=True)),
            "noise_ratio": noise_ratio(images[held_out].float() / 255, rebuilt[held_out]),
        }
        metrics.setdefault(name, []).append(row)
        before = tensors.get(f"{name}/importance", torch.zeros(0, *importance.shape))
        tensors[f"{name}/importance"] = torch.cat([before, importance.float()[None]])
        if seed == settings.seeds[0]:
            tensors[f"{name}/rebuilt"] = _bytes(rebuilt[held_out[:10]])
            if isinstance(model, GWAE):
                tensors[f"{name}/walk"] = _bytes(walk(model, codes))


def walk(model: GWAE, codes: Tensor, columns: int = 7) -> Tensor:
    """Decoded images (latent, columns, c, h, w): each row moves one dimension over its 5th to 95th percentile.

    codes: (n, latent) of data. The other dimensions stay at their medians.
    """
    shares = torch.linspace(0.05, 0.95, columns)
    rows = codes.median(dim=0).values.repeat(codes.shape[1], columns, 1)
    for i in range(codes.shape[1]):
        rows[i, :, i] = codes[:, i].quantile(shares)
    return model.decode(rows.flatten(0, 1)).unflatten(0, rows.shape[:2])


def _digits(settings: Settings, seed: int, workshop: Workshop, data: DigitData, metrics: dict, tensors: dict) -> None:
    digits, told = data.train["mnist"], {"data": "digits", "hash": data.identity["content_hash"]}
    sets = strange(data, settings.judged)
    tensors |= {f"sets/{name}": made[:10] for name, made in sets.items()}
    others = {name: made.float() / 255 for name, made in sets.items()}
    inside, taught = others.pop("digits"), digits.select(slice(0, settings.mixed)).batch()
    form = tuple(inside.shape[1:]), settings.digit_latent
    for name, config in ({"VAE": vae_of(*form)} | gwaes(*form)).items():
        with torch.enable_grad():
            model = trained(config, digits, settings, seed, workshop, told)
        mixture = GaussianMixture(GWAEConfig.components, max_iter=1000, random_state=seed)
        mixture.fit(features(taught, *coded(model, taught)))
        known = strangeness(model, inside, seed, mixture)
        found = {other: strangeness(model, made, seed, mixture) for other, made in others.items()}
        rebuilt = coded(model, inside)[1]
        row = {
            "noise_ratio": noise_ratio(inside, rebuilt),
            "areas": {s: {other: detection(known[s], found[other][s]) for other in found} for s in known},
        }
        metrics.setdefault(name, []).append(row)
        generator, kept = torch.Generator().manual_seed(seed), {}
        if isinstance(model, GWAE):
            parts = model.objective(inside, torch.Generator().manual_seed(seed))._asdict()
            row["objective"] = {part: float(value) for part, value in parts.items()}
            row["distances"], kept = fit_of_distances(model, seed)
            drawn = model.decode(model.prior(10, generator))
            if config.prior == "mixture":
                kept["components"] = _bytes(model.decode(model.prior.standardise(model.prior.means)))
        else:
            drawn = model.decode(torch.randn(10, form[1], generator=generator)).sigmoid()
        if seed == settings.seeds[0]:
            kept |= {"rebuilt": _bytes(rebuilt[:10]), "generated": _bytes(drawn)}
            tensors |= {f"{name}/digits/{which}": value for which, value in kept.items()}


def strange(data: DigitData, count: int) -> dict[str, Tensor]:
    """Sets of `count` images (n, 1, 28, 28) uint8, from near to far: the digits themselves, mirrored, letters, SVHN.

    "house numbers" are SVHN's test images in grey, brought to 28 x 28.
    """
    digits = data.test["mnist"].images
    grey = data.test["svhn"].images[:count].float().mean(dim=1, keepdim=True)
    grey = F.interpolate(grey, size=digits.shape[-2:], mode="area")
    return {
        "digits": digits[:count],
        "mirrored digits": digits[:count].flip(-1),
        "letters": scenes.letters(count, seed=0),
        "house numbers": grey.round().to(torch.uint8),
    }


def _bytes(images: Tensor) -> Tensor:
    return (255 * images).round().to(torch.uint8)
