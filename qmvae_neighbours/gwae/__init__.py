"""The Gromov-Wasserstein auto-encoder, and scenes whose factors are known: chapter B3.

Read the modules in this order: model, scenes, experiment, results.
"""

from qmvae_neighbours.gwae.experiment import SETTINGS, Settings, carry_out
from qmvae_neighbours.gwae.model import GWAE, PRIORS, GWAEConfig, distances, gromov_cost, gumbel_max
