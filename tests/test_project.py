"""The project file: what is wrong is said with the key's path, what is right comes back whole."""

from pathlib import Path
from typing import Any

import pytest

from boatyard import project
from boatyard.errors import ConfigError
from boatyard.project import templates

SMALL: dict[str, Any] = {"name": "digits", "data": {"source": "csv", "path": "rows.csv"}}


def changed(path: str, value: Any) -> dict[str, Any]:
    values: dict[str, Any] = {**SMALL, "data": dict(SMALL["data"])}
    *parents, last = path.split(".")
    here = values
    for parent in parents:
        here = here.setdefault(parent, {})
    here[last] = value
    return values


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("train.epoch", 3, "train.epoch: no such key; did you mean epochs?"),
        ("trian", {}, "trian: no such key; did you mean train?"),
        ("train.epochs", "3", "train.epochs: expected a number, found '3'"),
        ("train.epochs", True, "train.epochs: expected a number, found True"),
        ("train.epochs", 0, "train.epochs: input should be greater than or equal to 1, found 0"),
        ("train.epochs", 2.5, "train.epochs: input should be a valid integer"),
        ("train.learning_rate", float("nan"), "train.learning_rate: expected a finite number"),
        ("train.optimizer", "adamax", "train.optimizer: input should be 'sgd', 'adam', 'adamw' or 'adagrad'"),
        ("train.model", {"dense": [64, None]}, "train.model: dense.1 is null; remove it for its default"),
        ("train.model", {"dropout": None}, "train.model: dropout is null; remove it for its default"),
        ("train.momentum", 0.9, "momentum is for sgd, optimizer is adamw"),
        ("train.patience", 9, "patience 9 can never stop a run of 5 epochs"),
        ("resources.train.memory", "4GB", "resources.train.memory: expected a Kubernetes quantity such as"),
        ("resources.train.timeout", 30, "resources.train.timeout: expected a duration with its unit such as"),
        ("resources.train.gpus", 1, "resources.train.gpus: no such key; did you mean gpu?"),
        ("resources.train.secrets", {"A": "nokey"}, "secrets.A: expected secret/key, found 'nokey'"),
        ("preprocess.split", {"train": 0.5}, "add up to 0.7, expected 1"),
        ("preprocess.split", {"train": 1, "validation": 0, "test": 0}, "every split needs rows"),
        ("data.features", ["a", "label"], "a model must not see its target"),
        ("data.ranges", {"age": [9, 1]}, "ranges.age is [9.0, 1.0]; the least comes first"),
        ("data.sha256", {"rows.csv": "12"}, "sha256.rows.csv: expected 64 lower-case hex digits"),
        ("gate", {"minimum": {"f": 0.9}, "maximum": {"f": 0.1}}, "nothing can pass: f expected ≥ 0.9 and ≤ 0.1"),
        (
            "gate.minimum",
            {"acuracy": 0.9},
            "gate.minimum.acuracy: no such metric of a classification; did you mean accu",
        ),
        ("gate.maximum", {"rmse": 2}, "gate.maximum.rmse: no such metric of a classification; allowed are accuracy, "),
        ("gate.minimum", {"accuracy": 90}, "gate.minimum.accuracy: expected a share from 0 to 1, such as 0.9 for 90 %"),
        ("gate.not_worse", {"margn": 1}, "gate.not_worse.margn: no such key; did you mean margin?"),
        ("serve.autoscaling", {"minimum": 0}, "minimum is 0 and metric is cpu"),
        ("serve", {"autoscaling": {"minimum": 0, "metric": "concurrency"}}, "nobody counts the requests"),
        ("serve.autoscaling", {"minimum": 5}, "minimum 5 is more than maximum 3"),
        ("name", "Digits", "name: string should match pattern"),
        ("name", "train", "name train is a step's name"),
        ("data.source", "xls", "data.source: no source 'xls'; allowed are csv, idx, images, "),
    ],
)
def test_a_wrong_key_is_named_with_its_path_and_what_is_allowed(path: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        project.check(changed(path, value), "boatyard.yaml")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"task": "regression", "train": {"loss": "cross_entropy"}}, "train.loss is cross_entropy, which needs labels"),
        ({"task": "regression", "train": {"class_weights": "balanced"}}, "which needs labels; task is regression"),
        ({"task": "regression", "data": {**SMALL["data"], "labels": ["a"]}}, "data.labels names classes"),
        (
            {"task": "regression", "gate": {"minimum": {"accuracy": 0.9}}},
            "no such metric of a regression; allowed are rm",
        ),
        ({"data": {"source": "idx", "path": "x", "columns": {"a": "number"}}}, "columns needs a table, source is idx"),
        ({"data": {"source": "images", "path": "x", "group": "g"}}, "group needs a column or an array"),
    ],
)
def test_contradictory_dials_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        project.check({**SMALL, **values}, "boatyard.yaml")


def test_every_wrong_key_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        project.check({"name": "x", "data": {}, "train": {"epochs": -1}}, "f")
    assert str(error.value).count("\n") == 2


def test_overrides_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    (tmp_path / "boatyard.yaml").write_text("name: a\ndata: {source: csv, path: b}\ntrain: {epochs: 7, seed: 3}\n")
    loaded = project.load(tmp_path, ["train.epochs=3", "gate.minimum.accuracy=0.9", "train.learning_rate=1e-3"])
    assert (loaded.train.epochs, loaded.train.seed, loaded.train.batch_size) == (3, 3, 128)
    assert loaded.gate.minimum == {"accuracy": 0.9}
    assert loaded.train.learning_rate == 0.001


@pytest.mark.parametrize("override", ["train.epochs", "=3", "name.x=1", "train.model={a: [}"])
def test_an_override_that_is_none_is_refused(tmp_path: Path, override: str) -> None:
    (tmp_path / "boatyard.yaml").write_text("name: a\ndata: {source: csv, path: b}\n")
    with pytest.raises(ConfigError, match="--set"):
        project.load(tmp_path, [override])


@pytest.mark.parametrize("text", ["- a", "", "name: [", "name: a\nname: b\n", "a: &x [*x, *x", "\x00", "? {a: 1}\n: 2"])
def test_what_is_not_a_project_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "boatyard.yaml").write_text(text)
    with pytest.raises(ConfigError):
        project.load(tmp_path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "boatyard.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not text in UTF-8"):
        project.load(tmp_path)


def test_a_missing_project_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="boatyard init"):
        project.load(tmp_path)


def test_plain_values_hold_no_null_and_come_back_as_the_same_project() -> None:
    values = {**SMALL, "gate": {"not_worse": None}, "push": {"alias": None}, "train": {"model": {"hidden": [8, 8]}}}
    values["data"] = {**SMALL["data"], "ranges": {"age": [0, None]}}
    made = project.check(values, "f")
    assert "None" not in str(made.values())
    assert project.check(made.values(), "f") == made


def test_a_section_whose_dials_are_all_comments_is_at_its_defaults() -> None:
    made = project.check({**SMALL, "preprocess": None, "resources": {"train": None}}, "f")
    assert made == project.check(SMALL, "f")
    with pytest.raises(ConfigError, match="data: is needed"):
        project.check({"name": "a", "data": None}, "f")


def test_a_step_keeps_the_defaults_of_the_dials_that_it_does_not_give() -> None:
    made = project.check(changed("resources.train", {"gpu": {"count": 2}}), "f")
    assert (made.resources.train.memory_limit, made.resources.train.timeout) == ("4Gi", "12h")
    made = project.check(changed("resources.train", {"memory": "8Gi"}), "f")
    assert (made.resources.train.memory_limit, made.resources.train.most_memory) == (None, "8Gi")
    with pytest.raises(ConfigError, match=r"memory_limit: expected 8Gi \(memory\) or more, found 900Mi"):
        project.check(changed("resources.train", {"memory": "8Gi", "memory_limit": "900Mi"}), "f")


def test_the_seal_is_of_the_rules_alone() -> None:
    first, same = project.GateConfig(minimum={"accuracy": 0.9}), project.GateConfig(minimum={"accuracy": 0.9})
    assert first.seal == same.seal != project.GateConfig(minimum={"accuracy": 0.8}).seal


def test_a_new_project_file_says_every_dial_and_its_default() -> None:
    import re

    text = templates.render(templates.sample())
    plain = project.check(templates.sample(), "f")
    assert project.check(project.parse(text, "f"), "f") == plain
    uncommented = re.sub(r"^(\s*)# (?=\s*[a-z_]+:)", r"\1", text, flags=re.M)
    assert project.check(project.parse(uncommented, "f"), "f") == plain


@pytest.mark.parametrize("here", [".", "flowers", "flowers/raw", "elsewhere"])
def test_init_writes_a_path_that_leads_to_the_data(here: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = Path(here) / "rows.csv"
    rows.parent.mkdir(parents=True, exist_ok=True)
    rows.write_text("a,label\n1,x\n")
    file = templates.write(Path("flowers"), rows)
    path = Path(project.load(file).data.path)
    assert (file.parent / path).resolve() == rows.resolve()
    assert path.is_absolute() is not here.startswith("flowers")


def test_init_does_not_overwrite(tmp_path: Path) -> None:
    templates.write(tmp_path)
    with pytest.raises(ConfigError, match="is there already"):
        templates.write(tmp_path)


def test_the_checked_in_schema_is_the_one_of_the_types() -> None:
    import json

    file = Path(project.__file__).with_name("boatyard.schema.json")
    assert json.loads(file.read_text()) == project.schema(), "run: make schema"


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[1].glob("examples/*/boatyard.yaml")), ids=str)
def test_every_example_is_a_project(path: Path) -> None:
    named = {"cluster": "fashion-cnn"}  # that model, as one runs it on a cluster
    assert project.load(path).name == named.get(path.parent.name, path.parent.name)


BOMB = (
    "train: {model: {"
    + ", ".join(f"k{n}: &k{n} [{', '.join([f'*k{n - 1}'] * 9 if n else ['x'])}]" for n in range(9))
    + "}}"
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: {epochs: !!int x}", "is not YAML: invalid literal"),
        ("train: {epochs: !!float x}", "is not YAML: could not convert"),
        ("train: {epochs: !!bool x}", "is not YAML"),
        ("train: {epochs: !!timestamp x}", "is not YAML"),
        ("train: {epochs: 2020-99-99}", "is not YAML: month must be"),
        ("train: {model: {a: &a [*a]}}", "expected values nested at most 20 deep"),
        (f"train: {{model: {'{a: ' * 50}1{'}' * 50}}}", "expected values nested at most 20 deep"),
        (f"x: {'[' * 5000}{']' * 5000}", "is nested too deeply"),
        (BOMB, "expected at most 100000 values"),
        ('description: "a\\ud800"', "half of a surrogate pair"),
    ],
)
def test_what_yaml_can_hold_and_a_pipeline_cannot_is_one_message(tmp_path: Path, text: str, said: str) -> None:
    head = "name: a\ndata: {source: csv, path: b}\n"
    (tmp_path / "boatyard.yaml").write_text(head + text)
    with pytest.raises(ConfigError, match=said) as caught:
        project.load(tmp_path)
    assert len(str(caught.value)) < 1000
    (tmp_path / "boatyard.yaml").write_text(head)
    key, _, value = text.partition(": ")
    with pytest.raises(ConfigError, match=f"--set {key}=(.|\n)*{said}"):
        project.load(tmp_path, [f"{key}={value}"])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epochs=9007199254740993", "less than or equal to 9007199254740992"),
        ("train.seed=100000000000000000", "less than or equal to 9007199254740992"),
        ("preprocess.seed=100000000000000000", "less than or equal to 9007199254740992"),
        ("resources.train.timeout=9999999999h", "expected a duration"),
        ("push.alias=latest", "alias latest always is the version with the greatest number"),
    ],
)
def test_what_would_fail_after_training_is_refused_before_it(tmp_path: Path, override: str, said: str) -> None:
    (tmp_path / "boatyard.yaml").write_text("name: a\ndata: {source: csv, path: b}\n")
    with pytest.raises(ConfigError, match=said):
        project.load(tmp_path, [override])
