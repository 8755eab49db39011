"""Every kind of source, good and damaged: what is wrong is said with the file and the row."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
import zlib
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sources
from PIL import Image

from boatyard import preprocessing
from boatyard.data.datasets import SPLITS
from boatyard.data.schema import Array
from boatyard.errors import DataError
from boatyard.preprocessing import known
from boatyard.project import DataConfig

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


# IDX


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_come_through_with_their_test_set_whole_and_in_order(tmp_path: Path, packed: bool) -> None:
    images, labels = sources.idx_folder(tmp_path / "data", packed=packed)
    dataset = sources.made(tmp_path, source="idx", path="data")
    test = dataset.load("test")
    np.testing.assert_array_equal(test.inputs["image"], images)
    np.testing.assert_array_equal(test.target, labels)
    assert test.rows.tolist() == list(range(30))
    assert (dataset.rows("train"), dataset.rows("validation")) == (81, 9)


def test_copies_of_test_images_leave_training(tmp_path: Path) -> None:
    images, _ = sources.idx_folder(tmp_path / "data")
    train, _ = sources.images(90)
    train[:4] = images[:4]
    (tmp_path / "data" / "train-images-idx3-ubyte").write_bytes(sources.idx_bytes(train))
    dataset = sources.made(tmp_path, source="idx", path="data")
    (entry,) = dataset.manifest["cleaning"]
    assert (entry["count"], entry["reason"]) == (4, "equal to a row of a given test or validation set")
    assert entry["examples"][0].endswith("train-images-idx3-ubyte, row 0")
    assert dataset.rows("test") == 30


def damaged(folder: Path, name: str, change: Any) -> None:
    file = folder / name
    file.write_bytes(change(file.read_bytes()))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("train-images-idx3-ubyte", lambda d: b"\x01" + d[1:], "train-images-idx3-ubyte: wrong magic number 01000803"),
        ("train-images-idx3-ubyte", lambda d: d[:2] + b"\x07" + d[3:], "wrong magic number 00000703"),
        ("train-images-idx3-ubyte", lambda d: b"", "wrong magic number an empty file"),
        ("train-images-idx3-ubyte", lambda d: d[:9], "train-images-idx3-ubyte cannot be read"),
        ("train-images-idx3-ubyte", lambda d: d[:-40], "is cut short: expected 90 rows, found 88 whole ones"),
        ("train-images-idx3-ubyte", lambda d: d + b"x", "goes on after its 90 rows"),
        ("train-labels-idx1-ubyte", lambda d: sources.idx_bytes(np.zeros(89, "u1")), "has 90 rows and .* 89; expected"),
        ("t10k-labels-idx1-ubyte", lambda d: d[:-1], "t10k-labels-idx1-ubyte is cut short"),
        ("t10k-labels-idx1-ubyte", lambda d: d[:-1] + b"\x09", "t10k-images-idx3-ubyte, row 29: the label '9'"),
        ("train-labels-idx1-ubyte", lambda d: sources.idx_bytes(np.zeros(90, "u1")), "in no training row"),
    ],
)  # fmt: skip
def test_a_damaged_idx_file_is_refused_with_file_and_row(tmp_path: Path, name: str, change: Any, said: str) -> None:
    sources.idx_folder(tmp_path / "data")
    damaged(tmp_path / "data", name, change)
    with pytest.raises(DataError, match=said):
        sources.made(tmp_path, source="idx", path="data")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]


@pytest.mark.parametrize(
    "change", [lambda d: d[:-60], lambda d: d[:2000] + b"\0" * 100 + d[2100:], lambda d: b"text" + d]
)
def test_a_damaged_gzip_is_refused_with_its_file(tmp_path: Path, change: Any) -> None:
    sources.idx_folder(tmp_path / "data", packed=True)
    damaged(tmp_path / "data", "train-images-idx3-ubyte.gz", change)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz cannot be read"):
        sources.made(tmp_path, source="idx", path="data")


def test_missing_idx_files_are_named_with_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder at"):
        sources.made(tmp_path, source="idx", path="nowhere")
    sources.idx_folder(tmp_path / "data")
    (tmp_path / "data" / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"expected one file of labels .* found 0 among t10k-images-idx3-ubyte"):
        sources.made(tmp_path, source="idx", path="data")


def test_a_folder_named_after_a_known_data_set_is_checked_without_being_asked(tmp_path: Path) -> None:
    sources.idx_folder(tmp_path / "fashion-mnist")
    with pytest.raises(DataError, match=r"expected sha256 .*, found .*; the file was changed or cut"):
        sources.made(tmp_path, source="idx", path="fashion-mnist")


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_fashion_mnist_is_what_it_should_be(tmp_path: Path) -> None:
    dataset = sources.made(tmp_path, source="idx", path=str(DEBIAN))
    assert dataset.manifest["rows"] == {"train": 53330, "validation": 6670, "test": 10000}
    assert dataset.manifest["source"].items() <= known.FASHION_MNIST.items()
    assert dataset.statistics["image"]["mean"][0] == pytest.approx(72.94, abs=0.2)
    with gzip.open(DEBIAN / "t10k-images-idx3-ubyte.gz") as file:
        raw = np.frombuffer(file.read()[16:], np.uint8).reshape(-1, 28, 28)
    np.testing.assert_array_equal(dataset.load("test").inputs["image"], raw)


# npy and npz


def npy(folder: Path, rows: Array, label: Array, how: dict[str, Any] | None = None, **data: Any) -> Any:
    (folder / "data").mkdir(exist_ok=True)
    np.save(folder / "data" / "rows.npy", rows, allow_pickle=True)
    np.save(folder / "data" / "label.npy", label, allow_pickle=True)
    return sources.made(folder, how, **{"source": "npy", "path": "data", **data})


def found(dataset: Any, name: str) -> Array:
    """Return a tensor's values in the order of the source."""
    batches = [dataset.load(split) for split in SPLITS]
    order = np.argsort(np.concatenate([batch.rows for batch in batches]))
    values: Array = np.concatenate([batch.inputs[name] for batch in batches])[order]
    return values


LABEL = np.arange(60) % 3


@pytest.mark.parametrize("shape", [(60, 4, 5), (60, 4, 5, 3), (60, 4, 5, 1), (60, 7)])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int16", ">i4", "float16"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_through_as_they_are(tmp_path: Path, shape: tuple[int, ...], dtype: str, order: Any) -> None:
    rows = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    dataset = npy(tmp_path, np.array(rows, order=order), LABEL[:, None])
    name = "features" if len(shape) == 2 else "image"
    wanted = rows[..., 0] if shape[-1] == 1 else rows
    np.testing.assert_array_equal(found(dataset, name), wanted.astype(np.float32))
    assert dataset.load("train").inputs[name].dtype == (
        np.uint8 if dtype == "uint8" and name == "image" else np.float32
    )


def test_npz_arrays_are_named_by_the_project(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((60, 4))
    np.savez_compressed(tmp_path / "all.npz", x=rows, y=LABEL.astype(str), who=np.arange(60) // 4, other=np.zeros(3))
    dataset = sources.made(tmp_path, source="npz", path="all.npz", features=["x"], target="y", group="who")
    np.testing.assert_allclose(found(dataset, "features"), rows, rtol=1e-6)
    people = [set((dataset.load(split).rows // 4).tolist()) for split in SPLITS]
    assert not people[0] & people[2] and not people[0] & people[1]
    with pytest.raises(
        DataError, match=r"which array holds the rows\? name it in data.features; there are x, who, other"
    ):
        sources.made(tmp_path, source="npz", path="all.npz", target="y")
    with pytest.raises(DataError, match=r"data.target 'z' is not in .*all.npz"):
        sources.made(tmp_path, source="npz", path="all.npz", target="z")


@pytest.mark.parametrize(
    ("rows", "label", "said"),
    [
        (np.zeros((60, 4), object), LABEL, "holds object; expected numbers or text .objects are pickles"),
        (np.zeros(60), LABEL, r"is float64 \[60\]; expected numbers: images \[N, H, W\]"),
        (np.zeros((60, 2, 2, 2, 2)), LABEL, r"expected numbers: images"),
        (np.zeros((60, 3, 8, 9)), LABEL, r"expected \[N, H, W, C\].*channels seem to come first: save array.transpose"),
        (np.zeros((60, 4), complex), LABEL, "holds complex128; expected numbers"),
        (np.zeros((60, 4), "U3"), LABEL, r"is <U3 \[60, 4\]; expected numbers"),
        (np.zeros((0, 4)), LABEL[:0], "has no rows"),
        (np.zeros((60, 4)), LABEL[:50], r"has 60 rows and .*label.npy 50; expected as many"),
        (np.zeros((60, 4)), np.eye(3)[LABEL], r"label.npy has shape \[60, 3\]; expected one target a row.*argmax"),
        (np.arange(240).reshape(60, 4), np.where(LABEL == 2, np.nan, LABEL), "row 2: the target .label. is missing"),
        (np.arange(240).reshape(60, 4), np.zeros(60), "every row has the label '0'"),
    ],
)  # fmt: skip
def test_arrays_of_the_wrong_kind_are_refused(tmp_path: Path, rows: Array, label: Array, said: str) -> None:
    with pytest.raises(DataError, match=said):
        npy(tmp_path, rows, label)


@pytest.mark.parametrize("change", [lambda d: d[:-8], lambda d: d + b"\0", lambda d: b"junk" + d, lambda d: b""])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_damaged_npy_file_is_refused(tmp_path: Path, change: Any, order: Any) -> None:
    npy(tmp_path, np.array(np.arange(240.0).reshape(60, 4), order=order), LABEL)
    damaged(tmp_path / "data", "rows.npy", change)
    with pytest.raises(DataError, match=r"rows.npy (is cut short|goes on after|is not an array file)"):
        sources.made(tmp_path, source="npy", path="data")


def test_a_damaged_npz_file_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "all.npz", x=np.random.default_rng(0).random((60, 40)), label=LABEL)
    whole = (tmp_path / "all.npz").read_bytes()
    for data in (whole[:-200], whole[:3000] + b"\0" * 50 + whole[3050:], b"no archive"):
        (tmp_path / "all.npz").write_bytes(data)
        with pytest.raises(DataError, match=r"all.npz"):
            sources.made(tmp_path, source="npz", path="all.npz")


def test_pixels_that_are_missing_or_infinite_drop_the_image(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((60, 3, 3)).astype(np.float32)
    rows[5, 1, 1], rows[6, 0, 0] = np.nan, np.inf
    cleaning = npy(tmp_path, rows, LABEL).manifest["cleaning"]
    assert {(e["reason"], e["count"], e["action"]) for e in cleaning} == {
        ("missing", 1, "dropped"), ("out of range", 1, "dropped"),
    }  # fmt: skip
    with pytest.raises(DataError, match=r"rows.npy, row 5: 'image' is missing"):
        npy(tmp_path, rows, LABEL, {"missing": "refuse"})


# Parquet, and folders of tables


def columns(count: int = 60) -> dict[str, Any]:
    return {
        "size": pa.array([i / 7 for i in range(count)]),
        "whole": pa.array(range(count), pa.int32()),
        "kind": pa.array(["ab"[i % 2] for i in range(count)]).dictionary_encode(),
        "flag": pa.array([i % 3 == 0 for i in range(count)]),
        "price": pa.array([Decimal(i) / 4 for i in range(count)], pa.decimal128(9, 2)),
        "day": pa.array([i % 5 for i in range(count)], pa.date32()),
        "label": pa.array([i % 3 for i in range(count)], pa.int8()),
    }


def test_parquet_columns_of_every_plain_type_are_read(tmp_path: Path) -> None:
    pq.write_table(pa.table(columns()), tmp_path / "rows.parquet", row_group_size=7)
    dataset = sources.made(tmp_path, source="parquet", path="rows.parquet")
    kinds = {field.name: field.kind for field in dataset.schema.fields}
    assert kinds == dict(
        size="number", whole="number", kind="category", flag="category", price="number", day="category"
    )
    assert dataset.schema.field("day").categories[:2] == ("1970-01-01", "1970-01-02")
    assert dataset.schema.labels == ("0", "1", "2")
    batch = dataset.load("train")
    np.testing.assert_allclose(batch.inputs["price"], batch.rows / 4)


@pytest.mark.parametrize("kind", [pa.list_(pa.int8()), pa.struct([("a", pa.int8())]), pa.binary()])
def test_nested_and_binary_columns_are_refused_unless_left_out(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table(columns()).append_column("odd", pa.nulls(60, kind))
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows.parquet: column 'odd' is of type .*data.features"):
        sources.made(tmp_path, source="parquet", path="rows.parquet")
    assert sources.made(tmp_path, source="parquet", path="rows.parquet", features=["size"]).rows("train")


def test_missing_values_in_parquet_are_missing(tmp_path: Path) -> None:
    table = columns()
    table["size"] = pa.array([None, float("nan"), *[i / 7 for i in range(58)]])
    table["kind"] = pa.array([None, *["ab"[i % 2] for i in range(59)]])
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    cleaning = sources.made(tmp_path, source="parquet", path="rows.parquet").manifest["cleaning"]
    assert {(e["column"], e["count"]) for e in cleaning} == {("size", 2), ("kind", 1)}
    table["label"] = pa.array([i % 3 if i != 9 else None for i in range(60)])
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows.parquet, row 9: the target 'label' is missing"):
        sources.made(tmp_path, source="parquet", path="rows.parquet")


@pytest.mark.parametrize("change", [lambda d: d[:-20], lambda d: b"", lambda d: d[:200] + b"\xff" * 300 + d[500:]])
def test_a_damaged_parquet_file_is_refused(tmp_path: Path, change: Any) -> None:
    pq.write_table(pa.table(columns(600)), tmp_path / "rows.parquet", compression="zstd", write_page_checksum=True)
    damaged(tmp_path, "rows.parquet", change)
    with pytest.raises(DataError, match=r"rows.parquet (is not a whole Parquet file|cannot be read after row)"):
        sources.made(tmp_path, source="parquet", path="rows.parquet")


def test_a_folder_of_parts_is_one_table(tmp_path: Path) -> None:
    (tmp_path / "parts" / "deep").mkdir(parents=True)
    rows = sources.lines(60)
    for name, part in (("a.csv", rows[:20]), ("deep/b.csv", rows[20:]), (".hidden.csv", ["x"])):
        sources.write_csv(tmp_path / "parts", "\n".join(["size,kind,label", *part]), name)
    (tmp_path / "parts" / "c.csv.gz").write_bytes(gzip.compress(b"size,kind,label\n77,a,c0\n"))
    dataset = sources.made(tmp_path, source="csv", path="parts")
    assert sum(dataset.rows(split) for split in SPLITS) == 61
    assert sorted(dataset.manifest["source"]) == ["a.csv", "c.csv.gz", "deep/b.csv"]
    sources.write_csv(tmp_path / "parts", "size,label\n1,c0\n", "d.csv")
    with pytest.raises(DataError, match=r"has other columns than a.csv: \['kind'\]"):
        sources.made(tmp_path, source="csv", path="parts")


def test_a_packed_csv_that_is_cut_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(sources.table(5000).encode())
    (tmp_path / "rows.csv.gz").write_bytes(packed[:-100])
    with pytest.raises(DataError, match=r"rows.csv.gz cannot be read"):
        sources.made(tmp_path, source="csv", path="rows.csv.gz")


# Images


def picture(path: Path, seed: int, size: tuple[int, int] = (6, 5), mode: str = "RGB", **options: Any) -> Path:
    """Write a random picture of (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(values).convert(mode).save(path, **options)
    return path


def gallery(folder: Path, prefix: str = "", count: int = 12) -> Path:
    for label in ("cat", "dög"):
        for i in range(count):
            picture(folder / prefix / label / f"{i:02d}.png", zlib.crc32(f"{prefix}/{label}".encode()) + i)
    return folder


def test_images_come_through_by_class(tmp_path: Path) -> None:
    gallery(tmp_path / "data")
    dataset = sources.made(tmp_path, source="images", path="data")
    assert dataset.schema.labels == ("cat", "dög")
    assert dataset.schema.fields[0].shape == (5, 6, 3)
    batch = dataset.load("train")
    files = sorted((tmp_path / "data").rglob("*.png"))
    for image, row, target in zip(batch.inputs["image"], batch.rows, batch.target, strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(files[row])))
        assert files[row].parent.name == dataset.schema.labels[target]


def test_train_and_test_folders_are_the_split(tmp_path: Path) -> None:
    gallery(gallery(tmp_path / "data", "train"), "test", 5)
    picture(tmp_path / "data" / "train" / "cat" / ".hidden.png", 1)
    picture(tmp_path / "data" / "train" / "cat" / ".cache" / "x.png", 1)
    (tmp_path / "data" / "train" / "cat" / "notes.txt").write_text("no picture")
    dataset = sources.made(tmp_path, source="images", path="data")
    assert (dataset.rows("test"), dataset.rows("train") + dataset.rows("validation")) == (10, 24)


def test_an_image_that_cannot_be_read_is_refused_or_dropped(tmp_path: Path) -> None:
    gallery(tmp_path / "data")
    broken = tmp_path / "data" / "cat" / "03.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(DataError, match=r"cat/03.png cannot be read as an image .*preprocess.unreadable: drop"):
        sources.made(tmp_path, source="images", path="data")
    (entry,) = sources.made(tmp_path, {"unreadable": "drop"}, source="images", path="data").manifest["cleaning"]
    assert (entry["reason"], entry["count"]) == ("unreadable", 1)
    assert "cat/03.png cannot be read" in entry["examples"][0]


def test_images_of_different_sizes_need_one_size(tmp_path: Path) -> None:
    gallery(tmp_path / "data")
    picture(tmp_path / "data" / "dög" / "99.png", 5, (9, 7))
    with pytest.raises(
        DataError, match=r"99.png is 7×9 pixels .*, the first image was 5×6; give preprocess.image_size"
    ):
        sources.made(tmp_path, {"unreadable": "drop"}, source="images", path="data")
    dataset = sources.made(tmp_path, {"image_size": [8, 4], "color": "grey"}, source="images", path="data")
    assert dataset.schema.fields[0].shape == (8, 4)
    assert dataset.rows("train") + dataset.rows("validation") + dataset.rows("test") == 25


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_of_image_is_read(tmp_path: Path, mode: str) -> None:
    gallery(tmp_path / "data")
    path = tmp_path / "data" / "cat" / "00.png"
    if mode == "CMYK":
        picture(path.with_suffix(".tif"), 1, mode=mode)
    elif mode == "I;16":
        Image.fromarray((np.arange(30).reshape(5, 6) * 2000).astype(np.uint16)).save(path)
    else:
        picture(path, 1, mode=mode)
    assert sources.made(tmp_path, source="images", path="data").schema.fields[0].shape[:2] == (5, 6)


def test_a_photograph_is_turned_as_its_camera_was_held(tmp_path: Path) -> None:
    gallery(tmp_path / "data")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "data" / "cat" / "99.jpg", 3, (5, 6), exif=exif)
    dataset = sources.made(tmp_path, source="images", path="data")
    assert sum(dataset.rows(split) for split in SPLITS) == 25


def test_an_image_that_would_fill_the_memory_is_not_unpacked(tmp_path: Path) -> None:
    gallery(tmp_path / "data")

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    (tmp_path / "data" / "cat" / "99.png").write_bytes(bomb)
    with pytest.raises(DataError, match=r"99.png cannot be read as an image"):
        sources.made(tmp_path, source="images", path="data")


@pytest.mark.parametrize("names", [[], ["loose.png"], ["cat/readme.txt"]])
def test_a_folder_without_classes_of_images_is_refused(tmp_path: Path, names: list[str]) -> None:
    (tmp_path / "data" / "cat").mkdir(parents=True)
    for name in names:
        (tmp_path / "data" / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"no images in .*: expected CLASS/picture.png, found cat"):
        sources.made(tmp_path, source="images", path="data")


# All of them


def test_check_looks_at_headers_alone(tmp_path: Path) -> None:
    sources.idx_folder(tmp_path)
    preprocessing.check(DataConfig(source="idx", path="."), tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match="expected one file of images"):
        preprocessing.check(DataConfig(source="idx", path="."), tmp_path)


def test_source_digests_change_with_any_byte_and_name_every_file(tmp_path: Path) -> None:
    sources.idx_folder(tmp_path)
    config = DataConfig(source="idx", path=".")
    one = preprocessing.source_digests(config, tmp_path)
    damaged(tmp_path, "t10k-labels-idx1-ubyte", lambda data: data[:-1] + b"\2")
    two = preprocessing.source_digests(config, tmp_path)
    assert len(one) == 4 and {name for name in one if one[name] != two[name]} <= {"t10k-labels-idx1-ubyte"}


def test_manifests_of_all_sources_are_plain_json(tmp_path: Path) -> None:
    sources.idx_folder(tmp_path / "data")
    manifest = json.loads((sources.made(tmp_path, source="idx", path="data").path / "manifest.json").read_bytes())
    assert manifest["given"] == ["test"]
    assert {"schema", "statistics", "rows", "cleaning", "split", "seed", "source", "preprocess"} <= manifest.keys()


def test_an_archive_member_that_is_no_array_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", x=np.zeros((9, 2)))
    with zipfile.ZipFile(tmp_path / "all.npz", "a") as archive:
        archive.writestr("label.npy", io.BytesIO(b"junk").read())
    with pytest.raises(DataError, match=r"all.npz\[label\] is not an array file"):
        sources.made(tmp_path, source="npz", path="all.npz")
