"""JSON lines as a source: the same rows make the same dataset as CSV; what is no row is named by its line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sources

from boatyard.data.datasets import SPLITS, Dataset
from boatyard.errors import DataError
from boatyard.preprocessing import block
from boatyard.preprocessing.sources import conformance
from boatyard.preprocessing.sources.jsonl import SOURCE
from boatyard.project import DataConfig


def lines(count: int = 60) -> list[dict[str, Any]]:
    """Rows of every type of value, each of them different."""
    return [
        {"size": i / 7, "kind": "ab"[i % 2], "on": bool(i % 3), "number": i if i % 5 else None, "label": f"c{i % 2}"}
        for i in range(count)
    ]


def write(folder: Path, rows: list[Any], name: str = "rows.jsonl") -> Path:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n"
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def made(
    folder: Path, rows: list[Any], how: dict[str, Any] | None = None, name: str = "rows.jsonl", **data: Any
) -> Dataset:
    write(folder, rows, name)
    return sources.made(folder, how, source="jsonl", path=name, **data)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.ndjson", "rows.jsonl.gz"])
def test_the_same_rows_are_the_same_dataset_as_from_csv(tmp_path: Path, name: str) -> None:
    (tmp_path / "csv").mkdir()
    rows = lines()
    cells = [["" if v is None else str(v).lower() if isinstance(v, bool) else str(v) for v in r.values()] for r in rows]
    text = "\n".join(",".join(row) for row in [[*rows[0]], *cells]) + "\n"
    one = sources.csv(tmp_path / "csv", text)
    two = made(tmp_path, rows, name=name)
    assert two.schema == one.schema
    assert two.statistics == one.statistics
    for split in SPLITS:
        for field in one.schema.fields:
            a, b = (dataset.load(split).inputs[field.name] for dataset in (one, two))
            np.testing.assert_array_equal(a, b)


def test_a_folder_of_parts_is_read_in_order_a_block_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "BLOCK_BYTES", 500)
    (tmp_path / "parts").mkdir()
    rows = lines(90)
    write(tmp_path / "parts", rows[:40], "a.jsonl")
    write(tmp_path / "parts", rows[40:], "b.ndjson.gz")
    dataset = sources.made(tmp_path, source="jsonl", path="parts")
    batches = [dataset.load(split) for split in SPLITS]
    for batch in batches:
        np.testing.assert_allclose(batch.inputs["size"], batch.rows / 7, rtol=1e-5)
    assert sorted(np.concatenate([batch.rows for batch in batches])) == [*range(90)]


def test_whole_numbers_of_any_size_stay_what_they_are(tmp_path: Path) -> None:
    code = 2**53 + 1
    rows = [{"x": i, "code": code + i % 2, "label": "ab"[i % 2]} for i in range(40)]
    dataset = made(tmp_path, rows, columns={"code": "category"})
    assert dataset.schema.field("code").categories == (str(code), str(code + 1))


BAD = [
    ('{"x": 1, "label": "a"', "is not JSON"),
    ('[1, "a"]', "is a list of 2; expected an object of columns"),
    ('{"x": 1}', "has no key 'label', which the first object has"),
    ('{"x": 1, "label": "a", "y": 2}', "has the key 'y', which the first object has not"),
    ('{"x": 1, "x": 2, "label": "a"}', "has the key 'x' twice"),
    ('{"x": [1, 2], "label": "a"}', "has a list of 2 as 'x'; expected a number, text"),
    ('{"x": {"y": 1}, "label": "a"}', "has an object of 1 as 'x'"),
    ('{"x": NaN, "label": "a"}', "has NaN, which is not JSON; write null"),
    ('{"x": "\\ud800", "label": "a"}', "has half a character"),
    ("[" * 100_000, "is not JSON"),
]


@pytest.mark.parametrize(("line", "said"), BAD, ids=range(len(BAD)))
def test_a_line_that_is_no_row_is_refused_by_its_number_or_dropped_and_counted(
    tmp_path: Path, line: str, said: str
) -> None:
    rows: list[Any] = [{"x": i, "label": "ab"[i % 2]} for i in range(40)]
    rows[7:7] = ["", line]
    with pytest.raises(DataError, match=r"rows\.jsonl, line 9 .*fix it, or say preprocess\.unreadable: drop") as error:
        made(tmp_path, rows)
    assert said in str(error.value)
    dataset = made(tmp_path, rows, {"unreadable": "drop"})
    (entry,) = [e for e in dataset.manifest["cleaning"] if e["reason"] == "unreadable"]
    assert entry["count"] == 1 and "rows.jsonl, line 9 " in entry["examples"][0]
    assert sum(dataset.rows(split) for split in SPLITS) == 40


def test_nested_values_of_a_column_that_is_not_read_are_no_matter(tmp_path: Path) -> None:
    rows = [{"x": i, "more": {"deep": [i]}, "label": "ab"[i % 2]} for i in range(40)]
    assert [f.name for f in made(tmp_path, rows, features=["x"]).schema.fields] == ["x"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty; expected a JSON object on each line"),
        (b'{"x": 1, "label": "\xff"}\n', "line 1 is not UTF-8 text"),
        (b'{"x": 1, "label": "a"}\n{"x": 1, "label": "\xff"}\n', "line 2 is not UTF-8 text"),
        (b"x,label\n1,a\n", "line 1 is not JSON"),
    ],
)
def test_what_is_no_file_of_json_lines_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(data)
    with pytest.raises(DataError, match=said):
        sources.made(tmp_path, source="jsonl", path="rows.jsonl")


def test_a_file_that_is_cut_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, lines(2000), "rows.jsonl.gz")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match="cannot be read after line"):
        sources.made(tmp_path, source="jsonl", path=path.name)


@pytest.mark.parametrize("parts", [1, 3])
def test_it_keeps_to_the_rules_of_a_source(tmp_path: Path, parts: int) -> None:
    for part in range(parts):
        write(tmp_path, lines(30), f"{part}.jsonl")
    conformance.check(SOURCE, tmp_path, DataConfig(source="jsonl", path=str(tmp_path)))
