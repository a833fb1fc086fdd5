"""MNIST-SVHN-Text: texts are a function of the labels, the judge is exact, and a profile has both throughout."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from test_modalities import Reader

from qmvae_core.data import DigitData, Digits, standin_digits, tuple_indices
from qmvae_core.evaluation import Context
from qmvae_core.models import build_model, reading
from qmvae_core.names import BEST
from qmvae_study import queue, text
from qmvae_study.evidence.pictures import panel_images
from qmvae_study.evidence.records import Record
from qmvae_study.panels import make_panels
from qmvae_study.plan import PROFILES, Run, plan
from qmvae_study.report import three
from qmvae_study.rows import WITH_TEXT
from qmvae_study.runs import data_for, judge, metrics_of, oracles_for, train

pytestmark = pytest.mark.usefixtures("one_thread")
LABELS = torch.arange(10).repeat(200)
THREE = ["mnist", "svhn", "text"]


def one_hot(words: list[str]) -> torch.Tensor:
    letters = torch.tensor([[text.ALPHABET.index(letter) for letter in word] for word in words])
    return torch.nn.functional.one_hot(letters, len(text.ALPHABET)).float()


def test_a_text_is_the_name_at_a_place_that_its_seed_draws_and_blanks():
    made = text.texts(LABELS, 0)
    assert (made.shape, made.dtype) == ((2000, 8, 71), torch.uint8)
    assert made.unique().tolist() == [0, 255]
    assert bool((made.long().sum(dim=-1) == 255).all())
    places = {}
    for word, digit in zip(text.written(made), LABELS.tolist(), strict=True):
        assert word.strip(" ") == text.NAMES[digit]
        places.setdefault(digit, []).append(len(word) - len(word.lstrip(" ")))
    for digit, found in places.items():  # each place is as likely, but for the one that would fill the last letter
        counts = np.bincount(found)
        assert len(counts) == 8 - len(text.NAMES[digit])
        assert counts.min() > 0.6 * 200 / len(counts)
    assert torch.equal(made, text.texts(LABELS, 0))
    assert not torch.equal(made, text.texts(LABELS, 1))
    assert torch.equal(made[:300], text.texts(LABELS[:300], 0))


@pytest.mark.parametrize(
    ("word", "digit"),
    [
        ("  zero  ", 0), ("nine    ", 9), ("xthreexx", 3), ("   seven", 7),
        ("        ", -1), (" thre   ", -1), ("tw o    ", -1), ("ohree   ", -1),
        ("sevenine", -1), ("oneight ", -1), ("one two ", -1), ("twotwo  ", 2),
    ],
)  # fmt: skip
def test_the_judge_reads_exactly_one_name(word, digit):
    assert text.digit_named(word) == digit
    assert text.TextJudge().predict(0.6 * one_hot([word]) + 0.001).tolist() == [digit]


def test_the_judge_is_right_on_every_text_and_sees_what_it_is_given():
    digits = Digits(text.texts(LABELS, 3), LABELS)
    judge = text.TextJudge()
    assert judge.accuracy(digits) == 1.0
    assert judge.features(digits.batch()[:5]).shape == (5, 568)
    assert judge.accuracy(Digits(digits.images, (LABELS + 1) % 10)) == 0.0


def test_each_image_of_mnist_has_a_text_of_its_digit_and_nothing_else_of_the_data_changes():
    data = standin_digits()
    found = text.with_text(data)
    for split, before in (("train", data.train), ("test", data.test)):
        after = getattr(found, split)
        assert list(after) == ["mnist", "svhn", "text"]
        assert after["mnist"] is before["mnist"]
        assert torch.equal(after["text"].labels, before["mnist"].labels)
        assert found.identity[f"n_{split}"] == {**data.identity[f"n_{split}"], "text": len(before["mnist"])}
        two, three = (tuple_indices({n: d.labels for n, d in each.items()}, 1) for each in (before, after))
        assert len(two["mnist"]) == len(three["text"])
    assert found.identity["content_hash"] == data.identity["content_hash"]
    assert data.identity["notes"] == found.identity["notes"][:-1]
    assert "text" not in data.identity["n_train"]


def test_text_is_in_all_but_its_network_and_likelihood_as_mnist_is():
    for name, weight in ((BEST, 1.0), ("mvae", 384.0), ("default", 384.0)):
        config = text.with_text_modality(reading(name))
        mnist, added = config.modalities["mnist"], config.modalities["text"]
        assert (added.likelihood, added.network, added.weight) == ("categorical", "sequence", weight)
        assert (added.private, added.encoders, added.private_kl_weight) == (
            mnist.private, mnist.encoders, mnist.private_kl_weight,
        )  # fmt: skip
    model = build_model(text.with_text_modality(reading(BEST)))
    made = model.generate(3, torch.Generator().manual_seed(0))["text"]
    assert made.shape == (3, 8, 71)
    torch.testing.assert_close(made.sum(dim=-1), torch.ones(3, 8))


def test_a_profile_with_text_has_it_in_every_run_and_no_other_has():
    runs = plan("text")
    assert len(runs) == 15 == len({run.id for run in runs})
    assert {run.seeds for run in runs} == {(0,), (1,), (2,)}
    for run in runs:
        assert (
            list(run.model_config.modalities) == list(run.config()["model"]["modalities"]) == ["mnist", "svhn", "text"]
        )
        assert run.training.precision == "bfloat16"
        assert run.config()["training"].get("missing", 0) == (0.5 if run.reading.endswith("=0.5") else 0)
    assert PROFILES["text"].training == PROFILES["epoch"].training
    assert "text" not in Run("epoch", BEST, (0,)).model_config.modalities
    assert "missing" not in Run("epoch", BEST, (0,)).config()["training"]
    with pytest.raises(
        ValueError, match=r"mopoe cannot train with missing modalities, as 'mopoe\+training.missing=0.5'"
    ):
        Run("text", "mopoe+training.missing=0.5", (0,))


def test_the_queue_has_the_runs_with_text_after_the_epochs(monkeypatch):
    monkeypatch.setattr(queue, "_found", lambda: ["printed", BEST])
    monkeypatch.setattr(queue, "plan", lambda name, readings=(), *_, **__: [(name, each) for each in readings])
    found = queue.runs()
    assert found[-6:] == [*(("text", name) for name in WITH_TEXT), ("published", "dmvae")]
    assert "text" not in {name for name, _ in found[:-6]}
    monkeypatch.setattr(queue, "_found", list)  # the hunt goes on
    assert queue.runs()[-3:-1] == [("text", "mvae"), ("text", "mopoe")]


def test_data_judges_and_metrics_of_a_profile_with_text(monkeypatch, tmp_path):
    monkeypatch.setattr("qmvae_study.runs.prepare_oracles", lambda *_, **__: {"mnist": 1, "svhn": 2})
    data = data_for("text-smoke")
    assert data.identity["kind"] == "stand-in"
    assert list(data.train) == ["mnist", "svhn", "text"]
    assert isinstance(oracles_for("text-smoke", data, tmp_path)["text"], text.TextJudge)
    assert {"generation_by_subset", "probe_by_subset"} <= metrics_of({}, "text-smoke").keys()
    assert "text" not in data_for("smoke").train
    assert "generation_by_subset" not in metrics_of({}, "smoke")


@pytest.mark.parametrize("name", [BEST, "mopoe"])
def test_triples_hold_what_is_given_and_generate_the_rest(tmp_path, name):
    data = text.with_text(standin_digits())
    few = {n: d.select(slice(300)) for n, d in data.test.items()}
    model = build_model(text.with_text_modality(reading(f"{name}+svhn.widths=[4,4,4]"))).eval()
    of = Context(model, {}, few, {"mnist": Reader(), "svhn": Reader(), "text": text.TextJudge()})
    panels = make_panels(of, tmp_path, "run")
    assert set(panels["cross_generation"]) == {"mnist->svhn", "svhn->mnist"}
    assert list(panels["triples"]) == [
        "mnist", "svhn", "text", "mnist+svhn", "mnist+text", "svhn+text", "prior",
    ]  # fmt: skip
    record = Record({"id": "run", "panels": panels})
    for given in panels["triples"]:
        panel = record.panel("triples", given)
        images = panel_images(panel, tmp_path)
        assert images["mnist"].shape == (1, 10, 1, 28, 28)
        assert images["svhn"].shape == (1, 10, 3, 32, 32)
        assert len(panel.texts) == len(panel.digits) == 10
        assert np.shape(panel.read) == (3, 10)
        if given != "prior":
            assert list(panel.digits) == list(range(10))
        if "text" in given.split("+"):
            assert [word.strip() for word in panel.texts] == list(text.NAMES)
            assert list(panel.read[2]) == list(range(10))
        if "mnist" in given.split("+"):
            firsts = [int((few["mnist"].labels == digit).nonzero()[0]) for digit in range(10)]
            assert np.array_equal(images["mnist"][0], few["mnist"].images[firsts].numpy())
    with pytest.raises(Exception, match=re.escape("has no panel triples, mnist+svhn+text")):
        record.panel("triples", "mnist+svhn+text")
    two = dataclasses.replace(of, judged={n: few[n] for n in ("mnist", "svhn")})
    assert "triples" not in make_panels(two, tmp_path, "two")


class Stub(Reader):
    """Stands for a trained judge."""

    sha256 = "a hash"

    def features(self, values):
        return values.flatten(1)


def test_a_smoke_run_ends_in_the_tables_and_pictures_of_its_page(tmp_path):
    whole = text.with_text(standin_digits())
    parts = ({n: d.select(slice(400)) for n, d in split.items()} for split in (whole.train, whole.test))
    data = DigitData(*parts, whole.identity)
    judges = {"mnist": Stub(), "svhn": Stub(), "text": text.TextJudge()}
    small = f"{BEST}+mnist.widths=[8]+svhn.widths=[4,4,4]"
    for name in (small, f"{small}+training.missing=0.5"):
        run = Run("text-smoke", name, (0,))
        (record,) = judge(run, train(run, data, tmp_path, progress="none", oracles=judges), data, judges, tmp_path)
        assert record.setting("training").get("missing") == (0.5 if "missing" in name else None)
        assert record["judges"] == {"mnist": "a hash", "svhn": "a hash"}
    page = three.open({"evidence": str(tmp_path)})
    assert len(page.records) == 2
    assert three.own(page.records) == small
    for table, count in ((three.generation(page.records), 10), (three.probes(page.records), 7)):
        assert (table != "not run yet").all().tolist() == [True, False, False, False, True]
        assert len(table) == count
    assert three.answer(page.records).startswith("2 of 15 runs are done; not run yet: ")
    assert three.findings(page.records)["missing-costs"].why == "for want of runs on real data"
    for given in ("prior", "text", "mnist+svhn"):
        assert "ten triples" in three.triples(page, small, given).alt
