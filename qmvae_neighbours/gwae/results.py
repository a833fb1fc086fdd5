"""What chapter B3 finds: distances, scores of the codes, strange images, verdicts on the source; and its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from scipy.spatial.distance import squareform

from qmvae_neighbours.experiments import Found
from qmvae_neighbours.gwae.experiment import DRAWN
from qmvae_neighbours.gwae.model import PRIORS, Objective, gromov_cost
from qmvae_neighbours.gwae.scenes import FACTORS, LIGHT
from qmvae_neighbours.report import INCOMPARABLE, above, claims, holds, images, listed, over_seeds
from qmvae_study.report import figures
from qmvae_study.report.intervals import Interval

GWAES = [f"GWAE, {prior}" for prior in PRIORS]
NEURAL, FACTORISED, MIXTURE = GWAES
MODELS = ["VAE", *GWAES]  # of digits
STRANGE = ["mirrored digits", "letters", "house numbers"]
SCORES = ["disentanglement", "completeness", "informativeness"]
DAGMM = "mixture of VAE's codes"  # what stands for it here
# What the source sets side by side -> the model and its score.
SOURCE = {"VAE": ("VAE", "prior"), DAGMM: ("VAE", "mixture"), **{name: (name, "potential, decoded") for name in GWAES}}


def of_scenes(found: Found) -> dict[str, list[dict]]:
    """Each model of scenes -> its numbers, one mapping a seed: the VAEs by beta, then the GWAEs."""
    scenes = found.metrics["scenes"]  # sorted, as a record is
    return {name: scenes[name] for name in [*(name for name in scenes if name.startswith("VAE")), *GWAES]}


def of_digits(found: Found, quantity: str) -> dict[str, list[dict]]:
    """Each model of digits that has such numbers, such as "objective" -> those, one mapping a seed."""
    models = {name: found.metrics["digits"][name] for name in MODELS}
    return {name: [row[quantity] for row in rows] for name, rows in models.items() if quantity in rows[0]}


def source_areas(found: Found) -> dict[str, list[dict]]:
    """SOURCE -> the areas under the ROC curve of each set of strange images, one mapping a seed."""
    areas = of_digits(found, "areas")
    return {label: [row[score] for row in areas[model]] for label, (model, score) in SOURCE.items()}


def objective(found: Found) -> pd.DataFrame:
    """The terms of the objective on test images, each before it is weighted."""
    return over_seeds(of_digits(found, "objective"), Objective._fields)


def agreement(found: Found, solver: Callable[..., float]) -> pd.DataFrame:
    """How well both kinds of distances agree, first seed. solver: POT's, from two matrices and a coupling to start."""
    rows = {}
    for name, (row, *_) in of_digits(found, "distances").items():
        pairs = (found.tensors[f"{name}/digits/distances/{which}"].double().numpy() for which in ("images", "codes"))
        images, codes = (torch.from_numpy(squareform(each)) for each in pairs)
        rows[name] = row | {
            "coupling, p = 2": float(gromov_cost(images, codes, power=2)),
            "POT from it": float(solver(images.numpy(), codes.numpy(), G0=np.eye(DRAWN) / DRAWN)),
            "lower bound": float((images.square().mean().sqrt() - codes.square().mean().sqrt()) ** 2),
        }
    return pd.DataFrame(rows).T


def scores(found: Found) -> pd.DataFrame:
    """The scores of each model's code, and its PSNR in decibels."""
    return over_seeds(of_scenes(found), [*SCORES, "noise_ratio"])


def by_factor(found: Found, quantity: str) -> pd.DataFrame:
    """Of each factor: "axis", the largest importance of one dimension, or "right", the share of scenes read right."""
    parts = {name: [row[quantity] for row in rows] for name, rows in of_scenes(found).items()}
    return over_seeds(parts, list(FACTORS))


def areas(found: Found) -> pd.DataFrame:
    """Area under the ROC curve of each model's scores, for each set of strange images."""
    each = of_digits(found, "areas").items()
    rows = {f"{name}: {score}": [row[score] for row in areas] for name, areas in each for score in areas[0]}
    return over_seeds(rows, STRANGE)


def verdicts(found: Found) -> pd.DataFrame:
    """What the source claims, beside our numbers."""
    scenes, digits, letters = of_scenes(found), found.metrics["digits"], source_areas(found)

    def ahead(models: Mapping[str, list[dict]], key: str, of: str, rivals: str = "") -> tuple[Interval, str]:
        """By how much a number of one model is above the best of the others that begin so, by seed; and in words."""
        values = {name: [row[key] for row in rows] for name, rows in models.items()}
        best = max((name for name in values if name != of and name.startswith(rivals)), key=lambda n: sum(values[n]))
        gain = Interval.of_mean(np.subtract(values[of], values[best]))
        return gain, f"{gain.plus_minus('+.2f')} against {best}"

    here = partial(holds, otherwise="does not hold here")
    separate, separate_said = ahead(scenes, "disentanglement", FACTORISED)
    hue = Interval.of_mean([row["axis"]["figure hue"] for row in scenes[FACTORISED]])
    each = {name: Interval.of_mean([row["letters"] for row in letters[name]]) for name in ("VAE", DAGMM, MIXTURE)}
    first, first_said = ahead(letters, "letters", MIXTURE)
    rebuilt = [ahead(models, "noise_ratio", NEURAL, "VAE") for models in (digits, scenes)]
    rows = [
        ("1. the factorised prior disentangles", f"$D$ {separate_said}", here(above(separate))),
        ("1. it puts the figure's hue on a single axis", f"largest importance {hue.plus_minus('.2f')} of its column",
         here(above(hue, 0.5))),
        ("2. letters are found almost perfectly",
         f"areas: {listed({name: area.plus_minus('.2f') for name, area in each.items()}, '{} {}', ', ')}",
         here(*(above(area, 0.95) for area in each.values()))),
        ("3. the mixture finds them best", f"area {first_said}", here(above(first))),
        ("4. the neural prior rebuilds best", f"PSNR of digits {rebuilt[0][1]}, of scenes {rebuilt[1][1]}",
         here(*(above(gain) for gain, _ in rebuilt))),
        ("5. the neural prior generates second best", "not measured", f"{INCOMPARABLE}, because there is no FID here"),
    ]  # fmt: skip
    return claims(rows, ["claim", "here", "verdict"])


# Figures


def distances(found: Found) -> figures.Picture:
    """Distances between codes against those between the decoded images, a panel a prior; first seed."""
    first = {name: rows[0] for name, rows in of_digits(found, "distances").items()}
    said = listed({name: row["correlation"] for name, row in first.items()})
    alt = "Distance between codes against distance between the decoded images, a dot for each pair of draws, "
    alt += f"one panel a prior. Correlations: {said}"
    picture, panels = figures.blank(7.4, 2.7, alt, 1, len(first), sharex=True, sharey=True)
    for axes, name in zip(panels, first, strict=True):
        across, up = (found.tensors[f"{name}/digits/distances/{which}"].numpy() for which in ("images", "codes"))
        axes.plot(across, up, "o", color=figures.BLUE, markersize=2, alpha=0.4)
        axes.axline((0, 0), slope=1, color=figures.GREY, linestyle="--", linewidth=1)
        axes.set_title(name, loc="left")
        axes.set_xlabel("between images")
    panels[0].set_ylabel("between codes, times c")
    return picture


def scenes(found: Found) -> figures.Picture:
    """Scenes that no model was trained on, and what each model rebuilds from its mean code."""
    ratios = {name: rows[0]["noise_ratio"] for name, rows in of_scenes(found).items()}
    alt = "Ten scenes, and below them what each model rebuilds. PSNR of the first seed, in decibels: "
    rows = {"scene": "scenes"} | {name: f"{name}/rebuilt" for name in ratios}
    return images(found.tensors, rows, alt + listed(ratios, "{} {:.1f}"))


def _dots(found: Found, models: Mapping[str, list[dict]], names: Sequence[str]) -> figures.Picture:
    seeds = [(f"seed {seed}", i) for i, seed in enumerate(found.settings["seeds"])]
    of = {name: {seed: [100 * rows[i][name] for rows in models.values()] for seed, i in seeds} for name in names}
    return figures.dots(list(models), of, label="in per cent")


def scores_drawn(found: Found) -> figures.Picture:
    """The scores of each model's code, a dot for each seed."""
    return _dots(found, of_scenes(found), SCORES)


def detection(found: Found) -> figures.Picture:
    """Areas under the ROC curve of the source's scores, a panel a set of strange images, a dot for each seed."""
    return _dots(found, source_areas(found), STRANGE)


def hues_drawn(found: Found) -> figures.Picture:
    """The largest importance of one dimension for each hue, a dot for each seed."""
    return _dots(found, {name: [row["axis"] for row in rows] for name, rows in of_scenes(found).items()}, list(LIGHT))


def walk(found: Found) -> figures.Picture:
    """The factorised prior's dimensions, one at a time, over their codes."""
    walked = found.tensors[f"{FACTORISED}/walk"].numpy()
    strongest = found.tensors[f"{FACTORISED}/importance"][0].argmax(dim=0) + 1
    said = listed(dict(zip(FACTORS, strongest.tolist(), strict=True)), "{} lies most in dimension {}", ", ")
    alt = f"GWAE with the factorised prior: each of six dimensions moved over its codes. By importance, {said}"
    labels = [f"dimension {i + 1}" for i in range(len(walked))]
    return figures.image_grid(walked, row_labels=labels, title="GWAE, factorised prior", alt=alt)


def strange(found: Found) -> figures.Picture:
    """Test digits, and three sets that no model has seen."""
    alt = "Ten test digits of MNIST, the same digits mirrored, ten white letters of a typeface, ten grey house numbers."
    return images(found.tensors, {name: f"sets/{name}" for name in ("digits", *STRANGE)}, alt)


def digits(found: Found) -> figures.Picture:
    """Test digits, their reconstructions, draws from each prior, and the means of the mixture decoded."""
    rows = {"digits": "sets/digits"}
    rows |= {f"{name}, {how}": f"{name}/digits/{kept}" for how, kept in (("rebuilt", "rebuilt"), ("drawn", "generated"))
             for name in MODELS}  # fmt: skip
    ratios = {name: found.metrics["digits"][name][0]["noise_ratio"] for name in MODELS}
    alt = "Ten test digits, what each model rebuilds from them, ten draws of each model, and the mixture's means "
    alt += f"decoded. PSNR of the rebuilt, in decibels: {listed(ratios, '{} {:.1f}')}"
    return images(found.tensors, rows | {"mixture's means": f"{MIXTURE}/digits/components"}, alt)
