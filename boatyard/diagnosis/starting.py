"""Causes that keep a container on its node from starting: its image, what it refers to, its command, its package."""

from __future__ import annotations

import re
from collections.abc import Iterator

from boatyard.diagnosis.causes import Diagnosis, Evidence, one_line
from boatyard.diagnosis.snapshot import INITIALIZER, Container, Snapshot

PULL = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
START = ("RunContainerError", "CreateContainerError", "StartError", "ContainerCannotRun")
STARTED = ("StartError", "ContainerCannotRun")
PULLED = (  # what a registry's answer means, and what cures it
    (
        r"not found|manifest unknown|does not exist",
        "its registry has no such image or tag",
        "push the image, or correct its name",
    ),
    (
        r"unauthorized|denied|authentication|forbidden|no basic auth",
        "its registry requires credentials that the pod does not have",
        "give the pod's service account imagePullSecrets",
    ),
    (
        r"no such host|lookup|dial tcp|i/o timeout|connection refused|failed to do request|certificate",
        "its registry does not answer",
        "correct the registry's name, or let the node reach it; on kind: kind load docker-image IMAGE",
    ),
)
CREDENTIALS = re.compile(
    r"refused the key|SignatureDoesNotMatch|InvalidAccessKey|AccessDenied|access denied|Forbidden|\b40[13]\b|"
    r"NoCredentials|Unable to locate credentials|credential",
    re.I,
)
DIGEST = re.compile(r"sha256|digest|was changed|checksum", re.I)
MISSING = re.compile(r"no such|NoSuchKey|NoSuchBucket|not found|does not exist|\b404\b|No model", re.I)


def image_pull(s: Snapshot) -> Iterator[Diagnosis]:
    """The image cannot be pulled."""
    for container in s.containers():
        if container.waiting.get("reason") in PULL:
            yield _pull(s, container)


def _pull(s: Snapshot, container: Container) -> Diagnosis:
    reason, image = container.waiting["reason"], container.spec["image"]
    events = s.events("Pod", container.pod, "Failed", "InspectFailed")
    messages = [
        event["message"] for event in events if "pull image" in event["message"] or "image name" in event["message"]
    ]
    message = messages[-1] if messages else container.waiting.get("message", "")
    whole = f"{message} {container.waiting.get('message', '')}".replace(image, "")
    why, cure = next(((w, c) for p, w, c in PULLED if re.search(p, whole, re.I)), ("the kubelet does not say why", ""))
    if reason == "InvalidImageName":
        why, cure = "it is no valid name of an image", "correct the name: lower case, REGISTRY/NAME:TAG"
    if reason == "ErrImageNeverPull":
        why, cure = "it is not on the node, and imagePullPolicy is Never", "load it onto the node, or let it be pulled"
    evidence = [
        Evidence(container.where("state.waiting"), one_line(f"{reason}: {container.waiting.get('message', '')}"))
    ]
    evidence += [Evidence(f"event Failed of pod/{container.pod}", one_line(message))] if messages else []
    return Diagnosis(
        "image-pull",
        f"the image {image} of pod/{container.pod} cannot be pulled: {why}",
        tuple(evidence),
        f"{cure or 'look at the event'} (image of container {container.name})",
    )


def missing_reference(s: Snapshot) -> Iterator[Diagnosis]:
    """A Secret, a ConfigMap or a key of one is not there; or the image's user is not allowed."""
    for container in s.containers():
        if container.waiting.get("reason") == "CreateContainerConfigError":
            text = container.waiting.get("message", "")
            yield _reference(
                s, container.pod, container.name, text, Evidence(container.where("state.waiting"), one_line(text))
            )
    for pod in s.pods:
        name = pod["metadata"]["name"]
        events = s.events("Pod", name, "FailedMount", "FailedAttachVolume")
        if (
            events
            and pod.get("status", {}).get("phase") == "Pending"
            and not any(b.running or b.ended for b in s.containers() if b.pod == name)
        ):
            text = events[-1]["message"]
            yield _reference(s, name, "", text, Evidence(f"event {events[-1]['reason']} of pod/{name}", one_line(text)))


def _reference(s: Snapshot, pod: str, container: str, text: str, evidence: Evidence) -> Diagnosis:
    who = f"container {container} of pod/{pod}" if container else f"pod/{pod}"
    if "runAsNonRoot" in text or "non-root" in text:
        why = "its image runs as root, and the pod forbids that (runAsNonRoot)"
        cure = "use an image with a numeric user, or set securityContext.runAsUser"
    else:
        why = f"it refers to what is not there: {one_line(text, 200)}"
        match = re.search(r'(secret|configmap) "(?P<name>[^"]+)" not found', text, re.I)
        kind = "secret generic" if match and match[1].lower() == "secret" else "configmap"
        make = f"kubectl create {kind} {match['name']} -n {s.subject.namespace}" if match else "make it"
        cure = (
            f"{make} --from-literal=KEY=VALUE, or correct the name in the pod's spec"
            if match
            else f"{make}, or correct its name"
        )
    return Diagnosis("missing-reference", f"{who} cannot start: {why}", (evidence,), cure)


def start(s: Snapshot) -> Iterator[Diagnosis]:
    """The command cannot be started."""
    for container in s.containers():
        waiting = container.waiting if container.waiting.get("reason") in START else {}
        ended = container.ended if container.ended.get("reason") in STARTED and not container.ready else {}
        if not waiting and not ended:
            continue
        text = ended.get("message") or waiting.get("message", "")
        match = re.search(r'exec: "?(?P<what>[^":]+)"?: (?P<why>[^:]+)', text)
        why = f"{match['what']}: {match['why'].strip()}" if match else one_line(text, 240)
        where = container.ended_where if ended else container.where("state.waiting")
        yield Diagnosis(
            "start",
            f"container {container.name} of pod/{container.pod} cannot be started: {why}",
            (Evidence(where, one_line(text)),),
            f"correct command of container {container.name}: what it names has to be in the image "
            f"{container.spec['image']}",
        )


def storage_credentials(s: Snapshot) -> Iterator[Diagnosis]:
    """The storage initializer may not read the model."""
    for container, words in _initializers(s, "storage-credentials"):
        yield _storage(
            s,
            container,
            words,
            "storage-credentials",
            "the store does not let it in",
            f"correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the Secret of service account "
            f"{_account(s, container)} "
            f"(kubectl describe serviceaccount {_account(s, container)} -n {s.subject.namespace} names it)",
        )


def storage_digest(s: Snapshot) -> Iterator[Diagnosis]:
    """What the storage initializer fetched is not the package that was meant."""
    for container, words in _initializers(s, "storage-digest"):
        cure = "push the package again, or deploy the version that is meant; find out who changed the objects"
        yield _storage(s, container, words, "storage-digest", "the package is not the one that was deployed", cure)


def storage_missing(s: Snapshot) -> Iterator[Diagnosis]:
    """What the storage initializer is to fetch is not there."""
    for container, words in _initializers(s, "storage-missing"):
        cure = "correct the storage URI (spec.predictor.model.storageUri), or push the package there"
        yield _storage(s, container, words, "storage-missing", "the model is not there", cure)


def storage_failed(s: Snapshot) -> Iterator[Diagnosis]:
    """The storage initializer fails in another way."""
    for container, words in _initializers(s, "storage-failed"):
        cure = "correct what the line names: storage URI, AWS_ENDPOINT_URL, the network between pod and store"
        yield _storage(s, container, words, "storage-failed", "it did not get the model", cure)


def _initializers(s: Snapshot, cause: str) -> Iterator[tuple[Container, str]]:
    """Yield the storage initializers that failed for a cause, with what they said last."""
    for container in s.failing(init=True):
        if container.name == INITIALIZER and container.ended.get("reason") != "OOMKilled":
            words = (container.ended.get("message") or "\n".join(s.log(container)) or "it said nothing").strip()
            if _classified(words) == cause:
                yield container, words.splitlines()[-1]


def _classified(words: str) -> str:
    line = words.splitlines()[-1] if words.startswith("boatyard: ") else words
    line = re.sub(r"sha256-[0-9a-f]+|[0-9a-f]{64}/\S*", "", line)  # of the URI
    if CREDENTIALS.search(line):
        return "storage-credentials"
    if re.search(r"no such object|NoSuchKey|NoSuchBucket", line):
        return "storage-missing"
    if DIGEST.search(line):
        return "storage-digest"
    return "storage-missing" if MISSING.search(line) else "storage-failed"


def _storage(s: Snapshot, container: Container, words: str, cause: str, why: str, cure: str) -> Diagnosis:
    line = one_line(words.removeprefix("boatyard: "))
    place = (
        f"{container.ended_where}.message"
        if container.ended.get("message")
        else f"log of pod/{container.pod} {container.name}"
    )
    return Diagnosis(
        cause,
        f"the storage initializer of pod/{container.pod} fails, {why}: {line}",
        (
            Evidence(place, one_line(words)),
            Evidence(
                container.ended_where,
                f"exit code {container.ended.get('exitCode')}, restarts {container.status.get('restartCount', 0)}",
            ),
        ),
        cure,
    )


def _account(s: Snapshot, container: Container) -> str:
    pod = s.get("Pod", container.pod) or {"spec": {}}
    return str(pod["spec"].get("serviceAccountName", "default"))
