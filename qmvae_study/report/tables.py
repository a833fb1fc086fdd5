"""Records in, tables out: paper | ours mean ± std (seeds) | difference with interval | verdict.

The rule of the verdict, written before the runs: a cell gets one only from paper-profile records on real data with at
least three seeds. Then the difference (ours minus paper) has a 95 % interval by Welch's t, with the paper's own
standard deviation over five seeds, and the verdict is "agrees" if the interval holds zero, else "above" or "below".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from qmvae_study import paper, plateau
from qmvae_study.evidence.records import RecordError

LEAST_SEEDS = 3
NOT_APPLICABLE = "not applicable"
LONGER = "a longer run"  # the name in `to_show` of a second run of the main reading


def in_order(records: Sequence[Mapping]) -> list[Mapping]:
    """Records by profile, the paper's order of models, reading and seed: the order of every table and picture."""
    models = list(paper.NAMES)
    return sorted(records, key=lambda r: (r["profile"], models.index(r["model"]), r["reading"], r["seed"]))


def called(group: Sequence[Mapping]) -> str:
    """What tables and pictures call finished records of one reading: its name, with a word where one is needed.

    The words: "stalled" if the quadruplet loss never left its plateau (`plateau.is_stalled`), with the number of seeds
    where it is not all of them; and the precision, if it is not float32.
    """
    stalled = sum(map(plateau.is_stalled, group))
    words = ["stalled" if stalled == len(group) else f"{stalled} of {len(group)} stalled"] if stalled else []
    words += [name for name in [precision(group[0])] if name != "float32"]
    return group[0]["reading"] + (f" ({', '.join(words)})" if words else "")


def precision(record: Mapping) -> str:
    """The precision of a record's training."""
    return record["config"]["training"]["precision"]


def applies(record: Mapping, path: Sequence[str]) -> bool:
    """Whether the record's model has the cell at this path: the probe of one without joint codes has no "joint"."""
    probe = record["metrics"].get("probe")
    return tuple(path) != ("probe", "joint") or not probe or "joint" in probe


def metric(record: Mapping, path: Sequence[str]) -> float:
    """The accuracy, in per cent, at a path into a record's metrics. Raises RecordError where it is missing.

    Cross generation is measured by the mean and by a sample of q(z|x); the config's `test_code` says which one counts.
    """
    value = record["metrics"]
    if path[0] == "cross_generation":
        path = (*path, record["config"]["model"]["test_code"])
    for key in path:
        if key not in value:
            raise RecordError(f"record {record['id']} has no metric {' / '.join(path)}; run it again")
        value = value[key]
    return 100.0 * value["accuracy"]


def welch_interval(ours: Sequence[float], reported: paper.Reported, level: float = 0.95) -> tuple[float, float]:
    """The interval of (our mean - the paper's) by Welch's t; ours: at least two values, in per cent."""
    series = pd.Series(ours, dtype=float)
    parts = [(series.var(ddof=1) / len(series), len(series)), (reported.std**2 / paper.SEEDS, paper.SEEDS)]
    variance = sum(value for value, _ in parts)
    difference = series.mean() - reported.mean
    if variance == 0:
        return difference, difference
    freedom = variance**2 / sum(value**2 / (count - 1) for value, count in parts)
    reach = stats.t.ppf(0.5 + level / 2, freedom) * math.sqrt(variance)
    return difference - reach, difference + reach


def verdict(records: Sequence[Mapping], interval: tuple[float, float] | None) -> str:
    """The verdict on a cell by the rule above, or the words why there is none."""
    profiles = sorted({record["profile"] for record in records})
    if any(record["data"]["kind"] != "real" for record in records):
        return "none: stand-in data"
    if profiles != ["paper"]:
        return f"none: {', '.join(profiles)} profile"
    if interval is None or len(records) < LEAST_SEEDS:
        return f"none: fewer than {LEAST_SEEDS} seeds"
    low, high = interval
    return "below" if high < 0 else "above" if low > 0 else "agrees"


def compare(
    records: Sequence[Mapping],
    reported: Mapping[str, Mapping[str, paper.Reported | None]],
    columns: Mapping[str, Sequence[str]],
) -> pd.DataFrame:
    """One row for each model, reading, precision and column that the records cover, beside what the paper reports.

    records: of one profile or several; those that failed are left out. Every seed of a group must have the same config
    and data. "reading" is as `called`, so it says which runs are stalled. Raises RecordError if there is no finished
    record, if a group mixes configs or data, or if one seed is there twice.
    """
    done = [record for record in in_order(records) if record["status"] == "ok"]
    if not done:
        raise RecordError("there is no finished record to make a table of; make one with: python -m qmvae_study run")
    groups: dict[tuple, list[Mapping]] = {}
    for record in done:
        key = (record["profile"], record["model"], record["reading"], precision(record))
        groups.setdefault(key, []).append(record)
    rows = []
    for (profile, model, reading, _), group in groups.items():
        _check_one_group(f"{profile} {model} {reading}", group)
        for column, path in columns.items():
            said = _said(reported, model, column)
            row = {
                "model": paper.NAMES[model],
                "reading": called(group),
                "profile": profile,
                "data": group[0]["data"]["kind"],
                "column": column,
                "paper": None if said is None else f"{said.mean:.1f} ± {said.std:.1f}",
                "ours": NOT_APPLICABLE,
                "seeds": len(group),
                "difference": None,
                "95 % interval": None,
                "verdict": f"none: {NOT_APPLICABLE}",
            }
            if any(applies(record, path) for record in group):
                row |= _compared(group, pd.Series([metric(record, path) for record in group]), said)
            rows.append(row)
    return pd.DataFrame(rows)


def _compared(group: Sequence[Mapping], values: pd.Series, said: paper.Reported | None) -> dict[str, str | None]:
    """The entries of a row that follow from our values, in per cent, and what the paper says."""
    interval = welch_interval(values, said) if said is not None and len(values) > 1 else None
    return {
        "ours": f"{values.mean():.1f} ± {values.std():.1f}" if len(values) > 1 else f"{values[0]:.1f}",
        "difference": None if said is None else f"{values.mean() - said.mean:+.1f}",
        "95 % interval": None if interval is None else f"{interval[0]:+.1f} to {interval[1]:+.1f}",
        "verdict": verdict(group, interval) if said is not None else "none: not reported",
    }


def _said(
    reported: Mapping[str, Mapping[str, paper.Reported | None]], model: str, column: str
) -> paper.Reported | None:
    """What the paper reports of a cell; None where it has none, and for a model that is not in its table."""
    return reported.get(model, {}).get(column)


def _check_one_group(name: str, group: Sequence[Mapping]) -> None:
    if len({record["config_hash"] for record in group}) > 1:
        raise RecordError(f"the records of {name} have different configs; run them anew")
    if len({record["data"]["content_hash"] for record in group}) > 1:
        raise RecordError(f"the records of {name} were made on different data; run them anew")
    seeds = [record["seed"] for record in group]
    for seed in seeds:
        if seeds.count(seed) > 1:
            raise RecordError(f"the records of {name} hold seed {seed} twice; remove the copy")


def table1(records: Sequence[Mapping]) -> pd.DataFrame:
    """Table 1, cross generation: the shared code by its mean, the private code from the prior."""
    return compare(records, paper.TABLE1, paper.TABLE1_COLUMNS)


def table2(records: Sequence[Mapping]) -> pd.DataFrame:
    """Table 2, one linear classifier trained on joint codes."""
    return compare(records, paper.TABLE2, paper.TABLE2_COLUMNS)


def with_missing_models(
    table: pd.DataFrame, reported: Mapping[str, Mapping[str, paper.Reported | None]]
) -> pd.DataFrame:
    """A table of `compare` in the paper's order of models, with a row for each cell that no record covers."""
    missing = [
        {
            "model": paper.NAMES[model], "column": column, "verdict": "none: no record", "seeds": 0,
            "paper": None if said is None else f"{said.mean:.1f} ± {said.std:.1f}",
        }
        for model, row in reported.items() if paper.NAMES[model] not in set(table["model"])
        for column, said in row.items()
    ]  # fmt: skip
    whole = pd.concat([table, pd.DataFrame(missing, columns=table.columns)]) if missing else table
    order = {name: place for place, name in enumerate(paper.NAMES.values())}
    return whole.sort_values("model", key=lambda names: names.map(order), kind="stable", ignore_index=True)


Point = tuple[float, float, float]  # mean, mean - standard deviation, mean + standard deviation


def as_points(
    records: Sequence[Mapping],
    reported: Mapping[str, Mapping[str, paper.Reported | None]],
    columns: Mapping[str, Sequence[str]],
) -> tuple[dict[str, Point | None], dict[str, Point]]:
    """The same cells for a picture, in per cent: (the paper's, ours), each by the cell's name."""
    values: dict[str, list[float]] = {}
    said: dict[str, Point | None] = {}
    for record in in_order([r for r in records if r["status"] == "ok"]):
        for column, path in columns.items():
            cell = f"{paper.NAMES[record['model']]} {column}\n{called([record])}, {record['profile']} profile"
            if applies(record, path):
                values.setdefault(cell, []).append(metric(record, path))
            given = _said(reported, record["model"], column)
            said[cell] = None if given is None else _point(given.mean, given.std)
    return said, {
        cell: _point(float(np.mean(v)), float(np.std(v, ddof=1)) if v[1:] else 0.0) for cell, v in values.items()
    }


def _point(mean: float, std: float) -> Point:
    return mean, mean - std, mean + std


def _rows(records: Sequence[Mapping], cells) -> pd.DataFrame:
    """A table with the rows that `cells` gives for each record, each led by what the record is."""
    named = (
        {"reading": called([r]) if r["status"] == "ok" else r["reading"], "profile": r["profile"], "seed": r["seed"]}
        | row
        for r in records
        for row in cells(r)
    )
    return pd.DataFrame(named)


def _per_cent(value: Mapping) -> str:
    return f"{100 * value['accuracy']:.1f} ({100 * value['low']:.1f} to {100 * value['high']:.1f})"


def cross_generation_by_code(records: Sequence[Mapping]) -> pd.DataFrame:
    """Cross generation with the mean of q(z|x) and with a draw from it, each with the interval over its images."""

    def cells(record):
        for direction, found in record["metrics"]["cross_generation"].items():
            n = found["mean"]["n"]
            yield {
                "direction": direction,
                "n": n,
                "mean": _per_cent(found["mean"]),
                "sample": _per_cent(found["sample"]),
            }

    return _rows(records, cells)


def oracle_accuracies(records: Sequence[Mapping]) -> pd.DataFrame:
    """The judges' own accuracy on real test digits, in per cent."""
    return _rows(records, lambda r: [{k: f"{100 * v:.2f}" for k, v in r["metrics"]["oracle"].items()}])


def leakage_table(records: Sequence[Mapping]) -> pd.DataFrame:
    """What probes read of the digit in the private codes, and joint coherence from the prior, in per cent."""

    def cells(record):
        row = {}
        for name, probes in record["metrics"]["leakage"].items():
            for probe, value in probes.items():
                row[f"{name}, {probe} probe"] = f"{100 * value['accuracy']:.1f}"
        yield {**row, "joint coherence": _per_cent(record["metrics"]["joint_coherence"])}

    return _rows(records, cells).fillna("no private code")


def probe_gaps(records: Sequence[Mapping]) -> pd.DataFrame:
    """How far the probe's accuracy on each modality's codes is from that on joint codes, in points."""

    def cells(record):
        if not applies(record, ("probe", "joint")):
            yield {f"{k} - joint": NOT_APPLICABLE for k in ("mnist", "svhn")}
            return
        joint = metric(record, ("probe", "joint"))
        yield {f"{k} - joint": f"{metric(record, ('probe', k)) - joint:+.1f}" for k in ("mnist", "svhn")}

    return _rows(records, cells)


def joint_codes(records: Sequence[Mapping]) -> pd.DataFrame:
    """`evaluation.joint_code` in per cent: a row of training pairs and one of test pairs for each record with it."""

    def cells(record):
        measured = record["metrics"].get("joint_code")
        for pairs, split in (("train", "train"), ("test", "judged")) if measured else ():
            found = measured[split]
            row = {"pairs": pairs} | {n: f"{100 * value['accuracy']:.1f}" for n, value in found["alone"].items()}
            row["joint"] = f"{100 * found['joint']['accuracy']:.1f}"
            for name, value in found["only"].items():
                row[f"joint, only {name} right"] = f"{100 * value['accuracy']:.0f} (of {value['n']:,})"
            yield row | {f"precision, {name}": f"{value:.1f}" for name, value in found["precision"].items()}

    return _rows(records, cells).fillna("")


def by_profile(records: Sequence[Mapping]) -> list[list[Mapping]]:
    """The finished records in order, a list for each profile, that of the longest runs first.

    Stand-in runs are left out where there are runs on real data. Raises RecordError if no record is finished.
    """
    done = [r for r in records if r["status"] == "ok"]
    if not done:
        raise RecordError("there is no finished record; make one with: python -m qmvae_study run")
    groups: dict[str, list[Mapping]] = {}
    for record in in_order([r for r in done if r["data"]["kind"] == "real"] or done):
        groups.setdefault(record["profile"], []).append(record)
    return sorted(groups.values(), key=lambda group: -max(record["cost"]["steps"] for record in group))


def finished(records: Sequence[Mapping]) -> list[Mapping]:
    """The finished records of every profile, the longest runs first. Raises like `by_profile`."""
    return [record for group in by_profile(records) for record in group]


def longest(records: Sequence[Mapping]) -> list[Mapping]:
    """The finished records of the profile with the most training steps. Raises like `by_profile`."""
    return by_profile(records)[0]


def widest(records: Sequence[Mapping]) -> list[Mapping]:
    """The finished records of the profile with the most readings, to compare most with; of several, the longest.

    Raises like `by_profile`.
    """
    return max(by_profile(records), key=lambda group: len({record["reading"] for record in group}))


def first_seeds(records: Sequence[Mapping]) -> list[Mapping]:
    """The record of the lowest seed of each profile, model and reading, in a stable order."""
    found: dict[tuple, Mapping] = {}
    for record in in_order(records):
        found.setdefault((record["profile"], record["model"], record["reading"]), record)
    return list(found.values())


def to_show(records: Sequence[Mapping], reading: str) -> dict[str, Mapping]:
    """Name of a reading -> the record that pictures show of it: the lowest seed of the widest profile.

    Where a longer profile has a run of `reading`, that is added under LONGER. Where no run has `reading`, the first of
    another stands in its place. Raises like `by_profile`.
    """
    shown = {record["reading"]: record for record in first_seeds(widest(records))}
    own = shown.setdefault(reading, next(iter(shown.values())))
    longer = longest([record for record in records if record["reading"] == own["reading"]])[0]
    if longer["profile"] != own["profile"]:
        shown[LONGER] = longer
    return shown


def title(record: Mapping, direction: str) -> str:
    """The title of a picture: model, reading, number of steps and direction."""
    of = f"{paper.NAMES[record['model']]} ({called([record])}, {record['cost']['steps']:,} steps)"
    return f"{of}, {direction.replace('->', ' to ')}"


def panel_shares(records: Sequence[Mapping]) -> pd.DataFrame:
    """The share of a Figure 3 panel's images read as their condition's digit, beside the share over all test images."""

    def cells(record):
        for direction, panel in record["panels"]["cross_generation"].items():
            right = sum(
                read == digit for row in panel["read"] for read, digit in zip(row, panel["digits"], strict=True)
            )
            total = sum(map(len, panel["read"]))
            over_all = metric(record, ("cross_generation", direction))
            yield {"direction": direction, "panel, %": f"{100 * right / total:.0f}", "all, %": f"{over_all:.1f}"}

    return _rows(records, cells)


def beyond(records: Sequence[Mapping]) -> pd.DataFrame:
    """What accuracy leaves out: Fréchet distances and diversity (`diagnosis`), of each direction and from the prior."""

    def cells(record):
        metrics = record["metrics"]
        for direction in metrics["cross_generation"]:
            target = direction.split("->")[1]
            yield {
                "images": direction,
                "read rightly, %": f"{metric(record, ('cross_generation', direction)):.1f}",
                "Fréchet": f"{metrics['frechet']['cross_generation'][direction]['distance']:.1f}",
                "Fréchet, real": f"{metrics['frechet']['real'][target]['distance']:.1f}",
                "diversity": f"{metrics['diversity'][direction]['features']['ratio']:.2f}",
            }
        coherence = _per_cent(metrics["joint_coherence"])
        for name, found in metrics["frechet"]["prior"].items():
            yield {
                "images": f"{name}, from the prior",
                "both read alike, %": coherence,
                "Fréchet": f"{found['distance']:.1f}",
                "Fréchet, real": f"{metrics['frechet']['real'][name]['distance']:.1f}",
            }

    return _rows(records, cells).fillna("")


def swaps(records: Sequence[Mapping]) -> pd.DataFrame:
    """`diagnosis.code_swaps` in per cent: a row for each direction and origin of z, a column for each h."""
    names = {
        "prior": "h: prior", "zero": "h: prior's mean", "same_digit": "h: same digit", "other_digit": "h: other digit",
        "digit_of_h": "read as h's digit",
    }  # fmt: skip

    def cells(record):
        for direction, by_code in record["metrics"]["code_swaps"].items():
            for where, by_style in by_code.items():
                shares = {names[style]: f"{100 * found['accuracy']:.1f}" for style, found in by_style.items()}
                yield {"direction": direction, "z of": where, **shares}

    return _rows(records, cells)


def describe(records: Sequence[Mapping]) -> pd.DataFrame:
    """What the records are: one row each, with data, length, machine and code. Says so if they are stand-in runs."""
    if not records:
        raise RecordError("there is no finished record; make one with: python -m qmvae_study run")
    if any(record["data"]["kind"] != "real" for record in records):
        print("STAND-IN DATA: these runs did not see MNIST and SVHN; the numbers say nothing about the paper.")
    for note in sorted({note for record in records for note in record["data"]["notes"]}):
        print("-", note)

    def cells(record):
        provenance, cost = record["provenance"], record.get("cost")  # a run that failed has no cost
        yield {
            "data": record["data"]["kind"],
            "steps": cost["steps"] if cost else record["status"],
            "minutes": round(cost["seconds"] / 60, 1) if cost else "",
            "on": provenance["device"],
            "commit": (provenance["commit"] or "none")[:8] + (" (changed)" if provenance["dirty"] else ""),
        }

    return _rows(records, cells)
