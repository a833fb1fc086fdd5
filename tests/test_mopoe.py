"""MoPoE against plain loops; against the package `multivae`: test_multivae."""

import itertools

import naive
import pytest
from model_cases import LABELS, THREE, TWO, build, random_images, random_noise

from qmvae_core.models import reading


@pytest.mark.parametrize(
    ("names", "places"),
    [(TWO, [0, 0, 1, 1, 2, 2, 2, 2]), (THREE, [0, 1, 2, 3, 4, 5, 6, 6]), (TWO, [0, 1, 2]), (TWO, [2, 2]), (THREE, [6])],
)
def test_loss_of_a_tiny_batch_sample_by_sample(shared_only_config, names, places):
    """places: the subset from which each sample of the batch draws its code."""
    model, batch = build(shared_only_config("mopoe", *names, beta=2.5)), len(places)
    images, noise = random_images(model.config, batch), random_noise(model, batch)
    experts = {name: model.common_encoders[name](images[name]) for name in names}
    subsets = [subset for size in range(len(names)) for subset in itertools.combinations(names, size + 1)]
    labels = [f"kl/{'+'.join(subset)}" for subset in subsets[:-1]] + ["kl/joint"]
    expected = []
    for i, place in enumerate(places):
        posteriors = [naive.product([experts[n] for n in subset], i, subset == subsets[-1]) for subset in subsets]
        code = naive.sample(posteriors[place], noise["joint/shared"][i])
        likelihoods = {f"log_likelihood/{n}": naive.likelihood(model, n, code, images[n][i]) for n in names}
        divergences = list(map(naive.kl, posteriors))
        objective = sum(likelihoods.values()) - 2.5 * sum(divergences) / len(divergences)
        expected.append({**dict(zip(labels, divergences, strict=True)), **likelihoods, "objective": objective})
    naive.assert_terms(model.loss(images, LABELS.repeat(2)[:batch], noise), expected)


def test_the_weight_of_the_divergences_is_one_unless_it_is_given():
    assert (reading("mopoe").beta, reading("mopoe+beta=2.5").beta) == (1.0, 2.5)
