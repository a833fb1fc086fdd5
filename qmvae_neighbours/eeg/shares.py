"""Table 3-3 of the thesis, for chapter B4: the factors of a frame with most information, and what they tell.

The thesis has 128 factors and the emotions of DEAP; here they are of the eye-state recording, cut as in chapter B6.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qmvae_neighbours.eeg.data import Recording, load_eye_state, synthetic
from qmvae_neighbours.eeg.experiment import SETTINGS as WITH_FEWER
from qmvae_neighbours.eeg.experiment import Settings, accuracies, fold, frame_model, pairs, predict, train_sequences
from qmvae_neighbours.eeg.model import SequenceClassifier
from qmvae_neighbours.experiments import Workshop
from qmvae_neighbours.factors.experiment import kept_factors, only
from qmvae_neighbours.factors.model import information, mixture_information

SHARES = (100, 50, 10, 7, 5, 3, 1, 0)  # of table 3-3, in per cent
SETTINGS = {profile: replace(settings, latent=128) for profile, settings in WITH_FEWER.items()}


def run_fold(
    recording: Recording, test: int, validation: int, settings: Settings, workshop: Workshop
) -> tuple[list[dict], dict[str, Tensor]]:
    """A row a share: nats of the factors that are kept, and how well an LSTM reads the test block from these alone.

    Nats are of the training frames: what is kept must not depend on what is judged. Tensors: the estimate of each
    factor, what was read by each share, and the states.
    """
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


def carry_out(settings: Settings, workshop: Workshop) -> tuple[dict, dict, dict[str, Tensor]]:
    """Table 3-3: each fold of chapter B6, and as a control one of a made-up recording in which the answer is."""
    recording, folds, tensors = load_eye_state(workshop.data_root), [], {}
    for test, validation in pairs(settings):
        rows, found = run_fold(recording, test, validation, settings, workshop)
        folds.append({"test": test, "validation": validation, "shares": rows})
        tensors |= {f"{test}-{validation}/{name}": values for name, values in found.items()}
    control = run_fold(synthetic("a control", seconds=117), 0, 1, settings, workshop)[0]
    return recording.identity, {"folds": folds, "control": control}, tensors
