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
        match = QUOTA.search(text)
        if match:
            yield Diagnosis(
                "quota",
                f"the quota {match['name']} of namespace {s.subject.namespace} lets no pods of {s.subject} in: "
                f"asked for {match['asked']}, used {match['used']}, limit {match['most']}",
                (Evidence(where, one_line(text)), *_of_quota(s, match["name"])),
                f"ask for less, free some (kubectl get pods -n {s.subject.namespace}), or have spec.hard of "
                f"resourcequota/{match['name']} raised",
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
        if match := LIMIT.search(text):
            names = (
                ", ".join(f"limitrange/{limits['metadata']['name']}" for limits in s.of("LimitRange")) or "a LimitRange"
            )
            word = "more" if match["end"] == "maximum" else "less"
            yield Diagnosis(
                "limit-range",
                f"{names} of namespace {s.subject.namespace} allows a {match['kind'].lower()} "
                f"no {word} {match['what']} than {match['bound']}: {one_line(text[match.start() :])}",
                (Evidence(where, one_line(text)),),
                f"set resources of {s.subject} within it ({match['what']} {match['bound']}), or have {names} changed",
            )


def pod_security(s: Snapshot) -> Iterator[Diagnosis]:
    """Pod Security admission refuses the pod."""
    for where, text in _refusals(s):
        if match := SECURITY.search(text):
            yield Diagnosis(
                "pod-security",
                f"namespace {s.subject.namespace} enforces Pod Security {match['level']}, and the pods of {s.subject} "
                f"do not keep to it: {one_line(match['said'])}",
                (Evidence(where, one_line(text)),),
                "set in the container's securityContext: runAsNonRoot: true, allowPrivilegeEscalation: false, "
                "capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}",
            )


def service_account(s: Snapshot) -> Iterator[Diagnosis]:
    """The pod's service account is not there."""
    for where, text in _refusals(s):
        if match := ACCOUNT.search(text):
            space = s.subject.namespace
            yield Diagnosis(
                "service-account",
                f"the service account {match['name']} that the pods of {s.subject} run as is not in namespace {space}",
                (Evidence(where, one_line(text)),),
                f"kubectl create serviceaccount {match['name']} -n {space}, or correct serviceAccountName",
            )


def webhook(s: Snapshot) -> Iterator[Diagnosis]:
    """A webhook says no, or does not answer."""
    for where, text in _refusals(s):
        if match := DENIED.search(text):
            yield Diagnosis(
                "webhook",
                f"the webhook {match['name']} denied the pods of {s.subject}: {one_line(match['said'])}",
                (Evidence(where, one_line(text)),),
                f"change in {s.subject} what the webhook names: {one_line(match['said'], 160)}",
            )
        elif match := CALLING.search(text):
            yield Diagnosis(
                "webhook",
                f"the webhook {match['name']}, which has to admit the pods of {s.subject}, does not answer: "
                f"{one_line(match['said'])}",
                (Evidence(where, one_line(text)),),
                f"look at the controller behind it: kubectl get validatingwebhookconfigurations,"
                f"mutatingwebhookconfigurations -o wide | grep {match['name'].split('.')[-1]}",
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
    resource_quota = s.get("ResourceQuota", name)
    for key, most in (resource_quota or {}).get("status", {}).get("hard", {}).items():
        used = (resource_quota or {})["status"].get("used", {}).get(key, "0")
        yield Evidence(f"resourcequota/{name} status", f"{key}: {used} of {most} used")


def _refusals(s: Snapshot) -> Iterator[tuple[str, str]]:
    """Yield where and what the API server said to whoever wanted to make the pods, once for a message."""
    seen = set()
    for kind in ("ReplicaSet", "Job", "JobSet"):
        for controller in s.of(kind):
            for where, text in _said_to(s, kind, controller):
                if text not in seen:
                    seen.add(text)
                    yield where, text


def _said_to(s: Snapshot, kind: str, controller: dict[str, object]) -> Iterator[tuple[str, str]]:
    name = controller["metadata"]["name"]  # type: ignore[index]
    if kind == "ReplicaSet":
        if condition(controller, "ReplicaFailure") == "True":
            yield (
                f"replicaset/{name} status.conditions[ReplicaFailure]",
                condition(controller, "ReplicaFailure", "message"),
            )
    elif not s.pods and condition(s.asked or {}, "Complete") != "True":
        events = s.events(kind, str(name), "FailedCreate", "JobCreationFailed")
        for event in events[-1:]:
            text = event.get("message", "").removeprefix("Error creating: ")
            yield f"event {event.get('reason')} of {kind.lower()}/{name}", text
