"""The figures of chapter B1."""

from __future__ import annotations

from qmvae_neighbours.experiments import Found
from qmvae_neighbours.report import images, listed
from qmvae_neighbours.vae.tables import FIXED, LEARNED, counted, read_right, sweep
from qmvae_study.report import figures


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
    return figures.image_grid(
        drawn.numpy(),
        row_labels=[f"code {i + 1}" for i in range(len(drawn))],
        column_labels=list(range(10)),
        alt=f"{len(drawn)} rows of ten generated digits, a column a label; {read}.",
    )
