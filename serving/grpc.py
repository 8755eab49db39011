"""The gRPC door: V2 ModelInfer with raw or typed tensors; the same arrays, checks and answers as over HTTP."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
from grpc import StatusCode, unary_unary_rpc_method_handler
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthServicer, add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2_grpc import add_ServerReflectionServicer_to_server
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from kserve.protocol.grpc.servicer import InferenceServicer

from boatyard.data.schema import Array, Tensor
from boatyard.errors import ArtifactError, RequestError
from boatyard.prediction import Answers
from boatyard.prediction.decoding import array, from_wires, show, wrong

from . import v2
from .batching import Busy, Closed, Late, Left
from .calls import Abort, Method, Service, message_of, refuse, reply
from .errors import LONGEST, HttpError
from .http2 import Connection
from .predictor import Predictor
from .rest import Front, left
from .streams import Stream
from .tls import Tls

logger = logging.getLogger(__name__)

CONTENTS = {"uint8": "uint_contents", "float32": "fp32_contents", "str": "bytes_contents"}
SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
CODES = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    413: StatusCode.RESOURCE_EXHAUSTED,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}


class Servicer(InferenceServicer):  # type: ignore[misc]
    """KServe's servicer with inference, metadata and refusals of our own."""

    def __init__(self, plane: DataPlane, front: Front) -> None:
        super().__init__(plane, None)
        self.front, self.models = front, front.models

    def infer(self, request: Any, stream: Stream) -> None:
        """Queue an inference; the answer goes to the stream."""
        started, numbers = time.perf_counter(), self.front.exposition.strangers

        def failed(error: Exception) -> None:
            code, message = _refusal(error)
            numbers.answered("grpc", code.value[0], time.perf_counter() - started)
            refuse(stream, code, message)

        def done(answers: Answers | None, error: Exception | None) -> None:
            stream.waiting = None
            stream.finished()
            if answers is None:
                return failed(error or RuntimeError())
            try:
                message = _response(model, request, wanted, answers).SerializeToString()
            except Exception as mistake:  # a call without an answer would wait for ever
                return failed(mistake)
            numbers.answered("grpc", 0, time.perf_counter() - started)
            reply(stream, message)

        try:
            model = self.models.find(request.model_name, request.model_version or None)
            numbers = model.numbers
            model.batcher.expect(left(stream.until))
            inputs, wanted = _inputs(model, request), _outputs(model, request)
            stream.waiting = model.batcher.queue(inputs, done, left(stream.until))
            stream.kept = True
        except Exception as error:
            failed(error)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        model = await self._find(request.name, request.version, context)
        found = v2.metadata(model.name, model.version, model.schema, model.plan.engine)
        return pb.ModelMetadataResponse(
            **{key: found[key] for key in ("name", "versions", "platform", "inputs", "outputs")}
        )

    async def ModelReady(self, request: Any, context: Any) -> Any:
        model = await self._find(request.name, request.version, context)
        return pb.ModelReadyResponse(ready=model.ready)

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        try:
            self.front.admit(_authorization(context))
            name, _version = await self.front.pool.load(request.model_name)
        except Exception as error:
            await context.abort(*_refusal(error))
        return pb.RepositoryModelLoadResponse(model_name=name, isLoaded=True)

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:
        try:
            self.front.admit(_authorization(context))
            await self.front.pool.unload(request.model_name)
        except Exception as error:
            await context.abort(*_refusal(error))
        return pb.RepositoryModelUnloadResponse(model_name=request.model_name, isUnloaded=True)

    async def _find(self, name: str, version: str, context: Any) -> Predictor:
        try:
            return self.models.find(name, version or None)
        except HttpError as error:
            await context.abort(*_refusal(error))
            raise


def _authorization(context: Any) -> bytes:
    return str(dict(context.invocation_metadata() or ()).get("authorization", "")).encode()


def _refusal(error: Exception) -> tuple[StatusCode, str]:
    """Return the code and words of what went wrong; of the server's own mistakes nothing but that."""
    if isinstance(error, RequestError):
        return StatusCode.INVALID_ARGUMENT, str(error)[:LONGEST]
    if isinstance(error, HttpError):
        return CODES[error.status], str(error)[:LONGEST]
    if isinstance(error, ArtifactError):
        logger.warning("load: %s", error)
        return (
            StatusCode.FAILED_PRECONDITION,
            "expected a package that verifies, runs here and predicts as packaged, found another",
        )
    if isinstance(error, Busy):
        return StatusCode.RESOURCE_EXHAUSTED, str(error)
    if isinstance(error, Closed):
        return StatusCode.UNAVAILABLE, "expected a model that is loaded, found it unloaded, at the queue"
    if isinstance(error, Late):
        return StatusCode.DEADLINE_EXCEEDED, "expected an answer within the deadline, found it passed, at the queue"
    if isinstance(error, Left):
        return StatusCode.CANCELLED, "the call was cancelled"
    logger.error("ModelInfer failed", exc_info=error)
    return StatusCode.INTERNAL, "the server failed; its log says why"


class Infer(Method):
    """ModelInfer the short way: no task, the inputs straight into the queue, the answer straight to the connection."""

    def __init__(self, servicer: Servicer) -> None:
        handler = unary_unary_rpc_method_handler(
            None, pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
        )
        super().__init__(f"/{SERVICE}/ModelInfer", handler, _refusal)
        self._servicer = servicer

    def whole(self, stream: Stream) -> None:
        """Answer one whole message at once, any other by a task."""
        body = stream.body
        if (message := message_of(body)) is None:
            return super().whole(stream)
        stream.claim()
        try:
            request = self._read(message)
        except Abort as error:
            return self._failed(stream, error)
        self._servicer.infer(request, stream)

    async def _run(self, stream: Stream, messages: Any) -> None:
        try:
            request = await self._message(stream)
        except Exception as error:
            return self._failed(stream, error)
        stream.task = None
        self._servicer.infer(request, stream)


class Health(HealthServicer):  # type: ignore[misc]
    """Says serving until the server drains; whoever watches is told."""

    def __init__(self, services: Sequence[str]) -> None:
        self._services, self.draining = services, asyncio.Event()

    async def Check(self, request: Any, context: Any) -> Any:
        if request.service not in self._services:
            await context.abort(StatusCode.NOT_FOUND, f"expected {SERVICE} or no name, found {show(request.service)}")
        return self._now()

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if request.service in self._services:
            if not self.draining.is_set():
                yield self._now()
                await self.draining.wait()
            yield self._now()
        else:
            yield HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
        await asyncio.Event().wait()  # until the client leaves, or the server stops

    def _now(self) -> Any:
        stopping = self.draining.is_set()
        return HealthCheckResponse(status=HealthCheckResponse.NOT_SERVING if stopping else HealthCheckResponse.SERVING)


class Server:
    """KServe's gRPC service, whose connections a door brings."""

    def __init__(self, plane: DataPlane, front: Front, tls: Tls | None = None) -> None:
        self._service = Service(front.body_limit, _refusal, front.room)
        self.secure: Callable[[], ssl.SSLContext | None] = tls.renewed() if tls else lambda: None
        self._health = Health(("", SERVICE))
        servicer = Servicer(plane, front)
        add_GRPCInferenceServiceServicer_to_server(servicer, self._service)
        add_HealthServicer_to_server(self._health, self._service)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        add_ServerReflectionServicer_to_server(reflection.aio.ReflectionServicer(names), self._service)
        self._service.add(Infer(servicer))

    @property
    def connections(self) -> set[Connection]:
        """The clients there are."""
        return self._service.connections

    def connection(self) -> Connection:
        """Return what a client's connection becomes."""
        return Connection(self._service)

    def drain(self) -> None:
        """Say not serving to whoever watches; calls are still answered."""
        self._health.draining.set()

    async def stop(self, grace: float) -> None:
        """Take no more calls, and wait for those at work."""
        until = time.monotonic() + grace
        while self.connections and time.monotonic() < until:
            for connection in list(self.connections):  # those too whose handshake took until now
                connection.leave()
            await asyncio.sleep(0.02)
        self.abort()

    def abort(self) -> None:
        """Wait for nobody."""
        for connection in list(self.connections):
            connection.abort()


def _inputs(model: Predictor, request: Any) -> dict[str, Array]:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise wrong(f"raw_input_contents of {len(request.inputs)} inputs", f"{len(raw)}", "raw_input_contents")
    given = {}
    for index, tensor in enumerate(v2.named(model.schema, [entry.name for entry in request.inputs])):
        entry, at = request.inputs[index], f"inputs[{index}]"
        count = v2.rows(tensor, entry.datatype, list(entry.shape), at)
        if raw and entry.HasField("contents"):
            raise wrong("either raw_input_contents or contents", "both", at)
        if raw:
            given[tensor.name] = v2.from_bytes(tensor, count, raw[index], f"raw_input_contents[{index}]")
        else:
            given[tensor.name] = _typed(tensor, count, entry.contents, f"{at}.contents")
    v2.same_rows(given)
    return from_wires(model.schema, given, lambda row, field: f"input {field}, row {row}")


def _typed(tensor: Tensor, count: int, contents: Any, at: str) -> Array:
    """Return a tensor of the typed contents; other types than its own must be empty."""
    for field, _ in contents.ListFields():
        if field.name != CONTENTS[tensor.dtype]:
            raise wrong(CONTENTS[tensor.dtype], field.name, at)
    values: Sequence[Any] = getattr(contents, CONTENTS[tensor.dtype])
    at = f"{at}.{CONTENTS[tensor.dtype]}"
    if tensor.dtype == "str":
        return array(tensor, count, [v2.text(each, f"{at}[{index}]") for index, each in enumerate(values)], at)
    if tensor.dtype == "uint8":
        return array(tensor, count, list(values), at)
    flat = np.array(values, np.float32)  # NaN is how a missing number is sent
    if flat.size != count * int(np.prod(tensor.shape, dtype=int)):
        raise wrong(f"{count * int(np.prod(tensor.shape, dtype=int))} values", f"{flat.size}", at)
    return flat.reshape(count, *tensor.shape)


def _outputs(model: Predictor, request: Any) -> list[str]:
    known = v2.datatypes(model.schema)
    names = [output.name for output in request.outputs]
    for index, name in enumerate(names):
        if name not in known or name in names[:index]:
            raise wrong(f"outputs of {', '.join(known)}, each once", show(name), f"outputs[{index}].name")
    return names or [*known]


def _response(model: Predictor, request: Any, wanted: list[str], answers: Answers) -> Any:
    """Return the answers the way that the inputs came: raw or typed."""
    response = pb.ModelInferResponse(
        model_name=model.name, model_version=model.version, id=request.id or uuid.uuid4().hex
    )
    found = v2.answers(model.schema, answers)
    for name in wanted:
        datatype, values = found[name]
        output = response.outputs.add(name=name, datatype=datatype, shape=values.shape)
        if request.raw_input_contents:
            response.raw_output_contents.append(v2.to_bytes(values))
        elif datatype == "BYTES":
            output.contents.bytes_contents.extend(text.encode() for text in values.ravel().tolist())
        elif datatype == "INT64":
            output.contents.int64_contents.extend(values.ravel().tolist())
        else:
            output.contents.fp32_contents.extend(values.ravel().tolist())
    return response
