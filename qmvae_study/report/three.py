"""Three modalities: what the runs on MNIST-SVHN-Text say. Claims and rule were written before the first of them.

The claims are our own, and so of runs of one length, that of the profile `text`. By the rules of the book (`rules`): a
claim *holds* where a one-sided t-test on paired seeds says so for each of its differences, and *fails* where the
contrary test does for one of them, both by Holm over all of CLAIMS, whether their runs are there or not. All runs that
are compared must be on real data, of LEAST_SEEDS seeds or more, and none of them stalled; else the claim is
*undecided*, and says for want of what. Codes are by the reading's `test_code`; an accuracy from a subset is the mean
over all modalities that are not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from qmvae_core.names import BEST, TITLES
from qmvae_study.evidence.folder import evidence_folder
from qmvae_study.evidence.records import OURS, Record
from qmvae_study.report import figures, pages, tables, words
from qmvae_study.report.claims import Comparison, paired, question, runs_of
from qmvae_study.report.intervals import Interval, Says, Verdict
from qmvae_study.report.rules import LEAST_SEEDS, Question, answers, combined
from qmvae_study.rows import INCOMPLETE, TEXT_RIVALS, WITH_TEXT, WITHOUT_LOSS

MODALITIES = ("mnist", "svhn", "text")
SUBSETS = tuple("+".join(names) for size in (1, 2) for names in combinations(MODALITIES, size))
DIRECTIONS = tuple(
    f"{subset}->{target}" for target in MODALITIES for subset in SUBSETS if target not in subset.split("+")
)
SEEDS = 3  # planned for each row
NOT_RUN = "not run yet"
Measure = Callable[[Record], float]  # in per cent


def open(parameters: Mapping[str, object]) -> pages.Page:
    """The page of the chapter, as `pages.open`, and without any record where the evidence folder has none yet."""
    pages.check(parameters)
    folder = evidence_folder(parameters["evidence"])
    return pages.Page(folder, pages.load(folder) if (folder / "runs").is_dir() else [])


def own(records: Iterable[Record]) -> str:
    """The reading of Q-MVAE that was run, without the changes that other rows have; BEST where none was."""
    changes = tuple(row.format("") for row in (WITHOUT_LOSS, INCOMPLETE))
    found = (r.reading for r in tables.in_order(list(records)) if r.model == "qmvae")
    return next((name for name in found if not name.endswith(changes)), BEST)


def rows(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The planned readings in their order, and the finished runs of each, by seed."""
    reading = own(records)
    names = [reading + name.removeprefix(BEST) if name.startswith(BEST) else name for name in WITH_TEXT]
    return {name: sorted(runs_of(records, name), key=lambda record: record.seed) for name in names}


def coherence(record: Record, direction: str) -> float:
    """The share of observations generated in a direction, "mnist+svhn->text", that are read rightly, in per cent."""
    return record.share("generation_by_subset", direction, record.setting("model", "test_code")).per_cent


def from_subset(subset: str) -> Measure:
    """`coherence` from a subset, the mean over the modalities that are not in it."""
    ways = [way for way in DIRECTIONS if way.startswith(f"{subset}->")]
    return lambda record: float(np.mean([coherence(record, way) for way in ways]))


def overall(record: Record) -> float:
    """The mean `coherence` of all directions."""
    return float(np.mean([coherence(record, way) for way in DIRECTIONS]))


def joint(record: Record) -> float:
    """The share of triples from the prior in which all three judges read one digit, in per cent."""
    return record.joint_coherence.per_cent


# Claims


class Claim(NamedTuple):
    """key: its name. says: in words. compare: (records, reading of Q-MVAE) -> comparisons, all of which must hold."""

    key: str
    says: str
    compare: Callable[[Sequence[Record], str], list[Comparison]]


def _over(records: Sequence[Record], names: Sequence[str], measures: Sequence[Measure], beside: str) -> Comparison:
    """One row over another, or over itself by another measure, on the seeds that both have."""
    groups = [runs_of(records, name) for name in names]
    by_seed = [{r.seed: m(r) for r in group} for group, m in zip(groups, measures, strict=True)]
    values = paired(*({OURS: each} for each in by_seed))
    used = [record for group in groups for record in group if record.seed in values.get(OURS, {})]
    lacks = list(dict.fromkeys(name for name, group in zip(names, groups, strict=True) if not group))
    failed = sum(not record.done and record.reading in names for record in records)
    return Comparison(beside, values, used, None, lacks, failed)


def _more(target: str) -> Claim:
    pair = next(way for way in DIRECTIONS if way.endswith(f"->{target}") and "+" in way)
    singles = [way for way in DIRECTIONS if way.endswith(f"->{target}") and "+" not in way]

    def compare(records: Sequence[Record], reading: str) -> list[Comparison]:
        measures = [[lambda record, way=way: coherence(record, way) for way in (pair, each)] for each in singles]
        return [
            _over(records, (reading, reading), each, f"over {words.direction(way)}")
            for each, way in zip(measures, singles, strict=True)
        ]

    says = f"Q-MVAE: {words.direction(pair)} is more coherent than {' and '.join(map(words.direction, singles))}"
    return Claim(f"more-into-{target}", says, compare)


def _above(key: str, title: str, rival: str, measures: Mapping[str, Measure]) -> Claim:
    def compare(records: Sequence[Record], reading: str) -> list[Comparison]:
        names = reading, rival.format(reading)
        return [
            _over(records, names, (measure, measure), f"over {words.reading(names[1])}, {what}")
            for what, measure in measures.items()
        ]

    return Claim(key, title, compare)


RIVALS = {"without-loss": WITHOUT_LOSS} | {name: name for name in TEXT_RIVALS}
CALLED = {"without-loss": "itself without the loss", **TITLES}
FROM_PRIOR = {"from the prior": joint}
FROM_EACH = {f"from {words.direction(subset)}": from_subset(subset) for subset in SUBSETS}
CLAIMS = (
    *map(_more, MODALITIES),
    *(
        _above(f"above-{key}", f"Q-MVAE is above {CALLED[key]} from every subset", rival, FROM_EACH)
        for key, rival in RIVALS.items()
    ),
    *(
        _above(f"joint-{key}", f"Q-MVAE's triples agree more often than those of {CALLED[key]}", rival, FROM_PRIOR)
        for key, rival in RIVALS.items()
    ),
    _above("missing-costs", "Half of the pairs incomplete in training cost Q-MVAE coherence", INCOMPLETE,
           {"all directions": overall}),
)  # fmt: skip


def findings(records: Sequence[Record]) -> dict[str, Verdict]:
    """Key of each claim -> its verdict, by the rule of this module, with the numbers behind it."""
    reading = own(records)
    compared = {claim.key: claim.compare(records, reading) for claim in CLAIMS}
    wants = {key: _want(comparisons) for key, comparisons in compared.items()}
    family = {key: Question({}) if wants[key] else question(comparisons) for key, comparisons in compared.items()}
    found = {}
    for key, by_judge in answers(family, strict=True).items():
        says = combined(by_judge).says
        why = wants[key] or ("for want of more seeds" if says is Says.UNDECIDED else "")
        evidence = "; ".join(map(str, compared[key]))
        found[key] = Verdict(says, why, evidence, complete=not wants[key])
    return found


def _want(comparisons: Sequence[Comparison]) -> str:
    """Why nothing can be tested yet; empty where it can."""
    used = [record for each in comparisons for record in each.used]
    if lacking := list(dict.fromkeys(name for each in comparisons for name in each.lacks)):
        return f"for want of runs of {', '.join(map(words.reading, lacking))}"
    if not all(record.real for record in used):
        return "for want of runs on real data"
    if (least := min(each.seeds for each in comparisons)) < LEAST_SEEDS:
        return f"for want of seeds, {least} of {LEAST_SEEDS}"
    stalled = sorted({words.reading(record.reading) for record in used if record.stalled})
    return f"since {', '.join(stalled)} stalled" if stalled else ""


# What the chapter shows


def ledger(records: Sequence[Record]) -> pd.DataFrame:
    """The claims with their verdicts and the numbers behind them."""
    found = findings(records)
    shown = [
        {"claim": claim.says, "verdict": str(found[claim.key]), "our records": found[claim.key].evidence}
        for claim in CLAIMS
    ]
    return pd.DataFrame(shown).set_index("claim").rename_axis(None)


def answer(records: Sequence[Record]) -> str:
    """The answer in Markdown: how many of the planned runs are there, and what they say to each claim."""
    done = {name: len(group) for name, group in rows(records).items()}
    planned = SEEDS * len(done)
    if not any(done.values()):
        return f"**The runs of this chapter are {NOT_RUN}** (none of {planned}), so nothing is claimed."
    missing = [f"{words.reading(name)} ({count} of {SEEDS})" for name, count in done.items() if count < SEEDS]
    counts = f"{sum(done.values())} of {planned} runs are done" + (
        f"; {NOT_RUN}: {', '.join(missing)}" if missing else ""
    )
    found = findings(records)
    return "\n".join([f"{counts}.", "", *(f"- {claim.says}: **{found[claim.key]}**." for claim in CLAIMS)])


def _cells(records: Sequence[Record], measures: Mapping[str, Measure]) -> pd.DataFrame:
    """A row for each measure and a column for each planned reading: mean ± standard deviation over seeds."""
    groups = rows(records)

    def cell(group: Sequence[Record], measure: Measure) -> str:
        spread = Interval.spread([measure(record) for record in group]) if group else None
        return NOT_RUN if spread is None else spread.plus_minus() if spread.n > 1 else f"{spread.centre:.1f}"

    return pd.DataFrame(
        {
            tables.called(group) if group else words.reading(name): {
                what: cell(group, measure) for what, measure in measures.items()
            }
            for name, group in groups.items()
        }
    )


def generation(records: Sequence[Record]) -> pd.DataFrame:
    """Coherence of each direction and from the prior, in per cent."""
    ways = {words.direction(way): (lambda record, way=way: coherence(record, way)) for way in DIRECTIONS}
    return _cells(records, {**ways, "all three from the prior": joint})


def probes(records: Sequence[Record]) -> pd.DataFrame:
    """One linear classifier, trained on codes of all three modalities, on codes of each subset, in per cent."""
    names = {**{subset: words.direction(subset) for subset in SUBSETS}, "joint": "all three"}
    measures = {
        title: (lambda record, name=name: record.share("probe_by_subset", name).per_cent)
        for name, title in names.items()
    }
    return _cells(records, measures)


def triples(page: pages.Page, reading: str, given: str):
    """The panel of triples of a reading's lowest seed, or a sentence where there is none.

    given: "prior", or a subset such as "mnist+text", whose observations are shown and not generated. A text that does
    not name the digit has a cross.
    """
    group = rows(page.records).get(reading)
    if not group:
        return f"{words.reading(reading)}: {NOT_RUN}."
    panel, images = page.images(group[0], "triples", given)
    small = np.pad(images["mnist"], ((0, 0), (0, 0), (0, 0), (2, 2), (2, 2))).repeat(3, axis=2)
    notes = np.asarray(panel.read)
    wrong = notes != np.asarray(panel.digits)
    made = [place for place, name in enumerate(MODALITIES) if name not in given.split("+")]
    right = f"{int((~wrong[made]).sum())} of {wrong[made].size} generated read as the digit"
    if given == "prior":
        right = f"{int((~wrong).all(axis=0).sum())} of {wrong.shape[1]} read as one digit"
    labels = [words.MODALITIES[name] + (" (given)" if name in given.split("+") else "") for name in MODALITIES[:2]]
    title = f"{tables.called(group)}, {'from the prior' if given == 'prior' else f'from {words.direction(given)}'}"
    texts = [
        (text.strip() or "(blank)") + (" ✗" if other else "") for text, other in zip(panel.texts, wrong[2], strict=True)
    ]
    alt = f"{title}: ten triples, an image of MNIST, one of SVHN and a text each; {right}. Texts: {', '.join(texts)}."
    stack = np.concatenate([small, images["svhn"]])
    return figures.image_grid(stack, labels, texts, notes[:2].astype(str), f"{title}: {right}", wrong[:2], alt)
