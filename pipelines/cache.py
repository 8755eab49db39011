"""Results of steps, kept by content: what a later run takes instead of running a step again.

A step is the same computation when two things are: its key, known before it runs (settings, inputs' bytes, the
library, the project's sources, versions), and what it was seen to read while it ran (see `boatyard.provenance`).
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Protocol

from kfp import dsl
from kfp.dsl import executor
from kfp.local import cache as kfp_cache

from boatyard import locks
from boatyard.data import artifacts, lineage
from boatyard.errors import ArtifactError, BoatyardError
from boatyard.pipelines import reasons
from boatyard.pipelines.demands import bare_name
from boatyard.project import DataConfig, section
from boatyard.provenance import Here, Inputs
from boatyard.running import places, runs
from boatyard.running.display import Display
from boatyard.settings import Settings

logger = logging.getLogger(__name__)
WITHOUT_RECIPE = ("preprocess", "evaluate")  # steps that import nothing of the project's own
BY_THREADS = ("train",)  # steps whose sums depend on how many threads take them
LOCK_INTERVAL_S = 0.1  # between tries for a step that another run is at
FORMAT = 2
MAX_OUTCOMES = 16  # kept of one key: of so many states of what a step reads


class Runner(Protocol):
    """What the cache asks of the run that it keeps results for."""

    run: runs.Run
    folder: Path
    display: Display
    keys: dict[str, str]
    locks: dict[str, IO[bytes]]
    reasons: dict[str, str]

    def work(self, name: str) -> Path:
        """Return the folder that a step goes on from."""

    def observed(self, name: str) -> Path:
        """Return the file that a step leaves what it read in."""

    def unlock(self, *names: str) -> None:
        """Let other runs have a step."""

    def cached(self, name: str, outputs: Mapping[str, Any]) -> None:
        """Note a step whose result was kept."""


@dataclass(frozen=True)
class Asked:
    """A step that is asked for: what its key is made of, and the artifacts that it is given."""

    name: str
    task: str
    about: dict[str, Any]
    variables: Mapping[str, str] = field(default_factory=dict)
    given: tuple[Path, ...] = ()


class ContentCache(kfp_cache.LocalCache):  # type: ignore[misc]
    """Results kept by content: a step's key is its settings, its inputs' bytes and the code that runs it.

    KFP's own looks at URIs, and sees neither changed bytes nor a changed library.
    """

    def __init__(self, runner: Runner) -> None:
        super().__init__(str(runner.folder / runs.FOLDER / ".cache"))
        self.runner = runner
        self.asked: dict[str, Asked] = {}

    @cached_property
    def library(self) -> str:
        """The digest of this library's sources."""
        return lineage.code_digest()

    @cached_property
    def environment(self) -> dict[str, str]:
        """The versions of what results depend on."""
        return lineage.environment()

    def compute_key(
        self,
        component_name: str,
        image: str,
        full_command: list[str],
        arguments: dict[str, Any],
        env_vars: dict[str, str] | None = None,
        custom_cache_key: str | None = None,
    ) -> str:
        """Return the digest of all that a step's result depends on and that is known before it runs."""
        name = bare_name(component_name)
        component = re.sub(r"-\d+$", "", name)  # KFP numbers further tasks of one component
        self.runner.display.start(name)
        about = {
            "step": component_name,
            "command": full_command,
            "arguments": {key: _content(value) for key, value in arguments.items()},
            "variables": env_vars or {},
            "library": self.library,
            "sources": {} if component in WITHOUT_RECIPE else lineage.source_digests(self.runner.folder),
            "environment": self.environment | ({"threads": str(Settings().threads)} if component in BY_THREADS else {}),
        }
        if component == "preprocess" and arguments.get("rows") is None:
            about["data"] = self._data(arguments["data"])
        key = artifacts.digest_json(about)
        given = tuple(Path(value.path) for value in arguments.values() if isinstance(value, dsl.Artifact))
        part = f"-{arguments['part']}" if "part" in arguments else ""
        self.asked[key] = Asked(name, component_name + part, about, env_vars or {}, given)
        self.runner.keys[name] = key
        return key

    def _data(self, data: Mapping[str, Any]) -> Any:
        from boatyard import preprocessing

        return preprocessing.source_digests(section(DataConfig, data), self.runner.folder)

    def get(self, key: str) -> dict[str, Any] | None:
        """Return a step's outputs if they are still there, byte for byte; None otherwise, and then the step is locked.

        A run that finds the step at work in another run of the project waits for what that one makes of it.
        """
        asked = self.asked[key]
        outputs = self._kept(key)
        if outputs is None and self._reserve(asked):
            outputs = self._kept(key)
        if outputs is not None:
            self.runner.unlock(asked.name)
            self.runner.cached(asked.name, outputs)
        elif why := reasons.why(self._last(asked), asked.about, self._here(asked)):
            self.runner.reasons[asked.name] = why
            self.runner.display.say(f"{asked.name} runs again: {why}")
        return outputs

    def _here(self, asked: Asked) -> Here:
        return Here(self.runner.folder, {**os.environ, **asked.variables})

    def _reserve(self, asked: Asked) -> bool:
        """Take the step's lock, which its process holds too; return whether another run had it."""
        path = self.runner.work(asked.name).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        file = self.runner.locks.setdefault(asked.name, open(path, "ab"))  # noqa: SIM115 - closed by unlock
        waited = False
        while True:
            if locks.lock_open(file.fileno()):
                return waited
            if not waited:
                self.runner.display.say(f"{asked.name} is at work in another run of this project; waiting for it")
            waited = True
            time.sleep(LOCK_INTERVAL_S)

    def _kept(self, key: str) -> dict[str, Any] | None:
        """Return the outputs of the latest outcome whose step read what is there now, where they are as they were."""
        here = self._here(self.asked[key])
        for outcome in self._outcomes(key):
            try:
                if next(here.changes(Inputs.of(outcome["inputs"])), None) is None:
                    return {name: _revive(entry, here.root) for name, entry in outcome["outputs"].items()}
            except (BoatyardError, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
                logger.info("%s is run again: %s", self.asked[key].name, error)
        return None

    def _outcomes(self, key: str) -> list[dict[str, Any]]:
        """Return what earlier runs made of a key, the latest first; a file that was cut has none."""
        value = _read(Path(self._entry_path(key)))
        outcomes = value.get("outcomes") if value.get("format") == FORMAT else None
        return [one for one in outcomes if isinstance(one, dict)] if isinstance(outcomes, list) else []

    def put(self, key: str, outputs: dict[str, Any]) -> None:
        """Keep a step's outputs: where they are, the digest of their bytes, and what the step read."""
        asked = self.asked[key]
        seen = self._seen(asked, outputs)
        pinned = {name: _pin(value, self.runner.folder) for name, value in outputs.items()}
        outcome = {"inputs": seen.values(), "outputs": pinned}
        if not seen.unsettled:
            kept = [one for one in self._outcomes(key) if one.get("inputs") != outcome["inputs"]]
            entry = {"format": FORMAT, "outcomes": [outcome, *kept][:MAX_OUTCOMES]}
            artifacts.write_json(Path(self._entry_path(key)), entry)
        artifacts.write_json(self._last_path(asked), {"about": asked.about, "inputs": seen.values()})
        self.runner.unlock(asked.name)

    def _seen(self, asked: Asked, outputs: Mapping[str, Any]) -> Inputs:
        """Return what a step read beside the artifacts that it was given, which its key has, and what it made."""
        path = self.runner.observed(asked.name)
        if not path.is_file():
            return Inputs()  # a component that is none of our stages
        made = [Path(value.path) for value in outputs.values() if isinstance(value, dsl.Artifact)]
        apart = [*asked.given, *made, self.runner.run.path, self.runner.work(asked.name)]
        return Inputs.of(artifacts.read_json(path)).without(*self._both(apart))

    def _both(self, paths: list[Path]) -> Iterator[Path]:
        """Give paths as they may be recorded: absolute, and relative to the project."""
        root = self.runner.folder.absolute()
        for path in map(Path.absolute, paths):
            yield path
            if path.is_relative_to(root):
                yield path.relative_to(root)

    def _last(self, asked: Asked) -> Mapping[str, Any]:
        return _read(self._last_path(asked))

    def _last_path(self, asked: Asked) -> Path:
        return Path(self.cache_root) / "latest" / f"{asked.task}.json"


def _read(path: Path) -> dict[str, Any]:
    """Return what a file of the cache says; nothing where it was cut, or is not there."""
    try:
        value = artifacts.read_json(path)
    except (ArtifactError, OSError):
        return {}
    return value if isinstance(value, dict) else {}


def _content(value: Any) -> Any:
    """Return what a key says of an argument: an artifact's bytes, not where they lie."""
    return {"bytes": _digest(Path(value.path))} if isinstance(value, dsl.Artifact) else value


def _digest(path: Path) -> str:
    """Return the digest of a file or folder; metrics that live in metadata have none, and count as empty."""
    if path.is_dir():
        return artifacts.digest_folder(path)
    return artifacts.digest_file(path) if path.exists() else ""


def _pin(value: Any, root: Path) -> dict[str, Any]:
    """Return what is kept of an output; `below` is a place in the project's folder, which may be moved or copied."""
    below = places.relative(value.uri if isinstance(value, dsl.Artifact) else value, root, root)
    if not isinstance(value, dsl.Artifact):
        return {"value": value} if below is None else {"below": below}
    return {
        "digest": _digest(Path(value.path)),
        "below": below,
        "artifact": {
            "name": value.name,
            "uri": value.uri if below is None else "",
            "metadata": value.metadata,
            "type": {"schemaTitle": value.schema_title, "schemaVersion": value.schema_version},
        },
    }


def _revive(entry: Mapping[str, Any], root: Path) -> Any:
    """Return an output as it was kept, from the project's folder as it is called now.

    Raises ArtifactError when its bytes are gone or changed.
    """
    if "artifact" not in entry:
        return places.absolute(entry["below"], root) if "below" in entry else entry["value"]
    uri = entry["artifact"]["uri"]
    if "below" not in entry:  # an earlier version's: the path as it was then
        uri = places.moved(uri, places.former_root([uri]), root)
    elif entry["below"] is not None:
        uri = places.absolute(entry["below"], root)
    if _digest(Path(uri)) != entry["digest"]:
        raise ArtifactError(f"{uri} is not what was kept")
    return executor.create_artifact_instance({**entry["artifact"], "uri": uri})
