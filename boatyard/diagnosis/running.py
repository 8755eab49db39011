"""Causes of a container that starts and does not stay or does not answer."""

from __future__ import annotations

import re
from collections.abc import Iterator

from boatyard.diagnosis.causes import Diagnosis, Evidence, one_line
from boatyard.diagnosis.snapshot import INITIALIZER, RECENT_S, Container, Object, Snapshot, condition, moment

SIGNALS = {134: "SIGABRT", 136: "SIGFPE", 137: "SIGKILL", 139: "SIGSEGV", 143: "SIGTERM"}
ERROR = re.compile(r"\s*([\w.]*(Error|Exception|Interrupt)\b|fatal|panic|error:)", re.I)
SHOWN_LOG_LINES = 5  # lines of a log that are shown
LOADING = re.compile(
    r"((fail|unable|could not|cannot|error)\w*[^.]{0,40}load\w*[^.]{0,40}(model|package))|ModelMissing", re.I
)
MEMORY = {
    "InferenceService": "serve.memory in boatyard.yaml and deploy again, or resources.limits.memory of the predictor",
    "TrainJob": "resources.train.memory in boatyard.yaml, or spec.trainer.resourcesPerNode.limits.memory",
    "Pod": "resources.limits.memory of the container",
    "Run": "resources.STEP.memory in boatyard.yaml, and submit again",
}


def oom_killed(s: Snapshot) -> Iterator[Diagnosis]:
    """The container used more memory than its limit."""
    for container in s.failing():
        if container.ended.get("reason") == "OOMKilled":
            limit = container.spec.get("resources", {}).get("limits", {}).get("memory", "")
            used = _measured(s, container)
            bound = f"its limit is {limit}" if limit else "it has no limit of its own, the node ran out"
            seen = f", and it used {used} when it was last measured" if used else ""
            evidence = [
                Evidence(container.ended_where, f"reason OOMKilled, exit code {container.ended.get('exitCode')}"),
                Evidence(
                    f"pod/{container.pod} spec.containers[{container.name}].resources.limits.memory", limit or "none"
                ),
            ]
            evidence += [Evidence(f"metrics.k8s.io pods/{container.pod}", used)] if used else []
            yield Diagnosis(
                "oom-killed",
                f"container {container.name} of pod/{container.pod} was killed because it ran out of memory: "
                f"{bound}{seen}",
                tuple(evidence),
                f"give it more memory: {MEMORY[s.subject.kind]}",
            )


def evicted(s: Snapshot) -> Iterator[Diagnosis]:
    """The node or the cluster took the pod away."""
    for pod in s.pods:
        name, status = pod["metadata"]["name"], pod.get("status", {})
        if status.get("reason") in (
            "Evicted",
            "Preempting",
            "Preempted",
            "NodeLost",
            "Shutdown",
            "Terminated",
            "NodeShutdown",
        ):
            yield Diagnosis(
                "evicted",
                f"pod/{name} was taken from its node ({status['reason']}): {one_line(status.get('message', ''))}",
                (Evidence(f"pod/{name} status", one_line(f"{status['reason']}: {status.get('message', '')}")),),
                "ask for what it really uses (resources.requests), ephemeral-storage too, or free the node",
            )


def model_refused(s: Snapshot) -> Iterator[Diagnosis]:
    """The model server does not take the package."""
    for container in s.failing(init=False):
        lines = s.log(container)
        if container.ended.get("reason") == "OOMKilled" or not lines or _killed_by_probe(s, container):
            continue
        ours = "boatyard.serving" in " ".join(
            map(str, (*container.spec.get("command", []), *container.spec.get("args", [])))
        )
        last_words = lines[-1] if ours and not any("Traceback" in line for line in lines) else ""
        last_words = last_words or next((line for line in reversed(lines) if LOADING.search(line)), "")
        if last_words and container.ended.get("exitCode") not in SIGNALS:
            yield Diagnosis(
                "model-refused",
                f"the model server of pod/{container.pod} refuses to load the model: {one_line(last_words)}",
                (Evidence(f"log of pod/{container.pod} {container.name}", one_line(last_words)), _ended(container)),
                "verify the package (boatyard verify URI), push it again, or deploy the version that is meant",
            )


def crash_loop(s: Snapshot) -> Iterator[Diagnosis]:
    """The program ends when it should not."""
    for container in s.failing():
        if container.ended.get("reason") in ("OOMKilled", "StartError", "ContainerCannotRun") or _killed_by_probe(
            s, container
        ):
            continue
        if container.init and container.name == INITIALIZER:
            continue
        yield _crashed(s, container, f"ends with {_code(container)}")
    for container in s.containers(init=False):
        if container.waiting.get("reason") == "CrashLoopBackOff" and container.ended.get("exitCode") == 0:
            yield _crashed(s, container, "ends with exit code 0 each time: a server must not end by itself")


def _crashed(s: Snapshot, container: Container, how: str) -> Diagnosis:
    lines = s.log(container)[-SHOWN_LOG_LINES:]
    restarts = container.status.get("restartCount", 0)
    last = one_line(_telling(lines), 200) if lines else "its log is empty"
    evidence = [
        _ended(container),
        *(Evidence(f"log of pod/{container.pod} {container.name}", one_line(line)) for line in lines),
    ]
    again = f", {restarts} restarts so far" if restarts else ""
    return Diagnosis(
        "crash-loop",
        f"container {container.name} of pod/{container.pod} {how}{again}: {last}",
        tuple(evidence),
        f"fix what the log says: kubectl logs {container.pod} -n {s.subject.namespace} -c {container.name}"
        + (" --previous" if restarts else ""),
    )


def probe(s: Snapshot) -> Iterator[Diagnosis]:
    """A probe fails: the pod is kept out of its Service, or its container is killed again and again."""
    for container in s.containers(init=False):
        if container.ready or not (container.running or container.ended):
            continue
        kill = _killed_by_probe(s, container)
        if kill:
            yield _probed(s, container, kill, "so the kubelet kills and restarts it")
        elif (
            container.running
            and not container.failed
            and container.status.get("started")
            and _patience(s, container) < 0
        ):
            yield _probed(s, container, "readiness", "so its Service sends it nothing")


def _telling(lines: tuple[str, ...]) -> str:
    """Return the line that says most: that of an error, where standard output and error are mixed; else the last."""
    return next((line for line in reversed(lines) if ERROR.match(line)), lines[-1])


def _probed(s: Snapshot, container: Container, kind: str, effect: str) -> Diagnosis:
    asked = container.spec.get(f"{kind}Probe", {})
    events = [each for each in s.events("Pod", container.pod, "Unhealthy") if each["message"].lower().startswith(kind)]
    message = events[-1]["message"].partition("probe failed: ")[2] if events else "no event says why"
    evidence = [Evidence(f"event Unhealthy of pod/{container.pod}", one_line(each["message"])) for each in events[-1:]]
    evidence.append(Evidence(f"pod/{container.pod} spec.containers[{container.name}].{kind}Probe", _target(asked)))
    evidence += [
        Evidence(f"log of pod/{container.pod} {container.name}", one_line(each)) for each in s.log(container)[-2:]
    ]
    return Diagnosis(
        "probe",
        f"the {kind} probe ({_target(asked)}) of container {container.name} of pod/{container.pod} fails, {effect}: "
        f"{one_line(message)}",
        tuple(evidence),
        f"let the program listen where the probe asks, or correct {kind}Probe (path, port, failureThreshold) of "
        f"container {container.name}",
    )


def restarting(s: Snapshot) -> Iterator[Diagnosis]:
    """A training was started again a short while ago: what failed is gone with its pods."""
    jobset = s.get("JobSet", s.subject.name) or {}
    count = jobset.get("status", {}).get("restarts", 0)
    failures = [event for event in s.events("JobSet", s.subject.name) if "first failed job" in event.get("message", "")]
    ago = s.age(moment(failures[-1])) if failures else float("inf")
    if not count or ago > RECENT_S or not s.pods:
        return
    job = failures[-1]["message"].partition("first failed job: ")[2].rstrip(")")
    why = [event for event in s.events("Job", job) if event.get("type") == "Warning"][-1:]
    message = one_line(why[-1]["message"]) if why else "its job failed"
    times = "once" if count == 1 else f"{count} times"
    evidence = [Evidence(f"jobset/{s.subject.name} status.restarts", str(count))]
    evidence += [Evidence(f"event {event.get('reason')} of job/{job}", one_line(event["message"])) for event in why]
    yield Diagnosis(
        "restarting",
        f"{s.subject} was started again {times}, {ago:.0f} s ago the last time; job {job} failed: {message}",
        tuple(evidence),
        f"follow it to the failure: kubectl logs -f -n {s.subject.namespace} -l jobset.sigs.k8s.io/jobset-name="
        f"{s.subject.name}; a pod that was preempted needs nothing, it goes on from its last state",
    )


def pod_failed(s: Snapshot) -> Iterator[Diagnosis]:
    """It failed, and no pod is left that would say why."""
    asked = s.asked or {}
    if condition(asked, "Failed") == "True":
        message = condition(asked, "Failed", "message")
        yield Diagnosis(
            "failed",
            f"{s.subject} failed, and its pods are gone: {one_line(message)}",
            (Evidence(f"{s.subject} status.conditions[Failed]", one_line(message)),),
            f"start it again and follow it: kubectl logs -f -l jobset.sigs.k8s.io/jobset-name={s.subject.name} "
            f"-n {s.subject.namespace}",
        )


def rollout(s: Snapshot) -> Iterator[Diagnosis]:
    """The new revision does not get ready, and nothing else says why."""
    for deployment in s.of("Deployment"):
        if condition(deployment, "Progressing", "reason") == "ProgressDeadlineExceeded":
            name = deployment["metadata"]["name"]
            message = condition(deployment, "Progressing", "message")
            yield Diagnosis(
                "rollout",
                f"the newest revision of {s.subject} does not get ready: {one_line(message)}",
                (Evidence(f"deployment/{name} status.conditions[Progressing]", one_line(message)),),
                f"boatyard rollback {s.subject.name}, or kubectl describe the newest pod",
            )


def not_ready(s: Snapshot) -> Iterator[Diagnosis]:
    """On its way, as far as can be seen: nothing is wrong yet."""
    waiting = [pod for pod in s.pods if condition(pod, "Ready") != "True" and not _over(pod)]
    for pod in waiting:
        name, age = pod["metadata"]["name"], s.age(pod["metadata"].get("creationTimestamp", ""))
        where, text = _stage(s, pod)
        yield Diagnosis(
            "starting",
            f"pod/{name} is still starting, {age:.0f} s after it was made: {text}",
            (Evidence(where, text),),
            "wait and ask again; the probes' failureThreshold says how long it has",
        )
    asked = s.asked or {}
    done = condition(asked, "Ready" if s.subject.kind == "InferenceService" else "Complete") == "True"
    if waiting or not asked or s.subject.kind == "Pod" or done or (s.subject.kind == "TrainJob" and s.pods):
        return
    message = condition(asked, "Ready", "message") or "its controller has not said why"
    yield Diagnosis(
        "starting",
        f"{s.subject} is not ready with {len(s.pods)} pods, {_age(s)} after it was made: {one_line(message)}",
        (Evidence(f"{s.subject} status.conditions", one_line(message)),),
        "wait and ask again; kubectl get events shows what its controller does",
    )


def _over(pod: Object) -> bool:
    return str(pod.get("status", {}).get("phase", "")) == "Succeeded"


def _age(s: Snapshot) -> str:
    return f"{s.age((s.asked or {}).get('metadata', {}).get('creationTimestamp', '')):.0f} s"


def _stage(s: Snapshot, pod: Object) -> tuple[str, str]:
    name = pod["metadata"]["name"]
    for container in s.containers():
        if container.pod == name and not container.ready:
            state = container.waiting.get("reason") or (
                f"running for {s.age(container.running):.0f} s, not ready" if container.running else ""
            )
            return container.where("state"), f"container {container.name} {state or 'has not begun'}"
    return f"pod/{name} status.phase", str(pod.get("status", {}).get("phase", "Pending"))


def _killed_by_probe(s: Snapshot, container: Container) -> str:
    """Return which probe had the container killed: liveness or startup; nothing when none had."""
    if not container.ended:
        return ""
    for event in s.events("Pod", container.pod, "Killing"):
        match = re.match(r"Container (\S+) failed (liveness|startup) probe", event.get("message", ""))
        if match and match[1] == container.name:
            return match[2]
    return ""


def _patience(s: Snapshot, container: Container) -> float:
    """Return the seconds that a container has left to become ready; none when it has no readiness probe."""
    asked = container.spec.get("readinessProbe", {})
    allowed = asked.get("initialDelaySeconds", 0) + asked.get("periodSeconds", 10) * asked.get("failureThreshold", 3)
    return float(allowed - s.age(container.running)) if asked else 1.0


def _target(asked: Object) -> str:
    if get := asked.get("httpGet"):
        return f"GET {get.get('path', '/')} on port {get.get('port')}"
    if "exec" in asked:
        return " ".join(asked["exec"].get("command", []))
    for kind, word in (("tcpSocket", "TCP"), ("grpc", "gRPC")):
        if kind in asked:
            return f"{word} on port {asked[kind].get('port')}"
    return "no probe of that sort"


def _code(container: Container) -> str:
    code = container.ended.get("exitCode")
    return f"exit code {code}" + (f" ({SIGNALS[code]})" if code in SIGNALS else "")


def _ended(container: Container) -> Evidence:
    return Evidence(
        container.ended_where,
        f"{container.ended.get('reason', 'Error')}, {_code(container)}, "
        f"restarts {container.status.get('restartCount', 0)}",
    )


def _measured(s: Snapshot, container: Container) -> str:
    """Return the memory that the container used when metrics-server last looked."""
    measured = (s.get("PodMetrics", container.pod) or {}).get("containers", [])
    return str(next((each["usage"]["memory"] for each in measured if each["name"] == container.name), ""))
