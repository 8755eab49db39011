"""Training: a dataset in, a checkpoint out that ends with the executable graph."""

from boatyard.data.checkpoints import GRAPH, KIND, METRICS, RECORD, SCHEMA, TENSORBOARD, WEIGHTS, Training
from boatyard.training.train import train

ABOUT = RECORD  # its former name

__all__ = ["ABOUT", "GRAPH", "KIND", "METRICS", "RECORD", "SCHEMA", "TENSORBOARD", "WEIGHTS", "Training", "train"]
