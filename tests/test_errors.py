"""An error carries what was expected, what was found and how to fix it, and makes its one line of them."""

import pickle

import pytest

from boatyard import errors
from boatyard.errors import BoatyardError, ConfigError


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConfigError("the project has no name"), "the project has no name"),
        (ConfigError("no dataset at d", fix="make it again"), "no dataset at d; make it again"),
        (ConfigError("train.epochs", expected="1 or more", found="0"), "train.epochs: expected 1 or more, found 0"),
        (ConfigError(expected="a table", found="a list", fix="name it"), "expected a table, found a list; name it"),
        (ConfigError("version 7 of digits", found="1, 2", fix="name one of these"),
         "version 7 of digits: found 1, 2; name one of these"),
    ],
)  # fmt: skip
def test_the_one_line_is_made_of_the_fields(error: BoatyardError, line: str) -> None:
    assert str(error) == line


@pytest.mark.parametrize("kind", [value for value in vars(errors).values() if isinstance(value, type)])
def test_the_fields_of_every_error_cross_to_another_process(kind: type[BoatyardError]) -> None:
    error = kind("digits", expected="a", found="b", fix="c")
    for copy in (pickle.loads(pickle.dumps(error)), kind(**error.fields())):
        assert (type(copy), copy.about, copy.expected, copy.found, copy.fix) == (kind, "digits", "a", "b", "c")
        assert str(copy) == str(error)


def test_every_error_is_drawn_in_the_tree() -> None:
    drawn = errors.__doc__ or ""
    assert all(name in drawn for name, value in vars(errors).items() if isinstance(value, type))
