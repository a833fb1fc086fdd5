"""JMVAE against its objective sample by sample, and what it does without a modality; test_multivae has the package."""

import functools
import itertools
import math

import naive
import pytest
import torch
from model_cases import LABELS, THREE, TWO, build, random_images, random_noise

from qmvae_core.gaussians import DiagonalGaussian
from qmvae_core.models import READINGS, JMVAEConfig, build_model, reading

ALPHAS = [0.0, 0.1, 1.5]


@pytest.fixture(scope="session")
def jmvae_config(shared_only_config):
    """A function: names of modalities, α, and a likelihood for all of them or None -> a small config of JMVAE."""
    return functools.partial(shared_only_config, "jmvae", alpha=0.1)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("names", [TWO, THREE])
def test_loss_of_a_tiny_batch_sample_by_sample(jmvae_config, names, alpha):
    model = build(jmvae_config(*names, alpha=alpha))
    images, noise = random_images(model.config, 2), random_noise(model, 2)
    features = torch.cat([model.joint_encoder.bodies[name](images[name]) for name in names], dim=1)
    head = model.joint_encoder.head
    joint = DiagonalGaussian(*(features @ head.weight.T + head.bias).chunk(2, dim=1))
    alone = {name: model.common_encoders[name](images[name]) for name in names if alpha}
    expected = []
    for i in range(2):
        posterior = naive.product([joint], i)
        code = naive.sample(posterior, noise["joint/shared"][i])
        bound = sum(naive.likelihood(model, n, code, images[n][i]) for n in names) - naive.kl(posterior)
        gaps = {f"kl_to/{name}": naive.kl(posterior, naive.product([q], i)) for name, q in alone.items()}
        terms = {"elbo/joint": bound, "kl/joint": naive.kl(posterior), **gaps}
        expected.append({**terms, "objective": bound - alpha * sum(gaps.values())})
    naive.assert_terms(model.loss(images, LABELS[:2], noise), expected)


# The shared posterior


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("names", [TWO, THREE])
def test_posterior_of_all_modalities_is_the_joint_encoders_in_any_order(jmvae_config, names, alpha):
    model = build(jmvae_config(*names, alpha=alpha))
    images = random_images(model.config)
    expected = model.joint_encoder(images)
    for order in itertools.permutations(names):
        found = model.encode_shared({name: images[name] for name in order})
        assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("name", THREE)
def test_posterior_of_one_modality_is_its_own_encoders_in_jmvae_kl(jmvae_config, name):
    model = build(jmvae_config(*THREE))
    images = random_images(model.config)
    found = model.encode_shared({name: images[name]})
    assert all(map(torch.equal, found, model.common_encoders[name](images[name])))


@pytest.mark.parametrize("size", [1, 2])
def test_posterior_of_some_modalities_is_the_joint_encoders_of_zeros_in_jmvae(jmvae_config, size):
    model = build(jmvae_config(*THREE, alpha=0.0))
    images = random_images(model.config)
    for names in itertools.combinations(THREE, size):
        filled = {name: value if name in names else torch.zeros_like(value) for name, value in images.items()}
        found = model.encode_shared({name: images[name] for name in names})
        assert all(map(torch.equal, found, model.joint_encoder(filled)))
        assert not torch.equal(found.mean, model.joint_encoder(images).mean)


def test_jmvae_kl_has_no_posterior_of_some_of_three_modalities(jmvae_config):
    model = build(jmvae_config(*THREE))
    images = random_images(model.config)
    del images["photo"]
    with pytest.raises(
        ValueError, match=r"encodes one modality or all of them, not \['ink', 'sketch'\] without \['photo'\]"
    ):
        model.encode_shared(images)


# Choices


def test_jmvae_has_no_encoders_of_single_modalities_and_jmvae_kl_has(jmvae_config):
    zero, kl = (build_model(jmvae_config(*THREE, alpha=alpha)) for alpha in (0.0, 0.1))
    assert not zero.common_encoders
    assert set(kl.common_encoders) == set(kl.joint_encoder.bodies) == set(zero.joint_encoder.bodies) == set(THREE)
    assert not zero.shared_encoders
    assert not kl.shared_encoders
    assert {name for name, _ in kl.named_parameters()} - {name for name, _ in zero.named_parameters()} == {
        name for name, _ in kl.named_parameters() if name.startswith("common_encoders.")
    }
    for name, body in kl.joint_encoder.bodies.items():  # the same networks, with weights of their own
        other = kl.common_encoders[name].body
        assert str(body) == str(other)
        assert not any(map(torch.equal, body.parameters(), other.parameters()))


@pytest.mark.parametrize("alpha", [-0.1, math.nan])
def test_a_weight_that_is_no_weight_is_refused(jmvae_config, alpha):
    with pytest.raises(ValueError, match=f"JMVAEConfig: alpha must be float, not {alpha}"):
        build_model(jmvae_config(alpha=alpha))


def test_readings_are_those_of_mvae_but_for_the_model_and_alpha():
    mvae = READINGS["mvae"]
    for name, alpha in (("jmvae", 0.0), ("jmvae-kl", 0.1)):
        config = reading(name)
        assert type(config) is JMVAEConfig
        assert config.alpha == alpha
        assert config.to_dict() == {**mvae.to_dict(), "model": "jmvae", "alpha": alpha}
    assert reading("jmvae+alpha=0.1") == reading("jmvae-kl")
