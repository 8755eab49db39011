"""`boatyard serve | verify | show | render`: a package, served here or prepared for a cluster."""

from __future__ import annotations

from pathlib import Path

import click

import boatyard
from boatyard.cli.options import JSON, OUT, PACKAGE, PATH, PORT, SET, OneOfPlugins, Verb, print_json


@click.command(cls=Verb, place=120)
@PACKAGE
@click.option("--name", help="Name of the model in URLs; the package's own by default.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", default=8080, type=PORT, show_default=True, help="Port of REST.")
@click.option("--grpc-port", default=8081, type=PORT, show_default=True, help="Port of gRPC.")
@click.option(
    "--workers", type=click.IntRange(1), help="Processes that predict; by default one, and more when it is busy."
)
@click.option(
    "--engine",
    type=OneOfPlugins("engines"),
    default="onnxruntime",
    show_default=True,
    help="What runs the ONNX model: onnxruntime, openvino (an extra) or an engine's plug-in.",
)
def serve(
    package: str, name: str | None, host: str, port: int, grpc_port: int, workers: int | None, engine: str
) -> None:
    """Serve a package over the KServe protocols, V1, V2 and gRPC, until stopped.

    PACKAGE is a package's folder or its URI in a bucket, or a project's folder: then the version in production is
    served. A project's folder with @3 or @staging behind it is another of its versions.

    Example:  boatyard serve .
    """
    from boatyard.api.serving import serve_here
    from boatyard.running.step import follow_parent

    follow_parent()  # a notebook that started this server and is gone needs it no more
    serve_here(package, host=host, port=port, grpc_port=grpc_port, workers=workers, name=name, engine=engine)


@click.command(cls=Verb, place=150)
@PACKAGE
def verify(package: str) -> None:
    """Check every file of a package against its digests; say what differs.

    Example:  boatyard verify registry/fashion-cnn/versions/1
    """
    found = boatyard.verify(package)
    click.echo(f"{package}: {found.name}, every file is as packaged, digest {found.digest}")


@click.command(cls=Verb, place=160)
@PACKAGE
@click.option("--golden", type=int, metavar="N", help="Print the request body (V1) of reference row N instead.")
@click.option("--picture", is_flag=True, help="With --golden: show the example as a person would look at it.")
@click.option("--path", "only_path", is_flag=True, help="Print the package's folder instead.")
@click.option("--name", "only_name", is_flag=True, help="Print the model's name instead.")
@click.option("--digest", "only_digest", is_flag=True, help="Print the package's digest instead.")
@JSON
def show(
    package: str,
    golden: int | None,
    picture: bool,
    only_path: bool,
    only_name: bool,
    only_digest: bool,
    as_json: bool,
) -> None:
    """Show what a package is: model, schema, labels, metrics, lineage.

    Example:  boatyard show . --golden 0 > request.json
    """
    from boatyard import packages

    found = boatyard.show(package)
    for wanted, value in ((only_path, found.path), (only_name, found.name), (only_digest, found.digest)):
        if wanted:
            click.echo(value)
            return
    if golden is not None:
        example = packages.question(found, golden)
        click.echo(packages.picture(found, golden)) if picture else print_json({"instances": [example]})
        return
    print_json(packages.describe(found)) if as_json else click.echo(packages.text(found))


@click.command(cls=Verb, place=170)
@PACKAGE
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
    text = boatyard.render(package, project=folder, set=overrides, storage=storage)
    if out is None:
        click.echo(text, nl=False)
        return
    out.write_text(text, encoding="utf-8")
    click.echo(f"wrote {out}")
