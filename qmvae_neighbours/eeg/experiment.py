"""The experiment of chapter B6, each block of the recording in turn the one that is judged, and one of B4."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from torch import Tensor, nn

from qmvae_core.gaussians import DiagonalGaussian
from qmvae_neighbours.eeg.data import Recording, load_eye_state, synthetic
from qmvae_neighbours.eeg.frames import Cut, frames, log_band_powers, robust_limits, standard_of
from qmvae_neighbours.eeg.model import Centre, ConvolutionalClassifier, SequenceClassifier, frame_loss
from qmvae_neighbours.experiments import Validation, Workshop, fit
from qmvae_neighbours.factors.experiment import kept_factors, only
from qmvae_neighbours.factors.model import information, mixture_information
from qmvae_neighbours.vae import VAE, VAEConfig, nats_by_dimension

SVM, AUTO, CONVOLUTION, BETA = "PSD-SVM", "AE-LSTM", "CNN-LSTM", "β-VAE-LSTM"
DRAWN, PLAIN = "β-VAE-LSTM, drawn factors", "VAE-LSTM, β = 1"
MODELS = (SVM, AUTO, CONVOLUTION, BETA, DRAWN, PLAIN)


@dataclass(frozen=True)
class Settings:
    """How large the experiment of chapter B6 is; all fixed beforehand.

    window, hop, length, blocks: of a Cut. widths, latent, beta: of the models of frames. channels: of the convolutional
    network. hidden: of the LSTM; `check`: steps between two looks at the validation block. strengths: the SVM's C,
    chosen on that block. random_splits: how many, to show what a leak does. validations: so many of the blocks after a
    test block, round the end, are the validation block in turn."""

    window: int = 128
    hop: int = 32
    length: int = 4
    blocks: int = 4
    widths: tuple[int, ...] = (64,)
    latent: int = 8
    beta: float = 6.0
    frame_steps: int = 600
    frame_rate: float = 1e-3
    channels: tuple[int, ...] = (8, 16, 16)
    hidden: int = 16
    sequence_steps: int = 200
    sequence_rate: float = 3e-3
    check: int = 10
    batch_size: int = 64
    strengths: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    random_splits: int = 12
    validations: int = 3
    seed: int = 0

    @property
    def cut(self) -> Cut:
        """How the recording is cut."""
        return Cut(self.window, self.hop, self.length, self.blocks)


SMOKE = Settings(frame_steps=10, sequence_steps=10, blocks=3, random_splits=2, validations=1)
SETTINGS = {"smoke": SMOKE, "quick": Settings()}


# Data


class Part(NamedTuple):
    """Some blocks. powers: (windows, 3, electrodes), standardised; frames: (windows, 3, 32, 32) float32 in [0, 1];
    sequences: (n, length) windows of each sequence; labels: (n,), 1 for closed."""

    powers: np.ndarray
    frames: Tensor
    sequences: Tensor
    labels: Tensor

    def in_sequences(self, values: Tensor) -> Tensor:
        """Values of windows (windows, ...) as sequences (n, length, ...)."""
        return values[self.sequences]


def prepare(recording: Recording, cut: Cut, roles: Mapping[str, Sequence[int]]) -> dict[str, Part]:
    """The blocks of each role as a Part; limits, means and deviations are those of the role "train" alone.

    Raises ValueError for a block in which the eyes are in one state only: nothing could be judged on it."""
    spans = cut.block_spans(len(recording.samples))
    limits = robust_limits(np.concatenate([recording.samples[slice(*spans[block])] for block in roles["train"]]))
    powers, labels = [], []
    for number, (start, stop) in enumerate(spans):
        powers.append(log_band_powers(limits.clip(recording.samples[start:stop]), cut.window, cut.hop))
        labels.append(cut.labels(recording.closed, start, stop))
        if len(set(labels[-1].tolist())) < 2:
            raise ValueError(f"block {number} of {len(spans)} holds one state of the eyes only; cut fewer blocks")
    standard = standard_of(np.concatenate([powers[block] for block in roles["train"]]))

    def part(blocks: Sequence[int]) -> Part:
        each = [standard.apply(powers[block]) for block in blocks]
        offsets, together = np.cumsum([0, *map(len, each)]), np.concatenate(each)
        sequences = [cut.sequences(len(one)) + offset for one, offset in zip(each, offsets, strict=False)]
        parts = frames(together, recording.channels), *map(np.concatenate, (sequences, [labels[b] for b in blocks]))
        return Part(together, *map(torch.from_numpy, parts))

    return {role: part(blocks) for role, blocks in roles.items()}


def frame_model(part: Part, beta: float, settings: Settings, workshop: Workshop, seed: int, name: str, data) -> VAE:
    """A β-VAE of single frames, trained without labels on the frames of a part; beta 0: a plain auto-encoder.

    The learned scale of the normal noise starts at 1/6, a pixel's deviation. data: what the part is (workshop)."""
    config = VAEConfig((3, 32, 32), settings.widths, settings.latent, noise="learned", scale=1 / 6, beta=beta)
    model = VAE(config, torch.Generator().manual_seed(seed))
    model.body.insert(0, Centre())

    def loss(generator: torch.Generator) -> Tensor:
        picked = torch.randint(len(part.frames), (settings.batch_size,), generator=generator)
        return frame_loss(model, part.frames[picked], torch.randn(len(picked), settings.latent, generator=generator))

    what = {"config": asdict(config), "settings": asdict(settings), "data": data, "seed": seed}
    workshop.trained(model, what, lambda m: fit(m, loss, settings.frame_steps, settings.frame_rate, seed, name))
    return model


def balance(labels: Tensor) -> Tensor:
    """Weights that let both classes count the same: (2,), their mean over the labels is 1."""
    return len(labels) / (2 * torch.bincount(labels, minlength=2).float())


def train_sequences(
    model: nn.Module, train: Part, inputs: Tensor | DiagonalGaussian, held_out: Part, held_out_inputs: Tensor,
    settings: Settings, seed: int,
) -> tuple[int, float]:  # fmt: skip
    """Maximise equation (4-10), both classes weighted the same; the model gets the weights of least validation loss.

    inputs: what each sequence shows, (n, length, ...); of a DiagonalGaussian a new draw is taken each step, as the
    expectation in (4-10) asks for.
    Returns the step of those weights, and the share of training sequences that were right after the last step."""
    weights, judge = balance(train.labels), balance(held_out.labels)
    means = inputs.mean if isinstance(inputs, DiagonalGaussian) else inputs

    def loss(generator: torch.Generator) -> Tensor:
        picked = torch.randint(len(train.labels), (settings.batch_size,), generator=generator)
        shown = means[picked]
        if isinstance(inputs, DiagonalGaussian):
            noise = torch.randn(shown.shape, generator=generator)
            shown = DiagonalGaussian(shown, inputs.log_var[picked]).sample(noise)
        return F.nll_loss(model(shown), train.labels[picked], weights)

    steps, check = settings.sequence_steps, settings.check
    validation = Validation(
        lambda model: float(F.nll_loss(model(held_out_inputs), held_out.labels, judge)), range(check, steps + 1, check)
    )
    best = fit(model, loss, steps, settings.sequence_rate, seed, "", validation)
    last = accuracies(predict(model, means), train.labels)["accuracy"]
    model.load_state_dict(best.weights)
    return best.step, last


@torch.no_grad()
def predict(model: nn.Module, inputs: Tensor) -> Tensor:
    """The more probable class of each sequence: (n,)."""
    return model(inputs).argmax(dim=-1)


def accuracies(predicted: Tensor | np.ndarray, labels: Tensor) -> dict[str, float]:
    """Share that is right, and "balanced": the mean of that share over the two classes, 0.5 for any constant answer."""
    right = (torch.as_tensor(predicted) == labels).float()
    return {
        "accuracy": float(right.mean()),
        "balanced": float(torch.stack([right[labels == state].mean() for state in (0, 1)]).mean()),
    }


def power_features(part: Part) -> np.ndarray:
    """What the SVM sees: the standardised log powers of a sequence, mean over its windows, (n, 3 * electrodes)."""
    return part.powers[part.sequences.numpy()].mean(axis=1).reshape(len(part.sequences), -1)


def support_vectors(train: np.ndarray, labels: Tensor, held_out: np.ndarray, judge: Tensor, settings: Settings) -> SVC:
    """An SVM with radial kernel and balanced classes; its C is the first of the best on the held-out sequences."""
    fitted = [SVC(C=c, class_weight="balanced").fit(train, labels.numpy()) for c in settings.strengths]
    scores = [accuracies(model.predict(held_out), judge)["balanced"] for model in fitted]
    return fitted[int(np.argmax(scores))]


# The experiment


def pairs(settings: Settings) -> list[tuple[int, int]]:
    """The test and the validation block of each fold."""
    after = range(1, settings.validations + 1)
    return [(test, (test + a) % settings.blocks) for test in range(settings.blocks) for a in after]


def fold(recording: Recording, test: int, validation: int, settings: Settings) -> tuple[int, str, str, dict[str, Part]]:
    """Seed of a fold, which blocks do not train in it, what the others are (for the workshop), and its parts."""
    # Two blocks that change roles leave the same training blocks, so they share seed and models of frames.
    first, second = sorted((test, validation))
    rest = [block for block in range(settings.blocks) if block not in (test, validation)]
    parts = prepare(recording, settings.cut, {"train": rest, "validation": [validation], "test": [test]})
    where, data = f"without blocks {first + 1} and {second + 1}", f"{recording.identity['content_hash']}, blocks {rest}"
    return settings.seed + settings.blocks * first + second, where, data, parts


def run_fold(
    recording: Recording, test: int, validation: int, settings: Settings, workshop: Workshop
) -> tuple[dict[str, dict[str, float]], dict[str, VAE], dict[str, Part]]:
    """All models trained on all blocks but two, chosen on one of the two, judged on the other.

    Returns the metrics of each model, the models of frames, both by name, and the parts."""
    seed, where, data, parts = fold(recording, test, validation, settings)
    train, held_out, judged = parts["train"], parts["validation"], parts["test"]
    most = int(train.labels.float().mean() > 0.5)
    metrics = {"majority": accuracies(torch.full_like(judged.labels, most), judged.labels)}

    features = {role: power_features(part) for role, part in parts.items()}
    svm = support_vectors(features["train"], train.labels, features["validation"], held_out.labels, settings)
    metrics[SVM] = accuracies(svm.predict(features["test"]), judged.labels)
    metrics[SVM]["training"] = float(svm.score(features["train"], train.labels.numpy()))

    def judge(name: str, model: nn.Module, shown: Mapping[str, Tensor], inputs: Tensor | DiagonalGaussian) -> None:
        step, last = train_sequences(model, train, inputs, held_out, shown["validation"], settings, seed)
        metrics[name] = accuracies(predict(model, shown["test"]), judged.labels)
        metrics[name]["training"] = accuracies(predict(model, shown["train"]), train.labels)["accuracy"]
        metrics[name] |= {"step": step, "training_at_the_end": last}

    images = {role: part.in_sequences(part.frames) for role, part in parts.items()}
    sizes = settings.latent, settings.hidden
    network = ConvolutionalClassifier(settings.channels, *sizes, torch.Generator().manual_seed(seed))
    judge(CONVOLUTION, network, images, images["train"])

    models = {}
    for name, beta in ((AUTO, 0.0), (BETA, settings.beta), (PLAIN, 1.0)):
        model = models[name] = frame_model(train, beta, settings, workshop, seed, f"{name}, {where}", data)
        posteriors = {role: model.encode(part.frames) for role, part in parts.items()}
        codes = {role: parts[role].in_sequences(posterior.mean) for role, posterior in posteriors.items()}
        drawn = DiagonalGaussian(codes["train"], train.in_sequences(posteriors["train"].log_var))
        for which, inputs in ({name: codes["train"]} | ({DRAWN: drawn} if name == BETA else {})).items():
            judge(which, SequenceClassifier(*sizes, torch.Generator().manual_seed(seed)), codes, inputs)
        metrics[name] |= _frame_metrics(model, judged, posteriors["test"])
    return metrics, models, parts


def _frame_metrics(model: VAE, part: Part, posterior: DiagonalGaussian) -> dict[str, float]:
    """On the test block: the root mean squared error of a pixel, nats a frame, and factors with more than 0.01 nats."""
    rebuilt, each = model.decode(posterior.mean).sigmoid(), nats_by_dimension(posterior)
    result = {"pixel_error": float((rebuilt - part.frames).square().mean().sqrt())}
    if model.config.beta > 0:
        result |= {"divergence": float(each.sum()), "active": int((each > 0.01).sum())}
    return result


def leaks(recording: Recording, settings: Settings) -> dict[str, dict[str, list[float]]]:
    """Balanced accuracy of two models when test data are picked at random, and when they are blocks of time.

    "windows": the SVM; at random half of all sequences train, a quarter chooses, a quarter tests. "samples": the
    nearest neighbour of single samples (14 voltages), three quarters against one."""
    cut, found = settings.cut, {"windows": {"random": []}, "samples": {"random": [], "blocks": []}}
    whole = prepare(recording, cut, {"train": range(settings.blocks)})["train"]
    features, spans = power_features(whole), cut.block_spans(len(recording.samples))
    voltages, states = recording.samples, torch.from_numpy(recording.closed)

    def nearest(train: np.ndarray, test: np.ndarray) -> float:
        limits = robust_limits(voltages[train])
        standard = standard_of(limits.clip(voltages[train]))
        shown = [standard.apply(limits.clip(voltages[rows])) for rows in (train, test)]
        model = KNeighborsClassifier(1).fit(shown[0], recording.closed[train])
        return accuracies(model.predict(shown[1]), states[test])["balanced"]

    for number in range(settings.random_splits):
        random = np.random.RandomState(settings.seed + number)
        order = random.permutation(len(features))
        train, held_out, test = np.split(order, [len(order) // 2, 3 * len(order) // 4])
        shown = [each[rows] for rows in (train, held_out) for each in (features, whole.labels)]
        svm = support_vectors(*shown, settings)
        found["windows"]["random"].append(accuracies(svm.predict(features[test]), whole.labels[test])["balanced"])
        order = random.permutation(len(voltages))
        found["samples"]["random"].append(nearest(*np.split(order, [3 * len(order) // 4])))
    for test in range(len(spans)):
        rest = np.concatenate([np.arange(*span) for block, span in enumerate(spans) if block != test])
        found["samples"]["blocks"].append(nearest(rest, np.arange(*spans[test])))
    return found


def blocks_possible(recording: Recording, cut: Cut, most: int = 8) -> dict[str, int]:
    """Number of equal blocks -> sequences of the rarer state in the block that has fewest of them.

    As many as the recording is long enough for, at most `most`."""
    counts = {}
    longest = (len(recording.closed) + cut.span) // (2 * cut.span)  # blocks of one sequence each, and gaps as long
    for blocks in range(2, min(most, longest) + 1):
        each = Cut(cut.window, cut.hop, cut.length, blocks)
        labels = [each.labels(recording.closed, *span) for span in each.block_spans(len(recording.closed))]
        counts[str(blocks)] = min(int(min(part.sum(), len(part) - part.sum())) for part in labels)
    return counts


def _drawn(models: Mapping[str, VAE], part: Part) -> dict[str, Tensor]:
    """Five frames of a part with open eyes and five with closed, rebuilt, and the three busiest factors moved."""
    last = part.sequences[:, -1]
    chosen = [last[part.labels == state] for state in (0, 1)]
    picked = torch.cat([of[torch.linspace(0, len(of) - 1, 5).round().long()] for of in chosen])
    images = {"frames": part.frames[picked]}
    for name, model in models.items():
        images[f"rebuilt/{name}"] = model.decode(model.encode(part.frames[picked]).mean).sigmoid()
    model = models[BETA]
    each = nats_by_dimension(model.encode(part.frames))
    busiest = each.argsort(descending=True)[:3]
    codes = torch.zeros(3, 5, len(each))
    codes[torch.arange(3)[:, None], torch.arange(5), busiest[:, None]] = torch.linspace(-2, 2, 5)
    images["traversal"] = model.decode(codes).sigmoid()
    return {name: (255 * values).round().to(torch.uint8) for name, values in images.items()} | {"nats": each[busiest]}


def carry_out(settings: Settings, workshop: Workshop) -> tuple[dict, dict, dict[str, Tensor]]:
    """Chapter B6: each block is the test block in turn, with several validation blocks.

    And a control: one fold of a made-up recording as long as the real one, in which the answer is known to be."""
    recording = load_eye_state(workshop.data_root)
    cut, spans = settings.cut, settings.cut.block_spans(len(recording.samples))
    labels = [cut.labels(recording.closed, *span) for span in spans]
    back = [recording.channels.index(name) for name in ("O1", "O2")]
    metrics = {  # first what needs no training, so that a recording that is too short for it costs none
        "leaks": leaks(recording, settings),
        "blocks": [
            {"start": start, "stop": stop, "sequences": len(found), "closed": int(found.sum())}
            | {"alpha": alpha_gain(recording, cut, start, stop, back)}
            for (start, stop), found in zip(spans, labels, strict=True)
        ],
        "blocks_possible": blocks_possible(recording, cut),
    }
    whole = log_band_powers(robust_limits(recording.samples).clip(recording.samples), cut.window, cut.hop)
    tensors = {
        "alpha": torch.from_numpy(whole[:, 0, back].mean(axis=1)).float(),
        "closed": torch.from_numpy(recording.closed).to(torch.uint8),
    }
    folds = []
    for test, validation in pairs(settings):
        found, models, parts = run_fold(recording, test, validation, settings, workshop)
        folds.append({"test": test, "validation": validation, "models": found})
        if len(folds) == 1:
            tensors |= _drawn(models, parts["test"])
    control = run_fold(synthetic("a control", seconds=117), 0, 1, settings, workshop)[0]
    return recording.identity, {**metrics, "folds": folds, "control": control}, tensors


def alpha_gain(recording: Recording, cut: Cut, start: int, stop: int, back: Sequence[int]) -> float:
    """Log alpha power at the back of the head, closed minus open: mean over sequences of the block."""
    samples = robust_limits(recording.samples).clip(recording.samples[start:stop])
    alpha = log_band_powers(samples, cut.window, cut.hop)[:, 0, list(back)].mean(axis=1)
    alpha = alpha[cut.sequences(len(alpha))].mean(axis=1)
    labels = cut.labels(recording.closed, start, stop)
    return float(alpha[labels == 1].mean() - alpha[labels == 0].mean())


# Table 3-3 of the thesis, for chapter B4: 128 factors, of which some are kept

SHARES = (100, 50, 10, 7, 5, 3, 1, 0)  # in per cent
OF_SHARES = {profile: replace(settings, latent=128) for profile, settings in SETTINGS.items()}


def run_shares(
    recording: Recording, test: int, validation: int, settings: Settings, workshop: Workshop
) -> tuple[list[dict], dict[str, Tensor]]:
    """A row a share: nats of the factors that are kept, and how well an LSTM reads the test block from these alone.

    Nats are of the training frames. Tensors: the estimate of each factor, what each share reads, and the states."""
    seed, where, data, parts = fold(recording, test, validation, settings)
    train, held_out, judged = parts["train"], parts["validation"], parts["test"]
    model = frame_model(train, settings.beta, settings, workshop, seed, f"{settings.latent} factors, {where}", data)
    posteriors = {role: model.encode(part.frames) for role, part in parts.items()}
    nats, mixture = information(posteriors["train"]), mixture_information(posteriors["train"])
    rows, read = [], []
    for share in SHARES:
        kept = kept_factors(nats, share)
        codes = {role: part.in_sequences(only(posteriors[role].mean, kept)) for role, part in parts.items()}
        reader = SequenceClassifier(settings.latent, settings.hidden, torch.Generator().manual_seed(seed))
        train_sequences(reader, train, codes["train"], held_out, codes["validation"], settings, seed)
        read.append(predict(reader, codes["test"]))
        sums = {"information": float(nats[kept].sum()), "mixture": float(mixture[kept].sum())}
        rows.append({"share": share, "kept": len(kept)} | sums | accuracies(read[-1], judged.labels))
    return rows, {"nats": nats, "read": torch.stack(read).to(torch.uint8), "closed": judged.labels.to(torch.uint8)}


def carry_out_shares(settings: Settings, workshop: Workshop) -> tuple[dict, dict, dict[str, Tensor]]:
    """Table 3-3: each fold of chapter B6, and as a control one of a made-up recording in which the answer is."""
    recording, folds, tensors = load_eye_state(workshop.data_root), [], {}
    for test, validation in pairs(settings):
        rows, found = run_shares(recording, test, validation, settings, workshop)
        folds.append({"test": test, "validation": validation, "shares": rows})
        tensors |= {f"{test}-{validation}/{name}": values for name, values in found.items()}
    control = run_shares(synthetic("a control", seconds=117), 0, 1, settings, workshop)[0]
    return recording.identity, {"folds": folds, "control": control}, tensors
