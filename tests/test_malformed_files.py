"""Data files that are not what they should be are refused by name with a remedy, or read as a plain reader reads them.

700 files drawn: bytes turned, cut, put in or left out, fields and lines too, arrays of other kinds. An error is a
DataError, without an inner library's words.
"""

import builtins
import contextlib
import functools
import gzip
import io
import os
import pickle
import shutil
import struct
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat
from scipy.sparse import csc_array
from test_data import FILE_NAMES, write_root
from test_malformed import VALUES, attempt, quietly
from test_neighbours_eeg import FORMS

from qmvae_core.data import DataError, load_digits
from qmvae_core.data.sources import FILES as FILES_OF
from qmvae_neighbours.eeg import data
from qmvae_neighbours.eeg.data import load_eye_state, read_deap, read_eye_state
from qmvae_neighbours.runoff.data import FILE, load_runoff, read_runoff

LINES = {
    "river": ["YR MNTH DY HR SWE OBS_RUN", *(f"1999 12 {day} 12   0.0000000 {day / 8:11.7f}" for day in range(20, 32))],
    "gauge": [f"01022500 1999 12 {day} {10.25 * day:8.2f} {'A:e' if day % 3 else 'A'}" for day in range(20, 32)],
    **{
        form: [*head, *(",".join([f"{4000 + row}.5"] * 14 + [str(opened + row % 2)]) for row in range(12))]
        for form, (_, head, opened) in FORMS.items()
    },
}
NAMES = {"river": FILE, "gauge": "river/gauge.txt"} | {
    form: file if form in ("CSV", "ARFF of OpenML") else f"eeg/{form}.csv" for form, (file, _, _) in FORMS.items()
}
DAMAGES = st.lists(
    st.tuples(
        st.sampled_from(["cut", "turn", "put in", "leave out"]),
        st.floats(0, 1), st.integers(0, 7), st.binary(max_size=6),
    ),
    min_size=1, max_size=3,
)  # fmt: skip
REMEDIES = ("must name", "again", "anew", "Download", "sign its licence")


def damaged(content: bytes, damages) -> bytes:
    for kind, share, bit, more in damages:
        place = int(share * len(content))
        if kind == "turn" and place < len(content):
            content = content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
        elif kind != "turn":
            tail = {"cut": b"", "put in": content[place:], "leave out": content[place + 1 + bit :]}[kind]
            content = content[:place] + (more if kind == "put in" else b"") + tail
    return content


def read(reader: Callable, path: Path):
    """What is read of a file, or None where it is refused by its name, with a remedy and in words of ours."""
    found, said = attempt(reader, DataError)
    assert said is None or (str(path) in said and any(words in said for words in REMEDIES)), said
    assert said is None or "Error" not in said, said
    return found


@contextlib.contextmanager
def replaced(path: Path, change: Callable[[bytes], bytes]) -> Iterator[Path]:
    """The file with other bytes, for as long as the block lasts."""
    before = path.read_bytes()
    path.write_bytes(change(before))
    yield path
    path.write_bytes(before)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A data root with a small file for every reader."""
    folder = tmp_path_factory.mktemp("root")
    write_root(folder)
    for form, name in NAMES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("".join(f"{line}\n" for line in LINES[form]), encoding="utf-8")
    return folder


# Digits


def plain_idx(path: Path, dimensions: int) -> np.ndarray:
    content = path.read_bytes()
    magic, *shape = struct.unpack_from(f">{1 + dimensions}I", content)
    assert magic == 0x800 + dimensions
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def check_digits(root: Path, path: Path) -> None:
    found = read(lambda: load_digits(root, accept_unknown=True), path)
    if found is None:
        return
    modality, split = ("svhn" if path.suffix else "mnist"), ("train" if "train" in path.name else "test")
    paths = [root / name for name in FILES_OF[modality, split]]
    if modality == "svhn":
        stored = loadmat(path, variable_names=["X", "y"])
        images, labels = stored["X"].transpose(3, 2, 0, 1), stored["y"].ravel() % 10
    else:
        images, labels = plain_idx(paths[0], 3)[:, None], plain_idx(paths[1], 1)
    digits = getattr(found, split)[modality]
    np.testing.assert_array_equal(digits.images.numpy(), images)
    np.testing.assert_array_equal(digits.labels.numpy(), labels)


@settings(quietly, max_examples=200)
@given(st.sampled_from(FILE_NAMES), st.booleans(), DAMAGES)
def test_digits_with_damaged_bytes(root, name, in_head, damages):
    head = min(200 / (root / name).stat().st_size, 1.0) if in_head else 1.0
    near = [(kind, share * head, *rest) for kind, share, *rest in damages]
    with replaced(root / name, lambda content: damaged(content, near)) as path:
        check_digits(root, path)


KINDS = st.sampled_from(["u1", "i1", "u2", "i8", "u8", "f4", "f8", "c16", "?", "U3", "O"])
SHAPES = st.sampled_from([
    (32, 32, 3, 20), (32, 32, 3, 19), (20, 32, 32, 3), (32, 32, 60), (20,), (20, 1), (1, 20), (4, 5), (0, 0), (),
])  # fmt: skip


@settings(quietly, max_examples=100)
@given(KINDS, SHAPES, KINDS, SHAPES, st.integers(0, 9), st.sampled_from(["", "nan", "sparse", "struct", "compressed"]))
def test_svhn_with_arrays_of_another_kind(root, kind, shape, label_kind, label_shape, first, twist):
    # Each object is stored by itself, so an image's take a second.
    shape, label_shape = (s[-2:] if k == "O" else s for k, s in ((kind, shape), (label_kind, label_shape)))
    pixels = (np.arange(np.prod(shape, dtype=int)) % 256).reshape(shape).astype(kind)
    labels = ((np.arange(np.prod(label_shape, dtype=int)) + first) % 10 + 1).reshape(label_shape).astype(label_kind)
    if twist == "nan" and labels.size and labels.dtype.kind == "f":
        labels.flat[0] = np.nan
    elif twist == "sparse" and labels.ndim == 2 and labels.dtype.kind in "uif":
        labels = csc_array(labels)
    elif twist == "struct":
        labels = {"y": labels}
    with replaced(root / "train_32x32.mat", lambda before: before) as path:
        savemat(path, {"X": pixels, "y": labels}, do_compression=twist == "compressed")
        check_digits(root, path)


# Series


def check_series(form: str, path: Path) -> list[list[float]] | None:
    """The rows that are read, if they are; they are those of a plain reader."""
    found = read(lambda: (read_runoff if form in ("river", "gauge") else read_eye_state)(path), path)
    if found is None:
        return None
    lines = [line for line in path.read_text("utf-8-sig").split("\n") if line.strip() and not line.startswith("%")]
    if form in ("river", "gauge"):
        rows = [line.split() for line in lines[form == "river" :]]
        assert {len(row) for row in rows} == {6}
        days = [date(*map(int, row[1:4] if form == "gauge" else row[:3])) for row in rows]
        assert days == [found.first + timedelta(days=number) for number in range(len(rows))]
        values = np.array([row[4 if form == "gauge" else 5] for row in rows], np.float32)
        np.testing.assert_array_equal(found.values.numpy(), values)
        return values.tolist()
    head = 1 + [line.upper() for line in lines].index("@DATA") if "ARFF" in form else 1
    rows = np.array([[float(field.strip(" \t'\"")) for field in line.split(",")] for line in lines[head:]])
    np.testing.assert_array_equal(found[0], rows[:, :-1])
    np.testing.assert_array_equal(found[1], rows[:, -1] - FORMS[form][2])
    return rows.tolist()


WORDS = st.sampled_from([
    "nan", "inf", "-999", "-9999.0", "", "NA", "?", "1_0", "0x10", "½", "²", "٣", "1,5", "1.5.2", "1e999", "1e30", "-1",
    "1e-400", "-0.0", "--", "'5'", '"5"', "5 6", "\x00", "\u2028", "\x0c", "@data", "%", "2000", "0", "2", "A:e", "M",
])  # fmt: skip
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["word", "more", "less", "twice", "gone", "swap", "up"]),
        st.floats(0, 1), st.floats(0, 1), WORDS,
    ),
    min_size=1, max_size=3,
)  # fmt: skip


def changed(lines: list[str], changes, between: str | None) -> list[str]:
    """Words of lines changed, put in, left out and exchanged, and lines too. between: what stands between words."""
    lines = list(lines)
    for kind, share, place, word in changes:
        at = min(int(share * len(lines)), len(lines) - 1)
        words = lines[at].split(between)
        spot = min(int(place * len(words)), max(len(words) - 1, 0))
        words[spot : spot + (kind in ("word", "less"))] = [word] if kind in ("word", "more") else []
        if kind == "swap":
            words.reverse()
        new = [(between or " ").join(words)]
        lines[at : at + 1] = {"twice": 2 * lines[at : at + 1], "gone": [], "up": []}.get(kind, new)
        if kind == "up":
            lines.insert(0, (between or " ").join(words))
        lines = lines or [""]
    return lines


FORM = st.sampled_from(sorted(NAMES))
ENCODINGS = st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1", "cp037"])


@settings(quietly, max_examples=200)
@given(FORM, CHANGES, ENCODINGS, st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_series_with_other_words_and_lines(root, form, changes, encoding, end):
    lines = changed(LINES[form], changes, None if form in ("river", "gauge") else ",")
    content = end.join([*lines, ""]).encode(encoding, errors="replace")
    with replaced(root / NAMES[form], lambda _: content) as path:
        check_series(form, path)


@settings(quietly, max_examples=150)
@given(FORM, DAMAGES)
def test_series_with_damaged_bytes(root, form, damages):
    with replaced(root / NAMES[form], lambda content: damaged(content, damages)) as path:
        check_series(form, path)


@pytest.mark.parametrize("form", NAMES)
def test_a_series_that_is_cut_anywhere_is_refused_or_is_its_beginning(root, form):
    all_of_it = check_series(form, root / NAMES[form])
    assert len(all_of_it) == 12
    for kept in range(len((root / NAMES[form]).read_bytes())):
        with replaced(root / NAMES[form], lambda content, kept=kept: content[:kept]) as path:
            found = check_series(form, path)
        assert found is None or found == all_of_it[: len(found)]


# DEAP


SHAPES_OF_DEAP = {"data": (2, 40, 6), "labels": (2, 4)}


@settings(quietly, max_examples=100)
@given(st.integers(0, 5), st.sampled_from(sorted(SHAPES_OF_DEAP)), st.one_of(st.none(), VALUES), DAMAGES)
def test_deap_with_damaged_bytes_or_another_content(tmp_path, monkeypatch, protocol, key, value, damages):
    monkeypatch.setattr(data, "DEAP_SHAPES", SHAPES_OF_DEAP)
    content = {name: np.full(shape, 5.5) for name, shape in SHAPES_OF_DEAP.items()}
    if value is not None:
        content[key], damages = value, []
    path = tmp_path / "s01.dat"
    path.write_bytes(damaged(pickle.dumps(content, protocol), [each for each in damages if each[0] in ("cut", "turn")]))
    found = read(lambda: read_deap(path), path)
    if found is not None:
        assert (found.samples.shape, found.ratings.shape) == ((2, 32, 6), (2, 4))
        assert np.isfinite(found.samples).all()
        assert 1 <= found.ratings.min() <= found.ratings.max() <= 9


# Whole files


READERS = {
    **dict.fromkeys(FILE_NAMES, lambda path: load_digits(path.parents[2 * (not path.suffix)], accept_unknown=True)),
    NAMES["river"]: lambda path: load_runoff(path.parents[1]),
    NAMES["CSV"]: lambda path: load_eye_state(path.parents[1]),
    "s01.dat": read_deap,
}


def refuse(path: Path, monkeypatch) -> None:
    """The file cannot be opened, as that of another user; root, who runs many tests, can open everything."""

    def guarded(file, *arguments, opened=io.open, **named):
        if str(file) == str(path):
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, *arguments, **named)

    for module in (io, builtins):
        monkeypatch.setattr(module, "open", guarded)


WHOLE = {
    "empty": lambda path, _: path.write_bytes(b""),
    "folder": lambda path, _: (path.unlink(), path.mkdir()),
    "packed": lambda path, _: path.write_bytes(gzip.compress(path.read_bytes())),
    "page": lambda path, _: path.write_text("<!DOCTYPE html><html>404 not found</html>\n"),
    "refused": refuse,
    "link to nothing": lambda path, _: (path.unlink(), path.symlink_to("nowhere")),
}


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("name", READERS)
def test_a_file_that_is_no_such_file_at_all(root, tmp_path, monkeypatch, name, kind):
    shutil.copytree(root, tmp_path / "root")
    path = tmp_path / "root" / name
    path.touch()
    WHOLE[kind](path, monkeypatch)
    _, said = attempt(lambda: READERS[name](path), DataError)
    assert name in said
    assert any(words in said for words in REMEDIES), said
    assert "Error" not in said


def test_a_root_behind_a_locked_door_or_of_nobody_is_an_error_of_ours(root, monkeypatch, capsys):
    with pytest.raises(DataError, match=r"the data root ~nobody_here/data lacks .*Download"):
        load_digits("~nobody_here/data")
    assert load_runoff("~nobody_here/data").kind == "stand-in"
    assert "~nobody_here/data has no river" in capsys.readouterr().out
    monkeypatch.setattr(os, "stat", functools.partial(locked, root, os.stat))
    with pytest.raises(DataError, match="lacks .*may not look into it"):
        load_digits(root)


def locked(root: Path, stat: Callable, path, **named):
    if str(path).startswith(str(root)):
        raise PermissionError(13, "Permission denied", str(path))
    return stat(path, **named)
