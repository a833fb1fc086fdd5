"""What holds for each model alike: the shapes and ranges of what it encodes and generates."""

import itertools

import pytest
import torch
from model_cases import SMALL, generator, random_images

from qmvae_core.models import MODELS, READINGS, build_model, reading

THREE = ("ink", "photo", "sketch")


@pytest.fixture(params=[*READINGS, *itertools.product(SMALL, (2, 3))], ids=str)
def model(request, small_config):
    """Every reading of the book, and a small config of every model with two and with three modalities."""
    if request.param in READINGS:
        return build_model(reading(request.param))
    name, count = request.param
    return build_model(small_config(*THREE[:count], model=name, **SMALL[name]))


def test_every_model_is_among_them():
    assert set(SMALL) == set(MODELS) == {config.model for config in READINGS.values()}


def is_image(value: torch.Tensor, shape: tuple[int, ...]) -> bool:
    return tuple(value.shape) == shape and bool(((value >= 0) & (value <= 1)).all())


def test_shapes_of_codes_and_of_generated_images(model):
    modalities = model.config.modalities
    images = random_images(model.config, 3, torch.float32)
    made = model.generate(5, generator())
    assert list(made) == list(modalities)
    for name, m in modalities.items():
        assert is_image(made[name], (5, *m.shape))
        assert model.sample_private(name, 2).shape == (2, m.private)
        assert {tuple(value.shape) for value in model.encode_private(name, images[name])} == {(3, m.private)}
        assert {tuple(value.shape) for value in model.encode_shared({name: images[name]})} == {(3, model.config.shared)}
    for source, target in itertools.product(modalities, repeat=2):
        expected = (3, *modalities[target].shape)
        for code in ("mean", "sample"):
            assert is_image(model.cross_generate(source, images[source], target, generator(), code), expected)
        assert is_image(model.transfer(content=(source, images[source]), style=(target, images[target])), expected)


def test_codes_of_all_modalities_where_the_model_has_them(model):
    images = random_images(model.config, 3, torch.float32)
    if model.has_joint_code:
        assert {tuple(value.shape) for value in model.encode_shared(images)} == {(3, model.config.shared)}
    else:
        with pytest.raises(ValueError, match="no joint code"):
            model.encode_shared(images)
