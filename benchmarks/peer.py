"""Models of the package `multivae` around copies of our networks: timed beside ours, and compared in the tests."""

from __future__ import annotations

import copy

from qmvae_core.models import MultimodalVAE


def copied(model: MultimodalVAE, single=None, **choices):
    """The package's model of our model's name, with its weights, sizes and likelihoods; choices: of its config.

    single: encoders of single modalities, where the model has none. The joint encoder, if it has one, is copied too.
    """
    from multivae import models  # here, because this import takes seconds
    from multivae.models.base import BaseDecoder, BaseEncoder, ModelOutput
    from multivae.models.nn import BaseJointEncoder

    class Encoding:
        def __init__(self, network):
            super().__init__()
            self.network, self.latent_dim = copy.deepcopy(network), model.config.shared

        def forward(self, images):
            posterior = self.network(images)
            return ModelOutput(embedding=posterior.mean, log_covariance=posterior.log_var)

    class Encoder(Encoding, BaseEncoder):
        pass

    class Joint(Encoding, BaseJointEncoder):
        pass

    class Decoder(BaseDecoder):
        def __init__(self, network, of_logits):
            super().__init__()
            self.network, self.of_logits = copy.deepcopy(network), of_logits

        def forward(self, codes):
            logits = self.network(codes)
            return ModelOutput(reconstruction=logits if self.of_logits else logits.sigmoid())

    modalities, name = model.config.modalities, type(model).__name__
    config = getattr(models, f"{name}Config")(
        n_modalities=len(modalities),
        latent_dim=model.config.shared,
        input_dims={name: m.shape for name, m in modalities.items()},
        uses_likelihood_rescaling=True,
        rescale_factors={name: m.weight for name, m in modalities.items()},
        decoders_dist={name: m.likelihood for name, m in modalities.items()},
        decoder_dist_params={name: {"scale": m.scale} for name, m in modalities.items()},
        **choices,
    )
    encoders = {name: Encoder((single or model.common_encoders)[name]) for name in modalities}
    decoders = {name: Decoder(model.decoders[name], m.likelihood == "bernoulli") for name, m in modalities.items()}
    joint = [Joint(model.joint_encoder)] if hasattr(model, "joint_encoder") else []
    return getattr(models, name)(config, encoders, decoders, *joint)
