"""Which readings stand in the tables, by name."""

from qmvae_core.names import AS_PRINTED, BEST, DEFAULT, FIRST_BEST

# The rows of the tables: Q-MVAE by two readings, both without the quadruplet loss too, the reading from which the first
# best one was found, the models that the paper compares it with, and their kin.
WITHOUT_LOSS = "{}+beta=0"  # of the reading that stands in the braces
BASELINES = ("mvae", "mmvae", "dmvae")
# What stands in a row where there is no run of its reading: MMVAE with as many particles as two hours of one thread
# allow for 13,141 steps.
INSTEAD = {"mmvae": "mmvae+particles=8"}
KIN = ("jmvae", "jmvae-kl", "mopoe")
MODELS_COMPARED = (
    BEST, FIRST_BEST, *map(WITHOUT_LOSS.format, (BEST, FIRST_BEST)), DEFAULT, *BASELINES, *KIN
)  # fmt: skip

# The rows of three modalities, with text beside MNIST and SVHN.
INCOMPLETE = "{}+training.missing=0.5"  # half of the pairs lack one modality or two
TEXT_RIVALS = ("mvae", "mopoe")
WITH_TEXT = (BEST, WITHOUT_LOSS.format(BEST), *TEXT_RIVALS, INCOMPLETE.format(BEST))

# The printed equations with the printed screening, by the scale of the likelihood, which the paper leaves open.
PRINTED = f"{AS_PRINTED}+negatives=all-violating"
SCALES = tuple(f"{PRINTED}+all.scale={scale}" for scale in ("0.75", "2.0", "3.75", "10.0"))
