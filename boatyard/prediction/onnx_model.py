"""An ONNX model in memory: its own bytes, and those of the files that it keeps weights in.

A model of more than 2 GB cannot be one file; from `MAX_INLINE_BYTES` on, its weights lie in one beside it. Nothing is
ever loaded by a path that a model names: an engine is handed the bytes of each file by name, and a model that names
another file, or bytes beyond the end of one, is refused before an engine sees it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from boatyard.data import hashing
from boatyard.errors import ArtifactError
from boatyard.prediction import protobuf

MAX_INLINE_BYTES = 1_500_000_000  # protobuf ends at 2 GiB, and the graph itself takes room
DATA = "model.onnx.data"  # where the weights of a model lie that is larger
PIN = "sha256:"  # metadata `sha256:FILE` of a model: the digest of a file that it names, so that its own covers it


@dataclass(frozen=True)
class OnnxModel:
    """A model's bytes, and those of the files that hold its external data, by the name that the model gives them."""

    data: bytes = field(repr=False)
    external: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, model: OnnxModel | Path | bytes) -> OnnxModel:
        """Return a checked model: as it is, of bytes that name no other file, or read with the files beside it.

        Raises ArtifactError when it is no graph, or names what is not there.
        """
        if isinstance(model, Path):
            return _read(model)
        return (model if isinstance(model, OnnxModel) else cls(model)).check()

    def check(self) -> OnnxModel:
        """Return the model once all that it names lies inside the bytes that came with it; raises ArtifactError."""
        for tensor in protobuf.external_tensors(self.data) if self.external else ():
            if tensor.location not in self.external:
                raise _named(f"one that names {tensor.location[:80]!r}")
            if not tensor.outer:
                raise _named(f"a constant of a node in {tensor.location!r}")
            size = len(self.external[tensor.location])
            if tensor.offset + tensor.length > size:
                end = tensor.offset + tensor.length
                raise _named(f"a tensor that ends at byte {end} of {tensor.location}, which has {size}")
        if not self.external and protobuf.keeps_data_elsewhere(self.data):
            raise ArtifactError(
                expected="a graph with all its data inside", found="one that names other files", fix="export it again"
            )
        return self

    def check_pins(self) -> OnnxModel:
        """Return the model once its own bytes say the digest of every file that it names; raises ArtifactError.

        Reports and verdicts are bound to a model by the digest of its own bytes.
        """
        pins = protobuf.metadata(self.data) if self.external else {}
        for location, data in self.external.items():
            if pins.get(PIN + location) != (digest := hashing.digest_bytes(data)):
                raise _named(f"{PIN}{location} {pins.get(PIN + location)!r} in it where {digest} lies beside it")
        return self


def _read(path: Path) -> OnnxModel:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"no graph at {path}: {error.strerror}") from error
    locations = {tensor.location for tensor in protobuf.external_tensors(data)}
    return OnnxModel(data, {location: _beside(path, location) for location in sorted(locations)}).check()


def _beside(path: Path, location: str) -> bytes:
    """Return a plain file of the model's own folder; raises ArtifactError."""
    if "/" in location or "\\" in location or "\0" in location or location in ("", ".", ".."):
        raise _named(f"one that names {location[:80]!r}")
    try:
        file = path.with_name(location)
        return hashing.read_plain(file, file.lstat().st_size)
    except OSError as error:
        raise _named(f"one that names {location!r}, which cannot be read: {error.strerror}") from error


def _named(found: str) -> ArtifactError:
    return ArtifactError(
        expected="an ONNX model whose other files lie beside it", found=f"{found}", fix="export it again"
    )
