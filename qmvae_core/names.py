"""Names that stand in commands and records, for those who read them without PyTorch."""

STAND_IN = "stand-in"  # the data that are made up where there are no real ones
BEST, AS_PRINTED, DEFAULT = "best", "as-printed", "default"  # readings of Q-MVAE
