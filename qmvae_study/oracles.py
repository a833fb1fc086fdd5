"""The digit classifiers that judge generated images: one for each modality, always used in eval mode.

Dropout or batch statistics left active in a judge blur every accuracy that it gives, so `predict` does not leave the
mode to its caller. There are two kinds: ours, and those of the harness that the paper names.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qmvae_core.data import MODALITIES, Digits, tuple_indices
from qmvae_core.draws import seed_for
from qmvae_core.models import Checked
from qmvae_core.names import known
from qmvae_core.training import checkpoint


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

    def layers(self, shape: Sequence[int]) -> list[nn.Module]:
        """Three blocks of two convolutions each, for images of a shape; the last layer is linear."""
        sizes = [shape[0], self.channels, 2 * self.channels, 4 * self.channels]
        blocks = [_block(before, after) for before, after in zip(sizes, sizes[1:], strict=False)]
        return [*blocks, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(4 * sizes[-1], 10)]


@dataclass(frozen=True)
class PublishedConfig(Checked):
    """How MMVAE's public code makes its judges (Shi et al. 2019), which the paper says are its own.

    Adam at one rate on matching pairs, `rounds` partners an image in each epoch, without augmentation.
    Raises ValueError like Checked.
    """

    positive = ("epochs", "rounds", "batch_size", "learning_rate")

    epochs: int = 30
    rounds: int = 30
    batch_size: int = 256
    learning_rate: float = 1e-3
    seed: int = 0

    def layers(self, shape: Sequence[int]) -> list[nn.Module]:
        """Two convolutions of 5 x 5 with dropout of channels, and 50 hidden units with dropout."""
        height, width = (((size - 4) // 2 - 4) // 2 for size in shape[1:])
        return [
            nn.Conv2d(shape[0], 10, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(10, 20, 5), nn.Dropout2d(0.5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Flatten(), nn.Linear(20 * height * width, 50), nn.ReLU(), nn.Dropout(0.5), nn.Linear(50, 10),
        ]  # fmt: skip


RECIPES = {"ours": OracleConfig, "published": PublishedConfig}
# The committed judges of the real data. Their size keeps training within minutes on two CPU cores.
CONFIGS = {"mnist": OracleConfig(epochs=6, channels=16), "svhn": OracleConfig(epochs=10, channels=24)}


class DigitClassifier(nn.Module):
    """A small convolutional network: images (batch, c, h, w) in [0, 1] -> logits (batch, 10).

    config: of one of RECIPES. shape: (c, h, w) of the modality's images; None: those of MNIST or SVHN, ValueError for
    others.
    """

    def __init__(self, modality: str, config: OracleConfig | PublishedConfig, shape: Sequence[int] | None = None):
        super().__init__()
        self.modality = modality
        self.sha256: str | None = None  # of the file of its weights, if it comes from one
        self.shape = tuple(shape or known(MODALITIES, "modality", modality))
        self.network = nn.Sequential(*config.layers(self.shape))

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
        """What the last linear layer sees of each image, in eval mode: (n, features), not negative.

        In ours they are the activations of the last block averaged over each quarter of the image: 16 * channels.
        images and errors as for `predict`.
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
        model = DigitClassifier(modality, config, train.images.shape[1:]).to(device).train()
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


def train_published(
    modality: str,
    train: Mapping[str, Digits],
    config: PublishedConfig,
    work: Path,
    device: str | torch.device = "cpu",
    verbose: bool = True,
) -> tuple[DigitClassifier, list[float]]:
    """A judge of the harness of reference [14], in eval mode, and the cross-entropy of each epoch in nats.

    train: the digits of all modalities, which decide what is paired. It goes on from its checkpoint in the folder
    `work`, which is deleted at the end; a killed training ends in the same bits.
    """
    device, path = torch.device(device), work / f"{modality}.pt"
    digits = train[modality].to(device)
    index = tuple_indices({name: each.labels for name, each in train.items()}, config.rounds, config.seed)[modality]
    key = {"modality": modality, "config": asdict(config), "index": len(index), "pixels": int(digits.images.sum())}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        model = DigitClassifier(modality, config, digits.images.shape[1:]).to(device, memory_format=torch.channels_last)
        optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
        losses: list[float] = []
        if path.exists() and (found := checkpoint.read(path, device))["key"] == key:
            losses = found["losses"]
            model.load_state_dict(found["model"])
            optimiser.load_state_dict(found["optimiser"])
        started, before = time.monotonic(), len(losses)
        for epoch in range(before, config.epochs):
            losses.append(_epoch_of_pairs(model.train(), optimiser, digits, index.to(device), config, epoch))
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
            checkpoint.write(path, {"key": key, "losses": losses, **state})
            if verbose:
                left = (time.monotonic() - started) / (epoch + 1 - before) * (config.epochs - epoch - 1)
                said = f"cross-entropy {losses[-1]:.4f}, {left / 60:.1f} min left"
                print(f"{modality} judge, seed {config.seed}, epoch {epoch + 1}/{config.epochs}: {said}", flush=True)
    path.unlink(missing_ok=True)
    return model.eval(), losses


def _epoch_of_pairs(model: DigitClassifier, optimiser, digits: Digits, index: Tensor, config, epoch: int) -> float:
    seed = seed_for(config.seed, "published judge", epoch)
    torch.manual_seed(seed)  # dropout has no generator of its own
    order = index[torch.randperm(len(index), generator=torch.Generator().manual_seed(seed)).to(index.device)].long()
    total = torch.zeros((), device=index.device)
    for rows in order.split(config.batch_size):
        images = digits.batch(rows).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(model(images), digits.labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.detach() * len(rows)
    return total.item() / len(order)
