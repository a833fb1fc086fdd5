"""When a run's quadruplet loss left its plateau, all codes in one place, where it is 2 α₁ + α₂ and can stand still.

The rule: a run has left when the mean of the loss over a chunk of steps is below nine tenths of the plateau, and is
stalled if that never happened. Older records know the means of epochs only; there an epoch takes the chunk's place.
"""

from __future__ import annotations

from collections.abc import Mapping

from qmvae_core.stops import LEFT, quadruplet_plateau


def left_after(record: Mapping) -> int | None:
    """The number of steps after which the loss of a finished run had left its plateau; None if it never did.

    Raises ValueError for a run that has no plateau: a model without the quadruplet loss, or one whose beta is 0.
    """
    if "plateau" in record:
        return record["plateau"]["left"]
    plateau = _plateau(record)
    if plateau is None:
        raise ValueError(f"the loss of record {record['id']} has no plateau to leave")
    steps = record["cost"]["steps"] // len(record["history"])
    below = (i for i, epoch in enumerate(record["history"], start=1) if epoch["quadruplet"] < LEFT * plateau)
    first = next(below, None)
    return first and first * steps


def is_stalled(record: Mapping) -> bool:
    """Whether a finished run has a plateau and never left it."""
    return ("plateau" in record or _plateau(record) is not None) and left_after(record) is None


def _plateau(record: Mapping) -> float | None:
    config = record["config"]["model"]
    if not config.get("beta") or "alpha1" not in config:
        return None
    return quadruplet_plateau(config["alpha1"], config["alpha2"], len(config["modalities"]))
