"""The queue: its order, what waits for what, and runs side by side."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from types import SimpleNamespace

import pytest
from finished import finish
from small_notebooks import write
from test_hunt import FIRST, SECOND, THIRD
from test_hunt import records as hunted

from qmvae_core.models import build_model, reading
from qmvae_core.names import AS_PRINTED, BEST
from qmvae_core.training import OutOfTime
from qmvae_study import __main__ as command_line
from qmvae_study import execution, hunt, queue
from qmvae_study.evidence.records import RecordError
from qmvae_study.execution import side_by_side
from qmvae_study.plan import plan
from qmvae_study.rows import PRINTED


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(queue, "default_evidence", lambda name: tmp_path / name)
    return tmp_path


@pytest.fixture(autouse=True)
def at_hand(monkeypatch):
    """What data the command holds records against, without the seconds that they take."""
    data = SimpleNamespace(identity={"kind": "stand-in", "content_hash": "x"})
    monkeypatch.setattr(command_line, "data_for", lambda *_: data)


PATIENCE = 900  # seconds until a process counts as stuck, for machines that do much else
REAL = SimpleNamespace(identity={"kind": "real", "content_hash": "x"})
VALUES = {SECOND: (92.0, 92.5, 92.0), FIRST: (91.0, 91.0, 91.5), THIRD: (90.0, 90.5, 90.0)}


def hunt_is_over(monkeypatch, values=None) -> None:
    monkeypatch.setattr(queue, "_hunted", lambda: hunted(values or VALUES))


def test_the_order_before_the_hunt(folders):
    found = queue.runs()
    assert len(set(found)) == len(found)
    assert found[: 10 + len(hunt.PLAN)] == [*plan("precision"), *plan("hunt")]
    rest = [run.profile for run in found[10 + len(hunt.PLAN) :]]  # equal lengths before the paper's
    assert rest == sorted(rest, key=("epoch", "paper", "text", "precision", "published").index)
    assert [(run.reading, run.seeds) for run in found if run.profile == "published"] == [("dmvae", (0,))]
    assert {run.seeds[0] for run in found if run.profile == "precision"} == set(range(10))
    assert {run.reading for run in found if run.profile == "paper"} == {"mvae", "dmvae"}
    assert "hunt" not in {run.profile for run in found if run.seeds != (0,)}  # no finalist is known


def test_the_order_after_the_hunt(folders, monkeypatch):
    hunt_is_over(monkeypatch)
    printed, best = hunt.printed(hunted(VALUES)), hunt.best(hunted(VALUES))
    assert (printed, best) == (FIRST, SECOND)
    found = queue.runs()
    finalists = [run for run in found if run.profile == "hunt" and run.seeds != (0,)]
    assert [(run.reading, run.seeds) for run in finalists] == [
        (name, (seed,)) for name in (SECOND, FIRST, THIRD) for seed in (1, 2)
    ]
    long = [(run.reading, run.seeds[0]) for run in found if run.profile == "paper"]
    rows = (printed, best, f"{best}+beta=0", "mvae", "dmvae")
    assert long == [(name, seed) for name in rows for seed in (0, 1, 2)]
    short = {run.reading for run in found if run.profile == "epoch"}
    assert {printed, best, f"{printed}+beta=0", f"{best}+beta=0", "mvae", "dmvae", "mmvae+particles=8"} <= short
    assert {run.precision for run in found if run.profile in ("paper", "epoch", "hunt")} == {"bfloat16"}


def test_where_the_best_reading_is_the_printed_one_it_is_run_once(folders, monkeypatch):
    hunt_is_over(monkeypatch, {FIRST: (95.0, 95.1, 95.0), SECOND: (80.0, 80.1, 80.0), THIRD: (70.0, 70.1, 70.0)})
    found = queue.runs()
    assert len(set(found)) == len(found)
    long = [run.reading for run in found if run.profile == "paper"]
    assert long[:6] == [FIRST] * 3 + [f"{FIRST}+beta=0"] * 3


def test_a_reading_that_has_a_name_is_run_under_it(folders, monkeypatch):
    wide = f"{PRINTED}+all.scale=10.0"
    assert [queue._named(name) for name in (wide, FIRST)] == [AS_PRINTED, FIRST]
    hunt_is_over(monkeypatch, {wide: (95.0, 95.1, 95.0), SECOND: (80.0, 80.1, 80.0), THIRD: (70.0, 70.1, 70.0)})
    long = [run.reading for run in queue.runs() if run.profile == "paper"]
    assert long[:6] == [AS_PRINTED] * 3 + [f"{AS_PRINTED}+beta=0"] * 3
    assert [run.reading for run in queue.runs() if run.profile == "quick"] == [AS_PRINTED, f"{AS_PRINTED}+beta=0"]


def test_what_is_done_or_failed_is_not_begun_and_a_stage_that_waits_holds_up_no_other(folders, monkeypatch):
    for number, run in enumerate([*plan("precision", seeds=range(10)), *plan("hunt")[1:]]):
        for seed in run.seeds:
            finish(run, seed, folders / run.profile, status="failed" if number == 3 else "ok")
    begun = []

    def carry_out(run, evidence, *_):
        begun.append(run)
        assert evidence == folders / run.profile
        if len(begun) > 3:
            raise OutOfTime("enough")

    monkeypatch.setattr(execution, "carry_out", carry_out)
    monkeypatch.setattr(queue, "_hunted", lambda: [])
    monkeypatch.setattr(queue, "load_digits", lambda root: REAL)
    for outcome in queue.carry_out("stand-in", "cpu", workers=1):
        if isinstance(outcome.error, OutOfTime):
            break
    assert begun[0] == plan("hunt")[0]
    assert [(run.profile, run.reading, run.seeds) for run in begun[1:]] == [
        ("epoch", "mvae", (0,)), ("epoch", "mvae", (1,)), ("epoch", "mvae", (2,)),
    ]  # fmt: skip


def test_a_record_on_other_real_data_is_not_passed_over(folders, monkeypatch):
    run = plan("precision")[0]
    finish(run, run.seeds[0], folders / run.profile, content="of other files")
    monkeypatch.setattr(queue, "_hunted", lambda: [])
    monkeypatch.setattr(queue, "load_digits", lambda root: REAL)
    monkeypatch.setattr(execution, "carry_out", lambda *_: pytest.fail("a run was begun"))
    with pytest.raises(RecordError, match="other real data than those at hand; name their root"):
        next(queue.carry_out("somewhere", "cpu", workers=1))


def test_a_queue_that_is_done_is_listed_with_nothing_left(folders, monkeypatch, capsys):
    for run in queue.runs():
        for seed in run.seeds:
            finish(run, seed, folders / run.profile)
    monkeypatch.setattr(queue, "_hunted", lambda: [])
    monkeypatch.setattr(command_line, "default_evidence", lambda name: folders / name)
    monkeypatch.setattr(command_line, "real_data_at_hand", lambda root: True)
    monkeypatch.setattr(command_line, "load_digits", lambda root: REAL)
    assert command_line.main(["queue", "--list"]) == 0
    *lines, left = capsys.readouterr().out.splitlines()
    assert len(lines) == len(queue.runs())
    assert all(line.endswith("  done") for line in lines)
    assert left.startswith("about 0 min of training")


# Side by side


def run_all(runs, evidence, workers, **options):
    waiting = iter([(run, run.id) for run in runs])
    return list(side_by_side(lambda begun: next(waiting, None), lambda run: evidence, None, "cpu", workers, **options))


RUNS = plan("smoke", ["default"], [0, 1, 2, 3])


def test_runs_go_on_side_by_side_and_share_the_cores(tmp_path, monkeypatch):
    together = threading.Barrier(2, timeout=PATIENCE)
    given = []

    def carry_out(run, evidence, data_root, device, log, minutes, threads, lifeline):
        given.append((run, log, minutes, threads))
        together.wait()  # would time out if one run waited for the end of another
        if run.seeds == (2,):
            raise RuntimeError("no")

    monkeypatch.setattr(execution, "carry_out", carry_out)
    monkeypatch.setattr(execution, "cores", lambda: 5)
    outcomes = run_all(RUNS, tmp_path, 2)
    assert {outcome.run for outcome in outcomes} == set(RUNS)
    assert [str(outcome.error) for outcome in outcomes if outcome.error] == ["no"]
    assert {outcome.at_once for outcome in outcomes} == {2}
    assert {threads for *_, threads in given} == {2}
    assert {log for _, log, *_ in given} == {tmp_path / "work" / run.id / "output.txt" for run in RUNS}
    assert all(log.parent.is_dir() for _, log, *_ in given)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), ValueError("a half-written file"), KeyError(1)]
)
def test_no_error_of_one_run_ends_the_others(tmp_path, monkeypatch, error):
    def carry_out(run, *_):
        if run.seeds == (1,):
            raise error

    monkeypatch.setattr(execution, "carry_out", carry_out)
    outcomes = run_all(RUNS, tmp_path, 2)
    assert {outcome.run: outcome.error for outcome in outcomes} == {**dict.fromkeys(RUNS), RUNS[1]: error}


def test_after_sigterm_no_run_is_begun_and_those_that_go_on_may_save(tmp_path, monkeypatch, capsys):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("as before"))
    signalled = threading.Event()
    monkeypatch.setattr(execution, "_terminate_children", signalled.set)

    def carry_out(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        assert signalled.wait(PATIENCE)
        assert not heard
        raise OutOfTime("stopped by SIGTERM in epoch 3 of 10; the same command goes on from there")

    monkeypatch.setattr(execution, "carry_out", carry_out)
    try:
        outcomes = run_all(RUNS, tmp_path, 1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [type(outcome.error) for outcome in outcomes] == [OutOfTime]
    assert heard == ["as before"]


# The disk


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_disk_that_is_too_small_is_seen_before_anything_is_trained(tmp_path, monkeypatch, capsys, command):
    monkeypatch.setattr(execution, "carry_out", lambda *_: pytest.fail("it was begun"))
    free = 1_000_000
    monkeypatch.setattr(execution.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    arguments = [command, "--profile", "smoke", "--evidence", str(tmp_path / "new" / "folder"), "--seeds", "0", "1"]
    assert command_line.main(arguments) == 1
    line = capsys.readouterr().err
    found = re.fullmatch(
        r"qmvae_study: the disk of (\S+) is too small .*: ([\d,]+) bytes or more are missing.*\n", line
    )
    assert found[1] == str(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()
    free += int(found[2].replace(",", ""))
    execution.check_room(plan("smoke", seeds=[0, 1]), lambda run: tmp_path)
    weights = 4 * sum(each.numel() for each in build_model(reading(BEST)).parameters())
    assert free == 2 * 4 * weights + 3 * weights  # weights and checkpoints of both, and one checkpoint twice


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize("place", ["evidence", "evidence/runs"])
def test_a_folder_that_cannot_be_written_is_named_before_it_is_wanted(tmp_path, monkeypatch, capsys, place, command):
    monkeypatch.setattr(execution, "carry_out", lambda *_: pytest.fail("it was begun"))
    monkeypatch.setattr(command_line, "expected_hours", lambda *_: 1.0)
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()  # a file in the way: nobody can write into it, root neither
    assert command_line.main([command, "--profile", "smoke", "--evidence", str(tmp_path / "evidence")]) == 1
    line = capsys.readouterr().err
    assert re.fullmatch(
        rf"qmvae_study: {tmp_path / place} cannot be written \(.+\); name another with --evidence\n", line
    )


def test_a_run_with_a_record_is_not_called_failed(tmp_path, monkeypatch, capsys):
    def carry_out(run, evidence, *_):
        finish(run, 0, evidence, kind="stand-in")
        raise RuntimeError("07_train.ipynb could not be written")

    monkeypatch.setattr(execution, "carry_out", carry_out)
    assert command_line.main(["run", "--profile", "smoke", "--evidence", str(tmp_path)]) == 1
    line = "qmvae_study: run 1 of 1: its record is written, but 07_train.ipynb could not be written\n"
    assert capsys.readouterr().err == line


def test_an_error_of_the_system_is_one_line(tmp_path, capsys):
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "runs").mkdir()
    (tmp_path / "evidence" / "runs" / "a.json").mkdir()  # which no one can read
    assert command_line.main(["collect", "--evidence", str(tmp_path / "evidence")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("qmvae_study: ")
    assert "a.json" in line


# What ends with the command


def test_no_run_is_begun_when_the_time_is_over(tmp_path, monkeypatch):
    given, now, together = [], [0.0], threading.Barrier(2, timeout=PATIENCE)

    def carry_out(run, *parts):
        given.append(parts[4])
        together.wait()
        now[0] = 60.0
        raise OutOfTime("the time given is over")

    monkeypatch.setattr(execution, "carry_out", carry_out)
    monkeypatch.setattr(execution.time, "monotonic", lambda: now[0])
    outcomes = run_all(RUNS, tmp_path, 2, minutes=0.5)
    assert len(outcomes) == len(given) == 2
    assert given == [0.5, 0.5]


def test_the_command_trains_side_by_side_on_a_cpu_unless_told_otherwise(tmp_path, monkeypatch, capsys):
    asked = []
    nothing = (outcome for outcome in ())
    monkeypatch.setattr(command_line, "side_by_side", lambda *parts: asked.append(parts[4]) or nothing)
    monkeypatch.setattr(command_line.shell, "cores", lambda: 3)
    start = ["run", "--evidence", str(tmp_path), "--data-root", "stand-in", "--device", "cpu", "--readings", "default"]
    for more in (["--seeds", "0", "1", "2"], ["--seeds", "0"], ["--seeds", "0", "1", "--workers", "1"]):
        command_line.main([*start, *more])
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    command_line.main([*start[:-4], "--device", "cuda", "--readings", "default", "--seeds", "0", "1"])
    assert asked == [2, 1, 1, 1]


SCRIPT = """
import signal
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell ignores in what it runs in the background
from qmvae_study import execution, plan
execution.TRAINING_NOTEBOOK = Path({notebook!r})
runs = iter([(run, run.id) for run in plan.plan("smoke", ["default"], [0, 1, 2])])
for outcome in execution.side_by_side(lambda begun: next(runs, None), lambda run: Path({folder!r}), None, "cpu", 2):
    print(outcome, flush=True)
"""
CELLS = """
import os, signal, time
from pathlib import Path
def save(number, frame):
    Path({folder!r}, f"seed{{seeds[0]}}.saved").touch()
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
signal.signal(signal.SIGTERM, save)
Path({folder!r}, f"seed{{seeds[0]}}.pid").write_text(str(os.getpid()))
time.sleep(3600)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_runs_end_with_the_command_that_carries_them_out(tmp_path, how):
    """Also where the signal reaches that process alone, as that of a scheduler does; after SIGTERM they save first."""
    import psutil

    names = ("profile", "reading", "seeds", "precision", "device", "data_root", "evidence", "minutes")
    parameters = "\n".join(f"{name} = None" for name in names)
    notebook = write(tmp_path / "sleep.ipynb", CELLS.format(folder=str(tmp_path)), parameters=parameters)
    code = textwrap.dedent(SCRIPT.format(notebook=str(notebook), folder=str(tmp_path)))
    command = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + PATIENCE
        while len(found := list(tmp_path.glob("seed*.pid"))) < 2 or not all(f.read_text() for f in found):
            assert time.monotonic() < until, "the runs did not start"
            assert command.poll() is None
            time.sleep(0.2)
        kernels = [psutil.Process(int(file.read_text())) for file in found]
        command.send_signal(how)
        assert command.wait(timeout=PATIENCE) == -how
        _, alive = psutil.wait_procs(kernels, timeout=PATIENCE)
        assert not alive
        assert not (tmp_path / "seed2.pid").exists()
        assert len([*tmp_path.glob("*.saved")]) == (2 if how == signal.SIGTERM else 0)
    finally:
        command.kill()
        command.wait()
