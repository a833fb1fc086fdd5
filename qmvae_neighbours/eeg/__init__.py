"""β-VAE and LSTM on electroencephalograms: chapter B6.

Read the modules in this order: data, frames, model, experiment.
"""

from qmvae_neighbours.eeg.data import load_eye_state, read_deap
from qmvae_neighbours.eeg.experiment import (
    AUTO,
    BETA,
    CONVOLUTION,
    MODELS,
    SETTINGS,
    SVM,
    Settings,
    by_block,
    carry_out,
)
from qmvae_neighbours.eeg.model import SequenceClassifier, best_encoder, discrete_bound
