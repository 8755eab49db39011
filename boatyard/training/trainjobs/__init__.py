"""A training on a cluster: what its pods are asked to do, the object, what passes through storage, how it is watched.

The pods run `boatyard.training.node` of the image, under the ClusterTrainingRuntime `boatyard` of the manifests, which
decides how failures are taken; nothing of the function's source is sent. Dataset and checkpoint pass through a folder
that pods and caller both reach (a claim that is mounted here as well, or a bucket); states stay on the claim, so that
a run that was stopped in any way goes on.
"""

from boatyard.training.trainjobs.exchange import bring, put
from boatyard.training.trainjobs.following import TrainJobFollower, follow
from boatyard.training.trainjobs.job import TrainingJob, name_of, pod_of
from boatyard.training.trainjobs.manifest import CLAIMS, INDEX_LABEL, PODS_LABEL, manifest
from boatyard.training.trainjobs.readiness import check

__all__ = [
    "CLAIMS",
    "INDEX_LABEL",
    "PODS_LABEL",
    "TrainJobFollower",
    "TrainingJob",
    "bring",
    "check",
    "follow",
    "manifest",
    "name_of",
    "pod_of",
    "put",
]
