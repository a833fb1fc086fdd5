"""JMVAE against the `multivae` package, against its objective sample by sample, and what it does without a modality.

Conventions, as compared here. Both sum over pixels and dimensions and average over the batch; the package minimises
the negative of what we maximise. It multiplies its KL terms with a warm-up over ten epochs, switched off here, and has
encoders of single modalities also where α is zero; these then have no gradient. Its own joint encoder has two hidden
layers on the outputs of encoders; here it is given ours. From two of three modalities it takes the product of their
encoders, without the prior; the authors have two modalities, and we refuse.
"""

import copy
import dataclasses
import itertools
import math

import pytest
import torch
from model_cases import random_images, random_noise

from qmvae_core.models import JMVAE, READINGS, JMVAEConfig, ModelConfig, build_model, reading
from qmvae_core.training import LOOPS, TrainingConfig, fit

LABELS = torch.tensor([3, 1, 1, 7])
TWO, THREE = ("ink", "photo"), ("ink", "photo", "sketch")
ALPHAS = [0.0, 0.1, 1.5]


@pytest.fixture(scope="session")
def jmvae_config(small_config):
    """A function: names of modalities, α, and a likelihood for all of them or None -> a small config of JMVAE."""

    def make(*names: str, alpha: float = 0.1, likelihood: str | None = None) -> ModelConfig:
        changes = {"private": 0} if likelihood is None else {"private": 0, "likelihood": likelihood}
        config = small_config(*names, model="jmvae", of_all=changes, alpha=alpha)
        ink = dataclasses.replace(config.modalities["ink"], weight=3072 / 784)
        return dataclasses.replace(config, modalities={**config.modalities, "ink": ink})

    return make


def build(config: ModelConfig, dtype=torch.float64) -> JMVAE:
    return build_model(config, seed=0).to(dtype)


# Against the package


@pytest.fixture(scope="module")
def package():
    """The module of multivae that defines its JMVAE; imported here because that takes seconds."""
    pytest.importorskip("multivae", reason="the independent implementation, pip install multivae, is not here")
    from multivae.models.jmvae import jmvae_model

    return jmvae_model


def wrapped(package, model: JMVAE):
    """Their JMVAE around copies of our networks; where we have no encoders of single modalities, around others."""
    from multivae.models import JMVAEConfig as TheirConfig
    from multivae.models.base import BaseDecoder, BaseEncoder, ModelOutput
    from multivae.models.nn import BaseJointEncoder

    def output(posterior):
        return ModelOutput(embedding=posterior.mean, log_covariance=posterior.log_var)

    class Encoder(BaseEncoder):
        def __init__(self, network):
            super().__init__()
            self.network, self.latent_dim = network, model.config.shared

        def forward(self, images):
            return output(self.network(images))

    class Joint(BaseJointEncoder):
        def __init__(self, network):
            super().__init__()
            self.network, self.latent_dim = network, model.config.shared

        def forward(self, images):
            return output(self.network(images))

    class Decoder(BaseDecoder):
        def __init__(self, network, of_logits):
            super().__init__()
            self.network, self.of_logits = network, of_logits

        def forward(self, codes):
            logits = self.network(codes)
            return ModelOutput(reconstruction=logits if self.of_logits else logits.sigmoid())

    modalities = model.config.modalities
    config = TheirConfig(
        n_modalities=len(modalities),
        latent_dim=model.config.shared,
        input_dims={name: m.shape for name, m in modalities.items()},
        uses_likelihood_rescaling=True,
        rescale_factors={name: m.weight for name, m in modalities.items()},
        decoders_dist={name: m.likelihood for name, m in modalities.items()},
        decoder_dist_params={name: {"scale": m.scale} for name, m in modalities.items()},
        alpha=model.config.alpha,
        warmup=0,
    )
    dtype = next(model.parameters()).dtype
    single = model.common_encoders or build(dataclasses.replace(model.config, alpha=1.0), dtype).common_encoders
    encoders = {name: Encoder(copy.deepcopy(single[name])) for name in modalities}
    decoders = {
        name: Decoder(copy.deepcopy(model.decoders[name]), m.likelihood == "bernoulli")
        for name, m in modalities.items()
    }
    return package.JMVAE(config, encoders, decoders, Joint(copy.deepcopy(model.joint_encoder)))


def as_data(images):
    from multivae.data.datasets.base import MultimodalBaseDataset

    return MultimodalBaseDataset(images)


def compare(package, monkeypatch, model, images, tolerance=1e-10) -> None:
    """The bound, the loss, and the gradient of every parameter, for the same draw of z."""
    batch, dtype = len(next(iter(images.values()))), next(model.parameters()).dtype
    noise = random_noise(model, batch, dtype)
    theirs = wrapped(package, model)
    draws = [noise["joint/shared"]]
    monkeypatch.setattr(package.dist.Normal, "rsample", lambda self: self.mean + self.stddev * draws.pop(0))
    output = theirs(as_data(images))
    assert not draws
    result = model.loss(images, LABELS[:batch], noise)
    found = {"loss": result.loss, "elbo": -result.terms["elbo/joint"].mean()}
    expected = {"loss": output.loss, "elbo": output.metrics["elbo"]}
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)

    result.loss.backward()
    output.loss.backward()
    gradients = {name: value.grad for name, value in model.named_parameters()}
    other = {
        ("common_" + name if name.startswith("encoders.") else name).replace(".network.", "."): value.grad
        for name, value in theirs.named_parameters()
    }
    assert set(gradients) <= set(other)
    assert all(value.abs().max() == 0 for name, value in other.items() if name not in gradients)
    for name, value in gradients.items():
        assert value.abs().max() > 0, name
        torch.testing.assert_close(
            value, other[name], rtol=tolerance, atol=tolerance, msg=lambda s, n=name: f"{n}: {s}"
        )


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("names", [TWO, THREE])
@pytest.mark.parametrize("likelihood", ["laplace", "normal", "bernoulli"])
def test_loss_and_gradients_are_those_of_the_package(
    package, monkeypatch, jmvae_config, likelihood, names, alpha, batch
):
    model = build(jmvae_config(*names, alpha=alpha, likelihood=likelihood))
    images = random_images(model.config, batch)
    if likelihood == "bernoulli":
        images = {name: value.round() for name, value in images.items()}
    compare(package, monkeypatch, model, images)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["jmvae", "jmvae-kl"])
def test_the_readings_of_the_book_are_the_model_of_the_package(package, monkeypatch, name, dtype):
    model = build(reading(name), dtype)
    images = random_images(model.config, 2, dtype)
    compare(package, monkeypatch, model, images, tolerance=1e-9 if dtype == torch.float64 else 1e-4)


def test_posteriors_are_those_of_the_package(package, jmvae_config):
    model = build(jmvae_config(*THREE))
    images = random_images(model.config)
    theirs = wrapped(package, model)
    for names in [(name,) for name in THREE] + [THREE]:
        found = model.encode_shared({name: images[name] for name in names}).mean
        expected = theirs.encode(as_data(images), cond_mod=list(names), return_mean=True).z
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


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


def naive_kl(mean, log_var, other_mean, other_log_var) -> float:
    total = 0.0
    for m, v, n, w in zip(mean, log_var, other_mean, other_log_var, strict=True):
        total += 0.5 * (w - v) + (math.exp(v) + (m - n) ** 2) / (2 * math.exp(w)) - 0.5
    return total


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("names", [TWO, THREE])
def test_loss_of_a_tiny_batch_sample_by_sample(jmvae_config, names, alpha):
    model = build(jmvae_config(*names, alpha=alpha))
    images, noise = random_images(model.config, 2), random_noise(model, 2)
    result = model.loss(images, LABELS[:2], noise)
    gaps = {f"kl_to/{name}" for name in names} if alpha else set()
    assert set(result.terms) == {"elbo/joint", "kl/joint"} | gaps
    assert result.opposing is None
    totals = []
    for i in range(2):
        one = {name: value[i : i + 1] for name, value in images.items()}
        features = torch.cat([model.joint_encoder.bodies[name](one[name]) for name in names], dim=1)
        joint = (features @ model.joint_encoder.head.weight.T + model.joint_encoder.head.bias)[0].tolist()
        mean, log_var = joint[:4], joint[4:]
        z = [m + math.exp(v / 2) * e for m, v, e in zip(mean, log_var, noise["joint/shared"][i].tolist(), strict=True)]
        codes = torch.tensor([z], dtype=torch.float64)
        expected = {"kl/joint": naive_kl(mean, log_var, [0.0] * 4, [0.0] * 4)}
        expected["elbo/joint"] = -expected["kl/joint"] + sum(
            naive_likelihood(model.config.modalities[name], model.decoders[name](codes), images[name][i])
            for name in names
        )
        for name in names if alpha else ():
            alone = model.common_encoders[name](one[name])
            expected[f"kl_to/{name}"] = naive_kl(mean, log_var, alone.mean[0].tolist(), alone.log_var[0].tolist())
        for name, value in expected.items():
            assert result.terms[name][i].item() == pytest.approx(value, rel=1e-10), name
        totals.append(expected["elbo/joint"] - alpha * sum(expected[name] for name in gaps))
        assert result.objective[i].item() == pytest.approx(totals[-1], rel=1e-10)
    assert result.loss.item() == pytest.approx(-sum(totals) / 2, rel=1e-10)


def test_loss_needs_the_joint_code_and_no_other_draw(jmvae_config):
    for alpha in ALPHAS:
        spec = build_model(jmvae_config(*THREE, alpha=alpha)).noise_spec(5)
        assert {name: tuple(item) for name, item in spec.items()} == {"joint/shared": ("normal", (5, 4))}


def test_labels_and_other_modalities_have_no_say_in_the_loss(jmvae_config):
    model = build(jmvae_config())
    images, noise = random_images(model.config), random_noise(model)
    expected = model.loss(images, LABELS, noise).loss
    assert torch.equal(model.loss(images, LABELS * 0, noise).loss, expected)
    assert torch.equal(model.loss({"sketch": images["ink"], **images}, LABELS, noise).loss, expected)


# The shared posterior


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("names", [TWO, THREE])
def test_posterior_of_all_modalities_is_the_joint_encoders_in_any_order(jmvae_config, names, alpha):
    model = build(jmvae_config(*names, alpha=alpha))
    images = random_images(model.config)
    expected = model.joint_encoder(images)
    for order in itertools.permutations(names):
        found = model.encode_shared({name: images[name] for name in order})
        assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("name", THREE)
def test_posterior_of_one_modality_is_its_own_encoders_in_jmvae_kl(jmvae_config, name):
    model = build(jmvae_config(*THREE))
    images = random_images(model.config)
    found = model.encode_shared({name: images[name]})
    assert all(map(torch.equal, found, model.common_encoders[name](images[name])))


@pytest.mark.parametrize("size", [1, 2])
def test_posterior_of_some_modalities_is_the_joint_encoders_of_zeros_in_jmvae(jmvae_config, size):
    model = build(jmvae_config(*THREE, alpha=0.0))
    images = random_images(model.config)
    for names in itertools.combinations(THREE, size):
        filled = {name: value if name in names else torch.zeros_like(value) for name, value in images.items()}
        found = model.encode_shared({name: images[name] for name in names})
        assert all(map(torch.equal, found, model.joint_encoder(filled)))
        assert not torch.equal(found.mean, model.joint_encoder(images).mean)


def test_jmvae_kl_has_no_posterior_of_some_of_three_modalities(jmvae_config):
    model = build(jmvae_config(*THREE))
    images = random_images(model.config)
    del images["photo"]
    with pytest.raises(
        ValueError, match=r"encodes one modality or all of them, not \['ink', 'sketch'\] without \['photo'\]"
    ):
        model.encode_shared(images)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_images_that_do_not_fit_are_refused(jmvae_config, alpha):
    model = build(jmvae_config(alpha=alpha))
    images = random_images(model.config)
    with pytest.raises(ValueError, match="at least one of"):
        model.encode_shared({})
    for other in ({}, images):
        with pytest.raises(ValueError, match=r"unknown modality 'sound'.*ink.*photo"):
            model.encode_shared({**other, "sound": images["ink"]})
    for call in (
        lambda wrong: model.encode_shared({"ink": wrong}),
        lambda wrong: model.encode_shared({**images, "ink": wrong}),
        lambda wrong: model.loss({**images, "ink": wrong}, LABELS, random_noise(model)),
        lambda wrong: model.encode_private("ink", wrong),
    ):
        with pytest.raises(ValueError, match=r"'ink' must be \(batch, 1, 6, 6\)"):
            call(images["photo"])
        with pytest.raises(ValueError, match=r"float in \[0, 1\]"):
            call((images["ink"] * 255).to(torch.uint8))


# Choices


def test_jmvae_has_no_encoders_of_single_modalities_and_jmvae_kl_has(jmvae_config):
    zero, kl = (build_model(jmvae_config(*THREE, alpha=alpha)) for alpha in (0.0, 0.1))
    assert not zero.common_encoders
    assert set(kl.common_encoders) == set(kl.joint_encoder.bodies) == set(zero.joint_encoder.bodies) == set(THREE)
    assert not zero.shared_encoders
    assert not kl.shared_encoders
    assert {name for name, _ in kl.named_parameters()} - {name for name, _ in zero.named_parameters()} == {
        name for name, _ in kl.named_parameters() if name.startswith("common_encoders.")
    }
    for name, body in kl.joint_encoder.bodies.items():  # the same networks, with weights of their own
        other = kl.common_encoders[name].body
        assert str(body) == str(other)
        assert not any(map(torch.equal, body.parameters(), other.parameters()))


@pytest.mark.parametrize("alpha", [-0.1, math.nan])
def test_a_weight_that_is_no_weight_is_refused(jmvae_config, alpha):
    with pytest.raises(ValueError, match=f"JMVAEConfig: alpha must be float, not {alpha}"):
        build_model(jmvae_config(alpha=alpha))


def test_private_codes_are_refused(small_config):
    with pytest.raises(ValueError, match=r"jmvae has no private codes; set private=0 for \['ink', 'photo'\]"):
        build_model(small_config(model="jmvae"))
    with pytest.raises(ValueError, match=r"jmvae has no private codes; set private=0 for \['svhn'\]"):
        build_model(reading("jmvae-kl+svhn.private=4"))


def test_readings_are_those_of_mvae_but_for_the_model_and_alpha():
    mvae = READINGS["mvae"]
    for name, alpha in (("jmvae", 0.0), ("jmvae-kl", 0.1)):
        config = reading(name)
        assert type(config) is JMVAEConfig
        assert config.alpha == alpha
        assert config.to_dict() == {**mvae.to_dict(), "model": "jmvae", "alpha": alpha}
        assert ModelConfig.from_dict(config.to_dict()) == config
    assert reading("jmvae+alpha=0.1") == reading("jmvae-kl")
    named, read = build_model("jmvae", seed=3), build_model(reading("jmvae"), seed=3)
    assert type(named) is JMVAE
    assert all(map(torch.equal, named.state_dict().values(), read.state_dict().values()))


# Generation and training


@pytest.fixture(params=["jmvae", "jmvae-kl", "three", "three-kl"])
def model(request, jmvae_config) -> JMVAE:
    if request.param in READINGS:
        return build_model(reading(request.param))
    return build_model(jmvae_config(*THREE, alpha=0.1 if request.param == "three-kl" else 0.0))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_every_loop_lowers_the_loss_alike(jmvae_config, small_digits, alpha, loop):
    config = jmvae_config(*THREE, alpha=alpha)
    training = TrainingConfig(epochs=4, batch_size=8, rounds=2, learning_rate=3e-3, chunk=2, steps_per_epoch=5)
    plain, other = (
        fit(config, training, small_digits(*THREE), [0, 5], loop=name, progress="none") for name in ("plain", loop)
    )
    for expected, history in zip(plain.histories, other.histories, strict=True):
        assert history[-1]["objective"] > history[0]["objective"] + 1
        for epoch, reference in zip(history, expected, strict=True):
            assert epoch == pytest.approx(reference, rel=1e-4, abs=1e-4)


def test_jmvae_kl_draws_the_encoders_of_single_modalities_to_the_joint_one(jmvae_config, small_digits):
    training = TrainingConfig(epochs=6, batch_size=16, rounds=3, learning_rate=3e-3)
    (history,) = fit(jmvae_config(alpha=5.0), training, small_digits(), progress="none").histories
    weak = fit(jmvae_config(alpha=0.01), training, small_digits(), progress="none").histories[0]
    for name in ("kl_to/ink", "kl_to/photo"):
        assert history[-1][name] < weak[-1][name]
