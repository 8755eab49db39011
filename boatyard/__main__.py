"""The command `boatyard`: the one door for people. Errors end here, in one line and an exit code.

Exit codes: 0 done; 1 failed, with one clear message; 2 wrong usage; 3 refused by the gate; 75 interrupted, work saved.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from boatyard import __version__
from boatyard.cli import endpoint, kubeflow, why
from boatyard.errors import BoatyardError, ConfigError, Interrupted, Refused

if TYPE_CHECKING:
    from boatyard.project import Project
    from boatyard.registry import Registry
    from boatyard.running.runs import Run

EXIT = {Refused: 3, Interrupted: 75}
FOLDER = click.argument("folder", type=click.Path(path_type=Path), default=".", required=False)
SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting: --set train.epochs=3"
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
OUT = click.option("-o", "--out", type=click.Path(path_type=Path), help="Where to write.")
PATH = click.Path(path_type=Path)
PORT = click.IntRange(0, 65535)
ORDER = (
    "init", "check", "run", "runs", "report", "recipes",
    "preprocess", "train", "evaluate", "gate", "push", "serve",
    "compile", "submit", "verify", "show", "render", "registry", "schema",
    "plan", "deploy", "status", "logs", "rollback", "delete", "why",
)  # fmt: skip


class Verbs(click.Group):
    """The verbs in the order of the work, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.commands, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))

    def invoke(self, ctx: click.Context) -> Any:
        """Take a reader that has left, as `head` does, for one that has seen enough; click would exit 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            from boatyard.running import display

            display.mute(sys.stdout)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="boatyard")
@click.option("-v", "--verbose", is_flag=True, help="Say what goes on inside.")
def cli(verbose: bool) -> None:
    """From data to a measured KServe endpoint; the same pipeline runs on a laptop and on a cluster.

    A project is a folder with a boatyard.yaml. Start with:  boatyard init demo && boatyard run demo
    """
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s", stream=sys.stderr)


@cli.command()
@FOLDER
@click.option("--data", type=PATH, help="Your data: a file or folder of idx, npy, npz, csv, parquet or image files.")
def init(folder: Path, data: Path | None) -> None:
    """Write a boatyard.yaml with every setting explained.

    Without --data a small sample of handwritten digits comes along, so that `boatyard run` works at once.

    Example:  boatyard init flowers --data flowers.csv
    """
    from boatyard.project import templates

    file = templates.write(folder, data)
    click.echo(f"wrote {file}")
    click.echo(f"next: boatyard {'check' if data else 'run'}{_shown(folder)}")


@cli.command()
@FOLDER
@SET
@JSON
def check(folder: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Say all that can be known before a run: types, settings, data, recipe; print what was derived.

    Example:  boatyard check --set train.epochs=3
    """
    project = _load(folder, overrides)
    facts = _check(project, _root(folder))
    if as_json:
        click.echo(json.dumps({"project": project.values(), "derived": facts}))
        return
    for key, value in facts.items():
        click.echo(f"{key:<28} {value}")
    click.echo(f"{project.name}: nothing wrong found; next: boatyard run{_shown(folder)}")


@cli.command()
@FOLDER
@SET
@click.option(
    "--resume", "resume", is_flag=True, help="Go on with the latest run that did not end well, as it was compiled."
)
@click.option("--run", "run_id", help="Which run to resume; the beginning of its id is enough.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@JSON
def run(folder: Path, overrides: tuple[str, ...], resume: bool, run_id: str | None, quiet: bool, as_json: bool) -> None:
    """Run the whole pipeline here: the compiled spec, by Kubeflow's own local runner.

    A step whose settings, inputs and code did not change is not run again.

    Example:  boatyard run --set train.epochs=3
    """
    from boatyard.pipelines import local, training
    from boatyard.running import runs
    from boatyard.running.display import Screen, open_display

    root = _root(folder)
    if resume or run_id:
        if overrides:
            raise ConfigError("--resume goes on with the spec as it was compiled; start a new run for --set")
        record = runs.again(_to_resume(runs.find(root, run_id)))
    else:
        project = _load(folder, overrides)
        facts = _check(project, root)
        record = runs.new(project.name, root)
        with runs.forgotten_on_error(record.path):
            training.compile(project.here(), record.spec)
        if not (quiet or as_json):
            _err(f"run {record.id}: " + ", ".join(f"{key} {value}" for key, value in facts.items()))
    display = open_display(Screen(), quiet=quiet or as_json)
    try:
        record = local.execute(record, root, display)
    except BoatyardError:
        with suppress(BoatyardError, OSError):  # what the summary meets must not hide why the run ended
            _summary(runs.read(record.path), folder, as_json)
            sys.stdout.flush()
        raise
    except BaseException as error:
        runs.read(record.path).end("failed", f"{type(error).__name__}: {error}")
        raise
    _summary(record, folder, as_json)


@cli.command("runs")
@FOLDER
@click.option("--steps", is_flag=True, help="Show each run's steps too.")
@JSON
def runs_(folder: Path, steps: bool, as_json: bool) -> None:
    """List a project's runs, the latest first.

    Example:  boatyard runs --steps
    """
    from boatyard.running import runs

    found = runs.all_of(_root(folder))
    if as_json:
        click.echo(json.dumps([_run_values(record) for record in found]))
        return
    if not found:
        click.echo(f"no runs yet; `boatyard run{_shown(folder)}` makes one")
    for record in found:
        took = sum(step.seconds for step in record.steps)
        click.echo(f"{record.id}  {record.state:<12} {took:8.1f} s  {_headline(record)}")
        for step in record.steps if steps else ():
            click.echo(f"    {step.name:<12} {step.state:<10} {step.seconds:8.1f} s  {record.log(step.name)}")


@cli.command()
@FOLDER
@click.option("--run", "run_id", help="Which run; the latest that was evaluated by default.")
@JSON
def report(folder: Path, run_id: str | None, as_json: bool) -> None:
    """Show a run's metrics with their intervals, and where its page is.

    Example:  boatyard report
    """
    from boatyard.evaluation.report import Report
    from boatyard.running import runs

    root = _root(folder)
    candidates = [runs.find(root, run_id)] if run_id else list(runs.all_of(root))
    path = next((p for r in candidates if (p := r.output("evaluate", "report"))), None)
    if path is None:
        raise ConfigError(f"no evaluated run in {root}; `boatyard run` makes one")
    found = Report.read(path)
    if as_json:
        click.echo(json.dumps(found.numbers()))
        return
    for name, metric in found.metrics.items():
        click.echo(f"{name:<20} {metric}")
    click.echo(f"page: {path / 'report.html'}")


@cli.command()
@click.argument("name", required=False)
def recipes(name: str | None) -> None:
    """List the recipes that are installed, with their settings.

    Example:  boatyard recipes cnn
    """
    from boatyard import recipes

    for recipe in [name] if name else recipes.names():
        click.echo(_recipe(recipes.load(recipe, Path(".").absolute()), recipe))


@cli.command()
@FOLDER
@SET
@OUT
def preprocess(folder: Path, overrides: tuple[str, ...], out: Path | None) -> None:
    """Only preprocess: write the dataset.

    Example:  boatyard preprocess -o build/dataset
    """
    from boatyard import stages

    project, out = _load(folder, overrides), out or _root(folder) / "build" / "dataset"
    with _stage(folder):
        _print(stages.preprocess(project.data.values(), project.preprocess.values(), project.task, *_paths(out)))
    click.echo(f"dataset: {out}")


@cli.command()
@FOLDER
@SET
@click.option("--dataset", type=PATH, help="What preprocess wrote; build/dataset by default.")
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
    from boatyard import stages

    project, build = _load(folder, overrides), _root(folder) / "build"
    out, data = out or build / "checkpoint", (dataset or build / "dataset").absolute()
    if on_cluster:
        _print(_train_on_cluster(project, data, out.absolute(), namespace))
        click.echo(f"checkpoint: {out}")
        return
    os.environ.setdefault("BOATYARD_WORK", str(out.absolute().with_name(f".{out.name}.work")))
    with _stage(folder):
        _print(
            stages.train(
                project.train.alone().values(),
                project.preprocess.values(),
                project.gate.values(),
                str(data),
                *_paths(out),
            )
        )
    click.echo(f"checkpoint: {out}")


def _train_on_cluster(project: Project, dataset: Path, out: Path, namespace: str | None) -> dict[str, float]:
    from boatyard.kubernetes import cluster
    from boatyard.training import trainjobs
    from boatyard.training.launchers import trainjob

    return trainjob.train(
        project.train,
        project.preprocess,
        project.gate,
        dataset,
        out,
        cluster=cluster.connect(),
        name=project.name,
        pod=trainjobs.pod_of(project),
        namespace=namespace,
        say=_err,
    ).numbers()


@cli.command()
@FOLDER
@SET
@click.option("--dataset", type=PATH, help="build/dataset by default.")
@click.option("--checkpoint", type=PATH, help="build/checkpoint by default.")
@OUT
def evaluate(
    folder: Path, overrides: tuple[str, ...], dataset: Path | None, checkpoint: Path | None, out: Path | None
) -> None:
    """Only evaluate: measure a checkpoint's graph on the test split.

    Example:  boatyard evaluate && xdg-open build/report/report.html
    """
    from boatyard import stages

    project, build = _load(folder, overrides), _root(folder) / "build"
    out = out or build / "report"
    with _stage(folder):
        result = stages.evaluate(
            project.evaluate.values(),
            str((dataset or build / "dataset").absolute()),
            str((checkpoint or build / "checkpoint").absolute()),
            *_paths(out),
        )
    _print(result.numbers())
    click.echo(f"report: {out / 'report.html'}")


@cli.command()
@FOLDER
@SET
@click.option("--dataset", type=PATH, help="build/dataset by default.")
@click.option("--checkpoint", type=PATH, help="build/checkpoint by default.")
@click.option("--report", "report_", type=PATH, help="build/report by default.")
@OUT
def gate(
    folder: Path,
    overrides: tuple[str, ...],
    dataset: Path | None,
    checkpoint: Path | None,
    report_: Path | None,
    out: Path | None,
) -> None:
    """Only gate: hold a report against the sealed rules; exit 3 when it refuses.

    Example:  boatyard gate
    """
    from boatyard import stages

    project, build = _load(folder, overrides), _root(folder) / "build"
    out = out or build / "verdict.json"
    with _stage(folder):
        verdict = stages.gate(
            project.gate.values(),
            project.push.values(),
            project.name,
            str((dataset or build / "dataset").absolute()),
            str((checkpoint or build / "checkpoint").absolute()),
            str((report_ or build / "report").absolute()),
            str(out.absolute()),
        )
    click.echo(f"verdict: {out}")
    if not verdict.passed:
        raise Refused(verdict.sentence)
    click.echo(verdict.sentence)


@cli.command()
@FOLDER
@SET
@OUT
def push(folder: Path, overrides: tuple[str, ...], out: Path | None) -> None:
    """Only push: seal what build/ holds into a package and register it.

    Example:  boatyard push
    """
    from boatyard import gating, stages

    project, build = _load(folder, overrides), (_root(folder) / "build").absolute()
    verdict = gating.Verdict.read(build / "verdict.json")
    if not verdict.passed:
        raise Refused(verdict.sentence)
    values = {
        key: value for key, value in project.values().items() if key in stages.SECTIONS or key in ("name", "task")
    }
    with _stage(folder):
        version = stages.push(
            project.push.values(),
            values,
            str(build / "dataset"),
            str(build / "checkpoint"),
            str(build / "report"),
            str(build / "verdict.json"),
            str((out or build / "package").absolute()),
        )
    click.echo(f"{version.name} version {version.version}: {version.uri}")


@cli.command()
@click.argument("package")
@click.option("--name", help="Name of the model in URLs; the package's own by default.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", default=8080, type=PORT, show_default=True, help="Port of REST.")
@click.option("--grpc-port", default=8081, type=PORT, show_default=True, help="Port of gRPC.")
@click.option("--workers", type=click.IntRange(1), help="Processes that answer; by default one, and more when busy.")
@click.option(
    "--engine",
    type=click.Choice(["onnxruntime", "openvino"]),
    default="onnxruntime",
    show_default=True,
    help="What runs the graph; openvino is an extra.",
)
def serve(
    package: str, name: str | None, host: str, port: int, grpc_port: int, workers: int | None, engine: str
) -> None:
    """Serve a package over the KServe protocols, V1, V2 and gRPC, until stopped.

    PACKAGE is a package's folder or its URI in a bucket, or a project's folder: then the version in production is
    served.

    Example:  boatyard serve .
    """
    path = _package(package)
    try:
        from boatyard import serving
    except ImportError as error:
        raise ConfigError(f"serving needs {error.name}; pip install 'boatyard[serve]'") from error
    serving.serve(path, host=host, http_port=port, grpc_port=grpc_port, workers=workers, name=name, engine=engine)


@cli.command("compile")
@FOLDER
@SET
@click.option("-o", "--out", type=PATH, default="pipeline.yaml", show_default=True, help="Where to write.")
def compile_(folder: Path, overrides: tuple[str, ...], out: Path) -> None:
    """Write the plain pipeline spec, to upload in the Kubeflow UI or to submit.

    Example:  boatyard compile -o pipeline.yaml
    """
    from boatyard.pipelines import training

    training.compile(_load(folder, overrides), out)
    click.echo(f"wrote {out}")


@cli.command()
@click.argument("package")
def verify(package: str) -> None:
    """Check every file of a package against its digests; say what differs.

    Example:  boatyard verify registry/fashion-cnn/versions/1
    """
    from boatyard import packages, storage

    if storage.in_bucket(package):
        with tempfile.TemporaryDirectory() as folder:  # the objects themselves, not what a cache holds of them
            found = packages.verify(packages.fetch(package, to=Path(folder) / "package"))
        click.echo(f"{package}: {found.name}, every file is as sealed, digest {found.digest}")
        return
    path = _package(package)
    differing = packages.differences(path)
    for difference in differing:
        click.echo(difference)
    if differing:
        raise BoatyardError(f"{path} is not as it was sealed: {len(differing)} differences; nothing will load it")
    found = packages.verify(path)
    click.echo(f"{path}: {found.name}, every file is as sealed, digest {found.digest}")


@cli.command()
@click.argument("package")
@click.option("--golden", type=int, metavar="N", help="Print the request body (V1) of golden example N instead.")
@click.option("--picture", is_flag=True, help="With --golden: show the example as a person would look at it.")
@click.option("--path", "only_path", is_flag=True, help="Print the package's folder instead.")
@click.option("--name", "only_name", is_flag=True, help="Print the model's name instead.")
@JSON
def show(package: str, golden: int | None, picture: bool, only_path: bool, only_name: bool, as_json: bool) -> None:
    """Show what a package is: model, schema, labels, metrics, lineage.

    Example:  boatyard show . --golden 0 > question.json
    """
    from boatyard import packages

    path = _package(package)
    found = packages.verify(path)
    if only_path or only_name:
        click.echo(path if only_path else found.name)
        return
    if golden is not None:
        asked = packages.question(found, golden)
        click.echo(packages.picture(found, golden) if picture else json.dumps({"instances": [asked]}))
        return
    click.echo(json.dumps(packages.describe(found)) if as_json else packages.text(found))


@cli.command()
@click.argument("package")
@click.option("--project", "folder", type=PATH, default=None, help="The project whose serve section applies.")
@SET
@click.option("--storage", help="URI that the cluster finds the package at, such as s3://models/digits/1.")
@OUT
def render(
    package: str, folder: Path | None, overrides: tuple[str, ...], storage: str | None, out: Path | None
) -> None:
    """Write the endpoint of a package (InferenceService and budget), plain YAML for `kubectl apply`.

    Example:  boatyard render . --storage s3://models/digits/1 -o endpoint.yaml
    """
    from boatyard import deployment, packages
    from boatyard.project import FILE, ServeConfig

    where = folder or (Path(package) if (Path(package) / FILE).is_file() else None)
    config = _load(where, overrides).serve if where else ServeConfig()
    text = deployment.render(packages.verify(_package(package)), config, storage)
    if out is None:
        click.echo(text, nl=False)
        return
    out.write_text(text, encoding="utf-8")
    click.echo(f"wrote {out}")


@cli.group()
def registry() -> None:
    """Look into a registry and move its aliases."""


@registry.command("ls")
@FOLDER
@JSON
def registry_ls(folder: Path, as_json: bool) -> None:
    """List models, versions and aliases of a project's registry.

    Example:  boatyard registry ls
    """
    shelf = _registry(folder)
    names = shelf.names()
    versions = {name: [version.version for version in shelf.versions(name)] for name in names}
    aliases = {name: shelf.aliases(name) for name in names}
    if as_json:
        click.echo(json.dumps({name: {"versions": versions[name], "aliases": aliases[name]} for name in names}))
        return
    for name in names:
        pointing = ", ".join(f"{alias} → {version}" for alias, version in aliases[name].items())
        click.echo(f"{name}: versions {', '.join(map(str, versions[name])) or 'none'}; {pointing or 'no aliases'}")
    if not names:
        click.echo("nothing there yet")


@registry.command("pull")
@click.argument("name")
@click.argument("version", default="production")
@click.option("--project", "folder", type=PATH, default=".", help="The project whose registry it is.")
def registry_pull(name: str, version: str, folder: Path) -> None:
    """Verify a version (a number or an alias) and print where it is.

    Example:  boatyard registry pull digits production
    """
    click.echo(_registry(folder).pull(name, version))


@registry.command("promote")
@click.argument("name")
@click.argument("version")
@click.argument("alias", default="production")
@click.option("--project", "folder", type=PATH, default=".", help="The project whose registry it is.")
def registry_promote(name: str, version: str, alias: str, folder: Path) -> None:
    """Move an alias to a version, forward or back.

    Example:  boatyard registry promote digits 1 production
    """
    moved = _registry(folder).promote(name, version, alias)
    click.echo(f"{name}: {alias} → {moved.version}")


@registry.command("log")
@FOLDER
@JSON
def registry_log(folder: Path, as_json: bool) -> None:
    """Show a registry's journal, every line bound to the one before; say where it was changed.

    Example:  boatyard registry log
    """
    for entry in _registry(folder).log():
        click.echo(json.dumps(entry) if as_json else _journal_line(entry))


@cli.command()
@OUT
def schema(out: Path | None) -> None:
    """Print the JSON schema of boatyard.yaml, for editors.

    Example:  boatyard schema -o boatyard.schema.json
    """
    from boatyard import project

    text = json.dumps(project.schema(), indent=2) + "\n"
    if out:
        out.write_text(text, encoding="utf-8")
    else:
        click.echo(text, nl=False)


cli.add_command(kubeflow.submit)
for verb in (endpoint.plan, endpoint.deploy, endpoint.status, endpoint.logs, endpoint.rollback, endpoint.delete):
    cli.add_command(verb)
cli.add_command(why.why)


def main() -> None:
    """Run the command; every error of ours ends in one message and its exit code."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except (click.Abort, KeyboardInterrupt):
        _err("stopped")
        raise SystemExit(130) from None
    except BoatyardError as error:
        _err(f"boatyard: {error}")
        raise SystemExit(EXIT.get(type(error), 1)) from None
    except OSError as error:
        _err(f"boatyard: {error.filename or 'a file'}: {error.strerror or error}")
        raise SystemExit(1) from None


def _err(text: str) -> None:
    try:
        click.echo(text, err=True)
    except BrokenPipeError:
        from boatyard.running import display

        display.mute(sys.stderr)


def _load(folder: Path, overrides: tuple[str, ...]) -> Project:
    from boatyard import project

    return project.load(folder, overrides)


def _root(folder: Path) -> Path:
    """Return the folder that a project's relative paths start at; raises ConfigError when there is none."""
    if not folder.exists():
        raise ConfigError(f"no folder {folder}; `boatyard init` makes one")
    return (folder if folder.is_dir() else folder.parent).absolute()


def _shown(folder: Path) -> str:
    return "" if folder == Path(".") else f" {shlex.quote(str(folder))}"


def _check(project: Project, root: Path) -> dict[str, str]:
    """Return what was derived, once everything that can be known now was looked at."""
    from boatyard import preprocessing, recipes, storage

    if not storage.in_bucket(project.push.registry):
        storage.parse(project.push.registry, root)
    preprocessing.check(project.data, root)
    dials = recipes.dials(recipes.load(project.train.recipe, root), project.train.model)
    shown = ", ".join(f"{key} {value}" for key, value in dials.model_dump().items())
    return {"recipe": project.train.recipe, **({"dials": shown} if shown else {}), **project.train.derived()}


def _to_resume(record: Run) -> Run:
    if record.state == "succeeded":
        raise ConfigError(f"run {record.id} succeeded; there is nothing to resume")
    if record.state == "running":
        raise ConfigError(f"run {record.id} is still running, as process {record.process}")
    if not record.spec.is_file():
        raise ConfigError(f"run {record.id} has no pipeline.yaml; start a new one: boatyard run")
    return record


def _run_values(record: Run) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(record), "path": str(record.path), "id": record.id}


def _headline(record: Run) -> str:
    """Return what one wants to know of a run: its accuracy or error, or why it ended."""
    from boatyard.data import artifacts

    if record.error:
        return record.error.splitlines()[0]
    numbers = record.output("evaluate", "numbers")
    with suppress(BoatyardError, OSError):  # gone or damaged: evaluate makes them again
        found = artifacts.read_json(numbers) if numbers else {}
        for name in ("accuracy", "rmse"):
            if isinstance(found, dict) and isinstance(found.get(name), float):
                return f"{name} {found[name]:.4f}"
    return ""


def _summary(record: Run, folder: Path, as_json: bool) -> None:
    """Say what a run came to: metrics, report, package, and what to type next."""
    report, package = record.output("evaluate", "report"), record.output("push", "package")
    if as_json:
        click.echo(json.dumps(_run_values(record)))
        return
    if report:
        from boatyard.evaluation.report import Report

        found = Report.read(report)
        click.echo(f"\n{found.headline()}")
        click.echo(f"report    {report / 'report.html'}")
    if record.state == "succeeded" and package:
        click.echo(f"package   {package}")
        click.echo(f"version   {_version(record)}")
        click.echo(f"next      boatyard serve{_shown(folder) or ' .'}")
    if record.state in ("failed", "interrupted"):
        click.echo(f"next      boatyard run{_shown(folder)} --resume")


def _version(record: Run) -> str:
    step = record.step("push")
    return str(step.outputs.get("Output", "")) if step else ""


def _package(text: str) -> Path:
    """Return a package's folder: the one named, one in a bucket, or the version in production of the project named."""
    from boatyard import packages, storage
    from boatyard.project import FILE

    if storage.in_bucket(text):
        return packages.fetch(text)
    path = storage.parse(text, Path.cwd()) if "://" in text else Path(text)
    if not path.exists():
        raise ConfigError(f"no package or project at {text}")
    if not (path / FILE).is_file():
        return path
    project = _load(path, ())
    return _registry(path).pull(project.name, project.push.alias or "production")


def _recipe(kind: Any, name: str) -> str:
    """Say what a recipe is and what its settings are, with their defaults."""
    lines = [f"{name}: {' '.join((kind.__doc__ or '').split()).split('. ')[0].rstrip('.')}"]
    for key, field in kind.Dials.model_fields.items():
        value = field.get_default()
        shown = json.dumps(list(value) if isinstance(value, tuple) else value)
        lines.append(f"    {key}: {shown}" + (f"  # {field.description}" if field.description else ""))
    return "\n".join(lines)


def _registry(folder: Path) -> Registry:
    from boatyard import registry

    return registry.open(_load(folder, ()).push.registry, _root(folder))


def _journal_line(entry: dict[str, Any]) -> str:
    return "  ".join(f"{key} {value}" for key, value in entry.items() if key not in ("previous", "digest"))


def _paths(out: Path) -> tuple[str, str]:
    """Return where a stage's artifact and its numbers go."""
    out = out.absolute()
    return str(out), str(out.with_name(f"{out.name}.numbers.json"))


def _print(numbers: dict[str, float]) -> None:
    for name, value in numbers.items():
        click.echo(f"{name:<28} {value:.6g}")


@contextmanager
def _stage(folder: Path) -> Iterator[None]:
    """Run a stage in this process: the project's folder set, its progress drawn."""
    from boatyard.running import progress
    from boatyard.running.display import Screen, open_display

    os.environ["BOATYARD_PROJECT"] = str(_root(folder))
    scratch = Path(tempfile.mkdtemp())
    events, done = scratch / "progress", threading.Event()
    os.environ[progress.VARIABLE] = str(events)
    display = open_display(Screen())
    drawer = threading.Thread(target=_draw, args=(events, done, display), daemon=True)
    drawer.start()
    try:
        yield
    finally:
        done.set()
        drawer.join()
        display.close()
        del os.environ[progress.VARIABLE]
        shutil.rmtree(scratch, ignore_errors=True)


def _draw(events: Path, done: threading.Event, display: Any) -> None:
    """Follow a file of progress events until the work is done."""
    read: Callable[[], list[str]] = lambda: events.read_text().splitlines() if events.exists() else []  # noqa: E731
    seen = 0
    while True:
        last = done.wait(0.1)
        lines = read()
        for event in map(json.loads, lines[seen:]):
            if "stage" in event:
                display.start(event["stage"])
                display.event(event["stage"], event)
        seen = len(lines)
        if last:
            return


if __name__ == "__main__":
    main()
