"""What chapter B4 finds, as tables: the factors of a code, what is kept of them, Q-MVAE's codes, and the verdicts."""

from __future__ import annotations

import numpy as np
import pandas as pd

from qmvae_neighbours.experiments import Found
from qmvae_neighbours.report import INCOMPARABLE, claims, holds

THESIS = pd.DataFrame(
    {
        "share": [100, 20, 10, 7, 5, 3, 1, 0],
        "information": [24.3, 24.3, 24.3, 19.6, 16.5, 10.6, 5.8, 0.0],
        "error": [5.6, 5.6, 5.6, 13.4, 15.0, 27.6, 44.4, 71.7],
    }
)
INDICATORS = {
    "information": "estimate of Algorithm 3-1",
    "mixture": "information by quadrature",
    "variance": "total variance",
    "variance_of_mean": "variance of the mean",
}


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
    table["label's share of the sum"] = [
        f"{s:.0f} %" if nats > 0.05 else "" for s, nats in zip(share, table["by quadrature"], strict=True)
    ]
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
        ("10 % of the factors hold all", "24.3 of 24.3 nats, error 5.6 of 5.6", told(ten), kept_all(ten),
         "98 % of the nats, error within 5 %; more are in use here"),
        ("20 % do", "the same", told(twenty), kept_all(twenty), "the same"),
        ("fewer nats, larger error", "5.6 to 71.7", f"{ours['error'].min():.1f} to {ours['error'].max():.1f}",
         holds((ours["error"].diff()[1:] > -0.05).all()), "no row more than 0.05 below the one before"),
        ("fewer factors, hardly less for the label", "EEG: 0.52 of 0.53 with 50 %",
         f"{twenty['accuracy']:.0%} of labels right with 20 %, {hundred['accuracy']:.0%} with all",
         holds(twenty["accuracy"] > hundred["accuracy"] - 0.02), "at most 2 points lost by a linear classifier"),
        ("the estimate is much tighter than the divergence", "no number",
         f"above the quadrature: {loose['information']:.2f} nats of the divergence's {loose['divergence']:.2f}",
         holds(loose["information"] < 0.5 * loose["divergence"]), "less than half as far; sums over factors"),
        ("24.3 nats, error 5.6", "24.3, 5.6", f"{hundred['information']:.1f}, {hundred['error']:.1f}",
         INCOMPARABLE, "value of the noise's scale not given; other network, shorter training"),
        ("information finds the influential factors", "by eye", f"{best:.0%}", holds(best >= 0.9),
         "nine tenths of them found"),
        ("variance does not: the total one", "by eye", f"{total:.0%}", holds(total < 0.9), "fewer than nine tenths"),
        ("variance does not: that of the mean", "not said which", f"{of_mean:.0%}", holds(of_mean < 0.9),
         "fewer than nine tenths"),
    ]  # fmt: skip
    return claims(rows, ["claim", "thesis", "ours", "verdict", "rule or reason"])
