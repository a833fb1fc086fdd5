"""What is seen of codes while a training begins: the numbers are those of the codes, and the record has them."""

import pytest
import torch

from benchmarks import plateau
from qmvae_core.models import build_model
from qmvae_core.training import Trained
from qmvae_study.evidence.records import read_record


def test_what_is_seen_is_of_the_codes(small_config, small_digits):
    model, few = build_model(small_config()), small_digits()
    found = plateau.seen(model, few)
    means = {name: model.encode_shared({name: digits.batch()}).mean.detach() for name, digits in few.items()}
    assert found["apart"] == pytest.approx(torch.dist(*(each.mean(dim=0) for each in means.values())).item())
    for name, each in means.items():
        assert found[f"known/{name}"] == pytest.approx(plateau.known(each, few[name].labels))
        assert found[f"spread/{name}"] == pytest.approx(
            (each - each.mean(dim=0)).square().sum(dim=1).mean().sqrt().item()
        )
    assert len(found) == 5


def test_a_training_is_looked_at_as_often_as_is_said(small_config, small_digits, monkeypatch):
    monkeypatch.setattr(plateau, "reading", lambda name: small_config())
    found = plateau.watched("any", small_digits(per_digit=60), seeds=(0, 1), steps=6, every=2)
    assert [len(history) for history in found.histories] == [3, 3]
    for model, history in zip(found.models, found.histories, strict=True):
        last = plateau.seen(model.eval(), small_digits(per_digit=60))
        assert {name: history[-1][name] for name in last} == pytest.approx(last)
        assert "quadruplet" in history[0]
    assert found.histories[0] != found.histories[1]
    assert len(found.left) == 2


def test_the_record_has_every_reading_and_who_made_it(tmp_path, monkeypatch, capsys):
    asked = []

    def watched(name, train, steps, every):
        asked.append((name, steps, every, sorted(train)))
        return Trained([], [[{"quadruplet": 4.8}]], {}, [None], [])

    monkeypatch.setattr(plateau, "watched", watched)
    given = ["--data-root", "stand-in", "--steps", "4", "--every", "2", "--out", str(tmp_path)]
    assert plateau.main(given) == 0
    assert asked == [(name, 4, 2, ["mnist", "svhn"]) for name in plateau.READINGS]
    record = read_record(tmp_path / "plateau.json")
    assert list(record["runs"]) == sorted(plateau.READINGS)
    assert record["runs"]["unscreened"] == {"histories": [[{"quadruplet": 4.8}]], "left": [None]}
    assert (record["steps"], record["every"], record["seeds"]) == (4, 2, [0, 1, 2])
    assert record["data"]["kind"] == "stand-in"
    assert record["provenance"]["device_type"] == "cpu"
    assert "unscreened: left by [None]" in capsys.readouterr().out
