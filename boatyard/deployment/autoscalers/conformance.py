"""Whether an autoscaler keeps the rules: what a plug-in's author runs, by hand or from pytest.

from boatyard.deployment.autoscalers import conformance

conformance.check(MyAutoscaler(), ServeConfig(autoscaling={"autoscaler": "mine"}))
"""

from __future__ import annotations

import json

from boatyard.deployment.autoscalers.base import PREDICTOR_FIELDS, Autoscaler
from boatyard.errors import Refused
from boatyard.project import ServeConfig
from boatyard.settings import Settings

SETTINGS = Settings(prometheus="http://prometheus:9090")


def check(autoscaler: Autoscaler, config: ServeConfig) -> None:
    """Raise Refused, naming the rule, unless the autoscaler renders a section that it is made for right."""
    autoscaler.check(config)
    rendered = autoscaler.render("insects", config, SETTINGS)
    _hold(rendered == autoscaler.render("insects", config, SETTINGS), "it renders the same twice")
    foreign = set(rendered.fields) - set(PREDICTOR_FIELDS)
    _hold(not foreign, f"it sets fields of scaling alone, not {', '.join(sorted(foreign))}")
    bounds = (rendered.fields.get("minReplicas"), rendered.fields.get("maxReplicas"))
    _hold(bounds == (config.autoscaling.minimum, config.autoscaling.maximum), "it keeps the section's bounds")
    texts = all(isinstance(text, str) for pair in rendered.annotations.items() for text in pair)
    _hold(texts, "annotations are text")
    plain = json.loads(json.dumps([dict(rendered.fields), dict(rendered.annotations)]))
    _hold(plain == [rendered.fields, rendered.annotations], "what it renders is plain YAML")


def _hold(true: bool, rule: str) -> None:
    if not true:
        raise Refused(f"the autoscaler breaks a rule: {rule}")
