"""Chapter B4: the estimator of information and what information bounds, against closed forms, loops and quadrature."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import integrate
from scipy.stats import ortho_group
from sklearn.metrics import balanced_accuracy_score
from torch.distributions import Normal, kl_divergence

from qmvae_core.gaussians import DiagonalGaussian
from qmvae_neighbours import experiments
from qmvae_neighbours.eeg import experiment as shares
from qmvae_neighbours.eeg.data import synthetic
from qmvae_neighbours.factors import experiment, results
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


# Which factors: (3-41) to (3-44)


def test_turned_factors_are_the_sums_of_the_thesis_and_come_back(generator):
    turn = torch.from_numpy(ortho_group(4, seed=3).rvs())  # another library's orthogonal matrix
    z = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    y = factors.turned(z, turn)
    for row in range(6):
        for i in range(4):  # (3-42), then (3-43) and (3-44), which run down the columns of Q
            assert float(y[row, i]) == pytest.approx(sum(float(turn[i, h] * z[row, h]) for h in range(4)))
            assert float(z[row, i]) == pytest.approx(sum(float(turn[h, i] * y[row, h]) for h in range(4)))
    torch.testing.assert_close(factors.turned(y, turn.T), z)


def test_independent_standard_normal_factors_stay_so_when_turned(generator):
    z = torch.randn(100_000, 3, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
    torch.testing.assert_close(factors.turned(z, turn).T.cov(), torch.eye(3).double(), atol=0.02, rtol=0)


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


# Table 3-3


def eeg(shares: dict[int, list[float]], nats: dict[int, float]) -> experiments.Found:
    """Balanced accuracies of each share on four test blocks, each with two validation blocks that err to both sides."""
    folds = [
        {"test": test, "shares": [
            {"share": share, "kept": share, "information": nats[share], "mixture": 0.0, "balanced": each[test] + off}
            for share, each in shares.items()
        ]}
        for test in range(4) for off in (-0.01, 0.01)
    ]  # fmt: skip
    return experiments.Found({"metrics": {"folds": folds}}, {})


@pytest.mark.parametrize(
    ("all_of_them", "half", "nats", "said"),
    [
        ([0.7, 0.71, 0.69, 0.7], [0.7, 0.71, 0.69, 0.69], 9.9, ["holds", "holds", "holds"]),
        ([0.7, 0.71, 0.69, 0.7], [0.6, 0.61, 0.59, 0.6], 9.7, ["does not hold", "holds", "does not hold"]),
        ([0.7, 0.71, 0.69, 0.7], [0.6, 0.61, 0.79, 0.8], 9.9, ["holds", "holds", "undecided"]),
        ([0.3, 0.9, 0.5, 0.4], [0.3, 0.9, 0.5, 0.4], 9.9, ["holds", "undecided", "undecided"]),
        ([0.3, 0.31, 0.29, 0.3], [0.3, 0.31, 0.29, 0.3], 9.9, ["holds", "does not hold", "undecided"]),
    ],
)
def test_a_verdict_on_the_eeg_follows_its_numbers(all_of_them, half, nats, said):
    found = results.eeg_verdicts(eeg({100: all_of_them, 50: half}, {100: 10.0, 50: nats}))
    assert found["verdict"].tolist() == [*said, "cannot be compared"]


def test_a_share_of_the_factors_is_read_on_blocks_that_had_no_say_in_it(tmp_path):
    tiny = dataclasses.replace(shares.OF_SHARES["smoke"], frame_steps=3, sequence_steps=2, check=1, latent=6)
    recording, workshop = synthetic("a test"), experiments.Workshop(tmp_path)
    rows, found = shares.run_shares(recording, 2, 1, tiny, workshop)
    assert [(row["share"], row["kept"]) for row in rows] == list(
        zip(shares.SHARES, (6, 3, 1, 1, 1, 1, 1, 0), strict=True)
    )
    nats = found["nats"].sort(descending=True).values
    for row, read in zip(rows, found["read"].numpy(), strict=True):
        assert row["information"] == pytest.approx(float(nats[: row["kept"]].sum()))
        assert row["information"] >= row["mixture"] - 1e-6
        assert row["balanced"] == pytest.approx(balanced_accuracy_score(found["closed"], read))
    assert rows[-1]["balanced"] == 0.5  # nothing is told, so the answer is always the same
    start, stop = tiny.cut.block_spans(len(recording.samples))[2]
    samples = recording.samples.copy()
    samples[start:stop] = 5 * samples[start:stop] + 900
    again = shares.run_shares(dataclasses.replace(recording, samples=samples), 2, 1, tiny, workshop)[1]
    assert torch.equal(again["nats"], found["nats"])


# The experiment


def test_the_committed_weights_are_read_and_missing_ones_are_an_error(tmp_path, monkeypatch):
    assert [name for name, _ in experiment.qmvae_models(real=True)] == list(experiment.READINGS)
    run = f"quick-qmvae-{experiment.READINGS[0]}-seed0"
    records.write_json(tmp_path / "results" / "runs" / f"{run}.json", {"format": records.FORMAT, "id": run})
    monkeypatch.setattr(experiment, "REPOSITORY", tmp_path)
    with pytest.raises(records.RecordError, match="no weights"):
        list(experiment.qmvae_models(real=True))
