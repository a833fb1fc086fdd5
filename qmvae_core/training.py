"""`fit`: the training loop, its checkpoints and its report.

Every draw is a pure function of (seed, epoch, chunk), never of a generator's history. So a killed run resumes to the
same bits, and several seeds trained as one stack see the very draws that each would see alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from tqdm import tqdm

from qmvae_core.data import Digits, tuple_indices
from qmvae_core.models import ModelConfig, build_model, draw_noise
from qmvae_core.negatives import check_labels

PRECISIONS = {"float32": "ieee", "tf32": "tf32"}


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how fast to train; the defaults are the paper's (section 4.1)."""

    epochs: int = 10
    steps_per_epoch: int | None = None  # None: every pair once an epoch
    batch_size: int = 128
    learning_rate: float = 1e-4
    rounds: int = 30  # rounds of MMVAE's pairing; 30 gives the 1,682,040 pairs that the paper names
    pair_seed: int = 0
    chunk: int = 100  # steps between two looks at the loss; draws are made a chunk at a time
    precision: str = "float32"  # or "tf32": tensor cores of a GPU, for matrix products and convolutions


class NonFiniteLoss(RuntimeError):
    """A term of the loss was not finite; the message names seed, epoch, step and term."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read or belongs to another run."""


@dataclass(frozen=True)
class Trained:
    """What `fit` returns: one model and one history (a list of epochs' mean terms) for each seed, and the cost."""

    models: list[nn.Module]
    histories: list[list[dict[str, float]]]
    cost: dict


def fit(
    model: ModelConfig,
    training: TrainingConfig,
    train: Mapping[str, Digits],
    seeds: Sequence[int] = (0,),
    *,
    folder: str | Path | None = None,
    device: str | torch.device = "cpu",
    stacked: bool | None = None,
    progress: str = "auto",
    checkpoint_seconds: float = 30.0,
) -> Trained:
    """Train one model for each seed, all together.

    train: modality -> Digits. folder: where the checkpoint lives; a run found there is resumed, to the same bits on
    the CPU. stacked: train the seeds as one model with a leading dimension (the default on a GPU, where the step is
    also captured as a graph, and for several seeds) instead of in the plain loop (one seed). progress: "bar",
    "lines" (one an epoch), "none", or "auto": a bar on a terminal, else lines.

    Raises NonFiniteLoss, CheckpointError, and ValueError for modalities that do not match, an unknown precision, no
    seed or a batch with a single digit. An interrupt or a kill loses the work since the last checkpoint, no more.
    """
    device = torch.device(device)
    _check(model, training, train, seeds)
    train = {name: train[name] for name in model.modalities}  # no other modality, and no other order, has a say
    if stacked is None:
        stacked = device.type == "cuda" or len(seeds) > 1
    if not stacked and len(seeds) > 1:
        raise ValueError(f"the plain loop trains one seed at a time, got {list(seeds)}; leave `stacked` out")
    key = run_key(model, training, seeds, train)
    checkpoint = Path(folder) / "checkpoint.pt" if folder is not None else None
    with _precision(training.precision):
        learner = (_Stacked if stacked else _Plain)(model, training, seeds, device)
        loop = _Loop(learner, training, train, seeds, device)
        at = _Position()
        if checkpoint is not None and checkpoint.exists():
            at = _restore(checkpoint, key, learner, device)
        report = _Report(progress, training.epochs, loop.steps, at, taken=at.chunk * training.chunk)
        with report:
            _run(loop, learner, at, report, training, checkpoint, key, checkpoint_seconds)
    histories = [[{name: row[i] for name, row in epoch.items()} for epoch in at.history] for i in range(len(seeds))]
    return Trained(learner.models(), histories, _cost(at, loop, device))


def run_key(model: ModelConfig, training: TrainingConfig, seeds: Sequence[int], train: Mapping[str, Digits]) -> str:
    """A hash of all that decides a run's result; a checkpoint with another key is not resumed."""
    content = [(name, _digest(train[name].images), _digest(train[name].labels)) for name in model.modalities]
    text = json.dumps([model.to_dict(), asdict(training), list(seeds), content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.cpu().contiguous().numpy()).hexdigest()


def seed_for(*parts: object) -> int:
    """A generator seed in 63 bits from any parts, e.g. seed_for(seed, "noise", epoch, chunk)."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _check(model: ModelConfig, training: TrainingConfig, train: Mapping[str, Digits], seeds: Sequence[int]) -> None:
    missing = sorted(set(model.modalities) - set(train))
    if missing:
        raise ValueError(f"the model has modalities that the data lacks: {missing}; the data has {sorted(train)}")
    if training.precision not in PRECISIONS:
        raise ValueError(f"unknown precision {training.precision!r}; the known ones are {sorted(PRECISIONS)}")
    if not seeds:
        raise ValueError("fit needs at least one seed")
    for name in ("epochs", "batch_size", "rounds", "chunk"):
        if getattr(training, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(training, name)}")
    if training.steps_per_epoch is not None and training.steps_per_epoch < 1:
        raise ValueError(f"steps_per_epoch must be at least 1 or None, got {training.steps_per_epoch}")


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
    """One seed, the loop that everybody knows: loss, backward, Adam."""

    def __init__(self, model: ModelConfig, training: TrainingConfig, seeds: Sequence[int], device: torch.device):
        (seed,) = seeds
        self.model = build_model(model, seed).to(device)
        self.optimiser = _adam(self.model.parameters(), training, device)
        self.noise_spec = self.model.noise_spec(training.batch_size)

    def update(self, images: Mapping[str, Tensor], labels: Tensor, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step; every input has a leading dimension of one seed. Returns the mean terms, (1,) each."""
        result = self.model.loss(_first(images), labels[0], _first(noise))
        self.optimiser.zero_grad(set_to_none=False)
        result.loss.backward()
        self.optimiser.step()
        means = {"objective": result.objective, **result.terms}
        return {name: value.detach().mean(dim=-1, keepdim=True) for name, value in means.items()}

    def parameters(self) -> dict[str, Tensor]:
        return {name: value.detach().unsqueeze(0) for name, value in self.model.named_parameters()}

    def models(self) -> list[nn.Module]:
        return [self.model]


class _Stacked:
    """Several seeds as one model: each parameter has a leading dimension, and torch.func.vmap maps the loss over it.

    The gradient of the sum of the seeds' losses is each seed's own gradient, and Adam works element by element, so
    each seed takes the step that it would take alone.
    """

    def __init__(self, model: ModelConfig, training: TrainingConfig, seeds: Sequence[int], device: torch.device):
        built = [build_model(model, seed).to(device) for seed in seeds]
        self.config, self.seeds, self.device = model, seeds, device
        self.stack, _ = stack_module_state(built)
        self.skeleton = built[0].to("meta")
        self.optimiser = _adam(self.stack.values(), training, device)
        self.noise_spec = self.skeleton.noise_spec(training.batch_size)

    def update(self, images: Mapping[str, Tensor], labels: Tensor, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step; every input has a leading dimension of seeds. Returns the mean terms, (seeds,) each."""
        objective, terms = vmap(self._one)(self.stack, images, labels, noise)
        self.optimiser.zero_grad(set_to_none=False)
        (-objective.mean(dim=-1)).sum().backward()
        self.optimiser.step()
        return {name: value.detach().mean(dim=-1) for name, value in {"objective": objective, **terms}.items()}

    def _one(self, parameters, images, labels, noise):
        return tuple(functional_call(self.skeleton, parameters, (images, labels, noise)))

    def parameters(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self.stack.items()}

    def models(self) -> list[nn.Module]:
        found = []
        for i, seed in enumerate(self.seeds):
            model = build_model(self.config, seed)
            model.load_state_dict({name: value.detach()[i].cpu() for name, value in self.stack.items()})
            found.append(model.to(self.device))
        return found


def _adam(parameters, training: TrainingConfig, device: torch.device) -> torch.optim.Adam:
    parameters = list(parameters)
    for value in parameters:
        value.grad = torch.zeros_like(value)
    return torch.optim.Adam(parameters, lr=training.learning_rate, fused=True, capturable=device.type == "cuda")


def _first(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value[0] for name, value in values.items()}


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
        self.noise = self._draws(0, 0)
        self.names: list[str] = []
        self.means = torch.zeros(0, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None

    def start_epoch(self, epoch: int) -> None:
        """Shuffle the pairs of each seed; a last short batch is filled up from the start of the same shuffle."""
        rows = self.steps * self.training.batch_size
        for i, seed in enumerate(self.seeds):
            generator = torch.Generator().manual_seed(seed_for(seed, "order", epoch))
            order = torch.randperm(len(self.labels), generator=generator, dtype=torch.int32)
            repeated = order.repeat(-(-rows // len(order)))[:rows]
            self.order[i].copy_(repeated.view(self.steps, -1))
        check_labels(self.labels[self.order.long()])

    def run_chunk(self, epoch: int, chunk: int) -> Tensor:
        """Take the steps of one chunk; returns the mean terms (steps, terms, seeds) on the device."""
        start = chunk * self.training.chunk
        count = min(self.training.chunk, self.steps - start)
        for name, value in self._draws(epoch, chunk).items():
            self.noise[name].copy_(value)
        if self.device.type == "cuda" and self.graph is None:
            self._capture()
        self.step_in_epoch.fill_(start)
        self.step_in_chunk.zero_()
        for _ in range(count):
            if self.graph is None:
                self._step()
            else:
                self.graph.replay()
        return self.means[:count]

    @property
    def chunks(self) -> int:
        return -(-self.steps // self.training.chunk)

    def _draws(self, epoch: int, chunk: int) -> dict[str, Tensor]:
        lead = (self.training.chunk,)
        drawn = []
        for seed in self.seeds:
            generator = torch.Generator(self.device).manual_seed(seed_for(seed, "noise", epoch, chunk))
            drawn.append(draw_noise(self.learner.noise_spec, generator, self.device, lead))
        return {name: torch.stack([draws[name] for draws in drawn], dim=1) for name in drawn[0]}

    def _step(self) -> None:
        rows = self.order.index_select(1, self.step_in_epoch).squeeze(1).long()
        images = {name: digits.batch(self.pairs[name][rows].long()) for name, digits in self.digits.items()}
        noise = {name: value.index_select(0, self.step_in_chunk).squeeze(0) for name, value in self.noise.items()}
        means = self.learner.update(images, self.labels[rows], noise)
        if not self.names:
            self.names = list(means)
            self.means = torch.zeros((self.training.chunk, len(means), len(self.seeds)), device=self.device)
        self.means.index_copy_(0, self.step_in_chunk, torch.stack(list(means.values())).unsqueeze(0))
        self.step_in_epoch += 1
        self.step_in_chunk += 1

    def _capture(self) -> None:
        """Record one step as a CUDA graph; the warm-up that this needs is undone, so no step is taken."""
        learner = self.learner
        weights = {name: value.clone() for name, value in learner.parameters().items()}
        state = _copy_state(learner.optimiser)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.step_in_epoch.zero_()
                self.step_in_chunk.zero_()
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        for name, value in learner.parameters().items():
            value.copy_(weights[name])
        _restore_state(learner.optimiser, state)
        self.graph = graph


def _copy_state(optimiser: torch.optim.Optimizer) -> list[dict[str, Tensor]] | None:
    states = [optimiser.state[p] for group in optimiser.param_groups for p in group["params"] if p in optimiser.state]
    return [{name: value.clone() for name, value in state.items()} for state in states] or None


def _restore_state(optimiser: torch.optim.Optimizer, before: list[dict[str, Tensor]] | None) -> None:
    """Put the optimiser's tensors back in place (zeros, if it had none); the graph holds on to their addresses."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for i, parameter in enumerate(parameters):
        for name, value in optimiser.state[parameter].items():
            value.copy_(before[i][name]) if before else value.zero_()


@dataclass
class _Position:
    """How far a run has come: the next chunk, the sums of the epoch so far, and the finished epochs."""

    epoch: int = 0
    chunk: int = 0
    sums: Tensor | None = None
    history: list[dict[str, list[float]]] = None
    seconds: float = 0.0
    resumed: int = 0

    def __post_init__(self):
        self.history = self.history if self.history is not None else []


def _run(loop, learner, at: _Position, report, training, checkpoint, key, checkpoint_seconds) -> None:
    saved = started = time.monotonic()
    before = at.seconds
    try:
        while at.epoch < training.epochs:
            loop.start_epoch(at.epoch)
            while at.chunk < loop.chunks:
                means = loop.run_chunk(at.epoch, at.chunk)
                _check_finite(means, loop, at)
                total = means.double().sum(dim=0).cpu()
                at.sums = total if at.sums is None else at.sums + total
                at.chunk += 1
                at.seconds = before + time.monotonic() - started
                report.advance(len(means))
                due = time.monotonic() - saved > checkpoint_seconds and at.chunk < loop.chunks  # else the epoch saves
                if checkpoint is not None and due:
                    _save(checkpoint, key, learner, at)
                    saved = time.monotonic()
            at.history.append(dict(zip(loop.names, (at.sums / loop.steps).tolist(), strict=True)))
            at.epoch, at.chunk, at.sums = at.epoch + 1, 0, None
            report.epoch(at)
            if checkpoint is not None:
                _save(checkpoint, key, learner, at)
                saved = time.monotonic()
    except KeyboardInterrupt:
        if checkpoint is not None and checkpoint.exists():
            raise KeyboardInterrupt(
                f"stopped in epoch {at.epoch + 1}; fit with the same folder goes on from the last checkpoint"
            ) from None
        raise


def _check_finite(means: Tensor, loop: _Loop, at: _Position) -> None:
    finite = torch.isfinite(means)
    if bool(finite.all()):
        return
    step, _, seed = (int(v) for v in (~finite).nonzero()[0])
    # the objective is never alone: the term that broke it stands beside it
    values = dict(zip(loop.names, means[step, :, seed].tolist(), strict=True))
    broken = ", ".join(f"{name} is {value}" for name, value in values.items() if not math.isfinite(value))
    raise NonFiniteLoss(
        f"{broken} at epoch {at.epoch + 1}, "
        f"step {at.chunk * loop.training.chunk + step + 1}, seed {loop.seeds[seed]}; "
        "a smaller learning rate or a larger scale of the likelihood usually helps"
    )


def _save(path: Path, key: str, learner, at: _Position) -> None:
    content = {
        "key": key,
        "parameters": learner.parameters(),
        "optimiser": learner.optimiser.state_dict(),
        "position": {"epoch": at.epoch, "chunk": at.chunk, "sums": at.sums, "history": at.history,
                     "seconds": at.seconds, "resumed": at.resumed},
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        torch.save(content, part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _restore(path: Path, key: str, learner, device: torch.device) -> _Position:
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch.load raises whatever unpickling or unzipping meets
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}); delete it to start this run anew"
        ) from error
    if content.get("key") != key:
        raise CheckpointError(
            f"{path} belongs to a run with another config, data or seeds; choose another folder or delete the file"
        )
    with torch.no_grad():
        for name, value in learner.parameters().items():
            value.copy_(content["parameters"][name])
    learner.optimiser.load_state_dict(content["optimiser"])
    position = content["position"]
    sums = position["sums"]
    return _Position(**{**position, "sums": None if sums is None else sums.cpu(), "resumed": position["resumed"] + 1})


def _cost(at: _Position, loop: _Loop, device: torch.device) -> dict:
    cost = {"seconds": at.seconds, "steps": loop.steps * loop.training.epochs, "resumed": at.resumed}
    if device.type == "cuda":
        cost["peak_device_bytes"] = torch.cuda.max_memory_allocated(device)
    return cost


class _Report:
    """A bar for people, one line an epoch elsewhere, each with an estimate of the time that is left."""

    def __init__(self, mode: str, epochs: int, steps: int, at: _Position, taken: int):
        """taken: steps of the current epoch that a resumed run has already taken."""
        if mode not in ("auto", "bar", "lines", "none"):
            raise ValueError(f'unknown progress {mode!r}; known: "auto", "bar", "lines", "none"')
        if mode == "auto":
            mode = "bar" if sys.stdout.isatty() else "lines"
        self.mode, self.epochs, self.steps = mode, epochs, steps
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

    def epoch(self, at: _Position) -> None:
        if self.mode != "lines":
            return
        rate = self.done / max(time.monotonic() - self.started, 1e-9)
        left = max(self.left - self.done, 0) / rate
        means = at.history[-1]
        named = ("objective", "elbo/joint", "quadruplet")
        shown = ", ".join(f"{name} {sum(means[name]) / len(means[name]):.4g}" for name in named if name in means)
        print(f"epoch {at.epoch}/{self.epochs}: {shown}; {rate:.1f} steps/s, {left / 60:.1f} min left", flush=True)
