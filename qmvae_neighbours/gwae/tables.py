"""What chapter B3 finds, as tables: distances, scores of the codes, strange images, and the verdicts on the source."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from scipy.spatial.distance import squareform

from qmvae_neighbours.experiments import Found
from qmvae_neighbours.gwae.experiment import DRAWN
from qmvae_neighbours.gwae.model import PRIORS, gromov_cost
from qmvae_neighbours.gwae.scenes import FACTORS, disentanglement
from qmvae_neighbours.report import INCOMPARABLE, claims, holds, listed
from qmvae_study.report.intervals import Interval, Says, Verdict

GWAES = [f"GWAE, {prior}" for prior in PRIORS]
NEURAL, FACTORISED, MIXTURE = GWAES
MODELS = ["VAE", *GWAES]  # of digits
STRANGE = ["mirrored digits", "letters", "house numbers"]
SCORES = {"D": "disentanglement", "C": "completeness", "I": "informativeness", "PSNR": "noise_ratio"}


def of_scenes(found: Found) -> dict[str, list[dict]]:
    """Each model of scenes -> its numbers, one mapping a seed: the VAEs by beta, then the GWAEs."""
    scenes = found.metrics["scenes"]  # sorted, as a record is
    names = [*sorted(name for name in scenes if name.startswith("VAE")), NEURAL, FACTORISED]
    return {name: scenes[name] for name in names}


def over_seeds(rows: list[dict], score: str) -> Interval:
    """The mean of a score over the seeds, from the least to the largest."""
    values = [row[score] for row in rows]
    return Interval(float(np.mean(values)), min(values), max(values), len(values), None)


def objective(found: Found) -> pd.DataFrame:
    """The terms of the objective on test images, each before it is weighted."""
    terms = ["gromov", "reconstruction", "sufficiency", "entropy", "total"]
    return pd.DataFrame({name: found.metrics["digits"][name]["objective"] for name in GWAES}).T[terms].round(2)


def agreement(found: Found, solver: Callable[..., float]) -> pd.DataFrame:
    """How well both kinds of distances agree. solver: POT's, from two matrices and a coupling to start from."""
    rows = {}
    for name in GWAES:
        pairs = (found.tensors[f"{name}/distances/{which}"].double().numpy() for which in ("images", "codes"))
        images, codes = (torch.from_numpy(squareform(each)) for each in pairs)
        row = found.metrics["distances"][name]
        rows[name] = {
            "cost, p = 1": row["cost"],
            "mean distance": row["mean_distance"],
            "correlation": row["correlation"],
            "scale c": row["scale"],
            "coupling, p = 2": float(gromov_cost(images, codes, power=2)),
            "POT from it": float(solver(images.numpy(), codes.numpy(), G0=np.eye(DRAWN) / DRAWN)),
            "lower bound": float((images.square().mean().sqrt() - codes.square().mean().sqrt()) ** 2),
        }
    return pd.DataFrame(rows).T


def scores(found: Found) -> pd.DataFrame:
    """The scores of each model's code and its PSNR in decibels: mean over the seeds, least and largest."""
    table = {
        name: {
            short: over_seeds(rows, key).in_full(".1f" if short == "PSNR" else ".2f") for short, key in SCORES.items()
        }
        for name, rows in of_scenes(found).items()
    }
    return pd.DataFrame(table).T


def read_right(found: Found) -> pd.DataFrame:
    """Share of scenes whose factor is read right from the code, first seed, and D over the factors it holds."""
    chance = pd.Series({name: 1 / len(values) for name, values in FACTORS.items()})
    right = pd.DataFrame({name: rows[0]["right"] for name, rows in of_scenes(found).items()}).T[list(FACTORS)]
    table = right.map("{:.0%}".format)
    table["D, held factors"] = [
        f"{disentanglement(found.tensors[f'{name}/importance'][:, torch.tensor(kept.tolist())]):.2f} of {kept.sum()}"
        if kept.sum() > 1
        else ""
        for name, kept in (right > 2 * chance).iterrows()
    ]
    return pd.concat([table, chance.map("{:.0%}".format).to_frame("by chance").T]).fillna("")


def areas(found: Found) -> pd.DataFrame:
    """Area under the ROC curve of each model's scores, for each set of strange images."""
    digits = found.metrics["digits"]
    rows = {(name, score): row for name in MODELS for score, row in digits[name]["areas"].items()}
    table = pd.DataFrame(rows).T[STRANGE]
    table.index.names = ["model", "score"]
    return table.round(3)


def source_areas(found: Found) -> dict[str, tuple[str, dict[str, float]]]:
    """Model of digits -> the score that the authors use, and its areas."""
    used = {name: "prior" if name == "VAE" else "potential, decoded" for name in MODELS}
    return {name: (score, found.metrics["digits"][name]["areas"][score]) for name, score in used.items()}


def verdicts(found: Found) -> pd.DataFrame:
    """What the source claims, beside our numbers."""
    scenes, digits = of_scenes(found), {name: row["noise_ratio"] for name, row in found.metrics["digits"].items()}
    separate, decibels = (
        {n: over_seeds(rows, score) for n, rows in scenes.items()} for score in (SCORES["D"], SCORES["PSNR"])
    )
    spread = max(each.high - each.low for each in separate.values())
    best = separate.pop(FACTORISED).centre
    rival = max(separate, key=separate.get)
    other = separate[rival].centre
    letters = {name: row["letters"] for name, (_, row) in source_areas(found).items()}
    neural, vaes = (
        decibels[NEURAL].centre,
        max(each.centre for name, each in decibels.items() if name.startswith("VAE")),
    )
    held = found.tensors[f"{FACTORISED}/importance"][:, list(FACTORS).index("figure")].max()

    def here(condition: bool) -> str:
        return f"{holds(condition)} here"

    rows = [
        ("1. FNP disentangles",
         f"$D$ {best:.2f}; best other: {rival}, {other:.2f}; range {spread:.2f}", here(best - other > spread)),
        ("1, the figure on a single axis", f"largest importance {held:.0%} of its column", here(held > 0.5)),
        ("2. near-perfect detection", f"areas: VAE {letters['VAE']:.2f}, mixture {letters[MIXTURE]:.2f}",
         here(min(letters["VAE"], letters[MIXTURE]) >= 0.95)),
        ("3. the mixture detects best", f"areas: {listed(letters, between=', ')}",
         str(Verdict(Says.UNDECIDED, "one seed"))),
        ("4. NP rebuilds best", f"digits: {digits[NEURAL]:.1f} dB, VAE {digits['VAE']:.1f}; "
         f"scenes: {neural:.1f} dB, VAEs at most {vaes:.1f}", here(digits[NEURAL] > digits["VAE"] and neural > vaes)),
        ("5. NP generates second best", "not measured", f"{INCOMPARABLE}, because there is no FID here"),
    ]  # fmt: skip
    return claims(rows, ["claim", "here", "verdict"])
