"""Every numbered equation against loops from its formula, and the bounds against a known marginal likelihood."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import triplet_margin_with_distance_loss

from qmvae_core import losses
from qmvae_core.gaussians import DiagonalGaussian, product_of_experts
from qmvae_core.losses import quadruplet_loss


def random(seed: int, *shape: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_gaussian(seed: int, *shape: int) -> DiagonalGaussian:
    return DiagonalGaussian(random(seed, *shape), random(seed + 1000, *shape))


def quadruplet(seed: int, batch: int = 5, dimensions: int = 3, scale: float = 1.0) -> list[torch.Tensor]:
    return list(random(seed, 4, batch, dimensions, scale=scale))


def kls(q: DiagonalGaussian, p: DiagonalGaussian | None = None) -> torch.Tensor:
    """Of each row from another's, without one from N(0, I)."""
    p = p or DiagonalGaussian(*torch.zeros(2, 1, dtype=torch.float64))
    normal = [torch.distributions.Normal(g.mean, (0.5 * g.log_var).exp()) for g in (q, p)]
    return torch.distributions.kl_divergence(*normal).sum(dim=-1)


def naive_quadruplet_loss(codes, alpha1: float = 2.0, alpha2: float = 0.8) -> list[float]:
    found = []
    for x, y, x_neg, y_neg in zip(*(c.tolist() for c in codes), strict=True):
        d = math.dist(x, y)
        found.append(
            max(d - math.dist(x, y_neg) + alpha1, 0.0)
            + max(d - math.dist(x_neg, y) + alpha1, 0.0)
            + max(d - math.dist(x_neg, y_neg) + alpha2, 0.0)
        )
    return found


# The bounds


def test_log_joint_is_equations_3_and_9():
    codes = [random(1, 4, 3), random(2, 4, 2), random(3, 4, 1)]
    likelihoods = {"x": random(4, 4), "y": random(5, 4)}
    priors = [torch.distributions.Normal(0.0, 1.0).log_prob(code).sum(dim=-1) for code in codes]
    torch.testing.assert_close(losses.log_joint(likelihoods, codes), likelihoods["x"] + likelihoods["y"] + sum(priors))
    torch.testing.assert_close(losses.log_joint({"x": likelihoods["x"]}, codes[:2]), likelihoods["x"] + sum(priors[:2]))


def test_log_posterior_is_equation_6():
    codes = [random(1, 4, 3), random(2, 4, 2)]
    posteriors = [DiagonalGaussian(random(s, 4, d), random(s + 1, 4, d)) for d, s in ((3, 3), (2, 5))]
    expected = sum(
        torch.distributions.Normal(q.mean, (0.5 * q.log_var).exp()).log_prob(code).sum(dim=-1)
        for q, code in zip(posteriors, codes, strict=True)
    )
    torch.testing.assert_close(losses.log_posterior(posteriors, codes), expected)
    with pytest.raises(ValueError, match="argument"):
        losses.log_posterior(posteriors, codes[:1])


def test_log_evidence_is_the_mean_of_the_weights_and_exact_with_the_posterior():
    of_model, of_posterior = random(1, 50, 4), random(2, 50, 4)
    weights = (of_model - of_posterior).exp().mean(dim=0).log()
    torch.testing.assert_close(losses.log_evidence(of_model, of_posterior), weights)
    torch.testing.assert_close(losses.log_evidence(of_model[:1], of_posterior[:1]), (of_model - of_posterior)[0])
    # x = z + noise of variance 1/4: p(z|x) = N(4 x / 5, 1/5) and p(x) = N(0, 5/4), one draw is enough
    x, z = random(3, 6, 1), random(4, 3, 6, 1)
    likelihood = DiagonalGaussian(z, torch.full_like(z, math.log(0.25))).log_prob(x)
    posterior = DiagonalGaussian(0.8 * x, torch.full_like(x, math.log(0.2)))
    found = losses.log_evidence(losses.log_joint({"x": likelihood}, [z]), losses.log_posterior([posterior], [z]))
    torch.testing.assert_close(found, DiagonalGaussian(0 * x, 0 * x + math.log(1.25)).log_prob(x))
    # far from zero, where exponentials alone would overflow or vanish
    assert losses.log_evidence(of_model - 5000, of_posterior).isfinite().all()


@pytest.mark.parametrize("weight", [(), (5.0,)])
def test_elbo_is_equation_2(weight):
    q, likelihood = random_gaussian(0, 5, 3), random(10, 5)
    expected = likelihood - sum(weight or (1.0,)) * kls(q)
    torch.testing.assert_close(losses.elbo(likelihood, q, *weight), expected)


@pytest.mark.parametrize("weights", [(), (5.0,), (0.0, 3.0)])
def test_unimodal_elbo_is_equation_17(weights):
    shared, private, likelihood = random_gaussian(0, 5, 3), random_gaussian(1, 5, 2), random(10, 5)
    of_private, of_shared = (*weights, 1.0, 1.0)[:2]
    expected = likelihood - of_shared * kls(shared) - of_private * kls(private)
    torch.testing.assert_close(losses.unimodal_elbo(likelihood, shared, private, *weights), expected)


@pytest.mark.parametrize("names", ["xy", "xyw"])
@pytest.mark.parametrize("weights", [(), ({"x": 5.0},), ({"x": 5.0, "y": 0.5, "w": 2.0}, 3.0)])
def test_joint_elbo_is_equation_7(names, weights):
    shared = random_gaussian(0, 5, 3)
    private = {name: random_gaussian(20 + i, 5, 2 + i) for i, name in enumerate(names)}
    likelihoods = {name: random(30 + i, 5) for i, name in enumerate(names)}
    of_private, of_shared = (*weights, *({}, 1.0)[len(weights) :])
    expected = -of_shared * kls(shared)
    for name in names:
        expected = expected + likelihoods[name] - of_private.get(name, 1.0) * kls(private[name])
    torch.testing.assert_close(losses.joint_elbo(likelihoods, shared, private, *weights), expected)


def test_what_is_minimised_is_minus_the_mean_over_the_batch():
    terms = losses.LossTerms(torch.tensor([1.0, 2.0, 6.0]), {})
    assert terms.loss == -3.0
    assert terms.opposing is None


@pytest.mark.parametrize("beta", [(), (0.5,)])
def test_objective_is_equation_20(beta):
    joint, quadruplets = random(0, 5), random(1, 5).abs()
    unimodal = {"x": random(2, 5), "y": random(3, 5), "w": random(4, 5)}
    expected = joint + unimodal["x"] + unimodal["y"] + unimodal["w"] - sum(beta or (1500,)) * quadruplets
    torch.testing.assert_close(losses.objective(joint, unimodal, quadruplets, *beta), expected)


NOISE = 0.6  # standard deviation of the observations of the toy below
NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(8)


def nodes(dimensions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Gauss-Hermite nodes (count, dimensions) and weights: exact for polynomials, so for the toy's log-likelihoods."""
    points = torch.tensor(list(itertools.product(NODES, repeat=dimensions)))
    weights = torch.tensor(
        [math.prod(w) for w in itertools.product(NODE_WEIGHTS / NODE_WEIGHTS.sum(), repeat=dimensions)]
    )
    return points, weights


class Toy:
    """x = a z + b h + noise, with a and b orthogonal: then p(z, h | x) is a product and every quantity is known."""

    def __init__(self, seed: int):
        self.a, self.b = torch.linalg.qr(random(seed, 4, 2)).Q.unbind(dim=-1)
        self.a, self.b = 1.3 * self.a, 0.7 * self.b
        self.x = random(seed + 1, 4, scale=1.5)

    def log_likelihood(self, z: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return torch.distributions.Normal(z * self.a + h * self.b, NOISE).log_prob(self.x).sum(dim=-1)

    def message(self, column: torch.Tensor) -> DiagonalGaussian:
        """What x says of a code, without the code's prior."""
        precision = column @ column / NOISE**2
        return DiagonalGaussian((column @ self.x / NOISE**2 / precision).view(1, 1), -precision.log().view(1, 1))

    def posterior(self, column: torch.Tensor) -> DiagonalGaussian:
        return product_of_experts([self.message(column)])

    def covariance(self) -> torch.Tensor:
        eye = torch.eye(4, dtype=torch.float64)
        return torch.outer(self.a, self.a) + torch.outer(self.b, self.b) + NOISE**2 * eye


def log_marginal(value: torch.Tensor, covariance: torch.Tensor) -> float:
    zero = torch.zeros(len(value), dtype=torch.float64)
    return torch.distributions.MultivariateNormal(zero, covariance).log_prob(value).item()


def disturb(q: DiagonalGaussian, seed: int, size: float) -> DiagonalGaussian:
    return DiagonalGaussian(q.mean + size * random(seed, 1, 1), q.log_var + size * random(seed + 1, 1, 1))


@pytest.mark.parametrize("size", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_unimodal_bound_falls_short_of_the_marginal_by_the_error_of_the_posterior(seed, size):
    toy = Toy(seed)
    exact = [toy.posterior(toy.a), toy.posterior(toy.b)]
    z, h = (disturb(q, 50 + 2 * i, size) for i, q in enumerate(exact))
    points, weights = nodes(2)
    likelihood = toy.log_likelihood(z.sample(points[:, :1]), h.sample(points[:, 1:]))
    bound = (weights * losses.unimodal_elbo(likelihood, z, h)).sum().item()
    gap = sum(kls(q, p).item() for q, p in zip((z, h), exact, strict=True))
    marginal = log_marginal(toy.x, toy.covariance())
    assert bound == pytest.approx(marginal - gap, abs=1e-6)
    assert bound <= marginal + 1e-9
    assert (gap > 1e-3) == (size > 0)


@pytest.mark.parametrize("size", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_joint_bound_with_the_product_of_experts_falls_short_by_the_error_of_the_posterior(seed, size):
    """Equation (7) with (8): experts that say what each modality shows make the product the exact posterior."""
    toys = {"x": Toy(seed), "y": Toy(seed + 100)}
    exact = product_of_experts([toy.message(toy.a) for toy in toys.values()])
    z = disturb(exact, 60, size)
    private = {name: disturb(toy.posterior(toy.b), 70 + i, size) for i, (name, toy) in enumerate(toys.items())}
    points, weights = nodes(2)
    draws = z.sample(points[:, :1])
    likelihoods = {name: toy.log_likelihood(draws, private[name].sample(points[:, 1:])) for name, toy in toys.items()}
    bound = (weights * losses.joint_elbo(likelihoods, z, private)).sum().item()

    x, y = toys.values()
    both = torch.block_diag(x.covariance(), y.covariance())
    both[:4, 4:] = torch.outer(x.a, y.a)
    both[4:, :4] = torch.outer(y.a, x.a)
    marginal = log_marginal(torch.cat([x.x, y.x]), both)
    gap = kls(z, exact).item() + sum(kls(private[name], toy.posterior(toy.b)).item() for name, toy in toys.items())
    assert bound == pytest.approx(marginal - gap, abs=1e-6)
    assert bound <= marginal + 1e-9
    assert (gap > 1e-3) == (size > 0)


# The quadruplet loss


@given(
    seed=st.integers(0, 1000),
    batch=st.integers(1, 4),
    dimensions=st.integers(1, 5),
    scale=st.sampled_from([0.1, 1.0, 3.0]),
    alphas=st.tuples(st.floats(0, 4), st.floats(0, 4)),
)
def test_quadruplet_loss_is_equation_19(seed, batch, dimensions, scale, alphas):
    codes = quadruplet(seed, batch, dimensions, scale)
    assert quadruplet_loss(*codes, *alphas).tolist() == pytest.approx(naive_quadruplet_loss(codes, *alphas), abs=1e-6)
    named = dict(zip(("mu_x", "mu_y", "mu_x_neg", "mu_y_neg"), codes, strict=True))
    assert quadruplet_loss(**named).tolist() == pytest.approx(naive_quadruplet_loss(codes), abs=1e-6)


@given(seed=st.integers(0, 1000), scale=st.sampled_from([0.3, 1.0, 3.0]))
def test_first_two_terms_are_triplet_losses_of_an_independent_implementation(seed, scale):
    x, y, x_neg, y_neg = codes = quadruplet(seed, scale=scale)

    def theirs(anchor, positive, negative):
        choices = {"distance_function": lambda a, b: (a - b).norm(dim=-1), "margin": 2.0, "reduction": "none"}
        return triplet_margin_with_distance_loss(anchor, positive, negative, **choices)

    expected = theirs(x, y, y_neg) + theirs(y, x, x_neg)
    found = quadruplet_loss(*codes, keep_third=torch.zeros(5, dtype=torch.bool))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_keep_third_leaves_the_third_term_out_where_false():
    codes = quadruplet(3, scale=0.1)
    keep = torch.tensor([True, False, True, False, False])
    third = [
        max(math.dist(x, y) - math.dist(xn, yn) + 0.8, 0)
        for x, y, xn, yn in zip(*(c.tolist() for c in codes), strict=True)
    ]
    assert min(third) > 0
    expected = [v - t * (not k) for v, t, k in zip(naive_quadruplet_loss(codes), third, keep.tolist(), strict=True)]
    assert quadruplet_loss(*codes, keep_third=keep).tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("scale", [0.3, 1.0, 10.0])
def test_gradients_are_those_of_finite_differences_away_from_kinks(scale):
    """Of the largest codes most terms are zero, and of the third term those that are left out have no say."""
    codes = [c.requires_grad_() for c in quadruplet(5, scale=scale)]
    assert (quadruplet_loss(*codes) > 0).any()
    for keep in (None, torch.tensor([True, False, True, False, False])):
        assert torch.autograd.gradcheck(lambda *c, keep=keep: quadruplet_loss(*c, keep_third=keep), codes)


def test_the_distance_of_a_code_from_itself_is_zero():
    a = torch.tensor([[1.0, 2.0], [4.0, 6.0]])
    assert losses.distance(a, a).tolist() == [0.0, 0.0]
    assert losses.distance(a, a.flip(0)).tolist() == [5.0, 5.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-200, 1e15])
def test_equal_and_extreme_codes_give_finite_gradients(dtype, size):
    codes = [(size * c).to(dtype).requires_grad_() for c in quadruplet(7)]
    loss = quadruplet_loss(*codes)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    for code in codes:
        assert torch.isfinite(code.grad).all()
        assert size or code.grad.eq(0).all()
        assert code.grad.abs().max() <= 4.01  # d(x, y) occurs three times, another distance once, each of slope one


def test_many_candidates_broadcast_against_one_anchor():
    x, y, _, _ = quadruplet(8)
    x_neg, y_neg = random(9, 7, 5, 3), random(10, 7, 5, 3)
    found = quadruplet_loss(x, y, x_neg, y_neg)
    assert found.shape == (7, 5)
    torch.testing.assert_close(found[6], quadruplet_loss(x, y, x_neg[6], y_neg[6]))


@pytest.mark.parametrize(
    ("size", "margins", "message"),
    [(2, {}, "'mu_y_neg': 2"), (3, {"alpha1": -0.1}, "alpha1=-0.1"), (3, {"alpha2": -0.1}, "alpha2=-0.1")],
)
def test_codes_of_different_sizes_and_negative_margins_are_errors(size, margins, message):
    with pytest.raises(ValueError, match=message):
        quadruplet_loss(*quadruplet(0)[:3], torch.zeros(5, size), **margins)
