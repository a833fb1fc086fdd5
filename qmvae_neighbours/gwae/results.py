"""What chapter B3 finds: distances, scores of the codes, strange images, verdicts on the source; and its figures."""

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
from qmvae_neighbours.report import INCOMPARABLE, claims, holds, images, listed
from qmvae_study.report import figures
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
    return Interval(float(np.mean(values)), min(values), max(values), len(values))


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
        ("1. the factorised prior disentangles",
         f"$D$ {best:.2f}; best other: {rival}, {other:.2f}; range {spread:.2f}", here(best - other > spread)),
        ("1. it puts the figure on a single axis", f"largest importance {held:.0%} of its column", here(held > 0.5)),
        ("2. letters are found almost perfectly", f"areas: VAE {letters['VAE']:.2f}, mixture {letters[MIXTURE]:.2f}",
         here(min(letters["VAE"], letters[MIXTURE]) >= 0.95)),
        ("3. the mixture finds them best", f"areas: {listed(letters, between=', ')}",
         str(Verdict(Says.UNDECIDED, "one seed"))),
        ("4. the neural prior rebuilds best", f"digits: {digits[NEURAL]:.1f} dB, VAE {digits['VAE']:.1f}; "
         f"scenes: {neural:.1f} dB, VAEs at most {vaes:.1f}", here(digits[NEURAL] > digits["VAE"] and neural > vaes)),
        ("5. the neural prior generates second best", "not measured", f"{INCOMPARABLE}, because there is no FID here"),
    ]  # fmt: skip
    return claims(rows, ["claim", "here", "verdict"])


# Figures


def distances(found: Found) -> figures.Picture:
    """Distances between codes against those between the decoded images, a panel a prior."""
    named = {name.split(", ")[1]: name for name in GWAES}
    said = listed({prior: found.metrics["distances"][name]["correlation"] for prior, name in named.items()})
    alt = "Distance between codes against distance between the decoded images, a dot for each pair of draws, "
    alt += f"one panel a prior. Correlations: {said}"
    picture, panels = figures.blank(7.4, 2.7, alt, 1, len(named), sharex=True, sharey=True)
    for axes, (prior, name) in zip(panels, named.items(), strict=True):
        across, up = (found.tensors[f"{name}/distances/{which}"].numpy() for which in ("images", "codes"))
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


def scores_drawn(found: Found) -> figures.Picture:
    """D, C and I of each model's code, a dot for each seed."""
    scenes = of_scenes(found)
    panels = {
        short: {
            f"seed {seed}": [100 * rows[i][SCORES[short]] for rows in scenes.values()]
            for i, seed in enumerate(found.settings["seeds"])
        }
        for short in ("D", "C", "I")
    }
    return figures.dots(list(scenes), panels, label="in per cent")


def strongest(found: Found, name: str) -> dict[str, int]:
    """Factor -> the dimension of the code, from 1, on which its prediction rests most."""
    dimensions = found.tensors[f"{name}/importance"].argmax(dim=0) + 1
    return dict(zip(FACTORS, dimensions.tolist(), strict=True))


def importance(found: Found) -> figures.Picture:
    """How much the prediction of each factor rests on each dimension: the strongest VAE, and two GWAEs."""
    chosen = [[name for name in of_scenes(found) if name.startswith("VAE")][-1], NEURAL, FACTORISED]
    said = "; ".join(f"{name}: {listed(strongest(found, name), '{} {}', ', ')}" for name in chosen)
    alt = f"Importance of each dimension for each factor, three models. Strongest dimension by factor: {said}"
    picture, panels = figures.blank(7.4, 2.9, alt, 1, 3, sharey=True)
    for axes, name in zip(panels, chosen, strict=True):
        values = found.tensors[f"{name}/importance"].numpy()
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


def detection(found: Found) -> figures.Picture:
    """ROC curves of the authors' scores, a panel a set of strange images."""
    used = source_areas(found)
    alt = "ROC curves by the authors' scores."
    for other in STRANGE:
        alt += f" {other}: {listed({name: row[other] for name, (_, row) in used.items()}, between=', ')}."
    picture, panels = figures.blank(7.4, 3.2, alt, 1, len(STRANGE), sharex=True, sharey=True)
    for axes, other in zip(panels, STRANGE, strict=True):
        for i, (name, (score, _)) in enumerate(used.items()):
            curve = found.tensors[f"{name}/{score}/{other}"].numpy()
            look = {"color": figures.COLOURS[i], "linestyle": figures.DASHES[i], "label": name}
            axes.plot(np.linspace(0, 1, len(curve)), curve, **look)
        axes.plot([0, 1], [0, 1], color=figures.GREY, linewidth=0.7, linestyle=":")
        axes.set_title(other, loc="left")
        axes.set_xlabel("false alarms")
    panels[0].set_ylabel("strange images found")
    picture.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return picture


def digits(found: Found) -> figures.Picture:
    """Test digits, their reconstructions, draws from each prior, and the means of the mixture decoded."""
    rows = {"digits": "sets/digits"}
    rows |= {f"{name}, {how}": f"{name}/digits/{kept}" for how, kept in (("rebuilt", "rebuilt"), ("drawn", "generated"))
             for name in MODELS}  # fmt: skip
    ratios = {name: found.metrics["digits"][name]["noise_ratio"] for name in MODELS}
    alt = "Ten test digits, what each model rebuilds from them, ten draws of each model, and the mixture's means "
    alt += f"decoded. PSNR of the rebuilt, in decibels: {listed(ratios, '{} {:.1f}')}"
    return images(found.tensors, rows | {"mixture's means": "components"}, alt)
