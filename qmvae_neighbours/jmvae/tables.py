"""What chapter B2 finds, as tables: the sweep over alpha, differences of likelihoods, verdicts on the source."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from qmvae_neighbours.experiments import Found
from qmvae_neighbours.report import claims, listed
from qmvae_study.evidence.folder import RESULTS
from qmvae_study.evidence.records import read_record

CHOSEN = "0.1"  # as in the library's reading jmvae-kl; the source names no value
CHECK = {
    "ln p(x), four proposals": ("image", "mean"),
    "by the sum over labels": ("image by sum", "mean"),
    "standard error over images": ("image by sum", "error"),
}
SWEEP = {
    "joint bound": "bound image, label", "KL to prior": "kl", "KL to q(z|x)": "kl to image",
    "KL to q(z|w)": "kl to label", "ln p(x, w)": "image, label", "ln p(x)": "image", "ln p(x|w)": "image given label",
    "ln p(w|x)": "label given image", "generation: ln p̃(x|w)": "image from label",
    "generation: ln p̃(w|x)": "label from image", "image from label, judge": "image from label, accuracy",
    "label from image, right": "label from image, accuracy", "label by p(w|x), right": "label given image, accuracy",
    "spread": "spread",
}  # fmt: skip
GAINS = {
    "the model's own ln p(x)": "image",
    "ln p(x) through the image's encoder": "image by its encoder",
    "the model's own ln p(x|w)": "image given label",
    "the model's own ln p(w|x)": "label given image",
    "generation, ln p̃(x|w)": "image from label",
    "generation, ln p̃(w|x)": "label from image",
}
PAIRS = {
    "joint bound": "bound mnist, svhn", "ln p(x, w)": "mnist, svhn", "ln p(MNIST)": "mnist",
    "… through its encoder": "mnist by its encoder", "ln p(SVHN)": "svhn",
    "… through its encoder ": "svhn by its encoder", "generation: ln p̃(MNIST|SVHN)": "mnist from svhn",
    "generation: ln p̃(SVHN|MNIST)": "svhn from mnist",
}  # fmt: skip
PAIR_GAINS = {
    "generation: MNIST from SVHN": "mnist from svhn",
    "generation: SVHN from MNIST": "svhn from mnist",
    "MNIST through its encoder": "mnist by its encoder",
    "SVHN through its encoder": "svhn by its encoder",
}


def of_alphas(found: Found) -> dict[str, dict]:
    """alpha -> the numbers of its model of image and label."""
    return {f"{alpha:g}": found.metrics["image-label"][f"{alpha:g}"] for alpha in found.settings["alphas"]}


def two_ways(found: Found) -> pd.DataFrame:
    """ln p(x) by importance sampling, and by the sum over the ten labels, for each alpha."""
    rows = {a: {name: row[key][part] for name, (key, part) in CHECK.items()} for a, row in of_alphas(found).items()}
    return pd.DataFrame(rows).T.rename_axis("α").round(2)


def number(row: Mapping, quantity: str) -> float:
    """The mean of a quantity in nats, or a share."""
    return row[quantity]["mean"] if isinstance(row[quantity], Mapping) else row[quantity]


def sweep(found: Found) -> pd.DataFrame:
    """Means over the test images for each alpha, in nats; for the accuracies, shares."""
    table = {a: {name: number(row, key) for name, key in SWEEP.items()} for a, row in of_alphas(found).items()}
    return pd.DataFrame(table).rename_axis("α", axis=1).round(2)


@dataclass(frozen=True)
class Difference:
    """Mean difference of two models' nats on the same images, two standard errors of it, and that of two seeds."""

    value: float
    error: float
    seeds: float

    @property
    def verdict(self) -> str:
        """Whether the first model is better, beyond both margins."""
        margin = max(self.error, self.seeds)
        return "better" if self.value > margin else "worse" if self.value < -margin else "no difference"

    def __str__(self) -> str:
        return f"{self.value:+.2f} ± {self.error:.2f}"


def interval(values: Tensor) -> tuple[float, float]:
    """The mean of values (n,), and two standard errors of it."""
    return float(values.mean()), 2 * float(values.std() / math.sqrt(len(values)))


def difference(found: Found, first: str, second: str, of_images: bool = True) -> Difference:
    """The difference of two quantities of the record. of_images: of MNIST's beside labels, where two seeds differ."""
    tensors = found.tensors
    seeds = tensors["VAE/image"].double() - tensors["VAE, another seed/image"].double()
    margin = abs(float(seeds.mean())) if of_images else 0.0
    return Difference(*interval(tensors[first].double() - tensors[second].double()), margin)


def gains(found: Found) -> dict[str, Difference]:
    """What JMVAE-kl gains on JMVAE with zeros, image and label."""
    return {
        name: difference(found, f"{CHOSEN}/{quantity}", f"0/{quantity}", quantity.startswith("image"))
        for name, quantity in GAINS.items()
    }


def against(found: Found) -> dict[str, Difference]:
    """JMVAE and JMVAE-kl against VAEs of the same size, plain and conditional."""
    plain, kl = ("JMVAE", "0"), (f"JMVAE-kl, α = {CHOSEN},", CHOSEN)
    given, told = "image given label", "conditional VAE"
    wanted = [
        ("ln p(x)", plain, "image", "VAE", "image"),
        ("ln p(x)", kl, "image", "VAE", "image"),
        ("ln p(x|w)", plain, given, told, given),
        ("ln p(x|w)", kl, given, told, given),
        ("generation, ln p̃(x|w)", kl, "image from label", told, given),
        ("reconstruction", plain, "reconstruction", "VAE", "reconstruction"),
        ("reconstruction", kl, "reconstruction", "VAE", "reconstruction"),
    ]
    return {
        f"{what}: {name} minus {other}": difference(found, f"{alpha}/{quantity}", f"{other}/{theirs}")
        for what, (name, alpha), quantity, other, theirs in wanted
    }


def pair_gains(found: Found) -> dict[str, Difference]:
    """What JMVAE-kl gains on JMVAE with zeros, MNIST and SVHN."""
    return {
        name: difference(found, f"pairs/jmvae-kl/{quantity}", f"pairs/jmvae/{quantity}", of_images=False)
        for name, quantity in PAIR_GAINS.items()
    }


def shown(differences: Mapping[str, Difference]) -> pd.DataFrame:
    """Each difference with its two standard errors, and what it says beyond the margins."""
    rows = {name: [str(apart), apart.verdict] for name, apart in differences.items()}
    return pd.DataFrame(rows, index=["nats", "beyond the margins"]).T


def of_pairs(found: Found) -> pd.DataFrame:
    """Likelihoods of MNIST and SVHN by both models, in nats, and the information that they believe to be shared."""
    rows = {}
    for name, row in found.metrics["pairs"].items():
        both, first, second = (found.tensors[f"pairs/{name}/{key}"] for key in ("mnist, svhn", "mnist", "svhn"))
        rows[name] = {label: f"{row[key]['mean']:.1f}" for label, key in PAIRS.items()}
        rows[name]["believed to be shared"] = "{:.1f} ± {:.1f}".format(*interval(both - first - second))
    return pd.DataFrame(rows)


def longer() -> dict[str, dict[str, dict]]:
    """alpha -> direction -> accuracy and n of what the committed longer runs generate."""
    runs = {
        "0 (zeros)": "runs/quick-jmvae-jmvae-seed0.json",
        "0.1": "runs/quick-jmvae-jmvae-kl-seed0.json",
        "1": "sensitivity/runs/deviations-jmvae-jmvae-kl+alpha=1-seed0.json",
    }
    return {
        alpha: {
            f"{label}, {how}": read_record(RESULTS / file)["metrics"]["cross_generation"][key][code]
            for label, key in (("MNIST to SVHN", "mnist->svhn"), ("SVHN to MNIST", "svhn->mnist"))
            for how, code in (("drawn", "sample"), ("by the mean", "mean"))
        }
        for alpha, file in runs.items()
    }


def crossed() -> pd.DataFrame:
    """How often the judge reads the digit of the condition in what the longer runs generate."""
    rows = {a: {way: f"{row['accuracy']:.1%}" for way, row in ways.items()} for a, ways in longer().items()}
    return pd.DataFrame(rows).T.rename_axis("α")


def verdict(states: Iterable[bool | None]) -> str:
    """A claim about several quantities, of which each is borne out, or not, or undecided (None)."""
    states = list(states)
    if all(states):
        return "holds"
    return "holds in part" if any(states) else "undecided" if None in states else "does not hold"


def works(share: float, count: int) -> bool | None:
    """Whether a share of results is above nine in ten, beyond two of its standard errors; None within them."""
    error = 2 * math.sqrt(share * (1 - share) / count)
    return None if abs(share - 0.9) <= error else share > 0.9


def verdicts(found: Found) -> pd.DataFrame:
    """What the source claims, by the rules of the chapter."""
    gained, pairs, beside, settings = gains(found), pair_gains(found), against(found), found.settings
    ways = {"image from label": 10 * settings["generated"], "label from image": settings["judged"]}
    zeros, kl = ({way: of_alphas(found)[a][f"{way}, accuracy"] for way in ways} for a in ("0", CHOSEN))
    drawn = {way: row for way, row in longer()[CHOSEN].items() if way.endswith("drawn")}

    def part(differences: Mapping[str, Difference], *texts: str) -> dict[str, Difference]:
        return {name: apart for text in texts for name, apart in differences.items() if text in name}

    def better(claim: str, differences: Mapping[str, Difference], more: str = "") -> tuple[str, str, str]:
        state = verdict(apart.verdict == "better" for apart in differences.values())
        return claim, state, listed(differences, "{} {}") + more

    def percent(shares: Mapping[str, float]) -> str:
        return listed(shares, "{} {:.1%}", ", ")

    collapsed = {name: apart for name, apart in part(gained, "generation").items() if zeros[GAINS[name]] < 0.5}
    unimodal, generation = part(beside, "ln p(x):"), part(pairs, "generation")
    through = "the same: through the encoder of one modality, "
    rows = [
        ("joint training reaches or betters the likelihood of a model of one modality",
         verdict(apart.verdict != "worse" for apart in unimodal.values()), listed(unimodal, "{} {}")),
        ("generation in both directions, image and label",
         verdict(works(kl[way], count) for way, count in ways.items()), percent(kl)),
        ("generation in both directions, MNIST and SVHN (longer runs)",
         verdict(works(row["accuracy"], row["n"]) for row in drawn.values()),
         percent({way: row["accuracy"] for way, row in drawn.items()})),
        better("JMVAE-kl mends the collapse, image and label", collapsed, f"; right with zeros: {percent(zeros)}"),
        better("JMVAE-kl mends the collapse, MNIST and SVHN", generation),
        better("JMVAE-kl betters marginal and conditional likelihoods: the model's own", part(gained, "own")),
        better(f"{through}image and label", part(gained, "through", "generation")),
        better(f"{through}MNIST and SVHN", pairs),
        better("joint training reconstructs better than a model of one modality", part(beside, "reconstruction")),
        better("research question 2: images from labels better than a conditional VAE", part(beside, "conditional")),
        ("CelebA, JMVAE-GAN, faces from attributes", "cannot be compared", "no CelebA here, and no adversarial part"),
    ]  # fmt: skip
    return claims(rows, ["claim", "verdict", "ours"])
