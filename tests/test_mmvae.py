"""MMVAE against plain loops, and against integrals over the code in one dimension; test_multivae has the package."""

import dataclasses
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


# Against integrals: sums over a grid of codes in place of draws


LARGE = 100.0  # nats, as much as a bound here: left out of sums, whose relative error would be one of large numbers


def integrand(model: MMVAE, images, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """ln q_r(z) of each expert r (M, n), and ln p(x, z) - ln q(z) (n,) up to a constant, for codes (n, d)."""
    modalities = model.config.modalities
    experts = [model.encode_shared({name: images[name]}) for name in modalities]
    logs = torch.stack([torch.distributions.Laplace(*q).log_prob(codes).sum(dim=-1) for q in experts])
    value = torch.distributions.Laplace(*model.prior).log_prob(codes).sum(dim=-1)
    value = value - logs.logsumexp(dim=0) + math.log(len(modalities)) + LARGE
    for name, m in modalities.items():
        error = (model.decoders[name](codes).sigmoid() - images[name]).abs().sum(dim=(1, 2, 3))
        value = value + m.weight * (-error / m.scale - math.prod(m.shape) * math.log(2 * m.scale))
    return logs, value


def grid(count: int, half: float = 12.0, kinks=(0.0,)) -> tuple[torch.Tensor, torch.Tensor]:
    """Midpoints of about `count` intervals between -half and half, and their widths; kinks lie between two intervals.

    A density with a kink has a gradient that jumps there, and a sum over intervals across a jump is a poor integral.
    """
    edges = torch.tensor(sorted({-half, *kinks, half}), dtype=torch.float64)
    pieces = [torch.linspace(*ends, 2 + int(count * (ends[1] - ends[0]) / (2 * half)), dtype=torch.float64)
              for ends in itertools.pairwise(edges.tolist())]  # fmt: skip
    points = torch.cat([(piece[1:] + piece[:-1]) / 2 for piece in pieces])
    return points, torch.cat([piece.diff() for piece in pieces])


def code_grid(model: MMVAE, images, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (n, d) and the size of the cell of each (n,)."""
    means = torch.cat([model.encode_shared({name: value}).mean for name, value in images.items()]).detach()
    axes = [grid(count, kinks=(0.0, *each.tolist())) for each in means.T]
    points, widths = (torch.cartesian_prod(*each).view(-1, len(axes)) for each in zip(*axes, strict=True))
    return points, widths.prod(dim=1)


def tractable(mmvae_config) -> MMVAE:
    """Likelihoods so broad, and weights so large, that the integrals are over smooth functions that differ."""
    config = mmvae_config("ink", "sketch", likelihood="laplace", particles=1, shared=2)
    modalities = {name: dataclasses.replace(m, scale=0.75, weight=2.0) for name, m in config.modalities.items()}
    model = build(dataclasses.replace(config, modalities=modalities))
    with torch.no_grad():
        for name, decoder in model.decoders.items():
            decoder[0].weight.mul_(2.0)
            model.common_encoders[name].head.weight.mul_(1.5)
    return model


def expected_by_noise(model: MMVAE, images, count: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The expectations of our objective and gradient over the noise, by all tuples of `count` of its quantiles."""
    probabilities = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    quantiles = torch.distributions.Laplace(0.0, 1.0).icdf(probabilities)
    noise = torch.cartesian_prod(*[quantiles] * model.config.shared)[None]
    batch = {name: value.expand(noise.shape[1], -1, -1, -1) for name, value in images.items()}
    draws = {f"{name}/shared": noise for name in model.config.modalities}
    objective = model.loss(batch, torch.zeros(noise.shape[1]), draws).objective.mean()
    return objective.detach() + LARGE, parameter_gradients(model, objective)


def test_with_one_particle_the_objective_is_the_elbo_of_the_mixture_and_the_gradient_has_no_bias(mmvae_config):
    model = tractable(mmvae_config)
    images = random_images(model.config, 1)
    codes, sizes = code_grid(model, images, 300)
    logs, value = integrand(model, images, codes)
    mixture = logs.exp().mean(dim=0) * sizes
    elbo = (mixture * value).sum()
    objective, found = expected_by_noise(model, images, 180)
    assert objective.item() == pytest.approx(elbo.item(), abs=0.02)
    for name, value in parameter_gradients(model, elbo).items():
        assert (found[name] - value).norm() < 5e-2 * value.norm(), name


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
