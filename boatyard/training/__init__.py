"""Training: a dataset in, a checkpoint out that ends with the executable graph."""

from boatyard.data.checkpoints import CHECKPOINT_KIND, GRAPH, METRICS, RECORD, SCHEMA, TENSORBOARD, WEIGHTS, Training
from boatyard.training.train import train

ABOUT = RECORD  # its former name

__all__ = [
    "ABOUT",
    "CHECKPOINT_KIND",
    "GRAPH",
    "METRICS",
    "RECORD",
    "SCHEMA",
    "TENSORBOARD",
    "WEIGHTS",
    "Training",
    "train",
]
