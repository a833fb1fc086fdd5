"""JMVAE and JMVAE-kl, with a label or an image as the second modality: chapter B2.

Read the modules in this order: model, experiment, results.
"""

from qmvae_neighbours.jmvae.experiment import SETTINGS, Settings, carry_out
from qmvae_neighbours.jmvae.model import bounds, drawn_from, estimates, integrals
