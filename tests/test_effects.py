"""An option that is taken has an effect: each field of each model, and what the commands and make are given."""

import dataclasses
import functools
import re
import shlex
import subprocess

import pytest
import torch
from test_malformed import attempt

from qmvae_core.draws import draw_noise, generator_for
from qmvae_core.models import ModalityConfig, ModelConfig, build_model, reading
from qmvae_core.names import FIRST_BEST
from qmvae_neighbours import experiments
from qmvae_study import __main__ as command_line
from qmvae_study.evidence.folder import REPOSITORY
from qmvae_study.plan import Run, plan

SMALL = "+mnist.widths=[6]+svhn.widths=[2,2]"
# Models, and what in them switches something off.
DMVAE = "dmvae+discriminator=8"
BASES = (
    FIRST_BEST, f"{FIRST_BEST}+beta=0", f"{FIRST_BEST}+negatives=hardest", f"{FIRST_BEST}+all.private=0",
    f"{FIRST_BEST}+all.likelihood=bernoulli",
    "mvae", "mmvae", "mopoe", "jmvae", "jmvae-kl", DMVAE, f"{DMVAE}+contrastive=0",
    DMVAE + '+total_correlation={"mnist":0,"svhn":0}', f"{DMVAE}+all.private_kl_weight=0",
)  # fmt: skip
OTHER = {
    "shared": 7, "alpha1": 0.5, "alpha2": 3.0, "beta": 77.0, "negatives": "semi-hard", "candidates": 5,
    "mask_equal_negatives": "true", "shared_kl_weight": 3.0, "shared_scales": "softmax", "beta_against": "sum",
    "cross_reconstruction": 2.0, "particles": 3, "alpha": 0.7, "contrastive": 5.0, "temperature": 0.5,
    "total_correlation": '{"mnist":7}', "warm_up": 1.0, "empty_group": "false", "discriminator": 9, "private": 6,
    "encoders": "separate", "likelihood": "normal", "scale": 2.0, "weight": 3.0, "private_kl_weight": 9.0,
    "network": "dense", "widths": "[4,5]",
}  # fmt: skip
ELSEWHERE = {"model", "modalities", "shape", "test_code"}  # of the kind and the data; of what is done after training
CASES = [
    (base, place, field.name)
    for base in BASES
    for place, kind in (("", ModelConfig.of_model[reading(base).model]), ("svhn.", ModalityConfig))
    for field in dataclasses.fields(kind)
    if field.name not in ELSEWHERE
]


@functools.cache
def meaning(name: str) -> dict[str, torch.Tensor | None]:
    """What a reading trains on a batch: its objectives, and the parameters that they have gradients for."""
    model = build_model(reading(name)).double()
    batch, draws = 12, torch.Generator().manual_seed(0)
    images = {key: torch.rand(batch, *m.shape, generator=draws).double() for key, m in model.config.modalities.items()}
    noise = {
        key: draw_noise({key: spec}, generator_for(key), "cpu")[key].double() * (0.5 if spec.kind == "progress" else 1)
        for key, spec in model.noise_spec(batch).items()
    }
    found = model.loss(images, torch.arange(batch) % 3, noise)
    total = found.objective.sum() + (0.0 if found.opposing is None else found.opposing.sum())
    total.backward()
    return {"total": total.detach()} | {key: value.grad for key, value in model.named_parameters()}


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        (a is None) == (other[key] is None)
        and (a is None or (a.shape == other[key].shape and torch.allclose(a, other[key])))
        for key, a in one.items()
    )


@pytest.mark.parametrize(("base", "place", "field"), CASES)
def test_a_field_is_refused_or_has_an_effect(base, place, field):
    parts = (base + SMALL).split("+")
    small = "+".join(part for part in parts if not part.rpartition(".")[2].startswith(f"{field}="))
    changed = f"{small}+{place}{field}={OTHER[field]}"
    _, said = attempt(lambda: Run("quick", changed, (0,)))
    refused = said is not None and "has no effect" in said
    if refused or said is None:  # else it cannot be at all, as a private code of MVAE
        assert same(meaning(small), meaning(changed)) == refused


def test_an_effect_may_be_taken_away_on_purpose_and_one_of_two_modalities_is_enough():
    for name in (f"{FIRST_BEST}+alpha1=1+beta=0", f"{FIRST_BEST}+mnist.private=0+all.private_kl_weight=2"):
        assert Run("quick", name, (0,)).reading == name
    with pytest.raises(ValueError, match=r"'alpha1=1' has no effect in the reading .*, where beta=0; leave it out"):
        Run("quick", f"{FIRST_BEST}+beta=0+alpha1=1", (0,))
    with pytest.raises(ValueError, match="the precision is not of the reading.*--precision"):
        Run("quick", f"{FIRST_BEST}+training.precision=bfloat16", (0,))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["plan", "--profile", "smoke", "--workers", "2"], "--workers 2 is more than the 1 runs"),
        (["run", "--profile", "smoke", "--workers", "2"], "--workers 2 is more than the 1 runs"),
        (["queue", "--data-root", ".", "--list", "--minutes", "5"], "--minutes has no effect on --list"),
    ],
)
def test_a_command_refuses_an_option_without_an_effect(tmp_path, capsys, line, words):
    assert command_line.main(line) == 1
    assert words in capsys.readouterr().err


def test_the_committed_record_of_a_neighbour_has_no_data_root():
    with pytest.raises(ValueError, match="data_root has no effect on the committed record"):
        experiments.obtain("B5_runoff", "committed", {}, None, data_root="stand-in")


@pytest.mark.parametrize(
    ("target", "given", "words"),
    [
        ("models", "MINUTES=8", "MINUTES has no effect on models"), ("paper", "MINUTES=8", ""),
        ("test", "DEVICE=cuda", "DEVICE has no effect on test"), ("setup paper", "MINUTES=8", ""),
        ("paper", "PRECISION=tf32", ""), ("lab", "PORT=1", "PORT has no effect on lab"),
    ],
)  # fmt: skip
def test_make_refuses_a_variable_without_an_effect(target, given, words):
    done = subprocess.run(["make", "-n", *target.split(), given], cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode == 0) == (not words)
    assert words in done.stderr


def told() -> list[str]:
    """The commands of the study that pages, chapters and make give; make's variables are filled in."""
    pages = ("README.md", "CONTRIBUTING.md", "Makefile", "book/*.md", "notebooks/*.ipynb")
    texts = [path.read_text(encoding="utf-8") for pattern in pages for path in sorted(REPOSITORY.glob(pattern))]
    found = (re.findall(r"(?:python|PY\)) -m qmvae_study ([a-z][^`\"#;&|\\\n]*)", text) for text in texts)
    filled = (re.sub(r"\$\(if .*", "", line).replace("$(PRECISION)", "float32") for lines in found for line in lines)
    commands = (re.sub(r"\$\(\w+\)", "folder", line).strip() for line in filled)
    return sorted({line for line in commands if line})


@pytest.mark.parametrize("line", told())
def test_a_command_that_a_page_tells_can_be_given(line):
    """What names no run that can be planned, no reader can follow."""
    options = command_line._parser().parse_args(shlex.split(line))
    if "readings" in options:
        assert plan(options.profile, options.readings, options.seeds)
