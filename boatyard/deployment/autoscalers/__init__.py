"""Autoscalers: who adds and removes the pods of an endpoint, one class each; a plug-in may bring another.

A project names a metric and its mode; `named` derives the autoscaler of them. `serve.autoscaling.autoscaler` names one
that another distribution brings.
"""

from boatyard.deployment.autoscalers.base import CLASS_ANNOTATION, Autoscaler, Scaling, named, scaling

__all__ = ["CLASS_ANNOTATION", "Autoscaler", "Scaling", "named", "scaling"]
