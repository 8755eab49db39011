"""Package format 2: roles, needs, trust; hostile packages are refused by name, and no model is held in memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graphs
import pytest

from boatyard import packages, prediction
from boatyard.data import artifacts
from boatyard.errors import ArtifactError
from boatyard.packages import Needs, PackageClaims, checking, manifest, needs
from boatyard.packages.needs import Machine

MACHINE = Machine("x86_64", frozenset({"avx2", "fma"}), "1.20.1", ("CPUExecutionProvider",))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graphs.package(tmp_path_factory.mktemp("good"), graphs.mixed_schema()).path


@pytest.fixture
def package(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "copy"))


def edit(package: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change package.json as somebody would who wants to be believed."""
    value = json.loads((package / packages.MANIFEST).read_bytes())
    change(value)
    (package / packages.MANIFEST).write_text(json.dumps(value))


def file(value: dict[str, Any], path: str) -> dict[str, Any]:
    entry: dict[str, Any] = next(entry for entry in value["files"] if entry["path"] == path)
    return entry


# Roles


def test_a_package_says_what_each_file_is_for(good: Path) -> None:
    value = json.loads((good / packages.MANIFEST).read_bytes())
    assert value["format"] == 2 and value["needs"] == {}
    roles = {entry["path"]: entry["role"] for entry in value["files"]}
    assert roles["model.onnx"] == "graph" and roles["golden.json"] == "golden"
    assert roles["report/report.html"] == "report" and roles["weights.safetensors"] == "weights"
    assert set(manifest.REQUIRED) <= set(roles.values()) <= set(manifest.ROLES)


def test_files_are_found_by_role_whatever_they_are_called(package: Path) -> None:
    shutil.move(package / "model.onnx", package / "net.onnx")
    shutil.move(package / "schema.json", package / "fields.json")
    manifest.write(package, "insects", "classification", {"net.onnx": "graph", "fields.json": "schema"})
    assert prediction.load(package).package.of("graph")[0].path == "net.onnx"


@pytest.mark.parametrize("role", ["baseline", "tokenizer", "adapter", "statement", "document"])
def test_a_later_kind_of_file_needs_no_other_format(package: Path, role: str) -> None:
    (package / "more.json").write_text("{}")
    manifest.write(package, "insects", "classification", {"more.json": role})
    assert [entry.path for entry in packages.verify(package).of(role)] == ["more.json"]


@pytest.mark.parametrize("role", manifest.REQUIRED)
def test_a_package_without_a_required_role_is_refused_by_its_name(package: Path, role: str) -> None:
    edit(package, lambda value: [entry.update(role="document") for entry in value["files"] if entry["role"] == role])
    with pytest.raises(ArtifactError, match=f"expected a file of role {role}"):
        packages.verify(package)


# Hostile packages: what is done to one, and what it is refused for


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "an unknown role": (lambda p: edit(p, lambda v: file(v, "model.onnx").update(role="virus")), "role of graph"),
    "no role": (lambda p: edit(p, lambda v: file(v, "model.onnx").pop("role")), "role: expected it, found none"),
    "a role twice": (lambda p: edit(p, lambda v: file(v, "recipe.json").update(role="schema")), "one file of role"),
    "an unknown need": (lambda p: edit(p, lambda v: v["needs"].update(moon="full")), "needs: expected engine"),
    "needs that are none": (lambda p: edit(p, lambda v: v.update(needs=["gpu"])), "needs: expected an object"),
    "a need of another type": (
        lambda p: edit(p, lambda v: v["needs"].update(cpu="avx2")),
        "needs.cpu: expected a list",
    ),
    "no version": (lambda p: edit(p, lambda v: v["needs"].update(onnxruntime="new")), "needs.onnxruntime: expected"),
    "a later format": (lambda p: edit(p, lambda v: v.update(format=3)), "made by a later Boatyard"),
    "a format of another type": (lambda p: edit(p, lambda v: v.update(format=True)), "format 1 or 2, found True"),
    "format 1 with roles": (lambda p: edit(p, lambda v: v.update(format=1)), "found 'needs' too"),
    "another kind": (lambda p: edit(p, lambda v: v.update(kind="dataset")), "kind: expected a package"),
    "one key more": (lambda p: edit(p, lambda v: v.update(run="rm")), "found 'run' too"),
    "one key less": (lambda p: edit(p, lambda v: v.pop("needs")), "needs: expected it, found none"),
    "a name of a path": (lambda p: edit(p, lambda v: v.update(name="../up")), "name: expected lower-case"),
    "another task": (lambda p: edit(p, lambda v: v.update(task="regression")), "package.json says regression"),
    "a task that nobody knows": (lambda p: unknown_task(p), "no task"),
    "a task of another type": (lambda p: edit(p, lambda v: v.update(task=["x"])), "task: expected"),
    "files that are none": (lambda p: edit(p, lambda v: v.update(files={})), "files: expected a list"),
    "a file of another type": (lambda p: edit(p, lambda v: v["files"].append("model.onnx")), "expected path, bytes"),
    "an absolute path": (lambda p: edit(p, lambda v: file(v, "model.onnx").update(path="/etc/x.onnx")), "outside"),
    "a path upwards": (lambda p: edit(p, lambda v: file(v, "model.onnx").update(path="../x.onnx")), "outside"),
    "a path with a zero": (lambda p: edit(p, lambda v: file(v, "model.onnx").update(path="x\0.onnx")), "outside"),
    "a hidden path": (lambda p: edit(p, lambda v: file(v, "model.onnx").update(path=".boatyard/x.onnx")), "no hidden"),
    "a line in a path": (lambda p: edit(p, lambda v: file(v, "model.onnx").update(path="a\nb.onnx")), "no hidden"),
    "package.json in itself": (
        lambda p: edit(p, lambda v: file(v, "labels.json").update(path="package.json")),
        "outside the package",
    ),
    "a path twice": (lambda p: edit(p, lambda v: v["files"].append(dict(v["files"][0]))), "listed twice"),
    "a negative size": (lambda p: edit(p, lambda v: file(v, "model.onnx").update(bytes=-1)), "bytes: expected a size"),
    "a size of another type": (lambda p: edit(p, lambda v: file(v, "model.onnx").update(bytes=1.0)), "bytes: expected"),
    "a size of all": (lambda p: edit(p, lambda v: file(v, "golden.json").update(bytes=2**40)), "more than"),
    "no digest": (lambda p: edit(p, lambda v: file(v, "model.onnx").update(sha256="0" * 63)), "64 hexadecimal digits"),
    "a pickle": (lambda p: (p / "model.pkl").write_bytes(b"") or relist(p), "holds nothing else"),
    "a file that is not listed": (lambda p: (p / "more.json").write_text("{}"), "more.json is not in package.json"),
    "a pipe": (lambda p: os.mkfifo(p / "pipe.json"), "pipe.json is not a plain file"),
    "a link to itself": (lambda p: (p / "loop.json").symlink_to("loop.json"), "loop.json is not a plain file"),
    "a file without end": (lambda p: os.truncate(p / "model.onnx", 1 << 40), "model.onnx has 1099511627776 bytes"),
    "a file that is a folder": (lambda p: ((p / "model.onnx").unlink(), (p / "model.onnx").mkdir()), "is missing"),
    "package.json that is a folder": (
        lambda p: ((p / packages.MANIFEST).unlink(), (p / packages.MANIFEST).mkdir()),
        "package.json cannot be read",
    ),
    "package.json that is a link": (
        lambda p: (
            shutil.move(p / packages.MANIFEST, p.parent / "j"),
            (p / packages.MANIFEST).symlink_to(p.parent / "j"),
        ),
        "package.json cannot be read",
    ),
    "a manifest of nothing": (
        lambda p: (p / packages.MANIFEST).write_text("null"),
        "kind: expected a package, found None",
    ),
    "a verdict that said no": (lambda p: rewrite(p, "verdict.json", {"passed": False}), "a verdict that passed"),
    "labels of another model": (lambda p: rewrite(p, "labels.json", ["x"]), "labels of the schema in their order"),
    "no rows": (lambda p: rewrite(p, "golden.json", {"instances": [], "predictions": []}), "golden.json"),
}


def relist(package: Path) -> None:
    entry = {"path": "model.pkl", "bytes": 0, "sha256": "0" * 64, "role": "weights"}
    edit(package, lambda value: value["files"].append(entry))


def unknown_task(package: Path) -> None:
    schema = json.loads((package / "schema.json").read_bytes())
    rewrite(package, "schema.json", {**schema, "task": "divination"})


def rewrite(package: Path, name: str, value: Any) -> None:
    artifacts.write_json(package / name, value)
    graphs.reseal(package)


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_package_is_refused_by_name(package: Path, what: str) -> None:
    attack, refusal = HOSTILE[what]
    attack(package)
    with pytest.raises(ArtifactError) as refused:
        packages.verify(package)
    assert refusal in str(refused.value)
    assert packages.differences(package) != []


# Needs


@pytest.mark.parametrize(
    ("required", "message"),
    [
        (Needs(engine=("openvino",)), "needs the engine openvino, found onnxruntime; serve it with --engine openvino"),
        (Needs(cpu=("avx2", "amx_int8")), "needs a processor with amx_int8, found x86_64 without it"),
        (Needs(provider=("CUDAExecutionProvider",)), "needs ONNX Runtime's CUDAExecutionProvider, found CPUExecution"),
        (Needs(onnxruntime="1.21"), "needs ONNX Runtime 1.21 or later, found 1.20.1; pip install"),
    ],
    ids=["engine", "cpu", "provider", "version"],
)
def test_a_need_that_is_not_met_is_refused_by_name(required: Needs, message: str) -> None:
    with pytest.raises(ArtifactError) as refused:
        needs.check("insects", required, "onnxruntime", MACHINE)
    assert message in str(refused.value)


def test_needs_that_are_met_are_no_hindrance() -> None:
    all_met = Needs(("openvino", "onnxruntime"), ("avx2", "fma"), ("CPUExecutionProvider",), "1.20")
    needs.check("insects", all_met, "onnxruntime", MACHINE)
    for version in ("1", "1.20", "1.20.0", "1.20.1", "1.19.9"):
        needs.check("insects", Needs(onnxruntime=version), "onnxruntime", MACHINE)


def test_this_machine_is_known() -> None:
    machine = needs.this_machine()
    assert "CPUExecutionProvider" in machine.providers and machine.onnxruntime[0].isdigit()
    assert machine.flags or not needs.CPU_INFO.exists()


def test_a_package_whose_needs_are_not_met_verifies_but_is_not_loaded(package: Path) -> None:
    manifest.write(package, "insects", "classification", {}, Needs(cpu=("quantum",), engine=("onnxruntime",)))
    assert packages.verify(package).needs.cpu == ("quantum",)
    assert packages.describe(packages.verify(package))["needs"] == {"engine": ["onnxruntime"], "cpu": ["quantum"]}
    with pytest.raises(ArtifactError, match="package insects needs a processor with quantum, found"):
        prediction.load(package)


# Trust


def test_trust_is_asked_about_verified_bytes_before_anything_is_made_of_them(package: Path) -> None:
    (package / "who.json").write_text('{"by": "us"}')
    digest = manifest.write(package, "insects", "classification", {"who.json": "statement"})
    asked: list[PackageClaims] = []
    packages.verify(package, trust=asked.append)
    assert asked[0].digest == digest and asked[0].manifest == (package / packages.MANIFEST).read_bytes()
    assert asked[0].statements == {"who.json": b'{"by": "us"}'}
    (package / "schema.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"schema\.json"):
        packages.verify(package, trust=asked.append)
    assert len(asked) == 1, "nobody vouches for what was changed"


def test_a_package_that_nobody_vouches_for_is_refused(package: Path) -> None:
    def refuse(evidence: PackageClaims) -> None:
        raise ArtifactError(f"expected a signature of us on {evidence.digest}, found none")

    for verify in (packages.verify, checking.check):
        with pytest.raises(ArtifactError, match="expected a signature of us"):
            verify(package, trust=refuse)


# What was verified is what is used, and it is not held


def test_a_model_that_is_changed_after_it_was_verified_is_not_used(package: Path) -> None:
    verified = packages.verify(package)
    data = (package / "model.onnx").read_bytes()
    assert verified.graph == data
    (package / "model.onnx").write_bytes(data[:-1] + b"\1")
    with pytest.raises(ArtifactError, match="was changed after it was verified"):
        _ = verified.graph
    (package / "model.onnx").unlink()
    (package / "model.onnx").symlink_to("/etc/hostname")
    with pytest.raises(ArtifactError, match=r"model\.onnx cannot be read"):
        _ = verified.graph


MEMORY = """
import resource, sys
from pathlib import Path
from boatyard import packages

packages.verify(Path(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
verified = packages.verify(Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
data = verified.graph
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_large_model_is_not_held_by_verifying_it_and_once_by_reading_it(package: Path, good: Path) -> None:
    size = 300 << 20
    with open(package / "model.onnx", "wb") as model:
        model.truncate(size)
    graphs.reseal(package)
    command = [sys.executable, "-c", MEMORY, str(good), str(package)]
    verified, read = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert verified * 1024 < size / 20
    assert read * 1024 < size * 1.1
