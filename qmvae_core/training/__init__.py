"""Training: `fit`, its three forms of one step, its checkpoints and its report.

Every draw is a pure function of (seed, epoch, chunk), never of a generator's history. So a killed run resumes to the
same bits, and several seeds trained together see the very draws that each would see alone.

Read the modules in this order: config, learners, batches, checkpoint, progress, loop.
"""

from qmvae_core.stops import CheckpointError, NonFiniteLoss, OutOfTime
from qmvae_core.training.checkpoint import run_key
from qmvae_core.training.config import PRECISIONS, TrainingConfig, check_precision
from qmvae_core.training.learners import LOOPS
from qmvae_core.training.loop import Trained, fit

__all__ = [
    "LOOPS", "PRECISIONS", "CheckpointError", "NonFiniteLoss", "OutOfTime", "Trained", "TrainingConfig",
    "check_precision", "fit", "run_key",
]  # fmt: skip
