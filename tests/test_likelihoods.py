"""Each likelihood against loops from its formula, torch.distributions and numeric integration."""

import math

import pytest
import torch
from scipy.integrate import quad
from test_losses import random

from qmvae_core.likelihoods import LIKELIHOODS, likelihood

KINDS = ("bernoulli", "laplace", "normal")


def naive_log_density(kind: str, logit: float, pixel: float, scale: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    if kind == "bernoulli":
        return pixel * math.log(p) + (1 - pixel) * math.log(1 - p)
    if kind == "laplace":
        return -abs(pixel - p) / scale - math.log(2 * scale)
    return -((pixel - p) ** 2) / (2 * scale**2) - 0.5 * math.log(2 * math.pi * scale**2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [0.1, 0.75, 3.0])
def test_log_likelihood_is_the_sum_over_pixels_of_the_formula(kind, scale):
    logits, images = random(0, 2, 3, 4, 5, scale=3), random(1, 2, 3, 4, 5).sigmoid()
    found = likelihood(kind, scale).log_prob(logits, images)
    for i in range(2):
        pairs = zip(logits[i].flatten().tolist(), images[i].flatten().tolist(), strict=True)
        expected = sum(naive_log_density(kind, logit, pixel, scale) for logit, pixel in pairs)
        assert found[i].item() == pytest.approx(expected, abs=1e-6, rel=1e-12)


@pytest.mark.parametrize("scale", [0.1, 0.75])
def test_log_likelihood_agrees_with_torch_distributions(scale):
    logits, images = random(2, 4, 1, 3, 3), random(3, 4, 1, 3, 3).sigmoid()
    for kind, family in (("laplace", torch.distributions.Laplace), ("normal", torch.distributions.Normal)):
        expected = family(logits.sigmoid(), scale).log_prob(images).sum(dim=(1, 2, 3))
        torch.testing.assert_close(likelihood(kind, scale).log_prob(logits, images), expected, atol=1e-9, rtol=0)
    pixels = images.round()
    expected = torch.distributions.Bernoulli(logits=logits).log_prob(pixels).sum(dim=(1, 2, 3))
    torch.testing.assert_close(likelihood("bernoulli").log_prob(logits, pixels), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", ["laplace", "normal"])
def test_likelihood_of_one_pixel_integrates_to_one(kind):
    def density(value):
        image = torch.tensor(value, dtype=torch.float64).view(1, 1, 1)
        return likelihood(kind, 0.3).log_prob(torch.full((1, 1, 1), 0.4, dtype=torch.float64), image).exp().item()

    assert quad(density, -10, 10, points=[0.4, 1 / (1 + math.exp(-0.4))])[0] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_likelihood_of_repeated_pixels_grows_with_their_number(kind):
    """A mean over pixels instead of the sum would change beta silently."""
    logits, images = random(4, 2, 1, 3, 3), random(5, 2, 1, 3, 3).sigmoid()
    once = likelihood(kind, 0.75).log_prob(logits, images)
    torch.testing.assert_close(
        likelihood(kind, 0.75).log_prob(logits.repeat(1, 4, 1, 1), images.repeat(1, 4, 1, 1)), 4 * once
    )


@pytest.mark.parametrize("kind", KINDS)
def test_likelihood_keeps_leading_dimensions_and_broadcasts_images(kind):
    logits, images = random(6, 2, 5, 3, 4, 4), random(7, 5, 3, 4, 4).sigmoid()
    both = likelihood(kind, 0.5).log_prob(logits, images)
    assert both.shape == (2, 5)
    torch.testing.assert_close(both[1], likelihood(kind, 0.5).log_prob(logits[1], images))


@pytest.mark.parametrize("kind", KINDS)
def test_likelihood_and_its_gradient_stay_finite_for_extreme_logits(kind):
    logits = torch.tensor([-1e4, -90.0, 90.0, 1e4]).view(1, 1, 2, 2).requires_grad_()
    value = likelihood(kind, 0.1).log_prob(logits, torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]]))
    value.backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(logits.grad).all()


def test_unknown_likelihood_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match="'poisson'.*bernoulli.*laplace.*normal"):
        likelihood("poisson")


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_scale_that_is_not_positive_is_an_error(scale):
    with pytest.raises(ValueError, match="positive"):
        likelihood("laplace", scale)


@pytest.mark.parametrize(("shape", "leading"), [((4,), (3,)), ((2, 4), (5, 3)), ((1, 1, 4), (3,))])
def test_categorical_is_the_probability_of_the_class(shape, leading):
    logits = random(8, *leading, *shape)
    classes = random(9, *leading, *shape).argmax(dim=-1)
    one_hot = torch.nn.functional.one_hot(classes, 4).double()
    found = likelihood("categorical", dims=len(shape))
    expected = torch.distributions.Categorical(logits=logits).log_prob(classes).reshape(*leading, -1).sum(dim=-1)
    torch.testing.assert_close(found.log_prob(logits, one_hot), expected)
    torch.testing.assert_close(found.mean(logits).sum(dim=-1), torch.ones(logits.shape[:-1], dtype=torch.float64))


def test_a_scale_that_is_learned_gives_what_the_number_gives():
    logits, images = random(10, 3, 2, 4), random(11, 3, 2, 4).sigmoid()
    scale = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    found = likelihood("normal", scale, dims=2).log_prob(logits, images)
    torch.testing.assert_close(found, likelihood("normal", 0.4, dims=2).log_prob(logits, images))
    (gradient,) = torch.autograd.grad(found.sum(), scale)
    residual = (images - logits.sigmoid()).square().sum()
    torch.testing.assert_close(gradient, residual / 0.4**3 - images.numel() / 0.4)


@pytest.mark.parametrize("kind", LIKELIHOODS)
def test_the_mean_is_what_the_formula_expects(kind):
    logits = random(12, 2, 1, 1, 4)
    expected = logits.softmax(dim=-1) if kind == "categorical" else logits.sigmoid()
    torch.testing.assert_close(likelihood(kind).mean(logits), expected)
