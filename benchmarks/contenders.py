"""What is timed. Each function sets a training up and returns a callable that takes some steps."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable

import torch
from torch import nn

from qmvae_core import models, training
from qmvae_core.data import Digits, load_digits, real_data_at_hand
from qmvae_core.training import TrainingConfig

BATCH = 128
LATENT = 20
PAIRED_DIGITS = (4948, 6742, 5958, 6131, 5842, 5421, 5727, 5595, 5045, 4659)  # of each digit, in MMVAE's pairing
Take = Callable[[int], None]


def config(model: str, modalities: int = 2) -> models.ModelConfig:
    """Q-MVAE or MVAE at the default reading; more modalities are further copies of SVHN and MNIST."""
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
    model: str, loop: str, device: str, *, seeds: int = 1, batch: int = BATCH, modalities: int = 2, rounds: int = 30,
    images: int | None = None, precision: str = "float32", steps: int = 1000,
) -> tuple[Take, dict]:  # fmt: skip
    """One of this library's loops; `steps` is the length of its epoch."""
    chosen = TrainingConfig(batch_size=batch, rounds=rounds, steps_per_epoch=steps, chunk=10, precision=precision)
    data, kind = digits(modalities, images)
    where, numbers = torch.device(device), tuple(range(seeds))
    learner = training.LOOPS[loop](config(model, modalities), chosen, numbers, where)
    steps_of = training._Loop(learner, chosen, data, numbers, where)
    steps_of.start_epoch(0)
    at = 0

    def take(count: int) -> None:
        nonlocal at
        with training._precision(precision):
            for _ in range(count // chosen.chunk):
                steps_of.run_chunk(0, at)
                at = (at + 1) % steps_of.chunks

    return take, {"data": kind, "pairs": len(steps_of.labels), "epoch_steps": -(-len(steps_of.labels) // batch)}


def multivae(device: str, steps: int) -> tuple[list[float], dict]:
    """The times at which the steps of the `multivae` package's trainer ended: its MVAE on the same networks and pairs.

    Its own classes hold and serve the data, in the way of its own MNIST-SVHN set; `steps` is the length of the epoch.
    """
    from multivae.data.datasets.base import MultimodalBaseDataset
    from multivae.data.datasets.utils import ResampleDataset
    from multivae.models import MVAE, MVAEConfig
    from multivae.trainers import BaseTrainer, BaseTrainerConfig
    from multivae.trainers.base.callbacks import TrainingCallback

    chosen = config("mvae")
    with torch.random.fork_rng():
        own = models.build_model(chosen, 0)
    data, kind = digits()
    pairs = training.tuple_indices({name: each.labels for name, each in data.items()}, rounds=30, seed=0)
    order = torch.randperm(len(pairs["mnist"]), generator=torch.Generator().manual_seed(0))[: steps * BATCH]
    index = {name: each[order].long() for name, each in pairs.items()}
    resampled = {
        name: ResampleDataset(each.batch(), lambda _, i, name=name: index[name][i], size=len(order))
        for name, each in data.items()
    }
    ends: list[float] = []

    class Clock(TrainingCallback):
        def on_train_step_end(self, training_config, **_):
            if device == "cuda":
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    settings = MVAEConfig(
        n_modalities=2, latent_dim=LATENT, input_dims={name: m.shape for name, m in chosen.modalities.items()},
        uses_likelihood_rescaling=True, rescale_factors={name: m.weight for name, m in chosen.modalities.items()},
        decoders_dist=dict.fromkeys(chosen.modalities, "laplace"),
        decoder_dist_params={name: {"scale": m.scale} for name, m in chosen.modalities.items()}, warmup=0,
    )  # fmt: skip
    encoders, decoders = _wrapped(own)
    with tempfile.TemporaryDirectory() as folder:
        trainer = BaseTrainer(
            MVAE(settings, encoders, decoders),
            MultimodalBaseDataset(resampled),
            training_config=BaseTrainerConfig(
                output_dir=folder, per_device_train_batch_size=BATCH, num_epochs=1, no_cuda=device == "cpu"
            ),
            callbacks=[Clock()],
        )
        trainer.train()
    return ends, {"data": kind, "pairs": len(order)}


def _wrapped(own: nn.Module) -> tuple[dict, dict]:
    from multivae.models.base import BaseDecoder, BaseEncoder
    from pythae.models.base.base_utils import ModelOutput

    class Encoder(BaseEncoder):
        def __init__(self, network):
            super().__init__()
            self.network, self.latent_dim = network, LATENT

        def forward(self, images):
            posterior = self.network(images)
            return ModelOutput(embedding=posterior.mean, log_covariance=posterior.log_var)

    class Decoder(BaseDecoder):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, codes):
            return ModelOutput(reconstruction=self.network(codes).sigmoid())

    return (
        {name: Encoder(network) for name, network in own.common_encoders.items()},
        {name: Decoder(network) for name, network in own.decoders.items()},
    )
