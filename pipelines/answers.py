"""What a Kubeflow Pipelines API server is asked and answers, taken apart; and how long an answer may take."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import yaml

ANSWER_TIMEOUT_S = 30.0  # that a request may take


def name_in(spec: Any) -> str:
    """Return the name in a pipeline spec, as one document or with the Kubernetes settings beside it; empty for none."""
    try:
        if not isinstance(spec, dict):
            spec = next(iter(yaml.safe_load_all(str(spec or "{}"))), None) or {}
        spec = spec.get("pipeline_spec") or spec
        about = spec.get("pipelineInfo") or spec.get("pipeline_info") or {}
        return str(about.get("name") or "")
    except (AttributeError, yaml.YAMLError):  # of another backend's making
        return ""


def name_filter(name: str) -> str:
    """Return the filter of a list that asks for what is called so."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


def of_name(answers: Iterable[Any], name: str) -> list[Any]:
    """Return those of a name: what stands before an API server may not hand its filter on."""
    return [answer for answer in answers if answer and name in (answer.display_name, answer.name)]


def bound(rest: Any) -> None:
    """Give every request of a client an end; its own wait for ever."""
    request = rest.request

    def bounded(*arguments: Any, **named: Any) -> Any:
        return request(
            *arguments, **{**named, "_request_timeout": named.get("_request_timeout") or int(ANSWER_TIMEOUT_S)}
        )

    rest.request = bounded


def parsed(body: bytes | str) -> Any:
    """Return a body's JSON value; None where it is not JSON."""
    try:
        return json.loads(body)
    except ValueError:
        return None


def short(error: BaseException) -> str:
    """Say an error of the client's in one short line."""
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).split())[:200] or type(error).__name__
