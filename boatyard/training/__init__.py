"""Training: a dataset in, a checkpoint out that ends with the executable graph."""

from boatyard.training.train import ABOUT, GRAPH, KIND, METRICS, SCHEMA, TENSORBOARD, WEIGHTS, Training, train

__all__ = ["ABOUT", "GRAPH", "KIND", "METRICS", "SCHEMA", "TENSORBOARD", "WEIGHTS", "Training", "train"]
