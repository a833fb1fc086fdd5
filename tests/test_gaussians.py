"""Diagonal Gaussians against numeric integration, and equation (8) against the normalised product of densities."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_losses import random_gaussian
from torch.distributions import Normal, kl_divergence

from qmvae_core.gaussians import DiagonalGaussian, product_of_experts, softmax_scales

means = st.floats(-3, 3)
log_vars = st.floats(-2, 2)
experts_in_one_dimension = st.lists(st.tuples(means, log_vars), min_size=1, max_size=4)


def gaussian(mean, log_var) -> DiagonalGaussian:
    return DiagonalGaussian(torch.tensor(mean, dtype=torch.float64), torch.tensor(log_var, dtype=torch.float64))


def moments_of_product(factors) -> tuple[float, float]:
    """Mean and variance of the normalised product of densities on the line, by sums over a grid."""
    grid = torch.linspace(-20, 20, 40_001, dtype=torch.float64)
    weights = sum(Normal(mean, math.exp(0.5 * log_var)).log_prob(grid) for mean, log_var in factors).softmax(dim=0)
    mean = (weights * grid).sum()
    return mean.item(), (weights * (grid - mean).square()).sum().item()


@given(st.lists(st.tuples(means, log_vars, means, log_vars), min_size=1, max_size=5))
def test_kl_to_another_sums_over_dimensions_what_torch_gives_for_each(parameters):
    mean, log_var, other_mean, other_log_var = zip(*parameters, strict=True)
    p, q = gaussian(mean, log_var), gaussian(other_mean, other_log_var)
    each = kl_divergence(*(Normal(g.mean, (0.5 * g.log_var).exp()) for g in (p, q)))
    assert p.kl_to(q).item() == pytest.approx(each.sum().item(), rel=1e-9, abs=1e-9)
    assert p.kl_to(q) >= -1e-12
    assert p.kl_to_prior().item() == pytest.approx(p.kl_to(gaussian([0.0], [0.0])).item(), abs=1e-9)
    assert p.kl_to(p) == 0


def test_kl_to_another_and_samples_broadcast():
    p, q = random_gaussian(0, 2, 5, 3), random_gaussian(1, 5, 3)
    assert p.kl_to(q).shape == (2, 5)
    torch.testing.assert_close(p.kl_to(q)[1], DiagonalGaussian(p.mean[1], p.log_var[1]).kl_to(q))
    assert p.sample(q.mean).shape == (2, 5, 3)


def test_kl_between_narrow_equals_stays_finite_in_single_precision():
    narrow = DiagonalGaussian(torch.ones(3), torch.full((3,), -100.0))
    wide = DiagonalGaussian(torch.ones(3), torch.full((3,), 100.0))
    assert narrow.kl_to(narrow) == wide.kl_to(wide) == 0


def test_log_prob_is_the_normal_density_summed_over_dimensions():
    q, value = random_gaussian(1, 4, 3), random_gaussian(2, 4, 3).mean
    expected = Normal(q.mean, (0.5 * q.log_var).exp()).log_prob(value).sum(dim=-1)
    torch.testing.assert_close(q.log_prob(value), expected, atol=1e-9, rtol=0)


def test_sample_moves_and_stretches_the_noise():
    assert gaussian([1.0, -2.0], [math.log(4.0), 0.0]).sample(torch.tensor([3.0, 0.5])).tolist() == [7.0, -1.5]


@pytest.mark.parametrize("prior", [True, False])
@pytest.mark.parametrize(
    "experts",
    [[(0.5, 0.0)], [(1.0, -1.0), (-0.5, 0.5)], [(2.0, 1.0), (-1.0, -1.5), (0.2, 0.3)], [(3.0, 0.0), (-3.0, 0.0)]],
)
def test_product_in_one_dimension_is_the_normalised_product_of_densities(experts, prior):
    mean, variance = moments_of_product([*experts, (0.0, 0.0)] if prior else experts)
    product = product_of_experts([gaussian([m], [v]) for m, v in experts], prior=prior)
    assert product.mean.item() == pytest.approx(mean, abs=1e-6)
    assert product.log_var.exp().item() == pytest.approx(variance, abs=1e-6)


@given(experts_in_one_dimension, experts_in_one_dimension, st.booleans())
def test_product_of_products_is_the_product_of_all(left, right, prior):
    left, right = ([gaussian([m], [v]) for m, v in side] for side in (left, right))
    nested = product_of_experts([product_of_experts(left, prior=False), product_of_experts(right, prior=False)], prior)
    torch.testing.assert_close(nested, product_of_experts([*left, *right], prior), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("prior", [True, False])
def test_extreme_variances_give_finite_products_and_gradients(dtype, prior):
    extremes = [-5000.0, -200.0, 0.0, 200.0, 5000.0]
    pairs = torch.tensor(list(itertools.product(extremes, extremes)), dtype=dtype)
    first, second = pairs.unbind(dim=-1)
    first, second = first.unsqueeze(-1).requires_grad_(), second.unsqueeze(-1).requires_grad_()
    experts = [DiagonalGaussian(torch.ones_like(first), first), DiagonalGaussian(-torch.ones_like(second), second)]
    product = product_of_experts(experts, prior=prior)
    (product.mean.sum() + product.log_var.sum()).backward()
    for value in (*product, first.grad, second.grad):
        assert torch.isfinite(value).all()
    assert product.mean.abs().max() <= 1
    if not prior:
        sure = first.detach() < second.detach() - 150
        assert (product.mean[sure] == 1).all()
        torch.testing.assert_close(product.log_var[sure], first.detach()[sure])


def test_gradients_are_those_of_finite_differences():
    parameters = [v.requires_grad_() for pair in (random_gaussian(10, 2, 3), random_gaussian(11, 2, 3)) for v in pair]

    def product(m1, v1, m2, v2, prior):
        return tuple(product_of_experts([DiagonalGaussian(m1, v1), DiagonalGaussian(m2, v2)], prior))

    assert torch.autograd.gradcheck(lambda *p: product(*p, True), parameters)
    assert torch.autograd.gradcheck(lambda *p: product(*p, False), parameters)
    assert torch.autograd.gradcheck(lambda m, v: DiagonalGaussian(m, v).kl_to_prior(), parameters[:2])
    assert torch.autograd.gradcheck(lambda m, v, n: DiagonalGaussian(m, v).sample(n), parameters[:3])
    assert torch.autograd.gradcheck(lambda m, v, x: DiagonalGaussian(m, v).log_prob(x), parameters[:3])


@pytest.mark.parametrize(
    ("shapes", "message"), [([], "at least one expert"), ([(2, 3), (1, 3)], r"\(2, 3\), \(1, 3\)")]
)
def test_experts_that_have_no_product_are_an_error(shapes, message):
    with pytest.raises(ValueError, match=message):
        product_of_experts([random_gaussian(0, *shape) for shape in shapes])


def test_softmax_scales_have_mean_one_over_the_last_dimension_and_never_vanish():
    scales = softmax_scales(torch.tensor([[[0.0, math.log(3.0)], [7.0, 7.0]]], dtype=torch.float64))
    torch.testing.assert_close(scales, torch.tensor([[[0.5, 1.5], [1.0, 1.0]]], dtype=torch.float64) + 1e-6)
    assert softmax_scales(torch.tensor([-1e4, 0.0]))[0] == pytest.approx(1e-6)
