"""The page needs nothing but itself, shows what it was given as text, and says in words what its plots show."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boatyard import evaluation
from boatyard.data.schema import Batch, Field, Schema
from boatyard.evaluation import slices
from boatyard.evaluation.metrics import Bin
from boatyard.evaluation.report import Report, page, plots
from boatyard.prediction import Answers
from boatyard.project import EvaluateConfig

EVIL = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"
VOID = {"meta", "img", "br", "link"}
LINEAGE: dict[str, Any] = {
    "graph": "ab" * 32,
    "recipe": "cnn",
    "best_epoch": 2,
    "training": [{"epoch": 1.0, "train_loss": 0.9}, {"epoch": 2.0, "train_loss": 0.4, "validation_accuracy": 0.8}],
    "data": {
        "rows": {"train": 80, "test": 20},
        "cleaning": [{"reason": "duplicate", "column": EVIL, "count": 2, "action": "drop"}],
    },
}


class Page(HTMLParser):
    """Reads a page as a browser does, and remembers what matters here."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]


def report(labels: tuple[str, ...], rows: int = 200, *, image: bool = False, seed: int = 0) -> Report:
    random = np.random.default_rng(seed)
    field = Field("image", "image", "uint8", (8, 8)) if image else Field(EVIL, "number", "float32")
    schema = Schema("classification" if labels else "regression", (field,), EVIL, labels)
    shape = (rows, 8, 8) if image else (rows, 1)
    inputs = {"image" if image else "features": random.integers(0, 255, shape).astype("u1" if image else "f4")}
    answered = evaluation.Answered(schema, 12, slices.columns(schema, [EVIL + "s"]))
    if labels:
        target: Any = random.integers(0, len(labels), rows)
        scores = np.exp(random.normal(size=(rows, len(labels))) + 2 * np.eye(len(labels))[target])
        p = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
        answers = Answers({"label": np.array(labels, object)[p.argmax(axis=1)], "probabilities": p})
    else:
        target = random.normal(size=rows).astype(np.float32)
        answers = Answers({"value": (target + random.normal(size=rows)).astype(np.float32)})
    kept = {EVIL + "s": np.array([EVIL, "b"])[np.arange(rows) % 2]}
    answered.add(Batch(inputs, target, np.arange(rows), kept), answers)
    return evaluation.measure(EvaluateConfig(bootstrap=100), answered, LINEAGE)


KINDS = {
    "two labels": report(("no", "yes")),
    "images": report(("a", "b", EVIL), image=True),
    "regression": report(()),
    "one row": report(("a", "b"), rows=1),
    "many labels": report(tuple(f"label {i}" for i in range(40)), rows=600),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_whole_and_asks_for_nothing_outside_itself(kind: str) -> None:
    text = page.render(KINDS[kind])
    found = Page(text)
    assert not {tag for tag, _ in found.seen} & {"script", "link", "iframe", "object", "embed", "form", "base"}
    assert not [name for _, attributes in found.seen for name in attributes if name.startswith("on")]
    outside = [a.get("src") or a.get("href") or "#" for tag, a in found.seen if tag in ("img", "a", "image", "use")]
    assert all(where.startswith(("#", "data:image/")) for where in outside)
    assert not re.search(r"url\(|@import|https?://", text)
    assert not re.search(r"\b(nan|inf|None)\b", " ".join(found.words))


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_can_be_read_without_seeing_it(kind: str) -> None:
    found = Page(page.render(KINDS[kind]))
    assert all(attributes.get("alt") for attributes in found.all("img"))
    assert all(a.get("role") == "img" and a.get("aria-label") for a in found.all("svg"))
    assert len(found.all("caption")) == len(found.all("table")) > 1
    assert all(attributes.get("scope") in ("row", "col") for attributes in found.all("th"))
    assert found.all("html")[0]["lang"] == "en" and len(found.all("h1")) == 1
    anchors = {attributes["id"] for _, attributes in found.seen if "id" in attributes}
    assert {(a["href"] or "")[1:] for a in found.all("a")} <= anchors


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_from_data_is_text_and_never_markup(kind: str) -> None:
    text = page.render(KINDS[kind])
    assert EVIL not in text and "<img src=x" not in text and "<script" not in text
    assert EVIL in "".join(Page(text).words)


def test_the_page_opens_with_the_number_and_its_interval() -> None:
    one = KINDS["two labels"]
    words = " ".join(" ".join(Page(page.render(one)).words).split())
    accuracy = one.metrics["accuracy"]
    assert accuracy.value and accuracy.low
    assert words.index(f"{accuracy.value * 100:.2f}") < words.index("Macro F1")
    assert f"95 % interval {accuracy.low * 100:.2f}" in words and "Clopper-Pearson" in words


def test_pictures_are_in_the_page_and_bounded() -> None:
    one = KINDS["images"]
    assert len(Page(page.render(one)).all("img")) == 12
    heavy = replace(one.worst[0], picture="data:image/png;base64," + "A" * 250_000)
    text = page.render(replace(one, worst=(heavy,) * 12))
    assert len(Page(text).all("img")) == 2


@pytest.mark.parametrize("labels", [2, 40, 100, 160])
def test_a_page_of_many_labels_stays_under_a_megabyte(labels: int) -> None:
    one = report(tuple(f"a rather long name of label {i}" for i in range(labels)), rows=6000)
    text = page.render(one)
    assert len(text.encode()) < 1_000_000
    assert "The commonest confusions" in text


def test_a_significantly_worse_slice_is_said_at_the_top() -> None:
    one = KINDS["two labels"]
    bad = replace(one.slices[0], field="site", value="<west>", worse=True)
    text = page.render(replace(one, slices=(bad, *one.slices[1:])))
    said = f"significantly worse than overall (95 %, corrected for {len(one.slices)} slices): site = &lt;west&gt;."
    assert text.index(said) < text.index('<section id="metrics"')


@pytest.mark.parametrize(
    ("kind", "lead"), [("images", "classification of {}, 3 classes,"), ("regression", "regression of {},")]
)
def test_the_page_says_what_is_predicted(kind: str, lead: str) -> None:
    words = " ".join("".join(Page(page.render(KINDS[kind])).words).split())
    assert f"{lead.format(EVIL)} measured on 200 test rows that training never saw" in words


def test_a_section_is_there_where_the_report_has_something_for_it() -> None:
    names = {kind: [a["href"] for a in Page(page.render(one)).all("a")] for kind, one in KINDS.items()}
    assert "#residuals" in names["regression"] and "#confusion" not in names["regression"]
    assert "#confusion" in names["images"] and "#residuals" not in names["images"]
    assert "#slices" not in [a["href"] for a in Page(page.render(replace(KINDS["images"], slices=()))).all("a")]


def test_few_rows_are_said_at_the_top() -> None:
    assert "Test rows: only 1." in page.render(KINDS["one row"])


def test_light_and_dark_and_narrow_screens_are_all_styled() -> None:
    text = page.render(KINDS["regression"])
    assert "prefers-color-scheme:dark" in text and "max-width:760px" in text and "width=device-width" in text


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-3, 2, [-3, -2, -1, 0, 1, 2]), (0, 1234, [0, 500, 1000]), (5, 5, [5])],
)
def test_ticks_are_round_numbers(low: float, high: float, wanted: list[float]) -> None:
    assert plots.ticks(low, high) == pytest.approx(wanted)


@pytest.mark.parametrize("values", [[0.0], [1e30, -1e30], [1e-30, 2e-30], [7.0, 7.0]])
def test_plots_take_any_finite_numbers(values: list[float]) -> None:
    points = [(v, w) for v in values for w in values]
    for drawn in (
        plots.scatter(points, "a", "b", diagonal=True),
        plots.scatter(points, "a", "b", diagonal=False),
        plots.curves([("loss", points)], "epoch", "loss"),
        plots.whisker(values[0], min(values), max(values), (0, max(values))),
    ):
        assert not re.search(r"\b(nan|inf)\b", drawn)
        Page(drawn)


def test_one_calibration_bin_is_drawn() -> None:
    Page(plots.calibration([Bin(0.9, 1.0, 3, 0.95, 1.0, 0.4, 1.0)], 0.95))


def test_a_large_matrix_counts_every_cell_once() -> None:
    random = np.random.default_rng(0)
    cells = [(i, j, int(random.integers(1, 50))) for i in range(100) for j in range(100)]
    drawn = plots.confusion([f"l{i}" for i in range(100)], cells)
    assert drawn.count("h1v1h-1z") == 10_000 and len(drawn) < 200_000


def test_the_style_is_in_the_package(tmp_path: Path) -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert "templates/*" in project["tool"]["setuptools"]["package-data"]["boatyard.evaluation.report"]
