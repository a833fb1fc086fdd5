"""The benchmarks measure what they say: cheap checks, nothing is timed."""

import dataclasses
import itertools
import json
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks import __main__ as command
from benchmarks import contenders, limits
from qmvae_study.evidence.folder import REPOSITORY
from qmvae_study.evidence.records import read_record

COMMITTED = sorted((REPOSITORY / "results" / "benchmarks").rglob("speed-*.json"))


class Operations(TorchDispatchMode):
    """Counts like PyTorch's FlopCounterMode, which does not work with torch.autograd.grad."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function.overloadpacket in flop_registry:
            self.total += flop_registry[function.overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


class Turns:
    """Lets a contender take so many turns."""

    def __init__(self, count: int):
        self.about, self.count, self.seen = {}, count, []

    def over(self) -> bool:
        self.seen.append(dict(self.about))
        self.count -= 1
        return self.count < 0


@pytest.fixture
def noise(monkeypatch):
    """No real data, so that the contenders make their own noise, and little of it."""
    monkeypatch.delenv("QMVAE_DATA_ROOT", raising=False)
    monkeypatch.setattr(contenders, "real_data_at_hand", lambda: False)
    monkeypatch.setattr(contenders, "PAIRED_DIGITS", (30,) * 10)


def test_noise_has_every_digit_among_the_first_images(noise):
    data, kind = contenders.digits(images=200)
    assert kind.startswith("noise")
    for each in data.values():
        assert len(each.labels) == 200
        assert set(each.labels.tolist()) == set(range(10))


def test_one_modality_more_is_a_copy_of_one_that_is_there(noise):
    data, _ = contenders.digits(modalities=4)
    assert list(data) == list(contenders.config("qmvae", 4).modalities)
    assert torch.equal(data["svhn2"].labels, data["svhn"].labels)


@pytest.mark.parametrize("loop", ["plain", "fast"])
@pytest.mark.parametrize("model", ["mvae", "qmvae", "as-printed"])
def test_a_contender_takes_its_steps_and_says_what_they_are(loop, model, noise):
    turn = Turns(2)
    contenders.ours(turn, model, loop, "cpu", batch=8, rounds=1, steps=2)
    assert len(turn.seen) == 3
    assert all(seen["pairs"] == 300 and seen["steps"] == 2 for seen in turn.seen)


def test_the_peer_takes_its_steps_on_as_many_pairs_as_ours(noise):
    turn = Turns(2)
    contenders.multivae(turn, "cpu", steps=1)
    assert len(turn.seen) == 3
    assert turn.seen[0]["pairs"] == 30 * 300


def test_operations_of_a_step_are_those_of_a_hand_count(monkeypatch):
    """A linear layer is three products of 2 n m operations an image; two where no gradient of the image is needed.

    MVAE encodes each image once and decodes it twice, from the joint code and from its own.
    """
    chosen = contenders.config("mvae")
    mnist = chosen.modalities["mnist"]
    dense = dataclasses.replace(chosen, modalities={"mnist": mnist, "mnist2": mnist})
    monkeypatch.setattr(limits, "config", lambda model, modalities: dense)
    sizes = [math.prod(mnist.shape), *mnist.widths]
    encoder = [2 * a * b for a, b in itertools.pairwise([*sizes, 2 * chosen.shared])]
    decoder = [2 * a * b for a, b in itertools.pairwise([chosen.shared, *reversed(sizes)])]
    by_hand = 4 * 2 * (3 * sum(encoder) - encoder[0] + 2 * 3 * sum(decoder))
    assert limits.operations("mvae", batch=4) == by_hand


@pytest.mark.parametrize("model", ["mvae", "qmvae"])
def test_the_layers_alone_do_the_operations_of_the_step(model, monkeypatch):
    """Layers as they are; arranged for a CPU, few channels are computed with some products by zero besides."""

    def counted() -> int:
        found = []
        for turns in (1, 2):  # the first has the setting up with it
            with Operations() as counter:
                limits.layers(Turns(turns), model, batch=4, steps=3)
            found.append(counter.total)
        return found[1] - found[0]

    expected = 3 * limits.operations(model, batch=4)
    assert expected < counted() < 1.05 * expected
    monkeypatch.setattr(limits, "arrange_for_cpu", lambda module: module)
    assert counted() == expected


def test_the_layers_alone_are_no_limit_on_a_gpu():
    with pytest.raises(ValueError, match="no limit on cuda"):
        limits.layers(Turns(1), "mvae", "cuda")
    assert list(command.LIMITS["cuda"]) == [command.CEILING]
    record = made_up()
    del record["contenders"]["layers, qmvae"]
    found = command._summary("five", record)
    assert found["share_of_layers"] is None
    assert "layers" not in command._line("five", found)


def test_operations_grow_with_batch_and_modalities():
    assert limits.operations("qmvae", batch=8) == pytest.approx(2 * limits.operations("qmvae", batch=4), rel=1e-3)
    assert limits.operations("mvae", batch=4, modalities=4) > 1.9 * limits.operations("mvae", batch=4)


def made_up() -> dict:
    return {
        "operations": {"mvae": 100, "qmvae": 200},
        "contenders": {
            command.PEER: {"task": {"what": "multivae"}, "ms": [40.0, 80.0, 40.0]},
            command.CEILING: {"task": {"what": "ceiling"}, "ms": [1.0, 2.0, 1.0], "operations": 10},
            "layers, mvae": {"task": {}, "ms": [8.0, 16.0, 8.0]},
            "layers, qmvae": {"task": {}, "ms": [16.0, 32.0, 16.0]},
            command.CEILING_BFLOAT16: {"task": {"what": "ceiling"}, "ms": [0.5, 1.0, 0.5], "operations": 10},
            "half": {"task": {"model": "qmvae", "precision": "bfloat16"}, "ms": [20.0, 40.0, 20.0]},
            "five": {"task": {"model": "qmvae", "seeds": 5}, "ms": [200.0, 400.0, 100.0]},
        },
    }


def test_contenders_take_turns_each_with_its_own_settings(monkeypatch):
    """Processes as the benchmark starts them; what each says it ran with comes from itself."""
    for name in command.LAYERS_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    layers = {"what": "layers", "model": "mvae", "batch": 2, "steps": 1}
    tasks = {"layers": layers, command.PEER: {"what": "ceiling", "size": 16}}
    found = command._in_turns(tasks, "cpu", turns=2, threads=1)
    assert {name: each["environment"] for name, each in found.items()} == {
        "layers": command.LAYERS_SETTINGS, command.PEER: {},
    }  # fmt: skip
    assert command._settings("another", tasks[command.PEER]) == command.MEMORY_SETTINGS
    for each in found.values():
        assert len(each["ms"]) == 2
        assert min(each["ms"]) > 0
    assert found[command.PEER]["operations"] == 2 * 16**3


@pytest.fixture
def started(tmp_path, monkeypatch):
    """A function: a shell's commands -> they stand in for every contender's process; each line is an answer."""

    def arrange(commands: str) -> None:
        (tmp_path / "python").write_text(f"#!/bin/sh\n{commands}\n")
        (tmp_path / "python").chmod(0o755)
        monkeypatch.setattr(command.sys, "executable", str(tmp_path / "python"))

    return arrange


def test_a_contender_that_ends_is_named(started):
    started("echo noise")
    with pytest.raises(RuntimeError, match="'wrong' ended.*python -m benchmarks .*no such model"):
        command._in_turns({"wrong": {"what": "layers", "model": "no such model"}}, "cpu", turns=1, threads=1)


def test_ratios_are_medians_over_rounds_and_count_every_seed():
    found = command._summary("five", made_up())
    assert found["steps_per_second"] == 5.0
    assert found["times_the_peer"] == 1.0  # five seeds in the time of five steps of the peer
    assert found["share_of_ceiling"] == pytest.approx(0.5)  # 1,000 operations in 200 ms; the ceiling does 10 in each
    assert found["share_of_layers"] == pytest.approx(0.4)
    assert command._summary(command.PEER, made_up())["share_of_ceiling"] is None


def test_a_loop_in_bfloat16_is_held_against_products_in_bfloat16():
    found = command._summary("half", made_up())
    assert found["times_the_peer"] == 2.0
    assert found["share_of_ceiling"] == pytest.approx(0.5)  # 200 operations in 20 ms; the ceiling does 20 in each
    assert found["share_of_layers"] is None


def test_what_the_machine_lacks_is_left_out(monkeypatch):
    monkeypatch.setattr(command, "bfloat16_here", lambda: False)
    left = command._possible(command.LOOPS["cpu"])
    assert "fast loop, Q-MVAE" in left
    assert not [name for name in left if "bfloat16" in name]
    assert list(command._possible(command.LIMITS["cpu"])) == [command.CEILING, "layers, mvae", "layers, qmvae"]
    assert command._default("cpu") == {"model": "qmvae", "loop": "fast"}
    monkeypatch.setattr(command, "bfloat16_here", lambda: True)
    assert command._possible(command.LOOPS["cpu"]) == command.LOOPS["cpu"]
    assert command._default("cpu")["precision"] == "bfloat16"


def test_side_by_side_one_process_has_all_cores_and_the_others_one_each(started):
    started(f'echo "{command.MARK}0"; while read -r word; do echo "{command.MARK}$OMP_NUM_THREADS"; done')
    assert (
        command._side_by_side({"what": "ceiling", "size": 16}, turns=2, cores=2)
        == [{"one on all cores": [2], "one on each core": [1, 1]}] * 2
    )


def test_steps_side_by_side_are_those_of_all_processes_together():
    turns = [
        {"one on all cores": [80.0], "one on each core": [100.0, 100.0]},
        {"one on all cores": [60.0], "one on each core": [100.0, 150.0]},
        {"one on all cores": [200.0], "one on each core": [100.0, 100.0]},
    ]
    assert command._times_the_steps(turns) == pytest.approx(1.6)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_a_committed_record_says_what_follows_from_its_turns(path):
    record = read_record(path)
    for name, summary in record["summary"].items():
        assert json.loads(json.dumps(command._summary(name, record))) == pytest.approx(summary), name
    for turns in record.get("side_by_side", {}).values():
        assert len(turns) == record["settings"]["turns"]
        assert {len(turn["one on each core"]) for turn in turns} == {2}
    for dimension, points in record["growth"].items():
        assert [point["value"] for point in points] == sorted(point["value"] for point in points), dimension
        assert {len(point["ms"]) for point in points} == {record["settings"]["turns"]}


def test_an_earlier_record_is_named_by_its_commit_and_compares_the_same():
    newest = read_record(REPOSITORY / "results" / "benchmarks" / "speed-cpu.json")
    earlier = [path for path in COMMITTED if path.parent.name == "earlier"]
    assert earlier
    for path in earlier:
        record = read_record(path)
        assert path.stem == f"speed-cpu-{record['provenance']['commit'][:8]}"
        assert not record["provenance"]["dirty"]
        assert {model: newest["operations"][model] for model in record["operations"]} == record["operations"]
        for name in ("fast loop, MVAE", command.PEER):
            for key in ("task", "data", "pairs"):
                assert record["contenders"][name][key] == newest["contenders"][name][key], (path, name, key)
