"""Weights on disk, without pickled code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save

from qmvae_core.files import replacing


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors in the safetensors format, atomically."""
    content = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    with replacing(path, len(content)) as part:
        part.write_bytes(content)
