"""`boatyard why` on the cluster: every cause made on purpose, all side by side, and each named right.

BOATYARD_RECORD=tests/snapshots writes what was read for each as the snapshots that tests/test_why.py goes by.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from causes import BUCKET, CAPACITY, CASES, KINDS, NODE, RUNTIMES, SEALED, SPACES, Case, Manifest
from click.testing import CliRunner, Result
from kube import ENDPOINT, KEYS, run_kubectl, s3_secret

from boatyard import diagnosis, storage
from boatyard.__main__ import cli
from boatyard.diagnosis import Answer, ObjectReference, Snapshot
from boatyard.errors import BoatyardError
from boatyard.kubernetes import cluster
from boatyard.kubernetes.cluster import Cluster

pytestmark = pytest.mark.cluster
WAIT = 120  # seconds until a cause has to show
RECORD = os.environ.get("BOATYARD_RECORD")
READER = "reader"


@pytest.fixture(scope="module")
def reader() -> Cluster:
    """The cluster, as `boatyard why` reads it."""
    return cluster.connect()


@pytest.fixture(scope="module")
def spaces(manifests: list[Manifest], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Namespaces in which all causes are at work."""
    names = {space: f"why-{space}-{secrets.token_hex(3)}" for space in SPACES}
    try:
        run_kubectl("create", "-f", "-", manifests=[_space(names[space], SPACES[space]) for space in names])
        _changed_package(tmp_path_factory.mktemp("package") / "package.json")
        run_kubectl("apply", "-f", "-", manifests=[*_given(manifests, names["plain"])])
        _apply(each for case in CASES.values() for each in _moved(case.objects, names[case.space]))
        _give_capacity()
        yield names
    finally:
        run_kubectl("delete", "clusterrolebinding", f"{names['plain']}-viewer", "--ignore-not-found")
        run_kubectl("delete", "node", NODE["metadata"]["name"], "--ignore-not-found")
        run_kubectl("delete", "namespace", *names.values(), "--wait=false", "--ignore-not-found")


def _give_capacity() -> None:
    """Say what the node without a kubelet has; a controller that takes it for a lost one may have removed it."""
    capacity = json.dumps({"status": {"capacity": CAPACITY, "allocatable": CAPACITY}})
    patch = ("patch", "node", NODE["metadata"]["name"], "--subresource=status", "--type=merge", "-p", capacity)
    for _ in range(5):
        run_kubectl("apply", "-f", "-", manifests=[NODE])
        if "patched" in (said := run_kubectl(*patch, check=False)):
            return
    raise AssertionError(said)


def _given(manifests: list[Manifest], namespace: str) -> Iterator[Manifest]:
    """Yield the runtimes, keys that are right and keys that are wrong."""
    yield from _moved(RUNTIMES, namespace)
    for each in json.loads(json.dumps(manifests)):
        if each["kind"] == "ServingRuntime":
            yield {**each, "metadata": {**each["metadata"], "namespace": namespace}}
    for name, key in (("right-keys", KEYS["AWS_SECRET_ACCESS_KEY"]), ("wrong-keys", "nonsense")):
        secret = s3_secret(namespace, name)
        yield {**secret, "stringData": {**secret["stringData"], "AWS_SECRET_ACCESS_KEY": key}}
        meta = {"name": name, "namespace": namespace}
        yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta, "secrets": [{"name": name}]}


def _changed_package(file: Path) -> None:
    """Put a package into the store under a digest that it does not have."""
    file.write_text('{"format": "boatyard/package", "files": {}}')
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {**KEYS, "AWS_ENDPOINT_URL": ENDPOINT, "AWS_REGION": "us-east-1"}.items():
            patch.setenv(key, value)
        storage.open(f"{BUCKET}/changed/{SEALED}").put("package.json", file)


def _apply(objects: Iterable[Manifest]) -> None:
    """Apply all at once: what each needs before it comes first."""
    first = ("ResourceQuota", "LimitRange", "Node", "PersistentVolumeClaim")
    run_kubectl("apply", "-f", "-", manifests=sorted(objects, key=lambda each: each["kind"] not in first))


def _moved(objects: Iterable[Manifest], namespace: str) -> Iterator[Manifest]:
    """Yield the objects as they are in a namespace."""
    for each in objects:
        meta = {} if each["kind"] == "Node" else {"namespace": namespace}
        yield {**each, "metadata": {**each["metadata"], **meta}}


def _space(name: str, labels: dict[str, str]) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _asked(reader: Cluster, subject: ObjectReference, enough: Callable[[Answer], bool]) -> tuple[Snapshot, Answer]:
    """Ask until the answer is enough, or the time is over."""
    end = time.monotonic() + WAIT
    while True:
        snapshot = diagnosis.gather(reader, subject)
        answer = diagnosis.diagnose(snapshot)
        if enough(answer) or time.monotonic() > end:
            return snapshot, answer
        time.sleep(1)


def _subject(case: Case, spaces: dict[str, str]) -> ObjectReference:
    kind, _, name = case.target.partition("/")
    return ObjectReference(KINDS[kind], name, spaces[case.space])


@pytest.mark.parametrize("name", CASES)
def test_the_cause_is_named(name: str, spaces: dict[str, str], reader: Cluster) -> None:
    case = CASES[name]
    subject = _subject(case, spaces)
    if case.absent and _known(case.absent):
        pytest.skip(f"this cluster knows {case.absent}")
    if case.then:
        _asked(reader, subject, lambda answer: answer.healthy)
        _apply(_moved(case.then, spaces[case.space]))
    snapshot, answer = _asked(reader, subject, lambda answer: case.fits(answer.values()["cause"], answer.sentence))
    if RECORD:
        _record(Path(RECORD) / f"{name}.json", snapshot, spaces)
    assert case.fits(answer.values()["cause"], answer.sentence), answer.values()
    assert answer.healthy or (answer.diagnoses[0].evidence and answer.diagnoses[0].fix)
    assert not answer.rights


def _known(kind: str) -> bool:
    return bool(run_kubectl("get", "crd", kind, "--ignore-not-found", "-o", "name").strip())


NOISE = {
    *("volumeMounts", "terminationMessagePath", "terminationMessagePolicy", "dnsPolicy", "schedulerName", "hostIPs"),
    *("podIPs", "hostIP", "containerID", "imageID", "reportingComponent", "reportingInstance", "template", "selector"),
    *("tolerations", "allocatedResources", "preemptionPolicy", "enableServiceLinks", "restartPolicy", "firstTimestamp"),
    *("user", "lastProbeTime", "observedGeneration", "labels", "securityContext", "resourceVersion"),
}


def _record(file: Path, snapshot: Snapshot, spaces: dict[str, str]) -> None:
    """Write a snapshot, an object a line, without the names that chance gave and what no diagnosis reads."""
    value = snapshot.to_dict()
    value["objects"] = [each if each["kind"] == "Node" else _quiet(each) for each in value["objects"]]
    assert diagnosis.diagnose(Snapshot.from_dict(value)) == diagnosis.diagnose(snapshot)
    objects = ",\n".join(json.dumps(each) for each in value.pop("objects"))
    text = json.dumps(value)[:-1] + f', "objects": [\n{objects}\n]}}\n'
    for space, name in spaces.items():
        text = text.replace(name, f"why-{space}")
    file.write_text(text)


def _quiet(value: Any) -> Any:
    if isinstance(value, list):
        return [_quiet(each) for each in value]
    return {k: _quiet(v) for k, v in value.items() if k not in NOISE} if isinstance(value, dict) else value


def test_the_command_says_it_and_ends_with_its_exit_code(spaces: dict[str, str], reader: Cluster) -> None:
    _asked(reader, _subject(CASES["cpu"], spaces), lambda answer: not answer.healthy)
    done = _why("isvc/cpu", "-n", spaces["plain"])
    assert done.exit_code == 1, done.output
    assert "it asks for 900 cpu" in done.output.splitlines()[1]
    assert "status.conditions[PodScheduled]" in done.output
    value = json.loads(_why("cpu", "-n", spaces["plain"], "--json").output)
    assert (value["subject"], value["cause"], value["healthy"]) == ("isvc/cpu", "unschedulable", False)


def test_what_is_well_ends_with_0(spaces: dict[str, str], reader: Cluster) -> None:
    _asked(reader, _subject(CASES["trained"], spaces), lambda answer: "complete" in answer.sentence)
    done = _why("trainjob/trained", "-n", spaces["plain"])
    assert done.exit_code == 0, done.output
    assert "1 TrainJob" in done.output


@pytest.mark.parametrize(
    ("target", "code", "words"),
    [
        ("isvc/nobody", 1, "there is no isvc/nobody in namespace"),
        ("nobody", 1, "nothing is named nobody in namespace"),
        ("ship/nobody", 2, "no kind ship is known here"),
        ("isvc/", 2, "expected KIND/NAME"),
    ],
)
def test_what_is_not_there_is_one_line(spaces: dict[str, str], target: str, code: int, words: str) -> None:
    done = _why(target, "-n", spaces["plain"])
    assert done.exit_code == code
    assert words in f"{done.output}{done.exception}"
    assert done.exception is None or isinstance(done.exception, SystemExit | BoatyardError)


def test_a_pod_of_a_pipeline_run_is_found_by_the_run(spaces: dict[str, str], reader: Cluster) -> None:
    _asked(reader, _subject(CASES["gpus"], spaces), lambda answer: not answer.healthy)
    run_kubectl("label", "pod", "gpus", "-n", spaces["plain"], "pipeline/runid=run-1", "--overwrite")
    done = _why("run/run-1", "-n", spaces["plain"])
    assert done.exit_code == 1, done.output
    assert "it asks for 64 nvidia.com/gpu" in done.output


def test_the_viewers_role_is_enough(spaces: dict[str, str], reader: Cluster) -> None:
    with_role = _account(spaces["plain"], "viewer", {"kind": "ClusterRole", "name": "boatyard-viewer"}, everywhere=True)
    for name in ("image", "credentials", "cpu", "claim", "runtime"):
        subject = _subject(CASES[name], spaces)
        _asked(reader, subject, lambda answer, name=name: answer.values()["cause"] == CASES[name].cause)
        answer = diagnosis.diagnose(diagnosis.gather(with_role, subject))
        assert not answer.rights
        assert answer.values()["cause"] == CASES[name].cause
    assert not with_role.allowed("get", "secrets", namespace=spaces["plain"])
    assert not with_role.allowed("delete", "pods", namespace=spaces["plain"])


def test_with_fewer_rights_it_says_which_is_missing_and_goes_on(spaces: dict[str, str], reader: Cluster) -> None:
    subject = _subject(CASES["crash"], spaces)
    _asked(reader, subject, lambda answer: "price" in answer.sentence)
    some = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
        {"apiGroups": ["serving.kserve.io"], "resources": ["inferenceservices"], "verbs": ["get"]},
    ]
    partly = _account(spaces["plain"], "partly", {"kind": "Role", "name": "partly"}, rules=some)
    answer = diagnosis.diagnose(diagnosis.gather(partly, subject))
    assert answer.values()["cause"] == "crash-loop"
    assert "its log is empty" in answer.sentence
    said = "\n".join(right.said for right in answer.rights)
    assert "may not get pods/log in namespace" in said or "may not get pods in namespace" in said
    assert "may not list events in namespace" in said
    assert "ClusterRole boatyard-viewer" in said


def test_without_any_right_it_says_so(spaces: dict[str, str]) -> None:
    nobody = _account(spaces["plain"], "nobody", None)
    answer = diagnosis.diagnose(diagnosis.gather(nobody, _subject(CASES["crash"], spaces)))
    assert answer.values()["cause"] == "no-rights"
    assert "inferenceservices.serving.kserve.io" in answer.sentence


def _why(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["why", *arguments])


def _account(
    namespace: str, name: str, role: dict[str, str] | None, *, rules: Any = None, everywhere: bool = False
) -> Cluster:
    """Return the cluster as a service account of that role sees it."""
    group, meta = "rbac.authorization.k8s.io", {"name": name, "namespace": namespace}
    made: list[Manifest] = [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}]
    if rules:
        made.append({"apiVersion": f"{group}/v1", "kind": "Role", "metadata": meta, "rules": rules})
    if role:
        subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
        kind = "ClusterRoleBinding" if everywhere else "RoleBinding"
        whole = {"name": f"{namespace}-{name}"} if everywhere else meta
        bound = {"roleRef": {"apiGroup": group, **role}, "subjects": [subject]}
        made.append({"apiVersion": f"{group}/v1", "kind": kind, "metadata": whole, **bound})
    run_kubectl("apply", "-f", "-", manifests=made)
    token = run_kubectl("create", "token", name, "-n", namespace).strip()
    return _with_token(token)


def _with_token(token: str) -> Cluster:
    from kubernetes import client, config

    settings = client.Configuration()
    config.load_kube_config(client_configuration=settings)
    settings.cert_file = settings.key_file = None
    settings.api_key = {"authorization": f"Bearer {token}"}
    settings.retries = False
    return Cluster(client.ApiClient(settings), settings.host, "default")
