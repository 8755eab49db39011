"""package.json: what a package lists. Read strictly from bytes that nobody has vouched for, in both formats.

    {"format": 2, "kind": "package", "name": …, "task": …, "needs": {…},
     "files": [{"path": …, "bytes": …, "sha256": …, "role": …}, …]}

Format 1 had neither roles nor needs: a file's role follows from its name there. Importing this takes no library, so a
pod's initializer reads what a server reads, by the same code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boatyard.data import artifacts, hashing
from boatyard.data.hashing import File
from boatyard.errors import ArtifactError

PACKAGE_KIND = "package"
MANIFEST = "package.json"
FORMAT = 2
ROLES = {  # what a file is for; a later kind of file needs a later Boatyard, not another format
    "graph": "the ONNX model",
    "weights": "the weights, for training on; and those that the ONNX model keeps in files of their own",
    "schema": "the fields of a row",
    "labels": "the labels in the order of the probabilities",
    "golden": "test rows, and the reference outputs that every server must give for them",
    "report": "the evaluation of this ONNX model",
    "verdict": "the gate's verdict",
    "lineage": "what the package was made of",
    "recipe": "how the weights were trained",
    "baseline": "statistics of the data, which a monitor compares requests with",
    "tokenizer": "what turns text into numbers",
    "adapter": "weights that are added to those of a base model",
    "statement": "what somebody says of the package's parts, signed or not",
    "document": "for people: no program reads it",
}
SINGLE = ("graph", "schema", "labels", "golden", "verdict", "lineage", "recipe")  # roles that one file has
REQUIRED = (*SINGLE, "weights", "report")  # of every package; a task may ask for more
BY_NAME = {
    "model.onnx": "graph",
    "weights.safetensors": "weights",
    **{f"{role}.json": role for role in ("schema", "labels", "golden", "verdict", "lineage", "recipe")},
}
SUFFIXES_1 = (".onnx", ".safetensors", ".json", ".jsonl", ".html", ".parquet", ".png", ".svg", ".csv", ".md")
SUFFIXES = (*SUFFIXES_1, ".data", ".model", ".txt", ".jinja", ".pem", ".sig")
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILES = 1000
MAX_PATH_CHARS = 200
MAX_FILE_BYTES = 1 << 50
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,51}[a-z0-9])?")
_TASK = re.compile(r"[a-z][-a-z0-9_]{0,62}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"[A-Za-z0-9_][-A-Za-z0-9._+@=]*")  # of a path; none is hidden
_WORD = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]{0,62}")
_VERSION = re.compile(r"\d{1,6}(\.\d{1,6}){0,3}")


@dataclass(frozen=True)
class PackageFile(File):
    """A file of a package: path, size and sha256, and what it is for."""

    role: str


@dataclass(frozen=True)
class Needs:
    """What must be there to run a package: one of these engines, one of these providers of ONNX Runtime, all of
    these processor flags (as the kernel names them), ONNX Runtime of at least this version. Empty: anything will do.
    """

    engine: tuple[str, ...] = ()
    cpu: tuple[str, ...] = ()
    provider: tuple[str, ...] = ()
    onnxruntime: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return what is needed as JSON values; what is not needed is left out."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items() if value}


@dataclass(frozen=True)
class Manifest:
    """What package.json says. `digest` is its own sha256, which pins every other file."""

    format: int
    name: str
    task: str
    files: tuple[PackageFile, ...]
    digest: str
    needs: Needs = field(default_factory=Needs)

    def listed(self) -> dict[str, File]:
        """Return the files by path."""
        return {file.path: file for file in self.files}

    def of(self, role: str) -> tuple[PackageFile, ...]:
        """Return the files of a role."""
        return tuple(file for file in self.files if file.role == role)


def read(data: bytes, at: str) -> Manifest:
    """Read package.json from its bytes; `at` is where it was found. Raises ArtifactError that names the key."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise ArtifactError(f"{at} has more than {MAX_MANIFEST_BYTES} bytes")
    value = strict_json(data, at)
    if not isinstance(value, dict) or value.get("kind") != PACKAGE_KIND:
        raise _unlike(at, "kind", f"a {PACKAGE_KIND}", value.get("kind") if isinstance(value, dict) else value)
    version = value.get("format")
    if type(version) is not int or version not in (1, FORMAT):
        newer = "; it was made by a later Boatyard, use that one" if type(version) is int and version > FORMAT else ""
        raise ArtifactError(f"{at}", expected=f"a package of format 1 or {FORMAT}", found=f"{_shown(version)}{newer}")
    keys = {"format", "kind", "name", "task", "files", *(("needs",) if version > 1 else ())}
    _check_keys(value, keys, at, "")
    if not isinstance(value["name"], str) or not _NAME.fullmatch(value["name"]):
        raise _unlike(at, "name", "lower-case letters, digits and -", value["name"])
    if not isinstance(value["task"], str) or not _TASK.fullmatch(value["task"]):
        raise _unlike(at, "task", "a task's name", value["task"])
    files, digest = _files(value["files"], version, at), hashing.digest_bytes(data)
    needs = _needs(value["needs"], at) if version > 1 else Needs()
    return Manifest(version, value["name"], value["task"], files, digest, needs)


def read_files(data: bytes, at: str) -> dict[str, File]:
    """Read what package.json lists, by path: what `storage.transfer` asks for."""
    return read(data, at).listed()


def write(folder: Path, name: str, task: str, roles: Mapping[str, str], needs: Needs | None = None) -> str:
    """Write the package.json of a folder and return its digest; `roles` are those of files whose name says none."""
    files = [
        {**vars(file), "role": roles.get(file.path) or role_of(file.path)}
        for file in artifacts.list_files(folder, exclude=(MANIFEST,))
    ]
    about = {"format": FORMAT, "kind": PACKAGE_KIND, "name": name, "task": task, "needs": (needs or Needs()).to_dict()}
    artifacts.write_json(folder / MANIFEST, {**about, "files": files})
    return hashing.digest_file(folder / MANIFEST)


def role_of(path: str) -> str:
    """Return the role that a file's name says: how format 1 knew it, and how this one names its own files."""
    return "report" if path.startswith("report/") else BY_NAME.get(path, "document")


def _files(entries: Any, version: int, at: str) -> tuple[PackageFile, ...]:
    if not isinstance(entries, list) or len(entries) > MAX_FILES:
        raise _unlike(at, "files", f"a list of at most {MAX_FILES}", entries)
    files = [_file(entry, version, f"{at}: files.{number}") for number, entry in enumerate(entries)]
    paths: set[str] = set()
    for file in files:
        if file.path in paths:
            raise ArtifactError(f"{at}: {file.path!r} is listed twice")
        paths.add(file.path)
    for role in SINGLE:
        if len(same := [file.path for file in files if file.role == role]) > 1:
            raise ArtifactError(f"{at}", expected=f"one file of role {role}", found=f"{', '.join(same[:3])}")
    return tuple(files)


def _file(entry: Any, version: int, at: str) -> PackageFile:
    if not isinstance(entry, dict):
        raise _unlike(at, "", "path, bytes, sha256", entry)
    _check_keys(entry, {"path", "bytes", "sha256", *(("role",) if version > 1 else ())}, at, "")
    path, size, sha256 = entry["path"], entry["bytes"], entry["sha256"]
    if not isinstance(path, str) or not 0 < len(path) <= MAX_PATH_CHARS:
        raise _unlike(at, "path", f"1 to {MAX_PATH_CHARS} characters", path)
    _check_path(path, version, at.partition(": ")[0])
    if type(size) is not int or not 0 <= size <= MAX_FILE_BYTES:
        raise _unlike(at, "bytes", "a size", size)
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise _unlike(at, "sha256", "64 hexadecimal digits", sha256)
    role = entry["role"] if version > 1 else role_of(path)
    if not isinstance(role, str) or role not in ROLES:
        raise ArtifactError(
            f"{at}: {path}",
            expected=f"a role of {', '.join(ROLES)}",
            found=f"{_shown(role)}",
            fix="a later Boatyard may know it: use the one that made the package",
        )
    return PackageFile(path, size, sha256, role)


def _check_path(path: str, version: int, at: str) -> None:
    parts = path.split("/")
    if path == MANIFEST or any(part in ("", ".", "..") for part in parts) or "\\" in path or "\0" in path:
        raise ArtifactError(f"{at}: {path!r} points outside the package")
    if version > 1 and not all(_PART.fullmatch(part) for part in parts):
        raise ArtifactError(f"{at}: {path!r}: expected letters, digits, - . _ + @ = between slashes, no hidden file")
    suffixes = SUFFIXES if version > 1 else SUFFIXES_1
    if not path.endswith(suffixes):
        raise ArtifactError(f"{at}: {path!r} is none of {', '.join(suffixes)}", fix="a package holds nothing else")


def _needs(value: Any, at: str) -> Needs:
    if not isinstance(value, dict):
        raise _unlike(at, "needs", "an object", value)
    if more := [key for key in value if key not in Needs.__dataclass_fields__]:
        raise ArtifactError(
            f"{at}: needs",
            expected=f"{', '.join(Needs.__dataclass_fields__)}",
            found=f"{_shown(more[0])}",
            fix="what it asks for is not known here: use the Boatyard that made the package",
        )
    version = value.get("onnxruntime", "")
    if version != "" and (not isinstance(version, str) or not _VERSION.fullmatch(version)):
        raise _unlike(at, "needs.onnxruntime", "a version such as 1.20", version)
    words = {key: _words(value.get(key, []), f"needs.{key}", at) for key in ("engine", "cpu", "provider")}
    return Needs(words["engine"], words["cpu"], words["provider"], version)


def _words(value: Any, key: str, at: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) and _WORD.fullmatch(word) for word in value):
        raise _unlike(at, key, "a list of names", value)
    return tuple(value)


def strict_json(data: bytes, at: str) -> Any:
    """Read JSON strictly: no key twice, no NaN, no more depth than a package needs; raises ArtifactError."""
    try:
        return json.loads(data, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{at} is not JSON of ours: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key is given twice")
    return values


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _check_keys(value: Mapping[str, Any], keys: set[str], at: str, place: str) -> None:
    if missing := sorted(keys - value.keys()):
        raise ArtifactError(f"{at}: {place}{missing[0]}", expected="it", found="none")
    if more := [key for key in value if key not in keys]:
        raise ArtifactError(f"{at}", expected=f"{', '.join(sorted(keys))}", found=f"{_shown(more[0])} too")


def _unlike(at: str, key: str, expected: str, found: Any) -> ArtifactError:
    return ArtifactError(f"{at}: {key + ': ' if key else ''}expected {expected}, found {_shown(found)}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
