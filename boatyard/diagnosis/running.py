"""Causes of a container that starts and does not stay or does not answer."""

from __future__ import annotations

import re
from collections.abc import Iterator

from boatyard.diagnosis.causes import Diagnosis, Evidence, one_line
from boatyard.diagnosis.snapshot import INITIALIZER, RECENT, Box, Object, Snapshot, condition, moment

SIGNALS = {134: "SIGABRT", 136: "SIGFPE", 137: "SIGKILL", 139: "SIGSEGV", 143: "SIGTERM"}
ERROR = re.compile(r"\s*([\w.]*(Error|Exception|Interrupt)\b|fatal|panic|error:)", re.I)
LAST = 5  # lines of a log that are shown
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
    for box in s.failing():
        if box.ended.get("reason") == "OOMKilled":
            limit = box.spec.get("resources", {}).get("limits", {}).get("memory", "")
            used = _measured(s, box)
            bound = f"its limit is {limit}" if limit else "it has no limit of its own, the node ran out"
            seen = f", and it used {used} when it was last measured" if used else ""
            evidence = [
                Evidence(box.ended_where, f"reason OOMKilled, exit code {box.ended.get('exitCode')}"),
                Evidence(f"pod/{box.pod} spec.containers[{box.name}].resources.limits.memory", limit or "none"),
            ]
            evidence += [Evidence(f"metrics.k8s.io pods/{box.pod}", used)] if used else []
            yield Diagnosis(
                "oom-killed",
                f"container {box.name} of pod/{box.pod} was killed because it ran out of memory: {bound}{seen}",
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
    for box in s.failing(init=False):
        lines = s.log(box)
        if box.ended.get("reason") == "OOMKilled" or not lines or _killed_by_probe(s, box):
            continue
        ours = "boatyard.serving" in " ".join(map(str, (*box.spec.get("command", []), *box.spec.get("args", []))))
        last_words = lines[-1] if ours and not any("Traceback" in line for line in lines) else ""
        last_words = last_words or next((line for line in reversed(lines) if LOADING.search(line)), "")
        if last_words and box.ended.get("exitCode") not in SIGNALS:
            yield Diagnosis(
                "model-refused",
                f"the model server of pod/{box.pod} refuses to load the model: {one_line(last_words)}",
                (Evidence(f"log of pod/{box.pod} {box.name}", one_line(last_words)), _ended(box)),
                "verify the package (boatyard verify URI), push it again, or deploy the version that is meant",
            )


def crash_loop(s: Snapshot) -> Iterator[Diagnosis]:
    """The program ends when it should not."""
    for box in s.failing():
        if box.ended.get("reason") in ("OOMKilled", "StartError", "ContainerCannotRun") or _killed_by_probe(s, box):
            continue
        if box.init and box.name == INITIALIZER:
            continue
        yield _crashed(s, box, f"ends with {_code(box)}")
    for box in s.boxes(init=False):
        if box.waiting.get("reason") == "CrashLoopBackOff" and box.ended.get("exitCode") == 0:
            yield _crashed(s, box, "ends with exit code 0 each time: a server must not end by itself")


def _crashed(s: Snapshot, box: Box, how: str) -> Diagnosis:
    lines = s.log(box)[-LAST:]
    restarts = box.status.get("restartCount", 0)
    last = one_line(_telling(lines), 200) if lines else "its log is empty"
    evidence = [_ended(box), *(Evidence(f"log of pod/{box.pod} {box.name}", one_line(line)) for line in lines)]
    again = f", {restarts} restarts so far" if restarts else ""
    return Diagnosis(
        "crash-loop",
        f"container {box.name} of pod/{box.pod} {how}{again}: {last}",
        tuple(evidence),
        f"fix what the log says: kubectl logs {box.pod} -n {s.subject.namespace} -c {box.name}"
        + (" --previous" if restarts else ""),
    )


def probe(s: Snapshot) -> Iterator[Diagnosis]:
    """A probe fails: the pod is kept out of its Service, or its container is killed again and again."""
    for box in s.boxes(init=False):
        if box.ready or not (box.running or box.ended):
            continue
        kill = _killed_by_probe(s, box)
        if kill:
            yield _probed(s, box, kill, "so the kubelet kills and restarts it")
        elif box.running and not box.failed and box.status.get("started") and _patience(s, box) < 0:
            yield _probed(s, box, "readiness", "so its Service sends it nothing")


def _telling(lines: tuple[str, ...]) -> str:
    """Return the line that says most: that of an error, where standard output and error are mixed; else the last."""
    return next((line for line in reversed(lines) if ERROR.match(line)), lines[-1])


def _probed(s: Snapshot, box: Box, kind: str, effect: str) -> Diagnosis:
    asked = box.spec.get(f"{kind}Probe", {})
    events = [each for each in s.events("Pod", box.pod, "Unhealthy") if each["message"].lower().startswith(kind)]
    message = events[-1]["message"].partition("probe failed: ")[2] if events else "no event says why"
    evidence = [Evidence(f"event Unhealthy of pod/{box.pod}", one_line(each["message"])) for each in events[-1:]]
    evidence.append(Evidence(f"pod/{box.pod} spec.containers[{box.name}].{kind}Probe", _target(asked)))
    evidence += [Evidence(f"log of pod/{box.pod} {box.name}", one_line(each)) for each in s.log(box)[-2:]]
    return Diagnosis(
        "probe",
        f"the {kind} probe ({_target(asked)}) of container {box.name} of pod/{box.pod} fails, {effect}: "
        f"{one_line(message)}",
        tuple(evidence),
        f"let the program listen where the probe asks, or correct {kind}Probe (path, port, failureThreshold) of "
        f"container {box.name}",
    )


def restarting(s: Snapshot) -> Iterator[Diagnosis]:
    """A training was started again a short while ago: what failed is gone with its pods."""
    jobset = s.get("JobSet", s.subject.name) or {}
    count = jobset.get("status", {}).get("restarts", 0)
    failures = [event for event in s.events("JobSet", s.subject.name) if "first failed job" in event.get("message", "")]
    ago = s.age(moment(failures[-1])) if failures else float("inf")
    if not count or ago > RECENT or not s.pods:
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
    for box in s.boxes():
        if box.pod == name and not box.ready:
            state = box.waiting.get("reason") or (
                f"running for {s.age(box.running):.0f} s, not ready" if box.running else ""
            )
            return box.where("state"), f"container {box.name} {state or 'has not begun'}"
    return f"pod/{name} status.phase", str(pod.get("status", {}).get("phase", "Pending"))


def _killed_by_probe(s: Snapshot, box: Box) -> str:
    """Return which probe had the container killed: liveness or startup; nothing when none had."""
    if not box.ended:
        return ""
    for event in s.events("Pod", box.pod, "Killing"):
        match = re.match(r"Container (\S+) failed (liveness|startup) probe", event.get("message", ""))
        if match and match[1] == box.name:
            return match[2]
    return ""


def _patience(s: Snapshot, box: Box) -> float:
    """Return the seconds that a container has left to become ready; none when it has no readiness probe."""
    asked = box.spec.get("readinessProbe", {})
    allowed = asked.get("initialDelaySeconds", 0) + asked.get("periodSeconds", 10) * asked.get("failureThreshold", 3)
    return float(allowed - s.age(box.running)) if asked else 1.0


def _target(asked: Object) -> str:
    if get := asked.get("httpGet"):
        return f"GET {get.get('path', '/')} on port {get.get('port')}"
    if "exec" in asked:
        return " ".join(asked["exec"].get("command", []))
    for kind, word in (("tcpSocket", "TCP"), ("grpc", "gRPC")):
        if kind in asked:
            return f"{word} on port {asked[kind].get('port')}"
    return "no probe of that sort"


def _code(box: Box) -> str:
    code = box.ended.get("exitCode")
    return f"exit code {code}" + (f" ({SIGNALS[code]})" if code in SIGNALS else "")


def _ended(box: Box) -> Evidence:
    return Evidence(
        box.ended_where,
        f"{box.ended.get('reason', 'Error')}, {_code(box)}, restarts {box.status.get('restartCount', 0)}",
    )


def _measured(s: Snapshot, box: Box) -> str:
    """Return the memory that the container used when metrics-server last looked."""
    containers = (s.get("PodMetrics", box.pod) or {}).get("containers", [])
    return str(next((container["usage"]["memory"] for container in containers if container["name"] == box.name), ""))
