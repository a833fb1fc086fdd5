"""Records in, tables out: why the numbers of Tables 1 and 2 are what they are (`codes`), and when a loss began to fall.

Records that do not have a metric have no row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import pandas as pd

from qmvae_study.evidence.records import Record, Share
from qmvae_study.report.tables import rows_of


def _rows(records: Sequence[Record], cells: Callable[[Record], Iterable[Mapping]]) -> pd.DataFrame:
    return rows_of([record for record in records if record.done], cells)


def _per_cent(share: Share | None) -> float | None:
    return share and round(share.per_cent, 1)


# The experts

WEIGHTINGS = ("as run", "without prior", "8", "softmax scales", "equal shares")  # "8": a precision divided by it


def weightings(records: Sequence[Record]) -> pd.DataFrame:
    """`codes.experts`: a row a weighting; what the probe of Table 2 reads, and what one refitted to the weighting does.

    In per cent of one round of judged pairs. The columns of single modalities are by the refitted probe.
    """

    def cells(record):
        held = record.held("experts").get("weightings", {})
        for name, found in sorted(held.items(), key=lambda item: WEIGHTINGS.index(item[0].split(" / ")[-1])):
            read = {modality: _per_cent(share) for modality, share in found["refitted"].items()}
            yield {"weighting": name, "joint, as trained": _per_cent(found["probe"]), "joint": read.pop("joint")} | read

    return _rows(records, cells)


def precisions(records: Sequence[Record]) -> pd.DataFrame:
    """`codes.experts`: a row an expert; its summed precision where its own code is read rightly and wrongly.

    "auc": the probability that it is higher for a right code than for a wrong one; "share": of the product's precision,
    in per cent, and the same on the pairs whose code it has misread.
    """

    def cells(record):
        held = record.held("experts")
        for name, found in held.get("precision", {}).items():
            row = {"expert": name} | {
                where: round(found[where]["mean"]) for where in ("right", "wrong") if where in found
            }
            row |= {"auc": round(found["auc"], 2)} if "auc" in found else {}
            shares = {"share": "all", "share where wrong": f"{name} wrong"}
            held_shares = {k: held["shares"][v][name] for k, v in shares.items() if v in held["shares"]}
            yield row | {k: round(100 * v, 1) for k, v in held_shares.items()}

    return _rows(records, cells)


# Codes between classes


def directions(records: Sequence[Record]) -> pd.DataFrame:
    """`codes.between_classes`: a row a direction, in per cent; "code read": by the probe, on the same codes."""

    def cells(record):
        for way, found in record.held("between_classes").get("directions", {}).items():
            yield {
                "direction": way,
                "train": _per_cent(found["train"]),
                "judged": _per_cent(found["judged"]),
                "code read": _per_cent(record.share("probe", way.split("->")[0])),
                "of these decoded": _per_cent(found.get("well_read")),
                "of the others": _per_cent(found.get("misread")),
                "others, as probe": _per_cent(found.get("misread_as_probe")),
                "at centroids": _per_cent(found["snapped"]),
            }

    return _rows(records, cells)


def centroids(records: Sequence[Record]) -> pd.DataFrame:
    """`codes.between_classes`: what decoders make of the centroids of either modality's codes, in per cent."""

    def cells(record):
        found = record.held("between_classes").get("centroids", {})
        if found:
            yield {
                f"{target} at {source}'s": _per_cent(share)
                for target, by_source in found.items()
                for source, share in by_source.items()
            }

    return _rows(records, cells)


def spreads(records: Sequence[Record]) -> pd.DataFrame:
    """`codes.between_classes`: distances within and between classes of codes, a row a run, to two digits."""

    def cells(record):
        held = record.held("between_classes")
        if held:
            row = {f"{name}, {of}": value for name, found in held["spread"].items() for of, value in found.items()}
            row["apart"] = next(iter(held["directions"].values()))["apart"]
            yield {column: f"{value:.2g}" for column, value in row.items()}

    return _rows(records, cells)


def by_place(record: Record, direction: str) -> tuple[list[float], list[float]]:
    """The middles of the intervals of d₁/d₂ (`codes.between_classes`), and the share decoded rightly, in per cent."""
    found = record.held("between_classes")["directions"][direction]["by_place"]
    ends = [[float(end) for end in name.split(" to ")] for name in found]
    return [sum(each) / 2 for each in ends], [share.per_cent for share in found.values()]


# The plateau


def leavings(records: Sequence[Record]) -> pd.DataFrame:
    """A row for each finished run whose loss has a plateau: its settings, its steps, and by which of them it had left.

    "left by" is empty for a run that never did. It is the end of the first interval whose mean lies below
    `stops.LEFT` of the plateau; "interval" is the number of steps of one.
    """

    def only(record, field):
        values = dict.fromkeys(str(m[field]) for m in record.setting("model", "modalities").values())
        return ", ".join(values)

    def cells(record):
        if record.plateau is None:
            return
        chunk = record.setting("training", "chunk")
        yield {
            "encoders": only(record, "encoders"),
            "negatives": record.setting("model", "negatives"),
            "rate": record.setting("training", "learning_rate"),
            "scale": only(record, "scale"),
            "precision": record.precision,
            "steps": record.steps,
            "left by": record.left_after(),
            "interval": chunk if "plateau" in record else record.steps // len(record["history"]),
        }

    return _rows(records, cells).astype({"left by": "Int64"})


def by_setting(found: pd.DataFrame) -> pd.DataFrame:
    """`leavings` in groups of equal encoders, screening and rate: runs, those that never left, and when others had."""
    settings = ["encoders", "negatives", "rate"]

    def of(group: pd.DataFrame) -> dict:
        left = group["left by"].dropna()
        ends = f"{left.min():,} to {left.max():,}" if len(left) else ""
        return {
            "runs": len(group),
            "never left": int(group["left by"].isna().sum()),
            "left by step": ends,
            "steps of a run": f"{group['steps'].min():,} to {group['steps'].max():,}",
        }

    return pd.DataFrame([dict(zip(settings, key, strict=True)) | of(group) for key, group in found.groupby(settings)])


def course(record: Record) -> tuple[list[int], list[float]]:
    """The quadruplet loss of a run by step: the ends of the intervals of its history, and the mean over each."""
    history = record["history"]
    ends = [record.steps * (i + 1) // len(history) for i in range(len(history))]
    return ends, [row["quadruplet"] for row in history]
