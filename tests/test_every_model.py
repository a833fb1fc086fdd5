"""The protocol that every model keeps: shapes, gradients, purity and draws of the loss, configs, generation, errors.

What is particular to a model (its equation, its independent implementation, its own choices) is in its own file.
"""

import dataclasses
import itertools
import json
import math

import pytest
import torch
from model_cases import (
    LABELS,
    SMALL,
    THREE,
    assert_same_gradients,
    build,
    generator,
    parameter_gradients,
    random_images,
    random_noise,
)
from torch.func import functional_call, stack_module_state, vmap

from qmvae_core.draws import DRAWS
from qmvae_core.gaussians import DiagonalGaussian
from qmvae_core.models import MODELS, READINGS, ModalityConfig, ModelConfig, build_model, draw_noise, reading
from qmvae_core.names import BEST, unit_of
from qmvae_core.training import TrainingConfig, fit

VARIANTS = {  # name -> (model, choices)
    **{name: (name, choices) for name, choices in SMALL.items()},
    "qmvae, common encoders": ("qmvae", {"of_all": {"encoders": "common"}}),
    "qmvae, cross reconstruction": ("qmvae", {"cross_reconstruction": 0.7}),
    "dmvae, two groups": ("dmvae", {**SMALL["dmvae"], "empty_group": False}),
    "jmvae-kl": ("jmvae", {**SMALL["jmvae"], "alpha": 0.1}),
}
# Whether the product of the experts of `count` of three modalities has the prior as one more.
PRIOR = {
    "qmvae": lambda count: count > 1, "mvae": lambda count: True,
    "mopoe": lambda count: count == 3, "dmvae": lambda count: False,
}  # fmt: skip


@pytest.fixture(params=VARIANTS)
def model(request, small_config):
    """Each model in float64, with three modalities of different shapes."""
    name, choices = VARIANTS[request.param]
    return build(small_config(*THREE, model=name, **choices))


@pytest.fixture(params=[*READINGS, *itertools.product(SMALL, (2, 3))], ids=str)
def model_of_any_size(request, small_config):
    """Every reading of the book, and a small config of every model with two and with three modalities."""
    if request.param in READINGS:
        return build_model(reading(request.param))
    name, count = request.param
    return build_model(small_config(*THREE[:count], model=name, **SMALL[name]))


def loss_of(model, batch: int = 4):
    return model.loss(random_images(model.config, batch), LABELS.repeat(2)[:batch], random_noise(model, batch))


def both(result) -> torch.Tensor:
    """What the model and its opponent are to maximise, (2, batch)."""
    return torch.stack([result.objective, result.objective * 0 if result.opposing is None else result.opposing])


def test_every_model_is_among_them():
    assert set(SMALL) == set(MODELS) == {config.model for config in READINGS.values()}


# Shapes and ranges


def is_image(value: torch.Tensor, shape: tuple[int, ...]) -> bool:
    return tuple(value.shape) == shape and bool(((value >= 0) & (value <= 1)).all())


def test_shapes_of_codes_and_of_generated_images(model_of_any_size):
    model, modalities = model_of_any_size, model_of_any_size.config.modalities
    images = random_images(model.config, 3, torch.float32)
    made = model.generate(5, generator())
    assert list(made) == list(modalities)
    for name, m in modalities.items():
        assert is_image(made[name], (5, *m.shape))
        assert model.sample_private(name, 2).shape == (2, m.private)
        assert {tuple(value.shape) for value in model.encode_private(name, images[name])} == {(3, m.private)}
        assert {tuple(value.shape) for value in model.encode_shared({name: images[name]})} == {(3, model.config.shared)}
    for source, target in itertools.product(modalities, repeat=2):
        expected = (3, *modalities[target].shape)
        for code in ("mean", "sample"):
            assert is_image(model.cross_generate(source, images[source], target, generator(), code), expected)
        assert is_image(model.transfer(content=(source, images[source]), style=(target, images[target])), expected)


def test_codes_of_all_modalities_where_the_model_has_them(model_of_any_size):
    model = model_of_any_size
    images = random_images(model.config, 3, torch.float32)
    if model.has_joint_code:
        assert {tuple(value.shape) for value in model.encode_shared(images)} == {(3, model.config.shared)}
    else:
        with pytest.raises(ValueError, match=r"no joint code: encode one modality, not \['"):
            model.encode_shared(images)


def test_decode_takes_any_leading_dimensions(model):
    for name, m in model.config.modalities.items():
        codes = torch.randn((2, 5, 4), generator=generator(), dtype=torch.float64)
        styles = torch.randn((2, 5, m.private), generator=generator(1), dtype=torch.float64)
        found = model.decode(name, codes, styles)
        assert found.shape == (2, 5, *m.shape)
        torch.testing.assert_close(found[1], model.decode(name, codes[1], styles[1]))


@pytest.mark.parametrize("batch", [4, 7])
def test_loss_has_one_value_a_sample_in_every_term(model, batch):
    result = loss_of(model, batch)
    assert {tuple(value.shape) for value in (*both(result), *result.terms.values())} == {(batch,)}
    assert all(unit_of(name) for name in result.terms)
    assert torch.equal(result.loss, -result.objective.mean())
    assert (result.opposing is None) == (model.opponent is None)


# The loss as a function


def test_every_parameter_learns(model):
    result = loss_of(model)
    found = parameter_gradients(model, result.loss)
    if model.opponent:
        theirs = parameter_gradients(model, -result.opposing.mean())
        found |= {name: value for name, value in theirs.items() if name.startswith(model.opponent.prefix)}
    for name, value in found.items():
        assert value.isfinite().all(), name
        assert value.any(), name


def test_loss_is_a_pure_function_of_its_arguments(model):
    images, noise = random_images(model.config), random_noise(model)
    kept = {name: value.clone() for name, value in {**images, **noise}.items()}
    state = torch.get_rng_state()
    first, second = (model.loss(images, LABELS, noise) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(both(first), both(second))
    assert all(torch.equal(first.terms[name], second.terms[name]) for name in first.terms)
    assert all(torch.equal(value, kept[name]) for name, value in {**images, **noise}.items())


def test_loss_uses_every_draw_of_its_spec_and_asks_for_no_other(model):
    images, labels, noise = random_images(model.config, 8), LABELS.repeat(2), random_noise(model, 8)
    expected = both(model.loss(images, labels, noise))
    for name, value in noise.items():
        other = (7.05 * value).frac().abs()  # in [0, 1), for a uniform draw as well
        assert not torch.equal(both(model.loss(images, labels, {**noise, name: other})), expected), name
        with pytest.raises(KeyError):
            model.loss(images, labels, {key: value for key, value in noise.items() if key != name})


def draws_of(model, batch: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What each equation needs drawn, by its own count."""
    modalities, kind, config = model.config.modalities, model.config.model, model.config
    codes = {f"{name}/shared": ("normal", (batch, 4)) for name in modalities}
    joint = {"joint/shared": ("normal", (batch, 4))}
    styles = {f"{name}/private": ("normal", (2, batch, m.private)) for name, m in modalities.items()}
    if kind == "dmvae":
        orders = {f"{name}/order": ("uniform", (batch,)) for name in modalities}
        groups = {"partition": ("uniform", (batch, 3)), "subset": ("uniform", (3,)), "progress": ("progress", ())}
        return {**codes, **styles, **orders, **groups, "joint/shared": ("normal", (2, batch, 4))}
    if kind == "mmvae":
        return dict.fromkeys(codes, ("laplace", (config.particles, batch, 4)))
    if kind == "qmvae":
        negatives = {f"{name}/negatives": ("uniform", (config.candidates, batch)) for name in modalities}
        crossed = {f"{name}/crossed": ("normal", (2, batch, m.private)) for name, m in modalities.items()}
        return {**joint, **codes, **styles, **negatives, **(crossed if config.cross_reconstruction else {})}
    return {**joint, **codes} if kind == "mvae" else joint


def test_draws_have_their_kind_and_leading_dimensions(model):
    spec = model.noise_spec(6)
    assert {name: tuple(item) for name, item in spec.items()} == draws_of(model, 6)
    draws = draw_noise(spec, generator(), "cpu", lead=(50,))
    for name, (kind, shape) in spec.items():
        assert draws[name].shape == (50, *shape)
        low, high = draws[name].aminmax() if draws[name].numel() else (-2, 2)  # of private codes without dimensions
        assert {"uniform": 0 <= low < high < 1, "progress": low == high == 1}.get(kind, low < -1 < 1 < high), name
    again = draw_noise(dict(reversed(spec.items())), generator(), "cpu", lead=(50,))
    assert all(torch.equal(draws[name], again[name]) for name in spec)


def test_only_the_loss_of_qmvae_heeds_labels_and_none_heeds_other_modalities(model):
    images, noise = random_images(model.config), random_noise(model)
    expected = both(model.loss(images, LABELS, noise))
    assert torch.equal(both(model.loss({"sound": images["ink"], **images}, LABELS, noise)), expected)
    unheeded = torch.equal(both(model.loss(images, LABELS.roll(1), noise)), expected)
    assert unheeded == (model.config.model != "qmvae")


def test_a_stack_of_models_has_the_loss_and_gradients_of_each(model):
    models = [model, build_model(model.config, seed=1).double()]
    images, noise = random_images(model.config, 8), random_noise(model, 8)
    labels = LABELS.repeat(2)
    parameters, _ = stack_module_state(models)

    def scaled(scale):
        return {name: value * scale for name, value in noise.items()}

    def losses(parameters, scale):
        return both(functional_call(model, parameters, (images, labels, scaled(scale))))

    scales = torch.tensor([1.0, 0.5], dtype=torch.float64)
    together = vmap(losses)(parameters, scales)
    gradients = torch.autograd.grad(together[:, 0].sum(), parameters.values(), materialize_grads=True)
    for i, each in enumerate(models):
        alone = each.loss(images, labels, scaled(scales[i]))
        torch.testing.assert_close(together[i], both(alone), rtol=1e-11, atol=1e-11)
        found = {name: value[i] for name, value in zip(parameters, gradients, strict=True)}
        assert_same_gradients(found, parameter_gradients(each, alone.objective.sum()), rtol=1e-9)


def test_training_raises_the_objective(model, small_digits):
    training = TrainingConfig(epochs=3, batch_size=16, rounds=3, learning_rate=3e-3)
    (history,) = fit(model.config, training, small_digits(*THREE), progress="none").histories
    assert history[-1]["objective"] > history[0]["objective"] + 1


# Posteriors


def expert(model, name: str, images: torch.Tensor) -> DiagonalGaussian:
    """The Gaussian of the modality's own encoder, for the shared code."""
    if name in model.shared_encoders:
        return model.shared_encoders[name](images)
    return DiagonalGaussian(*(value[:, : model.config.shared] for value in model.common_encoders[name](images)))


@pytest.mark.parametrize("variant", [name for name in VARIANTS if VARIANTS[name][0] in PRIOR])
def test_posterior_of_every_subset_in_any_order_is_the_product_of_its_experts(small_config, variant):
    kind, choices = VARIANTS[variant]
    model = build(small_config(*THREE, model=kind, **choices))
    images = random_images(model.config)
    for names in itertools.chain.from_iterable(itertools.permutations(THREE, size) for size in (1, 2, 3)):
        experts = [expert(model, name, images[name]) for name in names]
        found = model.encode_shared({name: images[name] for name in names})
        precision = PRIOR[kind](len(names)) + sum(torch.exp(-q.log_var) for q in experts)
        mean = sum(q.mean * torch.exp(-q.log_var) for q in experts) / precision
        torch.testing.assert_close(torch.exp(-found.log_var), precision, rtol=1e-11, atol=0)
        torch.testing.assert_close(found.mean, mean, rtol=1e-11, atol=1e-13)


def test_encoders_are_separate_where_both_codes_are_there_and_else_one(model):
    """A common one gives the private posterior beside the shared one."""
    images = random_images(model.config)
    for name, m in model.config.modalities.items():
        separate = m.encoders == "separate" and m.private > 0
        has_own = model.config.model != "jmvae" or model.config.alpha > 0
        own = [name in each for each in (model.shared_encoders, model.private_encoders, model.common_encoders)]
        assert own == [separate, separate, has_own and not separate]
        if own[2]:
            whole = model.common_encoders[name](images[name])
            for found, value in zip(model.encode_private(name, images[name]), whole, strict=True):
                assert torch.equal(found, value[:, model.config.shared :])
        elif separate:
            expected = model.private_encoders[name](images[name])
            assert all(map(torch.equal, model.encode_private(name, images[name]), expected))


# Weights and configs


def test_seed_alone_decides_the_weights(model):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        state = torch.get_rng_state()
        first = build_model(model.config, seed=3).state_dict()
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(2)
        same, other = (build_model(model.config, seed=seed).state_dict() for seed in (3, 4))
    assert all(torch.equal(first[name], same[name]) for name in first)
    alike = [name for name in first if torch.equal(first[name], other[name])]
    assert alike == (["prior_scale"] if model.config.model == "mmvae" else [])


@pytest.mark.parametrize("name", MODELS)
def test_name_reading_and_dictionary_build_the_same_model(name):
    config = reading(BEST if name == "qmvae" else name)
    read = build_model(config, seed=3)
    for other in (build_model(name, seed=3), build_model(json.loads(json.dumps(config.to_dict())), seed=3)):
        assert type(other) is type(read) is MODELS[name]
        assert other.config == config
        assert list(other.config.modalities) == list(config.modalities)
        assert list(other.state_dict()) == list(read.state_dict())
        assert all(map(torch.equal, other.state_dict().values(), read.state_dict().values()))


@pytest.mark.parametrize("model", MODELS)
def test_every_field_of_the_config_survives_json(small_config, model):
    """Each is changed from its default, so one that is dropped on the way shows."""

    def changed(config, **kept):
        values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
        for name, value in values.items():
            values[name] = {
                bool: lambda v: not v, int: lambda v: v + 1, float: lambda v: v / 2 + 0.1, str: lambda v: v + "er",
                tuple: lambda v: tuple(each + 1 for each in v), dict: lambda v: {"ink": 7.5},
            }[type(value)](value)  # fmt: skip
        return dataclasses.replace(config, **{**values, **kept})

    modalities = {name: changed(m) for name, m in small_config(*THREE).modalities.items()}
    config = changed(ModelConfig.of_model[model](), model=model, modalities=modalities)
    again = ModelConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert isinstance(again.modalities["ink"], ModalityConfig)


def test_private_codes_are_refused_or_needed(small_config, model):
    kind = model.config.model
    if kind in ("mvae", "mmvae", "mopoe", "jmvae"):
        with pytest.raises(ValueError, match=rf"{kind} has no private codes; set private=0 for \['ink', 'photo'\]"):
            build_model(small_config(model=kind))
        with pytest.raises(ValueError, match=rf"{kind} has no private codes; set private=0 for \['svhn'\]"):
            build_model(reading(f"{kind}+svhn.private=4"))
    elif kind == "dmvae":
        with pytest.raises(ValueError, match=r"needs a style of each modality; set private for \['ink', 'photo'\]"):
            build_model(small_config(model="dmvae", of_all={"private": 0}))


# Generation


def standard_draw(model, draws: torch.Generator, *shape: int) -> torch.Tensor:
    """A draw from the density of the model's codes with mean 0 and scale 1."""
    return DRAWS["laplace" if model.config.model == "mmvae" else "normal"](shape, generator=draws, device="cpu")


@pytest.mark.parametrize("code", ["mean", "sample"])
def test_cross_generation_decodes_the_code_of_the_source_with_a_style_from_the_prior(model, code):
    images = random_images(model.config)
    for source, target in itertools.permutations(THREE, 2):
        draws = generator(5)
        posterior = model.encode_shared({source: images[source]})
        shared = posterior.mean
        if code == "sample":
            scale = posterior.scale if model.config.model == "mmvae" else torch.exp(posterior.log_var / 2)
            shared = shared + scale * standard_draw(model, draws, 4, 4)
        style = torch.randn((4, model.config.modalities[target].private), generator=draws)
        state = torch.get_rng_state()
        found = model.cross_generate(source, images[source], target, generator(5), code)
        assert torch.equal(torch.get_rng_state(), state)
        torch.testing.assert_close(found, model.decode(target, shared, style))


@pytest.mark.parametrize("test_code", ["mean", "sample"])
def test_the_config_says_which_code_is_taken_where_the_call_does_not(model, test_code):
    images = random_images(model.config)["ink"]
    model = build(dataclasses.replace(model.config, test_code=test_code))
    made = {code: model.cross_generate("ink", images, "photo", generator(), code) for code in ("mean", "sample", None)}
    assert torch.equal(made[None], made[test_code])
    assert not torch.equal(made["mean"], made["sample"])
    with pytest.raises(ValueError, match=r"unknown test code 'mode'.*mean.*sample"):
        build_model(dataclasses.replace(model.config, test_code="mode"))
    with pytest.raises(ValueError, match=r"unknown test code 'mode'.*mean.*sample"):
        model.cross_generate("ink", images, "photo", code="mode")


def test_transfer_joins_the_content_of_one_image_with_the_style_of_another(model):
    images = random_images(model.config)
    for source, target in itertools.product(THREE, repeat=2):
        style = images[target].flip(0)
        moved = model.transfer(content=(source, images[source]), style=(target, style))
        codes = model.encode_shared({source: images[source]}).mean, model.encode_private(target, style).mean
        torch.testing.assert_close(moved, model.decode(target, *codes))


def test_generation_shares_one_code_of_the_prior_and_depends_on_the_generator_alone(model):
    model, state = model.float(), torch.get_rng_state()
    made, again = model.generate(3, generator(1)), model.generate(3, generator(1))
    assert torch.equal(torch.get_rng_state(), state)
    draws = generator(1)
    shared = standard_draw(model, draws, 3, 4)
    if model.config.model == "mmvae":
        shared = shared * model.prior.scale
    for name, m in model.config.modalities.items():
        style = torch.randn((3, m.private), generator=draws)
        torch.testing.assert_close(made[name], model.decode(name, shared, style))
        assert torch.equal(made[name], again[name])
    assert not torch.equal(model.generate(2)["ink"], model.generate(2)["ink"])


# Errors


def test_no_modality_or_an_unknown_one_is_an_error(model):
    images, some = torch.rand(2, 1, 6, 6, dtype=torch.float64), random_images(model.config)["ink"]
    with pytest.raises(ValueError, match="at least one of"):
        model.encode_shared({})
    for call in (
        lambda: model.encode_shared({"sound": images}),
        lambda: model.encode_private("sound", images),
        lambda: model.decode("sound", torch.zeros(1, 4), torch.zeros(1, 3)),
        lambda: model.sample_private("sound", 1),
        lambda: model.cross_generate("sound", images, "ink"),
        lambda: model.cross_generate("ink", some, "sound"),
        lambda: model.transfer(("sound", images), ("ink", some)),
        lambda: model.transfer(("ink", some), ("sound", images)),
    ):
        with pytest.raises(ValueError, match=r"unknown modality 'sound'.*ink.*photo.*sketch"):
            call()


def test_images_that_do_not_fit_are_refused_with_what_is_right(model):
    def calls(wrong):
        yield lambda: model.encode_shared({"ink": wrong})
        yield lambda: model.encode_private("ink", wrong)
        yield lambda: model.loss({**random_images(model.config), "ink": wrong}, LABELS, random_noise(model))
        if model.has_joint_code:
            yield lambda: model.encode_shared({**random_images(model.config), "ink": wrong})

    for shape in ((1, 6, 6), (2, 36), (2, 6, 6, 1), (2, 3, 8, 8), (2, 1, 1, 6, 6)):
        for call in calls(torch.rand(shape)):
            with pytest.raises(ValueError, match=r"'ink' must be \(batch, 1, 6, 6\)"):
                call()
    for dtype in (torch.uint8, torch.int64, torch.bool):
        for call in calls(torch.ones((4, 1, 6, 6), dtype=dtype)):
            with pytest.raises(ValueError, match=f"'ink' must be torch.float64, as the model is, not {dtype}; cast"):
                call()
    for value in (-0.01, 1.01, 255.0, math.nan, math.inf):
        images = torch.full((4, 1, 6, 6), 0.5, dtype=torch.float64)
        images[2, 0, 3, 3] = value
        for call in calls(images):
            with pytest.raises(ValueError, match=r"'ink' must be in \[0, 1\], not .*; scale them"):
                call()


def test_a_batch_that_does_not_fit_itself_is_refused_by_every_loss(model):
    images, noise = random_images(model.config), random_noise(model)
    with pytest.raises(ValueError, match="a batch has as many images of each modality as labels, got .*'ink': 1"):
        model.loss({**images, "ink": images["ink"][:1]}, LABELS, noise)
    with pytest.raises(ValueError, match="a batch has as many .*'labels': 3"):
        model.loss(images, LABELS[:3], noise)
    for name, value in noise.items():
        if value.dim() and value.shape[-1] > 1:
            with pytest.raises(ValueError, match=r"the draws must be those of noise_spec\(4\)"):
                model.loss(images, LABELS, {**noise, name: value[..., :1]})


def test_codes_of_other_sizes_are_not_decoded(model):
    private = model.config.modalities["ink"].private
    z, h = torch.zeros(2, 4, dtype=torch.float64), torch.zeros(2, private, dtype=torch.float64)
    model.decode("ink", z, h)
    for codes in ((h, z), (z, torch.cat([h, z[:, :1]], dim=1)), (z[:, :3], h)):
        with pytest.raises(ValueError, match=rf"'ink' is decoded from z \(..., 4\) and h \(..., {private}\), got"):
            model.decode("ink", *codes)
