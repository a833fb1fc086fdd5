"""What chapter B6 finds: each method on each block of time, intervals over the blocks, verdicts; and its figures."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.spatial import ConvexHull

from qmvae_neighbours.eeg.data import CHANNELS
from qmvae_neighbours.eeg.experiment import AUTO, BETA, CONVOLUTION, MODELS, PLAIN, SVM, Settings
from qmvae_neighbours.eeg.frames import BANDS, RATE, azimuthal_equidistant, inside, positions
from qmvae_neighbours.eeg.model import Bound
from qmvae_neighbours.experiments import Found
from qmvae_neighbours.report import listed
from qmvae_study.report import figures
from qmvae_study.report.intervals import Interval, Says, Verdict

WORDS = {Says.ABOVE: "better", Says.BELOW: "worse", Says.AGREES: "not told apart"}
THESIS = {SVM: 0.39, AUTO: 0.52, CONVOLUTION: 0.54, BETA: 0.54}


def by_block(found: Found, model: str, measure: str = "balanced") -> np.ndarray:
    """A measure of a model for each test block, mean over the validation blocks: (blocks,)."""
    folds = found.metrics["folds"]
    tests = sorted({fold["test"] for fold in folds})
    return np.array([np.mean([f["models"][model][measure] for f in folds if f["test"] == test]) for test in tests])


def compare(found: Found, first: str, second: str | None = None) -> Verdict:
    """Two models' balanced accuracy, or one's and that of a constant answer, by the paired interval over test blocks.

    Its evidence is the mean difference in points, with the interval."""
    apart = Interval.of_mean(100 * (by_block(found, first) - (by_block(found, second) if second else 0.5)))
    return Verdict(apart.against(), evidence=apart.in_full("+.1f"))


def mean_of(found: Found, model: str, measure: str) -> float:
    """A measure of a model, mean over the folds."""
    return float(np.mean([fold["models"][model][measure] for fold in found.metrics["folds"]]))


def of_frames(found: Found) -> pd.DataFrame:
    """How each model of frames rebuilds a frame of a test block, and what its code costs: means over the folds."""
    rows = {}
    for name in (AUTO, PLAIN, BETA):
        costs = ["", ""] if name == AUTO else [f"{mean_of(found, name, key):.1f}" for key in ("divergence", "active")]
        rows[name] = [f"{mean_of(found, name, 'pixel_error'):.3f}", *costs]
    return pd.DataFrame(rows, index=["error of a pixel", "nats a frame", "factors in use"]).T


def most_blocks(found: Found) -> int:
    """The largest number of blocks that all hold both states."""
    return max(int(blocks) for blocks, count in found.metrics["blocks_possible"].items() if count > 0)


def blocks(found: Found) -> pd.DataFrame:
    """Where each block lies, and how many of its sequences have closed eyes."""
    rows = [(b["start"] / RATE, b["stop"] / RATE, b["sequences"], b["closed"]) for b in found.metrics["blocks"]]
    names = [f"block {number + 1}" for number in range(len(rows))]
    return pd.DataFrame(rows, index=names, columns=["from, s", "to, s", "sequences", "closed"]).round(1)


def accuracies(found: Found) -> pd.DataFrame:
    """Balanced and plain accuracy of each method over the test blocks, and the thesis' on its emotions, in per cent."""
    rows = {}
    for name in (*MODELS, "majority"):
        of, plain = (100 * by_block(found, name, key) for key in ("balanced", "accuracy"))
        rows[name] = [of.mean(), of.std(ddof=1), of.min(), of.max(), plain.mean(), plain.std(ddof=1)]
    columns = ["balanced, %", "spread", "lowest", "highest", "accuracy, %", "its spread"]
    table = pd.DataFrame(rows, index=columns).T.round(1)
    return table.assign(thesis=[f"{100 * THESIS[name]:.0f}" if name in THESIS else "" for name in rows])


def above_chance(found: Found) -> str:
    """Which methods are better than a constant answer, by the intervals over the blocks."""
    against = {name: compare(found, name) for name in MODELS}
    above = [name for name, result in against.items() if result.says is Says.ABOVE]
    said = listed({name: result.evidence for name, result in against.items()}, "{} {}")
    outcome = "No interval lies above zero: **no model can be said to see the state of the eyes in a new block.**"
    if above:
        outcome = f"Better than a constant answer, by these intervals: {', '.join(above)}."
    return f"Points above 50 % balanced accuracy over the {found.settings['blocks']} test blocks: {said}. {outcome}"


def leaks(found: Found) -> dict[str, np.ndarray]:
    """Balanced accuracy of two models in per cent, for each random split and for each block of time."""
    kept = found.metrics["leaks"]
    values = {
        "SVM on sequences, random": kept["windows"]["random"],
        "SVM on sequences, blocks": by_block(found, SVM),
        "nearest neighbour, random": kept["samples"]["random"],
        "nearest neighbour, blocks": kept["samples"]["blocks"],
    }
    return {name: 100 * np.asarray(each) for name, each in values.items()}


def verdicts(found: Found) -> pd.DataFrame:
    """The order of the methods in the thesis, beside our intervals."""
    rows = {}
    to_svm, to_auto = ((BETA, SVM), (CONVOLUTION, SVM), (AUTO, SVM)), ((BETA, AUTO), (CONVOLUTION, AUTO))
    for first, second in (*to_svm, *to_auto, (BETA, CONVOLUTION)):
        thesis, ours = THESIS[first] - THESIS[second], compare(found, first, second)
        words = {Says.ABOVE: "holds" if thesis else "reversed", Says.BELOW: "reversed", Says.AGREES: "cannot be told"}
        rows[f"{first} {'is better than' if thesis else 'equals'} {second}"] = {
            "thesis, points": f"{100 * thesis:+.0f}", "ours, points": ours.evidence, "verdict": ours.spelled(words),
        }  # fmt: skip
    return pd.DataFrame(rows).T


def trainings(found: Found) -> pd.DataFrame:
    """Shares of training sequences that are right, means over the folds, and when the weights were kept."""
    folds, settings, rows = found.metrics["folds"], Settings(**found.settings), {}
    for name in MODELS:
        of = [fold["models"][name] for fold in folds]
        # both states half right: nearly always the same answer to all
        rows[name] = {"constant on the test block": f"{sum(each['balanced'] == 0.5 for each in of)} of {len(of)}"}
        if name != SVM:
            first = sum(each["step"] == settings.check for each in of)
            rows[name] |= {
                "after the last step, %": f"{100 * mean_of(found, name, 'training_at_the_end'):.0f}",
                "at the step kept, %": f"{100 * mean_of(found, name, 'training'):.0f}",
                "step kept": f"{mean_of(found, name, 'step'):.0f} of {settings.sequence_steps}",
                "kept at the first look": f"{first} of {len(of)}",
            }
    return pd.DataFrame(rows).T.fillna("")


# Figures


def alpha_power(found: Found) -> figures.Picture:
    """Alpha power at the back of the head over the whole recording, shaded where the eyes are closed."""
    alpha, closed, blocks = found.tensors["alpha"].numpy(), found.tensors["closed"].numpy(), found.metrics["blocks"]
    seconds = (np.arange(len(alpha)) * found.settings["hop"] + found.settings["window"] / 2) / RATE
    edges = np.concatenate([[0], np.flatnonzero(np.diff(closed)) + 1, [len(closed)]])
    alt = "Log alpha power at O1 and O2 over time; shaded where the eyes are closed. Closed minus open, by block: "
    picture, axes = figures.blank(7.2, 2.8, alt + ", ".join(f"{block['alpha']:+.2f}" for block in blocks))
    for start, stop in zip(edges, edges[1:], strict=False):
        if closed[start]:
            axes.axvspan(start / RATE, stop / RATE, color="#D8D8D8", linewidth=0)
    axes.plot(seconds, alpha, color=figures.BLUE, linewidth=1)
    low, high = alpha.min(), alpha.max()
    for number, block in enumerate(blocks):
        start, stop = block["start"] / RATE, block["stop"] / RATE
        axes.hlines(low - 0.3, start, stop, color=figures.BLACK, linewidth=4)
        axes.text((start + stop) / 2, low - 0.45, f"block {number + 1}", ha="center", va="top")
    axes.set(ylim=(low - 1.1, high + 0.2), xlabel="seconds", ylabel="ln alpha power, O1 and O2")
    return picture


def electrodes() -> figures.Picture:
    """The fourteen electrodes on the map of the head, and the hull within which values can be interpolated."""
    places = azimuthal_equidistant(positions(CHANNELS))
    angles = dict(zip(CHANNELS, np.degrees(np.arccos(positions(CHANNELS)[:, 2])), strict=True))
    alt = f"Map of {len(CHANNELS)} electrodes, nose above; their hull covers {inside(places).mean():.0%} of the frame. "
    picture, axes = figures.blank(3.6, 3.6, f"{alt}Angles: {listed(angles, '{} {:.0f} degrees', ', ')}")
    axes.fill(
        *np.degrees(places[ConvexHull(places).vertices]).T, facecolor="#E8E8E8", edgecolor=figures.GREY, linewidth=0.8
    )
    axes.plot(*np.degrees(places).T, "o", color=figures.BLUE, markersize=5)
    for name, (x, y) in zip(CHANNELS, np.degrees(places), strict=True):
        axes.annotate(name, (x, y), textcoords="offset points", xytext=(0, 5), ha="center")
    axes.set(xlim=(-105, 105), ylim=(-105, 105), aspect="equal")
    axes.set(xlabel="degrees from the vertex, to the right ear", ylabel="to the nose")
    return picture


def rebuilt(found: Found) -> figures.Picture:
    """Ten frames of a test block, their alpha band, and what three models rebuild of it."""
    frames, beta = found.tensors["frames"], found.settings["beta"]
    names = {"auto-encoder": AUTO, "VAE, β = 1": PLAIN, f"VAE, β = {beta:g}": BETA}
    alpha = {"alpha alone": frames[:, :1]} | {label: found.tensors[f"rebuilt/{n}"][:, :1] for label, n in names.items()}
    errors = {
        label: float(alpha[label].float().sub(frames[:, :1].float()).div(255).square().mean().sqrt()) for label in names
    }
    alt = "Five frames with open eyes, five with closed, round maps on grey; below them their alpha band, "
    alt += f"and what three models rebuild of it, blurred. Error of a pixel: {listed(errors, between=', ')}"
    return figures.image_grid(
        np.stack([frames, *(band.expand(-1, 3, -1, -1) for band in alpha.values())]),
        row_labels=["three bands", *alpha],
        column_labels=["open"] * 5 + ["closed"] * 5,
        alt=alt,
    )


def traversal(found: Found) -> figures.Picture:
    """The factor that carries most nats, moved from -2 to 2 with the others at 0, band by band."""
    nats = float(found.tensors["nats"][0])
    moved = found.tensors["traversal"][0].transpose(0, 1).unsqueeze(2)  # bands, values
    first, last = (moved[:, place].float().mean(dim=(1, 2, 3)) for place in (0, -1))
    change = dict(zip(BANDS, ((last - first) / 255).tolist(), strict=True))
    alt = f"A factor of {nats:.1f} nats moved over five values; from the first to the last the mean pixel changes by "
    return figures.image_grid(
        moved.numpy(),
        row_labels=list(BANDS),
        column_labels=["−2", "−1", "0", "1", "2"],
        title=f"One factor, moved: {nats:.1f} nats a frame",
        alt=alt + ", ".join(f"{value:+.2f} in {band}" for band, value in change.items()),
    )


def theorem(bounds: Mapping[float, Bound]) -> figures.Picture:
    """The sum of Theorem 4.1 against beta, from below 1 to above it, beside the evidence."""
    sums, evidence = {beta: float(b.lstm + b.frames) for beta, b in bounds.items()}, float(bounds[1.0].evidence)
    (first, low), *_, (last, high) = sums.items()
    alt = (
        f"The sum of the theorem against beta: {low:.2f} nats at beta {first:g}, above the evidence of {evidence:.2f}; "
    )
    picture, axes = figures.blank(4.6, 2.8, f"{alt}{sums[1.0]:.2f} at 1 and {high:.2f} at {last:g}, below it.")
    axes.plot(list(sums), list(sums.values()), "o-", color=figures.BLUE, label="LSTM + β-VAEs, best encoder")
    axes.axhline(evidence, color=figures.BLACK, linestyle="--", label="ln p(X, y)")
    axes.axvspan(0, 1, color="#E8E8E8", zorder=0)
    axes.set(xlabel="β", ylabel="nats")
    axes.legend(frameon=False)
    return picture


def accuracies_drawn(found: Found) -> figures.Picture:
    """Each method on each test block, mean over the validation blocks."""
    names = [*MODELS, "majority"]
    panels = {
        title: {
            f"block {block + 1}": [100 * by_block(found, name, measure)[block] for name in names]
            for block in range(found.settings["blocks"])
        }
        for title, measure in (("balanced accuracy", "balanced"), ("accuracy", "accuracy"))
    }
    return figures.dots(names, panels, {"balanced accuracy": (49.8, 50.2)})


def splits(found: Found) -> figures.Picture:
    """The same models with test data picked at random, and in blocks of time."""
    values = leaks(found)
    said = listed({name: each.mean() for name, each in values.items()}, "{}, {:.1f} per cent")
    picture, axes = figures.blank(5.6, 2.2, f"Balanced accuracy of each split, and the mean: {said}")
    for place, (name, each) in enumerate(values.items()):
        marker, colour = ("o", figures.BLUE) if "random" in name else ("D", figures.ORANGE)
        heights = np.full(len(each), place)
        axes.plot(each, heights, marker, color=colour, markerfacecolor="none", linestyle="none")
        axes.plot(each.mean(), place, "|", color=figures.BLACK, markersize=16)
    axes.axvline(50, color=figures.GREY, linestyle=":")
    axes.set_yticks(range(len(values)), list(values))
    axes.set(ylim=(len(values) - 0.5, -0.5), xlabel="balanced accuracy, %")
    return picture
