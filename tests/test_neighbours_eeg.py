"""Chapter B6: the map, the spectra, the cut in time, the readers, the LSTM and Theorem 4.1, against closed forms."""

import copy
import dataclasses
import itertools
import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from qmvae_core.data import DataError
from qmvae_neighbours import experiments, vae
from qmvae_neighbours.eeg import data, experiment, frames
from qmvae_neighbours.eeg import model as eeg
from qmvae_neighbours.eeg.frames import Cut


@pytest.fixture
def random():
    return np.random.RandomState(3)


@pytest.fixture(scope="module")
def recording():
    return data.synthetic("a test")


# The map


# What BioSemi publishes for its cap of 32 (Cap_coords_all.xls; MNE-Python ships it as biosemi32): the inclination from
# the vertex, negative on the left, and the azimuth, from the ear of that side.
PUBLISHED = {
    "Fp1": (-92, -72), "AF3": (-74, -65), "F7": (-92, -36), "F3": (-60, -51), "FC1": (-32, -45), "FC5": (-72, -21),
    "T7": (-92, 0), "C3": (-46, 0), "CP1": (-32, 45), "CP5": (-72, 21), "P7": (-92, 36), "P3": (-60, 51),
    "Pz": (46, -90), "PO3": (-74, 65), "O1": (-92, 72), "Oz": (92, -90), "O2": (92, -72), "PO4": (74, -65),
    "P4": (60, -51), "P8": (92, -36), "CP6": (72, -21), "CP2": (32, -45), "C4": (46, 0), "T8": (92, 0),
    "FC6": (72, 21), "FC2": (32, 45), "F4": (60, 51), "F8": (92, 36), "AF4": (74, 65), "Fp2": (92, 72),
    "Fz": (46, 90), "Cz": (0, 0),
}  # fmt: skip


def test_the_electrodes_are_where_their_maker_puts_them():
    assert frames.ELECTRODES.keys() == PUBLISHED.keys()
    inclination, azimuth = np.radians(np.array(list(PUBLISHED.values()), dtype=float)).T
    across = np.sin(inclination)
    expected = np.stack([across * np.cos(azimuth), across * np.sin(azimuth), np.cos(inclination)], axis=1)
    np.testing.assert_allclose(frames.positions(list(PUBLISHED)), expected, atol=1e-12)


def test_the_map_keeps_distance_and_bearing_from_the_vertex(random):
    points = random.standard_normal((200, 3))
    mapped = frames.azimuthal_equidistant(points)
    angle = np.arccos(points[:, 2] / np.linalg.norm(points, axis=1))  # the great circle to the vertex
    np.testing.assert_allclose(np.linalg.norm(mapped, axis=1), angle, rtol=1e-9)
    np.testing.assert_allclose(
        np.arctan2(mapped[:, 1], mapped[:, 0]), np.arctan2(points[:, 1], points[:, 0]), atol=1e-12
    )
    np.testing.assert_allclose(frames.azimuthal_equidistant(7 * points), mapped)
    np.testing.assert_array_equal(frames.azimuthal_equidistant(np.array([0.0, 0, 2])), [0, 0])
    tiny = frames.azimuthal_equidistant(np.array([1e-9, 0.0, 1.0]))
    np.testing.assert_allclose(tiny, [1e-9, 0], rtol=1e-9)


def test_interpolation_keeps_a_plane_is_linear_and_zero_outside(random):
    places = frames.azimuthal_equidistant(frames.positions(data.CHANNELS))
    inside, grid = frames.inside(places), frames.pixel_grid()
    plane = frames.interpolate(1 + places @ (2, -3), places)
    np.testing.assert_allclose(plane[inside], (1 + grid @ (2, -3))[inside], atol=1e-6)
    assert 0.4 < inside.mean() < 0.9
    assert (plane[~inside] == 0).all()
    a, b = random.standard_normal((2, 14))
    together = frames.interpolate(np.stack([a, b, 2 * a - b]), places)
    np.testing.assert_allclose(together[2], 2 * together[0] - together[1], atol=1e-6)
    np.testing.assert_allclose(frames.interpolate(a, places), together[0], atol=1e-6)


def test_a_frame_has_its_nose_above_and_its_right_ear_right():
    powers = np.zeros((3, 14))
    powers[0, data.CHANNELS.index("AF4")] = 3
    image = frames.frames(powers, data.CHANNELS)
    assert image.shape == (3, 32, 32)
    assert image.dtype == np.float32
    row, column = np.unravel_index(image[0].argmax(), (32, 32))
    assert row < 12
    assert column > 16
    np.testing.assert_array_equal(image[1:], 0.5)


# The signal


def test_band_powers_are_those_of_a_plain_discrete_fourier_transform(random):
    samples = random.standard_normal((200, 2))
    found = np.exp(frames.log_band_powers(samples, 64, 16, 64.0, {"low": (4, 9)}))
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(64) / 64)
    for window, start in enumerate(range(0, 200 - 63, 16)):
        for channel in range(2):
            piece = samples[start : start + 64, channel]
            total = 0.0
            for frequency in range(4, 9):
                wave = np.exp(-2j * np.pi * frequency * np.arange(64) / 64)
                total += 2 * abs(np.sum(taper * (piece - piece.mean()) * wave)) ** 2 / (64 * np.sum(taper**2))
            np.testing.assert_allclose(found[window, 0, channel], total, rtol=1e-4)
    assert len(found) == window + 1


def test_limits_ignore_spikes_and_cut_them(random):
    clean = 4000 + 10 * random.standard_normal((20_000, 1))
    spiked = clean.copy()
    spiked[::500] = 700_000
    limits = frames.robust_limits(spiked)
    np.testing.assert_allclose((limits.low[0], limits.high[0]), (3940, 4060), atol=2)
    assert limits.clip(spiked).max() == limits.high[0]


def test_a_channel_that_is_flat_most_of_the_time_keeps_what_it_says(random):
    samples = np.full((1000, 2), 4000.0)
    samples[::4, 0] += 10 * random.standard_normal(250)
    samples[500, 0] = 700_000
    limits = frames.robust_limits(samples)
    clipped = limits.clip(samples)
    usual = np.arange(1000) != 500
    np.testing.assert_array_equal(clipped[usual], samples[usual])
    assert clipped[500, 0] < 4100
    np.testing.assert_array_equal(limits.clip(samples + [0, 50])[:, 1], 4050)  # flat here, alive elsewhere


@pytest.mark.parametrize("window", [64, 65])
def test_all_bands_together_hold_the_power_of_the_window(window, random):
    """Parseval's theorem: the frequency that has no negative twin counts once."""
    samples = random.standard_normal((window, 1)) + 10 * np.cos(np.pi * np.arange(window))[:, None]
    found = np.exp(frames.log_band_powers(samples, window, window, 64.0, {"all": (0, 33)}))[0, 0, 0]
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    expected = np.sum((taper * (samples[:, 0] - samples.mean())) ** 2) / np.sum(taper**2)
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_feature_that_is_constant_but_for_rounding_keeps_its_unit():
    values = np.full((50, 1), np.log(1e-6))
    assert values.std(axis=0) > 0  # rounding, in NumPy's mean
    assert frames.standard_of(values).deviation.tolist() == [1.0]


def test_a_feature_that_does_not_vary_stays_finite(random):
    values = np.stack([random.standard_normal(50) * 3 + 1, np.full(50, 7.0)], axis=1)
    standard = frames.standard_of(values).apply(values)
    np.testing.assert_allclose(standard.std(axis=0), [1, 0], atol=1e-12)
    np.testing.assert_allclose(standard.mean(axis=0), 0, atol=1e-12)


# Time


def seen(cut: Cut, span: tuple[int, int]) -> set[int]:
    """All samples that any sequence of a block sees, by the plain definition."""
    firsts = [int(first) for first in cut.windows(*span)]
    used = {int(window) for sequence in cut.sequences(len(firsts)) for window in sequence}
    return {sample for window in used for sample in range(firsts[window], firsts[window] + cut.window)}


@pytest.mark.parametrize("cut", [Cut(), Cut(100, 30, 3, 5), Cut(64, 64, 1, 2)])
def test_no_sample_is_in_two_blocks_and_a_guard_lies_between(cut):
    samples = [seen(cut, span) for span in cut.block_spans(14_980)]
    assert len(samples) == cut.blocks
    for a, b in itertools.pairwise(samples):
        assert min(b) - max(a) > cut.span
    assert max(samples[-1]) < 14_980


def test_a_test_block_never_reaches_the_training_part(recording):
    cut = Cut(blocks=3)
    roles = {"train": [0], "validation": [1], "test": [2]}
    before = experiment.prepare(recording, cut, roles)
    start, stop = cut.block_spans(len(recording.samples))[2]
    samples = recording.samples.copy()
    samples[start:stop] = 5 * samples[start:stop] + 900
    after = experiment.prepare(dataclasses.replace(recording, samples=samples), cut, roles)
    for role in ("train", "validation"):
        np.testing.assert_array_equal(before[role].powers, after[role].powers)
        assert torch.equal(before[role].frames, after[role].frames)
    assert not torch.equal(before["test"].frames, after["test"].frames)


def test_sequences_and_labels_are_those_of_plain_counting(random):
    cut, states = Cut(16, 4, 3, 2), random.randint(0, 2, 200)
    found = cut.labels(states, 20, 120)
    firsts = range(20, 120 - cut.span + 1, 4)
    assert cut.span == 24
    np.testing.assert_array_equal(found, [int(states[f : f + 24].sum() > 12) for f in firsts])
    assert len(cut.sequences(len(cut.windows(20, 120)))) == len(found)


def test_cuts_that_cannot_be_judged_are_refused(recording):
    with pytest.raises(ValueError, match="too few for 90 blocks"):
        Cut(blocks=90).block_spans(14_980)
    closed = recording.closed.copy()
    closed[: len(closed) // 2] = 0
    with pytest.raises(ValueError, match="block 0 of 3 holds one state"):
        experiment.prepare(dataclasses.replace(recording, closed=closed), Cut(blocks=3), {"train": [1], "test": [2]})


# Files


OPENML = [f"V{number}" for number in range(1, 15)]
ATTRIBUTES = [f"@ATTRIBUTE {name} NUMERIC" for name in OPENML]
FORMS = {  # file, head, what stands for open eyes
    "CSV": (data.FILES[0], [",".join(data.COLUMNS)], 0),
    "CSV of OpenML": (data.FILES[0], [",".join(f'"{name}"' for name in [*OPENML, "Class"])], 1),
    "ARFF of OpenML": (
        data.FILES[1],
        ["% Rösler", "@RELATION eeg", "", *ATTRIBUTES, "@ATTRIBUTE 'Class' {1,2}", "", "@DATA"],
        1,
    ),
    "CSV of UCI's names": (data.FILES[0], [",".join([*data.CHANNELS, "eyeDetection"])], 0),
}


def write_csv(folder, rows=40, form="CSV", **changes):
    """A recording of a published form; changes: line number -> the line."""
    (folder / "eeg").mkdir(parents=True)
    file, head, opened = FORMS[form]
    lines = [*head, *(",".join([f"{4000 + row}.5"] * 14 + [str(opened + row // 10 % 2)]) for row in range(rows))]
    for number, line in changes.items():
        lines[int(number[1:]) - 1] = line
    (folder / file).write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize("form", FORMS)
def test_the_recording_is_read_with_its_states(tmp_path, form):
    write_csv(tmp_path, form=form)
    found = data.load_eye_state(tmp_path)
    assert found.samples.shape == (40, 14)
    assert found.samples[3, 5] == 4003.5
    assert found.channels[5] == "P7"
    assert found.closed.tolist() == [row // 10 % 2 for row in range(40)]
    assert found.identity["kind"] == "real"
    assert found.identity["counts"] == {"samples": 40, "channels": 14, "closed": 20}
    assert "not the one" in found.identity["notes"][1]


GOOD = ",".join(["1.0"] * 14)


def test_openmls_file_of_another_column_is_refused_by_line(tmp_path):
    write_csv(tmp_path, form="ARFF of OpenML", l4="@ATTRIBUTE X1 NUMERIC")
    with pytest.raises(DataError, match="arff, line 20: the columns must be"):
        data.load_eye_state(tmp_path)
    write_csv(tmp_path / "other", form="ARFF of OpenML", l23=f"{GOOD},0")
    with pytest.raises(DataError, match=r"arff, line 23, column Class: '0' is neither 1 \(eyes open\) nor 2"):
        data.load_eye_state(tmp_path / "other")


@pytest.mark.real_data
def test_the_recording_is_known_by_its_content_in_every_form(tmp_path):
    root = os.environ.get("QMVAE_DATA_ROOT")
    if not root or not (Path(root) / data.FILES[0]).exists():
        pytest.skip(f"there is no {data.FILES[0]} in a data root")
    rows = (Path(root) / data.FILES[0]).read_text().splitlines()[1:]
    as_published = [f"{row[:-1]}{int(row[-1]) + 1}" for row in rows]
    (tmp_path / "eeg").mkdir()
    (tmp_path / data.FILES[1]).write_text("\n".join([*FORMS["ARFF of OpenML"][1], *as_published]), encoding="utf-8")
    found = data.load_eye_state(tmp_path).identity
    assert found == data.load_eye_state(root).identity
    assert found["content_hash"] == data.KNOWN_CONTENT


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        ("l1", "AF3,F7", "csv, line 1: the columns must be"),
        ("l17", "1,2,3", "csv, line 17: 3 fields in place of 15"),
        ("l18", "1.0,x" + ",1.0" * 12 + ",0", "csv, line 18, column F7: 'x' is not a finite number"),
        ("l18", "1.0,inf" + ",1.0" * 12 + ",0", "csv, line 18, column F7: 'inf'"),
        ("l9", f"{GOOD},2", "csv, line 9, column class: '2' is neither"),
        ("l9", "-999" + ",1.0" * 13 + ",0", "csv, line 9, column AF3: '-999' is .* marks a gap"),
        ("l9", "?" + ",1.0" * 13 + ",0", "csv, line 9, column AF3: '\\?' is"),
        ("l9", "1_0" + ",1.0" * 13 + ",0", "csv, line 9, column AF3: '1_0' is"),
    ],
)
def test_a_damaged_recording_is_refused_by_line_and_column(tmp_path, line, text, message):
    write_csv(tmp_path, **{line: text})
    with pytest.raises(DataError, match=f"{message}.*(?s:.)*OpenML"):
        data.load_eye_state(tmp_path)


def test_a_recording_with_one_state_or_of_bytes_is_refused(tmp_path):
    write_csv(tmp_path, rows=9)
    with pytest.raises(DataError, match="fewer than two states"):
        data.load_eye_state(tmp_path)
    (tmp_path / data.FILES[0]).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="line 1: this is not a text file"):
        data.load_eye_state(tmp_path)


def test_a_root_without_the_recording_gets_the_stand_in_and_says_so(tmp_path, capsys, recording):
    found = data.load_eye_state(tmp_path)
    assert f"STAND-IN DATA ({tmp_path} has no {' or '.join(data.FILES)})" in capsys.readouterr().out
    assert found.identity["kind"] == "stand-in"
    assert data.load_eye_state("stand-in").identity == found.identity
    assert "(was wanted)" in capsys.readouterr().out
    assert data.FILES[0] in found.identity["notes"][0]
    assert found.identity["content_hash"] == recording.identity["content_hash"]
    back = found.channels.index("O1")
    alpha = frames.log_band_powers(found.samples, 128, 128)[:, 0, back]
    states = found.closed[64::128][: len(alpha)]
    assert alpha[states == 1].mean() > alpha[states == 0].mean() + 1


def test_deap_is_read_and_gives_frames(tmp_path, random):
    made_up = np.resize(random.standard_normal(8191).astype(np.float32), data.DEAP_SHAPES["data"])
    content = {"data": made_up, "labels": random.uniform(1, 9, data.DEAP_SHAPES["labels"])}
    content["labels"][:4, :2] = [[3, 3], [3, 7], [7, 3], [5, 5.1]]
    path = tmp_path / "s01.dat"
    with path.open("wb") as file:
        pickle.dump(content, file, protocol=2)
    found = data.read_deap(path)
    np.testing.assert_array_equal(found.samples, content["data"][:, :32])
    assert found.quadrants()[:4].tolist() == [0, 1, 2, 1]
    powers = frames.log_band_powers(found.samples[0].T, 128, 128)
    assert powers.shape == (63, 3, 32)  # the 63 frames of the thesis
    standard = frames.standard_of(powers).apply(powers)
    assert frames.frames(standard[:2], data.DEAP_CHANNELS).shape == (2, 3, 32, 32)


def small(key, value):
    """The right shapes and no more, by arrays that share one value, with one entry replaced."""
    content = {name: np.full(shape, 5.0, dtype=np.float32) for name, shape in data.DEAP_SHAPES.items()}
    return {**content, key: value} if value is not None else {k: v for k, v in content.items() if k != key}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list in place of a dictionary"),
        (("labels", None), "has no 'labels', only"),
        (("data", np.zeros((40, 32, 10))), r"'data' must be \(40, 40, 8064\) .* not \(40, 32, 10\) float64"),
        (("labels", np.full((40, 4), 5)), "'labels' must be .* int64"),
        (("labels", [[5.0]]), "'labels' must be .* not list"),
        (("labels", np.full((40, 4), np.nan)), "'labels' holds a value that is not finite"),
        (("labels", np.full((40, 4), 9.5)), "must lie in 1 to 9, not 9.5 to 9.5"),
    ],
)
def test_another_content_than_deaps_is_named(tmp_path, content, message):
    path = tmp_path / "s02.dat"
    path.write_bytes(pickle.dumps(small(*content) if isinstance(content, tuple) else content))
    with pytest.raises(DataError, match=f"s02.dat.*{message}.*again"):
        data.read_deap(path)


class Malicious:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("function", "name"), [(os.mkdir, "mkdir"), (eval, "eval"), (np.load, "load"), (copy.copy, "copy")]
)
def test_a_pickle_that_would_call_anything_is_refused_and_calls_nothing(tmp_path, function, name):
    mark = tmp_path / "was_here"
    argument = str(mark) if function is not eval else f"__import__('os').mkdir({str(mark)!r})"
    path = tmp_path / "s03.dat"
    path.write_bytes(pickle.dumps({"data": Malicious(function, argument), "labels": 1}))
    with pytest.raises(DataError, match=rf"it names .*{name}, and only NumPy arrays are admitted"):
        data.read_deap(path)
    assert not mark.exists()


def test_a_file_that_is_missing_or_no_pickle_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no .*s09.dat; DEAP is lent"):
        data.read_deap(tmp_path / "s09.dat")
    (tmp_path / "s09.dat").write_bytes(b"PK\x03\x04 not a pickle")
    with pytest.raises(DataError, match="s09.dat is not a pickle of arrays"):
        data.read_deap(tmp_path / "s09.dat")


# Models


def test_the_classifier_is_the_equations_of_the_thesis():
    generator = torch.Generator().manual_seed(0)
    model = eeg.SequenceClassifier(3, 4, generator).double()
    codes = torch.randn(5, 6, 3, generator=generator, dtype=torch.float64)
    weights = dict(model.lstm.named_parameters())
    into, back = weights["weight_ih_l0"].chunk(4), weights["weight_hh_l0"].chunk(4)
    bias = (weights["bias_ih_l0"] + weights["bias_hh_l0"]).chunk(4)
    for row in range(5):
        h = c = torch.zeros(4, dtype=torch.float64)
        for z in codes[row]:
            i, f, g, o = (into[n] @ z + back[n] @ h + bias[n] for n in range(4))
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        a = model.output.weight @ h + model.output.bias
        torch.testing.assert_close(model(codes)[row].exp(), a.exp() / a.exp().sum())


def test_equal_generators_give_equal_classifiers_and_no_weight_is_zero():
    models = [eeg.SequenceClassifier(3, 4, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    first, again, other = (torch.cat([p.flatten() for p in model.parameters()]) for model in models)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first != 0).all()


def test_balanced_accuracy_is_a_half_for_a_constant_answer():
    labels = torch.tensor([0] * 9 + [1])
    found = experiment.accuracies(torch.zeros(10, dtype=torch.int64), labels)
    assert found == pytest.approx({"accuracy": 0.9, "balanced": 0.5})
    weights = experiment.balance(labels)
    assert float(weights[labels].mean()) == pytest.approx(1)
    assert float(9 * weights[0]) == pytest.approx(float(weights[1]))


def test_the_auto_encoder_looks_at_neither_noise_nor_divergence():
    generator = torch.Generator().manual_seed(0)
    images, noise = torch.rand(20, 3, 32, 32, generator=generator), torch.randn(2, 20, 4, generator=generator)
    losses = {}
    for beta in (0.0, 6.0):
        config = vae.VAEConfig((3, 32, 32), (8,), 4, noise="learned", scale=1 / 6, beta=beta)
        model = vae.VAE(config, torch.Generator().manual_seed(0))
        losses[beta] = [eeg.frame_loss(model, images, each) for each in noise]
    assert torch.equal(*losses[0.0])
    assert not torch.equal(*losses[6.0])
    rebuilt = model.decode(model.encode(images).mean).sigmoid()
    deviation = torch.distributions.Normal(rebuilt, 1 / 6).log_prob(images).sum(dim=(1, 2, 3))
    torch.testing.assert_close(losses[0.0][0], -deviation.mean(), rtol=1e-4, atol=1e-2)


def test_centred_frames_leave_no_unit_silent(recording, tmp_path, monkeypatch):
    part = experiment.prepare(recording, Cut(blocks=3), {"train": [0, 1]})["train"]
    settings = dataclasses.replace(experiment.SETTINGS["quick"], frame_steps=50)

    def alive(name: str) -> int:
        workshop = experiments.Workshop(tmp_path / name)
        model = experiment.frame_model(part, 0.0, settings, workshop, 0, name, "made up")
        return int((model.body(part.frames).max(dim=0).values > 0).sum())

    assert alive("centred") == settings.widths[0]
    monkeypatch.setattr(eeg.Centre, "forward", lambda self, images: images)
    assert alive("uncentred") < settings.widths[0]


@pytest.mark.parametrize("exchanged", [False, True])
def test_what_can_be_learned_is_and_the_weights_are_those_of_the_best_look_at_what_is_held_out(exchanged):
    """With the held-out labels exchanged it is forecast worse with each step, so the first look is the best."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (200,), generator=generator)
    codes = torch.randn(200, 4, 2, generator=generator)
    codes[:, :, 0] += 2.0 * labels[:, None]
    train, held_out = (experiment.Part(None, None, None, part) for part in labels.split(100))
    held_out = held_out._replace(labels=1 - held_out.labels) if exchanged else held_out

    def fitted(steps: int) -> tuple[eeg.SequenceClassifier, int, float]:
        model = eeg.SequenceClassifier(2, 8, torch.Generator().manual_seed(1))
        settings = dataclasses.replace(experiment.SETTINGS["quick"], sequence_steps=steps)
        return model, *experiment.train_sequences(model, train, codes[:100], held_out, codes[100:], settings, 0)

    model, step, last = fitted(120)
    assert last > 0.9
    if exchanged:
        assert step == experiment.SETTINGS["quick"].check
        torch.testing.assert_close(model(codes), fitted(step)[0](codes))
    else:
        assert experiment.accuracies(experiment.predict(model, codes[100:]), held_out.labels)["accuracy"] > 0.9


# Theorem 4.1


def draws(length=3, k=3, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {
        "log_q": draw(length, k).log_softmax(1),
        "log_prior": draw(k).log_softmax(0),
        "log_emission": draw(length, k) - 1,
        "log_label": torch.nn.functional.logsigmoid(draw(*[k] * length)),
    }


def test_the_terms_of_the_theorem_are_those_of_loops():
    given = draws()
    q, prior, emission, label = (given[name].exp().tolist() for name in given)
    found = eeg.discrete_bound(**given, beta=6.0)
    evidence = lstm = frames = posterior_kl = 0.0
    sequences = list(itertools.product(range(3), repeat=3))
    for a, b, c in sequences:
        evidence += prior[a] * prior[b] * prior[c] * emission[0][a] * emission[1][b] * emission[2][c] * label[a][b][c]
    for a, b, c in sequences:
        weight = q[0][a] * q[1][b] * q[2][c]
        lstm += weight * math.log(label[a][b][c])
        joint = prior[a] * prior[b] * prior[c] * emission[0][a] * emission[1][b] * emission[2][c] * label[a][b][c]
        posterior_kl += weight * math.log(weight / (joint / evidence))
    for i in range(3):
        for z in range(3):
            frames += q[i][z] * (math.log(emission[i][z]) - 6 * math.log(q[i][z] / prior[z]))
    assert [float(v) for v in found[:4]] == pytest.approx([lstm, frames, math.log(evidence), posterior_kl])


def test_below_one_the_theorem_fails_and_the_best_encoder_is_the_tempered_posterior():
    given = draws()
    given["log_label"] = torch.full((3, 3, 3), math.log(0.5), dtype=torch.float64)
    for beta in (0.2, 1.0, 6.0):
        given["log_q"] = eeg.best_encoder(given["log_prior"], given["log_emission"], beta)
        found = eeg.discrete_bound(**given, beta=beta)
        value = beta * torch.logsumexp(given["log_prior"] + given["log_emission"] / beta, dim=1).sum()
        torch.testing.assert_close(found.frames, value)
        for seed in range(5):
            other = eeg.discrete_bound(**{**given, "log_q": draws(seed=seed)["log_q"]}, beta=beta)
            assert other.frames < found.frames
        assert (found.lstm + found.frames <= found.evidence + 1e-12) == (beta >= 1)


def test_the_blocks_that_are_possible_end_where_the_recording_does(recording):
    cut = Cut(128, 32, 4, 2)
    short = dataclasses.replace(recording, closed=recording.closed[: 5 * cut.span])
    assert list(experiment.blocks_possible(short, cut)) == ["2", "3"]


def test_an_effect_that_is_there_is_heard(tmp_path):
    tiny = dataclasses.replace(experiment.SETTINGS["smoke"], frame_steps=2, sequence_steps=2, check=1)
    found, *_ = experiment.run_fold(data.synthetic("a control", 117), 0, 1, tiny, experiments.Workshop(tmp_path))
    assert found[experiment.SVM]["balanced"] > 0.8
