"""Features: raw rows in, what the model sees out."""

from __future__ import annotations

import numpy as np
import pytest
import rows
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from boatyard.data import kinds
from boatyard.data.features import Features, empty, output_shape, tensors
from boatyard.data.schema import Field, Schema
from boatyard.project import PreprocessConfig

STANDARD = PreprocessConfig()


def features_of(dataset: rows.Made, how: PreprocessConfig = STANDARD) -> torch.Tensor:
    module = Features(dataset.schema, dataset.statistics, how).eval()
    return module(tensors(dataset.schema, dataset.load("train").inputs))


def test_numbers_are_standardised_as_scikit_learn_does() -> None:
    dataset = rows.numbers()
    wanted = StandardScaler().fit_transform(dataset.load("train").inputs["features"].astype(np.float64))
    np.testing.assert_allclose(features_of(dataset).numpy(), wanted, atol=1e-5)


def test_grey_images_become_one_channel_of_mean_0_and_deviation_1() -> None:
    made = features_of(rows.images())
    assert made.shape[1:] == (1, 12, 12)
    assert made.dtype == torch.float32
    assert abs(float(made.mean())) < 1e-4 and abs(float(made.std()) - 1) < 1e-3


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_colour_images_become_channels_first_each_standardised(kind: str) -> None:
    made = features_of(rows.images(channels=3, kind=kind))
    assert made.shape[1:] == (3, 12, 12)
    for channel in range(3):
        assert abs(float(made[:, channel].mean())) < 1e-4


def test_minmax_maps_the_training_range_to_0_and_1() -> None:
    made = features_of(rows.images(), PreprocessConfig(normalise="minmax"))
    assert float(made.min()) == 0 and abs(float(made.max()) - 1) < 1e-6


def test_none_leaves_values_as_they_are() -> None:
    dataset = rows.numbers()
    made = features_of(dataset, PreprocessConfig(normalise="none"))
    assert np.array_equal(made.numpy(), dataset.load("train").inputs["features"])


def test_a_constant_column_becomes_zero_and_not_nan() -> None:
    schema = Schema("regression", (Field("a", "number", "float32"),), "y")
    dataset = rows.made(schema, {"features": np.full((20, 1), 7, np.float32)}, np.arange(20, dtype=np.float32))
    for normalise in ("standard", "minmax"):
        assert not features_of(dataset, PreprocessConfig(normalise=normalise)).any()


def test_a_missing_number_becomes_the_median_and_is_told() -> None:
    dataset = rows.mixed()
    module = Features(dataset.schema, dataset.statistics, STANDARD).eval()
    age = list(module.columns).index("age")
    inputs = empty(dataset.schema, 2)
    inputs["age"] = torch.tensor([float("nan"), 30.0])
    made = module(inputs)
    statistics = dataset.statistics["age"]
    assert abs(float(made[0, age]) - (statistics["median"] - statistics["mean"]) / statistics["std"]) < 1e-5
    assert module.columns[age + 1] == "age is missing"
    assert made[:, age + 1].tolist() == [1, 0]


def test_categories_are_encoded_as_scikit_learn_does() -> None:
    dataset = rows.mixed()
    module = Features(dataset.schema, dataset.statistics, STANDARD).eval()
    town = [index for index, column in enumerate(module.columns) if column.startswith("town")]
    values = dataset.load("train").inputs["town"].reshape(-1, 1)
    encoder = OneHotEncoder(categories=[["a b", "Ås", "Œuf"]], handle_unknown="ignore", sparse_output=False)
    assert np.array_equal(features_of(dataset)[:, town].numpy(), encoder.fit_transform(values))


def test_an_unknown_category_is_all_zeros() -> None:
    dataset = rows.mixed()
    module = Features(dataset.schema, dataset.statistics, STANDARD).eval()
    inputs = {**dataset.load("train").take(slice(0, 1)).inputs, "colour": np.array(["purple"])}
    made = module(tensors(dataset.schema, inputs))
    assert not made[:, [i for i, c in enumerate(module.columns) if c.startswith("colour")]].any()


def test_missing_that_training_never_saw_counts_as_unknown() -> None:
    schema = Schema("regression", (Field("c", "category", "str", nullable=True, categories=("a", "b")),), "y")
    inputs = {"c": np.array(["a", "b"] * 10)}
    module = Features(schema, rows.made(schema, inputs, np.arange(20, dtype=np.float32)).statistics, STANDARD)
    assert module.columns == ("c is a", "c is b")
    assert module(tensors(schema, {"c": np.array([""])})).tolist() == [[0, 0]]


def test_ordinal_is_the_rank_standardised_and_the_middle_when_unknown() -> None:
    dataset = rows.mixed()
    module = Features(dataset.schema, dataset.statistics, PreprocessConfig(encode="ordinal")).eval()
    town = list(module.columns).index("town")
    made = module(tensors(dataset.schema, dataset.load("train").inputs))[:, town]
    assert abs(float(made.mean())) < 1e-5 and abs(float(made.std(unbiased=False)) - 1) < 1e-5
    unknown = {**dataset.load("train").take(slice(0, 1)).inputs, "town": np.array(["Atlantis"])}
    assert float(module(tensors(dataset.schema, unknown))[0, town]) == 0


@settings(max_examples=60, deadline=None)
@given(
    known=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), unique=True, min_size=1),
    data=st.data(),
)
def test_codes_are_ranks_then_missing_then_unknown(known: list[str], data: st.DataObject) -> None:
    field = Field("c", "category", "str", nullable=True, categories=tuple(sorted(known)))
    asked = data.draw(st.lists(st.one_of(st.sampled_from([*known, ""]), st.text(max_size=3)), min_size=1))
    asked = [value.replace("\0", "") for value in asked]
    table = {value: index for index, value in enumerate([*field.categories, ""])}
    found = kinds.of(field).to_torch(field, np.array(asked, dtype=str))
    assert found.tolist() == [table.get(value, len(table)) for value in asked]


def test_output_shape_is_that_of_one_row() -> None:
    dataset = rows.mixed()
    module = Features(dataset.schema, dataset.statistics, STANDARD)
    assert output_shape(module, dataset.schema) == (len(module.columns),) == (10,)
