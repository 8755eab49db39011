"""The rules of a kind, for a test of who writes one: `check(KIND, [values as JSON has them], [wrong ones])`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np

from boatyard.data.kinds.base import Kind, Policy, Reason
from boatyard.data.schema import Array, Field, Schema
from boatyard.errors import Refused, RequestError

FIELD_NAME = "column"


@dataclass
class ColumnNotes:
    """What a kind said of a column, as a `ColumnCleaner` takes it."""

    preprocess: Any
    ranges: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    wrong: set[int] = field(default_factory=set)

    def apply(self, reason: Reason, policy: Policy, name: str, wrong: Array, values: Any) -> None:
        """Keep which rows were wrong."""
        self.wrong |= set(np.flatnonzero(wrong).tolist())


@dataclass(frozen=True)
class KindSubject:
    """A kind under test: values that are right, all different, as JSON and as a source's column; and wrong ones."""

    kind: Kind
    raw: Sequence[Any]
    bad: Sequence[Any]
    column: Any

    @cached_property
    def draft(self) -> Field:
        """The field before statistics."""
        shape = tuple(self.column.shape[1:]) if isinstance(self.column, np.ndarray) else ()
        dtype = str(self.column.dtype) if isinstance(self.column, np.ndarray) else ""
        return self.kind.draft(FIELD_NAME, shape, dtype)

    @cached_property
    def cleaned(self) -> tuple[Any, ColumnNotes]:
        """The column as preprocess reads it, and what was noted."""
        from boatyard.project import PreprocessConfig

        notes = ColumnNotes(PreprocessConfig())
        column = self.column
        if not isinstance(column, np.ndarray):
            from boatyard.data import columns

            column = columns.plain(column)
        return self.kind.clean(self.draft, column, notes), notes

    @cached_property
    def field(self) -> Field:
        """The field, pinned; a value may be missing where the kind has rows of several fields."""
        fitted = self.kind.fit(self.cleaned[0], self.index, self.index >= 0)
        return self.kind.pin(self.draft, not self.kind.alone, (None, None), fitted.values())

    @property
    def index(self) -> Array:
        """All rows."""
        return np.arange(len(self.raw))

    @cached_property
    def read(self) -> Array:
        """The values as the server reads them."""
        values = [self.kind.read(self.field, value, "here") for value in self.raw]
        dtype = object if self.field.dtype == "str" else self.field.dtype
        return cast(Array, np.array(values, dtype).reshape(len(values), *self.field.shape))

    @cached_property
    def stored(self) -> Array:
        """The values as a dataset has them."""
        import pyarrow as pa

        column = self.kind.store(self.field, self.cleaned[0], self.index)
        return self.kind.load(self.field, pa.chunked_array([column.cast(self.kind.arrow_type(self.field))]))


def check(kind: Kind, raw: Sequence[Any], bad: Sequence[Any], column: Any = None) -> None:
    """Hold a kind to every rule; raises Refused with all that it breaks.

    `column` is what a source has of the values `raw`: an array for a kind that is alone; by default their text.
    """
    import pyarrow as pa

    subject = KindSubject(kind, raw, bad, pa.array([str(value) for value in raw]) if column is None else column)
    broken = [found for rule in RULES for found in rule(subject)]
    if broken:
        raise Refused(f"{kind.name} breaks {len(broken)} rules of a kind: {'; '.join(broken)}")


def _fits_its_own_field(subject: KindSubject) -> Iterator[str]:
    if problem := subject.kind.problem(subject.field):
        yield f"problem() says of its own field: {problem}"
    if Schema.from_dict(Schema("regression", (subject.field,), "y").to_dict()).fields != (subject.field,):
        yield "its field is not the same after JSON"


def _server_and_preprocess_read_alike(subject: KindSubject) -> Iterator[str]:
    if subject.cleaned[1].wrong:
        yield f"clean() finds row {min(subject.cleaned[1].wrong)} wrong, which is right"
    if not np.array_equal(subject.read, subject.stored):
        yield "read() of a request gives other values than clean() and store() of the same values in a file"


def _writes_what_it_reads(subject: KindSubject) -> Iterator[str]:
    written = subject.kind.write(subject.field, subject.read)
    again = [subject.kind.read(subject.field, value, "here") for value in written]
    if not all(np.array_equal(one, other) for one, other in zip(subject.read, again, strict=True)):
        yield "read() of what write() gives is another value"


def _refuses_what_is_wrong(subject: KindSubject) -> Iterator[str]:
    for value in subject.bad:
        try:
            subject.kind.read(subject.field, value, "the place")
        except RequestError as error:
            if "the place" not in str(error):
                yield f"read() of {value!r} does not say where: {error}"
        else:
            yield f"read() takes {value!r}"


def _knows_what_is_missing(subject: KindSubject) -> Iterator[str]:
    if subject.kind.is_missing(subject.read).any():
        yield "is_missing() says so of a value that is there"
    if subject.kind.alone:
        return
    missing = np.array([subject.kind.missing(subject.field)], subject.read.dtype)
    if not subject.kind.is_missing(missing).all():
        yield "is_missing() does not know missing()"
    if subject.kind.write(subject.field, missing) != [None]:
        yield "write() of a missing value is not null"


def _checks_what_it_reads(subject: KindSubject) -> Iterator[str]:
    try:
        subject.kind.check(subject.field, subject.read, lambda row: f"row {row}")
    except RequestError as error:
        yield f"check() refuses what read() gives: {error}"


def _tells_values_apart(subject: KindSubject) -> Iterator[str]:
    hashes = subject.kind.hashes(subject.cleaned[0])
    if len(set(hashes.tolist())) < len(subject.raw):
        yield "hashes() are equal for different values"


def _statistics_come_back(subject: KindSubject) -> Iterator[str]:
    values, sampled = subject.cleaned[0], subject.index >= 0
    fitted = subject.kind.fit(values, subject.index, sampled)
    arrays: dict[str, Array] = {}
    packed = subject.kind.statistic().pack([fitted], arrays, "0")
    (again,) = subject.kind.statistic().unpack(packed, arrays, "0")
    if again.values() != fitted.values():
        yield "statistics are others after pack() and unpack()"


def _features_are_finite_columns(subject: KindSubject) -> Iterator[str]:
    import torch

    from boatyard.data.features import Features, tensors
    from boatyard.project import PreprocessConfig

    statistics = subject.kind.fit(subject.cleaned[0], subject.index, subject.index >= 0).values()
    schema = Schema("regression", (subject.field,), "y")
    features = Features(schema, {FIELD_NAME: statistics}, PreprocessConfig()).eval()
    rows = subject.read
    if not subject.kind.alone:
        rows = np.concatenate([rows, np.array([subject.kind.missing(subject.field)], rows.dtype)])
    (tensor,) = schema.tensors()
    made = features(tensors(schema, {tensor.name: rows.reshape(len(rows), *tensor.shape)}))
    if made.dtype != torch.float32 or made.ndim < 2 or len(made) != len(rows):
        yield f"features give {made.dtype} {list(made.shape)} of {len(rows)} rows; expected float32, a row each"
    if not torch.isfinite(made).all():
        yield "features of a value, or of a missing one, are not finite"
    if features.columns and made.shape[1:] != (len(features.columns),):
        yield f"features give {list(made.shape[1:])} numbers a row, columns names {len(features.columns)}"


RULES: tuple[Callable[[KindSubject], Iterator[str]], ...] = (
    _fits_its_own_field,
    _server_and_preprocess_read_alike,
    _writes_what_it_reads,
    _refuses_what_is_wrong,
    _knows_what_is_missing,
    _checks_what_it_reads,
    _tells_values_apart,
    _statistics_come_back,
    _features_are_finite_columns,
)
