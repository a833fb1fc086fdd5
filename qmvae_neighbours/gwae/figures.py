"""The figures of chapter B3."""

from __future__ import annotations

import numpy as np

from qmvae_neighbours.experiments import Found
from qmvae_neighbours.gwae.scenes import FACTORS
from qmvae_neighbours.gwae.tables import FACTORISED, GWAES, MODELS, NEURAL, SCORES, STRANGE, of_scenes, source_areas
from qmvae_neighbours.report import images, listed
from qmvae_study.report import figures


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


def scores(found: Found) -> figures.Picture:
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
    alt = "Ten test digits of MNIST, the same digits mirrored, ten white letters of a typeface, and ten grey house "
    alt += "numbers."
    return images(found.tensors, {name: f"sets/{name}" for name in ("digits", *STRANGE)}, alt)


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
