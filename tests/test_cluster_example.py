"""examples/cluster: what lies in the tree is what `make examples` makes, and what it says of itself."""

from __future__ import annotations

import copy
import runpy
from pathlib import Path
from typing import Any

import graphs
import pytest
import yaml
from click.testing import CliRunner

from boatyard import deployment, project, registry
from boatyard.cli.main import cli
from boatyard.pipelines import demands

FOLDER = Path(__file__).parents[1] / "examples" / "cluster"
FILES = ("pipeline.yaml", "pipeline-gpu.yaml", "inferenceservice.yaml")


def spec(name: str) -> list[Any]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def test_the_files_are_those_that_make_examples_makes(tmp_path: Path) -> None:
    runpy.run_path(str(FOLDER / "make.py"))["make"](tmp_path)
    for name in FILES:
        assert (FOLDER / name).read_text() == (tmp_path / name).read_text(), f"{name}: run make examples"


def test_the_two_pipelines_differ_in_the_train_steps_gpu_alone() -> None:
    cpu, gpu = spec("pipeline.yaml"), copy.deepcopy(spec("pipeline-gpu.yaml"))
    resources = gpu[0]["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]
    settings = gpu[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-train"]
    accelerator, mounts = resources.pop("accelerator"), settings["emptyDirMounts"]
    assert (accelerator["resourceType"], accelerator["resourceCount"]) == ("nvidia.com/gpu", "1")
    assert settings.pop("tolerations") == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    settings["emptyDirMounts"] = [mount for mount in mounts if mount["mountPath"] != "/dev/shm"]
    assert gpu == cpu and len(mounts) == 2


def test_rows_artifacts_and_registry_lie_in_a_bucket_and_images_have_names() -> None:
    (document, _) = spec("pipeline.yaml")
    made = project.load(FOLDER)
    uris = (made.data.path, made.push.registry, made.kubeflow.root)
    assert all(str(uri).startswith("s3://boatyard/") for uri in uris)
    images = {each["container"]["image"] for each in document["deploymentSpec"]["executors"].values()}
    assert images == {"boatyard/train:0.1.0"}
    assert demands.read_demands(FOLDER / "pipeline.yaml").gpus == {}
    assert demands.read_demands(FOLDER / "pipeline-gpu.yaml").gpus == {"train": (1, "nvidia.com/gpu")}


@pytest.mark.parametrize("seed", [0, 1])
def test_the_endpoint_with_its_digest_filled_in_is_what_render_makes_of_that_package(seed: int, tmp_path: Path) -> None:
    package = graphs.package(tmp_path, graphs.image_schema(), seed, "fashion-cnn")
    made = project.load(FOLDER)
    uri = f"{made.push.registry}/fashion-cnn/packages/sha256-{package.digest}"
    rendered = yaml.safe_load(yaml.safe_dump(deployment.manifests(package, made.serve, uri, version=3)))
    notes = rendered[-1]["metadata"]["annotations"]
    del notes["boatyard/rendered"], notes["boatyard/version"]
    text = (FOLDER / "inferenceservice.yaml").read_text()
    assert list(yaml.safe_load_all(text.replace("DIGEST", package.digest))) == rendered


def test_a_project_whose_registry_is_in_a_bucket_renders_what_deploy_applies_and_shows_its_digest(
    bucket: str, tmp_path: Path
) -> None:
    package = graphs.package(tmp_path, graphs.image_schema(), name="fashion-cnn")
    version = registry.open(bucket, tmp_path).push(package.path, alias="production")
    (tmp_path / project.FILE).write_text((FOLDER / project.FILE).read_text().replace("s3://boatyard/registry", bucket))
    text = CliRunner().invoke(cli, ["render", str(tmp_path)]).stdout
    made = project.load(tmp_path)
    assert list(yaml.safe_load_all(text)) == deployment.manifests(package, made.serve, version.uri, version=1)
    assert CliRunner().invoke(cli, ["show", str(tmp_path), "--digest"]).stdout == f"{package.digest}\n"
