"""Q-MVAE, a multimodal variational auto-encoder with a quadruplet metric loss: model, losses, training and judging.

Read the modules in this order: gaussians, networks, losses, negatives, models, data, oracles, training, diagnosis,
evaluation, records, paper, figures, study, cluster. Each imports only those before it.
"""

__version__ = "0.1.0"
