"""Where things are for this process: its environment, read here and nowhere else. What to do is the project's.

Read it at the edges (the command, a step, a training pod, the server). It takes pydantic-settings, 0.1 s of CPU to
import: modules that a server or a pod's initializer imports do so inside a function.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from boatyard.errors import ConfigError
from boatyard.machine import processors

PROMETHEUS = "http://prometheus.monitoring.svc.cluster.local:9090"
IMAGE_REFERENCE = re.compile(r"[A-Za-z0-9][\w.-]*(:\d+)?(/[\w.-]+)*(:[\w.-]+)?(@sha256:[0-9a-f]{64})?")
ROLES = (  # of the clouds, each of which gives a pod the right to ask a bucket
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
)
MAX_VALUE_CHARS = 100  # of a variable's value in a message
MAY_BE_EMPTY = ("BOATYARD_DIGEST", "BOATYARD_ADMIN_TOKEN")  # a pod has them of an annotation or a Secret that may lack


def _whole(least: int) -> BeforeValidator:
    """Take a whole number of `least` or more, as text or as a number."""

    def read(value: Any) -> int:
        if not re.fullmatch(r"\s*[0-9]{1,9}\s*", str(value)) or int(value) < least:
            raise ValueError(f"expected a whole number of {least} or more")
        return int(value)

    return BeforeValidator(read)


def _url(value: str) -> str:
    if value and not re.fullmatch(r"https?://[^\s/]+\S*", value):
        raise ValueError("expected a URL such as http://HOST:PORT")
    return value


def _image(value: str) -> str:
    if not IMAGE_REFERENCE.fullmatch(value):
        raise ValueError("expected an image such as registry.example/boatyard/train:0.1.0")
    return value


def _yes(value: Any) -> bool:
    """Take what AWS's own tools take for yes; all else is no."""
    return value is True or str(value).lower() in ("1", "true", "yes")


FromZero = Annotated[int, _whole(0)]
FromOne = Annotated[int, _whole(1)]
Url = Annotated[str, AfterValidator(_url)]
Image = Annotated[str, AfterValidator(_image)]
Yes = Annotated[bool, BeforeValidator(_yes)]


def _variable(default: Any, *names: str, **more: Any) -> Any:
    """Describe a setting that the first of some environment variables gives."""
    return Field(default, validation_alias=AliasChoices(*names), **more)


class Settings(BaseSettings):
    """Read from BOATYARD_* variables, and those of torchrun and AWS; raises ConfigError, one line for each wrong one.

    Each field's description says what it is. `credentials` and `anonymous` say who asks an S3 store: the variables are
    those of AWS's own tools, and those that KServe makes of a Secret.
    """

    model_config = SettingsConfigDict(
        frozen=True, case_sensitive=True, env_ignore_empty=True, populate_by_name=True, extra="forbid"
    )

    image: Image = _variable(
        "boatyard/train:0.1.0",
        "BOATYARD_IMAGE",
        description="image that the pipeline's components and training pods run in",
    )
    serve_image: Image = _variable("boatyard/serve:0.1.0", "BOATYARD_SERVE_IMAGE", description="image of an endpoint")
    prometheus: Url = _variable(
        PROMETHEUS,
        "BOATYARD_PROMETHEUS",
        description="where an autoscaler that counts requests in flight asks for their number",
    )
    project: Path = _variable(
        Path(),
        "BOATYARD_PROJECT",
        description="folder that relative paths start at and own recipes are imported from, in a step",
    )
    kubeflow: str = _variable(
        "", "BOATYARD_KUBEFLOW", "KF_PIPELINES_ENDPOINT", description="URL of the Kubeflow Pipelines API"
    )
    kubeflow_ui: Url = _variable(
        "", "BOATYARD_KUBEFLOW_UI", description="URL of the Kubeflow Pipelines UI, where a run's page is"
    )
    kubeflow_token: str = _variable(
        "", "BOATYARD_KUBEFLOW_TOKEN", repr=False, description="token that is sent to the Kubeflow Pipelines API"
    )
    work: Path | None = _variable(
        None,
        "BOATYARD_WORK",
        description="folder that outlives a killed step: training goes on from it; without one it starts anew",
    )
    progress: Path | None = _variable(
        None, "BOATYARD_PROGRESS", description="file that a step writes its progress to, for the runner that follows it"
    )
    observed: Path | None = _variable(
        None,
        "BOATYARD_OBSERVED",
        description="file that a step writes what it read of code, files and environment to, for the run's cache",
    )
    retries: FromZero = _variable(0, "BOATYARD_RETRIES", description="how often a step asks a store once more")
    threads: FromZero = _variable(
        0,
        "BOATYARD_THREADS",
        description="threads of a stage, at most; 0 takes the processors that the process may use",
    )
    rank: FromZero = _variable(0, "RANK", description="which process of a training run this is (set by torchrun)")
    processes: FromOne = _variable(1, "WORLD_SIZE", description="processes of the training run (set by torchrun)")
    local_rank: FromZero = _variable(0, "LOCAL_RANK", description="which process of its node this is (set by torchrun)")
    local_processes: FromOne = _variable(
        1, "LOCAL_WORLD_SIZE", description="processes of its node, which share its processors (set by torchrun)"
    )
    patience: FromOne = _variable(
        120, "BOATYARD_PATIENCE", description="seconds that a training process waits for the others within a step"
    )
    cache: Path = _variable(
        Path(),
        "BOATYARD_CACHE",
        description="folder that keeps what came from buckets; by default `boatyard` in `XDG_CACHE_HOME`",
    )
    claims: Path = _variable(
        Path("/mnt/pvc"), "BOATYARD_CLAIMS", description="folder below which volume claims are mounted, by name"
    )
    digest: str | None = _variable(
        None,
        "BOATYARD_DIGEST",
        description="sha256 of the package that a pod must serve (set from the pod's annotation)",
    )
    admin_token: str | None = _variable(
        None,
        "BOATYARD_ADMIN_TOKEN",
        repr=False,
        description="token that lets a client load models into a server and unload them",
    )
    endpoint: str = _variable(
        "",
        "AWS_ENDPOINT_URL_S3",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT",
        description="URL of an S3 store other than Amazon's",
    )
    virtual_hosts: Yes = _variable(
        False, "S3_USER_VIRTUAL_BUCKET", description="whether buckets are named in the host and not in the path"
    )
    certificates: Path | None = _variable(
        None,
        "AWS_CA_BUNDLE",
        description="PEM file of the authorities that an S3 store's certificate is checked against",
    )

    def __init__(self, **values: Any) -> None:
        """Read the environment; what is given by name goes before it."""
        problems = [_missing(name) for name in _empty(os.environ)]
        try:
            super().__init__(**values)
        except ValidationError as error:
            problems += [_problem(wrong) for wrong in error.errors()]
        if len(problems) == 1:
            raise problems[0]
        if problems:
            raise ConfigError("\n".join(map(str, problems)))

    @model_validator(mode="before")
    @classmethod
    def _placed(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Keep what was pulled where the user's other caches are, unless told where."""
        if "BOATYARD_CACHE" in values or "cache" in values:
            return values
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return {**values, "cache": home / "boatyard"}

    @model_validator(mode="after")
    def _counted(self) -> Self:
        """Take the processors of this process where no number of threads was given: its part of its node's."""
        if not self.threads:
            object.__setattr__(self, "threads", max(1, processors() // self.local_processes))
        return self

    @property
    def credentials(self) -> bool:
        """Whether the environment says who asks a bucket: a key, or one of the roles that a cloud gives a pod."""
        key = os.environ.get("AWS_ACCESS_KEY_ID") and os.environ.get("AWS_SECRET_ACCESS_KEY")
        return bool(key) or any(os.environ.get(name) for name in ROLES)

    @property
    def anonymous(self) -> bool:
        """Whether buckets are asked without saying who asks."""
        return any(_yes(os.environ.get(name)) for name in ("AWS_SKIP_SIGNATURE", "awsAnonymousCredential"))


def variables() -> tuple[str, ...]:
    """Return the names of all environment variables that settings are read from."""
    aliases = (field.validation_alias for field in Settings.model_fields.values())
    return tuple(str(name) for alias in aliases if isinstance(alias, AliasChoices) for name in alias.choices)


def _empty(environment: Mapping[str, str]) -> list[str]:
    """Find our variables that are set to nothing: the line that was to set them went wrong."""
    ours = [name for name in variables() if name.startswith("BOATYARD_") and name not in MAY_BE_EMPTY]
    return [name for name in ours if environment.get(name) == ""]


def _missing(name: str) -> ConfigError:
    return ConfigError(name, expected="a value", found="it empty", fix="give one, or unset it")


def _problem(error: Any) -> ConfigError:
    """Say which variable is wrong, what was expected and what was found."""
    field = Settings.model_fields.get(str(error["loc"][0]))
    alias = field.validation_alias if field else None
    name = alias.choices[0] if isinstance(alias, AliasChoices) else error["loc"][0]
    expected = error["msg"].removeprefix("Value error, ").removeprefix("expected ")
    found = repr(str(error["input"])[:MAX_VALUE_CHARS])
    return ConfigError(str(name), expected=expected, found=found, fix="change it, or unset it")
