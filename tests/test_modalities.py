"""What a builder brings: a third modality of another shape, labels, a likelihood of one's own, or one modality alone.

Each is a config, and for the likelihood one class; nothing else is changed.
"""

import dataclasses

import pytest
import torch
from model_cases import SMALL
from test_evaluation import Judge
from torch.nn.functional import one_hot

from qmvae_core.data import Digits
from qmvae_core.evaluation import METRICS, Context, evaluate, one_round, share
from qmvae_core.kernels import bfloat16_here
from qmvae_core.likelihoods import LIKELIHOODS, Likelihood
from qmvae_core.models import TEST_CODES, ModalityConfig, build_model
from qmvae_core.training import LOOPS, TrainingConfig, fit
from qmvae_study import diagnosis, subsets
from qmvae_study.oracles import DigitClassifier, OracleConfig

TRAINING = TrainingConfig(epochs=2, steps_per_epoch=3, batch_size=12, chunk=2)
LABEL = ModalityConfig((10,), "dense", (6,), private=2, likelihood="categorical")
TEXT = ModalityConfig((4, 10), "sequence", (6, 5), private=2, likelihood="categorical")
WIDE = ModalityConfig((2, 8, 12), "dense", (5,), private=3, likelihood="normal", scale=0.3)


class Ordinal(Likelihood):
    """Squared distance of cumulative probabilities: enough to be told from the others."""

    def log_prob(self, logits, x):
        return -self._sum((logits.softmax(dim=-1).cumsum(dim=-1) - x.cumsum(dim=-1)).square())

    def mean(self, logits):
        return logits.softmax(dim=-1)


class Reader(Judge):
    """A judge of any values: the place of the largest."""

    def predict(self, values):
        return values.flatten(1).argmax(dim=-1) % 10


@pytest.fixture
def bring(small_config, small_digits):
    """A function that adds a modality to a small config and to its data."""

    def add(modality: ModalityConfig, model: str = "qmvae"):
        if not small_config("ink", model=model, **SMALL[model]).modalities["ink"].private:
            modality = dataclasses.replace(modality, private=0)
        config = small_config("ink", "photo", model=model, **SMALL[model])
        data = small_digits()
        labels = data["ink"].labels
        if modality.likelihood in ("categorical", "ordinal"):
            images = 255 * one_hot(labels, 10).to(torch.uint8)
            images = images.view(-1, *[1] * (len(modality.shape) - 1), 10).expand(-1, *modality.shape).contiguous()
        else:
            images = torch.randint(0, 256, (len(labels), *modality.shape), dtype=torch.uint8)
        return (
            dataclasses.replace(config, modalities={**config.modalities, "mine": modality}),
            {**data, "mine": Digits(images, labels)},
        )

    return add


@pytest.mark.parametrize("loop", [*LOOPS, "bfloat16"])
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("modality", [LABEL, TEXT], ids=["label", "text"])
def test_every_model_trains_on_labels_and_text_in_every_loop(bring, name, loop, modality):
    config, data = bring(modality, name)
    if loop == "bfloat16":
        if not bfloat16_here():
            pytest.skip("this processor does not multiply in bfloat16")
        trained = fit(config, dataclasses.replace(TRAINING, precision=loop), data, (0,), progress="none")
    else:
        trained = fit(config, TRAINING, data, (0,), loop=loop, progress="none")
    start = build_model(config, 0).state_dict()
    after = trained.models[0].state_dict()
    assert all(bool(value.isfinite().all()) for value in after.values())
    assert not torch.equal(start["decoders.mine.0.weight"], after["decoders.mine.0.weight"])
    made = trained.models[0].generate(5)["mine"]
    assert made.shape == (5, *modality.shape)
    torch.testing.assert_close(made.sum(dim=-1), torch.ones(made.shape[:-1]))


@pytest.mark.parametrize("modality", [LABEL, WIDE], ids=["label", "wide"])
def test_a_third_modality_is_evaluated_like_the_others(bring, modality):
    config, data = bring(modality)
    model = fit(config, TRAINING, data, (0,), progress="none").models[0]
    judges = dict.fromkeys(data, Reader())
    if modality is WIDE:
        judges["mine"] = DigitClassifier("mine", OracleConfig(epochs=1, channels=2), modality.shape)
    found = evaluate(model, data, data, judges, metrics=diagnosis.METRICS)
    assert len(found["cross_generation"]) == 6
    assert found["probe"].keys() == {*data, "joint"}
    assert len(found["private_information"]["mine"]["nats"]) == modality.private


@pytest.mark.parametrize("name", ["qmvae", "mvae", "mopoe", "jmvae"])
def test_every_subset_is_generated_from_and_probed_as_by_hand(bring, name):
    """Subsets of one give what the metrics of single modalities give, whichever way they are computed."""
    config, data = bring(TEXT, name)
    model = build_model(config, 0)
    of = Context(model.eval(), data, data, dict.fromkeys(data, Reader()))
    single, found = METRICS["cross_generation"](of), subsets.METRICS["generation_by_subset"](of)
    assert found.keys() - single.keys() == {"ink+photo->mine", "ink+mine->photo", "photo+mine->ink"}
    assert single == {name: found[name] for name in single}
    rows, digits = one_round(data, 0)
    for direction, by_code in found.items():
        names, target = direction.split("->")[0].split("+"), direction.split("->")[1]
        alone = len(names) == 1
        images = {n: data[n].batch() if alone else data[n].batch(rows[n]) for n in names}
        truth = data[names[0]].labels if alone else torch.from_numpy(digits)
        for code in TEST_CODES:
            draws = of.generator("cross", direction, code)
            with torch.no_grad():
                z, styles = model.encode_shared(images), config.modalities[target].private
                z = z.mean if code == "mean" else z.sample(torch.randn(z.mean.shape, generator=draws))
                made = model.decode(target, z, torch.randn(len(z), styles, generator=draws))
            assert by_code[code] == share(Reader().predict(made) == truth), (direction, code)
    probed, before = subsets.METRICS["probe_by_subset"](of), METRICS["probe"](of)
    assert probed.keys() == {*before, "ink+photo", "ink+mine", "photo+mine"}
    assert before == {name: probed[name] for name in before}
    codes = model.encode_shared({n: data[n].batch(rows[n]) for n in ("ink", "mine")}).mean.detach().numpy()
    assert probed["ink+mine"] == share(of.probe.predict(codes) == digits)


def test_a_model_without_joint_codes_has_single_conditions_alone(bring):
    config, data = bring(TEXT, "mmvae")
    of = Context(build_model(config).eval(), data, data, dict.fromkeys(data, Reader()))
    assert subsets.METRICS["generation_by_subset"](of) == METRICS["cross_generation"](of)
    assert subsets.METRICS["probe_by_subset"](of) == METRICS["probe"](of)


def test_judges_that_see_no_digit_do_not_agree(bring):
    class Blind(Reader):
        def predict(self, values):
            return torch.full((len(values),), -1)

    config, data = bring(TEXT)
    of = Context(build_model(config).eval(), data, data, dict.fromkeys(data, Blind()))
    assert METRICS["joint_coherence"](of)["accuracy"] == 0


def test_a_likelihood_of_ones_own_is_one_class_and_its_name(bring, monkeypatch):
    monkeypatch.setitem(LIKELIHOODS, "ordinal", Ordinal)
    config, data = bring(dataclasses.replace(LABEL, likelihood="ordinal"))
    trained = fit(config, TRAINING, data, (0,), progress="none").models[0]
    assert isinstance(trained.likelihoods["mine"], Ordinal)
    assert trained.generate(2)["mine"].shape == (2, 10)


@pytest.mark.parametrize("name", SMALL)
def test_every_model_trains_on_one_modality_alone(small_config, small_digits, name):
    config = small_config("ink", model=name, **SMALL[name], **({"beta": 0.0} if name == "qmvae" else {}))
    trained = fit(config, TRAINING, {"ink": small_digits()["ink"]}, (0, 1), progress="none")
    assert all(value == value for value in trained.histories[0][-1].values())
    assert trained.models[1].generate(3)["ink"].shape == (3, *config.modalities["ink"].shape)


def test_convolutions_of_what_is_no_image_are_refused(small_config):
    config = small_config("ink", "photo")
    label = dataclasses.replace(LABEL, network="convolutional")
    with pytest.raises(ValueError, match=r"modality 'mine': convolutions need images .*dense"):
        build_model(dataclasses.replace(config, modalities={**config.modalities, "mine": label}))
