"""`boatyard preprocess | train | evaluate | gate | push`: the stages one by one, through the project's build/."""

from __future__ import annotations

from pathlib import Path

import click

import boatyard
from boatyard.cli.options import CHECKPOINT, DATASET, FOLDER, OUT, PATH, SET, Verb
from boatyard.errors import Refused


@click.command(cls=Verb, place=70)
@FOLDER
@SET
@OUT
def preprocess(folder: Path, overrides: tuple[str, ...], out: Path | None) -> None:
    """Only preprocess: write the dataset.

    Example:  boatyard preprocess -o build/dataset
    """
    dataset = boatyard.preprocess(folder, set=overrides, out=out)
    _print(dataset.numbers())
    click.echo(f"dataset: {dataset.path}")


@click.command(cls=Verb, place=80)
@FOLDER
@SET
@DATASET
@OUT
@click.option("--cluster", "on_cluster", is_flag=True, help="On train.nodes pods of the current context's cluster.")
@click.option("--namespace", help="With --cluster: where; the context's own by default.")
def train(
    folder: Path,
    overrides: tuple[str, ...],
    dataset: Path | None,
    out: Path | None,
    on_cluster: bool,
    namespace: str | None,
) -> None:
    """Only train: a dataset in, a checkpoint out. Stopped, it goes on where it was.

    With --cluster by the pods of a TrainJob, whose logs are followed; else by one process here.

    Example:  boatyard train --set train.epochs=3
              boatyard train --cluster --namespace boatyard --set train.storage=s3://boatyard/training
    """
    trained = boatyard.train(folder, dataset, set=overrides, out=out, cluster=on_cluster, namespace=namespace)
    _print(trained.training.numbers())
    click.echo(f"checkpoint: {trained.path}")


@click.command(cls=Verb, place=90)
@FOLDER
@SET
@DATASET
@CHECKPOINT
@OUT
def evaluate(
    folder: Path, overrides: tuple[str, ...], dataset: Path | None, checkpoint: Path | None, out: Path | None
) -> None:
    """Only evaluate: measure a checkpoint's ONNX model on the test split.

    Example:  boatyard evaluate && xdg-open build/report/report.html
    """
    report = boatyard.evaluate(folder, dataset, checkpoint, set=overrides, out=out)
    _print(report.numbers())
    click.echo(f"report: {report.path / 'report.html'}")


@click.command(cls=Verb, place=100)
@FOLDER
@SET
@DATASET
@CHECKPOINT
@click.option("--report", "report_", type=PATH, help="What evaluate wrote; build/report by default.")
@OUT
def gate(
    folder: Path,
    overrides: tuple[str, ...],
    dataset: Path | None,
    checkpoint: Path | None,
    report_: Path | None,
    out: Path | None,
) -> None:
    """Only gate: hold a report against the frozen rules; exit 3 when it refuses.

    Example:  boatyard gate
    """
    verdict = boatyard.gate(folder, dataset, checkpoint, report_, set=overrides, out=out)
    click.echo(f"verdict: {out or folder / 'build' / 'verdict.json'}")
    if not verdict.passed:
        raise Refused(verdict.sentence)
    click.echo(verdict.sentence)


@click.command(cls=Verb, place=110)
@FOLDER
@SET
@OUT
def push(folder: Path, overrides: tuple[str, ...], out: Path | None) -> None:
    """Only push: make a package of what build/ holds and register it.

    Example:  boatyard push
    """
    version = boatyard.push(folder, set=overrides, out=out)
    click.echo(f"{version.name} version {version.version}: {version.uri}")


def _print(numbers: dict[str, float]) -> None:
    for name, value in numbers.items():
        click.echo(f"{name:<28} {value:.6g}")
