"""Chapter B2: importance sampling against grids and closed forms, the bounds, and the identity behind JMVAE-kl."""

import math

import pytest
import torch
from torch.distributions import Normal

from qmvae_core.gaussians import DiagonalGaussian
from qmvae_core.models import JMVAE, build_model
from qmvae_neighbours.jmvae import experiment
from qmvae_neighbours.jmvae import model as jmvae

ALPHAS = [0.0, 0.5]


def small(alpha: float = 0.5, latent: int = 2) -> JMVAE:
    """An untrained model whose weights are large enough for the posteriors to differ from the prior."""
    model = build_model(jmvae.config(alpha, latent, (8,), (1, 4, 4)), seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model


def pairs(generator, count: int = 4) -> dict[str, torch.Tensor]:
    images = (torch.rand(count, 1, 4, 4, generator=generator) > 0.5).float()
    return {"image": images, "label": jmvae.one_hot(torch.arange(count))}


def test_the_image_is_binary_and_the_label_a_class():
    config = jmvae.config(0.1, 2, (8,))
    assert {name: each.likelihood for name, each in config.modalities.items()} == {
        "image": "bernoulli", "label": "categorical",
    }  # fmt: skip


# Integrals with a known answer


def grid() -> tuple[torch.Tensor, float]:
    """Codes (points, 2) and the logarithm of the area of a cell."""
    axis = torch.linspace(-7, 7, 141)
    return torch.cartesian_prod(axis, axis), 2 * math.log(axis[1] - axis[0])


def on_a_grid(model, values) -> dict[str, torch.Tensor]:
    codes, area = grid()
    column = codes[:, None].expand(-1, len(values["image"]), -1)
    given = {name: model.log_likelihood(name, value, column) for name, value in values.items()}
    prior = Normal(0.0, 1.0).log_prob(column).sum(-1)
    wanted = {"image, label": sum(given.values()) + prior}
    for name, other in (("image", "label"), ("label", "image")):
        q = model.encode_shared({other: values[other]})
        wanted[name] = given[name] + prior
        wanted[f"{name} from {other}"] = given[name] + Normal(q.mean, (0.5 * q.log_var).exp()).log_prob(column).sum(-1)
    return {name: torch.logsumexp(value, dim=0) + area for name, value in wanted.items()}


@pytest.mark.parametrize("alpha", ALPHAS)
@torch.no_grad()
def test_all_estimates_are_those_of_a_grid(alpha, generator):
    model, values = small(alpha), pairs(generator)
    exact = on_a_grid(model, values)
    found = jmvae.estimates(model, values, draws=20_000, seed=0)
    for name, value in exact.items():
        torch.testing.assert_close(found[name], value, atol=0.03, rtol=0, msg=lambda text, name=name: f"{name}: {text}")
    for name in values:
        torch.testing.assert_close(found[f"{name} by its encoder"], exact[name], atol=0.15, rtol=0)
    for name in ("image, label", "image from label", "label from image"):
        assert (found[f"bound {name}"] < exact[name] + 0.02).all(), name
        assert (found[f"bound {name}"] < exact[name] - 0.02).any(), f"{name}: too tight for a test"


@torch.no_grad()
def test_the_sum_over_labels_is_that_of_a_grid(generator):
    model, values = small(), pairs(generator)
    every = jmvae.log_joint_of_labels(model, values["image"], draws=4000, seed=0)
    exact = [on_a_grid(model, {**values, "label": jmvae.one_hot(torch.full((4,), w))}) for w in range(10)]
    torch.testing.assert_close(every, torch.stack([e["image, label"] for e in exact], dim=1), atol=0.04, rtol=0)
    torch.testing.assert_close(torch.logsumexp(every, dim=1), exact[0]["image"], atol=0.04, rtol=0)
    marginal = jmvae.log_label_marginal(model, 200_000, seed=0)
    torch.testing.assert_close(marginal, torch.stack([e["label"][0] for e in exact]), atol=0.02, rtol=0)
    named = jmvae.label_probabilities(model, values["image"], 100_000, seed=0)
    generated = torch.stack([e["label from image"] for e in exact], dim=1)
    torch.testing.assert_close(named.log(), generated, atol=0.03, rtol=0)


def test_the_mixture_of_proposals_has_its_density(generator):
    proposals = [DiagonalGaussian(*torch.randn(2, 6, 3, generator=generator)) for _ in range(3)]
    codes, density = jmvae.drawn_from(proposals, 4, generator)
    assert codes.shape == (12, 6, 3)
    each = [Normal(q.mean, (0.5 * q.log_var).exp()).log_prob(codes).sum(-1).exp() for q in proposals]
    torch.testing.assert_close(density.exp(), sum(each) / 3)
    many, _ = jmvae.drawn_from(proposals, 50_000, generator)
    for i, q in enumerate(proposals):
        torch.testing.assert_close(many[i * 50_000 : (i + 1) * 50_000].mean(0), q.mean, atol=0.06, rtol=0)


# Generation


def test_images_from_labels_are_the_decoded_draws_of_each_labels_posterior():
    model = small()
    images = jmvae.images_from_labels(model, 3, seed=5)
    assert images.shape == (3, 10, 1, 4, 4)
    noise = torch.randn(3, 10, 2, generator=torch.Generator().manual_seed(5))
    q = model.common_encoders["label"](jmvae.one_hot(torch.tensor([7])))
    code = q.mean[0] + (0.5 * q.log_var[0]).exp() * noise[2, 7]
    torch.testing.assert_close(images[2, 7], model.decoders["image"](code[None])[0].sigmoid())


def test_spread_is_the_sum_of_the_pixels_variances(generator):
    images = torch.rand(5, 1, 3, 3, generator=generator)
    expected = sum(images[:, 0, i, j].var().item() for i in range(3) for j in range(3))
    assert experiment.spread(images) == pytest.approx(expected)
