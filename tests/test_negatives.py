"""The draw of negatives against brute force, and each screening rule against a loop."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qmvae_core.negatives import RULES, Candidates, draw_negatives, has_negatives, screen

MARGIN = 2.0
several_digits = st.lists(st.integers(0, 9), min_size=2, max_size=40).filter(lambda labels: len(set(labels)) > 1)


def uniform(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def brute_force(labels: list[int], draw: float, anchor: int) -> int:
    others = sorted((i for i, label in enumerate(labels) if label != labels[anchor]), key=lambda i: labels[i])
    return others[int(draw * len(others))]


@given(several_digits, st.integers(0, 1000))
def test_draws_are_those_of_brute_force(labels, seed):
    draws = uniform(seed, 3, len(labels))
    expected = [[brute_force(labels, draws[k, i].item(), i) for i in range(len(labels))] for k in range(3)]
    assert draw_negatives(torch.tensor(labels), draws).tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(labels=several_digits)
def test_the_ends_of_the_unit_interval_give_valid_negatives(dtype, labels):
    labels = torch.tensor(labels)
    last = torch.nextafter(torch.ones(1, dtype=dtype), torch.zeros(1, dtype=dtype)).item()
    for end in (0.0, last):
        picks = draw_negatives(labels, torch.full((2, len(labels)), end, dtype=dtype))
        assert (labels[picks] != labels).all()


@given(several_digits)
def test_evenly_spread_draws_reach_every_other_sample_equally_often(labels):
    batch = len(labels)
    for anchor in range(batch):
        others = [i for i, label in enumerate(labels) if label != labels[anchor]]
        spread = (torch.arange(3 * len(others), dtype=torch.float64) + 0.5) / (3 * len(others))
        picks = draw_negatives(torch.tensor(labels), spread.unsqueeze(-1).expand(-1, batch))[:, anchor]
        assert sorted(picks.tolist()) == sorted(3 * others)


@pytest.mark.parametrize(("labels", "several"), [([3], False), ([0, 0], False), ([9, 9, 8], True), ([0, 1, 1], True)])
def test_a_batch_of_several_digits_is_known_whichever_of_them_is_the_larger(labels, several):
    assert bool(has_negatives(torch.tensor(labels))) is several


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_batch_of_a_single_digit_has_no_negatives_and_still_gives_places_in_it(count):
    draws = torch.tensor([0.0, 0.5, 1 - 2**-24]).unsqueeze(-1).expand(-1, count)
    picks = draw_negatives(torch.full((count,), 7), draws)
    assert (picks.shape, picks.dtype) == ((3, count), torch.int64)
    assert ((picks >= 0) & (picks < count)).all()


# Screening


def candidates(seed: int, count: int = 6, batch: int = 40) -> Candidates:
    """Candidates of every kind: some within the margin, some not, some without loss, some of equal loss."""
    loss = (4 * uniform(seed, count, batch) - 2).clamp(min=0).mul(4).round().div(4)
    loss[:, :3] = 0
    return Candidates(loss, 3 * uniform(seed + 1, count, batch), 6 * uniform(seed + 2, count, batch), MARGIN)


def naive_weights(rule: str, loss: Sequence, positive: Sequence, negative: Sequence, margin: float) -> list[float]:
    weights = [0.0] * len(loss)
    if rule == "random":
        weights[0] = 1.0
    elif rule == "hardest":
        weights[loss.index(max(loss))] = 1.0
    elif rule == "semi-hard":
        for k in range(len(loss)):
            if positive[k] < negative[k] < positive[k] + margin:
                weights[k] = 1.0
                return weights
        weights[0] = 1.0
    else:
        violating = [k for k in range(len(loss)) if loss[k] > 0]
        for k in violating:
            weights[k] = 1 / len(violating)
    return weights


def test_every_rule_has_a_naive_twin_here():
    assert set(RULES) == {"random", "hardest", "semi-hard", "all-violating"}


@pytest.mark.parametrize("rule", RULES)
@given(seed=st.integers(0, 1000), count=st.integers(1, 6))
def test_rule_gives_the_weights_of_its_naive_twin(rule, seed, count):
    some = candidates(seed, count)
    weights = screen(rule, some)
    assert weights.shape == some.loss.shape
    for i in range(some.loss.shape[1]):
        expected = naive_weights(rule, *(v[:, i].tolist() for v in some[:3]), MARGIN)
        assert weights[:, i].tolist() == pytest.approx(expected, abs=1e-7)


def test_ties_go_to_the_first_and_both_edges_of_the_margin_are_outside():
    positive = torch.ones(4, 1)
    at_edges = Candidates(torch.zeros(4, 1), positive, torch.tensor([[1.0], [3.0], [1.5], [1.5]]), MARGIN)
    assert screen("semi-hard", at_edges).tolist() == [[0], [0], [1], [0]]
    ties = Candidates(torch.tensor([[0.0], [2.0], [2.0], [1.0]]), positive, positive, MARGIN)
    assert screen("hardest", ties).tolist() == [[0], [1], [0], [0]]
    assert screen("all-violating", ties).flatten().tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    assert screen("all-violating", at_edges).tolist() == [[0]] * 4


@pytest.mark.parametrize("rule", RULES)
def test_no_gradient_flows_through_the_weights(rule):
    some = Candidates(*(v.requires_grad_() if isinstance(v, torch.Tensor) else v for v in candidates(5)))
    weights = screen(rule, some)
    assert not weights.requires_grad
    (weights * some.loss).sum().backward()
    assert torch.equal(some.loss.grad, weights.to(some.loss.dtype))
    assert some.positive.grad is None
    assert some.negative.grad is None


def test_unknown_rule_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match="'easiest'.*hardest"):
        screen("easiest", candidates(0))
