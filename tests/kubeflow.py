"""A server on the loopback that answers as Kubeflow Pipelines' API server does, recorded in tests/kubeflow_runs/.

It keeps what it is given and plays a run: each look at it is the next of the scenes it was told, made in the form of
the recordings, or a recording itself.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import kfp_server_api as api
import yaml

from boatyard.pipelines.nodes import node_id

RECORDINGS = Path(__file__).parent / "kubeflow_runs"
Scene = tuple[str | None, dict[str, str]] | str  # the run's state and its steps', or the name of a recording


@dataclass
class Kubeflow:
    """What the server was given, and the scenes of the run that it will play; `fail` answers a path with a status."""

    scenes: list[Scene] = field(default_factory=list)
    pipelines: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    experiments: dict[str, Any] = field(default_factory=dict)
    runs: list[Any] = field(default_factory=list)
    specs: list[str] = field(default_factory=list)
    fail: dict[str, tuple[int, str]] = field(default_factory=dict)
    page: str = ""
    ui: str = ""
    token: str = ""
    asked: list[str] = field(default_factory=list)
    history: list[Any] = field(default_factory=list)  # runs as JSON, the latest first, listed before those made here
    history_nodes: bool = True  # whether the list has each run's nodes, as that of 2.17 does

    def healthz(self) -> Any:
        return api.V2beta1GetHealthzResponse(multi_user=False)

    def list_pipelines(self, name: str) -> Any:
        found = [one for one in self.pipelines.values() if one.display_name == name]
        return api.V2beta1ListPipelinesResponse(pipelines=found or None, total_size=len(found))

    def create_pipeline(self, body: dict[str, Any]) -> Any:
        name = body["display_name"]
        made = api.V2beta1Pipeline(
            pipeline_id=f"pipeline-{len(self.pipelines)}", display_name=name, name=name, created_at=now()
        )
        self.pipelines[made.pipeline_id] = made
        return made

    def upload_version(self, name: str, pipeline: str, spec: str) -> Any:
        documents = list(yaml.safe_load_all(spec))
        made = api.V2beta1PipelineVersion(
            pipeline_id=pipeline,
            pipeline_version_id=f"version-{len(self.versions)}",
            display_name=name,
            name=name,
            created_at=now(),
            pipeline_spec=dict(zip(("pipeline_spec", "platform_spec"), documents, strict=False)),
        )
        self.versions[made.pipeline_version_id] = made
        self.specs.append(spec)
        return made

    def list_versions(self, pipeline: str, name: str | None) -> Any:
        found = [v for v in self.versions.values() if v.pipeline_id == pipeline and name in (None, v.display_name)]
        return api.V2beta1ListPipelineVersionsResponse(pipeline_versions=found or None, total_size=len(found))

    def list_experiments(self, name: str) -> Any:
        found = [one for one in self.experiments.values() if one.display_name == name]
        return api.V2beta1ListExperimentsResponse(experiments=found or None)

    def create_experiment(self, name: str) -> Any:
        made = api.V2beta1Experiment(experiment_id=f"experiment-{len(self.experiments)}", display_name=name)
        self.experiments[made.experiment_id] = made
        return made

    def create_run(self, body: dict[str, Any]) -> Any:
        given = read(body, "V2beta1Run")
        given.run_id, given.state, given.storage_state = f"run-{len(self.runs)}", None, "AVAILABLE"
        given.created_at = now()
        self.runs.append(given)
        return given

    def get_run(self, run: str) -> Any:
        for recorded in self.history:
            if isinstance(recorded, dict) and recorded.get("run_id") == run:
                return recorded
        found = next(one for one in self.runs if one.run_id == run)
        scene = self.scenes.pop(0) if len(self.scenes) > 1 else self.scenes[0]
        recorded = recording(scene) if isinstance(scene, str) else None
        if recorded:
            found.state, found.state_history = recorded.state, recorded.state_history
            found.run_details = recorded.run_details
        else:
            found.state, shown = scene
            found.run_details = api.V2beta1RunDetails(task_details=details("digits-abcde", found.state, shown))
        return found

    def list_runs(self, token: str = "", size: int = 10) -> Any:
        """Answer a page; as the real one, the last has no token, and a list of nothing has no `runs`."""
        runs = [*self.history, *self.runs[::-1]]
        start = int(token or 0)
        page = runs[start : start + size]
        if not self.history_nodes:
            page = [{key: run[key] for key in run if key != "run_details"} for run in page]
        more = {"next_page_token": str(start + size)} if start + size < len(runs) else {}
        return {**({"runs": page} if page else {}), "total_size": len(runs), **more}


def backend_of_recordings() -> Kubeflow:
    """Return a backend that has the recorded pipelines, versions and runs."""
    pipelines = read(json.loads((RECORDINGS / "pipelines.json").read_text()), "V2beta1ListPipelinesResponse").pipelines
    versions = json.loads((RECORDINGS / "pipeline-versions.json").read_text())["pipeline_versions"]
    runs = [json.loads(file.read_text()) for file in RECORDINGS.glob("run-*.json")]
    return Kubeflow(
        pipelines={pipeline.pipeline_id: pipeline for pipeline in pipelines},
        versions={version["pipeline_version_id"]: version for version in versions},
        history=sorted(runs, key=lambda run: run["created_at"], reverse=True),
    )


def recording(name: str) -> Any:
    """Return a run as a real backend answered it."""
    return read(json.loads((RECORDINGS / f"{name}.json").read_text()), "V2beta1Run")


def details(workflow: str, state: str | None, steps: dict[str, str]) -> list[Any]:
    """Return the Argo nodes of a run whose steps stand so: a driver, an executor, and an attempt of each.

    A name such as `for-loop-1/look` is a step below that; CACHED is a step whose executor was skipped.
    """
    below = [
        ".".join([*(f"{part}(0)" for part in above), step]) for *above, step in (path.split("/") for path in steps)
    ]
    groups = sorted({path.split("/")[0] for path in steps if "/" in path})
    root = [*groups, *(name for step in below for name in (f"{step}-driver", step))]
    made = [*node(workflow, workflow, state, ["root"]), *node(workflow, f"{workflow}(0).root", state, root)]
    for group in groups:
        made += node(workflow, f"{workflow}(0).root(0).{group}", state, [])
    for step, at in zip(below, steps.values(), strict=True):
        full, now = f"{workflow}(0).root(0).{step}", "SUCCEEDED" if at == "CACHED" else at
        made += node(workflow, f"{full}-driver", "SUCCEEDED", [])
        made += node(workflow, full, now, ["executor"])
        skipped = "SKIPPED" if at == "CACHED" else now
        made += node(workflow, f"{full}(0).executor", skipped, [], attempted=at != "CACHED")
    return [*made, api.V2beta1PipelineTaskDetail(task_id="record", execution_id="7")]


def node(workflow: str, path: str, state: str | None, below: list[str], attempted: bool = True) -> list[Any]:
    """Return a node and its attempt, whose children are named by their Argo ids."""

    def one(full: str, children: list[str]) -> Any:
        ids = [api.PipelineTaskDetailChildTask(pod_name=node_id(workflow, child)) for child in children]
        shown = full if full.startswith(workflow) and "." not in full else full.rsplit(".", 1)[-1]
        return api.V2beta1PipelineTaskDetail(
            task_id=str(uuid4()), display_name=shown, state=state, child_tasks=ids or None
        )

    if not attempted:
        return [one(path, [])]
    return [one(path, [f"{path}(0)"]), one(f"{path}(0)", [f"{path}(0).{name}" for name in below])]


def now() -> datetime:
    return datetime.now(UTC)


def read(value: Any, kind: str) -> Any:
    """Make one of the client's models of JSON, as the client itself does."""

    class Answer:
        data = json.dumps(value)

    return api.ApiClient().deserialize(Answer, kind)


@contextlib.contextmanager
def serving(kubeflow: Kubeflow, port: int = 0) -> Iterator[str]:
    """Run the server and give its address; at its end its connections end, too, as a process's do."""
    connections: list[socket.socket] = []
    handler = type("Bound", (Handler,), {"kubeflow": kubeflow, "connections": connections})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        for connection in connections:
            with contextlib.suppress(OSError):  # it has ended already
                connection.shutdown(socket.SHUT_RDWR)


class Handler(BaseHTTPRequestHandler):
    """The paths of the v2beta1 API that a submission asks."""

    protocol_version = "HTTP/1.1"
    kubeflow: Kubeflow
    connections: list[socket.socket]

    def setup(self) -> None:
        super().setup()
        self.connections.append(self.connection)

    def do_GET(self) -> None:
        self.handle_request(b"")

    def do_POST(self) -> None:
        self.handle_request(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def handle_request(self, body: bytes) -> None:
        url = urlsplit(self.path)
        path, query = url.path.removeprefix("/apis/v2beta1"), parse_qs(url.query)
        if path == "/" and not self.kubeflow.page:  # the API server has no page, the UI has
            return self.answer(200 if self.kubeflow.ui else 404, self.kubeflow.ui.encode(), "text/html")
        self.kubeflow.asked.append(f"{self.command} {path}")
        if self.kubeflow.page:
            return self.answer(200, self.kubeflow.page.encode(), "text/html")
        if self.kubeflow.token and self.headers.get("Authorization") != f"Bearer {self.kubeflow.token}":
            return self.answer(401, b"no login", "text/plain")
        if path in self.kubeflow.fail:
            status, said = self.kubeflow.fail[path]
            return self.answer(status, json.dumps({"message": said, "code": 3}).encode())
        found = self.found(path, query, body)
        if found is None:
            return self.answer(404, json.dumps({"message": f"{path} not found", "code": 5}).encode())
        value = api.ApiClient().sanitize_for_serialization(found)
        return self.answer(200, json.dumps(value).encode())

    def found(self, path: str, query: dict[str, list[str]], body: bytes) -> Any:
        kubeflow, given = self.kubeflow, {key: values[0] for key, values in query.items()}
        match (self.command, *path.strip("/").split("/")):
            case ("GET", "healthz"):
                return kubeflow.healthz()
            case ("GET", "pipelines"):
                return kubeflow.list_pipelines(wanted(given))
            case ("POST", "pipelines"):
                return kubeflow.create_pipeline(json.loads(body))
            case ("POST", "pipelines", "upload_version"):
                return kubeflow.upload_version(given["name"], given["pipelineid"], self.file(body))
            case ("GET", "pipelines", pipeline, "versions"):
                return kubeflow.list_versions(pipeline, wanted(given) if "filter" in given else None)
            case ("GET", "pipelines", _, "versions", version) if version in kubeflow.versions:
                return kubeflow.versions[version]
            case ("GET", "pipelines", _, "versions", _):
                return None
            case ("GET", "experiments"):
                return kubeflow.list_experiments(wanted(given))
            case ("POST", "experiments"):
                return kubeflow.create_experiment(json.loads(body)["display_name"])
            case ("POST", "runs"):
                return kubeflow.create_run(json.loads(body))
            case ("GET", "runs"):
                assert given.get("sort_by") == "created_at desc", given
                return kubeflow.list_runs(given.get("page_token", ""), int(given.get("page_size", 10)))
            case ("GET", "runs", run):
                return kubeflow.get_run(run)
        raise AssertionError(f"{self.command} {path} is not played")

    def file(self, body: bytes) -> str:
        """Return the file of an upload, multipart/form-data."""
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        (part, *_) = message_from_bytes(head + body).get_payload()  # type: ignore[misc]
        return bytes(part.get_payload(decode=True)).decode()  # type: ignore[union-attr,arg-type]

    def answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def wanted(given: dict[str, str]) -> str:
    """Return the name that a filter asks for."""
    found = re.search(r'"stringValue": "([^"]*)"', given["filter"])
    assert found, given
    return found[1]
