"""Which notebooks are compared with their stored outputs, and which are only run.

`python tests/notebook_kinds.py` prints the first kind for `make test`; the tests import the functions.
"""

import os
from pathlib import Path

from qmvae_study.evidence.notebooks import TRAINING_NOTEBOOK, stored


def training() -> list[Path]:
    """The notebook that trains: stored without outputs, run by papermill on the smoke profile."""
    return [TRAINING_NOTEBOOK]


def strict() -> list[Path]:
    """Every other notebook: stored executed, and equal to a fresh run cell by cell."""
    return stored()


def neighbours() -> list[Path]:
    """Strict notebooks that show a committed experiment, and carry it out anew on another profile."""
    return [path for path in strict() if path.name.startswith("B")]


if __name__ == "__main__":
    names = [os.path.relpath(path) for path in strict()]
    if not names:
        raise SystemExit("no notebook to compare")
    print(*names)
