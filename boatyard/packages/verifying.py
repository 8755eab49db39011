"""Reading a package that nobody has vouched for: bytes first, then values; refused with the file that differs.

What was verified is what is used: the bytes that were hashed are handed on, not read again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from boatyard.data import artifacts
from boatyard.data.schema import Array, Schema, Task
from boatyard.data.schema import Field as SchemaField
from boatyard.errors import ArtifactError, RequestError
from boatyard.prediction.decoding import decode
from boatyard.prediction.engine import Answers

KIND = "package"
NAME = "package.json"
GRAPH = "model.onnx"
OBJECTS = {name: f"{name}.json" for name in ("verdict", "lineage", "recipe")} | {"report": "report/report.json"}
READ = (GRAPH, "schema.json", "labels.json", "golden.json", *OBJECTS.values())
WANTED = (*READ, "weights.safetensors")
SUFFIXES = (".onnx", ".safetensors", ".json", ".jsonl", ".html", ".parquet", ".png", ".svg", ".csv", ".md")
LONGEST_JSON = 256 << 20
LONGEST_MANIFEST = 1 << 20
TOLERANCE = 1e-5

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
T = TypeVar("T")


@dataclass(frozen=True)
class Package:
    """A verified package. `digest` is the sha256 of its package.json, which pins every other file."""

    path: Path
    digest: str
    name: str
    task: Task
    schema: Schema
    golden: Golden
    verdict: dict[str, Any] = field(repr=False)
    lineage: dict[str, Any] = field(repr=False)
    recipe: dict[str, Any] = field(repr=False)
    report: dict[str, Any] = field(repr=False)
    files: tuple[artifacts.File, ...] = field(repr=False)
    graph: bytes = field(repr=False)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the probabilities; none for a regression."""
        return self.schema.labels


@dataclass(frozen=True)
class Golden:
    """Rows and the answers that every server of the package must give: V1 instances, graph inputs, answers."""

    instances: list[Any] = field(repr=False)
    inputs: dict[str, Array] = field(repr=False, compare=False)
    answers: Answers = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.answers)


def verify(path: Path, digest: str | None = None) -> Package:
    """Return a package once every file is as package.json says and every value in it has been checked.

    With `digest`, package.json itself must be that one. Raises ArtifactError naming the file that differs.
    """
    manifest, found = _manifest(path)
    if digest is not None and found != digest:
        raise ArtifactError(f"{path}: {NAME} was changed: expected sha256 {digest}, found {found}")
    contents: dict[str, bytes] = {}
    for difference in _differences(path, manifest, contents):
        raise ArtifactError(f"{path}: {difference}; restore it or pull the package again")
    try:
        return _package(path, found, manifest, contents)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error


def differences(path: Path) -> list[str]:
    """Say all that is wrong with a package, file by file; an empty list for a good one. Raises nothing."""
    try:
        manifest, _ = _manifest(path)
        found = list(_differences(path, manifest, {}))
        if not found:
            verify(path)
    except ArtifactError as error:
        return [str(error)]
    return found


# Reading: bytes first, then values


class _Values(BaseModel):
    """Values from a file that nobody has vouched for: right types and no more keys, or refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _File(_Values):
    path: Annotated[str, Field(min_length=1, max_length=200)]
    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256


class _Manifest(_Values):
    format: Literal[1]
    kind: Literal["package"]
    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,51}[a-z0-9])?$")]
    task: Task
    files: Annotated[list[_File], Field(max_length=1000)]


class _Label(_Values):
    label: str
    probabilities: list[Annotated[float, Field(ge=-TOLERANCE, le=1 + TOLERANCE)]]


class _Golden(_Values):
    instances: Annotated[list[Any], Field(min_length=1)]
    predictions: list[_Label] | list[Annotated[float, Field(allow_inf_nan=False)]]


def _manifest(path: Path) -> tuple[_Manifest, str]:
    if not os.path.isdir(path):  # where Path.is_dir raises, this is False
        raise ArtifactError(f"no package at {path}: expected a folder with {NAME} in it")
    data = _bytes(path, NAME, LONGEST_MANIFEST)
    try:
        manifest = _checked(_Manifest, data, NAME)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error
    listed = [file.path for file in manifest.files]
    for name in listed:
        if name == NAME or any(part in ("", ".", "..") for part in name.split("/")) or "\\" in name or "\0" in name:
            raise ArtifactError(f"{path}: {NAME}: {name!r} points outside the package")
        if listed.count(name) > 1:
            raise ArtifactError(f"{path}: {NAME}: {name!r} is listed twice")
        if not name.endswith(SUFFIXES):
            raise ArtifactError(
                f"{path}: {NAME}: {name!r} is none of {', '.join(SUFFIXES)}; a package holds nothing else"
            )
    for name in WANTED:
        if name not in listed:
            raise ArtifactError(f"{path}: {NAME} does not list {name}, which every package has")
    return manifest, artifacts.digest_bytes(data)


def _differences(path: Path, manifest: _Manifest, contents: dict[str, bytes]) -> Iterator[str]:
    """Say how a folder differs from its manifest; what is needed of it is kept in `contents` as it was hashed."""
    listed = {file.path: file for file in manifest.files}
    there = set()
    for name, problem in _walk(path):
        there.add(name)
        if problem:
            yield f"{name} {problem}"
        elif name not in listed and name != NAME:
            yield f"{name} is not in {NAME}"
    for name, file in listed.items():
        if name not in there:
            yield f"{name} is missing"
            continue
        try:
            size, sha256, data = _hash(path / name, keep=name in READ)
        except OSError as error:
            yield f"{name} cannot be read: {error.strerror}"
            continue
        if size != file.bytes:
            yield f"{name} has {size} bytes, {NAME} says {file.bytes}"
        elif sha256 != file.sha256:
            yield f"{name} was changed (sha256 {sha256[:12]}…, {NAME} says {file.sha256[:12]}…)"
        contents[name] = data


def _walk(path: Path, below: str = "") -> Iterator[tuple[str, str | None]]:
    """Give everything in a folder but folders, by path, and what is wrong with it; links are not followed."""
    try:
        entries = sorted(os.scandir(path / below), key=lambda entry: entry.name)
    except OSError as error:
        yield below or ".", f"cannot be read: {error.strerror}"
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(path, f"{below}{entry.name}/")
        else:
            yield below + entry.name, None if entry.is_file(follow_symlinks=False) else "is not a plain file"


def _hash(path: Path, *, keep: bool) -> tuple[int, str, bytes]:
    """Read a plain file once: its size, its sha256 and, if wanted, the very bytes that were hashed."""
    sha256, size, kept = hashlib.sha256(), 0, []
    with _open(path) as file:
        while chunk := file.read(artifacts.CHUNK):
            sha256.update(chunk)
            size += len(chunk)
            if keep:
                kept.append(chunk)
    return size, sha256.hexdigest(), b"".join(kept)


def _open(path: Path) -> Any:
    """Open a plain file, and nothing that is a link, a pipe or a device by now."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(0, "not a plain file")
    return os.fdopen(handle, "rb")


def _bytes(path: Path, name: str, most: int) -> bytes:
    try:
        with _open(path / name) as file:
            data: bytes = file.read(most + 1)
    except OSError as error:
        raise ArtifactError(f"no package at {path}: {name} cannot be read ({error.strerror})") from error
    if len(data) > most:
        raise ArtifactError(f"{path}: {name} has more than {most} bytes")
    return data


def _json(data: bytes, name: str) -> Any:
    """Read JSON strictly: no key twice, no NaN, no more depth or length than a package needs."""
    if len(data) > LONGEST_JSON:
        raise ArtifactError(f"{name} has {len(data)} bytes, more than {LONGEST_JSON}")
    try:
        return json.loads(data, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{name} is not JSON of ours: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key is given twice")
    return values


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _checked(kind: type[T], data: bytes, name: str) -> T:
    """Read JSON into a type, strictly; raises ArtifactError with the file and the key."""
    _json(data, name)
    try:
        return TypeAdapter(kind).validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"{name}: {place + ': ' if place else ''}{first['msg'][:200].lower()}") from error


def _package(path: Path, digest: str, manifest: _Manifest, contents: Mapping[str, bytes]) -> Package:
    schema = read_schema(contents["schema.json"])
    if schema.task != manifest.task:
        raise ArtifactError(f"schema.json is for {schema.task}, {NAME} says {manifest.task}")
    labels = _checked(list[str], contents["labels.json"], "labels.json")
    if tuple(labels) != schema.labels:
        raise ArtifactError("labels.json: expected the labels of schema.json in their order, found others")
    objects = {}
    for name, file in OBJECTS.items():
        objects[name] = _checked(dict[str, Any], contents[file], file)
    if objects["verdict"].get("passed") is not True:
        raise ArtifactError("verdict.json: expected a verdict that passed")
    return Package(
        path=path,
        digest=digest,
        name=manifest.name,
        task=manifest.task,
        schema=schema,
        golden=_golden(schema, contents["golden.json"]),
        files=tuple(artifacts.File(file.path, file.bytes, file.sha256) for file in manifest.files),
        graph=contents[GRAPH],
        **objects,
    )


def read_schema(data: bytes) -> Schema:
    """Read schema.json; every field must be one that a graph can have."""
    schema = _checked(Schema, data, "schema.json")
    if json.loads(json.dumps(schema.to_dict())) != json.loads(data):
        raise ArtifactError("schema.json has keys that no schema of ours has")
    names = [field.name for field in schema.fields]
    images = [field for field in schema.fields if field.kind == "image"]
    wrong = {
        "no fields": not names,
        "a field without a name or twice": "" in names or len(set(names)) != len(names),
        "an image beside other fields": bool(images) and len(names) > 1,
        "an image that is not [H, W] or [H, W, C]": any(not _is_image(image) for image in images),
        "a column of a wrong type": any(not _is_column(f) for f in schema.fields if f.kind != "image"),
        "labels that are not two or more different ones": (schema.task == "classification")
        and (len(schema.labels) < 2 or len(set(schema.labels)) != len(schema.labels)),
        "labels of a number": schema.task == "regression" and bool(schema.labels),
    }
    for found, is_so in wrong.items():
        if is_so:
            raise ArtifactError(f"schema.json: found {found}")
    return schema


def _is_image(field: SchemaField) -> bool:
    sides = len(field.shape) in (2, 3) and all(0 < side <= 1 << 16 for side in field.shape)
    return sides and math.prod(field.shape) <= 1 << 28 and field.dtype in ("uint8", "float32")


def _is_column(field: SchemaField) -> bool:
    return field.shape == () and field.dtype == {"number": "float32", "category": "str"}[field.kind]


def _golden(schema: Schema, data: bytes) -> Golden:
    values = _checked(_Golden, data, "golden.json")
    try:
        inputs = decode(schema, values.instances)
    except RequestError as error:
        raise ArtifactError(f"golden.json: {error}") from error
    if len(values.predictions) != len(values.instances):
        raise ArtifactError(f"golden.json: {len(values.instances)} instances, {len(values.predictions)} predictions")
    return Golden(values.instances, inputs, _answers(schema, values.predictions))


def _answers(schema: Schema, predictions: Sequence[_Label | float]) -> Answers:
    labels = [each for each in predictions if isinstance(each, _Label)]
    if schema.task == "regression":
        if labels:
            raise ArtifactError("golden.json: expected numbers as predictions, found labels")
        return Answers(values=np.array(predictions, np.float32))
    for index, each in enumerate(labels):
        if each.label not in schema.labels or len(each.probabilities) != len(schema.labels):
            raise ArtifactError(
                f"golden.json: prediction {index}: expected one of {len(schema.labels)} labels and as many "
                f"probabilities, found {each.label[:60]!r} and {len(each.probabilities)}"
            )
    if len(labels) != len(predictions):
        raise ArtifactError("golden.json: expected labels and probabilities as predictions, found numbers")
    return Answers(
        labels=np.array([each.label for each in labels], object),
        probabilities=np.array([each.probabilities for each in labels], np.float32),
    )
