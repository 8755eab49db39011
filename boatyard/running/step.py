"""What every step of a pipeline does around its stage: says start and end, leaves its error, ends with its runner."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from boatyard import provenance
from boatyard.data import artifacts
from boatyard.errors import ArtifactError, BoatyardError, ConfigError, kind_of
from boatyard.project import ResourcesConfig
from boatyard.running import progress, reasons
from boatyard.settings import Settings

logger = logging.getLogger(__name__)
DELETED = "if it was deleted while Kubeflow's cache still knew it, make all anew: boatyard submit --no-cache"
PARENT = "BOATYARD_PARENT"  # a descriptor that closes when the runner dies


@contextlib.contextmanager
def step(name: str, path: str = "", *, watched: bool = True) -> Iterator[None]:
    """Log a step's start and end, and leave its error where the runner looks for it, and where a person does.

    `path` is one of its artifacts, which says what run it is of; one of several processes is `watched` by the runner.
    """
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    follow_parent()
    started = time.monotonic()
    logger.info("%s starts", name)
    with reasons.recording(name, path), progress.sent_to(_writer() if watched else None):
        try:
            with translated(name), _observing(watched):
                yield
        except BoatyardError as error:
            _advise(error)
            progress.emit({"error": kind_of(error), "message": str(error), **error.fields()})
            raise
    logger.info("%s done in %.1f s", name, time.monotonic() - started)


def _advise(error: BoatyardError) -> None:
    """Say of a damaged input how Kubeflow makes it again; the runner of this machine checks what it keeps itself."""
    if isinstance(error, ArtifactError) and not Settings().progress and DELETED not in error.fix:
        error.fix = "; ".join(filter(None, (error.fix, DELETED)))


def _observing(watched: bool) -> contextlib.AbstractContextManager[None]:
    """See what the step's own code reads, where the runner asks for it."""
    settings = Settings()
    return provenance.observing(settings.project, settings.observed if watched else None)


@contextlib.contextmanager
def translated(stage: str) -> Iterator[None]:
    """Say in our words what the system refuses a stage: a file, or memory."""
    try:
        yield
    except OSError as error:
        raise artifacts.storage_error(Path(error.filename or "."), error) from error
    except MemoryError as error:
        # started again, it would need as much: so the author is asked, and no pod restarts for it (exit code 78)
        raise _out_of_memory(stage) from error


def _out_of_memory(step: str) -> ConfigError:
    stage = step.partition("-")[0]  # the steps of one stage share their resources
    memory = f"give it more: resources.{stage}.memory" if stage in ResourcesConfig.model_fields else "give it more"
    fix = f"lower train.batch_size, or {memory}" if stage == "train" else memory
    return ConfigError(f"{step} needs more memory than there is", fix=fix)


def _writer() -> progress.Sink | None:
    """Return what writes to the file that the runner follows; without a runner, what is set already."""
    file = Settings().progress
    return progress.ProgressWriter(file) if file else progress.sink()


def follow_parent() -> None:
    """End as after SIGTERM when the runner that started this step is gone: nobody would take its result."""
    descriptor = os.environ.pop(PARENT, None)

    def wait() -> None:
        os.read(int(descriptor or 0), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    if descriptor:
        threading.Thread(target=wait, daemon=True).start()
