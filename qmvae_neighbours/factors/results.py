"""What chapter B4 finds: the factors of a code, what is kept of them, Q-MVAE's codes, verdicts; and its figures."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from qmvae_neighbours.experiments import Found
from qmvae_neighbours.factors.experiment import SHARES
from qmvae_neighbours.factors.model import error_bound, fano_error, gaussian_distortion, weak_fano_error
from qmvae_neighbours.report import BESIDE, INCOMPARABLE, claims, holds, images, listed
from qmvae_study.report import figures
from qmvae_study.report.intervals import Interval, Says

COLUMNS = ["claim", "thesis", "ours", "verdict", "rule or reason"]

THESIS = pd.DataFrame({  # table 3-2
    "share": [100, 20, 10, 7, 5, 3, 1, 0], "information": [24.3, 24.3, 24.3, 19.6, 16.5, 10.6, 5.8, 0.0],
    "error": [5.6, 5.6, 5.6, 13.4, 15.0, 27.6, 44.4, 71.7],
})  # fmt: skip
THESIS_EEG = pd.DataFrame({  # table 3-3
    "share": [100, 50, 10, 7, 5, 3, 1, 0], "information": [53.8, 53.5, 38.3, 28.0, 22.5, 13.5, 7.0, 0.0],
    "accuracy": [0.53, 0.52, 0.46, 0.32, 0.34, 0.29, 0.30, 0.23],
})  # fmt: skip
INDICATORS = {
    "information": "estimate of Algorithm 3-1", "mixture": "information by quadrature",
    "variance": "total variance", "variance_of_mean": "variance of the mean",
}  # fmt: skip


def of_factors(found: Found) -> pd.DataFrame:
    """All that is measured of each factor of the VAE, a row a factor."""
    return pd.DataFrame(found.metrics["vae"]["factors"])


def ranked(found: Found) -> pd.DataFrame:
    """The factors by their estimated information, largest first."""
    return of_factors(found).sort_values("information", ascending=False, kind="stable").reset_index(drop=True)


def influential(found: Found) -> set[int]:
    """The factors without which the squared error grows by more than a thousandth of that of the mean image."""
    removed = of_factors(found)["removed"]
    return set(removed.index[removed > 1e-3 * found.metrics["mean_image_error"]])


def indicators(found: Found) -> pd.DataFrame:
    """How each indicator ranks the factors, and how many of the influential ones it has among as many of its best."""
    factors, wanted = of_factors(found), influential(found)
    table = pd.DataFrame(index=list(INDICATORS.values()))
    table["rank correlation"] = [found.metrics["vae"]["ranks"][name] for name in INDICATORS]
    table["found"] = [len(wanted & set(factors[name].nlargest(len(wanted)).index)) for name in INDICATORS]
    return table


def of_shares(found: Found) -> pd.DataFrame:
    """What is left of information, image and label where a share of the factors is kept, a row a share."""
    return pd.DataFrame(found.metrics["vae"]["shares"])


def kept(found: Found) -> pd.DataFrame:
    """`of_shares` beside table 3-2 of the thesis."""
    columns = {
        "share": "kept, %", "kept": "factors", "information": "information", "mixture": "by quadrature",
        "error": "error", "error_of_sample": "error of a draw", "accuracy": "label read right",
    }  # fmt: skip
    table = of_shares(found)[list(columns)].merge(THESIS, on="share", suffixes=("", ", thesis"))
    table["accuracy"] = [f"{right:.0%}" if n else "" for right, n in zip(table["accuracy"], table["kept"], strict=True)]
    return table.rename(columns=columns).round(1)


def eigenvalues(found: Found) -> np.ndarray:
    """Variances of the test images along their principal directions, largest first, without those of nothing."""
    values = found.tensors["eigenvalues"].double().numpy()
    return values[values > 1e-6 * values[0]]


def single(found: Found) -> pd.DataFrame:
    """Accuracy of a linear classifier on one factor, for the best thirty, beside what is measured of them."""
    return pd.DataFrame(found.metrics["vae"]["single"]).join(of_factors(found), on="factor")


def qmvae(found: Found) -> pd.DataFrame:
    """Each code of Q-MVAE's readings: nats, summed over its factors, and the label's part of them."""
    sums = {"divergence": "divergence", "estimate": "information", "by quadrature": "mixture", "of the label": "label"}
    rows = {
        (model, code): {"factors": len(values["mixture"])}
        | {name: sum(values[key]) for name, key in sums.items()}
        | {"total correlation": values["total_correlation"]}
        for model, codes in found.metrics["qmvae"].items()
        for code, values in sorted(codes.items(), reverse=True)
    }
    table = pd.DataFrame(rows).T.astype({"factors": int}).rename_axis(["model", "code"])
    share = 100 * table["of the label"] / table["by quadrature"]
    table["label's share of the sum"] = share.map("{:.0f} %".format).where(table["by quadrature"] > 0.05, "")
    return table.round(2)


def verdicts(found: Found) -> pd.DataFrame:
    """What the thesis claims, beside our numbers."""
    ours, factors = of_shares(found), of_factors(found)
    hundred, twenty, ten = (ours[ours["share"] == share].iloc[0] for share in (100, 20, 10))
    found_of = indicators(found)["found"] / max(len(influential(found)), 1)
    best, _, total, of_mean = found_of
    loose = factors[["information", "divergence"]].sum() - factors["mixture"].sum()

    def kept_all(row: pd.Series) -> str:
        return holds(row["information"] > 0.98 * hundred["information"] and row["error"] < 1.05 * hundred["error"])

    def told(row: pd.Series) -> str:
        nats, error = (f"{row[key]:.1f} of {hundred[key]:.1f}" for key in ("information", "error"))
        return f"{nats} nats, error {error}"

    rows = [
        ("10 % of the factors hold all nats", "24.3 of 24.3 nats, error 5.6 of 5.6", told(ten), kept_all(ten),
         "98 % of the nats, error within 5 %; more are in use here"),
        ("20 % of the factors hold all nats", "the same", told(twenty), kept_all(twenty), "the same"),
        ("fewer nats, larger error", "5.6 to 71.7", f"{ours['error'].min():.1f} to {ours['error'].max():.1f}",
         holds((ours["error"].diff()[1:] > -0.05).all()), "no row more than 0.05 below the one before"),
        ("fewer factors, hardly less for the label", "EEG: 0.52 of 0.53 with 50 %",
         f"{twenty['accuracy']:.0%} of labels right with 20 %, {hundred['accuracy']:.0%} with all",
         holds(twenty["accuracy"] > hundred["accuracy"] - 0.02), "at most 2 points lost by a linear classifier"),
        ("the estimate is much tighter than the divergence", "no number",
         f"above the quadrature: {loose['information']:.2f} nats of the divergence's {loose['divergence']:.2f}",
         holds(loose["information"] < 0.5 * loose["divergence"]), "less than half as far; sums over factors"),
        ("24.3 nats and an error of 5.6 in all", "24.3, 5.6", f"{hundred['information']:.1f}, {hundred['error']:.1f}",
         INCOMPARABLE, "value of the noise's scale not given; other network, shorter training"),
        ("information finds the influential factors", "by eye", f"{best:.0%}", holds(best >= 0.9),
         "nine tenths of them found"),
        ("the total variance misses influential factors", "by eye", f"{total:.0%}", holds(total < 0.9),
         "fewer than nine tenths"),
        ("the variance of the mean misses them too", "not said which", f"{of_mean:.0%}", holds(of_mean < 0.9),
         "fewer than nine tenths"),
    ]  # fmt: skip
    return claims(rows, COLUMNS)


def by_share(eeg: Found, measure: str) -> pd.DataFrame:
    """A measure of each share of the factors on each test block of the EEG, mean over the validation blocks."""
    rows = [{"test": fold["test"], **row} for fold in eeg.metrics["folds"] for row in fold["shares"]]
    return pd.DataFrame(rows).pivot_table(measure, "test", "share", sort=False)


def of_eeg(eeg: Found) -> pd.DataFrame:
    """Table 3-3 on our EEG beside the thesis': means over the folds, and the control's accuracy."""
    columns = {"kept": "factors", "information": "information", "mixture": "by quadrature", "balanced": "balanced"}
    table = pd.DataFrame({title: by_share(eeg, measure).mean() for measure, title in columns.items()})
    table["lowest block"], table["highest"] = by_share(eeg, "balanced").min(), by_share(eeg, "balanced").max()
    table["control"] = [row["balanced"] for row in eeg.metrics["control"]]
    return table.join(THESIS_EEG.set_index("share").add_suffix(", thesis")).round(2).rename_axis("kept, %")


def eeg_verdicts(eeg: Found) -> pd.DataFrame:
    """What the thesis claims of its EEG, beside our numbers."""
    nats, right = by_share(eeg, "information").mean(), 100 * by_share(eeg, "balanced")
    told, lost = Interval.of_mean(right[100] - 50), Interval.of_mean(right[50] - right[100])
    tells = {Says.ABOVE: True, Says.BELOW: False}.get(told.against())
    enough = {Says.ABOVE: True, Says.BELOW: False}.get(lost.against(-2)) if tells else None
    rows = [
        ("EEG: 50 % of the factors hold all nats", "53.5 of 53.8", f"{nats[50]:.1f} of {nats[100]:.1f}",
         holds(nats[50] > 0.98 * nats[100]), "98 % of the nats"),
        ("EEG: all factors tell the label", "0.53; with none 0.23", f"{told.in_full('+.1f')} points above 50 %",
         holds(tells), "the interval over test blocks is above 0"),
        ("EEG: 50 % of the factors tell nearly as much", "0.52 of 0.53", f"{lost.in_full('+.1f')} points",
         holds(enough), "all tell something, and by the interval at most 2 points are lost"),
        ("EEG: nats and accuracies of table 3-3", "53.8, 0.53", f"{nats[100]:.1f}, {right[100].mean() / 100:.2f}",
         INCOMPARABLE, "other data, other task"),
    ]  # fmt: skip
    return claims(rows, COLUMNS)


# Figures


def estimate(
    sizes: Sequence[int], curves: Mapping[str, Sequence[float]], truths: Mapping[str, float]
) -> figures.Picture:
    """The estimate of information against the number of images, for cases whose information is known."""
    said = listed(
        {name: (curve[-1], truths[name]) for name, curve in curves.items()}, "{}, {:.2f} nats, information {:.2f}"
    )
    picture, axes = figures.blank(5.6, 3.2, f"Estimate against the number of images: {said}")
    for (name, curve), colour, marker in zip(curves.items(), figures.COLOURS, figures.MARKERS, strict=False):
        axes.plot(sizes, curve, marker=marker, markersize=3.5, linestyle="-", color=colour, label=name)
        axes.axhline(truths[name], color=colour, linestyle=":", linewidth=1.2)
        axes.plot(2.2 * sizes[-1], truths[name], marker=marker, markersize=7, color=colour, markerfacecolor="white")
    axes.set(xscale="log", xlabel="images", ylabel="nats")
    axes.legend(**BESIDE)
    return picture


def all_factors(found: Found) -> figures.Picture:
    """All factors by their estimated information: the estimate, the total variance, the variance of the mean."""
    table = ranked(found)
    used = int((table["mixture"] > 0.05).sum())
    alt = (
        f"Three panels over {len(table)} factors ordered by estimated information. "
        f"Information falls from {table['information'][0]:.2f} nats, {used} factors have more than 0.05. "
        f"The total variance stays between {table['variance'].min():.2f} and {table['variance'].max():.2f}. "
        f"The variance of the mean: {table['variance_of_mean'][0]:.2f} to {table['variance_of_mean'].min():.3f}."
    )
    picture, panels = figures.blank(6.4, 5.6, alt, rows=3, sharex=True)
    place, colours = np.arange(1, len(table) + 1), (figures.BLUE, figures.BLACK, figures.GREEN)
    for axes, colour, name in zip(panels, colours, ("information", "variance", "variance_of_mean"), strict=True):
        axes.vlines(place, 0, table[name], color=colour, linewidth=1.2 if name == "variance" else 1.4)
        axes.set_ylabel("information, nats" if name == "information" else INDICATORS[name])
    panels[0].plot(place, table["mixture"], "D", markersize=2.5, color=figures.VERMILLION)
    panels[2].set_xlabel("factors, ordered by the estimate")
    return picture


def kept_drawn(found: Found) -> figures.Picture:
    """Test images, and what is decoded where only a share of the factors is kept."""
    shares = found.metrics["vae"]["shares"]
    said = listed({row["share"]: row["error"] for row in shares}, "{} %, error {:.1f}", ", ")
    alt = f"Rows: ten test digits, then reconstructions from fewer factors: {said}. The last row is one blur ten times."
    return images(found.tensors, {"image": "images"} | {f"{share} %": f"kept/{share}" for share in SHARES}, alt)


def traversal(found: Found) -> figures.Picture:
    """One digit with one factor moved from -3 to 3: the six with the most information, and the one with the least."""
    walk, nats = found.tensors["traversed"].numpy(), ranked(found)["information"]
    places = [*range(1, len(walk)), len(nats)]
    labels = [f"{place}: {nats[place - 1]:.1f} nats" for place in places]
    alt = (
        f"One digit, decoded seven times a row with one factor moved. Rows by information: {'; '.join(labels)}. "
        "Influential factors change the digit's shape, the last one changes nothing that can be seen."
    )
    values = [f"{value:+d}" for value in range(-3, 4)]
    return figures.image_grid(walk, alt=alt, row_labels=labels, column_labels=values)


def error_bounds(found: Found) -> figures.Picture:
    """Squared error against the information that is kept: ours, the thesis', and what bounds them from below."""
    ours, theirs, blank = of_shares(found), THESIS, found.metrics["mean_image_error"]
    pixels = found.tensors["images"][0].numel()
    nats = np.linspace(0, max(24.3, ours["information"][0]) + 1, 60)
    gaussian = [gaussian_distortion(eigenvalues(found), value) for value in nats]
    height = (ours["error_of_sample"] * np.exp(2 * ours["information"] / pixels)).min()
    entropy = 0.5 * pixels * math.log(2 * math.pi * math.e * height / pixels)
    flat = [error_bound(entropy, value, pixels) for value in nats]
    steep = [error_bound(0.5 * math.log(2 * math.pi * math.e * blank), value) for value in nats]
    first, last = ours.iloc[-1], ours.iloc[0]
    alt = (
        f"Squared error against information. Ours falls from {first['error_of_sample']:.1f} at 0 to "
        f"{last['error_of_sample']:.1f} at {last['information']:.1f} nats, the thesis' from 71.7 to 5.6 at 24.3. "
        f"A Gaussian source falls from {gaussian[0]:.1f} to {gaussian[-1]:.1f}; "
        f"the bound for {pixels} dimensions from {flat[0]:.1f} to {flat[-1]:.1f}; "
        f"the bound as printed is below 1 from {nats[np.array(steep) < 1][0]:.1f} nats on."
    )
    picture, axes = figures.blank(6.4, 3.8, alt)
    blue = {"color": figures.BLUE, "markersize": 5}
    axes.plot(ours["information"], ours["error"], "o-", label="ours, mean code", **blue)
    blue |= {"label": "ours, a draw", "markerfacecolor": "white"}
    axes.plot(ours["information"], ours["error_of_sample"], "o--", **blue)
    axes.plot(theirs["information"], theirs["error"], "D-", color=figures.ORANGE, label="thesis", markersize=5)
    axes.plot(nats, gaussian, linestyle="-.", color=figures.GREEN, label="Gaussian source, least error")
    axes.plot(nats, flat, linestyle="--", color=figures.GREY, label=f"bound, d = {pixels}, at its highest")
    axes.plot(nats, steep, linestyle=":", color=figures.BLACK, label="bound as printed, at its highest")
    axes.set(yscale="log", ylim=(1, 120), xlabel="information kept, nats", ylabel="squared error, an image")
    axes.legend(**BESIDE)
    return picture


def fano(found: Found) -> figures.Picture:
    """Wrong labels against information, from one factor and from the best few, above the bounds of Fano."""
    alone, ours, entropy = single(found), of_shares(found), found.metrics["label_entropy"]
    axis = np.linspace(0, entropy, 120)
    of = {"sharp": 9, "(3-18)": 10}.items()
    forms = {name: [fano_error(entropy, value, choices) for value in axis] for name, choices in of}
    forms["(3-20)"] = [max(0.0, weak_fano_error(entropy, value, 10)) for value in axis]
    errors, several = 1 - alone["accuracy"], ours[ours["kept"] > 0]
    wrong = dict(zip(several["kept"], 1 - several["accuracy"], strict=True))
    alt = (
        f"Share of wrong labels against information. {len(alone)} single factors: {errors.min():.2f} to "
        f"{errors.max():.2f} wrong at {alone['label'].max():.2f} to {alone['label'].min():.2f} nats about the label, "
        f"all above Fano's bound, which falls from {forms['sharp'][0]:.2f} to 0. The best factors, wrong at nats where "
        f"the bound is 0: {listed(wrong, '{}, {:.2f}', ', ')}"
    )
    picture, axes = figures.blank(6.4, 3.6, alt)
    blue, shown = {"markersize": 4, "color": figures.BLUE}, several[several["information"] < 12]
    axes.plot(alone["label"], errors, "o", label="one factor, at I(y; z)", **blue)
    axes.plot(alone["mixture"], errors, "o", markerfacecolor="white", label="one factor, at I(x; z)", **blue)
    best = {"markersize": 5, "color": figures.ORANGE, "label": "the best few, at I(x; z)"}
    axes.plot(shown["information"], 1 - shown["accuracy"], "D", **best)
    for (name, values), dashes in zip(forms.items(), ("-", "--", ":"), strict=True):
        axes.plot(axis, values, linestyle=dashes, color=figures.BLACK, label=f"Fano, {name}")
    axes.set(ylim=(0, 1), xlabel="nats", ylabel="share of wrong labels")
    axes.legend(**BESIDE)
    return picture


def qmvae_drawn(found: Found) -> figures.Picture:
    """Each factor of Q-MVAE's codes, largest first: what it tells of the image and of the label."""
    models, table = found.metrics["qmvae"], qmvae(found)[["by quadrature", "of the label"]]
    nats = table["by quadrature"]
    alt = f"Information of each factor of {len(models)} models, largest first, and what it tells of the label; in all "
    alt += f"{nats.min():.1f} to {nats.max():.1f} nats, as the table has them."
    picture, panels = figures.blank(7.6, 2.3 * len(models) + 0.4, alt, len(models), 4, squeeze=False, sharey=True)
    outline = {"color": "white", "edgecolor": figures.BLACK, "linewidth": 0.8, "label": "of the image"}
    hatched = {"color": figures.BLUE, "hatch": "////", "edgecolor": "white", "linewidth": 0, "width": 0.6}
    for line, (name, codes) in zip(panels, models.items(), strict=True):
        for axes, (code, values) in zip(line, sorted(codes.items(), reverse=True), strict=True):
            by_size = np.argsort(values["mixture"])[::-1]
            place = np.arange(1, len(by_size) + 1)
            axes.bar(place, np.array(values["mixture"])[by_size], **outline)
            axes.bar(place, np.array(values["label"])[by_size], label="of the label", **hatched)
            axes.set_title(code, loc="left", fontsize=9)
            axes.set_xlim(0, max(6, len(by_size) + 1))
        line[0].set_ylabel(f"{name}\nnats")
    panels[0][-1].legend(frameon=False, fontsize=8)
    return picture
