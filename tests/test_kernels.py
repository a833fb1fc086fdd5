"""bfloat16 in the layers of a CPU's fast loop: what is in it, where it is refused, and how it resumes."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from model_cases import SMALL, assert_same_run, quiet, random_images, random_noise
from torch.utils._python_dispatch import TorchDispatchMode

from qmvae_core import kernels
from qmvae_core.kernels import arrange_for_cpu, bfloat16_here
from qmvae_core.models import build_model
from qmvae_core.training import TrainingConfig, fit

TRAINING = TrainingConfig(epochs=2, steps_per_epoch=6, batch_size=16, rounds=2, chunk=2, precision="bfloat16")
LABELS = torch.arange(16) % 3
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward", "mkldnn_convolution")
needs_bfloat16 = pytest.mark.skipif(not bfloat16_here(), reason="this processor does not multiply in bfloat16")


class Products(TorchDispatchMode):
    """The types of floating-point tensors in each operation, those of products apart from all others."""

    def __init__(self):
        super().__init__()
        self.products, self.others = set(), {}

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        name = function.overloadpacket.__name__
        found = {each.dtype for each in arguments if isinstance(each, torch.Tensor) and each.is_floating_point()}
        if name in PRODUCTS:
            self.products |= found
        else:
            self.others.setdefault(name, set()).update(found)
        return result


def built(small_config, name: str, precision: str):
    config = small_config(model=name, **SMALL[name])
    return arrange_for_cpu(build_model(config, 0), precision), config


def loss_of(model, config, batch: int = 16):
    images = random_images(config, batch, torch.float32)
    return model.loss(images, LABELS, random_noise(model, batch, torch.float32))


@needs_bfloat16
@pytest.mark.parametrize("name", SMALL)
def test_layers_multiply_in_bfloat16_and_all_else_is_in_float32(small_config, name):
    model, config = built(small_config, name, "bfloat16")
    with Products() as seen:
        result = loss_of(model, config)
        result.loss.backward()
    # DMVAE's contrast is a product of codes, and codes are of the loss
    assert torch.bfloat16 in seen.products
    assert seen.products <= {torch.bfloat16} | ({torch.float32} if name == "dmvae" else set())
    for function in ("exp", "log", "logsumexp", "_softmax", "log_sigmoid_forward"):
        assert torch.bfloat16 not in seen.others.get(function, set()), function
    assert {value.dtype for value in (result.objective, *result.terms.values())} == {torch.float32}
    assert {p.dtype for p in model.parameters()} | {p.grad.dtype for p in model.parameters()} == {torch.float32}


@needs_bfloat16
@pytest.mark.parametrize("name", SMALL)
def test_loss_and_gradient_in_bfloat16_are_those_of_float32_up_to_its_rounding(small_config, name):
    found = {}
    for precision in ("float32", "bfloat16"):
        model, config = built(small_config, name, precision)
        result = loss_of(model, config)
        result.loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        found[precision] = result.objective.detach(), gradient
    (objective, gradient), (rounded, rounded_gradient) = found.values()
    assert not torch.equal(objective, rounded)
    torch.testing.assert_close(rounded, objective, rtol=0.02, atol=0.05)
    assert torch.cosine_similarity(gradient, rounded_gradient, dim=0) > 0.99


def test_a_processor_without_the_instructions_is_an_error_with_the_remedy(small_config, small_digits, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "avx512_bf16": False})
    with pytest.raises(ValueError, match="avx512_bf16 and amx_bf16 that bfloat16 needs; use the precision float32"):
        fit(small_config(), TRAINING, small_digits(), progress="none")


@pytest.mark.parametrize("instruction", kernels.INSTRUCTIONS)
def test_either_instruction_is_enough(monkeypatch, instruction):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instruction: True})
    assert bfloat16_here()
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert not bfloat16_here()


@pytest.mark.parametrize("loop", ["plain", "stacked"])
def test_other_loops_have_no_bfloat16(small_config, small_digits, loop):
    with pytest.raises(ValueError, match=f"bfloat16 is a precision of the fast loop .* not of '{loop}'"):
        fit(small_config(), TRAINING, small_digits(), loop=loop, progress="none")


def test_a_layer_of_another_kind_is_named_and_not_left_in_float32(monkeypatch):
    monkeypatch.setattr(kernels, "bfloat16_here", lambda: True)
    model = torch.nn.Sequential(kernels.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    with pytest.raises(ValueError, match="the layer '2' cannot compute in bfloat16"):
        arrange_for_cpu(model, "bfloat16")
    arrange_for_cpu(model, "float32")


def test_an_unknown_precision_of_a_cpu_is_an_error():
    with pytest.raises(ValueError, match="not in 'tf32'"):
        arrange_for_cpu(torch.nn.Linear(1, 1), "tf32")


@needs_bfloat16
def test_a_run_in_bfloat16_that_is_stopped_resumes_to_the_same_bits(small_config, small_digits, tmp_path, interrupted):
    run = (small_config(), TRAINING, small_digits(), [0, 4])
    whole = quiet(*run)
    interrupted(7, *run)
    resumed = quiet(*run, folder=tmp_path)
    assert resumed.cost["resumed"] == 1
    assert_same_run(resumed, whole)
    assert {value.dtype for model in resumed.models for value in model.state_dict().values()} == {torch.float32}
    in_float32 = dataclasses.replace(TRAINING, precision="float32")
    assert quiet(run[0], in_float32, *run[2:]).histories != whole.histories
    with pytest.raises(RuntimeError, match="another training"):
        quiet(run[0], in_float32, *run[2:], folder=tmp_path)


@needs_bfloat16
def test_arranging_one_model_leaves_others_and_their_classes_alone(small_config):
    model, _ = built(small_config, "qmvae", "float32")
    other = arrange_for_cpu(copy.deepcopy(model), "bfloat16")
    assert {layer.arithmetic for layer in other.modules() if isinstance(layer, kernels._Layer)} == {torch.bfloat16}
    assert {layer.arithmetic for layer in model.modules() if isinstance(layer, kernels._Layer)} == {None}
    assert kernels._Layer.arithmetic is None


@pytest.mark.parametrize("size", [(2, 2), (4, 6), (8, 4)])
@pytest.mark.parametrize("transposed", [False, True])
def test_many_channels_have_the_gradients_of_pytorchs_convolution(transposed, size):
    """In float64, whatever the layout of what flows back, and only where a gradient is wanted."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(3, 5, *size, generator=draws, dtype=torch.float64, requires_grad=True)
    shape = (5, 7, 3, 3) if transposed else (7, 5, 3, 3)
    weight = torch.randn(shape, generator=draws, dtype=torch.float64, requires_grad=True)
    if transposed:
        expected = F.conv_transpose2d(images, weight, None, 2, 1, 1)
    else:
        expected = F.conv2d(images, weight, None, 2, 1)
    found = kernels._ManyChannels.apply(images, weight, transposed)
    torch.testing.assert_close(found, expected)
    for layout in (torch.contiguous_format, torch.channels_last):
        cotangent = torch.randn(expected.shape, generator=draws, dtype=torch.float64).contiguous(memory_format=layout)
        both = [torch.autograd.grad(y, (images, weight), cotangent, retain_graph=True) for y in (found, expected)]
        for one, other in zip(*both, strict=True):
            torch.testing.assert_close(one, other)
    alone = kernels._ManyChannels.apply(images.detach(), weight, transposed)
    (gradient,) = torch.autograd.grad(alone.sum(), weight)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), weight)[0])


@needs_bfloat16
@pytest.mark.parametrize("made", [kernels.Convolution(64, 3), kernels.TransposedConvolution(3, 64)], ids=type)
def test_layers_of_many_channels_take_that_way_in_bfloat16_alone(made, monkeypatch):
    used = []
    apply = kernels._ManyChannels.apply
    monkeypatch.setattr(kernels._ManyChannels, "apply", lambda *parts: used.append(1) or apply(*parts))
    images = torch.rand(2, made.in_channels, 4, 4)
    expected = made(images)
    torch.testing.assert_close(arrange_for_cpu(copy.deepcopy(made))(images), expected)
    assert not used
    found = arrange_for_cpu(made, "bfloat16")(images)
    assert used
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.02)
