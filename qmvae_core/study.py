"""The plan of all runs, and what carries it out.

An evidence folder holds what a profile's runs leave: runs/*.json (a record for each seed), weights/, panels/, oracles/
and work/ (checkpoints and executed notebooks). `results/` is the committed one; a run writes to `runs/<profile>/`.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import nn

from qmvae_core import hunt, records, sensitivity
from qmvae_core.data import STAND_IN, DigitData, load_digits, validation_split
from qmvae_core.evaluation import at_a_glance, evaluate, joint_code
from qmvae_core.models import ModelConfig, build_model, from_known_fields, reading, training_changes
from qmvae_core.models.readings import BEST, MODELS_COMPARED
from qmvae_core.oracles import CONFIGS, DigitClassifier, OracleConfig, prepare_oracles
from qmvae_core.panels import make_panels
from qmvae_core.paper import TRAIN_PAIRS
from qmvae_core.training import NonFiniteLoss, OutOfTime, Trained, TrainingConfig, fit, seconds_a_step

RESULTS = records.REPOSITORY / "results"
NOTEBOOKS = records.REPOSITORY / "notebooks"
TRAINING_NOTEBOOK = NOTEBOOKS / "07_train.ipynb"
RESULTS_NOTEBOOKS = ("08_table1", "09_table2", "10_figure3", "11_figure4", "12_figure5", "13_verdicts")
# What evaluation came to measure when there were records already: `amend` gives it to them.
LATER_METRICS = {"joint_code": joint_code}
# For processes that train on a CPU: PyTorch then asks the system for large pages of memory, where it has them.
MEMORY_SETTINGS = {"THP_MEM_ALLOC_ENABLE": "1"}
SEED_LIMIT = 2**32  # of NumPy's RandomState, by which the pairs of a seed are drawn
LONGEST_NAME = (
    120  # letters of a reading in the names of files, which a file system limits to 255 with all that is added
)
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
PAPER_ROUNDS = TrainingConfig().rounds  # which give TRAIN_PAIRS
SIDE_BY_SIDE = 2  # processes that train on a CPU by default
PATIENCE = 120.0  # seconds to wait for another process's lock; one whose parent has died is gone in two

# Papermill, which ends at once when its standard input does: that is a pipe, and only the process that started it holds
# the other end. The kernel below sees within a second that papermill is gone, and ends too.
PAPERMILL = """\
import os, threading
from papermill.cli import papermill
threading.Thread(target=lambda: os.read(0, 1) or os._exit(1), daemon=True).start()
papermill()
"""


@dataclass(frozen=True)
class Profile:
    """How much of the study to do. readings, seeds and precisions span its plan; more_seeds replaces those of some."""

    name: str
    training: TrainingConfig
    readings: tuple[str, ...] = (BEST,)
    seeds: tuple[int, ...] = (0,)
    more_seeds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    validation: bool = False  # train on nine tenths of the training digits and judge on the rest, to make a choice
    precisions: tuple[str, ...] = ("float32",)
    stacked: bool = False  # on a GPU all seeds of a reading in one run
    data_root: str | None = None  # None: look for a data root
    oracles: Mapping[str, OracleConfig] = field(default_factory=lambda: CONFIGS)


# 3,000 steps instead of 131,410; the learning rate is ten times the paper's, to get far in so few.
SHORT = TrainingConfig(epochs=10, steps_per_epoch=300, learning_rate=1e-3)
# A tenth of the paper's steps, every pair once, and ten times its rate: the same product of rate and steps.
EPOCH = TrainingConfig(epochs=1, steps_per_epoch=13_141, learning_rate=1e-3, reports=5)
PROFILES = {
    "smoke": Profile(
        "smoke",
        TrainingConfig(epochs=2, steps_per_epoch=8, batch_size=64, learning_rate=1e-3, rounds=2, chunk=4),
        data_root=STAND_IN,
        oracles={name: OracleConfig(epochs=2, channels=8, batch_size=32) for name in CONFIGS},
    ),
    "quick": Profile("quick", SHORT, MODELS_COMPARED),
    "sensitivity": Profile(
        "sensitivity",
        SHORT,
        sensitivity.PLAN,
        more_seeds={sensitivity.BASE: sensitivity.SEEDS},
        validation=True,
    ),
    # What we do otherwise than a model's authors, one change at a time, to be compared with the runs of "quick".
    "deviations": Profile(
        "deviations",
        SHORT,
        ("mmvae+particles=1", "dmvae+empty_group=false", "jmvae-kl+alpha=1", "mopoe+beta=2.5"),
    ),
    # Whether bfloat16 changes a result: the same seeds by both precisions.
    "precision": Profile(
        "precision", SHORT, (f"{hunt.PRINTED}+all.scale=3.75",), tuple(range(5)), precisions=("float32", "bfloat16")
    ),
    "hunt": Profile("hunt", EPOCH, hunt.PLAN, hunt.SEEDS[:1], validation=True, precisions=("bfloat16",)),
    "epoch": Profile("epoch", EPOCH, MODELS_COMPARED, (0, 1, 2)),
    "paper": Profile("paper", TrainingConfig(), MODELS_COMPARED, tuple(range(5)), stacked=True),
    # The authors' own length, batch and learning rate, where they trained on MNIST-SVHN and a GPU's hours allow it.
    "published": Profile(
        "published",
        TrainingConfig(epochs=50, batch_size=1024, learning_rate=1e-3),
        ("dmvae",),
        tuple(range(5)),
        stacked=True,
    ),
}


def profile(name: str) -> Profile:
    """The named profile. Raises ValueError for an unknown name."""
    if name not in PROFILES:
        raise ValueError(f"unknown profile {name!r}; the known ones are {sorted(PROFILES)}")
    return PROFILES[name]


def _check_seeds(seeds: Sequence[int]) -> None:
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0 or max(seeds) >= SEED_LIMIT:
        raise ValueError(f"seeds must be different, not negative and below 2**32, got {list(seeds)}")


@dataclass(frozen=True)
class Run:
    """One entry of the plan: a model under one reading, one seed or a stack of seeds, in one precision.

    Raises ValueError for an unknown profile, reading or precision, for a value that its field cannot have, and for
    seeds that are negative, given twice or too large.
    """

    profile: str
    reading: str
    seeds: tuple[int, ...]
    precision: str = "float32"

    def __post_init__(self):
        profile(self.profile)
        build_model(reading(self.reading))  # an impossible choice shows here, before any work
        _ = self.training
        _check_seeds(self.seeds)

    @property
    def training(self) -> TrainingConfig:
        """The profile's training, with what the reading changes of it."""
        return from_known_fields(
            TrainingConfig,
            {
                **asdict(profile(self.profile).training),
                "precision": self.precision,
                **training_changes(self.reading),
            },
        )

    @property
    def model(self) -> str:
        """The name of the model, as in `models.MODELS`."""
        return reading(self.reading).model

    @property
    def id(self) -> str:
        """A name for the run's folder."""
        return f"{self._name}-s{'_'.join(map(str, self.seeds))}"

    def record_id(self, seed: int) -> str:
        """The name of one seed's record, weights and panels."""
        return f"{self.profile}-{self._name}-seed{seed}"

    @property
    def _name(self) -> str:
        """Model, reading and, if it is not float32, precision; a reading too long for a file's name has a digest."""
        name = self.reading
        if len(name) > LONGEST_NAME:
            name = f"{name.partition('+')[0]}+{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        return f"{self.model}-{name}" + ("" if self.precision == "float32" else f"-{self.precision}")

    def config(self) -> dict:
        """All that decides the result beside seed and data."""
        return {"model": reading(self.reading).to_dict(), "training": asdict(self.training)}


def plan(
    name: str,
    readings: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    precision: str | None = None,
    stacked: bool = False,
) -> list[Run]:
    """The runs of a profile, in order; readings, seeds and precision replace the profile's own.

    stacked: the seeds of a reading in one run where the profile has them so, for a GPU. Raises like `Run`.
    """
    chosen = profile(name)
    precisions = (precision,) if precision else chosen.precisions
    if seeds is not None:
        _check_seeds(seeds)
    runs = []
    for each in readings or chosen.readings:
        numbers = tuple(seeds) if seeds else chosen.more_seeds.get(each, chosen.seeds)
        stacks = [numbers] if chosen.stacked and stacked else [(number,) for number in numbers]
        runs += [Run(name, each, stack, which) for which in precisions for stack in stacks]
    return runs


def device_here() -> str:
    """What "auto" stands for on this machine: "cuda" where there is a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def expected_hours(runs: Sequence[Run], device: str, workers: int) -> float:
    """Hours of training for runs of which so many go on side by side, from steps that are timed here and now.

    Judging is not counted. Raises ValueError for a precision that this machine lacks.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(len(os.sched_getaffinity(0)) // workers, 1))
    try:
        timed: dict[tuple[str, str, str], float] = {}
        total = 0.0
        for run in runs:
            kind = (run.profile, run.reading, run.precision)
            if kind not in timed:
                timed[kind] = seconds_a_step(reading(run.reading), run.training, device)
            total += timed[kind] * steps_of(run) * len(run.seeds)
    finally:
        torch.set_num_threads(before)
    return total / workers / 3600


def steps_of(run: Run) -> int:
    """The steps of one seed; those of an epoch that shows every pair once are of the official training digits."""
    training = run.training
    pairs = TRAIN_PAIRS // PAPER_ROUNDS * training.rounds
    return training.epochs * (training.steps_per_epoch or -(-pairs // training.batch_size))


def evidence_folder(name: str | Path) -> Path:
    """The folder that a notebook or command names, from the root of the repository unless absolute."""
    return records.REPOSITORY / name


def default_evidence(name: str) -> Path:
    """Where the runs of a profile go."""
    return records.REPOSITORY / "runs" / name


# One run, step by step; the training notebook calls these


def data_for(name: str, data_root: str | None = None) -> DigitData:
    """The digits that a profile is run on; data_root as in `data.load_digits`.

    In a profile that makes a choice, the validation part of the training digits stands in the place of the test set.
    """
    chosen = profile(name)
    data = load_digits(data_root or chosen.data_root)
    if not chosen.validation:
        return data
    kept, held_out = validation_split(data.train)
    counts = {"n_train": {k: len(v) for k, v in kept.items()}, "n_test": {k: len(v) for k, v in held_out.items()}}
    note = "Judged on a validation part of the training digits, not on the test set."
    return DigitData(kept, held_out, {**data.identity, **counts, "notes": [*data.identity["notes"], note]})


@contextlib.contextmanager
def alone(folder: Path, patience: float | None = None) -> Iterator[None]:
    """Hold the lock of a work folder; the system gives it back when this process ends, however it ends.

    Raises RuntimeError, with the name of the process that holds it, if it is not free within patience (PATIENCE)
    seconds, and OSError on a file system without locks.
    """
    patience = PATIENCE if patience is None else patience
    folder.mkdir(parents=True, exist_ok=True)
    started, waiting = time.monotonic(), False
    with open(folder / "lock", "a+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                holder = f"{file.read().strip() or 'another process'} works in {folder}"
                if time.monotonic() - started > patience:
                    raise RuntimeError(f"{holder}, and still did after {patience:.0f} s; end it or wait") from None
                if not waiting:
                    print(f"{holder}; waiting for it", flush=True)
                waiting = True
                time.sleep(0.2)
        file.truncate(0)
        print(f"process {os.getpid()} on {platform.node()}", file=file, flush=True)
        yield


def oracles_for(
    name: str, data: DigitData, evidence: Path, device: str | torch.device = "cpu"
) -> Mapping[str, DigitClassifier]:
    """The judges: the committed ones for real data; for the stand-in, trained once into the evidence folder."""
    if data.identity["kind"] == STAND_IN:
        with alone(evidence / "work" / "oracles", patience=3600.0):  # one of several runs trains them for all
            return prepare_oracles(data, evidence / "oracles", profile(name).oracles, device)
    return prepare_oracles(data, RESULTS / "oracles", device=device, train_missing=False)


def train(
    run: Run,
    data: DigitData,
    evidence: Path,
    device: str = "cpu",
    progress: str = "auto",
    minutes: float | None = None,
    oracles: Mapping[str, DigitClassifier] | None = None,
) -> Trained:
    """Train the run's seeds, from its checkpoint if there is one; a loss that is not finite leaves failure records.

    minutes: of training, after which OutOfTime is raised and the checkpoint is there to go on from. oracles: the judges
    by which each report of the history has accuracies (`evaluation.at_a_glance`); None: it has none.
    Raises what `fit` raises, and RuntimeError if another process works on this run and does not end.
    """
    folder = evidence / "work" / run.id / data.identity["content_hash"][:8]  # a checkpoint belongs to its data
    measure = None
    if oracles is not None:
        here = data.to(device)

        def measure(model: nn.Module, seed: int) -> dict[str, float]:
            return at_a_glance(model.eval(), here.train, here.test, oracles, seed)

    try:
        with alone(evidence / "work" / run.id):
            return fit(
                reading(run.reading), run.training, data.train, run.seeds,
                folder=folder, device=device, progress=progress, minutes=minutes, measure=measure,
            )  # fmt: skip
    except NonFiniteLoss as error:
        for seed in run.seeds:
            failed = _record(run, seed, data, device) | {"status": "failed", "error": str(error)}
            records.write_json(record_path(run, seed, evidence), failed)
        raise


def judge(
    run: Run, trained: Trained, data: DigitData, oracles: Mapping[str, DigitClassifier], evidence: Path
) -> list[dict]:
    """Evaluate each seed on the test digits, save weights and panels, and write the records; returns them.

    Raises RuntimeError if another process works on this run and does not end.
    """
    written = []
    with alone(evidence / "work" / run.id):
        for number, (seed, model) in enumerate(zip(run.seeds, trained.models, strict=True)):
            device = next(model.parameters()).device
            on_device = data.to(device)
            metrics = evaluate(model, on_device.train, on_device.test, oracles, seed)
            name = run.record_id(seed)
            weights = evidence / "weights" / f"{name}.safetensors"
            records.save_tensors(weights, model.state_dict())
            record = _record(run, seed, data, device) | {
                "status": "ok",
                "metrics": metrics,
                "history": trained.histories[number],
                **({"plateau": {"left": trained.left[number]}} if trained.left else {}),
                "panels": make_panels(model, oracles, on_device.test, seed, evidence / "panels", name),
                "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
                "cost": trained.cost,
            }
            records.write_json(record_path(run, seed, evidence), record)
            written.append(record)
    return written


def _record(run: Run, seed: int, data: DigitData, device: str | torch.device) -> dict:
    config = run.config()
    return {
        "format": records.FORMAT,
        "id": run.record_id(seed),
        "profile": run.profile,
        "model": run.model,
        "reading": run.reading,
        "seed": seed,
        "trained_together": list(run.seeds),
        "config": config,
        "config_hash": records.config_hash(config),
        "data": data.identity,
        "provenance": records.provenance(device),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def record_path(run: Run, seed: int, evidence: Path) -> Path:
    """Where the record of one seed lies."""
    return evidence / "runs" / f"{run.record_id(seed)}.json"


def _weights(record: Mapping, evidence: Path) -> Path:
    return evidence / "weights" / f"{record['id']}.safetensors"


def load_model(record: Mapping, evidence: Path) -> nn.Module:
    """The trained model of a record, in eval mode, on the CPU.

    Raises RecordError if its weights are missing or are not those that the record names.
    """
    path = _weights(record, evidence)
    if not path.exists():
        raise records.RecordError(f"there are no weights {path}; make them with: python -m qmvae_core run")
    if hashlib.sha256(path.read_bytes()).hexdigest() != record["weights_sha256"]:
        raise records.RecordError(f"{path} does not hold the weights that its record names; run it again")
    model = build_model(record["config"]["model"])
    model.load_state_dict(load_file(path))
    return model.eval()


def amend(evidence: Path, name: str, data_root: str | None = None) -> Iterator[tuple[str, str]]:
    """Give the finished records of a profile the LATER_METRICS that they lack, measured on their stored weights.

    Each names under "amended" the code and machine that measured what was added; nothing else in it changes, and one
    without weights is left as it is. Yields its id and what was done. data_root: as of `data_for`.
    Raises RecordError where there is no finished record, where the data are not those on which a record was judged,
    and where the weights are not its own.
    """
    done = records.load_records(evidence / "runs", profile=name, status="ok")
    if not done:
        raise records.RecordError(f"{evidence / 'runs'} has no finished record of the profile {name!r}")
    data = data_for(name, data_root)
    by = records.provenance()  # before the first record is changed, after which the repository is not clean
    for record in done:
        missing = [each for each in LATER_METRICS if each not in record["metrics"]]
        if not missing:
            yield record["id"], "lacks nothing"
            continue
        if not _weights(record, evidence).exists():
            yield record["id"], f"has no weights in {evidence / 'weights'}, so {', '.join(missing)} cannot be added"
            continue
        if any(record["data"][key] != data.identity[key] for key in ("content_hash", "n_test")):
            raise records.RecordError(f"record {record['id']} was judged on other data than those given")
        model = load_model(record, evidence)
        added = {each: LATER_METRICS[each](model, data.train, data.test, record["seed"]) for each in missing}
        record["metrics"] |= added
        record["amended"] = record.get("amended", {}) | dict.fromkeys(missing, by)
        records.write_json(evidence / "runs" / f"{record['id']}.json", record)
        yield record["id"], f"added {', '.join(missing)}"


# The whole plan


def state(run: Run, evidence: Path, real_data: bool = False) -> str:
    """ "done", "failed", "started" or "to do", by the records and checkpoint in the evidence folder.

    real_data: whether real data is at hand now; then what was run on the stand-in for lack of it is to do again.
    """
    found = []
    for seed in run.seeds:
        path = record_path(run, seed, evidence)
        record = records.read_record(path) if path.exists() else None
        replaced = record is not None and record["data"]["kind"] == STAND_IN and real_data
        other = record is None or not _same_config(run, record["config"])
        if other or (replaced and not profile(run.profile).data_root):
            return "started" if any((evidence / "work" / run.id).glob("*/checkpoint.pt")) else "to do"
        found.append(record["status"])
    return "failed" if "failed" in found else "done"


def _same_config(run: Run, config: Mapping) -> bool:
    """Whether a record's config says what the run says; a field younger than the record has its default there."""
    try:
        found = ModelConfig.from_dict(config["model"]), from_known_fields(TrainingConfig, config["training"])
    except (KeyError, ValueError):
        return False
    return found == (reading(run.reading), run.training)


def check_parameters(given: Iterable[str], known: Iterable[str]) -> None:
    """Raise ValueError for a parameter that a notebook does not have; papermill itself only warns."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"unknown parameter {', '.join(unknown)}; the known ones are {sorted(known)}")


class Lifeline:
    """A pipe of which this process alone holds the one end: what runs on the other ends when that one is closed."""

    def __enter__(self) -> int:
        self.ends = os.pipe()
        return self.ends[0]

    def __exit__(self, *exception) -> None:
        for end in self.ends:
            os.close(end)


def execute(
    notebook: Path,
    output: Path,
    parameters: Mapping,
    log: Path | None = None,
    threads: int | None = None,
    lifeline: int | None = None,
) -> None:
    """Run a notebook by papermill, in a process of its own that does not outlive this one.

    Its output is shown as it comes, or added to the file `log`. A notebook may be its own output. threads: of its
    arithmetic; None: the system's choice. lifeline: of a `Lifeline`; None: one of its own.
    Raises ValueError for a parameter that the notebook does not have, before anything runs, OutOfTime if its training
    does, and RuntimeError if a cell fails; the executed notebook, with the traceback, is kept as `output`.
    """
    from papermill import inspect_notebook  # slow to import, and only the study needs it

    check_parameters(parameters, inspect_notebook(str(notebook)))
    output.parent.mkdir(parents=True, exist_ok=True)
    if output != notebook:  # or a process that dies early would be blamed for what ended the one before
        output.unlink(missing_ok=True)
    command = [
        sys.executable, "-c", PAPERMILL, str(notebook), str(output), "--cwd", str(notebook.parent),
        "--parameters_yaml", json.dumps(dict(parameters)), "--stdout-file", "-", "--no-progress-bar",
        "--log-level", "WARNING",
    ]  # fmt: skip
    environment = _environment() | dict.fromkeys(THREADS if threads else (), str(threads))
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(log, "a")) if log else None
        held = stack.enter_context(Lifeline()) if lifeline is None else lifeline
        done = subprocess.run(
            command, env=environment, stdin=held, stdout=file, stderr=subprocess.STDOUT if log else None
        )
    if done.returncode:
        name, text = _error_of(output)
        if name == OutOfTime.__name__:
            raise OutOfTime(text)
        raise RuntimeError(f"{notebook.name} failed{f' with {name}: {text}' if name else ''}; the cell is in {output}")


def _error_of(executed: Path) -> tuple[str, str]:
    """The name and the text of the error that ended a notebook's execution; both empty if there was none."""
    cells = json.loads(executed.read_text())["cells"] if executed.exists() else []
    errors = [each for cell in cells for each in cell.get("outputs", []) if each["output_type"] == "error"]
    return (errors[-1]["ename"], errors[-1]["evalue"]) if errors else ("", "")


def _environment() -> dict[str, str]:
    """This process's environment, with a relative data root named in full: the notebook runs in another folder."""
    root = os.environ.get("QMVAE_DATA_ROOT")
    settings = {**MEMORY_SETTINGS, **os.environ}
    return settings if not root else {**settings, "QMVAE_DATA_ROOT": absolute_root(root)}


def absolute_root(root: str) -> str:
    """A data root in full, wherever it is used from then on; "stand-in" as it is."""
    return root if root == STAND_IN else str(Path(root).expanduser().absolute())


def carry_out(
    run: Run,
    evidence: Path,
    data_root: str | None = None,
    device: str = "auto",
    log: Path | None = None,
    minutes: float | None = None,
    threads: int | None = None,
    lifeline: int | None = None,
) -> None:
    """One run by papermill on the training notebook; its records are then in the evidence folder.

    minutes: of training, at most. Raises like `execute`, whose log, threads and lifeline these are.
    """
    parameters = {
        "profile": run.profile,
        "reading": run.reading,
        "seeds": list(run.seeds),
        "precision": run.precision,
        "device": device,
        "data_root": data_root,
        "evidence": str(evidence),
        "minutes": minutes,
    }
    output = evidence / "work" / run.id / TRAINING_NOTEBOOK.name
    execute(TRAINING_NOTEBOOK, output, parameters, log, threads, lifeline)


class Outcome(NamedTuple):
    """How one run went, for the command that reports it."""

    run: Run
    seconds: float
    error: BaseException | None = None
    at_once: int = 1  # how many runs go on side by side


def one_by_one(
    runs: Mapping[Run, str], evidence: Path, data_root: str | None, device: str, minutes: float | None = None
) -> Iterator[Outcome]:
    """Carry out the runs in this process's order; the values of `runs` name them in messages.

    minutes: for all of them; the outcome of the run in which they end has OutOfTime as its error, and is the last.
    """
    begun = time.monotonic()
    for run, label in runs.items():
        started, error = time.monotonic(), None
        left = None if minutes is None else minutes - (started - begun) / 60
        try:
            if left is not None and left <= 0:
                raise OutOfTime("the time given is over; the same command goes on from there")
            print(f"{label}: starts", flush=True)
            carry_out(run, evidence, data_root, device, minutes=left)
        except RuntimeError as caught:
            error = caught
        yield Outcome(run, time.monotonic() - started, error)
        if isinstance(error, OutOfTime):
            return


def side_by_side(
    next_run: Callable[[set[Run]], tuple[Run, str] | None],
    evidence_of: Callable[[Run], Path],
    data_root: str | None,
    device: str,
    workers: int,
    minutes: float | None = None,
) -> Iterator[Outcome]:
    """Carry out runs in so many processes that share the cores, each outcome as it comes.

    next_run: given the runs that are begun, one more with its name in messages, or None if there is none now; it is
    asked again after each outcome. Each run's output goes to a file beside its executed notebook. minutes: for all of
    them; the outcome of a run in which they end has OutOfTime as its error, and no other is begun.
    """
    begun: set[Run] = set()
    started = time.monotonic()
    threads = max(len(os.sched_getaffinity(0)) // workers, 1)

    def one(run: Run, label: str, lifeline: int) -> Outcome:
        at, error = time.monotonic(), None
        left = None if minutes is None else minutes - (at - started) / 60
        log = evidence_of(run) / "work" / run.id / "output.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        print(f"{label}: starts; output in {log}", flush=True)
        try:
            carry_out(run, evidence_of(run), data_root, device, log, left, threads, lifeline)
        except RuntimeError as caught:
            error = caught
        return Outcome(run, time.monotonic() - at, error, workers)

    with ThreadPoolExecutor(workers) as pool, Lifeline() as lifeline:  # closed first, so the threads end
        going: set[Future] = set()
        while True:
            out_of_time = minutes is not None and time.monotonic() - started > 60 * minutes
            while not out_of_time and len(going) < workers and (chosen := next_run(begun)) is not None:
                begun.add(chosen[0])
                going.add(pool.submit(one, *chosen, lifeline))
            if not going:
                return
            done, going = wait(going, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


def render(evidence: Path, notebooks: Path) -> None:
    """Execute the results notebooks of a copied book on an evidence folder, in place of the committed outputs."""
    for name in RESULTS_NOTEBOOKS:
        path = notebooks / f"{name}.ipynb"
        execute(path, path, {"evidence": str(evidence)})
        alternative_texts(path)


def alternative_texts(notebook: Path) -> None:
    """Copy the alternative text of each figure, its text/plain, to where the book's builder looks for it."""
    import nbformat  # as papermill, needed by the study alone

    content = nbformat.read(notebook, as_version=4)
    for cell in content.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                cell.metadata["mystnb"] = {"image": {"alt": output["data"]["text/plain"]}}
    nbformat.write(content, notebook)
