"""What chapter B6 finds, as tables: each method on each block of time, intervals over the blocks, and the verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from qmvae_neighbours.eeg.experiment import AUTO, BETA, CONVOLUTION, MODELS, PLAIN, SVM, Settings
from qmvae_neighbours.eeg.frames import RATE
from qmvae_neighbours.experiments import Found
from qmvae_neighbours.report import INCOMPARABLE, listed
from qmvae_study.report.intervals import Interval, Says, Verdict

WORDS = {Says.ABOVE: "better", Says.BELOW: "worse", Says.AGREES: "not told apart"}
THESIS = {SVM: 0.39, AUTO: 0.52, CONVOLUTION: 0.54, BETA: 0.54}


def by_block(folds: Sequence[Mapping], model: str, measure: str = "balanced") -> np.ndarray:
    """A measure of a model for each test block, mean over the validation blocks: (blocks,)."""
    tests = sorted({fold["test"] for fold in folds})
    return np.array([np.mean([f["models"][model][measure] for f in folds if f["test"] == test]) for test in tests])


def compare(found: Found, first: str, second: str | None = None) -> Verdict:
    """Two models' balanced accuracy, or one's and that of a constant answer, by the paired interval over test blocks.

    Its evidence is the mean difference in points, with the interval.
    """
    folds = found.metrics["folds"]
    apart = Interval.of_mean(100 * (by_block(folds, first) - (by_block(folds, second) if second else 0.5)))
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
    """Balanced and plain accuracy of each method over the test blocks, in per cent."""
    rows = {}
    for name in (*MODELS, "majority"):
        of, plain = (100 * by_block(found.metrics["folds"], name, key) for key in ("balanced", "accuracy"))
        rows[name] = [of.mean(), of.std(ddof=1), of.min(), of.max(), plain.mean(), plain.std(ddof=1)]
    columns = ["balanced, %", "spread", "lowest", "highest", "accuracy, %", "its spread"]
    return pd.DataFrame(rows, index=columns).T.round(1)


def above_chance(found: Found) -> str:
    """Which methods are better than a constant answer, by the intervals over the blocks."""
    against = {name: compare(found, name) for name in MODELS}
    above = [name for name, result in against.items() if result.says is Says.ABOVE]
    said = listed({name: result.evidence for name, result in against.items()}, "{} {}")
    outcome = f"Better than a constant answer, by these intervals: {', '.join(above)}."
    if not above:
        outcome = "No interval lies above zero: **no model can be said to see the state of the eyes in a new block.**"
    count = found.settings["blocks"]
    return f"Points above 50 % balanced accuracy over the {count} test blocks: {said}. {outcome}"


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
            "verdict on the number": f"{INCOMPARABLE}: other data, other task",
        }
        for name, value in THESIS.items()
    }).T  # fmt: skip


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
