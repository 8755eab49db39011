"""Results of steps, kept by content: what a later run takes instead of running a step again."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Protocol

from kfp import dsl
from kfp.dsl import executor
from kfp.local import cache as kfp_cache

from boatyard import locks, stages
from boatyard.data import artifacts
from boatyard.errors import ArtifactError, BoatyardError
from boatyard.pipelines.demands import bare_name
from boatyard.project import DataConfig, section
from boatyard.running import places, runs
from boatyard.running.display import Display

logger = logging.getLogger(__name__)
WITHOUT_RECIPE = ("preprocess", "evaluate")  # steps that import nothing of the project's own
LOCK_INTERVAL_S = 0.1  # between tries for a step that another run is at


class Runner(Protocol):
    """What the cache asks of the run that it keeps results for."""

    folder: Path
    display: Display
    keys: dict[str, str]
    locks: dict[str, IO[bytes]]

    def work(self, name: str) -> Path:
        """Return the folder that a step goes on from."""

    def unlock(self, *names: str) -> None:
        """Let other runs have a step."""

    def cached(self, name: str, outputs: Mapping[str, Any]) -> None:
        """Note a step whose result was kept."""


class ContentCache(kfp_cache.LocalCache):  # type: ignore[misc]
    """Results kept by content: a step's key is its settings, its inputs' bytes and the code that runs it.

    KFP's own looks at URIs, and sees neither changed bytes nor a changed library.
    """

    def __init__(self, runner: Runner) -> None:
        super().__init__(str(runner.folder / runs.FOLDER / ".cache"))
        self.runner = runner
        self.library, self.code = stages.code_digest(), stages.code_digest(runner.folder)
        self.environment = stages.environment()
        self.name = ""

    def compute_key(
        self,
        component_name: str,
        image: str,
        full_command: list[str],
        arguments: dict[str, Any],
        env_vars: dict[str, str] | None = None,
        custom_cache_key: str | None = None,
    ) -> str:
        """Return the digest of all that a step's result depends on."""
        self.name = bare_name(component_name)
        self.runner.display.start(self.name)
        about = {
            "step": component_name,
            "command": full_command,
            "arguments": {name: _content(value) for name, value in arguments.items()},
            "variables": env_vars or {},
            "code": self.library if self.name in WITHOUT_RECIPE else self.code,
            "environment": self.environment,
        }
        if self.name == "preprocess":
            about["sources"] = self._sources(arguments["data"])
        key = artifacts.digest_json(about)
        self.runner.keys[self.name] = key
        return key

    def _sources(self, data: Mapping[str, Any]) -> Any:
        from boatyard import preprocessing

        return preprocessing.source_digests(section(DataConfig, data), self.runner.folder)

    def get(self, key: str) -> dict[str, Any] | None:
        """Return a step's outputs if they are still there, byte for byte; None otherwise, and then the step is locked.

        A run that finds the step at work in another run of the project waits for what that one makes of it.
        """
        outputs = self._kept(key)
        if outputs is None and self._reserve(key):
            outputs = self._kept(key)
        if outputs is not None:
            self.runner.unlock(self.name)
            self.runner.cached(self.name, outputs)
        return outputs

    def _reserve(self, key: str) -> bool:
        """Take the step's lock, which its process holds too; return whether another run had it."""
        path = self.runner.work(self.name).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        file = self.runner.locks.setdefault(self.name, open(path, "ab"))  # noqa: SIM115 - closed by unlock
        waited = False
        while True:
            if locks.lock_open(file.fileno()):
                return waited
            if not waited:
                self.runner.display.say(f"{self.name} is at work in another run of this project; waiting for it")
            waited = True
            time.sleep(LOCK_INTERVAL_S)

    def _kept(self, key: str) -> dict[str, Any] | None:
        path = Path(self._entry_path(key))
        if not path.is_file():
            return None
        try:
            return {name: _revive(entry, self.runner.folder) for name, entry in artifacts.read_json(path).items()}
        except (BoatyardError, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
            logger.info("%s is run again: %s", self.name, error)
            return None

    def put(self, key: str, outputs: dict[str, Any]) -> None:
        """Keep a step's outputs: where they are, and the digest of their bytes."""
        entry = {name: _pin(value, self.runner.folder) for name, value in outputs.items()}
        artifacts.write_json(Path(self._entry_path(key)), entry)
        self.runner.unlock(self.name)


def _content(value: Any) -> Any:
    """Return what a key says of an argument: an artifact's bytes, not where they lie."""
    return _digest(Path(value.path)) if isinstance(value, dsl.Artifact) else value


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
