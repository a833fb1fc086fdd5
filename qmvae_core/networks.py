"""Encoders and decoders. Widths and shapes come from the config; this is the only place that turns them into layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qmvae_core.gaussians import DiagonalGaussian

KERNEL = {"kernel_size": 3, "stride": 2, "padding": 1}  # section 4.1 of the paper


class TransposedConvolution(nn.ConvTranspose2d):
    """PyTorch's layer with the numbers of KERNEL; after `arrange_for_cpu` the same function in a form for a CPU.

    There the gradient of a bias inside the convolution takes longer than the convolution, so the bias is added after
    it, and few output channels leave most of a vector register empty, so they are computed as `_FewChannels`.
    """

    arranged = False

    def __init__(self, before: int, after: int):
        super().__init__(before, after, **KERNEL, output_padding=1)  # doubles the size exactly: 4 -> 8 -> 16 -> 32

    def forward(self, images: Tensor) -> Tensor:
        """images (batch, c, h, w) -> (batch, c', 2 h, 2 w)."""
        if not self.arranged:
            return super().forward(images)
        if self.out_channels < 8:
            return _FewChannels.apply(images, self.weight, self.bias)
        upsampled = F.conv_transpose2d(images, self.weight, None, self.stride, self.padding, self.output_padding)
        return upsampled.add_(self.bias.view(-1, 1, 1))


class _FewChannels(torch.autograd.Function):
    """The transposed convolution of KERNEL as an ordinary one that gives each 2 x 2 block of pixels as channels.

    In one dimension: pixel 2 i is w[1] x[i], and pixel 2 i + 1 is w[2] x[i] + w[0] x[i + 1]; so two taps are enough.
    """

    PARTS = ((0, 0, 1), (1, 0, 2), (1, 1, 0))  # pixel of the block, neighbour of the input, tap of the kernel

    @staticmethod
    def forward(ctx, images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(images, weight)
        batch, _, height, width = images.shape
        channels = weight.shape[1]
        kernel = weight.new_zeros(2, 2, channels, weight.shape[0], 2, 2)
        for row, below, k in _FewChannels.PARTS:
            for column, right, m in _FewChannels.PARTS:
                kernel[row, column, :, :, below, right] = weight[:, :, k, m].T
        kernel = kernel.view(4 * channels, -1, 2, 2).contiguous(memory_format=torch.channels_last)
        blocks = F.conv2d(images, kernel, bias.repeat(4), padding=1)[:, :, 1:, 1:]
        blocks = blocks.permute(0, 2, 3, 1).unflatten(-1, (2, 2, channels)).transpose(2, 3)
        size = (batch, channels, 2 * height, 2 * width)
        result = torch.empty(size, dtype=images.dtype, device=images.device, memory_format=torch.channels_last)
        result.permute(0, 2, 3, 1).view(blocks.shape).copy_(blocks)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        images, weight = ctx.saved_tensors
        for_images, for_weight, _ = torch.ops.aten.convolution_backward(
            gradient, images, weight, None, [2, 2], [1, 1], [1, 1], True, [1, 1], 1, (True, True, False)
        )
        return for_images, for_weight, gradient.sum(dim=(0, 2, 3))


def arrange_for_cpu(model: nn.Module) -> nn.Module:
    """Rearrange a model in place for training on a CPU; it computes the same function up to rounding.

    Convolutions keep their weights with the channels last, activations overwrite their input. A model so arranged
    has gradients by autograd, and cannot be mapped over by torch.func. Returns the model.
    """
    for layer in model.modules():
        if isinstance(layer, TransposedConvolution):
            layer.arranged = True
        if isinstance(layer, nn.ReLU):
            layer.inplace = True
    return model.to(memory_format=torch.channels_last)


class GaussianEncoder(nn.Module):
    """A network body followed by one linear layer that gives the mean and the log variance of a posterior."""

    def __init__(self, body: nn.Module, features: int, latent: int):
        super().__init__()
        self.body = body
        self.head = nn.Linear(features, 2 * latent)

    def forward(self, images: Tensor) -> DiagonalGaussian:
        """images (batch, c, h, w) in [0, 1] -> posterior over (batch, latent)."""
        return DiagonalGaussian(*self.head(self.body(images)).chunk(2, dim=-1))


class JointEncoder(nn.Module):
    """Network bodies side by side, one a modality, and one linear layer on all their features.

    bodies: modality -> (body, number of its features), in the order in which the features are put together.
    """

    def __init__(self, bodies: Mapping[str, tuple[nn.Module, int]], latent: int):
        super().__init__()
        self.bodies = nn.ModuleDict({name: body for name, (body, _) in bodies.items()})
        self.head = nn.Linear(sum(features for _, features in bodies.values()), 2 * latent)

    def forward(self, images: Mapping[str, Tensor]) -> DiagonalGaussian:
        """Images (batch, c, h, w) in [0, 1] of every modality -> one posterior over (batch, latent)."""
        features = [body(images[name]) for name, body in self.bodies.items()]
        return DiagonalGaussian(*self.head(torch.cat(features, dim=-1)).chunk(2, dim=-1))


def _dense_body(shape: Sequence[int], widths: Sequence[int]) -> tuple[nn.Module, int]:
    sizes = [math.prod(shape), *widths]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers), sizes[-1]


def _convolutional_body(shape: Sequence[int], widths: Sequence[int]) -> tuple[nn.Module, int]:
    channels = [shape[0], *widths]
    layers: list[nn.Module] = []
    for before, after in zip(channels, channels[1:], strict=False):
        layers += [nn.Conv2d(before, after, **KERNEL), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten()), channels[-1] * math.prod(_smallest(shape, widths))


def _smallest(shape: Sequence[int], widths: Sequence[int]) -> tuple[int, int]:
    factor = 2 ** len(widths)
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
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], math.prod(shape)), nn.Unflatten(-1, tuple(shape)))


def _convolutional_decoder(shape: Sequence[int], widths: Sequence[int], latent: int) -> nn.Module:
    small = (widths[-1], *_smallest(shape, widths))
    channels = [*reversed(widths), shape[0]]
    layers: list[nn.Module] = [nn.Linear(latent, math.prod(small)), nn.ReLU(), nn.Unflatten(-1, small)]
    for before, after in zip(channels, channels[1:], strict=False):
        layers += [TransposedConvolution(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


BODIES = {"dense": _dense_body, "convolutional": _convolutional_body}
DECODERS = {"dense": _dense_decoder, "convolutional": _convolutional_decoder}


def encoder(network: str, shape: Sequence[int], widths: Sequence[int], latent: int) -> GaussianEncoder:
    """An encoder of images of `shape` (c, h, w) into a posterior over `latent` dimensions.

    network: "dense" or "convolutional"; widths: hidden units, or channels, from the image inwards.
    Raises ValueError for another network or a shape that the convolutions cannot halve.
    """
    body, features = _choose(BODIES, network)(shape, widths)
    return GaussianEncoder(body, features, latent)


def joint_encoder(parts: Mapping[str, tuple[str, Sequence[int], Sequence[int]]], latent: int) -> JointEncoder:
    """An encoder of images of several modalities together into one posterior over `latent` dimensions.

    parts: modality -> (network, shape, widths), each as for `encoder`, whose bodies these are. Raises like `encoder`.
    """
    bodies = {name: _choose(BODIES, network)(shape, widths) for name, (network, shape, widths) in parts.items()}
    return JointEncoder(bodies, latent)


def decoder(network: str, shape: Sequence[int], widths: Sequence[int], latent: int) -> nn.Module:
    """A decoder of `latent` dimensions into the logits of an image of `shape` (c, h, w); widths as in `encoder`."""
    return _choose(DECODERS, network)(shape, widths, latent)


def _choose(table: dict, network: str):
    if network not in table:
        raise ValueError(f"unknown network {network!r}; the known ones are {sorted(table)}")
    return table[network]


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
