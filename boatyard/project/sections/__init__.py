"""The sections of the project file, a module a stage: few settings; what is not given is derived and printed.

A section is what its stage's function and its component take: nothing else reaches them.
"""

from boatyard.project.sections.data import DataConfig
from boatyard.project.sections.gate import EvaluateConfig, GateConfig, NotWorseConfig
from boatyard.project.sections.pods import GpuConfig, KubeflowConfig, ResourcesConfig, StepConfig, TolerationConfig
from boatyard.project.sections.preprocess import AugmentConfig, PreprocessConfig, SplitConfig
from boatyard.project.sections.push import PushConfig
from boatyard.project.sections.serve import AutoscalingConfig, ServeConfig
from boatyard.project.sections.train import OPTIMIZERS, TrainConfig

__all__ = [
    "OPTIMIZERS",
    "AugmentConfig",
    "AutoscalingConfig",
    "DataConfig",
    "EvaluateConfig",
    "GateConfig",
    "GpuConfig",
    "KubeflowConfig",
    "NotWorseConfig",
    "PreprocessConfig",
    "PushConfig",
    "ResourcesConfig",
    "ServeConfig",
    "SplitConfig",
    "StepConfig",
    "TolerationConfig",
    "TrainConfig",
]
