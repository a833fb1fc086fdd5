"""Changes of a model that its equations do not have, each asked for by a field of the config."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from qmvae_core.draws import NoiseSpec
from qmvae_core.losses import LossTerms
from qmvae_core.models.qmvae import QMVAE


class CrossReconstruction(QMVAE):
    """Q-MVAE with one more term: γ Σ_m ln p(x_m | z of each other modality's own posterior, h_m), γ its weight.

    It asks directly for what Table 1 measures. Raises like QMVAE.
    """

    takes_missing = False

    def noise_spec(self, batch: int) -> dict[str, NoiseSpec]:
        """The draws of Q-MVAE, and private codes for the reconstructions from each other modality."""
        others = len(self.config.modalities) - 1
        crossed = {
            f"{name}/crossed": NoiseSpec("normal", (others, batch, m.private))
            for name, m in self.config.modalities.items()
        }
        return super().noise_spec(batch) | crossed

    def loss(self, images: Mapping[str, Tensor], labels: Tensor, noise: Mapping[str, Tensor]) -> LossTerms:
        """Q-MVAE's objective and the term "cross_reconstruction", which stands there without its weight."""
        found = super().loss(images, labels, noise)
        posteriors = {name: self.posteriors(name, images[name]) for name in self.config.modalities}
        codes = {name: both.shared.sample(noise[f"{name}/shared"]) for name, both in posteriors.items()}
        crossed = 0.0
        for name, both in posteriors.items():
            others = torch.stack([code for other, code in codes.items() if other != name])
            styles = both.private.sample(noise[f"{name}/crossed"])
            crossed = crossed + self.log_likelihood(name, images[name], others, styles).sum(dim=0)
        terms = {**found.terms, "cross_reconstruction": crossed}
        return LossTerms(found.objective + self.config.cross_reconstruction * crossed, terms)


ABLATIONS = {"cross_reconstruction": CrossReconstruction}  # field of a config -> the model where it is not zero
