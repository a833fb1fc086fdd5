"""Names that stand in commands and records, for those who read them without PyTorch."""

from collections.abc import Mapping

STAND_IN = "stand-in"  # the data that are made up where there are no real ones
# Readings of Q-MVAE. The first search chose FIRST_BEST, the hunt BEST, which is what "qmvae" alone means.
AS_PRINTED, UNSCREENED, DEFAULT, FIRST_BEST = "as-printed", "unscreened", "default", "first-best"
BEST = AS_PRINTED

# Model -> its title, in the order of the paper's tables, then those that stand beside them in this book.
TITLES = {
    "mvae": "MVAE", "mmvae": "MMVAE", "dmvae": "DMVAE", "qmvae": "Q-MVAE", "jmvae": "JMVAE", "mopoe": "MoPoE",
}  # fmt: skip

NATS, SHARE = "nats", "share"
# What stands in a history, by the word before the first "/" -> its unit.
UNITS = {
    **dict.fromkeys(("objective", "opposing", "elbo", "iwae", "log_likelihood", "cross_reconstruction"), NATS),
    **dict.fromkeys(("kl", "kl_private", "kl_to", "contrastive", "total_correlation"), NATS),
    "quadruplet": "code units",  # distances of codes
    "particles": "particles",  # a count
    "accuracy": SHARE,
    "single_digit": SHARE,  # of the batches, those without a negative, which have no quadruplet term
}


def known(table: Mapping, what: str, name: str):
    """table[name], with a ValueError that lists the known names if it has none."""
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"unknown {what} {name!r}; the known ones are {sorted(table)}")
    return table[name]


def unit_of(term: str) -> str:
    """The unit of a term of a loss, or of an accuracy beside it in a history. Raises ValueError for an unknown one."""
    return known(UNITS, "term", term.partition("/")[0])
