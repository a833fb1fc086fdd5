"""Data root, checks, stand-in, pairs and splits. Tests marked real_data need a real data root in QMVAE_DATA_ROOT."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat
from scipy.sparse import csc_array
from torchvision import datasets

from qmvae_core import data
from qmvae_core.data import (
    DataError,
    Digits,
    digit_counts,
    load_digits,
    pair_checksum,
    pair_indices,
    standin_digits,
    tuple_indices,
)
from qmvae_study.validation import validation_split

FILE_NAMES = list(data.sources.OFFICIAL_MD5)
MNIST_COUNTS = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}
SVHN_COUNTS = {
    "train": [4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659],
    "test": [1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595],
}


def test_the_official_sums_of_svhn_are_those_that_torchvision_checks():
    for split in ("train", "test"):
        _, name, sum_of_bytes = datasets.SVHN.split_list[split]
        assert data.sources.OFFICIAL_MD5[name] == sum_of_bytes


# A small data root in torchvision's layout


def write_idx(path: Path, values: np.ndarray) -> None:
    header = struct.pack(f">{1 + values.ndim}i", 0x0800 + values.ndim, *values.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def write_mat(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """images (n, 3, 32, 32) and labels 0 to 9, stored as SVHN stores them."""
    stored = np.where(labels == 0, 10, labels).astype(np.uint8)
    savemat(path, {"X": images.transpose(2, 3, 1, 0), "y": stored[:, None]})


def write_root(root: Path, copies: int = 2) -> dict:
    """Write a root with `copies` images of each digit in every split; returns (modality, split) -> (images, labels)."""
    random = np.random.RandomState(7)
    content = {}
    for (modality, split), names in data.sources.FILES.items():
        labels = random.permutation(np.repeat(np.arange(10), copies))
        images = random.randint(0, 256, size=(len(labels), *data.MODALITIES[modality])).astype(np.uint8)
        if modality == "mnist":
            write_idx(root / names[0], images[:, 0])
            write_idx(root / names[1], labels)
        else:
            write_mat(root / names[0], images, labels)
        content[modality, split] = (images, labels)
    return content


@pytest.fixture
def small_root(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    write_root(root)
    return root


@pytest.fixture
def official_root(small_root, monkeypatch):
    """The small root, whose sums stand for the official ones."""
    for name in FILE_NAMES:
        monkeypatch.setitem(data.sources.OFFICIAL_MD5, name, hashlib.md5((small_root / name).read_bytes()).hexdigest())
    return small_root


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch, request):
    """No setting of the machine reaches a test, except the real root a test asks for."""
    monkeypatch.delenv("QMVAE_ACCEPT_UNKNOWN", raising=False)
    if "real_data" not in request.keywords:
        monkeypatch.delenv("QMVAE_DATA_ROOT", raising=False)


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """An empty working directory without a network."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(data.sources, "DEFAULT_ROOT", Path("data"))
    monkeypatch.setattr(data.sources, "network_answers", lambda: False)
    return folder


@pytest.fixture
def few_rendered(monkeypatch):
    """A smaller stand-in, where a test asks only whether it is used."""
    monkeypatch.setattr(data.standin, "RENDERED", {"train": 40, "test": 20})


# Reading a root


def test_a_root_is_read_as_written(tmp_path):
    content = write_root(tmp_path, copies=3)
    loaded = load_digits(tmp_path, accept_unknown=True)
    for (modality, split), (images, labels) in content.items():
        digits = getattr(loaded, split)[modality]
        assert digits.images.is_contiguous()
        assert digits.images.dtype == torch.uint8
        np.testing.assert_array_equal(digits.images.numpy(), images)
        np.testing.assert_array_equal(digits.labels.numpy(), labels)


def test_more_images_than_one_block_are_turned_alike(tmp_path):
    labels = np.arange(9000) % 10
    images = np.random.RandomState(0).randint(0, 256, size=(9000, 3, 32, 32)).astype(np.uint8)
    write_mat(tmp_path / "digits.mat", images, labels)
    digits, _ = data.sources._read_svhn([tmp_path / "digits.mat"])
    np.testing.assert_array_equal(digits.images.numpy(), images)


def test_identity_of_an_official_root(official_root):
    identity = load_digits(official_root).identity
    assert identity["kind"] == "real"
    assert {entry["status"] for entry in identity["files"].values()} == {"official"}
    assert sorted(identity["files"]) == sorted(FILE_NAMES)
    assert identity["n_train"] == identity["n_test"] == {"mnist": 20, "svhn": 20}
    assert identity["n_test_official"] == {"mnist": 10_000, "svhn": 26_032}
    assert "SVHN test: 20 of the official 26032 digits" in identity["notes"]
    assert json.loads(json.dumps(identity)) == identity


def test_content_hash_ignores_the_container_and_sees_the_content(tmp_path):
    content = write_root(tmp_path)
    before = load_digits(tmp_path, accept_unknown=True).identity
    images, labels = content["svhn", "test"]
    stored = {"X": images.transpose(2, 3, 1, 0), "y": np.where(labels == 0, 10, labels)[:, None].astype(np.int32)}
    savemat(tmp_path / "test_32x32.mat", stored, do_compression=True)
    assert load_digits(tmp_path, accept_unknown=True).identity == before

    images[3, 1, 4, 5] ^= 1
    write_mat(tmp_path / "test_32x32.mat", images, labels)
    after = load_digits(tmp_path, accept_unknown=True).identity
    assert after["content_hash"] != before["content_hash"]
    assert after["files"]["test_32x32.mat"] != before["files"]["test_32x32.mat"]
    assert after["files"]["train_32x32.mat"] == before["files"]["train_32x32.mat"]


def test_a_known_rebuild_is_accepted_and_named(official_root, monkeypatch):
    content = load_digits(official_root).identity["files"]["test_32x32.mat"]["sha256"]
    monkeypatch.setitem(data.sources.OFFICIAL_MD5, "test_32x32.mat", "0" * 32)
    with pytest.raises(DataError, match="test_32x32.mat"):
        load_digits(official_root)
    monkeypatch.setitem(data.sources.KNOWN_REBUILDS, "test_32x32.mat", (content, "SVHN test: a rebuild"))
    identity = load_digits(official_root).identity
    assert identity["files"]["test_32x32.mat"]["status"] == "known rebuild"
    assert "SVHN test: a rebuild" in identity["notes"]


def test_a_rebuild_is_known_under_its_own_name_only(official_root, monkeypatch):
    content = load_digits(official_root).identity["files"]["train_32x32.mat"]["sha256"]
    monkeypatch.setitem(data.sources.KNOWN_REBUILDS, "train_32x32.mat", (content, "SVHN train: a rebuild"))
    shutil.copy(official_root / "train_32x32.mat", official_root / "test_32x32.mat")
    with pytest.raises(DataError, match="test_32x32.mat is damaged or another version"):
        load_digits(official_root)


def test_unknown_files_are_refused_unless_accepted(small_root, monkeypatch):
    with pytest.raises(DataError, match="damaged or another version.*accept_unknown=True.*QMVAE_ACCEPT_UNKNOWN=1"):
        load_digits(small_root)
    by_argument = load_digits(small_root, accept_unknown=True).identity
    assert {entry["status"] for entry in by_argument["files"].values()} == {"unknown"}
    assert all(f"{name}: unknown content, accepted by request" in by_argument["notes"] for name in FILE_NAMES)
    monkeypatch.setenv("QMVAE_ACCEPT_UNKNOWN", "1")
    assert load_digits(small_root).identity == by_argument
    monkeypatch.setenv("QMVAE_ACCEPT_UNKNOWN", "0")
    with pytest.raises(DataError):
        load_digits(small_root)


# Damage


@pytest.mark.parametrize("place", [0.0, 0.0005, 0.01, 0.4, 0.7, 0.999, "the last byte is lost"])
@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_flipped_bit_or_a_lost_byte_is_caught(official_root, name, place):
    content = bytearray((official_root / name).read_bytes())
    if isinstance(place, float):
        content[int(place * len(content))] ^= 1
    else:
        content.pop()
    (official_root / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        load_digits(official_root)


@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.9])
@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_truncated_file_is_caught_even_where_unknown_is_accepted(small_root, name, kept):
    content = (small_root / name).read_bytes()
    (small_root / name).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DataError, match=name):
        load_digits(small_root, accept_unknown=True)


def test_all_missing_files_are_named_with_the_remedy(small_root):
    for count, name in enumerate(FILE_NAMES, start=1):
        (small_root / name).unlink()
        with pytest.raises(DataError, match=f"{small_root} lacks {', '.join(FILE_NAMES[:count])}.*Download"):
            load_digits(small_root, accept_unknown=True)


def _mnist_images(shape):
    return lambda root: write_idx(root / FILE_NAMES[0], np.zeros(shape))


def _mnist_labels(labels):
    return lambda root: write_idx(root / FILE_NAMES[1], np.array(labels))


def _svhn(**changes):
    usual = {"X": np.zeros((32, 32, 3, 20), np.uint8), "y": (np.arange(20) % 10 + 1).astype(np.uint8)[:, None]}
    stored = {key: value for key, value in {**usual, **changes}.items() if value is not None}
    return lambda root: savemat(root / "train_32x32.mat", stored)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_mnist_images((20, 27, 28)), "expected"),
        (_mnist_images((0, 28, 28)), "expected|cannot be read"),
        (_mnist_images((20, 784)), "cannot be read"),
        (_mnist_labels(np.arange(19) % 10), "19 labels for 20 images"),
        (_mnist_labels(np.arange(20) % 11), "outside 0 to 9"),
        (_mnist_labels(np.arange(20) % 9), "no image of digit 9"),
        (_svhn(X=np.zeros((32, 31, 3, 20), np.uint8)), "expected"),
        (_svhn(X=np.zeros((32, 32, 3, 20))), "must be"),
        (_svhn(X=np.zeros((32, 32, 20), np.uint8)), "must be"),
        (_svhn(y=np.linspace(1, 10, 20)[:, None]), "must be"),
        (_svhn(y=(np.arange(20) % 10 + 1).reshape(4, 5)), r"must be .* not .*\(4, 5\)"),
        (_svhn(y=csc_array(np.ones((20, 1)))), "must be .* float64"),
        (_svhn(X=np.ones((32, 32, 3, 20), np.uint8)), "no pixel above 1"),
        (_svhn(y=np.arange(20)[:, None] % 10), "outside 1 to 10"),
        (_svhn(y=np.arange(20)[:, None] % 11 + 1), "outside 1 to 10"),
        (_svhn(y=np.arange(21)[:, None] % 10 + 1), "21 labels for 20 images"),
        (_svhn(y=np.arange(20)[:, None] % 9 + 1), "no image of digit 0"),
        (_svhn(y=None), "lacks the variables"),
    ],
)
def test_unsuitable_content_is_refused_even_where_unknown_is_accepted(small_root, damage, message):
    damage(small_root)
    with pytest.raises(DataError, match=message):
        load_digits(small_root, accept_unknown=True)


def test_an_image_of_few_levels_above_one_is_taken(small_root):
    _svhn(X=np.full((32, 32, 3, 20), 2, np.uint8))(small_root)
    assert load_digits(small_root, accept_unknown=True).train["svhn"].images.max() == 2


# Which root


def test_parameter_beats_environment_beats_default(tmp_path, empty_folder, monkeypatch):
    roots = {"parameter": tmp_path / "parameter", "environment": tmp_path / "environment", "default": Path("data")}
    for copies, root in enumerate(roots.values(), start=1):
        write_root(root, copies)

    def images(*arguments):
        return len(load_digits(*arguments, accept_unknown=True).train["mnist"])

    assert images() == 30
    monkeypatch.setenv("QMVAE_DATA_ROOT", "")
    assert images() == 30
    monkeypatch.setenv("QMVAE_DATA_ROOT", str(roots["environment"]))
    assert images() == 20
    assert images(roots["parameter"]) == images(str(roots["parameter"])) == 10


def test_a_chosen_root_is_never_replaced(tmp_path, empty_folder, monkeypatch):
    write_root(Path("data"))
    monkeypatch.setattr(data.sources, "_download", lambda *_: pytest.fail("a chosen root is not downloaded into"))
    monkeypatch.setattr(data.sources, "network_answers", lambda: True)
    with pytest.raises(DataError, match="lacks"):
        load_digits(tmp_path / "empty", accept_unknown=True)
    monkeypatch.setenv("QMVAE_DATA_ROOT", str(tmp_path / "empty"))
    with pytest.raises(DataError, match="lacks"):
        load_digits(accept_unknown=True)


def test_without_data_and_network_the_stand_in_is_announced(empty_folder, few_rendered, capsys):
    loaded = load_digits()
    printed = capsys.readouterr()
    assert "STAND-IN DATA, not MNIST and SVHN" in printed.out
    assert "QMVAE_DATA_ROOT" in printed.out
    assert printed.err == ""
    assert loaded.identity["kind"] == data.STAND_IN
    assert "nothing was downloaded" in loaded.identity["notes"][0]
    assert not (empty_folder / "data").exists()


def test_no_download_means_no_question_to_the_network(empty_folder, few_rendered, monkeypatch):
    monkeypatch.setattr(data.sources, "network_answers", lambda: pytest.fail("the network was asked"))
    assert load_digits(download=False).identity["kind"] == data.STAND_IN


@pytest.mark.parametrize("by_environment", [False, True])
def test_the_stand_in_can_be_asked_for(small_root, few_rendered, monkeypatch, capsys, by_environment):
    if by_environment:
        monkeypatch.setenv("QMVAE_DATA_ROOT", data.STAND_IN)
        loaded = load_digits()
    else:
        monkeypatch.setenv("QMVAE_DATA_ROOT", str(small_root))
        loaded = load_digits(data.STAND_IN)
    assert loaded.identity["kind"] == data.STAND_IN
    assert "asked for" in loaded.identity["notes"][0]
    assert capsys.readouterr().out == ""


def test_a_default_root_in_parts_is_an_error_not_the_stand_in(empty_folder):
    write_root(Path("data"))
    Path("data/test_32x32.mat").unlink()
    with pytest.raises(DataError, match="lacks test_32x32.mat"):
        load_digits(accept_unknown=True)


def test_only_what_is_missing_is_downloaded(tmp_path, empty_folder, monkeypatch):
    write_root(tmp_path / "source")
    write_root(Path("data"))
    Path("data/test_32x32.mat").unlink()
    asked = []

    def fetch_svhn(root, split, download):
        asked.append((Path(root), split, download))
        shutil.copy(tmp_path / "source" / f"{split}_32x32.mat", root)

    monkeypatch.setattr(data.sources, "network_answers", lambda: True)
    monkeypatch.setattr(datasets, "SVHN", fetch_svhn)
    monkeypatch.setattr(datasets, "MNIST", lambda *_, **__: pytest.fail("MNIST was there"))
    assert load_digits(accept_unknown=True).identity["kind"] == "real"
    assert asked == [(Path("data"), "test", True)]


def test_a_broken_download_is_an_error(empty_folder, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("Error downloading")

    monkeypatch.setattr(data.sources, "network_answers", lambda: True)
    monkeypatch.setattr(datasets, "MNIST", broken)
    with pytest.raises(DataError, match="download into data failed.*Delete"):
        load_digits()


def test_labels_that_are_no_digits_are_named_by_their_ends():
    with pytest.raises(DataError, match="labels must be 0 to 9, not 3 to 12"):
        data.digits.check_range(torch.tensor([5, 12, 3]))


def test_a_silent_network_is_given_up_in_time(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(data.sources, "_answers", lambda *_: release.wait(60) or True)
    assert data.sources.network_answers(timeout=0.3) is False  # it would be true if it had waited for the answer
    release.set()


@pytest.mark.parametrize(
    ("reachable", "expected"),
    [(("mnist", "housenumbers"), True), (("amazonaws", "housenumbers"), True), (("mnist",), False), ((), False)],
)
def test_both_hosts_must_answer(monkeypatch, reachable, expected):
    monkeypatch.setattr(data.sources, "_answers", lambda address, _: any(part in address for part in reachable))
    assert data.sources.network_answers() is expected


def test_an_answer_that_takes_a_moment_is_waited_for(monkeypatch):
    monkeypatch.setattr(data.sources, "_answers", lambda *_: threading.Event().wait(0.1) or True)
    assert data.sources.network_answers() is True


def test_a_host_answers_when_it_is_asked_for_the_head_of_a_file(monkeypatch):
    asked = []

    @contextlib.contextmanager
    def open_url(request, timeout):
        asked.append((request.full_url, request.get_method(), timeout))
        yield

    monkeypatch.setattr(data.sources.urllib.request, "urlopen", open_url)
    assert data.sources._answers("http://host/file", timeout=2) is True
    assert asked == [("http://host/file", "HEAD", 2)]


def test_a_refused_connection_is_no_answer():
    assert data.sources._answers("http://127.0.0.1:9/file", timeout=2) is False


# Digits


def some_digits(count: int = 24, modality: str = "svhn") -> Digits:
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (count, *data.MODALITIES[modality]), generator=generator, dtype=torch.uint8)
    images[0, 0, 0, :2] = torch.tensor([0, 255], dtype=torch.uint8)
    return Digits(images, torch.arange(count) % 10)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (2, 1, 4)])
def test_batch_gathers_by_an_index_of_any_shape(shape, dtype):
    digits = some_digits()
    index = torch.randint(0, 24, shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    batch = digits.batch(index)
    assert batch.shape == (*shape, 3, 32, 32)
    assert batch.dtype == torch.float32
    for place in np.ndindex(*shape):
        assert torch.equal(batch[place], digits.images[int(index[place])].to(torch.float32) / 255)


def test_batch_of_everything_fills_the_unit_interval_and_leaves_the_bytes():
    digits = some_digits()
    before = digits.images.clone()
    batch = digits.batch()
    assert (batch.min(), batch.max()) == (0, 1)
    assert torch.equal((batch * 255).round().to(torch.uint8), before)
    assert torch.equal(digits.images, before)


def test_batch_refuses_masks():
    with pytest.raises(DataError, match="int32 or int64"):
        some_digits().batch(torch.ones(24, dtype=torch.bool))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batch_on_cuda_agrees_and_never_waits():
    digits, index = some_digits(), torch.tensor([[1, 2], [3, 3]], dtype=torch.int32)
    on_device, index_on_device = digits.to("cuda"), index.to("cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch = on_device.batch(index_on_device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(batch.cpu(), digits.batch(index))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pairs_do_not_depend_on_the_device():
    a, b = sorted_labels([3] * 10), sorted_labels([2] * 10).flip(0)
    on_device = pair_indices(a.to("cuda"), b.to("cuda"), rounds=2)
    assert all(index.is_cuda for index in on_device)
    assert pair_checksum(*on_device) == pair_checksum(*pair_indices(a, b, rounds=2))


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(4, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)),
        (torch.full((4, 1, 28, 28), 255.0), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(4, 1, 28, 28, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.zeros(4)),
        (torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.full((4,), 99)),
        (torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.full((4,), -1)),
        (torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.full((4,), 10)),
    ],
)
def test_digits_of_another_form_are_refused(images, labels):
    with pytest.raises(DataError, match="must (be|lie)"):
        Digits(images, labels)


def test_digits_may_be_none_of_one_kind_or_rows_of_numbers_and_cannot_be_changed():
    digits = some_digits()
    assert len(digits.select(slice(0))) == len(Digits(torch.zeros(0, 1, dtype=torch.uint8), torch.zeros(0).long())) == 0
    assert Digits(torch.zeros(2, 10, dtype=torch.uint8), torch.full((2,), 9)).batch().shape == (2, 10)
    assert digits != some_digits()  # by identity: equal bytes would be compared pixel by pixel
    for made, field in ((digits, "labels"), (data.DigitData({}, {}, {}), "identity")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, field, None)


def test_moved_data_is_the_same_data():
    digits = {"svhn": some_digits()}
    moved = data.DigitData(digits, {"mnist": some_digits(9)}, {"kind": "real"}).to("cpu")
    assert (len(moved.train["svhn"]), len(moved.test["mnist"]), moved.identity) == (24, 9, {"kind": "real"})
    assert torch.equal(moved.train["svhn"].images, digits["svhn"].images)
    assert torch.equal(moved.train["svhn"].labels, digits["svhn"].labels)


# Stand-in


@pytest.fixture(scope="module")
def stand_in():
    return standin_digits()


LOCK = (Path(__file__).resolve().parents[1] / "requirements.lock").read_text(encoding="utf-8")


@pytest.mark.skipif(
    any(f"{name}=={version(name)}" not in LOCK for name in ("pillow", "numpy", "scikit-learn")),
    reason="the bytes are those of the versions in the lock",
)
def test_the_stand_in_has_these_very_bytes(stand_in):
    """Records on stand-in data name this hash; with another one they could not be compared."""
    assert stand_in.identity["content_hash"] == "d309f64fdbe7e1e53d02d3cda1a008d086a09b0944aa6a8fa65786ba1073c3a1"
    assert stand_in.identity["n_test_official"] == {"mnist": 10_000, "svhn": 26_032}
    assert "(it was asked for)" in stand_in.identity["notes"][0]


def test_the_stand_in_depends_on_the_seed_alone(few_rendered):
    """Its identity has a hash of every image and label."""
    first, other = standin_digits(seed=0), standin_digits(seed=1)
    assert standin_digits(seed=0).identity == first.identity
    assert other.identity["content_hash"] != first.identity["content_hash"]
    assert not torch.equal(other.train["svhn"].images, first.train["svhn"].images)
    assert torch.equal(other.train["mnist"].images, first.train["mnist"].images)


def test_the_stand_in_has_the_form_of_the_real_data(stand_in):
    identity = stand_in.identity
    assert identity["kind"] == data.STAND_IN
    assert identity["files"] == {}
    assert identity["n_train"] == {"mnist": 1400, "svhn": 2000}
    assert identity["n_test"] == {"mnist": 397, "svhn": 400}
    assert json.loads(json.dumps(identity)) == identity
    for part in (stand_in.train, stand_in.test):
        for modality, shape in data.MODALITIES.items():
            assert part[modality].images.shape[1:] == shape
            assert (digit_counts(part[modality].labels) > 30).all()
    margin = stand_in.train["mnist"].images.clone()
    margin[:, :, 4:24, 4:24] = 0
    assert margin.max() == 0


def test_the_stand_in_tells_train_from_test(stand_in):
    for modality in data.MODALITIES:
        train, test = (
            [image.tobytes() for image in part[modality].images.numpy()] for part in (stand_in.train, stand_in.test)
        )
        assert len(set(train)) == len(train)
        assert len(set(test)) == len(test)
        assert not set(train) & set(test)


@pytest.mark.parametrize(("modality", "least"), [("mnist", 0.8), ("svhn", 0.5)])
def test_the_stand_in_shows_the_digit_of_its_label(stand_in, modality, least):
    """The nearest mean image (of the contrast with the border, which ink may darken or lighten) tells the digit."""

    def contrast(images):
        grey = images.float().mean(1)
        strength = (grey - grey[:, [0, -1]].mean((1, 2))[:, None, None]).abs().flatten(1)
        return strength / strength.norm(dim=1, keepdim=True)

    train, test = stand_in.train[modality], stand_in.test[modality]
    features = contrast(train.images)
    means = torch.stack([features[train.labels == digit].mean(0) for digit in range(10)])
    found = torch.cdist(contrast(test.images), means).argmin(1)
    assert (found == test.labels).float().mean() > least


# Pairs


def sorted_labels(counts) -> torch.Tensor:
    return torch.arange(10).repeat_interleave(torch.as_tensor(counts))


def shuffled_labels(counts, seed: int) -> torch.Tensor:
    labels = sorted_labels(counts)
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


def tuples_by_loops(labels: list[list[int]], rounds: int, seed: int) -> list[list[int]]:
    """The rule once more, as plainly as it can be said."""
    random = np.random.RandomState(seed)
    result = [[] for _ in labels]
    for digit in range(10):
        places = [[place for place, label in enumerate(values) if label == digit] for values in labels]
        count = min(len(found) for found in places)
        for _ in range(rounds):
            for modality, found in enumerate(places):
                result[modality] += [found[place] for place in random.permutation(count)]
    return result


counts_of_each = st.lists(st.integers(1, 6), min_size=10, max_size=10)


@pytest.mark.parametrize(("split", "pairs"), [("train", 1_682_040), ("test", 300_000)])
def test_official_counts_give_the_papers_totals(split, pairs):
    ia, ib = pair_indices(sorted_labels(MNIST_COUNTS[split]), sorted_labels(SVHN_COUNTS[split]))
    assert len(ia) == len(ib) == pairs
    assert ia.dtype == ib.dtype == torch.int32


def test_synthetic_counts_are_the_official_ones():
    for split, official in data.sources.OFFICIAL_COUNTS.items():
        assert {"mnist": sum(MNIST_COUNTS[split]), "svhn": sum(SVHN_COUNTS[split])} == official


@settings(max_examples=60, deadline=None)
@given(st.lists(counts_of_each, min_size=1, max_size=3), st.integers(1, 4), st.integers(0, 2**31))
def test_tuples_follow_the_rule(counts, rounds, seed):
    labels = {name: shuffled_labels(each, i) for i, (name, each) in enumerate(zip("cab", counts, strict=False))}
    index = tuple_indices(labels, rounds, seed)
    assert list(index) == list(labels)
    expected = tuples_by_loops([values.tolist() for values in labels.values()], rounds, seed)
    assert [found.tolist() for found in index.values()] == expected
    if len(labels) == 2:
        assert [found.tolist() for found in pair_indices(*labels.values(), rounds, seed)] == expected


def test_pairs_depend_on_the_seed_and_on_nothing_else():
    a, b = shuffled_labels([5] * 10, 1), shuffled_labels([6] * 10, 2)
    checksum = pair_checksum(*pair_indices(a, b))
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - the hidden global state that must not matter
    assert pair_checksum(*pair_indices(a, b)) == checksum
    assert pair_checksum(*pair_indices(a.to(torch.uint8), b.int())) == checksum
    assert pair_checksum(*pair_indices(a, b, seed=1)) != checksum
    ia, ib = pair_indices(a, b)
    assert pair_checksum(ib, ia) != checksum
    assert pair_checksum(ia.long(), ib.long()) == checksum


def test_pairs_are_those_of_thirty_rounds_and_the_first_seed_unless_others_are_asked_for():
    a, b = shuffled_labels([2] * 10, 1), shuffled_labels([3] * 10, 2)
    asked = pair_checksum(*pair_indices(a, b, 30, 0))
    assert pair_checksum(*pair_indices(a, b)) == asked
    assert pair_checksum(*tuple_indices({"a": a, "b": b}).values()) == asked


def test_checksum_is_of_the_little_endian_bytes():
    index = torch.tensor([1, 258], dtype=torch.int32)
    assert pair_checksum(index) == hashlib.sha256(bytes([1, 0, 0, 0, 2, 1, 0, 0])).hexdigest()


def test_a_digit_that_all_sides_lack_gives_no_pairs():
    ia, ib = pair_indices(torch.tensor([1, 1, 2]), torch.tensor([2, 2, 1]), rounds=2)
    assert ia.tolist() == [0, 0, 2, 2]
    assert sorted(ib.tolist()) == [0, 0, 2, 2]


@pytest.mark.parametrize(
    ("labels", "rounds", "message"),
    [
        ({}, 1, "one or more"),
        ({"a": torch.arange(10), "b": torch.arange(10)}, 0, "rounds"),
        ({"a": torch.arange(11), "b": torch.arange(10)}, 1, "0 to 9"),
        ({"a": torch.arange(10), "b": torch.arange(-1, 9)}, 1, "0 to 9"),
        ({"a": torch.arange(10) + 0.5, "b": torch.arange(10)}, 1, "one row of integers, not .*torch.float32"),
        ({"a": torch.arange(10).reshape(2, 5), "b": torch.arange(10)}, 1, r"one row of integers, not \(2, 5\)"),
        ({"a": torch.arange(0), "b": torch.arange(0)}, 1, "must be some, and fewer"),
        ({"a": torch.tensor([3])}, 2**31, "2147483648 rounds give 2147483648 pairs; there must be some, and fewer"),
        ({"a": torch.tensor([True])}, 1, "one row of integers, not .*torch.bool"),
        ({"a": torch.tensor([3]), "b": torch.tensor([3, 4])}, 1, "labels of a lack 4, which others have"),
        ({"a": torch.tensor([3, 4]), "b": torch.tensor([3])}, 1, "labels of b lack 4, which others have"),
    ],
)
def test_what_cannot_be_paired_is_an_error(labels, rounds, message):
    with pytest.raises(DataError, match=message):
        tuple_indices(labels, rounds)


@given(st.lists(st.integers(0, 9), max_size=40))
def test_digit_counts(labels):
    assert digit_counts(torch.tensor(labels, dtype=torch.int64)).tolist() == [
        labels.count(digit) for digit in range(10)
    ]


# Validation


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(2, 30), min_size=10, max_size=10), st.sampled_from([0.1, 0.25, 0.5]))
def test_validation_is_the_end_of_each_digit(counts, fraction):
    whole = {}
    for name, each in (("mnist", counts), ("svhn", [count + 1 for count in counts])):
        labels = shuffled_labels(each, 6)
        places = torch.arange(len(labels))
        # Each image says its own place in the file.
        images = torch.stack([places % 256, places // 256], 1).to(torch.uint8).view(-1, 1, 1, 2)
        whole[name] = Digits(images, labels)
    fit, validation = validation_split(whole, fraction)

    def places_of(digits):
        return digits.images[:, 0, 0, 0].long() + 256 * digits.images[:, 0, 0, 1].long()

    for name, labels in ((name, digits.labels) for name, digits in whole.items()):
        kept, held_out = places_of(fit[name]), places_of(validation[name])
        assert torch.equal(validation[name].labels, labels[held_out])
        assert torch.equal(torch.cat([kept, held_out]).sort().values, torch.arange(len(labels)))
        assert torch.equal(kept, kept.sort().values)
        assert torch.equal(held_out, held_out.sort().values)
        for digit, count in enumerate(labels.bincount().tolist()):
            assert int((labels[held_out] == digit).sum()) == -(-count * fraction // 1)
            assert kept[labels[kept] == digit].max() < held_out[labels[held_out] == digit].min()


@pytest.mark.parametrize(
    ("count", "fraction", "message"), [(24, 0.0, "fraction"), (24, 1.0, "fraction"), (10, 0.1, "too few")]
)
def test_what_cannot_be_split_is_an_error(count, fraction, message):
    with pytest.raises(DataError, match=message):
        validation_split({"svhn": some_digits(count)}, fraction)


# The real data


def on_real_data(test):
    lacking = os.environ.get("QMVAE_DATA_ROOT", "") in ("", data.STAND_IN)
    return pytest.mark.real_data(pytest.mark.skipif(lacking, reason="QMVAE_DATA_ROOT names no real data root")(test))


@pytest.fixture(scope="module")
def real():
    return load_digits(os.environ["QMVAE_DATA_ROOT"])


@on_real_data
def test_real_identity(real):
    assert {entry["status"] for entry in real.identity["files"].values()} <= {"official", "known rebuild"}
    assert real.identity["n_train"] == data.sources.OFFICIAL_COUNTS["train"]
    test = real.identity["n_test"]["svhn"]
    noted = f"SVHN test: {test} of the official 26032 digits" in real.identity["notes"]
    assert noted == (test < 26_032)


@on_real_data
def test_real_counts_and_pairs(real):
    labels = {name: digits.labels for name, digits in real.train.items()}
    assert digit_counts(labels["mnist"]).tolist() == MNIST_COUNTS["train"]
    assert digit_counts(labels["svhn"]).tolist() == SVHN_COUNTS["train"]
    index = pair_indices(labels["mnist"], labels["svhn"])
    assert len(index[0]) == 1_682_040
    assert pair_checksum(*index) == data.OFFICIAL_TRAIN_PAIRS


@on_real_data
def test_real_pixels_are_in_place(real):
    """The channel statistics that everybody publishes, and image by image what the .mat file says."""
    mnist, svhn = real.train["mnist"].images.double() / 255, real.train["svhn"].images
    assert mnist.mean() == pytest.approx(0.1307, abs=1e-4)
    assert mnist.std() == pytest.approx(0.3081, abs=1e-4)
    means = [float(svhn[:, channel].double().mean() / 255) for channel in range(3)]
    assert means == pytest.approx([0.4377, 0.4438, 0.4728], abs=2e-4)
    stored = loadmat(Path(os.environ["QMVAE_DATA_ROOT"]) / "test_32x32.mat")
    np.testing.assert_array_equal(real.test["svhn"].images.numpy(), stored["X"].transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(real.test["svhn"].labels.numpy(), stored["y"][:, 0] % 10)


@on_real_data
@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is that of Linux")
def test_real_peak_of_memory():
    program = (
        "import resource; from qmvae_core.data import load_digits\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); load_digits(); print(peak() - before)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(run.stdout) * 1024 < 600e6


def test_real_data_is_at_hand_where_a_root_is_chosen_or_the_repository_has_files(empty_folder, monkeypatch):
    assert not data.real_data_at_hand()
    assert not data.real_data_at_hand(data.STAND_IN)
    assert data.real_data_at_hand("a folder")
    write_root(Path("data"))
    assert data.real_data_at_hand()
    monkeypatch.setenv("QMVAE_DATA_ROOT", data.STAND_IN)
    assert not data.real_data_at_hand()


def test_the_default_root_does_not_depend_on_the_working_directory():
    assert data.sources.DEFAULT_ROOT == Path(__file__).resolve().parents[1] / "data"
