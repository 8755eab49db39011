"""A run in a process of its own: what its display is told crosses a pipe, and so does how it ended."""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from boatyard import errors
from boatyard.errors import BoatyardError
from boatyard.running.display import Display
from boatyard.running.progress import Event, ProgressWriter

CHUNK = 1 << 16


class Relay:
    """A display at the run's side: every call becomes an event."""

    def __init__(self, writer: ProgressWriter) -> None:
        self.writer = writer

    def start(self, step: str) -> None:
        self.writer({"call": "start", "step": step})

    def event(self, step: str, event: Mapping[str, Any]) -> None:
        self.writer({"call": "event", "step": step, "event": dict(event)})

    def end(self, step: str, state: str, seconds: float) -> None:
        self.writer({"call": "end", "step": step, "state": state, "seconds": seconds})

    def say(self, sentence: str) -> None:
        self.writer({"call": "say", "sentence": sentence})

    def close(self) -> None: ...


def replay(event: Event, display: Display) -> None:
    """Make the call of an event on the display at the watcher's side."""
    call = event.get("call")
    if call == "start":
        display.start(event["step"])
    elif call == "event":
        display.start(event["step"])  # a display knows a step that it was told of
        display.event(event["step"], event["event"])
    elif call == "end":
        display.end(event["step"], event["state"], event["seconds"])
    elif call == "say":
        display.say(event["sentence"])


def ended(error: BoatyardError | None) -> Event:
    """Return the last event of a run: how it ended."""
    return {"ended": errors.kind_of(error) if error else "", **(error.fields() if error else {})}


def error_of(event: Event) -> BoatyardError | None:
    """Return the error that a run's last event says, of its class where it is one of ours."""
    if not event["ended"]:
        return None
    kind = getattr(errors, event["ended"], BoatyardError)
    fields = {name: event[name] for name in ("about", "expected", "found", "fix")}
    error: BoatyardError = kind(**fields)
    return error


class Pipe:
    """Events from the reading end of a pipe. An interruption (Ctrl-C) of a read loses none: go on reading."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._lines: deque[bytes] = deque()
        self._rest = b""

    def read(self) -> Iterator[dict[str, Any]]:
        """Give events until the writer is gone."""
        while self._lines or self._more():
            with contextlib.suppress(ValueError):  # cut by a writer that was killed
                yield json.loads(self._lines.popleft())

    def _more(self) -> bool:
        """Wait for whole lines; return whether there will be any."""
        while chunk := os.read(self.descriptor, CHUNK):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            self._lines.extend(lines)
            if lines:
                return True
        return False
