"""Evaluate: the exported graph, under the engine that serves, on the test rows that nothing else has seen."""

from boatyard.evaluation.evaluate import (
    BATCH_ROWS,
    THUMBNAIL,
    Answered,
    batch_size,
    evaluate,
    histogram,
    losses,
    measure,
    picture,
    understand,
)

__all__ = [
    "BATCH_ROWS",
    "THUMBNAIL",
    "Answered",
    "batch_size",
    "evaluate",
    "histogram",
    "losses",
    "measure",
    "picture",
    "understand",
]
