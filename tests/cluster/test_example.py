"""examples/cluster on a cluster: the committed specs' steps as pods, and the README's lines to the answer."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import backend
import numpy as np
import pytest
import yaml
from backend import Backend
from kube import ENDPOINT, GPU, ROOT, Namespaces, in_store, run_kubectl

from boatyard.project import templates

pytestmark = pytest.mark.cluster

FOLDER = ROOT / "examples" / "cluster"


@dataclass(frozen=True)
class Example:
    """The example's folder as it is, but for its place in the store and its namespace, which are the test's own."""

    folder: Path
    rows: Path
    store: str
    namespace: str

    def own(self, text: str) -> str:
        """Return the text of a file, or lines of the README, with the test's own places in it."""
        places = {
            r"s3://boatyard/": f"{self.store}/",
            r"(namespace: |-n )boatyard\b": rf"\1{self.namespace}",
            r"\.boatyard\.svc": f".{self.namespace}.svc",
            r"http://s3\.s3\.svc\.cluster\.local:9000": ENDPOINT,
            r"examples/cluster": str(self.folder),
            r"data/fashion-mnist": str(self.rows),
            r"\.venv/bin/python": sys.executable,
            r"\.venv/bin/boatyard": f"{sys.executable} -m boatyard",
        }
        for pattern, place in places.items():
            text = re.sub(pattern, place, text)
        return text

    def lines(self, heading: str, block: int = 0) -> str:
        """Return the lines to type of a block below a heading of the README."""
        section = (FOLDER / "README.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
        blocks = re.findall(r"(?:^    .*\n)+", section, flags=re.MULTILINE)
        return self.own(re.sub(r"^    ", "", blocks[block], flags=re.MULTILINE))

    def type(self, lines: str) -> str:
        """Type lines as a person does and return what they print; a line that fails ends the test."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", lines], cwd=ROOT, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, f"{lines}\n{done.stdout}{done.stderr}"
        return done.stdout


def idx(folder: Path) -> Path:
    """Write the digits that come with the library as the four files that Fashion-MNIST has."""
    with np.load(Path(templates.__file__).with_name("samples") / "digits.npz") as digits:
        images, labels = digits["image"], digits["label"]
    folder.mkdir()
    for name, part in (("train", slice(0, 1400)), ("t10k", slice(1400, None))):
        pixels = np.ascontiguousarray(images[part].reshape(-1, *images.shape[1:3]), np.uint8)
        for kind, data in (("images-idx3", pixels), ("labels-idx1", labels[part].astype(np.uint8))):
            head = bytes([0, 0, 8, data.ndim]) + np.array(data.shape, ">u4").tobytes()
            (folder / f"{name}-{kind}-ubyte").write_bytes(head + data.tobytes())
    return folder


@pytest.fixture(scope="module")
def example(namespaces: Namespaces, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    """The example with the digits as its rows, and what an administrator does once, done by the README's lines."""
    folder = tmp_path_factory.mktemp("example")
    with namespaces("example") as name, in_store("test-example") as store:
        made = Example(folder / "cluster", idx(folder / "rows"), store, name)
        shutil.copytree(FOLDER, made.folder)
        for file in made.folder.glob("*.yaml"):
            file.write_text(made.own(file.read_text()))
        run_kubectl("delete", "secret", "boatyard-s3", "-n", name)  # the README's lines make it
        made.type(made.lines("Once, by an administrator"))
        made.type(made.lines("The rows").replace("make data\n", ""))
        backend.install_launcher(name)
        yield made


@pytest.fixture(scope="module")
def ran(example: Example, gpus: bool) -> dict[str, Backend]:
    """Both committed pipelines run: all steps of the one in order, and of the other, at once, the step that differs."""
    specs = {
        name: backend.read((example.folder / f"{name}.yaml").read_text(), example.namespace, f"{example.store}/{name}")
        for name in ("pipeline", "pipeline-gpu")
    }
    cpu, gpu = specs.values()
    committed = {k: v.get("defaultValue") for k, v in cpu.spec["root"]["inputDefinitions"]["parameters"].items()}
    changed = {  # as a person changes a run's parameters: a fortieth of the rows in smaller batches
        "data": {**committed["data"], "sha256": {}},
        "train": {**committed["train"], "batch_size": 16},
    }
    for task in cpu.order():
        if task != "train":
            cpu.run(task, **changed)
            continue
        gpu.found.update(cpu.found)
        pods = [(each, each.start(task, **changed)) for each in specs.values()]
        for each, pod in pods:
            assert each.phase(pod) == "Succeeded", each.log(pod)
    return specs


def test_each_step_of_the_committed_pipeline_runs_as_a_pod_in_order(ran: dict[str, Backend]) -> None:
    steps = ["preprocess", "train", "evaluate", "gate", "push", "verdict"]
    assert ran["pipeline"].order() == ran["pipeline-gpu"].order() == list(ran["pipeline"].found) == steps
    assert ran["pipeline"].outputs("gate")["Output"] is True


def test_the_train_step_of_the_gpu_pipeline_alone_has_a_device(
    ran: dict[str, Backend], example: Example, gpus: bool
) -> None:
    pods = json.loads(run_kubectl("get", "pods", "-n", example.namespace, "-o", "json"))["items"]
    limits = {pod["metadata"]["name"]: pod["spec"]["containers"][0]["resources"]["limits"] for pod in pods}
    (given,) = [name for name, limit in limits.items() if limit.get(GPU) == "1"]
    assert given.startswith("train-") and len(limits) == 7
    assert not any(GPU in limit for name, limit in limits.items() if name != given)
    if gpus:  # a device plugin's; a node that only counts them names none
        assert re.search(r"^NVIDIA_VISIBLE_DEVICES=\S+", run_kubectl("logs", "-n", example.namespace, given), re.M)


def test_the_lines_of_the_readme_lead_from_the_pushed_package_to_its_answer(
    ran: dict[str, Backend], example: Example
) -> None:
    example.type(example.lines("The endpoint"))
    answer = json.loads(example.type(example.lines("The answer").replace("request.json", f"{example.folder}/r.json")))
    labels = yaml.safe_load((example.folder / "boatyard.yaml").read_text())["data"]["labels"]
    assert [each["label"] in labels for each in answer["predictions"]] == [True]
    digest = ran["pipeline"].outputs("push")["Output"].rpartition("sha256-")[2]
    live = json.loads(run_kubectl("get", "isvc", "fashion-cnn", "-n", example.namespace, "-o", "json"))
    assert live["metadata"]["annotations"]["boatyard/digest"] == digest
    rendered = list(yaml.safe_load_all(example.type(f"{sys.executable} -m boatyard render {example.folder}")))[-1]
    assert rendered["metadata"]["annotations"]["boatyard/version"] == "1"
    applied = (example.folder / "inferenceservice.yaml").read_text().replace("DIGEST", digest)
    assert list(yaml.safe_load_all(applied))[-1]["spec"] == rendered["spec"]
