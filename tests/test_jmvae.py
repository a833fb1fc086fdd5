"""JMVAE against the `multivae` package, against its objective sample by sample, and what it does without a modality.

Conventions, as compared here. Both sum over pixels and dimensions and average over the batch; the package minimises
the negative of what we maximise. It multiplies its KL terms with a warm-up over ten epochs, switched off here, and has
encoders of single modalities also where α is zero; these then have no gradient. Its own joint encoder has two hidden
layers on the outputs of encoders; here it is given ours. From two of three modalities it takes the product of their
encoders, without the prior; the authors have two modalities, and we refuse.
"""

import dataclasses
import functools
import itertools
import math

import pytest
import torch
from model_cases import (
    LABELS,
    THREE,
    TWO,
    assert_same_gradients,
    build,
    naive_likelihood,
    parameter_gradients,
    random_images,
    random_noise,
)
from multivae_copies import copied, gradients

from qmvae_core.models import JMVAE, READINGS, JMVAEConfig, build_model, reading

ALPHAS = [0.0, 0.1, 1.5]


@pytest.fixture(scope="session")
def jmvae_config(shared_only_config):
    """A function: names of modalities, α, and a likelihood for all of them or None -> a small config of JMVAE."""
    return functools.partial(shared_only_config, "jmvae", alpha=0.1)


# Against the package


@pytest.fixture(scope="module")
def package():
    """The module of multivae that defines its JMVAE; imported here because that takes seconds."""
    pytest.importorskip("multivae", reason="the independent implementation, pip install multivae, is not here")
    from multivae.models.jmvae import jmvae_model

    return jmvae_model


def wrapped(model: JMVAE):
    """Their JMVAE around copies of our networks; where we have no encoders of single modalities, around others."""
    dtype = next(model.parameters()).dtype
    single = model.common_encoders or build(dataclasses.replace(model.config, alpha=1.0), dtype).common_encoders
    return copied(model, "JMVAE", single, alpha=model.config.alpha, warmup=0)


def as_data(images):
    from multivae.data.datasets.base import MultimodalBaseDataset

    return MultimodalBaseDataset(images)


def compare(package, monkeypatch, model, images, tolerance=1e-10) -> None:
    """The bound, the loss, and the gradient of every parameter, for the same draw of z."""
    batch, dtype = len(next(iter(images.values()))), next(model.parameters()).dtype
    noise = random_noise(model, batch, dtype)
    theirs = wrapped(model)
    draws = [noise["joint/shared"]]
    monkeypatch.setattr(package.dist.Normal, "rsample", lambda self: self.mean + self.stddev * draws.pop(0))
    output = theirs(as_data(images))
    assert not draws
    result = model.loss(images, LABELS[:batch], noise)
    found = {"loss": result.loss, "elbo": -result.terms["elbo/joint"].mean()}
    expected = {"loss": output.loss, "elbo": output.metrics["elbo"]}
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)

    output.loss.backward()
    theirs = {name: value for name, value in gradients(theirs).items() if model.common_encoders or "common" not in name}
    assert_same_gradients(parameter_gradients(model, result.loss), theirs, tolerance, tolerance)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("names", [TWO, THREE])
@pytest.mark.parametrize("likelihood", ["laplace", "normal", "bernoulli"])
def test_loss_and_gradients_are_those_of_the_package(
    package, monkeypatch, jmvae_config, likelihood, names, alpha, batch
):
    model = build(jmvae_config(*names, alpha=alpha, likelihood=likelihood))
    images = random_images(model.config, batch)
    if likelihood == "bernoulli":
        images = {name: value.round() for name, value in images.items()}
    compare(package, monkeypatch, model, images)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["jmvae", "jmvae-kl"])
def test_the_readings_of_the_book_are_the_model_of_the_package(package, monkeypatch, name, dtype):
    model = build(reading(name), dtype)
    images = random_images(model.config, 2, dtype)
    compare(package, monkeypatch, model, images, tolerance=1e-9 if dtype == torch.float64 else 1e-4)


# Against the objective, sample by sample


def naive_kl(mean, log_var, other_mean, other_log_var) -> float:
    total = 0.0
    for m, v, n, w in zip(mean, log_var, other_mean, other_log_var, strict=True):
        total += 0.5 * (w - v) + (math.exp(v) + (m - n) ** 2) / (2 * math.exp(w)) - 0.5
    return total


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("names", [TWO, THREE])
def test_loss_of_a_tiny_batch_sample_by_sample(jmvae_config, names, alpha):
    model = build(jmvae_config(*names, alpha=alpha))
    images, noise = random_images(model.config, 2), random_noise(model, 2)
    result = model.loss(images, LABELS[:2], noise)
    gaps = {f"kl_to/{name}" for name in names} if alpha else set()
    assert set(result.terms) == {"elbo/joint", "kl/joint"} | gaps
    assert result.opposing is None
    totals = []
    for i in range(2):
        one = {name: value[i : i + 1] for name, value in images.items()}
        features = torch.cat([model.joint_encoder.bodies[name](one[name]) for name in names], dim=1)
        joint = (features @ model.joint_encoder.head.weight.T + model.joint_encoder.head.bias)[0].tolist()
        mean, log_var = joint[:4], joint[4:]
        z = [m + math.exp(v / 2) * e for m, v, e in zip(mean, log_var, noise["joint/shared"][i].tolist(), strict=True)]
        codes = torch.tensor([z], dtype=torch.float64)
        expected = {"kl/joint": naive_kl(mean, log_var, [0.0] * 4, [0.0] * 4)}
        expected["elbo/joint"] = -expected["kl/joint"] + sum(
            naive_likelihood(model.config.modalities[name], model.decoders[name](codes), images[name][i])
            for name in names
        )
        for name in names if alpha else ():
            alone = model.common_encoders[name](one[name])
            expected[f"kl_to/{name}"] = naive_kl(mean, log_var, alone.mean[0].tolist(), alone.log_var[0].tolist())
        for name, value in expected.items():
            assert result.terms[name][i].item() == pytest.approx(value, rel=1e-10), name
        totals.append(expected["elbo/joint"] - alpha * sum(expected[name] for name in gaps))
        assert result.objective[i].item() == pytest.approx(totals[-1], rel=1e-10)
    assert result.loss.item() == pytest.approx(-sum(totals) / 2, rel=1e-10)


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
