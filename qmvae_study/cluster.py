"""The plan of runs on Dask: workers on this machine, under a scheduler that is already there, or in Slurm's jobs.

One task is one run, carried out on a worker as the study does it here: papermill on the training notebook, records
into the evidence folder, which all workers share. A worker that dies costs its run what came after the last checkpoint.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib
import logging
import os
import shutil
import signal
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import qmvae_core
from qmvae_core.data import STAND_IN, real_data_at_hand
from qmvae_study import execution
from qmvae_study.evidence.folder import opened, root_here
from qmvae_study.evidence.notebooks import THREADS, TRAINING_NOTEBOOK
from qmvae_study.execution import Outcome
from qmvae_study.plan import Run, profile
from qmvae_study.signals import STOPPED, sigterm_later

STARTED = ("local", "slurm")  # the clusters that this command starts, and ends
GONE = "the scheduler is gone, or gave it up; the same command goes on from the last checkpoint"
PATIENCE = 60.0  # seconds until a scheduler or its first worker counts as absent
SETTINGS = {
    "distributed.scheduler.worker-saturation": 1.0,  # no run waits behind another while a worker is free
    "distributed.scheduler.allowed-failures": 10,  # a lost job or machine is not the run's fault, time and again it is
}


def carry_out(
    runs: Mapping[Run, str], evidence: Path, data_root: str | None, device: str, scheduler: str, workers: int | None
) -> Iterator[Outcome]:
    """Carry out the runs side by side, each outcome as it comes; the values of `runs` name them in messages.

    scheduler: "local", "slurm", an address, or a scheduler file. workers: how many, for the first two alone.
    An interrupt stops the runs in progress; their checkpoints stay.

    Raises ValueError for a scheduler or a number of workers that cannot be, and RuntimeError if Dask, Slurm's
    configuration, the scheduler or its workers are missing, if a worker does not see what it must share with this
    process, or if no worker offers the GPU that device "cuda" needs.
    """
    evidence.mkdir(parents=True, exist_ok=True)
    data_root = data_root or next((profile(run.profile).data_root for run in runs), None) or root_here()
    with (
        sigterm_later(_interrupt) as came,
        _client(scheduler, workers, device) as client,
        _shared(evidence, data_root) as shared,
    ):
        try:
            client.run_on_scheduler(importlib.import_module, __name__)  # it unpacks what it hands on
        except ImportError as error:
            raise RuntimeError(f"the scheduler needs the environment of its workers: {error}") from None
        found = client.run(shared.missed_here, on_error="return").items()
        if unfit := [f"worker {worker} {missed}" for worker, missed in found if missed]:
            raise RuntimeError("; ".join(unfit))
        if device == "auto" and _offering(client, "GPU"):
            device = "cuda"
        if device == "cuda" and not _offering(client, "GPU"):
            raise RuntimeError("no worker offers a GPU; start workers with: dask worker --resources GPU=1 --nthreads 1")
        yield from _outcomes(client, runs, evidence, device, shared, came)


def _interrupt() -> None:
    raise KeyboardInterrupt


def _offering(client, resource: str | None) -> int:
    """How many of the connected workers offer the resource; None: how many there are, if the scheduler is."""
    workers = client.scheduler_info(n_workers=-1).get("workers", {}).values()
    return sum(resource is None or resource in worker["resources"] for worker in workers)


def _outcomes(
    client, runs: Mapping[Run, str], evidence: Path, device: str, shared: _Shared, came: Sequence[int]
) -> Iterator[Outcome]:
    from distributed import as_completed
    from distributed.client import ClosedClientError

    at_hand = {"kind": "real"} if real_data_at_hand(shared.data_root) else None
    topic = f"qmvae-{uuid.uuid4().hex}"
    logs = {run: evidence / "work" / run.id / "output.txt" for run in runs}
    names = {run.id: label for run, label in runs.items()}
    started: dict[str, float] = {}

    def say(event) -> None:
        run_id, worker = event[1]["run"], event[1]["name"]
        how = "taken up again, from its last checkpoint," if run_id in started else "starts"
        print(f"{names[run_id]}: {how} on {worker}; output in {event[1]['log']}", flush=True)
        started.setdefault(run_id, time.monotonic())

    resource = "GPU" if device == "cuda" else None
    client.subscribe_topic(topic, say)
    submitted = time.monotonic()
    futures = {
        client.submit(
            _task, run, evidence, device, logs[run], shared, topic,
            key=f"{run.id}-{topic}", resources={resource: 1} if resource else None,
        ): run
        for run in runs
    }  # fmt: skip
    try:
        for future in as_completed(futures):
            run = futures[future]
            error = None
            if future.status == "error":
                error = future.exception()
            elif future.status != "finished" and not execution.recorded(run, evidence, at_hand):
                error = RuntimeError(GONE)
            seconds = time.monotonic() - started.get(run.id, submitted)
            yield Outcome(run, seconds, error, max(_offering(client, resource), 1))
    finally:
        left = {future: run for future, run in futures.items() if not future.done()}
        if came:
            print(f"{STOPPED}: runs that train save a checkpoint first", flush=True)
        with contextlib.suppress(ClosedClientError):  # it closes itself when its scheduler is gone for long
            client.unsubscribe_topic(topic)
        _end(client, topic, left, logs, signal.SIGTERM if came else signal.SIGKILL)


def _end(client, topic: str, left: Mapping, logs: Mapping[Run, Path], how: int) -> None:
    """End what workers still do for the topic, by a signal; after SIGTERM, those that train save their checkpoints."""
    if not left:
        return
    client.cancel(list(left))
    folders = tuple(f"{logs[run].parent}/" for run in left.values())
    until = time.monotonic() + PATIENCE
    while any(client.run(_stop, topic, folders, how, on_error="ignore").values()) and time.monotonic() < until:
        time.sleep(0.1)


def _task(run: Run, evidence: Path, device: str, log: Path, shared: _Shared, topic: str) -> None:
    """What a worker does for a run."""
    from distributed import get_worker

    worker = get_worker()
    name = f"worker {worker.name}"
    if missed := shared.missed_here():  # this worker may have come after the check of all
        raise RuntimeError(f"{name} {missed}")
    worker.log_event(topic, {"run": run.id, "name": name, "log": str(log)})
    log.parent.mkdir(parents=True, exist_ok=True)
    execution.carry_out(run, evidence, shared.data_root, device, log)


def _stop(topic: str, folders: tuple[str, ...], how: int, dask_worker=None) -> int:
    """Signal what this worker runs for the topic; returns how many tasks are left, which is 0 once they have noticed.

    Dask forgets a task that is cancelled, but does not interrupt it, so its process is ended here.
    """
    import psutil

    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if any(argument.startswith(folders) for argument in child.cmdline()):
                child.send_signal(how)
    return sum(str(key).endswith(topic) for key in dask_worker.state.tasks)


# What the workers must share


@dataclass(frozen=True)
class _Shared:
    """What the command's own process sees, for comparison; the probe is a file that it keeps locked."""

    probe: Path
    data_root: str | None
    seen: dict

    def missed_here(self) -> str:
        """What this process does not share, as the end of a sentence about it; empty if it shares everything."""
        seen = _sees(self.probe, self.data_root)
        return next((what for what, value in self.seen.items() if seen[what] != value), "")


@contextlib.contextmanager
def _shared(evidence: Path, data_root: str | None) -> Iterator[_Shared]:
    for other in evidence.glob(".probe-*"):  # of a command that was killed: its lock is free
        if time.time() - other.stat().st_mtime > PATIENCE and not _locked(other):
            other.unlink(missing_ok=True)
    probe = evidence / f".probe-{uuid.uuid4().hex}"
    try:
        with open(probe, "w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield _Shared(probe, data_root, _sees(probe, data_root))
    finally:
        probe.unlink(missing_ok=True)


def _sees(probe: Path, data_root: str | None) -> dict[str, object]:
    """What must be equal everywhere, each under what to say of a worker where it is not."""
    wings = (Path(qmvae_core.__file__).parent, Path(__file__).parent)
    files = [*(file for wing in wings for file in sorted(wing.rglob("[!.]*.py"))), TRAINING_NOTEBOOK]
    root_exists = data_root in (None, STAND_IN) or Path(data_root).is_dir()
    return {
        f"does not see the evidence folder {probe.parent}": probe.exists(),
        f"does not see who else has locked a file in {probe.parent}": _locked(probe),
        "has another version of this code": hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest(),
        "has another version of PyTorch": torch.__version__,
        "finds other data; name a root that all see with --data-root": (real_data_at_hand(data_root), root_exists),
    }


def _locked(path: Path) -> bool:
    try:
        with open(path, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    return False


# Clusters


@contextlib.contextmanager
def _client(scheduler: str, workers: int | None, device: str) -> Iterator:
    """A client of the cluster, with at least one worker; a cluster that was started for it ends with it."""
    try:
        import dask
        from distributed import Client
    except ImportError:
        raise RuntimeError("--scheduler needs Dask, which is not installed: pip install -e .[cluster]") from None
    if (scheduler in STARTED) != (workers is not None) or (workers is not None and workers < 1):
        raise ValueError("--scheduler local and slurm need --workers, 1 or more; other schedulers have their own")
    with dask.config.set(SETTINGS), contextlib.ExitStack() as stack:
        if scheduler == "local":
            target = {"address": stack.enter_context(_local(workers, device))}
        elif scheduler == "slurm":
            target = {"address": stack.enter_context(_slurm(device))}
            target["address"].adapt(minimum=workers, maximum=workers)  # a job that reached its time limit is replaced
        else:
            target = _existing(scheduler)
        try:
            client = stack.enter_context(Client(**target, timeout=PATIENCE))
        except (OSError, TypeError) as error:  # a TypeError where it asks for a certificate, and there is none
            wanted = "" if isinstance(error, OSError) else "it wants a certificate; see book/cluster.md. "
            raise RuntimeError(f"no scheduler answers at {scheduler}: {wanted}{error}") from None
        if scheduler == "slurm":
            print("waiting for the first job to start", flush=True)
        try:
            client.wait_for_workers(1, timeout=None if scheduler == "slurm" else PATIENCE)
        except TimeoutError:
            raise RuntimeError(f"no worker is connected to {scheduler}; start some with: dask worker") from None
        yield client


def _existing(scheduler: str) -> dict[str, str]:
    path = str(opened(scheduler.removeprefix("file://")))
    if path.endswith(".json"):
        if not Path(path).is_file():
            raise RuntimeError(f"there is no scheduler file {path}")
        return {"scheduler_file": path}
    if "://" not in scheduler:
        raise ValueError(f"unknown scheduler {scheduler!r}; give local, slurm, tcp://host:port or a .json file")
    return {"address": scheduler}


def dask_setup(worker) -> None:
    """What Dask calls in each local worker: a terminal's Ctrl-C is for the command, which then ends its workers.

    So is the SIGTERM that a shell or `timeout` sends to all processes of a command.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _local(workers: int, device: str):
    """Workers on this machine that share its cores, or have a GPU each."""
    from dask.system import CPU_COUNT
    from distributed import Nanny, Scheduler, SpecCluster

    gpus = torch.cuda.device_count() if device in ("cuda", "auto") else 0
    if gpus and workers > gpus:
        raise ValueError(f"{workers} workers need a GPU each, and there are {gpus}; ask for fewer or --device cpu")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
    threads = {name: str(max(CPU_COUNT // workers, 1)) for name in THREADS}  # Dask sets 1 unless told otherwise
    # the memory limit is about a worker's own process, which holds nothing: its runs are processes of their own
    shared = {
        "nthreads": 1,
        "host": "127.0.0.1",
        "memory_limit": 0,
        "silence_logs": logging.WARNING,
        "preload": [__name__],
    }
    spec = {
        i: {"cls": Nanny, "options": {
            **shared,
            "env": threads | ({"CUDA_VISIBLE_DEVICES": visible[i]} if gpus else {}),
            "resources": {"GPU": 1} if gpus else {},
        }}
        for i in range(workers)
    }  # fmt: skip
    here = {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}
    scheduler = {"cls": Scheduler, "options": {**here, **_encrypted()}}
    return SpecCluster(spec, scheduler, silence_logs=logging.WARNING, security=_encrypted().get("security"))


def _encrypted() -> dict:
    """How a cluster is started where Dask's configuration asks for certificates."""
    import dask
    from distributed import Security

    asked = dask.config.get("distributed.comm.require-encryption")
    return {"security": Security(), "protocol": "tls://"} if asked else {}


def _slurm_cluster() -> type:
    handler = signal.getsignal(signal.SIGINT)
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise RuntimeError("Slurm needs dask-jobqueue, not installed: pip install -e .[cluster]") from None
    finally:
        signal.signal(signal.SIGINT, handler)  # the import sets one that makes Ctrl-C a success
    return SLURMCluster


def _slurm(device: str):
    """A cluster whose jobs hold one worker each, by Dask's configuration of jobqueue.slurm."""
    import dask

    slurm_cluster = _slurm_cluster()
    wanted = dask.config.get("jobqueue.slurm")
    if wanted.get("cores") is None or wanted.get("memory") is None:
        raise RuntimeError(
            "Slurm needs cores and memory under jobqueue: slurm: in ~/.config/dask/jobqueue.yaml; see book/cluster.md"
        )
    if shutil.which("sbatch") is None:
        raise RuntimeError("there is no sbatch here; give the command on a machine that submits jobs to Slurm")
    return slurm_cluster(
        processes=1,
        **_encrypted(),
        # the last of two equal options counts: one run at a time in a worker, which has all the cores of its job
        worker_extra_args=[
            *wanted["worker-extra-args"], "--nthreads", "1", *(["--resources", "GPU=1"] if device == "cuda" else []),
        ],
        job_script_prologue=[
            *(f"export {name}={wanted['cores']}" for name in THREADS), *wanted["job-script-prologue"],
        ],
    )  # fmt: skip
