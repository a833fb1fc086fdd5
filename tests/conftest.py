"""Shared by the tests: hypothesis without a clock or a hidden seed, small configs and fabricated digits."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from model_cases import Interruption, quiet

from qmvae_core.data import Digits
from qmvae_core.models import ModalityConfig, ModelConfig
from qmvae_core.training import learners
from qmvae_study.evidence.folder import REPOSITORY, alone

settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")

SMALL_MODALITIES = {
    "ink": ModalityConfig(shape=(1, 6, 6), network="dense", widths=(8,), private=3),
    "photo": ModalityConfig(
        shape=(3, 8, 8),
        network="convolutional",
        widths=(4, 6),
        private=2,
        likelihood="bernoulli",
        private_kl_weight=5.0,
    ),
    "sketch": ModalityConfig(
        shape=(2, 4, 4), network="dense", widths=(7, 5), private=1, likelihood="normal", scale=0.5, weight=2.5
    ),
}


@pytest.fixture(scope="session")
def small_config():
    """A function that makes a config that trains at once, from names of SMALL_MODALITIES; of_all: fields of each."""

    def make(*names: str, model: str = "qmvae", of_all: Mapping[str, object] | None = None, **choices) -> ModelConfig:
        modalities = {name: SMALL_MODALITIES[name] for name in names or ("ink", "photo")}
        modalities = {name: dataclasses.replace(m, **(of_all or {})) for name, m in modalities.items()}
        own = {"beta": 10.0, "candidates": 3} if model == "qmvae" else {}
        return ModelConfig.of_model[model](**{"shared": 4, "modalities": modalities, **own, **choices})

    return make


@pytest.fixture(scope="session")
def shared_only_config(small_config):
    """A function: a model without private codes, names, a likelihood for all of them or None -> a small config.

    The likelihood of one modality is weighted.
    """

    def make(model: str, *names: str, likelihood: str | None = None, **choices) -> ModelConfig:
        changes = {"private": 0} if likelihood is None else {"private": 0, "likelihood": likelihood}
        config = small_config(*names, model=model, of_all=changes, **choices)
        ink = dataclasses.replace(config.modalities["ink"], weight=3072 / 784)
        return dataclasses.replace(config, modalities={**config.modalities, "ink": ink})

    return make


@pytest.fixture(autouse=True)
def pictures_of_nothing_yet():
    """What a test loads has marked the pictures of that test alone (`pages.own_up`)."""
    yield
    if figures := sys.modules.get("qmvae_study.report.figures"):
        figures.Picture.note = ""


@pytest.fixture(scope="module")
def one_thread():
    """Networks this small gain nothing from threads, and on busy cores lose minutes waiting for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def generator():
    """Of random numbers, the same for each test."""
    return torch.Generator().manual_seed(3)


@pytest.fixture
def stop_after(monkeypatch):
    """A function: let that many optimiser steps of both loops happen, then raise the given exception."""

    def arrange(steps: int, exception: BaseException):
        count = 0
        for loop in (learners.Plain, learners.Stacked):

            def update(self, *arguments, original=loop.update):
                nonlocal count
                if count == steps:
                    raise exception
                count += 1
                return original(self, *arguments)

            monkeypatch.setattr(loop, "update", update)

    return arrange


@pytest.fixture
def interrupted(stop_after, monkeypatch, tmp_path):
    """A function: a number of steps, what `fit` is given -> starts a run in `tmp_path` that is stopped after them."""

    def run(steps: int, *arguments, **options) -> None:
        stop_after(steps, Interruption())
        with pytest.raises(Interruption):
            quiet(*arguments, folder=tmp_path, **{"checkpoint_seconds": 0.0, **options})
        monkeypatch.undo()

    return run


@pytest.fixture(scope="session")
def small_digits():
    """A function: names of SMALL_MODALITIES -> Digits that show a pattern of their digit under noise, for each name."""

    def make(*names: str, per_digit: int = 6, digits: int = 4, seed: int = 0) -> dict[str, Digits]:
        generator = torch.Generator().manual_seed(seed)
        made = {}
        for name in names or ("ink", "photo"):
            shape = SMALL_MODALITIES[name].shape
            labels = torch.arange(digits).repeat(per_digit)
            patterns = torch.randint(0, 200, (digits, *shape), generator=generator)
            images = patterns[labels] + torch.randint(0, 56, (len(labels), *shape), generator=generator)
            made[name] = Digits(images.to(torch.uint8), labels)
        return made

    return make


@pytest.fixture(scope="session")
def built_book(tmp_path_factory) -> Path:
    """The folder of the book's pages; a warning of the builder is an error. The processes of pytest-xdist share it."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "book"
    with alone(folder, patience=1800):
        if not (folder / "built").exists():
            command = [
                Path(sys.executable).parent / "jupyter-book", "build", REPOSITORY, "--path-output", folder,
                "--config", REPOSITORY / "_config.yml", "--toc", REPOSITORY / "book" / "_toc.yml",
                "-W", "-n", "--keep-going", "--all",
            ]  # fmt: skip
            built = subprocess.run(command, capture_output=True, text=True)
            assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
            (folder / "built").touch()
    return folder / "_build" / "html"


@pytest.fixture(scope="session")
def chromium():
    """The machine's own Chromium, driven by playwright; tests that ask for it are skipped where there is none."""
    import browser

    if browser.CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine; Debian and Ubuntu have the package chromium")
    with browser.chromium() as found:
        yield found
