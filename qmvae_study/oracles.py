"""The digit classifiers that judge generated images: one for each modality, always used in eval mode.

Dropout or batch statistics left active in a judge blur every accuracy that it gives, so `predict` does not leave the
mode to its caller.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qmvae_core.data import MODALITIES, Digits
from qmvae_core.draws import seed_for
from qmvae_core.models import Checked
from qmvae_core.names import known


@dataclass(frozen=True)
class OracleConfig(Checked):
    """How an oracle is trained: Adam with a one-cycle learning rate, on images shifted by a few pixels.

    Raises ValueError like Checked.
    """

    positive = ("epochs", "channels", "batch_size", "learning_rate")

    epochs: int
    channels: int  # of the first block; the second and third have two and four times as many
    batch_size: int = 128
    learning_rate: float = 3e-3  # at the peak of the cycle
    shift: int = 2  # pixels, drawn for each batch and direction
    seed: int = 0


# The committed judges of the real data. Their size keeps training within minutes on two CPU cores.
CONFIGS = {"mnist": OracleConfig(epochs=6, channels=16), "svhn": OracleConfig(epochs=10, channels=24)}


class DigitClassifier(nn.Module):
    """A small convolutional network: images (batch, c, h, w) in [0, 1] -> logits (batch, 10).

    shape: (c, h, w) of the modality's images; None: those of MNIST or SVHN, ValueError for others.
    """

    def __init__(self, modality: str, channels: int, shape: Sequence[int] | None = None):
        super().__init__()
        self.modality = modality
        self.sha256: str | None = None  # of the file of its weights, if it comes from one
        self.shape = tuple(shape or known(MODALITIES, "modality", modality))
        sizes = [self.shape[0], channels, 2 * channels, 4 * channels]
        blocks = [_block(before, after) for before, after in zip(sizes, sizes[1:], strict=False)]
        self.network = nn.Sequential(
            *blocks, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(4 * sizes[-1], 10)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    @torch.no_grad()
    def predict(self, images: Tensor, batch_size: int = 200) -> Tensor:
        """The digit that each image shows, judged in eval mode: (n,) int64.

        images: (n, c, h, w) in [0, 1] of the oracle's modality. Raises ValueError for others.
        """
        return torch.cat([self(part).argmax(dim=-1) for part in self._to_judge(images, batch_size)])

    @torch.no_grad()
    def features(self, images: Tensor, batch_size: int = 200) -> Tensor:
        """What the last linear layer sees of each image, in eval mode: (n, 16 * channels), not negative.

        They are the activations of the last block averaged over each quarter of the image. images and errors as for
        `predict`.
        """
        return torch.cat([self.network[:-1](part) for part in self._to_judge(images, batch_size)])

    def _to_judge(self, images: Tensor, batch_size: int) -> list[Tensor]:
        """The images in parts, after a check, and this network in eval mode.

        Small parts with their channels last take a CPU a third of the time that a large one takes.
        """
        if tuple(images.shape[1:]) != self.shape:
            raise ValueError(f"the {self.modality} oracle judges images (n, {self.shape}), got {tuple(images.shape)}")
        low, high = images.aminmax() if images.numel() else (0, 0)
        if not (low >= 0 and high <= 1):  # it would read a digit in NaN as well
            raise ValueError(f"the {self.modality} oracle judges images in [0, 1], not {low:g} to {high:g}")
        self.eval()
        return [part.contiguous(memory_format=torch.channels_last) for part in images.split(batch_size)]

    def accuracy(self, digits: Digits) -> float:
        """The share of the digits that the oracle reads as labelled."""
        parts = torch.arange(len(digits), device=digits.labels.device).split(5000)
        predicted = [self.predict(digits.batch(part)) for part in parts]
        return (torch.cat(predicted) == digits.labels).float().mean().item()


def _block(before: int, after: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(),
        nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2),
    )  # fmt: skip


def train_oracle(
    modality: str,
    train: Digits,
    config: OracleConfig,
    device: str | torch.device = "cpu",
    verbose: bool = True,
) -> DigitClassifier:
    """A judge trained on a modality's training digits, returned in eval mode; one line an epoch if verbose."""
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)  # batch normalisation and dropout have no generator of their own
        model = DigitClassifier(modality, config.channels, train.images.shape[1:]).to(device).train()
        _train(model, train.to(device), config, verbose)
    return model.eval()


def _train(model: DigitClassifier, digits: Digits, config: OracleConfig, verbose: bool) -> None:
    steps = -(-len(digits) // config.batch_size)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, config.epochs * steps)
    started = time.monotonic()
    for epoch in range(config.epochs):
        generator = torch.Generator().manual_seed(seed_for(config.seed, "oracle", epoch))
        order = torch.randperm(len(digits), generator=generator).to(digits.labels.device)
        shifts = torch.randint(-config.shift, config.shift + 1, (steps, 2), generator=generator).tolist()
        total = torch.zeros((), device=digits.labels.device)
        for rows, shift in zip(order.split(config.batch_size), shifts, strict=True):
            images = torch.roll(digits.batch(rows), shift, dims=(-2, -1))
            loss = F.cross_entropy(model(images), digits.labels[rows], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.detach()
        if verbose:
            left = (time.monotonic() - started) / (epoch + 1) * (config.epochs - epoch - 1)
            said = f"cross-entropy {total.item() / steps:.4f}, {left / 60:.1f} min left"
            print(f"{model.modality} oracle, epoch {epoch + 1}/{config.epochs}: {said}", flush=True)
