"""The arithmetic of a step, and how fast this machine multiplies matrices."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contenders import BATCH, config
from qmvae_core.models import build_model, draw_noise


def operations(model: str, batch: int = BATCH, modalities: int = 2) -> int:
    """Floating-point operations of one step's loss and gradient, counted by PyTorch (matrix products and convolutions).

    An addition and a multiplication are two. What no layer needs, the gradient of an image, is not counted.
    """
    chosen = config(model, modalities)
    built = build_model(chosen, 0)
    generator = torch.Generator().manual_seed(0)
    images = {name: torch.rand(batch, *m.shape, generator=generator) for name, m in chosen.modalities.items()}
    labels = torch.arange(batch) % 10
    with FlopCounterMode(display=False) as counter:
        built.loss(images, labels, draw_noise(built.noise_spec(batch), generator, "cpu")).loss.backward()
    return counter.get_total_flops()


def ceiling(turn, device: str, size: int = 2048, products: int = 20) -> None:
    """Products of two square matrices in float32, so many a turn."""
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    turn.about = {"steps": products, "operations": 2 * size**3}
    while not turn.over():
        for _ in range(products):
            a @ b


def layers(turn, device: str, model: str) -> None:
    """The matrix products of a step's layers, each at its own sizes: one step a turn.

    Convolutions as the matrix products that they stand for, with nothing moved or rearranged: what a loop of perfect
    kernels, and nothing else to do, would need.
    """
    built = build_model(config(model), 0)
    shapes: list[tuple[int, int, int, int]] = []
    hooks = [layer.register_forward_hook(_note(shapes)) for layer in built.modules() if not list(layer.children())]
    generator = torch.Generator().manual_seed(0)
    images = {name: torch.rand(BATCH, *m.shape, generator=generator) for name, m in built.config.modalities.items()}
    built.loss(images, torch.arange(BATCH) % 10, draw_noise(built.noise_spec(BATCH), generator, "cpu"))
    for hook in hooks:
        hook.remove()
    work = []
    for rows, inner, columns, count in shapes:
        a, b, c = (torch.randn(n, m, device=device) for n, m in ((rows, inner), (inner, columns), (rows, columns)))
        work += [(a, b), (a.T, c), (c, b.T)][:count]
    turn.about = {"steps": 1}
    while not turn.over():
        for left, right in work:
            left @ right


def _note(shapes: list):
    def hook(layer, inputs, output):
        (given,) = inputs
        products = 2 + given.requires_grad  # the gradient of an image is not needed
        if isinstance(layer, torch.nn.Linear):
            shapes.append((len(given), layer.in_features, layer.out_features, products))
        elif isinstance(layer, torch.nn.ConvTranspose2d):
            taps = layer.kernel_size[0] * layer.kernel_size[1]
            shapes.append((len(given) * given[0, 0].numel(), layer.in_channels, layer.out_channels * taps, products))
        elif isinstance(layer, torch.nn.Conv2d):
            taps = layer.kernel_size[0] * layer.kernel_size[1]
            shapes.append((len(given) * output[0, 0].numel(), layer.in_channels * taps, layer.out_channels, products))

    return hook
