"""examples/mixed on the cluster: steps of somebody's own between ours, each in its pod, handing on through S3."""

from __future__ import annotations

import json
import runpy
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from backend import Backend, install_launcher, read
from kfp import compiler
from kube import Namespaces, in_store

from boatyard import packages, registry, storage
from boatyard.data import artifacts
from boatyard.running import reasons

pytestmark = pytest.mark.cluster
EXAMPLES = Path(__file__).parents[2] / "examples"
ORDER = ["importer", "clean", "preprocess", "train", "evaluate"]


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """A place of its own in the cluster's store, with the table in it, the environment set to reach it."""
    with in_store("test-mixed") as place:
        storage.open(place).put("raw.csv", EXAMPLES / "tabular" / "breast_cancer.csv")
        yield place


@pytest.fixture(scope="module")
def backend(store: str, namespaces: Namespaces, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """A run of the compiled example, each step in its pod but for the importer, which a backend does without one."""
    path = tmp_path_factory.mktemp("spec") / "pipeline.yaml"
    compiler.Compiler().compile(runpy.run_path(str(EXAMPLES / "mixed" / "pipeline.py"))["pipeline"], str(path))
    with namespaces("mixed") as name:
        install_launcher(name)
        backend = read(path.read_text(), name, f"{store}/root/mixed/{uuid.uuid4()}")
        backend.run("clean", raw=[f"{store}/raw.csv"])
        for task in ("preprocess", "train", "evaluate"):
            backend.run(task)
        to = {"registry": f"{store}/registry"}
        assert backend.run("gate", push=to)["Output"] is True
        assert backend.run("check")["Output"] is True
        backend.run("push", push=to)
        backend.run("verdict")
        yield backend


def test_the_steps_are_those_of_the_pipeline_in_its_order(backend: Backend) -> None:
    order = backend.order()
    assert order[:5] == ORDER and set(order[5:]) == {"check", "gate", "push", "verdict"}
    assert order.index("push") > max(order.index("check"), order.index("gate"))
    assert backend.found.keys() == set(order) - {"importer"}


def test_what_was_pushed_is_of_the_rows_that_the_step_before_cleaned(
    backend: Backend, store: str, tmp_path: Path
) -> None:
    (version,) = registry.open(f"{store}/registry", tmp_path).versions("mixed")
    (uri,) = backend.uris("push", "package")
    package = packages.verify(packages.fetch(uri, to=tmp_path / "package"))
    assert package.digest == version.digest and reasons.read(backend.root) == ()
    above, _, name = backend.uris("clean", "rows")[0].rpartition("/")
    rows = storage.open(above).read(name)
    assert len(rows.splitlines()) < len((EXAMPLES / "tabular" / "breast_cancer.csv").read_text().splitlines())
    lineage = json.loads((package.path / "lineage.json").read_text())
    assert lineage["source"] == {"rows": artifacts.digest_bytes(rows)}
    assert "/s3/" not in json.dumps(lineage)


def test_a_push_into_a_folder_of_its_pod_is_refused_and_says_so_where_a_person_looks(
    backend: Backend, store: str
) -> None:
    other = Backend(
        backend.spec, backend.platform, backend.namespace, f"{store}/root/mixed/{uuid.uuid4()}", {**backend.found}
    )
    log = other.fail("push")  # the pipeline's default is a folder
    (reason,) = reasons.read(other.root)
    assert reason.step == "push" and reason.sentence in log
    assert "push.registry is registry, which in this pod is /tmp/registry, a folder that ends with it" in log
