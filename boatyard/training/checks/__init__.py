"""What is checked of a recipe before it is trained, and again of its trained model before it is written.

    trial → outputs → learning → pairing → metrics → branches → row_independence → graph

One rule a module, the same for `boatyard check`, the start of training, the end of it and `recipes.conformance`. All of
it runs on a handful of rows and a model of its own, which is thrown away.
"""

from boatyard.training.checks.checking import check, check_trained
from boatyard.training.checks.graph import exported, graph_of, located
from boatyard.training.checks.outputs import check_on
from boatyard.training.checks.trial import Trial, features_of, loss_of, model_of, trial_of

__all__ = [
    "Trial",
    "check",
    "check_on",
    "check_trained",
    "exported",
    "features_of",
    "graph_of",
    "located",
    "loss_of",
    "model_of",
    "trial_of",
]
