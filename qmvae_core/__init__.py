"""Q-MVAE, a multimodal variational auto-encoder with a quadruplet metric loss: model, losses, training and judging.

Read the modules in this order: gaussians, kernels, networks, losses, negatives, models, data, training, plateau,
oracles, diagnosis, evaluation, records, paper, tables, claims, figures, hunt, study, queue, cluster.
"""

__version__ = "0.1.0"
