"""β-VAE and LSTM on electroencephalograms: chapter B6.

Read the modules in this order: data, frames, model, experiment, results.
"""

from qmvae_neighbours.eeg.data import load_eye_state, read_deap
from qmvae_neighbours.eeg.experiment import BETA, DRAWN, MODELS, PLAIN, SETTINGS, SVM, Settings, alpha_gain, carry_out
from qmvae_neighbours.eeg.model import SequenceClassifier, best_encoder, discrete_bound
