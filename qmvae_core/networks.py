"""Encoders and decoders. Widths and shapes come from the config; this is the only place that turns them into layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from qmvae_core.gaussians import DiagonalGaussian
from qmvae_core.kernels import Convolution, Linear, TransposedConvolution
from qmvae_core.names import known


class GaussianEncoder(nn.Module):
    """A network body followed by one linear layer that gives the mean and the log variance of a posterior."""

    def __init__(self, body: nn.Module, features: int, latent: int):
        super().__init__()
        self.body = body
        self.head = Linear(features, 2 * latent)

    def forward(self, images: Tensor) -> DiagonalGaussian:
        """images (batch, c, h, w) in [0, 1] -> posterior over (batch, latent)."""
        return posterior(self.head(self.body(images)))


def posterior(parameters: Tensor) -> DiagonalGaussian:
    """Mean and log variance, side by side in (..., 2 d), as a posterior; from here on nothing is in bfloat16."""
    return DiagonalGaussian(*in_float32(parameters).chunk(2, dim=-1))


def in_float32(values: Tensor) -> Tensor:
    """What a network in bfloat16 gives, in float32; any other type as it is."""
    return values.float() if values.dtype == torch.bfloat16 else values


class JointEncoder(nn.Module):
    """Network bodies side by side, one a modality, and one linear layer on all their features.

    bodies: modality -> (body, number of its features), in the order in which the features are put together.
    """

    def __init__(self, bodies: Mapping[str, tuple[nn.Module, int]], latent: int):
        super().__init__()
        self.bodies = nn.ModuleDict({name: body for name, (body, _) in bodies.items()})
        self.head = Linear(sum(features for _, features in bodies.values()), 2 * latent)

    def forward(self, images: Mapping[str, Tensor]) -> DiagonalGaussian:
        """Images (batch, c, h, w) in [0, 1] of every modality -> one posterior over (batch, latent)."""
        features = [body(images[name]) for name, body in self.bodies.items()]
        return posterior(self.head(torch.cat(features, dim=-1)))


def _dense_body(shape: Sequence[int], widths: Sequence[int]) -> tuple[nn.Module, int]:
    sizes = [math.prod(shape), *widths]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in zip(sizes, sizes[1:], strict=False):
        layers += [Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers), sizes[-1]


def _convolutional_body(shape: Sequence[int], widths: Sequence[int]) -> tuple[nn.Module, int]:
    small = _smallest(shape, widths)
    channels = [shape[0], *widths]
    layers: list[nn.Module] = []
    for before, after in zip(channels, channels[1:], strict=False):
        layers += [Convolution(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten()), channels[-1] * math.prod(small)


def _smallest(shape: Sequence[int], widths: Sequence[int]) -> tuple[int, int]:
    factor = 2 ** len(widths)
    if len(shape) != 3:
        raise ValueError(f"convolutions need images (c, h, w), got the shape {tuple(shape)}; use the dense network")
    if shape[1] % factor or shape[2] % factor:
        raise ValueError(
            f"{len(widths)} convolutions of stride 2 need a height and width divisible by {factor}, "
            f"got {tuple(shape)}; use fewer widths or the dense network"
        )
    return shape[1] // factor, shape[2] // factor


def _dense_decoder(shape: Sequence[int], widths: Sequence[int], latent: int) -> nn.Module:
    sizes = [latent, *reversed(widths)]
    layers: list[nn.Module] = []
    for before, after in zip(sizes, sizes[1:], strict=False):
        layers += [Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, Linear(sizes[-1], math.prod(shape)), nn.Unflatten(-1, tuple(shape)))


def _convolutional_decoder(shape: Sequence[int], widths: Sequence[int], latent: int) -> nn.Module:
    small = (widths[-1], *_smallest(shape, widths))
    channels = [*reversed(widths), shape[0]]
    layers: list[nn.Module] = [Linear(latent, math.prod(small)), nn.ReLU(), nn.Unflatten(-1, small)]
    for before, after in zip(channels, channels[1:], strict=False):
        layers += [TransposedConvolution(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Windows(nn.Module):
    """Each place beside its neighbours, zeros beyond the ends: with a linear layer behind it, a convolution."""

    def __init__(self, stride: int = 1):
        super().__init__()
        self.stride = stride  # 2 takes every second place

    def forward(self, rows: Tensor) -> Tensor:
        """rows (batch, places, channels) -> (batch, places / stride, 3 channels)."""
        padded, count = nn.functional.pad(rows, (0, 0, 1, 1)), rows.shape[1]
        return torch.cat([padded[:, first : first + count : self.stride] for first in range(3)], dim=-1)


def _sequence_body(shape: Sequence[int], widths: Sequence[int]) -> tuple[nn.Module, int]:
    places, channels = _fewest_places(shape, widths), [shape[1], *widths]
    layers: list[nn.Module] = []
    for before, after in zip(channels, channels[1:], strict=False):
        layers += [Windows(stride=2), Linear(3 * before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten()), channels[-1] * places


def _sequence_decoder(shape: Sequence[int], widths: Sequence[int], latent: int) -> nn.Module:
    small = (_fewest_places(shape, widths), widths[-1])
    channels = [*reversed(widths), shape[1]]
    layers: list[nn.Module] = [Linear(latent, math.prod(small)), nn.ReLU(), nn.Unflatten(-1, small)]
    for before, after in zip(channels, channels[1:], strict=False):  # each place gives two
        layers += [Windows(), Linear(3 * before, 2 * after), nn.Unflatten(-1, (2, after)), nn.Flatten(1, 2), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _fewest_places(shape: Sequence[int], widths: Sequence[int]) -> int:
    if len(shape) != 2 or not widths or shape[0] % 2 ** len(widths):
        said = f"a sequence (places, channels) is halved for each width, not {tuple(shape)} for {len(widths)}"
        raise ValueError(f"{said}; use other widths or the dense network")
    return shape[0] // 2 ** len(widths)


BODIES = {"dense": _dense_body, "convolutional": _convolutional_body, "sequence": _sequence_body}
DECODERS = {"dense": _dense_decoder, "convolutional": _convolutional_decoder, "sequence": _sequence_decoder}


def encoder(network: str, shape: Sequence[int], widths: Sequence[int], latent: int) -> GaussianEncoder:
    """An encoder of observations of `shape`, (c, h, w) of an image, into a posterior over `latent` dimensions.

    network: "dense", "convolutional", or "sequence" of (places, channels); widths: hidden units, or channels, inwards.
    Raises ValueError for another network or a shape that the convolutions cannot halve.
    """
    body, features = known(BODIES, "network", network)(shape, widths)
    return GaussianEncoder(body, features, latent)


def joint_encoder(parts: Mapping[str, tuple[str, Sequence[int], Sequence[int]]], latent: int) -> JointEncoder:
    """An encoder of images of several modalities together into one posterior over `latent` dimensions.

    parts: modality -> (network, shape, widths), each as for `encoder`, whose bodies these are. Raises like `encoder`.
    """
    bodies = {name: known(BODIES, "network", network)(*sizes) for name, (network, *sizes) in parts.items()}
    return JointEncoder(bodies, latent)


def decoder(network: str, shape: Sequence[int], widths: Sequence[int], latent: int) -> nn.Module:
    """A decoder of `latent` dimensions into the logits of an image of `shape`; widths as in `encoder`."""
    return known(DECODERS, "network", network)(shape, widths, latent)


def initialise(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Draw each weight and bias from U(-b, b), b = 1 / sqrt(fan in), PyTorch's own rule, with an explicit generator.

    A parameter that belongs to no layer, such as the scale of a prior, starts at zero.
    """
    for layer in module.modules():
        with torch.no_grad():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                bound = 1.0 / math.sqrt(layer.weight[0].numel())
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
            else:
                for value in layer.parameters(recurse=False):
                    value.zero_()
    return module
