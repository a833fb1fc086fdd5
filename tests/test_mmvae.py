"""MMVAE against plain loops; test_multivae has the package."""

import functools
import itertools
import math

import naive
import pytest
import torch
from model_cases import (
    LABELS,
    THREE,
    TWO,
    assert_same_gradients,
    build,
    generator,
    parameter_gradients,
    random_images,
    random_noise,
)

from qmvae_core.gaussians import SMALLEST_SCALE
from qmvae_core.models import MMVAE, build_model, reading
from qmvae_core.models.mmvae import DiagonalLaplace, _WeightedAgain


@pytest.fixture(scope="session")
def mmvae_config(shared_only_config):
    """A function: names of modalities, and a likelihood for all of them or None -> a small config of MMVAE."""
    return functools.partial(shared_only_config, "mmvae")


# Against plain loops


def naive_laplace(mean, scale, code) -> float:
    return sum(
        math.log(math.exp(-abs(z - m) / s) / (2 * s))
        for z, m, s in zip(code.tolist(), mean.tolist(), scale.tolist(), strict=True)
    )


def naive_scale(values: torch.Tensor) -> torch.Tensor:
    exponentials = [math.exp(value) for value in values.tolist()]
    return values.new_tensor([len(exponentials) * value / sum(exponentials) + 1e-6 for value in exponentials])


def naive_log_weight(model: MMVAE, images, source: str, noise, i: int) -> float:
    """ln w of one particle of the source's expert for sample i."""
    experts = {name: model.common_encoders[name](images[name][i : i + 1]) for name in model.config.modalities}
    parameters = {name: (q.mean[0], naive_scale(q.log_var[0])) for name, q in experts.items()}
    mean, scale = parameters[source]
    code = mean + scale * noise
    mixture = sum(math.exp(naive_laplace(*each, code)) for each in parameters.values()) / len(parameters)
    value = naive_laplace(torch.zeros(len(code)), naive_scale(model.prior_scale), code) - math.log(mixture)
    for name in model.config.modalities:
        value += naive.likelihood(model, name, code.tolist(), images[name][i])
    return value


@pytest.mark.parametrize("names", [TWO, THREE])
def test_loss_of_a_tiny_batch_sample_by_sample(mmvae_config, names):
    model = build(mmvae_config(*names, particles=3))
    images, noise = random_images(model.config, 2), random_noise(model, 2)
    expected = []
    for i in range(2):
        terms = {}
        for name in names:
            logs = [naive_log_weight(model, images, name, noise[f"{name}/shared"][k, i], i) for k in range(3)]
            weights = [math.exp(each - max(logs)) for each in logs]
            terms[f"iwae/{name}"] = max(logs) + math.log(sum(weights) / 3)
            terms[f"particles/{name}"] = sum(weights) ** 2 / sum(weight**2 for weight in weights)
        expected.append({**terms, "objective": sum(terms[f"iwae/{name}"] for name in names) / len(names)})
    naive.assert_terms(model.loss(images, LABELS[:2], noise), expected, rel=1e-8)


def test_gradient_of_an_encoder_particle_by_particle(mmvae_config):
    """Σ_r Σ_k w̃_k² ∂ln w_k/∂z_k ∂z_k/∂φ / M for encoders, Σ_r Σ_k w̃_k ∂ln w_k/∂θ / M for all else."""
    model = build(mmvae_config(*THREE, particles=3))
    images, noise = random_images(model.config, 2), random_noise(model, 2)
    found = parameter_gradients(model, model.loss(images, LABELS[:2], noise).objective.sum())
    modalities = model.config.modalities
    expected = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    for i, source in itertools.product(range(2), modalities):
        experts = {name: model.encode_shared({name: images[name][i : i + 1]}) for name in modalities}
        codes = [experts[source].sample(noise[f"{source}/shared"][k, i]) for k in range(3)]
        leaves = [code.detach().requires_grad_() for code in codes]
        logs = []
        for leaf in leaves:
            densities = [torch.distributions.Laplace(*q.detach()).log_prob(leaf).sum() for q in experts.values()]
            value = torch.distributions.Laplace(*model.prior).log_prob(leaf).sum() + math.log(len(modalities))
            value = value - torch.stack(densities).logsumexp(dim=0)
            for name, m in modalities.items():
                value = value + m.weight * m.observed().log_prob(model.decoders[name](leaf), images[name][i : i + 1])
            logs.append(value)
        normalised = torch.stack(logs).detach().softmax(dim=0)
        for w, log_weight, leaf, code in zip(normalised, logs, leaves, codes, strict=True):
            for name, value in model.named_parameters():
                if not name.startswith("common_encoders"):
                    (part,) = torch.autograd.grad(log_weight, value, retain_graph=True)
                    expected[name] += w * part / len(modalities)
            (by_code,) = torch.autograd.grad(log_weight, leaf)
            for name, value in model.common_encoders[source].named_parameters():
                (part,) = torch.autograd.grad(code, value, by_code, retain_graph=True)
                expected[f"common_encoders.{source}.{name}"] += w**2 * part / len(modalities)
    assert_same_gradients(found, expected, rtol=1e-9, atol=1e-9)


# The function that multiplies by the weights once more


def test_the_codes_pass_unchanged_and_a_sample_without_gradient_has_none():
    codes = torch.randn(3, 2, 4, generator=generator(), dtype=torch.float64).requires_grad_()
    same, zeros = _WeightedAgain.apply(codes)
    assert torch.equal(same, codes)
    assert torch.equal(zeros, torch.zeros(3, 2, dtype=torch.float64))
    logs = same.square().sum(dim=-1) + zeros
    (gradient,) = torch.autograd.grad(logs.logsumexp(dim=0)[1], codes)
    assert torch.equal(gradient[:, 0], torch.zeros(3, 4, dtype=torch.float64))
    weights = codes.detach().square().sum(dim=-1).softmax(dim=0)[:, 1, None]
    torch.testing.assert_close(gradient[:, 1], 2 * weights**2 * codes.detach()[:, 1])


# Posteriors and prior


def test_laplace_density_is_that_of_pytorch():
    draws = generator()
    mean, values, code, noise = (torch.randn(5, 3, generator=draws, dtype=torch.float64) for _ in range(4))
    found = DiagonalLaplace(mean, values.exp())
    expected = torch.distributions.Laplace(mean, values.exp())
    torch.testing.assert_close(found.log_prob(code), expected.log_prob(code).sum(dim=-1))
    torch.testing.assert_close(found.sample(noise), mean + values.exp() * noise)


def test_draws_have_the_density_that_their_log_prob_says(mmvae_config):
    """By the mean distance from the mean, which is the scale, with its error of scale / √n."""
    model = build(mmvae_config())
    drawn = model.sample_shared(20_000, generator()).abs().mean(dim=0)
    torch.testing.assert_close(drawn, model.prior.scale.detach(), rtol=4 / 20_000**0.5, atol=0)
    posterior = DiagonalLaplace(torch.full((20_000, 4), 3.0), torch.tensor([0.1, 1.0, 2.0, 5.0]).expand(20_000, 4))
    drawn = (model.sample_posterior(posterior, generator()) - 3.0).abs().mean(dim=0)
    torch.testing.assert_close(drawn, torch.tensor([0.1, 1.0, 2.0, 5.0], dtype=drawn.dtype), rtol=0.03, atol=0)


@pytest.mark.parametrize("name", THREE)
def test_posterior_of_one_modality_is_its_expert_with_scales_of_mean_one(mmvae_config, name):
    model = build(mmvae_config(*THREE))
    images = random_images(model.config)
    expert = model.common_encoders[name](images[name])
    found = model.encode_shared({name: images[name]})
    torch.testing.assert_close(found.mean, expert.mean)
    torch.testing.assert_close(found.scale, 4 * expert.log_var.softmax(dim=-1) + SMALLEST_SCALE)
    torch.testing.assert_close(found.scale.mean(dim=-1), torch.ones(4, dtype=torch.float64), rtol=2e-6, atol=0)


def test_prior_starts_with_scales_of_one_whatever_the_seed(mmvae_config):
    for seed in (0, 1):
        prior = build_model(mmvae_config(), seed).prior
        assert torch.equal(prior.mean, torch.zeros(4))
        torch.testing.assert_close(prior.scale, torch.ones(4), rtol=2e-6, atol=0)


# Choices


def test_the_reading_has_the_likelihoods_of_the_authors_and_their_particles_are_a_change_away():
    config = reading("mmvae")
    assert {name: (m.likelihood, m.scale, m.weight, m.private) for name, m in config.modalities.items()} == {
        "mnist": ("laplace", 0.75, 3072 / 784, 0),
        "svhn": ("laplace", 0.75, 1.0, 0),
    }
    assert config.particles == 4
    assert build_model(reading("mmvae+particles=30")).noise_spec(2) == dict.fromkeys(
        ("mnist/shared", "svhn/shared"), ("laplace", (30, 2, 20))
    )
