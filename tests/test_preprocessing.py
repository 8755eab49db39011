"""Preprocess as a whole: rows come through as they are, wrong ones are counted, equal inputs give equal bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sources
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boatyard import preprocessing
from boatyard.data import artifacts, datasets, statistics
from boatyard.data.datasets import SPLITS
from boatyard.errors import DataError
from boatyard.preprocessing import block, shards, splitting
from boatyard.project import DataConfig
from boatyard.running import progress


def is_label(text: str) -> bool:
    return text not in ("", "NaN", "nan")


FEW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rows_of(dataset: datasets.Dataset) -> dict[str, set[int]]:
    return {split: set(dataset.load(split).rows.tolist()) for split in SPLITS}


def test_every_row_lands_in_one_split_with_its_own_values(tmp_path: Path) -> None:
    dataset = sources.csv(tmp_path, sources.table(60))
    rows = rows_of(dataset)
    assert sorted(row for split in rows.values() for row in split) == list(range(60))
    for split in SPLITS:
        batch = dataset.load(split)
        np.testing.assert_allclose(batch.inputs["size"], batch.rows / 7, rtol=1e-5, atol=1e-5)
        assert batch.inputs["kind"].tolist() == ["ab"[row % 2] for row in batch.rows]
        assert [dataset.schema.labels[i] for i in batch.target] == [f"c{row % 2}" for row in batch.rows]


def test_the_schema_is_inferred_and_pinned(tmp_path: Path) -> None:
    schema = sources.csv(tmp_path, sources.table(60), ranges={"size": [0, None]}).schema
    assert schema.labels == ("c0", "c1")
    assert [(f.name, f.kind, f.categories, f.minimum) for f in schema.fields] == [
        ("size", "number", (), 0.0),
        ("kind", "category", ("a", "b"), None),
    ]


def test_statistics_are_numpys_of_the_training_rows_alone(tmp_path: Path) -> None:
    dataset = sources.csv(tmp_path, sources.table(300))
    train = dataset.load("train").inputs["size"].astype(np.float64)
    found = dataset.statistics["size"]
    for name, value in {
        "mean": train.mean(), "std": train.std(), "min": train.min(), "max": train.max(), "median": np.median(train),
    }.items():  # fmt: skip
        assert found[name] == pytest.approx(float(value), rel=1e-6), name
    assert found["count"] == len(train)
    kinds = dataset.load("train").inputs["kind"].tolist()
    assert dataset.statistics["kind"]["counts"] == {kind: kinds.count(kind) for kind in "ab"}
    assert sum(dataset.statistics["__target__"]["counts"].values()) == len(train)


@FEW
@given(st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=60), st.integers(1, 9))
def test_merged_moments_are_those_of_all_values(values: list[float], size: int) -> None:
    array = np.array(values)
    merged = statistics.Moments()
    for start in range(0, len(array), size):
        part = array[start : start + size]
        merged.merge(statistics.Moments.of(part, np.ones(len(part), bool)))
    found, there = merged.values(), array[~np.isnan(array)]
    assert found["missing"] == int(np.isnan(array).sum())
    if len(there):
        assert found["mean"] == pytest.approx(there.mean(), abs=1e-6)
        assert found["std"] == pytest.approx(there.std(), rel=1e-6, abs=1e-4)
        assert found["median"] == pytest.approx(np.median(there.astype(np.float32)), rel=1e-6)


@FEW
@given(st.integers(1, 4), st.sampled_from([None, 1, 3, 4]), st.sampled_from(["uint8", "float32"]))
def test_image_statistics_are_numpys_by_channel(pieces: int, channels: int | None, dtype: str) -> None:
    shape = (20, 5, 4) if channels is None else (20, 5, 4, channels)
    images = np.random.default_rng(pieces).integers(0, 256, shape).astype(dtype)
    merged: dict[str, Any] = {}
    for part in np.array_split(images, pieces):
        statistics.merge(merged, {"image": statistics.Pixels.of(part)})
    found, flat = merged["image"].values(), images.reshape(-1, channels or 1).astype(np.float64)
    np.testing.assert_allclose(found["mean"], flat.mean(0), rtol=1e-9)
    np.testing.assert_allclose(found["std"], flat.std(0), rtol=1e-9)
    assert (found["min"], found["max"]) == (flat.min(), flat.max())


def test_a_median_of_many_rows_is_taken_of_a_sample_of_stated_size() -> None:
    assert statistics.sample_every(200_000, 12) == 1
    assert statistics.sample_every(2_000_000, 12) == 10
    assert statistics.sample_every(200_000, 784) * statistics.SAMPLES >= 200_000 * 784


@pytest.mark.parametrize("threads", ["1", "2", "7"])
def test_the_bytes_are_the_same_whoever_many_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: str
) -> None:
    monkeypatch.setattr(block, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(shards, "SHARD_BYTES", 3000)
    monkeypatch.setattr(splitting, "PART", 100)
    sources.write_csv(tmp_path, sources.table(700, 3) + "0.000000,a,c0\n")
    found = []
    for workers in ("3", threads):
        monkeypatch.setenv("BOATYARD_THREADS", workers)
        path = sources.made(tmp_path, source="csv", path="rows.csv").path
        manifest = json.loads((path / "manifest.json").read_text())
        assert manifest.pop("made")["environment"]["threads"] == int(workers)  # what it says of its making, and no more
        found.append({**sources.hashes(path), "manifest.json": manifest})
    assert len(found[0]) > 8
    assert found[0] == found[1]


def test_a_manifest_holds_no_time_and_no_place_of_this_machine(tmp_path: Path) -> None:
    table = sources.table() + "1,a\n,b,c1\n" + sources.lines(1)[0]
    text = sources.csv(tmp_path, table, {"unreadable": "drop"}).path.joinpath("manifest.json").read_text()
    assert str(tmp_path) not in text
    about = [(e["reason"], e["examples"]) for e in json.loads(text)["cleaning"]]
    assert ("unreadable", ["rows.csv, line 62 has 2 values, the header has 3"]) in about and len(about) == 3
    assert json.loads(text)["source"] == {"rows.csv": artifacts.digest_file(tmp_path / "rows.csv")}


def test_another_seed_is_another_split(tmp_path: Path) -> None:
    one, two = (rows_of(sources.csv(tmp_path, sources.table(200), {"seed": seed})) for seed in (0, 1))
    assert one != two


def entries(dataset: datasets.Dataset) -> dict[tuple[str, str | None, str], int]:
    return {(e["reason"], e["column"], e["action"]): e["count"] for e in dataset.manifest["cleaning"]}


def examples(dataset: datasets.Dataset) -> list[str]:
    return [text for entry in dataset.manifest["cleaning"] for text in entry["examples"]]


def test_copies_are_dropped_and_counted_with_their_place(tmp_path: Path) -> None:
    again = "\n".join(sources.lines(3))
    dataset = sources.csv(tmp_path, sources.table(60) + again + "\n")
    assert entries(dataset) == {("equal to an earlier row", None, "dropped"): 3}
    assert [e.removeprefix(f"{tmp_path}/") for e in examples(dataset)] == [f"rows.csv, line {n}" for n in (62, 63, 64)]
    assert "3 dropped, equal to an earlier row" in preprocessing.summary(dataset.manifest)


def test_copies_that_are_kept_fall_into_one_split(tmp_path: Path) -> None:
    text = sources.table(50) + "\n".join(sources.lines(50) * 3)
    rows = rows_of(sources.csv(tmp_path, text, {"duplicates": "keep"}))
    assert sum(map(len, rows.values())) == 200
    assert all(len({split for split, held in rows.items() if row in held}) == 1 for row in range(200))
    contents = {split: {row % 50 for row in held} for split, held in rows.items()}
    assert not contents["train"] & contents["test"] and not contents["train"] & contents["validation"]


def test_copies_can_be_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 60 \(from 0\) is equal to an earlier one, as are 1 more"):
        sources.csv(tmp_path, sources.table(60) + "\n".join(sources.lines(2)), {"duplicates": "refuse"})


def test_rows_that_contradict_each_other_stay_together_and_are_counted(tmp_path: Path) -> None:
    other = [line.replace("c0", "c9").replace("c1", "c0").replace("c9", "c1") for line in sources.lines(40)]
    dataset = sources.csv(tmp_path, sources.table(40) + "\n".join(other))
    rows = rows_of(dataset)
    assert entries(dataset) == {("conflicting labels: equal features", None, "kept in one split"): 40}
    assert all(len({split for split, held in rows.items() if {row, row + 40} & held}) == 1 for row in range(40))


def test_missing_values_are_kept_for_the_graph_to_fill(tmp_path: Path) -> None:
    dataset = sources.csv(tmp_path, sources.table(60) + "NA,a,c0\n7.7,,c1\n")
    assert entries(dataset) == {("missing", "size", "imputed"): 1, ("missing", "kind", "imputed"): 1}
    assert [field.nullable for field in dataset.schema.fields] == [True, True]
    found = {row: split for split, rows in rows_of(dataset).items() for row in rows}
    assert {60, 61} <= found.keys()
    batch = dataset.load(found[60])  # type: ignore[arg-type]
    assert np.isnan(batch.inputs["size"][batch.rows == 60]).all()


@pytest.mark.parametrize(
    ("policy", "row", "reason", "said"),
    [
        ("missing", ",a,c0", "missing", "'size' is missing"),
        ("out_of_range", "inf,a,c0", "out of range", r"'size' is out of range \('inf'\)"),
        ("out_of_range", "1e39,a,c0", "out of range", "'size' is out of range"),
        ("out_of_range", "99.5,a,c0", "out of range", r"'size' is out of range \('99.5'\)"),
        ("unreadable", "oops,a,c0", "unreadable", r"'size' is unreadable \('oops'\)"),
    ],
)
def test_a_policy_drops_or_refuses_with_line_and_value(
    tmp_path: Path, policy: str, row: str, reason: str, said: str
) -> None:
    text = sources.table(60) + row + "\n"
    ranges = {"size": [0, 50]}
    dataset = sources.csv(tmp_path, text, {policy: "drop"}, ranges=ranges)
    assert entries(dataset) == {(reason, "size", "dropped"): 1}
    assert 60 not in set().union(*rows_of(dataset).values())
    with pytest.raises(DataError, match=f"rows.csv, line 62: {said}.*preprocess.{policy}: drop"):
        sources.csv(tmp_path, text, {policy: "refuse"}, ranges=ranges)


def test_out_of_range_values_can_be_clipped(tmp_path: Path) -> None:
    dataset = sources.csv(tmp_path, sources.table(60) + "99,a,c0\n", {"out_of_range": "clip"}, ranges={"size": [0, 9]})
    assert entries(dataset) == {("out of range", "size", "clipped"): 1}
    assert max(dataset.load(split).inputs["size"].max() for split in SPLITS) == 9


@pytest.mark.parametrize("label", ["", "NaN", "  "])
def test_a_missing_label_is_refused_with_the_line_and_the_count(tmp_path: Path, label: str) -> None:
    text = sources.table(60) + f"7.7,a,{label}\n8.8,b,{label}\n"
    with pytest.raises(DataError, match=r"rows.csv, line 62: the target 'label' is .*2 of 62 have none"):
        sources.csv(tmp_path, text)


def test_a_target_that_is_no_number_is_refused_in_a_regression(tmp_path: Path) -> None:
    text = "x,y\n" + "".join(f"{i},{i * 2}\n" for i in range(40)) + "41,many\n"
    with pytest.raises(DataError, match=r"line 42: the target 'y' is 'many'; expected a finite number"):
        sources.csv(tmp_path, text, target="y", task="regression")


def test_a_regression_keeps_its_target_as_it_is(tmp_path: Path) -> None:
    text = "x,y\n" + "".join(f"{i},{i * 2}\n" for i in range(40))
    dataset = sources.csv(tmp_path, text, target="y", task="regression")
    for split in SPLITS:
        batch = dataset.load(split)
        assert batch.target.dtype == np.float32
        assert batch.target.tolist() == (batch.rows * 2).tolist()
    assert set(dataset.statistics["__target__"]) == {"mean", "std", "min", "max"}


@pytest.mark.parametrize(
    ("text", "data", "said"),
    [
        ("x,label\n" + "".join(f"{i},a\n" for i in range(20)), {}, "every row has the label 'a'; expected two classes"),
        ("x,label\n" + "".join(f"{i},{i / 3}\n" for i in range(90)), {}, "expected classes.*task: regression"),
        ("x,label\n1,a\n2,b\n", {}, "the validation split is empty; 2 of 2 rows are left"),
        ("x,label\n", {}, "rows.csv has no rows"),
        ("", {}, "rows.csv is empty"),
        (" \n\n", {}, "rows.csv is empty"),
        ("x;label\n1;a\n", {"target": "Lable"}, r"'Lable' is not in .*did you mean 'label'\? there are x, label"),
        ("x,x,label\n1,2,a\n", {}, "columns 1, 2 are all named 'x'"),
        ("x,,label\n1,2,a\n", {}, "column 2 has no name in the header"),
        (",x,label\n0,1,a\n", {}, "column 1 has no name in the header; give it one, or list the columns"),
        ("label\na\nb\n", {}, "one column, 'label'"),
        ("x,label\n" + "".join(f",{'ab'[i % 2]}\n" for i in range(9)), {}, "column 'x' has no value in any of 9 rows"),
        ("n,label\n" + "".join(f"id{i},{'ab'[i % 2]}\n" for i in range(80)), {}, "'n' has 80 different values"),
        (
            "n,label\n" + "".join(f"id{i % 1500},{'ab'[i % 2]}\n" for i in range(4000)),
            {},
            "column 'n' has more than 1000 different values; .*data.features",
        ),
        ("x,label\n1,a\n2\n3,b\n", {}, r"rows.csv, line 3 has 1 values, the header has 2; fix it, or say"),
        ("x,label\n1,a\n2,b,c\n", {}, r"rows.csv, line 3 has 3 values, the header has 2"),
        (b"x,label\n1,a\n2,\xff\n", {}, "line 3 is not UTF-8 text"),
        ("x,label\n1,a\n".encode("utf-16"), {}, "is not UTF-8 text"),
        ("x,label\n1,a\n2,b\n", {"labels": ["one", "two"]}, "data.labels names 2 classes; 'a' in the data is neither"),
        ("x,label\n1,a\n2,b\n", {"path": "nowhere.csv"}, "no file or folder at .*nowhere.csv"),
    ],
)  # fmt: skip
def test_bad_tables_are_refused_with_what_is_wrong(
    tmp_path: Path, text: str | bytes, data: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        sources.csv(tmp_path, text, **data)
    assert not (tmp_path / "out").exists()


def test_ragged_rows_can_be_dropped_and_are_counted_with_their_lines(tmp_path: Path) -> None:
    text = sources.table(60) + "1\n" + "8.8,a,c0\n" + "1,2,3,4\n"
    dataset = sources.csv(tmp_path, text, {"unreadable": "drop"})
    assert entries(dataset) == {("unreadable", None, "dropped"): 2}
    assert [e.rpartition("rows.csv, ")[2] for e in examples(dataset)] == [
        "line 62 has 1 values, the header has 3",
        "line 64 has 4 values, the header has 3",
    ]


def test_lines_are_counted_right_where_values_span_lines(tmp_path: Path) -> None:
    text = 'size,kind,label\n1,"a\nb",c0\n\n' + "\n".join(sources.lines(60)) + "\n,b,c0\n"
    with pytest.raises(DataError, match="line 65: 'size' is missing"):
        sources.csv(tmp_path, text, {"missing": "refuse"})


def test_a_digest_that_differs_is_refused(tmp_path: Path) -> None:
    sources.write_csv(tmp_path, sources.table())
    config = DataConfig(source="csv", path="rows.csv", sha256={"rows.csv": "0" * 64})
    with pytest.raises(DataError, match=r"rows.csv: expected sha256 0000.*the file was changed or cut"):
        preprocessing.source_digests(config, tmp_path)
    with pytest.raises(DataError, match=r"data.sha256 names other.csv, which is not among the files read: rows.csv"):
        preprocessing.check(DataConfig(source="csv", path="rows.csv", sha256={"other.csv": "0" * 64}), tmp_path)


@FEW
@given(
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"])
                     | st.sampled_from(",;\"\t| "), min_size=1, max_size=6).map(str.strip).filter(is_label),
             min_size=2, max_size=4, unique=True),
)  # fmt: skip
def test_any_dialect_of_csv_is_read_as_it_was_written(
    tmp_path: Path, delimiter: str, end: str, bom: bool, labels: list[str]
) -> None:
    import csv
    import io

    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end)
    writer.writerow(["size", "ünit, or so", "label"])
    rows = [[i, 'say "hi"\nthere' if i % 2 else "plain; text", labels[i % len(labels)]] for i in range(40)]
    writer.writerows(rows)
    dataset = sources.csv(tmp_path, ("\ufeff" if bom else "") + text.getvalue())
    assert set(dataset.schema.labels) == {label.strip() for label in labels}
    for split in SPLITS:
        batch = dataset.load(split)
        assert [dataset.schema.labels[i] for i in batch.target] == [labels[row % len(labels)] for row in batch.rows]
        assert batch.inputs["ünit, or so"].tolist() == [
            'say "hi"\nthere' if row % 2 else "plain; text" for row in batch.rows
        ]


def test_an_index_without_a_name_is_passed_over_when_the_features_are_listed(tmp_path: Path) -> None:
    text = ",x,label\r" + "".join(f"{i},{i * 2},{'ab'[i % 2]}\r" for i in range(40))
    dataset = sources.csv(tmp_path, text, features=["x"])
    assert [field.name for field in dataset.schema.fields] == ["x"]
    assert dataset.load("train").inputs["features"][:, 0].tolist() == (dataset.load("train").rows * 2).tolist()


def test_integer_labels_are_ordered_as_numbers_and_can_be_named(tmp_path: Path) -> None:
    text = "x,label\n" + "".join(f"{i},{i % 11}\n" for i in range(220))
    assert sources.csv(tmp_path, text).schema.labels == tuple(map(str, range(11)))
    names = [f"class {i}" for i in range(11)]
    dataset = sources.csv(tmp_path, text, labels=names)
    batch = dataset.load("test")
    assert dataset.schema.labels == tuple(names)
    assert batch.target.tolist() == (batch.rows % 11).tolist()


def test_slices_and_groups_are_kept_beside_and_not_learnt_from(tmp_path: Path) -> None:
    text = "x,site,who,label\n" + "".join(f"{i},s{i % 3},p{i // 4},{'ab'[i % 2]}\n" for i in range(120))
    dataset = sources.csv(tmp_path, text, slices=["site"], group="who")
    assert [field.name for field in dataset.schema.fields] == ["x"]
    people: list[set[int]] = []
    for split in SPLITS:
        batch = dataset.load(split)
        assert batch.slices["site"].tolist() == [f"s{row % 3}" for row in batch.rows]
        people.append({row // 4 for row in batch.rows.tolist()})
    assert not people[0] & people[1] and not people[0] & people[2] and not people[1] & people[2]


def test_a_column_of_codes_is_a_category_when_the_project_says_so(tmp_path: Path) -> None:
    text = "code,size,label\n" + "".join(f"{i % 5},{i},{'ab'[i % 2]}\n" for i in range(60))
    dataset = sources.csv(tmp_path, text, columns={"code": "category"})
    assert dataset.schema.field("code").categories == ("0", "1", "2", "3", "4")
    assert dataset.schema.field("size").kind == "number"


def test_booleans_big_numbers_and_constants_come_through(tmp_path: Path) -> None:
    rows = "".join(f"{2**60 + i * 2**55},{i % 2 == 0!s},1,{['yes', 'no'][i % 2]}\n" for i in range(40))
    dataset = sources.csv(tmp_path, "big,flag,same,label\n" + rows, {"duplicates": "keep"})
    assert dataset.schema.field("flag").categories == ("False", "True")
    assert dataset.statistics["same"]["std"] == 0
    assert dataset.statistics["big"]["mean"] == pytest.approx(2**60, rel=1)


def test_progress_counts_the_rows(tmp_path: Path) -> None:
    events: list[Any] = []
    with progress.sent_to(events.append):
        sources.csv(tmp_path, sources.table(60))
    assert events[-1] == {"stage": "preprocess", "done": events[-1]["total"], "total": 120, "unit": "row"}


def test_rows_that_are_equal_by_coincidence_stay_and_copies_go(tmp_path: Path) -> None:
    few = "".join(f"{'abc'[i % 3]},{'xy'[i % 2]},{['no', 'yes'][i % 5 == 0]}\n" for i in range(600))
    table = sources.csv(tmp_path, f"a,b,label\n{few}")
    assert sum(table.manifest["rows"].values()) == 600
    assert "kept: too many to be copies" in {entry["action"] for entry in table.manifest["cleaning"]}
    many = "".join(f"{i / 7},{i % 11},{['no', 'yes'][i % 2]}\n" for i in range(300))
    copies = "".join(many.splitlines(keepends=True)[:20])
    table = sources.csv(tmp_path, f"a,b,label\n{many}{copies}")
    assert sum(table.manifest["rows"].values()) == 300
