"""The figure of chapter B5."""

from __future__ import annotations

import numpy as np

from qmvae_neighbours.experiments import Found
from qmvae_neighbours.report import listed
from qmvae_neighbours.runoff.tables import LONG, SIMPLE, months
from qmvae_study.report import figures


def floods(found: Found) -> figures.Picture:
    """The wettest month of each test year, and the forecasts of two networks, first seed."""
    judged = found.metrics["indices"][LONG]["0"]
    said = listed({m: judged[m]["s"] for m in months(found)}, "{} (s of the deep network {:.0f} %)", ", ")
    picture, panels = figures.blank(7.0, 3.0, f"Observed runoff and two forecasts in {said}", 1, len(months(found)))
    for axes, month in zip(panels, months(found), strict=True):
        observed = found.tensors[f"{month}/observed"]
        days = np.arange(1, len(observed) + 1)
        axes.plot(days, observed, "o", color=figures.BLACK, markersize=3, label="observed")
        axes.plot(days, found.tensors[f"{month}/{LONG}"], "-", color=figures.BLUE, label="2 layers, long")
        axes.plot(days, found.tensors[f"{month}/{SIMPLE}"], ":", color=figures.VERMILLION, label=SIMPLE)
        axes.set_title(month, loc="left")
        axes.set_xlabel("day")
    panels[0].set_ylabel("runoff, mm a day")
    picture.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return picture
