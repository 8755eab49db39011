"""Making a package of a checkpoint, its report and a verdict that passed; the same inputs give the same bytes."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boatyard import tasks
from boatyard.data import artifacts, checkpoints
from boatyard.errors import ArtifactError, Refused
from boatyard.packages import manifest
from boatyard.packages.manifest import Needs
from boatyard.packages.row_independence import check_rows
from boatyard.packages.verifying import GRAPH, Package, read_schema, verify
from boatyard.prediction.decoding import encode
from boatyard.prediction.engines import Engine
from boatyard.prediction.engines.onnxruntime import OnnxRuntime
from boatyard.prediction.onnx_model import OnnxModel

if TYPE_CHECKING:
    from boatyard.data.datasets import Dataset

logger = logging.getLogger(__name__)


def pack(
    *,
    name: str,
    checkpoint: Path,
    report: Path,
    verdict: Path,
    dataset: Dataset,
    out: Path,
    golden: int,
    lineage: Mapping[str, Any],
    needs: Needs | None = None,
) -> Package:
    """Make a package at `out` of a checkpoint, its report and a verdict that passed.

    `golden` test rows go with the reference outputs, those of the engine that serves. `needs` is what a machine must
    have to run it. Raises Refused when the gate said no,
    ArtifactError when checkpoint, report and verdict do not belong together.
    """
    logger.info("packing %s", name)
    made = artifacts.verify(checkpoint, checkpoints.CHECKPOINT_KIND)
    about = artifacts.verify(report, "report")
    ruling = _passed(verdict / "verdict.json" if verdict.is_dir() else verdict)
    graph = artifacts.digest_file(checkpoint / GRAPH)
    _belongs(graph, {str(report): about.get("graph"), str(verdict): ruling.get("digests", {}).get("graph")})
    pins = {
        "graph": graph,
        "checkpoint": checkpoints.lasting(made),
        "report": artifacts.digest_file(report / artifacts.MANIFEST),
    }
    _judged(verdict, ruling, {**pins, "dataset": dataset.digest, "seal": made.get("seal")})
    with artifacts.new_folder(out) as folder:
        external = OnnxModel.of(checkpoint / GRAPH).check_pins().external
        for file in (checkpoints.GRAPH, checkpoints.WEIGHTS, checkpoints.SCHEMA, *external):
            shutil.copyfile(checkpoint / file, folder / file)
        shutil.copyfile(checkpoint / checkpoints.RECORD, folder / "recipe.json")
        shutil.copytree(report, folder / "report")
        schema = read_schema((folder / "schema.json").read_bytes())
        engine = OnnxRuntime(folder / GRAPH, schema)
        check_rows(engine, dataset.load("test"))
        artifacts.write_json(folder / "labels.json", list(schema.labels))
        artifacts.write_json(folder / "golden.json", _golden_of(dataset, engine, golden))
        artifacts.write_json(folder / "verdict.json", ruling)
        seal = {"seal": made["seal"]} if "seal" in made else {}
        artifacts.write_json(folder / "lineage.json", {**lineage, **pins, **seal})
        manifest.write(folder, name, schema.task, dict.fromkeys(external, "weights"), needs)
        package = dataclasses.replace(verify(folder), path=out)
    logger.info("packed %s: %d files, sha256 %s", name, len(package.files) + 1, package.digest)
    return package


def _passed(verdict: Path) -> dict[str, Any]:
    value = artifacts.read_json(verdict)
    if not isinstance(value, dict) or value.get("passed") is not True:
        sentence = value.get("sentence", "no reason given") if isinstance(value, dict) else "not a verdict"
        raise Refused(f"{verdict} did not pass: {sentence}", fix="only a model that passed its gate is packed")
    return value


def _belongs(graph: str, others: Mapping[str, Any]) -> None:
    """Refuse a report or a verdict on another graph than the one that is packed."""
    for other, found in others.items():
        if found != graph:
            raise ArtifactError(
                f"{other} is on graph {found}, the checkpoint's is {graph}", fix="evaluate this checkpoint"
            )


def _judged(verdict: Path, ruling: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Refuse a verdict on another report, other data or other rules than those that are packed."""
    for what, found in ruling.get("digests", {}).items():
        if what in parts and found != parts[what]:
            raise ArtifactError(
                f"{verdict} is about another {'set of rules' if what == 'seal' else what}",
                expected=str(parts[what]),
                found=str(found),
                fix="gate this checkpoint and its report again",
            )


def _golden_of(dataset: Dataset, engine: Engine, rows: int) -> dict[str, Any]:
    """Choose test rows evenly and answer them; a row without a finite answer cannot be an example of a good one."""
    test = dataset.load("test")
    chosen = test.take(np.unique(np.linspace(0, len(test) - 1, min(rows, len(test))).round().astype(np.int64)))
    answers = engine.run(chosen.inputs)
    if (row := answers.unanswered()) is not None:
        raise Refused(
            f"the ONNX model answers test row {int(chosen.rows[row])} with a number that is not finite",
            fix="train again",
        )
    return {"instances": encode(engine.schema, chosen.inputs), "predictions": tasks.of(engine.schema).to_v1(answers)}
