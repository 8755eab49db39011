"""What was judged is what is pushed: from the gate's verdict to the alias, whatever happened in between."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import apiserver
import graphs
import judged
import numpy as np
import pytest
from click.testing import CliRunner

import boatyard
from boatyard import evaluation, gating, packages, preprocessing, registry, storage, training
from boatyard.__main__ import cli
from boatyard.data import artifacts, checkpoints
from boatyard.data.datasets import Dataset
from boatyard.deployment.leases import FORMER
from boatyard.deployment.rendering import RENDERED
from boatyard.deployment.uses import DIGEST
from boatyard.errors import ArtifactError, Refused, StorageError, Unreachable
from boatyard.gating import Verdict
from boatyard.kubernetes import cluster
from boatyard.project import DataConfig, EvaluateConfig, GateConfig, PreprocessConfig, PushConfig, TrainConfig
from boatyard.registry.buckets import BucketRegistry
from boatyard.registry.folders import FolderRegistry
from boatyard.registry.journal import MEND
from boatyard.running import releasing

ALIAS = "production"
STRICT, ALONE = GateConfig(rows=10), GateConfig(rows=10, not_worse=None)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three packages that differ, without a comparison in their verdicts."""
    folder = tmp_path_factory.mktemp("packages")
    return [graphs.package(folder / str(seed), graphs.numbers_schema(), seed).path for seed in range(3)]


def lose(shelf: registry.Registry, number: int) -> None:
    """Remove a version's package as `rm -rf` does."""
    version = shelf.resolve("insects", number)
    if isinstance(shelf, FolderRegistry):
        shutil.rmtree(shelf.version_folder("insects", number))
    else:
        place = storage.open(version.uri)
        place.delete(place.list())


# Production moved, or is gone


def test_a_verdict_on_another_production_moves_no_alias_and_pushes_nothing(
    shelf: registry.Registry, made: list[Path], tmp_path: Path
) -> None:
    first = shelf.push(made[0], alias=ALIAS)
    later = judged.candidate(made[2], tmp_path / "later", first.digest)
    second = shelf.push(judged.candidate(made[1], tmp_path / "second", first.digest), alias=ALIAS)
    with pytest.raises(Refused, match=rf"production moved since: gate again: .*version 2, sha256 {second.digest[:12]}"):
        shelf.push(later, alias=ALIAS)
    assert [version.version for version in shelf.versions("insects")] == [1, 2]
    assert shelf.aliases("insects") == {ALIAS: 2}
    again = judged.candidate(made[2], tmp_path / "again", second.digest)
    assert shelf.push(again, alias=ALIAS).version == 3


def test_a_verdict_that_found_nothing_does_not_replace_what_came_since(
    shelf: registry.Registry, made: list[Path], tmp_path: Path
) -> None:
    alone = judged.candidate(made[1], tmp_path / "alone", None)
    shelf.push(made[0], alias=ALIAS)
    with pytest.raises(Refused, match="production moved since: gate again"):
        shelf.push(alone, alias=ALIAS)
    assert shelf.push(alone, alias=None).version == 2  # without the alias it moves nothing


def test_the_alias_of_the_comparison_counts_not_the_one_that_is_moved(
    shelf: registry.Registry, made: list[Path], tmp_path: Path
) -> None:
    first = shelf.push(made[0], alias=ALIAS)
    stale = judged.candidate(made[2], tmp_path / "stale", first.digest, alias=ALIAS)
    good = judged.candidate(made[1], tmp_path / "good", first.digest, alias=ALIAS)
    assert shelf.push(good, alias="staging").version == 2
    shelf.promote("insects", 2, ALIAS)
    with pytest.raises(Refused, match="production moved since"):
        shelf.push(stale, alias="staging")


def test_a_push_tried_again_after_a_kill_is_the_same_version_with_its_alias(
    shelf: registry.Registry, made: list[Path], tmp_path: Path
) -> None:
    first = shelf.push(made[0], alias=ALIAS)
    package = judged.candidate(made[1], tmp_path / "package", first.digest)
    assert shelf.push(package).version == 2  # killed before the alias's line
    assert shelf.push(package, alias=ALIAS).version == 2
    if isinstance(shelf, FolderRegistry):  # killed between the alias's line and its file
        path = shelf.root / "insects/aliases/production.json"
        artifacts.write_json(path, {"version": 1, "digest": first.digest})
        assert shelf.resolve("insects", ALIAS).version == 2
    assert shelf.push(package, alias=ALIAS).version == 2
    assert shelf.aliases("insects") == {ALIAS: 2} and len(shelf.versions("insects")) == 2
    assert [each["event"] for each in shelf.log()] == ["push", "alias", "push", "alias"]


def test_the_same_model_packed_anew_goes_by_the_verdict_that_let_it_through(
    shelf: registry.Registry, made: list[Path], tmp_path: Path
) -> None:
    first = shelf.push(made[0], alias=ALIAS)
    package = judged.candidate(made[1], tmp_path / "package", first.digest)
    shelf.push(package, alias=ALIAS)
    anew = Path(shutil.copytree(package, tmp_path / "anew"))
    artifacts.write_json(anew / "lineage.json", {"dataset": "0" * 64, "code": "later"})
    graphs.reseal(anew)
    assert shelf.push(anew, alias=ALIAS).version == 3


def test_an_alias_whose_version_is_gone_is_an_error_that_says_what_to_do(
    shelf: registry.Registry, made: list[Path]
) -> None:
    shelf.push(made[0])
    shelf.push(made[1], alias=ALIAS)
    lose(shelf, 2)
    with pytest.raises(ArtifactError, match=rf"version 2 of insects .* its package is gone; .*{MEND}"):
        shelf.find("insects", ALIAS)
    assert any("version 2 of insects: is gone" in str(problem) for problem in shelf.check())
    shelf.check(repair=True)
    assert shelf.check() == ()
    with pytest.raises(
        StorageError, match=r"stood on is lost; boatyard registry promote insects VERSION production; v"
    ):
        shelf.find("insects", ALIAS)
    assert shelf.promote("insects", 1, ALIAS).version == 1
    assert shelf.find("insects", ALIAS)


def test_a_version_that_is_gone_comes_back_by_the_same_push(shelf: registry.Registry, made: list[Path]) -> None:
    shelf.push(made[0], alias=ALIAS)
    lose(shelf, 1)
    assert shelf.push(made[0]).version == 1
    assert shelf.find("insects", ALIAS) and shelf.check() == ()


def test_the_verdict_of_another_model_is_not_pushed(shelf: registry.Registry, made: list[Path], tmp_path: Path) -> None:
    forged = Path(shutil.copytree(made[0], tmp_path / "forged"))
    shutil.copyfile(made[1] / "verdict.json", forged / "verdict.json")
    graphs.reseal(forged)
    with pytest.raises(ArtifactError, match="its verdict is about another model"):
        shelf.push(forged)
    assert shelf.names() == ()


@pytest.mark.parametrize("what", ["report", "dataset"])
def test_a_verdict_on_another_report_or_other_data_is_not_packed(tmp_path: Path, what: str) -> None:
    made = graphs.checkpoint(tmp_path / "checkpoint", graphs.numbers_schema())
    verdict = graphs.verdict(tmp_path / "verdict.json", made)
    value = artifacts.read_json(verdict)
    artifacts.write_json(verdict, {**value, "digests": {**value["digests"], what: "f" * 64}})
    with pytest.raises(ArtifactError, match=rf"is about another {what}: .*gate this checkpoint and its report again"):
        packages.pack(
            name="insects",
            checkpoint=made,
            report=graphs.report(tmp_path / "report", made),
            verdict=verdict,
            dataset=graphs.Rows(tmp_path, "0" * 64, graphs.numbers_schema(), {}),
            out=tmp_path / "out",
            golden=2,
            lineage={},
        )


# Numbers


def test_a_number_is_never_given_again(shelf: registry.Registry, made: list[Path]) -> None:
    shelf.push(made[0], alias="staging")
    shelf.push(made[1])
    lose(shelf, 2)
    assert shelf.push(made[2], alias=ALIAS).version == 3
    assert shelf.remove("insects", 3) if shelf.promote("insects", 1, ALIAS) else None
    assert shelf.push(made[2]).version == 4
    assert packages.verify(shelf.pull("insects", 4)).digest == judged.digest(made[2])
    assert shelf.resolve("insects", "staging").version == 1


def test_what_an_alias_stands_on_is_not_removed(shelf: registry.Registry, made: list[Path]) -> None:
    shelf.push(made[0], alias=ALIAS)
    shelf.push(made[1])
    with pytest.raises(Refused, match="production of insects stands on version 1; promote another version first"):
        shelf.remove("insects", 1)
    shelf.promote("insects", 2, ALIAS)
    assert shelf.remove("insects", 1).digest == judged.digest(made[0])
    assert [version.version for version in shelf.versions("insects")] == [2]
    with pytest.raises(StorageError, match="version 1 of insects was removed; versions: 2"):
        shelf.pull("insects", 1)
    assert shelf.log()[-1]["event"] == "remove" and shelf.check() == ()


def test_a_lost_journal_is_written_anew_with_a_warning(
    shelf: registry.Registry, made: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    shelf.push(made[0], alias=ALIAS)
    shelf.push(made[1])
    if isinstance(shelf, FolderRegistry):
        (shelf.root / "journal.jsonl").unlink()
    elif isinstance(shelf, BucketRegistry):
        shelf.bucket.delete(["journal.jsonl"])
    with pytest.raises(ArtifactError, match=rf"journal\.jsonl is gone, and there are versions; .*{MEND}"):
        shelf.find("insects", ALIAS)
    assert shelf.push(made[2]).version == 3
    assert "is written anew" in caplog.text
    assert [version.digest for version in shelf.versions("insects")] == [judged.digest(package) for package in made]
    if isinstance(shelf, FolderRegistry):
        assert shelf.aliases("insects") == {ALIAS: 1}  # its file says so
    else:
        with pytest.raises(StorageError, match="stood on is lost"):
            shelf.find("insects", ALIAS)


def test_an_older_journal_put_over_a_newer_one_is_told_and_gives_no_number_again(
    remote: BucketRegistry, made: list[Path]
) -> None:
    remote.push(made[0], alias=ALIAS)
    old = remote.bucket.read("journal.jsonl")
    remote.push(made[1], alias="staging")
    assert remote.bucket.write("journal.jsonl", old, remote.bucket.find("journal.jsonl"))
    for act in (lambda: remote.find("insects", ALIAS), lambda: remote.push(made[2])):
        with pytest.raises(ArtifactError, match=rf"is not the newest: it does not know version 2 .*{MEND}"):
            act()
    remote.check(repair=True)
    assert remote.push(made[2]).version == 3
    assert remote.resolve("insects", 2).digest == judged.digest(made[1])


def test_a_journal_that_does_not_know_that_an_alias_stood_is_never_nothing_to_compare_with(
    remote: BucketRegistry, made: list[Path]
) -> None:
    remote.push(made[0], alias=ALIAS)
    first, *_ = remote.bucket.read("journal.jsonl").split(b"\n")  # chained as ever, without the alias's line
    assert remote.bucket.write("journal.jsonl", first + b"\n", remote.bucket.find("journal.jsonl"))
    for ask in (lambda: remote.find("insects", ALIAS), lambda: remote.push(made[1], alias=ALIAS)):
        with pytest.raises(ArtifactError, match=f"does not know that {ALIAS} of insects stood on a version.*{MEND}"):
            ask()
    assert any(f"what {ALIAS} of insects stands on" in each.found for each in remote.check(repair=True))
    with pytest.raises(StorageError, match=rf"is lost; boatyard registry promote insects VERSION {ALIAS}; versions: 1"):
        remote.find("insects", ALIAS)
    remote.promote("insects", 1, ALIAS)
    assert judged.digest(remote.find("insects", ALIAS)) == packages.verify(made[0]).digest
    assert remote.check() == ()


def test_an_alias_whose_line_and_then_whose_file_are_lost_is_never_nothing_to_compare_with(
    folder: FolderRegistry, made: list[Path]
) -> None:
    folder.push(made[0], alias=ALIAS)
    journal = folder.root / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().splitlines(keepends=True)[0])
    folder.push(made[1])  # which notes what the journal says, and forgets nothing
    (folder.root / "insects/aliases" / f"{ALIAS}.json").unlink()
    for ask in (lambda: folder.find("insects", ALIAS), lambda: folder.push(made[2], alias=ALIAS)):
        with pytest.raises(ArtifactError, match=f"does not know that {ALIAS} of insects stood on a version.*{MEND}"):
            ask()
    assert any(f"what {ALIAS} of insects stands on" in each.found for each in folder.check(repair=True))
    folder.promote("insects", 1, ALIAS)
    assert folder.check() == ()


def test_a_repair_adds_no_line_to_half_a_line(folder: FolderRegistry, made: list[Path]) -> None:
    folder.push(made[0], alias=ALIAS)
    with (folder.root / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"event": "push", "na')  # a push that was killed
    (folder.root / "insects/aliases" / f"{ALIAS}.json").unlink()
    assert folder.check(repair=True)
    assert folder.check() == () and folder.verify_log() >= 2


@pytest.mark.parametrize("damage", ["empty", "edited", "missing", "case", "journal"])
def test_an_alias_that_the_journal_does_not_know_is_an_error_with_a_mend(
    folder: FolderRegistry, made: list[Path], damage: str
) -> None:
    folder.push(made[0], alias=ALIAS)
    journal = (folder.root / "journal.jsonl").read_bytes()
    second = folder.push(made[1], alias=ALIAS)
    folder.push(made[2])
    path = folder.root / "insects/aliases/production.json"
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "edited":
            artifacts.write_json(path, {"version": 3, "digest": second.digest})
        case "missing":
            path.unlink()
        case "case":
            path.rename(path.with_name("Production.json"))
        case "journal":  # an older one
            (folder.root / "journal.jsonl").write_bytes(journal)
    for act in (lambda: folder.find("insects", ALIAS), lambda: folder.aliases("insects")):
        with pytest.raises(ArtifactError, match=rf"production\.json is not what the journal says: .*{MEND}"):
            act()
    assert folder.check(repair=True)
    assert folder.check() == ()
    assert folder.resolve("insects", ALIAS).version == (1 if damage == "journal" else 2)
    assert [version.version for version in folder.versions("insects")] == [1, 2, 3]


def test_two_journals_in_one_are_parted_by_what_is_there(
    folder: FolderRegistry, made: list[Path], tmp_path: Path
) -> None:
    other = FolderRegistry(tmp_path / "other")
    folder.push(made[0], alias=ALIAS)
    for package in (made[1], made[2], made[0]):
        other.push(package)
    with (folder.root / "journal.jsonl").open("ab") as file:
        file.write((other.root / "journal.jsonl").read_bytes())
    with pytest.raises(ArtifactError, match=rf"line 3 or the one before it was changed or removed; .*{MEND}"):
        folder.find("insects", ALIAS)
    folder.check(repair=True)
    assert folder.check() == ()
    assert folder.resolve("insects", ALIAS).digest == judged.digest(made[0])
    assert folder.push(made[1]).version == 4  # 2 and 3 were given, if elsewhere


# The verbs


def project(tmp_path: Path, place: str) -> Path:
    (tmp_path / "boatyard.yaml").write_text(
        "name: insects\ntask: regression\ndata: {source: csv, path: x.csv, target: y}\n"
        f"train: {{recipe: mlp}}\npush: {{registry: {place}}}\n"
    )
    return tmp_path


def test_the_command_removes_checks_and_repairs(
    shelf: registry.Registry, made: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    for package in made:
        shelf.push(package, alias=ALIAS)
    where = str(project(tmp_path, shelf.place))

    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli, ["registry", *words])
        return result.exit_code, result.output + str(result.exception or "")

    assert run("check", where) == (0, "all is as the journal says\n")
    code, said = run("remove", "insects", "1", "--project", where)
    assert code == 0 and said == "insects: version 1 is removed; no cluster was asked for endpoints on it\n"
    lose(shelf, 2)
    code, said = run("check", where)
    assert code != 0 and "version 2 of insects: is gone → written down as lost" in said and MEND in said
    assert run("check", where, "--repair")[0] == 0
    assert run("check", where, "--json")[1] == "[]\n"
    assert [line.values["event"] for line in boatyard.journal(where)][-2:] == ["remove", "remove"]


def test_what_an_endpoint_serves_or_would_go_back_to_is_not_removed(
    folder: FolderRegistry, made: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = [folder.push(package, alias=ALIAS) for package in made]
    where = project(tmp_path, folder.place)
    with apiserver.api_server(lambda digest, body: None) as (server, there):
        monkeypatch.setattr(cluster, "connect", lambda context=None: there)
        space, meta = "namespaces/live", {"name": "flies", "namespace": "live"}
        serves = {"boatyard/digest": second.digest, RENDERED: "1"}
        service = {"kind": "InferenceService", "metadata": {**meta, "annotations": serves}}
        server.put(f"/apis/serving.kserve.io/v1beta1/{space}/inferenceservices/flies", service)
        former = json.dumps([{"kind": "InferenceService", "metadata": {"annotations": {DIGEST: first.digest}}}])
        lease = {"kind": "Lease", "metadata": {"name": "boatyard-flies", "annotations": {FORMER: former}}}
        server.put(f"/apis/coordination.k8s.io/v1/{space}/leases/boatyard-flies", lease)
        for number in (1, 2):
            with pytest.raises(Refused, match=rf"live/flies stands on version {number} of insects; deploy another"):
                boatyard.remove_version("insects", number, project=where)

    def silent(context: str | None = None) -> Any:
        raise Unreachable("it does not answer")

    monkeypatch.setattr(cluster, "connect", silent)
    with pytest.raises(Unreachable, match=r"cannot be known: .*give --no-cluster"):
        boatyard.remove_version("insects", 1, project=where)
    assert boatyard.remove_version("insects", 1, project=where, cluster=False).version.version == 1


# From the data on


def table(path: Path, rows: int = 600) -> Path:
    random = np.random.default_rng(0)
    columns = random.normal(size=(rows, 4))
    labels = np.where(columns[:, 0] + 0.7 * columns[:, 1] + random.normal(size=rows) * 0.5 > 0, "yes", "no")
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ["a", "b", "c", "d", "label"],
                *([*(f"{value:.5f}" for value in row), label] for row, label in zip(columns, labels, strict=True)),
            ]
        )
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A table as a dataset, of which 60 rows are the test's."""
    folder = tmp_path_factory.mktemp("data")
    config = DataConfig(source="csv", path=str(table(folder / "data.csv")), target="label")
    return preprocessing.preprocess(config, PreprocessConfig(), folder / "dataset", root=folder, task="classification")


def trained(folder: Path, data: Dataset, gate: GateConfig, **train: Any) -> Path:
    """Train and evaluate into a folder."""
    config = TrainConfig(recipe="mlp", device="cpu", batch_size=64, **{"epochs": 1, **train})
    training.train(config, PreprocessConfig(), data, folder / "checkpoint", seal=gate.seal, root=folder, work=None)
    evaluation.evaluate(EvaluateConfig(bootstrap=100), data, folder / "checkpoint", folder / "report")
    return folder


def packed(folder: Path, data: Dataset, gate: GateConfig, production: Path | None = None) -> packages.Package:
    verdict = gating.gate(gate, folder / "report", folder / "checkpoint", data, production=production)
    assert verdict.passed, verdict.sentence
    verdict.write(folder / "verdict.json")
    parts = {name: folder / name for name in ("checkpoint", "report")}
    about: dict[str, Any] = {"dataset": data, "out": folder / "package", "golden": 4, "lineage": {}}
    return packages.pack(name="insects", verdict=folder / "verdict.json", **parts, **about)


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> list[Path]:
    """The same training in two folders."""
    return [trained(tmp_path_factory.mktemp("run"), data, STRICT) for _ in range(2)]


def test_the_same_inputs_give_the_same_package(twice: list[Path], data: Dataset) -> None:
    one, other = (packed(folder, data, STRICT) for folder in twice)
    assert [file.path for file in one.files] == [file.path for file in other.files]
    assert [a.path for a, b in zip(one.files, other.files, strict=True) if a != b] == []
    assert one.digest == other.digest
    runs = [artifacts.read_json(folder / "checkpoint" / checkpoints.RUN) for folder in twice]
    assert all(run["training"]["seconds"] > 0 for run in runs)  # for people, beside what is compared
    assert {"seconds", "images_per_second"} <= set(
        json.loads((twice[0] / "checkpoint" / "metrics.jsonl").read_text().splitlines()[0])
    )


def test_a_changed_timing_is_found_and_changes_no_digest(twice: list[Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(twice[0] / "checkpoint", tmp_path / "checkpoint"))
    one, other = checkpoints.read(copy), checkpoints.read(twice[1] / "checkpoint")
    assert one.lasting == other.lasting and one.digest != other.digest
    (copy / checkpoints.RUN).write_text("{}")
    with pytest.raises(ArtifactError, match=r"run\.json"):
        checkpoints.read(copy)


def test_a_model_is_not_refused_against_itself(twice: list[Path], data: Dataset, tmp_path: Path) -> None:
    production = packed(twice[0], data, STRICT)
    verdict = gating.gate(STRICT, twice[1] / "report", twice[1] / "checkpoint", data, production=production.path)
    assert verdict.passed and "it is the ONNX model that is in production" in verdict.sentence
    assert verdict.alias == ALIAS


def test_a_release_that_was_overtaken_is_refused_and_passes_after_another_gate(
    twice: list[Path], data: Dataset, tmp_path: Path, made: list[Path]
) -> None:
    push = PushConfig(registry=str(tmp_path / "registry"), golden=4)
    folder, parts = twice[0], {name: twice[0] / name for name in ("checkpoint", "report")}
    about: dict[str, Any] = {"dataset": data.path, "root": tmp_path, **parts}
    judge = lambda: releasing.judge(STRICT, push, "insects", out=folder / "verdict.json", **about)  # noqa: E731
    release = lambda: releasing.release(  # noqa: E731
        push, {"name": "insects"}, verdict=folder / "verdict.json", out=folder / "package", **about
    )
    assert judge().passed
    shelf = registry.open(push.registry, tmp_path)
    shelf.push(judged.candidate(made[0], tmp_path / "other", None), alias=ALIAS)
    with pytest.raises(Refused, match="production moved since: gate again"):
        release()
    assert len(shelf.versions("insects")) == 1
    assert not judge().passed  # what stands there answers another question
    with pytest.raises(Refused, match="did not pass"):
        release()
    shutil.rmtree(tmp_path / "registry")
    assert judge().passed and release().version == release().version == 1  # tried again: the same version
    assert judge().sentence == Verdict.read(folder / "verdict.json").sentence and release().version == 1
