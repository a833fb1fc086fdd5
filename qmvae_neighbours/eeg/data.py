"""Electroencephalograms from files: the eye-state recording, a stand-in for it, and DEAP's preprocessed format.

The recording: Rösler and Suendermann 2013, OpenML data set 1471. DEAP: Koelstra et al. 2012; its files are lent under a
licence, so none is here, and the loader is for those who hold one."""

import hashlib
import io
import os
import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qmvae_core.data import STAND_IN, DataError
from qmvae_neighbours.series import content_notes, lines_of, number, series_file

FILES = ("eeg/eeg-eye-state.csv", "eeg/eeg-eye-state.arff")  # below a data root
COLUMNS = ("AF3", "F7", "F3", "FC5", "T7", "P", "O1", "O2", "P8", "T8", "FC6", "F4", "F8", "AF4", "class")
CHANNELS = tuple("P7" if name == "P" else name for name in COLUMNS[:-1])  # the file cuts one name short
# Columns -> what stands for open eyes and for closed: of the file here, of OpenML's, and of UCI's, whence both come.
STATES = {
    COLUMNS: (0, 1),
    (*(f"V{number}" for number in range(1, 15)), "Class"): (1, 2),
    (*CHANNELS, "eyeDetection"): (0, 1),
}
KNOWN_CONTENT = "ab391f7ffafa25b6d17423200e668ec8d9a949b56ff604b96bc8968873b079b2"
GAP = re.compile(r"-99+(\.[09]*)?")  # what many files have where a value is missing
REMEDY = "download data set 1471 of OpenML again, as ARFF or CSV"

# Order of the first 32 of DEAP's 40 channels, from the description of the data set.
DEAP_CHANNELS = (
    "Fp1", "AF3", "F3", "F7", "FC5", "FC1", "C3", "T7", "CP5", "CP1", "P3", "P7", "PO3", "O1", "Oz", "Pz",
    "Fp2", "AF4", "Fz", "F4", "F8", "FC6", "FC2", "Cz", "C4", "T8", "CP6", "CP2", "P4", "P8", "PO4", "O2",
)  # fmt: skip
DEAP_SHAPES = {"data": (40, 40, 8064), "labels": (40, 4)}


@dataclass(frozen=True, eq=False)
class Recording:
    """One electroencephalogram. samples: (time, channels) in microvolts. closed: (time,), 1 where the eyes are shut.

    identity (JSON): kind "real" or "stand-in"; notes, sentences for a reader; counts; content_hash of all values."""

    samples: np.ndarray
    closed: np.ndarray
    channels: tuple[str, ...]
    identity: dict


def load_eye_state(root: str | Path | None = None) -> Recording:
    """The eye-state recording below a data root, checked; a stand-in where the root has none (`series_file`).

    Raises DataError for a file that is damaged."""
    path = series_file(root, *FILES)
    if path is None:
        return synthetic(f"no {' or '.join(FILES)} was found or wanted")
    samples, closed = read_eye_state(path)
    notes = ["EEG eye state: one person, one continuous recording of 14 channels (OpenML 1471, ODC-PDDL)"]
    notes += content_notes(content_hash(samples, closed), KNOWN_CONTENT)
    return Recording(samples, closed, CHANNELS, _identity("real", notes, samples, closed))


def read_eye_state(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Samples (time, 14) and states (time,), 1 for closed, of data set 1471 as ARFF or CSV, by any names of STATES.

    Raises DataError that names file, line and column: other columns or fields, what is no finite number or stands for
    a gap (such as -999 or ?), another state, or one state only."""
    lines = lines_of(path, REMEDY)
    columns, start = _header(lines)
    if columns not in STATES:
        known = "; or ".join(",".join(names) for names in STATES)
        raise DataError(f"{path}, line {start}: the columns must be {known}; {REMEDY}")
    rows, states = [], STATES[columns]
    for place, line in enumerate(lines[start:], start=start + 1):
        if not line.strip() or line.startswith("%"):
            continue
        where, fields = f"{path}, line {place}", [field.strip(" \t'\"") for field in line.split(",")]
        if len(fields) != len(columns):
            raise DataError(f"{where}: {len(fields)} fields in place of {len(columns)}; {REMEDY}")
        for name, field in zip(columns, fields, strict=True):
            if number(field) is None or GAP.fullmatch(field):
                raise DataError(f"{where}, column {name}: {field!r} is not a finite number, or marks a gap; {REMEDY}")
        rows.append([float(field) for field in fields])
        if rows[-1][-1] not in states:
            raise DataError(f"{where}, column {columns[-1]}: {fields[-1]!r} is neither {states[0]} (eyes open) nor "
                            f"{states[1]} (closed); {REMEDY}")  # fmt: skip
    table = np.array(rows).reshape(-1, len(columns))
    closed = (table[:, -1] == states[1]).astype(np.int64)
    if len(set(closed.tolist())) < 2:
        raise DataError(f"{path}: its last column holds fewer than two states, so nothing can be told apart; {REMEDY}")
    return table[:, :-1].copy(), closed


def _header(lines: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """The columns of a CSV file or an ARFF file, and the number of lines down to the first of the data."""
    names = []
    for place, line in enumerate(lines, start=1):
        keyword, name, *_ = [*line.split(), "", ""]
        if keyword.lower() == "@attribute":
            names.append(name.strip("'\""))
        elif keyword.lower() == "@data":
            return tuple(names), place
        elif keyword and keyword[0] not in "@%":
            break
    return tuple(name.strip(" \t'\"") for name in lines[0].split(",")), 1


def content_hash(*arrays: np.ndarray) -> str:
    """SHA-256, in hexadecimal, of the values as little-endian float64, one array after the other."""
    return hashlib.sha256(b"".join(values.astype("<f8").tobytes() for values in arrays)).hexdigest()


def _identity(kind: str, notes: list[str], samples: np.ndarray, closed: np.ndarray) -> dict:
    counts = {"samples": len(samples), "channels": samples.shape[1], "closed": int(closed.sum())}
    return {"kind": kind, "notes": notes, "counts": counts, "content_hash": content_hash(samples, closed)}


def synthetic(reason: str, seconds: int = 40, seed: int = 0) -> Recording:
    """A made-up recording: slow noise in all channels, and with the eyes shut a 10 Hz wave, strongest at the back.

    The state changes every 2.5 seconds. Two spikes are in it, because the real recording has some."""
    random = np.random.RandomState(seed)  # its stream is frozen: a seed gives the same values everywhere
    time = np.arange(seconds * 128) / 128
    closed = (np.floor(time / 2.5) % 2).astype(np.int64)
    noise = 8 * random.standard_normal((len(time), len(CHANNELS)))
    for row in range(1, len(noise)):
        noise[row] += 0.9 * noise[row - 1]
    strength = np.array([12.0 if name in ("O1", "O2", "P7", "P8") else 3.0 for name in CHANNELS])
    wave = np.sin(2 * np.pi * 10 * time + 0.3 * np.cumsum(random.standard_normal(len(time))) / 12)
    samples = 4300 + noise + strength * (wave * (0.3 + closed))[:, None]
    samples[[700, 3300], [2, 9]] += 40_000
    notes = [f"A made-up electroencephalogram is used ({reason}): no evidence about any brain"]
    return Recording(samples, closed, CHANNELS, _identity(STAND_IN, notes, samples, closed))


# DEAP


@dataclass(frozen=True, eq=False)
class Deap:
    """samples: (videos, 32, time), microvolts, 128 Hz. ratings: (videos, 4), 1 to 9: valence, arousal and two more."""

    samples: np.ndarray
    ratings: np.ndarray

    def quadrants(self, boundary: float = 5.0) -> np.ndarray:
        """The four classes of the thesis: 2 * (valence above the boundary) + (arousal above it), (videos,)."""
        return (self.ratings[:, :2] > boundary) @ (2, 1)


class _ArraysOnly(pickle.Unpickler):
    """Reads pickles of dictionaries, numbers, texts and NumPy arrays, and nothing else that has a name.

    A pickle can call whatever it names, so a file from elsewhere could run any program."""

    ALLOWED = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        # One function under the two names that NumPy 1 and 2 give it.
        ("numpy.core.multiarray", "_reconstruct"): np.ndarray.__reduce__(np.empty(0))[0],
        ("numpy._core.multiarray", "_reconstruct"): np.ndarray.__reduce__(np.empty(0))[0],
    }

    def find_class(self, module: str, name: str):
        if (module, name) == ("_codecs", "encode"):
            return _latin1  # how Python 3 writes bytes for Python 2
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, and only NumPy arrays are admitted")
        return self.ALLOWED[module, name]


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it holds bytes in {encoding!r}, and only latin1 is admitted")
    return text.encode("latin1")


def read_deap(path: str | Path) -> Deap:
    """One file sXX.dat of DEAP's data_preprocessed_python: a pickled dictionary with "data" and "labels".

    Only the 32 channels of the head are kept. Nothing that the file names is called, NumPy's arrays excepted.
    Raises DataError for a file that is no such pickle, names anything else, or lacks a key, a shape or a range."""
    path = Path(path)
    remedy = "take it from data_preprocessed_python.zip of DEAP again"
    if not os.path.isfile(path):
        raise DataError(f"there is no {path}; DEAP is lent by its authors to those who sign its licence")
    try:
        content = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except Exception as error:  # a damaged pickle can raise almost anything
        raise DataError(f"{path} is not a pickle of arrays ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__} in place of a dictionary; {remedy}")
    for key, shape in DEAP_SHAPES.items():
        if key not in content:
            raise DataError(f"{path} has no {key!r}, only {sorted(map(str, content))}; {remedy}")
        value = content[key]
        if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype.kind != "f":
            found = f"{value.shape} {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
            raise DataError(f"{path}: {key!r} must be {shape} of floating-point numbers, not {found}; {remedy}")
        if not np.isfinite(value).all():
            raise DataError(f"{path}: {key!r} holds a value that is not finite; {remedy}")
    ratings = content["labels"].astype(float)
    if ratings.min() < 1 or ratings.max() > 9:
        raise DataError(f"{path}: 'labels' must lie in 1 to 9, not {ratings.min():g} to {ratings.max():g}; {remedy}")
    return Deap(content["data"][:, : len(DEAP_CHANNELS)].astype(float), ratings)
