"""The image panels of Figures 3 to 5 on disk, as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from qmvae_core.files import file_hash
from qmvae_study.evidence.records import Panel, RecordError

ROWS = 10  # private codes in a panel of Figure 3
SWEEP = tuple(np.linspace(-5.0, 5.0, 20))  # values of a private dimension in Figure 5


def load_panel(path: Path, rows: int, columns: int) -> np.ndarray:
    """The images of a panel: (rows, columns, c, h, w) uint8. Raises RecordError if the file is missing or not whole."""
    try:
        with Image.open(path) as image:
            sheet = np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise RecordError(f"panel {path} cannot be read ({error}); run its record again") from None
    sheet = sheet[..., None] if sheet.ndim == 2 else sheet
    if sheet.shape[0] % rows or sheet.shape[1] % columns:
        raise RecordError(f"panel {path} does not hold {rows} x {columns} images; run its record again")
    height, width = sheet.shape[0] // rows, sheet.shape[1] // columns
    return sheet.reshape(rows, height, columns, width, -1).transpose(0, 2, 4, 1, 3).copy()


def panel_images(panel: Panel, folder: Path) -> dict[str, np.ndarray]:
    """The images of one panel of a record, each part (rows, columns, c, h, w) uint8: conditions, generated, styles.

    A part of another name, as those of triples have, is one row.
    Raises RecordError for a file that is missing or is not the one that the record names.
    """
    shapes = dict.fromkeys(panel.files, (1, len(panel.digits))) | {
        "generated": (len(panel.read), len(panel.read[0])),
        "styles": (1, len(panel.style_positions)),
    }
    for part, file in panel.files.items():
        if not (folder / file).exists() or file_hash(folder / file) != panel.sha256.get(part):
            raise RecordError(f"panel {folder / file} is missing or not the one that its record names; run it again")
    return {part: load_panel(folder / file, *shapes[part]) for part, file in panel.files.items()}
