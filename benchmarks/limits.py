"""The arithmetic of a step, and how fast this machine multiplies matrices."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contenders import BATCH, config
from qmvae_core.kernels import arrange_for_cpu
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


def ceiling(turn, device: str, size: int = 2048, products: int = 20, precision: str = "float32") -> None:
    """Products of two square matrices in float32 or bfloat16, so many a turn."""
    a, b = (torch.randn(size, size, device=device).to(getattr(torch, precision)) for _ in range(2))
    turn.about = {"steps": products, "operations": 2 * size**3}
    while not turn.over():
        for _ in range(products):
            a @ b


def layers(turn, model: str, device: str = "cpu", batch: int = BATCH, steps: int = 10) -> None:
    """The layers of a step alone on a CPU, each at its own sizes: outputs and gradients, so many steps a turn.

    Each layer is repeated before the next has its turn, so it finds in the caches what they hold, and nothing stands
    between two layers. A loop of the same layers so laid out cannot be faster; one of other kernels could.
    Raises ValueError for a GPU, where a captured step is spared the launches that this would count.
    """
    if device != "cpu":
        raise ValueError(f"the layers alone are no limit on {device}; measure them on the CPU")
    built = arrange_for_cpu(build_model(config(model), 0))  # as in the fast loop, and so its images
    generator = torch.Generator().manual_seed(0)
    images = {
        name: torch.rand(batch, *m.shape, generator=generator).contiguous(memory_format=torch.channels_last)
        for name, m in built.config.modalities.items()
    }
    calls: list[tuple[nn.Module, Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, _: calls.append((layer, inputs[0])))
        for layer in built.modules()
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
    ]
    built.loss(images, torch.arange(batch) % 10, draw_noise(built.noise_spec(batch), generator, "cpu"))
    for hook in hooks:
        hook.remove()
    work = []
    for layer, given in calls:
        wanted = list(layer.parameters())
        again = given.detach()
        if given.requires_grad:  # the gradient of an image is not needed
            wanted.append(again.requires_grad_())
        work.append((layer, again, wanted, torch.ones_like(layer(again)).detach()))
    turn.about = {"steps": steps}
    while not turn.over():
        for layer, given, wanted, cotangent in work:
            for _ in range(steps):
                torch.autograd.grad(layer(given), wanted, cotangent)
