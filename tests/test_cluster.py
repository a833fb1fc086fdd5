"""The plan on Dask: what is given out, what is refused, what a dying worker costs. No test needs Slurm or a GPU."""

import asyncio
import fcntl
import importlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask
import psutil
import pytest
import torch
import yaml
from distributed import Client, LocalCluster, Worker
from finished import finish
from threadpoolctl import threadpool_limits

from qmvae_core.names import BEST
from qmvae_core.training import Trained
from qmvae_core.training.checkpoint import read
from qmvae_study import __main__ as command_line
from qmvae_study import cluster, execution
from qmvae_study import plan as study_plan
from qmvae_study import runs as study_runs
from qmvae_study.evidence import folder as places
from qmvae_study.evidence import notebooks
from qmvae_study.evidence.records import read_record

ROOT = Path(__file__).resolve().parents[1]
SMALL = "default+mnist.widths=[6]+svhn.widths=[2,2]"
LONG = f"{SMALL}+negatives=hardest+candidates=3000"  # costs time in training alone
PATIENCE = 900  # seconds until a process counts as stuck, for machines that do much else


def workers_here(**options) -> LocalCluster:
    """A scheduler with an address, whose workers are threads of this process, so that a test can replace functions."""
    quiet = {"dashboard_address": "127.0.0.1:0", "memory_limit": 0, "protocol": "tcp"}
    return LocalCluster(**{"n_workers": 2, "threads_per_worker": 1, "processes": False, **quiet, **options})


@pytest.fixture
def scheduler():
    with workers_here() as started:
        yield started.scheduler_address


def run(evidence: Path, *arguments: str) -> int:
    return command_line.main(["run", "--profile", "smoke", "--evidence", str(evidence), *map(str, arguments)])


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """A function: arguments that are refused before anything is given out -> the one line on standard error."""
    monkeypatch.setattr(execution, "carry_out", lambda *_: pytest.fail("it was given out"))
    monkeypatch.setattr(cluster, "PATIENCE", 1.0)

    def line(*arguments: str) -> str:
        assert run(tmp_path, *arguments) == 1
        (found,) = capsys.readouterr().err.splitlines()
        return found

    return line


def write_done(seed: int, evidence: Path) -> None:
    finish(study_plan.Run("smoke", BEST, (seed,)), seed, evidence, kind="stand-in")


# What is given out


def test_what_is_done_is_not_given_out_and_a_failure_does_not_stop_the_others(tmp_path, monkeypatch, capsys, scheduler):
    tried = []

    def carry_out(one, evidence, data_root, device, log):
        tried.append((one.seeds, evidence, data_root, device))
        if one.seeds == (1,):
            raise RuntimeError("07_train.ipynb failed; the cell and its error are in somewhere")

    monkeypatch.setattr(execution, "carry_out", carry_out)
    write_done(0, tmp_path)
    assert run(tmp_path, "--seeds", 0, 1, 2, 3, "--device", "cpu", "--scheduler", scheduler) == 1
    assert sorted(tried) == [((seed,), tmp_path, "stand-in", "cpu") for seed in (1, 2, 3)]  # each once
    assert f"qmvae-{BEST}-s1" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.glob(".probe*"))


def test_nothing_to_do_needs_no_cluster(tmp_path):
    write_done(0, tmp_path)
    assert run(tmp_path, "--scheduler", "tcp://no.such.host:1") == 0


def test_a_run_that_needs_a_gpu_gets_one_of_its_own(tmp_path, monkeypatch):
    """Both workers could take four tasks at a time, but each has one GPU."""
    lock, now, most, devices = threading.Lock(), [0], [0], set()

    def carry_out(one, evidence, data_root, device, log):
        devices.add(device)
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.2)
        with lock:
            now[0] -= 1

    monkeypatch.setattr(execution, "carry_out", carry_out)
    with workers_here(threads_per_worker=4, resources={"GPU": 1}) as started:
        assert run(tmp_path, "--seeds", *range(6), "--scheduler", started.scheduler_address) == 0
    assert (devices, most) == ({"cuda"}, [2])  # "auto" means a GPU where there is one


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_every_run_of_the_command_and_no_other_process(tmp_path, monkeypatch, scheduler, how):
    """SIGTERM lets them save what they train, and then does what it did before."""
    children, heard, code = [], [], "import time; time.sleep(600)"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts without it
    terminated = signal.signal(signal.SIGTERM, lambda *_: heard.append(how))

    def carry_out(one, evidence, data_root, device, log):
        children.append(subprocess.Popen([sys.executable, "-c", code, str(log.parent / "07_train.ipynb")]))
        if len(children) == 2:
            signal.raise_signal(how)
        children[-1].wait()

    foreign = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    monkeypatch.setattr(execution, "carry_out", carry_out)
    try:
        assert run(tmp_path, "--seeds", *range(5), "--scheduler", scheduler) == 130
        ended = {signal.SIGINT: -signal.SIGKILL, signal.SIGTERM: -signal.SIGTERM}[how]
        assert {child.poll() for child in children} == {ended}  # before the command returned
        assert heard == [how] * (how == signal.SIGTERM)
        assert foreign.poll() is None  # not a run
        count = len(children)  # a queued run may have started before the scheduler had heard of the interrupt
        time.sleep(0.5)
        assert len(children) == count
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, terminated)
        for child in (foreign, *children):
            child.kill()
            child.wait()


# A scheduler that dies


@pytest.fixture
def mortal(tmp_path):
    """A scheduler in a process of its own, which can be killed, and a worker in a thread of this process."""
    file = tmp_path / "scheduler.json"
    where = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    process = subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_scheduler", *where])
    ready, over = threading.Event(), threading.Event()

    async def work() -> None:
        while not file.exists() or not file.read_text():
            await asyncio.sleep(0.1)
        async with Worker(scheduler_file=str(file), nthreads=1, host="127.0.0.1", dashboard=False):
            ready.set()
            while not over.is_set():
                await asyncio.sleep(0.1)

    thread = threading.Thread(target=asyncio.run, args=(work(),), daemon=True)
    thread.start()
    assert ready.wait(PATIENCE)
    yield file, process
    over.set()
    thread.join(timeout=20)
    process.kill()
    process.wait()


def test_a_scheduler_that_dies_is_named_and_no_run_with_a_record_is_called_failed(
    tmp_path, monkeypatch, capsys, mortal
):
    file, process = mortal

    def carry_out(one, evidence, *_):
        write_done(one.seeds[0], evidence)
        if one.seeds == (1,):
            process.kill()
            process.wait()

    monkeypatch.setattr(execution, "carry_out", carry_out)

    def late(client, topic, unsubscribe=Client.unsubscribe_topic):
        until = time.monotonic() + PATIENCE
        while client.status != "closed" and time.monotonic() < until:
            time.sleep(0.05)  # a busy machine comes here when the client has given the scheduler up
        unsubscribe(client, topic)

    monkeypatch.setattr(Client, "unsubscribe_topic", late)
    monkeypatch.setattr(cluster, "PATIENCE", 3.0)  # in which it may come back
    assert run(tmp_path, "--seeds", 0, 1, 2, "--device", "cpu", "--scheduler", file) == 1
    *_, named, total = capsys.readouterr().err.splitlines()
    assert named == f"qmvae_study: run 3 of 3: {cluster.GONE}"
    assert total == f"qmvae_study: 1 runs failed: qmvae-{BEST}-s2"


# What is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["local"], "--workers"),
        (["local", "--workers", "0"], "--workers"),
        (["tcp://127.0.0.1:1", "--workers", "2"], "other schedulers have their own"),
        (["slrum"], "unknown scheduler 'slrum'; give local, slurm, tcp://host:port or a .json file"),
        (["file:///no/such.json"], "there is no scheduler file /no/such.json"),
        (["tcp://127.0.0.1:1"], "no scheduler answers at tcp://127.0.0.1:1"),
        (["tls://127.0.0.1:1"], "at tls://127.0.0.1:1: it wants a certificate; see book/cluster.md"),
        (["local", "--workers", "3"], "3 workers need a GPU each, and there are 2"),
    ],
)
def test_a_scheduler_that_cannot_be_is_refused_in_one_line(monkeypatch, refused, arguments, words):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert words in refused("--scheduler", *arguments)


def test_a_scheduler_without_workers_or_a_gpu_that_is_asked_for_is_refused(refused, scheduler):
    with workers_here(n_workers=0) as started:
        assert "no worker is connected to tcp://" in refused("--scheduler", started.scheduler_address)
    said = refused("--device", "cuda", "--scheduler", scheduler)
    assert "no worker offers a GPU; start workers with: dask worker --resources GPU=1" in said


def test_a_scheduler_without_the_library_is_refused(monkeypatch, refused, scheduler):
    def import_module(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", import_module)
    assert refused("--scheduler", scheduler).endswith(
        "the scheduler needs the environment of its workers: No module named 'qmvae_study.cluster'"
    )


def test_a_missing_extra_is_named_with_its_remedy(monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert "pip install -e .[cluster]" in refused("--scheduler", "local", "--workers", "2")


def test_a_worker_that_does_not_share_the_folder_is_named_before_any_work(tmp_path, monkeypatch, refused, scheduler):
    """The workers' threads stand for another machine, where the file is missing."""
    exists = Path.exists

    def exists_here(path):
        here = threading.current_thread() is threading.main_thread()
        return exists(path) and (here or not path.name.startswith(".probe"))

    monkeypatch.setattr(Path, "exists", exists_here)
    line = refused("--scheduler", scheduler)
    missed = f"does not see the evidence folder {re.escape(str(tmp_path))}"
    assert re.fullmatch(rf"qmvae_study: worker tcp://\S+ {missed}; worker tcp://\S+ {missed}", line)


def test_the_probe_of_a_killed_command_is_removed_and_that_of_another_one_stays(tmp_path):
    for name in (".probe-dead", ".probe-new"):
        (tmp_path / name).touch()
    with cluster._shared(tmp_path, None) as other:
        for path in (other.probe, tmp_path / ".probe-dead"):
            os.utime(path, (0, 0))
        with cluster._shared(tmp_path, None) as shared:
            assert {*tmp_path.glob(".probe*")} == {tmp_path / ".probe-new", other.probe, shared.probe}


def test_each_thing_that_is_not_shared_is_named(tmp_path, monkeypatch):
    root = tmp_path / "digits"
    root.mkdir()
    with cluster._shared(tmp_path, str(root)) as shared:
        assert shared.missed_here() == ""
        with monkeypatch.context() as patch:
            patch.setattr(cluster, "TRAINING_NOTEBOOK", places.NOTEBOOKS / "08_table1.ipynb")
            assert shared.missed_here() == "has another version of this code"
        with monkeypatch.context() as patch:
            patch.setattr(torch, "__version__", "0.1")
            assert shared.missed_here() == "has another version of PyTorch"
        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "flock", lambda *_: None)
            assert shared.missed_here() == f"does not see who else has locked a file in {tmp_path}"
        root.rmdir()
        assert shared.missed_here().startswith("finds other data")
        shared.probe.unlink()
        assert shared.missed_here() == f"does not see the evidence folder {tmp_path}"


# Slurm


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A configuration as in book/cluster.md, and an sbatch that is found and never called."""
    (tmp_path / "sbatch").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (example,) = re.findall(r"^```yaml\n(jobqueue:.*?)^```", (ROOT / "book" / "cluster.md").read_text(), re.M | re.S)
    options = yaml.safe_load(example)["jobqueue"]["slurm"]
    cluster._slurm_cluster()  # its import brings the defaults that are replaced here
    here = {"scheduler-options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}}
    with dask.config.set({"jobqueue.slurm": {**dask.config.get("jobqueue.slurm"), **options, **here}}):
        yield options


def test_a_slurm_job_asks_for_what_the_configuration_says_and_offers_a_gpu(slurm):
    with cluster._slurm("cuda") as started:
        lines = started.job_script().splitlines()
    for directive in (
        f"-p {slurm['queue']}", f"-t {slurm['walltime']}", f"--cpus-per-task={slurm['cores']}", "--gres=gpu:1",
    ):  # fmt: skip
        assert f"#SBATCH {directive}" in lines
    assert any(line.startswith("#SBATCH --mem=") for line in lines)
    assert f"export OMP_NUM_THREADS={slurm['cores']}" in lines
    (worker,) = [line for line in lines if "dask_worker" in line]
    assert worker.split("--nthreads ")[-1].split()[0] == "1"
    assert "--nworkers" not in worker
    assert "--resources GPU=1" in worker
    with cluster._slurm("cpu") as started:
        assert "--resources" not in started.job_script()


def test_slurm_leaves_an_interrupt_an_interrupt(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts without it
    for name in [name for name in sys.modules if name.startswith("dask_jobqueue")]:
        monkeypatch.delitem(sys.modules, name)
    try:
        cluster._slurm_cluster()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_slurm_without_a_configuration_or_sbatch_is_refused(monkeypatch, refused, slurm):
    asked = ("--scheduler", "slurm", "--workers", "2")
    with dask.config.set({"jobqueue.slurm.cores": None}):
        assert "Slurm needs cores and memory under jobqueue: slurm:" in refused(*asked)
    monkeypatch.setenv("PATH", "/no/such")
    assert "there is no sbatch here" in refused(*asked)


@pytest.mark.parametrize("scheduler", cluster.STARTED)
def test_the_certificates_of_the_page_are_asked_for_of_workers_and_of_the_command(
    tmp_path, monkeypatch, slurm, scheduler
):
    """The page's commands as they stand there; sbatch carries out the script that Slurm would get."""
    (commands,) = re.findall(r"^```bash\n(umask.*?)^```", (ROOT / "book" / "cluster.md").read_text(), re.M | re.S)
    monkeypatch.setenv("HOME", str(tmp_path))
    subprocess.run(["bash", "-ec", commands], check=True, capture_output=True)
    assert {path.stat().st_mode & 0o77 for path in (tmp_path / ".config" / "dask").iterdir()} == {0}
    job = tmp_path / "job.sh"  # a copy, as Slurm makes one: the script is gone when the command returns
    (tmp_path / "sbatch").write_text(
        f'#!/bin/sh -e\ncp "$1" {job}\nbash -n {job}\nbash {job} >{job}.txt 2>&1 &\necho Submitted batch job $!\n'
    )
    (tmp_path / "scancel").symlink_to("/bin/true")
    found = dask.config.collect([str(tmp_path / ".config" / "dask")], env={})
    with dask.config.set(dask.config.merge(dask.config.config, found)):
        with cluster._client(scheduler, 1, "cpu") as client:
            assert client.scheduler.address.startswith("tls://")
            assert client.submit(os.getpid).result(PATIENCE) != os.getpid()
            with pytest.raises((OSError, TypeError)), dask.config.set({"distributed.comm.tls.client.cert": None}):
                Client(client.scheduler.address, timeout=5)


# The lock of a run's work folder

HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("process 12 on elsewhere", file=file, flush=True)
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of tmp_path."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lock_that_is_not_given_back_is_an_error_that_names_its_holder(tmp_path, holder):
    expected = f"process 12 on elsewhere works in {re.escape(str(tmp_path))}.*end it or wait"
    with pytest.raises(RuntimeError, match=expected):
        with places.alone(tmp_path, patience=0.3):
            pytest.fail("two at once")


def test_a_lock_is_free_as_soon_as_its_holder_is_killed(tmp_path, holder):
    threading.Timer(0.5, holder.kill).start()
    with places.alone(tmp_path, patience=60):
        assert holder.wait() == -signal.SIGKILL
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")
    with places.alone(tmp_path, patience=0):  # given back, and taken again at once
        pass


@pytest.mark.parametrize("step", ["train", "judge"])
def test_training_and_judging_hold_the_lock_of_their_run(tmp_path, monkeypatch, step):
    one, held = study_plan.Run("smoke", SMALL, (0,)), []

    class Data:
        identity = {"content_hash": "x"}
        train = None

    def look(*_, **__):
        held.append(cluster._locked(tmp_path / "work" / one.id / "lock"))
        raise KeyError

    class Model:
        parameters = look

    monkeypatch.setattr(study_runs, "fit", look)
    trained = Trained([Model()], [[]], {}, [], [])
    with pytest.raises(KeyError):
        study_runs.train(one, Data, tmp_path) if step == "train" else study_runs.judge(one, trained, Data, {}, tmp_path)
    assert held == [True]


# A worker that dies


def command(evidence: Path) -> list[str]:
    start = [sys.executable, "-m", "qmvae_study", "run", "--profile", "smoke", "--evidence", str(evidence)]
    return [*start, "--readings", LONG, "--device", "cpu", "--scheduler", "local", "--workers", "2"]


def kill_the_worker_of(one: study_plan.Run, evidence: Path, process: psutil.Popen) -> list[psutil.Process]:
    """SIGKILL the worker once the run has a checkpoint; returns the processes that it started for the run."""
    folder, started = evidence / "work" / one.id, time.monotonic()
    while not any(folder.glob("*/checkpoint.pt")):
        assert process.poll() is None, "the command ended without a checkpoint"
        assert time.monotonic() - started < PATIENCE, "there was never a checkpoint"
        time.sleep(0.02)
    output = str(folder / notebooks.TRAINING_NOTEBOOK.name)
    (papermill,) = [child for child in process.children(recursive=True) if output in child.cmdline()]
    family = [papermill, *papermill.children(recursive=True)]
    assert len(family) >= 2  # papermill and the kernel
    papermill.parent().kill()
    return family


@pytest.mark.slow
def test_a_killed_worker_costs_its_run_what_came_after_the_checkpoint_and_changes_no_bit(tmp_path):
    evidence, undisturbed = tmp_path / "evidence", tmp_path / "undisturbed"
    (one,) = study_plan.plan("smoke", [LONG])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "QMVAE_DATA_ROOT": "/no/such/folder"}
    seen = set()
    with open(tmp_path / "output.txt", "w+") as file:
        process = psutil.Popen(command(evidence), env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            orphans = kill_the_worker_of(one, evidence, process)
            assert study_runs.state(one, evidence) == "started"
            assert not psutil.wait_procs(orphans, timeout=10)[1], "papermill or its kernel lives on without its worker"
            (checkpoint,) = (evidence / "work" / one.id).glob("*/checkpoint.pt")
            assert read(checkpoint)["position"]["epoch"] == 1  # of 2: it was in the middle of its training
            started = time.monotonic()
            while process.poll() is None:
                assert time.monotonic() - started < PATIENCE, "the command never ended"
                seen.update(process.children(recursive=True))
                time.sleep(1.0)
        finally:
            for left in {*seen, process}:
                if left.is_running():
                    left.kill()
            process.wait()
        file.seek(0)
        said = file.read()
    assert process.returncode == 0, said
    assert not psutil.wait_procs(seen, timeout=10)[1]

    record = read_record(study_runs.record_path(one, 0, evidence))
    assert record["cost"]["resumed"] == 1
    data, threads = study_runs.data_for("smoke"), record["provenance"]["threads"]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)  # the bits are the same for the same number of threads
    try:
        with threadpool_limits(threads):
            oracles = study_runs.oracles_for("smoke", data, evidence)
            trained = study_runs.train(one, data, undisturbed, progress="none", oracles=oracles)
    finally:
        torch.set_num_threads(before)
    assert record["history"] == trained.histories[0]
    assert record["cost"]["steps"] == trained.cost["steps"]
    stored, expected = study_runs.load_model(record, evidence).state_dict(), trained.models[0].state_dict()
    assert stored.keys() == expected.keys()
    assert all(torch.equal(stored[name], value) for name, value in expected.items())
