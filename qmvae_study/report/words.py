"""Names for people in place of keys: what tables, titles and sentences call a reading and a direction."""

from __future__ import annotations

from qmvae_core.names import AS_PRINTED, DEFAULT, FIRST_BEST, TITLES, UNSCREENED

NAMES = {
    AS_PRINTED: "Q-MVAE as printed", FIRST_BEST: "Q-MVAE first best", UNSCREENED: "Q-MVAE unscreened, scale 0.75",
    DEFAULT: "Q-MVAE default", "jmvae-kl": "JMVAE-kl",
    **TITLES,
}  # fmt: skip
MODALITIES = {"mnist": "MNIST", "svhn": "SVHN", "text": "Text", "joint": "joint"}
CELLS = {"MNIST": "codes of MNIST", "SVHN": "codes of SVHN", "MNIST-SVHN": "joint codes"}  # columns of Table 2
# A change of a reading, or the name that it changes -> its words; braces hold the value.
CHANGES = {
    "beta=0": "without the loss",
    "negatives=all-violating": "screened",
    "negatives=random": "not screened",
    "negatives": "{} negatives",
    "all.encoders": "{} encoders",
    "all.scale": "scale {}",
    "all.likelihood": "{} likelihood",
    "all.private": "private codes of {}",
    "all.private_kl_weight": "KL of h weighed {}",
    "shared_kl_weight": "KL of z weighed {}",
    "shared_scales": "{} scales of z",
    "mnist.weight": "MNIST weighed {}",
    "cross_reconstruction=1": "cross reconstruction",
    "mask_equal_negatives=true": "equal negatives masked",
    "beta_against=sum": "β against the sum",
    "training.learning_rate": "learning rate {}",
    "training.missing=0.5": "half of the pairs incomplete",
    "training.missing": "{} of the pairs incomplete",
    "particles": "{} particles",
}
# In front of a verdict on a number, so that it is told by more than a word, and by no colour.
MARKS = {"agrees": "=", "below": "▼", "above": "▲", "undecided": "?", "depends": "≠"}
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def reading(key: str) -> str:
    """A reading of a model, its base before its changes: "as-printed+all.scale=2.0" is "Q-MVAE as printed, scale 2"."""
    return ", ".join(map(_part, key.split("+")))


def _part(part: str) -> str:
    """A base or a change, so that changes alone have words too."""
    name, _, value = part.partition("=")
    known = NAMES.get(part) or CHANGES.get(part)
    return known or CHANGES.get(name, f"{name} {{}}").format(value.removesuffix(".0")).strip()


def direction(key: str) -> str:
    """A direction of cross generation: "mnist+svhn->text" is "MNIST+SVHN→Text"."""
    return "→".join("+".join(MODALITIES.get(name, name) for name in part.split("+")) for part in key.split("->"))


def marked(verdict: str) -> str:
    """A verdict on a number with its mark; another text as it is."""
    mark = MARKS.get(verdict.split(" ")[0].rstrip(":"))
    return f"{mark} {verdict}" if mark else verdict


def number(value: int) -> str:
    """A small count in letters: "three"."""
    return COUNTS[value] if value < len(COUNTS) else f"{value:,}"


def count(value: int, name: str, plural: str = "") -> str:
    """A number of things: "three runs"."""
    return f"{number(value)} {name if value == 1 else plural or f'{name}s'}"
