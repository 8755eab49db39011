"""What a key of the project file may hold: numbers, quantities, durations, names; and the base of every section."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic_core import core_schema

from boatyard import plugins
from boatyard.spelling import hint, shorten

EXACT = 2**53  # the greatest whole number that comes out of a pipeline's parameter as it went in


def finite_number(value: Any) -> Any:
    """Refuse what YAML and pydantic would take for a number and people would not: text, true, infinity."""
    if isinstance(value, bool | str):
        raise ValueError(f"expected a number, found {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"expected a finite number, found {value}")
    return value


def _quantity(value: Any) -> Any:
    if isinstance(value, bool) or not re.fullmatch(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?", str(value)):
        raise ValueError(f"expected a Kubernetes quantity such as 500m, 2 or 4Gi, found {value!r}")
    return str(value)


def _duration(value: Any) -> Any:
    if not re.fullmatch(r"[1-9]\d{0,8}[smh]", str(value)):
        raise ValueError(f"expected a duration with its unit such as 90s, 30m or 2h, found {value!r}")
    return str(value)


def null_of_false(value: Any) -> Any:
    """Take false for null, which stands for "off" where null is not the default: KFP's parameters know no null."""
    return None if value is False else value


Count = Annotated[int, BeforeValidator(finite_number), Field(ge=1, le=EXACT)]
Seed = Annotated[int, BeforeValidator(finite_number), Field(ge=0, le=EXACT)]
Number = Annotated[float, BeforeValidator(finite_number)]
Bound = Annotated[Number | None, BeforeValidator(null_of_false)]
UNITS = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
Fraction = Annotated[float, BeforeValidator(finite_number), Field(ge=0, le=1)]
Positive = Annotated[float, BeforeValidator(finite_number), Field(gt=0)]
Cpu = Annotated[str, BeforeValidator(_quantity)]
Memory = Annotated[str, BeforeValidator(_quantity)]
Duration = Annotated[str, BeforeValidator(_duration)]
Name = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,51}[a-z0-9])?$")]


def seconds(duration: str) -> int:
    """Return a duration such as 90s, 30m or 2h in seconds."""
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


def quantity(text: Any) -> float:
    """Return a quantity of Kubernetes as a number: 10m of cpu, 64Mi of memory; 0 for what is none."""
    match = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?)([A-Za-z]*)", str(text))
    return float(match[1]) * UNITS.get(match[2], 1.0) if match else 0.0


def _without_null(value: Any) -> Any:
    """Leave null out of mappings and write false for it in lists: KFP's parameters know no null."""
    if isinstance(value, dict):
        return {key: _without_null(item) for key, item in value.items() if item is not None}
    return [False if item is None else _without_null(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class PluginName:
    """Marks text as the name of a plug-in of a group: one that is built in or installed, else the nearest is named.

    The JSON schema lists those built in for editors to offer, and takes any other: what is installed where the
    pipeline runs is not known to it.
    """

    group: plugins.GroupName

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Check what pydantic read as text."""
        return core_schema.no_info_after_validator_function(self.known, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Offer the names that are built in."""
        return {"anyOf": [{"enum": list(plugins.builtin(self.group))}, handler(schema)]}

    def known(self, name: str) -> str:
        """Return a name that there is; raises ValueError with the nearest, and all."""
        if name not in plugins.builtin(self.group) and name not in (names := plugins.names(self.group)):
            raise ValueError(f"no {plugins.GROUPS[self.group].one} {shorten(name)!r}; {hint(name, names)}")
        return name


def null_paths(value: Any, path: str = "") -> Iterator[str]:
    """Give where null is in plain values, such as `dense.0`."""
    if value is None:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in items:
        yield from null_paths(item, f"{path}.{key}".lstrip("."))


class Section(BaseModel):
    """A part of the project file: frozen, and no key is ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _empty(cls, values: Any) -> Any:
        """Take a section whose settings are all comments, null to YAML, as one at its defaults."""
        if not isinstance(values, dict):
            return values
        sections = {key for key, field in cls.model_fields.items() if isinstance(field.annotation, type)}
        sections = {key for key in sections if issubclass(cls.model_fields[key].annotation, Section)}  # type: ignore[arg-type]
        return {key: value for key, value in values.items() if value is not None or key not in sections}

    def values(self) -> dict[str, Any]:
        """Return plain values without null, as a pipeline's parameters hold them; `section` takes them back."""
        return {
            key: value for key, value in ((k, self._plain(k)) for k in type(self).model_fields) if value is not None
        }

    def _plain(self, key: str) -> Any:
        """Return a field's plain value; null stays unsaid where it is the default, else it is false."""
        value = getattr(self, key)
        if value is None:
            return None if type(self).model_fields[key].default is None else False
        return _without_null(value.values() if isinstance(value, Section) else self.model_dump(mode="json")[key])
