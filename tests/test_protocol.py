"""The protocol's definitions held against the server: its OpenAPI by schemathesis, its messages as kserve has them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import graphs
import grpc
import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.rest import v2_datamodels as v2
from pydantic import BaseModel
from schemathesis.generation import GenerationMode
from test_serving import SCHEMAS, Running, launch, ready

MODEL = "/v2/models/{model_name}"
ANSWERS: dict[str, type[BaseModel]] = {
    "/v2": v2.ServerMetadataResponse,
    "/v2/health/live": v2.ServerLiveResponse,
    "/v2/health/ready": v2.ServerReadyResponse,
    "/v2/models": v2.ListModelsResponse,
    MODEL: v2.ModelMetadataResponse,
    f"{MODEL}/ready": v2.ModelReadyResponse,
    f"{MODEL}/infer": v2.InferenceResponse,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=9), inside, max_size=4),
    max_leaves=20,
)
BODIES = JSON | JSON.map(lambda value: {"instances": value}) | st.just({"instances": [[[7] * 5] * 6]})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = launch(graphs.package(tmp_path_factory.mktemp("protocol") / "image", SCHEMAS["image"]))
    ready(running)
    yield running
    running.process.terminate()
    output, _ = running.process.communicate(timeout=30)
    assert running.process.returncode == 0, output
    assert "Traceback" not in output


def attack(server: Running, examples: int) -> dict[str, set[int]]:
    """Send what the server's OpenAPI allows, and what it does not, to every operation; return the statuses seen."""
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    seen: dict[str, set[int]] = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        statuses = seen.setdefault(f"{operation.method.upper()} {operation.path}", set())
        for mode in GenerationMode:
            if mode is GenerationMode.POSITIVE or operation.body:  # without a body there is no wrong way to ask
                _attack(server, operation, mode, examples, statuses)
    return seen


def _attack(server: Running, operation: Any, mode: GenerationMode, examples: int, statuses: set[int]) -> None:
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode), ours=st.booleans(), body=BODIES)
    def one(case: Any, ours: bool, body: Any) -> None:
        if ours and "model_name" in (case.path_parameters or {}):
            case.path_parameters["model_name"] = server.package.name
        if operation.path.endswith(":predict"):  # of which KServe's OpenAPI describes no body
            case.body, case.media_type = body, "application/json"
        answer = case.call(base_url=server.url, timeout=30)
        statuses.add(answer.status_code)
        judge(operation.path, answer)

    one()


def judge(path: str, answer: Any) -> None:
    """Hold one answer to the protocol: its own message, or a refusal of one shape; never a failure of the server."""
    assert answer.status_code < 500, (path, answer.status_code, answer.content[:300])
    if answer.status_code >= 400:
        assert list(answer.json()) == ["error"], (path, answer.status_code, answer.content[:300])
    elif path in ANSWERS:
        ANSWERS[path].model_validate(answer.json())


def test_what_the_openapi_allows_and_what_it_does_not_is_answered_or_refused_in_one_shape(server: Running) -> None:
    seen = attack(server, 6)
    assert {"POST /v1/models/{model_name}:predict", f"POST {MODEL}/infer", f"GET {MODEL}"} <= set(seen)
    assert not {200} & seen["POST /v2/repository/models/{model_name}/load"]  # closed without a token


@pytest.mark.slow
def test_the_same_for_long(server: Running) -> None:
    seen = attack(server, 40)
    assert {200, 400, 404} <= seen["POST /v1/models/{model_name}:predict"]
    assert {200, 404} <= seen[f"GET {MODEL}"] and {400, 404} <= seen[f"POST {MODEL}/infer"]


def test_an_answer_is_the_protocols_own_message(server: Running) -> None:
    tensor = {"name": "image", "shape": [2, 6, 5], "datatype": "UINT8", "data": [7] * 60}
    url = f"{server.url}/v2/models/{server.package.name}"
    found = v2.InferenceResponse.model_validate(httpx.post(f"{url}/infer", json={"inputs": [tensor], "id": "x"}).json())
    about = v2.ModelMetadataResponse.model_validate(httpx.get(url).json())
    assert (found.id, found.model_name) == ("x", server.package.name)
    outputs = {output.name: output for output in found.outputs}
    for described in about.outputs:
        output = outputs.pop(described.name)
        assert output.datatype == described.datatype
        assert [side if free != -1 else -1 for side, free in zip(output.shape, described.shape, strict=True)] == (
            described.shape
        )
        assert len(output.data) == output.shape[0] * (output.shape[1] if len(output.shape) > 1 else 1)
    assert not outputs
    assert [(entry.name, entry.datatype, entry.shape) for entry in about.inputs] == [("image", "UINT8", [-1, 6, 5])]


def test_every_method_of_the_protocols_service_is_there(server: Running) -> None:
    service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    missing = []
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        for method in service.methods:
            call = channel.unary_unary(f"/{service.full_name}/{method.name}")
            try:
                call(b"", timeout=30)
            except grpc.RpcError as error:
                if error.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL):
                    missing.append((method.name, error.code(), error.details()))
    assert not missing, json.dumps([str(each) for each in missing])
