"""`fit`: the training loop, its checkpoints and its report.

Every draw is a pure function of (seed, epoch, chunk), never of a generator's history. So a killed run resumes to the
same bits, and several seeds trained together see the very draws that each would see alone.

The same steps can be taken in three ways: "plain" is the loop that everybody knows, to read and to compare with; "fast"
is that loop with the networks rearranged for a CPU; "stacked" trains all seeds as one model with a leading dimension,
and on a GPU replays one captured step.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from tqdm import tqdm

from qmvae_core.data import Digits, tuple_indices
from qmvae_core.draws import draw_noise, seed_for
from qmvae_core.kernels import arrange_for_cpu, require_bfloat16
from qmvae_core.losses import LossTerms
from qmvae_core.models import Checked, ModelConfig, Opponent, build_model
from qmvae_core.names import known
from qmvae_core.stops import LEFT, CheckpointError, NonFiniteLoss, OutOfTime

# What a GPU's tensor cores may do in each; bfloat16 is of the fast loop, whose layers then multiply in it.
PRECISIONS = {"float32": "ieee", "tf32": "tf32", "bfloat16": "ieee"}


@dataclass(frozen=True)
class TrainingConfig(Checked):
    """How long and how fast to train; the defaults are the paper's (section 4.1).

    Raises ValueError like models.Checked, and for an unknown precision.
    """

    positive = ("epochs", "steps_per_epoch", "batch_size", "learning_rate", "rounds", "chunk", "reports")

    epochs: int = 10
    steps_per_epoch: int | None = None  # None: every pair once an epoch
    batch_size: int = 128
    learning_rate: float = 1e-4
    rounds: int = 30  # rounds of MMVAE's pairing; 30 gives the 1,682,040 pairs that the paper names
    pair_seed: int = 0
    chunk: int = 100  # steps whose draws are made together
    precision: str = "float32"  # or "tf32", on a GPU's tensor cores, or "bfloat16", in the layers on a CPU
    reports: int = 1  # entries of the history an epoch

    def __post_init__(self):
        super().__post_init__()
        known(PRECISIONS, "precision", self.precision)


@dataclass(frozen=True)
class Trained:
    """What `fit` returns: one model and one history for each seed, and the cost.

    A history is a list of each report's mean terms, and of what `measure` found then. left: for each seed the number of
    steps after which the loss that has a plateau had left it, or None if it never did; empty for a model without one.
    """

    models: list[nn.Module]
    histories: list[list[dict[str, float]]]
    cost: dict
    left: list[int | None]


def fit(
    model: ModelConfig,
    training: TrainingConfig,
    train: Mapping[str, Digits],
    seeds: Sequence[int] = (0,),
    *,
    folder: str | Path | None = None,
    device: str | torch.device = "cpu",
    loop: str | None = None,
    progress: str = "auto",
    checkpoint_seconds: float = 30.0,
    minutes: float | None = None,
    measure: Callable[[nn.Module, int], Mapping[str, float]] | None = None,
) -> Trained:
    """Train one model for each seed, all together.

    train: modality -> Digits. folder: where the checkpoint lives; a run found there is resumed, to the same bits on
    the CPU. loop: one of LOOPS; None takes "stacked" on a GPU and "fast" elsewhere. progress: "bar", "lines" (one an
    epoch), "none", or "auto": a bar on a terminal, else lines. minutes: stop after so many, with a checkpoint.
    measure: a function of a model and its seed that finds named values for the history at each report; the time that it
    takes is not counted as training.

    Raises NonFiniteLoss, CheckpointError, OutOfTime, and ValueError for modalities that do not match, an unknown loop
    or precision, a precision that this loop or processor lacks, no seed, minutes without a folder, or a batch with a
    single digit. An interrupt or a kill loses the work since the last checkpoint, no more.
    """
    device = torch.device(device)
    loop = loop or _default_loop(device)
    known(LOOPS, "loop", loop)
    if minutes is not None and folder is None:
        raise ValueError("a training that stops after some minutes needs a folder to go on from")
    _check(model, train, seeds)
    check_precision(training.precision, device, loop)
    train = {name: train[name] for name in model.modalities}  # no other modality, and no other order, has a say
    key = f"{run_key(model, training, seeds, train)} on {device.type}"  # whose generators draw other noise
    checkpoint = Path(folder) / "checkpoint.pt" if folder is not None else None
    stop_at = math.inf if minutes is None else time.monotonic() + 60 * minutes
    with _precision(training.precision):
        learner = LOOPS[loop](model, training, seeds, device)
        steps = _Loop(learner, training, train, seeds, device)
        at = _Position()
        if checkpoint is not None and checkpoint.exists():
            at = _restore(checkpoint, key, steps)
        taken = min(at.chunk * training.chunk, steps.steps)
        report = _Report(progress, training.epochs, steps.steps, training.chunk, at, taken)
        with report:
            _run(steps, at, report, training, checkpoint, key, checkpoint_seconds, stop_at, measure)
    histories = [[{name: row[i] for name, row in each.items()} for each in at.history] for i in range(len(seeds))]
    left = [at.left.get(i) for i in range(len(seeds))] if model.plateau else []
    return Trained(learner.models(), histories, {"loop": loop, **_cost(at, steps, device)}, left)


def seconds_a_step(
    model: ModelConfig, training: TrainingConfig, device: str | torch.device = "cpu", steps: int = 6
) -> float:
    """The time of one seed's step on this machine, measured now on noise in the shapes of the data.

    The median of so many steps, after two that are not counted. Raises ValueError for a precision that the processor
    lacks. Nothing is kept of what is trained.
    """
    device = torch.device(device)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(10).repeat(20)
    train = {
        name: Digits(torch.randint(0, 256, (len(labels), *m.shape), dtype=torch.uint8, generator=generator), labels)
        for name, m in model.modalities.items()
    }
    check_precision(training.precision, device)
    short = replace(training, epochs=1, steps_per_epoch=steps + 2, rounds=1, chunk=1, reports=1)
    learner = LOOPS[_default_loop(device)](model, short, (0,), device)
    loop = _Loop(learner, short, train, (0,), device)
    loop.start_epoch(0)
    seconds = []
    with _precision(training.precision):
        for step in range(steps + 2):
            started = time.perf_counter()
            loop.run_chunk(0, step)
            loop.means.sum().item()  # waits for the device
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[2:])


def _default_loop(device: torch.device) -> str:
    return "stacked" if device.type == "cuda" else "fast"


def run_key(model: ModelConfig, training: TrainingConfig, seeds: Sequence[int], train: Mapping[str, Digits]) -> str:
    """A hash of all that decides a run's result; a checkpoint with another key is not resumed."""
    content = [(name, _digest(train[name].images), _digest(train[name].labels)) for name in model.modalities]
    text = json.dumps([model.to_dict(), asdict(training), list(seeds), content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.cpu().contiguous().numpy()).hexdigest()


def _check(model: ModelConfig, train: Mapping[str, Digits], seeds: Sequence[int]) -> None:
    missing = sorted(set(model.modalities) - set(train))
    if missing:
        raise ValueError(f"the model has modalities that the data lacks: {missing}; the data has {sorted(train)}")
    if not seeds:
        raise ValueError("fit needs at least one seed")


def check_precision(precision: str, device: str | torch.device, loop: str | None = None) -> None:
    """Raise ValueError, with the remedy, for a precision that the device or loop lacks; loop as of `fit`."""
    device = torch.device(device)
    loop = loop or _default_loop(device)
    if precision == "tf32" and device.type != "cuda":
        raise ValueError(f"tf32 is a precision of a GPU's tensor cores, not of {device.type!r}; use float32")
    if precision == "bfloat16":
        if loop != "fast":
            raise ValueError(f"bfloat16 is a precision of the fast loop on a CPU, not of {loop!r}; use float32")
        require_bfloat16()


@contextlib.contextmanager
def _precision(name: str) -> Iterator[None]:
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [switch.fp32_precision for switch in switches]
    for switch in switches:
        switch.fp32_precision = PRECISIONS[name]
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value


class _Plain:
    """The loop that everybody knows, loss, backward, Adam, for one seed after the other."""

    def __init__(self, model: ModelConfig, training: TrainingConfig, seeds: Sequence[int], device: torch.device):
        self.config, self.seeds, self.device, self.precision = model, seeds, device, training.precision
        self.built = [self._arranged(build_model(model, seed).to(device)) for seed in seeds]
        self.optimisers = [_Optimisers(dict(each.named_parameters()), each.opponent, training) for each in self.built]
        self.model = self.built[0]  # for what all seeds have in common

    def update(self, images: Mapping[str, Tensor], labels: Tensor, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step; every input has a leading dimension of seeds. Returns the mean terms, (seeds,) each."""
        means = []
        for i, (model, optimisers) in enumerate(zip(self.built, self.optimisers, strict=True)):
            batch = {name: self._arranged(value[i]) for name, value in images.items()}
            result = model.loss(batch, labels[i], {name: value[i] for name, value in noise.items()})
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


class _Fast(_Plain):
    """The plain loop with networks and images laid out for a CPU; equal to it up to rounding."""

    def _arranged(self, value):
        if isinstance(value, nn.Module):
            return arrange_for_cpu(value, "bfloat16" if self.precision == "bfloat16" else "float32")
        return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value


class _Stacked:
    """Several seeds as one model: each parameter has a leading dimension, and torch.func.vmap maps the loss over it.

    The gradient of the sum of the seeds' losses is each seed's own gradient, and Adam works element by element, so
    each seed takes the step that it would take alone.
    """

    def __init__(self, model: ModelConfig, training: TrainingConfig, seeds: Sequence[int], device: torch.device):
        built = [build_model(model, seed).to(device) for seed in seeds]
        self.config, self.seeds, self.device = model, seeds, device
        self.stack, _ = stack_module_state(built)
        self.model = built[0].to("meta")
        self.optimisers = [_Optimisers(self.stack, self.model.opponent, training)]

    def update(self, images: Mapping[str, Tensor], labels: Tensor, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step; every input has a leading dimension of seeds. Returns the mean terms, (seeds,) each."""
        result = LossTerms(*vmap(self._one)(self.stack, images, labels, noise))
        self.optimisers[0].step(result)
        return _means(result)

    def _one(self, parameters, images, labels, noise):
        result = functional_call(self.model, parameters, (images, labels, noise))
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


def _rebuilt(learner, i: int, weights: Mapping[str, Tensor]) -> nn.Module:
    """The model of the i-th seed as `build_model` makes it, with the trained weights."""
    model = build_model(learner.config, learner.seeds[i])
    model.load_state_dict(weights)
    return model.to(learner.device)


LOOPS = {"plain": _Plain, "fast": _Fast, "stacked": _Stacked}


class _Optimisers:
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


class _Loop:
    """The data's side of a step: which pairs, which draws. All tensors keep their places, so a step can be captured."""

    def __init__(self, learner, training: TrainingConfig, train: Mapping[str, Digits], seeds, device: torch.device):
        self.learner, self.training, self.seeds, self.device = learner, training, seeds, device
        self.digits = {name: digits.to(device) for name, digits in train.items()}
        labels = {name: digits.labels.cpu() for name, digits in train.items()}
        self.pairs = {
            name: index.to(device)
            for name, index in tuple_indices(labels, rounds=training.rounds, seed=training.pair_seed).items()
        }
        first = next(iter(self.pairs))
        self.labels = self.digits[first].labels[self.pairs[first].long()]
        self.steps = training.steps_per_epoch or -(-len(self.labels) // training.batch_size)
        self.order = torch.zeros((len(seeds), self.steps, training.batch_size), dtype=torch.int32, device=device)
        self.step_in_epoch = torch.zeros(1, dtype=torch.int64, device=device)
        self.step_in_chunk = torch.zeros(1, dtype=torch.int64, device=device)
        self.noise_spec = learner.model.noise_spec(training.batch_size)
        self.noise = self._draws(0, 0)
        self.names: list[str] = []
        self.means = torch.zeros(0, device=device)  # of the terms in each step of this epoch: (steps, terms, seeds)
        self.graph: torch.cuda.CUDAGraph | None = None

    def start_epoch(self, epoch: int) -> None:
        """Shuffle the pairs of each seed; a last short batch is filled up from the start of the same shuffle."""
        rows = self.steps * self.training.batch_size
        for i, seed in enumerate(self.seeds):
            generator = torch.Generator().manual_seed(seed_for(seed, "order", epoch))
            order = torch.randperm(len(self.labels), generator=generator, dtype=torch.int32)
            repeated = order.repeat(-(-rows // len(order)))[:rows]
            self.order[i].copy_(repeated.view(self.steps, -1))
        self.learner.model.check_labels(self.labels[self.order.long()])

    def run_chunk(self, epoch: int, chunk: int) -> int:
        """Queue the steps of one chunk, without waiting for the device; returns how many."""
        start = chunk * self.training.chunk
        count = min(self.training.chunk, self.steps - start)
        for name, value in self._draws(epoch, chunk).items():
            self.noise[name].copy_(value)
        if self.device.type == "cuda" and self.graph is None:
            kept = self.means.clone()
            self._capture()
            self.means[: len(kept)] = kept
        self._at(start)
        for _ in range(count):
            if self.graph is None:
                self._step()
            else:
                self.graph.replay()
        return count

    def _at(self, step: int) -> None:
        self.step_in_epoch.fill_(step)
        self.step_in_chunk.fill_(step % self.training.chunk)

    @property
    def chunks(self) -> int:
        return -(-self.steps // self.training.chunk)

    def report_before(self, chunk: int) -> int | None:
        """The chunk after which the report before the one that is due after `chunk` chunks was; None: none is due."""
        ends = [-(-self.chunks * number // self.training.reports) for number in range(self.training.reports + 1)]
        return max(end for end in ends if end < chunk) if chunk in ends[1:] else None

    def _draws(self, epoch: int, chunk: int) -> dict[str, Tensor]:
        lead = (self.training.chunk,)
        before = epoch * self.steps + chunk * self.training.chunk
        done = torch.arange(before, before + self.training.chunk, device=self.device)
        progress = {
            name: done / (self.training.epochs * self.steps)
            for name, item in self.noise_spec.items()
            if item.kind == "progress"
        }
        drawn = []
        for seed in self.seeds:
            generator = torch.Generator(self.device).manual_seed(seed_for(seed, "noise", epoch, chunk))
            drawn.append(draw_noise(self.noise_spec, generator, self.device, lead) | progress)
        return {name: torch.stack([draws[name] for draws in drawn], dim=1) for name in drawn[0]}

    def _step(self) -> None:
        rows = self.order.index_select(1, self.step_in_epoch).squeeze(1).long()
        images = {name: digits.batch(self.pairs[name][rows].long()) for name, digits in self.digits.items()}
        noise = {name: value.index_select(0, self.step_in_chunk).squeeze(0) for name, value in self.noise.items()}
        means = self.learner.update(images, self.labels[rows], noise)
        if not self.names:
            self.names = list(means)
        if not len(self.means):
            self.means = torch.zeros((self.steps, len(means), len(self.seeds)), device=self.device)
        self.means.index_copy_(0, self.step_in_epoch, torch.stack(list(means.values())).unsqueeze(0))
        self.step_in_epoch += 1
        self.step_in_chunk += 1

    def _capture(self) -> None:
        """Record one step as a CUDA graph; the warm-up that this needs is undone, so no step is taken."""
        before = _stored(self.learner)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._at(0)
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        self._at(0)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        _put_back(self.learner, before)
        self.graph = graph


def _stored(learner) -> dict[str, Tensor]:
    """A copy of the learner's state: name -> (seeds, ...)."""
    return {name: torch.stack([value.contiguous() for value in each]) for name, each in learner.state().items()}


@torch.no_grad()
def _put_back(learner, stored: Mapping[str, Tensor]) -> None:
    for name, each in learner.state().items():
        for value, before in zip(each, stored[name], strict=True):
            value.copy_(before)


@dataclass
class _Position:
    """How far a run has come: the next chunk, the reports so far, and when each seed's loss left its plateau."""

    epoch: int = 0
    chunk: int = 0
    history: list[dict[str, list[float]]] = field(default_factory=list)
    left: dict[int, int] = field(default_factory=dict)  # place of the seed -> steps
    seconds: float = 0.0
    resumed: int = 0


def _run(loop: _Loop, at: _Position, report, training, checkpoint, key, checkpoint_seconds, stop_at, measure) -> None:
    """The host looks at the losses when a report or a checkpoint is due; between two looks it queues steps."""
    clock = _Clock(at.seconds)
    saved = time.monotonic()
    try:
        while at.epoch < training.epochs:
            loop.start_epoch(at.epoch)
            while at.chunk < loop.chunks:
                report.advance(loop.run_chunk(at.epoch, at.chunk))
                at.chunk += 1
                if loop.device.type == "cpu":  # looking costs nothing there
                    _check_finite(loop, at)
                if (before := loop.report_before(at.chunk)) is not None:
                    _check_finite(loop, at)
                    at.seconds = clock.seconds()
                    with clock.stopped():
                        _add_to_history(loop, at, before, measure)
                    report.line(at)
                at.seconds = clock.seconds()
                if at.chunk == loop.chunks:
                    break  # the next epoch is begun before it is saved
                now = time.monotonic()
                if checkpoint is not None and (now - saved > checkpoint_seconds or now > stop_at):
                    _check_finite(loop, at)
                    _save(checkpoint, key, loop, at)
                    saved = time.monotonic()
                    _check_time(now, stop_at, at, training)
            at.epoch, at.chunk = at.epoch + 1, 0
            if checkpoint is not None:
                _save(checkpoint, key, loop, at)
                saved = time.monotonic()
            if at.epoch < training.epochs:
                _check_time(time.monotonic(), stop_at, at, training)
    except KeyboardInterrupt:
        if checkpoint is not None and checkpoint.exists():
            raise KeyboardInterrupt(
                f"stopped in epoch {at.epoch + 1}; fit with the same folder goes on from the last checkpoint"
            ) from None
        raise


class _Clock:
    """Seconds of training: those before this process, and its own, less what is not training."""

    def __init__(self, before: float):
        self.started = time.monotonic() - before

    def seconds(self) -> float:
        return time.monotonic() - self.started

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        at = time.monotonic()
        yield
        self.started += time.monotonic() - at


def _add_to_history(loop: _Loop, at: _Position, before: int, measure) -> None:
    """The report of the chunks from `before` to where the run is: mean terms, what is measured, and who left."""
    chunk, steps = loop.training.chunk, loop.steps
    means = loop.means[before * chunk : min(at.chunk * chunk, steps)]
    row = dict(zip(loop.names, means.double().mean(dim=0).tolist(), strict=True))
    if loop.learner.config.plateau:
        name, value = loop.learner.config.plateau
        for number, part in enumerate(means[:, loop.names.index(name)].split(chunk), start=before + 1):
            for seed in (part.mean(dim=0) < LEFT * value).nonzero().flatten().tolist():
                at.left.setdefault(seed, at.epoch * steps + min(number * chunk, steps))
    if measure is not None:
        found = [measure(model, seed) for model, seed in zip(loop.learner.models(), loop.seeds, strict=True)]
        row |= {name: [each[name] for each in found] for name in found[0]}
    at.history.append(row)


def _check_time(now: float, stop_at: float, at: _Position, training: TrainingConfig) -> None:
    if now > stop_at:
        raise OutOfTime(
            f"the time given is over in epoch {at.epoch + 1} of {training.epochs}; the same command goes on from there"
        )


def _check_finite(loop: _Loop, at: _Position) -> None:
    """Raise NonFiniteLoss for the first step of this epoch with a term that is not finite."""
    done = min(at.chunk * loop.training.chunk, loop.steps)
    finite = torch.isfinite(loop.means[:done])
    if bool(finite.all()):
        return
    step, _, seed = (int(v) for v in (~finite).nonzero()[0])
    # the objective is never alone: the term that broke it stands beside it
    values = dict(zip(loop.names, loop.means[step, :, seed].tolist(), strict=True))
    broken = ", ".join(f"{name} is {value}" for name, value in values.items() if not math.isfinite(value))
    raise NonFiniteLoss(
        f"{broken} at epoch {at.epoch + 1}, step {step + 1}, seed {loop.seeds[seed]}; "
        "a smaller learning rate or a larger scale of the likelihood usually helps"
    )


def _save(path: Path, key: str, loop: _Loop, at: _Position) -> None:
    content = {
        "key": key,
        "state": _stored(loop.learner),
        "means": loop.means[: at.chunk * loop.training.chunk].clone(),
        "names": loop.names,
        "position": asdict(at),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        torch.save(content, part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _restore(path: Path, key: str, loop: _Loop) -> _Position:
    try:
        content = torch.load(path, map_location=loop.device, weights_only=True)
    except Exception as error:  # torch.load raises whatever unpickling or unzipping meets
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}); delete it to start this run anew"
        ) from error
    if content.get("key") != key:
        raise CheckpointError(
            f"{path} belongs to a run with another config, data, seeds or device; choose another folder or delete it"
        )
    _put_back(loop.learner, content["state"])
    loop.names = content["names"]
    loop.means = torch.zeros((loop.steps, *content["means"].shape[1:]), device=loop.device)
    loop.means[: len(content["means"])] = content["means"]
    at = _Position(**content["position"])
    at.resumed += 1
    return at


def _cost(at: _Position, loop: _Loop, device: torch.device) -> dict:
    cost = {"seconds": at.seconds, "steps": loop.steps * loop.training.epochs, "resumed": at.resumed}
    if device.type == "cuda":
        cost["peak_device_bytes"] = torch.cuda.max_memory_allocated(device)
    return cost


class _Report:
    """A bar for people, one line an epoch elsewhere, each with an estimate of the time that is left."""

    def __init__(self, mode: str, epochs: int, steps: int, chunk: int, at: _Position, taken: int):
        """chunk: steps of a chunk. taken: steps of the current epoch that a resumed run has already taken."""
        if mode not in ("auto", "bar", "lines", "none"):
            raise ValueError(f'unknown progress {mode!r}; known: "auto", "bar", "lines", "none"')
        if mode == "auto":
            mode = "bar" if sys.stdout.isatty() else "lines"
        self.mode, self.epochs, self.steps, self.chunk = mode, epochs, steps, chunk
        self.done = 0
        self.left = (epochs - at.epoch) * steps - taken
        self.started = time.monotonic()
        self.bar = None
        self.at = at

    def __enter__(self) -> _Report:
        if self.mode != "none" and self.at.resumed and self.left:
            print(f"resumed in epoch {self.at.epoch + 1} of {self.epochs}", flush=True)
        if self.mode == "bar":
            self.bar = tqdm(total=self.left, unit="step", file=sys.stdout)
        return self

    def __exit__(self, *exception) -> None:
        if self.bar is not None:
            self.bar.close()

    def advance(self, steps: int) -> None:
        self.done += steps
        if self.bar is not None:
            self.bar.update(steps)

    def line(self, at: _Position) -> None:
        if self.mode != "lines":
            return
        rate = self.done / max(time.monotonic() - self.started, 1e-9)
        left = max(self.left - self.done, 0) / rate
        means = at.history[-1]
        named = ("objective", "elbo/joint", "quadruplet")
        shown = ", ".join(f"{name} {sum(means[name]) / len(means[name]):.4g}" for name in named if name in means)
        done = at.epoch + min(at.chunk * self.chunk / self.steps, 1.0)
        print(f"epoch {done:.3g}/{self.epochs}: {shown}; {rate:.1f} steps/s, {left / 60:.1f} min left", flush=True)
