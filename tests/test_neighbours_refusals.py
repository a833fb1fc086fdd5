"""What cannot be is refused in every chapter on the neighbours, and the message says what it was."""

import datetime

import numpy as np
import pytest
import torch

from qmvae_core.gaussians import DiagonalGaussian
from qmvae_neighbours.eeg import frames
from qmvae_neighbours.eeg import model as eeg
from qmvae_neighbours.factors import model as factors
from qmvae_neighbours.gwae import model as gwae
from qmvae_neighbours.gwae import scenes
from qmvae_neighbours.jmvae import model as jmvae
from qmvae_neighbours.runoff import data, indices
from qmvae_neighbours.runoff.model import Scale, skill
from qmvae_neighbours.vae import VAEConfig

FAR_AND_FINE = DiagonalGaussian(torch.tensor([[0.0, 0.0], [0.0, 9.0]]), torch.tensor([[0.0, 0.0], [0.0, -40.0]]))
ONE_VALUE = torch.tensor([[0, 1], [1, 1], [2, 1]]).repeat(3, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: VAEConfig(covariance="banded"), "banded"),
        (lambda: VAEConfig(noise="poisson"), "poisson"),
        (lambda: VAEConfig(scale=0.0), "positive"),
        (lambda: jmvae.integrals({"x": torch.zeros(4, 2)}, torch.zeros(4, 2, 1), torch.zeros(4, 2), {}),
         r"two modalities, got \['x'\]"),
        (lambda: gwae.GWAEConfig(prior="vampire"), "unknown prior 'vampire'"),
        (lambda: scenes.render(*torch.zeros(5, 1), torch.tensor([3.0])), r"shape must be 0 to 2.*\[3"),
        (lambda: scenes.dci(torch.zeros(9, 1), torch.zeros(9, 2, dtype=torch.long), 0), "two or more dimensions"),
        (lambda: scenes.dci(torch.zeros(9, 2), ONE_VALUE, 0), "factor 1 has one value"),
        (lambda: factors.mixture_entropy(FAR_AND_FINE, finest=1000), r"factor 1 needs .* more than finest=1,000"),
        (lambda: factors.gaussian_distortion(np.array([1.0]), -1.0), "leave out what is constant"),
        (lambda: factors.gaussian_distortion(np.array([1.0, 0.0]), 1.0), "leave out what is constant"),
        (lambda: factors.gaussian_distortion(np.array([]), 1.0), "leave out what is constant"),
        (lambda: factors.turned(torch.ones(1, 2), torch.tensor([[2.0, 0.0], [0.0, 0.5]])), "not orthogonal"),
        (lambda: indices([1.0], [1.0]), "at least two"),
        (lambda: indices([1.0, 2.0], [1.0, 2.0, 3.0]), "one row"),
        (lambda: indices([1.0, 1.0], [0.0, 0.0]), "one that is positive"),
        (lambda: indices([1.0, 1.0], [-1.0, 1.0]), "zero and more"),
        (lambda: skill(torch.ones(3), torch.ones(3)), "observations that change"),
        (lambda: Scale(2.0, 2.0), "apart, not 2 to 2"),
        (lambda: data.standin_runoff().day(datetime.date(1979, 1, 1)), "has no 1979-01-01"),
        (lambda: frames.azimuthal_equidistant(np.array([0.0, 0.0, -1.0])), "no place on the map"),
        (lambda: frames.azimuthal_equidistant(np.zeros(3)), "no place on the map"),
        (lambda: frames.positions(["Cz", "XY7"]), "'XY7'"),
        (lambda: frames.log_band_powers(np.zeros((200, 1)), 64, 65), "hop <= window"),
        (lambda: frames.log_band_powers(np.zeros((200, 1)), 300, 10), "200"),
        (lambda: frames.log_band_powers(np.zeros((200, 1)), 64, 8, bands={"a": (9, 9.5)}), "band a"),
        (lambda: eeg.discrete_bound(*torch.zeros(2, 3, 3), torch.zeros(3, 3), torch.zeros(3, 3), 1.0), r"\(3, 3, 3\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
