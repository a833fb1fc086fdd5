"""What the chapters B1 to B6 show: figures and tables of committed records, verdicts that follow the numbers."""

import copy
import functools
import importlib
import inspect
from pathlib import Path

import notebook_kinds
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from qmvae_neighbours import experiments, report
from qmvae_neighbours.eeg import results as eeg
from qmvae_neighbours.jmvae import results as jmvae
from qmvae_neighbours.vae import results as vae
from qmvae_study.report import figures
from qmvae_study.report.intervals import Interval, Says

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = {path.stem.split("_")[1]: path.stem for path in notebook_kinds.neighbours()}


@functools.cache
def committed(chapter: str) -> experiments.Found:
    return experiments.read(ROOT / "results" / "neighbours", CHAPTERS[chapter])


def shown(wanted: type) -> list:
    """The functions of every chapter's results that take what was found and return a figure or a table."""
    return [
        pytest.param(chapter, function, id=f"{chapter}-{name}")
        for chapter in CHAPTERS
        for module in [importlib.import_module(f"qmvae_neighbours.{chapter}.results")]
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and list(inspect.signature(function).parameters) == ["found"]
        and inspect.get_annotations(function, eval_str=True)["return"] is wanted
    ]


@pytest.mark.parametrize(("chapter", "draw"), shown(figures.Picture))
def test_a_figure_is_drawn_from_the_committed_record_and_says_what_it_shows(chapter, draw):
    picture = draw(committed(chapter))  # a warning would be an error
    assert figures.png(picture).startswith(b"\x89PNG")
    assert len(picture.alt) > 40


@pytest.mark.parametrize(("chapter", "table"), shown(pd.DataFrame))
def test_a_table_has_rows_without_gaps(chapter, table):
    found = table(committed(chapter))
    assert len(found) > 1
    if chapter != "factors" or table.__name__ != "of_shares":  # no classifier without factors
        assert not found.isna().any().any()


def test_no_chapter_is_left_out():
    drawn = [param.values[0] for param in shown(figures.Picture)]
    assert {chapter: drawn.count(chapter) for chapter in CHAPTERS} == {
        "vae": 3, "jmvae": 2, "gwae": 8, "factors": 6, "runoff": 1, "eeg": 5,
    }  # fmt: skip


def put(holder, keys: tuple, value) -> None:
    """Put a value at the end of the keys; "*" is every key."""
    first, *rest = keys
    for key in (holder if isinstance(holder, dict) else range(len(holder))) if first == "*" else [first]:
        if rest:
            put(holder[key], tuple(rest), value)
        else:
            holder[key] = value


SECOND = experiments.read(ROOT / "results" / "neighbours", "B1_seeds")


@pytest.mark.parametrize(
    ("name", "gain", "claim", "verdict"),
    [
        ("isotropic covariance", -0.9, "1. the cov", "holds"),
        ("isotropic covariance", -1.1, "1. the cov", "does not hold here"),
        ("scale by a network", 0.1, "2. another", "holds"),
        ("scale by a network", -0.1, "2. another", "does not hold here"),
        ("binarised, Bernoulli noise", 0.1, "3. bin", "holds"),
        ("binarised, Bernoulli noise", -0.1, "3. bin", "does not hold here"),
    ],
)
def test_a_verdict_over_seeds_follows_the_difference_by_seed(name, gain, claim, verdict):
    rivals = {
        "isotropic covariance": "VAE", "scale by a network": "one learned scale",
        "binarised, Bernoulli noise": "binarised, normal noise",
    }  # fmt: skip
    changed = experiments.Found(copy.deepcopy(SECOND.record), SECOND.tensors)
    for rows in changed.metrics["binarised, normal noise, mean as probability"], changed.metrics[name]:
        for row, rival in zip(rows, changed.metrics[rivals[name]], strict=True):
            row["bound"] = rival["bound"] + gain * (rows is changed.metrics[name])
    verdicts = vae.verdicts(committed("vae"), changed).verdict
    assert [said for words, said in verdicts.items() if words.startswith(claim)] == [verdict]
    changed.metrics[name][0]["bound"] += 300
    changed.metrics[name][1]["bound"] -= 300
    verdicts = vae.verdicts(committed("vae"), changed).verdict
    assert [said for words, said in verdicts.items() if words.startswith(claim)] == ["undecided"]


def test_the_table_over_seeds_is_scipys_interval():
    table = vae.repeated(SECOND)
    values = [row["bound"] for row in SECOND.metrics["VAE"]]
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, np.mean(values), scipy.stats.sem(values))
    assert table.loc["VAE", "bound"] == f"{np.mean(values):.2f} ± {(high - low) / 2:.2f}"
    assert not table.isna().any().any()


DEEP, LONG = "LSTM, 2 layers, short", "LSTM, 2 layers, long"
BETTER = "β-VAE-LSTM is better than PSD-SVM"


@pytest.mark.parametrize(
    ("chapter", "keys", "value", "claim", "verdict"),
    [
        ("vae", ("tensors", "full covariance/bound"), torch.zeros(1000), "1. a full covariance", "holds"),
        ("vae", ("metrics", "*", "squared_error"), 9.0, "2. the decoder", "does not hold here"),
        ("vae", ("data", "kind"), "stand-in", "4. the label", "cannot be compared"),
        ("jmvae", ("tensors", "0.1/image"), torch.full((500,), -200.0), "joint training reaches", "holds in part"),
        ("jmvae", ("metrics", "image-label", "0.1", "label from image, accuracy"), 0.99,
         "generation in both directions, i", "holds in part"),
        ("jmvae", ("tensors", "pairs/jmvae-kl/svhn from mnist"), torch.full((100,), -9e3),
         "JMVAE-kl mends the collapse, M", "holds in part"),
        ("gwae", ("metrics", "scenes", "GWAE, factorised", "*", "disentanglement"), 0.9, "1. the", "holds"),
        ("gwae", ("metrics", "scenes", "GWAE, factorised", "*", "axis", "figure hue"), 0.6, "1. it puts", "holds"),
        ("gwae", ("metrics", "digits", "*", "*", "areas", "*", "letters"), 0.96, "2. letters", "holds"),
        ("gwae", ("metrics", "digits", "*", "*", "areas", "*", "letters"), 0.94, "2. letters", "does not hold here"),
        ("gwae", ("metrics", "digits", "GWAE, mixture", "*", "areas", "*", "letters"), 1.1, "3. the mix", "holds"),
        ("gwae", ("metrics", "digits", "*", "*", "areas", "*", "letters"), 0.5, "3. the mixture", "undecided"),
        ("gwae", ("metrics", "*", "*", "*", "noise_ratio"), 20.0, "4. the neural", "undecided"),
        ("factors", ("metrics", "vae", "shares", "*", "information"), 30.0, "20 % of", "holds"),
        ("factors", ("metrics", "vae", "shares", 1, "error"), 9.0, "20 % of", "does not hold"),
        ("factors", ("metrics", "vae", "shares", 3, "error"), 5.0, "fewer nats", "does not hold"),
        ("factors", ("metrics", "vae", "shares", 1, "accuracy"), 0.5, "fewer factors", "does not hold"),
        ("factors", ("metrics", "vae", "factors", "divergence"), [9.0] * 128, "the estimate is much", "holds"),
        ("factors", ("metrics", "vae", "factors", "information"), [0.0] * 128, "information finds", "does not hold"),
        ("runoff", ("metrics", "skill", LONG, "0"), 0.1, "a longer history", "not seen"),
        ("runoff", ("metrics", "indices", LONG, "*", "*", "s"), 500.0, "a longer history", "not seen"),
        ("runoff", ("metrics", "indices of all test days", "*", "*", "m"), 0.5, "m is very small", "holds"),
        ("eeg", ("metrics", "folds", "*", "models", "β-VAE-LSTM", "balanced"), 0.99, BETTER, "holds"),
        ("eeg", ("metrics", "folds", "*", "models", "β-VAE-LSTM", "balanced"), 0.01, BETTER, "reversed"),
        ("eeg", ("metrics", "folds", "*", "models", "β-VAE-LSTM", "balanced"), 0.99, "β-VAE-LSTM equals", "reversed"),
    ],
)  # fmt: skip
def test_a_verdict_follows_the_numbers(chapter, keys, value, claim, verdict):
    found = committed(chapter)
    results = importlib.import_module(f"qmvae_neighbours.{chapter}.results")
    changed = experiments.Found(copy.deepcopy(found.record), dict(found.tensors))
    put({"tensors": changed.tensors, **changed.record}, keys, value)
    others = [SECOND] if chapter == "vae" else []
    (after,) = (row.verdict for row in results.verdicts(changed, *others).itertuples() if row.Index.startswith(claim))
    assert after == verdict


def test_a_claim_about_several_quantities():
    said = [report.holds(*states) for states in ([True, True], [True, None], [None, False], [False])]
    assert said == ["holds", "holds in part", "undecided", "does not hold"]
    assert report.holds(False, otherwise="not seen") == "not seen"


def test_a_share_near_nine_in_ten_is_undecided():
    assert [jmvae.works(share, 100) for share in (0.7, 0.85, 0.93, 0.99)] == [False, None, None, True]


def test_a_difference_must_exceed_its_error_and_that_of_the_seeds():
    for error, seeds in ((1.0, 2.0), (2.0, 1.0)):
        found = [jmvae.beyond(Interval.around(value, error), seeds) for value in (-2.1, -1.5, 1.5, 2.1)]
        assert [verdict.says for verdict in found] == [Says.BELOW, Says.AGREES, Says.AGREES, Says.ABOVE]
    assert found[2].evidence == "+1.50 ± 2.00"


def test_a_method_above_chance_is_named():
    found = copy.deepcopy(committed("eeg"))
    assert "**no model can be said to see" in eeg.above_chance(found)
    put(found.record, ("metrics", "folds", "*", "models", "AE-LSTM", "balanced"), 0.9)
    assert eeg.above_chance(found).endswith("Better than a constant answer, by these intervals: AE-LSTM.")


def test_a_table_as_markdown():
    assert report.markdown(report.claims([("p(x|z)", "holds")], ["claim", "verdict"])) == (
        "| claim | verdict |\n|---|---|\n| p(x\\|z) | holds |"
    )


def test_claims_by_their_verdict():
    table = report.claims([("a", "holds"), ("b", "undecided"), ("c", "holds")], ["claim", "verdict"])
    assert report.in_short(table) == "- **holds**: a; c\n- **undecided**: b"
