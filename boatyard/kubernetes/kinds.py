"""The kinds of objects that Boatyard reads or makes, and where the API server has them."""

from __future__ import annotations

from urllib.parse import quote

from boatyard.errors import ConfigError

KUBEFLOW = "kubeflow"  # the namespace that Kubeflow runs pipelines in unless it has profiles
RUN_LABEL = "boatyard/run"  # of a TrainJob: the run on Kubeflow whose step follows it
# kind → apiVersion, plural; those of CLUSTER_SCOPED have no namespace
KINDS = {
    "APIService": ("apiregistration.k8s.io/v1", "apiservices"),
    "ClusterRole": ("rbac.authorization.k8s.io/v1", "clusterroles"),
    "ClusterRoleBinding": ("rbac.authorization.k8s.io/v1", "clusterrolebindings"),
    "ClusterServingRuntime": ("serving.kserve.io/v1alpha1", "clusterservingruntimes"),
    "ClusterStorageContainer": ("serving.kserve.io/v1alpha1", "clusterstoragecontainers"),
    "ClusterTrainingRuntime": ("trainer.kubeflow.org/v1alpha1", "clustertrainingruntimes"),
    "ConfigMap": ("v1", "configmaps"),
    "CustomResourceDefinition": ("apiextensions.k8s.io/v1", "customresourcedefinitions"),
    "Deployment": ("apps/v1", "deployments"),
    "EndpointSlice": ("discovery.k8s.io/v1", "endpointslices"),
    "Event": ("v1", "events"),
    "HTTPRoute": ("gateway.networking.k8s.io/v1", "httproutes"),
    "HorizontalPodAutoscaler": ("autoscaling/v2", "horizontalpodautoscalers"),
    "InferenceService": ("serving.kserve.io/v1beta1", "inferenceservices"),
    "Job": ("batch/v1", "jobs"),
    "JobSet": ("jobset.x-k8s.io/v1alpha2", "jobsets"),
    "KnativeRevision": ("serving.knative.dev/v1", "revisions"),
    "KnativeService": ("serving.knative.dev/v1", "services"),
    "Lease": ("coordination.k8s.io/v1", "leases"),
    "LimitRange": ("v1", "limitranges"),
    "MutatingWebhookConfiguration": ("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations"),
    "Namespace": ("v1", "namespaces"),
    "NetworkPolicy": ("networking.k8s.io/v1", "networkpolicies"),
    "Node": ("v1", "nodes"),
    "NodeMetrics": ("metrics.k8s.io/v1beta1", "nodes"),
    "PersistentVolume": ("v1", "persistentvolumes"),
    "PersistentVolumeClaim": ("v1", "persistentvolumeclaims"),
    "Pod": ("v1", "pods"),
    "PodDisruptionBudget": ("policy/v1", "poddisruptionbudgets"),
    "PodMetrics": ("metrics.k8s.io/v1beta1", "pods"),
    "PodMonitor": ("monitoring.coreos.com/v1", "podmonitors"),
    "ReplicaSet": ("apps/v1", "replicasets"),
    "ResourceQuota": ("v1", "resourcequotas"),
    "Role": ("rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("rbac.authorization.k8s.io/v1", "rolebindings"),
    "ScaledObject": ("keda.sh/v1alpha1", "scaledobjects"),
    "Secret": ("v1", "secrets"),
    "SelfSubjectAccessReview": ("authorization.k8s.io/v1", "selfsubjectaccessreviews"),
    "SubjectAccessReview": ("authorization.k8s.io/v1", "subjectaccessreviews"),
    "Service": ("v1", "services"),
    "ServiceAccount": ("v1", "serviceaccounts"),
    "ServingRuntime": ("serving.kserve.io/v1alpha1", "servingruntimes"),
    "StatefulSet": ("apps/v1", "statefulsets"),
    "StorageClass": ("storage.k8s.io/v1", "storageclasses"),
    "TrainJob": ("trainer.kubeflow.org/v1alpha1", "trainjobs"),
    "TrainingRuntime": ("trainer.kubeflow.org/v1alpha1", "trainingruntimes"),
    "ValidatingWebhookConfiguration": ("admissionregistration.k8s.io/v1", "validatingwebhookconfigurations"),
    "Workflow": ("argoproj.io/v1alpha1", "workflows"),
}
CLUSTER_SCOPED = (
    *("APIService", "ClusterRole", "ClusterRoleBinding", "ClusterServingRuntime", "ClusterStorageContainer"),
    *("ClusterTrainingRuntime", "CustomResourceDefinition", "MutatingWebhookConfiguration", "Namespace", "Node"),
    *("NodeMetrics", "PersistentVolume", "SelfSubjectAccessReview", "StorageClass", "SubjectAccessReview"),
    "ValidatingWebhookConfiguration",
)


def known(kind: str) -> tuple[str, str]:
    """Return a kind's apiVersion and plural; raises ConfigError for one that is not of these."""
    if kind not in KINDS:
        raise ConfigError(f"no kind {kind} is known here", fix=f"known are {', '.join(sorted(KINDS))}")
    return KINDS[kind]


def path(api: str, plural: str, namespace: str | None, name: str) -> str:
    """Return the path of a collection, or of the object `name` in it; the namespace "*" stands for all."""
    start = f"/api/{api}" if "/" not in api else f"/apis/{api}"
    space = f"/namespaces/{quote(namespace, safe='')}" if namespace and namespace != "*" else ""
    return f"{start}{space}/{plural}" + (f"/{quote(name, safe=':')}" if name else "")
