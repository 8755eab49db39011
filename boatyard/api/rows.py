"""Rows as people have them in Python, into the instances that the server's reader takes.

A dict, a list, an array, a table or pictures become the V1 instances of a request; what is in them is judged by the one
reader, `prediction.decode`, with the same words.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boatyard.errors import RequestError

if TYPE_CHECKING:
    from boatyard.data.schema import Schema


def instances(rows: Any, schema: Schema) -> list[Any]:
    """Return the instances of rows: one or several, in any container that is known here."""
    return [_instance(row, place) for place, row in enumerate(_listed(rows, schema))]


def _listed(rows: Any, schema: Schema) -> list[Any]:
    """Return rows one by one; a single row, picture or path is a list of one."""
    if hasattr(rows, "to_pylist"):  # an Arrow table or batch
        return list(rows.to_pylist())
    if hasattr(rows, "to_dicts"):  # a polars frame
        return list(rows.to_dicts())
    if hasattr(rows, "iloc") and hasattr(rows, "columns"):  # a pandas frame
        return list(rows.to_dict("records"))
    if hasattr(rows, "iloc"):  # a pandas series: one row
        return [rows.to_dict()]
    if hasattr(rows, "__array__") and not _is_picture(rows):
        return _of_array(rows, schema)
    if isinstance(rows, Mapping | str | bytes | Path) or _is_picture(rows):
        return [rows]
    values = list(rows)
    return [values] if values and _is_one_row(values, schema) else values


def _is_one_row(values: list[Any], schema: Schema) -> bool:
    """Whether a list is a row of a table, as [5.1, "red"] is, not rows."""
    plain = all(isinstance(value, str | int | float | bool) or value is None for value in values)
    return plain and not schema.alone and len(values) == len(schema.fields)


def _of_array(rows: Any, schema: Schema) -> list[Any]:
    """Return the rows of an array: a batch [N, *shape], or one row of the schema's own shape."""
    import numpy as np

    array = np.asarray(rows)
    one = len(schema.fields[0].shape) if schema.alone else 1
    return [array] if array.ndim == one else list(array)


def _instance(row: Any, place: int) -> Any:
    if isinstance(row, bytes):
        return {"b64": base64.b64encode(row).decode()}
    if isinstance(row, Path):
        return {"b64": base64.b64encode(_read(row, place)).decode()}
    if isinstance(row, str):  # of a table no row is a text, so it can be nothing else
        return _instance(Path(row), place)
    if _is_picture(row):
        return {"b64": base64.b64encode(_encoded(row)).decode()}
    return _plain(row)


def _read(path: Path, place: int) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RequestError(
            expected="the file of a picture", found=f"{path} ({error.strerror}), at instances[{place}]"
        ) from error


def _is_picture(value: Any) -> bool:
    """Whether a value is a picture of PIL, which may not be imported."""
    return type(value).__module__.startswith("PIL.") and hasattr(value, "save")


def _encoded(picture: Any) -> bytes:
    """Return a picture as PNG, which loses nothing of what is decoded."""
    file = io.BytesIO()
    exif = picture.info.get("exif")
    picture = picture if picture.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16") else picture.convert("RGB")
    picture.save(file, "PNG", **({"exif": exif} if exif else {}))
    return file.getvalue()


def _plain(value: Any) -> Any:
    """Return a value as JSON would have it; NaN and the missing values of tables are null."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # arrays and their scalars
        return _plain(value.tolist())
    if (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType"):
        return None
    return value
