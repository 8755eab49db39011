"""The environment: every variable is read right or refused in one line, at every edge, and never with a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from boatyard import stages
from boatyard.errors import ConfigError
from boatyard.settings import MAY_BE_EMPTY, Settings, variables
from boatyard.training.trainjobs import TrainingJob

REFUSED_BY_FORM = ("BOATYARD_PROMETHEUS", "BOATYARD_KUBEFLOW_UI", "BOATYARD_IMAGE", "BOATYARD_SERVE_IMAGE")
WRONG = ("", "abc", "-1", "1e400")
NUMBERS = {"BOATYARD_RETRIES", "BOATYARD_THREADS", "BOATYARD_PATIENCE"} | {
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
}


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave nothing of this machine's own settings."""
    for name in (*variables(), "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("name", variables())
def test_a_variable_is_taken_or_refused_in_one_line_that_names_it(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    empty = value == "" and name.startswith("BOATYARD_") and name not in MAY_BE_EMPTY
    wrong = empty or (value != "" and name in NUMBERS)
    try:
        Settings()
    except ConfigError as error:
        text = str(error)
        assert wrong or name in REFUSED_BY_FORM
        assert text.startswith(f"{name}: expected ") and "\n" not in text
        assert error.about == name and error.expected and error.found and error.fix
        assert ("found it empty" if empty else f"found {value!r}") in text and "unset it" in text
    else:
        assert not wrong


def test_every_wrong_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOATYARD_RETRIES", "often")
    monkeypatch.setenv("BOATYARD_CACHE", "")
    monkeypatch.setenv("RANK", "-1")
    with pytest.raises(ConfigError) as caught:
        Settings()
    assert {line.partition(":")[0] for line in str(caught.value).splitlines()} == {
        "BOATYARD_RETRIES",
        "BOATYARD_CACHE",
        "RANK",
    }


def test_what_is_not_given_has_a_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    settings = Settings()
    assert (settings.retries, settings.patience, settings.rank, settings.processes) == (0, 120, 0, 1)
    assert settings.cache == tmp_path / "boatyard" and settings.project == Path(".") and settings.work is None
    assert settings.threads >= 1 and not settings.credentials and not settings.anonymous


def test_an_empty_variable_of_others_is_as_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store:9000")
    monkeypatch.setenv("BOATYARD_DIGEST", "")
    assert Settings().endpoint == "http://store:9000" and Settings().digest is None


def test_the_processes_of_a_node_share_its_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = Settings().threads
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert Settings().threads == max(1, alone // 2)
    monkeypatch.setenv("BOATYARD_THREADS", "3")
    assert Settings().threads == 3


def test_either_way_to_ask_a_bucket_without_a_key_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "false")
    assert not Settings().anonymous
    monkeypatch.setenv("awsAnonymousCredential", "True")
    assert Settings().anonymous


def test_settings_do_not_change_and_do_not_show_what_is_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOATYARD_KUBEFLOW_TOKEN", "hush")
    monkeypatch.setenv("BOATYARD_ADMIN_TOKEN", "hush")
    settings = Settings()
    assert "hush" not in repr(settings)
    with pytest.raises(ValueError, match="frozen"):
        settings.retries = 1  # type: ignore[misc]


def refused(*command: str, **environment: str) -> tuple[int, str]:
    """Run a module with some variables wrong; return its exit code and what it said, which is no traceback."""
    done = subprocess.run(
        [sys.executable, "-m", *command], env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


def test_the_command_says_which_variable_is_wrong(tmp_path: Path) -> None:
    assert refused("boatyard", "init", str(tmp_path / "digits"))[0] == 0
    code, text = refused("boatyard", "preprocess", str(tmp_path / "digits"), BOATYARD_THREADS="abc")
    assert code == 1 and "BOATYARD_THREADS: expected a whole number of 0 or more, found 'abc'" in text


def test_the_initializer_says_which_variable_is_wrong(tmp_path: Path) -> None:
    code, text = refused("boatyard.initializer", str(tmp_path), str(tmp_path / "models"), BOATYARD_CACHE="")
    assert (code, len(text.splitlines())) == (1, 1)
    assert text.startswith("boatyard: BOATYARD_CACHE: expected a value, found it empty")


def test_a_server_says_which_variable_is_wrong(tmp_path: Path) -> None:
    code, text = refused("boatyard.serving", "--package", str(tmp_path), BOATYARD_THREADS="1e400")
    assert (code, len(text.splitlines())) == (1, 1) and text.startswith("BOATYARD_THREADS: expected")


def test_a_training_pod_says_which_variable_is_wrong_and_is_not_started_again() -> None:
    job = TrainingJob({}, {}, {}, "/dataset", "/checkpoint", "/work").to_json()
    code, text = refused("boatyard.training.node", job, "process", RANK="abc")
    assert code == 78 and "ConfigError: RANK: expected a whole number of 0 or more, found 'abc'" in text


def test_a_step_leaves_the_wrong_variable_as_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BOATYARD_RETRIES", "-1")
    with pytest.raises(ConfigError, match="BOATYARD_RETRIES"):
        stages.gate({}, {}, *[str(tmp_path / name) for name in ("a", "b", "c", "d", "e")])
    line = capsys.readouterr().err.splitlines()[-1]
    reason = json.loads(line.removeprefix("boatyard-reason: "))
    assert (reason["error"].partition(":")[0], reason["found"]) == ("ConfigError", "'-1'")
    assert "BOATYARD_RETRIES" in reason["sentence"]


def test_a_pods_initializer_does_not_pay_for_settings_before_it_reads_them() -> None:
    check = (
        "import sys, boatyard.initializer; print(sorted({'pydantic', 'pydantic_settings', 'torch'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
