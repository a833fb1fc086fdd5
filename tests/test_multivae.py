"""MVAE, MMVAE, MoPoE and JMVAE against the package `multivae`: the loss, its terms, the gradient of every parameter.

Conventions, as compared here. Both sum over pixels and dimensions, with the constants of Laplace and normal density;
the package minimises the negative of what we maximise. Its decoders give the mean of the density, but logits for the
Bernoulli one; ours always give logits. Its Bernoulli density refuses grey pixels, unless it is told not to look.
MVAE: without the package's bounds of random subsets.
MMVAE: our objective is the importance-weighted bound, the value of the package's `iwae_looser`; its gradient is that of
the package's `dreg_looser`, whose value is another number (Σ w ln w in place of ln Σ w / K). They sum over the batch,
we average. Their DReG multiplies by a hook on the codes, ours by a function of its own.
MoPoE: the package adds 1e-8 to variances before it multiplies densities; that is taken away.
JMVAE: the package has a warm-up, switched off here, and encoders of single modalities also where α is zero; these then
have no gradient. Its own joint encoder has two hidden layers on the outputs of encoders; here it is given ours. From
two of three modalities it takes the product of their encoders, without the prior; the authors have two modalities, and
we refuse.
"""

import dataclasses
import functools

import pytest
import torch
from model_cases import (
    LABELS,
    THREE,
    TWO,
    assert_same_gradients,
    build,
    parameter_gradients,
    random_images,
    random_noise,
)

from benchmarks.peer import copied
from qmvae_core.models import MultimodalVAE, reading


@pytest.fixture(scope="module", autouse=True)
def _package():
    pytest.importorskip("multivae", reason="the independent implementation, pip install multivae, is not here")


def choices(model: MultimodalVAE) -> dict[str, object]:
    """Of the package's config, as ours says."""
    config = model.config
    if config.model == "jmvae":
        dtype = next(model.parameters()).dtype
        single = model.common_encoders or build(dataclasses.replace(config, alpha=1.0), dtype).common_encoders
        return {"alpha": config.alpha, "warmup": 0, "single": single}
    return {
        "mvae": lambda: {"k": 0, "warmup": 0},
        "mmvae": lambda: {"K": config.particles, "loss": "iwae_looser"},
        "mopoe": lambda: {"beta": config.beta},
    }[config.model]()


def metrics(model: MultimodalVAE, terms: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the package reports beside the loss, by its names, from our terms."""
    mean, names = {name: value.mean() for name, value in terms.items()}, list(model.config.modalities)
    if model.config.model == "mvae":
        everything = "_".join(sorted(names))
        bounds = {everything: "joint", **{name: name for name in names}}
        return {f"kld{everything}": mean["kl/joint"], **{name: -mean[f"elbo/{ours}"] for name, ours in bounds.items()}}
    if model.config.model == "mopoe":
        divergences = [value for name, value in mean.items() if name.startswith("kl/")]
        likelihoods = {f"recon_{name}": -mean[f"log_likelihood/{name}"] for name in names}
        return {"joint_divergence": sum(divergences) / len(divergences), **likelihoods}
    return {"elbo": -mean["elbo/joint"]} if model.config.model == "jmvae" else {}


def theirs(model: MultimodalVAE, images, noise, **changes):
    """The package's model and its output, for our draws and in our precision."""
    from multivae.data.datasets.base import MultimodalBaseDataset
    from multivae.models.mopoe import mopoe_model

    draws = [noise[f"{name}/shared"] for name in ("joint", *images) if f"{name}/shared" in noise]

    def scripted(density, shape=()):
        drawn = draws.pop(0)
        assert drawn.shape == (*shape, *density.loc.shape)
        return density.loc + density.scale * drawn

    with pytest.MonkeyPatch.context() as patch:
        for kind in (torch.distributions.Normal, torch.distributions.Laplace):
            patch.setattr(kind, "rsample", scripted)
        patch.setattr(torch.distributions.Distribution, "_validate_args", False)
        patch.setattr(mopoe_model, "poe", functools.partial(mopoe_model.poe, eps=0.0))
        torch.set_default_dtype(next(model.parameters()).dtype)
        other = copied(model, **{**choices(model), **changes})
        if hasattr(model, "prior_scale"):
            other.prior_log_var.data = model.prior_scale.detach()[None].clone()
        output = other(MultimodalBaseDataset(images))
        torch.set_default_dtype(torch.float32)
    assert not draws
    return other, output


def gradients(other, ours: MultimodalVAE) -> dict[str, torch.Tensor]:
    """Of the package's parameters, by our names."""
    found = {"prior_scale": other.prior_log_var.grad[0]} if hasattr(ours, "prior_scale") else {}
    for name, value in other.named_parameters():
        name = name.replace("network.", "").replace("encoders.", "common_encoders.")
        if name in dict(ours.named_parameters()):
            found[name] = value.grad
    return found


def compare(model: MultimodalVAE, batch: int, tolerance: float = 1e-10) -> None:
    dtype = next(model.parameters()).dtype
    images, noise = random_images(model.config, batch, dtype), random_noise(model, batch, dtype)
    same = functools.partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance)
    result = model.loss(images, LABELS.repeat(3)[:batch], noise)
    loss = result.loss * (batch if model.config.model == "mmvae" else 1)
    found = metrics(model, result.terms)
    other, output = theirs(model, images, noise)
    same({"loss": loss, **found}, {"loss": output.loss, **{name: output.metrics[name] for name in found}})
    if model.config.model == "mmvae":
        other, output = theirs(model, images, noise, loss="dreg_looser")
        if model.config.particles == 1:
            same(loss, output.loss)
    output.loss.backward()
    assert_same_gradients(parameter_gradients(model, loss), gradients(other, model), tolerance, tolerance)


@pytest.mark.parametrize("names", [TWO, THREE])
@pytest.mark.parametrize(
    ("kind", "choice", "batches"),
    [
        ("mvae", {}, (1, 4)),
        *(("mmvae", {"particles": count}, (1, 4)) for count in (1, 2, 7)),
        *(("mopoe", {"beta": beta}, (1, 2, 3, 7, 10)) for beta in (1.0, 2.5)),  # the subsets do not divide all of them
        *(("jmvae", {"alpha": alpha}, (1, 4)) for alpha in (0.0, 0.1, 1.5)),
    ],
)
def test_loss_and_gradients_are_those_of_the_package(shared_only_config, kind, choice, batches, names):
    """Modalities of other likelihoods and weights."""
    model = build(shared_only_config(kind, *names, **choice))
    assert len({(m.likelihood, m.weight) for m in model.config.modalities.values()}) == len(names)
    for batch in batches:
        compare(model, batch)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 3e-4)])
@pytest.mark.parametrize("name", ["mvae", "mmvae", "mopoe", "jmvae", "jmvae-kl"])
def test_the_readings_of_the_book_are_the_models_of_the_package(name, dtype, tolerance):
    compare(build(reading(name), dtype), batch=4 if name == "mopoe" else 2, tolerance=tolerance)
