"""The checks in their order: what the later ones stand on comes first."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch

from boatyard.data.schema import Batch
from boatyard.recipes import Recipe
from boatyard.training.checks.branches import check_branches
from boatyard.training.checks.graph import check_graph
from boatyard.training.checks.learning import check_learning
from boatyard.training.checks.metrics import check_metrics
from boatyard.training.checks.outputs import check_norms, check_outputs, check_state
from boatyard.training.checks.pairing import check_pairing
from boatyard.training.checks.row_independence import check_rows, check_rows_of
from boatyard.training.checks.trial import Trial, fresh

CHECKS = (
    check_norms,
    check_outputs,
    check_state,
    check_learning,
    check_pairing,
    check_metrics,
    check_branches,
    check_rows,
)


def check(recipe: Recipe, batch: Batch, *, graph: bool) -> None:
    """Try a recipe on some rows of its data; raises RecipeError, ConfigError for what the graph cannot be.

    The recipe is one of its own: what is made of it is thrown away. `graph` says whether to export, too.
    """
    with _generators_kept():
        trial = fresh(recipe, batch)
        for rule in CHECKS:
            rule(trial)
        if graph:
            check_graph(trial)


def check_trained(trial: Trial) -> None:
    """Look again at a model that has been trained: weights that began at 0 may have hidden that it mixes rows."""
    with _generators_kept():
        check_rows_of(trial, torch.arange(len(trial)))
        check_branches(trial)


@contextlib.contextmanager
def _generators_kept() -> Iterator[None]:
    """Within the block an author's code may draw at random; what comes after draws as if it had not."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
