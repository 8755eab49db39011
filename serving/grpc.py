"""The gRPC door: V2 ModelInfer with raw or typed tensors; the same arrays, checks and answers as over HTTP."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from grpc import StatusCode, aio, method_handlers_generic_handler, unary_unary_rpc_method_handler
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from kserve.protocol.grpc.servicer import InferenceServicer

from boatyard.errors import ArtifactError, ConfigError, RequestError
from boatyard.prediction import Answers, check
from boatyard.prediction.decoding import array, show, wrong
from boatyard.schema import Array, Tensor

from . import v2
from .batching import Busy, Closed, Late
from .errors import LONGEST, HttpError
from .predictor import Predictor
from .rest import Front
from .tls import Tls

logger = logging.getLogger(__name__)

CONTENTS = {"uint8": "uint_contents", "float32": "fp32_contents", "str": "bytes_contents"}
SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
CODES = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
}


class Servicer(InferenceServicer):  # type: ignore[misc]
    """KServe's servicer with inference, metadata and refusals of our own."""

    def __init__(self, plane: DataPlane, front: Front) -> None:
        super().__init__(plane, None)
        self.front, self.models = front, front.models

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        started, numbers = time.perf_counter(), self.front.exposition.strangers
        try:
            model = self.models.find(request.model_name, request.model_version or None)
            numbers = model.numbers
            inputs = _inputs(model, request)
            wanted = _outputs(model, request)
            answers = await model.batcher.submit(inputs, context.time_remaining())
            response = _response(model, request, wanted, answers)
        except Exception as error:
            code, message = _refusal(error)
            numbers.answered("grpc", code.value[0], time.perf_counter() - started)
            await context.abort(code, message)
        numbers.answered("grpc", 0, time.perf_counter() - started)
        return response

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        model = await self._find(request.name, request.version, context)
        found = v2.metadata(model.name, model.version, model.schema)
        return pb.ModelMetadataResponse(
            **{key: found[key] for key in ("name", "versions", "platform", "inputs", "outputs")}
        )

    async def ModelReady(self, request: Any, context: Any) -> Any:
        model = await self._find(request.name, request.version, context)
        return pb.ModelReadyResponse(ready=model.ready)

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        try:
            self.front.admit(_authorization(context))
            model = await self.models.load_by_name(request.model_name)
        except Exception as error:
            await context.abort(*_refusal(error))
        return pb.RepositoryModelLoadResponse(model_name=model.name, isLoaded=True)

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:
        try:
            self.front.admit(_authorization(context))
            self.models.remove(*request.model_name.split("/", 1))
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
        return StatusCode.FAILED_PRECONDITION, "wanted a package that verifies and answers as sealed, found another"
    if isinstance(error, Busy):
        return StatusCode.RESOURCE_EXHAUSTED, str(error)
    if isinstance(error, Closed):
        return StatusCode.UNAVAILABLE, "wanted a model that is loaded, found it unloaded, at the queue"
    if isinstance(error, Late):
        return StatusCode.DEADLINE_EXCEEDED, "wanted an answer within the deadline, found it passed, at the queue"
    logger.error("ModelInfer failed", exc_info=error)
    return StatusCode.INTERNAL, "the server failed; its log says why"


class Methods:
    """What generated code takes for a server: it hands the methods on, each able to refuse what is no message.

    gRPC's own answer to such bytes is an unknown error of the server. An interceptor could say better, too, and costs
    more than an inference.
    """

    def __init__(self, server: Any) -> None:
        self._server = server

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Give the server a service's methods."""
        readable = {name: _readable(f"/{service}/{name}", handler) for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((method_handlers_generic_handler(service, readable),))

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Do nothing: these are the same methods again."""


def _readable(method: str, handler: Any) -> Any:
    """Return a method that answers bytes that are no message as a client's mistake."""
    if handler.unary_unary is None:
        return handler

    def read(data: bytes) -> Any:
        try:
            return handler.request_deserializer(data)
        except DecodeError:
            return None

    async def answer(request: Any, context: Any) -> Any:
        if request is None:
            await context.abort(StatusCode.INVALID_ARGUMENT, f"wanted the message of {method}, found bytes")
        return await handler.unary_unary(request, context)

    return unary_unary_rpc_method_handler(answer, read, handler.response_serializer)


class Server:
    """KServe's gRPC service at an address of our choice, with a bound on a message."""

    def __init__(self, plane: DataPlane, front: Front, host: str, port: int, tls: Tls | None = None) -> None:
        self.servicer, self.address, self.body_limit = Servicer(plane, front), f"{host}:{port}", front.body_limit
        self._tls = tls
        self._health = health.aio.HealthServicer()

    async def start(self) -> None:
        """Listen; raises ConfigError when the port cannot be had."""
        options = [("grpc.max_receive_message_length", self.body_limit), ("grpc.max_send_message_length", -1)]
        options.append(("grpc.so_reuseport", 0))  # a port that another process listens at is an error, not shared
        self._server = aio.server(ThreadPoolExecutor(max_workers=1), options=options)
        methods = Methods(self._server)
        add_GRPCInferenceServiceServicer_to_server(self.servicer, methods)
        add_HealthServicer_to_server(self._health, methods)
        services = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(services, self._server)
        for service in ("", SERVICE):
            await self._health.set(service, HealthCheckResponse.SERVING)
        try:
            if self._tls:
                self._server.add_secure_port(self.address, self._tls.grpc_credentials())
            else:
                self._server.add_insecure_port(self.address)
        except RuntimeError as error:
            raise ConfigError(f"cannot listen at {self.address} for gRPC; give another port, or 0 for none") from error
        await self._server.start()

    async def drain(self) -> None:
        """Say not serving to whoever watches; calls are still answered."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace: float) -> None:
        """Take no more calls, and wait for those at work."""
        await self._server.stop(grace)


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
    check(model.schema, given, lambda row, field: f"input {field}, row {row}")
    return given


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
    known = [output["name"] for output in v2.outputs(model.schema)]
    names = [output.name for output in request.outputs]
    for index, name in enumerate(names):
        if name not in known or name in names[:index]:
            raise wrong(f"outputs of {', '.join(known)}, each once", show(name), f"outputs[{index}].name")
    return names or known


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
            output.contents.bytes_contents.extend(label.encode() for label in values.tolist())
        else:
            output.contents.fp32_contents.extend(values.ravel().tolist())
    return response
