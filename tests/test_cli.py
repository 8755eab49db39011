"""The command: one door, one message, exit codes that mean something."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from boatyard.cli.main import cli

DIALS = ("--set", "train.epochs=4", "--set", "gate.minimum.accuracy=0.7")
EXAMPLES = Path(__file__).parents[1] / "examples"


def boatyard(*arguments: object, code: int = 0, **environment: str) -> str:
    """Run the command in a process of its own; return its output, and its errors where it failed."""
    done = subprocess.run(
        [sys.executable, "-m", "boatyard", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == code, f"exit {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample project, run whole once."""
    folder = tmp_path_factory.mktemp("project") / "digits"
    boatyard("init", folder)
    out = boatyard("run", folder, *DIALS)
    assert "accuracy" in out and "report.html" in out and "next      boatyard serve" in out
    return folder


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_verb_has_help_with_an_example(name: str) -> None:
    if name != "registry":
        assert "Example:" in boatyard(name, "--help")


def test_wrong_usage_exits_with_2() -> None:
    assert "No such command" in boatyard("trian", code=2)
    assert "No such option" in boatyard("run", "--epochs", "3", code=2)
    assert "99999 is not in the range" in boatyard("serve", ".", "--port", "99999", code=2)


def test_a_wrong_project_is_one_message_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "boatyard.yaml").write_text("name: a\ndata: {source: csv, path: b}\ntrain: {epoch: 3}\n")
    for verb in ("check", "run", "compile", "preprocess"):
        said = boatyard(verb, tmp_path, code=1)
        assert "train.epoch: no such key; did you mean epochs?" in said
        assert "Traceback" not in said
    assert not (tmp_path / "runs").exists()


def test_a_registry_that_cannot_be_is_said_before_any_work(tmp_path: Path) -> None:
    boatyard("init", tmp_path / "p")
    for uri, said in (("oci://models", "oci:// is not supported here"), ("", "expected a folder or a URI")):
        for verb in ("check", "run"):
            assert said in boatyard(verb, tmp_path / "p", "--set", f"push.registry='{uri}'", code=1)
    assert not (tmp_path / "p" / "runs").exists()


def test_a_run_that_cannot_be_compiled_leaves_no_run(tmp_path: Path) -> None:
    boatyard("init", tmp_path / "p")
    ascii = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # KFP writes in the machine's encoding
    assert "digits cannot be compiled: 'ascii' codec" in boatyard("run", tmp_path / "p", code=1, **ascii)
    assert "no runs yet" in boatyard("runs", tmp_path / "p")
    assert not list((tmp_path / "p" / "runs").glob("[0-9]*"))


def test_missing_data_is_said_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "boatyard.yaml").write_text("name: a\ndata: {source: csv, path: nowhere.csv}\n")
    assert "nowhere.csv" in boatyard("run", tmp_path, code=1)
    assert not (tmp_path / "runs").exists()


def test_own_code_that_does_not_import_is_one_message_with_its_line(tmp_path: Path) -> None:
    boatyard("init", tmp_path / "p")
    (tmp_path / "p" / "model.py").write_text("import os\nraise ValueError('boom')\n")
    said = boatyard("check", tmp_path / "p", "--set", "train.recipe=model:Net", code=1)
    assert "model.py does not import: ValueError: boom, line 2" in said and "Traceback" not in said


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    for verb in ("runs", "report", "run"):
        assert "nowhere" in boatyard(verb, tmp_path / "nowhere", code=1)


def test_init_takes_ones_own_data(tmp_path: Path) -> None:
    shutil.copyfile(EXAMPLES / "tabular" / "breast_cancer.csv", tmp_path / "rows.csv")
    boatyard("init", tmp_path / "p", "--data", tmp_path / "rows.csv")
    said = boatyard("check", tmp_path / "p", code=1)
    assert "data.target 'label' is not in" in said and "mean_radius" in said, "the columns there are named"
    assert "nothing wrong" in boatyard("check", tmp_path / "p", "--set", "data.target=diagnosis")
    assert "is there already" in boatyard("init", tmp_path / "p", code=1)


def test_a_run_can_be_listed_shown_verified_rendered_and_pulled(ran: Path) -> None:
    (run,) = json.loads(boatyard("runs", ran, "--json"))
    assert run["state"] == "succeeded"
    assert [step["name"] for step in run["steps"]][:4] == ["preprocess", "train", "evaluate", "gate"]
    assert "accuracy" in boatyard("report", ran)
    assert 0.7 < json.loads(boatyard("report", ran, "--json"))["accuracy"] <= 1
    assert "every file is as packaged" in boatyard("verify", ran)
    assert "digits" in boatyard("show", ran)
    assert len(json.loads(boatyard("show", ran, "--golden", "0"))["instances"]) == 1
    assert "kind: InferenceService" in boatyard("render", ran, "--storage", "s3://models/digits/1")
    assert "production → 1" in boatyard("registry", "ls", ran)
    assert boatyard("registry", "pull", "digits", "--project", ran).strip().endswith("versions/1")
    assert "digits" in boatyard("registry", "log", ran)


def test_a_second_run_does_nothing_again_and_pushes_the_same_version(ran: Path) -> None:
    boatyard("run", ran, *DIALS)
    states = {step["name"]: step["state"] for step in json.loads(boatyard("runs", ran, "--json"))[0]["steps"]}
    assert {name: states[name] for name in ("preprocess", "train", "evaluate")} == dict.fromkeys(
        ("preprocess", "train", "evaluate"), "cached"
    )
    assert states["gate"] == states["push"] == "succeeded"
    assert "versions 1;" in boatyard("registry", "ls", ran)


def test_a_dial_of_evaluate_runs_evaluate_and_not_train(ran: Path) -> None:
    boatyard("run", ran, "--set", "evaluate.worst=3", *DIALS)
    states = {step["name"]: step["state"] for step in json.loads(boatyard("runs", ran, "--json"))[0]["steps"]}
    assert (states["preprocess"], states["train"], states["evaluate"]) == ("cached", "cached", "succeeded")


def test_a_refusal_exits_with_3_names_rule_number_and_margin_and_pushes_nothing(ran: Path) -> None:
    before = boatyard("registry", "ls", ran)
    said = boatyard("run", ran, "--set", "train.epochs=1", "--set", "gate.minimum.accuracy=0.999", code=3)
    assert "accuracy" in said and "0.999" in said
    run = json.loads(boatyard("runs", ran, "--json"))[0]
    assert run["state"] == "refused"
    verdict = Path(next(s for s in run["steps"] if s["name"] == "gate")["outputs"]["verdict"])
    assert json.loads(verdict.read_text())["passed"] is False
    assert "push" not in {step["name"] for step in run["steps"]}
    assert boatyard("registry", "ls", ran) == before


def test_a_reader_that_leaves_early_is_no_failure_and_hides_no_refusal(ran: Path) -> None:
    def code(*arguments: object, stderr: int = subprocess.DEVNULL) -> int:
        read, write = os.pipe()
        os.close(read)
        command = [sys.executable, "-m", "boatyard", *map(str, arguments)]
        done = subprocess.run(command, stdout=write, stderr=stderr or write)
        os.close(write)
        return done.returncode

    refused = ("run", ran, "--set", "train.epochs=1", "--set", "gate.minimum.accuracy=0.999")
    assert code("runs", ran) == 0
    assert code(*refused) == code(*refused, stderr=0) == 3, "the run goes on to its end"
    assert {run["state"] for run in json.loads(boatyard("runs", ran, "--json"))[:2]} == {"refused"}


def test_damaged_numbers_of_one_run_do_not_hide_the_others(ran: Path, tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    shutil.copytree(ran / "runs", folder / "runs")
    (latest, *_) = sorted((folder / "runs").glob("[0-9]*"))
    for text in ("{", "[]", '{"accuracy": "x"}', "\xff"):
        record = json.loads((latest / "run.json").read_text())
        numbers = tmp_path / "numbers"
        numbers.write_text(text, encoding="latin-1")
        next(step for step in record["steps"] if step["name"] == "evaluate")["outputs"]["numbers"] = str(numbers)
        (latest / "run.json").write_text(json.dumps(record))
        assert latest.name in boatyard("runs", folder)


def test_a_changed_byte_is_named_and_nothing_serves_it(ran: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(boatyard("show", ran, "--path").strip(), package)
    with open(package / "model.onnx", "r+b") as file:
        file.seek(100)
        byte = file.read(1)
        file.seek(100)
        file.write(bytes([byte[0] ^ 1]))
    assert "1 differences" in boatyard("verify", package, code=1)
    assert "model.onnx" in boatyard("serve", package, code=1)


def test_the_single_verbs_do_what_the_run_does(ran: Path) -> None:
    for verb in ("preprocess", "train", "evaluate", "gate", "push"):
        boatyard(verb, ran, *DIALS)
    assert "versions 1" in boatyard("registry", "ls", ran)


def test_help_imports_nothing_heavy() -> None:
    heavy = ("rich", "pydantic", "yaml", "numpy", "torch", "kfp")
    code = f"import sys, boatyard.__main__; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
