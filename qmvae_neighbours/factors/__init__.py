"""Which factors of a code carry information: chapter B4.

Read the modules in this order: model, experiment, results.
"""

from qmvae_neighbours.factors.experiment import SETTINGS, SHARES, Settings, carry_out
from qmvae_neighbours.factors.model import aggregate, error_bound, fano_error, information, linear_information, turned
