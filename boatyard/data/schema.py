"""What a raw row is: its fields, their types and what is allowed; pinned by preprocess, sealed in the package.

One image (uint8 or float32, [H, W] grey or [H, W, C] colour) or one table row (numbers and categories).
The same schema checks training rows, evaluation rows and requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from boatyard.data.artifacts import digest_json
from boatyard.errors import ArtifactError

Array = np.ndarray[Any, np.dtype[Any]]
Kind = Literal["image", "number", "category"]
Task = str  # the name of one; what depends on it is asked of `boatyard.tasks`


@dataclass(frozen=True)
class Field:
    """One field of a raw row.

    `dtype` is uint8 or float32 for an image, float32 for a number, str for a category. `shape` is [H, W] or
    [H, W, C] for an image, empty otherwise. `nullable` says that a missing value (null, NaN, "") is allowed; the graph
    replaces it. `categories` are the values seen in training, sorted; another value counts as unknown.
    `minimum` and `maximum` are the closed range of values that the project file allows, or None.
    """

    name: str
    kind: Kind
    dtype: Literal["uint8", "float32", "str"]
    shape: tuple[int, ...] = ()
    nullable: bool = False
    categories: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class Tensor:
    """One input of the graph: name, element type, shape of one row (no batch), and the fields stacked in it."""

    name: str
    dtype: Literal["uint8", "float32", "str"]
    shape: tuple[int, ...]
    fields: tuple[str, ...]


@dataclass(frozen=True)
class Schema:
    """The fields of a row in order, the target's name, and the labels in the order of the model's outputs."""

    task: Task
    fields: tuple[Field, ...]
    target: str
    labels: tuple[str, ...] = ()

    @property
    def is_image(self) -> bool:
        return self.fields[0].kind == "image"

    def field(self, name: str) -> Field:
        """Return a field by name; KeyError if there is none."""
        return self._by_name[name]

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the graph's inputs.

        An image is one tensor, `image`. A table of numbers alone is one tensor, `features`, float32 [F], columns in
        order (what scikit-learn's servers take). A table with categories is one tensor per column, each of shape [].
        """
        return self._tensors

    @cached_property
    def _by_name(self) -> dict[str, Field]:
        return {field.name: field for field in self.fields}

    @cached_property
    def _tensors(self) -> tuple[Tensor, ...]:
        if self.is_image:
            image = self.fields[0]
            return (Tensor(image.name, image.dtype, image.shape, (image.name,)),)
        names = tuple(field.name for field in self.fields)
        if all(field.kind == "number" for field in self.fields):
            return (Tensor("features", "float32", (len(names),), names),)
        return tuple(Tensor(field.name, field.dtype, (), (field.name,)) for field in self.fields)

    def __hash__(self) -> int:
        """Hash what is short: a schema is a key in every request, and one of a thousand columns is long."""
        return hash((self.task, self.target, self.labels, len(self.fields)))

    def to_dict(self) -> dict[str, Any]:
        """Return the schema as JSON values; `from_dict` takes them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Schema:
        """Read a schema; raises ArtifactError when it is not one."""
        try:
            fields = tuple(
                Field(**{**f, "shape": tuple(f["shape"]), "categories": tuple(f["categories"])})
                for f in value["fields"]
            )
            return cls(value["task"], fields, value["target"], tuple(value["labels"]))
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"not a schema of ours: {error}") from error

    @property
    def digest(self) -> str:
        """The sha256 of the schema's canonical JSON."""
        return digest_json(self.to_dict())


@dataclass(frozen=True)
class Batch:
    """Raw rows: `inputs` by tensor name, each [N, *shape]; `target` int64 label indices or float32 values [N];
    `rows` int64 [N], the row's number in its source; `slices`, columns kept for slicing only, str [N]."""

    inputs: Mapping[str, Array]
    target: Array
    rows: Array
    slices: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: Sequence[int] | Array | slice) -> Batch:
        """Return the rows at an index, in its order."""
        return Batch(
            {name: value[index] for name, value in self.inputs.items()},
            self.target[index],
            self.rows[index],
            {name: value[index] for name, value in self.slices.items()},
        )

    def split(self, size: int) -> Iterator[Batch]:
        """Cut into batches of at most `size` rows, in order."""
        for start in range(0, len(self), size):
            yield self.take(slice(start, start + size))
