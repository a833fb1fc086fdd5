"""What chapter B5 finds: what each network reaches, which weights were kept, the verdicts; and its figure."""

import itertools

import numpy as np
import pandas as pd

from qmvae_neighbours.experiments import Found
from qmvae_neighbours.report import claims, holds, listed
from qmvae_neighbours.runoff.data import RIVER
from qmvae_study.report import figures
from qmvae_study.report.intervals import Interval, Says

DEEP, PLAIN, LONG, SIMPLE = "LSTM, 2 layers, short", "LSTM, 1 layer, short", "LSTM, 2 layers, long", "4-4-1"
RECURRENT = "RNN, short"
COLUMNS = ["the thesis concludes", "its numbers, per cent", "ours, per cent", "verdict"]
NAMES = {"m": "m", "s": "s", "largest": "MAX+", "smallest": "MAX-", "range": "r"}  # those of the thesis
THESIS = pd.DataFrame({  # tables 2-3 and 2-4
    ("Yichang", PLAIN): [0.44, 8.96, 26.37, -30.26, 56.63], ("Yichang", DEEP): [0.48, 8.95, 24.77, -30.14, 54.91],
    ("Wanxian", PLAIN): [0.56, 8.99, 28.47, -25.57, 54.04], ("Wanxian", DEEP): [0.55, 9.00, 27.37, -25.52, 52.89],
    ("Fengjie", PLAIN): [0.80, 7.39, 15.48, -29.45, 44.93], ("Fengjie", DEEP): [0.46, 7.14, 16.79, -30.29, 46.08],
    ("Cuntan", PLAIN): [0.33, 13.36, 36.57, -38.42, 74.99], ("Cuntan", DEEP): [0.30, 13.40, 36.46, -38.53, 74.99],
}, index=NAMES.values()).T  # fmt: skip


def in_floods(found: Found) -> pd.DataFrame:
    """The indices of each network, means over flood months and seeds, and its skill over all test days, in per cent."""
    months = {name: [month for seed in seeds.values() for month in seed.values()]
              for name, seeds in found.metrics["indices"].items()}  # fmt: skip
    table = pd.DataFrame({name: pd.DataFrame(each)[list(NAMES)].mean() for name, each in months.items()}).T
    for title, measure in {"skill": "mean", "lowest skill": "min", "highest skill": "max"}.items():
        table[title] = 100 * pd.DataFrame(found.metrics["skill"]).agg(measure)
    return table.rename(columns=NAMES).rename_axis(columns="per cent")


def kept(found: Found) -> pd.DataFrame:
    """Which weights each training kept, and how they forecast the validation half-year."""
    rows = {(name, f"seed {seed}"): [f"{row['step']:,}", f"{row['validation error']:.5f}"]
            for name, seeds in found.metrics["kept"].items() for seed, row in seeds.items()}  # fmt: skip
    return pd.DataFrame(rows, index=["step kept", "validation error"]).T


def of_stations(stations: Found) -> pd.DataFrame:
    """The indices over all test days and the skill of each network and of persistence at each of the four gauges."""
    rows = {(gauge, name): of | {"skill": 100 * judged["skill"][name][seed]}
            for gauge, judged in sorted(stations.metrics.items()) if gauge != RIVER
            for name, seeds in judged["indices of all test days"].items() for seed, of in seeds.items()}  # fmt: skip
    return pd.DataFrame(rows).T[[*NAMES, "skill"]].rename(columns=NAMES)


def bettered(table: pd.DataFrame) -> pd.Series:
    """In how many of the five indices the network of two layers is nearer to zero than that of one, at each station."""
    sizes = table[[*NAMES.values()]].abs()
    return (sizes.xs(DEEP, level=1) < sizes.xs(PLAIN, level=1)).sum(axis=1)


def station_verdicts(stations: Found) -> pd.DataFrame:
    """What the thesis concludes from four stations, beside our four gauges."""
    table = of_stations(stations).drop("persistence", level=1)
    skill, m, better = table["skill"].unstack(), table["m"].abs(), bettered(table)
    apart = Interval.of_mean(skill[DEEP] - skill[PLAIN])
    rows = [
        ("two layers better one in most indices, at three of four stations or more",
         f"{', '.join(map(str, bettered(THESIS)))} of 5",
         f"{', '.join(map(str, better))} of 5; skill {apart.in_full('+.1f')} points more",
         holds((better >= 3).sum() >= 3, apart.against() is Says.ABOVE, otherwise="not seen")),
        ("m is very small at all stations", "0.30 to 0.80", f"{m.min():.1f} to {m.max():.1f}",
         holds((m < 1).all(), otherwise="not seen")),
    ]  # fmt: skip
    return claims(rows, COLUMNS)


def months(found: Found) -> list[str]:
    """The flood months, by their date."""
    return sorted({key.split("/")[0] for key in found.tensors})


def sides(found: Found) -> pd.DataFrame:
    """Root mean squared error of two networks where runoff rises and where it falls, in mm a day, first seed."""
    table = {}
    for month, name in itertools.product(months(found), (LONG, SIMPLE)):
        observed, made = (found.tensors[f"{month}/{which}"] for which in ("observed", name))
        rises, squares = observed.diff() > 0, (made - observed)[1:].square()
        for side, days in (("rises", rises), ("falls", ~rises)):
            of = f"root mean squared error where runoff {side}"
            table.setdefault((month, name), {})[of] = float(squares[days].mean().sqrt())
    return pd.DataFrame(table).T.round(1)


def verdicts(found: Found) -> pd.DataFrame:
    """What the thesis concludes, beside our numbers."""
    skills = {name: list(seeds.values()) for name, seeds in found.metrics["skill"].items()}
    floods, two, four = in_floods(found), ["s", "r"], [*NAMES.values()][1:]
    judged = found.metrics["indices of all test days"]  # of each seed; their means are compared
    days = pd.DataFrame({name: pd.DataFrame(of.values()).mean() for name, of in judged.items()}).T.rename(columns=NAMES)

    def told(judged: pd.DataFrame, name: str, named: list[str]) -> str:
        return ", ".join(f"{index} {judged.loc[name, index]:.1f}" for index in named)

    def row(claim: str, said: str, better: str, worse: str, judged: pd.DataFrame, named: list[str]) -> tuple:
        smaller = (judged.loc[better, named].abs() < judged.loc[worse, named].abs()).all()
        apart = min(skills[better]) > max(skills[worse])
        ours = f"{told(judged, better, named)}; {worse}: {told(judged, worse, named)}"
        return claim, said, ours, holds(smaller and apart, otherwise="not seen")

    rows = [
        row("a longer history betters s and r", "s 6.10 to 6.00, r 28.33 to 28.32", LONG, DEEP, floods, two),
        row("the deep LSTM betters 4-4-1 in s and r", "s 6.10, r 28.33; 4-4-1: 7.47, 35.75", DEEP, SIMPLE, floods, two),
        row("two layers better one in s, MAX+, MAX- and r (Yichang, all days)",
            "s 8.95, MAX+ 24.77, MAX- -30.14, r 54.91; one layer: 8.96, 26.37, -30.26, 56.63", DEEP, PLAIN, days, four),
        ("m is very small everywhere (all days)", "0.30 to 0.80",
         f"{told(days, DEEP, ['m'])}; {PLAIN}: {told(days, PLAIN, ['m'])}",
         holds((days.loc[[DEEP, PLAIN], "m"].abs() < 1).all(), otherwise="not seen")),
    ]  # fmt: skip
    if RECURRENT in skills:
        rows.append(row("gates better the plain network in s and r", "no number", PLAIN, RECURRENT, floods, two))
    return claims(rows, COLUMNS)


# Figures


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
