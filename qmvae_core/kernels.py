"""The layers of the networks in the forms that a CPU computes fast: arranged in memory, and in bfloat16.

As they are made, the layers are PyTorch's own. `arrange_for_cpu` changes how they compute, not what they hold: weights,
gradients and optimiser stay in float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNEL = {"kernel_size": 3, "stride": 2, "padding": 1}  # section 4.1 of the paper
MANY_CHANNELS = 64  # from so many on `_ManyChannels` is faster, measured on the networks of the paper
INSTRUCTIONS = ("avx512_bf16", "amx_bf16")  # either multiplies in bfloat16; without them it is slower than float32


class _Layer:
    """What `arrange_for_cpu` sets: the type in which the layer multiplies, None for that of its weights."""

    arithmetic: torch.dtype | None = None

    def _given(self, *values: Tensor) -> tuple[Tensor, ...]:
        return values if self.arithmetic is None else tuple(value.to(self.arithmetic) for value in values)


class Linear(_Layer, nn.Linear):
    """PyTorch's layer; its output has the type of its arithmetic."""

    def forward(self, features: Tensor) -> Tensor:
        """features (..., i) -> (..., o)."""
        return F.linear(*self._given(features, self.weight, self.bias))


class Convolution(_Layer, nn.Conv2d):
    """PyTorch's layer with the numbers of KERNEL; its output has the type of its arithmetic."""

    def __init__(self, before: int, after: int):
        super().__init__(before, after, **KERNEL)

    def forward(self, images: Tensor) -> Tensor:
        """images (batch, c, h, w) -> (batch, c', h / 2, w / 2)."""
        images, weight, bias = self._given(images, self.weight, self.bias)
        if self.arithmetic is not None and self.in_channels >= MANY_CHANNELS:
            return _ManyChannels.apply(images, weight, False).add_(bias.view(-1, 1, 1))
        return F.conv2d(images, weight, bias, self.stride, self.padding)


class TransposedConvolution(_Layer, nn.ConvTranspose2d):
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
        images, weight, bias = self._given(images, self.weight, self.bias)
        if self.out_channels < 8:
            return _FewChannels.apply(images, weight, bias)
        if self.arithmetic is not None and self.out_channels >= MANY_CHANNELS:
            upsampled = _ManyChannels.apply(images, weight, True)
        else:
            upsampled = F.conv_transpose2d(images, weight, None, self.stride, self.padding, self.output_padding)
        return upsampled.add_(bias.view(-1, 1, 1))


class _ManyChannels(torch.autograd.Function):
    """A convolution of KERNEL, or the transposed one, whose weights have their gradient as one product of matrices.

    In bfloat16 that takes half the time of PyTorch's own where the larger image has many channels.
    """

    @staticmethod
    def forward(ctx, images: Tensor, weight: Tensor, transposed: bool) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.transposed = transposed
        if transposed:
            return F.conv_transpose2d(images, weight, None, 2, 1, 1)
        return F.conv2d(images, weight, None, 2, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        images, weight = ctx.saved_tensors
        for_images = None
        if ctx.needs_input_grad[0]:
            output_padding = [1, 1] if ctx.transposed else [0, 0]
            for_images, _, _ = torch.ops.aten.convolution_backward(
                gradient, images, weight, None, [2, 2], [1, 1], [1, 1], ctx.transposed, output_padding, 1,
                (True, False, False),
            )  # fmt: skip
        small, large = (images, gradient) if ctx.transposed else (gradient, images)
        small, large = small.permute(0, 2, 3, 1), large.permute(0, 2, 3, 1)
        product = small.reshape(-1, small.shape[-1]).T @ _neighbourhoods(large)
        return for_images, product.view(-1, 3, 3, large.shape[-1]).permute(0, 3, 1, 2), None


def _neighbourhoods(images: Tensor) -> Tensor:
    """What KERNEL sees at each place: images (batch, h, w, c) -> (batch * h / 2 * w / 2, 9 c)."""
    batch, height, width, channels = images.shape
    padded = images.new_zeros(batch, height + 2, width + 2, channels)
    padded[:, 1:-1, 1:-1] = images
    image, row, pixel, _ = padded.stride()
    places = (batch, height // 2, width // 2, 3, 3 * channels)
    return padded.as_strided(places, (image, 2 * row, 2 * pixel, row, 1)).reshape(-1, 9 * channels)


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


def bfloat16_here() -> bool:
    """Whether this machine's processor multiplies in bfloat16."""
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in INSTRUCTIONS)


def require_bfloat16() -> None:
    """Raise ValueError, with the remedy, if this machine's processor does not multiply in bfloat16."""
    if not bfloat16_here():
        raise ValueError(
            f"this processor has none of the instructions {' and '.join(INSTRUCTIONS)} that bfloat16 needs; "
            "use the precision float32"
        )


def arrange_for_cpu(model: nn.Module, precision: str = "float32") -> nn.Module:
    """Rearrange a model in place for training on a CPU; in float32 it computes the same function up to rounding.

    Convolutions keep their weights with the channels last, activations overwrite their input. precision: "float32", or
    "bfloat16" to multiply in that type, in layers and their gradients alone. A model so arranged has gradients by
    autograd, and cannot be mapped over by torch.func. Returns the model.
    Raises ValueError for another precision, for bfloat16 on a processor without the instructions, and for a model with
    a layer that is not of this module, which would go on in float32 unseen.
    """
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"a CPU computes in 'float32' or 'bfloat16', not in {precision!r}")
    if precision == "bfloat16":
        require_bfloat16()
    for name, layer in model.named_modules():
        if precision == "bfloat16" and isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            if not isinstance(layer, _Layer):
                raise ValueError(f"the layer {name!r} cannot compute in bfloat16; make it one of qmvae_core.kernels")
            layer.arithmetic = torch.bfloat16
        if isinstance(layer, TransposedConvolution):
            layer.arranged = True
        if isinstance(layer, nn.ReLU):
            layer.inplace = True
    return model.to(memory_format=torch.channels_last)
