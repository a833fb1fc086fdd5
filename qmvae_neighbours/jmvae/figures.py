"""The figures of chapter B2."""

from __future__ import annotations

import numpy as np
import torch

from qmvae_neighbours.experiments import Found
from qmvae_neighbours.jmvae.tables import number, of_alphas
from qmvae_neighbours.report import listed
from qmvae_study.report import figures

NATS = {
    "ln p(x|w), the model's own": "image given label",
    "ln p̃(x|w), generation": "image from label",
    "joint bound": "bound image, label",
}
RATES = {
    "image from label, as the judge reads it": "image from label, accuracy",
    "label from image": "label from image, accuracy",
}


def sweep(found: Found) -> figures.Picture:
    """Likelihoods and accuracies over alpha; what zeros generate lies too low to be drawn, and is written."""
    rows = of_alphas(found)
    said = "; ".join(
        f"α {alpha}: {listed({name: number(row, key) for name, key in NATS.items()}, '{} {:.1f} nats', ', ')}, "
        + listed({name: row[key] for name, key in RATES.items()}, "{} {:.0%}", ", ")
        for alpha, row in rows.items()
    )
    picture, (left, right) = figures.blank(8.0, 3.8, f"Likelihoods and accuracies over α. {said}.", columns=2)
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
