"""Networks rearranged for a CPU against the plain ones: same values, gradients and weights, and no other model changed.

In float64 the two forms may differ by rounding alone. PyTorch's own functions are the independent reference.
"""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from model_cases import parameter_gradients, random

from qmvae_core import networks
from qmvae_core.kernels import TransposedConvolution, arrange_for_cpu
from qmvae_core.losses import LossTerms
from qmvae_core.models import READINGS, DMVAEConfig, JMVAEConfig, ModalityConfig, ModelConfig, build_model, draw_noise
from qmvae_core.names import BEST

THRESHOLD = 8  # from this many output channels on, the arranged layer is a transposed convolution
LAYERS = [  # channels of input and output, height and width of the input, and batch: each value with some other
    (4, 1, (4, 4), 3), (3, 2, (2, 3), 1), (1, 3, (5, 1), 3), (5, 7, (1, 1), 1),
    (6, 8, (2, 3), 3), (2, 9, (5, 1), 1), (9, 16, (1, 1), 3),
]  # fmt: skip

# (network, shape, widths, batch); a decoder ends with the channels of the shape and passes through the widths
NETWORKS = [
    ("dense", (2, 3, 5), (7, 5), 3),
    ("convolutional", (1, 16, 8), (7, 8, 9), 1),
    ("convolutional", (2, 4, 12), (9, 7), 3),
    ("convolutional", (8, 4, 2), (3,), 1),
    ("convolutional", (9, 4, 4), (1, 2), 3),
    ("sequence", (8, 5), (7, 4), 3),
    ("sequence", (6, 2), (3,), 1),
]


def same(found, expected) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


def layer(before: int, after: int, seed: int = 0) -> TransposedConvolution:
    made = TransposedConvolution(before, after).double()
    return networks.initialise(made, torch.Generator().manual_seed(seed))


def reference(images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return F.conv_transpose2d(images, weight, bias, stride=2, padding=1, output_padding=1)


def gradients(result: torch.Tensor, cotangent: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(result, inputs, cotangent)


def pair(made: torch.nn.Module) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A plain model and an arranged one of equal weights."""
    return made, arrange_for_cpu(copy.deepcopy(made))


def stepped_gradients(model: torch.nn.Module, result: LossTerms) -> dict[str, torch.Tensor]:
    """What each optimiser steps on: the opponent's parameters on the opposing objective, all others on the loss."""
    theirs = {} if model.opponent is None else parameter_gradients(model, -result.opposing.mean())
    found = parameter_gradients(model, result.loss)
    return found | {name: value for name, value in theirs.items() if name.startswith(model.opponent.prefix)}


# The transposed convolution


@pytest.mark.parametrize(("before", "after", "size", "batch"), LAYERS)
def test_arranged_layer_is_the_transposed_convolution_of_pytorch(before, after, size, batch):
    arranged = arrange_for_cpu(layer(before, after))
    images = random(batch, before, *size).requires_grad_()
    inputs = (images, arranged.weight, arranged.bias)
    found, expected = arranged(images), reference(*inputs)
    assert found.shape == (batch, after, 2 * size[0], 2 * size[1])
    same(found, expected)
    cotangent = random(*expected.shape, seed=1)
    for ours, theirs in zip(gradients(found, cotangent, *inputs), gradients(expected, cotangent, *inputs), strict=True):
        same(ours, theirs)


@pytest.mark.parametrize("after", [THRESHOLD - 1, THRESHOLD])
def test_few_output_channels_alone_take_the_form_of_an_ordinary_convolution(after):
    """Else the comparisons above would compare PyTorch's function with itself."""
    plain, arranged = pair(layer(2, after))
    images = random(1, 2, 2, 2)
    assert ("FewChannels" in type(arranged(images).grad_fn).__name__) == (after < THRESHOLD)
    assert "FewChannels" not in type(plain(images).grad_fn).__name__


LAYOUTS = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "batch last": lambda x: x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
    "every second pixel": lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
    "every second channel": lambda x: x.repeat_interleave(2, dim=1)[:, ::2],
    "part of a larger image": lambda x: F.pad(x, (1, 2, 3, 4))[..., 3:-4, 1:-2],
    "one image for the whole batch": lambda x: x[:1].expand_as(x),
    "one pixel for the whole image": lambda x: x[..., :1, :1].expand_as(x),
}


@pytest.mark.parametrize(
    ("name", "after"), [*((name, 3) for name in LAYOUTS), ("batch last", 8), ("every second channel", 8)]
)
def test_gradients_do_not_depend_on_the_layout_of_input_and_gradient(name, after):
    arranged = arrange_for_cpu(layer(4, after))
    images = LAYOUTS[name](random(3, 4, 2, 5)).requires_grad_()
    cotangent = LAYOUTS[name](random(3, after, 4, 10, seed=1))
    if name != "contiguous":
        assert not images.is_contiguous()
        assert not cotangent.is_contiguous()
    inputs = (images, arranged.weight, arranged.bias)
    found = arranged(images)
    copies = [value.detach().contiguous().requires_grad_() for value in inputs]
    expected = reference(*copies)
    same(found, expected)
    theirs = gradients(expected, cotangent.contiguous(), *copies)
    for ours, other in zip(gradients(found, cotangent, *inputs), theirs, strict=True):
        same(ours, other)


@pytest.mark.parametrize(
    ("wanted", "after"), [(("images",), 3), (("weight",), 3), (("bias",), 3), (("images", "bias"), 8), (("weight",), 8)]
)
def test_gradients_of_some_inputs_alone(wanted, after):
    """Frozen weights, or images that need no gradient."""
    arranged = arrange_for_cpu(layer(4, after))
    values = {"images": random(2, 4, 2, 3), **{name: p.detach() for name, p in arranged.named_parameters()}}
    values = {name: value.clone().requires_grad_(name in wanted) for name, value in values.items()}
    parameters = {name: values[name] for name in ("weight", "bias")}
    found = torch.func.functional_call(arranged, parameters, (values["images"],))
    chosen, cotangent = [values[name] for name in wanted], random(2, after, 4, 6, seed=1)
    theirs = gradients(reference(**values), cotangent, *chosen)
    for ours, other in zip(gradients(found, cotangent, *chosen), theirs, strict=True):
        same(ours, other)


# Encoders and decoders


@pytest.mark.parametrize("kind", [networks.encoder, networks.decoder])
@pytest.mark.parametrize(("network", "shape", "widths", "batch"), NETWORKS)
def test_arranged_network_gives_the_same_values_and_gradients(kind, network, shape, widths, batch):
    made = networks.initialise(kind(network, shape, widths, latent=3).double(), torch.Generator().manual_seed(0))
    inputs = [random(batch, *(shape if kind is networks.encoder else (3,))).requires_grad_() for _ in range(2)]
    plain, arranged = pair(made)
    found, expected = arranged(inputs[0]), plain(inputs[1])
    same(found, expected)
    if kind is networks.encoder:
        found, expected = torch.stack(found), torch.stack(expected)
    else:
        assert found.shape == (batch, *shape)
    assert torch.equal(*inputs)  # activations are overwritten, what is given is not
    losses = [(random(*expected.shape, seed=1) * value).sum() for value in (found, expected)]
    same(*(torch.autograd.grad(loss, x, retain_graph=True)[0] for loss, x in zip(losses, inputs, strict=True)))
    same(parameter_gradients(arranged, losses[0]), parameter_gradients(plain, losses[1]))


@pytest.mark.parametrize("stride", [1, 2])
def test_windows_and_a_linear_layer_are_a_convolution_of_three(stride):
    linear = networks.initialise(networks.Linear(3 * 5, 4).double(), torch.Generator().manual_seed(0))
    rows = random(2, 8, 5)
    weight = linear.weight.view(4, 3, 5).transpose(1, 2)
    expected = F.conv1d(rows.transpose(1, 2), weight, linear.bias, stride=stride, padding=1).transpose(1, 2)
    same(linear(networks.Windows(stride)(rows)), expected)


@pytest.mark.parametrize(("shape", "widths"), [((8,), (4,)), ((1, 8, 8), (4,)), ((6, 3), (4, 4)), ((8, 3), ())])
def test_a_sequence_whose_places_cannot_be_halved_is_refused(shape, widths):
    for kind in (networks.encoder, networks.decoder):
        with pytest.raises(ValueError, match=r"a sequence .* is halved for each width, .*dense network"):
            kind("sequence", shape, widths, latent=3)


# Whole models

MODALITIES = {  # channels of images and layers on both sides of the threshold, and images that are not square
    "odd": ModalityConfig(shape=(3, 8, 4), network="convolutional", widths=(5, 7), private=2),
    "even": ModalityConfig(
        shape=(8, 4, 8), network="convolutional", widths=(6, 9), private=1, encoders="common", likelihood="bernoulli"
    ),
    "flat": ModalityConfig(
        shape=(1, 3, 5), network="dense", widths=(6,), private=3, likelihood="normal", weight=2.5, private_kl_weight=5.0
    ),
}
LABELS = torch.tensor([3, 1, 1, 7, 3])
SHARED_ONLY = ("mvae", "mmvae", "mopoe", "jmvae", "jmvae-kl")  # models without private codes


def small(model: str, *names: str):
    modalities = {name: MODALITIES[name] for name in names or MODALITIES}
    alone = {name: dataclasses.replace(m, private=0) for name, m in modalities.items()}
    if model.startswith("jmvae"):
        return JMVAEConfig(shared=4, modalities=alone, alpha=0.1 if model == "jmvae-kl" else 0.0)
    if model in SHARED_ONLY:
        return ModelConfig.of_model[model](shared=4, modalities=alone)
    if model == "dmvae":
        return DMVAEConfig(shared=4, modalities=modalities, discriminator=6)
    return dataclasses.replace(READINGS["default"], shared=4, candidates=3, modalities=modalities)


def compare_losses(config, batch: int, dtype, layout=torch.contiguous_format, **tolerance) -> None:
    plain, arranged = pair(build_model(config, seed=0).to(dtype))
    images = {name: random(batch, *m.shape, dtype=dtype).sigmoid() for name, m in config.modalities.items()}
    noise = draw_noise(plain.noise_spec(batch), torch.Generator().manual_seed(0), "cpu")
    noise = {name: value.to(dtype) for name, value in noise.items()}
    labels = LABELS.repeat(2)[:batch]
    expected = plain.loss(images, labels, noise)
    laid_out = {name: value.contiguous(memory_format=layout) for name, value in images.items()}
    found = arranged.loss(laid_out, labels, noise)
    assert set(found.terms) == set(expected.terms)
    found_all = {"objective": found.objective, **found.terms, **stepped_gradients(arranged, found)}
    expected_all = {"objective": expected.objective, **expected.terms, **stepped_gradients(plain, expected)}
    assert (found.opposing is None) == (expected.opposing is None) == (plain.opponent is None)
    if plain.opponent is not None:
        found_all["opposing"], expected_all["opposing"] = found.opposing, expected.opposing
    for name, value in expected_all.items():
        assert value.abs().max() > 0 or name == "single_digit", name
        torch.testing.assert_close(found_all[name], value, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


@pytest.mark.parametrize("model", ["qmvae", "dmvae", *SHARED_ONLY])
@pytest.mark.parametrize(("names", "whole_batch"), [(("odd", "flat"), False), (tuple(MODALITIES), True)])
def test_arranged_model_gives_the_same_loss_and_gradients(model, names, whole_batch):
    """Q-MVAE needs a second digit for its negatives, and DMVAE a second sample for its contrast; others do with one."""
    batch = 5 if whole_batch else 1 if model in SHARED_ONLY else 2
    layout = torch.channels_last if whole_batch else torch.contiguous_format
    compare_losses(small(model, *names), batch, torch.float64, layout, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["as-printed", BEST, "dmvae", "jmvae-kl"])
def test_arranged_networks_of_every_reading(name):
    compare_losses(READINGS[name], 2, torch.float64, torch.channels_last, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("model", ["mmvae", "jmvae-kl"])
def test_arranged_model_in_single_precision(model):
    compare_losses(small(model), 5, torch.float32, torch.channels_last, rtol=1e-4, atol=1e-4)


def test_arranged_model_gives_the_same_images():
    config = small("qmvae")
    plain, arranged = pair(build_model(config, seed=0).double())
    with torch.no_grad():
        for source, target in (("odd", "even"), ("flat", "odd"), ("even", "flat")):
            images = random(2, *config.modalities[source].shape).sigmoid()
            style = random(2, *config.modalities[target].shape).sigmoid()
            made = [model.transfer(content=(source, images), style=(target, style)) for model in (arranged, plain)]
            same(*made)


# Weights


@pytest.mark.parametrize("model", ["qmvae", "dmvae", "mmvae", "jmvae-kl"])
def test_arranged_model_keeps_its_weights_and_a_plain_one_can_load_them(model):
    config = small(model)
    plain, made = build_model(config, seed=0), build_model(config, seed=0)
    arranged = arrange_for_cpu(made)
    assert arranged is made
    before, after = plain.state_dict(), arranged.state_dict()
    assert list(after) == list(before)
    for name, value in before.items():
        assert torch.equal(after[name], value), name
        assert (after[name].shape, after[name].dtype) == (value.shape, value.dtype), name
    other = build_model(config, seed=1)
    other.load_state_dict(after)
    for name, value in other.state_dict().items():
        assert torch.equal(value, before[name]), name
        assert value.is_contiguous(), name
    back = arrange_for_cpu(build_model(config, seed=1))
    back.load_state_dict(before)
    for name, m in config.modalities.items():
        images = {name: random(2, *m.shape, dtype=torch.float32).sigmoid()}
        torch.testing.assert_close(back.encode_shared(images), plain.encode_shared(images))


def test_arranging_one_model_changes_no_other():
    config = small("qmvae")
    first, second = build_model(config, seed=0), build_model(config, seed=0)
    layouts = {name: value.stride() for name, value in second.named_parameters()}
    arrange_for_cpu(first)
    later = build_model(config, seed=0)
    for model, arranged in ((first, True), (second, False), (later, False)):
        layers = list(model.modules())
        assert {each.arranged for each in layers if isinstance(each, TransposedConvolution)} == {arranged}
        assert {each.inplace for each in layers if isinstance(each, torch.nn.ReLU)} == {arranged}
        assert ({name: value.stride() for name, value in model.named_parameters()} == layouts) == (not arranged)
    assert not TransposedConvolution.arranged
    code = torch.zeros(2, config.shared), torch.zeros(2, 2)
    assert torch.equal(second.decode("odd", *code), later.decode("odd", *code))
