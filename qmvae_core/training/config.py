"""How long and how fast to train, and what the machine must have for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from qmvae_core.kernels import require_bfloat16
from qmvae_core.models import Checked
from qmvae_core.names import known

# What a GPU's tensor cores may do in each; bfloat16 is of the fast loop, whose layers then multiply in it.
PRECISIONS = {"float32": "ieee", "tf32": "tf32", "bfloat16": "ieee"}


@dataclass(frozen=True)
class TrainingConfig(Checked):
    """How long and how fast to train; the defaults are the paper's (section 4.1).

    Raises ValueError like models.Checked, for an unknown precision, and for a share above 1.
    """

    positive = ("epochs", "steps_per_epoch", "batch_size", "learning_rate", "rounds", "chunk", "reports")

    epochs: int = 10
    steps_per_epoch: int | None = None  # None: every pair once an epoch
    batch_size: int = 128
    learning_rate: float = 1e-4
    rounds: int = 30  # rounds of MMVAE's pairing; 30 gives the 1,682,040 pairs that the paper names
    pair_seed: int = 0
    chunk: int = 100  # steps whose draws are made together
    precision: str = "float32"  # or "tf32", on a GPU's tensor cores, or "bfloat16", in the layers on a CPU
    reports: int = 1  # entries of the history an epoch
    missing: float = 0.0  # share of the pairs of which some modalities are hidden (`data.missing_at_random`)

    def __post_init__(self):
        super().__post_init__()
        known(PRECISIONS, "precision", self.precision)
        if self.missing > 1:
            raise ValueError(f"TrainingConfig: missing must be a share from 0 to 1, not {self.missing}")


def default_loop(device: torch.device) -> str:
    """The form of the steps that is fast there."""
    return "stacked" if device.type == "cuda" else "fast"


def check_precision(precision: str, device: str | torch.device, loop: str | None = None) -> None:
    """Raise ValueError, with the remedy, for a precision that the device or loop lacks; loop as of `fit`."""
    device = torch.device(device)
    loop = loop or default_loop(device)
    if precision == "tf32" and device.type != "cuda":
        raise ValueError(f"tf32 is a precision of a GPU's tensor cores, not of {device.type!r}; use float32")
    if precision == "bfloat16":
        if loop != "fast":
            raise ValueError(f"bfloat16 is a precision of the fast loop on a CPU, not of {loop!r}; use float32")
        require_bfloat16()


@contextlib.contextmanager
def in_precision(name: str) -> Iterator[None]:
    """What a GPU's tensor cores may do in the block: that of the precision."""
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [switch.fp32_precision for switch in switches]
    for switch in switches:
        switch.fp32_precision = PRECISIONS[name]
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value
