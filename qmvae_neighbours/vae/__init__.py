"""The variational auto-encoder and its nearest relatives: chapter B1.

Read the modules in this order: model, experiment, results.
"""

from qmvae_neighbours.vae.experiment import SETTINGS, Settings, carry_out, nats_by_dimension, train, variants
from qmvae_neighbours.vae.model import VAE, CholeskyGaussian, VAEConfig
