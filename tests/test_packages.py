"""A package is bound byte by byte: what was changed is refused by name, and nothing in it can crash the reader."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boatyard import packages
from boatyard.data import artifacts
from boatyard.errors import ArtifactError, ConfigError, Refused

FILES = sorted(("golden.json", "labels.json", "lineage.json", "model.onnx", "recipe.json", "schema.json"))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graphs.package(tmp_path_factory.mktemp("good"), graphs.mixed_schema()).path


@pytest.fixture
def package(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "copy"))


@pytest.mark.parametrize(
    "schema",
    [
        graphs.image_schema(),
        graphs.image_schema((4, 4, 3)),
        graphs.image_schema((4, 4), "float32"),
        graphs.numbers_schema(),
        graphs.numbers_schema("classification"),
        graphs.mixed_schema(),
        graphs.mixed_schema("regression"),
    ],
)
def test_a_packed_package_verifies_and_holds_what_went_in(schema: Any, tmp_path: Path) -> None:
    package = graphs.package(tmp_path, schema)
    assert packages.verify(package.path) == package
    assert (package.schema, package.labels, len(package.golden)) == (schema, schema.labels, 8)
    assert packages.differences(package.path) == []


def test_the_same_inputs_give_the_same_package(tmp_path: Path) -> None:
    first, second = (graphs.package(tmp_path / name, graphs.mixed_schema()) for name in "ab")
    assert first.digest == second.digest


def test_lineage_names_everything_that_the_package_was_made_of(good: Path) -> None:
    lineage = packages.verify(good).lineage
    assert lineage.keys() >= {"dataset", "source", "environment", "graph", "checkpoint", "report", "seal"}
    assert lineage["graph"] == artifacts.digest_file(good / "model.onnx")


def test_pack_refuses_a_verdict_that_said_no(tmp_path: Path) -> None:
    made = graphs.checkpoint(tmp_path / "checkpoint", graphs.image_schema())
    with pytest.raises(Refused, match="only a model that passed its gate is packed"):
        packages.pack(
            name="insects",
            checkpoint=made,
            report=graphs.report(tmp_path / "report", made),
            verdict=graphs.verdict(tmp_path / "verdict.json", made, passed=False),
            dataset=graphs.Rows(tmp_path, "", graphs.image_schema(), {}),
            out=tmp_path / "package",
            golden=8,
            lineage={},
        )
    assert not (tmp_path / "package").exists()


def test_pack_refuses_a_report_on_another_graph(tmp_path: Path) -> None:
    made = graphs.checkpoint(tmp_path / "checkpoint", graphs.image_schema())
    other = graphs.checkpoint(tmp_path / "other", graphs.image_schema(), seed=1)
    with pytest.raises(ArtifactError, match="evaluate this checkpoint"):
        packages.pack(
            name="insects",
            checkpoint=made,
            report=graphs.report(tmp_path / "report", other),
            verdict=graphs.verdict(tmp_path / "verdict.json", made),
            dataset=graphs.Rows(tmp_path, "", graphs.image_schema(), {}),
            out=tmp_path / "package",
            golden=8,
            lineage={},
        )


def all_files(package: Path) -> list[str]:
    return sorted(p.relative_to(package).as_posix() for p in package.rglob("*") if p.is_file())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_changed_bit_anywhere_is_refused_by_the_file_s_name(package: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(all_files(package)))
    before = (package / name).read_bytes()
    place, bit = data.draw(st.integers(0, len(before) - 1)), data.draw(st.integers(0, 7))
    changed = bytearray(before)
    changed[place] ^= 1 << bit
    (package / name).write_bytes(changed)
    try:
        with pytest.raises(ArtifactError) as refusal:
            packages.verify(package, None if name != "package.json" else artifacts.digest_bytes(before))
        assert name in str(refusal.value) or name == "package.json"
        if name != "package.json":
            assert any(name in difference for difference in packages.differences(package))
    finally:
        (package / name).write_bytes(before)


@pytest.mark.parametrize("file", [*FILES, "weights.safetensors", "report/report.html", "report/report.json"])
def test_a_cut_renamed_emptied_or_linked_file_is_refused_by_name(package: Path, file: str) -> None:
    path, before = package / file, (package / file).read_bytes()
    for damage in (
        lambda: path.write_bytes(before[:-1]),
        lambda: path.write_bytes(b""),
        lambda: path.write_bytes(before + b" "),
        lambda: path.rename(path.with_name("other.json")),
        lambda: (path.unlink(), path.symlink_to("/etc/hostname")),
        lambda: (path.unlink(), path.mkdir()),
        lambda: (path.unlink(), os.mkfifo(path)),
    ):
        damage()
        with pytest.raises(ArtifactError) as refusal:
            packages.verify(package)
        assert file in str(refusal.value) or "other.json" in str(refusal.value)
        assert any(file in difference for difference in packages.differences(package))
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        path.with_name("other.json").unlink(missing_ok=True)
        path.write_bytes(before)
    packages.verify(package)


def test_differences_lists_every_file_that_differs(package: Path) -> None:
    (package / "extra.py").write_text("import os")
    (package / "labels.json").write_text("[]")
    (package / "report/report.html").unlink()
    said = "\n".join(packages.differences(package))
    assert all(name in said for name in ("extra.py", "labels.json", "report/report.html"))


def test_a_folder_that_is_a_link_is_not_followed(package: Path, tmp_path: Path) -> None:
    shutil.move(package / "report", tmp_path / "elsewhere")
    (package / "report").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="report is not a plain file"):
        packages.verify(package)


@pytest.mark.parametrize(
    "name", ["../x.json", "/etc/passwd.json", "a//b.json", "a\\b.json", "./a.json", "model.pkl", ""]
)
def test_a_manifest_that_lists_what_no_package_holds_is_refused(package: Path, name: str) -> None:
    manifest = json.loads((package / "package.json").read_bytes())
    manifest["files"].append({"path": name, "bytes": 1, "sha256": "0" * 64})
    (package / "package.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"package.json"):
        packages.verify(package)


WRONG: list[Any] = [None, True, 0, -1, 1.5, 2**70, "", "x", [], [[]], {}, {"a": 1}, "\0"]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value in JSON."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for key, each in inner for p in places(each, (*path, key)))]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_sealed_file_with_a_wrong_value_is_refused_or_harmless_never_a_crash(
    package: Path, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(["package.json", "schema.json", "labels.json", "golden.json", "verdict.json"]))
    before, manifest = (package / name).read_bytes(), (package / "package.json").read_bytes()
    value = json.loads(before)
    *parents, last = data.draw(st.sampled_from([p for p in places(value) if p]))
    inner = value
    for key in parents:
        inner = inner[key]
    if data.draw(st.booleans()):
        inner[last] = data.draw(st.sampled_from(WRONG))
    else:
        del inner[last]
    (package / name).write_text(json.dumps(value))
    try:
        if name != "package.json":
            graphs.reseal(package)
        packages.verify(package)
    except ArtifactError as error:
        assert ".json" in str(error)
    finally:
        (package / name).write_bytes(before)
        (package / "package.json").write_bytes(manifest)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "not JSON"),
        ('{"a":' * 100_000, "not JSON"),
        ('{"a": 1, "a": 2}', "given twice"),
        ("[NaN]", "NaN"),
        ("1" * 10_000, "JSON"),
        ("\udcff", "JSON"),
        ("", "JSON"),
        ("null", "labels.json"),
    ],
    ids=range(8),
)
def test_json_that_attacks_its_reader_is_refused(package: Path, text: str, said: str) -> None:
    (package / "labels.json").write_bytes(text.encode(errors="surrogateescape"))
    graphs.reseal(package)
    with pytest.raises(ArtifactError, match=said):
        packages.verify(package)
    (package / "package.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ArtifactError, match=r"package\.json"):
        packages.verify(package)


def test_a_package_json_without_end_is_not_read_to_its_end(package: Path) -> None:
    with open(package / "package.json", "wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(ArtifactError, match="more than"):
        packages.verify(package)


def test_another_package_than_the_one_asked_for_is_refused(good: Path) -> None:
    with pytest.raises(ArtifactError, match=r"package.json was changed: expected sha256 0000"):
        packages.verify(good, "0" * 64)


def test_no_package_is_said_so(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ArtifactError, match="no package at"):
            packages.verify(path)
        assert "no package at" in packages.differences(path)[0]


def test_a_package_is_shown_to_people_and_programs(good: Path, tmp_path: Path) -> None:
    package = packages.verify(good)
    assert "insects" in packages.text(package)
    assert json.loads(json.dumps(packages.describe(package)))["digest"] == package.digest
    assert packages.question(package, 0).keys() == {"age", "colour", "city"}
    image = graphs.package(tmp_path, graphs.image_schema())
    assert np.array(packages.question(image, 7)).shape == (4, 4)
    with pytest.raises(ConfigError, match="8"):
        packages.question(image, 8)


def test_a_model_whose_rows_see_each_other_is_not_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of the batch is taken off the scores: what no training of ours writes any more, others may."""
    schema = graphs.numbers_schema()
    model = onnx.load_from_string(graphs.graph(schema))
    last = model.graph.node[-1]
    mean = onnx.helper.make_node("ReduceMean", ["out"], ["mean"], axes=[0], keepdims=1)
    centred = onnx.helper.make_node("Sub", ["out", "mean"], ["centred"])
    last.input[0] = "centred"
    del model.graph.node[-1]
    model.graph.node.extend([mean, centred, last])
    monkeypatch.setattr(graphs, "graph", lambda *_: model.SerializeToString())
    with pytest.raises(Refused, match=r"answer for a row depends on the rows that it comes with: found value of a row"):
        graphs.package(tmp_path, schema)
