"""A Jupyter kernel, as a notebook has one: cells in, what they show and raise out."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.manager import KernelManager

CELL_S = 300.0


@dataclass
class Shown:
    """What a cell left: its value as text and as HTML, what it printed, and the error that ended it."""

    text: str = ""
    html: list[str] = field(default_factory=list)
    printed: str = ""
    error: str = ""


class Kernel:
    """One kernel, at work in a folder."""

    def __init__(self, manager: KernelManager, client: Any) -> None:
        self.manager, self.client = manager, client

    def run(self, code: str, interrupt_when: tuple[Path, str] | None = None) -> Shown:
        """Run a cell to its end; interrupt it, as the button does, once its folder has a file of its pattern."""
        shown = Shown()
        asked = self.client.execute(code)
        until, interrupted = time.monotonic() + CELL_S, False
        while time.monotonic() < until:
            if interrupt_when and not interrupted and list(interrupt_when[0].glob(interrupt_when[1])):
                time.sleep(0.5)
                self.manager.interrupt_kernel()
                interrupted = True
            try:
                message = self.client.get_iopub_msg(timeout=0.2)
            except queue.Empty:
                continue
            if message["parent_header"].get("msg_id") == asked and _took(shown, message):
                return shown
        raise AssertionError(f"the cell did not end within {CELL_S} s: {code}")


def _took(shown: Shown, message: Any) -> bool:
    """Note a message of a cell; return whether it was the last."""
    kind, content = message["msg_type"], message["content"]
    if kind == "stream":
        shown.printed += content["text"]
    elif kind in ("execute_result", "display_data", "update_display_data"):
        shown.text = content["data"].get("text/plain", "")
        shown.html += [content["data"]["text/html"]] if "text/html" in content["data"] else []
    elif kind == "error":
        shown.error = f"{content['ename']}: {content['evalue']}"
    return bool(kind == "status" and content["execution_state"] == "idle")


@contextmanager
def kernel(folder: Path) -> Iterator[Kernel]:
    """Start a kernel in a folder, and end it."""
    manager = KernelManager()
    manager.start_kernel(cwd=str(folder))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
