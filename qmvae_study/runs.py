"""One run, step by step: its data, its judges, its training, its record. The training notebook calls these."""

from __future__ import annotations

import datetime
import glob
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from qmvae_core.data import STAND_IN, DigitData, Digits, load_digits
from qmvae_core.evaluation import METRICS, Context, Judge, evaluate
from qmvae_core.files import file_hash
from qmvae_core.models import ModelConfig, build_model, from_known_fields
from qmvae_core.training import LOOPS, NonFiniteLoss, Trained, TrainingConfig, check_precision, fit
from qmvae_core.training.batches import Steps
from qmvae_core.training.config import default_loop, in_precision
from qmvae_study import diagnosis, harness, subsets
from qmvae_study.diagnosis import at_a_glance
from qmvae_study.evidence.folder import RESULTS, alone, remove_parts
from qmvae_study.evidence.provenance import provenance, trainer
from qmvae_study.evidence.records import FORMAT, Record, RecordError, config_hash, load_records, read_record, write_json
from qmvae_study.evidence.weights import save_tensors
from qmvae_study.judges import judges_there, load_published, prepare_oracles, prepare_published
from qmvae_study.oracles import DigitClassifier
from qmvae_study.panels import make_panels
from qmvae_study.plan import Run, profile, steps_of
from qmvae_study.shell import cores
from qmvae_study.signals import STOPPED, sigterm_later
from qmvae_study.text import TEXT, TextJudge, with_text
from qmvae_study.validation import validation_split


def device_named(name: str) -> str:
    """A device of this machine: "cpu", "cuda" or "cuda:1"; "auto" is "cuda" where there is a GPU, else "cpu".

    Raises ValueError for another name and for a device that is not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
        raise ValueError(f"unknown device {name!r}; the known ones are auto, cpu, cuda and cuda:NUMBER")
    if name != "cpu" and int(name.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise ValueError(f"this machine has {torch.cuda.device_count()} GPUs and no {name!r}; use --device cpu")
    return name


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
    learner = LOOPS[default_loop(device)](model, short, (0,), device)
    loop = Steps(learner, short, train, (0,), device)
    loop.start_epoch(0)
    seconds = []
    with in_precision(training.precision):
        for step in range(steps + 2):
            started = time.perf_counter()
            loop.run_chunk(0, step)
            loop.means.sum().item()  # waits for the device
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[2:])


def expected_hours(runs: Sequence[Run], device: str, workers: int) -> float:
    """Hours of training for runs of which so many go on side by side, from steps that are timed here and now.

    Judging is not counted. Raises ValueError for a precision that this machine lacks.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(cores() // workers, 1))
    try:
        kinds = {(run.profile, run.reading, run.precision): run for run in runs}
        timed = {kind: seconds_a_step(run.model_config, run.training, device) for kind, run in kinds.items()}
    finally:
        torch.set_num_threads(before)
    total = sum(timed[run.profile, run.reading, run.precision] * steps_of(run) * len(run.seeds) for run in runs)
    return total / workers / 3600


def data_for(name: str, data_root: str | None = None) -> DigitData:
    """The digits that a profile is run on, with their texts where it has them; data_root as in `data.load_digits`.

    In a profile that makes a choice, the validation part of the training digits stands in the place of the test set.
    """
    chosen = profile(name)
    data = load_digits(data_root or chosen.data_root)
    if chosen.text:
        return with_text(data)
    if not chosen.validation:
        return data
    kept, held_out = validation_split(data.train)
    counts = {"n_train": {k: len(v) for k, v in kept.items()}, "n_test": {k: len(v) for k, v in held_out.items()}}
    note = "Judged on a validation part of the training digits, not on the test set."
    return DigitData(kept, held_out, {**data.identity, **counts, "notes": [*data.identity["notes"], note]})


def oracles_for(name: str, data: DigitData, evidence: Path, device: str | torch.device = "cpu") -> Mapping[str, Judge]:
    """The judges: the committed ones for real data; for the stand-in, trained once into the evidence folder."""
    folder = _judges_folder(data.identity["kind"], evidence)
    if data.identity["kind"] == STAND_IN:
        with alone(evidence / "work" / "oracles", patience=3600.0):  # one of several runs trains them for all
            remove_parts(evidence / "oracles", "*")
            found = prepare_oracles(data, folder, profile(name).oracles, device)
    else:
        found = prepare_oracles(data, folder, device=device, train_missing=False)
    return {**found, TEXT: TextJudge()} if profile(name).text else found


def _judges_folder(kind: str, evidence: Path) -> Path:
    return (evidence if kind == STAND_IN else RESULTS) / "oracles"


def published_for(
    name: str, data: DigitData, evidence: Path, device: str | torch.device = "cpu"
) -> dict[int, Mapping[str, DigitClassifier]]:
    """The judges of the paper's harness by their seeds: the committed ones, or one of the stand-in's own.

    None where a profile has nothing measured by that harness.
    """
    if not profile(name).harness_passes:
        return {}
    if data.identity["kind"] == STAND_IN:
        work = evidence / "work" / "published"
        return prepare_published(data, evidence / "published", (0,), profile(name).published, work, device)
    return load_published(data, RESULTS / "published", device)


def metrics_of(panel: Mapping[int, Mapping[str, DigitClassifier]], name: str) -> dict[str, Callable[[Context], dict]]:
    """All that is measured of a run of a profile, by name; panel: the judges of the paper's harness."""
    if profile(name).text:
        return METRICS | subsets.METRICS | {"leakage": diagnosis.leakage}
    passes = profile(name).harness_passes
    return diagnosis.METRICS | (harness.metrics(panel, passes) if passes else {})


def _hashes(panel: Mapping[int, Mapping[str, DigitClassifier]]) -> dict[str, dict[str, str | None]]:
    """Which judges they are, as a record names them."""
    return {str(seed): {name: judge.sha256 for name, judge in judges.items()} for seed, judges in panel.items()}


def train(
    run: Run,
    data: DigitData,
    evidence: Path,
    device: str = "cpu",
    progress: str = "auto",
    minutes: float | None = None,
    oracles: Mapping[str, Judge] | None = None,
) -> Trained:
    """Train the run's seeds, from its checkpoint if there is one; a loss that is not finite leaves failure records.

    minutes: of training, after which OutOfTime is raised and the checkpoint is there to go on from. oracles: the judges
    by which each report of the history has accuracies (`diagnosis.at_a_glance`); None: it has none.
    Raises what `fit` raises, and RuntimeError if another process works on this run and does not end. SIGTERM ends the
    process after a checkpoint.
    """
    folder = evidence / "work" / run.id / data.identity["content_hash"][:8]  # a checkpoint belongs to its data
    measure = None
    if oracles is not None:
        here = data.to(device)

        def measure(model: nn.Module, seed: int) -> dict[str, float]:
            return at_a_glance(Context(model.eval(), here.train, here.test, oracles, seed))

    try:
        with alone(evidence / "work" / run.id), sigterm_later() as came:
            return fit(
                run.model_config, run.training, data.train, run.seeds,
                folder=folder, device=device, progress=progress, minutes=minutes,
                stop=lambda: STOPPED if came else "", measure=measure, by=trainer(device),
            )  # fmt: skip
    except NonFiniteLoss as error:
        for seed in run.seeds:
            failed = _record(run, seed, data, device) | {"status": "failed", "error": str(error)}
            write_json(record_path(run, seed, evidence), failed)
        raise


def judge(run: Run, trained: Trained, data: DigitData, oracles: Mapping[str, Judge], evidence: Path) -> list[Record]:
    """Evaluate each seed on the test digits, save weights and panels, and write the records; returns them.

    Raises RuntimeError if another process works on this run and does not end.
    """
    written = []
    with alone(evidence / "work" / run.id):
        panel = published_for(run.profile, data, evidence, next(trained.models[0].parameters()).device)
        for number, (seed, model) in enumerate(zip(run.seeds, trained.models, strict=True)):
            device = next(model.parameters()).device
            on_device = data.to(device)
            given = model, on_device.train, on_device.test, oracles, seed
            metrics = evaluate(*given, metrics_of(panel, run.profile))
            name = run.record_id(seed)
            remove_parts(evidence, f"[!.]*/{glob.escape(name)}[.-]*")
            weights = evidence / "weights" / f"{name}.safetensors"
            save_tensors(weights, model.state_dict())
            record = _record(run, seed, data, device) | {
                "status": "ok",
                "metrics": metrics,
                "history": trained.histories[number],
                **({"plateau": {"left": trained.left[number]}} if trained.left else {}),
                "panels": make_panels(Context(*given), evidence / "panels", name),
                "weights_sha256": file_hash(weights),
                "cost": trained.cost,
                "trained_by": trained.by,
                "judges": {each: oracle.sha256 for each, oracle in oracles.items() if oracle.sha256},
                "published_judges": _hashes(panel),
            }
            write_json(record_path(run, seed, evidence), record)
            written.append(record)
    return written


def _record(run: Run, seed: int, data: DigitData, device: str | torch.device) -> Record:
    config = run.config()
    return Record({
        "format": FORMAT, "id": run.record_id(seed), "profile": run.profile, "model": run.model,
        "reading": run.reading, "seed": seed, "trained_together": list(run.seeds),
        "config": config, "config_hash": config_hash(config),
        "data": data.identity, "provenance": provenance(device),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    })  # fmt: skip


def record_path(run: Run, seed: int, evidence: Path) -> Path:
    """Where the record of one seed lies."""
    return evidence / "runs" / f"{run.record_id(seed)}.json"


def _weights(record: Record, evidence: Path) -> Path:
    return evidence / "weights" / f"{record.id}.safetensors"


def load_model(record: Record, evidence: Path) -> nn.Module:
    """The trained model of a record, in eval mode, on the CPU.

    Raises RecordError if its weights are missing or are not those that the record names.
    """
    path = _weights(record, evidence)
    if not path.exists():
        raise RecordError(f"there are no weights {path}; make them with: python -m qmvae_study run")
    if not record.holds(path):
        raise RecordError(f"{path} does not hold the weights that its record names; run it again")
    model = build_model(record.setting("model"))
    model.load_state_dict(load_file(path))
    return model.eval()


def amend(evidence: Path, name: str, data_root: str | None = None) -> Iterator[tuple[str, str]]:
    """Give the finished records of a profile the metrics that they lack, measured on their stored weights.

    What the judges of the paper's harness read is measured again where those at hand are others.

    Each names under "amended" the code and machine that measured what was added; nothing else in it changes, and one
    without weights is left as it is. Yields its id and what was done. data_root: as of `data_for`.
    Raises RecordError where there is no finished record, where data or judges are not those of a record,
    and where the weights are not its own.
    """
    done = load_records(evidence / "runs", profile=name, status="ok")
    if not done:
        raise RecordError(f"{evidence / 'runs'} has no finished record of the profile {name!r}")
    data = data_for(name, data_root)
    by = provenance()  # before the first record is changed, after which the repository is not clean
    panel = published_for(name, data, evidence)
    metrics = metrics_of(panel, name)
    for record in done:
        missing = [each for each in metrics if each not in record["metrics"]]
        if harness.JUDGES in metrics and record.get("published_judges") != _hashes(panel):
            missing = list(dict.fromkeys([*missing, harness.JUDGES]))
        if not missing:
            yield record.id, "lacks nothing"
            continue
        if not _weights(record, evidence).exists():
            yield record.id, f"has no weights in {evidence / 'weights'}, so {', '.join(missing)} cannot be added"
            continue
        if any(record["data"][key] != data.identity[key] for key in ("content_hash", "n_test")):
            raise RecordError(f"record {record.id} was judged on other data than those given")
        if record["judges"] != judges_there(_judges_folder(record.data.kind, evidence)):
            raise RecordError(f"record {record.id} was judged by other judges than those at hand; judge its run again")
        model = load_model(record, evidence)
        judges = oracles_for(name, data, evidence)
        wanted = {each: metrics[each] for each in missing}
        record["metrics"] |= evaluate(model, data.train, data.test, judges, record.seed, wanted)
        record["published_judges"] = _hashes(panel)
        record["amended"] = record.get("amended", {}) | dict.fromkeys(missing, by)
        write_json(evidence / "runs" / f"{record.id}.json", record)
        yield record.id, f"added {', '.join(missing)}"


OTHER_DATA = "of other data"


def state(run: Run, evidence: Path, at_hand: Mapping | None = None) -> str:
    """ "done", "failed", "started", "to do" or OTHER_DATA, by what lies in the evidence folder.

    Done is a run that left all it leaves: for each seed a record of its config, on the data and by the judges at hand,
    and the weights and panels that it names. at_hand: the identity of the data, or a part of it; None: any will do.
    What was run on the stand-in is to do again on real data; other real data are neither taken nor written over.
    Raises RecordError for a record that cannot be read.
    """
    wanted = {key: value for key, value in (at_hand or {}).items() if key in ("kind", "content_hash")}
    found = []
    for seed in run.seeds:
        path = record_path(run, seed, evidence)
        record = read_record(path) if path.exists() else None
        same = record is not None and _same_config(run, record["config"])
        if same and any(record["data"][key] != value for key, value in wanted.items()):
            if record.real:
                return OTHER_DATA
            same = False
        if not same or (record.done and not _whole(record, evidence)):
            return "started" if any((evidence / "work" / run.id).glob("*/checkpoint.pt")) else "to do"
        found.append(record.status)
    return "failed" if "failed" in found else "done"


def not_of_other_data(found: str, evidence: Path) -> str:
    """A state as it is. Raises RecordError, with the remedy, for that of a run with a record on other real data."""
    if found == OTHER_DATA:
        raise RecordError(
            f"{evidence} holds a record of this run on other real data than those at hand; "
            "name their root with --data-root, or another folder with --evidence"
        )
    return found


def _whole(record: Record, evidence: Path) -> bool:
    """Whether what a finished record names is there: its weights, its panels, and the judges that would judge today."""
    of_files = {
        evidence / "panels" / file: panel.get("sha256", {}).get(part)
        for panels in record["panels"].values()
        for panel in panels.values()
        for part, file in panel["files"].items()
    }
    whole = record.holds(_weights(record, evidence)) and all(
        path.exists() and file_hash(path) == expected for path, expected in of_files.items()
    )
    return whole and record["judges"] == judges_there(_judges_folder(record.data.kind, evidence))


def _same_config(run: Run, config: Mapping) -> bool:
    """Whether a record's config says what the run says; a field younger than the record has its default there."""
    try:
        found = ModelConfig.from_dict(config["model"]), from_known_fields(TrainingConfig, config["training"])
    except (KeyError, ValueError):
        return False
    return found == (run.model_config, run.training)
