"""The Python API: its names, the table that the docs have of them, rows in every container, a server for a block."""

import importlib.util
import io
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas
import polars
import pyarrow as pa
import pytest
from PIL import Image

import boatyard
from boatyard.cli.main import cli
from boatyard.errors import ArtifactError, ConfigError, RequestError

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "tests" / "kept"
PRICES, DIGITS = (KEPT / name / "registry" / name / "versions" / "1" for name in ("prices", "digits"))


def verbs(command: click.Group, before: str = "") -> Iterator[str]:
    for name, verb in command.commands.items():
        if isinstance(verb, click.Group):
            yield from verbs(verb, f"{before}{name} ")
        else:
            yield f"{before}{name}"


def test_every_name_is_there_is_listed_and_is_documented() -> None:
    assert boatyard.__all__ == sorted(boatyard.__all__) and set(boatyard.__all__) < set(dir(boatyard))
    for name in boatyard.__all__:
        assert getattr(boatyard, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        boatyard.trian  # noqa: B018


def test_modules_are_there_by_their_names_and_no_function_hides_one() -> None:
    code = "import boatyard; print(boatyard.training.__name__, boatyard.recipes.Recipe.__name__, boatyard.errors)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("boatyard.training Recipe <module 'boatyard.errors'")
    assert not [name for name in boatyard.__all__ if importlib.util.find_spec(f"boatyard.{name}")]


def test_every_verb_has_its_function_in_the_docs_table() -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    table = dict(re.findall(r"^\| `boatyard ([a-z ]+)` \| `boatyard\.(\w+)` \|$", page, flags=re.M))
    assert set(table) == set(verbs(cli))
    assert set(table.values()) <= set(boatyard.__all__)


def test_a_file_with_a_verb_is_all_that_a_new_verb_takes(tmp_path: Path) -> None:
    (tmp_path / "greet.py").write_text(
        "import click\nfrom boatyard.cli.options import Verb\n\n\n"
        "@click.command(cls=Verb)\ndef greet() -> None:\n    'Greet.'\n    click.echo('hello')\n"
    )
    code = f"import boatyard.cli; boatyard.cli.__path__.append({str(tmp_path)!r}); from boatyard.cli.main import main"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; main()", "greet"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "hello\n"


def test_the_plugins_are_listed_with_where_they_come_from() -> None:
    found = {(plugin.group, plugin.name): plugin.origin for plugin in boatyard.list_plugins()}
    assert found["recipes", "cnn"] == found["launchers", "process"] == found["measures", "accuracy"] == "built in"
    done = subprocess.run(
        [sys.executable, "-m", "boatyard", "plugins", "--json"], capture_output=True, text=True, check=True
    )
    assert {(p["group"], p["name"]): p["origin"] for p in json.loads(done.stdout)} == found


def test_starting_is_cheap() -> None:
    spec = importlib.util.spec_from_file_location("help_time", ROOT / "benchmarks" / "help_time.py")
    assert spec and spec.loader
    measure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(measure)
    found = measure.ratios(times=3)
    assert found["import boatyard"] < 1.6 and found["boatyard --help"] < 2, "bounds that a busy machine keeps"


def test_settings_are_changed_by_a_mapping_as_by_the_command(tmp_path: Path) -> None:
    boatyard.init(tmp_path / "p")
    project = boatyard.Project.load(tmp_path / "p", set={"train.epochs": 3})
    assert project == boatyard.Project.load(tmp_path / "p", set=["train.epochs=3"]) and project.root == tmp_path / "p"
    assert project.override({"train.epochs": 4}).train.epochs == 4 and project.train.epochs == 3
    with pytest.raises(ConfigError, match=r"train\.epoch: no such key; did you mean epochs"):
        project.override({"train.epoch": 3})


# PredictedRows


def rows_of(model: boatyard.Model) -> list[dict[str, Any]]:
    """Return the golden rows of a table's package, as JSON has them."""
    return [dict(row) for row in model.package.golden.instances]


@pytest.fixture(scope="module")
def prices() -> boatyard.Model:
    return boatyard.load(PRICES)


@pytest.fixture(scope="module")
def digits() -> boatyard.Model:
    return boatyard.load(DIGITS)


def outputs(predictions: boatyard.PredictedRows) -> Any:
    found = predictions.values if predictions.values is not None else predictions.probabilities
    assert found is not None
    return found


@pytest.mark.parametrize(
    "container",
    [pandas.DataFrame, polars.DataFrame, pa.Table.from_pylist, list, lambda rows: [[*row.values()] for row in rows]],
    ids=["pandas", "polars", "arrow", "dicts", "lists"],
)
def test_rows_in_every_container_are_predicted_alike(prices: boatyard.Model, container: Any) -> None:
    rows = rows_of(prices)
    names = [field.name for field in prices.schema.fields]
    ordered = [{name: row.get(name) for name in names} for row in rows]
    found = prices.predict(container(ordered))
    assert len(found) == len(rows)
    np.testing.assert_allclose(outputs(found), outputs(prices.predict(rows)), rtol=1e-5)
    assert list(found.to_frame().columns) == ["value"]


def test_one_row_is_a_batch_of_one(prices: boatyard.Model) -> None:
    row = rows_of(prices)[0]
    alone = outputs(prices.predict(row))
    assert alone.shape[0] == 1
    np.testing.assert_allclose(alone, outputs(prices.predict(pandas.Series(row, dtype=object))))


def test_a_wrong_row_is_named(prices: boatyard.Model) -> None:
    rows = rows_of(prices)[:2]
    name = next(field.name for field in prices.schema.fields if field.kind == "number")
    rows[1][name] = "cheap"
    with pytest.raises(RequestError, match=rf"found 'cheap', at instances\[1\]\.{name}"):
        prices.predict(rows)


def test_a_picture_is_the_same_as_array_file_bytes_and_image(digits: boatyard.Model, tmp_path: Path) -> None:
    field = digits.schema.fields[0]
    images = np.asarray(digits.package.golden.inputs[field.name])[:2]
    whole = outputs(digits.predict(images))
    if images.dtype != np.uint8:
        pytest.skip("pixels that are no bytes are no file")
    pictures = [Image.fromarray(image.reshape(image.shape[:2])) for image in images]
    paths = []
    for number, picture in enumerate(pictures):
        paths.append(tmp_path / f"{number}.png")
        picture.save(paths[-1])
    file = io.BytesIO()
    pictures[0].save(file, "PNG")
    for one in (images[0], pictures[0], paths[0], str(paths[0]), file.getvalue(), images[0].tolist()):
        rows = [one] if isinstance(one, list) else one
        np.testing.assert_allclose(outputs(digits.predict(rows)), whole[:1], atol=1e-5)
    np.testing.assert_allclose(outputs(digits.predict(pictures)), whole, atol=1e-5)
    with pytest.raises(RequestError, match=r"nowhere\.png .*instances\[1\]"):
        digits.predict([paths[0], tmp_path / "nowhere.png"])


# A server


def test_a_server_is_ready_answers_as_the_model_does_and_is_gone_after_the_block(prices: boatyard.Model) -> None:
    rows = rows_of(prices)
    with boatyard.serve(prices, port=0) as server, boatyard.serve(prices, port=0) as other:
        assert len({server.url, other.url}) == len({server.grpc_url, other.grpc_url}) == 2
        body = json.dumps({"instances": rows}).encode()
        request = urllib.request.Request(f"{server.url}/v1/models/{server.name}:predict", body)
        request.add_header("Content-Type", "application/json")
        answers = json.load(urllib.request.urlopen(request, timeout=30))["predictions"]
    np.testing.assert_allclose(answers, outputs(prices.predict(rows)), rtol=1e-5)
    assert server.process.poll() == 0


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text("{}")
    with pytest.raises((ConfigError, ArtifactError), match=r"package\.json"):
        boatyard.serve(tmp_path, port=0, grpc_port=0)


def test_a_server_ends_with_the_process_that_started_it() -> None:
    serve = f"server = boatyard.serve({str(PRICES)!r}, port=0, grpc_port=0); print(server.url, flush=True)"
    code = f"import boatyard, os; {serve}; os._exit(9)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    url = done.stdout.strip()
    assert url.startswith("http://"), done.stderr
    for _ in range(100):
        try:
            urllib.request.urlopen(f"{url}/v2/health/live", timeout=1)
        except OSError:
            return
    raise AssertionError("it serves on")
