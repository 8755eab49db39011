"""Small pipelines for the tests of the local runner; their steps do no more than a test needs."""

from pathlib import Path

from kfp import compiler, dsl, kubernetes
from kfp.dsl import Artifact, Input, Metrics, Output

IMAGE = "boatyard/test:0"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def write(text: str, out: Output[Artifact], metrics: Output[Metrics]) -> int:
    """Write a text."""
    from pathlib import Path

    print(f"writing {text}")
    Path(out.path).write_text(text)
    metrics.log_metric("letters", len(text))
    return len(text)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def double(source: Input[Artifact], fail: str, out: Output[Artifact]) -> None:
    """Write a text twice; fail while a file of that name is there."""
    from pathlib import Path

    if fail and Path(fail).exists():
        raise ValueError(f"told to fail by {fail}")
    Path(out.path).write_text(Path(source.path).read_text() * 2)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def wait(seconds: float, mark: str) -> None:
    """Wait; leave a mark when told to stop."""
    import signal
    import time
    from pathlib import Path

    from boatyard import stages

    def stop(number: int, frame: object) -> None:
        time.sleep(0.3)
        Path(mark).write_text("saved")
        raise SystemExit(1)

    signal.signal(signal.SIGTERM, stop)
    stages.follow_parent()
    Path(f"{mark}.started").write_text("")
    time.sleep(seconds)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def refuse() -> None:
    """Refuse as a gate does."""
    from boatyard import stages
    from boatyard.errors import Refused

    with stages.step("refuse"):
        raise Refused("accuracy is 0.1, 0.9 was wanted")


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def empty() -> None:
    """Do nothing."""


def two(path: Path, text: str = "a", fail: str = "") -> None:
    """Compile write → double."""

    @dsl.pipeline(name="two")
    def pipeline() -> None:
        double(source=write(text=text).outputs["out"], fail=fail)

    compiler.Compiler().compile(pipeline, str(path))


def one(path: Path, step: str = "empty", platform: str = "", **arguments: object) -> None:
    """Compile a pipeline of one step, with one Kubernetes setting."""
    components = {"empty": empty, "wait": wait, "refuse": refuse}

    @dsl.pipeline(name="one")
    def pipeline() -> None:
        task = components[step](**arguments)
        if platform == "secret":
            kubernetes.use_secret_as_env(task, "store", {"token": "STORE_TOKEN"})
        if platform == "volume":
            kubernetes.mount_pvc(task, "claim", "/data")
        if platform == "gpu":
            task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(64)
        if platform == "timeout":
            kubernetes.set_timeout(task, 1)

    compiler.Compiler().compile(pipeline, str(path))
