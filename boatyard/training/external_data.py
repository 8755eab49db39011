"""Weights that are too large for one ONNX file, moved to a file beside it."""

from __future__ import annotations

from typing import Any

import onnx

from boatyard.data import hashing
from boatyard.prediction.onnx_model import DATA, MAX_INLINE_BYTES, PIN, OnnxModel

ALIGNMENT_BYTES = 4096  # where a tensor begins: a page, so that whoever maps the file can
SMALL_TENSOR_BYTES = 1024  # such stay in the model


def split(model: bytes, most: int = MAX_INLINE_BYTES) -> OnnxModel:
    """Return a model as it is, or with its weights in a file `model.onnx.data` if it has more bytes than `most`.

    The model's metadata says that file's sha256, so that the digest of the model covers it.
    """
    if len(model) <= most:
        return OnnxModel(model)
    proto, data = onnx.load_model_from_string(model), bytearray()
    for tensor in proto.graph.initializer:
        if len(tensor.raw_data) >= SMALL_TENSOR_BYTES:
            data += bytes(-len(data) % ALIGNMENT_BYTES)
            _move(tensor, data)
    external = bytes(data)
    proto.metadata_props.add(key=PIN + DATA, value=hashing.digest_bytes(external))
    return OnnxModel(proto.SerializeToString(), {DATA: external}).check()


def _move(tensor: Any, data: bytearray) -> None:
    """Put a tensor's bytes at the end of `data`, and say in it where they are."""
    where = {"location": DATA, "offset": len(data), "length": len(tensor.raw_data)}
    data += tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in where.items():
        tensor.external_data.add(key=key, value=str(value))
