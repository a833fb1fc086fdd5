"""What chapter B3 finds: distances, scores of the codes, strange images, verdicts on the source; and its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy.spatial.distance import squareform

from qmvae_neighbours.experiments import Found
from qmvae_neighbours.gwae.experiment import DRAWN
from qmvae_neighbours.gwae.model import PRIORS, gromov_cost
from qmvae_neighbours.gwae.scenes import FACTORS
from qmvae_neighbours.report import INCOMPARABLE, above, apart, claims, holds, images, listed, over_seeds
from qmvae_study.report import figures
from qmvae_study.report.intervals import Interval

GWAES = [f"GWAE, {prior}" for prior in PRIORS]
NEURAL, FACTORISED, MIXTURE = GWAES
MODELS = ["VAE", *GWAES]  # of digits
STRANGE = ["mirrored digits", "letters", "house numbers"]
SCORES = ["disentanglement", "completeness", "informativeness"]
# What the source sets side by side -> the model and its score; the second stands for DAGMM.
SOURCE = {"VAE": ("VAE", "prior"), "mixture of VAE's codes": ("VAE", "mixture")}
SOURCE |= {name: (name, "potential, decoded") for name in GWAES}


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
    terms = ["gromov", "reconstruction", "sufficiency", "entropy", "total"]
    return over_seeds(of_digits(found, "objective"), terms)


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
    rows = {
        f"{name}: {score}": [row[score] for row in areas]
        for name, areas in of_digits(found, "areas").items()
        for score in areas[0]
    }
    return over_seeds(rows, STRANGE)


def verdicts(found: Found) -> pd.DataFrame:
    """What the source claims, beside our numbers."""
    scenes, digits, letters = of_scenes(found), found.metrics["digits"], source_areas(found)
    vaes = [name for name in scenes if name.startswith("VAE")]

    def ahead(models: Mapping[str, list[dict]], key: str, of: str, rivals: Sequence[str]) -> tuple[Interval, str]:
        """The mean by which a number of one model is above that of the best rival, by seed; in words."""
        values = {name: [row[key] for row in models[name]] for name in (of, *rivals)}
        best = max(rivals, key=lambda name: np.mean(values[name]))
        gain = apart(values[of], values[best])
        return gain, f"{gain.plus_minus('+.2f')} against {best}"

    def others(models: Mapping[str, list[dict]], of: str) -> list[str]:
        return [name for name in models if name != of]

    def here(*states: bool | None) -> str:
        return holds(*states, otherwise="does not hold here")

    separate, separate_said = ahead(scenes, "disentanglement", FACTORISED, others(scenes, FACTORISED))
    hue = Interval.of_mean([row["axis"]["figure hue"] for row in scenes[FACTORISED]])
    found_by = {
        name: Interval.of_mean([row["letters"] for row in letters[name]]) for name in (*list(SOURCE)[:2], MIXTURE)
    }
    first, first_said = ahead(letters, "letters", MIXTURE, others(letters, MIXTURE))
    rebuilt = [ahead(digits, "noise_ratio", NEURAL, ["VAE"]), ahead(scenes, "noise_ratio", NEURAL, vaes)]
    rows = [
        ("1. the factorised prior disentangles", f"$D$ {separate_said}", here(above(separate))),
        ("1. it puts the figure's hue on a single axis", f"largest importance {hue.plus_minus('.2f')} of its column",
         here(above(hue, 0.5))),
        ("2. letters are found almost perfectly",
         f"areas: {listed({name: area.plus_minus('.2f') for name, area in found_by.items()}, '{} {}', ', ')}",
         here(*(above(area, 0.95) for area in found_by.values()))),
        ("3. the mixture finds them best", f"area {first_said}", here(above(first))),
        ("4. the neural prior rebuilds best", f"PSNR of digits {rebuilt[0][1]}, of scenes {rebuilt[1][1]}",
         here(*(above(gain) for gain, _ in rebuilt))),
        ("5. the neural prior generates second best", "not measured", f"{INCOMPARABLE}, because there is no FID here"),
    ]  # fmt: skip
    return claims(rows, ["claim", "here", "verdict"])


# Figures


def distances(found: Found) -> figures.Picture:
    """Distances between codes against those between the decoded images, a panel a prior; first seed."""
    named = dict(zip(PRIORS, GWAES, strict=True))
    first = {prior: of_digits(found, "distances")[name][0] for prior, name in named.items()}
    said = listed({prior: row["correlation"] for prior, row in first.items()})
    alt = "Distance between codes against distance between the decoded images, a dot for each pair of draws, "
    alt += f"one panel a prior. Correlations: {said}"
    picture, panels = figures.blank(7.4, 2.7, alt, 1, len(named), sharex=True, sharey=True)
    for axes, (prior, name) in zip(panels, named.items(), strict=True):
        across, up = (found.tensors[f"{name}/digits/distances/{which}"].numpy() for which in ("images", "codes"))
        axes.plot(across, up, "o", color=figures.BLUE, markersize=2, alpha=0.4)
        axes.axline((0, 0), slope=1, color=figures.GREY, linestyle="--", linewidth=1)
        axes.set_title(f"{prior} prior", loc="left")
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


def strongest(found: Found, name: str) -> dict[str, int]:
    """Factor -> the dimension of the code, from 1, on which its prediction rests most."""
    dimensions = found.tensors[f"{name}/importance"][0].argmax(dim=0) + 1
    return dict(zip(FACTORS, dimensions.tolist(), strict=True))


def importance(found: Found) -> figures.Picture:
    """How much the prediction of each factor rests on each dimension: the strongest VAE, and two GWAEs."""
    chosen = [[name for name in of_scenes(found) if name.startswith("VAE")][-1], NEURAL, FACTORISED]
    said = "; ".join(f"{name}: {listed(strongest(found, name), '{} {}', ', ')}" for name in chosen)
    alt = f"Importance of each dimension for each factor, three models. Strongest dimension by factor: {said}"
    picture, panels = figures.blank(7.4, 2.9, alt, 1, 3, sharey=True)
    for axes, name in zip(panels, chosen, strict=True):
        values = found.tensors[f"{name}/importance"][0].numpy()
        axes.imshow(values, cmap="Greys", vmin=0, vmax=1, aspect="auto")
        for (i, k), value in np.ndenumerate(values):
            colour = "white" if value > 0.5 else "black"
            axes.text(k, i, f"{100 * value:.0f}", ha="center", va="center", size=7, color=colour)
        axes.set_xticks(range(len(FACTORS)), FACTORS, rotation=40, ha="right")
        axes.set_yticks(range(len(values)), range(1, len(values) + 1))
        axes.set_title(name, loc="left")
    panels[0].set_ylabel("dimension of the code")
    return picture


def walk(found: Found) -> figures.Picture:
    """The factorised prior's dimensions, one at a time, over their codes."""
    walked = found.tensors[f"{FACTORISED}/walk"].numpy()
    said = listed(strongest(found, FACTORISED), "{} lies most in dimension {}", ", ")
    alt = f"GWAE with the factorised prior: each of six dimensions moved over its codes. By importance, {said}"
    labels = [f"dimension {i + 1}" for i in range(len(walked))]
    return figures.image_grid(walked, row_labels=labels, title="GWAE, factorised prior", alt=alt)


def strange(found: Found) -> figures.Picture:
    """Test digits, and three sets that no model has seen."""
    drawn = "Ten test digits of MNIST, the same digits mirrored, ten white letters of a typeface"
    rows = {name: f"sets/{name}" for name in ("digits", *STRANGE)}
    return images(found.tensors, rows, f"{drawn}, and ten grey house numbers.")


def digits(found: Found) -> figures.Picture:
    """Test digits, their reconstructions, draws from each prior, and the means of the mixture decoded."""
    rows = {"digits": "sets/digits"}
    rows |= {f"{name}, {how}": f"{name}/digits/{kept}" for how, kept in (("rebuilt", "rebuilt"), ("drawn", "generated"))
             for name in MODELS}  # fmt: skip
    ratios = {name: found.metrics["digits"][name][0]["noise_ratio"] for name in MODELS}
    alt = "Ten test digits, what each model rebuilds from them, ten draws of each model, and the mixture's means "
    alt += f"decoded. PSNR of the rebuilt, in decibels: {listed(ratios, '{} {:.1f}')}"
    return images(found.tensors, rows | {"mixture's means": f"{MIXTURE}/digits/components"}, alt)
