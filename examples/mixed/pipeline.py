"""A pipeline of somebody's own: their cleaning, Boatyard's training and gate, their check, Boatyard's push.

python pipeline.py                  # runs it here: artifacts in out/, the package in registry/
python pipeline.py pipeline.yaml    # compiles it for Kubeflow
"""

import sys
from functools import partial
from typing import Any

from kfp import compiler, dsl, local
from kfp.dsl import Artifact, Dataset, Input, Output

from boatyard.components import evaluate, gate, preprocess, push, train, verdict
from boatyard.components.image import IMAGE
from boatyard.pipelines.placing import place
from boatyard.project import KubeflowConfig, StepConfig

DATA = {"source": "csv", "target": "diagnosis"}
PREPROCESS = {"split": {"train": 0.5, "validation": 0.2, "test": 0.3}}
TRAIN = {"recipe": "mlp", "model": {"hidden": [16]}, "epochs": 12, "batch_size": 32, "learning_rate": 0.01}
GATE = {"minimum": {"accuracy": 0.85}}
STORE = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION")
SECRETS = {key: f"boatyard-s3/{key}" for key in STORE}
pod = partial(place, step=StepConfig(memory_limit="2Gi", timeout="1h"), kubeflow=KubeflowConfig(secrets=SECRETS))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def clean(raw: Input[Dataset], area: float, rows: Output[Dataset]) -> None:
    """Leave out measurements of an area that no cell nucleus has."""
    import csv

    with open(raw.path, newline="") as source, open(rows.path, "w", newline="") as target:
        reader = csv.DictReader(source)
        writer = csv.DictWriter(target, reader.fieldnames or [])
        writer.writeheader()
        writer.writerows(row for row in reader if float(row["mean_area"]) <= area)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def check(numbers: Input[Artifact], most: float) -> bool:
    """Say whether the model is as well calibrated as it has to be."""
    import json

    with open(numbers.path) as file:
        error = json.load(file)["ece"]
    print(f"calibration error {error:.3f}, at most {most}")
    return error <= most


@dsl.pipeline(name="mixed")
def pipeline(
    raw: str = "../tabular/breast_cancer.csv",
    area: float = 2000.0,
    most: float = 0.1,
    to: dict[str, Any] = {"registry": "registry"},  # noqa: B006 - KFP copies it into the spec
) -> None:
    """Clean → preprocess → train → evaluate → gate → check → push."""
    source = dsl.importer(artifact_uri=raw, artifact_class=Dataset)
    rows = pod(clean(raw=source.output, area=area)).outputs["rows"]
    dataset = pod(preprocess(data=DATA, preprocess=PREPROCESS, task="classification", rows=rows)).outputs["dataset"]
    trained = pod(train(train=TRAIN, preprocess=PREPROCESS, gate=GATE, dataset=dataset))
    checkpoint = trained.outputs["checkpoint"]
    measured = pod(evaluate(evaluate={}, dataset=dataset, checkpoint=checkpoint))
    report = measured.outputs["report"]
    gated = pod(gate(gate=GATE, push=to, name="mixed", dataset=dataset, checkpoint=checkpoint, report=report))
    calibrated = pod(check(numbers=measured.outputs["numbers"], most=most))
    with dsl.If(gated.outputs["Output"] == True), dsl.If(calibrated.output == True):  # noqa: E712 - KFP's condition
        ruling = gated.outputs["verdict"]
        pod(push(name="mixed", push=to, dataset=dataset, checkpoint=checkpoint, report=report, verdict=ruling))
    pod(verdict(verdict=gated.outputs["verdict"]))


if __name__ == "__main__":
    if sys.argv[1:]:
        compiler.Compiler().compile(pipeline, sys.argv[1])
    else:
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root="out")
        pipeline()
