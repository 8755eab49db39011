"""Causes that keep a pod from being made: admission says no, and a ReplicaSet or Job tries for ever."""

from __future__ import annotations

import re
from collections.abc import Iterator

from boatyard.diagnosis.causes import Diagnosis, Evidence, one_line
from boatyard.diagnosis.snapshot import Snapshot, condition

QUOTA = re.compile(
    r"exceeded quota: (?P<name>[^,]+), requested: (?P<asked>.+), used: (?P<used>.+), limited: (?P<most>.+)"
)
LIMIT = re.compile(r"(?P<end>maximum|minimum) (?P<what>\S+) usage per (?P<kind>\w+) is (?P<bound>[^,\s]+)")
DENIED = re.compile(r'admission webhook "(?P<name>[^"]+)" denied the request: (?P<said>.+)', re.S)
CALLING = re.compile(r'failed calling webhook "(?P<name>[^"]+)": (?P<said>.+)', re.S)
ACCOUNT = re.compile(r'error looking up service account \S+?/(?P<name>[^\s:"]+)')
SECURITY = re.compile(r'violates PodSecurity "(?P<level>[^":]+)[^"]*": (?P<said>.+)', re.S)


def quota(s: Snapshot) -> Iterator[Diagnosis]:
    """A ResourceQuota is used up."""
    for where, text in _refusals(s):
        found = QUOTA.search(text)
        if found:
            yield Diagnosis(
                "quota",
                f"the quota {found['name']} of namespace {s.subject.namespace} lets no pods of {s.subject} in: "
                f"asked for {found['asked']}, used {found['used']}, limit {found['most']}",
                (Evidence(where, one_line(text)), *_of_quota(s, found["name"])),
                f"ask for less, free some (kubectl get pods -n {s.subject.namespace}), or have spec.hard of "
                f"resourcequota/{found['name']} raised",
            )
        elif "failed quota:" in text:
            yield Diagnosis(
                "quota",
                f"the quota of namespace {s.subject.namespace} requires what the pods of {s.subject} do not set: "
                f"{one_line(text.partition('failed quota:')[2])}",
                (Evidence(where, one_line(text)),),
                "give the container resources.requests and resources.limits for what is named",
            )


def limit_range(s: Snapshot) -> Iterator[Diagnosis]:
    """A LimitRange forbids the size."""
    for where, text in _refusals(s):
        if found := LIMIT.search(text):
            names = ", ".join(f"limitrange/{each['metadata']['name']}" for each in s.of("LimitRange")) or "a LimitRange"
            word = "more" if found["end"] == "maximum" else "less"
            yield Diagnosis(
                "limit-range",
                f"{names} of namespace {s.subject.namespace} allows a {found['kind'].lower()} "
                f"no {word} {found['what']} than {found['bound']}: {one_line(text[found.start() :])}",
                (Evidence(where, one_line(text)),),
                f"set resources of {s.subject} within it ({found['what']} {found['bound']}), or have {names} changed",
            )


def pod_security(s: Snapshot) -> Iterator[Diagnosis]:
    """Pod Security admission refuses the pod."""
    for where, text in _refusals(s):
        if found := SECURITY.search(text):
            yield Diagnosis(
                "pod-security",
                f"namespace {s.subject.namespace} enforces Pod Security {found['level']}, and the pods of {s.subject} "
                f"do not keep to it: {one_line(found['said'])}",
                (Evidence(where, one_line(text)),),
                "set in the container's securityContext: runAsNonRoot: true, allowPrivilegeEscalation: false, "
                "capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}",
            )


def service_account(s: Snapshot) -> Iterator[Diagnosis]:
    """The pod's service account is not there."""
    for where, text in _refusals(s):
        if found := ACCOUNT.search(text):
            space = s.subject.namespace
            yield Diagnosis(
                "service-account",
                f"the service account {found['name']} that the pods of {s.subject} run as is not in namespace {space}",
                (Evidence(where, one_line(text)),),
                f"kubectl create serviceaccount {found['name']} -n {space}, or correct serviceAccountName",
            )


def webhook(s: Snapshot) -> Iterator[Diagnosis]:
    """A webhook says no, or does not answer."""
    for where, text in _refusals(s):
        if found := DENIED.search(text):
            yield Diagnosis(
                "webhook",
                f"the webhook {found['name']} denied the pods of {s.subject}: {one_line(found['said'])}",
                (Evidence(where, one_line(text)),),
                f"change in {s.subject} what the webhook names: {one_line(found['said'], 160)}",
            )
        elif found := CALLING.search(text):
            yield Diagnosis(
                "webhook",
                f"the webhook {found['name']}, which has to admit the pods of {s.subject}, does not answer: "
                f"{one_line(found['said'])}",
                (Evidence(where, one_line(text)),),
                f"look at the controller behind it: kubectl get validatingwebhookconfigurations,"
                f"mutatingwebhookconfigurations -o wide | grep {found['name'].split('.')[-1]}",
            )


def refused(s: Snapshot) -> Iterator[Diagnosis]:
    """Whatever else keeps a pod from being made."""
    for where, text in _refusals(s):
        yield Diagnosis(
            "refused",
            f"the API server takes no pods of {s.subject}: {one_line(text)}",
            (Evidence(where, one_line(text)),),
            f"change in {s.subject} the field that the message names",
        )


def _of_quota(s: Snapshot, name: str) -> Iterator[Evidence]:
    found = s.get("ResourceQuota", name)
    for key, most in (found or {}).get("status", {}).get("hard", {}).items():
        used = (found or {})["status"].get("used", {}).get(key, "0")
        yield Evidence(f"resourcequota/{name} status", f"{key}: {used} of {most} used")


def _refusals(s: Snapshot) -> Iterator[tuple[str, str]]:
    """Yield where and what the API server said to whoever wanted to make the pods, once for a message."""
    said = set()
    for kind in ("ReplicaSet", "Job", "JobSet"):
        for each in s.of(kind):
            for where, text in _said_to(s, kind, each):
                if text not in said:
                    said.add(text)
                    yield where, text


def _said_to(s: Snapshot, kind: str, each: dict[str, object]) -> Iterator[tuple[str, str]]:
    name = each["metadata"]["name"]  # type: ignore[index]
    if kind == "ReplicaSet":
        if condition(each, "ReplicaFailure") == "True":
            yield f"replicaset/{name} status.conditions[ReplicaFailure]", condition(each, "ReplicaFailure", "message")
    elif not s.pods and condition(s.asked or {}, "Complete") != "True":
        events = s.events(kind, str(name), "FailedCreate", "JobCreationFailed")
        for event in events[-1:]:
            text = event.get("message", "").removeprefix("Error creating: ")
            yield f"event {event.get('reason')} of {kind.lower()}/{name}", text
