"""The manifests and the Containerfile as they lie in the folder; an API server judges them in tests/cluster."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import boatyard

ROOT = Path(__file__).parent.parent
MANIFESTS = ROOT / "manifests"
CONTAINERFILE = (ROOT / "Containerfile").read_text()
READS = {"get", "list", "watch"}


def documents() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield every object of the manifests with its file; kustomize's own files are not objects."""
    for path in sorted(MANIFESTS.rglob("*.yaml")):
        for each in yaml.safe_load_all(path.read_text()):
            if "metadata" in each:
                yield path, each


OBJECTS = [each for _, each in documents()]


def of(kind: str) -> dict[str, dict[str, Any]]:
    """Return the base's objects of a kind by name."""
    return {
        each["metadata"]["name"]: each for path, each in documents() if each["kind"] == kind and "base" in str(path)
    }


def pods() -> dict[str, dict[str, Any]]:
    """Return every pod spec that the manifests make, the storage initializer's container as one."""
    job = of("ClusterTrainingRuntime")["boatyard"]["spec"]["template"]["spec"]["replicatedJobs"][0]
    storage = of("ClusterStorageContainer")["boatyard"]["spec"]["container"]
    return {
        "serving": of("ServingRuntime")["boatyard"]["spec"],
        "training": job["template"]["spec"]["template"]["spec"],
        "storage": {"containers": [storage]},
    }


def rules(role: dict[str, Any]) -> list[tuple[str, str, set[str], list[str]]]:
    """Return a role's rules as (group, resource, verbs, names)."""
    return [
        (group, resource, set(rule["verbs"]), rule.get("resourceNames", []))
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    ]


def test_every_file_is_listed_and_every_listed_file_is_there() -> None:
    for folder in {path.parent for path in MANIFESTS.rglob("kustomization.yaml")}:
        listed = yaml.safe_load((folder / "kustomization.yaml").read_text())
        files = [
            *listed["resources"],
            *listed.get("configurations", []),
            *(p["path"] for p in listed.get("patches", []) if "path" in p),
        ]
        assert {f for f in files if f.endswith(".yaml")} == {p.name for p in folder.glob("*.yaml")} - {
            "kustomization.yaml"
        }
        assert all((folder / each).exists() for each in files)


def test_no_secret_lies_in_the_manifests() -> None:
    text = "".join(path.read_text() for path in MANIFESTS.rglob("*.yaml"))
    assert not [each for each in OBJECTS if each["kind"] == "Secret"]
    assert not re.findall(r"(?i)(secret_?access_?key|password)[\"']?: *\S", text)


def test_the_namespace_enforces_restricted() -> None:
    labels = of("Namespace")["boatyard"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("name", ["serving", "training", "storage"])
def test_every_pod_is_restricted_and_writes_only_to_mounts(name: str) -> None:
    pod = pods()[name]
    for container in pod["containers"]:
        merged = pod.get("securityContext", {}) | container["securityContext"]
        assert merged["runAsNonRoot"] is True
        assert merged["allowPrivilegeEscalation"] is False
        assert merged["readOnlyRootFilesystem"] is True
        assert merged["capabilities"] == {"drop": ["ALL"]}
        assert merged["seccompProfile"] == {"type": "RuntimeDefault"}
        assert merged.get("runAsUser", 10001) == 10001
        mounted = {each["name"] for each in container.get("volumeMounts", [])}
        assert mounted <= {each["name"] for each in pod.get("volumes", [])}
    assert not any("hostPath" in volume for volume in pod.get("volumes", []))


@pytest.mark.parametrize("name", ["serving", "training"])
def test_tmp_is_writable(name: str) -> None:
    mounts = {each["mountPath"] for each in pods()[name]["containers"][0]["volumeMounts"]}
    assert "/tmp" in mounts


def test_images_have_the_version_of_the_code_and_no_pod_says_latest() -> None:
    listed = yaml.safe_load((MANIFESTS / "base" / "kustomization.yaml").read_text())
    assert {each["name"]: each["newTag"] for each in listed["images"]} == {
        "boatyard/serve": boatyard.__version__,
        "boatyard/train": boatyard.__version__,
    }
    assert listed["labels"][0]["pairs"]["app.kubernetes.io/version"] == boatyard.__version__
    used = {container["image"] for pod in pods().values() for container in pod["containers"]}
    assert used == {"boatyard/serve", "boatyard/train"}  # without a tag: kustomize puts it in
    assert "latest" not in json.dumps(OBJECTS)


def test_bindings_name_roles_and_accounts_that_are_there() -> None:
    for binding in of("RoleBinding").values():
        assert binding["roleRef"]["name"] in of(binding["roleRef"]["kind"])
        assert {each["name"] for each in binding["subjects"]} <= set(of("ServiceAccount"))


def test_steps_may_do_what_they_must_and_nothing_else() -> None:
    granted = [rule for role in of("Role").values() for rule in rules(role)]
    for group, resource, verbs, names in granted:
        assert "*" not in {group, resource, *verbs}
        assert not {"pods/exec", "pods/attach", "serviceaccounts/token", "roles", "rolebindings"} & {resource}
        assert resource != "secrets" or (verbs == {"get"} and names)  # one, by its name
        assert group or verbs <= READS  # nothing of Kubernetes' own is written
    written = {resource for _, resource, verbs, _ in granted if not verbs <= READS}
    assert written <= {"inferenceservices", "poddisruptionbudgets", "trainjobs", "workflowtaskresults", "leases"}


def test_the_viewer_only_reads_and_no_secrets() -> None:
    granted = rules(of("ClusterRole")["boatyard-viewer"])
    assert all(verbs <= READS for _, _, verbs, _ in granted)
    assert not {"secrets", "pods/exec", "*"} & {resource for _, resource, _, _ in granted}
    assert ("", "pods/log") in {(group, resource) for group, resource, _, _ in granted}


@pytest.mark.parametrize(
    ("uri", "ours"),
    [
        (f"s3://models/digits/sha256-{'a' * 64}", True),
        (f"s3://models/digits/sha256-{'a' * 63}", False),
        ("s3://models/sklearn/iris", False),
        ("s3://models/versions/3/model.joblib", False),
        ("gs://models/registry/digits/versions/3", False),
    ],
)
def test_the_storage_container_takes_packages_and_leaves_other_models_alone(uri: str, ours: bool) -> None:
    formats = of("ClusterStorageContainer")["boatyard"]["spec"]["supportedUriFormats"]
    assert any(re.search(each["regex"], uri) for each in formats) is ours


def test_training_stops_whole_and_has_shared_memory() -> None:
    spec = of("ClusterTrainingRuntime")["boatyard"]["spec"]["template"]["spec"]
    assert spec["failurePolicy"]["restartStrategy"] == "BlockingRecreate"
    job = spec["replicatedJobs"][0]["template"]["spec"]
    assert job["backoffLimit"] == 0 and job["template"]["spec"]["restartPolicy"] == "Never"
    assert job["podFailurePolicy"]["rules"][0]["onPodConditions"] == [{"type": "DisruptionTarget"}]
    volumes = {each["name"]: each.get("emptyDir", {}) for each in job["template"]["spec"]["volumes"]}
    mounts = {each["mountPath"]: each["name"] for each in job["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert volumes[mounts["/dev/shm"]]["medium"] == "Memory"
    assert "ttlSecondsAfterFinished" not in spec  # a deleted failed JobSet would come back for ever


def test_the_pod_monitor_is_what_prometheus_operator_takes_and_scrapes_the_servers_port() -> None:
    monitor = of("PodMonitor")["boatyard"]
    schema = json.loads((ROOT / "tests" / "schemas" / "podmonitor.json").read_text())
    jsonschema.validate(monitor, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(monitor | {"spec": monitor["spec"] | {"podMetricEndpoints": []}}, schema)
    ports = {each["name"]: each["containerPort"] for each in pods()["serving"]["containers"][0]["ports"]}
    assert ports[monitor["spec"]["podMetricsEndpoints"][0]["port"]] == 8080


def test_policies_let_in_what_the_server_listens_to() -> None:
    allowed = of("NetworkPolicy")["ask-predictors"]["spec"]["ingress"][0]["ports"]
    ports = [each["containerPort"] for each in pods()["serving"]["containers"][0]["ports"]]
    assert [each["port"] for each in allowed] == ports


def test_images_run_as_a_number_and_start_nothing_that_installs() -> None:
    assert re.findall(r"^USER (.*)$", CONTAINERFILE, re.MULTILINE) == ["10001:10001", "10001:10001"]
    for target in ("train", "serve"):
        stage = re.split(r"^FROM ", CONTAINERFILE.partition(f" AS {target}\n")[2], flags=re.MULTILINE)[0]
        assert "tini" in stage and "LABEL org.opencontainers.image" in stage
        assert "RUN" not in stage  # only copies: dependencies, then code
        assert stage.index("-dependencies") < stage.index("--from=code")
    assert "torch" not in (serve_requirements := _requirements("serve")) and "pyarrow" not in serve_requirements
    assert "kfp" in _requirements("train")


def _requirements(extra: str) -> set[str]:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"][extra]]
    return {re.split(r"[^A-Za-z0-9_-]", each)[0] for each in wanted}


def test_only_what_the_images_are_made_of_is_sent_to_the_builder() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", CONTAINERFILE, re.MULTILINE)
    assert {line[1:] for line in lines if line[0] == "!"} == {name for each in copied for name in each.split()}
