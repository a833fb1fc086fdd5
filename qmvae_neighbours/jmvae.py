"""JMVAE and JMVAE-kl: how well the joint code knows one modality, and what is lost where the other one is missing.

Source: Suzuki, Nakayama and Matsuo 2016 (arXiv:1611.01891). The model is `qmvae_core.models.JMVAE`; here it gets a
label as its second modality, and joint, marginal and conditional likelihoods are estimated by importance sampling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from qmvae_core import losses, networks, training
from qmvae_core.data import STAND_IN, DigitData, Digits, load_digits, tuple_indices
from qmvae_core.gaussians import DiagonalGaussian
from qmvae_core.models import JMVAE, JMVAEConfig, ModalityConfig, build_model, reading
from qmvae_core.oracles import DigitClassifier, OracleConfig, train_oracle
from qmvae_neighbours import vae
from qmvae_neighbours.experiments import Workshop, fit
from qmvae_study.evidence.folder import RESULTS
from qmvae_study.judges import load_oracle

IMAGE, LABEL = "image", "label"
CLASSES = 10
PART = 25  # images whose draws are decoded together: less memory, the same result up to the draws


def one_hot(labels: Tensor) -> Tensor:
    """Labels (n,) of integers 0 to 9 as images of one row, (n, 1, 1, 10): one at the label, zero elsewhere."""
    return F.one_hot(labels.long(), CLASSES).float()[:, None, None]


def categorical_log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """ln p(w|z) of a label in nats: (...,); logits and one-hot labels: broadcastable (..., 1, 1, classes)."""
    return (labels * logits.log_softmax(dim=-1)).sum(dim=(-3, -2, -1))


def decoded(model: JMVAE, name: str, codes: Tensor) -> Tensor:
    """Logits (..., c, h, w) of one modality for codes (..., shared)."""
    return model.decoders[name](codes.flatten(0, -2)).unflatten(0, codes.shape[:-1])


def log_likelihood(model: JMVAE, name: str, codes: Tensor, values: Tensor) -> Tensor:
    """ln p(x_m|z) in nats, unweighted: (...,) for codes (..., shared) and values that broadcast to (..., c, h, w)."""
    logits = decoded(model, name, codes)
    if name == LABEL:
        return categorical_log_likelihood(logits, values)
    modality = model.config.modalities[name]
    return losses.log_likelihood(modality.likelihood, logits, values, modality.scale)


class ImageLabelJMVAE(JMVAE):
    """The library's JMVAE of an image and a label: one-hot, (batch, 1, 1, 10), with a categorical likelihood.

    Its encoders, and what stands for a missing modality, are those of `JMVAE`: zeros with alpha = 0, an encoder of its
    own otherwise. Raises ValueError unless the modalities are an image and a label, and like `JMVAE`.
    """

    def __init__(self, config: JMVAEConfig):
        if list(config.modalities) != [IMAGE, LABEL]:
            raise ValueError(f"the modalities must be {[IMAGE, LABEL]}, in this order, got {list(config.modalities)}")
        super().__init__(config)

    def loss(
        self, images: Mapping[str, Tensor], labels: Tensor | None, noise: Mapping[str, Tensor]
    ) -> losses.LossTerms:
        """The joint bound - α Σ_m KL(q(z|x,w) ‖ q(z|m)), by one draw; `labels` has no say, as in JMVAE."""
        joint = self.encode_shared(images)
        code = joint.sample(noise["joint/shared"])
        bound = sum(log_likelihood(self, name, code, value) for name, value in images.items()) - joint.kl_to_prior()
        gaps = {f"kl_to/{name}": joint.kl_to(self.encode_shared({name: images[name]})) for name in self.common_encoders}
        return losses.LossTerms(bound - self.config.alpha * sum(gaps.values()), {"elbo/joint": bound, **gaps})

    forward = loss


def drawn_from(proposals: Sequence[DiagonalGaussian], draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Equally many draws from each of several proposals, and the log density of their mixture.

    proposals: P Gaussians over (n, d). Returns codes (P * draws, n, d), proposal after proposal, and ln of
    Σ_p q_p(z) / P in nats, (P * draws, n). With this density the mean of weights is unbiased, and no integral fares
    worse by a factor above P than with the proposal that suits it best.
    """
    codes = torch.cat([q.sample(torch.randn(draws, *q.mean.shape, generator=generator).to(q.mean)) for q in proposals])
    densities = torch.stack([q.log_prob(codes) for q in proposals])
    return codes, torch.logsumexp(densities, dim=0) - math.log(len(proposals))


def standard_normal(like: Tensor) -> DiagonalGaussian:
    """N(0, I), the prior, in the shape of a tensor (..., d)."""
    return DiagonalGaussian(torch.zeros_like(like), torch.zeros_like(like))


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
        likelihoods = {name: log_likelihood(model, name, codes, value) for name, value in some.items()}
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
    return torch.logsumexp(decoded(model, LABEL, codes).log_softmax(dim=-1).flatten(1), dim=0) - math.log(draws)


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
        image = log_likelihood(model, IMAGE, codes, some) + standard_normal(codes).log_prob(codes)
        labels = decoded(model, LABEL, codes).log_softmax(dim=-1)[..., 0, 0, :]
        parts.append(losses.log_evidence(image[..., None] + labels, density[..., None]))
    return torch.cat(parts)


@torch.no_grad()
def images_from_labels(model: JMVAE, draws: int, seed: int) -> Tensor:
    """Mean images from draws of q(z|w), `draws` for each label: (draws, 10, 1, h, w) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    posterior = model.encode_shared({LABEL: one_hot(torch.arange(CLASSES))})
    noise = torch.randn(draws, *posterior.mean.shape, generator=generator)
    return decoded(model, IMAGE, posterior.sample(noise)).sigmoid()


@torch.no_grad()
def label_probabilities(model: JMVAE, images: Tensor, draws: int, seed: int) -> Tensor:
    """∫ p(w|z) q(z|x) dz, the labels that the image's own encoder and the decoder give: (n, 10), by plain draws."""
    posterior = model.encode_shared({IMAGE: images})
    noise = torch.randn(draws, *posterior.mean.shape, generator=torch.Generator().manual_seed(seed))
    return decoded(model, LABEL, posterior.sample(noise)).softmax(dim=-1)[..., 0, 0, :].mean(dim=0)


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


def config(alpha: float, latent: int, widths: Sequence[int], shape: Sequence[int] = (1, 28, 28)) -> JMVAEConfig:
    """The model of a binary image and a label: dense networks, a plain bound."""
    common = {"network": "dense", "private": 0, "encoders": "common", "likelihood": "bernoulli"}
    modalities = {
        IMAGE: ModalityConfig(shape=tuple(shape), widths=tuple(widths), **common),
        LABEL: ModalityConfig(shape=(1, 1, CLASSES), widths=(max(widths[-1] // 8, 4),), **common),
    }
    return JMVAEConfig(modalities=modalities, shared=latent, alpha=alpha)


def build(chosen: JMVAEConfig, seed: int) -> ImageLabelJMVAE:
    """The untrained model of a config."""
    return networks.initialise(ImageLabelJMVAE(chosen), torch.Generator().manual_seed(seed))


def binary(digits: Digits) -> Digits:
    """The digits with each pixel black or white, cut at one half: then the Bernoulli likelihood is a probability."""
    return Digits((digits.images > 127).to(torch.uint8) * 255, digits.labels)


def trained(alpha: float, data: DigitData, settings: Settings, workshop: Workshop) -> ImageLabelJMVAE:
    """JMVAE (alpha = 0) or JMVAE-kl of MNIST's images and labels; or the one that the workshop has kept."""
    digits = data.train["mnist"]
    chosen = config(alpha, settings.latent, settings.widths, tuple(digits.images.shape[1:]))
    model = build(chosen, settings.seed)

    def loss(generator: torch.Generator) -> Tensor:
        picked = torch.randint(len(digits), (settings.batch_size,), generator=generator)
        values = {IMAGE: digits.batch(picked), LABEL: one_hot(digits.labels[picked])}
        noise = torch.randn(settings.batch_size, settings.latent, generator=generator)
        return model.loss(values, None, {"joint/shared": noise}).loss

    length = {"steps": settings.steps, "learning_rate": settings.learning_rate, "seed": settings.seed}
    what = {"config": chosen.to_dict(), "data": data.identity["content_hash"], "batch": settings.batch_size, **length}
    return workshop.trained(model, what, lambda m: fit(m, loss, **length, name=f"alpha {alpha:g}"))


def trained_on_pairs(name: str, data: DigitData, settings: Settings, workshop: Workshop) -> JMVAE:
    """A reading of the library's JMVAE on MNIST and SVHN, by the library's own trainer; or the one kept."""
    chosen = reading(name + settings.pair_changes)
    epochs = min(4, settings.pair_steps)
    steps, batch, rate = settings.pair_steps // epochs, settings.batch_size, settings.learning_rate
    length = training.TrainingConfig(epochs=epochs, steps_per_epoch=steps, batch_size=batch, learning_rate=rate)

    def train(model: JMVAE) -> None:
        fitted = training.fit(chosen, length, data.train, [settings.seed], progress="lines")
        model.load_state_dict(fitted.models[0].state_dict())

    what = {"config": chosen.to_dict(), "data": data.identity["content_hash"], "seed": settings.seed, **asdict(length)}
    return workshop.trained(build_model(chosen, settings.seed), what, train)


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
    return {name: vae.train(c, data, each, workshop, name) for name, (c, each) in wanted.items()}


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
        values = estimates(model, {IMAGE: images, LABEL: one_hot(labels)}, settings.draws, settings.seed)
        marginal = log_label_marginal(model, 100 * draws, settings.seed)
        every = log_joint_of_labels(model, images, max(draws // CLASSES, 1), settings.seed)
        posterior = every.log_softmax(dim=-1)
        values["image by sum"] = torch.logsumexp(every, dim=-1)
        values["image given label"] = values["image, label"] - marginal[labels]
        values["label given image"] = posterior.gather(1, labels[:, None])[:, 0]
        values["reconstruction"] = values["bound image from label"] + values["kl to label"]
        drawn = images_from_labels(model, settings.generated, settings.seed)
        read = judge.predict(drawn.flatten(0, 1)).view(drawn.shape[:2])
        named = label_probabilities(model, images, settings.draws, settings.seed).argmax(dim=-1)
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
        found = estimates(model, values, settings.pair_draws, settings.seed)
        metrics[name] = summary(found)
        tensors |= {f"pairs/{name}/{quantity}": value for quantity, value in found.items()}
    return metrics, tensors


def carry_out(settings: Settings, workshop: Workshop) -> tuple[dict, dict, dict[str, Tensor]]:
    """Chapter B2: the models of image and label over α, their baselines, and two models of MNIST and SVHN."""
    data = load_digits(workshop.data_root)
    metrics, tensors = image_label(data, settings, workshop)
    pair_metrics, pair_tensors = pairs(data, settings, workshop)
    return data.identity, {"image-label": metrics, "pairs": pair_metrics}, tensors | pair_tensors
