"""The experiment of chapter B2: JMVAE and JMVAE-kl over alpha beside single VAEs, then on MNIST and SVHN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from qmvae_core import training
from qmvae_core.data import STAND_IN, DigitData, Digits, load_digits, tuple_indices
from qmvae_core.models import JMVAE, build_model, reading
from qmvae_neighbours import vae
from qmvae_neighbours.experiments import Best, Workshop, fit
from qmvae_neighbours.jmvae import model as jmvae
from qmvae_neighbours.jmvae.model import CLASSES, IMAGE, LABEL, config, one_hot
from qmvae_study.evidence.folder import RESULTS
from qmvae_study.judges import load_oracle
from qmvae_study.oracles import DigitClassifier, OracleConfig, train_oracle


def spread(images: Tensor) -> float:
    """Variance of images (n, ...), summed over their pixels."""
    return float(images.flatten(1).var(dim=0, unbiased=True).sum())


@dataclass(frozen=True)
class Settings:
    """How large the experiment of chapter B2 is.

    steps: of each model of image and label. judged, draws: test images, and draws from each proposal. pair_*: the same
    for MNIST-SVHN; pair_changes: of the library's readings, in its notation. judge: how a judge of the stand-in is
    trained; that of the real data is committed.
    """

    steps: int = 2000
    batch_size: int = 128
    learning_rate: float = 1e-3
    alphas: tuple[float, ...] = (0.0, 0.01, 0.1, 1.0)
    latent: int = 10
    widths: tuple[int, ...] = (400,)
    judged: int = 500
    draws: int = 50
    generated: int = 50
    pair_steps: int = 600
    pair_changes: str = "+mnist.weight=1"
    pair_judged: int = 100
    pair_draws: int = 50
    seed: int = 0
    judge: OracleConfig = OracleConfig(epochs=2, channels=8)


SETTINGS = {
    "smoke": Settings(
        steps=20, batch_size=32, alphas=(0.0, 0.1), widths=(32,), judged=30, draws=5, generated=4, pair_steps=4,
        pair_changes="+mnist.weight=1+mnist.widths=[16]+svhn.widths=[4,4,4]+shared=4", pair_judged=10, pair_draws=4,
        judge=OracleConfig(epochs=1, channels=2),
    ),
    "quick": Settings(),
}  # fmt: skip
PAIR_READINGS = ("jmvae", "jmvae-kl")


def binary(digits: Digits) -> Digits:
    """The digits with each pixel black or white, cut at one half: then the Bernoulli likelihood is a probability."""
    return Digits((digits.images > 127).to(torch.uint8) * 255, digits.labels)


def trained(alpha: float, data: DigitData, settings: Settings, workshop: Workshop) -> JMVAE:
    """JMVAE (alpha = 0) or JMVAE-kl of MNIST's images and labels; or the one that the workshop has kept."""
    digits = data.train["mnist"]
    chosen = config(alpha, settings.latent, settings.widths, tuple(digits.images.shape[1:]))
    model = build_model(chosen, settings.seed)

    def loss(generator: torch.Generator) -> Tensor:
        picked = torch.randint(len(digits), (settings.batch_size,), generator=generator)
        values = {IMAGE: digits.batch(picked), LABEL: one_hot(digits.labels[picked])}
        noise = torch.randn(settings.batch_size, settings.latent, generator=generator)
        return model.loss(values, None, {"joint/shared": noise}).loss

    length = {"steps": settings.steps, "learning_rate": settings.learning_rate, "seed": settings.seed}
    what = {"config": chosen.to_dict(), "data": data.identity["content_hash"], "batch": settings.batch_size, **length}
    workshop.trained(model, what, lambda m: fit(m, loss, **length, name=f"alpha {alpha:g}"))
    return model


def trained_on_pairs(name: str, data: DigitData, settings: Settings, workshop: Workshop) -> JMVAE:
    """A reading of the library's JMVAE on MNIST and SVHN, by the library's own trainer; or the one kept."""
    chosen = reading(name + settings.pair_changes)
    epochs = min(4, settings.pair_steps)
    steps, batch, rate = settings.pair_steps // epochs, settings.batch_size, settings.learning_rate
    length = training.TrainingConfig(epochs=epochs, steps_per_epoch=steps, batch_size=batch, learning_rate=rate)

    def train(_: JMVAE) -> Best:
        fitted = training.fit(chosen, length, data.train, [settings.seed], progress="lines")
        return Best(epochs * steps, math.nan, fitted.models[0].state_dict())

    model = build_model(chosen, settings.seed)
    what = {"config": chosen.to_dict(), "data": data.identity["content_hash"], "seed": settings.seed, **asdict(length)}
    workshop.trained(model, what, train)
    return model


def summary(values: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    """Mean and standard error over pairs of each quantity, (n,) each."""
    return {
        name: {"mean": float(value.mean()), "error": float(value.std() / math.sqrt(len(value)))}
        for name, value in values.items()
    }


def baselines(data: DigitData, settings: Settings, workshop: Workshop) -> dict[str, vae.VAE]:
    """What JMVAE is compared with, of the same size and length: VAEs of images, two seeds, and a conditional one."""
    length = vae.Settings(settings.steps, settings.batch_size, settings.learning_rate, seed=settings.seed)
    shape = tuple(data.train["mnist"].images.shape[1:])
    plain = vae.VAEConfig(shape=shape, widths=settings.widths, latent=settings.latent)
    wanted = {
        "VAE": (plain, length),
        "VAE, another seed": (plain, replace(length, seed=settings.seed + 1)),
        "conditional VAE": (replace(plain, labels=CLASSES), length),
    }
    digits, told = data.train["mnist"], {"data": data.identity["content_hash"]}
    return {name: vae.train(c, digits, each, workshop, name, told) for name, (c, each) in wanted.items()}


def judge_for(data: DigitData, settings: Settings) -> DigitClassifier:
    """The committed judge of MNIST, or one made now for the stand-in, which it does not know."""
    if data.identity["kind"] == STAND_IN:
        return train_oracle("mnist", data.train["mnist"], settings.judge, verbose=False)
    return load_oracle("mnist", RESULTS / "oracles")


def image_label(data: DigitData, settings: Settings, workshop: Workshop) -> tuple[dict, dict[str, Tensor]]:
    """All models of image and label, judged on the first test images; metrics, and tensors for figures."""
    judge = judge_for(data, settings)
    known = data.identity | {"content_hash": data.identity["content_hash"] + ", black and white"}
    data = replace(data, identity=known, **{s: {"mnist": binary(getattr(data, s)["mnist"])} for s in ("train", "test")})
    test = data.test["mnist"].select(slice(0, settings.judged))
    images, labels = test.batch(), test.labels
    metrics, tensors = {}, {}
    draws = 4 * settings.draws  # as many as `estimates` has from all its proposals
    for name, model in baselines(data, settings, workshop).items():
        told = labels if model.config.labels else None
        noise = torch.randn(draws, len(images), settings.latent, generator=torch.Generator().manual_seed(settings.seed))
        values = {
            "image given label" if model.config.labels else IMAGE: model.log_evidence(images, noise, told),
            "reconstruction": model.free_energy(images, noise[0], told).log_likelihood,
        }
        tensors |= {f"{name}/{quantity}": value for quantity, value in values.items()}
        metrics[name] = summary(values)
    real = [spread(images[labels == digit]) for digit in range(CLASSES) if (labels == digit).sum() > 1]
    for alpha in settings.alphas:
        model = trained(alpha, data, settings, workshop)
        values = jmvae.estimates(model, {IMAGE: images, LABEL: one_hot(labels)}, settings.draws, settings.seed)
        marginal = jmvae.log_label_marginal(model, 100 * draws, settings.seed)
        every = jmvae.log_joint_of_labels(model, images, max(draws // CLASSES, 1), settings.seed)
        posterior = every.log_softmax(dim=-1)
        values["image by sum"] = torch.logsumexp(every, dim=-1)
        values["image given label"] = values["image, label"] - marginal[labels]
        values["label given image"] = posterior.gather(1, labels[:, None])[:, 0]
        values["reconstruction"] = values["bound image from label"] + values["kl to label"]
        drawn = jmvae.images_from_labels(model, settings.generated, settings.seed)
        read = judge.predict(drawn.flatten(0, 1)).view(drawn.shape[:2])
        named = jmvae.label_probabilities(model, images, settings.draws, settings.seed).argmax(dim=-1)
        metrics[f"{alpha:g}"] = summary(values) | {
            "log label marginal": marginal.tolist(),
            "label from image, accuracy": float((named == labels).float().mean()),
            "label given image, accuracy": float((posterior.argmax(dim=-1) == labels).float().mean()),
            "image from label, accuracy": float((read == torch.arange(CLASSES)).float().mean()),
            "spread": sum(spread(drawn[:, digit]) for digit in range(CLASSES)) / CLASSES,
        }
        tensors |= {f"{alpha:g}/{quantity}": value for quantity, value in values.items()}
        tensors[f"{alpha:g}/generated"] = (255 * drawn[:2]).round().to(torch.uint8)
        tensors[f"{alpha:g}/read"] = read[:2]
    metrics["real"] = {"spread": sum(real) / max(len(real), 1), "judge": judge.accuracy(test)}
    return metrics, tensors


def pairs(data: DigitData, settings: Settings, workshop: Workshop) -> tuple[dict, dict[str, Tensor]]:
    """The library's JMVAE and JMVAE-kl on MNIST and SVHN: likelihoods of test images that show one digit."""
    index = tuple_indices({name: digits.labels for name, digits in data.test.items()}, rounds=1, seed=settings.seed)
    count = len(next(iter(index.values())))
    picked = torch.randperm(count, generator=torch.Generator().manual_seed(settings.seed))[: settings.pair_judged]
    values = {name: data.test[name].batch(index[name][picked]) for name in index}
    metrics, tensors = {}, {}
    for name in PAIR_READINGS:
        model = trained_on_pairs(name, data, settings, workshop)
        found = jmvae.estimates(model, values, settings.pair_draws, settings.seed)
        metrics[name] = summary(found)
        tensors |= {f"pairs/{name}/{quantity}": value for quantity, value in found.items()}
    return metrics, tensors


def carry_out(settings: Settings, workshop: Workshop) -> tuple[dict, dict, dict[str, Tensor]]:
    """Chapter B2: the models of image and label over α, their baselines, and two models of MNIST and SVHN."""
    data = load_digits(workshop.data_root)
    metrics, tensors = image_label(data, settings, workshop)
    pair_metrics, pair_tensors = pairs(data, settings, workshop)
    return data.identity, {"image-label": metrics, "pairs": pair_metrics}, tensors | pair_tensors
