"""The plan of all runs: profiles, and the runs that they span."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from qmvae_core.data import MODALITIES, STAND_IN
from qmvae_core.models import Checked, ModelConfig, Reading, build_model, from_known_fields, reading
from qmvae_core.names import BEST, known
from qmvae_core.training import TrainingConfig
from qmvae_study import harness, hunt, sensitivity
from qmvae_study.oracles import CONFIGS, OracleConfig, PublishedConfig
from qmvae_study.paper import TRAIN_PAIRS
from qmvae_study.rows import MODELS_COMPARED, WITH_TEXT
from qmvae_study.text import with_text_modality

# Bytes of a reading, and of seeds, in the names of files; a file system takes 255 with all that is added.
LONGEST_NAME = 120
LONGEST_SEEDS = 40
PAPER_ROUNDS = TrainingConfig().rounds  # which give TRAIN_PAIRS


@dataclass(frozen=True)
class Profile:
    """How much of the study to do. readings, seeds and precisions span its plan; more_seeds replaces those of some."""

    training: TrainingConfig
    readings: tuple[str, ...] = (BEST,)
    seeds: tuple[int, ...] = (0,)
    more_seeds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    validation: bool = False  # train on nine tenths of the training digits and judge on the rest, to make a choice
    precisions: tuple[str, ...] = ("float32",)
    stacked: bool = False  # on a GPU all seeds of a reading in one run
    data_root: str | None = None  # None: look for a data root
    oracles: Mapping[str, OracleConfig] = field(default_factory=lambda: CONFIGS)
    published: PublishedConfig = PublishedConfig()  # the judges of the harness that the paper names
    harness_passes: int = 0  # of its probe; 0: nothing is measured by that harness
    text: bool = False  # whether each reading and the data have text as a third modality


# 3,000 steps instead of 131,410; the learning rate is ten times the paper's, to get far in so few.
SHORT = TrainingConfig(epochs=10, steps_per_epoch=300, learning_rate=1e-3)
# A tenth of the paper's steps, every pair once, and ten times its rate: the same product of rate and steps.
EPOCH = TrainingConfig(epochs=1, steps_per_epoch=13_141, learning_rate=1e-3, reports=5)
SMOKE = Profile(
    TrainingConfig(epochs=2, steps_per_epoch=8, batch_size=64, learning_rate=1e-3, rounds=2, chunk=4),
    data_root=STAND_IN,
    oracles={name: OracleConfig(epochs=1, channels=8, batch_size=8) for name in CONFIGS},
    published=PublishedConfig(epochs=2, rounds=1, batch_size=32),
    harness_passes=3,
)
PROFILES = {
    "smoke": SMOKE,
    "quick": Profile(SHORT, MODELS_COMPARED, harness_passes=harness.PASSES),
    "sensitivity": Profile(SHORT, sensitivity.PLAN, more_seeds={sensitivity.BASE: sensitivity.SEEDS}, validation=True),
    # What we do otherwise than a model's authors, one change at a time, to be compared with the runs of "quick".
    "deviations": Profile(
        SHORT, ("mmvae+particles=1", "dmvae+empty_group=false", "jmvae-kl+alpha=1", "mopoe+beta=2.5")
    ),
    # Whether bfloat16 changes a result: the same seeds by both precisions.
    "precision": Profile(
        SHORT, (f"{hunt.PRINTED}+all.scale=3.75",), tuple(range(5)), precisions=("float32", "bfloat16")
    ),
    "hunt": Profile(EPOCH, hunt.PLAN, hunt.SEEDS[:1], validation=True, precisions=("bfloat16",)),
    "epoch": Profile(EPOCH, MODELS_COMPARED, (0, 1, 2), harness_passes=harness.PASSES),
    "paper": Profile(TrainingConfig(), MODELS_COMPARED, tuple(range(5)), stacked=True, harness_passes=harness.PASSES),
    # The authors' own length, batch and learning rate, where they trained on MNIST-SVHN and a GPU's hours allow it.
    "published": Profile(
        TrainingConfig(epochs=50, batch_size=1024, learning_rate=1e-3),
        ("dmvae",),
        tuple(range(5)),
        stacked=True,
        harness_passes=harness.PASSES,
    ),  # fmt: skip
    # MNIST-SVHN-Text, at the length of "epoch".
    "text": Profile(EPOCH, WITH_TEXT, (0, 1, 2), precisions=("bfloat16",), text=True),
    "text-smoke": replace(SMOKE, readings=WITH_TEXT, harness_passes=0, text=True),
}


def profile(name: str) -> Profile:
    """The named profile. Raises ValueError for an unknown name."""
    return known(PROFILES, "profile", name)


def _check_seeds(seeds: Sequence[int]) -> None:
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"there must be seeds, and none twice, got {list(seeds)}")


# Field of a model or of a modality -> the choices beside which it has no effect on anything that is trained.
_NO_LOSS = {"beta=0": lambda model: not model.beta}
_NO_STYLE = {"private=0": lambda modality: not modality.private}
IDLE = {
    **dict.fromkeys(("alpha1", "alpha2", "negatives", "mask_equal_negatives", "beta_against"), _NO_LOSS),
    "candidates": {**_NO_LOSS, "negatives=random": lambda model: model.negatives == "random"},
    "temperature": {"contrastive=0": lambda model: not model.contrastive},
    "warm_up": {"private_kl_weight=0": lambda model: not any(m.private_kl_weight for m in model.modalities.values())},
    **dict.fromkeys(("private_kl_weight", "encoders"), _NO_STYLE),
    "scale": {"likelihood=bernoulli": lambda modality: modality.likelihood == "bernoulli"},
}


def idle(model: ModelConfig, place: str, field: str) -> str | None:
    """The choice of a model beside which a field has no effect, or None; place: as of `readings.Change`."""
    modalities = model.modalities
    parts = {"": [model], "training": [], "all": [*modalities.values()], **{key: [m] for key, m in modalities.items()}}
    found = [next((why for why, holds in IDLE.get(field, {}).items() if holds(part)), None) for part in parts[place]]
    return found[0] if found and all(found) else None


def _check_effects(name: str) -> None:
    """Each change must have an effect where it stands; a later one may take that away, as +beta=0 does on purpose."""
    base, changes = Reading.parse(name)
    for count, change in enumerate(changes, start=1):
        if why := idle(Reading(base, changes[:count]).config(), change.place, change.field):
            raise ValueError(f"{change.spelled!r} has no effect in the reading {name!r}, where {why}; leave it out")
        if change[:2] == ("training", "precision"):
            raise ValueError(f"the precision is not of the reading, as in {name!r}; give it as the run's, --precision")


def model_config(profile_name: str, name: str) -> ModelConfig:
    """The model of a reading in a profile. Raises ValueError for an unknown profile, and like `reading`."""
    return with_text_modality(reading(name)) if profile(profile_name).text else reading(name)


@functools.cache  # a plan has a reading many times
def _check_reading(profile_name: str, name: str) -> None:
    config = model_config(profile_name, name)
    _check_effects(name)
    model = build_model(config)  # an impossible choice shows here, before any work
    if Reading.parse(name).training().get("missing") and not model.takes_missing:
        raise ValueError(f"{config.model} cannot train with missing modalities, as {name!r} wants it")
    for modality, shape in MODALITIES.items():
        if config.modalities[modality].shape != shape:
            raise ValueError(f"images of {modality} have the shape {shape}, not {config.modalities[modality].shape}")


@dataclass(frozen=True)
class Run(Checked):
    """One entry of the plan: a model under one reading, one seed or a stack of seeds, in one precision.

    Raises ValueError for an unknown profile, reading or precision, for a value that its field cannot have, and for
    seeds that are negative, given twice or too large.
    """

    profile: str
    reading: str
    seeds: tuple[int, ...]
    precision: str = "float32"

    def __post_init__(self):
        if isinstance(self.seeds, list):  # as a notebook's parameters have them
            object.__setattr__(self, "seeds", tuple(self.seeds))
        super().__post_init__()
        profile(self.profile)
        _check_reading(self.profile, self.reading)
        _ = self.training
        _check_seeds(self.seeds)

    @property
    def training(self) -> TrainingConfig:
        """The profile's training, with what the reading changes of it."""
        changes = {"precision": self.precision, **Reading.parse(self.reading).training()}
        return from_known_fields(TrainingConfig, asdict(profile(self.profile).training) | changes)

    @property
    def model_config(self) -> ModelConfig:
        """What the reading is in the profile."""
        return model_config(self.profile, self.reading)

    @property
    def model(self) -> str:
        """The name of the model, as in `models.MODELS`."""
        return reading(self.reading).model

    @property
    def id(self) -> str:
        """A name for the run's folder."""
        return f"{self._name}-s{_short('_'.join(map(str, self.seeds)), LONGEST_SEEDS)}"

    def record_id(self, seed: int) -> str:
        """The name of one seed's record, weights and panels."""
        return f"{self.profile}-{self._name}-seed{seed}"

    @property
    def _name(self) -> str:
        """Model, reading and, if it is not float32, precision; a reading too long for a file's name has a digest."""
        name = _short(self.reading, LONGEST_NAME)
        return f"{self.model}-{name}" + ("" if self.precision == "float32" else f"-{self.precision}")

    def config(self) -> dict:
        """All that decides the result beside seed and data."""
        training = asdict(self.training)
        if not training["missing"]:
            del training["missing"]  # older records do not have it, and their hashes stay
        return {"model": self.model_config.to_dict(), "training": training}


def _short(name: str, longest: int) -> str:
    """A name, or the first part of one that is longer and a digest of all of it."""
    if len(name.encode()) <= longest:
        return name
    return f"{re.split('[+_]', name)[0]}+{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def plan(
    name: str,
    readings: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    precision: str | None = None,
    stacked: bool = False,
) -> list[Run]:
    """The runs of a profile, in order; readings, seeds and precision replace the profile's own.

    stacked: the seeds of a reading in one run where the profile has them so, for a GPU. Raises like `Run`.
    """
    chosen = profile(name)
    precisions = (precision,) if precision else chosen.precisions
    if seeds is not None:
        _check_seeds(seeds)
    runs = []
    for each in readings or chosen.readings:
        numbers = tuple(seeds) if seeds else chosen.more_seeds.get(each, chosen.seeds)
        stacks = [numbers] if chosen.stacked and stacked else [(number,) for number in numbers]
        runs += [Run(name, each, stack, which) for which in precisions for stack in stacks]
    return runs


def steps_of(run: Run) -> int:
    """The steps of one seed; those of an epoch that shows every pair once are of the official training digits."""
    training = run.training
    pairs = TRAIN_PAIRS // PAPER_ROUNDS * training.rounds
    return training.epochs * (training.steps_per_epoch or -(-pairs // training.batch_size))
