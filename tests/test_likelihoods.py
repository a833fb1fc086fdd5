"""Each likelihood against torch.distributions, at its edges and in its shapes."""

import pytest
import torch
from test_losses import random
from torch.distributions import Bernoulli, Categorical, Laplace, Normal

from qmvae_core.likelihoods import LIKELIHOODS, likelihood

KINDS = ("bernoulli", "laplace", "normal")


@pytest.mark.parametrize("scale", [0.1, 0.75, 3.0])
def test_log_likelihood_is_torchs_summed_over_pixels(scale):
    """A mean over pixels instead of the sum would change beta silently. The Bernoulli density takes grey pixels too."""
    logits, images = random(0, 2, 3, 4, 5, scale=3), random(1, 2, 3, 4, 5).sigmoid()
    centre = logits.sigmoid()
    for kind, density in (
        ("bernoulli", Bernoulli(logits=logits, validate_args=False)),
        ("laplace", Laplace(centre, scale)),
        ("normal", Normal(centre, scale)),
    ):
        expected = density.log_prob(images).sum(dim=(1, 2, 3))
        torch.testing.assert_close(likelihood(kind, scale).log_prob(logits, images), expected, rtol=1e-12, atol=1e-9)


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
    expected = Categorical(logits=logits).log_prob(classes).reshape(*leading, -1).sum(dim=-1)
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
