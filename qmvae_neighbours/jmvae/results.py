"""What chapter B2 finds: the sweep over alpha, differences of likelihoods, verdicts on the source; and its figures."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from qmvae_neighbours.experiments import Found
from qmvae_neighbours.report import INCOMPARABLE, claims, holds, listed, two_errors
from qmvae_study.evidence.folder import RESULTS
from qmvae_study.evidence.records import Share, read_record
from qmvae_study.report import figures
from qmvae_study.report.intervals import Interval, Says, Verdict

CHOSEN = "0.1"  # as in the library's reading jmvae-kl; the source names no value
WORDS = {Says.ABOVE: "better", Says.BELOW: "worse", Says.AGREES: "no difference"}
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
    "the model's own ln p(x)": "image", "ln p(x) through the image's encoder": "image by its encoder",
    "the model's own ln p(x|w)": "image given label", "the model's own ln p(w|x)": "label given image",
    "generation, ln p̃(x|w)": "image from label", "generation, ln p̃(w|x)": "label from image",
}  # fmt: skip
PAIRS = {
    "joint bound": "bound mnist, svhn", "ln p(x, w)": "mnist, svhn", "ln p(MNIST)": "mnist",
    "… through its encoder": "mnist by its encoder", "ln p(SVHN)": "svhn",
    "… through its encoder ": "svhn by its encoder", "generation: ln p̃(MNIST|SVHN)": "mnist from svhn",
    "generation: ln p̃(SVHN|MNIST)": "svhn from mnist",
}  # fmt: skip
PAIRED = ("pairs/jmvae-kl", "pairs/jmvae", {
    "generation: MNIST from SVHN": "mnist from svhn", "generation: SVHN from MNIST": "svhn from mnist",
    "MNIST through its encoder": "mnist by its encoder", "SVHN through its encoder": "svhn by its encoder",
})  # fmt: skip


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


def beyond(apart: Interval, seeds: float) -> Verdict:
    """Whether a difference is beyond its interval and that of two seeds; its evidence is the difference."""
    wider = Interval.around(apart.centre, max(apart.high - apart.centre, seeds))
    return Verdict(wider.against(), evidence=apart.plus_minus("+.2f"))


def difference(found: Found, first: str, second: str, of_images: bool = True) -> Verdict:
    """The difference of two quantities of the record. of_images: of MNIST's beside labels, where two seeds differ."""

    def apart(first: str, second: str) -> Tensor:
        return found.tensors[first].double() - found.tensors[second].double()

    seeds = abs(float(apart("VAE/image", "VAE, another seed/image").mean())) if of_images else 0.0
    return beyond(two_errors(apart(first, second)), seeds)


def gains(found: Found, better: str = CHOSEN, than: str = "0", of: Mapping[str, str] = GAINS) -> dict[str, Verdict]:
    """What JMVAE-kl gains on JMVAE with zeros: image and label, or with PAIRED MNIST and SVHN."""
    return {
        name: difference(found, f"{better}/{key}", f"{than}/{key}", key.startswith("image")) for name, key in of.items()
    }


def against(found: Found) -> dict[str, Verdict]:
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


def shown(differences: Mapping[str, Verdict]) -> pd.DataFrame:
    """Each difference with its two standard errors, and what it says beyond the margins."""
    rows = {name: [apart.evidence, apart.spelled(WORDS)] for name, apart in differences.items()}
    return pd.DataFrame(rows, index=["nats", "beyond the margins"]).T


def of_pairs(found: Found) -> pd.DataFrame:
    """Likelihoods of MNIST and SVHN by both models, in nats, and the information that they believe to be shared."""
    rows = {}
    for name, row in found.metrics["pairs"].items():
        both, first, second = (found.tensors[f"pairs/{name}/{key}"] for key in ("mnist, svhn", "mnist", "svhn"))
        rows[name] = {label: f"{row[key]['mean']:.1f}" for label, key in PAIRS.items()}
        rows[name]["believed to be shared"] = two_errors(both - first - second).plus_minus()
    return pd.DataFrame(rows)


def longer() -> dict[str, dict[str, Share]]:
    """alpha -> direction -> what the judge reads rightly of what the committed longer runs generate."""
    runs = {
        "0 (zeros)": "runs/quick-jmvae-jmvae-seed0.json", "0.1": "runs/quick-jmvae-jmvae-kl-seed0.json",
        "1": "sensitivity/runs/deviations-jmvae-jmvae-kl+alpha=1-seed0.json",
    }  # fmt: skip
    return {
        alpha: {
            f"{label}, {how}": read_record(RESULTS / file).accuracy(key, code)
            for label, key in (("MNIST to SVHN", "mnist->svhn"), ("SVHN to MNIST", "svhn->mnist"))
            for how, code in (("drawn", "sample"), ("by the mean", "mean"))
        }
        for alpha, file in runs.items()
    }


def crossed() -> pd.DataFrame:
    """How often the judge reads the digit of the condition in what the longer runs generate."""
    rows = {a: {way: f"{share.accuracy:.1%}" for way, share in ways.items()} for a, ways in longer().items()}
    return pd.DataFrame(rows).T.rename_axis("α")


def works(share: float, count: int) -> bool | None:
    """Whether a share of results is above nine in ten, beyond two of its standard errors; None within them."""
    apart = Interval.around(share, 2 * math.sqrt(share * (1 - share) / count)).against(0.9)
    return None if apart is Says.AGREES else apart is Says.ABOVE


def verdicts(found: Found) -> pd.DataFrame:
    """What the source claims, by the rules of the chapter."""
    gained, pairs, beside, settings = gains(found), gains(found, *PAIRED), against(found), found.settings
    ways = {"image from label": 10 * settings["generated"], "label from image": settings["judged"]}
    zeros, kl = ({way: of_alphas(found)[a][f"{way}, accuracy"] for way in ways} for a in ("0", CHOSEN))
    drawn = {way: share for way, share in longer()[CHOSEN].items() if way.endswith("drawn")}

    def part(differences: Mapping[str, Verdict], *texts: str) -> dict[str, Verdict]:
        return {name: apart for text in texts for name, apart in differences.items() if text in name}

    def better(claim: str, differences: Mapping[str, Verdict], more: str = "") -> tuple[str, str, str]:
        return claim, holds(*(apart.says is Says.ABOVE for apart in differences.values())), told(differences) + more

    def told(differences: Mapping[str, Verdict]) -> str:
        return listed({name: apart.evidence for name, apart in differences.items()}, "{} {}")

    def percent(shares: Mapping[str, float]) -> str:
        return listed(shares, "{} {:.1%}", ", ")

    collapsed = {name: apart for name, apart in part(gained, "generation").items() if zeros[GAINS[name]] < 0.5}
    unimodal, generation = part(beside, "ln p(x):"), part(pairs, "generation")
    through = "JMVAE-kl betters likelihoods through the encoder of one modality, "
    rows = [
        ("joint training reaches or betters the likelihood of a model of one modality",
         holds(*(apart.says is not Says.BELOW for apart in unimodal.values())), told(unimodal)),
        ("generation in both directions, image and label",
         holds(*(works(kl[way], count) for way, count in ways.items())), percent(kl)),
        ("generation in both directions, MNIST and SVHN (longer runs)",
         holds(*(works(share.accuracy, share.n) for share in drawn.values())),
         percent({way: share.accuracy for way, share in drawn.items()})),
        better("JMVAE-kl mends the collapse, image and label", collapsed, f"; right with zeros: {percent(zeros)}"),
        better("JMVAE-kl mends the collapse, MNIST and SVHN", generation),
        better("JMVAE-kl betters the model's own marginal and conditional likelihoods", part(gained, "own")),
        better(f"{through}image and label", part(gained, "through", "generation")),
        better(f"{through}MNIST and SVHN", pairs),
        better("joint training reconstructs better than a model of one modality", part(beside, "reconstruction")),
        better("images from labels better than a conditional VAE", part(beside, "conditional")),
        ("CelebA, JMVAE-GAN, faces from attributes", INCOMPARABLE, "no CelebA here, and no adversarial part"),
    ]  # fmt: skip
    return claims(rows, ["claim", "verdict", "ours"])


# Figures


NATS = {
    "ln p(x|w), the model's own": "image given label",
    "ln p̃(x|w), generation": "image from label",
    "joint bound": "bound image, label",
}
RATES = {
    "image from label, as the judge reads it": "image from label, accuracy",
    "label from image": "label from image, accuracy",
}


def sweep_drawn(found: Found) -> figures.Picture:
    """Likelihoods and accuracies over alpha; what zeros generate lies too low to be drawn, and is written."""
    rows = of_alphas(found)
    alt = f"Likelihoods in nats and accuracies over {len(rows)} values of α, a line each; the tables have the numbers."
    picture, (left, right) = figures.blank(8.0, 3.8, alt, columns=2)
    looks = [
        {"marker": marker, "color": colour, "linestyle": dashes}
        for marker, colour, dashes in zip(figures.MARKERS, figures.COLOURS, figures.DASHES, strict=False)
    ]
    for (name, key), look in zip(NATS.items(), looks, strict=False):
        drawn = ((place, alpha) for place, alpha in enumerate(rows) if (key, alpha) != ("image from label", "0"))
        kept = [(place, number(rows[alpha], key)) for place, alpha in drawn]
        left.plot(*zip(*kept, strict=True), **look, label=name)
    zeros = f"↓ zeros, generation:\n    {number(rows['0'], 'image from label'):.0f} nats"
    left.annotate(zeros, (0, 0.02), xycoords=("data", "axes fraction"), ha="left", fontsize=8)
    low, high = left.get_ylim()
    left.set_ylim(low - 0.3 * (high - low), high)
    for (name, key), look in zip(RATES.items(), looks, strict=False):
        right.plot(range(len(rows)), [100 * row[key] for row in rows.values()], **look, label=name)
    for axes, unit in ((left, "nats, mean over test images"), (right, "right, %")):
        axes.set_xticks(range(len(rows)), ["0 (zeros)", *list(rows)[1:]])
        axes.set(xlabel="α", ylabel=unit)
        axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    right.axhline(10, color=figures.GREY, linewidth=0.8, linestyle=":")
    right.annotate("chance", (len(rows) - 1, 11), ha="right", fontsize=8, color=figures.GREY)
    right.set_ylim(0, 103)
    return picture


def generated(found: Found) -> figures.Picture:
    """Images from a label alone, a column a label, two draws of the code for each alpha, as the judge reads them."""
    rows, tensors = of_alphas(found), found.tensors
    read = torch.cat([tensors[f"{alpha}/read"] for alpha in rows]).numpy()
    draws = len(tensors["0/read"])
    share = listed({alpha: row["image from label, accuracy"] for alpha, row in rows.items()}, "α {}: {:.0%}")
    return figures.image_grid(
        torch.cat([tensors[f"{alpha}/generated"] for alpha in rows]).numpy(),
        row_labels=["zeros" if alpha == "0" else f"α = {alpha}" for alpha in rows for _ in range(draws)],
        column_labels=[str(digit) for digit in range(10)],
        notes=read.astype(str),
        wrong=read != np.arange(10),
        alt=f"Images generated from the labels 0 to 9, {draws} draws for each α; share read as the label: {share}.",
    )
