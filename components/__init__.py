"""One KFP component a file: a signature and one call into the library; no step runs pip, the image has it all.

Those a pipeline is made of are here by name, for pipelines that others write: docs/pipelines.md. All are imported at
once: a module that is imported later would take the place of the component that it is named after.
"""

from boatyard.components.deploy import deploy
from boatyard.components.evaluate import evaluate
from boatyard.components.gate import gate
from boatyard.components.preprocess import preprocess
from boatyard.components.push import push
from boatyard.components.train import train
from boatyard.components.verdict import verdict

__all__ = ["deploy", "evaluate", "gate", "preprocess", "push", "train", "verdict"]
