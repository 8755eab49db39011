"""Evaluate says what the engine answered, row by row, and nothing that it did not."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import echoes
import graphs
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn
from PIL import Image

from boatyard import evaluation
from boatyard.data import artifacts
from boatyard.data.schema import Batch, Field, Schema
from boatyard.errors import ArtifactError, DataError
from boatyard.evaluation import slices
from boatyard.evaluation.report import Report
from boatyard.evaluation.report.values import histogram
from boatyard.project import EvaluateConfig
from boatyard.running import progress

QUICK = EvaluateConfig(bootstrap=100, worst=5)


def measured(path: Path, answers: Any, target: Any, labels: Any = echoes.LABELS, **more: Any) -> Report:
    rows = echoes.schema(np.shape(answers)[1], labels)
    data = echoes.dataset(path / "dataset", rows, answers, target, more.get("slices"))
    return evaluation.evaluate(QUICK, data, echoes.checkpoint(path / "checkpoint", data), path / "report")


def test_the_report_counts_what_the_graph_answered(tmp_path: Path) -> None:
    target = np.arange(300) % 3
    predicted = np.where(np.arange(300) < 30, (target + 1) % 3, target)
    report = measured(tmp_path, echoes.certain(predicted, 3), target)
    assert (report.rows, report.invalid, report.metrics["accuracy"].value) == (300, 0, 0.9)
    labels, matrix = report.confusion or ([], [])
    assert labels == ["ant", "bee", "cat"] and matrix == [[90, 10, 0], [0, 90, 10], [10, 0, 90]]
    assert report.roc() is None
    assert report.headline() == "accuracy 0.9000 [0.8603, 0.9315] Clopper-Pearson, 300 rows (95 % confidence)"


def test_what_is_returned_is_what_was_written(tmp_path: Path) -> None:
    target = np.arange(60) % 3
    report = measured(tmp_path, echoes.certain(target, 3), target, slices={"site": np.array(["a", "b"])[target % 2]})
    again = Report.read(tmp_path / "report")
    assert again == report
    assert {f.name for f in (tmp_path / "report").iterdir()} == {
        "manifest.json",
        "report.json",
        "report.html",
        "predictions.parquet",
    }


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    target = np.arange(60) % 3
    answers = echoes.certain((target + (np.arange(60) % 7 == 0)) % 3, 3)
    first, second = (measured(tmp_path / name, answers, target) for name in "ab")
    assert first.digest == second.digest


def test_predictions_have_every_row_in_order(tmp_path: Path) -> None:
    target = np.array([0, 1, 2, 1])
    answers = echoes.certain(np.array([0, 2, 2, 1]), 3)
    measured(tmp_path, answers, target)
    table = pq.read_table(tmp_path / "report" / "predictions.parquet")
    assert table.column_names == ["row", "target", "label", "probabilities"]
    assert table["row"].to_pylist() == [0, 1, 2, 3]
    assert table["target"].to_pylist() == ["ant", "bee", "cat", "bee"]
    assert table["label"].to_pylist() == ["ant", "cat", "cat", "bee"]
    assert np.array(table["probabilities"].to_pylist(), np.float32) == pytest.approx(answers)


def test_a_regression_has_errors_residuals_and_no_labels(tmp_path: Path) -> None:
    target = np.linspace(0, 10, 50).astype(np.float32)
    report = measured(tmp_path, (target + 0.5)[:, None], target, labels=())
    assert report.metrics["mae"].value == pytest.approx(0.5, abs=1e-6)
    assert report.confusion is None and report.roc() is None
    assert report.residuals and len(report.residuals.points) == 50
    table = pq.read_table(tmp_path / "report" / "predictions.parquet")
    assert table.column_names == ["row", "target", "value"]
    assert report.slices[0].metric.method.startswith("Hall")


def test_two_labels_have_a_roc_curve_for_the_ui(tmp_path: Path) -> None:
    target = np.arange(40) % 2
    score = np.linspace(0.05, 0.95, 40, dtype=np.float32)
    report = measured(tmp_path, np.column_stack([1 - score, score]), target, labels=("no", "yes"))
    fpr, tpr, thresholds = report.roc() or ([], [], [])
    assert len(fpr) == len(tpr) == len(thresholds) > 3
    assert all(map(math.isfinite, thresholds)) and thresholds == sorted(thresholds, reverse=True)


def test_the_worst_rows_come_first_whatever_batch_they_were_in(tmp_path: Path) -> None:
    rows = evaluation.BATCH_ROWS * 2 + 100
    target = np.zeros(rows, np.int64)
    answers = echoes.certain(target, 3)
    answers[5], answers[rows - 1], answers[1500] = [0.01, 0.98, 0.01], [0.001, 0.998, 0.001], [np.nan] * 3
    report = measured(tmp_path, answers, target)
    assert [one.row for one in report.worst][:3] == [1500, rows - 1, 5]
    assert report.worst[0].loss is None and report.worst[0].predicted == "no number"
    assert report.worst[1].predicted == "bee" and report.worst[1].values["c1"] == "0.998"
    assert len(report.worst) == QUICK.worst


def test_answers_that_are_no_numbers_are_counted_and_the_report_is_still_json(tmp_path: Path) -> None:
    target = np.arange(30) % 3
    answers = echoes.certain(target, 3)
    answers[3] = np.nan
    report = measured(tmp_path, answers, target)
    assert report.invalid == 1 and report.metrics["log_loss"].value is None
    assert report.metrics["accuracy"].value == pytest.approx(29 / 30)
    assert "1 of 30 predictions are not numbers" in (tmp_path / "report" / "report.html").read_text()
    text = (tmp_path / "report" / "report.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in report.json"))
    assert all(map(math.isfinite, report.numbers().values()))


def test_a_checkpoint_of_another_dataset_is_refused(tmp_path: Path) -> None:
    target = np.arange(6) % 3
    data = echoes.dataset(tmp_path / "a", echoes.schema(3), echoes.certain(target, 3), target)
    other = echoes.dataset(tmp_path / "b", echoes.schema(3), echoes.certain(target, 3), target[::-1])
    checkpoint = echoes.checkpoint(tmp_path / "checkpoint", other)
    with pytest.raises(ArtifactError, match="its training rows may be among these test rows"):
        evaluation.evaluate(QUICK, data, checkpoint, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_changed_graph_is_refused(tmp_path: Path) -> None:
    target = np.arange(6) % 3
    data = echoes.dataset(tmp_path / "a", echoes.schema(3), echoes.certain(target, 3), target)
    checkpoint = echoes.checkpoint(tmp_path / "checkpoint", data)
    graph = checkpoint / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    with pytest.raises(ArtifactError, match=r"model\.onnx was changed"):
        evaluation.evaluate(QUICK, data, checkpoint, tmp_path / "report")


def test_no_test_row_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    data = echoes.dataset(tmp_path / "a", echoes.schema(3), np.zeros((0, 3)), np.zeros(0, np.int64))
    with pytest.raises(DataError, match=r"expected test rows, found none; give preprocess\.split\.test"):
        evaluation.evaluate(QUICK, data, echoes.checkpoint(tmp_path / "checkpoint", data), tmp_path / "report")


def test_a_changed_report_is_not_read(tmp_path: Path) -> None:
    target = np.arange(6) % 3
    measured(tmp_path, echoes.certain(target, 3), target)
    path = tmp_path / "report" / "report.json"
    path.write_text(path.read_text().replace('"invalid": 0', '"invalid": 1'))
    with pytest.raises(ArtifactError, match=r"report\.json was changed"):
        Report.read(tmp_path / "report")


def test_a_report_of_another_shape_is_an_artifact_error(tmp_path: Path) -> None:
    artifacts.write_json(tmp_path / "report.json", {"metrics": {"accuracy": 0.9}})
    artifacts.seal(tmp_path, "report", {})
    with pytest.raises(ArtifactError, match="not a report of this version"):
        Report.read(tmp_path)


def test_progress_counts_the_rows(tmp_path: Path) -> None:
    events: list[Any] = []
    target = np.arange(2000) % 3
    with progress.sent_to(events.append):
        measured(tmp_path, echoes.certain(target, 3), target)
    last = events[-1]
    assert (last["stage"], last["done"], last["total"]) == ("evaluate", 2000, 2000)


@pytest.mark.parametrize("values", [[1e15], [1e15, 1e15 + 0.25], [0.0, 0.0], [-3e38, 3e38], [1e-40] * 3])
def test_errors_that_are_all_alike_or_far_apart_have_a_histogram(values: list[float]) -> None:
    counts, edges = histogram(np.array(values))
    assert counts.sum() == len(values) and (np.diff(edges) > 0).all()


# Slices


def test_a_slice_that_is_surely_worse_is_marked_and_chance_is_not(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    target = random.integers(0, 3, 1500)
    site = np.array(["north", "south", "west", "east", ""])[np.arange(1500) % 5]
    predicted = np.where(random.random(1500) < np.where(site == "west", 0.5, 0.1), (target + 1) % 3, target)
    report = measured(tmp_path, echoes.certain(predicted, 3), target, slices={"site": site})
    sites = [one for one in report.slices if one.field == "site"]
    assert {one.value for one in sites} == {"north", "south", "west", "east", "(missing)"}
    assert [one.value for one in sites if one.worse] == ["west"]
    assert all(one.metric.method == "Clopper-Pearson, Bonferroni" for one in sites)


def test_no_slice_of_noise_is_marked_more_often_than_the_confidence_says() -> None:
    random, alarms = np.random.default_rng(1), 0
    for _ in range(200):
        right = random.random(400) < 0.8
        groups = [slices.SliceGroup(f"g{i}", ("a", "b", "c", "d"), random.integers(0, 4, 400)) for i in range(10)]
        alarms += any(one.worse for one in slices.accuracy_slices(groups, right, 0.95))
    assert alarms <= 18


def test_numbers_are_cut_at_their_quartiles_with_the_missing_apart() -> None:
    column = slices.Numbers("age")
    column.add(np.array([*range(40), np.nan], np.float32))
    group = column.group()
    assert group.values == ("0 … 10", "10 … 20", "20 … 29", "29 … 39", "(missing)")
    counts = np.bincount(group.codes)
    assert counts[-1] == 1 and counts[:4].min() >= 9


def test_a_category_of_many_values_keeps_the_commonest() -> None:
    column = slices.Categories("city")
    values = np.array([f"city {i}" for i in range(50) for _ in range(i + 1)])
    for part in np.array_split(values, 7):
        column.add(part)
    group = column.group()
    counts = np.bincount(group.codes)
    assert len(group.values) == slices.VALUES + 1 and group.values[0] == "city 49" and counts[0] == 50
    assert group.values[-1] == "(other)" and counts.sum() == len(values)


@pytest.mark.parametrize("values", [[np.nan, np.nan], [3.0], [1.0, 1.0, 1.0], [0.0, 1.0, np.inf]])
def test_columns_without_spread_are_cut_too(values: list[float]) -> None:
    column = slices.Numbers("x")
    column.add(np.array(values, np.float32))
    group = column.group()
    assert len(group.codes) == len(values) and group.codes.max() < len(group.values)


def test_categories_and_images_are_sliced_by_what_a_row_shows() -> None:
    table, image = graphs.mixed_schema(), graphs.image_schema()
    assert [c.name for c in slices.columns(table, ["city"])] == ["city", "age", "colour"]
    assert [c.name for c in slices.columns(image, [])] == ["brightness", "contrast"]
    brightness = slices.columns(image, [])[0]
    pixels = np.stack([np.zeros((4, 4)), np.full((4, 4), 200)]).astype(np.uint8)
    slices.collect([brightness], image, Batch({"image": pixels}, np.zeros(2), np.arange(2), {}))
    assert isinstance(brightness, slices.Numbers) and brightness.values[0].tolist() == [0, 200]


# Pictures


@pytest.mark.parametrize(
    ("shape", "dtype", "kind", "mode"),
    [
        ((28, 28), np.uint8, "png", "L"),
        ((28, 28, 3), np.uint8, "png", "RGB"),
        ((28, 28, 1), np.float32, "png", "L"),
        ((300, 200, 3), np.uint8, "jpeg", "RGB"),
    ],
)
def test_a_picture_is_a_small_image_of_the_row(shape: Any, dtype: Any, kind: str, mode: str) -> None:
    pixels = (np.random.default_rng(0).random(shape) * 255).astype(dtype)
    uri = evaluation.picture(pixels)
    head, _, data = uri.partition(",")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == f"data:image/{kind};base64" and image.mode == mode and max(image.size) <= evaluation.THUMBNAIL
    if dtype is np.uint8 and kind == "png":
        assert (np.asarray(image) == pixels).all()


def test_a_picture_of_nothing_but_missing_values_is_drawn() -> None:
    for value in (0, np.nan, np.inf):
        assert evaluation.picture(np.full((4, 4), value, np.float32)).startswith("data:image/png")


def test_images_are_answered_with_pictures_of_the_worst(tmp_path: Path) -> None:
    schema = Schema("classification", (Field("image", "image", "uint8", (4, 4)),), "label", graphs.LABELS)
    inputs = graphs.rows(schema, 40)
    data = echoes.dataset(tmp_path / "dataset", schema, np.zeros((40, 1)), np.arange(40) % 3)
    data = dataclasses.replace(data, test=Batch(inputs, np.arange(40) % 3, np.arange(40), {}))
    about = {"recipe": "test", "seal": "", "dataset": data.digest}
    artifacts.write_bytes(tmp_path / "checkpoint" / "model.onnx", graphs.graph(schema))
    artifacts.write_json(tmp_path / "checkpoint" / "checkpoint.json", about)
    artifacts.seal(tmp_path / "checkpoint", "checkpoint", {})
    report = evaluation.evaluate(QUICK, data, tmp_path / "checkpoint", tmp_path / "report")
    assert all((one.picture or "").startswith("data:image/png;base64,") for one in report.worst)
    assert {one.field for one in report.slices} == {"brightness", "contrast"}
    assert report.training == ()


def test_large_images_are_answered_a_few_at_a_time() -> None:
    small, large = graphs.image_schema((28, 28)), graphs.image_schema((512, 512, 3))
    assert evaluation.batch_size(small) == evaluation.BATCH_ROWS
    assert 1 <= evaluation.batch_size(large) <= 16


# Anything that a model may say


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([0, 2, 3]), st.data())
def test_any_answers_lead_to_a_report(tmp_path: Path, labels: int, data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 6)), max(labels, 1)
    wild = st.floats(width=32) | st.sampled_from([0.0, 1.0, 0.5])
    answers = data.draw(hn.arrays(np.float32, (rows, columns), elements=wild))
    target: Any = (np.arange(rows) % labels) if labels else np.arange(rows, dtype=np.float32)
    number = len(list(tmp_path.iterdir()))
    report = measured(tmp_path / str(number), answers, target, labels=tuple("abc"[:labels]))
    text = (report.path / "report.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in report.json"))
    page = (report.path / "report.html").read_text()
    assert not re.search(r"\b(nan|inf)\b", page, re.IGNORECASE)
    assert all(map(math.isfinite, report.numbers().values()))
