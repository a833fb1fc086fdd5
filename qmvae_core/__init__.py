"""Q-MVAE, a multimodal variational auto-encoder with a quadruplet metric loss: model, losses, training, evaluation.

None of it knows of a record, a paper or a notebook: those are `qmvae_study`'s.

Four storeys, each of which knows those before it. Read the modules in this order: names, files, stops, gaussians,
likelihoods, draws, kernels, networks, losses, negatives; models; data, training; evaluation.
"""

__version__ = "0.1.0"
