"""A compiled spec, submitted to a Kubeflow Pipelines backend: uploaded, run, followed to its end.

Everything is kfp.Client's, whose errors are said here in one line. The backend says of a failed step that it failed and
no more; the reason is what the step itself left (boatyard.running.reasons).
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api
import urllib3
import yaml

from boatyard.data import artifacts
from boatyard.errors import BoatyardError, ConfigError, Refused, StorageError
from boatyard.running import reasons
from boatyard.running.reasons import Reason
from boatyard.settings import Settings

logger = logging.getLogger(__name__)
ANSWER_TIMEOUT_S = 30.0  # that a request may take
UNREACHABLE_TIMEOUT_S = 300.0  # that the backend may be away while a run is followed
LOOK_INTERVAL_S = 2.0  # between looks at a run
SLOW_POD_S = 180.0  # after which a step that has no pod yet is worth a word
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
PRECEDENCE = ("FAILED", "CANCELED", "RUNNING", "PENDING", "SUCCEEDED", "SKIPPED", "CACHED")
ATTEMPT = re.compile(r"\(\d+\)$")  # an attempt's number, which the name of its Argo node ends with
DRIVER = re.compile(r"(-driver|executor)$")


class BackendError(BoatyardError):
    """The Kubeflow Pipelines backend cannot be reached, lets nobody in or does not take what it is given."""


class RunFailed(BoatyardError):
    """A run on Kubeflow ended and did not succeed; the message says which step and why, as far as anybody knows."""


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
    """A run that was created, and where a person finds it."""

    run: str
    pipeline: str
    version: str
    page: str


@dataclass(frozen=True)
class RunState:
    """The state of a run and of its steps, as the API calls them; CACHED is a step kept from an earlier run."""

    run: str
    name: str
    state: str
    steps: Mapping[str, str]
    root: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state in ENDED

    @property
    def failed(self) -> tuple[str, ...]:
        """The steps that failed."""
        return tuple(step for step, state in self.steps.items() if state == "FAILED")


class Backend:
    """A Kubeflow Pipelines API server. Every error is a BackendError that says the server."""

    def __init__(self, host: str, namespace: str | None = None) -> None:
        if not re.match(r"https?://[^/\s]+", host):
            raise ConfigError(expected="the API server's http:// or https:// URL", found=f"{host!r}")
        self.host, self.namespace = host.rstrip("/"), namespace
        self.token = Settings().kubeflow_token
        self.check()
        with self._said("connect"):
            self.client = kfp.Client(host=self.host, existing_token=self.token or None)
            _bound(self.client._run_api.api_client.rest_client)

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
        if not isinstance(_json(body), dict):
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
            run = self.client.run_pipeline(
                experiment,
                f"{what.name} {time.strftime('%Y-%m-%d %H:%M:%S')}",
                params=dict(what.parameters),
                pipeline_id=pipeline,
                version_id=version,
                pipeline_root=what.root,
                service_account=what.service_account,
            )
        return Submitted(self._given(run.run_id), pipeline, version, f"{self.host}/#/runs/details/{run.run_id}")

    def _uploaded(self, what: Submission) -> tuple[str, str]:
        """Return the ids of the pipeline and of the version that is this spec, byte for byte."""
        name = artifacts.digest_file(what.spec)[:12]
        pipelines = self.client.list_pipelines(filter=_named(what.name), namespace=self.namespace).pipelines
        if not pipelines:
            uploaded = self.client.upload_pipeline(str(what.spec), what.name, namespace=self.namespace)
            (version, *_) = self.client.list_pipeline_versions(self._given(uploaded.pipeline_id)).pipeline_versions
            return uploaded.pipeline_id, version.pipeline_version_id
        pipeline = self._given(pipelines[0].pipeline_id)
        versions = self.client.list_pipeline_versions(pipeline, filter=_named(name)).pipeline_versions
        if versions:
            return pipeline, versions[0].pipeline_version_id
        version = self.client.upload_pipeline_version(str(what.spec), name, pipeline_id=pipeline)
        return pipeline, self._given(version.pipeline_version_id)

    def state(self, run: str) -> RunState:
        """Return the state of a run."""
        with self._said(f"look at run {run}"):
            answer = self.client.get_run(run)
            state = self._given(answer.state)
        details = (answer.run_details.task_details if answer.run_details else None) or []
        root = answer.runtime_config.pipeline_root if answer.runtime_config else None
        return RunState(run, _pipeline(answer), str(state), steps(details), root or "")

    def follow(self, run: str, tell: Callable[[RunState], None], poll: float = LOOK_INTERVAL_S) -> RunState:
        """Look at a run until it ends, telling each look; a backend that is away for a while is waited for."""
        away: float | None = None
        while True:
            try:
                state = self.state(run)
            except BackendError as error:
                away = away or time.monotonic()
                if time.monotonic() - away > UNREACHABLE_TIMEOUT_S:
                    raise
                logger.warning("%s; trying again", error)
            else:
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
                raise BackendError(f"cannot {doing}: {self.host} does not answer ({_short(error)})") from error
            except (ValueError, TypeError, AttributeError) as error:
                raise BackendError(
                    f"cannot {doing}: {self.host} answers what is no Pipelines API ({_short(error)})"
                ) from error

    def _status(self, status: int, body: bytes | str | None) -> str:
        """Say what a status is of: the server's own sentence where it has one, and what to do."""
        value = _json(body or b"")
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
        return f"{self.host} refused it ({status}){detail}"

    def _not_json(self, body: bytes) -> str:
        page = b"<html" in body.lower() or b"<!doctype" in body.lower() or not body
        what = "a web page, as a login is" if page else f"{body[:40]!r}"
        return (
            f"{self.host}: expected a Kubeflow Pipelines API, found {what}; set BOATYARD_KUBEFLOW_TOKEN, or forward "
            "the "
            "API server's own port"
        )


def steps(details: list[Any]) -> dict[str, str]:
    """Return the steps' states of a run's Argo nodes, matched by base name; a loop's iterations are one step.

    A node may stand for an attempt (`train(0)`) or a driver; a step that an earlier run's result was taken for has an
    executor that was skipped.
    """
    states: dict[str, list[str]] = {}
    attempts: dict[str, list[str]] = {}
    skipped = {d.parent_task_id for d in details if _base(d.display_name) == "executor" and d.state == "SKIPPED"}
    children = {
        child.task_id: detail.task_id for detail in details for child in detail.child_tasks or [] if child.task_id
    }
    skipped |= {
        children[d.task_id]
        for d in details
        if _base(d.display_name) == "executor" and d.state == "SKIPPED" and d.task_id in children
    }
    for detail in details:
        base = _base(detail.display_name)
        if not base or DRIVER.search(base) or re.fullmatch(r"(root|iteration.*|(condition|for-loop).*)", base):
            continue
        state = str(detail.state or "PENDING")
        state = "CACHED" if state == "SUCCEEDED" and detail.task_id in skipped else state
        (states if detail.display_name == base else attempts).setdefault(base, []).append(state)
    for base, kept in attempts.items():
        states.setdefault(base, kept[-1:])
    return {step: min(kept, key=_rank) for step, kept in states.items()}


def outcome(state: RunState) -> BoatyardError | None:
    """Return the error of a run that ended: Refused by the gate, RunFailed; None of one that succeeded."""
    if state.state == "SUCCEEDED":
        return None
    if state.state == "CANCELED":
        return RunFailed(f"run {state.run} was stopped")
    folder = f"{state.root.rstrip('/')}/{state.name}/{state.run}" if state.root and state.name else ""
    left = _reasons(folder)
    for reason in left:
        if reason.refused:
            return Refused(reason.sentence)
    if left:
        where = f"\n  its log: {left[0].log}" if left[0].log else ""
        return RunFailed(f"{left[0].step} failed: {left[0].sentence}{where}")
    if state.failed == ("verdict",):  # that step does nothing but this
        return Refused("the gate refused", fix=f"its verdict is at {folder or 'the run’s root'}/gate/")
    return RunFailed(_unsaid(state, folder))


def _reasons(folder: str) -> tuple[Reason, ...]:
    """Return what the steps of a run left, if this machine has the store's keys."""
    if not folder.startswith("s3://") or not Settings().credentials:
        return ()
    try:
        return reasons.read(folder)
    except StorageError as error:
        logger.warning("%s", error)
        return ()


def _unsaid(state: RunState, folder: str) -> str:
    """Say where to look for what no step has said: a pod that never ran, was killed, or keys that are not here."""
    which = " and ".join(state.failed) or f"run {state.run}"
    task = state.failed[0] if state.failed else ""
    if task and folder.startswith("s3://") and Settings().credentials:
        with contextlib.suppress(StorageError):
            if lines := reasons.last_lines(folder, task, 1):
                return f"{which} failed: {lines[0]}; its log: {folder}/{task}/"
    where = f" or {folder}/{task}/…/{reasons.LOG}" if folder else ""
    return f"{which} failed and left no reason that can be read from here; look at: boatyard why run/{state.run}{where}"


def _base(name: str | None) -> str:
    return ATTEMPT.sub("", name or "")


def _rank(state: str) -> int:
    return PRECEDENCE.index(state) if state in PRECEDENCE else 0


def _pipeline(run: Any) -> str:
    """Return the pipeline's name, which a run's folder is called by, from the spec that the run was made of."""
    spec = run.pipeline_spec or {}
    spec = spec.get("pipeline_spec", spec) if isinstance(spec, dict) else yaml.safe_load(str(spec))
    about = spec.get("pipelineInfo") or spec.get("pipeline_info") or {}
    return str(about.get("name", ""))


def _named(name: str) -> str:
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


def _bound(rest: Any) -> None:
    """Give every request of a client an end; its own wait for ever."""
    request = rest.request

    def bounded(*arguments: Any, **named: Any) -> Any:
        return request(
            *arguments, **{**named, "_request_timeout": named.get("_request_timeout") or int(ANSWER_TIMEOUT_S)}
        )

    rest.request = bounded


def _json(body: bytes | str) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _short(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).split())[:200] or type(error).__name__
