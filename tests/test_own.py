"""Arrays of somebody's own: what is taken, what is refused with the remedy, and a training from two folders."""

import dataclasses
import os
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pytest
import torch
from model_cases import SMALL

from qmvae_core.data import DataError, Digits, observations, read_observations, tuple_indices
from qmvae_core.models import ModalityConfig
from qmvae_core.models.qmvae import QMVAEConfig
from qmvae_core.training import LOOPS, TrainingConfig, fit
from qmvae_study.evidence.folder import REPOSITORY

LABELS = np.repeat([0, 11, 300], 8)
SHORT = TrainingConfig(epochs=1, steps_per_epoch=2, batch_size=12, chunk=2)


@pytest.fixture
def values():
    return np.random.RandomState(0).rand(len(LABELS), 5)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_floats_are_kept_as_float32_and_gathered_as_they_are(values, kind):
    taken = observations(values.astype(kind), LABELS)
    assert taken.images.dtype == torch.float32
    wanted = torch.from_numpy(values.astype(kind).astype(np.float32))
    assert torch.equal(taken.batch(torch.tensor([3, 1])), wanted[[3, 1]])
    whole = taken.batch()
    whole.zero_()  # a batch is the caller's own
    assert torch.equal(taken.batch(), wanted)


def test_bytes_stay_bytes_and_labels_become_int64():
    taken = observations(np.full((2, 3), 255, np.uint8), np.array([1, 0], np.uint16))
    assert taken.images.dtype == torch.uint8
    assert taken.labels.dtype == torch.int64
    assert taken.batch().tolist() == [[1.0] * 3] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, y: (v[1:], y), r"labels must be \(23,\) int64, one an image, not \(24,\)"),
        (lambda v, y: (v * 255, y), r"must lie in \[0, 1\].*bytes by 255"),
        (lambda v, y: (v - 1, y), r"must lie in \[0, 1\]"),
        (lambda v, y: (np.where(v > 0.5, np.nan, v), y), r"\[0, 1\].*not a number"),
        (lambda v, y: (v * np.inf, y), r"\[0, 1\]"),
        (lambda v, y: ((v * 255).astype(int), y), "floats in .* or uint8, not int64; cast"),
        (lambda v, y: (v > 0.5, y), "not bool"),
        (lambda v, y: (v.astype(str), y), "not <U"),
        (lambda v, y: (v[:, 0], y), r"\(n, \.\.\.\)"),
        (lambda v, y: (v, y.astype(float)), "labels must be integers, not float64; numpy.unique"),
        (lambda v, y: (v, y.astype(str)), "labels must be integers.*numpy.unique"),
        (lambda v, y: (v, y - 1), "labels must be 0 to 65535, not -1"),
        (lambda v, y: (v, y * 1000), "0 to 65535, not 0 to 300000"),
        (lambda v, y: (v, y[:, None]), r"labels must be \(24,\)"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_the_remedy(values, change, message):
    with pytest.raises(DataError, match=message):
        observations(*change(values, LABELS))


def test_a_folder_is_its_two_arrays(tmp_path, values):
    np.save(tmp_path / "values.npy", values)
    with pytest.raises(DataError, match=r"labels\.npy cannot be read.*numpy\.save"):
        read_observations(tmp_path)
    np.save(tmp_path / "labels.npy", LABELS[1:])
    with pytest.raises(DataError, match=f"{tmp_path}: labels must be"):
        read_observations(tmp_path)
    np.save(tmp_path / "labels.npy", LABELS)
    assert torch.equal(read_observations(tmp_path).images, observations(values, LABELS).images)
    for damaged in (b"", b"not an array", (tmp_path / "values.npy").read_bytes()[:100]):
        (tmp_path / "values.npy").write_bytes(damaged)
        with pytest.raises(DataError, match=r"values\.npy cannot be read"):
            read_observations(tmp_path)


def test_classes_beyond_nine_are_paired_by_their_label():
    labels = {"a": torch.tensor([300, 11, 11, 0]), "b": torch.tensor([0, 300, 11])}
    index = tuple_indices(labels, rounds=2, classes=301)
    shown = {name: labels[name][index[name].long()].tolist() for name in labels}
    assert shown["a"] == shown["b"] == [0, 0, 11, 11, 300, 300]


@pytest.fixture
def two(values):
    """Two modalities of other shapes and classes, and a config for them."""
    pictures = np.random.RandomState(1).rand(len(LABELS), 1, 8, 8)
    modalities = {
        "row": ModalityConfig((5,), "dense", (6,), private=2, likelihood="normal"),
        "picture": ModalityConfig((1, 8, 8), "convolutional", (4, 4), private=2),
    }
    data = {"row": observations(values, LABELS), "picture": observations(pictures, LABELS)}
    return QMVAEConfig(modalities=modalities, **SMALL["qmvae"]), data


@pytest.mark.parametrize("loop", LOOPS)
def test_floats_and_many_classes_train_in_every_loop(two, loop):
    config, data = two
    model = fit(config, SHORT, data, loop=loop, progress="none").models[0]
    made = model.cross_generate("row", data["row"].batch(), "picture")
    assert made.shape == (len(LABELS), 1, 8, 8)


def test_bytes_and_the_same_values_as_floats_train_to_the_same_bits(two):
    config, data = two
    raw = np.random.RandomState(2).randint(0, 256, (len(LABELS), 1, 8, 8)).astype(np.uint8)
    ends = []
    for picture in (raw, raw.astype(np.float32) / np.float32(255)):
        trained = fit(config, SHORT, data | {"picture": observations(picture, LABELS)}, progress="none")
        ends.append(trained.models[0].state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, d: (c, {"row": d["row"]}), r"modalities that the data lacks: \['picture'\]"),
        (
            lambda c, d: (c, d | {"row": Digits(d["row"].images, d["row"].labels.clamp(max=11), 12)}),
            "labels of row lack 300, which others have.*a label has one meaning",
        ),
        (
            lambda c, d: (c, {name: each.select(each.labels == 11) for name, each in d.items()}),
            "never hold a negative",
        ),
        (
            lambda c, d: (dataclasses.replace(c, modalities={"row": c.modalities["row"]}), d),
            r"a quadruplet needs two modalities.*beta=0",
        ),
        (
            lambda c, d: (c, d | {"row": observations(np.zeros((24, 4)), LABELS)}),
            r"'row' must be \(n, 5\), .*not \(24, 4\)",
        ),
        (
            lambda c, d: (c, d | {"picture": observations(np.zeros((24, 8, 8, 1)), LABELS)}),
            r"'picture' must be \(n, 1, 8, 8\), .*not \(24, 8, 8, 1\)",
        ),
        (
            lambda c, d: (dataclasses.replace(c, modalities={"my.row": c.modalities["row"]}), d | {"my.row": d["row"]}),
            "a word of letters, digits and _, not 'my.row'",
        ),
        (
            lambda c, d: (dataclasses.replace(c, modalities={"keys": c.modalities["row"]}), d | {"keys": d["row"]}),
            "cannot be named 'keys'",
        ),
    ],
)
def test_what_does_not_fit_together_is_said_before_the_first_step(two, change, message):
    config, data = change(*two)
    with pytest.raises(ValueError, match=message):
        fit(config, SHORT, data, progress="none")


def test_the_chapter_runs_where_the_package_is_installed_without_the_repository(tmp_path):
    where, place = tmp_path / "installed", tmp_path / "elsewhere"
    place.mkdir()
    source = tmp_path / "source"  # a build leaves folders behind
    for name in ("qmvae_core", "qmvae_study", "qmvae_neighbours"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    install = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable, "--no-deps", "--offline"]
    build = ["--no-build-isolation", "--target", str(where), str(source)]
    subprocess.run([*install, *build], check=True, capture_output=True)
    notebook = nbformat.read(REPOSITORY / "notebooks" / "15_your_modalities.ipynb", 4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    script = "\n".join([*cells, "import qmvae_core, qmvae_study", "print(qmvae_core.__file__, qmvae_study.__file__)"])
    environment = {**os.environ, "PYTHONPATH": str(where), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=place, env=environment, capture_output=True, text=True, check=True
    )
    assert "all checks hold" in done.stdout
    assert all(str(where) in path for path in done.stdout.splitlines()[-1].split())
