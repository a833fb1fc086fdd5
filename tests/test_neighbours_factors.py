"""Chapter B4: the estimator of information and what information bounds, against closed forms, loops and quadrature."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import integrate
from torch.distributions import Normal, kl_divergence

from qmvae_core.gaussians import DiagonalGaussian
from qmvae_neighbours.factors import experiment
from qmvae_neighbours.factors import model as factors
from qmvae_study import diagnosis
from qmvae_study.evidence import records


def posteriors(generator, n: int = 30, d: int = 3) -> DiagonalGaussian:
    mean = torch.randn(n, d, generator=generator, dtype=torch.float64) * torch.arange(1, d + 1)
    return DiagonalGaussian(mean, torch.randn(n, d, generator=generator, dtype=torch.float64) - 1)


def channel(generator, weights, variances, n: int = 40_000):
    """q(z|y) of z = W y + noise for n draws of y."""
    y = torch.randn(n, weights.shape[1], generator=generator, dtype=torch.float64)
    return DiagonalGaussian(y @ weights.T, variances.log().expand(n, -1))


# The estimator


def test_the_divergences_and_the_estimate_are_those_of_a_loop_over_torchs_distributions(generator):
    q = posteriors(generator)
    for h in range(3):
        sigma = sum(math.exp(v) + m * m for m, v in zip(q.mean[:, h].tolist(), q.log_var[:, h].tolist(), strict=True))
        star = Normal(0.0, math.sqrt(sigma / len(q.mean)))
        each = [Normal(m, (0.5 * v).exp()) for m, v in zip(q.mean[:, h], q.log_var[:, h], strict=True)]
        estimate = sum(float(kl_divergence(one, star)) for one in each) / len(each)
        to_prior = sum(float(kl_divergence(one, Normal(0.0, 1.0))) for one in each) / len(each)
        assert float(factors.aggregate(q).log_var.exp()[h]) == pytest.approx(sigma / len(q.mean))
        assert float(factors.information(q)[h]) == pytest.approx(estimate, rel=1e-5)
        assert float(factors.divergences(q)[h]) == pytest.approx(to_prior, rel=1e-5)


def test_single_precision_posteriors_are_judged_in_double(generator):
    q = posteriors(generator)
    single = DiagonalGaussian(q.mean.float(), q.log_var.float())
    torch.testing.assert_close(factors.information(single), factors.information(q), atol=1e-6, rtol=0)
    assert factors.mixture_information(single).dtype == torch.float64


# The information without the Gaussian


def test_the_entropy_of_a_mixture_is_that_of_adaptive_quadrature(generator):
    q = posteriors(generator, n=4, d=2)
    for h in range(2):

        def density(z, h=h):
            return float(
                DiagonalGaussian(q.mean[:, h, None], q.log_var[:, h, None]).log_prob(torch.tensor([z])).exp().mean()
            )

        def integrand(z, density=density):
            return -density(z) * math.log(density(z)) if density(z) > 0 else 0.0

        expected, _ = integrate.quad(integrand, -15, 15, points=q.mean[:, h].tolist(), limit=400)
        assert float(factors.mixture_entropy(q)[h]) == pytest.approx(expected, abs=1e-6)


class Rows:
    """Stands for digits whose images are the numbers of their rows."""

    labels = torch.zeros(1500)

    def __len__(self):
        return len(self.labels)

    def batch(self, index):
        return index


def test_the_information_agrees_with_the_draws_of_diagnosis(generator):
    q = posteriors(generator, n=1500)
    digits = Rows()
    model = SimpleNamespace(encode_private=lambda _, rows: DiagonalGaussian(q.mean[rows], q.log_var[rows]))
    drawn = diagnosis.private_information(model, "any", digits, generator)
    np.testing.assert_allclose(factors.mixture_information(q).numpy(), drawn, atol=0.08)


def test_information_of_images_that_are_far_apart_is_the_logarithm_of_their_number():
    q = DiagonalGaussian(100.0 * torch.arange(7.0)[:, None], torch.zeros(7, 1))
    assert float(factors.mixture_information(q)) == pytest.approx(math.log(7), abs=1e-6)
    assert float(factors.information(q)) > math.log(7)


def test_the_label_is_known_where_it_alone_moves_the_code_and_unknown_where_it_does_not(generator):
    labels = torch.tensor([0, 0, 1, 2, 2, 2])
    mean = torch.stack([50.0 * labels.float(), torch.zeros(6)], dim=1)
    found = factors.label_information(DiagonalGaussian(mean, torch.zeros(6, 2)), labels)
    entropy = -sum(p * math.log(p) for p in (2 / 6, 1 / 6, 3 / 6))
    assert found.tolist() == pytest.approx([entropy, 0.0], abs=1e-6)
    q = posteriors(generator, n=6, d=2)  # data processing: a label tells less than the image
    assert (factors.label_information(q, labels) < factors.mixture_information(q)).all()


@pytest.mark.parametrize("other", [0.0, 1.5])
def test_the_sum_of_the_factors_exceeds_the_total_by_the_total_correlation(other, generator):
    weights, variances = torch.tensor([[1.5, 0.0], [other, 1.0]]).double(), torch.tensor([0.4, 0.7]).double()
    total, each = factors.linear_information(weights, variances)
    torch.testing.assert_close(each, 0.5 * (1 + weights.square().sum(dim=1) / variances).log())
    expected = float(each.sum() - total)
    assert (expected < 1e-12) == (other == 0)
    assert factors.total_correlation(channel(generator, weights, variances)) == pytest.approx(expected, abs=0.01)


# What information bounds


def test_the_bound_on_the_error_is_reached_by_a_gaussian_and_fails_for_vectors_as_printed():
    for variance, noise in ((1.0, 0.5), (3.0, 0.1)):
        entropy, nats = 0.5 * math.log(2 * math.pi * math.e * variance), 0.5 * math.log(1 + variance / noise)
        assert factors.error_bound(entropy, nats) == pytest.approx(variance * noise / (variance + noise))
    d = 5
    entropy = 0.5 * d * math.log(2 * math.pi * math.e)
    assert factors.error_bound(entropy, 0.0, d) == pytest.approx(d)  # the error of the mean, which nothing beats
    assert factors.error_bound(entropy, 0.0) > d


def test_the_distortion_of_a_gaussian_is_that_of_a_search_for_the_level():
    variances = np.array([4.0, 0.1, 1.0, 0.5])

    def by_search(nats):
        low, high = 0.0, 4.0
        for _ in range(200):
            level = 0.5 * (low + high)
            used = sum(0.5 * math.log(v / level) for v in variances if v > level)
            low, high = (level, high) if used > nats else (low, level)
        return sum(min(v, level) for v in variances)

    for nats in (0.0, 0.2, 1.0, 3.0, 9.0):
        assert factors.gaussian_distortion(variances, nats) == pytest.approx(by_search(nats), rel=1e-9)
    equal = factors.gaussian_distortion(np.full(6, 2.0), 3.0)
    assert equal == pytest.approx(factors.error_bound(3.0 * math.log(2 * math.pi * math.e * 2.0), 3.0, 6))


def test_fanos_inequality_is_sharp_for_a_symmetric_channel_and_weaker_as_printed():
    classes, wrong = 10, 0.3
    rows = np.full((classes, classes), wrong / (classes - 1)) + np.eye(classes) * (1 - wrong - wrong / (classes - 1))
    nats = math.log(classes) + (rows[0] * np.log(rows[0])).sum()
    sharp = factors.fano_error(math.log(classes), nats, classes - 1)
    assert sharp == pytest.approx(wrong, abs=1e-9)
    printed = factors.fano_error(math.log(classes), nats, classes)
    assert factors.weak_fano_error(math.log(classes), nats, classes) < printed < sharp


def test_fano_at_its_ends():
    assert factors.fano_error(math.log(10), math.log(10), 9) == 0
    assert factors.fano_error(math.log(10), 50.0, 9) == 0
    assert factors.fano_error(math.log(10), 0.0, 9) == pytest.approx(0.9, abs=1e-6)


# Keeping some factors


def test_shares_are_rounded_up_and_the_rest_is_zero():
    nats = torch.tensor([0.1, 3.0, 0.0, 2.0])
    assert experiment.kept_factors(nats, 1).tolist() == [1]
    assert experiment.kept_factors(nats, 50).tolist() == [1, 3]
    assert experiment.kept_factors(nats, 0).tolist() == []
    codes = torch.ones(2, 4)
    assert experiment.only(codes, torch.tensor([1, 3])).tolist() == [[0, 1, 0, 1]] * 2
    assert codes.sum() == 8
    with pytest.raises(ValueError, match="per cent, 0 to 100, got 120"):
        experiment.kept_factors(nats, 120)


# The experiment


def test_the_committed_weights_are_read_and_missing_ones_are_an_error(tmp_path, monkeypatch):
    assert [name for name, _ in experiment.qmvae_models(real=True)] == list(experiment.READINGS)
    run = f"quick-qmvae-{experiment.READINGS[0]}-seed0"
    records.write_json(tmp_path / "results" / "runs" / f"{run}.json", {"format": records.FORMAT, "id": run})
    monkeypatch.setattr(experiment, "REPOSITORY", tmp_path)
    with pytest.raises(records.RecordError, match="no weights"):
        list(experiment.qmvae_models(real=True))
