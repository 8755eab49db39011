"""Launchers: who starts the processes of a training and follows them, one class each; a plug-in may bring another.

One process runs where the step does, several as a TrainJob on a cluster: `named` derives the launcher of the section.
`train.launcher` names one that another distribution brings.
"""

from boatyard.training.launchers.base import Launch, Launcher, launcher, named

__all__ = ["Launch", "Launcher", "launcher", "named"]
