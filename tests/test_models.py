"""Q-MVAE with two and three modalities: its networks, and its loss against an independent computation by samples."""

import dataclasses
import itertools
import math

import naive
import pytest
import torch
from model_cases import THREE, TWO, random_images, random_noise
from test_negatives import naive_weights

from qmvae_core.gaussians import SMALLEST_SCALE, product_of_experts
from qmvae_core.models import MNIST, ModelConfig, QMVAEConfig, build_model, reading
from qmvae_core.models.readings import CHOSEN
from qmvae_core.names import BEST, FIRST_BEST
from qmvae_core.negatives import RULES

PAPER = {"mnist": (1, 28, 28), "svhn": (3, 32, 32)}


LABELS = torch.tensor([3, 1, 1, 7, 3, 0])


@pytest.fixture(scope="module")
def paper_model():
    return build_model("qmvae", seed=0)


@pytest.fixture(scope="module")
def three_model(small_config):
    return build_model(small_config(*THREE), seed=0).double()


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
    for layer in itertools.chain(paper_model.shared_encoders[name].modules(), paper_model.decoders[name].modules()):
        if not hasattr(layer, "weight"):
            continue
        fan_in, _ = torch.nn.init._calculate_fan_in_and_fan_out(layer.weight)
        bound = 1 / math.sqrt(fan_in)
        assert layer.weight.abs().max() <= bound
        assert layer.bias.abs().max() <= bound
        assert layer.weight.abs().max() > 0.95 * bound
        assert abs(layer.weight.mean()) < 0.1 * bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


# The loss against the equations


def naive_loss(model, images, labels, noise, there=None) -> dict[str, list[float]]:
    """Equations (7), (8), (17)-(20) sample by sample, each of what is there; only the networks are the model's."""
    config, names = model.config, list(model.config.modalities)
    shared = {name: model.shared_encoders[name](images[name]) for name in names}
    private = {name: model.private_encoders[name](images[name]) for name in names}
    digits = labels.tolist()
    found = {name: [] for name in ("objective", "elbo/joint", "quadruplet", *(f"elbo/{name}" for name in names))}
    there = there or {name: [True] * len(digits) for name in names}

    def distance(a, b) -> float:
        return math.dist(a.tolist(), b.tolist())

    for i in range(len(digits)):
        here, unimodal = [name for name in names if there[name][i]], dict.fromkeys(names, 0.0)
        product = naive.product([shared[name] for name in here], i, prior=True)
        code, joint = naive.sample(product, noise["joint/shared"][i]), -naive.kl(product)
        for name in here:
            alone, style = (naive.product([each[name]], i) for each in (shared, private))
            own = naive.sample(alone, noise[f"{name}/shared"][i])
            first, second = (naive.sample(style, noise[f"{name}/private"][k, i]) for k in range(2))
            penalty = config.modalities[name].private_kl_weight * naive.kl(style)
            joint += naive.likelihood(model, name, code + first, images[name][i]) - penalty
            unimodal[name] = naive.likelihood(model, name, own + second, images[name][i]) - naive.kl(alone) - penalty

        others = {
            name: sorted(
                (j for j, digit in enumerate(digits) if digit != digits[i] and there[name][j]), key=lambda j: digits[j]
            )
            for name in names
        }
        quadruplet = 0.0
        for x, y in itertools.combinations(here, 2):
            if not (others[x] and others[y]):
                continue
            tried = []
            for k in range(config.candidates):
                a = others[x][int(noise[f"{x}/negatives"][k, i].item() * len(others[x]))]
                b = others[y][int(noise[f"{y}/negatives"][k, i].item() * len(others[y]))]
                mu_x, mu_y = shared[x].mean, shared[y].mean
                positive = distance(mu_x[i], mu_y[i])
                left, right, far = distance(mu_x[i], mu_y[b]), distance(mu_x[a], mu_y[i]), distance(mu_x[a], mu_y[b])
                value = max(positive - left + config.alpha1, 0) + max(positive - right + config.alpha1, 0)
                if not (config.mask_equal_negatives and digits[a] == digits[b]):
                    value += max(positive - far + config.alpha2, 0)
                tried.append((value, positive, min(left, right)))
            weights = naive_weights(config.negatives, *zip(*tried, strict=True), config.alpha1)
            quadruplet += sum(w * value for w, (value, _, _) in zip(weights, tried, strict=True))

        found["elbo/joint"].append(joint)
        found["quadruplet"].append(quadruplet)
        for name in names:
            found[f"elbo/{name}"].append(unimodal[name])
        found["objective"].append(joint + sum(unimodal.values()) - config.beta * quadruplet)
    return found


@pytest.mark.parametrize("names", [TWO, THREE])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("mask", [False, True])
def test_loss_is_that_of_the_equations(small_config, names, rule, mask):
    config = small_config(*names, negatives=rule, mask_equal_negatives=mask, alpha1=0.5, alpha2=0.3, beta=7.0)
    model = build_model(config, seed=1).double()
    images, noise = random_images(model.config, 6), random_noise(model, 6)
    with torch.no_grad():
        result, expected = model.loss(images, LABELS, noise), naive_loss(model, images, LABELS, noise)
    assert result.objective.tolist() == pytest.approx(expected.pop("objective"), abs=1e-6)
    for name, values in expected.items():
        assert result.terms[name].tolist() == pytest.approx(values, abs=1e-6), name


@pytest.mark.parametrize("digit", [0, 4, 9])
def test_data_of_one_digit_and_batches_of_one_can_never_hold_a_negative(three_model, digit):
    with pytest.raises(ValueError, match=rf"batches of 6 from samples of the digits \[{digit}\] never .*use batches"):
        three_model.check_labels(torch.full((6,), digit), 6)
    with pytest.raises(ValueError, match=r"batches of 1 from .*\[0, 1, 9\] never"):
        three_model.check_labels(torch.tensor([9, 0, 1, 9]), 1)
    three_model.check_labels(torch.tensor([digit, digit, 5, digit]), 2)


def test_a_batch_of_one_digit_has_no_quadruplet_term_and_no_gradient_of_it(three_model):
    images, noise = random_images(three_model.config, 6), random_noise(three_model, 6)
    found = three_model.loss(images, torch.full((6,), 7), noise)
    assert not found.terms["quadruplet"].any()
    assert found.terms["single_digit"].tolist() == [1.0] * 6
    gradients = torch.autograd.grad(found.terms["quadruplet"].sum(), list(three_model.parameters()), allow_unused=True)
    assert not any(each.any() for each in gradients if each is not None)


def test_no_decoder_sees_the_quadruplet_term_and_no_private_encoder_does(three_model):
    terms = three_model.loss(random_images(three_model.config, 6), LABELS, random_noise(three_model, 6)).terms
    gradients = torch.autograd.grad(terms["quadruplet"].sum(), list(three_model.parameters()), allow_unused=True)
    touched = {
        name.split(".")[0]
        for (name, _), g in zip(three_model.named_parameters(), gradients, strict=True)
        if g is not None
    }
    assert touched == {"shared_encoders"}


# Readings of what the text leaves open


def both_losses(small_config, names, **choices):
    """The plain model's loss, that of the same weights with other choices, the second model, and its images."""
    plain, other = build_model(small_config(*names)).double(), build_model(small_config(*names, **choices)).double()
    images, noise = random_images(plain.config, 6), random_noise(plain, 6)
    return plain.loss(images, LABELS, noise), other.loss(images, LABELS, noise), other, images


@pytest.mark.parametrize("names", [TWO, THREE])
def test_the_price_of_the_shared_code_is_paid_in_the_joint_and_in_each_unimodal_bound(small_config, names):
    plain, dear, model, images = both_losses(small_config, names, shared_kl_weight=5.0)
    alone = {name: model.encode_shared({name: images[name]}).kl_to_prior() for name in names}
    joint = model.encode_shared(images).kl_to_prior()
    torch.testing.assert_close(dear.terms["elbo/joint"], plain.terms["elbo/joint"] - 4 * joint)
    for name in names:
        torch.testing.assert_close(dear.terms[f"elbo/{name}"], plain.terms[f"elbo/{name}"] - 4 * alone[name])
    torch.testing.assert_close(dear.objective, plain.objective - 4 * (joint + sum(alone.values())))
    torch.testing.assert_close(dear.terms["kl/joint"], joint)  # the terms themselves are not weighted
    for name in names:
        divergence = model.encode_private(name, images[name]).kl_to_prior()
        torch.testing.assert_close(dear.terms[f"kl_private/{name}"], divergence)
    assert {name for name in dear.terms if "kl" in name} == {"kl/joint", *(f"kl_private/{name}" for name in names)}


@pytest.mark.parametrize("names", [TWO, THREE])
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


@pytest.mark.parametrize("names", [TWO, THREE])
def test_cross_reconstruction_adds_each_image_under_the_code_of_each_other_modality(small_config, names):
    weight = 0.7
    crossing = build_model(small_config(*names, cross_reconstruction=weight)).double()
    plain = build_model(small_config(*names)).double()
    images, noise = random_images(plain.config, 6), random_noise(crossing, 6)
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


def test_defaults_and_the_reading_as_printed_are_those_of_the_paper():
    config = QMVAEConfig()
    assert (config.shared, config.alpha1, config.alpha2, config.beta) == (20, 2.0, 0.8, 1500.0)
    for m in reading("as-printed").modalities.values():
        assert (m.private, m.weight, m.private_kl_weight) == (20, 1.0, 1.0)


def test_model_name_alone_gives_its_best_reading(paper_model):
    assert paper_model.config == reading(BEST)
    assert reading(FIRST_BEST) == reading(CHOSEN)


# Errors


@pytest.mark.parametrize("config", ["vae", {"model": "vae"}, ModelConfig(model="vae")])
def test_unknown_model_is_an_error_that_lists_the_known(config):
    with pytest.raises(ValueError, match="'vae'.*qmvae"):
        build_model(config)


def changed(config: ModelConfig, name: str, **fields) -> dict:
    return {"modalities": {**config.modalities, name: dataclasses.replace(config.modalities[name], **fields)}}


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"candidates": 0}, "candidates must be positive int, not 0"),
        ({"cross_reconstruction": -1}, "cross_reconstruction must be float, not -1"),
        ({"shared_scales": "narrow"}, "unknown shared_scales 'narrow'; the known ones are .*'softmax'"),
        ({"beta_against": "most"}, "unknown beta_against 'most'; the known ones are .*'sum'"),
        ({"negatives": "easiest"}, "'easiest'.*hardest"),
        ({"modalities": {"joint": MNIST, "ink": MNIST}}, "cannot be named 'joint'"),
        (("ink", {"encoders": "shared"}), "unknown encoders 'shared'"),
        (("ink", {"network": "recurrent"}), "recurrent"),
        (("ink", {"likelihood": "poisson"}), "poisson"),
        (("photo", {"shape": (3, 10, 8)}), "divisible by 4"),
    ],
)
def test_choices_that_no_model_can_have_are_refused(small_config, choices, said):
    config = small_config()
    if isinstance(choices, tuple):
        choices = changed(config, choices[0], **choices[1])
    with pytest.raises(ValueError, match=said):
        build_model(dataclasses.replace(config, **choices))
