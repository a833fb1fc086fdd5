"""The record of a run, as JSON: what was asked, what came out, on which data, by which code, at which cost.

A `Record` is that JSON and doors into it, so tables, figures and chapters ask for what they mean. Every JSON that is
evidence carries the digest of its content: a file that was damaged or edited is refused, and never read in part.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from qmvae_core.files import file_hash, replacing
from qmvae_core.names import TITLES
from qmvae_core.stops import LEFT, quadruplet_plateau

FORMAT = 1  # of the record; raised when a field changes its meaning


class RecordError(RuntimeError):
    """A record is missing or cannot be read; the message names the file and the remedy."""


SEAL = "sha256"  # the field that holds the digest of all other fields
STATUSES = ("ok", "failed")
OURS, PAPERS = "our harness", "the paper's harness"  # by which a cell of the tables is measured
MISSING = object()


class Share(NamedTuple):
    """The share of n images that were read rightly, with the ends of its 95 % interval by Wilson, all from 0 to 1."""

    accuracy: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0

    @property
    def per_cent(self) -> float:
        """The accuracy in per cent."""
        return 100.0 * self.accuracy


class Data(NamedTuple):
    """On which data: kind ("real" or "stand-in"), the hash of all of it, notes for readers, counts by modality."""

    kind: str
    content_hash: str = ""
    notes: Sequence[str] = ()
    n_train: Mapping[str, int] = {}
    n_test: Mapping[str, int] = {}


class Provenance(NamedTuple):
    """By which code, versions and machine; commit and dirty are None where git could not say."""

    commit: str | None = None
    dirty: bool | None = None
    versions: Mapping[str, str | None] = {}
    device: str = ""
    device_type: str = ""
    threads: int = 0
    peak_host_bytes: int = 0

    @property
    def short_commit(self) -> str:
        """The first digits of the commit, or "none"."""
        return (self.commit or "none")[:8]


class Panel(NamedTuple):
    """What a panel of images shows. digits: of its conditions; read: (rows, columns) digits that the judge reads.

    files: name of a part -> its PNG; sha256: of each. positions, style_positions: of the images chosen. rows: what is
    drawn for a row. texts: of triples, whose rows of `read` are modalities.
    """

    digits: Sequence[int]
    read: Sequence[Sequence[int]]
    files: Mapping[str, str] = {}
    sha256: Mapping[str, str] = {}
    positions: Sequence[int] = ()
    style_positions: Sequence[int] = ()
    rows: str = ""
    texts: Sequence[str] = ()

    @property
    def draws_of(self) -> str:
        """The code that is drawn anew for each row, "h" or "z"."""
        return self.rows.removeprefix("draws of ")

    @property
    def right(self) -> float:
        """The share of its images that are read as their condition's digit: that of the column, or of all."""
        one = len(self.digits) == 1
        digits = [*self.digits] * (len(self.read[0]) if one else 1)
        read = [each == digit for row in self.read for each, digit in zip(row, digits, strict=True)]
        return sum(read) / len(read)


class JointCode(NamedTuple):
    """`diagnosis.joint_code` on one split: of the codes of each modality alone, of joint codes, and of precisions.

    only: of the pairs that one modality alone reads rightly, the share that the joint code does too.
    """

    joint: Share
    alone: Mapping[str, Share]
    only: Mapping[str, Share]
    precision: Mapping[str, float]


def _typed(cls: type, values: Mapping):
    """A named tuple of those of the values that it has a field for."""
    return cls(**{name: values[name] for name in cls._fields if name in values})


def _measured(value, where: str):
    """What a metric holds, with a Share in place of each mapping that has an accuracy.

    Raises RecordError for what is neither a number nor made of numbers, and for a share that is none.
    """
    if isinstance(value, Mapping):
        found = {name: _measured(each, f"{where} / {name}") for name, each in value.items()}
        return _typed(Share, found) if "accuracy" in found and _is_share(found, where) else found
    if isinstance(value, list):
        return [_measured(each, where) for each in value]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RecordError(f"{where} is {value!r}, which is no number; run it again")
    return value


def _is_share(found: Mapping, where: str) -> bool:
    ends = [found[name] for name in ("low", "accuracy", "high") if name in found]
    numbers = all(isinstance(each, int | float) for each in (*ends, found.get("n", 1)))
    if not numbers or [0.0, *ends, 1.0] != sorted([0.0, *ends, 1.0]) or found.get("n", 1) < 1:
        raise RecordError(f"{where} holds {dict(found)}, which is no share from 0 to 1 of some images; run it again")
    return True


def _metric(name: str, doc: str, kind: Callable = lambda found: found) -> property:
    return property(lambda self: kind(self._at("metrics", name)), doc=doc)


class Record(dict):
    """The JSON of one run, written and read as it is, with typed doors into it."""

    id: str = property(lambda self: self["id"])
    profile: str = property(lambda self: self["profile"])
    model: str = property(lambda self: self["model"])
    title: str = property(lambda self: TITLES[self.model], doc="The model's.")
    reading: str = property(lambda self: self["reading"])
    seed: int = property(lambda self: self["seed"])
    status: str = property(lambda self: self["status"], doc='"ok" or "failed".')
    done: bool = property(lambda self: self.status == "ok", doc="Whether the run finished.")
    real: bool = property(lambda self: self.data.kind == "real", doc="Whether it saw real data.")
    config_hash: str = property(lambda self: self["config_hash"])
    finished: str = property(lambda self: self.get("finished", ""), doc="When, as ISO 8601.")
    data: Data = property(lambda self: _typed(Data, self["data"]))
    provenance: Provenance = property(lambda self: _typed(Provenance, self["provenance"]))
    steps: int = property(lambda self: self.get("cost", {}).get("steps", 0), doc="Of training; 0 of a run that failed.")
    seconds: float = property(lambda self: self.get("cost", self).get("seconds", 0.0), doc="As `steps`.")

    def __or__(self, fields: Mapping) -> Record:
        return Record({**self, **fields})

    @property
    def amended(self) -> dict[str, Provenance]:
        """Metric that is younger than the run -> the code and machine that measured it."""
        return {name: _typed(Provenance, by) for name, by in self.get("amended", {}).items()}

    def holds(self, path: Path) -> bool:
        """Whether a file is there and has the hash that the record states of its weights or tensors."""
        return path.exists() and file_hash(path) == (self.get("weights_sha256") or self.get("tensors_sha256"))

    # What was asked

    def setting(self, *path: str):
        """A value of the configuration: setting("training", "precision"). Raises RecordError where it has none."""
        return self._at("config", *path)

    precision: str = property(lambda self: self.setting("training", "precision"), doc="The precision of its training.")

    @property
    def plateau(self) -> float | None:
        """The quadruplet loss with all codes in one place, where it can stand still; None without it."""
        config = self.setting("model")
        if not config.get("beta") or "alpha1" not in config:
            return None
        return quadruplet_plateau(config["alpha1"], config["alpha2"], len(config["modalities"]))

    # What came out

    def _at(self, part: str, *path: str):
        value = self.get(part, {})
        for key in path:
            if not isinstance(value, Mapping) or key not in value:
                raise RecordError(f"record {self.id} has no {part.rstrip('s')} {' / '.join(path)}; run it again")
            value = value[key]
        return _measured(value, f"record {self.id}: {' / '.join((part, *path))}") if part == "metrics" else value

    def share(self, *path: str, code: str | None = None) -> Share:
        """The accuracy at a path into the metrics, as `paper` names them. Raises RecordError where it is missing.

        Cross generation is measured by the "mean" and by a "sample" of q(z|x); code: which one, and None for the one
        that counts by the configuration's `test_code`.
        """
        if path[0] == "cross_generation":
            path = (*path, code or self.setting("model", "test_code"))
        found = self._at("metrics", *path)
        if not isinstance(found, Share):
            raise RecordError(f"record {self.id}: metrics / {' / '.join(path)} holds no share of images; run it again")
        return found

    def by_judge(self, *path: str) -> dict[str, float]:
        """A cell of the tables, at a path as of `share`, in per cent by each harness that has measured it.

        OURS; and PAPERS: cross generation of sampled codes over the digits of test pairs, the mean of several judges,
        each of which stands there too, and the probe on sampled codes.
        """
        metrics, found = self["metrics"], {OURS: self.share(*path).per_cent}
        if path[0] == "probe" and "published_probe" in metrics:
            found[PAPERS] = self._at("metrics", "published_probe", *path[1:]).per_cent
        elif path[0] == "cross_generation" and (seeds := metrics.get("published_judges")):
            of_seed = ("metrics", "published_judges")
            read = {seed: self._at(*of_seed, seed, *path[1:], "sample", "pairs").per_cent for seed in seeds}
            found[PAPERS] = sum(read.values()) / len(read)
            found |= {f"{PAPERS}, seed {seed}": value for seed, value in read.items()}
        return found

    def applies(self, *path: str) -> bool:
        """Whether the model has the metric at a path: the probe of one without joint codes has no "joint"."""
        probe = self["metrics"].get("probe")
        return path != ("probe", "joint") or not probe or "joint" in probe

    def accuracy(self, direction: str, code: str | None = None) -> Share:
        """Cross generation in a direction such as "mnist->svhn"; code: as of `share`."""
        return self.share("cross_generation", direction, code=code)

    def confusion(self, direction: str) -> list[list[int]]:
        """Numbers of images: a row for each digit of the condition, a column for each digit read."""
        return self._at("metrics", "confusion", direction)

    def frechet(self, kind: str, name: str) -> float:
        """A Fréchet distance: "cross_generation" of a direction, or "real" or "prior" of a modality."""
        return self._at("metrics", "frechet", kind, name, "distance")

    def diversity(self, direction: str) -> float:
        """Of generated images over that of real ones, in the judge's features."""
        return self._at("metrics", "diversity", direction, "features", "ratio")

    def private_information(self, modality: str) -> list[float]:
        """The information of each private dimension with its image, in nats."""
        return self._at("metrics", "private_information", modality, "nats")

    def held(self, metric: str) -> dict:
        """What a younger metric holds, each accuracy a Share; empty where the record or the model does not have it."""
        return self._at("metrics", metric) if metric in self["metrics"] else {}

    @property
    def joint_code(self) -> dict[str, JointCode]:
        """Split ("train", "judged") -> what joint codes are made of; empty where the record or the model has none."""
        return {split: JointCode(**found) for split, found in self.held("joint_code").items()}

    directions: tuple[str, ...] = _metric("cross_generation", 'Of cross generation, such as "mnist->svhn".', tuple)
    probe: dict[str, Share] = _metric("probe", 'The probe of Table 2 on codes of each modality, and on "joint" ones.')
    leakage: dict[str, dict[str, Share]] = _metric("leakage", "Modality -> probe -> what it reads in private codes.")
    joint_coherence: Share = _metric("joint_coherence", "Of pairs from the prior, those that are read alike.")
    oracle: dict[str, float] = _metric("oracle", "Each judge's own accuracy on real test digits, from 0 to 1.")
    code_swaps: dict[str, dict[str, dict[str, Share]]] = _metric(
        "code_swaps", "Direction -> whose z -> which h -> share."
    )

    def left_after(self) -> int | None:
        """The number of steps after which the quadruplet loss had left its plateau; None if it never did.

        It has left when the mean over a chunk of steps is below LEFT of the plateau. Older records know the means of
        epochs only; there an epoch takes the chunk's place. Raises ValueError for a run without a plateau.
        """
        if "plateau" in self:
            return self["plateau"]["left"]
        if self.plateau is None:
            raise ValueError(f"the loss of record {self.id} has no plateau to leave")
        below = (i for i, epoch in enumerate(self["history"], start=1) if epoch["quadruplet"] < LEFT * self.plateau)
        first = next(below, None)
        return first and first * (self.steps // len(self["history"]))

    @property
    def stalled(self) -> bool:
        """Whether a finished run has a plateau and never left it."""
        return ("plateau" in self or self.plateau is not None) and self.left_after() is None

    def panel(self, kind: str, *ends: str) -> Panel:
        """One of its panels: "cross_generation", "transfer" or "traversal" from a source to a target, or "triples".

        Of triples with what is given, such as "mnist+text", or "prior". Raises RecordError without it.
        """
        name = "->".join(ends)
        found = (self.get("panels") or {}).get(kind, {}).get(name)
        if found is None:
            raise RecordError(f"record {self.id} has no panel {kind}, {name}; run it again")
        return _typed(Panel, found)


def config_hash(config: Mapping) -> str:
    """Twelve hexadecimal digits that stand for a config, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def write_json(path: Path, value: Mapping) -> None:
    """Write JSON and its digest so that a reader sees the old file or the new one; NaN and infinity become strings."""
    value = _finite(value)
    text = json.dumps(value | {SEAL: _digest(value)}, indent=1, sort_keys=True, allow_nan=False) + "\n"
    with replacing(path) as part:
        part.write_text(text)


def _digest(value: Mapping) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _finite(value):
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> dict:
    """What `write_json` wrote. Raises RecordError if the file is missing, is not JSON, or not what was written."""
    path = Path(path)
    try:
        found = json.loads(path.read_text(), parse_constant=_no_number)
    except FileNotFoundError:
        raise RecordError(f"there is no record {path}; run it with: python -m qmvae_study run") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not a readable record ({error}); delete it and run it again") from None
    if not isinstance(found, dict) or found.pop(SEAL, None) != _digest(found):
        raise RecordError(
            f"{path} is damaged, edited or of an earlier format: its content has not the digest that it names; "
            "delete it and run it again"
        )
    return found


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def read_record(path: Path) -> Record:
    """One record. Raises RecordError like `read_json`, for another format, and for one that contradicts itself."""
    record = Record(read_json(path))
    if record.get("format") != FORMAT:
        raise RecordError(f"{path} is not a record of format {FORMAT}; delete it and run it again")
    if "config_hash" in record:
        for fault in _faults(record, Path(path).stem):
            raise RecordError(f"{path} contradicts itself: {fault}; delete it and run it again")
    return record


# What a record of a run must have, and of which type; a dotted name is of a field in a field.
FORM = {
    **dict.fromkeys(("id", "profile", "model", "reading", "status", "config_hash", "data.kind"), str),
    **dict.fromkeys(("data.content_hash", "config.model.model"), str),
    "seed": int, "trained_together": list, "data.notes": list,
}  # fmt: skip
# What it may lack, as one that is older or that failed.
OPTIONAL = {
    **dict.fromkeys(("metrics", "panels", "provenance", "cost", "plateau", "judges", "published_judges"), dict),
    "history": list,
    "cost.steps": int, "cost.seconds": int | float, "plateau.left": int | None,
}  # fmt: skip


def _misfits(record: Record) -> Iterator[str]:
    """Fields that are missing or of another type."""
    for path, kind in (FORM | OPTIONAL).items():
        value = record
        for key in path.split("."):
            value = value.get(key, MISSING) if isinstance(value, dict) else MISSING
        lacks = value is MISSING and (path in FORM or (path == "metrics" and record.get("status") == "ok"))
        if lacks or (value is not MISSING and (not isinstance(value, kind) or isinstance(value, bool))):
            yield f"it has no {path}" if lacks else f"its {path} is {value!r}"


def _faults(record: Record, name: str) -> Iterator[str]:
    """What cannot be true of the record of a run in a file of this name."""
    yield from _misfits(record)
    if record.id != name:
        yield f"its id is {record.id!r}"
    if config_hash(record["config"]) != record.config_hash:
        yield "its config is not that of its hash"
    if record.status not in STATUSES:
        yield f"its status is {record.status!r}"
    if not record.id.startswith(f"{record.profile}-{record.model}-") or not record.id.endswith(f"-seed{record.seed}"):
        yield "its id names another profile, model or seed"
    if record.seed not in record["trained_together"]:
        yield f"its seed {record.seed} is not among those trained"
    if record["config"]["model"]["model"] != record.model:
        yield "its config is of another model"


def load_records(folder: Path, **wanted) -> list[Record]:
    """All records of a folder in the order of their names, those only whose fields equal `wanted`.

    For example load_records("results/runs", profile="paper", reading="default"). An empty list means no match.
    Raises RecordError if the folder does not exist, if a record in it cannot be read, and for two seeds of one weights.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RecordError(f"there is no folder of records {folder}; make it with: python -m qmvae_study run")
    records = [read_record(path) for path in sorted(folder.glob("[!.]*.json"))]
    _refuse_copies(records, folder)
    return [record for record in records if all(record.get(key) == value for key, value in wanted.items())]


def _refuse_copies(records: Sequence[Record], folder: Path) -> None:
    of_weights: dict[str, Record] = {}
    for record in records:
        other = of_weights.setdefault(record.get("weights_sha256", record.get("id")), record)
        if other.get("seed") != record.get("seed"):
            raise RecordError(f"{folder}: {record.id} and {other.id} hold one run as two seeds; delete the copy")
