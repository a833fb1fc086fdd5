"""`fit`: plain and stacked loops agree, a killed run resumes to the same bits, and errors come early and say enough."""

import copy
import dataclasses
import functools
import math
import multiprocessing
import random
import re
import signal
import time
from pathlib import Path

import pytest
import torch
from model_cases import SMALL, Interruption, assert_same_run, quiet, same_bits, weights
from torch.utils._python_dispatch import TorchDispatchMode

from qmvae_core import files, training
from qmvae_core.data import Digits, tuple_indices
from qmvae_core.draws import seed_for
from qmvae_core.models import QMVAE, build_model
from qmvae_core.training import CheckpointError, NonFiniteLoss, OutOfTime, TrainingConfig, fit, run_key
from qmvae_study import runs

SHORT = TrainingConfig(epochs=3, batch_size=8, rounds=2, learning_rate=1e-3, chunk=2)
ONE_STEP_EPOCHS = dataclasses.replace(SHORT, epochs=4, steps_per_epoch=1)
pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 6  # of an epoch of SHORT: 4 digits, 6 images, 2 rounds are 48 pairs


def assert_histories_close(first: list[dict], second: list[dict], relative: float = 1e-5) -> None:
    assert len(first) == len(second)
    for epoch, other in zip(first, second, strict=True):
        assert epoch == pytest.approx(other, rel=relative, abs=1e-5)


# What training does


@pytest.mark.parametrize("loop", training.LOOPS)
def test_first_loss_is_that_of_the_model_itself(small_config, small_digits, monkeypatch, loop):
    """One step of one epoch: the history is the loss of the freshly built model on what it was given."""
    given = []
    original = training.batches.Steps._draws
    monkeypatch.setattr(
        training.batches.Steps, "_draws", lambda self, *at: given.append(original(self, *at)) or given[-1]
    )
    one = dataclasses.replace(SHORT, epochs=1, steps_per_epoch=1)
    config, digits = small_config(), small_digits()
    (history,) = quiet(config, one, digits, [3], loop=loop).histories

    index = tuple_indices({name: d.labels for name, d in digits.items()}, rounds=2, seed=0)
    order = torch.randperm(48, generator=torch.Generator().manual_seed(seed_for(3, "order", 0)), dtype=torch.int32)[:8]
    images = {name: d.batch(index[name][order.long()].long()) for name, d in digits.items()}
    labels = digits["ink"].labels[index["ink"].long()][order.long()]
    noise = {name: value[0, 0] for name, value in given[-1].items()}
    expected = build_model(config, 3).loss(images, labels, noise)
    assert history[0]["objective"] == pytest.approx(expected.objective.mean().item(), rel=1e-5)
    for name, value in expected.terms.items():
        assert history[0][name] == pytest.approx(value.mean().item(), rel=1e-5), name


def test_plain_loop_is_adam_on_the_loss(small_config, small_digits, monkeypatch):
    """The same steps with an optimiser written out in the test: bias-corrected moments, no weight decay."""
    seen = []
    original = QMVAE.loss
    monkeypatch.setattr(QMVAE, "loss", lambda self, *batch: seen.append(batch) or original(self, *batch))
    config = small_config()
    (trained,) = quiet(config, ONE_STEP_EPOCHS, small_digits(), [0]).models
    monkeypatch.undo()
    model = build_model(config, 0)
    parameters = list(model.parameters())
    first, second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    for step, batch in enumerate(seen, start=1):
        gradients = torch.autograd.grad(model.loss(*batch).loss, parameters)
        with torch.no_grad():
            for p, g, m, v in zip(parameters, gradients, first, second, strict=True):
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g * g)
                p -= 1e-3 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
    assert len(seen) == 4
    for (name, found), (_, expected) in zip(trained.named_parameters(), model.named_parameters(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0, msg=name)


def test_global_generator_is_neither_read_nor_advanced(small_config, small_digits):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        state = torch.get_rng_state()
        first = quiet(small_config(), SHORT, small_digits(), [0])
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(2)
        second, other = (quiet(small_config(), SHORT, small_digits(), [seed]) for seed in (0, 1))
    assert_same_run(first, second)
    assert not same_bits(first.models[0], other.models[0])


# Pairs and batches


def numbered_digits(small_digits) -> dict[str, Digits]:
    """Digits whose first pixel is their place in the data."""
    made = small_digits(per_digit=6)
    for digits in made.values():
        digits.images[:, 0, 0, 0] = torch.arange(len(digits)).to(torch.uint8)
    return made


@pytest.fixture
def batches(small_config, small_digits, monkeypatch):
    """A function: a training config -> the pairs (places, labels) of every batch that the loss is given."""

    def run(config: TrainingConfig, seed: int = 0) -> list[list[tuple[int, int, int]]]:
        seen = []
        original = QMVAE.loss

        def loss(self, images, labels, noise):
            places = [(images[name][:, 0, 0, 0] * 255).round().int().tolist() for name in ("ink", "photo")]
            seen.append(list(zip(*places, labels.tolist(), strict=True)))
            return original(self, images, labels, noise)

        with monkeypatch.context() as patch:
            patch.setattr(QMVAE, "loss", loss)
            quiet(small_config(), config, numbered_digits(small_digits), [seed])
        return seen

    return run


def expected_pairs(small_digits) -> list[tuple[int, int, int]]:
    digits = numbered_digits(small_digits)
    index = tuple_indices({name: d.labels for name, d in digits.items()}, rounds=2, seed=0)
    labels = digits["ink"].labels[index["ink"].long()].tolist()
    return list(zip(index["ink"].tolist(), index["photo"].tolist(), labels, strict=True))


def test_an_epoch_shows_every_pair_once_in_an_order_of_its_own(batches, small_digits):
    seen = batches(SHORT)
    epochs = [sum(seen[i : i + STEPS], []) for i in range(0, len(seen), STEPS)]
    assert len(epochs) == 3
    assert all(sorted(epoch) == sorted(expected_pairs(small_digits)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert sum(batches(SHORT, seed=1)[:STEPS], []) != epochs[0]


def test_last_short_batch_is_filled_up_so_every_batch_is_full(batches, small_digits):
    seen = batches(dataclasses.replace(SHORT, epochs=1, batch_size=10))
    assert [len(batch) for batch in seen] == [10] * 5  # 48 pairs
    shown = sum(seen, [])
    assert sorted(shown[:48]) == sorted(expected_pairs(small_digits))
    assert shown[48:] == shown[:2]


def test_steps_per_epoch_can_be_fewer_or_more_than_the_pairs_give(batches, small_digits):
    assert len(batches(dataclasses.replace(SHORT, epochs=2, steps_per_epoch=2))) == 4
    seen = sum(batches(dataclasses.replace(SHORT, epochs=1, steps_per_epoch=15)), [])
    assert len(seen) == 15 * 8
    assert sorted(seen[:48]) == sorted(seen[48:96]) == sorted(expected_pairs(small_digits))


@pytest.mark.parametrize("seeds", [[0], [0, 5]])
def test_no_two_steps_of_a_run_see_the_same_draws(small_config, small_digits, monkeypatch, seeds):
    seen = []
    for loop in (training.learners.Plain, training.learners.Stacked):

        def update(self, images, labels, noise, original=loop.update):
            seen.extend(tuple(row.flatten().tolist()) for row in noise["joint/shared"])
            return original(self, images, labels, noise)

        monkeypatch.setattr(loop, "update", update)
    quiet(small_config(), SHORT, small_digits(), seeds)
    assert len(seen) == len(set(seen)) == 3 * STEPS * len(seeds)


# The loops


@pytest.mark.parametrize("model", SMALL)
def test_the_fast_loop_is_that_of_a_cpu_and_takes_the_steps_of_the_plain_one(small_config, small_digits, model):
    config = small_config(model=model, **SMALL[model])
    plain, fast = (quiet(config, ONE_STEP_EPOCHS, small_digits(), [3, 4], loop=name) for name in ("plain", None))
    for first, second in zip(plain.histories, fast.histories, strict=True):
        assert_histories_close(first, second)
    assert (plain.cost["loop"], fast.cost["loop"]) == ("plain", "fast")


@pytest.mark.parametrize("loop", ["plain", "fast"])
def test_seeds_trained_one_after_the_other_end_with_the_bits_of_each_alone(small_config, small_digits, loop):
    together = quiet(small_config(), SHORT, small_digits(), [0, 5], loop=loop)
    for i, seed in enumerate([0, 5]):
        alone = quiet(small_config(), SHORT, small_digits(), [seed], loop=loop)
        assert same_bits(together.models[i], alone.models[0])
        assert together.histories[i] == alone.histories[0]


class Watch(TorchDispatchMode):
    """Notes each operation with the shapes it gives, and refuses those for which a host waits for its device."""

    # reading a value, and shapes that depend on values
    WAITING = "_local_scalar_dense item nonzero masked_select _unique2 unique_dim is_nonzero equal".split()

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = function._schema.name.removeprefix("aten::")
        assert name not in self.WAITING, f"{name} makes the host wait"
        result = function(*arguments, **(options or {}))
        results = result if isinstance(result, tuple | list) else [result]
        self.seen.append((name, [tuple(each.shape) for each in results if isinstance(each, torch.Tensor)]))
        return result


CONFIGS = [
    *(("qmvae", {"negatives": rule}) for rule in ("random", "semi-hard", "hardest", "all-violating")),
    ("mvae", {}), ("mmvae", {}), ("mopoe", {}), ("jmvae", {}), ("jmvae", {"alpha": 0.1}),
    ("dmvae", {}), ("dmvae", {"empty_group": False}),
]  # fmt: skip


@pytest.fixture(params=CONFIGS, ids=str)
def any_config(request, small_config):
    """A small config of each model, for Q-MVAE of each screening rule."""
    model, choices = request.param
    return small_config(model=model, **SMALL[model], **choices)


def test_a_step_never_waits_and_always_has_the_same_operations_and_shapes(any_config, small_digits):
    """What a captured step needs, as far as a CPU shows it: no waiting, static shapes, tensors that stay in place."""
    config, seeds = any_config, [0, 5]
    device = torch.device("cpu")
    learner = training.learners.Stacked(config, SHORT, seeds, device)
    loop = training.batches.Steps(learner, SHORT, small_digits(), seeds, device)
    loop.start_epoch(0)
    loop.run_chunk(0, 0)
    places = [[value.data_ptr() for value in each] for each in learner.state().values()]
    noted = []
    for step in (2, 3, 4):
        loop._at(step)
        with Watch() as watch:
            loop._step()
        noted.append(watch.seen)
    assert noted[0] == noted[1] == noted[2]
    assert len(noted[0]) > 100
    assert places == [[value.data_ptr() for value in each] for each in learner.state().values()]


def test_the_watch_sees_a_host_that_waits():
    with pytest.raises(AssertionError, match="makes the host wait"), Watch():
        torch.ones(3).sum().item()


def test_a_stack_of_seeds_trains_each_as_if_it_were_alone(any_config, small_digits):
    seeds = [0, 5, 9]
    together = quiet(any_config, ONE_STEP_EPOCHS, small_digits(), seeds, loop="stacked")
    for i, seed in enumerate(seeds):
        alone = quiet(any_config, ONE_STEP_EPOCHS, small_digits(), [seed])
        assert_histories_close(together.histories[i], alone.histories[0])
    assert together.histories[0] != together.histories[1]


def test_weights_of_a_stack_are_those_of_each_seed_alone(small_config, small_digits):
    """Adam moves weights by the learning rate however small its gradient, so a few may differ by more than rounding"""
    two_steps = dataclasses.replace(ONE_STEP_EPOCHS, epochs=2)
    together = quiet(small_config(), two_steps, small_digits(), [0, 5], loop="stacked")
    for model, seed in zip(together.models, [0, 5], strict=True):
        alone = weights(quiet(small_config(), two_steps, small_digits(), [seed]).models[0])
        start = weights(build_model(small_config(), seed))
        gaps = torch.cat([(value - alone[name]).abs().flatten() for name, value in weights(model).items()])
        moves = torch.cat([(value - start[name]).abs().flatten() for name, value in weights(model).items()])
        assert gaps.max() <= 2 * 2 * two_steps.learning_rate
        assert (gaps > 1e-5).float().mean() < 0.01
        assert moves.median() > 1e-4
        assert all(value.requires_grad and value.device.type == "cpu" for value in model.parameters())
    assert not same_bits(*together.models)


# Data that the model does not use


def test_other_modalities_and_the_order_of_the_data_have_no_say(small_config, small_digits):
    digits = small_digits()
    more = {"sketch": small_digits("sketch", per_digit=2)["sketch"], **dict(reversed(digits.items()))}
    expected = quiet(small_config(), SHORT, digits)
    assert quiet(small_config(), SHORT, more).histories == expected.histories
    assert run_key(small_config(), SHORT, [0], more) == run_key(small_config(), SHORT, [0], digits)


# Checkpoints


def train_in_a_process(config, long, digits, seeds, folder):
    torch.set_num_threads(1)
    train = {name: Digits(torch.from_numpy(images), torch.from_numpy(labels)) for name, images, labels in digits}
    fit(config, long, train, seeds, folder=folder, progress="none", checkpoint_seconds=0.0)


@pytest.fixture(scope="module")
def processes():
    """Processes of their own that share one import of torch, and of what its first optimiser imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["qmvae_core.training", "torch._dynamo"])
    return context


def wait_for_new_checkpoints(process, path: Path, count: int) -> None:
    """Return when the file has been replaced `count` times."""
    seen = None
    while count >= 0:
        assert process.is_alive(), "the run ended by itself"
        now = path.stat().st_mtime_ns if path.exists() else None
        count -= now != seen
        seen = now
        time.sleep(0.001)


@pytest.mark.parametrize("seeds", [[0], [0, 4]])
def test_a_run_killed_three_times_ends_with_the_bits_of_an_undisturbed_one(
    small_config, small_digits, tmp_path, processes, seeds
):
    moments = random.Random(len(seeds))
    config, digits = small_config("ink", "photo", "sketch"), small_digits("ink", "photo", "sketch")
    long = dataclasses.replace(SHORT, epochs=20)
    plain = [(name, d.images.numpy(), d.labels.numpy()) for name, d in digits.items()]
    for _ in range(3):
        process = processes.Process(target=train_in_a_process, args=(config, long, plain, seeds, tmp_path))
        process.start()
        wait_for_new_checkpoints(process, tmp_path / "checkpoint.pt", moments.randint(2, 8))
        time.sleep(moments.uniform(0, 0.02))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    resumed = quiet(config, long, digits, seeds, folder=tmp_path)
    undisturbed = quiet(config, long, digits, seeds)
    assert resumed.cost["resumed"] == 3
    assert_same_run(resumed, undisturbed)


RESUMED = [
    *(("qmvae", "fast", [0], steps) for steps in range(1, 2 * STEPS + 2)),
    *(("qmvae", "fast", [0, 4], steps) for steps in (3, 4, 6, 7)),
    *(("dmvae", loop, [0, 4], STEPS + 2) for loop in ("fast", "stacked")),  # its weights change with the progress
]


@pytest.fixture(scope="module")
def undisturbed(small_config, small_digits):
    """A function: model, loop, seeds -> what `fit` is given, and what comes of it; each is trained once."""

    @functools.cache
    def train(model: str, loop: str, *seeds: int):
        config = small_config(model=model, **SMALL[model], **({"warm_up": 0.8} if model == "dmvae" else {}))
        run = (config, dataclasses.replace(SHORT, chunk=4), small_digits(), list(seeds))
        return run, quiet(*run, loop=loop)

    return train


@pytest.mark.parametrize(("model", "loop", "seeds", "steps"), RESUMED)
def test_a_run_stopped_before_any_step_resumes_to_the_same_bits(
    undisturbed, tmp_path, interrupted, model, loop, seeds, steps
):
    """Also right after a chunk that ends an epoch, and with a last chunk that is shorter."""
    run, expected = undisturbed(model, loop, *seeds)
    interrupted(steps, *run, loop=loop)
    resumed = quiet(*run, folder=tmp_path, loop=loop)
    assert resumed.cost["resumed"] == (steps >= 4)
    assert_same_run(resumed, expected)


def test_a_kill_between_the_end_of_an_epoch_and_its_report_resumes(small_config, small_digits, tmp_path, monkeypatch):
    def interrupt(self, at):
        raise Interruption

    config, digits = small_config(), small_digits()
    monkeypatch.setattr(training.progress.Report, "line", interrupt)
    with pytest.raises(Interruption):
        quiet(config, SHORT, digits, folder=tmp_path, checkpoint_seconds=0.0)
    monkeypatch.undo()
    assert quiet(config, SHORT, digits, folder=tmp_path).histories == quiet(config, SHORT, digits).histories


@pytest.mark.parametrize(("first", "second"), [("fast", "stacked"), ("stacked", "fast"), ("plain", "fast")])
def test_a_run_can_go_on_in_another_loop(small_config, small_digits, tmp_path, interrupted, first, second):
    run = (small_config(), SHORT, small_digits(), [0, 5])
    interrupted(STEPS + 2, *run, loop=first)
    resumed = quiet(*run, folder=tmp_path, loop=second)
    assert resumed.cost["resumed"] == 1
    for found, expected in zip(resumed.histories, quiet(*run).histories, strict=True):
        assert_histories_close(found, expected, relative=1e-4)


# Pieces of some minutes


@pytest.mark.parametrize("steps", [2, STEPS])
def test_a_run_cut_into_pieces_ends_with_the_bits_of_a_whole_one(
    small_config, small_digits, tmp_path, monkeypatch, steps
):
    """The clock stands still but for a minute at each step of the given count, so each piece ends after that many."""
    config, digits = small_config(), small_digits()
    whole = quiet(config, SHORT, digits)
    clock = 0.0
    monkeypatch.setattr(training.loop.time, "monotonic", lambda: clock)
    original, count, pieces = training.learners.Plain.update, 0, 0

    def update(self, *batch):
        nonlocal clock, count
        count += 1
        clock += 60.0 * (count % steps == 0)
        return original(self, *batch)

    monkeypatch.setattr(training.learners.Plain, "update", update)
    for _ in range(3 * STEPS // steps - 1):
        with pytest.raises(OutOfTime, match="the same command goes on from there"):
            quiet(config, SHORT, digits, folder=tmp_path, minutes=0.5)
        pieces += 1
        assert count == pieces * steps
    cut = quiet(config, SHORT, digits, folder=tmp_path, minutes=0.5)
    assert count == 3 * STEPS
    assert cut.cost["resumed"] == pieces
    assert_same_run(cut, whole)


def test_a_run_stops_with_a_checkpoint_for_a_reason_that_it_is_given(small_config, small_digits, tmp_path):
    run = small_config(), SHORT, small_digits()
    reasons = iter(["", "the disk is wanted", ""])
    with pytest.raises(OutOfTime, match="the disk is wanted in epoch 1 of 3; the same command goes on from there"):
        quiet(*run, folder=tmp_path, stop=lambda: next(reasons))
    on = quiet(*run, folder=tmp_path)
    assert on.cost["resumed"] == 1
    assert_same_run(on, quiet(*run))


def test_a_finished_run_is_not_trained_again(small_config, small_digits, tmp_path, stop_after):
    first = quiet(small_config(), SHORT, small_digits(), folder=tmp_path)
    stop_after(0, AssertionError("a step was taken"))
    second = fit(small_config(), SHORT, small_digits(), folder=tmp_path, progress="lines")  # nor divided by nothing
    assert_same_run(second, first)


@pytest.mark.parametrize("change", ["model", "training", "seeds", "labels", "images", "device"])
def test_checkpoint_of_another_run_is_refused_and_kept(small_config, small_digits, tmp_path, change):
    run, path = (
        {"model": small_config(), "training": SHORT, "train": small_digits(), "seeds": [0]},
        tmp_path / "checkpoint.pt",
    )
    quiet(**run, folder=tmp_path)
    if change == "device":
        content = training.checkpoint.read(path)
        training.checkpoint.write(path, content | {"key": {**content["key"], "device": "cuda"}})
    before, ink = path.read_bytes(), run["train"]["ink"]
    other = {
        "model": {"model": small_config(beta=11.0)},
        "training": {"training": dataclasses.replace(SHORT, learning_rate=2e-3)},
        "seeds": {"seeds": [1]},
        "labels": {"train": {**run["train"], "ink": Digits(ink.images, ink.labels.flip(0))}},
        "images": {"train": {**run["train"], "ink": Digits(ink.images.flip(0), ink.labels)}},
        "device": {},
    }[change]
    with pytest.raises(
        CheckpointError, match=f"another {'data' if change in ('labels', 'images') else change}; go on with the same"
    ):
        quiet(**{**run, **other}, folder=tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("place", "name"), [(Path, "write_bytes"), (files.os, "replace")], ids=["halfway", "at end"])
def test_a_write_that_fails_leaves_the_last_whole_checkpoint_and_nothing_else(
    small_config, small_digits, tmp_path, monkeypatch, place, name
):
    original, calls, run = getattr(place, name), [], (small_config(), SHORT, small_digits())

    def fail_at_the_third(first, second):
        calls.append(first)
        if len(calls) < 3:
            return original(first, second)
        if name == "write_bytes":
            original(first, second[: len(second) // 2])
        raise OSError("no space left on device")

    monkeypatch.setattr(place, name, fail_at_the_third)
    with pytest.raises(OSError, match="no space"):
        quiet(*run, folder=tmp_path)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert training.checkpoint.read(tmp_path / "checkpoint.pt")["position"]["epoch"] == 2
    resumed = quiet(*run, folder=tmp_path)
    assert resumed.cost["resumed"] == 1
    assert_same_run(resumed, quiet(*run))


def test_keyboard_interrupt_says_how_to_go_on(small_config, small_digits, tmp_path, stop_after):
    stop_after(STEPS + 1, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt, match="epoch 2.*same folder"):
        quiet(small_config(), SHORT, small_digits(), folder=tmp_path)


def test_without_a_folder_nothing_is_written(small_config, small_digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quiet(small_config(), SHORT, small_digits())
    assert list(tmp_path.iterdir()) == []


def test_seeds_of_generators_are_fixed_and_distinct():
    made = {
        seed_for(seed, kind, epoch, chunk)
        for seed in range(3)
        for kind in "ab"
        for epoch in range(3)
        for chunk in range(3)
    }
    assert len(made) == 54
    assert all(0 <= seed < 2**63 for seed in made)
    assert seed_for(0, "noise", 1, 2) == 7454679448656141705


# Errors


@pytest.mark.parametrize("seeds", [[7], [7, 8]])
def test_loss_that_is_not_finite_names_term_epoch_step_and_seed(small_config, small_digits, monkeypatch, seeds):
    """The last seed meets a bad value in the fifth step of the second epoch."""
    original = training.batches.Steps._draws

    def draws(self, epoch, chunk):
        found = original(self, epoch, chunk)
        if (epoch, chunk) == (1, 2):
            found["photo/private"][0, -1, 1] = math.nan  # the draw of the unimodal bound
        return found

    monkeypatch.setattr(training.batches.Steps, "_draws", draws)
    with pytest.raises(NonFiniteLoss) as caught:
        quiet(small_config(), SHORT, small_digits(), seeds)
    message = str(caught.value)
    assert f"epoch 2, step 5, seed {seeds[-1]};" in message
    assert "elbo/photo is nan" in message
    assert "elbo/joint" not in message
    assert "elbo/ink" not in message


def test_loss_that_is_not_finite_is_never_saved(small_config, small_digits, tmp_path):
    huge = dataclasses.replace(SHORT, learning_rate=1e30)
    with pytest.raises(NonFiniteLoss):
        quiet(small_config(), huge, small_digits(), folder=tmp_path, checkpoint_seconds=0.0)
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("precision", "float8", "unknown precision 'float8'.*float32.*tf32"),
        ("steps_per_epoch", 0, r"steps_per_epoch must be positive int \| None, not 0"),
        ("learning_rate", math.inf, "learning_rate must be positive float, not inf"),
        *((field, 0, f"{field} must be positive") for field in ("epochs", "batch_size", "rounds", "chunk", "reports")),
        ("learning_rate", 0, "learning_rate must be positive"),
    ],
)
def test_impossible_training_config_is_an_error(field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SHORT, **{field: value})


def test_the_defaults_are_the_papers():
    assert dataclasses.asdict(TrainingConfig()) == {
        "epochs": 10, "steps_per_epoch": None, "batch_size": 128, "learning_rate": 1e-4, "rounds": 30, "pair_seed": 0,
        "chunk": 100, "precision": "float32", "reports": 1, "missing": 0.0,
    }  # fmt: skip
    for made, field in ((SHORT, "epochs"), (training.Trained([], [], {}, [], []), "cost")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, field, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": []}, "at least one seed"),
        ({"progress": "loud"}, "unknown progress 'loud'"),
        ({"loop": "quick"}, r"unknown loop 'quick'; the known ones are \['fast', 'plain', 'stacked'\]"),
        ({"seeds": [3, 4, 3]}, r"none twice, got \[3, 4, 3\]"),
        ({"minutes": 1}, "needs a folder"),
        *(({"minutes": m, "folder": "x"}, f"above zero, not {m}") for m in (0, -1.0, math.inf, math.nan)),
        ({"training": dataclasses.replace(SHORT, batch_size=1)}, "batches of 1 .*never hold a negative"),
        ({"training": dataclasses.replace(SHORT, precision="tf32")}, "tf32 is a precision of a GPU's tensor cores"),
        ({"train": lambda d: {name: each.select(each.labels == 2) for name, each in d.items()}}, r"digits \[2\] never"),
        ({"train": lambda d: {"ink": d["ink"]}}, r"lacks: \['photo'\].*\['ink'\]"),
    ],
)
def test_what_cannot_be_is_an_error_before_any_step(small_config, small_digits, stop_after, options, message):
    stop_after(0, AssertionError("a step was taken"))
    run = {"model": small_config(), "training": SHORT, "train": small_digits(), **options}
    if callable(run["train"]):
        run["train"] = run["train"](small_digits())
    with pytest.raises(ValueError, match=message):
        quiet(**run)


def test_a_chance_batch_of_a_single_digit_has_no_quadruplet_term_and_is_counted(small_config, small_digits):
    pairs_of_two = dataclasses.replace(SHORT, batch_size=2, epochs=1, steps_per_epoch=40)
    for loop in training.LOOPS:
        (found,) = quiet(small_config(), pairs_of_two, small_digits(digits=2), loop=loop).histories[0]
        assert 0.2 < found["single_digit"] < 0.8
        assert found["quadruplet"] > 0


@pytest.mark.parametrize(("model", "choices"), [("mvae", {}), ("qmvae", {"beta": 0.0})])
def test_what_draws_no_negatives_trains_on_a_single_digit(small_config, small_digits, model, choices):
    of_all = {"private": 0} if model == "mvae" else {}
    one = {name: digits.select(digits.labels == 2) for name, digits in small_digits().items()}
    for batch in (1, 4):
        trained = quiet(
            small_config(model=model, of_all=of_all, **choices), dataclasses.replace(SHORT, batch_size=batch), one
        )
        assert math.isfinite(trained.histories[0][-1]["objective"])


def test_images_of_another_shape_are_an_error_that_names_the_modality(small_config, small_digits):
    digits = small_digits()
    with pytest.raises(ValueError, match="data of 'ink' must be"):
        quiet(small_config(), SHORT, {"ink": digits["photo"], "photo": digits["ink"]})


def test_precision_switches_are_put_back_even_after_an_error(small_config, small_digits, stop_after, monkeypatch):
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [switch.fp32_precision for switch in switches]
    stop_after(0, Interruption())
    monkeypatch.setattr(training.loop, "check_precision", lambda *_: None)  # a CPU has no tensor cores
    for precision, meaning in training.PRECISIONS.items():
        with training.config.in_precision(precision):
            assert [switch.fp32_precision for switch in switches] == [meaning, meaning]
        with pytest.raises(Interruption):
            quiet(small_config(), dataclasses.replace(SHORT, precision=precision), small_digits(), loop="plain")
        assert [switch.fp32_precision for switch in switches] == before


def test_a_step_is_timed_without_a_trace(small_config, monkeypatch):
    monkeypatch.setattr(runs, "LOOPS", {"fast": training.LOOPS["fast"]})
    seconds = [5.0, 5.0, 0.3, 0.1, 0.2]  # the first two warm up
    ticks = iter([tick for at, took in enumerate(seconds) for tick in (100.0 * at, 100.0 * at + took)])
    monkeypatch.setattr(runs.time, "perf_counter", lambda: next(ticks))
    before = torch.get_rng_state()
    assert runs.seconds_a_step(small_config(), SHORT, steps=3) == pytest.approx(0.2)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ValueError, match="tf32 is a precision"):
        runs.seconds_a_step(small_config(), dataclasses.replace(SHORT, precision="tf32"))


# The report


def test_report_of_a_resumed_run_counts_only_the_steps_that_are_left(
    small_config, small_digits, tmp_path, interrupted, monkeypatch
):
    run = (small_config(), SHORT, small_digits())
    interrupted(STEPS + 2, *run)
    left, line = [], training.progress.Report.line
    watched = lambda self, at: left.append(self.left - self.done) or line(self, at)  # noqa: E731
    monkeypatch.setattr(training.progress.Report, "line", watched)
    fit(*run, folder=tmp_path, progress="lines")
    assert left == [STEPS, 0]


def test_a_line_has_means_over_seeds_speed_and_what_is_left(monkeypatch, capsys):
    now = 50.0
    monkeypatch.setattr(training.progress.time, "monotonic", lambda: now)
    at = training.checkpoint.Position(epoch=1, chunk=2, resumed=1)
    with training.progress.Report("lines", 4, steps=10, chunk=3, at=at, taken=6) as report:
        now = 52.0
        report.advance(3)
        at.chunk, at.history = 3, [{"objective": [1.0, 2.0], "other": [9.0], "quadruplet": [0.25]}]
        report.line(at)
        at.chunk = 4  # the last chunk of an epoch is shorter
        report.line(at)
    first, line, end = capsys.readouterr().out.splitlines()
    assert first == "resumed in epoch 2 of 4"
    assert line == "epoch 1.9/4: objective 1.5, quadruplet 0.25; 1.5 steps/s, 0.2 min left"  # 21 steps
    assert end.startswith("epoch 2/4: ")


def test_the_clock_leaves_out_what_is_not_training(monkeypatch):
    now = 10.0
    monkeypatch.setattr(training.progress.time, "monotonic", lambda: now)
    clock = training.progress.Clock(5.0)
    now = 13.0
    with clock.stopped():
        now = 100.0
    now = 101.0
    assert clock.seconds() == 9.0


@pytest.mark.parametrize(("progress", "shown"), [("none", r""), ("bar", r".*18/18.*"), ("auto", r"epoch 1/3.*")])
def test_progress_modes(small_config, small_digits, capsys, progress, shown):
    fit(small_config(), SHORT, small_digits(), progress=progress)
    captured = capsys.readouterr()
    assert re.fullmatch(shown, captured.out, flags=re.DOTALL)
    assert captured.err == ""


# Reports


@pytest.mark.parametrize(
    ("chunk", "reports", "ends"),
    [(2, 1, [6]), (2, 2, [4, 6]), (2, 3, [2, 4, 6]), (2, 7, [2, 4, 6]), (1, 2, [3, 6]), (4, 1, [6]), (100, 2, [6])],
)
def test_an_epoch_has_as_many_reports_as_asked_for_and_each_is_the_mean_of_its_own_steps(
    small_config, small_digits, monkeypatch, chunk, reports, ends
):
    """Reports end with a chunk, so more reports than chunks are as many as the chunks; the last may be shorter."""
    seen = []
    update = training.learners.Plain.update
    monkeypatch.setattr(
        training.learners.Plain, "update", lambda self, *batch: seen.append(update(self, *batch)) or seen[-1]
    )
    result = quiet(small_config(), dataclasses.replace(SHORT, chunk=chunk, reports=reports), small_digits(), [0, 1])
    assert (result.cost["steps"], result.cost["resumed"]) == (len(seen), 0) == (3 * STEPS, 0)
    assert result.cost["seconds"] > 0
    parts = [slice(6 * epoch + a, 6 * epoch + b) for epoch in range(3) for a, b in zip([0, *ends], ends, strict=False)]
    for i, history in enumerate(result.histories):
        for row, part in zip(history, parts, strict=True):
            means = {name: sum(float(step[name][i]) for step in seen[part]) / len(seen[part]) for name in seen[0]}
            assert row == pytest.approx(means, rel=1e-6, abs=1e-6)


def test_what_is_measured_stands_in_the_history_and_has_no_say_in_the_training(small_config, small_digits, tmp_path):
    given = []

    def measure(model, seed):
        given.append((seed, copy.deepcopy(weights(model))))
        torch.rand(3)  # a careless one
        return {"accuracy/x": 0.5 + seed}

    config = dataclasses.replace(SHORT, reports=2)
    plain = quiet(small_config(), config, small_digits(), [0, 5])
    found = quiet(small_config(), config, small_digits(), [0, 5], measure=measure)
    assert [[row.pop("accuracy/x") for row in history] for history in found.histories] == [[0.5] * 6, [5.5] * 6]
    assert_same_run(found, plain)
    assert [seed for seed, _ in given] == [0, 5] * 6
    assert all(torch.equal(value, weights(found.models[1])[name]) for name, value in given[-1][1].items())


def test_measuring_is_not_counted_as_training(small_config, small_digits, monkeypatch):
    clock = 0.0
    monkeypatch.setattr(training.loop.time, "monotonic", lambda: clock)

    def measure(model, seed):
        nonlocal clock
        clock += 100.0
        return {"accuracy/x": 0.0}

    assert quiet(small_config(), SHORT, small_digits(), measure=measure).cost["seconds"] == 0.0


def test_a_run_stopped_between_two_reports_of_an_epoch_resumes_to_the_same_history(
    small_config, small_digits, tmp_path, interrupted
):
    def measure(model, seed):
        return {"accuracy/x": sum(value.sum().item() for value in weights(model).values())}

    run = (small_config(), dataclasses.replace(SHORT, chunk=1, reports=3), small_digits())
    interrupted(9, *run, measure=measure)
    whole, resumed = quiet(*run, measure=measure), quiet(*run, folder=tmp_path, measure=measure)
    assert_same_run(resumed, whole)
    assert resumed.left == whole.left
