"""The proof of an endpoint: the package's golden examples, asked through the Service as a client would."""

from __future__ import annotations

import http.client
import json
import socket
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from boatyard import tasks
from boatyard.data.schema import Schema
from boatyard.errors import ArtifactError, BoatyardError, ClusterError
from boatyard.kubernetes.cluster import Cluster
from boatyard.packages import Package
from boatyard.prediction.answers import Answers

ROWS_PER_REQUEST = 8
ANSWER_TIMEOUT_S = 30
RETRY_PAUSE_S = 0.5
PROOF_TIMEOUT_S = 30.0  # in which a Service that is just ready may refuse, or lead to a former pod
RIGHT_IN_A_ROW = (3, 12, 48)  # answers of the right version, and nobody sends to former pods: each time with less doubt
Object = dict[str, Any]


@dataclass(frozen=True)
class Proof:
    """What an endpoint must answer: V1 instances and predictions, by the package of this digest."""

    digest: str
    schema: Schema = field(repr=False)
    instances: list[Any] = field(repr=False)
    predictions: Answers = field(repr=False)


class Wrong(ClusterError):
    """The Service gave an answer that is not the package's."""


class Unanswered(ClusterError):
    """The Service gave no answer that can be judged."""


def proof(package: Package) -> Proof:
    """Return a package's golden examples as questions and the answers that every server of it gives."""
    return Proof(package.digest, package.schema, package.golden.instances, package.golden.answers)


def prove(cluster: Cluster, name: str, namespace: str, wanted: Proof) -> int:
    """Ask every golden example through the Service and return how many there are; raises ClusterError.

    A wrong answer may be one of a former pod, which some node still sends to. It is forgiven when many right ones
    follow, after many of the right version: not when it comes again.
    """
    wrong: Wrong | None = None
    for in_a_row in RIGHT_IN_A_ROW:
        _switched(cluster, f"{name}-predictor", namespace, name, wanted.digest, in_a_row)
        try:
            for _ in range(in_a_row if wrong else 1):
                _ask_all(cluster, name, namespace, wanted)
            return len(wanted.instances)
        except Wrong as error:
            wrong = error
            time.sleep(RETRY_PAUSE_S)
    assert wrong
    raise wrong


def _ask_all(cluster: Cluster, name: str, namespace: str, wanted: Proof) -> None:
    for start in range(0, len(wanted.instances), ROWS_PER_REQUEST):
        some = slice(start, start + ROWS_PER_REQUEST)
        asked = {"instances": wanted.instances[some]}
        answer = _patiently(cluster, f"{name}-predictor", namespace, f"v1/models/{name}:predict", asked)
        expected = wanted.predictions.rows(start, start + len(asked["instances"]))
        _compare(start, wanted.schema, expected, answer.get("predictions"))


def _switched(cluster: Cluster, service: str, namespace: str, name: str, digest: str, in_a_row: int) -> None:
    """Wait until the way to the Service leads to pods of this package; a node may know the former ones for a moment."""
    end, right = time.monotonic() + PROOF_TIMEOUT_S, 0
    while right < in_a_row:
        found = _patiently(cluster, service, namespace, f"v2/models/{name}", None).get("versions")
        right = right + 1 if found == [digest] else 0
        if not right:
            if time.monotonic() > end:
                raise ClusterError(f"{service} answers for package {found}, expected sha256 {digest[:12]}…")
            time.sleep(RETRY_PAUSE_S)


def _compare(start: int, schema: Schema, expected: Answers, predictions: Any) -> None:
    if not isinstance(predictions, list) or len(predictions) != len(expected):
        found = json.dumps(predictions)[:200]
        raise Wrong(expected=f"{len(expected)} predictions for the reference rows", found=f"{found}")
    task = tasks.of(schema)
    for row, prediction in enumerate(predictions):
        try:
            difference = task.difference(schema, expected.rows(row, row + 1), task.read(schema, [prediction]), 0)
        except ArtifactError as error:
            difference = str(error).partition(": ")[2]  # of the one that was read: its number says nothing
        if difference:
            raise Wrong(f"reference row {start + row} is answered wrong through the Service: {difference}")


def _patiently(cluster: Cluster, service: str, namespace: str, path: str, body: Object | None) -> Object:
    """Ask until there is an answer; a Service is known on every node a moment after its pod is ready."""
    end = time.monotonic() + PROOF_TIMEOUT_S
    while True:
        try:
            return ask(cluster, service, namespace, path, body)
        except (Unanswered, ClusterError):
            if time.monotonic() > end:
                raise
            time.sleep(1)


def ask(cluster: Cluster, service: str, namespace: str, path: str, body: Object | None = None) -> Object:
    """Return a Service's JSON answer: asked by its name inside the cluster, through the API server from outside."""
    host = f"{service}.{namespace}.svc.cluster.local"
    try:
        found = _direct(host, path, body) if _resolves(host) else cluster.ask(f"{service}:80", path, body, namespace)
    except (ValueError, BoatyardError) as error:
        raise Unanswered(f"{service} does not answer: {error}") from error
    if not isinstance(found, dict):
        raise Unanswered(f"{service} does not answer with an object: {json.dumps(found)[:100]}")
    return found


def _resolves(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, 80))
    except OSError:
        return False


def _direct(host: str, path: str, body: Object | None) -> Any:
    data = json.dumps(body).encode() if body else None
    try:
        with urlopen(
            Request(f"http://{host}/{path}", data, {"Content-Type": "application/json"}), timeout=ANSWER_TIMEOUT_S
        ) as answer:
            return json.load(answer)
    except HTTPError as error:
        said = error.read(500).decode("utf-8", "replace")
        raise Unanswered(f"HTTP {error.code} {said}") from error
    except (URLError, OSError, http.client.HTTPException) as error:
        raise Unanswered(str(getattr(error, "reason", error))) from error
