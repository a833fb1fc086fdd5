"""What the tables leave open: how real and how varied generated images are, and which code loses a digit or carries it.

METRICS are those of the library's `evaluation`, those of `codes` and these: all that a record holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from qmvae_core import evaluation
from qmvae_core.data import Digits, tuple_indices
from qmvae_core.evaluation import BATCH, Context, all_rows, cross_generated, one_round, share, shared_codes
from qmvae_study.codes import METRICS as OF_SHARED_CODES
from qmvae_study.oracles import DigitClassifier

LIMIT = 2000  # random images where that many tell enough: a share to 2.2 points either way, at most


# How real: the Fréchet distance to test images


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """|m₁ − m₂|² + tr(C₁ + C₂ − 2 (C₁ C₂)^½) for the means m and covariances C of two sets of features (n, d).

    The squared 2-Wasserstein distance of the Gaussians fitted to both, as in FID (Heusel et al. 2017), whose features
    are those of another network. With C = RᵀR the trace of the root is the sum of the singular values of R₁ R₂ᵀ: no
    root of a matrix is taken, so singular covariances (n ≤ d) do no harm. Fewer images give larger values: only
    distances of one n can be compared.
    Raises ValueError for a set of fewer than two, which has no covariance.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(f"a covariance needs two or more images, got {len(first)} and {len(second)}")
    means = [features.mean(axis=0, dtype=np.float64) for features in (first, second)]
    roots = [
        np.linalg.qr((features - mean) / math.sqrt(len(features) - 1), mode="r")
        for features, mean in zip((first, second), means, strict=True)
    ]
    traces = sum(float(np.square(root).sum()) for root in roots)
    common = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    return max(0.0, float(np.square(means[0] - means[1]).sum() + traces - 2.0 * common))


def features_of(oracle: DigitClassifier, digits: Digits) -> np.ndarray:
    """The oracle's features of all digits: (n, features)."""
    return torch.cat([oracle.features(digits.batch(i)) for i in all_rows(digits).split(BATCH)]).cpu().numpy()


def frechet(generated: np.ndarray, real: np.ndarray) -> dict[str, float | int]:
    """`frechet_distance` with the numbers of generated and of real images."""
    return {"distance": frechet_distance(generated, real), "n": len(generated), "n_real": len(real)}


def frechet_of_halves(real: np.ndarray) -> dict[str, float | int]:
    """The distance of every second real image to the others: what a perfect generator would reach with half as many."""
    return frechet(real[::2], real[1::2])


@torch.no_grad()
def frechet_from_prior(of: Context, real: Mapping[str, np.ndarray]) -> dict[str, dict[str, float | int]]:
    """For each modality `frechet` of images drawn from the priors, as many as there are real ones.

    real: modality -> `features_of` its real images.
    """
    count, generator = max(map(len, real.values())), of.generator("frechet")
    features: dict[str, list[Tensor]] = {name: [] for name in real}
    for start in range(0, count, BATCH):
        images = of.model.generate(min(BATCH, count - start), generator)
        for name, parts in features.items():
            parts.append(of.judges[name].features(images[name]).cpu())
    return {name: frechet(torch.cat(parts).numpy()[: len(real[name])], real[name]) for name, parts in features.items()}


# How varied, and which code the digit comes from


def _pairs(
    judged: Mapping[str, Digits], source: str, target: str, limit: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """At most `limit` random pairs of judged images that show one digit: positions (n,) in source and in target."""
    index = tuple_indices({name: judged[name].labels for name in (source, target)}, rounds=1)
    chosen = torch.randperm(len(index[source]), generator=generator)[:limit]
    return tuple(index[name][chosen.to(index[name].device)].long() for name in (source, target))


def _another(labels: Tensor, of: Tensor, generator: torch.Generator, same_digit: bool) -> Tensor:
    """For each position (n,) in `labels` another one, drawn uniformly from those of the same or of another digit.

    Where an image is the only one of its digit, "another of the same digit" is itself.
    """
    device, labels, of = labels.device, labels.cpu(), of.cpu()
    by_digit = labels.argsort(stable=True)
    counts = labels.bincount(minlength=10)
    start, count = (counts.cumsum(0) - counts)[labels[of]], counts[labels[of]]
    drawn = torch.rand(len(of), generator=generator, dtype=torch.float64)
    if same_digit:
        rank = by_digit.argsort()[of] - start
        place = start + (rank + 1 + (drawn * (count - 1)).long()) % count
    else:
        place = (drawn * (len(labels) - count)).long()
        place += count * (place >= start)
    return by_digit[place].to(device)


def _distance(first: Tensor, second: Tensor) -> Tensor:
    """Euclidean distance of each pair of images or features: (n, ...) and (n, ...) -> (n,)."""
    return (first - second).flatten(1).norm(dim=1)


@torch.no_grad()
def diversity(of: Context, source: str, target: str, conditions: int = 400, draws: int = 5) -> dict:
    """How much images generated from one condition differ, beside how much real images of one digit do.

    For each condition, a judged image of the source, z is the mean of q(z|x) and h is drawn from its prior `draws`
    times. "generated" is the mean Euclidean distance over all pairs of the images of one condition; "real" that
    between a judged image of the target, of the condition's digit, and `draws` - 1 random others of that digit; "ratio"
    the first by the second. Each is given in "features", those of the target's judge, and in "pixels" of [0, 1]. A
    model without private code has nothing to draw: 0. A ratio of 1 says as varied as the data, not as good.
    """
    model, judged, generator = of.model, of.judged, of.generator("diversity", f"{source}->{target}")
    content, anchors = _pairs(judged, source, target, conditions, generator)
    code = model.encode_shared({source: judged[source].batch(content)}).mean.repeat_interleave(draws, dim=0)
    made = model.decode(target, code, model.sample_private(target, len(code), generator))
    first, second = torch.combinations(torch.arange(draws, device=made.device)).T
    labels = judged[target].labels
    anchors = anchors.repeat_interleave(draws - 1)
    others = _another(labels, anchors, generator, same_digit=True)
    apart = anchors != others
    real = [judged[target].batch(i[apart]) for i in (anchors, others)]

    def compare(view) -> dict[str, float]:
        by_condition = view(made).unflatten(0, (-1, draws))
        generated = _distance(by_condition[:, first].flatten(0, 1), by_condition[:, second].flatten(0, 1)).mean()
        among_real = _distance(*map(view, real)).mean()
        return {"generated": generated.item(), "real": among_real.item(), "ratio": (generated / among_real).item()}

    found = {"features": compare(of.judges[target].features), "pixels": compare(lambda images: images)}
    return found | {"conditions": len(content), "draws": draws}


@torch.no_grad()
def code_swaps(of: Context, source: str, target: str, limit: int = LIMIT) -> dict[str, dict[str, dict]]:
    """Where a cross generation loses the digit: z in the wrong place, or an h that carries a digit of its own.

    `limit` random pairs of judged images of one digit, one of the source and one of the target.
    The target's decoder is given z, the mean of the posterior of the "source" image, of the "target" image, or of
    both ("joint", if the model has such a code); and h, which is from the "prior", the prior's mean ("zero"), or the
    mean of q(h|x) of another target image, of the "same_digit" or of an "other_digit". Returns z -> h -> the `share` of
    images that the judge reads as the digit of the pair, and under "digit_of_h" the share with h of an "other_digit"
    that it reads as that other digit. Each h goes with every z, so that columns can be compared.

    Digits lost with z of the "source" but not of the "target": the codes of the source lie elsewhere. Digits lost with
    h from the "prior" but not of the "same_digit", and found as "digit_of_h": h carries the digit.
    """
    model, judged, generator = of.model, of.judged, of.generator("swaps", f"{source}->{target}")
    content, own = _pairs(judged, source, target, limit, generator)
    images, labels = judged[target].batch(own), judged[target].labels
    other = _another(labels, own, generator, same_digit=False)
    donors = {"same_digit": _another(labels, own, generator, same_digit=True), "other_digit": other}
    from_prior = model.sample_private(target, len(own), generator)
    styles = {"prior": from_prior, "zero": torch.zeros_like(from_prior)}
    styles |= {name: model.encode_private(target, judged[target].batch(i)).mean for name, i in donors.items()}

    given = {"source": {source: judged[source].batch(content)}, "target": {target: images}}
    if model.has_joint_code:
        given["joint"] = {**given["source"], **given["target"]}
    found: dict[str, dict[str, dict]] = {}
    for where, inputs in given.items():
        code = model.encode_shared(inputs).mean
        read = {name: of.judges[target].predict(model.decode(target, code, style)) for name, style in styles.items()}
        found[where] = {name: share(value == labels[own]) for name, value in read.items()}
        found[where]["digit_of_h"] = share(read["other_digit"] == labels[other])
    return found


@torch.no_grad()
def private_information(
    model: nn.Module, modality: str, digits: Digits, generator: torch.Generator, limit: int = LIMIT
) -> np.ndarray:
    """How much each private dimension tells about its image: I(h_d; x) in nats, (private,).

    I = E_x KL(q(h_d|x) ‖ q(h_d)), a part of E_x KL(q(h_d|x) ‖ p(h_d)) (Hoffman and Johnson 2016; the rest is how far
    the aggregate q(h_d) is from the prior). The aggregate is the mixture of the posteriors of n random images, `limit`
    or all of them, and the expectation one draw from each: mean_i [ln q(h_di|x_i) − ln (1/n) Σ_j q(h_di|x_j)]. That is
    without bias for these n images, whose information is at most ln n. For all images it is a lower bound in
    expectation, and near their information where that is far below ln n. The error of the draws is about 1/√n.
    """
    chosen = torch.randperm(len(digits), generator=generator)[:limit].to(digits.labels.device)
    parts = [model.encode_private(modality, digits.batch(i)) for i in chosen.split(BATCH)]
    mean, log_var = (torch.cat(value).double().cpu() for value in zip(*parts, strict=True))
    drawn = mean + (0.5 * log_var).exp() * torch.randn(mean.shape, generator=generator, dtype=torch.float64)
    found = []
    for h, m, v in zip(drawn.T, mean.T, log_var.T, strict=True):
        log_density = -0.5 * ((h[:, None] - m).square() * (-v).exp() + v)  # without ln 2π, which the ratio cancels
        log_mixture = log_density.logsumexp(dim=1) - math.log(len(h))
        found.append((log_density.diagonal() - log_mixture).mean().item())
    return np.array(found)


# Beside the metrics of the library


def confusion(labels: Tensor, predicted: Tensor) -> list[list[int]]:
    """Counts (10, 10): row the digit of the condition, column the digit that the judge reads."""
    flat = torch.bincount(labels.cpu() * 10 + predicted.cpu(), minlength=100)
    return flat.reshape(10, 10).tolist()


def confusion_tables(of: Context) -> dict[str, list[list[int]]]:
    """Direction -> `confusion` of the images that are generated by the config's test code."""
    return {
        direction: confusion(of.judged[source].labels, of.crossed[direction][of.model.config.test_code][0])
        for direction, (source, _) in of.directions.items()
    }


@torch.no_grad()
def private_codes(model: nn.Module, modality: str, digits: Digits) -> np.ndarray:
    """The means of q(h|x) of all digits of a modality: (n, private)."""
    parts = all_rows(digits).split(BATCH)
    return torch.cat([model.encode_private(modality, digits.batch(i)).mean.cpu() for i in parts]).numpy()


def nonlinear_probe(codes: np.ndarray, labels: np.ndarray, seed: int):
    """A small network (one hidden layer of 64) on standardised codes, stopped on a tenth of its training part."""
    network = MLPClassifier((64,), early_stopping=True, n_iter_no_change=5, max_iter=1000, random_state=seed % 2**32)
    return make_pipeline(StandardScaler(), network).fit(codes, labels)


def leakage(of: Context, limit: int = 20_000) -> dict[str, dict]:
    """How well the digit can be read from each private code, by a linear and by a small non-linear probe.

    A tenth is chance: nothing leaks. The probes see the first `limit` training images of each modality. A modality
    without a private code has no entry.
    """
    found = {}
    for name in of.private:
        known, judged = of.train[name].select(slice(0, limit)), of.judged[name]
        codes, labels = private_codes(of.model, name, known), known.labels.cpu().numpy()
        test_codes, truth = private_codes(of.model, name, judged), judged.labels.cpu().numpy()
        found[name] = {
            "linear": share(evaluation.linear_probe(codes, labels).predict(test_codes) == truth),
            "nonlinear": share(nonlinear_probe(codes, labels, of.seed).predict(test_codes) == truth),
        }
    return found


@torch.no_grad()
def joint_code(of: Context) -> dict[str, dict]:
    """Whom the joint code follows where the codes of a pair disagree, by the probe of Table 2: "train" and "judged".

    On one round of pairs of each: the accuracy on their "joint" codes and on the codes of each modality "alone"; the
    accuracy on the joint codes of those pairs where one modality "only" is read rightly by its own code; and the
    median "precision" of q(z|x), over images and dimensions. Without joint codes there is nothing: {}.
    """
    if not of.model.has_joint_code:
        return {}
    found = {}
    for split, digits in (("train", of.train), ("judged", of.judged)):
        pairs, truth = one_round(digits, of.seed)
        joint = of.probe.predict(shared_codes(of.model, digits, pairs)) == truth
        right, precision = {}, {}
        for name, index in pairs.items():
            posteriors = list(evaluation.shared_posteriors(of.model, digits, {name: index}))
            right[name] = of.probe.predict(torch.cat([p.mean.cpu() for p in posteriors]).numpy()) == truth
            precision[name] = float(np.median(torch.cat([(-p.log_var).exp().cpu() for p in posteriors]).numpy()))
        only = {name: hits & (sum(right.values()) == 1) for name, hits in right.items()}
        found[split] = {
            "joint": share(joint),
            "alone": {name: share(hits) for name, hits in right.items()},
            "only": {name: share(joint[where]) for name, where in only.items() if where.any()},
            "precision": precision,
        }
    return found


def frechet_distances(of: Context) -> dict[str, dict]:
    """Fréchet distances of all judged images, by modality or direction.

    To images from the "prior", to the cross-generated ones of the config's test code ("cross_generation"), and between
    the halves of the "real" images.
    """
    real = {name: features_of(of.judges[name], digits) for name, digits in of.judged.items()}
    return {
        "real": {name: frechet_of_halves(features) for name, features in real.items()},
        "prior": frechet_from_prior(of, real),
        "cross_generation": {
            direction: frechet(of.crossed[direction][of.model.config.test_code][1], real[target])
            for direction, (_, target) in of.directions.items()
        },
    }


def information(of: Context) -> dict[str, dict]:
    """Modality with a private code -> `private_information`, "nats" of each dimension, and "n" images."""
    found = {}
    for name in of.private:
        nats = private_information(of.model, name, of.judged[name], of.generator("information", name))
        found[name] = {"nats": nats.tolist(), "n": min(LIMIT, len(of.judged[name]))}
    return found


METRICS = {
    **evaluation.METRICS,
    **OF_SHARED_CODES,
    "confusion": confusion_tables,
    "joint_code": joint_code,
    "leakage": leakage,
    "frechet": frechet_distances,
    "diversity": lambda of: {way: diversity(of, *pair) for way, pair in of.directions.items()},
    "code_swaps": lambda of: {w: code_swaps(of, *pair) for w, pair in of.directions.items() if pair[1] in of.private},
    "private_information": information,
}


def at_a_glance(of: Context, fitted: int = 5000, limit: int = 2000) -> dict[str, float]:
    """Tables 1 and 2 in short, for the history of a training: shares in [0, 1] under names that begin with "accuracy/".

    Always the first `limit` judged images of each modality, z by its mean, and a probe that was fitted on the first
    `fitted` training images.
    """
    train = {name: digits.select(slice(fitted)) for name, digits in of.train.items()}
    few = replace(of, train=train, judged={name: digits.select(slice(limit)) for name, digits in of.judged.items()})
    found = {}
    for direction, (source, target) in few.directions.items():
        images = cross_generated(of.model, source, few.judged[source], target, of.generator("glance", direction))
        right = of.judges[target].predict(images) == few.judged[source].labels
        found[f"accuracy/{direction}"] = right.float().mean().item()
    return found | {
        f"accuracy/probe {name}": each["accuracy"] for name, each in evaluation.probe_accuracies(few).items()
    }
