"""Reading a package that nobody has vouched for: bytes first (`checking`), then values; refused with the file that
differs.

What was verified is what is used: small files are handed on as they were hashed, and the ONNX model is hashed again in
the moment that it is read to be loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from boatyard import tasks
from boatyard.data import hashing
from boatyard.data.kinds import Kind
from boatyard.data.schema import Array, Schema
from boatyard.errors import ArtifactError, ConfigError, RequestError
from boatyard.packages import checking
from boatyard.packages.manifest import MANIFEST, REQUIRED, Manifest, Needs, PackageFile, strict_json
from boatyard.packages.trust import Trust
from boatyard.prediction import protobuf
from boatyard.prediction.answers import Answers
from boatyard.prediction.decoding import decode
from boatyard.prediction.onnx_model import OnnxModel

GRAPH = "model.onnx"  # of a package that `pack` makes; `Manifest.of` finds files by role
REPORT = "report.json"
OBJECTS = ("verdict", "lineage", "recipe", "report")
READ = ("schema", "labels", "golden", *OBJECTS)

T = TypeVar("T")


@dataclass(frozen=True)
class Package:
    """A verified package. `digest` is the sha256 of its package.json, which pins every other file."""

    path: Path
    digest: str
    name: str
    task: str
    schema: Schema
    golden: Golden
    needs: Needs
    verdict: dict[str, Any] = field(repr=False)
    lineage: dict[str, Any] = field(repr=False)
    recipe: dict[str, Any] = field(repr=False)
    report: dict[str, Any] = field(repr=False)
    files: tuple[PackageFile, ...] = field(repr=False)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the probabilities; none for a regression."""
        return self.schema.labels

    @property
    def graph(self) -> bytes:
        """The ONNX model's bytes, read now and found to be those that were verified; raises ArtifactError."""
        return hashing.read_verified(self.path, *self.of("graph"))

    @property
    def model(self) -> OnnxModel:
        """The ONNX model with the files that it keeps weights in, read now and verified; raises ArtifactError."""
        data, weights = self.graph, {file.path: file for file in self.of("weights")}
        locations = {tensor.location for tensor in protobuf.external_tensors(data)}
        if unlisted := sorted(locations - weights.keys()):
            raise ArtifactError(
                f"{self.path}", expected="an ONNX model that names files of role weights", found=f"{unlisted[0][:80]!r}"
            )
        external = {location: hashing.read_verified(self.path, weights[location]) for location in sorted(locations)}
        return OnnxModel(data, external).check()

    @property
    def model_bytes(self) -> int:
        """How large the ONNX model is, with the files that it keeps weights in."""
        external = [file.bytes for file in self.of("weights") if not file.path.endswith(".safetensors")]
        return sum(file.bytes for file in self.of("graph")) + sum(external)

    def of(self, role: str) -> tuple[PackageFile, ...]:
        """Return the files of a role."""
        return tuple(file for file in self.files if file.role == role)


@dataclass(frozen=True)
class Golden:
    """Rows and the reference outputs that every server of the package must give: V1 instances, inputs, answers."""

    instances: list[Any] = field(repr=False)
    inputs: dict[str, Array] = field(repr=False, compare=False)
    answers: Answers = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.answers)


def verify(path: Path, digest: str | None = None, trust: Trust | None = None) -> Package:
    """Return a package once every file is as package.json says and every value in it has been checked.

    With `digest`, package.json itself must be that one; with `trust`, the package must be vouched for. Raises
    ArtifactError naming the file that differs.
    """
    checked = checking.check(path, digest, trust, roles=READ)
    try:
        return _package(path, checked.manifest, checked.contents)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error


def differences(path: Path) -> list[str]:
    """Say all that is wrong with a package, file by file; an empty list for a good one. Raises nothing."""
    try:
        found = checking.differences(path)
        if not found:
            verify(path)
    except ArtifactError as error:
        return [str(error)]
    return found


# Values


class _Values(BaseModel):
    """Values from a file that nobody has vouched for: right types and no more keys, or refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Golden(_Values):
    instances: Annotated[list[Any], Field(min_length=1)]
    predictions: Annotated[list[Any], Field(min_length=1)]


def _checked(kind: type[T], data: bytes, name: str) -> T:
    """Read JSON into a type, strictly; raises ArtifactError with the file and the key."""
    strict_json(data, name)
    try:
        return TypeAdapter(kind).validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"{name}: {place + ': ' if place else ''}{first['msg'][:200].lower()}") from error


def _package(path: Path, manifest: Manifest, contents: Mapping[str, bytes]) -> Package:
    _check_roles(manifest, REQUIRED)
    values = {role: _file_of(manifest, role) for role in READ}
    schema = read_schema(contents[values["schema"]], values["schema"])
    if schema.task != manifest.task:
        raise ArtifactError(f"{values['schema']} is for {schema.task}, {MANIFEST} says {manifest.task}")
    _check_roles(manifest, tasks.of(schema).roles)
    labels = _checked(list[str], contents[values["labels"]], values["labels"])
    if tuple(labels) != schema.labels:
        raise ArtifactError(f"{values['labels']}", expected="the labels of the schema in their order", found="others")
    objects = {role: _checked(dict[str, Any], contents[values[role]], values[role]) for role in OBJECTS}
    if objects["verdict"].get("passed") is not True:
        raise ArtifactError(f"{values['verdict']}: expected a verdict that passed")
    return Package(
        path=path,
        digest=manifest.digest,
        name=manifest.name,
        task=schema.task,
        schema=schema,
        golden=_golden(schema, contents[values["golden"]]),
        needs=manifest.needs,
        files=manifest.files,
        **objects,
    )


def _check_roles(manifest: Manifest, required: tuple[str, ...]) -> None:
    """Refuse a package without a file of every role that is required."""
    for role in required:
        if not manifest.of(role):
            raise ArtifactError(
                f"{MANIFEST}",
                expected=f"a file of role {role}, which every package of {manifest.task} has",
                found="none",
            )


def _file_of(manifest: Manifest, role: str) -> str:
    """Return the path of the one JSON file of a role whose values are read; of a report it is report.json."""
    paths = [file.path for file in manifest.of(role) if role != "report" or file.path.endswith(f"/{REPORT}")]
    if len(paths) != 1 or not paths[0].endswith(".json"):
        raise ArtifactError(
            f"{MANIFEST}", expected=f"one JSON file of role {role}", found=f"{', '.join(paths) or 'none'}"
        )
    return paths[0]


def read_schema(data: bytes, name: str = "schema.json") -> Schema:
    """Read schema.json; every field must be one that a graph can have."""
    schema = _checked(Schema, data, name)
    if json.loads(json.dumps(schema.to_dict())) != json.loads(data):
        raise ArtifactError(f"{name} has keys that no schema of ours has")
    names = [field.name for field in schema.fields]
    kinds = schema_kinds(schema)
    alone = [kind.name for kind in kinds if kind.alone]
    problems = [kind.problem(field) for field, kind in zip(schema.fields, kinds, strict=True)]
    wrong = {
        "no fields": not names,
        "a field without a name or twice": "" in names or len(set(names)) != len(names),
        f"an {next(iter(alone), 'image')} beside other fields": bool(alone) and len(names) > 1,
        **{problem: True for problem in problems if problem},
    }
    if of_task := tasks.of(schema).wrong_schema(schema):
        wrong[of_task] = True
    for found, is_so in wrong.items():
        if is_so:
            raise ArtifactError(f"{name}: found {found}")
    return schema


def schema_kinds(schema: Schema) -> tuple[Kind, ...]:
    """Return the kinds of a schema's fields; raises ArtifactError for one that is not installed here."""
    try:
        return schema.kinds
    except ConfigError as error:
        raise ArtifactError(f"schema.json: a field is of a kind that is not installed here: {error}") from error


def _golden(schema: Schema, data: bytes) -> Golden:
    values = _checked(_Golden, data, "golden.json")
    try:
        inputs = decode(schema, values.instances)
    except RequestError as error:
        raise ArtifactError(f"golden.json: {error}") from error
    if len(values.predictions) != len(values.instances):
        raise ArtifactError(f"golden.json: {len(values.instances)} instances, {len(values.predictions)} predictions")
    return Golden(values.instances, inputs, _answers(schema, values.predictions))


def _answers(schema: Schema, predictions: list[Any]) -> Answers:
    try:
        return tasks.of(schema).read(schema, predictions)
    except ArtifactError as error:
        raise ArtifactError(f"golden.json: {error}") from error
