"""Kinds that are built in keep to the rules of a kind; a kind that breaks one is told which."""

from __future__ import annotations

from typing import Any

import clock
import numpy as np
import pytest
from PIL import Image

from boatyard import plugins
from boatyard.data import kinds, pictures
from boatyard.data.kinds import conformance
from boatyard.data.schema import Field, Schema
from boatyard.errors import ArtifactError, Refused, RequestError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 4), np.uint8)


@pytest.mark.parametrize(
    ("kind", "raw", "bad", "column"),
    [
        (kinds.load("number"), [1.5, 2, -3.25], ["1", None, True, [1.0], 1e40], None),
        (kinds.load("category"), ["a", "b c", "é"], [1, True, ["a"]], None),
        (kinds.load("image"), PIXELS.tolist(), [1, "a", [[1]], {"b64": "*"}], PIXELS),
        (kinds.load("image"), PIXELS.astype(float).tolist(), [None, {"b64": 7}], PIXELS.astype(np.float32)),
        (clock.KIND, ["00:00", "09:30", "23:59"], ["24:00", "9:30", "", 9, None, ["09:30"]], None),
    ],
    ids=["number", "category", "image", "float image", "clock"],
)
def test_a_kind_keeps_to_the_rules(
    monkeypatch: pytest.MonkeyPatch, kind: kinds.Kind, raw: list[Any], bad: list[Any], column: Any
) -> None:
    known = {**{name: kinds.load(name) for name in plugins.builtin("kinds")}, "clock": clock.KIND}
    monkeypatch.setattr("boatyard.data.kinds.base.load", known.get)
    conformance.check(kind, raw, bad, column)


class Forgetful(clock.ClockKind):
    """Loses the minutes on the way to JSON, and takes anything."""

    def read(self, field: Field, value: Any, at: str) -> Any:
        return np.array([float(str(value)[:2] or 0), len(str(value))], np.float32)

    def write(self, field: Field, values: Any) -> list[Any]:
        return [f"{hour:.0f}" for hour, _ in values.tolist()]


def test_a_kind_that_breaks_rules_is_told_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boatyard.data.kinds.base.load", lambda name: Forgetful())
    with pytest.raises(Refused, match=r"read\(\) of what write\(\) gives is another value.*read\(\) takes ''"):
        conformance.check(Forgetful(), ["01:00", "02:30"], [""])


def test_a_schema_with_a_kind_that_is_not_installed_is_refused_by_name() -> None:
    value = Schema("regression", (Field("x", "number", "float32"),), "y").to_dict()
    value["fields"][0]["kind"] = "numbr"
    with pytest.raises(ArtifactError, match="not installed here: no kind 'numbr'; did you mean number"):
        Schema.from_dict(value)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_a_picture_is_read_by_the_server_as_preprocess_reads_it(mode: str, orientation: int) -> None:
    """A camera's orientation is applied and alpha is composited on white, in both."""
    import io

    pixels = np.random.default_rng(1).integers(0, 256, (5, 4, 4), np.uint8)
    picture = Image.fromarray(pixels, "RGBA").convert(mode) if mode != "P" else Image.fromarray(pixels[..., 0], "P")
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    picture.save(file, "PNG", exif=exif)
    for color, channels in (("grey", ()), ("rgb", (3,))):
        learnt = np.asarray(pictures.upright(pictures.opened(file.getvalue()), color))  # type: ignore[arg-type]
        field = Field("image", "image", "uint8", (*learnt.shape[:2], *channels))
        assert np.array_equal(kinds.of(field).read_body(field, file.getvalue(), "the body"), learnt)
        other = Field("image", "image", "uint8", (learnt.shape[1], learnt.shape[0], *channels))
        with pytest.raises(RequestError, match=r"high and \d+ wide, found"):
            kinds.of(other).read_body(other, file.getvalue(), "the body")
