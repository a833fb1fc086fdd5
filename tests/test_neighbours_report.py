"""What the chapters B1 to B6 show: figures and tables of committed records, verdicts that follow the numbers."""

import copy
import functools
import importlib
import inspect
from pathlib import Path

import notebook_kinds
import pandas as pd
import pytest
import torch

from qmvae_neighbours import experiments, report
from qmvae_neighbours.eeg import results as eeg
from qmvae_neighbours.jmvae import results as jmvae
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
        ("gwae", ("metrics", "scenes", "GWAE, factorised", "*", "disentanglement"), 0.9, "1. the", "holds here"),
        ("gwae", ("tensors", "GWAE, factorised/importance"), torch.full((6, 6), 0.6), "1. it puts", "holds here"),
        ("gwae", ("metrics", "digits", "*", "areas", "*", "letters"), 0.96, "2. letters", "holds here"),
        ("gwae", ("metrics", "scenes", "GWAE, neural", "*", "noise_ratio"), 99.0, "4. the neural", "holds here"),
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
    (after,) = (row.verdict for row in results.verdicts(changed).itertuples() if row.Index.startswith(claim))
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
