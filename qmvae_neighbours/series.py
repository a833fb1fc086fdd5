"""Series of numbers in text files: found below a data root, read line by line, known by their content."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

from qmvae_core.data import STAND_IN, DataError
from qmvae_core.data.sources import DEFAULT_ROOT, chosen_root

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?", re.ASCII)  # not all that float() takes, such as 1_0


def series_file(root: str | Path | None, *files: str) -> Path | None:
    """The first of the files that is below a data root (None: QMVAE_DATA_ROOT or data/), or None where it has none.

    For the root "stand-in" it is None too. That the series is then made up is printed.
    """
    root = Path(chosen_root(root) or DEFAULT_ROOT)
    found = [root / file for file in files if str(root) != STAND_IN and os.path.lexists(root / file)]
    if found:
        return found[0]
    reason = "was wanted" if str(root) == STAND_IN else f"{root} has no {' or '.join(files)}"
    # Printed and not warned: a warning goes to standard error, which a strict notebook check reads as a failure.
    print(f"STAND-IN DATA ({reason}): the series is made up. Its numbers say that the code runs, and nothing else.")
    return None


def lines_of(path: Path, remedy: str) -> list[str]:
    """The lines of a text file. Raises DataError for one that cannot be opened, is empty, or is not UTF-8."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {remedy}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: this is not a text file in UTF-8; {remedy}") from None
    if lines == [""]:
        raise DataError(f"{path} is empty; {remedy}")
    return lines


def number(text: str) -> float | None:
    """A number as data files write it, or None for anything else: words, marks, NaN, infinity."""
    return float(text) if _NUMBER.fullmatch(text) and math.isfinite(float(text)) else None


def content_notes(found: str, known: str) -> list[str]:
    """What a record must say of a file by its content hash: nothing, if it is the known one."""
    return [] if found == known else ["The file is not the one that the committed record was made with"]
