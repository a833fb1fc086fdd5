"""Records in, tables out: paper | by its harness and by ours, mean ± std | difference with interval | verdict.

The difference is ours minus the paper's, by the paper's harness where all records of a cell have it, else by ours; its
95 % interval is Welch's, with the paper's own standard deviation over five seeds. A cell gets a verdict, by `rules`,
only from paper-profile records on real data with at least LEAST_SEEDS seeds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from qmvae_core.names import TITLES
from qmvae_study import paper
from qmvae_study.evidence.records import OURS, PAPERS, Record, RecordError, Share
from qmvae_study.report import words
from qmvae_study.report.intervals import Interval, Says, Verdict
from qmvae_study.report.rules import LEAST_SEEDS, Difference, Question, answers, combined
from qmvae_study.rows import INSTEAD

NOT_APPLICABLE = "not applicable"
NO_RECORD = str(Verdict(Says.NONE, "no record"))
LONGER = "a longer run"  # the name in `to_show` of a second run of the main reading
Cells = Mapping[str, Mapping[str, paper.Reported | None]]  # model -> column -> what the paper says


def in_order(records: Sequence[Record]) -> list[Record]:
    """Records by profile, the paper's order of models, reading and seed: the order of every table and picture."""
    models = list(TITLES)
    return sorted(records, key=lambda r: (r.profile, models.index(r.model), r.reading, r.seed))


def called(group: Sequence[Record]) -> str:
    """What tables and pictures call finished records of one reading: its name in words, with marks where needed.

    The marks: "stalled" if the quadruplet loss never left its plateau (`Record.stalled`), with the number of seeds
    where it is not all of them; and the precision, if it is not float32.
    """
    stalled = sum(record.stalled for record in group)
    marks = ["stalled" if stalled == len(group) else f"{stalled} of {len(group)} stalled"] if stalled else []
    marks += [name for name in [group[0].precision] if name != "float32"]
    return words.reading(group[0].reading) + (f" ({', '.join(marks)})" if marks else "")


def cell_values(group: Sequence[Record], path: Sequence[str]) -> dict[str, dict[int, float]]:
    """Harness -> seed -> a cell in per cent, for the harnesses that have measured all of a group's records.

    That of the paper comes first where there is one. Empty for a cell that the model does not have.
    """
    there = any(record.applies(*path) for record in group)  # one without it beside others that have it is broken
    found = [record.by_judge(*path) for record in group] if there else []
    common = [judge for judge in (PAPERS, *found[0]) if all(judge in each for each in found)] if found else []
    return {judge: {r.seed: each[judge] for r, each in zip(group, found, strict=True)} for judge in common}


def row_verdicts(group: Sequence[Record]) -> dict[str, Verdict]:
    """Column -> the verdict on a group's cell, for each cell that the paper gives its model in either table.

    By the rule for numbers; where there is no verdict, it says why.
    """
    said = {column: each for column, each in paper.ROWS.get(group[0].model, {}).items() if each is not None}
    if not all(record.real for record in group):
        return dict.fromkeys(said, Verdict(Says.NONE, "stand-in data"))
    if group[0].profile != "paper":
        return dict.fromkeys(said, Verdict(Says.NONE, f"{group[0].profile} profile"))
    if len(group) < LEAST_SEEDS:
        return dict.fromkeys(said, Verdict(Says.NONE, f"fewer than {LEAST_SEEDS} seeds"))
    questions = {}
    for column, each in said.items():
        values = cell_values(group, paper.CELLS[column])
        by_judge = {judge: [Difference.to_reported(list(by.values()), each)] for judge, by in values.items()}
        questions[column] = Question(by_judge, equal=True)
    return {column: combined(by_judge) for column, by_judge in answers(questions, strict=False).items()}


def compare(records: Sequence[Record], reported: Cells, columns: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """One row for each model, reading, precision and column that the records cover, beside what the paper reports.

    records: of one profile or several; those that failed are left out. Every seed of a group must have the same config
    and data. "reading" is as `called`, so it says which runs are stalled. Raises RecordError if there is no finished
    record, if a group mixes configs or data, or if one seed is there twice.
    """
    done = [record for record in in_order(records) if record.done]
    if not done:
        raise RecordError("there is no finished record to make a table of; make one with: python -m qmvae_study run")
    groups: dict[tuple, list[Record]] = {}
    for record in done:
        groups.setdefault((record.profile, record.model, record.reading, record.precision), []).append(record)
    rows = []
    for (profile, model, reading, _), group in groups.items():
        _check_one_group(f"{profile} {model} {reading}", group)
        verdicts = row_verdicts(group)
        for column, path in columns.items():
            said = reported.get(model, {}).get(column)  # None for a model that the paper does not have
            row = {
                "model": group[0].title,
                "reading": called(group),
                "profile": profile,
                "data": group[0].data.kind,
                "column": column,
                "paper": said and str(said),
                PAPERS: None,
                "ours": NOT_APPLICABLE,
                "by single judges": None,
                "seeds": len(group),
                "difference": None,
                "95 % interval": None,
                "verdict": str(Verdict(Says.NONE, NOT_APPLICABLE)),
            }
            values = cell_values(group, path)
            if values:
                verdict = verdicts.get(column, Verdict(Says.NONE, "not reported"))
                row |= _compared(values, said) | {"verdict": spelled(verdict)}
            rows.append(row)
    return pd.DataFrame(rows)


def spelled(verdict: Verdict) -> str:
    """A verdict on a number, in the words of the tables."""
    said = {Says.HOLDS: "agrees", Says.FAILS: "below", Says.ABOVE: "above the paper", Says.DEPENDS: str(Says.DEPENDS)}
    return verdict.spelled(said)


def _compared(values: Mapping[str, Mapping[int, float]], said: paper.Reported | None) -> dict[str, str | None]:
    """The entries of a row that follow from our values (`cell_values`) and from what the paper says."""
    main = list(next(iter(values.values())).values())
    shown = {judge: Interval.spread(list(by_seed.values())) for judge, by_seed in values.items()}
    means = [found.centre for judge, found in shown.items() if judge != PAPERS]
    difference = said and Difference.to_reported(main, said)
    return {
        **{
            name: found.plus_minus() if found.n > 1 else f"{found.centre:.1f}"
            for name, found in ((PAPERS, shown.get(PAPERS)), ("ours", shown[OURS]))
            if found
        },
        "by single judges": f"{min(means):.1f} to {max(means):.1f}" if len(means) > 1 else None,
        "difference": said and f"{np.mean(main) - said.mean:+.1f}",
        "95 % interval": difference and difference.interval.ends(),
    }


def _check_one_group(name: str, group: Sequence[Record]) -> None:
    if len({record.config_hash for record in group}) > 1:
        raise RecordError(f"the records of {name} have different configs; run them anew")
    if len({record.data.content_hash for record in group}) > 1:
        raise RecordError(f"the records of {name} were made on different data; run them anew")
    for seed, count in Counter(record.seed for record in group).items():
        if count > 1:
            raise RecordError(f"the records of {name} hold seed {seed} twice; remove the copy")


def table1(records: Sequence[Record]) -> pd.DataFrame:
    """Table 1, cross generation: the shared code by its mean, the private code from the prior."""
    return compare(records, paper.TABLE1, paper.TABLE1_COLUMNS)


def table2(records: Sequence[Record]) -> pd.DataFrame:
    """Table 2, one linear classifier trained on joint codes."""
    return compare(records, paper.TABLE2, paper.TABLE2_COLUMNS)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """A table as a page shows it: without empty columns, and without the kind of data where all are real."""
    empty = [name for name in table if table[name].isna().all()]
    real = ["data"] if set(table["data"].dropna()) == {"real"} else []
    return table.drop(columns=empty + real).fillna("")


def with_missing_models(table: pd.DataFrame, reported: Cells) -> pd.DataFrame:
    """A table of `compare` in the paper's order of models, with a row for each cell that no record covers."""
    missing = [
        {"model": TITLES[model], "column": column, "verdict": NO_RECORD, "seeds": 0, "paper": said and str(said)}
        for model, row in reported.items() if TITLES[model] not in set(table["model"])
        for column, said in row.items()
    ]  # fmt: skip
    whole = pd.concat([table, pd.DataFrame(missing, columns=table.columns)]) if missing else table
    order = {name: place for place, name in enumerate(TITLES.values())}
    return whole.sort_values("model", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def beside(records: Sequence[Record], reported: Cells, columns: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The table as the paper prints it: a row for each model and reading, in each cell the paper's number and ours.

    records: of one profile. The cells are HTML of three lines (`DataFrame.to_html` with escape=False): the paper's
    number; ours, by the paper's harness where all runs of the row have it; and the verdict, where there is one. Where
    rows differ in their harness, it stands beside their names. Raises like `compare`.
    """
    rows: dict[str, dict[str, str]] = {}
    found = with_missing_models(compare(records, reported, columns), reported).fillna("").to_dict("records")
    by: dict[str, str] = {}
    for row in found:
        if row["seeds"]:
            by[row["reading"]] = PAPERS if row[PAPERS] else by.get(row["reading"], OURS)
    for row in found:
        name = f"{row['reading']}<br>{words.count(row['seeds'], 'seed')}" if row["seeds"] else row["model"]
        name += f"<br>{by[row['reading']]}" if row["seeds"] and len(set(by.values())) > 1 else ""
        ours = row[PAPERS] or row["ours"] or ("no run yet" if row["paper"] else NOT_APPLICABLE)
        said = row["verdict"] if not row["verdict"].startswith(str(Says.NONE)) else ""
        lines = [row["paper"] and f"paper {row['paper']}", f"<strong>{ours}</strong>", words.marked(said)]
        rows.setdefault(name, {})[row["column"]] = "<br>".join(line for line in lines if line)
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(columns))


def at_lengths(groups: Iterable[Sequence[Record]], reported: Cells, columns: Mapping[str, Sequence[str]]) -> str:
    """The tables of `beside` in HTML, one for each group of records of one profile, under its number of steps."""
    found = []
    for group in groups:
        steps = max(record.steps for record in group)
        found.append(f"<p><strong>{steps:,} steps</strong></p>{in_html(beside(group, reported, columns))}")
    return "".join(found)


def in_html(table: pd.DataFrame) -> str:
    """A table whose cells are HTML, such as that of `beside`, as HTML."""
    return table.to_html(escape=False, classes="beside")


def as_points(
    records: Sequence[Record], reported: Cells, columns: Mapping[str, Sequence[str]]
) -> tuple[dict[tuple[str, str], Interval | None], dict[tuple[str, str], Interval]]:
    """The same cells for a picture, in per cent: (the paper's, ours), each by the names of its column and its row."""
    values: dict[tuple[str, str], list[float]] = {}
    said: dict[tuple[str, str], Interval | None] = {}
    for record in in_order([r for r in records if r.done]):
        for column, path in columns.items():
            cell = column, f"{called([record])}\n{record.steps:,} steps"
            if record.applies(*path):
                values.setdefault(cell, []).append(record.share(*path).per_cent)
            given = reported.get(record.model, {}).get(column)
            said[cell] = given and Interval.around(given.mean, given.std, paper.SEEDS)
    return said, {cell: Interval.spread(found) for cell, found in values.items()}


def rows_of(records: Sequence[Record], cells: Callable[[Record], Iterable[Mapping]]) -> pd.DataFrame:
    """A table with the rows that `cells` gives for each record, each led by what the record is."""
    named = (
        {"run": called([r]) if r.done else words.reading(r.reading), "profile": r.profile, "seed": r.seed} | row
        for r in records
        for row in cells(r)
    )
    return pd.DataFrame(named)


def _per_cent(share: Share) -> str:
    return Interval(*(100 * each for each in share[:3]), share.n).in_full()


def cross_generation_by_code(records: Sequence[Record]) -> pd.DataFrame:
    """Cross generation with the mean of q(z|x) and with a draw from it, each with the interval over its images."""

    def cells(record):
        for direction in record.directions:
            found = {code: record.accuracy(direction, code) for code in ("mean", "sample")}
            yield {"direction": direction, "n": found["mean"].n} | {k: _per_cent(v) for k, v in found.items()}

    return rows_of(records, cells)


def oracle_accuracies(records: Sequence[Record]) -> pd.DataFrame:
    """The judges' own accuracy on real test digits, in per cent."""
    return rows_of(records, lambda record: [{name: f"{100 * v:.2f}" for name, v in record.oracle.items()}])


def leakage_table(records: Sequence[Record]) -> pd.DataFrame:
    """What probes read of the digit in the private codes, and joint coherence from the prior, in per cent."""

    def cells(record):
        row = {
            f"{name}, {probe} probe": f"{share.per_cent:.1f}"
            for name, probes in record.leakage.items()
            for probe, share in probes.items()
        }
        yield {**row, "joint coherence": _per_cent(record.joint_coherence)}

    return rows_of(records, cells).fillna("no private code")


def probe_gaps(records: Sequence[Record]) -> pd.DataFrame:
    """How far the probe's accuracy on each modality's codes is from that on joint codes, in points."""

    def cells(record):
        if not record.applies("probe", "joint"):
            yield {f"{name} - joint": NOT_APPLICABLE for name in ("mnist", "svhn")}
            return
        joint = record.share("probe", "joint").per_cent
        yield {f"{k} - joint": f"{record.share('probe', k).per_cent - joint:+.1f}" for k in ("mnist", "svhn")}

    return rows_of(records, cells)


def joint_codes(records: Sequence[Record]) -> pd.DataFrame:
    """`diagnosis.joint_code` in per cent: a row of training pairs and one of test pairs for each record with it."""

    def cells(record):
        measured = record.joint_code
        for pairs, split in (("train", "train"), ("test", "judged")) if measured else ():
            found = measured[split]
            row = {"pairs": pairs} | {name: f"{share.per_cent:.1f}" for name, share in found.alone.items()}
            row["joint"] = f"{found.joint.per_cent:.1f}"
            for name, share in found.only.items():
                row[f"joint, only {name} right"] = f"{share.per_cent:.0f} (of {share.n:,})"
            yield row | {f"precision, {name}": f"{value:.1f}" for name, value in found.precision.items()}

    return rows_of(records, cells).fillna("")


def by_profile(records: Sequence[Record]) -> list[list[Record]]:
    """The finished records in order, a list for each profile, that of the longest runs first.

    Stand-in runs are left out where there are runs on real data. Raises RecordError if no record is finished.
    """
    done = [r for r in records if r.done]
    if not done:
        raise RecordError("there is no finished record; make one with: python -m qmvae_study run")
    groups: dict[str, list[Record]] = {}
    for record in in_order([r for r in done if r.real] or done):
        groups.setdefault(record.profile, []).append(record)
    return sorted(groups.values(), key=lambda group: -max(record.steps for record in group))


def finished(records: Sequence[Record]) -> list[Record]:
    """The finished records of every profile, the longest runs first. Raises like `by_profile`."""
    return [record for group in by_profile(records) for record in group]


def longest(records: Sequence[Record]) -> list[Record]:
    """The finished records of the profile with the most training steps. Raises like `by_profile`."""
    return by_profile(records)[0]


def widest(records: Sequence[Record]) -> list[Record]:
    """The finished records of the profile with the most models, to compare most with; of several, the longest.

    Raises like `by_profile`.
    """
    return max(by_profile(records), key=lambda group: len({record.model for record in group}))


def row_name(reading: str) -> str:
    """The name of the row that a reading stands in, its own or that in whose place it stands (`rows.INSTEAD`)."""
    return next((name for name, instead in INSTEAD.items() if instead == reading), reading)


def first_seeds(records: Sequence[Record]) -> list[Record]:
    """The record of the lowest seed of each profile, model and reading, in a stable order."""
    found: dict[tuple, Record] = {}
    for record in in_order(records):
        found.setdefault((record.profile, record.model, record.reading), record)
    return list(found.values())


def to_show(records: Sequence[Record], reading: str) -> dict[str, Record]:
    """Name of a reading -> the record that pictures show of it: the lowest seed of the widest profile.

    Where a longer profile has a run of `reading`, that is added under LONGER. Where no run has `reading`, the first of
    another stands in its place. Raises like `by_profile`.
    """
    shown = {row_name(record.reading): record for record in first_seeds(widest(records))}
    own = shown.setdefault(reading, next(iter(shown.values())))
    longer = longest([record for record in records if record.reading == own.reading])[0]
    if longer.profile != own.profile:
        shown[LONGER] = longer
    return shown


def title(record: Record, source: str, target: str) -> str:
    """The title of a picture: reading, number of steps and direction."""
    return f"{called([record])}, {record.steps:,} steps, {words.direction(f'{source}->{target}')}"


def panel_shares(records: Sequence[Record]) -> pd.DataFrame:
    """The share of a Figure 3 panel's images read as their condition's digit, beside the share over all test images."""

    def cells(record):
        for direction in record.directions:
            right = record.panel("cross_generation", *direction.split("->")).right
            over_all = record.accuracy(direction).per_cent
            yield {"direction": direction, "panel, %": f"{100 * right:.0f}", "all, %": f"{over_all:.1f}"}

    return rows_of(records, cells)


def beyond(records: Sequence[Record]) -> pd.DataFrame:
    """What accuracy leaves out: Fréchet distances and diversity (`diagnosis`), of each direction and from the prior."""

    def distances(record, kind, name, modality):
        found = {"Fréchet": record.frechet(kind, name), "Fréchet, real": record.frechet("real", modality)}
        return {column: f"{value:.1f}" for column, value in found.items()}

    def cells(record):
        for direction in record.directions:
            yield {
                "images": direction,
                "read rightly, %": f"{record.accuracy(direction).per_cent:.1f}",
                **distances(record, "cross_generation", direction, direction.split("->")[1]),
                "diversity": f"{record.diversity(direction):.2f}",
            }
        coherence = _per_cent(record.joint_coherence)
        for name in record.oracle:
            alike = {"images": f"{name}, from the prior", "both read alike, %": coherence}
            yield alike | distances(record, "prior", name, name)

    return rows_of(records, cells).fillna("")


def swaps(records: Sequence[Record]) -> pd.DataFrame:
    """`diagnosis.code_swaps` in per cent: a row for each direction and origin of z, a column for each h."""
    names = {
        "prior": "h: prior", "zero": "h: prior's mean", "same_digit": "h: same digit", "other_digit": "h: other digit",
        "digit_of_h": "read as h's digit",
    }  # fmt: skip

    def cells(record):
        for direction, by_code in record.code_swaps.items():
            for where, by_style in by_code.items():
                shares = {
                    column: f"{by_style[style].per_cent:.1f}" for style, column in names.items() if style in by_style
                }
                yield {"direction": direction, "z of": where, **shares}

    return rows_of(records, cells)


def describe(records: Sequence[Record]) -> pd.DataFrame:
    """What the records are: one row each, with data, length, machine and code. Says so if they are stand-in runs."""
    if not records:
        raise RecordError("there is no finished record; make one with: python -m qmvae_study run")
    if not all(record.real for record in records):
        print("STAND-IN DATA: these runs did not see MNIST and SVHN; the numbers say nothing about the paper.")
    for note in sorted({note for record in records for note in record.data.notes}):
        print("-", note)

    def cells(record):
        provenance = record.provenance
        yield {
            "data": record.data.kind,
            "steps": record.steps or record.status,  # a run that failed has no steps and no minutes
            "minutes": round(record.seconds / 60, 1) if record.steps else "",
            "on": provenance.device,
            "commit": provenance.short_commit + (" (changed)" if provenance.dirty else ""),
        }

    return rows_of(records, cells)
