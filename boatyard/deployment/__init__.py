"""Deploy: a package becomes an endpoint. Rendered by a pure function, planned, rolled out, proven, and taken back.

`rendering` makes the objects, plain YAML that `kubectl apply` takes without us; `planning` says what would change and
why; `rollouts` changes it, under a lease, and goes back when the new version does not serve; `proving` asks the golden
examples through the Service; `endpoints` says how it is.
"""

from boatyard.deployment.endpoints import Endpoint, logs, status
from boatyard.deployment.planning import Change, plan
from boatyard.deployment.proving import Proof, proof
from boatyard.deployment.rendering import dump, manifests, render, runtime, service
from boatyard.deployment.rollouts import Deployed, delete, deploy, rollback
from boatyard.deployment.uses import endpoints_on

__all__ = [
    "Change",
    "Deployed",
    "Endpoint",
    "Proof",
    "delete",
    "deploy",
    "dump",
    "endpoints_on",
    "logs",
    "manifests",
    "plan",
    "proof",
    "render",
    "rollback",
    "runtime",
    "service",
    "status",
]
