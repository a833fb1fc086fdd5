"""MVAE against the `multivae` package, against its objective sample by sample, and what a model without h can do.

Conventions, as compared here. Both sum over pixels and dimensions and average over the batch; we maximise the
joint bound plus every unimodal one, they minimise the negative. Both count the constants of Laplace and normal density.
Their decoders give the mean of the density, but logits for the Bernoulli one; ours always give logits. Their Bernoulli
density refuses grey pixels; ours is the cross entropy for them too, and so is theirs with that check switched off.
"""

import dataclasses
import functools
import itertools
import math

import pytest
import torch
from model_cases import generator, random_images, random_noise
from multivae_copies import copied, gradients

from qmvae_core.models import MVAE, READINGS, ModelConfig, build_model, reading

LABELS = torch.tensor([3, 1, 1, 7])
TWO, THREE = ("ink", "photo"), ("ink", "photo", "sketch")


@pytest.fixture(scope="session")
def mvae_config(shared_only_config):
    """A function: names of modalities, and a likelihood for all of them or None -> a small config of MVAE."""
    return functools.partial(shared_only_config, "mvae")


def build(config: ModelConfig, dtype=torch.float64) -> MVAE:
    return build_model(config, seed=0).to(dtype)


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
    result.loss.backward()
    output.loss.backward()
    found, other = {name: value.grad for name, value in model.named_parameters()}, gradients(theirs)
    assert set(other) == set(found)
    for name, value in found.items():
        assert value.abs().max() > 0, name
        torch.testing.assert_close(value, other[name], rtol=rtol, atol=atol, msg=lambda s, n=name: f"{n}: {s}")


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
def test_bernoulli_likelihood_of_grey_pixels_is_that_of_the_package(package, monkeypatch, mvae_config):
    model = build(mvae_config(*THREE, likelihood="bernoulli"))
    compare(package, monkeypatch, model, random_images(model.config))


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


@pytest.mark.parametrize("size", [1, 2, 3])
def test_posterior_of_every_subset_is_that_of_the_package(package, mvae_config, size):
    from multivae.data.datasets.base import MultimodalBaseDataset

    model = build(mvae_config(*THREE))
    images = random_images(model.config)
    theirs = wrapped(model)
    for names in itertools.combinations(THREE, size):
        found = model.encode_shared({name: images[name] for name in names})
        expected = theirs.compute_mu_log_var_subset(MultimodalBaseDataset(images), list(names))
        torch.testing.assert_close(tuple(found), expected, rtol=1e-11, atol=1e-12)


# Against the objective, sample by sample


def naive_likelihood(m, logits: torch.Tensor, image: torch.Tensor) -> float:
    total = 0.0
    for logit, x in zip(logits.flatten().tolist(), image.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-logit))
        if m.likelihood == "laplace":
            total += math.log(math.exp(-abs(x - p) / m.scale) / (2 * m.scale))
        elif m.likelihood == "normal":
            total += math.log(math.exp(-((x - p) ** 2) / (2 * m.scale**2)) / math.sqrt(2 * math.pi * m.scale**2))
        else:
            total += x * math.log(p) + (1 - x) * math.log(1 - p)
    return m.weight * total


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


def test_loss_needs_one_code_for_each_bound_and_no_other_draw(mvae_config):
    spec = build_model(mvae_config(*THREE)).noise_spec(5)
    assert {name: tuple(item) for name, item in spec.items()} == {
        f"{name}/shared": ("normal", (5, 4)) for name in ("joint", *THREE)
    }


def test_labels_have_no_say_in_the_loss(mvae_config):
    model = build(mvae_config())
    images, noise = random_images(model.config), random_noise(model)
    assert torch.equal(model.loss(images, LABELS, noise).loss, model.loss(images, LABELS * 0, noise).loss)


# The shared posterior


@pytest.mark.parametrize("name", THREE)
def test_posterior_of_one_modality_includes_the_prior(mvae_config, name):
    model = build(mvae_config(*THREE))
    images = random_images(model.config)
    expert = model.common_encoders[name](images[name])
    found = model.encode_shared({name: images[name]})
    precision = 1 + torch.exp(-expert.log_var)
    torch.testing.assert_close(torch.exp(-found.log_var), precision, rtol=1e-11, atol=0)
    torch.testing.assert_close(found.mean, expert.mean * torch.exp(-expert.log_var) / precision, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("size", [2, 3])
def test_posterior_of_several_modalities_counts_the_prior_once(mvae_config, size):
    model = build(mvae_config(*THREE))
    images = random_images(model.config)
    for names in itertools.combinations(THREE, size):
        experts = [model.common_encoders[name](images[name]) for name in names]
        found = model.encode_shared({name: images[name] for name in names})
        precision = 1 + sum(torch.exp(-q.log_var) for q in experts)
        mean = sum(q.mean * torch.exp(-q.log_var) for q in experts) / precision
        torch.testing.assert_close(torch.exp(-found.log_var), precision, rtol=1e-11, atol=0)
        torch.testing.assert_close(found.mean, mean, rtol=1e-11, atol=1e-13)


def test_posterior_of_no_modality_is_an_error(mvae_config):
    with pytest.raises(ValueError, match="at least one of"):
        build_model(mvae_config()).encode_shared({})


# Choices


def test_private_codes_are_refused(mvae_config, small_config):
    with pytest.raises(ValueError, match=r"mvae has no private codes; set private=0 for \['ink', 'photo'\]"):
        build_model(small_config(model="mvae"))
    with pytest.raises(ValueError, match=r"mvae has no private codes; set private=0 for \['svhn'\]"):
        build_model(reading("mvae+svhn.private=4"))


@pytest.mark.parametrize("encoders", ["separate", "common"])
def test_one_encoder_a_modality_whatever_the_config_says(mvae_config, encoders):
    config = mvae_config()
    modalities = {name: dataclasses.replace(m, encoders=encoders) for name, m in config.modalities.items()}
    model = build_model(dataclasses.replace(config, modalities=modalities))
    assert set(model.common_encoders) == set(model.decoders) == set(TWO)
    assert not model.shared_encoders
    assert not model.private_encoders


def test_name_and_reading_build_the_same_model():
    named, read = build_model("mvae", seed=3), build_model(reading("mvae"), seed=3)
    assert type(named) is type(read) is MVAE
    assert named.config == read.config == READINGS["mvae"]
    assert [m.private for m in named.config.modalities.values()] == [0, 0]
    assert ModelConfig.from_dict(named.config.to_dict()) == named.config
    for (name, value), (other, expected) in zip(named.state_dict().items(), read.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(value, expected)
    assert reading("mvae+shared=4+mnist.scale=0.5").modalities["mnist"].scale == 0.5


# Generation


def test_generation_starts_from_the_posterior_with_the_prior(mvae_config):
    """Cross generation by the mean, by a sample, and transfer, which without private codes is cross generation."""
    model = build_model(mvae_config(*THREE))
    images = random_images(model.config, 3, torch.float32)
    none = torch.zeros(3, 0)
    for source, target in itertools.permutations(THREE, 2):
        expert = model.common_encoders[source](images[source])
        precision = 1 + torch.exp(-expert.log_var)
        mean = expert.mean * torch.exp(-expert.log_var) / precision
        by_mean = model.decode(target, mean, none)
        torch.testing.assert_close(model.cross_generate(source, images[source], target), by_mean)
        moved = model.transfer(content=(source, images[source]), style=(target, images[target]))
        torch.testing.assert_close(moved, by_mean)
        sampled = mean + precision.rsqrt() * torch.randn(mean.shape, generator=generator())
        found = model.cross_generate(source, images[source], target, generator(), code="sample")
        torch.testing.assert_close(found, model.decode(target, sampled, none))
