"""Training: a dataset in, a checkpoint out that ends with the executable graph.

What a checkpoint is: `boatyard.data.checkpoints`.
"""

from __future__ import annotations

from pathlib import Path

from boatyard.data.checkpoints import Training
from boatyard.data.datasets import Dataset
from boatyard.project import PreprocessConfig, TrainConfig


def train(
    config: TrainConfig,
    how: PreprocessConfig,
    dataset: Dataset,
    out: Path,
    *,
    seal: str,
    root: Path,
    work: Path | None = None,
) -> Training:
    """Train a recipe on a dataset and write the checkpoint of its best epoch, whole or not at all.

    `seal` is the digest of the gate's rules, written down before the first step. `root` is the folder that own
    recipes are imported from. `work` outlives a killed run: the next call goes on from what it holds, and ends with
    the same weights, bit for bit, as a run that was never interrupted. Raises ConfigError for what cannot be trained
    (NaN loss included), DataError, StorageError on a full disk, Interrupted after a signal.
    """
    from boatyard.training.loop import run  # torch takes seconds to import: reading a checkpoint does not need it

    return run(config, how, dataset, out, seal=seal, root=root, work=work)
