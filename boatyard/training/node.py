"""What a training pod runs: torchrun for this node's processes, and an exit code that says whether to start again.

    0   trained            75  told to stop; saved: start again, which is not counted as a failure
    1   failed: start again, so many times as the runtime allows
    78  failed, and would again: the configuration, the data or the recipe is wrong

The first process of all writes states and the checkpoint; every node reads the dataset. torchrun itself ends with 1
whatever its processes ended with.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path

from boatyard import storage, training
from boatyard.data import artifacts, checkpoints, datasets
from boatyard.errors import BoatyardError, Interrupted, PeerLost, StorageError, kind_of
from boatyard.project import GateConfig, PreprocessConfig, TrainConfig, section
from boatyard.running.step import step
from boatyard.settings import Settings
from boatyard.storage import transfer
from boatyard.training.trainjobs import TrainingJob

RETRY, STOPPED, IN_VAIN = 1, 75, 78  # sysexits.h: EX_TEMPFAIL, EX_CONFIG
SAVING = 90  # seconds that processes have to save once the pod is told to stop; less than its grace period
LEAD = 3.0  # seconds that who lost a peer waits, so that the pod that failed first is seen first
VERDICT = Path("/dev/termination-log")  # what Kubernetes shows of a pod that ended
SCRATCH = Path("/tmp/boatyard")

logger = logging.getLogger(__name__)


def main() -> None:
    """Run this node's part of the job named in the arguments, or one of its processes."""
    text, *role = sys.argv[1:]
    job = TrainingJob.from_json(text)
    if role == ["process"]:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
        raise SystemExit(process(job))
    code, reason = node(job, text)
    if reason:
        print(f"boatyard: {reason}", file=sys.stderr, flush=True)
        if VERDICT.exists():
            VERDICT.write_text(reason[:4000])
    raise SystemExit(code)


def node(job: TrainingJob, text: str) -> tuple[int, str]:
    """Bring the dataset, run this node's processes to their end, send the checkpoint; return exit code and reason."""
    try:
        if storage.in_bucket(job.dataset):
            transfer.fetch(storage.open(job.dataset), SCRATCH / "dataset", read=artifacts.reader(datasets.DATASET_KIND))
        code, reason = torchrun(text)
        if code == 0 and storage.in_bucket(job.out) and (SCRATCH / "checkpoint").exists():
            transfer.send(
                SCRATCH / "checkpoint", storage.open(job.out), read=artifacts.reader(checkpoints.CHECKPOINT_KIND)
            )
    except BoatyardError as error:
        return code_of(error), f"{kind_of(error)}: {error}"
    return code, reason


def torchrun(text: str) -> tuple[int, str]:
    """Run the processes; return an exit code and, unless it is 0, what the first that failed said."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    options = ["--shutdown-timeout", str(SAVING), "--monitor-interval", "0.5"]
    try:
        run.run(run.parse_args([*options, "--module", __spec__.name, text, "process"]))
    except ChildFailedError as error:
        rank, first = error.get_first_failure()
        codes = {failure.exitcode for failure in error.failures.values()}
        return next((c for c in (IN_VAIN, STOPPED) if c in codes), RETRY), f"rank {rank}: {first.message}"
    except SignalException as error:
        return STOPPED, f"told to stop by {error.sigval.name}; started again, the run goes on from its last state"
    return 0, ""


def process(job: TrainingJob) -> int:
    """Train as one of the processes; return the exit code."""
    try:
        settings = Settings()
        with step("train", watched=settings.rank == 0):
            training.train(
                section(TrainConfig, job.train),
                section(PreprocessConfig, job.preprocess),
                datasets.read(local(job.dataset, "dataset")),
                local(job.out, "checkpoint"),
                seal=section(GateConfig, job.gate).seal,
                root=settings.project,
                work=local(job.work, "work"),
            )
    except BoatyardError as error:
        say(error)
        return code_of(error)
    return 0


def local(uri: str, name: str) -> Path:
    """Return where a dataset or checkpoint is on this node."""
    return SCRATCH / name if storage.in_bucket(uri) else storage.parse(uri, Path("/"))


def say(error: BoatyardError) -> None:
    """Log an error, and leave it where torchrun takes a process's last words from."""
    text = f"{kind_of(error)}: {error}"
    logger.error("%s", text)
    if isinstance(error, PeerLost):
        time.sleep(LEAD)
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        artifacts.write_bytes(Path(file), json.dumps({"message": text, "timestamp": int(time.time())}).encode())


def code_of(error: BoatyardError) -> int:
    """Return the exit code that says whether starting again may help."""
    if isinstance(error, Interrupted):
        return STOPPED
    return RETRY if isinstance(error, PeerLost | StorageError) else IN_VAIN


if __name__ == "__main__":
    main()
