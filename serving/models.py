"""The models of one process: several by name, several versions each; loaded and unloaded while the others answer."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kserve import ModelRepository

from boatyard import prediction
from boatyard.errors import ConfigError
from boatyard.prediction.decoding import show

from . import inference
from .calibration import calibrate
from .errors import HttpError
from .inference import Route
from .limits import Limits, Plan
from .metrics import Numbers
from .predictor import Predictor
from .resting import Rest

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # what a URL takes as it is


class Models(ModelRepository):  # type: ignore[misc]
    """KServe's repository of models, with versions; the version loaded last answers requests that name none.

    `folder` is where `load` looks for packages: `NAME`, or `NAME/VERSION`, each a package's folder.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        folder: Path | None = None,
        threads: int | None = None,
        batch: int | None = None,
        processes: int = 1,
        engine: str = "onnxruntime",
    ) -> None:
        super().__init__()
        self.limits, self.folder, self.threads, self.batch = limits, folder, threads, batch
        self.processes, self.engine, self.rest = processes, engine, Rest()
        self.versions: dict[str, dict[str, Predictor]] = {}
        self.unloaded: dict[tuple[str, str], Numbers] = {}  # what versions counted that answer no more
        self.routes: dict[bytes, Route] = {}  # by the path of inference, as a client sends it
        self.draining = self.leaving = False  # not ready any more; and clients are to come again elsewhere

    def open(
        self, package: Path, *, name: str | None = None, digest: str | None = None, plan: Plan | None = None
    ) -> Predictor:
        """Verify, load and warm a package, and calibrate it unless there is a `plan`. Not for the event loop.

        Raises ArtifactError, ConfigError.
        """
        if name is not None and not NAME.fullmatch(name):
            raise ConfigError(f"expected a model's name of letters, digits, '.', '_' and '-', found {show(name)}")
        threads, engine = (plan.threads, plan.engine) if plan else (self.threads or 1, self.engine)
        loaded = prediction.load(package, digest=digest, threads=threads, by=engine)
        if plan is None:
            loaded, plan = calibrate(loaded, self.threads, self.batch, self.processes)
        return Predictor(loaded, plan, self.limits, name, self.rest)

    def add(self, model: Predictor) -> None:
        """Let a model answer; one of the same name stays as an earlier version, and the very same answers on."""
        versions = self.versions.setdefault(model.name, {})
        if old := versions.pop(model.version, None):
            model.close()
        versions[model.version] = old or model
        self._settle(model.name)

    def remove(self, name: str, version: str | None = None) -> None:
        """Let a model, or one version of it, answer no more; raises HttpError when there is none."""
        self.find(name, version)
        versions = self.versions[name]
        for each in [version] if version else list(versions):
            model = versions.pop(each)
            model.close()
            former = self.unloaded.get((name, each))
            self.unloaded[name, each] = model.numbers.plus(former) if former else model.numbers
        self._settle(name)

    def find(self, name: str, version: str | None = None) -> Predictor:
        """Return the model that a request names; raises HttpError."""
        if not (versions := self.versions.get(name)):
            raise HttpError(404, f"expected model {_listed(self.versions)}, found {show(name)}, at the path")
        if version is None:
            return next(reversed(versions.values()))
        if version not in versions:
            raise HttpError(404, f"expected version {_listed(versions)} or none, found {show(version)}, at the path")
        return versions[version]

    async def open_by_name(self, name: str) -> Predictor:
        """Open the package of a name in the folder, off the event loop; raises HttpError, ArtifactError."""
        return await asyncio.to_thread(self.open, self._package(name), name=name.partition("/")[0])

    def all(self) -> list[Predictor]:
        """Return every version of every model, those loaded last at the end."""
        return [model for versions in self.versions.values() for model in versions.values()]

    def index(self) -> list[dict[str, Any]]:
        """Return what is loaded, as the model repository extension lists it."""
        return [
            {"name": name, "version": version, "state": "READY" if model.ready else "UNAVAILABLE", "reason": ""}
            for name, versions in self.versions.items()
            for version, model in versions.items()
        ]

    def numbers(self) -> list[Numbers]:
        """Return the numbers of every version of the models that answer, unloaded ones first, the newest last.

        A counter of a model must never fall or jump when a version comes or goes: an autoscaler reads it as requests.
        """
        names = list(self.versions)
        gone = [numbers for (name, _), numbers in list(self.unloaded.items()) if name in names]
        return [*gone, *(model.numbers for model in self.all())]

    def stop(self) -> None:
        """Say that no model is ready; all still answer."""
        self.draining = True
        for model in self.all():
            model.stop()

    def _package(self, name: str) -> Path:
        if self.folder is None:
            raise HttpError(
                403, "expected a server with a folder of packages (--repository), found none, at the server"
            )
        parts = name.split("/")
        if len(parts) > 2 or any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
            raise HttpError(400, f"expected a package's name, found {show(name)}, at the path")
        found = self.folder.joinpath(*parts)
        if not (found / "package.json").is_file():
            raise HttpError(404, f"expected a package in the server's folder, found no {show(name)}, at the path")
        return found

    def _settle(self, name: str) -> None:
        """Let KServe's own routes and the short way see the version that answers now."""
        routes = {
            f"/v1/models/{quote(name)}:predict".encode(): ("v1", inference.predict),
            f"/v2/models/{quote(name)}/infer".encode(): ("v2", inference.infer),
        }
        if versions := self.versions.get(name):
            model = next(reversed(versions.values()))
            self.update(model)
            self.routes.update({path: Route(model, *how) for path, how in routes.items()})
            return
        self.versions.pop(name, None)
        self.models.pop(name, None)
        for path in routes:
            self.routes.pop(path, None)


def _listed(names: Any) -> str:
    return " or ".join(list(names)[:5]) or "(none is loaded)"
