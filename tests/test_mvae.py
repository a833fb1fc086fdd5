"""MVAE against the `multivae` package, against its objective sample by sample, and what a model without h can do.

Conventions, as compared here. Both sum over pixels and dimensions and average over the batch; we maximise the
joint bound plus every unimodal one, they minimise the negative. Both count the constants of Laplace and normal density.
Their decoders give the mean of the density, but logits for the Bernoulli one; ours always give logits. Their Bernoulli
density refuses grey pixels; ours is the cross entropy for them too, and so is theirs with that check switched off.
"""

import functools
import math

import pytest
import torch
from model_cases import (
    LABELS,
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

from qmvae_core.models import MVAE, reading


@pytest.fixture(scope="session")
def mvae_config(shared_only_config):
    """A function: names of modalities, and a likelihood for all of them or None -> a small config of MVAE."""
    return functools.partial(shared_only_config, "mvae")


# Against the package


@pytest.fixture(scope="module")
def package():
    """The module of multivae that defines its MVAE; imported here because that takes seconds."""
    pytest.importorskip("multivae", reason="the independent implementation, pip install multivae, is not here")
    from multivae.models.mvae import mvae_model

    return mvae_model


def wrapped(model: MVAE):
    """Their MVAE around copies of our networks, without bounds of random subsets."""
    return copied(model, "MVAE", k=0, warmup=0)


def their_output(package, monkeypatch, theirs, images, noise):
    """Their loss with our draws, in the order of their bounds: the joint one, then each modality's."""
    from multivae.data.datasets.base import MultimodalBaseDataset

    draws = [noise[f"{name}/shared"] for name in ("joint", *theirs.encoders)]

    def sample(mean, log_var):
        return mean + torch.exp(0.5 * log_var) * draws.pop(0)

    monkeypatch.setattr(package, "rsample_from_gaussian", sample)
    output = theirs(MultimodalBaseDataset(images))
    assert not draws
    return output


def compare(package, monkeypatch, model, images, rtol=1e-10, atol=1e-10) -> None:
    """Every bound, the loss, and the gradient of every parameter."""
    batch, dtype = len(next(iter(images.values()))), next(model.parameters()).dtype
    noise = random_noise(model, batch, dtype)
    theirs = wrapped(model)
    result = model.loss(images, LABELS[:batch], noise)
    output = their_output(package, monkeypatch, theirs, images, noise)
    names, everything = list(model.config.modalities), "_".join(sorted(model.config.modalities))
    found = {
        "loss": result.loss,
        everything: -result.terms["elbo/joint"].mean(),
        f"kld{everything}": result.terms["kl/joint"].mean(),
        **{name: -result.terms[f"elbo/{name}"].mean() for name in names},
    }
    expected = {"loss": output.loss, **{name: output.metrics[name] for name in found if name != "loss"}}
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)
    output.loss.backward()
    assert_same_gradients(parameter_gradients(model, result.loss), gradients(theirs), rtol, atol)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("names", [TWO, THREE])
@pytest.mark.parametrize("likelihood", ["laplace", "normal", "bernoulli"])
def test_loss_and_gradients_are_those_of_the_package(package, monkeypatch, mvae_config, likelihood, names, batch):
    model = build(mvae_config(*names, likelihood=likelihood))
    images = random_images(model.config, batch)
    if likelihood == "bernoulli":
        images = {name: value.round() for name, value in images.items()}
    compare(package, monkeypatch, model, images)


@pytest.mark.usefixtures("grey_pixels")
def test_mixed_likelihoods_are_those_of_the_package(package, monkeypatch, mvae_config):
    model = build(mvae_config(*THREE))
    assert len({m.likelihood for m in model.config.modalities.values()}) == 3
    assert len({m.weight for m in model.config.modalities.values()}) == 3
    compare(package, monkeypatch, model, random_images(model.config))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_reading_of_the_book_is_the_model_of_the_package(package, monkeypatch, dtype):
    model = build(reading("mvae"), dtype)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    compare(package, monkeypatch, model, random_images(model.config, 2, dtype), rtol=tolerance, atol=tolerance)


# Against the objective, sample by sample


def naive_bound(model: MVAE, names, images, noise: torch.Tensor, i: int) -> tuple[float, float]:
    """Σ_m w_m ln p(x_m|z) - KL and the KL, for z ~ q(z | the named modalities of sample i)."""
    experts = [model.common_encoders[name](images[name][i : i + 1]) for name in names]
    code, kl = [], 0.0
    for k in range(model.config.shared):
        precisions = [1.0] + [math.exp(-q.log_var[0, k].item()) for q in experts]
        means = [0.0] + [q.mean[0, k].item() for q in experts]
        variance = 1 / sum(precisions)
        mean = variance * sum(p * m for p, m in zip(precisions, means, strict=True))
        code.append(mean + math.sqrt(variance) * noise[i, k].item())
        kl += 0.5 * (mean**2 + variance - 1 - math.log(variance))
    z = torch.tensor([code], dtype=torch.float64)
    likelihoods = (
        naive_likelihood(model.config.modalities[name], model.decoders[name](z), images[name][i]) for name in names
    )
    return sum(likelihoods) - kl, kl


@pytest.mark.parametrize("names", [TWO, THREE])
def test_loss_of_a_tiny_batch_sample_by_sample(mvae_config, names):
    model = build(mvae_config(*names))
    images, noise = random_images(model.config, 2), random_noise(model, 2)
    result = model.loss(images, LABELS[:2], noise)
    assert set(result.terms) == {"elbo/joint", "kl/joint", *(f"elbo/{name}" for name in names)}
    assert result.opposing is None
    totals = []
    for i in range(2):
        joint, kl = naive_bound(model, names, images, noise["joint/shared"], i)
        alone = {name: naive_bound(model, (name,), images, noise[f"{name}/shared"], i)[0] for name in names}
        expected = {"elbo/joint": joint, "kl/joint": kl, **{f"elbo/{name}": value for name, value in alone.items()}}
        for name, value in expected.items():
            assert result.terms[name][i].item() == pytest.approx(value, rel=1e-10), name
        totals.append(joint + sum(alone.values()))
        assert result.objective[i].item() == pytest.approx(totals[-1], rel=1e-10)
    assert result.loss.item() == pytest.approx(-sum(totals) / 2, rel=1e-10)
