"""Components of ours in pipelines that others write: by import, by file, with their steps between."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sources
import steps
import yaml
from kfp import compiler, dsl
from PIL import Image

from boatyard import components, packages, project, registry, stages
from boatyard.data import artifacts, datasets
from boatyard.errors import ArtifactError, ConfigError, DataError, Refused
from boatyard.pipelines import local, placing
from boatyard.project import templates
from boatyard.running import runs
from boatyard.running.display import Silence

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "mixed"
PAGE = ROOT / "docs" / "pipelines.md"
CSV = ROOT / "examples" / "tabular" / "breast_cancer.csv"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """What examples/mixed/pipeline.py defines."""
    return runpy.run_path(str(EXAMPLE / "pipeline.py"))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the mixed pipeline has been run in, whole, as somebody types it."""
    folder = tmp_path_factory.mktemp("mixed")
    shutil.copytree(EXAMPLE, folder / "mixed")
    (folder / "tabular").mkdir()
    shutil.copy(CSV, folder / "tabular")
    command = [sys.executable, "-W", "error::DeprecationWarning", "pipeline.py"]
    done = subprocess.run(command, cwd=folder / "mixed", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "mixed"


@pytest.fixture(scope="module")
def made(ran: Path) -> dict[str, str]:
    """Where each step of it left its outputs: STEP/OUTPUT."""
    (out,) = ran.glob("out/*")
    return {path.relative_to(out).as_posix(): str(path) for path in out.glob("*/*")}


def test_the_mixed_pipeline_pushes_what_was_trained_on_the_cleaned_rows(ran: Path, made: dict[str, str]) -> None:
    (version,) = registry.open("registry", ran).versions("mixed")
    package = packages.verify(Path(made["push/package"]))
    assert package.digest == version.digest
    raw, rows = (path.read_text().splitlines()[1:] for path in (CSV, Path(made["clean/rows"])))
    measured = [row for row in raw if float(row.split(",")[3]) <= 2000]
    assert len(rows) == len(measured) < len(raw)
    assert sum(datasets.read(Path(made["preprocess/dataset"])).manifest["rows"].values()) == len(measured)


def test_lineage_has_the_cleaned_rows_by_their_digest_and_nothing_of_where_they_lay(
    ran: Path, made: dict[str, str]
) -> None:
    lineage = json.loads((Path(made["push/package"]) / "lineage.json").read_text())
    assert lineage["source"] == {"rows": artifacts.digest_file(Path(made["clean/rows"]))}
    assert lineage["project"]["data"]["path"] == "rows"
    texts = [*Path(made["push/package"]).rglob("*.json"), *Path(made["preprocess/dataset"]).glob("*.json")]
    assert not [file for file in texts if str(ran) in file.read_text()]


def preprocess(example: dict[str, Any], out: Path, rows: Path | str, **settings: Any) -> datasets.Dataset:
    """Do what the component does."""
    how = {**example["PREPROCESS"], **settings}
    stages.preprocess(example["DATA"], how, "classification", str(out), str(out) + ".json", str(rows))
    return datasets.read(out)


def test_the_same_rows_are_the_same_dataset_wherever_they_lie(
    example: dict[str, Any], made: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = shutil.copy(made["clean/rows"], tmp_path / "rows")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOATYARD_PROJECT", str(tmp_path / "elsewhere"))
    again = preprocess(example, tmp_path / "again", "rows")  # a relative artifact starts where the step does
    assert again.digest == datasets.read(Path(made["preprocess/dataset"])).digest
    named = {**example, "DATA": {**example["DATA"], "path": "s3://raw/rows.csv"}}  # as of a project file: not read
    named_too = preprocess(named, tmp_path / "named", "rows")
    assert artifacts.digest_folder(named_too.path) == artifacts.digest_folder(again.path)
    for folder in ("one", "two/deeper"):
        (tmp_path / folder).mkdir(parents=True)
        text = Path(rows).read_text() + "1,2\n"  # a row to tell of, with its place
        (tmp_path / folder / "part.csv").write_text(text)
    one, two = (
        preprocess(example, tmp_path / f"of-{name[:3]}", tmp_path / name, unreadable="drop")
        for name in ("one", "two/deeper")
    )
    assert one.digest == two.digest and artifacts.digest_folder(one.path) == artifacts.digest_folder(two.path)
    assert one.manifest["cleaning"][0]["examples"][0].startswith("part.csv, line ")


def test_rows_that_a_step_did_not_write_are_said(example: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no csv files in .*empty"):
        preprocess(example, tmp_path / "out", tmp_path / "empty")
    with pytest.raises(DataError, match=r"no file or folder at .*gone"):
        preprocess(example, tmp_path / "out", tmp_path / "gone")


def write_rows(source: str, path: Path) -> None:
    """Write 60 rows of two classes as a step would."""
    values = [{"size": n / 7, "label": f"c{n % 2}"} for n in range(60)]
    if source == "parquet":
        pq.write_table(pa.Table.from_pylist(values), path)
    elif source == "jsonl":
        path.write_text("".join(json.dumps(value) + "\n" for value in values))
    for n, value in enumerate(values if source == "images" else ()):
        picture = path / str(value["label"]) / f"{n}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 4 * n).save(picture)


@pytest.mark.parametrize("source", ["parquet", "jsonl", "images"])
def test_a_step_may_leave_rows_of_any_source(source: str, tmp_path: Path) -> None:
    write_rows(source, tmp_path / "rows")
    stages.preprocess(
        {"source": source},
        {},
        "classification",
        str(tmp_path / "out"),
        str(tmp_path / "numbers.json"),
        str(tmp_path / "rows"),
    )
    assert sum(datasets.read(tmp_path / "out").manifest["rows"].values()) == 60


def test_a_dataset_that_a_step_changed_is_refused_by_all_that_read_it(
    example: dict[str, Any], made: dict[str, str], tmp_path: Path
) -> None:
    changed = Path(shutil.copytree(made["preprocess/dataset"], tmp_path / "dataset"))
    shard = next((changed / "shards").glob("train-*"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    for consume in consumers(example, made, str(changed), str(tmp_path / "out")):
        with pytest.raises(ArtifactError, match=shard.name):
            consume()


def test_a_dataset_of_the_same_columns_that_the_model_was_not_trained_on_is_refused(
    example: dict[str, Any], made: dict[str, str], tmp_path: Path
) -> None:
    other = preprocess(example, tmp_path / "other", made["clean/rows"], seed=1)
    train, *rest = consumers(example, made, str(other.path), str(tmp_path / "out"))
    with pytest.raises(ConfigError, match=r"preprocess.seed of the train step: expected 1, as the dataset was made"):
        train()
    for consume, said in zip(
        rest,
        ("was trained on dataset", "is about dataset .* they do not belong together", "is about another dataset"),
        strict=True,
    ):
        with pytest.raises(ArtifactError, match=said):
            consume()


def consumers(example: dict[str, Any], made: dict[str, str], dataset: str, out: str) -> list[Callable[[], object]]:
    """Return what the steps after preprocess do, with a dataset and all else as the run left it."""
    checkpoint, report, verdict = made["train/checkpoint"], made["evaluate/report"], made["gate/verdict"]
    to, gate, numbers = {"registry": f"{out}-registry"}, example["GATE"], f"{out}.json"
    return [
        lambda: stages.train(example["TRAIN"], example["PREPROCESS"], gate, dataset, out, numbers),
        lambda: stages.evaluate({}, dataset, checkpoint, out, numbers),
        lambda: stages.gate(gate, to, "mixed", dataset, checkpoint, report, out),
        lambda: stages.push(to, {"name": "mixed"}, dataset, checkpoint, report, verdict, out),
    ]


def test_a_push_without_a_condition_refuses_what_the_gate_refused(
    example: dict[str, Any], made: dict[str, str], tmp_path: Path
) -> None:
    dataset, to = made["preprocess/dataset"], {"registry": str(tmp_path / "registry")}
    both = made["train/checkpoint"], made["evaluate/report"]
    refused = stages.gate({"minimum": {"accuracy": 0.1}}, to, "mixed", dataset, *both, str(tmp_path / "verdict"))
    assert not refused.passed and "rules were changed after training" in refused.sentence
    with pytest.raises(Refused, match="only a model that passed its gate is packed"):
        stages.push(to, {"name": "mixed"}, dataset, *both, str(tmp_path / "verdict"), str(tmp_path / "out"))
    assert not (tmp_path / "registry").exists()


def test_a_registry_that_would_end_with_its_pod_is_refused_where_kubeflow_runs_the_step(
    example: dict[str, Any], made: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, checkpoint, report = (made[name] for name in ("preprocess/dataset", "train/checkpoint", "evaluate/report"))
    monkeypatch.setenv("BOATYARD_PROJECT", "/tmp/project")
    for place in ("registry", "/tmp/registry", "file:///srv/registry"):
        to = {"registry": place}
        with pytest.raises(ConfigError, match="a folder that ends with it; give an s3:// URI, or a folder of a claim"):
            stages.gate(example["GATE"], to, "mixed", dataset, checkpoint, report, "/gcs/bucket/verdict")
        with pytest.raises(ConfigError, match=f"push.registry is {place}, which in this pod is /"):
            stages.push(to, {"name": "mixed"}, dataset, checkpoint, report, made["gate/verdict"], "/gcs/bucket/package")


@pytest.mark.parametrize("section", ["data", "preprocess", "train", "gate", "evaluate", "push"])
def test_a_wrong_key_of_a_section_is_said_with_the_sections_name_and_its_keys(section: str, tmp_path: Path) -> None:
    bad, at = {"epoch": 3, "source": "csv", "path": "rows"} if section == "data" else {"epoch": 3}, str(tmp_path / "x")
    data: dict[str, Any] = {"source": "csv", "path": at}
    calls: dict[str, Callable[[], object]] = {
        "data": lambda: stages.preprocess(bad, {}, "classification", at, at),
        "preprocess": lambda: stages.preprocess(data, bad, "classification", at, at),
        "train": lambda: stages.train(bad, {}, {}, at, at, at),
        "gate": lambda: stages.train({}, {}, bad, at, at, at),
        "evaluate": lambda: stages.evaluate(bad, at, at, at, at),
        "push": lambda: stages.push(bad, {"name": "a"}, at, at, at, at, at),
    }
    with pytest.raises(ConfigError, match=rf"{section}\.epoch: no such key; (did you mean|allowed are)") as raised:
        calls[section]()
    assert "kubeflow" not in str(raised.value), "the section's keys, not the project's"


@pytest.fixture(scope="module")
def compiled(example: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "mixed.yaml"
    compiler.Compiler().compile(example["pipeline"], str(path))
    return path


def test_every_pod_of_a_placed_pipeline_is_restricted_and_what_must_run_anew_is_never_cached(compiled: Path) -> None:
    spec, platform = yaml.safe_load_all(compiled.read_text())
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert pods.keys() == spec["deploymentSpec"]["executors"].keys() - {"exec-importer"}
    for name, pod in pods.items():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert "/tmp" in {mount["mountPath"] for mount in pod["emptyDirMounts"]}, name
    tasks = [task for dag in dags(spec) for task in dag["tasks"].items()]
    uncached = {name for name, task in tasks if "cachingOptions" in task and not task["cachingOptions"]}
    assert uncached >= {"gate", "push", "verdict"} and not uncached & {"preprocess", "train", "evaluate", "check"}


def dags(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [spec["root"]["dag"], *(each["dag"] for each in spec["components"].values() if "dag" in each)]


def test_the_components_as_files_are_those_that_make_examples_makes(tmp_path: Path) -> None:
    runpy.run_path(str(EXAMPLE / "make.py"))["make"](tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(path.name for path in (ROOT / "components").glob("*.yaml"))
    for name in names:
        assert (tmp_path / name).read_bytes() == (ROOT / "components" / name).read_bytes(), f"{name}: make examples"


def test_a_pipeline_of_the_files_is_that_of_the_import(compiled: Path, tmp_path: Path) -> None:
    text = (EXAMPLE / "pipeline.py").read_text()
    (loads,) = (block for block in blocks() if "load_component_from_file" in block)
    (imports,) = re.findall(r"^from boatyard\.components import .*$", text, re.MULTILINE)
    (tmp_path / "pipeline.py").write_text(text.replace(imports, loads.replace('"components', f'"{ROOT}/components')))
    pipeline = runpy.run_path(str(tmp_path / "pipeline.py"))["pipeline"]
    compiler.Compiler().compile(pipeline, str(tmp_path / "mixed.yaml"))
    one, two = (list(yaml.safe_load_all(path.read_text())) for path in (compiled, tmp_path / "mixed.yaml"))
    assert undescribed(two) == undescribed(one)


def undescribed(value: Any) -> Any:
    """Leave out what inputs are described as, which KFP keeps of a function and not of a file."""
    if isinstance(value, dict):
        return {key: undescribed(each) for key, each in value.items() if key != "description"}
    return [undescribed(each) for each in value] if isinstance(value, list) else value


def blocks() -> list[str]:
    """Return the page's blocks of Python."""
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_page_shows_the_example_as_it_is() -> None:
    text = (EXAMPLE / "pipeline.py").read_text()
    assert sum(block in text for block in blocks()) == 1, "docs/pipelines.md quotes examples/mixed/pipeline.py whole"


def test_the_sections_of_a_project_file_go_into_a_component_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = (block for block in blocks() if "Project.load" in block)
    templates.write(tmp_path / "flowers")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"preprocess": lambda **inputs: inputs}
    exec(block, names)
    loaded = project.load(tmp_path / "flowers")
    assert project.section(project.DataConfig, names["task"]["data"]) == loaded.data
    assert project.section(project.PreprocessConfig, names["task"]["preprocess"]) == loaded.preprocess


IMPORTS = """
from boatyard.components.push import push
import boatyard.components.train
import boatyard.components as installed
import components as tree
assert installed.push is push is tree.push
for name in installed.__all__:
    assert callable(getattr(installed, name)) and getattr(tree, name) is getattr(installed, name)
from boatyard.components.train import train
assert boatyard.components.train is train
"""


def test_a_component_is_the_same_by_every_name_and_no_module_takes_its_place() -> None:
    subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, check=True)


def twice(path: Path, text: str) -> None:
    """Compile a pipeline in which one component is two tasks: of rows that a step writes, and of a file."""

    @dsl.pipeline(name="twice")
    def pipeline():  # KFP reads annotations as they are
        rows = steps.write(text=text).outputs["out"]
        one = components.preprocess(data={"source": "csv"}, preprocess={}, task="classification", rows=rows)
        data = {"source": "csv", "path": "rows.csv"}
        components.preprocess(data=data, preprocess={"seed": 1}, task="classification").after(one)

    compiler.Compiler().compile(pipeline, str(path))


def test_two_tasks_of_one_component_are_kept_apart_and_each_by_the_bytes_that_it_reads(tmp_path: Path) -> None:
    found: list[dict[str, str]] = []
    for count in (200, 210):
        sources.write_csv(tmp_path, sources.table(count))
        run = runs.new("twice", tmp_path)
        twice(run.spec, sources.table(100))
        run = local.execute(run, tmp_path, Silence())
        found.append({step.name: step.state for step in run.steps})
        both = [
            datasets.read(run.path.parent / str(run.output(name, "dataset"))) for name in ("preprocess", "preprocess-2")
        ]
        assert [sum(each.manifest["rows"].values()) for each in both] == [100, count]
    assert found[0] == dict.fromkeys(("write", "preprocess", "preprocess-2"), "succeeded")
    assert found[1] == {"write": "cached", "preprocess": "cached", "preprocess-2": "succeeded"}


def test_what_has_no_pod_is_not_placed() -> None:
    def imports():  # KFP reads annotations as they are
        placing.place(dsl.importer(artifact_uri="s3://a/b", artifact_class=dsl.Dataset))

    with pytest.raises(ConfigError, match="importer is no step with a pod of its own"):
        dsl.pipeline(name="imports")(imports)
