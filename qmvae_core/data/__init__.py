"""Digits: found, checked, paired. Images stay bytes and are never copied into pairs.

Read the modules in this order: digits, own, pairing, standin, sources.
"""

from qmvae_core.data.digits import MODALITIES, DataError, DigitData, Digits
from qmvae_core.data.own import most_classes, observations, read_observations
from qmvae_core.data.pairing import digit_counts, missing_at_random, pair_checksum, pair_indices, tuple_indices
from qmvae_core.data.sources import OFFICIAL_TRAIN_PAIRS, load_digits, real_data_at_hand, standin_digits
from qmvae_core.names import STAND_IN

__all__ = [
    "MODALITIES", "OFFICIAL_TRAIN_PAIRS", "STAND_IN", "DataError", "DigitData", "Digits", "digit_counts", "load_digits",
    "missing_at_random", "most_classes", "observations", "pair_checksum", "pair_indices", "read_observations",
    "real_data_at_hand", "standin_digits", "tuple_indices",
]  # fmt: skip
