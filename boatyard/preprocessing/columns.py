"""What the values of a column are: numbers or categories, missing or odd; the same for CSV, Parquet and arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from boatyard.data.schema import Array
from boatyard.errors import DataError

Kind = Literal["number", "category"]
MISSING = pa.array(["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null"])
NO_NUMBER = pa.array([*MISSING.to_pylist(), "None", "none", "-", "?", "#N/A"])  # in a column of numbers, missing too
MOST_CATEGORIES = 1000
FEW_ROWS = 50  # of fewer rows, all different is no sign of an identifier
EXACT = 2**53  # whole numbers up to here are exact in float64


def plain(values: pa.Array) -> pa.Array:
    """Return a column as float64, or as trimmed text with "" for missing; raises TypeError for what is neither."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return plain(values.dictionary_decode())
    if pa.types.is_boolean(kind):
        return pc.fill_null(pc.if_else(values, "true", "false"), "")
    if pa.types.is_integer(kind) and not _is_exact(values):
        return pc.fill_null(pc.cast(values, pa.string()), "")
    if pa.types.is_decimal(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return pc.cast(values, pa.float64(), safe=False)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pc.fill_null(pc.utf8_trim_whitespace(values.cast(pa.string())), "")
    if pa.types.is_null(kind):
        return pa.array([""] * len(values), pa.string())
    if pa.types.is_temporal(kind):
        return pc.fill_null(pc.cast(values, pa.string()), "")
    raise TypeError(str(kind))


def is_usable(kind: pa.DataType) -> bool:
    """Say whether `plain` takes a column of this type."""
    try:
        plain(pa.array([], kind.value_type if pa.types.is_dictionary(kind) else kind))
    except (TypeError, pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return False
    return True


def _is_exact(values: pa.Array) -> bool:
    ends = pc.min_max(values)
    low, high = ends["min"].as_py(), ends["max"].as_py()
    return low is None or (low >= -EXACT and high <= EXACT)


def is_number(text: str) -> bool:
    """Say whether a text is a number as CSV files write them."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def numbers(values: pa.Array) -> tuple[Array, Array]:
    """Return a plain column as float64 [N], missing as NaN, and which values are there but no numbers, bool [N]."""
    if pa.types.is_floating(values.type):
        return values.to_numpy(zero_copy_only=False), np.zeros(len(values), bool)
    cleaned = pc.if_else(pc.is_in(values, value_set=NO_NUMBER), pa.scalar(None, pa.string()), values)
    try:
        return pc.cast(cleaned, pa.float64()).to_numpy(zero_copy_only=False), np.zeros(len(values), bool)
    except pa.ArrowInvalid:
        texts = cleaned.to_pylist()
        odd = np.array([text is not None and not is_number(text) for text in texts])
        found = [np.nan if text is None or o else float(text) for text, o in zip(texts, odd, strict=True)]
        return np.array(found, np.float64), odd


def categories(values: pa.Array) -> pa.Array:
    """Return a plain column as text, missing as ""; whole numbers without a point."""
    if pa.types.is_floating(values.type):
        coded = pc.dictionary_encode(values)
        texts = pa.array([whole(value) for value in coded.dictionary.to_pylist()], pa.string())
        return pc.fill_null(texts.take(coded.indices), "")
    return pc.if_else(pc.is_in(values, value_set=MISSING), "", values)


def whole(value: float | None) -> str:
    """Return a number as text, 3.0 as 3, missing as ""."""
    if value is None or value != value:
        return ""
    return str(int(value)) if float(value).is_integer() and abs(value) <= EXACT else repr(value)


@dataclass
class Seen:
    """What a column's values were; `texts` the different ones, until there are too many to be categories."""

    name: str
    count: int = 0
    missing: int = 0
    numbers: int = 0
    texts: set[str] = field(default_factory=set)
    many: bool = False

    @classmethod
    def of(cls, name: str, values: pa.Array, known_many: bool) -> Seen:
        """Look at a block of a plain column; different values are not listed where too many are known already."""
        gone = pc.is_null(values, nan_is_null=True)
        if not pa.types.is_floating(values.type):
            gone = pc.is_in(values, value_set=MISSING)
        there = pc.filter(values, pc.invert(gone))
        made = cls(name, len(values), len(values) - len(there), many=known_many)
        if not known_many:
            unique = pc.unique(there)
            made.many = len(unique) > MOST_CATEGORIES
            made.texts = set() if made.many else set(categories(unique).to_pylist())
        if pa.types.is_floating(values.type):
            made.numbers = len(there)
            return made
        made.numbers = int((~np.isnan(numbers(there)[0])).sum())
        return made

    def merge(self, more: Seen) -> None:
        """Take in what was seen of the next block."""
        self.count += more.count
        self.missing += more.missing
        self.numbers += more.numbers
        self.texts |= more.texts
        self.many = self.many or more.many or len(self.texts) > MOST_CATEGORIES
        if self.many:
            self.texts = set()

    def kind(self, given: Mapping[str, Kind]) -> Kind:
        """Decide what the column is; raises DataError for what is neither."""
        there = self.count - self.missing
        if there == 0:
            raise DataError(f"column {self.name!r} has no value in any of {self.count} rows; {self._leave_out()}")
        chosen = given.get(self.name) or self._guess(there)
        if chosen == "category" and self.many:
            raise DataError(f"column {self.name!r} has more than {MOST_CATEGORIES} different values; {self._teaches()}")
        if chosen == "category" and self.name not in given and there >= FEW_ROWS and len(self.texts) > 0.9 * there:
            raise DataError(
                f"column {self.name!r} has {len(self.texts)} different values in {there} rows, such as "
                f"{min(self.texts)[:40]!r}; {self._teaches()}"
            )
        return chosen

    def _guess(self, there: int) -> Kind:
        """Numbers when all values are, or all but a few of many: what becomes of those the policy says."""
        odd = there - self.numbers
        mostly = there >= FEW_ROWS and self.numbers >= 19 * odd and (self.many or len(self.texts) > 20)
        return "number" if odd == 0 or mostly else "category"

    def _teaches(self) -> str:
        return f"an identifier, a date or free text teaches nothing: {self._leave_out()}"

    def _leave_out(self) -> str:
        return "leave it out by listing the other columns in data.features"
