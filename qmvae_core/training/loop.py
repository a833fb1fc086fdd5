"""The training loop, its checkpoints and its report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from qmvae_core.data import Digits
from qmvae_core.models import ModelConfig
from qmvae_core.names import known
from qmvae_core.stops import LEFT, NonFiniteLoss, OutOfTime
from qmvae_core.training.batches import Steps
from qmvae_core.training.checkpoint import Position, restore, run_key, save
from qmvae_core.training.config import TrainingConfig, check_precision, default_loop, in_precision
from qmvae_core.training.learners import LOOPS
from qmvae_core.training.progress import Clock, Report


@dataclass(frozen=True)
class Trained:
    """What `fit` returns: one model and one history for each seed, and the cost.

    A history is a list of each report's mean terms, and of what `measure` found then. left: for each seed the number of
    steps after which the loss that has a plateau had left it, or None if it never did; empty for a model without one.
    by: what `fit` was told of all who trained it.
    """

    models: list[nn.Module]
    histories: list[list[dict[str, float]]]
    cost: dict
    left: list[int | None]
    by: list[dict]


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
    stop: Callable[[], str] = str,
    measure: Callable[[nn.Module, int], Mapping[str, float]] | None = None,
    by: Mapping[str, object] | None = None,
) -> Trained:
    """Train one model for each seed, all together.

    train: modality -> Digits. folder: where the checkpoint lives; a run found there is resumed, to the same bits on
    the CPU. loop: one of LOOPS; None takes "stacked" on a GPU and "fast" elsewhere. progress: "bar", "lines" (one an
    epoch), "none", or "auto": a bar on a terminal, else lines. minutes: stop after so many, with a checkpoint. stop:
    asked after each chunk of steps for another reason to stop so; "" for none.
    measure: a function of a model and its seed that finds named values for the history at each report; the time that it
    takes is not counted as training. by: who trains, such as a commit; a checkpoint keeps all who did.

    Raises NonFiniteLoss, CheckpointError, OutOfTime, and ValueError for modalities that do not match, an unknown loop
    or precision, a precision that this loop or processor lacks, no seed, minutes without a folder, or batches that can
    never hold what the model needs. An interrupt or a kill loses the work since the last checkpoint, no more.
    """
    device = torch.device(device)
    loop = loop or default_loop(device)
    known(LOOPS, "loop", loop)
    if minutes is not None and (folder is None or not 0 < minutes < math.inf):
        raise ValueError(f"a training that stops needs a folder to go on from, and minutes above zero, not {minutes}")
    _check(model, train, seeds)
    check_precision(training.precision, device, loop)
    train = {name: train[name] for name in model.modalities}  # no other modality, and no other order, has a say
    key = run_key(model, training, seeds, train, device.type)
    checkpoint = Path(folder) / "checkpoint.pt" if folder is not None else None
    stop_at = math.inf if minutes is None else time.monotonic() + 60 * minutes

    def over() -> str:
        return stop() or ("the time given is over" if time.monotonic() > stop_at else "")

    with in_precision(training.precision):
        learner = LOOPS[loop](model, training, seeds, device)
        steps = Steps(learner, training, train, seeds, device)
        at = Position()
        if checkpoint is not None and checkpoint.exists():
            at = restore(checkpoint, key, steps)
            at.resumed += 1
        if by is not None and dict(by) not in at.by:
            at.by.append(dict(by))
        taken = min(at.chunk * training.chunk, steps.steps)
        report = Report(progress, training.epochs, steps.steps, training.chunk, at, taken)
        with report:
            _run(steps, at, report, training, checkpoint, key, checkpoint_seconds, over, measure)
    histories = [[{name: row[i] for name, row in each.items()} for each in at.history] for i in range(len(seeds))]
    left = [at.left.get(i) for i in range(len(seeds))] if model.plateau else []
    return Trained(learner.models(), histories, {"loop": loop, **_cost(at, steps, device)}, left, at.by)


def _check(model: ModelConfig, train: Mapping[str, Digits], seeds: Sequence[int]) -> None:
    missing = sorted(set(model.modalities) - set(train))
    if missing:
        raise ValueError(f"the model has modalities that the data lacks: {missing}; the data has {sorted(train)}")
    for name, modality in model.modalities.items():
        if (given := tuple(train[name].images.shape)) != (len(train[name]), *modality.shape):
            wanted = ", ".join(map(str, modality.shape))
            raise ValueError(f"the data of {name!r} must be (n, {wanted}), as its config says, not {given}")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"fit needs at least one seed and none twice, got {list(seeds)}")
    if torch.get_default_dtype() != torch.float32:
        raise ValueError(f"a training is in float32, not {torch.get_default_dtype()}; set it with set_default_dtype")


def _run(loop: Steps, at: Position, report, training, checkpoint, key, checkpoint_seconds, over, measure) -> None:
    """The host looks at the losses when a report or a checkpoint is due; between two looks it queues steps."""
    clock, saved = Clock(at.seconds), time.monotonic()
    loop.start_epoch(at.epoch)
    try:
        while at.epoch < training.epochs:
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
            ended = at.chunk == loop.chunks
            if ended:  # the next epoch is begun before it is saved
                at.epoch, at.chunk = at.epoch + 1, 0
            now, why = time.monotonic(), over()
            if checkpoint is not None and (ended or now - saved > checkpoint_seconds or why):
                _check_finite(loop, at)
                save(checkpoint, key, loop, at)
                saved = time.monotonic()
                if why and at.epoch < training.epochs:
                    where = f"epoch {at.epoch + 1} of {training.epochs}"
                    raise OutOfTime(f"{why} in {where}; the same command goes on from there")
            if ended and at.epoch < training.epochs:
                loop.start_epoch(at.epoch)
    except KeyboardInterrupt:
        if checkpoint is not None and checkpoint.exists():
            raise KeyboardInterrupt(f"stopped in epoch {at.epoch + 1}; fit with the same folder goes on") from None
        raise


def _add_to_history(loop: Steps, at: Position, before: int, measure) -> None:
    """The report of the chunks from `before` to where the run is: mean terms, what is measured, and who left."""
    chunk, steps = loop.training.chunk, loop.steps
    means = loop.means[before * chunk : min(at.chunk * chunk, steps)]
    row = dict(zip(loop.names, means.double().mean(dim=0).tolist(), strict=True))
    if loop.learner.config.plateau:
        name, value = loop.learner.config.plateau
        for number, part in enumerate(means[:, loop.names.index(name)].split(chunk), start=before + 1):
            for seed in (part.mean(dim=0) < LEFT * value * loop.paired).nonzero().flatten().tolist():
                at.left.setdefault(seed, at.epoch * steps + min(number * chunk, steps))
    if measure is not None:
        found = [measure(model, seed) for model, seed in zip(loop.learner.models(), loop.seeds, strict=True)]
        row |= {name: [each[name] for each in found] for name in found[0]}
    at.history.append(row)


def _check_finite(loop: Steps, at: Position) -> None:
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


def _cost(at: Position, loop: Steps, device: torch.device) -> dict:
    peak = {"peak_device_bytes": torch.cuda.max_memory_allocated(device)} if device.type == "cuda" else {}
    return {"seconds": at.seconds, "steps": loop.steps * loop.training.epochs, "resumed": at.resumed} | peak
