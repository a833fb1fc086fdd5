"""The three forms of one step.

"plain" is the loop that everybody knows, to read and to compare with; "fast" is that loop with the networks rearranged
for a CPU; "stacked" trains all seeds as one model with a leading dimension, and on a GPU replays one captured step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from qmvae_core.kernels import arrange_for_cpu
from qmvae_core.losses import LossTerms
from qmvae_core.models import ModelConfig, MultimodalVAE, Opponent, build_model
from qmvae_core.models.base import Tensors
from qmvae_core.training.config import TrainingConfig


class Plain:
    """The loop that everybody knows, loss, backward, Adam, for one seed after the other."""

    def __init__(self, model: ModelConfig, training: TrainingConfig, seeds: Sequence[int], device: torch.device):
        self.config, self.seeds, self.device, self.precision = model, seeds, device, training.precision
        self.built = [self._arranged(_unchecked(build_model(model, seed)).to(device)) for seed in seeds]
        self.optimisers = [Optimisers(dict(each.named_parameters()), each.opponent, training) for each in self.built]
        self.model = self.built[0]  # for what all seeds have in common

    def update(self, images: Tensors, labels: Tensor, noise: Tensors, *there: Tensors) -> dict[str, Tensor]:
        """One step; every input has a leading dimension of seeds. Returns the mean terms, (seeds,) each."""
        means = []
        for i, (model, optimisers) in enumerate(zip(self.built, self.optimisers, strict=True)):
            batch = {name: self._arranged(value[i]) for name, value in images.items()}
            named = [{name: value[i] for name, value in each.items()} for each in (noise, *there)]
            result = model.loss(batch, labels[i], *named)
            optimisers.step(result)
            means.append(_means(result))
        return {name: torch.stack([each[name] for each in means]) for name in means[0]}

    def _arranged(self, value):
        return value

    def state(self) -> dict[str, list[Tensor]]:
        """Parameters and Adam's moments, for each seed the tensor itself, to be read or written in place."""
        each = [optimisers.state() for optimisers in self.optimisers]
        return {name: [state[name] for state in each] for name in each[0]}

    def models(self) -> list[nn.Module]:
        """The trained models, in the order of the seeds."""
        return [_rebuilt(self, i, model.state_dict()) for i, model in enumerate(self.built)]


class Fast(Plain):
    """The plain loop with networks and images laid out for a CPU; equal to it up to rounding."""

    def _arranged(self, value):
        if isinstance(value, nn.Module):
            return arrange_for_cpu(value, "bfloat16" if self.precision == "bfloat16" else "float32")
        return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value


class Stacked:
    """Several seeds as one model: each parameter has a leading dimension, and torch.func.vmap maps the loss over it.

    The gradient of the sum of the seeds' losses is each seed's own gradient, and Adam works element by element, so
    each seed takes the step that it would take alone.
    """

    def __init__(self, model: ModelConfig, training: TrainingConfig, seeds: Sequence[int], device: torch.device):
        built = [_unchecked(build_model(model, seed)).to(device) for seed in seeds]
        self.config, self.seeds, self.device = model, seeds, device
        self.stack, _ = stack_module_state(built)
        self.model = built[0].to("meta")
        self.optimisers = [Optimisers(self.stack, self.model.opponent, training)]

    def update(self, *batch) -> dict[str, Tensor]:
        """One step; arguments and result as of Plain's."""
        result = LossTerms(*vmap(self._one)(self.stack, *batch))
        self.optimisers[0].step(result)
        return _means(result)

    def _one(self, parameters, *batch):
        result = functional_call(self.model, parameters, batch)
        return tuple(value for value in result if value is not None)  # vmap returns tensors only

    def state(self) -> dict[str, list[Tensor]]:
        """Parameters and Adam's moments, for each seed a view of its part, to be read or written in place."""
        count = len(self.seeds)
        state = self.optimisers[0].state()
        return {name: list(value) if value.dim() else [value] * count for name, value in state.items()}

    def models(self) -> list[nn.Module]:
        """The trained models, in the order of the seeds."""
        stacked = {name: value.detach() for name, value in self.stack.items()}
        return [_rebuilt(self, i, {name: v[i] for name, v in stacked.items()}) for i in range(len(self.seeds))]


def _unchecked(model: MultimodalVAE) -> MultimodalVAE:
    model.checks = False  # a look at values would wait for the device, and cannot be stacked
    return model


def _rebuilt(learner, i: int, weights: Mapping[str, Tensor]) -> nn.Module:
    """The model of the i-th seed as `build_model` makes it, with the trained weights."""
    model = build_model(learner.config, learner.seeds[i])
    model.load_state_dict(weights)
    return model.to(learner.device)


LOOPS = {"plain": Plain, "fast": Fast, "stacked": Stacked}


class Optimisers:
    """Adam for the model and, if it has an opponent, another for the opponent; both step on gradients of one pass."""

    def __init__(self, parameters: Mapping[str, Tensor], opponent: Opponent | None, training: TrainingConfig):
        self.names = {value: name for name, value in parameters.items()}
        theirs = [] if opponent is None else [name for name in parameters if name.startswith(opponent.prefix)]
        own = [value for name, value in parameters.items() if name not in theirs]
        self.all = [_adam(own, training.learning_rate)]
        if theirs:
            self.all.append(_adam([parameters[n] for n in theirs], opponent.learning_rate, opponent.betas))

    def step(self, result: LossTerms) -> None:
        """One step of each, up the mean over the batch (the last dimension), summed over seeds if there are several."""
        objectives = [result.objective, result.opposing][: len(self.all)]
        for optimiser, objective in zip(self.all, objectives, strict=True):
            optimiser.zero_grad(set_to_none=objective.device.type != "cuda")  # a captured step needs them in place
            loss = -objective.mean(dim=-1).sum()
            loss.backward(inputs=optimiser.param_groups[0]["params"], retain_graph=len(self.all) > 1)
        for optimiser in self.all:
            optimiser.step()

    def state(self) -> dict[str, Tensor]:
        """Parameters by name, and Adam's tensors for each of them, all of them the tensors that are in use."""
        found = {}
        for optimiser in self.all:
            for value in optimiser.param_groups[0]["params"]:
                found[self.names[value]] = value.detach()
                for key, moment in optimiser.state[value].items():
                    found[f"{self.names[value]}/{key}"] = moment
        return found


def _adam(
    parameters: list[Tensor], learning_rate: float, betas: tuple[float, float] = (0.9, 0.999)
) -> torch.optim.Adam:
    """Adam with its tensors made at once: a captured step and a checkpoint both need them in their place."""
    on_gpu = parameters[0].is_cuda
    adam = torch.optim.Adam(parameters, lr=learning_rate, betas=betas, fused=True, capturable=on_gpu)
    for value in parameters:
        step = torch.zeros((), device=value.device)
        adam.state[value] = {"step": step, "exp_avg": torch.zeros_like(value), "exp_avg_sq": torch.zeros_like(value)}
        if on_gpu:
            value.grad = torch.zeros_like(value)
    return adam


def _means(result: LossTerms) -> dict[str, Tensor]:
    """The mean over the batch of the objective and of each term: (...,) as the result has leading dimensions."""
    named = {"objective": result.objective, **result.terms}
    if result.opposing is not None:
        named["opposing"] = result.opposing
    return {name: value.detach().mean(dim=-1) for name, value in named.items()}


def stored(learner) -> dict[str, Tensor]:
    """A copy of the learner's state: name -> (seeds, ...)."""
    return {name: torch.stack([value.contiguous() for value in each]) for name, each in learner.state().items()}


@torch.no_grad()
def put_back(learner, stored: Mapping[str, Tensor]) -> None:
    """The learner's state as it was `stored`."""
    for name, each in learner.state().items():
        for value, before in zip(each, stored[name], strict=True):
            value.copy_(before)
