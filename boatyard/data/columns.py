"""Columns as files have them: plain numbers or texts, missing or unreadable; the same for every source of tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from boatyard.data import kinds
from boatyard.data.kinds.category import MAX_CATEGORIES
from boatyard.data.rounding import Rounding
from boatyard.data.schema import Array
from boatyard.errors import DataError

MISSING = pa.array(["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null"])
NO_NUMBER = pa.array([*MISSING.to_pylist(), "None", "none", "-", "?", "#N/A"])  # in a column of numbers, missing too
FEW_ROWS = 50  # of fewer rows, all different is no sign of an identifier
GUESSED = ("number", "category")  # a plug-in's kind is taken where data.columns says so, never guessed
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
class ColumnProfile:
    """What a column's values are; `texts` the different ones, until there are too many to be categories."""

    name: str
    count: int = 0
    missing: int = 0
    numbers: int = 0
    texts: set[str] = field(default_factory=set)
    many: bool = False
    rounding: Rounding = field(default_factory=Rounding)

    @classmethod
    def of(cls, name: str, values: pa.Array, known_many: bool) -> ColumnProfile:
        """Profile a block of a plain column; different values are not listed where too many are known already."""
        gone = pc.is_null(values, nan_is_null=True)
        if not pa.types.is_floating(values.type):
            gone = pc.is_in(values, value_set=MISSING)
        there = pc.filter(values, pc.invert(gone))
        profile = cls(name, len(values), len(values) - len(there), many=known_many)
        if not known_many:
            unique = pc.unique(there)
            profile.many = len(unique) > MAX_CATEGORIES
            profile.texts = set() if profile.many else set(categories(unique).to_pylist())
        if pa.types.is_floating(values.type):
            profile.numbers = len(there)
            profile.rounding = Rounding.of(there.to_numpy(zero_copy_only=False))
            return profile
        found = numbers(there)[0]
        profile.numbers = int((~np.isnan(found)).sum())
        profile.rounding = Rounding.of(found)
        return profile

    def merge(self, more: ColumnProfile) -> None:
        """Take in the profile of the next block."""
        self.count += more.count
        self.missing += more.missing
        self.numbers += more.numbers
        self.rounding = self.rounding.merged(more.rounding)
        self.texts |= more.texts
        self.many = self.many or more.many or len(self.texts) > MAX_CATEGORIES
        if self.many:
            self.texts = set()

    def kind(self, named: Mapping[str, str]) -> str:
        """Decide what kind the column is of, by the project file or by its values; raises DataError for none."""
        if self.count == self.missing:
            raise DataError(f"column {self.name!r} has no value in any of {self.count} rows", fix=f"{self._exclude()}")
        name = named.get(self.name) or next(name for name in GUESSED if kinds.load(name).claims(self))
        kinds.load(name).check_column(self, named=self.name in named)
        return name

    def no_signal(self) -> str:
        """Say why a column of very many different texts is refused, and what to do."""
        return f"an identifier, a date or free text carries no signal: {self._exclude()}"

    def _exclude(self) -> str:
        return "exclude it by listing the other columns in data.features"
