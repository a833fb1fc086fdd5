"""What chapter B6 finds, as tables: each method on each block of time, intervals over the blocks, and the verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from qmvae_neighbours.eeg.experiment import AUTO, BETA, CONVOLUTION, MODELS, PLAIN, SVM, Settings
from qmvae_neighbours.eeg.frames import RATE
from qmvae_neighbours.experiments import Found
from qmvae_neighbours.report import listed

THESIS = {SVM: 0.39, AUTO: 0.52, CONVOLUTION: 0.54, BETA: 0.54}


@dataclass(frozen=True)
class Comparison:
    """Mean difference of two models over the test blocks, with the ends of its 95 % interval by Student's t."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What the interval says of the first model against the second."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "not told apart"

    def __str__(self) -> str:  # in points
        return f"{100 * self.mean:+.1f} ({100 * self.low:+.1f} to {100 * self.high:+.1f})"


def by_block(folds: Sequence[Mapping], model: str, measure: str = "balanced") -> np.ndarray:
    """A measure of a model for each test block, mean over the validation blocks: (blocks,)."""
    tests = sorted({fold["test"] for fold in folds})
    return np.array([np.mean([f["models"][model][measure] for f in folds if f["test"] == test]) for test in tests])


def compare(first: np.ndarray, second: np.ndarray | float) -> Comparison:
    """The paired Comparison of two models' values (blocks,). Raises ValueError for fewer than two blocks."""
    apart = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    if len(apart) < 2:
        raise ValueError("an interval needs two test blocks or more")
    half = stats.t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / np.sqrt(len(apart))
    return Comparison(float(apart.mean()), float(apart.mean() - half), float(apart.mean() + half))


def of_models(found: Found, first: str, second: str) -> Comparison:
    """Two models by their balanced accuracy."""
    return compare(*(by_block(found.metrics["folds"], name) for name in (first, second)))


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
    """Balanced and plain accuracy of each method over the test blocks, in per cent."""
    rows = {}
    for name in (*MODELS, "majority"):
        of, plain = (100 * by_block(found.metrics["folds"], name, key) for key in ("balanced", "accuracy"))
        rows[name] = [of.mean(), of.std(ddof=1), of.min(), of.max(), plain.mean(), plain.std(ddof=1)]
    columns = ["balanced, %", "spread", "lowest", "highest", "accuracy, %", "its spread"]
    return pd.DataFrame(rows, index=columns).T.round(1)


def above_chance(found: Found) -> str:
    """Which methods are better than a constant answer, by the intervals over the blocks."""
    against = {name: compare(by_block(found.metrics["folds"], name), 0.5) for name in MODELS}
    above = [name for name, result in against.items() if result.verdict == "better"]
    outcome = f"Better than a constant answer, by these intervals: {', '.join(above)}."
    if not above:
        outcome = "No interval lies above zero: **no model can be said to see the state of the eyes in a new block.**"
    count = found.settings["blocks"]
    return f"Points above 50 % balanced accuracy over the {count} test blocks: {listed(against, '{} {}')}. {outcome}"


def leaks(found: Found) -> dict[str, np.ndarray]:
    """Balanced accuracy of two models in per cent, for each random split and for each block of time."""
    kept = found.metrics["leaks"]
    values = {
        "SVM on sequences, random": kept["windows"]["random"],
        "SVM on sequences, blocks": by_block(found.metrics["folds"], SVM),
        "nearest neighbour, random": kept["samples"]["random"],
        "nearest neighbour, blocks": kept["samples"]["blocks"],
    }
    return {name: 100 * np.asarray(each) for name, each in values.items()}


def numbers(found: Found) -> pd.DataFrame:
    """The thesis' accuracies beside ours, of other data and another task."""
    folds = found.metrics["folds"]
    return pd.DataFrame({
        name: {
            "thesis: DEAP, 4 emotions, %": f"{100 * value:.0f}",
            "ours: eye state, balanced, %": f"{100 * by_block(folds, name).mean():.1f}",
            "ours, accuracy, %": f"{100 * by_block(folds, name, 'accuracy').mean():.1f}",
            "verdict on the number": "cannot be compared: other data, other task",
        }
        for name, value in THESIS.items()
    }).T  # fmt: skip


def verdicts(found: Found) -> pd.DataFrame:
    """The order of the methods in the thesis, beside our intervals."""
    rows = {}
    to_svm, to_auto = ((BETA, SVM), (CONVOLUTION, SVM), (AUTO, SVM)), ((BETA, AUTO), (CONVOLUTION, AUTO))
    for first, second in (*to_svm, *to_auto, (BETA, CONVOLUTION)):
        thesis, ours = THESIS[first] - THESIS[second], of_models(found, first, second)
        said = {"better": "holds" if thesis else "reversed", "worse": "reversed", "not told apart": "cannot be told"}
        rows[f"{first} {'is better than' if thesis else 'equals'} {second}"] = {
            "thesis, points": f"{100 * thesis:+.0f}", "ours, points": str(ours), "verdict": said[ours.verdict],
        }  # fmt: skip
    return pd.DataFrame(rows).T


def trainings(found: Found) -> pd.DataFrame:
    """Shares of training sequences that are right, means over the folds, and when the weights were kept."""
    folds, settings = found.metrics["folds"], Settings(**found.settings)
    rows = {
        name: {
            "after the last step, %": f"{100 * mean_of(found, name, 'training_at_the_end'):.0f}",
            "at the step kept, %": f"{100 * mean_of(found, name, 'training'):.0f}",
            "step kept": f"{mean_of(found, name, 'step'):.0f} of {settings.sequence_steps}",
            "kept at the first look":
                f"{sum(fold['models'][name]['step'] == settings.check for fold in folds)} of {len(folds)}",
        }
        for name in MODELS
        if name != SVM
    }  # fmt: skip
    table = pd.DataFrame(rows).T
    for name in MODELS:  # both states half right: nearly always the same answer to all
        constant = sum(fold["models"][name]["balanced"] == 0.5 for fold in folds)
        table.loc[name, "constant on the test block"] = f"{constant} of {len(folds)}"
    return table.fillna("")
