"""Chapter B3: Gromov-Wasserstein costs against POT and by hand, the priors' samples, DCI on codes with known scores."""

import itertools
import math
import warnings

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from matplotlib.colors import hsv_to_rgb
from sklearn.ensemble import RandomForestRegressor
from sklearn.mixture import GaussianMixture

from qmvae_core.gaussians import DiagonalGaussian
from qmvae_neighbours import vae
from qmvae_neighbours.gwae import experiment, scenes
from qmvae_neighbours.gwae import model as gwae

with warnings.catch_warnings():
    # POT 0.9 has a backslash in a docstring that Python warns of where it compiles the file
    warnings.filterwarnings("ignore", message="invalid escape sequence")
    import ot


def matrix(points):
    return torch.cdist(points, points)


def draw(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# Distances and transport


def test_the_cost_is_the_mean_over_pairs_in_one_order(generator):
    images, codes = draw(generator, 5, 1, 2, 3), draw(generator, 5, 2)
    naive = [
        abs(float((images[i] - images[j]).norm()) - float((codes[i] - codes[j]).norm())) ** 1.5
        for i, j in itertools.combinations(range(5), 2)
    ]
    ours = gwae.gromov_cost(gwae.distances(images), gwae.distances(codes), power=1.5)
    assert float(ours) == pytest.approx(np.mean(naive))
    with pytest.raises(ValueError, match="one partner a point"):
        gwae.gromov_cost(gwae.distances(images), gwae.distances(codes[:4]))


def test_the_cost_of_matrices_is_pots_at_the_same_coupling(generator):
    first, second = matrix(draw(generator, 7, 3)), matrix(draw(generator, 7, 2))
    coupling = np.eye(7) / 7
    even = np.full(7, 1 / 7)
    constant, one, other = ot.gromov.init_matrix(first.numpy(), second.numpy(), even, even, "square_loss")
    theirs = ot.gromov.gwloss(constant, one, other, coupling)
    assert float(gwae.gromov_cost(first, second, power=2)) == pytest.approx(float(theirs))
    # The pairs of a point with itself cost nothing, and there are n of n² of them.
    pairs = torch.triu_indices(7, 7, 1).unbind()
    assert float(gwae.gromov_cost(first[pairs], second[pairs], 2)) == pytest.approx(float(theirs) * 7 / 6)


def test_a_function_is_penalised_for_any_slope_but_one(generator):
    x, z = draw(generator, 20, 1, 2, 2), draw(generator, 20, 3)
    direction = torch.nn.functional.normalize(draw(generator, 7), dim=0)

    def linear(slope):
        return lambda x, z: slope * torch.cat([x.flatten(1), z], dim=1) @ direction

    for slope in (1.0, 0.25, 3.0):
        assert float(gwae.gradient_penalty(linear(slope), x, z)) == pytest.approx((slope - 1) ** 2)


def test_reconstruction_and_entropy_are_what_their_names_say(generator):
    images, rebuilt = torch.rand(2, 3, 1, 4, 4, generator=generator, dtype=torch.float64)
    naive = np.mean([0.5 * sum(((a - b) ** 2).flatten().tolist()) for a, b in zip(images, rebuilt, strict=True)])
    assert float(gwae.reconstruction_cost(images, rebuilt)) == pytest.approx(naive)
    posterior = DiagonalGaussian(draw(generator, 4, 3), draw(generator, 4, 3))
    theirs = torch.distributions.Normal(posterior.mean, posterior.log_var.mul(0.5).exp()).entropy().sum(-1)
    torch.testing.assert_close(gwae.entropy(posterior), theirs)


# Priors


def test_the_mixture_has_the_moments_of_its_components_and_no_gradient_for_its_weights(generator):
    prior = gwae.MixturePrior(2, 2, generator)
    prior(50, generator).square().sum().backward()
    assert prior.logits.grad is None
    assert float(prior.means.grad.abs().sum() + prior.factors.grad.abs().sum()) > 0
    with torch.no_grad():
        prior.factors.add_(0.4 * torch.randn(2, 2, 2, generator=generator))
        prior.logits.copy_(torch.tensor([0.0, math.log(3.0)]))
        raw = prior.raw(200_000, generator).double()
        weights = torch.tensor([0.25, 0.75]).double()
        means, parts = prior.means.double(), prior.factors.double()
        mean = weights @ means
        seconds = parts @ parts.mT + means[:, :, None] * means[:, None, :]
        covariance = (weights[:, None, None] * seconds).sum(0) - mean[:, None] * mean
    torch.testing.assert_close(raw.mean(0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(raw.T.cov(), covariance, atol=0.03, rtol=0.02)


@pytest.mark.parametrize("prior", gwae.PRIORS)
def test_draws_are_standardised_and_in_evaluation_by_the_moments_that_training_met(prior, generator):
    model = gwae.GWAE(gwae.GWAEConfig(prior, latent=4, widths=(8,)), generator).prior
    drawn = model(5000, generator)
    torch.testing.assert_close(drawn.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(drawn.var(0, correction=0), torch.ones(4), atol=1e-2, rtol=0)
    for _ in range(100):
        model(500, generator)
    model.eval()
    torch.testing.assert_close(model(5000, generator).std(0), torch.ones(4), atol=0.1, rtol=0)
    one = torch.Generator().manual_seed(1)
    assert model(1, one).shape == (1, 4)


def test_a_dimension_of_the_factorised_prior_sees_its_own_noise_alone(generator):
    fresh = gwae.NeuralPrior(4, 4, generator), gwae.NeuralPrior(4, 1, generator)
    for prior, independent in zip(fresh, (True, False), strict=True):
        drawn = prior.raw(3, torch.Generator().manual_seed(1))
        weights = [weight for weight in prior.weights if weight.shape[0] == prior.groups]
        assert len(weights) == 4
        gradient = torch.autograd.grad(drawn[:, 0].sum(), list(prior.weights))[0]
        if independent:  # the first dimension depends on the first group's weights, and no other's
            assert gradient[0].abs().sum() > 0
            assert gradient[1:].abs().sum() == 0
        else:
            assert gradient.shape == (1, 4, 16)
            assert (gradient.abs().sum(dim=2) > 0).all()


# The model


def small(generator, **choices) -> gwae.GWAE:
    config = {"shape": (1, 4, 4), "widths": (8,), "latent": 2, "critic_width": 4, **choices}
    return gwae.GWAE(gwae.GWAEConfig(**config), generator)


def test_the_objective_is_the_weighted_sum_of_its_parts(generator):
    model = small(generator, gromov=2.0, sufficiency=3.0, entropy=0.5)
    found = model.objective(torch.rand(6, 1, 4, 4, generator=generator), generator)
    total = 2 * found.gromov + found.reconstruction + 3 * found.sufficiency - 0.5 * found.entropy
    torch.testing.assert_close(found.total, total)


def test_critic_and_model_pull_in_opposite_directions_and_each_moves_itself_alone(generator):
    model = small(generator, penalty=0.0)
    images = torch.rand(6, 1, 4, 4, generator=generator)
    loss = model.critic_loss(images, torch.Generator().manual_seed(2))
    found = model.objective(images, torch.Generator().manual_seed(2))
    torch.testing.assert_close(loss, -found.sufficiency)
    loss.backward()
    assert all(parameter.grad is None for parameter in model.encoder.parameters())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gwae.fitted(model, (255 * images).byte(), 2, 4, 1e-2, 1, 0, "small")
    after = {name: value.clone() for name, value in model.state_dict().items()}
    assert all(not torch.equal(before[name], after[name]) for name in before if name.endswith("weight"))
    assert not torch.equal(before["log_scale"], after["log_scale"])
    gwae.fitted(model, (255 * images).byte(), 2, 4, 1e-2, 0, 0, "without rounds of the critic")
    assert all(torch.equal(value, after[name]) for name, value in model.critic.state_dict(prefix="critic.").items())


def test_training_brings_distances_and_images_closer(generator):
    model = small(generator, widths=(32,), sufficiency=0.0)
    hidden = torch.randn(200, 2, generator=generator) @ torch.randn(2, 16, generator=generator)
    images = (255 * hidden.sigmoid()).byte().view(200, 1, 4, 4)
    start = model.objective(images.float() / 255, torch.Generator().manual_seed(3))
    gwae.fitted(model, images, 100, 64, 1e-2, 1, 0, "small")
    end = model.objective(images.float() / 255, torch.Generator().manual_seed(3))
    assert end.reconstruction < 0.7 * start.reconstruction
    assert end.gromov < 0.5 * start.gromov


# Scenes and scores


def test_there_is_a_scene_for_every_combination_with_the_colours_that_its_factors_say():
    images, factors = scenes.scenes()
    assert len(images) == math.prod(len(values) for values in scenes.FACTORS.values())
    assert len(factors.unique(dim=0)) == len(factors)
    seen = images.permute(2, 3, 0, 1).double() / 255
    middle = scenes.SIDE // 2 + torch.tensor(scenes.FACTORS["place"])[factors[:, 4]].long()
    figure = seen[scenes.SIDE // 2, middle, torch.arange(len(middle))]
    for i, (light, colour) in enumerate(((0.6, seen[0, 0]), (0.35, seen[-1, -1]), (1.0, figure))):
        hue = np.array(list(scenes.FACTORS.values())[i])[factors[:, i]]
        theirs = hsv_to_rgb(np.stack([hue, np.ones(len(hue)), np.full(len(hue), light)], axis=1))
        np.testing.assert_allclose(colour.numpy(), theirs, atol=0.003)


@pytest.mark.parametrize("shape", range(len(scenes.SHAPES)))
def test_a_figure_has_its_place_and_an_area_that_does_not_tell_its_shape(shape):
    size, place = (torch.tensor(scenes.FACTORS[name]) for name in ("size", "place"))
    size, place = size.repeat_interleave(len(place)), place.repeat(len(size))
    dark, black = torch.zeros_like(size), torch.zeros(len(size), 3)
    seen = scenes.render(black, black, black + 1, size, place, dark + shape).double()
    assert torch.equal(seen, seen[:, :1].expand(-1, 3, -1, -1))
    light = seen[:, 0]
    area = light.sum(dim=(1, 2))
    torch.testing.assert_close(area, 4 * size.double().square(), atol=0, rtol=0.05)  # all of it is in the picture
    axis = torch.arange(scenes.SIDE).double() + 0.5 - scenes.SIDE / 2
    torch.testing.assert_close((light.sum(1) @ axis) / area, place.double(), atol=0.1, rtol=0)
    torch.testing.assert_close((light.sum(2) @ axis) / area, dark.double(), atol=0.1, rtol=0)


def test_letters_follow_the_seed_and_fill_the_box_of_a_digit():
    one, again, other = scenes.letters(20, 1), scenes.letters(20, 1), scenes.letters(20, 2)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert (one[:, :, :4] == 0).all()
    assert (one[:, :, -4:] == 0).all()
    assert (one.flatten(1).max(dim=1).values > 200).all()


def test_the_scores_of_an_importance_are_those_of_a_loop_with_scipys_entropy(generator):
    importance = torch.rand(4, 3, generator=generator, dtype=torch.float64)
    table = importance.numpy()
    rows = [1 - scipy.stats.entropy(row) / math.log(3) for row in table]
    assert scenes.disentanglement(importance) == pytest.approx(np.average(rows, weights=table.sum(1)))
    columns = [1 - scipy.stats.entropy(column) / math.log(4) for column in table.T]
    assert scenes.completeness(importance) == pytest.approx(np.mean(columns))


def test_a_code_that_is_the_factors_scores_one_and_a_turned_or_empty_one_does_not(generator):
    known = torch.randint(0, 4, (1200, 3), generator=generator)
    code = known + 0.05 * torch.randn(1200, 3, generator=generator)
    scores, importance, right = scenes.dci(code[:, [2, 0, 1]], known, seed=0, trees=5)
    assert float(right.mean()) == pytest.approx(scores.informativeness)
    assert importance.argmax(dim=0).tolist() == [1, 2, 0]
    assert min(scores) > 0.99
    # One more dimension of noise is used by nothing, and a doubled one spreads a factor: only completeness falls.
    doubled = torch.cat([code, code[:, :1] + 0.02 * torch.randn(1200, 1, generator=generator)], dim=1)
    spread, uneven, _ = scenes.dci(doubled, known, seed=0, trees=25)
    assert spread.disentanglement > 0.95
    assert spread.completeness < 0.95
    # A one-hot label's variance is its Gini impurity, so that a forest of regressors has to find the same.
    order = torch.randperm(1200, generator=torch.Generator().manual_seed(0))[:600]
    for k in range(3):
        forest = RandomForestRegressor(25, max_features=None, random_state=0)
        forest.fit(doubled[order].double().numpy(), torch.nn.functional.one_hot(known[order, k]).numpy())
        np.testing.assert_allclose(uneven[:, k], forest.feature_importances_, atol=1e-6)
    empty, *_ = scenes.dci(torch.randn(1200, 3, generator=generator), known, seed=0, trees=5)
    assert empty.disentanglement < 0.05
    assert empty.informativeness == pytest.approx(0.25, abs=0.05)


# The experiment


def test_the_area_is_the_share_of_pairs_in_the_right_order(generator):
    inside, outside = torch.randn(40, generator=generator), 0.7 + torch.randn(30, generator=generator)
    area = experiment.detection(inside, outside)
    assert area == pytest.approx(float((outside[:, None] > inside).double().mean()))


def test_the_noise_ratio_of_a_known_error():
    images = torch.zeros(2, 1, 2, 2)
    assert experiment.noise_ratio(images, images + 0.1) == pytest.approx(20.0)


def test_a_mixture_scores_codes_and_errors_by_the_density_that_scipy_gives(generator):
    model = small(generator).eval().requires_grad_(False)
    images = torch.rand(300, 1, 4, 4, generator=generator)
    codes, rebuilt = experiment.coded(model, images)
    naive = []
    for x, z, r in zip(images.double(), codes.double(), rebuilt.double(), strict=True):
        lengths = [math.sqrt(sum(v * v for v in image.flatten().tolist())) for image in (x, r, x - r)]
        cosine = float((x * r).sum()) / (lengths[0] * lengths[1])
        naive.append([*z.tolist(), lengths[2] / lengths[0], cosine])
    ours = experiment.features(images, codes, rebuilt)
    np.testing.assert_allclose(ours, naive, atol=1e-5)
    mixture = GaussianMixture(3, random_state=0, max_iter=1000).fit(ours)
    parts = zip(mixture.weights_, mixture.means_, mixture.covariances_, strict=True)
    joint = [math.log(w) + scipy.stats.multivariate_normal(m, c).logpdf(naive) for w, m, c in parts]
    found = experiment.strangeness(model, images, 0, mixture)["mixture"]
    np.testing.assert_allclose(found.numpy(), -scipy.special.logsumexp(joint, axis=0), atol=0.01, rtol=1e-3)


def test_the_vaes_scores_are_those_of_its_prior_and_its_free_energy(generator):
    model = vae.VAE(vae.VAEConfig(shape=(1, 4, 4), widths=(8,), latent=2), generator).eval().requires_grad_(False)
    images = torch.rand(5, 1, 4, 4, generator=generator)
    scores = experiment.strangeness(model, images, seed=0)
    theirs = -torch.distributions.Normal(0.0, 1.0).log_prob(model.encode(images).mean).sum(-1)
    torch.testing.assert_close(scores["prior"], theirs)
    assert scores["free energy"].shape == (5,)
