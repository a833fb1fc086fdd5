"""What a run withstands: `python -m benchmarks.torture`. Kills, full disks and flipped bits, each tried and counted.

A trial is *refused* where an error of ours names the file and nothing of it is taken; *survived* where the result is
the undisturbed one to the last bit, at once or after the same command was given again; *silent* where it ended well
with another result. It is *lost* where the same command does not come to the undisturbed result.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from qmvae_core.data import DigitData, standin_digits
from qmvae_core.models import MODELS, reading
from qmvae_core.training import CheckpointError, TrainingConfig, fit
from qmvae_study import runs
from qmvae_study.evidence.folder import REPOSITORY, default_evidence
from qmvae_study.evidence.pictures import panel_images
from qmvae_study.evidence.provenance import code, provenance
from qmvae_study.evidence.records import FORMAT, Panel, RecordError, read_record, write_json
from qmvae_study.judges import OracleError, load_oracle
from qmvae_study.plan import PROFILES, Run, profile

SMALL = "mnist.widths=[6]+svhn.widths=[2,2]"
READINGS = ("as-printed", *(name for name in MODELS if name != "qmvae"))
SMALLER = {"mmvae": "+particles=2", "dmvae": "+discriminator=10"}
AT_WRITES = ("as-printed", "dmvae")  # without and with an opponent, whose optimiser has a state of its own
TRAINING = TrainingConfig(epochs=2, steps_per_epoch=12, batch_size=20, rounds=1, chunk=3, learning_rate=1e-3)
ENDED, REFUSED = 0, 3  # exit statuses of a process that ended well, and of one that said why not
OURS = (CheckpointError, RecordError, OracleError)
OUTCOMES = ("tried", "refused", "survived", "silent", "lost")


class Tally(dict):
    """How many trials there were, and how they ended."""

    def __init__(self):
        super().__init__(dict.fromkeys(OUTCOMES, 0))

    def count(self, outcome: str) -> None:
        self["tried"] += 1
        self[outcome] += 1


def in_a_process(work: Callable[[], str], answer: Path, kill_after: float | None = None) -> int:
    """The status of a process that does the work and leaves what it returns, or says in an error, in a file.

    It is a copy of this one, so nothing is imported anew. kill_after: seconds until it is killed; its status is -9.
    """
    answer.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        status = 1
        with contextlib.suppress(BaseException):
            try:
                answer.write_text(work())
                status = ENDED
            except (*OURS, OSError) as error:
                answer.write_text(str(error))
                status = REFUSED
        os._exit(status)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextlib.contextmanager
def at_write(number: int, stop: Callable[[], None]) -> Iterator[list[int]]:
    """Count the steps of all writes of files, and call `stop` at one of them; yields a list with the count.

    A file has four: half of its bytes, before they are safe on the disk, before they take the name, and before that is.
    """
    before = Path.write_bytes, os.fsync, os.replace
    seen = [0]

    def step(done: Callable, half: Callable | None = None) -> Callable:
        def stepped(*given):
            seen[0] += 1
            if seen[0] == number:
                if half:
                    half(*given)
                stop()
            return done(*given)

        return stepped

    Path.write_bytes = step(before[0], lambda path, content: before[0](path, content[: len(content) // 2]))
    os.fsync, os.replace = step(before[1]), step(before[2])
    try:
        yield seen
    finally:
        Path.write_bytes, os.fsync, os.replace = before


def killed() -> None:
    """As by the system, at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def full_disk() -> None:
    """As a write to a disk that is full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def flipped(path: Path, draw: random.Random) -> None:
    """Turn one bit of a file, anywhere."""
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


class Training:
    """One small model and the result that it comes to undisturbed."""

    def __init__(self, name: str, data: DigitData, folder: Path):
        self.model = reading(f"{name}+{SMALL}{SMALLER.get(name, '')}")
        self.train, self.folder, self.answer = data.train, folder / name, folder / f"{name}.txt"
        with at_write(0, killed) as seen:
            self.expected = self.run()
        self.writes = seen[0]
        self.anew()
        started = time.monotonic()  # not of the first, which also imports
        in_a_process(self.run, self.answer)
        self.seconds = time.monotonic() - started

    def run(self) -> str:
        """Train to the end, from the checkpoint if there is one; a hash of all that comes of it."""
        trained = fit(self.model, TRAINING, self.train, folder=self.folder, progress="none", checkpoint_seconds=0.0)
        digest = hashlib.sha256(json.dumps([trained.histories, trained.left]).encode())
        for name, value in sorted(trained.models[0].state_dict().items()):
            digest.update(name.encode() + value.numpy().tobytes())
        return digest.hexdigest()

    def anew(self) -> None:
        """Without a checkpoint."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def goes_on(self) -> str:
        """How the same command ends now."""
        status = in_a_process(self.run, self.answer)
        if status == REFUSED:
            return "refused"
        return "lost" if status != ENDED else "survived" if self.answer.read_text() == self.expected else "silent"

    def disturbed(self, number: int, stop: Callable[[], None]) -> None:
        """Train from the start, and stop so at a step of a write."""

        def work() -> str:
            with at_write(number, stop):
                return self.run()

        self.anew()
        status = in_a_process(work, self.answer)
        if status == ENDED:
            raise RuntimeError(f"step {number} of {self.writes} did not stop the training")


def kills(training: Training, count: int, draw: random.Random) -> Tally:
    """Killed at random moments, early and late, and given again."""
    tally = Tally()
    while tally["tried"] < count:
        training.anew()
        if in_a_process(training.run, training.answer, draw.uniform(0, training.seconds)) == ENDED:
            continue  # it was faster than the first time, and not killed
        outcome = training.goes_on()
        tally.count("lost" if outcome == "refused" else outcome)
    return tally


def stops(training: Training, stop: Callable[[], None]) -> Tally:
    """Stopped at every step of every write, and given again."""
    tally = Tally()
    for number in range(1, training.writes + 1):
        training.disturbed(number, stop)
        outcome = training.goes_on()
        tally.count("lost" if outcome == "refused" else outcome)
    return tally


def checkpoint_bits(training: Training, count: int, draw: random.Random) -> Tally:
    """One bit turned in a checkpoint of the middle of a training, which is then given again."""
    tally = Tally()
    training.disturbed(training.writes // 2, killed)
    path = training.folder / "checkpoint.pt"
    whole = path.read_bytes()
    for _ in range(count):
        path.write_bytes(whole)
        flipped(path, draw)
        tally.count(training.goes_on())
    path.write_bytes(whole)
    if training.goes_on() != "survived":
        raise RuntimeError("the checkpoint that was put back is not the one that was there")
    return tally


class Evidence:
    """What one small run leaves, judged by small judges: record, weights, panels and judges."""

    def __init__(self, data: DigitData, folder: Path):
        short = replace(profile("smoke").training, epochs=1, steps_per_epoch=4, batch_size=20, rounds=1)
        PROFILES["smoke"] = replace(profile("smoke"), training=short)
        self.run, self.data, self.folder = Run("smoke", f"default+{SMALL}", (0,)), data, folder
        self.oracles = runs.oracles_for("smoke", data, folder)
        self.trained = runs.train(self.run, data, folder, progress="none")
        (record,) = runs.judge(self.run, self.trained, data, self.oracles, folder)
        self.path = runs.record_path(self.run, 0, folder)
        metrics = record["metrics"]
        runs.evaluate = lambda *_: copy.deepcopy(metrics)  # the writing is disturbed, not the measuring
        self.expected = self.said()

    def said(self) -> str:
        """All of the record that does not tell of time and machine."""
        kept = {key: value for key, value in read_record(self.path).items() if key not in ("finished", "provenance")}
        return json.dumps(kept, sort_keys=True)

    def panels(self) -> str:
        """Every image of every panel."""
        digest = hashlib.sha256()
        for panels in read_record(self.path)["panels"].values():
            for panel in panels.values():
                for images in panel_images(Panel(**panel), self.folder / "panels").values():
                    digest.update(images.tobytes())
        return digest.hexdigest()

    def weights(self) -> str:
        """The weights of the run."""
        return _hash_of(runs.load_model(read_record(self.path), self.folder))

    def judges(self) -> str:
        """The weights of the judges."""
        return "".join(_hash_of(load_oracle(name, self.folder / "oracles", "stand-in")) for name in self.data.test)

    def judge(self) -> str:
        """Judge again and write all of it."""
        runs.judge(self.run, self.trained, self.data, self.oracles, self.folder)
        return ""

    def stops(self) -> Tally:
        """Killed at every step of every write of the judging, and given again."""
        with at_write(0, killed) as seen:
            self.judge()
        tally, answer = Tally(), self.folder / "answer.txt"
        for number in range(1, seen[0] + 1):

            def work(number: int = number) -> str:
                with at_write(number, killed):
                    return self.judge()

            in_a_process(work, answer)
            self.judge()
            whole = runs.state(self.run, self.folder, self.data.identity) == "done"
            tally.count("lost" if not whole else "survived" if self.said() == self.expected else "silent")
        return tally

    def bits(self, files: list[Path], read: Callable[[], str], count: int, draw: random.Random) -> Tally:
        """One bit turned in one of the files, which are then read."""
        tally, expected = Tally(), read()
        for _ in range(count):
            path = draw.choice(files)
            whole = path.read_bytes()
            flipped(path, draw)
            try:
                tally.count("survived" if read() == expected else "silent")
            except OURS:
                tally.count("refused")
            path.write_bytes(whole)
        return tally


def _hash_of(model: torch.nn.Module) -> str:
    parts = sorted((name, value.numpy().tobytes()) for name, value in model.state_dict().items())
    return hashlib.sha256(b"".join(name.encode() + value for name, value in parts)).hexdigest()


def trials(count: int, seed: int, folder: Path) -> Iterator[tuple[str, Tally]]:
    """Every kind of trial, one after the other; count: of the random ones of each kind and model."""
    draw, data = random.Random(seed), standin_digits()
    every = {name: Training(name, data, folder) for name in READINGS}
    for name, training in every.items():
        yield f"{name}: killed at a random moment", kills(training, count, draw)
        yield f"{name}: a bit turned in its checkpoint", checkpoint_bits(training, count, draw)
    for name in AT_WRITES:
        yield f"{name}: killed at each step of each write", stops(every[name], killed)
        yield f"{name}: disk full at each step of each write", stops(every[name], full_disk)
    made = Evidence(data, folder / "evidence")
    yield "judging: killed at each step of each write", made.stops()
    for kind, read in {
        "runs": made.said, "weights": made.weights, "panels": made.panels, "oracles": made.judges,
    }.items():  # fmt: skip
        files = sorted(path for path in (made.folder / kind).iterdir() if path.is_file())
        yield f"{kind}: a bit turned in a file", made.bits(files, read, 4 * count, draw)


def main(arguments: list[str] | None = None) -> int:
    """Try all of it, print a line each and write the record; 1 if anything was silent or lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50, help="random trials of each kind and model")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and bits")
    parser.add_argument("--out", type=Path, default=default_evidence("torture"), help="folder of the record")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # a process that is copied must have one thread
    code(REPOSITORY)  # which commit this is, asked for before the work
    started, found = time.monotonic(), {}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(sys.stdout):
        for name, tally in trials(options.count, options.seed, Path(folder)):
            found[name] = tally
            print(f"{name}: {', '.join(f'{number} {word}' for word, number in tally.items())}", flush=True)
    record = {"format": FORMAT, "id": "torture", "count": options.count, "seed": options.seed, "trials": found}
    write_json(options.out / "torture.json", record | {
        "seconds": time.monotonic() - started, "provenance": provenance(),
    })  # fmt: skip
    return int(any(tally["silent"] or tally["lost"] for tally in found.values()))


if __name__ == "__main__":
    sys.exit(main())
