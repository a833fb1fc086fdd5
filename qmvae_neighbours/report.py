"""What the chapters' tables and figures share: numbers in a sentence, verdicts, rows of images, a table of claims."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from qmvae_study.report import figures
from qmvae_study.report.intervals import Interval, Says, Verdict

BESIDE = {"frameon": False, "loc": "center left", "bbox_to_anchor": (1.0, 0.5)}  # a legend to the right of its axes
INCOMPARABLE = Verdict(Says.NONE).spelled({Says.NONE: "cannot be compared"})


def listed(values: Mapping[str, object], form: str = "{} {:.2f}", between: str = "; ") -> str:
    """Names with their numbers, as alternative texts and verdicts have them: "neural 0.93; factorised 0.86".

    form: of a name and its number, or of a name and each number of its tuple.
    """
    each = ((name, *value) if isinstance(value, tuple) else (name, value) for name, value in values.items())
    return between.join(form.format(*parts) for parts in each)


def images(tensors: Mapping[str, Tensor], rows: Mapping[str, str], alt: str, **options) -> figures.Picture:
    """A grid with a row for each label, from the tensor that it names: (columns, c, h, w) uint8."""
    stacked = torch.stack([tensors[name] for name in rows.values()]).numpy()
    return figures.image_grid(stacked, row_labels=list(rows), alt=alt, **options)


def two_errors(values: Tensor) -> Interval:
    """The mean of values (n,), and two standard errors of it to both sides."""
    return Interval.around(float(values.mean()), 2 * float(values.std() / math.sqrt(len(values))), len(values))


def holds(*states: bool | None, otherwise: str = "does not hold") -> str:
    """The verdict on a claim about one quantity or several: each bears it out, or not, or is undecided (None)."""
    if all(states):
        return Says.HOLDS
    says = Says.IN_PART if any(states) else Says.UNDECIDED if None in states else Says.FAILS
    return Verdict(says).spelled({Says.FAILS: otherwise})


def over_seeds(models: Mapping[str, Sequence[Mapping]], names: Iterable[str]) -> pd.DataFrame:
    """Of each model the means of the named numbers over seeds, and half their intervals; it has one mapping a seed."""
    said = {
        model: [Interval.of_mean([row[name] for row in rows]).plus_minus(".2f") for name in names]
        for model, rows in models.items()
    }
    return pd.DataFrame.from_dict(said, "index", columns=names)


def above(interval: Interval | None, bar: float = 0.0) -> bool | None:
    """Whether all of an interval lies above a bar, or below it; None where it holds the bar, or there is none."""
    return {Says.ABOVE: True, Says.BELOW: False}.get(interval and interval.against(bar))


def claims(rows: Sequence[Sequence[str]], columns: Sequence[str]) -> pd.DataFrame:
    """A table of claims by their first column; its sentences, and all after it, are shown whole."""
    pd.set_option("display.max_colwidth", None)
    return pd.DataFrame(rows, columns=columns).set_index(columns[0])


def in_short(verdicts: pd.DataFrame) -> str:
    """The claims of a table by their verdict, as a Markdown list: a chapter's first answer."""
    groups = verdicts.groupby("verdict", sort=False)
    return "\n".join(f"- **{verdict}**: {'; '.join(group.index)}" for verdict, group in groups)


def markdown(table: pd.DataFrame) -> str:
    """A table of texts as Markdown."""
    cells = table.reset_index().map(lambda text: text.replace("|", "\\|"))
    lines = [f"| {' | '.join(row)} |" for row in (cells.columns, *cells.to_numpy())]
    return "\n".join([lines[0], "|" + "---|" * len(cells.columns), *lines[1:]])
