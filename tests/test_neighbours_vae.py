"""Chapter B1: Gaussians with full covariance, the noise models and the bound against closed forms and torch's own."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from qmvae_core.data import Digits
from qmvae_neighbours import experiments
from qmvae_neighbours.vae import experiment
from qmvae_neighbours.vae import model as vae
from qmvae_study.evidence import records


def gaussian(generator, *batch: int, d: int = 4) -> vae.CholeskyGaussian:
    factor = torch.randn(*batch, d, d, generator=generator, dtype=torch.float64).tril(-1)
    diagonal = 0.3 + torch.rand(*batch, d, generator=generator, dtype=torch.float64)
    mean = torch.randn(*batch, d, generator=generator, dtype=torch.float64)
    return vae.CholeskyGaussian(mean, factor + torch.diag_embed(diagonal))


def test_the_full_gaussian_is_that_of_torch(generator):
    q = gaussian(generator, 5)
    theirs = MultivariateNormal(q.mean, scale_tril=q.factor)
    prior = MultivariateNormal(torch.zeros(4).double(), torch.eye(4).double())
    value = torch.randn(7, 5, 4, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(q.kl_to_prior(), kl_divergence(theirs, prior))
    torch.testing.assert_close(q.log_prob(value), theirs.log_prob(value))


def small(**choices) -> vae.VAE:
    config = vae.VAEConfig(**{"shape": (1, 4, 4), "widths": (8,), "latent": 2, **choices})
    return vae.VAE(config, torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("noise", ["normal", "learned"])
def test_the_normal_noise_is_torchs_and_its_scale_has_a_gradient_only_where_it_is_learned(noise, generator):
    model = small(noise=noise, scale=0.3)
    images = torch.rand(5, 1, 4, 4, generator=generator, dtype=torch.float64)
    codes = torch.randn(3, 5, 2, generator=generator, dtype=torch.float64)
    logits = model.decode(codes)
    assert logits.shape == (3, 5, 1, 4, 4)
    ours = model.log_likelihood(codes, images)
    theirs = Normal(logits.sigmoid(), 0.3).log_prob(images).sum(dim=(-3, -2, -1))
    torch.testing.assert_close(ours, theirs)
    ours.sum().backward()
    assert (model.log_scale.grad is not None) == (noise == "learned")


def test_a_network_gives_each_code_its_variance_and_is_moved_by_the_likelihood(generator):
    model = small(noise="network", scale=0.3)
    images = torch.rand(5, 1, 4, 4, generator=generator, dtype=torch.float64)
    codes = torch.randn(3, 5, 2, generator=generator, dtype=torch.float64)
    first, _, second = model.spread
    by_hand = 0.3 * ((codes @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T + second.bias).exp()
    theirs = Normal(model.decode(codes).sigmoid(), by_hand[..., None, None]).log_prob(images).sum(dim=(-3, -2, -1))
    ours = model.log_likelihood(codes, images)
    torch.testing.assert_close(ours, theirs)
    ours.sum().backward()
    assert first.weight.grad.abs().sum() > 0
    assert model.log_scale.grad is None


def grid(reach: float, points: int) -> tuple[torch.Tensor, float]:
    """Points (n, 2) of a plane in double precision, and the area of each."""
    axis = torch.linspace(-reach, reach, points, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), float(axis[1] - axis[0]) ** 2


def test_the_isotropic_divergence_is_the_sources_formula_and_an_integral(generator):
    posterior = small(covariance="isotropic").encode(torch.rand(4, 1, 4, 4, generator=generator, dtype=torch.float64))
    mean, sigma = posterior.mean, posterior.log_var[:, 0].mul(0.5).exp()
    assert posterior.log_var.var(dim=1).max() == 0
    formula = 0.5 * (2 * sigma**2 + mean.square().sum(-1) - 2 * 2 * sigma.log() - 2)
    points, area = grid(9.0, 361)
    q = Normal(mean, sigma[:, None]).log_prob(points[:, None]).sum(-1)
    integral = (q.exp() * (q - Normal(0.0, 1.0).log_prob(points[:, None]).sum(-1))).sum(dim=0) * area
    torch.testing.assert_close(posterior.kl_to_prior(), formula)
    torch.testing.assert_close(integral, formula)


@pytest.mark.parametrize("noise", ["bernoulli", "bits"])
def test_the_probabilities_of_all_black_and_white_images_add_up_to_one_and_grey_ones_are_no_density(noise):
    model = small(shape=(1, 2, 2), noise=noise, scale=0.4).requires_grad_(False)
    points, area = grid(7.0, 71)
    prior = Normal(0.0, 1.0).log_prob(points).sum(-1)
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 4).view(16, 1, 1, 2, 2)
    evidence = torch.logsumexp(torch.stack([model.log_likelihood(points, x) for x in every]) + prior, 1) + math.log(
        area
    )
    assert float(evidence.exp().sum()) == pytest.approx(1.0, abs=1e-6)
    energy = [model.free_energy(every[:, 0], torch.randn(16, 2, dtype=torch.float64)).total for _ in range(2000)]
    assert (-torch.stack(energy).mean(dim=0) <= evidence + 0.05).all()
    if noise == "bits":  # what torch's normal densities of nothing and ink say of one pixel
        mean = model.decode(points).sigmoid().unsqueeze(-1)
        pair = Normal(mean, 0.4).log_prob(torch.tensor([0.0, 1.0])).log_softmax(-1)
        torch.testing.assert_close(model.log_likelihood(points, every[-1]), pair[..., 1].sum(dim=(-3, -2, -1)))
    else:
        grey = torch.linspace(0, 1, 201).double().view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
        one = model.log_likelihood(points[:1, None], grey).div(4).exp()  # of a pixel, were all four alike
        assert float(torch.trapezoid(one, dx=1 / 200)) < 0.95


def test_black_and_white_digits_are_drawn_by_their_greys_and_keep_the_mean_likelihood(generator):
    grey = Digits(torch.randint(256, (6, 1, 4, 4), generator=generator).byte(), torch.arange(6))
    many = [experiment.binarised(grey, seed) for seed in range(400)]
    assert set(many[0].images.unique().tolist()) == {0, 255}
    assert torch.equal(many[0].images, experiment.binarised(grey, 0).images)
    assert torch.equal(many[0].labels, grey.labels)
    drawn = torch.stack([digits.batch() for digits in many])
    torch.testing.assert_close(drawn.mean(0), grey.batch(), atol=0.12, rtol=0)
    model, code = small().float(), torch.zeros(6, 2)
    mean = torch.stack([model.log_likelihood(code, images) for images in drawn]).mean(0)
    torch.testing.assert_close(mean, model.log_likelihood(code, grey.batch()), atol=0.3, rtol=0)


def test_beta_weighs_the_divergence_alone(generator):
    images = torch.rand(5, 1, 4, 4, generator=generator, dtype=torch.float64)
    noise = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    one, four = (small(beta=beta).free_energy(images, noise) for beta in (1.0, 4.0))
    torch.testing.assert_close(four.total - one.total, 3 * one.divergence)


def test_a_condition_reaches_encoder_and_decoder(generator):
    model = small(labels=3)
    images = torch.rand(4, 1, 4, 4, generator=generator, dtype=torch.float64)
    first, second = torch.zeros(4, dtype=torch.uint8), torch.full((4,), 2)
    assert not torch.equal(model.encode(images, first).mean, model.encode(images, second).mean)
    code = torch.zeros(4, 2, dtype=torch.float64)
    assert not torch.equal(model.decode(code, first), model.decode(code, second))
    with pytest.raises(ValueError, match="needs labels"):
        model.encode(images)


@pytest.mark.parametrize(("covariance", "labels"), [("diagonal", 0), ("isotropic", 0), ("full", 0), ("diagonal", 3)])
def test_what_is_measured_is_that_of_a_grid(covariance, labels, generator, monkeypatch):
    monkeypatch.setattr(vae, "PART", 2)
    model = small(covariance=covariance, noise="normal", scale=0.5, labels=labels).float().requires_grad_(False)
    images, known = torch.rand(3, 1, 4, 4, generator=generator), torch.arange(3)
    axis = torch.linspace(-7, 7, 141)
    grid = torch.cartesian_prod(axis, axis)[:, None].expand(-1, 3, -1)
    told = known if labels else None
    decoded = model.decode(grid, None if told is None else told.expand(len(grid), -1))
    prior = Normal(0.0, 1.0).log_prob(grid).sum(-1)
    likelihood = Normal(decoded.sigmoid(), 0.5).log_prob(images).sum(dim=(-3, -2, -1))
    evidence = torch.logsumexp(likelihood + prior, dim=0) + 2 * math.log(axis[1] - axis[0])
    found, each = experiment.measured(model, images, known, experiment.Settings(draws=20_000))
    torch.testing.assert_close(each["log_evidence"], evidence, atol=0.02, rtol=0)
    assert found["log_evidence"] == pytest.approx(float(evidence.mean()), abs=0.02)
    assert found["bound"] == pytest.approx(float(each["bound"].mean()), abs=1e-5)
    assert found["bound"] == pytest.approx(found["log_likelihood"] - found["divergence"], abs=1e-4)
    energy = [model.free_energy(images, torch.randn(3, 2, generator=generator), told).total for _ in range(2000)]
    assert (-torch.stack(energy).mean(dim=0) <= evidence + 0.05).all()
    if covariance != "full":
        by_dimension = experiment.nats_by_dimension(model.encode(images, told))
        assert float(by_dimension.sum()) == pytest.approx(found["divergence"], rel=1e-5)
        assert found["active"] == int((by_dimension > 0.01).sum())


def nothing(settings, workshop):
    """An experiment that takes no time."""
    return {"kind": "stand-in", "notes": []}, {}, {"x": torch.zeros(1)}


def test_what_does_not_exist_is_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="unknown profile 'long'"):
        experiments.obtain("B1", "long", experiment.SETTINGS, nothing, out=tmp_path)
    with pytest.raises(records.RecordError, match=r"B7\.json"):
        experiments.obtain("B7", "committed", experiment.SETTINGS, nothing, out=tmp_path)
    monkeypatch.setattr(experiments.pages, "given", lambda: {"seeds"})
    with pytest.raises(ValueError, match="seeds"):
        experiments.obtain("B1", "committed", experiment.SETTINGS, nothing)


@pytest.mark.parametrize(
    ("factor", "error", "message"),
    [(math.nan, 0.0, "loss is not finite before step 1"), (1.0, math.nan, "never finite")],
)
def test_a_loss_that_is_not_finite_stops_the_training_and_an_error_that_never_is_leaves_no_weights(
    factor, error, message
):
    model, validation = torch.nn.Linear(1, 1), experiments.Validation(lambda _: error, range(2))
    with pytest.raises(FloatingPointError, match=f"VAE: the .*{message}"):
        experiments.fit(model, lambda _: model.weight.sum() * factor, 10, 1e-3, 0, "VAE", validation)
