"""Which notebooks are compared with their stored outputs, and which are only run: the one place that says so.

`python tests/notebook_kinds.py` prints the first kind for `make test`; the tests import the functions.
"""

import os
from pathlib import Path

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def is_training(notebook: Path) -> bool:
    """A notebook that trains: stored without outputs, run by papermill."""
    return notebook.stem.startswith("07_train") or "training" in notebook.stem


def training() -> list[Path]:
    """The notebooks that papermill runs on the smoke profile."""
    return [path for path in sorted(NOTEBOOKS.glob("*.ipynb")) if is_training(path)]


def strict() -> list[Path]:
    """Every other notebook: stored executed, and equal to a fresh run cell by cell."""
    return [path for path in sorted(NOTEBOOKS.glob("*.ipynb")) if not is_training(path)]


def neighbours() -> list[Path]:
    """Strict notebooks that show a committed experiment, and carry it out anew on another profile."""
    return [path for path in strict() if path.name.startswith("B")]


if __name__ == "__main__":
    names = [os.path.relpath(path) for path in strict()]
    if not names:
        raise SystemExit(f"no notebook to compare in {NOTEBOOKS.name}/")
    print(*names)
