"""A small API server on this machine: a dict behind GET, POST, PATCH and DELETE, and a KServe that is done at once.

An InferenceService that is applied has a Deployment and one ready pod in the same moment; its Service gives the answers
of `answer`. What Kubernetes itself does (validation, admission, scheduling) is tested on Kubernetes: tests/cluster.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubernetes import client

from boatyard.deployment.rendering import RENDERED
from boatyard.kubernetes.cluster import Cluster

Object = dict[str, Any]
Answer = Callable[[str, Object], Any]  # the digest that serves, the body: the predictions
NOW = "2026-01-01T00:00:00Z"
READY = {"conditions": [{"type": "Ready", "status": "True"}]}


class ApiServer(ThreadingHTTPServer):
    """Objects by path; `answer` is what the model of an endpoint says."""

    def __init__(self, answer: Answer) -> None:
        self.objects: dict[str, Object] = {}
        self.answer = answer
        self.changes = 0
        self.allowed, self.reviews = True, dict[str, Object]()  # who may do what, and what was asked last
        super().__init__(("127.0.0.1", 0), _Requests)

    def put(self, path: str, value: Object) -> Object:
        """Keep an object, and do what KServe would."""
        self.changes += 1
        meta = {"creationTimestamp": NOW, "generation": 1, **value["metadata"], "resourceVersion": str(self.changes)}
        self.objects[path] = {**value, "metadata": meta}
        if value["kind"] == "InferenceService":
            self._reconcile(path, self.objects[path])
        return self.objects[path]

    def _reconcile(self, path: str, service: Object) -> None:
        name, space = service["metadata"]["name"], service["metadata"]["namespace"]
        service["status"] = {**READY, "observedGeneration": 1}
        meta = {"annotations": {RENDERED: service["metadata"]["annotations"][RENDERED]}}
        counts = {"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1, "observedGeneration": 1}
        deployment = {"kind": "Deployment", "metadata": {"name": f"{name}-predictor"}, "status": counts}
        deployment["spec"] = {"replicas": 1, "template": {"metadata": meta}}
        self.put(f"/apis/apps/v1/namespaces/{space}/deployments/{name}-predictor", deployment)
        labels = {"serving.kserve.io/inferenceservice": name}
        pod = {"kind": "Pod", "metadata": {"name": f"{name}-pod", "labels": labels, **meta}, "status": READY}
        self.put(f"/api/v1/namespaces/{space}/pods/{name}-pod", pod)

    def serving(self, name: str, space: str) -> str:
        """Return the digest of the package that an endpoint serves."""
        path = f"/apis/serving.kserve.io/v1beta1/namespaces/{space}/inferenceservices/{name}"
        return str(self.objects[path]["metadata"]["annotations"]["boatyard/digest"])


class _Requests(BaseHTTPRequestHandler):
    server: ApiServer

    def handle_request(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        url = urlsplit(self.path)
        status, value = self._answer(url.path, {key: v[0] for key, v in parse_qs(url.query).items()}, body)
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PATCH = do_DELETE = handle_request

    def _answer(self, path: str, query: dict[str, str], body: Object) -> tuple[int, Any]:
        objects = self.server.objects
        if path == "/version":
            return 200, {}
        if "/proxy/" in path:
            return 200, self._model(path, body)
        if path.endswith("subjectaccessreviews"):
            self.server.reviews[path] = body
            return 201, {**body, "status": {"allowed": self.server.allowed}}
        if self.command == "POST":
            return 201, self.server.put(f"{path}/{body['metadata']['name']}", body)
        if self.command == "PATCH":
            return self._patch(path, query, body)
        if path in objects:
            return 200, objects.pop(path) if self.command == "DELETE" else objects[path]
        if len(path.partition("/namespaces/")[2].split("/")) == 2:  # NAMESPACE/PLURAL: a collection
            return 200, _chosen((v for k, v in objects.items() if k.rpartition("/")[0] == path), query)
        if len(path.split("/")) == (4 if path.startswith("/api/") else 5):  # of every namespace, or of none
            above, _, plural = path.rpartition("/")
            every = (v for k, v in objects.items() if k.startswith(f"{above}/") and k.split("/")[-2] == plural)
            return 200, _chosen(every, query)
        return 404, {"kind": "Status", "reason": "NotFound", "message": "not found", "details": {"name": "x"}}

    def _patch(self, path: str, query: dict[str, str], body: Object) -> tuple[int, Any]:
        if "dryRun" in query:
            return 200, body
        former = self.server.objects.get(path, {})
        version = body.get("metadata", {}).get("resourceVersion")
        if version and version != former.get("metadata", {}).get("resourceVersion"):
            return 409, {"kind": "Status", "reason": "Conflict", "message": "the object has been modified"}
        apply = "apply-patch" in self.headers["Content-Type"]
        return 200, self.server.put(path, body if apply else _merged(former, body))

    def _model(self, path: str, body: Object) -> Object:
        space, name = path.split("/")[4], path.split("/")[6].removesuffix("-predictor:80")
        digest = self.server.serving(name, space)
        return {"predictions": self.server.answer(digest, body)} if body else {"versions": [digest]}

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def _chosen(objects: Iterable[Object], query: dict[str, str]) -> Object:
    """Return the list of the objects that have the labels asked for."""
    labels = dict(pair.split("=") for pair in query.get("labelSelector", "").split(",") if pair)
    return {"items": [each for each in objects if labels.items() <= each["metadata"].get("labels", {}).items()]}


def _merged(one: Object, other: Object) -> Object:
    return {**one, **{k: _merged(one.get(k, {}), v) if isinstance(v, dict) else v for k, v in other.items()}}


@contextmanager
def api_server(answer: Answer) -> Iterator[tuple[ApiServer, Cluster]]:
    """Run an API server, and give it with a cluster that asks it."""
    server = ApiServer(answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    host = f"http://127.0.0.1:{server.server_port}"
    settings = client.Configuration()
    settings.host, settings.retries = host, False
    try:
        yield server, Cluster(client.ApiClient(settings), host, "models")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
