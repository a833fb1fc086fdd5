"""What the tests of all models share: small configs, images and draws that are the same in every run."""

from collections.abc import Mapping, Sequence

import torch

from qmvae_core.data import MODALITIES, Digits
from qmvae_core.models import ModelConfig, MultimodalVAE, build_model, draw_noise
from qmvae_core.training import fit

TWO, THREE = ("ink", "photo"), ("ink", "photo", "sketch")
LABELS = torch.tensor([3, 1, 1, 7])

# What `small_config` needs for each model.
SMALL = {
    "qmvae": {},
    "dmvae": {"discriminator": 6},
    **dict.fromkeys(("mvae", "mmvae", "mopoe", "jmvae"), {"of_all": {"private": 0}}),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def random_images(config: ModelConfig, batch: int = 4, dtype=torch.float64) -> dict[str, torch.Tensor]:
    draws = generator()
    return {
        name: torch.rand((batch, *m.shape), generator=draws, dtype=torch.float64).to(dtype)
        for name, m in config.modalities.items()
    }


def random_noise(model: MultimodalVAE, batch: int = 4, dtype=torch.float64, seed: int = 0) -> dict[str, torch.Tensor]:
    drawn = draw_noise(model.noise_spec(batch), generator(seed), "cpu")
    return {name: value.to(dtype) for name, value in drawn.items()}


def noise(counts: Mapping[str, Sequence[int]], seed: int = 0) -> dict[str, Digits]:
    """Of each modality of the paper noise, with so many images of each digit."""
    draws, found = generator(seed), {}
    for name, of_digit in counts.items():
        labels = torch.arange(10).repeat_interleave(torch.tensor(of_digit))
        labels = labels[torch.randperm(len(labels), generator=draws)]
        shape = (len(labels), *MODALITIES[name])
        found[name] = Digits(torch.randint(0, 256, shape, dtype=torch.uint8, generator=draws), labels)
    return found


def build(config: ModelConfig, dtype=torch.float64) -> MultimodalVAE:
    """A model of the config; MMVAE's prior is not the one that it starts with."""
    model = build_model(config, seed=0).to(dtype)
    if config.model == "mmvae":
        model.prior_scale.data = torch.linspace(-0.5, 0.7, config.shared, dtype=dtype)
    return model


def parameter_gradients(model: torch.nn.Module, value: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of every parameter by its name, zeros where the value does not depend on it."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


def assert_same_gradients(found: dict, expected: dict, rtol: float = 1e-10, atol: float = 1e-10) -> None:
    """Of the same parameters, and none of them zero."""
    assert set(found) == set(expected)
    for name, value in found.items():
        assert value.abs().max() > 0, name
        torch.testing.assert_close(value, expected[name], rtol=rtol, atol=atol, msg=lambda s, n=name: f"{n}: {s}")


class Interruption(Exception):
    pass


def quiet(*arguments, **options):
    return fit(*arguments, **{"progress": "none", **options})


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in model.named_parameters()}


def same_bits(first, second) -> bool:
    first, second = weights(first), weights(second)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def assert_same_run(found, expected) -> None:
    """To the last bit."""
    assert found.histories == expected.histories
    assert all(map(same_bits, found.models, expected.models))
