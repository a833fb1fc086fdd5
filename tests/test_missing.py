"""Missing modalities in training: a sample has the loss of what is there, and what is missing has no say at all."""

import dataclasses

import pytest
import torch
from model_cases import SMALL, THREE, TWO, build, parameter_gradients, quiet, random_images, random_noise, same_bits
from test_models import naive_loss

from qmvae_core import training
from qmvae_core.data import DataError, missing_at_random
from qmvae_core.kernels import bfloat16_here
from qmvae_core.models import MODELS, build_model
from qmvae_core.negatives import RULES
from qmvae_core.training import LOOPS, TrainingConfig

pytestmark = pytest.mark.usefixtures("one_thread")
LABELS = torch.tensor([3, 1, 1, 7, 3, 5])
MASKS = {  # the third sample has one modality alone, and the last one another
    "ink": torch.tensor([True, True, False, True, True, False]),
    "photo": torch.tensor([True, False, False, True, True, False]),
    "sketch": torch.tensor([True, True, True, False, True, True]),
}
INCOMPLETE = TrainingConfig(epochs=1, steps_per_epoch=4, batch_size=12, chunk=2, rounds=2, missing=0.5)


def of(names) -> dict[str, torch.Tensor]:
    return {name: MASKS[name] if len(names) == 3 else MASKS[name] | (name == "ink") for name in names}


@pytest.mark.parametrize("names", [TWO, THREE])
@pytest.mark.parametrize("rule", RULES)
def test_each_sample_has_the_loss_of_the_modalities_that_are_there(small_config, names, rule):
    config = small_config(*names, negatives=rule, alpha1=0.5, alpha2=0.3, beta=7.0)
    model = build_model(config, seed=1).double()
    images, noise, there = random_images(config, 6), random_noise(model, 6), of(names)
    with torch.no_grad():
        result, expected = model.loss(images, LABELS, noise, there), naive_loss(model, images, LABELS, noise, there)
    assert result.objective.tolist() == pytest.approx(expected.pop("objective"), abs=1e-6)
    for name, values in expected.items():
        assert result.terms[name].tolist() == pytest.approx(values, abs=1e-6), name


def test_mvae_without_a_modality_is_mvae_of_the_others(shared_only_config):
    model = build(shared_only_config("mvae", *THREE))
    images, noise = random_images(model.config, 6), random_noise(model, 6)
    found = model.loss(images, LABELS, noise, MASKS).objective
    for i in range(6):
        here = [name for name in THREE if MASKS[name][i]]
        few = build(dataclasses.replace(model.config, modalities={n: model.config.modalities[n] for n in here}))
        few.load_state_dict({k: v for k, v in model.state_dict().items() if k.split(".")[1] in here})
        alone = few.loss(
            {name: images[name][[i]] for name in here}, LABELS[[i]], {name: value[[i]] for name, value in noise.items()}
        )
        assert found[i].item() == pytest.approx(alone.objective.item(), rel=1e-9), here


@pytest.mark.parametrize("name", ["qmvae", "mvae"])
@pytest.mark.parametrize("other", [0.25, torch.nan])
def test_a_missing_image_has_no_say_in_loss_and_gradients_whatever_it_is(small_config, name, other):
    model = build(small_config(*THREE, model=name, **SMALL[name]))
    images, noise = random_images(model.config, 6), random_noise(model, 6)
    changed = {n: x.masked_fill(~MASKS[n].view(-1, 1, 1, 1), other) for n, x in images.items()}
    assert not any(torch.equal(changed[n], images[n]) for n in images)
    first, second = (model.loss(each, LABELS, noise, MASKS) for each in (images, changed))
    assert torch.equal(first.objective, second.objective)
    assert bool(first.objective.isfinite().all())
    ours, theirs = (parameter_gradients(model, each.loss) for each in (first, second))
    assert all(torch.equal(ours[key], theirs[key]) and bool(ours[key].isfinite().all()) for key in ours)


@pytest.mark.parametrize("name", ["qmvae", "mvae"])
def test_masks_that_hide_nothing_change_no_bit(small_config, name):
    model = build(small_config(*THREE, model=name, **SMALL[name]), torch.float32)
    images, noise = (f(given, 6, torch.float32) for f, given in ((random_images, model.config), (random_noise, model)))
    everything = {n: torch.ones(6, dtype=torch.bool) for n in THREE}
    first, second = model.loss(images, LABELS, noise), model.loss(images, LABELS, noise, everything)
    assert torch.equal(first.objective, second.objective)
    ours, theirs = (parameter_gradients(model, each.loss) for each in (first, second))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_masks_hide_a_share_of_the_tuples_never_wholly_and_are_a_function_of_the_seed():
    masks = missing_at_random(THREE, 20_000, 0.3)
    there = torch.stack(list(masks.values())).sum(dim=0)
    assert there.min() == 1
    assert (there < 3).float().mean().item() == pytest.approx(0.3, abs=0.01)
    subsets = sum(mask.long() << place for place, mask in enumerate(masks.values())).bincount(minlength=8)
    assert subsets[0] == 0
    assert (subsets[1:7] / 20_000).tolist() == pytest.approx([0.05] * 6, abs=0.006)
    again, other = missing_at_random(THREE, 20_000, 0.3), missing_at_random(THREE, 20_000, 0.3, seed=1)
    assert all(torch.equal(masks[name], again[name]) and not torch.equal(masks[name], other[name]) for name in THREE)
    assert all(bool(mask.all()) for mask in missing_at_random(TWO, 50, 0.0).values())
    with pytest.raises(DataError, match="none can be missing; there must be two or more"):
        missing_at_random(["ink"], 5, 0.5)


@pytest.mark.parametrize("name", ["qmvae", "mvae"])
def test_the_three_loops_take_the_same_steps_with_missing_modalities(small_config, small_digits, name):
    config, data = small_config(model=name, **SMALL[name]), small_digits()
    ends = [quiet(config, INCOMPLETE, data, (0, 1), loop=loop) for loop in LOOPS]
    whole = quiet(config, dataclasses.replace(INCOMPLETE, missing=0.0), data, (0, 1), loop="plain")
    assert not same_bits(ends[0].models[0], whole.models[0])
    for each in ends[1:]:
        for ours, first in zip(each.models, ends[0].models, strict=True):
            for key, value in first.state_dict().items():
                torch.testing.assert_close(ours.state_dict()[key], value, rtol=1e-4, atol=1e-5)
    if bfloat16_here():
        quiet(config, dataclasses.replace(INCOMPLETE, precision="bfloat16"), data)


def test_the_plateau_is_lower_where_fewer_pairs_are_there(small_config, small_digits):
    config = small_config()
    learner = training.learners.Plain(config, INCOMPLETE, (0,), torch.device("cpu"))
    loop = training.batches.Steps(learner, INCOMPLETE, small_digits(), (0,), torch.device("cpu"))
    masks = torch.stack(list(loop.there.values()))
    assert loop.paired == pytest.approx(masks.all(dim=0).double().mean().item())
    assert 0.3 < loop.paired < 0.7


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"qmvae", "mvae"}))
def test_models_that_cannot_refuse_before_any_step(small_config, small_digits, name):
    with pytest.raises(ValueError, match=f"{name} cannot train with missing modalities"):
        quiet(small_config(model=name, **SMALL[name]), INCOMPLETE, small_digits())


def test_what_cannot_be_hidden_is_refused(small_config, small_digits):
    with pytest.raises(ValueError, match="qmvae cannot train with missing"):
        quiet(small_config(cross_reconstruction=1.0), INCOMPLETE, small_digits())
    with pytest.raises(ValueError, match="missing must be a share from 0 to 1"):
        TrainingConfig(missing=1.5)
    with pytest.raises(DataError, match="none can be missing"):
        quiet(small_config("ink", beta=0.0), INCOMPLETE, {"ink": small_digits()["ink"]})
