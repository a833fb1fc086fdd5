"""MVAE against its objective sample by sample; against the package `multivae`: test_multivae."""

import naive
import pytest
from model_cases import LABELS, THREE, TWO, build, random_images, random_noise


@pytest.mark.parametrize("names", [TWO, THREE])
def test_loss_of_a_tiny_batch_sample_by_sample(shared_only_config, names):
    model = build(shared_only_config("mvae", *names))
    images, noise = random_images(model.config, 2), random_noise(model, 2)
    experts = {name: model.common_encoders[name](images[name]) for name in names}

    def bound(members, draw: str, i: int) -> tuple[float, float]:
        """Σ_m w_m ln p(x_m|z) - KL and the KL, for z ~ q(z | the members of sample i)."""
        posterior = naive.product([experts[name] for name in members], i, prior=True)
        code = naive.sample(posterior, noise[f"{draw}/shared"][i])
        kl = naive.kl(posterior)
        return sum(naive.likelihood(model, name, code, images[name][i]) for name in members) - kl, kl

    expected = []
    for i in range(2):
        joint, kl = bound(names, "joint", i)
        alone = {f"elbo/{name}": bound([name], name, i)[0] for name in names}
        expected.append({"elbo/joint": joint, "kl/joint": kl, **alone, "objective": joint + sum(alone.values())})
    naive.assert_terms(model.loss(images, LABELS[:2], noise), expected)
