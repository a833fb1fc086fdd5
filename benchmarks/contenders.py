"""What is timed: each function sets a training up and then takes steps in turns, as it is told."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import tempfile
from typing import Protocol

import torch

from benchmarks.peer import copied
from qmvae_core import models, training
from qmvae_core.data import Digits, load_digits, real_data_at_hand
from qmvae_core.training import TrainingConfig

BATCH = TrainingConfig().batch_size
PAIRED_DIGITS = (4948, 6742, 5958, 6131, 5842, 5421, 5727, 5595, 5045, 4659)  # of each digit, in MMVAE's pairing


class Turn(Protocol):
    """What a contender asks between two turns; it may say what it is in `about` before the first."""

    about: dict

    def over(self) -> bool:
        """End this turn, wait for the next, and say whether there is none."""


def config(model: str, modalities: int = 2) -> models.ModelConfig:
    """Q-MVAE by "default", or a reading by its name; more modalities are further copies of SVHN and MNIST."""
    chosen = models.READINGS["default" if model == "qmvae" else model]
    mnist, svhn = chosen.modalities.values()
    named = {"mnist": mnist, "svhn": svhn, "svhn2": svhn, "mnist2": mnist}
    return dataclasses.replace(chosen, modalities=dict(list(named.items())[:modalities]))


def digits(modalities: int = 2, images: int | None = None) -> tuple[dict[str, Digits], str]:
    """Training digits, and what they are: the real ones where a data root has them, else noise in their shapes.

    images: take so many of each modality only.
    """
    if real_data_at_hand():
        train, kind = load_digits().train, "MNIST and SVHN"
    else:
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(10).repeat_interleave(torch.tensor(PAIRED_DIGITS))
        labels = labels[torch.randperm(len(labels), generator=generator)]
        train = {
            name: Digits(torch.randint(0, 256, (len(labels), *shape), dtype=torch.uint8, generator=generator), labels)
            for name, shape in (("mnist", (1, 28, 28)), ("svhn", (3, 32, 32)))
        }
        kind = "noise in the shapes and numbers of MNIST and SVHN"
    if images is not None:
        train = {name: each.select(slice(images)) for name, each in train.items()}
    named = {"mnist": train["mnist"], "svhn": train["svhn"], "svhn2": train["svhn"], "mnist2": train["mnist"]}
    return dict(list(named.items())[:modalities]), kind


def ours(
    turn: Turn, model: str, loop: str, device: str, *, seeds: int = 1, batch: int = BATCH, modalities: int = 2,
    rounds: int = 30, images: int | None = None, precision: str = "float32", steps: int = 10,
) -> None:  # fmt: skip
    """One of this library's loops, in turns of `steps` steps."""
    chosen = TrainingConfig(batch_size=batch, rounds=rounds, steps_per_epoch=1000, chunk=steps, precision=precision)
    data, kind = digits(modalities, images)
    where, numbers = torch.device(device), tuple(range(seeds))
    learner = training.LOOPS[loop](config(model, modalities), chosen, numbers, where)
    taken = training.batches.Steps(learner, chosen, data, numbers, where)
    taken.start_epoch(0)
    turn.about = {"data": kind, "pairs": len(taken.labels), "steps": steps}
    with training.config.in_precision(precision):
        for chunk in itertools.count():
            if turn.over():
                return
            taken.run_chunk(0, chunk % taken.chunks)


def multivae(turn: Turn, device: str, steps: int = 10) -> None:
    """The trainer of the package multivae with its MVAE, on the same networks and pairs, in turns of `steps` steps.

    Its own classes hold and serve the data, in the way of its own MNIST-SVHN set.
    """
    from multivae.data.datasets.base import MultimodalBaseDataset
    from multivae.data.datasets.utils import ResampleDataset
    from multivae.trainers import BaseTrainer, BaseTrainerConfig
    from multivae.trainers.base.callbacks import TrainingCallback

    own = models.build_model(config("mvae"), 0)
    data, kind = digits()
    index = training.batches.tuple_indices({name: each.labels for name, each in data.items()}, rounds=30, seed=0)
    resampled = {
        name: ResampleDataset(each.batch(), lambda _, i, name=name: index[name][i].long(), size=len(index[name]))
        for name, each in data.items()
    }
    turn.about = {"data": kind, "pairs": len(index["mnist"]), "steps": steps}

    class InTurns(TrainingCallback):
        taken = 0

        def on_train_step_begin(self, training_config, **_):
            if turn.over():
                raise _Enough

        def on_train_step_end(self, training_config, **_):
            self.taken += 1
            if self.taken % steps == 0 and turn.over():
                raise _Enough

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_Enough):
        trainer = BaseTrainer(
            copied(own, warmup=0),
            MultimodalBaseDataset(resampled),
            training_config=BaseTrainerConfig(
                output_dir=folder, per_device_train_batch_size=BATCH, num_epochs=1, no_cuda=device == "cpu"
            ),
            callbacks=[InTurns()],
        )
        trainer.train()


class _Enough(Exception):
    """Ends the other trainer, which has no other way to be stopped."""
