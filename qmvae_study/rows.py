"""Which readings stand in the tables, by name."""

from qmvae_core.names import AS_PRINTED, BEST, DEFAULT

# The rows of the tables: Q-MVAE by two readings, both without the quadruplet loss too, the reading from which the best
# one was found, the models that the paper compares it with, and their kin.
WITHOUT_LOSS = "{}+beta=0"  # of the reading that stands in the braces
BASELINES = ("mvae", "mmvae", "dmvae")
KIN = ("jmvae", "jmvae-kl", "mopoe")
MODELS_COMPARED = (
    BEST, AS_PRINTED, *map(WITHOUT_LOSS.format, (BEST, AS_PRINTED)), DEFAULT, *BASELINES, *KIN
)  # fmt: skip
