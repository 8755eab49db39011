"""What the API server says when it refuses, as one error of ours with one clear line."""

from __future__ import annotations

import json
import re
from typing import Any

from boatyard.errors import ClusterError, Conflict, Denied, Forbidden, MissingKind, Unreachable

BUSY_STATUSES = (429, 502, 503, 504)
MAX_MESSAGE_CHARS = 2000
OWNERS = {"serving.kserve.io": "KServe", "trainer.kubeflow.org": "Kubeflow Trainer", "keda.sh": "KEDA"}
OWNERS |= {"jobset.x-k8s.io": "JobSet", "serving.knative.dev": "Knative", "metrics.k8s.io": "metrics-server"}
READ_VERBS = frozenset(("get", "list", "watch"))
RIGHT = re.compile(
    r'User "(?P<who>[^"]+)" cannot (?P<verb>\S+) '
    r'(?:resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"|path)'
    r'(?: in the namespace "(?P<namespace>[^"]+)")?'
)
Object = dict[str, Any]


class Absent(ClusterError):
    """The object is not there; `get` and `delete` take it for an answer."""


def reason(error: Exception) -> str:
    """Return the last and shortest of what urllib3 says: 'connection refused' of four nested errors."""
    text = " ".join(str(getattr(error, "reason", None) or error).split())
    return text.rpartition(": ")[2].strip("()'\" ") or type(error).__name__


def error_of(status: int, body: Any, method: str, path: str, host: str) -> ClusterError:
    """Return the error of an answer that is not a success."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")
    failure = _status(text)
    message = " ".join(str(failure.get("message") or text or f"HTTP {status}").split())
    if status == 401:
        return Forbidden(
            f"the API server at {host} does not know who asks: its token or certificate is refused", fix="log in"
        )
    if status == 404:
        return _missing(failure, message, path)
    if status in BUSY_STATUSES and "failed calling webhook" not in message:
        return Unreachable(f"the API server at {host} is busy or starting: {message}")
    if status == 403 and (right := RIGHT.search(message)):
        return _forbidden(*right.groups())
    if status == 409:
        return Conflict(message)
    if "failed calling webhook" in message:
        return ClusterError(f"a controller's webhook is not there: {message}", fix="are its pods running?")
    if status in (400, 403, 413, 422):
        return Denied(_bare(message))
    return ClusterError(f"{method} {path}: HTTP {status}: {message}")


def _status(text: str) -> Object:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) and value.get("kind") == "Status" else {}


def _missing(failure: Object, message: str, path: str) -> ClusterError:
    """Tell an object that is not there from a namespace and from a kind that the API server does not know."""
    details = failure.get("details") or {}
    if details.get("kind") == "namespaces" and "/namespaces/" in path and not path.endswith(f"/{details.get('name')}"):
        make = f"kubectl create namespace {details['name']} makes it"
        return ClusterError(f"no namespace {details['name']}", fix=make)
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
    role = "ClusterRole boatyard-viewer" if verb in READ_VERBS else _writer(group or "")
    return Forbidden(f"{who} may not {verb} {what} {where}", fix=f"an administrator binds {role} to it")


def _writer(group: str) -> str:
    roles = {"trainer.kubeflow.org": "Role boatyard-trainer"}
    deploys = group in ("serving.kserve.io", "policy", "coordination.k8s.io")
    return roles.get(group, "Role boatyard-deployer" if deploys else "a role with that right")


def _bare(message: str) -> str:
    """Return an admission's sentence without the words that every one of them has."""
    message = re.sub(r'^admission webhook "([^"]+)" denied the request: ', r"\1 refuses it: ", message)
    return message[:MAX_MESSAGE_CHARS]
