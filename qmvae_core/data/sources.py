"""MNIST and SVHN: found, downloaded, checked; and the stand-in where there are none.

A data root has the layout that torchvision's own downloads leave:

    MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte
    train_32x32.mat  test_32x32.mat
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.io import loadmat
from torch import Tensor

from qmvae_core.data import standin
from qmvae_core.data.digits import MODALITIES, DataError, DigitData, Digits, _shape
from qmvae_core.data.pairing import digit_counts
from qmvae_core.names import STAND_IN

_CHECKOUT = Path(__file__).resolve().parents[2]
# In a checkout the same from a notebook as from a terminal; installed elsewhere, where the work is done.
DEFAULT_ROOT = (_CHECKOUT if (_CHECKOUT / "pyproject.toml").is_file() else Path.cwd()) / "data"


OFFICIAL_COUNTS = {"train": {"mnist": 60_000, "svhn": 73_257}, "test": {"mnist": 10_000, "svhn": 26_032}}


# modality, split -> files below the data root
FILES = {
    ("mnist", "train"): ("MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/train-labels-idx1-ubyte"),
    ("mnist", "test"): ("MNIST/raw/t10k-images-idx3-ubyte", "MNIST/raw/t10k-labels-idx1-ubyte"),
    ("svhn", "train"): ("train_32x32.mat",),
    ("svhn", "test"): ("test_32x32.mat",),
}


# torchvision, imported where it is used because that takes seconds, publishes MNIST's sums of compressed files only.
OFFICIAL_MD5 = {
    "MNIST/raw/train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "MNIST/raw/train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "MNIST/raw/t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "MNIST/raw/t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}


# File -> the content hash of a rebuild and what it is. By content, because one .mat content can have many byte forms.
KNOWN_REBUILDS = {
    "train_32x32.mat": (
        "9c3ced4ea4feac6b8f514bb613bf18431361a4ae709b18df69d82b5471213b4b",
        "SVHN train: re-cropped from the official full-number images, near-exact, not the official bytes",
    ),
    "test_32x32.mat": (
        "c635bfea497d7de8d99cef4f0ef3336dfb5187a7fa69bba32ffaede203090824",
        "SVHN test: the first 10,000 official digits, pixel-exact, not the official file",
    ),
}


# pair_checksum(*pair_indices(...)) of the official training labels, MNIST then SVHN, 30 rounds, seed 0.
OFFICIAL_TRAIN_PAIRS = "68a30bbd54ea1ea22e71ff13d4fb4185ad859088dca9db4abb24879628aa56a9"


def load_digits(root: str | Path | None = None, *, download: bool = True, accept_unknown: bool = False) -> DigitData:
    """The digits of a data root, checked.

    root: a folder, or "stand-in" for the built-in stand-in. Without it the environment's QMVAE_DATA_ROOT counts;
    without that, data/ in the repository. Where that lacks files they are downloaded (if download is true and the hosts
    answer); where it has none of them and nothing can be downloaded, the stand-in takes its place and says so.
    accept_unknown (or QMVAE_ACCEPT_UNKNOWN=1): take files that are neither official nor a known rebuild, and record
    that. SVHN is for non-commercial use only.

    Raises DataError for a chosen root that lacks files, and for files that are damaged, unsuitable or unknown.
    """
    accept_unknown = accept_unknown or os.environ.get("QMVAE_ACCEPT_UNKNOWN") == "1"
    chosen = chosen_root(root)
    if chosen is not None:
        return standin_digits() if str(chosen) == STAND_IN else _load_root(Path(chosen), accept_unknown)

    missing = _missing_files(DEFAULT_ROOT)
    if missing and download and network_answers():
        _download(DEFAULT_ROOT, missing)
        missing = _missing_files(DEFAULT_ROOT)
    if len(missing) == len(OFFICIAL_MD5):
        reason = "no data root was given, data/ holds no MNIST or SVHN, and nothing was downloaded"
        _announce_standin(reason)
        return standin_digits(reason=reason)
    return _load_root(DEFAULT_ROOT, accept_unknown)


def chosen_root(root: str | Path | None = None) -> str | Path | None:
    """The data root that is named by the argument or, without it, by QMVAE_DATA_ROOT; None where neither names one."""
    chosen = root if root is not None else os.environ.get("QMVAE_DATA_ROOT") or None
    return chosen if chosen is None else os.path.expanduser(chosen)


def real_data_at_hand(root: str | Path | None = None) -> bool:
    """Whether load_digits(root) would find real files without a download. It looks for them and does not read them."""
    chosen = chosen_root(root)
    return str(chosen) != STAND_IN if chosen is not None else len(_missing_files(DEFAULT_ROOT)) < len(OFFICIAL_MD5)


def standin_digits(seed: int = 0, *, reason: str = "it was asked for") -> DigitData:
    """The built-in stand-in, on the CPU: small, quick, and no evidence about the paper.

    "mnist": 1,400 and 397 real handwritten digits; "svhn": 2,000 and 400 rendered house numbers, a function of the
    seed. The same versions of Pillow, NumPy and scikit-learn give the same bytes. reason: why it is used, for notes.
    """
    parts = {"mnist": standin.handwritten_digits(), "svhn": standin.rendered_house_numbers(seed)}
    splits = {
        split: {name: Digits(*map(torch.from_numpy, part[split])) for name, part in parts.items()}
        for split in ("train", "test")
    }
    hashes = {
        f"{name} {split}": _content_hash(digits.labels, digits.images)
        for split, named in splits.items()
        for name, digits in named.items()
    }
    notes = [f"The built-in stand-in is used ({reason}): not MNIST and SVHN, so no evidence about the paper"]
    return DigitData(**splits, identity=_identity(STAND_IN, splits, {}, notes, hashes))


def network_answers(timeout: float = 4.0) -> bool:
    """Whether both download hosts answer within timeout seconds.

    Asked in threads that nobody waits for afterwards, because a name look-up without a network ignores timeouts.
    """
    from torchvision import datasets

    mnist = {mirror + datasets.MNIST.resources[0][0] for mirror in datasets.MNIST.mirrors}
    svhn = {datasets.SVHN.split_list["test"][0]}
    answers: dict[str, bool] = {}

    def ask(address: str) -> None:
        answers[address] = _answers(address, timeout)

    for address in mnist | svhn:
        threading.Thread(target=ask, args=(address,), daemon=True).start()
    until = time.monotonic() + timeout
    while True:
        found = all(any(answers.get(address) for address in group) for group in (mnist, svhn))
        if found or len(answers) == len(mnist | svhn) or time.monotonic() > until:
            return found
        time.sleep(0.02)


def _answers(address: str, timeout: float) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=timeout):
            return True
    except (OSError, http.client.HTTPException):
        return False


def _missing_files(root: Path) -> list[str]:
    return [name for name in OFFICIAL_MD5 if not os.path.isfile(root / name)]


def _download(root: Path, missing: list[str]) -> None:
    """Fetch the missing files only: torchvision would replace a rebuilt file beside them."""
    from torchvision import datasets

    try:
        if any(name.startswith("MNIST") for name in missing):
            datasets.MNIST(root, download=True)
        for split in ("train", "test"):
            if f"{split}_32x32.mat" in missing:
                datasets.SVHN(root, split=split, download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"the download into {root} failed ({error}). Delete what it left there and try again, "
            f'or use the stand-in: load_digits("{STAND_IN}")'
        ) from error


def _announce_standin(reason: str) -> None:
    # Printed and not warned: a warning goes to standard error, which a strict notebook check reads as a failure.
    bar = "=" * 88
    print(
        f"{bar}\nSTAND-IN DATA, not MNIST and SVHN: {reason}.\n"
        "Numbers from here on show that the code runs; they say nothing about the paper.\n"
        f"For the real data set QMVAE_DATA_ROOT to a data root, or run again with a network.\n{bar}"
    )


def _load_root(root: Path, accept_unknown: bool) -> DigitData:
    missing = _missing_files(root)
    if missing:
        raise DataError(
            f"the data root {root} lacks {', '.join(missing)}, or you may not look into it. Unpack what is packed. "
            "Download with torchvision.datasets.MNIST(root, download=True) and SVHN(root, split, download=True), "
            f'name another root, or use the stand-in: load_digits("{STAND_IN}")'
        )
    splits, files, notes = {"train": {}, "test": {}}, {}, []
    for (modality, split), names in FILES.items():
        digits, hashes = _READERS[modality]([root / name for name in names])
        for name, content in zip(names, hashes, strict=True):
            files[name] = {"status": _status(root / name, name, content, accept_unknown), "sha256": content}
            if files[name]["status"] == "unknown":
                notes.append(f"{name}: unknown content, accepted by request")
            elif files[name]["status"] == "known rebuild":
                notes.append(KNOWN_REBUILDS[name][1])
        _check_every_digit(digits.labels, root / names[-1])
        if digits.images.max() < 2:
            raise DataError(f"{root / names[0]} has no pixel above 1, so it does not go from 0 to 255. Fetch it again.")
        official = OFFICIAL_COUNTS[split][modality]
        if len(digits) != official:
            notes.append(f"{modality.upper()} {split}: {len(digits)} of the official {official} digits")
        splits[split][modality] = digits
    hashes = {name: entry["sha256"] for name, entry in files.items()}
    return DigitData(**splits, identity=_identity("real", splits, files, notes, hashes))


def _identity(kind: str, splits: dict, files: dict, notes: list[str], hashes: dict[str, str]) -> dict:
    counts = {split: {name: len(digits) for name, digits in named.items()} for split, named in splits.items()}
    return {
        "kind": kind,
        "files": files,
        "n_train": counts["train"],
        "n_test": counts["test"],
        "n_test_official": dict(OFFICIAL_COUNTS["test"]),
        "notes": notes,
        "content_hash": hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest(),
    }


def _status(path: Path, name: str, content: str, accept_unknown: bool) -> str:
    """What the file is; raises DataError where that is unknown and not accepted."""
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "md5").hexdigest() == OFFICIAL_MD5[name]:
            return "official"
    if name in KNOWN_REBUILDS and content == KNOWN_REBUILDS[name][0]:
        return "known rebuild"
    if accept_unknown:
        return "unknown"
    raise DataError(
        f"{path} is damaged or another version: its sum is not the official one and its content (sha256 {content}) is "
        "no known rebuild. Fetch it again; or, if it is what you mean to use, pass accept_unknown=True or set "
        "QMVAE_ACCEPT_UNKNOWN=1, and the record will say unknown."
    )


def _content_hash(*parts: Tensor) -> str:
    """SHA-256 of the parts' values as bytes, in order: independent of the file format that held them."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.to(torch.uint8).contiguous().numpy())
    return digest.hexdigest()


def _decode(path: Path, reader: Callable):
    """reader(path); whatever a reader raises on damaged bytes (they have no common class) becomes a DataError."""
    try:
        return reader(path)
    except Exception as error:
        why = getattr(error, "strerror", None) or "it is truncated, damaged or still packed"
        raise DataError(f"{path} cannot be read: {why}. Make it readable, or fetch it again.") from None


def _read_mnist(paths: list[Path]) -> tuple[Digits, list[str]]:
    """The digits of an image and a label file, and the content hash of each file."""
    from torchvision.datasets import mnist as idx

    images = _decode(paths[0], idx.read_image_file)[:, None]
    labels = _decode(paths[1], idx.read_label_file)
    _check_images(images, MODALITIES["mnist"], paths[0])
    _check_labels(labels, len(images), range(10), paths[1])
    return Digits(images, labels), [_content_hash(images), _content_hash(labels)]


def _read_svhn(paths: list[Path]) -> tuple[Digits, list[str]]:
    """The digits of a .mat file, and its content hash: labels, then pixels in the order (n, c, h, w)."""
    (path,) = paths
    content = _decode(path, lambda file: loadmat(file, variable_names=["X", "y"]))
    if not {"X", "y"} <= content.keys():
        raise DataError(f"{path} lacks the variables X and y, so it is not SVHN's cropped format. Fetch it again.")
    pixels, labels = content["X"], content["y"]
    one_row = max(labels.shape) == labels.size
    if pixels.ndim != 4 or pixels.dtype != np.uint8 or labels.dtype.kind not in "iu" or not one_row:
        raise DataError(
            f"{path}: X must be (32, 32, 3, n) uint8 and y (n, 1) integers, "
            f"not {pixels.shape} {pixels.dtype} and {labels.shape} {labels.dtype}. Fetch it again."
        )
    images = torch.from_numpy(pixels.T)  # (n, 3, width, height), as MATLAB lays them out
    labels = torch.from_numpy(labels.reshape(-1).astype(np.int64))
    _check_images(images, MODALITIES["svhn"], path)
    _check_labels(labels, len(images), range(1, 11), path)
    for block in images.split(4096):  # turned in place: a second copy of all pixels would double the peak of memory
        block.copy_(block.mT.clone())
    labels %= 10  # SVHN writes the digit 0 as 10
    return Digits(images, labels), [_content_hash(labels, images)]


_READERS = {"mnist": _read_mnist, "svhn": _read_svhn}


def _check_images(images: Tensor, shape: tuple[int, int, int], path: Path) -> None:
    if tuple(images.shape[1:]) != shape or len(images) == 0:
        raise DataError(
            f"{path} holds images {_shape(images)}; expected (n, {', '.join(map(str, shape))}). Fetch it again."
        )


def _check_labels(labels: Tensor, count: int, values: range, path: Path) -> None:
    if len(labels) != count:
        raise DataError(f"{path} holds {len(labels)} labels for {count} images. Fetch both again.")
    if labels.min() < values.start or labels.max() >= values.stop:
        raise DataError(f"{path} holds labels outside {values.start} to {values.stop - 1}. Fetch it again.")


def _check_every_digit(labels: Tensor, path: Path) -> None:
    absent = (digit_counts(labels) == 0).nonzero().flatten().tolist()
    if absent:
        raise DataError(
            f"{path} has no image of digit {', '.join(map(str, absent))}; every digit is needed. Fetch it again."
        )
