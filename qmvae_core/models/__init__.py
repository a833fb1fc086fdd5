"""The models of the book, each a module of its own; `build_model` makes any of them from its config or its name.

Read the modules in this order: configs, base, mvae, mmvae, mopoe, jmvae, dmvae, qmvae, ablations, readings.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from qmvae_core import networks
from qmvae_core.draws import NoiseSpec, draw_noise
from qmvae_core.models.ablations import ABLATIONS
from qmvae_core.models.base import TEST_CODES, MultimodalVAE, Opponent, Posteriors
from qmvae_core.models.configs import Checked, ModalityConfig, ModelConfig, from_known_fields
from qmvae_core.models.dmvae import DMVAE, DMVAEConfig
from qmvae_core.models.jmvae import JMVAE, JMVAEConfig
from qmvae_core.models.mmvae import MMVAE, MMVAEConfig
from qmvae_core.models.mopoe import MoPoE, MoPoEConfig
from qmvae_core.models.mvae import MVAE, MVAEConfig
from qmvae_core.models.qmvae import QMVAE, QMVAEConfig
from qmvae_core.models.readings import MNIST, READINGS, SVHN, Reading, reading
from qmvae_core.names import BEST, known

__all__ = [
    "Checked", "DMVAE", "JMVAE", "MMVAE", "MNIST", "MODELS", "MVAE", "QMVAE", "READINGS", "SVHN", "TEST_CODES",
    "DMVAEConfig", "JMVAEConfig", "MMVAEConfig", "MVAEConfig", "MoPoE", "MoPoEConfig", "ModalityConfig", "ModelConfig",
    "MultimodalVAE", "NoiseSpec", "Opponent", "Posteriors", "QMVAEConfig", "build_model", "draw_noise",
    "Reading", "from_known_fields", "reading",
]  # fmt: skip

MODELS: dict[str, type[MultimodalVAE]] = {
    "qmvae": QMVAE, "mvae": MVAE, "mmvae": MMVAE, "dmvae": DMVAE, "jmvae": JMVAE, "mopoe": MoPoE,
}  # fmt: skip


def build_model(config: ModelConfig | Mapping | str, seed: int = 0) -> MultimodalVAE:
    """The model of a config, a config's dictionary, or a model's name, initialised from the seed.

    A name stands for the model's reading of that name, and "qmvae" for the best reading.

    The weights depend on config and seed alone; PyTorch's global generator is neither read nor advanced.
    Raises ValueError for an unknown model or field.
    """
    if isinstance(config, str):
        known(MODELS, "model", config)
        config = READINGS[BEST if config == "qmvae" else config]
    elif isinstance(config, Mapping):
        config = ModelConfig.from_dict(config)
    asked = [kind for field, kind in ABLATIONS.items() if getattr(config, field, 0)]
    kind = asked[0] if asked else known(MODELS, "model", config.model)
    try:
        with torch.device("meta"):
            model = kind(config)
        model = model.to_empty(device="cpu")
    except RuntimeError as error:
        raise ValueError(f"no model can be made of {config}; its sizes are too large ({error})") from None
    return networks.initialise(model, torch.Generator().manual_seed(seed))
