"""A registry under pushes, removals, moves of aliases, restored backups and hands that damage it, in any order.

Whatever happens: an alias that stands, stands on a version that was pushed to it with a verdict on what stood there
before, or was put there by name; no number is ever two packages'; and every error names a mend that works.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import graphs
import judged
import pytest
import stores
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from boatyard import packages, storage
from boatyard.data import artifacts
from boatyard.errors import BoatyardError
from boatyard.registry import Registry, Version
from boatyard.registry.buckets import BucketRegistry
from boatyard.registry.folders import FolderRegistry
from boatyard.registry.journal import MEND

T = TypeVar("T")
NAME, ALIAS = "insects", "production"
SEEDS = st.integers(0, 3)
ANY = st.integers(0, 7)


class RegistryMachine(RuleBasedStateMachine):
    """What both registries are asked, and how both are damaged."""

    made: ClassVar[list[Path]] = []

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.registry = self.open()
        self.numbers: dict[int, str] = {}  # every version that was seen, and its digest
        self.stood: set[str] = set()  # digests that production was put on
        self.ever = False
        self.waiting: list[Path] = []  # packages that were gated and not pushed
        self.backups: list[bytes] = []

    def open(self) -> Registry:
        raise NotImplementedError

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    # What a user does, mending what the errors say

    def mended(self, act: Callable[[], T]) -> T:
        """Do something; where an error comes, do what it says and try again: that must help."""
        said: list[str] = []
        for _ in range(5):
            try:
                return act()
            except BoatyardError as error:
                said.append(str(error))
                self.mend(said[-1])
        raise AssertionError(f"no mend helped: {said}")

    def mend(self, text: str) -> None:
        if MEND in text:
            self.registry.check(repair=True)
            assert self.registry.check() == (), text
        elif "push.alias null" in text or f"no {NAME!r} in the registry" in text:  # the last version was lost
            self.mended(lambda: self.registry.push(self.judge(0, compared=False)))
        elif "registry promote" in text:
            self.put(self.mended(self.promote_the_newest).digest)
        else:
            raise AssertionError(f"names no mend: {text}")

    def promote_the_newest(self) -> Version:
        if not self.registry.versions(NAME):  # lost meanwhile
            self.registry.push(self.judge(0, compared=False))
        return self.registry.promote(NAME, self.registry.versions(NAME)[-1].version, ALIAS)

    def put(self, digest: str) -> None:
        self.stood.add(digest)
        self.ever = True

    def standing(self) -> str | None:
        """Return the digest of what is in production, as a gate finds it."""
        found = self.mended(lambda: self.registry.find(NAME, ALIAS))
        assert found is not None or not self.ever, "nothing to compare with, and there was"
        return judged.digest(found) if found else None

    def judge(self, seed: int, *, compared: bool = True) -> Path:
        production = self.standing() if compared else None
        to = self.folder / f"candidate-{uuid.uuid4().hex[:8]}"
        return judged.candidate(self.made[seed], to, production, compared=compared)

    # Rules

    @rule(seed=SEEDS)
    def gate_and_push(self, seed: int) -> None:
        def release() -> None:
            package = self.judge(seed)
            self.put(self.registry.push(package, alias=ALIAS).digest)

        self.mended(release)

    @rule(seed=SEEDS)
    def gate(self, seed: int) -> None:
        self.waiting.append(self.judge(seed))

    @precondition(lambda self: self.waiting)
    @rule(which=ANY)
    def push_later(self, which: int) -> None:
        package = self.waiting[which % len(self.waiting)]
        compared = packages.verify(package).verdict["digests"].get("production")
        before, own = self.standing(), judged.digest(package)
        versions = self.registry.versions(NAME)
        try:
            self.registry.push(package, alias=ALIAS)
        except BoatyardError as error:
            assert "gate again" in str(error) and before != compared
            assert self.registry.versions(NAME) == versions and self.standing() == before
            return
        assert before in (compared, own)
        self.put(own)

    @rule(seed=SEEDS)
    def push_without_an_alias(self, seed: int) -> None:
        package = self.judge(seed, compared=False)
        version = self.mended(lambda: self.registry.push(package))
        assert version.digest == judged.digest(package)

    @precondition(lambda self: self.numbers)
    @rule(which=ANY)
    def promote(self, which: int) -> None:
        if live := self.mended(lambda: self.registry.versions(NAME)):
            number = live[which % len(live)].version
            try:
                self.put(self.registry.promote(NAME, number, ALIAS).digest)
            except BoatyardError as error:
                self.mend(str(error))

    @precondition(lambda self: self.numbers)
    @rule(which=ANY)
    def remove(self, which: int) -> None:
        if live := self.mended(lambda: self.registry.versions(NAME)):
            number = live[which % len(live)].version
            try:
                self.registry.remove(NAME, number)
            except BoatyardError as error:
                if "stands on version" in str(error):
                    return  # else it was lost with the journal, which is written anew first
            assert number not in [version.version for version in self.mended(lambda: self.registry.versions(NAME))]

    @rule()
    def back_up(self) -> None:
        self.backups.append(self.journal())

    @precondition(lambda self: self.backups)
    @rule(which=ANY)
    def restore_the_journal(self, which: int) -> None:
        self.write_journal(self.backups[which % len(self.backups)])

    @precondition(lambda self: len(self.journal().splitlines()) > 1)
    @rule(which=ANY)
    def lose_a_line(self, which: int) -> None:
        lines = self.journal().splitlines(keepends=True)
        del lines[which % len(lines)]
        self.write_journal(b"".join(lines))

    @precondition(lambda self: self.journal().endswith(b"\n"))
    @rule(which=ANY)
    def edit_a_line(self, which: int) -> None:
        lines = self.journal().splitlines(keepends=True)
        at = which % len(lines)
        value = json.loads(lines[at])
        value["version"] = int(value.get("version", 0)) + 1
        lines[at] = json.dumps(value).encode() + b"\n"
        self.write_journal(b"".join(lines))

    @precondition(lambda self: self.journal())
    @rule(bytes=st.integers(1, 60))
    def cut_the_journal(self, bytes: int) -> None:
        self.write_journal(self.journal()[:-bytes])

    @rule()
    def merge_with_another_journal(self) -> None:
        other = {"event": "push", "name": NAME, "version": 1, "digest": "f" * 64, "previous": "0" * 64}
        self.write_journal(self.journal() + json.dumps(other).encode() + b"\n")

    @rule()
    def lose_the_journal(self) -> None:
        self.write_journal(None)

    @precondition(lambda self: self.numbers)
    @rule(which=ANY)
    def lose_a_package(self, which: int) -> None:
        self.lose(sorted(self.numbers)[which % len(self.numbers)])

    @precondition(lambda self: self.numbers)
    @rule(which=ANY)
    def damage_a_package(self, which: int) -> None:
        self.damage(sorted(self.numbers)[which % len(self.numbers)])

    # What always holds

    @invariant()
    def no_number_is_two_packages(self) -> None:
        for version in self.mended(lambda: self.registry.versions(NAME)):
            try:
                found = judged.digest(self.registry.pull(NAME, version.version))
            except BoatyardError:
                continue
            assert self.numbers.setdefault(version.version, found) == found == version.digest

    @invariant()
    def production_was_judged(self) -> None:
        try:
            found = self.registry.find(NAME, ALIAS)
        except BoatyardError:
            return
        assert (judged.digest(found) in self.stood) if found else not self.ever

    def journal(self) -> bytes:
        raise NotImplementedError

    def write_journal(self, data: bytes | None) -> None:
        raise NotImplementedError

    def lose(self, number: int) -> None:
        raise NotImplementedError

    def damage(self, number: int) -> None:
        raise NotImplementedError


class FolderMachine(RegistryMachine):
    """A registry in a folder, whose aliases are files."""

    registry: FolderRegistry

    def open(self) -> Registry:
        return FolderRegistry(self.folder / "registry")

    def journal(self) -> bytes:
        path = self.registry.root / "journal.jsonl"
        return path.read_bytes() if path.exists() else b""

    def write_journal(self, data: bytes | None) -> None:
        self.registry.root.mkdir(parents=True, exist_ok=True)
        path = self.registry.root / "journal.jsonl"
        path.unlink(missing_ok=True) if data is None else path.write_bytes(data)

    def lose(self, number: int) -> None:
        shutil.rmtree(self.registry.version_folder(NAME, number), ignore_errors=True)

    def damage(self, number: int) -> None:
        path = self.registry.version_folder(NAME, number) / "labels.json"
        if path.exists():
            path.write_text("[]")

    @property
    def alias(self) -> Path:
        return self.registry.root / NAME / "aliases" / f"{ALIAS}.json"

    @precondition(lambda self: self.alias.exists())
    @rule()
    def empty_the_alias(self) -> None:
        self.alias.write_bytes(b"")

    @precondition(lambda self: self.alias.exists())
    @rule()
    def lose_the_alias(self) -> None:
        self.alias.unlink()

    @precondition(lambda self: self.alias.exists())
    @rule()
    def give_the_alias_another_case(self) -> None:
        self.alias.rename(self.alias.with_name("Production.json"))

    @precondition(lambda self: self.numbers)
    @rule(which=ANY)
    def edit_the_alias(self, which: int) -> None:
        number = sorted(self.numbers)[which % len(self.numbers)]
        artifacts.write_json(self.alias, {"version": number, "digest": self.numbers[number]})

    @precondition(lambda self: self.numbers)
    @rule(which=ANY, seed=SEEDS)
    def replace_a_version(self, which: int, seed: int) -> None:
        path = self.registry.version_folder(NAME, sorted(self.numbers)[which % len(self.numbers)])
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self.made[seed], path)


class BucketMachine(RegistryMachine):
    """A registry in a bucket, whose journal is all of it."""

    registry: BucketRegistry
    root: ClassVar[str] = ""

    def open(self) -> Registry:
        return BucketRegistry(storage.open(f"{self.root}/{uuid.uuid4().hex}"))

    def journal(self) -> bytes:
        found = self.registry.bucket.find("journal.jsonl")
        return found.data if found else b""

    def write_journal(self, data: bytes | None) -> None:
        self.registry.bucket.delete(["journal.jsonl"])
        if data is not None:
            assert self.registry.bucket.write("journal.jsonl", data, None)

    def lose(self, number: int) -> None:
        place = self.registry.folder(NAME, self.numbers[number])
        place.delete(place.list())

    def damage(self, number: int) -> None:
        place = self.registry.folder(NAME, self.numbers[number])
        if place.look("labels.json"):
            place.delete(["labels.json"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("packages")
    return [graphs.package(folder / str(seed), graphs.numbers_schema(), seed).path for seed in range(4)]


def run(machine: type[RegistryMachine], made: list[Path], examples: int, steps: int) -> None:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    options: dict[str, Any] = {"deadline": None, "suppress_health_check": checks, "derandomize": examples < 100}
    options["phases"] = [Phase.explicit, Phase.reuse, Phase.generate]  # to shrink a failure takes minutes
    machine.made = made
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=steps, **options))


MANY = int(os.environ.get("REGISTRY_TIMES", "3"))  # `make soak-registry` runs more
BUDGETS = [pytest.param(1, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.slow)]


@pytest.mark.parametrize("times", BUDGETS)
def test_a_folder_never_yields_what_was_not_judged(made: list[Path], times: int) -> None:
    run(FolderMachine, made, 12 * times, 14)


@pytest.mark.parametrize("times", BUDGETS)
def test_a_bucket_never_yields_what_was_not_judged(
    made: list[Path], times: int, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.use(monkeypatch, address, BOATYARD_CACHE=str(tmp_path / "cache"))
    BucketMachine.root = f"s3://{stores.BUCKET}"
    run(BucketMachine, made, 5 * times, 10)
