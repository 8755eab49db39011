"""The project file, `boatyard.yaml`: read, overridden, checked; what is wrong is said with the key's path.

Defaults < file < `--set train.epochs=3`. Unknown keys, wrong types or units and contradictory settings fail with the
key's path, before any work.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from boatyard.errors import ConfigError
from boatyard.project.fields import Section
from boatyard.project.project import Project
from boatyard.spelling import hint, shorten

FILE = "boatyard.yaml"
DEEPEST = 20  # levels of a project file, of which Kubeflow's parameters take some 30
MOST_VALUES = 100_000  # values of a project file, each alias counted as what it stands for
S = TypeVar("S", bound="Section")


def load(path: Path, overrides: Mapping[str, Any] | Iterable[str] = ()) -> Project:
    """Read a project file, or the one in a folder, with `key.path=value` overrides, or a mapping of them, on top.

    Raises ConfigError with every wrong key's path, what was found and what is allowed.
    """
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"no project file at {file}", fix="`boatyard init` writes one")
    try:
        values = parse(file.read_text(encoding="utf-8"), str(file))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not text in UTF-8: {error}") from error
    apply(values, overrides)
    return check(values, str(file)).at(file.parent)


def parse(text: str, where: str) -> dict[str, Any]:
    """Read YAML text into values; a key given twice is an error, as is anything but a mapping."""
    values = _yaml(text, where)
    if not isinstance(values, dict):
        raise ConfigError(f"{where}", expected="sections such as data: and train:", found=f"{type(values).__name__}")
    return values


def check(values: Mapping[str, Any], where: str) -> Project:
    """Make a Project of plain values; raises ConfigError."""
    try:
        return Project.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{where}: {_sentence(e)}" for e in error.errors())) from error


def section(kind: type[S], values: Mapping[str, Any]) -> S:
    """Make one section of plain values, as a component receives them; raises ConfigError."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_sentence(e, kind) for e in error.errors())) from error


def schema() -> dict[str, Any]:
    """Return the JSON schema of the project file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Project.model_json_schema()}


class _Loader(yaml.SafeLoader):
    """YAML without the surprise of a key given twice, of which the last would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, Hashable):
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} is no key", key.start_mark)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} is given twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


# 1e-3 is a number to people and a string to YAML 1.1
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)$|^[-+]?(\d+\.\d*|\.\d+)$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def _yaml(text: str, where: str) -> Any:
    """Read YAML text; raises ConfigError. Values that their tag does not fit raise what Python's own types raise."""
    try:
        value = yaml.load(text, Loader=_Loader)
    except RecursionError as error:
        raise ConfigError(f"{shorten(where)} is nested too deeply to be read") from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise ConfigError(f"{shorten(where)} is not YAML: {' '.join(str(error).split())}") from error
    _refuse_unwritable(value, shorten(where))
    return value


def _refuse_unwritable(value: Any, where: str) -> None:
    """Refuse what no pipeline's parameter holds: deep or endless nesting (aliases), and text that is not Unicode."""
    level, seen = [value], 0
    for _ in range(DEEPEST):
        branches = [each for each in level if isinstance(each, dict | list | tuple | set)]
        seen += sum(map(len, branches))
        if seen > MOST_VALUES:
            raise ConfigError(
                f"{where}", expected=f"at most {MOST_VALUES} values", found="more (an alias counts each time)"
            )
        if any(isinstance(each, str) and not _encodes(each) for each in level):
            raise ConfigError(f"{where}", expected="text in Unicode", found="half of a surrogate pair")
        level = [item for branch in branches for item in _items(branch)]
        if not level:
            return
    raise ConfigError(f"{where}", expected=f"values nested at most {DEEPEST} deep", found="more")


def _items(branch: Any) -> list[Any]:
    return [*branch, *branch.values()] if isinstance(branch, dict) else list(branch)


def _encodes(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def apply(values: dict[str, Any], overrides: Mapping[str, Any] | Iterable[str]) -> None:
    """Set each `key.path=value`, whose value is read as YAML, or each item of a mapping; raises ConfigError."""
    if isinstance(overrides, Mapping):
        for path, value in overrides.items():
            section, key = _place(values, path, f"{path}={shorten(repr(value))}")
            section[key] = value
        return
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set wants key.path=value such as train.epochs=3, found {override!r}")
        section, key = _place(values, path, override)
        section[key] = _yaml(text, f"--set {override}")


def _place(values: dict[str, Any], path: str, override: str) -> tuple[dict[str, Any], str]:
    """Return the section that a dotted path leads to, those on the way made, and the key in it."""
    *parents, last = path.split(".")
    for parent in parents:
        if values.get(parent) is None:
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            raise ConfigError(f"--set {override}: {parent} is not a section")
    return values, last


def _sentence(error: Any, kind: type[Section] = Project) -> str:
    """Say one of pydantic's errors in a section with the key's path, what was found and what is allowed."""
    name = next((key for key, field in Project.model_fields.items() if field.annotation is kind), None)
    location = [name, *error["loc"]] if name else error["loc"]
    path = ".".join(str(part) for part in location if not str(part).startswith("function-"))
    at = f"{path}: " if path else ""
    if error["type"] == "extra_forbidden":
        return f"{at}no such key; {_near(error['loc'], kind)}"
    if error["type"] == "missing":
        return f"{at}is needed and not given"
    message = error["msg"].removeprefix("Value error, ")
    found = "" if error["type"] == "value_error" else f", found {shorten(repr(error['input']))}"
    return f"{at}{message[0].lower()}{message[1:]}{found}"


def _near(location: tuple[Any, ...], within: type[Section]) -> str:
    """Say which keys the section at a location within another has, the nearest first."""
    kind: Any = within
    for part in location[:-1]:
        annotation = kind.model_fields[part].annotation if part in getattr(kind, "model_fields", {}) else None
        options = [annotation, *getattr(annotation, "__args__", ())]
        kind = next((o for o in options if isinstance(o, type) and issubclass(o, Section)), None)
        if kind is None:
            return "remove it"
    return hint(str(location[-1]), list(kind.model_fields))
