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

    `image` runs the components on a cluster, `serve_image` an endpoint; `prometheus` is where an autoscaler that counts
    requests asks; `project` is the folder that own recipes are imported from;
    `kubeflow` is the URL of the Kubeflow Pipelines API, `kubeflow_token` what it lets us in with;
    `work` is a folder that outlives a killed step (training goes on from it; none: it starts anew); `progress` is the
    file that a step's runner follows; `retries` is how often a step asks a store once more;
    `threads` bounds the threads of a stage (0: the processors this process may use).
    `rank`, `processes`, `local_rank` and `local_processes` are torchrun's: which process of a training run this is, of
    how many, and the same on its node; `patience` is how many seconds one waits for the others within a step.
    `cache` keeps what was pulled from buckets, `claims` is the folder below which volume claims are mounted by name.
    `digest` is what a pod's package must have, `admin_token` lets in whoever loads models into a server.
    `endpoint`, `credentials`, `anonymous`, `virtual_hosts` and `certificates` say where an S3 store is and who asks:
    the variables are those of AWS's own tools, and those that KServe makes of a Secret.
    """

    model_config = SettingsConfigDict(
        frozen=True, case_sensitive=True, env_ignore_empty=True, populate_by_name=True, extra="forbid"
    )

    image: Image = _variable("boatyard/train:0.1.0", "BOATYARD_IMAGE")
    serve_image: Image = _variable("boatyard/serve:0.1.0", "BOATYARD_SERVE_IMAGE")
    prometheus: Url = _variable(PROMETHEUS, "BOATYARD_PROMETHEUS")
    project: Path = _variable(Path(), "BOATYARD_PROJECT")
    kubeflow: str = _variable("", "BOATYARD_KUBEFLOW", "KF_PIPELINES_ENDPOINT")
    kubeflow_token: str = _variable("", "BOATYARD_KUBEFLOW_TOKEN", repr=False)
    work: Path | None = _variable(None, "BOATYARD_WORK")
    progress: Path | None = _variable(None, "BOATYARD_PROGRESS")
    retries: FromZero = _variable(0, "BOATYARD_RETRIES")
    threads: FromZero = _variable(0, "BOATYARD_THREADS")
    rank: FromZero = _variable(0, "RANK")
    processes: FromOne = _variable(1, "WORLD_SIZE")
    local_rank: FromZero = _variable(0, "LOCAL_RANK")
    local_processes: FromOne = _variable(1, "LOCAL_WORLD_SIZE")
    patience: FromOne = _variable(120, "BOATYARD_PATIENCE")
    cache: Path = _variable(Path(), "BOATYARD_CACHE")
    claims: Path = _variable(Path("/mnt/pvc"), "BOATYARD_CLAIMS")
    digest: str | None = _variable(None, "BOATYARD_DIGEST")
    admin_token: str | None = _variable(None, "BOATYARD_ADMIN_TOKEN", repr=False)
    endpoint: str = _variable("", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    virtual_hosts: Yes = _variable(False, "S3_USER_VIRTUAL_BUCKET")
    certificates: Path | None = _variable(None, "AWS_CA_BUNDLE")

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
