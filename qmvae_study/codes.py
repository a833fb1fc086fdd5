"""Why Tables 1 and 2 are what they are: how the experts are weighed, and what decoders make of codes between classes.

METRICS are those of `diagnosis` that need nothing but shared codes: nothing is trained for them except linear probes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from qmvae_core.data import Digits
from qmvae_core.evaluation import BATCH, Context, all_rows, linear_probe, one_round, share, shared_codes
from qmvae_core.gaussians import DiagonalGaussian, product_of_experts
from qmvae_core.models.qmvae import QMVAE, SHARED_SCALES

Experts = Mapping[str, DiagonalGaussian]  # modality -> q(z|x) of one round of pairs, (n, shared)

# The experts of a joint code


def summed_precision(expert: DiagonalGaussian) -> Tensor:
    """Σ_d 1/σ_d²: how sure an expert is of its whole code, (n,)."""
    return (-expert.log_var).exp().sum(dim=-1)


def weightings(experts: Experts, surest: str, by: float = 8.0) -> dict[str, DiagonalGaussian]:
    """Joint codes of the same experts, weighed in five ways; q(z|x_m) as the encoders give them.

    "as run": equation (8). "SUREST / 8": the precision of that modality's expert divided by `by`. "softmax scales":
    each expert's standard deviations as `shared_scales=softmax` makes them of the same outputs, so that no expert can
    be surer in sum than another. "equal shares": in each dimension the precision of the experts is shared evenly among
    them, so their sum and the prior's share are as run. "without prior": the product of the experts alone.
    """
    each = list(experts.values())
    log_sum = torch.logsumexp(torch.stack([-expert.log_var for expert in each]), dim=0)
    even = [DiagonalGaussian(expert.mean, np.log(len(each)) - log_sum) for expert in each]
    weaker = {surest: DiagonalGaussian(experts[surest].mean, experts[surest].log_var + np.log(by))}
    return {
        "as run": product_of_experts(each),
        f"{surest} / {by:g}": product_of_experts(list((dict(experts) | weaker).values())),
        "softmax scales": product_of_experts([SHARED_SCALES["softmax"](expert) for expert in each]),
        "equal shares": product_of_experts(even),
        "without prior": product_of_experts(each, prior=False),
    }


def shares_of_product(experts: Experts) -> dict[str, Tensor]:
    """What part of the product's precision is each expert's, and the "prior"'s: (n,), the mean over the dimensions.

    With it the means of the experts are averaged: equation (8) is Σ_m share_m μ_m.
    """
    of_each = {name: (-expert.log_var).exp() for name, expert in experts.items()}
    total = 1.0 + sum(of_each.values())
    return {name: (value / total).mean(dim=-1) for name, value in (of_each | {"prior": torch.ones(())}).items()}


@torch.no_grad()
def _experts(of: Context, digits: Mapping[str, Digits]) -> tuple[Experts, np.ndarray]:
    """q(z|x_m) of one round of pairs, and the digits of the pairs."""
    pairs, truth = one_round(digits, of.seed)
    found = {}
    for name, index in pairs.items():
        parts = [of.model.encode_shared({name: digits[name].batch(i.long())}) for i in index.split(BATCH)]
        found[name] = DiagonalGaussian(*(torch.cat(values).cpu() for values in zip(*parts, strict=True)))
    return found, truth


def _when(values: Tensor, hits: np.ndarray) -> dict[str, dict[str, float | int]]:
    """The mean and the standard deviation of values (n,) where hits are "right" and "wrong", if there are any."""
    found = {}
    for name, where in (("right", hits), ("wrong", ~hits)):
        if where.any():
            chosen = values.double().numpy()[where]
            found[name] = {"mean": float(chosen.mean()), "sd": float(chosen.std()), "n": len(chosen)}
    return found


def experts(of: Context) -> dict[str, dict]:
    """The product of experts of Q-MVAE taken apart, on one round of judged pairs; {} for another model.

    "weightings": for each of `weightings` the share of joint codes read rightly by the "probe" of Table 2, which was
    trained on joint codes as run, and by one "refitted" to the training pairs' joint codes of that weighting, which
    also reads the codes of each modality alone. The first says what the codes are worth to the reader there is, the
    second what they hold: a weighting moves all codes, and a probe that does not move with them misjudges that.
    "precision": for each modality the summed precision of its expert where its own code is read rightly and wrongly by
    the probe of Table 2, and "auc", the probability that it is higher for a right one than for a wrong one: 0.5 tells
    nothing. "shares": of the product's precision, on all pairs ("all") and on those that a modality alone misreads.
    """
    if not isinstance(of.model, QMVAE) or len(of.judged) < 2:
        return {}
    taught, labels = _experts(of, of.train)
    given, truth = _experts(of, of.judged)
    surest = max(taught, key=lambda name: summed_precision(taught[name]).mean().item())
    known, joint = (weightings(each, surest) for each in (taught, given))
    found: dict[str, dict] = {"weightings": {}, "precision": {}, "shares": {}}
    for name, posterior in joint.items():
        refitted = of.probe if name == "as run" else linear_probe(known[name].mean.numpy(), labels)
        codes = {"joint": posterior.mean} | {modality: expert.mean for modality, expert in given.items()}
        found["weightings"][name] = {
            "probe": share(of.probe.predict(posterior.mean.numpy()) == truth),
            "refitted": {key: share(refitted.predict(value.numpy()) == truth) for key, value in codes.items()},
        }
    shares = shares_of_product(given)
    found["shares"]["all"] = {key: value.mean().item() for key, value in shares.items()}
    for name, expert in given.items():
        hits, precision = of.probe.predict(expert.mean.numpy()) == truth, summed_precision(expert)
        found["precision"][name] = _when(precision, hits)
        if 0 < hits.sum() < len(hits):
            found["precision"][name]["auc"] = float(roc_auc_score(hits, precision.numpy()))
            found["shares"][f"{name} wrong"] = {key: value[~hits].mean().item() for key, value in shares.items()}
    return found


# Codes between classes

EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # of d₁/d₂, the distances to the nearest and to the second-nearest centroid


def centroids(codes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mean code of each of ten digits: (10, d), for codes (n, d); of a digit that none shows, the mean of all."""
    return np.stack([(codes[where] if (where := labels == digit).any() else codes).mean(axis=0) for digit in range(10)])


def nearest_two(codes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """d₁/d₂ of each code, from 0, at a centroid, to 1, between two: (n,), for codes (n, d) and places (k, d)."""
    distances = np.linalg.norm(codes[:, None].astype(np.float64) - places, axis=-1)
    first, second = np.partition(distances, 1, axis=1)[:, :2].T
    return first / np.maximum(second, np.finfo(float).tiny)


def spread(codes: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Root mean square distances: of codes to their digit's centroid, "within", and of centroids, "between".

    The latter to their mean. codes: (n, d), labels: (n,).
    """
    places = centroids(codes, labels)
    return {"within": _root_mean_square(codes - places[labels]), "between": _root_mean_square(places - places.mean(0))}


def _root_mean_square(steps: np.ndarray) -> float:
    return float(np.sqrt(np.square(steps, dtype=np.float64).sum(axis=1).mean()))


@torch.no_grad()
def read_of(of: Context, target: str, codes: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """The digit that the judge reads in the image of each code, h from its prior: (n,), for codes (n, shared)."""
    model, found = of.model, []
    device = next(model.parameters()).device
    for part in torch.from_numpy(codes).split(BATCH):
        images = model.decode(target, part.to(device), model.sample_private(target, len(part), generator))
        found.append(of.judges[target].predict(images).cpu())
    return torch.cat(found).numpy()


def _by_place(ratios: np.ndarray, hits: np.ndarray) -> dict[str, dict]:
    """The share of hits among codes of each interval of EDGES that has any; the last holds its end."""
    bins = np.clip(np.digitize(ratios, EDGES) - 1, 0, len(EDGES) - 2)
    names = [f"{low:g} to {high:g}" for low, high in zip(EDGES, EDGES[1:], strict=False)]
    return {name: share(hits[bins == i]) for i, name in enumerate(names) if (bins == i).any()}


def between_classes(of: Context, draws: int = 200) -> dict[str, dict]:
    """What decoders make of codes at the centroids of the classes and between them, z by its mean, h from its prior.

    "centroids": target -> source -> the share of images read as the digit at whose centroid of the source's codes they
    were decoded, `draws` a digit. A centroid is the mean code of a digit's training images, of the first as many as are
    judged. "spread": of these codes, by modality. "directions": for each direction of cross generation

    - "train", "judged": the share read as the condition's digit, of those training images and of the judged ones;
    - "well_read": the same of those judged images whose code the probe of Table 2 reads rightly, and "misread" of the
      others; "misread_as_probe": the share of these read as the digit that the probe reads;
    - "by_place": of the well-read ones, by d₁/d₂ (`nearest_two`, of the source's own centroids);
    - "snapped": the share read as the condition's digit where the code is replaced by the target's centroid of the
      digit that the probe reads: what a decoder would give that is right wherever the probe is;
    - "apart": the root mean square distance of the source's centroids from the target's.
    """
    codes, known, places = {}, {}, {}
    for name, digits in of.judged.items():
        first = of.train[name].select(slice(len(digits)))
        known[name] = shared_codes(of.model, {name: first}, {name: all_rows(first)})
        codes[name] = shared_codes(of.model, of.judged, {name: all_rows(digits)})
        labels = first.labels.cpu().numpy()
        places[name] = labels, centroids(known[name], labels)
    shown = np.repeat(np.arange(10), draws)
    return {
        "centroids": {
            target: {
                source: share(
                    read_of(of, target, places[source][1][shown], of.generator("centroids", source, target)) == shown
                )
                for source in of.judged
            }
            for target in of.judged
        },
        "spread": {name: spread(known[name], places[name][0]) for name in of.judged},
        "directions": {
            way: _direction(of, *pair, known[pair[0]], codes[pair[0]], places) for way, pair in of.directions.items()
        },
    }


def _direction(
    of: Context, source: str, target: str, known: np.ndarray, codes: np.ndarray, places: Mapping[str, Sequence]
) -> dict:
    truth, way = of.judged[source].labels.cpu().numpy(), f"{source}->{target}"
    believed = of.probe.predict(codes)
    right = believed == truth
    read = read_of(of, target, codes, of.generator("cross", way, "mean"))  # the images of Table 1
    hits = read == truth
    labels, at = places[source]
    found = {
        "train": share(read_of(of, target, known, of.generator("between", way, "train")) == labels),
        "judged": share(hits),
        "by_place": _by_place(nearest_two(codes, at)[right], hits[right]),
        "snapped": share(
            read_of(of, target, places[target][1][believed], of.generator("between", way, "snapped")) == truth
        ),
        "apart": _root_mean_square(at - places[target][1]),
    }
    for name, where in (("well_read", right), ("misread", ~right)):
        if where.any():
            found[name] = share(hits[where])
    if not right.all():
        found["misread_as_probe"] = share(read[~right] == believed[~right])
    return found


METRICS = {"experts": experts, "between_classes": between_classes}
