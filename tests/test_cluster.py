"""What the API server says becomes one error of ours, with one line; asked of a small API server on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from boatyard.errors import ClusterError, ConfigError, Conflict, Denied, Forbidden, MissingKind, Unreachable
from boatyard.kubernetes import cluster

Answer = tuple[int, Any]
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": "models"}}


class Server(ThreadingHTTPServer):
    """Answers each request with the next of `answers`, the last one for ever, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[tuple[str, str, str, Any]] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        version = self.path == "/version"
        if not version:
            self.server.asked.append((self.command, self.path, self.headers.get("Content-Type", ""), body))
        answers = self.server.answers
        status, value = (200, {}) if version else answers.pop(0) if len(answers) > 1 else answers[0]
        data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PATCH = do_DELETE = answer

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def kubeconfig(path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client find a kubeconfig with two contexts for a server without TLS."""
    contexts = [
        {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "models"}},
        {"name": "there", "context": {"cluster": "c", "user": "u"}},
    ]
    value = {"apiVersion": "v1", "kind": "Config", "current-context": "here", "contexts": contexts}
    value |= {"clusters": [{"name": "c", "cluster": {"server": url}}], "users": [{"name": "u", "user": {}}]}
    path.write_text(yaml.safe_dump(value))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))


@pytest.fixture
def there(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> cluster.Cluster:
    kubeconfig(tmp_path / "config", f"http://127.0.0.1:{server.server_port}", monkeypatch)
    monkeypatch.setattr(cluster, "RETRY_PAUSE_S", 0.01)
    return cluster.connect()


def failure(message: str, reason: str = "", **details: Any) -> dict[str, Any]:
    return {"kind": "Status", "status": "Failure", "message": message, "reason": reason, "details": details}


def get(there: cluster.Cluster) -> Any:
    return there.get("Pod", "one")


def apply(there: cluster.Cluster) -> Any:
    return there.apply(POD)


def scaled(there: cluster.Cluster) -> Any:
    return there.get("ScaledObject", "one")


WHO = 'User "ann" cannot get resource "inferenceservices" in API group "serving.kserve.io" in the namespace "models"'
MAY = 'User "ann" cannot patch resource "leases" in API group "coordination.k8s.io" in the namespace "models"'
HOOK = 'Internal error occurred: failed calling webhook "x": connection refused'
SAID: list[tuple[Callable[[cluster.Cluster], Any], int, Any, type[ClusterError], str]] = [
    (get, 401, failure("Unauthorized"), Forbidden, "does not know who asks: its token or certificate is refused"),
    (get, 403, failure(WHO), Forbidden, "ann may not get inferenceservices.serving.kserve.io in namespace models"),
    (get, 403, failure(WHO), Forbidden, "an administrator binds ClusterRole boatyard-viewer to it"),
    (apply, 403, failure(MAY), Forbidden, "an administrator binds Role boatyard-deployer to it"),
    (apply, 403, failure("exceeded quota: pods, requested: 1"), Denied, "^exceeded quota: pods, requested: 1$"),
    (scaled, 404, "404 page not found", MissingKind, "scaledobjects.keda.sh: KEDA is not installed in this cluster"),
    (apply, 404, failure("x", name="models", kind="namespaces"), ClusterError, "^no namespace models; kubectl create"),
    (apply, 409, failure("Apply failed with 1 conflict"), Conflict, "^Apply failed with 1 conflict$"),
    (apply, 400, failure('admission webhook "w" denied the request: no'), Denied, "^w refuses it: no$"),
    (apply, 422, failure('Pod "One" is invalid: metadata.name'), Denied, "^Pod .One. is invalid: metadata.name$"),
    (apply, 500, failure(HOOK), ClusterError, "a controller's webhook is not there: .* are its pods running"),
    (apply, 500, "<html>", ClusterError, "HTTP 500: <html>"),
    (get, 503, "starting", Unreachable, "is busy or starting: starting"),
]


@pytest.mark.parametrize(("ask", "status", "body", "kind", "message"), SAID)
def test_every_refusal_is_one_error_and_one_line(
    there: cluster.Cluster,
    server: Server,
    ask: Callable[[cluster.Cluster], Any],
    status: int,
    body: Any,
    kind: type[ClusterError],
    message: str,
) -> None:
    server.answers = [(status, body)]
    with pytest.raises(kind, match=message) as refused:
        ask(there)
    assert type(refused.value) is kind and "\n" not in str(refused.value)


def test_what_is_not_there_is_none_and_no_error(there: cluster.Cluster, server: Server) -> None:
    server.answers = [(404, failure('pods "one" not found', "NotFound", name="one", kind="pods"))]
    assert there.get("Pod", "one") is None
    assert there.delete("Pod", "one") is False


def test_a_read_is_asked_again_and_a_create_is_not(there: cluster.Cluster, server: Server) -> None:
    server.answers = [(503, "starting"), (200, POD)]
    assert there.get("Pod", "one") == POD
    server.answers = [(503, "starting"), (200, POD)]
    with pytest.raises(Unreachable):
        there.create(POD)
    assert [asked[0] for asked in server.asked] == ["GET", "GET", "POST"]


def test_it_applies_as_boatyard_on_the_server_s_side(there: cluster.Cluster, server: Server) -> None:
    server.answers = [(200, POD)]
    assert there.apply(POD, dry_run=True, force=True) == POD
    path = "/api/v1/namespaces/models/pods/one?fieldManager=boatyard&force=true&dryRun=All"
    assert server.asked == [("PATCH", path, "application/apply-patch+yaml", POD)]


def test_a_list_is_by_labels_and_fields_and_of_all_namespaces(there: cluster.Cluster, server: Server) -> None:
    server.answers = [(200, {"items": [{"metadata": {"name": "one"}}]})]
    found = there.list("Pod", "*", labels={"app": "a", "tier": "b"}, fields={"spec.nodeName": "n"})
    assert found == [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}}]
    assert server.asked[0][1] == "/api/v1/pods?labelSelector=app%3Da%2Ctier%3Db&fieldSelector=spec.nodeName%3Dn"


def test_the_namespace_is_the_context_s(there: cluster.Cluster, server: Server) -> None:
    assert (there.namespace, cluster.connect("there").namespace) == ("models", "default")
    assert there.path("Pod") == "/api/v1/namespaces/models/pods"
    assert there.path("Node", "models", "n") == "/api/v1/nodes/n"


def test_an_unknown_kind_or_context_is_said(there: cluster.Cluster) -> None:
    with pytest.raises(ConfigError, match=r"no kind Pid is known here; known are .*Pod, "):
        there.get("Pid", "one")
    with pytest.raises(ClusterError, match="no context nowhere in the kubeconfig; kubectl config get-contexts"):
        cluster.connect("nowhere")


def test_no_cluster_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match=r"no cluster: .* set KUBECONFIG, or run this in a pod"):
        cluster.connect()
    monkeypatch.setattr(cluster, "RETRY_PAUSE_S", 0.01)
    kubeconfig(tmp_path / "config", "http://127.0.0.1:1", monkeypatch)
    with pytest.raises(Unreachable, match=r"the API server at http://127\.0\.0\.1:1 does not answer: .*refused"):
        cluster.connect()


def test_polling_outlives_an_api_server_that_is_away(there: cluster.Cluster, server: Server) -> None:
    server.answers = [*[(503, "starting")] * 4, (200, POD)]
    assert there.poll(lambda: there.get("Pod", "one"), 5, every=0.01) == POD
    server.answers = [(503, "starting")]
    with pytest.raises(Unreachable):
        there.poll(lambda: there.get("Pod", "one"), 0.1, every=0.01)
    assert there.poll(lambda: None, 0.1, every=0.01) is None


def test_lines_are_followed_as_they_come(there: cluster.Cluster, server: Server) -> None:
    server.answers = [(200, "one\ntwo\nthree")]
    assert list(there.follow("one", "models", "main")) == ["one", "two", "three"]
    assert server.asked[0][1] == "/api/v1/namespaces/models/pods/one/log?container=main&follow=true"
