"""The arithmetic of a step, and how fast this machine multiplies matrices."""

from __future__ import annotations

import time

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


def ceiling(device: str, size: int = 2048, seconds: float = 2.0) -> float:
    """Operations a second of a product of two square matrices in float32: the median over so many seconds."""
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        times.append(_timed(lambda: a @ b, device))
    return 2 * size**3 / sorted(times)[len(times) // 2]


def ceiling_of_the_layers(model: str, device: str) -> float:
    """Seconds that the step's matrix products would take, each layer's as three products of its own sizes.

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
    total = 0.0
    for rows, inner, columns, products in shapes:
        a = torch.randn(rows, inner, device=device)
        b = torch.randn(inner, columns, device=device)
        c = torch.randn(rows, columns, device=device)
        for product in (lambda a=a, b=b: a @ b, lambda a=a, c=c: a.T @ c, lambda b=b, c=c: c @ b.T)[:products]:
            times = sorted(_timed(product, device) for _ in range(15))
            total += times[len(times) // 2]
    return total


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


def _timed(work, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
