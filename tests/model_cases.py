"""What the tests of all models share: small configs, and images and draws that are the same in every run."""

import torch

from qmvae_core.models import ModelConfig, MultimodalVAE, draw_noise

# What `small_config` needs for each model.
SMALL = {
    "qmvae": {},
    "dmvae": {"discriminator": 6},
    **dict.fromkeys(("mvae", "mmvae", "mopoe", "jmvae"), {"of_all": {"private": 0}}),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(config: ModelConfig, batch: int = 4, dtype=torch.float64) -> dict[str, torch.Tensor]:
    draws = generator()
    return {
        name: torch.rand((batch, *m.shape), generator=draws, dtype=torch.float64).to(dtype)
        for name, m in config.modalities.items()
    }


def random_noise(model: MultimodalVAE, batch: int = 4, dtype=torch.float64, seed: int = 0) -> dict[str, torch.Tensor]:
    drawn = draw_noise(model.noise_spec(batch), generator(seed), "cpu")
    return {name: value.to(dtype) for name, value in drawn.items()}
