"""The split: exact shares of every class, nothing in two splits, groups whole; whatever the rows are."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boatyard.data.datasets import SPLITS, Split
from boatyard.data.schema import Array
from boatyard.errors import DataError
from boatyard.preprocessing import splitting
from boatyard.preprocessing.splitting import CODES, DROPPED, DUPLICATE, HELD, OPEN, Decision, RowIndex

SHARES: dict[Split, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}
FEW = settings(max_examples=60, deadline=None)
NOTHING: frozenset[Split] = frozenset()


def decided(
    content: Any,
    label: Any,
    *,
    shares: dict[Split, float] = SHARES,
    seed: int = 0,
    policy: Literal["drop", "keep", "refuse"] = "drop",
    split: Any = None,
    group: Any = None,
) -> Decision:
    """Decide about rows in memory."""
    codes = np.full(len(content), OPEN, np.uint8) if split is None else np.asarray(split, np.uint8)
    given_: frozenset[Split] = frozenset(name for name, code in CODES.items() if code in codes)
    with tempfile.TemporaryDirectory() as folder:
        index = RowIndex(Path(folder), grouped=group is not None)
        hashed = splitting.mix(np.asarray(content, np.uint64))
        with index:
            index.add(hashed, np.asarray(label, np.int32), codes, None if group is None else np.asarray(group))
        return splitting.split(index, shares, seed, policy, given_)


def members(decision: Decision, values: Any) -> dict[str, set[Any]]:
    """Return the values of each split's rows."""
    found = np.asarray(values)
    return {split: set(found[decision.codes == CODES[split]].tolist()) for split in SPLITS}


def are_apart(decision: Decision, values: Any) -> bool:
    one, two, three = members(decision, values).values()
    return not (one & two or one & three or two & three)


labels = st.lists(st.integers(0, 4), min_size=1, max_size=120)
shares = st.tuples(*[st.integers(1, 8)] * 3).map(
    lambda parts: {split: part / sum(parts) for split, part in zip(SPLITS, parts, strict=True)}
)


@FEW
@given(labels, shares, st.integers(0, 5), st.sampled_from([7, 50, 1_000_000]))
def test_every_class_is_shared_out_exactly(label: list[int], shares: dict[Split, float], seed: int, part: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splitting, "PART", part)
        decision = decided(range(len(label)), label, shares=shares, seed=seed)
    for one, count in Counter(label).items():
        rows = decision.codes[np.array(label) == one]
        found = {split: int((rows == CODES[split]).sum()) for split in SPLITS}
        assert sum(found.values()) == count
        if count >= 3:
            assert min(found.values()) >= 1
            assert all(abs(found[split] - count * shares[split]) <= 2 for split in SPLITS)
        else:
            assert found["train"] == count and one in decision.small


@FEW
@given(st.integers(10, 400), st.sampled_from([(0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (0.5, 0.2, 0.3)]))
def test_shares_of_one_class_are_within_rounding(count: int, parts: tuple[float, float, float]) -> None:
    wanted = dict(zip(SPLITS, parts, strict=True))
    decision = decided(range(count), [0] * count, shares=wanted)
    assert all(abs(decision.rows(split) - count * wanted[split]) <= 1 for split in SPLITS)


rows = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), min_size=1, max_size=150)


@FEW
@given(rows, st.integers(0, 3), st.sampled_from([5, 1_000_000]))
def test_equal_rows_never_stand_in_two_splits(pairs: list[tuple[int, int]], seed: int, part: int) -> None:
    content, label = zip(*pairs, strict=True)
    for policy in ("keep", "drop"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(splitting, "PART", part)
            try:
                decision = decided(content, label, seed=seed, policy=policy)  # type: ignore[arg-type]
            except DataError as error:
                assert "cannot fill 3 splits" in str(error) and len(set(content)) < 3
                continue
        assert are_apart(decision, content)
        kept = decision.codes <= CODES["test"]
        if policy == "drop":
            assert sorted(np.flatnonzero(kept)) == sorted(
                {pair: i for i, pair in reversed(list(enumerate(pairs)))}.values()
            )
            assert decision.duplicates == int((decision.codes == DUPLICATE).sum()) == len(pairs) - len(set(pairs))
        else:
            assert kept.all() and decision.duplicates == 0


@FEW
@given(rows, st.integers(0, 3))
def test_rows_of_the_same_features_and_another_label_are_counted(pairs: list[tuple[int, int]], seed: int) -> None:
    content, label = zip(*pairs, strict=True)
    first = {c: one for c, one in reversed(pairs)}
    try:
        decision = decided(content, label, seed=seed, policy="keep")
    except DataError:
        return
    assert decision.conflicts == sum(first[c] != one for c, one in pairs)


@FEW
@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 1), st.sampled_from([OPEN, OPEN, 2])), min_size=9, max_size=99
    )
)
def test_a_given_test_set_stays_whole_and_its_copies_leave_training(found: list[tuple[int, int, int]]) -> None:
    content, label, split = map(list, zip(*found, strict=True))
    split[:1] = [2]
    tested = {c for c, s in zip(content, split, strict=True) if s == 2}
    if len(set(content) - tested) < 2:
        return  # too few are left to divide, which is refused
    decision = decided(content, label, split=split)
    given_test = np.array(split) == 2
    assert (decision.codes[given_test] == CODES["test"]).all()
    assert (decision.codes[~given_test] != CODES["test"]).all()
    assert are_apart(decision, content)
    copies = np.array([c in tested for c in content]) & ~given_test
    assert (decision.codes[copies] == HELD).all() and decision.held == copies.sum()


def test_given_validation_and_test_sets_leave_the_rest_to_training() -> None:
    split = [OPEN] * 20 + [CODES["validation"]] * 5 + [CODES["test"]] * 5
    decision = decided([*range(24), 30, 0, 20, 26, 27, 28], [0, 1] * 15, split=split)
    assert decision.rows("train") == 19  # row 0 is a copy of a test row
    assert decision.codes[20] == HELD  # and a row of validation another
    assert decision.rows("validation") == 4 and decision.rows("test") == 5


def test_rows_that_cleaning_dropped_count_as_not_there() -> None:
    split = [DROPPED] + [OPEN] * 20
    decision = decided([5, 5, *range(100, 119)], [0] * 21, split=split)
    assert decision.codes[0] == DROPPED and decision.codes[1] <= 2 and decision.duplicates == 0


@FEW
@given(
    st.lists(st.tuples(st.integers(0, 15), st.integers(0, 2), st.integers(0, 60)), min_size=30, max_size=150),
    st.integers(0, 3),
)
def test_groups_stay_whole_and_equal_rows_bind_them(found: list[tuple[int, int, int]], seed: int) -> None:
    group, label, content = (np.array(values) for values in zip(*found, strict=True))
    try:
        decision = decided(content, label, group=group.astype(np.uint64), seed=seed)
    except DataError as error:
        assert "cannot fill 3 splits" in str(error)
        return
    assert are_apart(decision, group)
    assert are_apart(decision, content)
    assert all(decision.rows(split) for split in SPLITS)


@pytest.mark.parametrize("many", [10, 1_000_000])
def test_many_groups_are_shared_out_nearly_as_wanted(monkeypatch: pytest.MonkeyPatch, many: int) -> None:
    monkeypatch.setattr(splitting, "MANY_GROUPS", many)
    random = np.random.default_rng(0)
    group = random.integers(0, 400, 5000).astype(np.uint64)
    label = (random.random(5000) < 0.2 + 0.6 * (group % 2)).astype(np.int32)
    decision = decided(range(5000), label, group=group)
    assert are_apart(decision, group)
    for split in SPLITS:
        assert abs(decision.rows(split) / 5000 - SHARES[split]) < 0.02
        if many > 400:
            assert abs(label[decision.codes == CODES[split]].mean() - label.mean()) < 0.03


def test_a_table_of_few_different_rows_is_still_divided() -> None:
    random = np.random.default_rng(0)
    content, label = random.integers(0, 40, 5000), random.integers(0, 2, 5000)
    decision = decided(content, label, policy="keep")
    assert are_apart(decision, content)
    assert all(abs(decision.rows(split) / 5000 - SHARES[split]) < 0.05 for split in SPLITS)


def test_the_split_depends_on_content_not_on_order() -> None:
    label = np.arange(500) % 3
    one = decided(range(500), label).codes
    order = np.random.default_rng(0).permutation(500)
    two = decided(order, label[order]).codes
    assert (one[order] == two).all()
    assert (decided(range(500), label, seed=1).codes != one).any()


def test_a_thousand_classes_are_divided_within_bounded_tables() -> None:
    label: Array = np.arange(9000) % 1000
    decision = decided(range(9000), label)
    assert all(len(members(decision, label)[split]) == 1000 for split in SPLITS)
