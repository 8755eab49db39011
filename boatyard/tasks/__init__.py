"""What is predicted: everything that depends on it is asked of a task, and nothing else branches on its name."""

from boatyard.tasks.base import TOLERANCE, Task, named, of, target_as
from boatyard.tasks.parts import Head, Output, Predictions, Problem, Worded

__all__ = ["TOLERANCE", "Head", "Output", "Predictions", "Problem", "Task", "Worded", "named", "of", "target_as"]
