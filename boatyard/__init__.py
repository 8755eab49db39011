"""Boatyard: from data to a measured KServe endpoint, the same on a laptop and on a cluster.

    project = boatyard.Project.load("flowers")
    run = boatyard.run(project, set={"train.epochs": 3})
    boatyard.load("flowers").predict(rows)

Everything is imported when it is first asked for: `import boatyard` alone costs nothing.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False  # as typing's own, which would have to be imported
if TYPE_CHECKING:
    from typing import Any

    from boatyard.api.diagnoses import why
    from boatyard.api.endpoints import delete, deploy, logs, plan, rollback, status
    from boatyard.api.kubeflow import KubeflowRun, compile, kubeflow_runs, submit
    from boatyard.api.models import Model, PredictedRows, load
    from boatyard.api.packages import render, show, verify
    from boatyard.api.placing import Placement, placements
    from boatyard.api.projects import check, init, list_plugins, list_recipes, schema
    from boatyard.api.registries import check_registry, journal, list_models, promote, pull, remove_version
    from boatyard.api.runs import report, run, runs
    from boatyard.api.serving import Server, serve
    from boatyard.api.stages import Trained, evaluate, gate, preprocess, push, train
    from boatyard.project import Project

__all__ = [
    "KubeflowRun",
    "Model",
    "Placement",
    "PredictedRows",
    "Project",
    "Server",
    "Trained",
    "check",
    "check_registry",
    "compile",
    "delete",
    "deploy",
    "evaluate",
    "gate",
    "init",
    "journal",
    "kubeflow_runs",
    "list_models",
    "list_plugins",
    "list_recipes",
    "load",
    "logs",
    "placements",
    "plan",
    "preprocess",
    "promote",
    "pull",
    "push",
    "remove_version",
    "render",
    "report",
    "rollback",
    "run",
    "runs",
    "schema",
    "serve",
    "show",
    "status",
    "submit",
    "train",
    "verify",
    "why",
]

_MODULES = {
    "boatyard.api.diagnoses": ("why",),
    "boatyard.api.endpoints": ("delete", "deploy", "logs", "plan", "rollback", "status"),
    "boatyard.api.kubeflow": ("KubeflowRun", "compile", "kubeflow_runs", "submit"),
    "boatyard.api.models": ("Model", "PredictedRows", "load"),
    "boatyard.api.packages": ("render", "show", "verify"),
    "boatyard.api.placing": ("Placement", "placements"),
    "boatyard.api.projects": ("check", "init", "list_plugins", "list_recipes", "schema"),
    "boatyard.api.registries": ("check_registry", "journal", "list_models", "promote", "pull", "remove_version"),
    "boatyard.api.runs": ("report", "run", "runs"),
    "boatyard.api.serving": ("Server", "serve"),
    "boatyard.api.stages": ("Trained", "evaluate", "gate", "preprocess", "push", "train"),
    "boatyard.project": ("Project",),
}
_WHERE = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> "Any":
    """Import what is asked for: a name of the API, or a module of the library."""
    import importlib
    from importlib.util import find_spec

    if name in _WHERE:
        value = getattr(importlib.import_module(_WHERE[name]), name)
    elif not name.startswith("_") and find_spec(f"{__name__}.{name}"):
        return importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
