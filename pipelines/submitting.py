"""A compiled spec, submitted to a Kubeflow Pipelines backend: uploaded, run, followed to its end.

Everything is kfp.Client's, whose errors are said here in one line.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import re
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api
import urllib3
import yaml

from boatyard.data import artifacts
from boatyard.errors import BoatyardError, ConfigError
from boatyard.pipelines.answers import ANSWER_TIMEOUT_S, bound, name_filter, name_in, of_name, parsed, short
from boatyard.pipelines.nodes import steps
from boatyard.pipelines.outcomes import ENDED, RunState
from boatyard.settings import Settings

logger = logging.getLogger(__name__)
UNREACHABLE_TIMEOUT_S = 300.0  # that the backend may be away while a run is followed
LOOK_INTERVAL_S = 2.0  # between looks at a run
PAGE_RUNS = 20  # that are asked for at once; each comes with its nodes, some 100 KB
SLOW_POD_S = 180.0  # after which a step that has no pod yet is worth a word


class BackendError(BoatyardError):
    """The Kubeflow Pipelines backend cannot be reached, lets nobody in or does not take what it is given."""


@dataclass(frozen=True)
class Submission:
    """What a run is started with; `parameters` are the pipeline's, `root` is an s3:// URI."""

    name: str
    spec: Path
    experiment: str = "Default"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    root: str | None = None
    service_account: str | None = None


@dataclass(frozen=True)
class Submitted:
    """A run that was created: its id, that of its pipeline and version, its name and page in the UI.

    `page` is empty where the UI's address is not known: the API server has no page, and may be forwarded by itself.
    """

    run: str
    pipeline: str
    version: str
    page: str
    name: str = ""


class Backend:
    """A Kubeflow Pipelines API server. Every error is a BackendError that says the server."""

    def __init__(self, host: str, namespace: str | None = None) -> None:
        if not re.match(r"https?://[^/\s]+", host):
            raise ConfigError(expected="the API server's http:// or https:// URL", found=f"{host!r}")
        self.host, self.namespace = host.rstrip("/"), namespace
        self.token = Settings().kubeflow_token
        self._names = dict[str, str]()  # of the pipelines, by version
        self.check()
        with self._said("connect"):
            self.client = kfp.Client(host=self.host, existing_token=self.token or None)
            bound(self.client._run_api.api_client.rest_client)

    def check(self) -> None:
        """Raise BackendError unless a Pipelines API answers, and to us."""
        headers = {"Accept": "application/json", **({"Authorization": f"Bearer {self.token}"} if self.token else {})}
        request = urllib.request.Request(f"{self.host}/apis/v2beta1/healthz", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S) as answer:
                body = answer.read(1 << 16)
        except urllib.error.HTTPError as error:
            raise BackendError(self._status(error.code, error.read(1 << 16))) from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise BackendError(
                f"{self.host}: expected a Kubeflow Pipelines API, found no answer ({reason}); is the host right, "
                "and is "
                "its port forwarded? (kubectl port-forward -n kubeflow svc/ml-pipeline 8888)"
            ) from error
        if not isinstance(parsed(body), dict):
            raise BackendError(self._not_json(body))

    def submit(self, what: Submission) -> Submitted:
        """Upload a spec, as a new version where the pipeline is there and the spec is new, and create a run of it."""
        with self._said("upload the pipeline"):
            pipeline, version = self._uploaded(what)
        with self._said(f"make the experiment {what.experiment}"):
            experiment = self._given(
                self.client.create_experiment(what.experiment, namespace=self.namespace).experiment_id
            )
        with self._said("create the run"):
            name = f"{what.name} {time.strftime('%Y-%m-%d %H:%M:%S')}"
            run = self.client.run_pipeline(
                experiment,
                name,
                params=dict(what.parameters),
                pipeline_id=pipeline,
                version_id=version,
                pipeline_root=what.root,
                service_account=what.service_account,
            )
        return Submitted(self._given(run.run_id), pipeline, version, self.page(run.run_id), name)

    def page(self, run: str) -> str:
        """Return a run's page in the UI; empty where nothing says where the UI is."""
        return f"{self._ui.rstrip('/')}/#/runs/details/{run}" if self._ui else ""

    @functools.cached_property
    def _ui(self) -> str:
        return Settings().kubeflow_ui or (self.host if self._shows_pages() else "")

    def _shows_pages(self) -> bool:
        """Whether the host is the UI's, which passes on what the API is asked; the API server has no page."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        with contextlib.suppress(OSError, ValueError):
            request = urllib.request.Request(f"{self.host}/", headers=headers)
            with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S) as answer:
                return b"<html" in answer.read(1 << 16).lower()
        return False

    def _uploaded(self, what: Submission) -> tuple[str, str]:
        """Return the ids of the pipeline and of the version that is this spec, whoever uploaded it.

        A version is called by the digest of what the spec says: its text differs from compiler to compiler.
        """
        name = digest_spec(what.spec)[:12]
        pipeline = self._pipeline(what.name)
        if version := self._version(pipeline, name):
            return pipeline, version
        try:
            made = self.client.upload_pipeline_version(str(what.spec), name, pipeline_id=pipeline)
        except kfp_server_api.ApiException as error:
            if error.status == HTTPStatus.CONFLICT and (version := self._version(pipeline, name)):
                return pipeline, version  # another submit was quicker
            raise
        return pipeline, self._given(made.pipeline_version_id)

    def _pipeline(self, name: str) -> str:
        """Return the id of the pipeline of that name, which is made where there is none."""

        def found() -> str | None:
            pipelines = self.client.list_pipelines(filter=name_filter(name), namespace=self.namespace).pipelines
            matching = of_name(pipelines or [], name)
            return self._given(matching[0].pipeline_id) if matching else None

        if there := found():
            return there
        body = kfp_server_api.V2beta1Pipeline(display_name=name, name=name, namespace=self.namespace)
        try:
            return self._given(self.client._pipelines_api.pipeline_service_create_pipeline(body).pipeline_id)
        except kfp_server_api.ApiException as error:
            if error.status == HTTPStatus.CONFLICT and (there := found()):
                return there
            raise

    def _version(self, pipeline: str, name: str) -> str | None:
        """Return the id of a pipeline's version of that name, if there is one."""
        versions = self.client.list_pipeline_versions(pipeline, filter=name_filter(name)).pipeline_versions
        matching = of_name(versions or [], name)
        return self._given(matching[0].pipeline_version_id) if matching else None

    def state(self, run: str) -> RunState:
        """Return the state of a run."""
        return self.state_of(self.run(run))

    def run(self, run: str) -> Any:
        """Return what the backend says of a run, a V2beta1Run."""
        with self._said(f"look at run {run}"):
            answer = self.client.get_run(run)
            self._given(answer.run_id)
        return answer

    def runs(self) -> Iterator[Any]:
        """Yield the backend's runs, each a V2beta1Run, the latest first; a page is asked for when it is needed."""
        token, known = "", set[str]()
        while True:
            with self._said("list the runs"):
                page = self.client.list_runs(token, PAGE_RUNS, "created_at desc", namespace=self.namespace)
                runs, token = page.runs or [], page.next_page_token or ""
            new = {run.run_id: run for run in runs if run and run.run_id and run.run_id not in known}
            known |= new.keys()
            yield from new.values()
            if not token or not new:  # a server that repeats itself has no more
                return

    def pipeline_ids(self, name: str) -> frozenset[str]:
        """Return the ids of the pipelines of a name: one, or none."""
        with self._said(f"look for the pipeline {name}"):
            pipelines = self.client.list_pipelines(filter=name_filter(name), namespace=self.namespace).pipelines or []
        return frozenset(pipeline.pipeline_id for pipeline in of_name(pipelines, name))

    def state_of(self, answer: Any) -> RunState:
        """Return the state of a run, as the backend says it."""
        details = (answer.run_details.task_details if answer.run_details else None) or []
        root = answer.runtime_config.pipeline_root if answer.runtime_config else None
        state = str(answer.state or "PENDING")  # left out until Argo has picked the run up, and a moment later again
        terminated = any(each and each.state == "CANCELING" for each in answer.state_history or [])
        name = self.pipeline_of(answer)
        return RunState(answer.run_id, name, state, steps(details, state in ENDED), root or "", terminated)

    def pipeline_of(self, run: Any) -> str:
        """Return the pipeline's name, which a run's folder is called by, from the spec that it was made of.

        A run of a version names the version; empty where that is gone.
        """
        spec, reference = run.pipeline_spec, run.pipeline_version_reference
        if spec or not reference:
            return name_in(spec)
        version = reference.pipeline_version_id
        if version not in self._names:
            with contextlib.suppress(BackendError), self._said(f"look at version {version}"):
                made = self.client.get_pipeline_version(reference.pipeline_id, version)
                self._names[version] = name_in(made.pipeline_spec)
        return self._names.get(version, "")

    def follow(self, run: str, tell: Callable[[RunState], None], poll: float = LOOK_INTERVAL_S) -> RunState:
        """Look at a run until it ends, telling each look; a backend that is away for a while is waited for.

        Raises BackendError when it is away for longer than UNREACHABLE_TIMEOUT_S.
        """
        away: float | None = None
        while True:
            try:
                state = self.state(run)
            except BackendError as error:
                if away is None:  # once, not at every look
                    away = time.monotonic()
                    logger.warning("%s; it is asked again for %g minutes", error, UNREACHABLE_TIMEOUT_S / 60)
                if time.monotonic() - away > UNREACHABLE_TIMEOUT_S:
                    raise BackendError(f"{error}; it was asked for {UNREACHABLE_TIMEOUT_S / 60:g} minutes") from error
            else:
                if away is not None:
                    logger.warning("%s answers again", self.host)
                away = None
                tell(state)
                if state.ended:
                    return state
            time.sleep(poll)

    def _given(self, value: str | None) -> str:
        """Return what an answer must hold; a page that asks to log in holds nothing of it."""
        if not value:
            raise BackendError(self._not_json(b""))
        return value

    @contextlib.contextmanager
    def _said(self, doing: str) -> Iterator[None]:
        """Keep the client's own talk out of our output, and say its errors in our words."""
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                yield
            except kfp_server_api.ApiException as error:
                raise BackendError(
                    f"cannot {doing}: {self._status(error.status, error.body or error.reason)}"
                ) from error
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise BackendError(f"cannot {doing}: {self.host} does not answer ({short(error)})") from error
            except (ValueError, TypeError, AttributeError) as error:
                raise BackendError(
                    f"cannot {doing}: {self.host} answers what is no Pipelines API ({short(error)})"
                ) from error

    def _status(self, status: int, body: bytes | str | None) -> str:
        """Say what a status is of: the server's own sentence where it has one, and what to do."""
        value = parsed(body or b"")
        words = (
            value.get("message") or value.get("error_message") or value.get("error") if isinstance(value, dict) else ""
        )
        detail = f": {' '.join(str(words).split())[:500]}" if words else ""
        if status in (401, 403):
            return f"{self.host} lets nobody in without a login ({status}){detail}; set BOATYARD_KUBEFLOW_TOKEN"
        if status == 404:
            return f"{self.host} knows nothing there (404){detail}; is it a Kubeflow Pipelines API, and the name right?"
        if status >= 500:
            return f"{self.host} failed ({status}){detail}; look at the API server's log, or try again later"
        if not status:  # the client could not make a value of it
            return f"{self.host} answers what is no Pipelines API ({' '.join(str(body).split())[:200]})"
        return f"{self.host} refused it ({status}){detail}"

    def _not_json(self, body: bytes) -> str:
        page = b"<html" in body.lower() or b"<!doctype" in body.lower() or not body
        what = "a web page, as a login is" if page else f"{body[:40]!r}"
        return (
            f"{self.host}: expected a Kubeflow Pipelines API, found {what}; set BOATYARD_KUBEFLOW_TOKEN, or forward "
            "the "
            "API server's own port"
        )


def digest_spec(spec: Path) -> str:
    """Return the SHA-256 of what a compiled spec says, whatever its comments and the order of its keys."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where PyYAML has it: several times as fast
    return artifacts.digest_json(list(yaml.load_all(spec.read_text(encoding="utf-8"), Loader=loader)))
