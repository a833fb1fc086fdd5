"""MoPoE against the `multivae` package, against plain loops, and what its mixture of products means.

Conventions, as compared here. Both sum over pixels and dimensions and average over the batch, both cut the batch into
equal parts, one a subset, and take the prior into the product of all modalities alone. The package adds 1e-8 to
variances before it multiplies densities; with that taken away the two agree up to rounding.
"""

import functools
import itertools
import math

import pytest
import torch
from model_cases import (
    THREE,
    TWO,
    assert_same_gradients,
    build,
    naive_likelihood,
    parameter_gradients,
    random_images,
    random_noise,
)
from multivae_copies import copied, gradients

from qmvae_core.models import MoPoE, reading

LABELS = torch.tensor([3, 1, 1, 7, 7, 3, 1, 7, 3, 3])


@pytest.fixture(scope="session")
def mopoe_config(shared_only_config):
    """A function: names of modalities, and a likelihood for all of them or None -> a small config of MoPoE."""
    return functools.partial(shared_only_config, "mopoe")


def subsets(names) -> list[tuple[str, ...]]:
    return [subset for size in range(1, len(names) + 1) for subset in itertools.combinations(names, size)]


# Against the package


@pytest.fixture
def use_draws(monkeypatch):
    """A function: draws -> the package makes its next codes of them. Its products of experts are exact meanwhile."""
    pytest.importorskip("multivae", reason="the independent implementation, pip install multivae, is not here")
    from multivae.models.mopoe import mopoe_model

    monkeypatch.setattr(mopoe_model, "poe", functools.partial(mopoe_model.poe, eps=0.0))

    def use(draws: torch.Tensor) -> None:
        def sample(mean, log_var):
            return mean + torch.exp(0.5 * log_var) * draws

        monkeypatch.setattr(mopoe_model, "rsample_from_gaussian", sample)

    return use


def compare(use_draws, model: MoPoE, images, rtol=1e-10, atol=1e-10) -> None:
    """Every term, the loss, and the gradient of every parameter."""
    from multivae.data.datasets.base import MultimodalBaseDataset

    batch, dtype = len(next(iter(images.values()))), next(model.parameters()).dtype
    noise = random_noise(model, batch, dtype)
    use_draws(noise["joint/shared"])
    theirs = copied(model, "MoPoE", beta=model.config.beta)
    output = theirs(MultimodalBaseDataset(images))
    result = model.loss(images, LABELS[:batch], noise)
    names = list(model.config.modalities)
    divergences = [value.mean() for name, value in result.terms.items() if name.startswith("kl/")]
    assert len(divergences) == 2 ** len(names) - 1
    found = {
        "loss": result.loss,
        "joint_divergence": sum(divergences) / len(divergences),
        **{f"recon_{name}": -result.terms[f"log_likelihood/{name}"].mean() for name in names},
    }
    expected = {"loss": output.loss, **{name: output.metrics[name] for name in found if name != "loss"}}
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)
    output.loss.backward()
    assert_same_gradients(parameter_gradients(model, result.loss), gradients(theirs), rtol, atol)


@pytest.mark.usefixtures("grey_pixels", "double_by_default")
@pytest.mark.parametrize("batch", [1, 2, 3, 7, 10])
@pytest.mark.parametrize("names", [TWO, THREE])
@pytest.mark.parametrize("beta", [1.0, 2.5])
def test_loss_and_gradients_are_those_of_the_package(use_draws, mopoe_config, beta, names, batch):
    """Also for batches that the subsets do not divide, and for those that are smaller than their number."""
    model = build(mopoe_config(*names, beta=beta))
    compare(use_draws, model, random_images(model.config, batch))


@pytest.mark.usefixtures("double_by_default")
def test_the_reading_of_the_book_is_the_model_of_the_package(use_draws):
    model = build(reading("mopoe"))
    compare(use_draws, model, random_images(model.config, 4), rtol=1e-9, atol=1e-9)


# Against plain loops


def naive_posterior(model: MoPoE, names, images, i: int) -> list[tuple[float, float]]:
    """Mean and variance of q_S in each dimension for sample i."""
    experts = [model.common_encoders[name](images[name][i : i + 1]) for name in names]
    prior = 1.0 if len(names) == len(model.config.modalities) else 0.0
    found = []
    for k in range(model.config.shared):
        precisions = [math.exp(-q.log_var[0, k].item()) for q in experts]
        means = [q.mean[0, k].item() for q in experts]
        variance = 1 / (prior + sum(precisions))
        found.append((variance * sum(p * m for p, m in zip(precisions, means, strict=True)), variance))
    return found


@pytest.mark.parametrize(
    ("names", "places"),
    [(TWO, [0, 0, 1, 1, 2, 2, 2, 2]), (THREE, [0, 1, 2, 3, 4, 5, 6, 6]), (TWO, [0, 1, 2]), (TWO, [2, 2]), (THREE, [6])],
)
def test_loss_of_a_tiny_batch_sample_by_sample(mopoe_config, names, places):
    """places: the subset from which each sample of the batch draws its code."""
    model, batch = build(mopoe_config(*names, beta=2.5)), len(places)
    images, noise = random_images(model.config, batch), random_noise(model, batch)
    result = model.loss(images, LABELS[:batch], noise)
    labels = ["joint" if len(subset) == len(names) else "+".join(subset) for subset in subsets(names)]
    expected_names = {f"kl/{label}" for label in labels} | {f"log_likelihood/{name}" for name in names}
    assert set(result.terms) == expected_names
    assert result.opposing is None
    totals = []
    for i, place in enumerate(places):
        posteriors = [naive_posterior(model, subset, images, i) for subset in subsets(names)]
        divergences = [sum(0.5 * (m**2 + v - 1 - math.log(v)) for m, v in q) for q in posteriors]
        draws = noise["joint/shared"][i].tolist()
        code = [m + math.sqrt(v) * e for (m, v), e in zip(posteriors[place], draws, strict=True)]
        z = torch.tensor([code], dtype=torch.float64)
        likelihoods = [
            naive_likelihood(m, model.decoders[name](z), images[name][i]) for name, m in model.config.modalities.items()
        ]
        for label, value in zip(labels, divergences, strict=True):
            assert result.terms[f"kl/{label}"][i].item() == pytest.approx(value, rel=1e-10), label
        for name, value in zip(names, likelihoods, strict=True):
            assert result.terms[f"log_likelihood/{name}"][i].item() == pytest.approx(value, rel=1e-10), name
        totals.append(sum(likelihoods) - 2.5 * sum(divergences) / len(divergences))
        assert result.objective[i].item() == pytest.approx(totals[-1], rel=1e-10)
    assert result.loss.item() == pytest.approx(-sum(totals) / batch, rel=1e-10)


def test_the_weight_of_the_divergences_is_one_unless_it_is_given():
    assert (reading("mopoe").beta, reading("mopoe+beta=2.5").beta) == (1.0, 2.5)
