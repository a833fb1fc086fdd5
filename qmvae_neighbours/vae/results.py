"""What chapter B1 finds: what each variant reaches, and what becomes of the source's sentences; and its figures."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from qmvae_neighbours.experiments import Found
from qmvae_neighbours.report import INCOMPARABLE, above, claims, holds, images, listed, over_seeds, two_errors
from qmvae_neighbours.vae.experiment import BITS, KINDER, REPEATS, Settings, variants
from qmvae_study.evidence.folder import RESULTS
from qmvae_study.judges import load_oracle
from qmvae_study.report import figures
from qmvae_study.report.intervals import Interval

FIXED, LEARNED = "normal noise, scale 1", "normal noise, learned scale"


def reached(found: Found) -> pd.DataFrame:
    """Means over the test images of each variant, in nats but for the squared error and the scale."""
    table = pd.DataFrame(found.metrics).T.loc[list(variants(Settings(**found.settings)))]
    table["gap"] = table["log_evidence"] - table["bound"]
    table["scale"] = table["scale"].where(table.index.str.startswith("normal"))  # Bernoulli noise has none
    shown = table[["bound", "log_evidence", "gap", "divergence", "squared_error", "scale", "active"]]
    names = {"log_evidence": "evidence", "squared_error": "squared error", "active": "dimensions in use"}
    return shown.round(2).astype(object).where(shown.notna(), "").rename(columns=names)


def repeated(repeats: Found) -> pd.DataFrame:
    """Means over the seeds of the second experiment's models and half their intervals, in the units of `reached`."""
    names = {"bound": "bound", "log_evidence": "evidence", "divergence": "divergence", "squared_error": "squared error"}
    return over_seeds({name: repeats.metrics[name] for name in (*REPEATS, KINDER)}, names).rename(columns=names)


def sweep(found: Found) -> list[tuple[float, float, float]]:
    """(beta, divergence, squared error) of the models that differ in beta alone, beta rising."""
    kept = {name: row for name, row in found.metrics.items() if name == "VAE" or name.startswith("beta")}
    betas = (1.0 if name == "VAE" else float(name.split()[1]) for name in kept)
    return sorted((b, row["divergence"], row["squared_error"]) for b, row in zip(betas, kept.values(), strict=True))


def read_right(found: Found) -> Tensor | None:
    """Which generated digits the judge reads as their label: (n,); None without real data, the only ones it knows."""
    if not found.real:
        return None
    generated = found.tensors["conditional/generated"]
    read = load_oracle("mnist", RESULTS / "oracles").predict(generated.flatten(0, 1) / 255.0)
    return read == torch.arange(10).repeat(len(generated))


def counted(right: Tensor | None, unknown: str) -> str:
    """How many generated digits are read as their label; `unknown` where nobody read them."""
    return unknown if right is None else f"{int(right.sum())} of {len(right)} read as their label"


def verdicts(found: Found, repeats: Found) -> pd.DataFrame:
    """The sentences of the source that can be tried, each with what we find; repeats: the second experiment."""
    metrics, tensors, right = found.metrics, found.tensors, read_right(found)
    here = partial(holds, otherwise="does not hold here")
    errors = {name: row["squared_error"] for name, row in metrics.items()}
    full, diagonal = (tensors[f"{name}/log_evidence"] - tensors[f"{name}/bound"] for name in ("full covariance", "VAE"))
    narrower = two_errors(diagonal - full)
    bounds = {name: [row["bound"] for row in rows] for name, rows in repeats.metrics.items()}
    pairs = ("isotropic covariance", "VAE"), ("scale by a network", "one learned scale"), BITS, (BITS[0], KINDER)
    alike, network, bits, kinder = (Interval.of_mean(np.subtract(*(bounds[name] for name in pair))) for pair in pairs)
    rows = [
        ("1. the covariance can be σ(x)² I", f"bound {alike.plus_minus('+.2f')} nats against a diagonal one",
         here(above(alike, -1.0))),
        ("1. a full covariance is more expressive",
         f"gap {abs(narrower.centre):.2f} nats {'narrower' if narrower.centre > 0 else 'wider'}, "
         f"standard error {(narrower.high - narrower.centre) / 2:.2f}", here(narrower.low > 0 or None)),
        ("2. the decoder's variance can be learned", f"scale {metrics[LEARNED]['scale']:.2f} instead of 1; "
         f"squared error {errors[LEARNED]:.1f} instead of {errors[FIXED]:.1f}",
         here(errors[LEARNED] < errors[FIXED] - 0.1)),
        ("2. another network can map to the variance",
         f"bound {network.plus_minus('+.1f')} nats against one learned scale", here(above(network))),
        ("3. binarised digits need Bernoulli noise", f"bound {bits.plus_minus('+.1f')} nats against normal noise; "
         f"{kinder.plus_minus('+.1f')} where its mean is read as a probability", here(above(bits), above(kinder))),
        ("4. the label forces a constrained representation", counted(right, "not read: no judge for the stand-in"),
         INCOMPARABLE if right is None else here(right.float().mean() >= 0.9)),
    ]  # fmt: skip
    return claims(rows, ["claim", "we find", "verdict"])


# Figures


def reconstructions(found: Found) -> figures.Picture:
    """Test images, and what three noise models make of the mean of their posterior."""
    names = {"Bernoulli": "VAE", "scale 1": FIXED, "learned scale": LEARNED}
    said = listed({label: found.metrics[name]["squared_error"] for label, name in names.items()}, "{} {:.1f}", ", ")
    rows = {"image": "images"} | {label: f"{name}/reconstructed" for label, name in names.items()}
    alt = f"Ten digits and three rows of reconstructions, smoother than the digits; mean squared errors: {said}."
    return images(found.tensors, rows, alt)


def trade(found: Found) -> figures.Picture:
    """What beta trades: the nats of a code against the squared error of the decoded image."""
    points = sweep(found)
    said = listed({f"{beta:g}": (kl, error) for beta, kl, error in points}, "{}: {:.1f} nats, error {:.1f}")
    picture, axes = figures.blank(4.5, 3.2, f"Squared error against divergence, one dot for each beta: {said}")
    axes.plot([kl for _, kl, _ in points], [error for *_, error in points], "o-", color=figures.BLUE)
    for beta, kl, error in points:
        axes.annotate(f"β = {beta:g}", (kl, error), textcoords="offset points", xytext=(6, 6))
    axes.set(xlabel="divergence, nats", ylabel="squared error, an image")
    return picture


def generated(found: Found) -> figures.Picture:
    """Draws of the conditional model: a row has one code, a column one label."""
    drawn = found.tensors["conditional/generated"]
    read = counted(read_right(found), "no judge for the stand-in")
    labels = [f"code {i + 1}" for i in range(len(drawn))]
    alt = f"{len(drawn)} rows of ten generated digits, a column a label; {read}."
    return figures.image_grid(drawn.numpy(), labels, list(range(10)), alt=alt)
