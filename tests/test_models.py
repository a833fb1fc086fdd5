"""Q-MVAE with two and three modalities: shapes, errors, and its loss against an independent computation by samples."""

import dataclasses
import itertools
import json
import math

import pytest
import torch

from qmvae_core.gaussians import SMALLEST_SCALE, product_of_experts
from qmvae_core.models import (
    MNIST,
    READINGS,
    SVHN,
    ModalityConfig,
    ModelConfig,
    QMVAEConfig,
    build_model,
    draw_noise,
    reading,
)
from qmvae_core.models.readings import CHOSEN
from qmvae_core.negatives import RULES

PAPER = {"mnist": (1, 28, 28), "svhn": (3, 32, 32)}
SMALL = {"ink": (1, 6, 6), "photo": (3, 8, 8), "sketch": (2, 4, 4)}
THREE = tuple(SMALL)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(shapes: dict, batch: int = 6, seed: int = 0, dtype=torch.float32) -> dict[str, torch.Tensor]:
    draws = generator(seed)
    return {
        name: torch.rand((batch, *shape), generator=draws, dtype=torch.float64).to(dtype)
        for name, shape in shapes.items()
    }


def random_noise(model, batch: int = 6, seed: int = 0, dtype=torch.float32) -> dict[str, torch.Tensor]:
    return {
        name: value.to(dtype) for name, value in draw_noise(model.noise_spec(batch), generator(seed), "cpu").items()
    }


LABELS = torch.tensor([3, 1, 1, 7, 3, 0])


@pytest.fixture(scope="module")
def paper_model():
    return build_model("qmvae", seed=0)


@pytest.fixture(scope="module")
def three_model(small_config):
    return build_model(small_config(*THREE), seed=0)


@pytest.fixture(params=["paper", "three"])
def model_and_shapes(request, paper_model, three_model):
    return (paper_model, PAPER) if request.param == "paper" else (three_model, SMALL)


def in_unit_interval(images: torch.Tensor) -> bool:
    return bool(((images >= 0) & (images <= 1)).all())


# Shapes and ranges


def test_codes_and_images_have_the_shapes_of_the_config(model_and_shapes):
    model, shapes = model_and_shapes
    images = random_images(shapes)
    for name, shape in shapes.items():
        private = model.config.modalities[name].private
        shared_posterior, private_posterior = (
            model.encode_shared({name: images[name]}),
            model.encode_private(name, images[name]),
        )
        assert {tuple(v.shape) for v in shared_posterior} == {(6, model.config.shared)}
        assert {tuple(v.shape) for v in private_posterior} == {(6, private)}
        decoded = model.decode(name, shared_posterior.mean, private_posterior.mean)
        assert decoded.shape == (6, *shape)
        assert in_unit_interval(decoded)
        assert model.sample_private(name, 5, generator()).shape == (5, private)


def test_loss_gives_one_value_a_sample_for_every_term(model_and_shapes):
    model, shapes = model_and_shapes
    result = model.loss(random_images(shapes), LABELS, random_noise(model))
    expected = {"elbo/joint", "quadruplet", "kl/joint"}
    expected |= {f"{term}/{name}" for term in ("elbo", "kl_private") for name in shapes}
    assert set(result.terms) == expected
    assert {tuple(v.shape) for v in (result.objective, *result.terms.values())} == {(6,)}
    assert torch.equal(result.loss, -result.objective.mean())


def test_cross_generation_and_transfer_between_every_two_modalities(model_and_shapes):
    model, shapes = model_and_shapes
    images = random_images(shapes)
    for source, target in itertools.product(shapes, repeat=2):
        crossed = model.cross_generate(source=source, images=images[source], target=target, generator=generator())
        moved = model.transfer(content=(source, images[source]), style=(target, images[target]))
        for made in (crossed, moved):
            assert made.shape == (6, *shapes[target])
            assert in_unit_interval(made)


def test_joint_generation_gives_every_modality(model_and_shapes):
    model, shapes = model_and_shapes
    made = model.generate(4, generator())
    assert {name: tuple(v.shape) for name, v in made.items()} == {name: (4, *shape) for name, shape in shapes.items()}
    assert all(map(in_unit_interval, made.values()))


def test_decode_takes_any_leading_dimensions(three_model):
    codes, styles = torch.randn((2, 5, 4), generator=generator()), torch.randn((2, 5, 3), generator=generator(1))
    found = three_model.decode("ink", codes, styles)
    assert found.shape == (2, 5, 1, 6, 6)
    torch.testing.assert_close(found[1], three_model.decode("ink", codes[1], styles[1]))


def test_private_sizes_differ_between_modalities(three_model):
    assert [three_model.config.modalities[name].private for name in THREE] == [3, 2, 1]
    assert [three_model.sample_private(name, 1).shape[1] for name in THREE] == [3, 2, 1]


# The networks of the paper


def test_widths_of_the_networks_as_printed():
    shapes = {name: tuple(v.shape) for name, v in build_model(reading("as-printed")).named_parameters()}
    assert shapes["shared_encoders.mnist.body.1.weight"] == (400, 784)
    assert shapes["shared_encoders.mnist.head.weight"] == (40, 400)
    assert shapes["private_encoders.svhn.head.weight"] == (40, 128 * 4 * 4)
    kernels = [shape for name, shape in shapes.items() if name.startswith("shared_encoders.svhn") and len(shape) == 4]
    assert kernels == [(32, 3, 3, 3), (64, 32, 3, 3), (128, 64, 3, 3)]
    kernels = [shape for name, shape in shapes.items() if name.startswith("decoders.svhn") and len(shape) == 4]
    assert kernels == [(128, 64, 3, 3), (64, 32, 3, 3), (32, 3, 3, 3)]


def test_convolutions_have_stride_two_and_padding_one_and_no_rectifier_after_the_image(paper_model):
    for module in paper_model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            assert (module.kernel_size, module.stride, module.padding) == ((3, 3), (2, 2), (1, 1))
    for name in PAPER:
        assert not any(isinstance(layer, torch.nn.ReLU) for layer in list(paper_model.decoders[name])[-1:])


@pytest.mark.parametrize("name", PAPER)
def test_weights_fill_the_range_of_the_rule_of_pytorch(paper_model, name):
    """The bound is that of reset_parameters: 1 / sqrt(fan in), the transposed convolution counted as PyTorch does."""
    for layer in itertools.chain(paper_model.common_encoders[name].modules(), paper_model.decoders[name].modules()):
        if not hasattr(layer, "weight"):
            continue
        fan_in, _ = torch.nn.init._calculate_fan_in_and_fan_out(layer.weight)
        bound = 1 / math.sqrt(fan_in)
        assert layer.weight.abs().max() <= bound
        assert layer.bias.abs().max() <= bound
        assert layer.weight.abs().max() > 0.95 * bound
        assert abs(layer.weight.mean()) < 0.1 * bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


# The shared posterior of any subset


@pytest.mark.parametrize("size", [1, 2, 3])
def test_shared_posterior_of_every_subset(three_model, size):
    """One modality: its encoder alone, without the prior; several: precisions of all and of the prior are added."""
    images = random_images(SMALL)
    for names in itertools.combinations(SMALL, size):
        found = three_model.encode_shared({name: images[name] for name in names})
        each = [three_model.shared_encoders[name](images[name]) for name in names]
        if size == 1:
            assert torch.equal(found.mean, each[0].mean)
            assert torch.equal(found.log_var, each[0].log_var)
        else:
            precision = 1 + sum(torch.exp(-q.log_var) for q in each)
            mean = sum(q.mean * torch.exp(-q.log_var) for q in each) / precision
            torch.testing.assert_close(found.mean, mean)
            torch.testing.assert_close(found.log_var, -precision.log())


def test_shared_posterior_does_not_depend_on_the_order_of_the_modalities(three_model):
    images = random_images(SMALL)
    turned = dict(reversed(images.items()))
    torch.testing.assert_close(three_model.encode_shared(images), three_model.encode_shared(turned))


# The loss against the equations


def naive_kl(q, i: int) -> float:
    return sum(
        0.5 * (m * m + math.exp(v) - 1 - v) for m, v in zip(q.mean[i].tolist(), q.log_var[i].tolist(), strict=True)
    )


def naive_log_likelihood(m: ModalityConfig, probabilities: list[float], pixels: list[float]) -> float:
    total = 0.0
    for p, x in zip(probabilities, pixels, strict=True):
        if m.likelihood == "bernoulli":
            total += x * math.log(p) + (1 - x) * math.log(1 - p)
        elif m.likelihood == "laplace":
            total += -abs(x - p) / m.scale - math.log(2 * m.scale)
        else:
            total += -0.5 * ((x - p) / m.scale) ** 2 - 0.5 * math.log(2 * math.pi * m.scale**2)
    return total


def naive_screen(rule: str, quadruplets: list[tuple[float, float, float]], margin: float) -> list[float]:
    """Weights of the candidates; each quadruplet is (loss, positive distance, nearer negative distance)."""
    count = len(quadruplets)
    if rule == "random":
        chosen = [0]
    elif rule == "hardest":
        chosen = [max(range(count), key=lambda k: quadruplets[k][0])]
    elif rule == "semi-hard":
        chosen = [k for k in range(count) if quadruplets[k][1] < quadruplets[k][2] < quadruplets[k][1] + margin][
            :1
        ] or [0]
    else:
        chosen = [k for k in range(count) if quadruplets[k][0] > 0]
    return [1 / len(chosen) if k in chosen else 0.0 for k in range(count)]


def naive_loss(model, images, labels, noise) -> dict[str, list[float]]:
    """Equations (7), (8), (17)-(20) sample by sample; only the networks are the model's."""
    config, names = model.config, list(model.config.modalities)
    shared = {name: model.shared_encoders[name](images[name]) for name in names}
    private = {name: model.private_encoders[name](images[name]) for name in names}
    digits = labels.tolist()
    found = {name: [] for name in ("objective", "elbo/joint", "quadruplet", *(f"elbo/{name}" for name in names))}

    def distance(a, b) -> float:
        return math.dist(a.tolist(), b.tolist())

    def likelihood(name, i, code, style) -> float:
        m = config.modalities[name]
        picture = model.decoders[name](torch.cat([code, style]).unsqueeze(0)).sigmoid()
        return m.weight * naive_log_likelihood(m, picture.flatten().tolist(), images[name][i].flatten().tolist())

    for i in range(len(digits)):
        precision = 1 + sum(torch.exp(-shared[name].log_var[i]) for name in names)
        mean = sum(shared[name].mean[i] * torch.exp(-shared[name].log_var[i]) for name in names) / precision
        code = mean + precision.rsqrt() * noise["joint/shared"][i]
        joint = -sum(
            0.5 * (m * m + 1 / p - 1 + math.log(p)) for m, p in zip(mean.tolist(), precision.tolist(), strict=True)
        )
        unimodal = {}
        for name in names:
            own = shared[name].mean[i] + torch.exp(shared[name].log_var[i] / 2) * noise[f"{name}/shared"][i]
            deviation = torch.exp(private[name].log_var[i] / 2)
            styles = [private[name].mean[i] + deviation * noise[f"{name}/private"][k, i] for k in range(2)]
            penalty = config.modalities[name].private_kl_weight * naive_kl(private[name], i)
            joint += likelihood(name, i, code, styles[0]) - penalty
            unimodal[name] = likelihood(name, i, own, styles[1]) - naive_kl(shared[name], i) - penalty

        others = sorted((j for j, digit in enumerate(digits) if digit != digits[i]), key=lambda j: digits[j])
        quadruplet = 0.0
        for x, y in itertools.combinations(names, 2):
            tried = []
            for k in range(config.candidates):
                a = others[int(noise[f"{x}/negatives"][k, i].item() * len(others))]
                b = others[int(noise[f"{y}/negatives"][k, i].item() * len(others))]
                mu_x, mu_y = shared[x].mean, shared[y].mean
                positive = distance(mu_x[i], mu_y[i])
                left, right, far = distance(mu_x[i], mu_y[b]), distance(mu_x[a], mu_y[i]), distance(mu_x[a], mu_y[b])
                value = max(positive - left + config.alpha1, 0) + max(positive - right + config.alpha1, 0)
                if not (config.mask_equal_negatives and digits[a] == digits[b]):
                    value += max(positive - far + config.alpha2, 0)
                tried.append((value, positive, min(left, right)))
            weights = naive_screen(config.negatives, tried, config.alpha1)
            quadruplet += sum(w * value for w, (value, _, _) in zip(weights, tried, strict=True))

        found["elbo/joint"].append(joint)
        found["quadruplet"].append(quadruplet)
        for name in names:
            found[f"elbo/{name}"].append(unimodal[name])
        found["objective"].append(joint + sum(unimodal.values()) - config.beta * quadruplet)
    return found


@pytest.mark.parametrize("names", [("ink", "photo"), THREE])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("mask", [False, True])
def test_loss_is_that_of_the_equations(small_config, names, rule, mask):
    config = small_config(*names, negatives=rule, mask_equal_negatives=mask, alpha1=0.5, alpha2=0.3, beta=7.0)
    model = build_model(config, seed=1).double()
    images = random_images({name: SMALL[name] for name in names}, dtype=torch.float64)
    noise = random_noise(model, dtype=torch.float64)
    with torch.no_grad():
        result, expected = model.loss(images, LABELS, noise), naive_loss(model, images, LABELS, noise)
    assert result.objective.tolist() == pytest.approx(expected.pop("objective"), abs=1e-6)
    for name, values in expected.items():
        assert result.terms[name].tolist() == pytest.approx(values, abs=1e-6), name


@pytest.mark.parametrize("likelihood", ["laplace", "bernoulli", "normal"])
def test_every_likelihood_trains_every_modality(small_config, likelihood):
    config = small_config(*THREE)
    modalities = {n: dataclasses.replace(m, likelihood=likelihood) for n, m in config.modalities.items()}
    model = build_model(dataclasses.replace(config, modalities=modalities), seed=1).double()
    images, noise = random_images(SMALL, dtype=torch.float64), random_noise(model, dtype=torch.float64)
    with torch.no_grad():
        found, expected = model.loss(images, LABELS, noise), naive_loss(model, images, LABELS, noise)
    assert found.objective.tolist() == pytest.approx(expected["objective"], abs=1e-6)


def test_masking_equal_negatives_changes_the_loss_exactly_where_the_negatives_show_one_digit(small_config):
    batch, results = 32, []
    labels = torch.arange(batch) % 4
    images = random_images({name: SMALL[name] for name in ("ink", "photo")}, batch)
    for mask in (False, True):
        model = build_model(small_config(mask_equal_negatives=mask), seed=0)
        noise = random_noise(model, batch)
        results.append(model.loss(images, labels, noise).terms["quadruplet"])
    equal = []
    for i in range(batch):
        others = sorted((j for j in range(batch) if labels[j] != labels[i]), key=lambda j: int(labels[j]))
        picks = [others[int(noise[f"{name}/negatives"][0, i] * len(others))] for name in ("ink", "photo")]
        equal.append(bool(labels[picks[0]] == labels[picks[1]]))
    assert (results[0] != results[1]).tolist() == equal
    assert 0 < sum(equal) < batch


def test_kl_terms_are_the_plain_divergences(three_model):
    images, noise = random_images(SMALL), random_noise(three_model)
    terms = three_model.loss(images, LABELS, noise).terms
    torch.testing.assert_close(terms["kl/joint"], three_model.encode_shared(images).kl_to_prior())
    for name in SMALL:
        torch.testing.assert_close(
            terms[f"kl_private/{name}"], three_model.encode_private(name, images[name]).kl_to_prior()
        )


def test_every_parameter_gets_a_gradient(model_and_shapes):
    model, shapes = model_and_shapes
    model.zero_grad()
    model.loss(random_images(shapes), LABELS, random_noise(model)).loss.backward()
    for name, value in model.named_parameters():
        assert value.grad is not None, name
        assert torch.isfinite(value.grad).all(), name
        assert (value.grad != 0).any(), name
    model.zero_grad()


def test_no_decoder_sees_the_quadruplet_term_and_no_private_encoder_does(three_model):
    terms = three_model.loss(random_images(SMALL), LABELS, random_noise(three_model)).terms
    gradients = torch.autograd.grad(terms["quadruplet"].sum(), list(three_model.parameters()), allow_unused=True)
    touched = {
        name.split(".")[0]
        for (name, _), g in zip(three_model.named_parameters(), gradients, strict=True)
        if g is not None
    }
    assert touched == {"shared_encoders"}


# Purity and seeds


def test_loss_is_a_pure_function_of_its_arguments(model_and_shapes):
    model, shapes = model_and_shapes
    images, noise = random_images(shapes), random_noise(model)
    kept = {name: value.clone() for name, value in {**images, **noise}.items()}
    state = torch.get_rng_state()
    first, second = (model.loss(images, LABELS, noise) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.objective, second.objective)
    assert all(torch.equal(first.terms[name], second.terms[name]) for name in first.terms)
    assert all(torch.equal(value, kept[name]) for name, value in {**images, **noise}.items())
    other = model.loss(images, LABELS, random_noise(model, seed=1))
    assert not torch.equal(first.objective, other.objective)


def test_noise_spec_names_all_draws_and_no_others(three_model):
    """Every draw of the spec matters to the loss of some sample, and nothing else is asked for."""
    spec = three_model.noise_spec(6)
    assert {item.kind for item in spec.values()} == {"normal", "uniform"}
    images, noise = random_images(SMALL), random_noise(three_model)
    expected = three_model.loss(images, LABELS, noise).objective
    for name in spec:
        changed = {**noise, name: random_noise(three_model, seed=99)[name]}
        assert not torch.equal(three_model.loss(images, LABELS, changed).objective, expected), name
        with pytest.raises(KeyError):
            three_model.loss(images, LABELS, {key: value for key, value in noise.items() if key != name})


def test_draws_have_their_kind_and_leading_dimensions(three_model):
    spec = three_model.noise_spec(6)
    draws = draw_noise(spec, generator(), "cpu", lead=(50,))
    for name, item in spec.items():
        assert draws[name].shape == (50, *item.shape)
        if item.kind == "uniform":
            assert draws[name].min() >= 0
            assert draws[name].max() < 1
        else:
            assert draws[name].min() < -1
    again = draw_noise(dict(reversed(spec.items())), generator(), "cpu", lead=(50,))
    assert all(torch.equal(draws[name], again[name]) for name in spec)


def test_seed_alone_decides_the_weights(small_config):
    state = torch.get_rng_state()
    first, same, other = (build_model(small_config(*THREE), seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert all(not torch.equal(first[name], other[name]) for name in first)


def test_global_seed_does_not_reach_the_weights(small_config):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = build_model(small_config()).state_dict()
        torch.manual_seed(2)
        second = build_model(small_config()).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


# Generation: generators and the sample flag


def test_cross_generation_depends_on_the_generator_alone(three_model):
    images = random_images(SMALL)["ink"]

    def made(seed, **options):
        return three_model.cross_generate("ink", images, "photo", generator=generator(seed), **options)

    state = torch.get_rng_state()
    assert torch.equal(made(0), made(0))
    assert not torch.equal(made(0), made(1))
    assert torch.equal(made(0, code="sample"), made(0, code="sample"))
    assert torch.equal(torch.get_rng_state(), state)


def test_cross_generation_takes_the_mean_of_the_code_unless_a_sample_is_asked_for(three_model):
    images = random_images(SMALL)["ink"]
    posterior = three_model.shared_encoders["ink"](images)
    style = torch.randn((6, 2), generator=generator(5))
    by_mean = three_model.cross_generate("ink", images, "photo", generator=generator(5))
    torch.testing.assert_close(by_mean, three_model.decode("photo", posterior.mean, style))

    draws = generator(5)
    code = posterior.mean + torch.exp(posterior.log_var / 2) * torch.randn((6, 4), generator=draws)
    by_sample = three_model.cross_generate("ink", images, "photo", generator=draws.manual_seed(5), code="sample")
    torch.randn((6, 4), generator=draws.manual_seed(5))
    style = torch.randn((6, 2), generator=draws)
    torch.testing.assert_close(by_sample, three_model.decode("photo", code, style))


def test_the_config_says_which_code_is_taken_where_the_call_does_not(small_config):
    images = random_images(SMALL)["ink"]
    model = build_model(small_config(test_code="sample"), 0)
    by_config = model.cross_generate("ink", images, "photo", generator(3))
    assert torch.equal(by_config, model.cross_generate("ink", images, "photo", generator(3), code="sample"))
    assert not torch.equal(by_config, model.cross_generate("ink", images, "photo", generator(3), code="mean"))
    with pytest.raises(ValueError, match="unknown test code 'mode'"):
        build_model(small_config(test_code="mode"))


@pytest.mark.parametrize("test_code", ["mean", "sample"])
def test_config_says_which_code_cross_generation_takes(small_config, test_code):
    model = build_model(small_config(test_code=test_code))
    images = random_images(SMALL)["ink"]
    made = {
        code: model.cross_generate("ink", images, "photo", generator=generator(), code=code)
        for code in ("mean", "sample", None)
    }
    assert torch.equal(made[None], made[test_code])
    assert not torch.equal(made["mean"], made["sample"])


def test_unknown_test_code_is_an_error_that_lists_the_known(small_config, three_model):
    with pytest.raises(ValueError, match=r"'mode'.*mean.*sample"):
        three_model.cross_generate("ink", torch.rand(1, 1, 6, 6), "photo", code="mode")
    with pytest.raises(ValueError, match=r"'mode'.*mean.*sample"):
        build_model(small_config(test_code="mode"))


def test_common_encoders_split_their_last_layer_into_both_posteriors(small_config):
    own = build_model(small_config("ink", "photo"), 0)
    config = small_config("ink", "photo")
    shared = dataclasses.replace(config.modalities["ink"], encoders="common")
    model = build_model(dataclasses.replace(config, modalities={**config.modalities, "ink": shared}), 0)
    images = random_images(SMALL)

    both = model.common_encoders["ink"](images["ink"])
    z, h = model.encode_shared({"ink": images["ink"]}), model.encode_private("ink", images["ink"])
    assert z.mean.shape[-1] == config.shared
    assert h.mean.shape[-1] == shared.private
    assert torch.equal(torch.cat([z.mean, h.mean], dim=-1), both.mean)
    assert torch.equal(torch.cat([z.log_var, h.log_var], dim=-1), both.log_var)
    assert model.private_encoders.keys() == {"photo"}
    assert own.private_encoders.keys() == {"ink", "photo"}
    assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in own.parameters())


def test_common_encoders_learn_from_both_codes(small_config):
    config = small_config("ink", "photo")
    modalities = {name: dataclasses.replace(m, encoders="common") for name, m in config.modalities.items()}
    model = build_model(dataclasses.replace(config, modalities=modalities), 0)
    images = {name: value for name, value in random_images(SMALL).items() if name in modalities}
    noise = draw_noise(model.noise_spec(6), generator(0), "cpu")
    model.loss(images, torch.arange(6) % 3, noise).loss.backward()
    assert all(bool(p.grad.abs().sum() > 0) for p in model.parameters())


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"candidates": 0}, "candidates must be positive int, not 0"),
        ({"cross_reconstruction": -1}, "cross_reconstruction must be float, not -1"),
        ({"shared_scales": "narrow"}, "unknown shared_scales 'narrow'; the known ones are .*'softmax'"),
        ({"beta_against": "most"}, "unknown beta_against 'most'; the known ones are .*'sum'"),
        ({"modalities": {"joint": MNIST, "ink": MNIST}}, "cannot be named 'joint'"),
        ({"modalities": {"a": dataclasses.replace(MNIST, encoders="shared"), "b": MNIST}}, "unknown encoders 'shared'"),
    ],
)
def test_choices_that_no_model_can_have_are_refused(small_config, choices, said):
    with pytest.raises(ValueError, match=said):
        build_model(small_config(**choices), 0)


def test_transfer_joins_the_content_of_one_image_with_the_style_of_another(three_model):
    images = random_images(SMALL)
    content, style = images["ink"], images["photo"]
    moved = three_model.transfer(content=("ink", content), style=("photo", style))
    codes = three_model.shared_encoders["ink"](content).mean, three_model.private_encoders["photo"](style).mean
    torch.testing.assert_close(moved, three_model.decode("photo", *codes))
    within = three_model.transfer(content=("photo", style), style=("photo", style.flip(0)))
    assert within.shape == style.shape


def test_joint_generation_shares_one_code_and_repeats_with_its_generator(three_model):
    first, second = three_model.generate(3, generator(1)), three_model.generate(3, generator(1))
    assert all(torch.equal(first[name], second[name]) for name in SMALL)
    draws = generator(1)
    code = torch.randn((3, 4), generator=draws)
    for name in SMALL:
        torch.testing.assert_close(
            first[name], three_model.decode(name, code, three_model.sample_private(name, 3, draws))
        )


def test_generation_without_a_generator_varies(three_model):
    assert not torch.equal(three_model.generate(2)["ink"], three_model.generate(2)["ink"])


# Readings of what the text leaves open


def both_losses(small_config, names, **choices):
    """The plain model's loss, that of the same weights with other choices, the second model, and its images."""
    plain, other = build_model(small_config(*names)).double(), build_model(small_config(*names, **choices)).double()
    images = random_images({name: SMALL[name] for name in names}, dtype=torch.float64)
    noise = random_noise(plain, dtype=torch.float64)
    return plain.loss(images, LABELS, noise), other.loss(images, LABELS, noise), other, images


@pytest.mark.parametrize("names", [("ink", "photo"), THREE])
def test_the_price_of_the_shared_code_is_paid_in_the_joint_and_in_each_unimodal_bound(small_config, names):
    plain, dear, model, images = both_losses(small_config, names, shared_kl_weight=5.0)
    alone = {name: model.encode_shared({name: images[name]}).kl_to_prior() for name in names}
    joint = model.encode_shared(images).kl_to_prior()
    torch.testing.assert_close(dear.terms["elbo/joint"], plain.terms["elbo/joint"] - 4 * joint)
    for name in names:
        torch.testing.assert_close(dear.terms[f"elbo/{name}"], plain.terms[f"elbo/{name}"] - 4 * alone[name])
    torch.testing.assert_close(dear.objective, plain.objective - 4 * (joint + sum(alone.values())))
    torch.testing.assert_close(dear.terms["kl/joint"], joint)  # the term itself is not weighted


def test_both_prices_and_the_scale_are_one_objective_with_another_beta(small_config):
    """Prices of 5 are the plain bounds of a likelihood five times as wide, times 5, beside a fifth of beta."""
    names, wide = ("ink", "sketch"), {"likelihood": "laplace", "weight": 1.0, "private": 2}
    narrow = small_config(*names, of_all={**wide, "private_kl_weight": 5.0, "scale": 0.7}, shared_kl_weight=5.0)
    broad = small_config(*names, of_all={**wide, "private_kl_weight": 1.0, "scale": 3.5}, beta=narrow.beta / 5)
    first, second = build_model(narrow).double(), build_model(broad).double()
    images = random_images({name: SMALL[name] for name in names}, dtype=torch.float64)
    noise = random_noise(first, dtype=torch.float64)
    apart = first.loss(images, LABELS, noise).objective - 5 * second.loss(images, LABELS, noise).objective
    torch.testing.assert_close(apart, apart[0].expand(6))  # what is left are the densities' constants


@pytest.mark.parametrize("names", [("ink", "photo"), THREE])
def test_softmax_scales_have_mean_one_whatever_the_encoder_says(small_config, names):
    *_, model, images = both_losses(small_config, names, shared_scales="softmax")
    plain = build_model(small_config(*names)).double()
    for name in names:
        found, free = model.encode_shared({name: images[name]}), plain.encode_shared({name: images[name]})
        scales = (0.5 * found.log_var).exp()
        torch.testing.assert_close(scales, 4 * free.log_var.softmax(dim=-1) + SMALLEST_SCALE)
        torch.testing.assert_close(scales.mean(dim=-1), torch.ones(6, dtype=torch.float64), rtol=2e-6, atol=0)
        assert torch.equal(found.mean, free.mean)
        for ours, theirs in zip(
            model.encode_private(name, images[name]), plain.encode_private(name, images[name]), strict=True
        ):
            assert torch.equal(ours, theirs)
    alone = [model.encode_shared({name: images[name]}) for name in names]
    for found, expected in zip(model.encode_shared(images), product_of_experts(alone), strict=True):
        torch.testing.assert_close(found, expected)


def test_beta_against_a_sum_is_divided_by_the_size_of_the_batch(small_config):
    plain, summed, model, _ = both_losses(small_config, ("ink", "photo"), beta_against="sum")
    beta = model.config.beta
    torch.testing.assert_close(summed.objective, plain.objective + beta * (1 - 1 / 6) * plain.terms["quadruplet"])


# Cross reconstruction, which the paper does not have


@pytest.mark.parametrize("names", [("ink", "photo"), THREE])
def test_cross_reconstruction_adds_each_image_under_the_code_of_each_other_modality(small_config, names):
    weight = 0.7
    crossing = build_model(small_config(*names, cross_reconstruction=weight)).double()
    plain = build_model(small_config(*names)).double()
    images = random_images({name: SMALL[name] for name in names}, dtype=torch.float64)
    noise = random_noise(crossing, dtype=torch.float64)
    codes = {name: plain.encode_shared({name: images[name]}).sample(noise[f"{name}/shared"]) for name in names}
    added = torch.zeros(6, dtype=torch.float64)
    for name in names:
        m, posterior = plain.config.modalities[name], plain.encode_private(name, images[name])
        for number, other in enumerate(other for other in names if other != name):
            style = posterior.sample(noise[f"{name}/crossed"][number])
            logits = plain.decode(name, codes[other], style).logit()
            added += m.weight * m.observed().log_prob(logits, images[name])
    found = crossing.loss(images, LABELS, noise)
    torch.testing.assert_close(found.terms["cross_reconstruction"], added)
    torch.testing.assert_close(found.objective, plain.loss(images, LABELS, noise).objective + weight * added)


# Configs


def test_config_survives_json(small_config):
    config = small_config(*THREE, negatives="hardest", mask_equal_negatives=True)
    again = ModelConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert list(again.modalities) == list(config.modalities)
    weights, same = build_model(config).state_dict(), build_model(config.to_dict()).state_dict()
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_every_field_of_the_config_survives_json():
    """Each is changed from its default, so one that is dropped on the way, or not listed here, shows."""
    modality = ModalityConfig((2, 4, 4), "dense", (5,), 3, "common", "normal", 0.3, 2.0, 7.0)
    config = QMVAEConfig(
        shared=7,
        alpha1=1.0,
        alpha2=0.5,
        beta=3.0,
        negatives="hardest",
        candidates=5,
        test_code="sample",
        mask_equal_negatives=True,
        cross_reconstruction=0.5,
        shared_kl_weight=2.0,
        shared_scales="softmax",
        beta_against="sum",
        modalities={"a": modality, "b": MNIST},
    )
    for made, default in ((modality, SVHN), (config, QMVAEConfig())):
        changed = {f.name for f in dataclasses.fields(made)} - {"model"}
        assert all(getattr(made, name) != getattr(default, name) for name in changed)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_margins_and_weight_are_those_of_the_paper():
    config = QMVAEConfig()
    assert (config.shared, config.alpha1, config.alpha2, config.beta) == (20, 2.0, 0.8, 1500.0)


@pytest.mark.parametrize("name", READINGS)
def test_every_reading_builds(name):
    model = build_model(reading(name))
    assert {m: tuple(c.shape) for m, c in model.config.modalities.items()} == PAPER


def test_reading_as_printed_is_the_plain_bound():
    for m in reading("as-printed").modalities.values():
        assert (m.private, m.weight, m.private_kl_weight) == (20, 1.0, 1.0)


def test_model_name_alone_gives_its_best_reading(paper_model):
    assert paper_model.config == reading("best") == reading(CHOSEN)


# Errors


def test_unknown_field_is_an_error_that_lists_the_known(small_config):
    values = small_config().to_dict()
    with pytest.raises(ValueError, match=r"unknown QMVAEConfig field gamma.*beta"):
        build_model({**values, "gamma": 1})
    values["modalities"]["ink"]["kernel"] = 5
    with pytest.raises(ValueError, match=r"unknown ModalityConfig field kernel.*widths"):
        build_model(values)


@pytest.mark.parametrize("config", ["vae", {"model": "vae"}, ModelConfig(model="vae")])
def test_unknown_model_is_an_error_that_lists_the_known(config):
    with pytest.raises(ValueError, match="'vae'.*qmvae"):
        build_model(config)


def test_unknown_reading_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match="'literal'.*as-printed"):
        reading("literal")


@pytest.mark.parametrize(
    ("field", "value"), [("network", "recurrent"), ("likelihood", "poisson")], ids=["network", "likelihood"]
)
def test_unknown_choice_of_a_modality_is_an_error(small_config, field, value):
    config = small_config()
    modalities = {**config.modalities, "ink": dataclasses.replace(config.modalities["ink"], **{field: value})}
    with pytest.raises(ValueError, match=value):
        build_model(dataclasses.replace(config, modalities=modalities))


def test_unknown_rule_is_an_error_when_the_model_is_built(small_config):
    with pytest.raises(ValueError, match="'easiest'.*hardest"):
        build_model(small_config(negatives="easiest"))


def test_shape_that_convolutions_cannot_halve_is_an_error(small_config):
    config = small_config()
    modalities = {**config.modalities, "photo": dataclasses.replace(config.modalities["photo"], shape=(3, 10, 8))}
    with pytest.raises(ValueError, match="divisible by 4"):
        build_model(dataclasses.replace(config, modalities=modalities))


def test_empty_subset_is_an_error(three_model):
    with pytest.raises(ValueError, match="at least one of"):
        three_model.encode_shared({})


@pytest.mark.parametrize(
    "call",
    [
        lambda model, images: model.encode_shared({"sound": images}),
        lambda model, images: model.encode_private("sound", images),
        lambda model, images: model.decode("sound", torch.zeros(1, 4), torch.zeros(1, 3)),
        lambda model, images: model.sample_private("sound", 1),
        lambda model, images: model.cross_generate("sound", images, "ink"),
        lambda model, images: model.cross_generate("ink", images, "sound"),
        lambda model, images: model.transfer(("sound", images), ("ink", images)),
        lambda model, images: model.transfer(("ink", images), ("sound", images)),
    ],
)
def test_unknown_modality_is_an_error_that_lists_the_known(three_model, call):
    with pytest.raises(ValueError, match=r"unknown modality 'sound'.*ink.*photo.*sketch"):
        call(three_model, torch.rand(2, 1, 6, 6))


@pytest.mark.parametrize("shape", [(1, 6, 6), (2, 36), (2, 6, 6, 1), (2, 3, 8, 8), (2, 1, 1, 6, 6)])
def test_wrong_shape_is_an_error_that_says_what_is_right(three_model, shape):
    with pytest.raises(ValueError, match=r"'ink' must be \(batch, 1, 6, 6\)"):
        three_model.encode_shared({"ink": torch.rand(shape)})
    with pytest.raises(ValueError, match=r"'ink' must be \(batch, 1, 6, 6\)"):
        three_model.encode_private("ink", torch.rand(shape))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_images_that_are_not_float_are_an_error(three_model, dtype):
    with pytest.raises(ValueError, match=r"float in \[0, 1\]"):
        three_model.encode_shared({"ink": torch.ones((2, 1, 6, 6), dtype=dtype)})
