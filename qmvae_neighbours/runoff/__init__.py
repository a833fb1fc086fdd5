"""Deep LSTM networks that forecast the runoff of a river: chapter B5.

Read the modules in this order: data, model, experiment, results.
"""

from qmvae_neighbours.runoff.data import Runoff, load_runoff, read_runoff
from qmvae_neighbours.runoff.experiment import SETTINGS, STATIONS, Settings, carry_out, carry_out_stations, networks
from qmvae_neighbours.runoff.model import Recurrent, indices, lstm_step, squared_error
