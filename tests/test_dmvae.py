"""DMVAE against its objective sample by sample, pytorch-metric-learning and cases with a known answer.

Known in closed form: the chances of every partition and subset, and for two Gaussians with a given correlation the
density ratio and the mutual information.
"""

import dataclasses
import itertools
import math
from collections import Counter
from fractions import Fraction

import naive
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_cases import LABELS, THREE, TWO, build, generator, parameter_gradients, random, random_images, random_noise

from qmvae_core import training
from qmvae_core.gaussians import DiagonalGaussian, product_of_experts
from qmvae_core.models import DMVAE, DMVAEConfig, build_model, reading
from qmvae_core.models.dmvae import DensityRatio, _product, nt_xent, random_partition, random_subset, total_correlation
from qmvae_core.training import TrainingConfig, fit

pytestmark = pytest.mark.usefixtures("one_thread")
CORRELATIONS = {"ink": 5.0, "photo": 3.0, "sketch": 0.5}


@pytest.fixture(scope="session")
def dmvae_config(small_config):
    """A function: names of modalities -> a small config of DMVAE in which no two weights are equal."""

    def make(*names: str, **choices) -> DMVAEConfig:
        weights = {name: CORRELATIONS[name] for name in names or TWO}
        own = {"contrastive": 10.0, "temperature": 0.7, "total_correlation": weights, "discriminator": 6}
        config = small_config(*names, model="dmvae", **{**own, **choices})
        ink = dataclasses.replace(config.modalities["ink"], weight=7.84, private_kl_weight=3.0)
        return dataclasses.replace(config, modalities={**config.modalities, "ink": ink})

    return make


# The contrastive term


def naive_nt_xent(a: list[list[float]], b: list[list[float]], temperature: float) -> list[float]:
    codes, count = [*a, *b], len(a)

    def likeness(i: int, j: int) -> float:
        dot = sum(x * y for x, y in zip(codes[i], codes[j], strict=True))
        return math.exp(dot / math.hypot(*codes[i]) / math.hypot(*codes[j]) / temperature)

    def of_one(i: int) -> float:
        partner = (i + count) % (2 * count)
        return -math.log(likeness(i, partner) / sum(likeness(i, j) for j in range(2 * count) if j != i))

    return [(of_one(i) + of_one(i + count)) / 2 for i in range(count)]


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_nt_xent_and_its_gradients_are_those_of_pytorch_metric_learning(temperature, dtype):
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    a, b = random(6, 4, dtype=dtype).requires_grad_(), random(6, 4, seed=1, dtype=dtype).requires_grad_()
    found = nt_xent(a, b, temperature).mean()
    expected = losses.NTXentLoss(temperature)(torch.cat([a, b]), torch.arange(6).repeat(2))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, (a, b)), torch.autograd.grad(expected, (a, b)))


@pytest.mark.parametrize("batch", [0, 1])
def test_nothing_to_contrast_with_is_an_error(batch, dmvae_config):
    with pytest.raises(ValueError, match=f"at least two samples in the batch, got {batch}"):
        nt_xent(random(batch, 3), random(batch, 3))
    model = build(dmvae_config())
    with pytest.raises(ValueError, match=f"at least two samples in the batch, got {batch}"):
        model.loss(random_images(model.config, batch), LABELS[:batch], random_noise(model, batch))


# Partition and subset


def exact_draws(count: int):
    """Every way in which uniform draws can fall below or above a half and be ordered, with its probability."""
    for coins in itertools.product([True, False], repeat=count):
        places = [[i for i in range(count) if coins[i] is side] for side in (True, False)]
        orders = list(itertools.product(*(list(itertools.permutations(each)) for each in places)))
        for below, above in orders:
            draws = [0.0] * count
            for rank, i in enumerate(below):
                draws[i] = (rank + 1) / (2 * count + 2)
            for rank, i in enumerate(above):
                draws[i] = 0.5 + rank / (2 * count)
            yield torch.tensor(draws), Fraction(1, 2**count * len(orders))


def chances(count: int, choose) -> dict[tuple[bool, ...], Fraction]:
    found = Counter()
    for draws, probability in exact_draws(count):
        found[tuple(choose(draws).tolist())] += probability
    assert sum(found.values()) == 1
    return found


@pytest.mark.parametrize("count", [2, 3, 4])
def test_partition_and_subset_are_a_coin_for_each_modality_and_one_of_them_for_what_is_left_empty(count):
    rows, coin = list(itertools.product([True, False], repeat=count)), Fraction(1, 2**count)
    assert chances(count, lambda draws: random_partition(draws, empty_group=True)) == dict.fromkeys(rows, coin)
    alone = {row: coin * (1 + Fraction(1, count)) if sum(row) == 1 else coin for row in rows if any(row)}
    assert chances(count, random_subset) == alone
    by_size = {2: {1: "1/2"}, 3: {1: "1/6", 2: "1/6"}, 4: {1: "5/64", 2: "1/16", 3: "5/64"}}[count]
    found = chances(count, lambda draws: random_partition(draws, empty_group=False))
    assert found == {row: Fraction(by_size[sum(row)]) for row in rows if 0 < sum(row) < count}


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1 - 2**-24]), min_size=2, max_size=5))
def test_equal_draws_leave_no_group_or_subset_empty(draws):
    uniform = torch.tensor(draws)
    first = random_partition(uniform, empty_group=False)
    assert 0 < first.sum() < len(draws)
    assert random_subset(uniform).any()


def test_product_row_by_row_and_no_gradient_of_what_is_left_out():
    means, log_vars = random(2, 3, 2).requires_grad_(), random(2, 3, 2, seed=1).requires_grad_()
    experts = [DiagonalGaussian(*each) for each in zip(means, log_vars, strict=True)]
    keep = torch.tensor([[True, True], [True, False], [False, True]])
    found = _product(experts, keep)
    for i, row in enumerate(keep.tolist()):
        chosen = [DiagonalGaussian(q.mean[i], q.log_var[i]) for q, k in zip(experts, row, strict=True) if k]
        expected = product_of_experts(chosen, prior=False)
        torch.testing.assert_close((found.mean[i], found.log_var[i]), tuple(expected), rtol=1e-13, atol=1e-14)
    for each in torch.autograd.grad(found.mean.sum() + found.log_var.sum(), (means, log_vars)):
        assert each.isfinite().all()
        assert each[1, 1].eq(0).all()
        assert each[0, 2].eq(0).all()
        assert each[0, 0].ne(0).all()


# The discriminator


class TrueRatio(torch.nn.Module):
    """The log density ratio of codes whose dimensions are standard normal and correlated in pairs.

    scale and shift: 1 and 0 for the truth.
    """

    def __init__(self, correlation: float):
        super().__init__()
        self.correlation = correlation
        self.scale = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
        self.shift = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, style, content):
        c = self.correlation
        squares = c * c * (style.square() + content.square())
        ratio = (2 * c * style * content - squares) / (2 * (1 - c * c)) - 0.5 * math.log(1 - c * c)
        return self.scale * ratio.sum(dim=-1) + self.shift


def correlated(count: int, size: int, correlation: float, seed: int = 0, dtype=torch.float64):
    style, other = random(2, count, size, seed=seed, dtype=dtype)
    return style, correlation * style + math.sqrt(1 - correlation**2) * other


def mutual_information(size: int, correlation: float) -> float:
    return -0.5 * size * math.log(1 - correlation**2)


@pytest.mark.parametrize(("size", "correlation"), [(1, 0.0), (1, 0.8), (3, -0.5)])
def test_true_ratio_gives_the_mutual_information_and_is_the_best_discriminator(size, correlation):
    count = 100_000
    style, content = correlated(count, size, correlation)
    uniform = torch.rand(count, generator=generator(2))
    truth = TrueRatio(correlation)
    estimate, guessed = total_correlation(truth, style, content, uniform)
    assert estimate.shape == guessed.shape == (count,)
    spread = estimate.std().item() / math.sqrt(count)
    assert estimate.mean().item() == pytest.approx(mutual_information(size, correlation), abs=5 * spread + 1e-12)
    slopes = torch.autograd.grad(guessed.mean(), (truth.scale, truth.shift))
    assert [each.item() for each in slopes] == pytest.approx([0, 0], abs=0.01)
    for scale, shift in ((0.5, 0.0), (1.5, 0.0), (1.0, 0.3), (1.0, -0.3)):
        truth.scale.data.fill_(scale), truth.shift.data.fill_(shift)
        worse = total_correlation(truth, style, content, uniform)[1].mean()
        assert worse < guessed.mean() or (correlation == 0 and shift == 0)


def test_the_guess_is_the_cross_entropy_of_pairs_against_pairs_in_another_order():
    made = DensityRatio(2, 3, 4).double()
    style, content = random(4, 2), random(4, 3, seed=1)
    uniform = torch.tensor([0.7, 0.1, 0.9, 0.3])  # least first: 1, 3, 0, 2
    estimate, guessed = total_correlation(made, style, content, uniform)
    for i, other in enumerate([1, 3, 0, 2]):
        paired, shuffled = (made(style[j : j + 1], content[i : i + 1]).item() for j in (i, other))
        right = 1 / (1 + math.exp(-paired)), 1 / (1 + math.exp(shuffled))
        assert guessed[i].item() == pytest.approx(sum(map(math.log, right)) / 2, rel=1e-10)
        assert estimate[i].item() == pytest.approx(paired, rel=1e-10)


def test_the_guess_has_no_gradient_to_the_codes():
    made = DensityRatio(2, 3, 4).double()
    style, content = random(4, 2).requires_grad_(), random(4, 3, seed=1).requires_grad_()
    estimate, guessed = total_correlation(made, style, content, torch.rand(4, generator=generator()))
    assert torch.autograd.grad(guessed.sum(), (style, content), allow_unused=True) == (None, None)
    assert all(each.abs().max() > 0 for each in torch.autograd.grad(estimate.sum(), (style, content)))


def test_discriminator_by_its_layers():
    """Three layers for each input, two after they meet, slope 0.2, and the difference of two scores."""
    made = DensityRatio(2, 3, 4).double()
    shapes = [tuple(value.shape) for value in made.parameters() if value.dim() == 2]
    assert shapes == [(4, 2), (4, 4), (4, 4), (4, 3), (4, 4), (4, 4), (8, 8), (8, 8), (2, 8)]
    weights = dict(made.named_parameters())

    def layers(part: str, value):
        for place in range(0, len(getattr(made, part)), 2):
            value = value @ weights[f"{part}.{place}.weight"].T + weights[f"{part}.{place}.bias"]
            value = torch.where(value > 0, value, 0.2 * value)
        return value

    style, content = random(5, 2), random(5, 3, seed=1)
    both = layers("of_both", torch.cat([layers("of_style", style), layers("of_content", content)], dim=-1))
    scores = both @ weights["scores.weight"].T + weights["scores.bias"]
    torch.testing.assert_close(made(style, content), scores[:, 0] - scores[:, 1])


# Against the objective, sample by sample


def group_of(model: DMVAE, name: str, draws: list[float]) -> list[str]:
    """Whose product the code of a modality is, by the draws of one sample."""
    names = list(model.config.modalities)
    chosen = [each for each, u in zip(names, draws, strict=True) if u < 0.5]
    if not model.config.empty_group and not chosen:
        chosen = [names[draws.index(min(draws))]]
    if not model.config.empty_group and len(chosen) == len(names):
        chosen.remove(names[draws.index(max(draws))])
    return chosen if name in chosen else [each for each in names if each not in chosen]


def naive_terms(model: DMVAE, images, noise) -> list[dict[str, float]]:
    """Every term, the objective and the opposing one of each sample, by loops over dimensions and modalities."""
    config, names, batch = model.config, list(model.config.modalities), len(LABELS)
    both = {name: model.posteriors(name, images[name]) for name in names}
    rising = min(noise["progress"].item() / config.warm_up, 1.0) if config.warm_up else 1.0

    def content_of(members: list[str], i: int):
        return naive.product([both[name].shared for name in members], i)

    drawn = noise["subset"].tolist()
    some = [name for name, u in zip(names, drawn, strict=True) if u < 0.5] or [names[drawn.index(min(drawn))]]
    contrasted = [
        [naive.sample(content_of(members, i), noise["joint/shared"][which, i]) for i in range(batch)]
        for which, members in enumerate((names, some))
    ]
    contrastive = naive_nt_xent(*contrasted, config.temperature)
    found = [{"contrastive": c, "objective": -config.contrastive * c, "opposing": 0.0} for c in contrastive]
    for name, m in config.modalities.items():
        order = sorted(range(batch), key=noise[f"{name}/order"].tolist().__getitem__)
        styles = [naive.product([both[name].private], i) for i in range(batch)]
        judged = [naive.sample(style, noise[f"{name}/private"][1, i]) for i, style in enumerate(styles)]
        for i, terms in enumerate(found):
            content = content_of(group_of(model, name, noise["partition"][i].tolist()), i)
            code = naive.sample(content, noise[f"{name}/shared"][i])
            means = [mean for mean, _ in content] + naive.sample(styles[i], noise[f"{name}/private"][0, i])
            bound = naive.likelihood(model, name, means, images[name][i])
            bound -= rising * m.private_kl_weight * naive.kl(styles[i])
            pairs = (torch.tensor(each, dtype=torch.float64) for each in ([judged[i], judged[order[i]]], [code, code]))
            paired, shuffled = model.discriminators[name](*pairs).tolist()
            values = {"elbo": bound, "kl_private": naive.kl(styles[i]), "total_correlation": paired}
            terms |= {f"{key}/{name}": value for key, value in values.items()}
            terms["opposing"] -= 0.5 * (math.log1p(math.exp(-paired)) + math.log1p(math.exp(shuffled)))
            terms["objective"] += bound - config.total_correlation.get(name, 1.0) * paired
    return found


@pytest.mark.parametrize("encoders", ["separate", "common"])
@pytest.mark.parametrize("empty_group", [True, False])
@pytest.mark.parametrize("names", [TWO, THREE])
@pytest.mark.parametrize("seed", range(3))
def test_loss_of_a_tiny_batch_sample_by_sample(dmvae_config, names, empty_group, encoders, seed):
    config = dmvae_config(*names, empty_group=empty_group, of_all={"encoders": encoders})
    if seed == 1:
        config = dataclasses.replace(config, total_correlation={"photo": 5.0}, warm_up=0.0)  # 1 for the others
    model = build(config)
    images, noise = random_images(model.config), random_noise(model, seed=seed)
    assert noise["progress"] == 1  # outside a training
    noise["progress"] = torch.tensor(0.04 * (2 * seed + 1), dtype=torch.float64)  # before and after the warm-up
    naive.assert_terms(model.loss(images, LABELS, noise), naive_terms(model, images, noise))


# What teaches what


def parts(found: dict[str, torch.Tensor]) -> set[str]:
    return {".".join(name.split(".")[:2]) for name, value in found.items() if value.abs().max() > 0}


@pytest.mark.parametrize("empty_group", [True, False])
def test_each_term_teaches_its_own_networks_alone(dmvae_config, empty_group):
    """Content is taught by the contrastive term alone; the discriminators' objective teaches them alone."""
    model = build(dmvae_config(*THREE, empty_group=empty_group))
    result = model.loss(random_images(model.config), LABELS, random_noise(model))
    assert parts(parameter_gradients(model, result.terms["contrastive"].sum())) == {
        f"shared_encoders.{n}" for n in THREE
    }
    assert parts(parameter_gradients(model, result.opposing.sum())) == {f"discriminators.{n}" for n in THREE}
    for name in THREE:
        assert parts(parameter_gradients(model, result.terms[f"elbo/{name}"].sum())) == {
            f"decoders.{name}", f"private_encoders.{name}",
        }  # fmt: skip
        assert parts(parameter_gradients(model, result.terms[f"total_correlation/{name}"].sum())) == {
            f"private_encoders.{name}", f"discriminators.{name}",
        }  # fmt: skip


@pytest.mark.parametrize("names", [TWO, THREE])
def test_each_optimiser_steps_on_its_own_objective(dmvae_config, names):
    """The total correlation's weight on the discriminators, and their guess on the rest, is none."""
    model = build(dmvae_config(*names))
    result = model.loss(random_images(model.config), LABELS, random_noise(model))
    of_objective, of_opposing = (
        parameter_gradients(model, result.loss),
        parameter_gradients(model, -result.opposing.mean()),
    )
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    rate = 1e-3
    optimisers = training.learners.Optimisers(
        dict(model.named_parameters()), model.opponent, TrainingConfig(learning_rate=rate)
    )
    optimisers.step(result)
    for name, value in model.named_parameters():
        theirs = name.startswith("discriminators.")
        expected = (of_opposing if theirs else of_objective)[name]
        torch.testing.assert_close(value.grad, expected, rtol=1e-12, atol=1e-12, msg=name)
        if theirs:
            assert not torch.allclose(expected, of_objective[name]), name
        large = expected.abs() > 1e-4  # Adam's first step is the learning rate times the sign
        moved = (value.detach() - start[name])[large]
        torch.testing.assert_close(moved, -(1e-4 if theirs else rate) * expected[large].sign(), rtol=1e-3, atol=1e-8)
    assert [group.param_groups[0]["betas"] for group in optimisers.all] == [(0.9, 0.999), (0.5, 0.9)]


# Training


SHORT = TrainingConfig(epochs=4, batch_size=8, rounds=2, learning_rate=1e-3, chunk=2, steps_per_epoch=2)


def test_warm_up_in_a_training(dmvae_config, small_digits):
    """Eight steps: the first has no divergence, and from the fourth, half way, its weight is whole."""
    seen = []
    original = DMVAE.loss

    def loss(self, images, labels, noise):
        seen.append(noise["progress"].item())
        return original(self, images, labels, noise)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DMVAE, "loss", loss)
        fit(dmvae_config(warm_up=0.5), SHORT, small_digits(), progress="none")
    assert seen == [i / 8 for i in range(8)]


# Choices


def test_reading_has_the_weights_and_sizes_of_the_authors():
    config = reading("dmvae")
    assert (config.shared, config.contrastive, config.temperature, config.warm_up) == (10, 1000.0, 1.0, 6 / 50)
    assert config.total_correlation == {"mnist": 500.0, "svhn": 100.0}
    modalities = config.modalities.values()
    assert [m.private for m in modalities] == [10, 10]
    assert [m.private_kl_weight for m in modalities] == [100.0, 50.0]
    assert [(m.likelihood, m.scale, m.weight) for m in modalities] == [("laplace", 0.1, 7.84), ("laplace", 0.1, 2.0)]
    assert (config.empty_group, config.test_code) == (True, "mean")
    assert (DMVAE.opponent.learning_rate, DMVAE.opponent.betas) == (1e-4, (0.5, 0.9))


def test_the_reading_has_the_discriminators_of_the_authors():
    model = build_model("dmvae")
    for made in model.discriminators.values():
        shapes = [tuple(value.shape) for value in made.parameters() if value.dim() == 2]
        assert shapes == [(500, 10), *[(500, 500)] * 2] * 2 + [(1000, 1000)] * 2 + [(2, 1000)]
    names = [name for name, _ in model.named_parameters()]
    assert {name.split(".")[0] for name in names} == {"common_encoders", "decoders", "discriminators"}


@pytest.mark.parametrize(("choices", "message"), [
    ({"total_correlation": {"sound": 1.0}}, "unknown modality in total_correlation 'sound'.*ink.*photo"),
    ({"temperature": 0.0}, "temperature must be positive float, not 0.0"),
    ({"warm_up": -0.1}, "warm_up must be float, not -0.1"),
    ({"warm_up": 5}, "warm_up is a share of the training, from 0 to 1, got 5"),
])  # fmt: skip
def test_impossible_choices_are_errors(dmvae_config, choices, message):
    with pytest.raises(ValueError, match=message):
        build_model(dmvae_config(**choices))
