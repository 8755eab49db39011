"""Who scales an endpoint: one class each, the same YAML as ever, and a plug-in is one file and an entry point."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import graphs
import pytest
import yaml

from boatyard import __version__, deployment, packages, plugins
from boatyard.deployment import autoscalers
from boatyard.deployment.autoscalers import Autoscaler, Scaling, conformance
from boatyard.errors import ConfigError, Refused
from boatyard.project import AutoscalingConfig, ServeConfig, section
from boatyard.settings import Settings

SETTINGS = Settings(serve_image="registry.example/serve:1", prometheus="http://prometheus:9090")
URI = f"s3://models/insects/sha256-{'0' * 64}"
FLIGHT = AutoscalingConfig(metric="concurrency", target=4)
SECTIONS: dict[str, dict[str, Any]] = {
    "hpa": {},
    "keda": {"autoscaling": FLIGHT},
    "knative": {"autoscaling": FLIGHT.model_copy(update={"minimum": 0}), "mode": "Knative"},
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> packages.Package:
    return graphs.package(tmp_path_factory.mktemp("package"), graphs.image_schema())


@pytest.mark.parametrize("name", SECTIONS)
def test_the_yaml_is_this_byte_for_byte(name: str, package: packages.Package) -> None:
    text = deployment.render(package, ServeConfig(cpu="2", memory="3Gi", **SECTIONS[name]), URI, SETTINGS, version=3)
    text = text.replace(package.digest, "DIGEST").replace(f"/version: {__version__}", "/version: VERSION")
    text = re.sub(r"(?<=boatyard/rendered: )\S+", "MARK", text)
    assert text == (Path(__file__).parent / "rendered" / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", SECTIONS)
def test_each_that_is_built_in_keeps_the_rules_and_is_derived(name: str) -> None:
    config = ServeConfig(**SECTIONS[name])
    assert autoscalers.named(config) == name
    conformance.check(plugins.load("autoscalers", name), config)


def test_those_are_all(package: packages.Package) -> None:
    assert plugins.builtin("autoscalers") == tuple(sorted(SECTIONS))


@pytest.mark.parametrize(
    ("name", "serve", "message"),
    [
        (
            "hpa",
            {"mode": "Knative"},
            "serve.autoscaling.metric: expected concurrency with serve.mode Knative, found cpu",
        ),
        (
            "hpa",
            {"autoscaling": FLIGHT},
            "serve.autoscaling.metric: expected cpu with autoscaler hpa, found concurrency",
        ),
        ("keda", {}, "serve.autoscaling.metric: expected concurrency with autoscaler keda, found cpu"),
        ("keda", SECTIONS["knative"], "serve.mode: expected Standard with autoscaler keda, found Knative"),
        ("knative", {}, "serve.mode: expected Knative with autoscaler knative, found Standard"),
    ],
)
def test_what_one_cannot_do_is_refused(name: str, serve: dict[str, Any], message: str) -> None:
    config = ServeConfig(**serve)
    chosen = config.autoscaling.model_copy(update={"autoscaler": name})
    with pytest.raises(ConfigError) as raised:
        autoscalers.scaling("insects", config.model_copy(update={"autoscaling": chosen}), SETTINGS)
    assert str(raised.value) == message


def test_an_unknown_autoscaler_says_those_that_are_there() -> None:
    with pytest.raises(ConfigError, match=r"autoscaling\.autoscaler: no autoscaler 'hpaa'; did you mean hpa"):
        section(ServeConfig, {"autoscaling": {"autoscaler": "hpaa"}})
    config = ServeConfig(autoscaling=AutoscalingConfig().model_copy(update={"autoscaler": "hpaa"}))
    with pytest.raises(ConfigError, match=r"serve\.autoscaling\.autoscaler: no autoscaler 'hpaa'; .*hpa"):
        autoscalers.scaling("insects", config, SETTINGS)


NIGHTLY = """
from boatyard.deployment.autoscalers import Autoscaler, Scaling

class Nightly(Autoscaler):
    def check(self, config):
        pass

    def render(self, name, config, settings):
        bounds = {"minReplicas": config.autoscaling.minimum, "maxReplicas": config.autoscaling.maximum}
        return Scaling(bounds, {"example.com/nightly": name})

nightly = Nightly()
"""


def test_a_plug_in_scales_an_endpoint_without_an_edit_here(
    package: packages.Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nightly.py").write_text(NIGHTLY)
    about = tmp_path / "nightly-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: nightly\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[boatyard.autoscalers]\nnightly = nightly:nightly\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = ServeConfig(autoscaling=AutoscalingConfig(autoscaler="nightly"))
    conformance.check(plugins.load("autoscalers", "nightly"), config)
    _, service = yaml.safe_load_all(deployment.render(package, config, URI, SETTINGS))
    assert service["metadata"]["annotations"]["example.com/nightly"] == "insects"
    assert service["spec"]["predictor"]["maxReplicas"] == 3
    assert plugins.Plugin("autoscalers", "nightly", "nightly 1.0") in tuple(plugins.installed())


class Greedy(Autoscaler):
    """Breaks a rule: it sets what is not of scaling."""

    def check(self, config: ServeConfig) -> None:
        pass

    def render(self, name: str, config: ServeConfig, settings: Settings) -> Scaling:
        return Scaling({"minReplicas": 1, "maxReplicas": 3, "serviceAccountName": "root"})


def test_one_that_breaks_a_rule_is_told_which() -> None:
    with pytest.raises(Refused, match="breaks a rule: it sets fields of scaling alone, not serviceAccountName"):
        conformance.check(Greedy(), ServeConfig())
