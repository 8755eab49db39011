"""A Kubernetes cluster: get, list, apply, watch, logs. The one module that knows the API server and its client.

Objects are plain dicts, as in YAML. Every answer that is not a success becomes one error of ours with one clear line.
Reads and applies, which may be said twice, are repeated a few times when the API server does not answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from boatyard import waiting
from boatyard.errors import ClusterError, Unreachable
from boatyard.kubernetes.failures import Absent, error_of, reason
from boatyard.kubernetes.kinds import CLUSTER_SCOPED, known, path

FIELD_MANAGER = "boatyard"  # the owner of the fields that we apply
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5.0, 30.0
MAX_TRIES, RETRY_PAUSE_S = 3, 0.5  # a restarting API server is away for about a second
Object = dict[str, Any]
Objects = list[Object]
T = TypeVar("T")


def connect(context: str | None = None) -> Cluster:
    """Return the cluster of the kubeconfig's context, or the one that this pod runs in.

    Raises ClusterError when there is none, Unreachable when its API server does not answer.
    """
    try:
        from kubernetes import client
    except ImportError as error:
        raise ClusterError("the Kubernetes client is not installed", fix="pip install 'boatyard[cluster]'") from error
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
        raise ClusterError(
            f"no context {context} in the kubeconfig", fix="kubectl config get-contexts lists them"
        ) from None
    except (config.ConfigException, OSError, TypeError) as error:
        if NAMESPACE_FILE.is_file() and not context:
            config.load_incluster_config(client_configuration=settings)
            return NAMESPACE_FILE.read_text(encoding="utf-8").strip()
        why = " ".join(str(error).split())
        raise ClusterError(
            f"no cluster: {why}", fix="set KUBECONFIG, or run this in a pod with a service account"
        ) from error


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
        selectors = {"labelSelector": _selector(labels), "fieldSelector": _selector(fields)}
        query = {key: value for key, value in selectors.items() if value}
        api, _ = known(kind)
        answer = self._json("GET", self.path(kind, namespace), query)
        return [{"apiVersion": api, "kind": kind, **item} for item in answer.get("items", [])]

    def apply(self, manifest: Object, dry_run: bool = False, force: bool = False) -> Object:
        """Make an object what the manifest says by server-side apply, and return what the server made of it.

        `dry_run` changes nothing; `force` takes fields over that another owns. Raises ClusterError, Conflict.
        """
        query = {"fieldManager": FIELD_MANAGER, "force": str(force).lower()} | ({"dryRun": "All"} if dry_run else {})
        return self._json("PATCH", self._of(manifest, named=True), query, manifest, "application/apply-patch+yaml")

    def create(self, manifest: Object, dry_run: bool = False) -> Object:
        """Make a new object; raises Conflict when there is one of its name."""
        query = {"fieldManager": FIELD_MANAGER} | ({"dryRun": "All"} if dry_run else {})
        return self._json("POST", self._of(manifest, named=False), query, manifest)

    def patch(self, kind: str, name: str, body: Object, namespace: str | None = None) -> Object:
        """Merge a body into an object; with its metadata.resourceVersion, only if nobody changed it since: Conflict."""
        path = self.path(kind, namespace, name)
        return self._json("PATCH", path, {"fieldManager": FIELD_MANAGER}, body, "application/merge-patch+json")

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
        events = self.list("Event", namespace, fields={key: value for key, value in about.items() if value})
        return sorted(events, key=_moment)

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
        answer = self._send("GET", self.path("Pod", namespace, pod) + "/log", query, timeout=(CONNECT_TIMEOUT_S, None))
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
        return waiting.poll(look, timeout_s=seconds, every_s=every, errors=Unreachable)

    def allowed(
        self,
        verb: str,
        resource: str,
        group: str = "",
        namespace: str | None = None,
        subresource: str = "",
        account: str | None = None,
    ) -> bool:
        """Whether we may: asked of the API server (SelfSubjectAccessReview), which lets everybody ask.

        With `account`, whether that service account of the namespace may (SubjectAccessReview); raises Forbidden where
        we have not the right to ask that.
        """
        right = {"verb": verb, "resource": resource, "group": group, "subresource": subresource}
        spec: Object = {"resourceAttributes": {**right, "namespace": namespace or ""}}
        if account:
            spec["user"] = f"system:serviceaccount:{namespace or self.namespace}:{account}"
        kind = "SubjectAccessReview" if account else "SelfSubjectAccessReview"
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
        return bool(self._json("POST", self._of(review, named=False), body=review)["status"].get("allowed"))

    def ask(self, service: str, path: str, body: Object | None = None, namespace: str | None = None) -> Any:
        """Return a Service's JSON answer, asked through the API server ("name:port"); raises ClusterError."""
        proxied = self.path("Service", namespace, service) + "/proxy/" + path.lstrip("/")
        return json.loads(self.request("POST" if body else "GET", proxied, body=body))

    def path(self, kind: str, namespace: str | None = None, name: str = "") -> str:
        """Return where the API server has a kind, or one object of it; raises ConfigError for an unknown kind."""
        api, plural = known(kind)
        return path(api, plural, None if kind in CLUSTER_SCOPED else namespace or self.namespace, name)

    def _of(self, manifest: Object, named: bool) -> str:
        kind, api, meta = manifest["kind"], manifest["apiVersion"], manifest.get("metadata", {})
        if (kind, api) == ("Service", "serving.knative.dev/v1"):
            kind = "KnativeService"
        space = None if kind in CLUSTER_SCOPED else meta.get("namespace") or self.namespace
        return path(api, known(kind)[1], space, meta["name"] if named else "")

    def _json(self, *arguments: Any, **named: Any) -> Object:
        value: Object = json.loads(self.request(*arguments, **named))
        return value

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        media: str = "application/json",
    ) -> bytes:
        """Return the API server's answer; what may be said twice is, where it does not answer. Raises ClusterError."""
        attempts = MAX_TRIES if method == "GET" or media.startswith("application/apply-patch") else 1

        def send() -> bytes:
            return bytes(self._send(method, path, query, body, media).data)

        return waiting.retry(send, Unreachable, attempts=attempts, pause_s=lambda attempt: RETRY_PAUSE_S * attempt)

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        media: str = "application/json",
        timeout: tuple[float, float | None] = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
    ) -> Any:
        """Send one request; return urllib3's response of a success."""
        import urllib3
        from kubernetes.client import ApiException

        headers = {"Accept": "application/json, */*", "Content-Type": media, "User-Agent": FIELD_MANAGER}
        given: dict[str, Any] = {"body": body} if body is not None else {}
        given |= {"header_params": headers, "auth_settings": ["BearerToken"], "_preload_content": False}
        where = f"{path}?{urlencode(query)}" if query else path
        try:
            return self.client.call_api(where, method, _request_timeout=timeout, **given)[0]
        except ApiException as error:
            if not error.status:  # what the client makes of TLS that broke off
                raise Unreachable(f"the API server at {self.host} does not answer: {reason(error)}") from error
            raise error_of(error.status, error.body, method, path, self.host) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(
                f"the API server at {self.host} does not answer: {reason(error)}", fix="is the cluster up?"
            ) from error


def _selector(pairs: Mapping[str, str] | str | None) -> str:
    if pairs is None or isinstance(pairs, str):
        return pairs or ""
    return ",".join(f"{key}={value}" for key, value in pairs.items())


def _log_query(container: str | None, **options: Any) -> dict[str, str]:
    query = {"container": container, **options}
    return {key: str(value).lower() if value is True else str(value) for key, value in query.items() if value}


def _moment(event: Object) -> str:
    """Return when an event was last seen."""
    moment = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")
    return str(moment or "")
