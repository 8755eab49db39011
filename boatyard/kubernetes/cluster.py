"""A Kubernetes cluster: get, list, apply, watch, logs. The one module that knows the API server and its client.

Objects are plain dicts, as in YAML. Every answer that is not a success becomes one error of ours with one clear line.
Reads and applies, which may be said twice, are repeated a few times when the API server does not answer.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from boatyard.errors import ClusterError, ConfigError, Conflict, Denied, Forbidden, MissingKind, Unreachable

MANAGER = "boatyard"  # the owner of the fields that we apply
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
CONNECT, READ = 5.0, 30.0  # seconds
TRIES, PAUSE = 3, 0.5  # a restarting API server is away for about a second
BUSY = (429, 502, 503, 504)
Object = dict[str, Any]
Objects = list[Object]
T = TypeVar("T")

# kind → apiVersion, plural; those of CLUSTERWIDE have no namespace
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
CLUSTERWIDE = (
    *("APIService", "ClusterRole", "ClusterRoleBinding", "ClusterServingRuntime", "ClusterStorageContainer"),
    *("ClusterTrainingRuntime", "CustomResourceDefinition", "MutatingWebhookConfiguration", "Namespace", "Node"),
    *("NodeMetrics", "PersistentVolume", "SelfSubjectAccessReview", "StorageClass", "ValidatingWebhookConfiguration"),
)
OWNERS = {"serving.kserve.io": "KServe", "trainer.kubeflow.org": "Kubeflow Trainer", "keda.sh": "KEDA"}
OWNERS |= {"jobset.x-k8s.io": "JobSet", "serving.knative.dev": "Knative", "metrics.k8s.io": "metrics-server"}
READS = frozenset(("get", "list", "watch"))


def connect(context: str | None = None) -> Cluster:
    """Return the cluster of the kubeconfig's context, or the one that this pod runs in.

    Raises ClusterError when there is none, Unreachable when its API server does not answer.
    """
    try:
        from kubernetes import client
    except ImportError as error:
        raise ClusterError("the Kubernetes client is not installed; pip install 'boatyard[cluster]'") from error
    settings = client.Configuration()
    settings.retries = False
    namespace = _configure(settings, context)
    cluster = Cluster(client.ApiClient(settings), settings.host, namespace)
    cluster.request("GET", "/version")
    return cluster


def _configure(settings: Any, context: str | None) -> str:
    """Fill in where the API server is and who asks; return the namespace."""
    from kubernetes import config

    try:
        _, chosen = config.list_kube_config_contexts()
        if context:
            chosen = next(c for c in config.list_kube_config_contexts()[0] if c["name"] == context)
        config.load_kube_config(context=context, client_configuration=settings)
        return str(chosen["context"].get("namespace") or "default")
    except StopIteration:
        raise ClusterError(f"no context {context} in the kubeconfig; kubectl config get-contexts lists them") from None
    except (config.ConfigException, OSError, TypeError) as error:
        if ACCOUNT.is_file() and not context:
            config.load_incluster_config(client_configuration=settings)
            return ACCOUNT.read_text(encoding="utf-8").strip()
        why = " ".join(str(error).split())
        raise ClusterError(f"no cluster: {why}; set KUBECONFIG, or run this in a pod with a service account") from error


@dataclass(frozen=True)
class Cluster:
    """An API server and who asks it; `namespace` is the one that is meant when none is named."""

    client: Any = field(repr=False)
    host: str
    namespace: str

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """Return an object, or None when it is not there; raises ClusterError."""
        try:
            return self._json("GET", self.path(kind, namespace, name))
        except Absent:
            return None

    def list(
        self,
        kind: str,
        namespace: str | None = None,
        labels: Mapping[str, str] | str | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> Objects:
        """Return the objects of a kind in a namespace ("*": in all), by labels and fields; raises ClusterError."""
        wanted = {"labelSelector": _selector(labels), "fieldSelector": _selector(fields)}
        query = {key: value for key, value in wanted.items() if value}
        api, _ = _known(kind)
        found = self._json("GET", self.path(kind, namespace), query)
        return [{"apiVersion": api, "kind": kind, **each} for each in found.get("items", [])]

    def apply(self, manifest: Object, dry_run: bool = False, force: bool = False) -> Object:
        """Make an object what the manifest says by server-side apply, and return what the server made of it.

        `dry_run` changes nothing; `force` takes fields over that another owns. Raises ClusterError, Conflict.
        """
        query = {"fieldManager": MANAGER, "force": str(force).lower()} | ({"dryRun": "All"} if dry_run else {})
        return self._json("PATCH", self._of(manifest, named=True), query, manifest, "application/apply-patch+yaml")

    def create(self, manifest: Object, dry_run: bool = False) -> Object:
        """Make a new object; raises Conflict when there is one of its name."""
        query = {"fieldManager": MANAGER} | ({"dryRun": "All"} if dry_run else {})
        return self._json("POST", self._of(manifest, named=False), query, manifest)

    def patch(self, kind: str, name: str, body: Object, namespace: str | None = None) -> Object:
        """Merge a body into an object; with its metadata.resourceVersion, only if nobody changed it since: Conflict."""
        path = self.path(kind, namespace, name)
        return self._json("PATCH", path, {"fieldManager": MANAGER}, body, "application/merge-patch+json")

    def delete(self, kind: str, name: str, namespace: str | None = None) -> bool:
        """Delete an object and what it owns; return whether it was there."""
        try:
            self._json("DELETE", self.path(kind, namespace, name), body={"propagationPolicy": "Background"})
        except Absent:
            return False
        return True

    def events(self, namespace: str | None = None, kind: str | None = None, name: str | None = None) -> Objects:
        """Return the events of a namespace, or of one object in it, oldest first."""
        about = {"involvedObject.kind": kind, "involvedObject.name": name}
        found = self.list("Event", namespace, fields={key: value for key, value in about.items() if value})
        return sorted(found, key=_moment)

    def logs(
        self,
        pod: str,
        namespace: str | None = None,
        container: str | None = None,
        previous: bool = False,
        tail: int | None = None,
    ) -> str:
        """Return what a container wrote; `previous`: the one before the last restart. Raises ClusterError."""
        query = _log_query(container, previous=previous or None, tailLines=tail)
        return self.request("GET", self.path("Pod", namespace, pod) + "/log", query).decode("utf-8", "replace")

    def follow(
        self, pod: str, namespace: str | None = None, container: str | None = None, tail: int | None = None
    ) -> Iterator[str]:
        """Yield what a container writes, line by line, until it ends; raises ClusterError."""
        import urllib3

        query = _log_query(container, follow=True, tailLines=tail)
        answer = self._send("GET", self.path("Pod", namespace, pod) + "/log", query, timeout=(CONNECT, None))
        rest = b""
        try:
            for chunk in answer.stream(1 << 14):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line.decode("utf-8", "replace") for line in lines)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(f"the API server at {self.host} went away while pod/{pod} was followed") from error
        finally:
            answer.close()
        if rest:
            yield rest.decode("utf-8", "replace")

    def poll(self, look: Callable[[], T | None], seconds: float, every: float = 1.0) -> T | None:
        """Look until there is something or the time is over (None); an API server that is away is waited for."""
        end = time.monotonic() + seconds
        while True:
            try:
                if found := look():
                    return found
            except Unreachable:
                if time.monotonic() > end:
                    raise
            if time.monotonic() > end:
                return None
            time.sleep(every)

    def allowed(
        self, verb: str, resource: str, group: str = "", namespace: str | None = None, subresource: str = ""
    ) -> bool:
        """Whether we may: asked of the API server (SelfSubjectAccessReview), which lets everybody ask."""
        asked = {"verb": verb, "resource": resource, "group": group, "subresource": subresource}
        spec = {"resourceAttributes": {**asked, "namespace": namespace or ""}}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec}
        return bool(self._json("POST", self._of(review, named=False), body=review)["status"].get("allowed"))

    def ask(self, service: str, path: str, body: Object | None = None, namespace: str | None = None) -> Any:
        """Return a Service's JSON answer, asked through the API server ("name:port"); raises ClusterError."""
        way = self.path("Service", namespace, service) + "/proxy/" + path.lstrip("/")
        return json.loads(self.request("POST" if body else "GET", way, body=body))

    def path(self, kind: str, namespace: str | None = None, name: str = "") -> str:
        """Return where the API server has a kind, or one object of it; raises ConfigError for an unknown kind."""
        api, plural = _known(kind)
        return _path(api, plural, None if kind in CLUSTERWIDE else namespace or self.namespace, name)

    def _of(self, manifest: Object, named: bool) -> str:
        kind, api, meta = manifest["kind"], manifest["apiVersion"], manifest.get("metadata", {})
        known = "KnativeService" if (kind, api) == ("Service", "serving.knative.dev/v1") else kind
        space = None if known in CLUSTERWIDE else meta.get("namespace") or self.namespace
        return _path(api, _known(known)[1], space, meta["name"] if named else "")

    def _json(self, *arguments: Any, **named: Any) -> Object:
        found: Object = json.loads(self.request(*arguments, **named))
        return found

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        media: str = "application/json",
    ) -> bytes:
        """Return the API server's answer; what may be said twice is, where it does not answer. Raises ClusterError."""
        again = method == "GET" or media.startswith("application/apply-patch")
        for attempt in range(1, TRIES + 1):
            try:
                answer = self._send(method, path, query, body, media)
                return bytes(answer.data)
            except Unreachable:
                if not again or attempt == TRIES:
                    raise
                time.sleep(PAUSE * attempt)
        raise AssertionError

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        media: str = "application/json",
        timeout: tuple[float, float | None] = (CONNECT, READ),
    ) -> Any:
        """Send one request; return urllib3's response of a success."""
        import urllib3
        from kubernetes.client import ApiException

        headers = {"Accept": "application/json, */*", "Content-Type": media, "User-Agent": MANAGER}
        given: dict[str, Any] = {"body": body} if body is not None else {}
        given |= {"header_params": headers, "auth_settings": ["BearerToken"], "_preload_content": False}
        where = f"{path}?{urlencode(query)}" if query else path
        try:
            return self.client.call_api(where, method, _request_timeout=timeout, **given)[0]
        except ApiException as error:
            if not error.status:  # what the client makes of TLS that broke off
                raise Unreachable(f"the API server at {self.host} does not answer: {_reason(error)}") from error
            raise _error(error.status, error.body, method, path, self.host) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(
                f"the API server at {self.host} does not answer: {_reason(error)}; is the cluster up?"
            ) from error


class Absent(ClusterError):
    """The object is not there; `get` and `delete` take it for an answer."""


def _known(kind: str) -> tuple[str, str]:
    if kind not in KINDS:
        raise ConfigError(f"no kind {kind} is known here; known are {', '.join(sorted(KINDS))}")
    return KINDS[kind]


def _path(api: str, plural: str, namespace: str | None, name: str) -> str:
    start = f"/api/{api}" if "/" not in api else f"/apis/{api}"
    space = f"/namespaces/{quote(namespace, safe='')}" if namespace and namespace != "*" else ""
    return f"{start}{space}/{plural}" + (f"/{quote(name, safe=':')}" if name else "")


def _selector(wanted: Mapping[str, str] | str | None) -> str:
    if wanted is None or isinstance(wanted, str):
        return wanted or ""
    return ",".join(f"{key}={value}" for key, value in wanted.items())


def _log_query(container: str | None, **options: Any) -> dict[str, str]:
    wanted = {"container": container, **options}
    return {key: str(value).lower() if value is True else str(value) for key, value in wanted.items() if value}


def _moment(event: Object) -> str:
    """Return when an event was last seen."""
    found = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")
    return str(found or "")


def _reason(error: Exception) -> str:
    """Return the last and shortest of what urllib3 says: 'connection refused' of four nested errors."""
    text = " ".join(str(getattr(error, "reason", None) or error).split())
    return text.rpartition(": ")[2].strip("()'\" ") or type(error).__name__


def _error(status: int, body: Any, method: str, path: str, host: str) -> ClusterError:
    """Return the error of an answer that is not a success."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")
    said = _status(text)
    message = " ".join(str(said.get("message") or text or f"HTTP {status}").split())
    if status == 401:
        return Forbidden(
            f"the API server at {host} does not know who asks: its token or certificate is refused; log in"
        )
    if status == 404:
        return _missing(said, message, path)
    if status in BUSY and "failed calling webhook" not in message:
        return Unreachable(f"the API server at {host} is busy or starting: {message}")
    if status == 403 and (found := RIGHT.search(message)):
        return _forbidden(*found.groups())
    if status == 409:
        return Conflict(message)
    if "failed calling webhook" in message:
        return ClusterError(f"a controller's webhook is not there: {message}; are its pods running?")
    if status in (400, 403, 413, 422):
        return Denied(_bare(message))
    return ClusterError(f"{method} {path}: HTTP {status}: {message}")


RIGHT = re.compile(
    r'User "(?P<who>[^"]+)" cannot (?P<verb>\S+) '
    r'(?:resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"|path)'
    r'(?: in the namespace "(?P<namespace>[^"]+)")?'
)


def _status(text: str) -> Object:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and found.get("kind") == "Status" else {}


def _missing(said: Object, message: str, path: str) -> ClusterError:
    """Tell an object that is not there from a namespace and from a kind that the API server does not know."""
    details = said.get("details") or {}
    if details.get("kind") == "namespaces" and "/namespaces/" in path and not path.endswith(f"/{details.get('name')}"):
        return ClusterError(f"no namespace {details['name']}; kubectl create namespace {details['name']} makes it")
    if details.get("name"):
        return Absent(message)
    _, _, group, *_ = [*path.split("/"), "", ""]
    if not path.startswith("/apis/"):
        return Absent(message)
    owner = OWNERS.get(group, group)
    plural = path.split("/")[6 if "/namespaces/" in path else 4 :][:1]
    what = plural[0] if plural else "that kind"
    return MissingKind(f"the API server does not know {what}.{group}: {owner} is not installed in this cluster")


def _forbidden(who: str, verb: str, resource: str | None, group: str | None, namespace: str | None) -> Forbidden:
    what = f"{resource}.{group}" if group else resource or "that path"
    where = f"in namespace {namespace}" if namespace else "in the whole cluster"
    role = "ClusterRole boatyard-viewer" if verb in READS else _writer(group or "")
    return Forbidden(f"{who} may not {verb} {what} {where}; an administrator binds {role} to it")


def _writer(group: str) -> str:
    roles = {"trainer.kubeflow.org": "Role boatyard-trainer"}
    deploys = group in ("serving.kserve.io", "policy", "coordination.k8s.io")
    return roles.get(group, "Role boatyard-deployer" if deploys else "a role with that right")


def _bare(message: str) -> str:
    """Return an admission's sentence without the words that every one of them has."""
    message = re.sub(r'^admission webhook "([^"]+)" denied the request: ', r"\1 refuses it: ", message)
    return message[:2000]
