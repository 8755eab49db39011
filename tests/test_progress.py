"""Progress: a counter, where its events go, and who reads them."""

import io
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from boatyard.running import display, progress
from boatyard.running.progress import Progress, ProgressFollower, ProgressWriter


def test_events_go_where_the_caller_says_and_nowhere_else() -> None:
    outer: list[Any] = []
    inner: list[Any] = []
    progress.emit({"stage": "nobody"})
    with progress.sent_to(outer.append):
        progress.emit({"stage": "a"})
        with progress.sent_to(inner.append):
            progress.emit({"stage": "b"})
        with progress.sent_to(None):
            progress.emit({"stage": "c"})
    assert (outer, inner) == ([{"stage": "a"}], [{"stage": "b"}])


def test_two_threads_have_sinks_of_their_own_and_a_counter_keeps_the_one_it_began_with() -> None:
    events: dict[str, list[Any]] = {"a": [], "b": []}

    def work(name: str) -> None:
        with progress.sent_to(events[name].append):
            counter = Progress(name, 1, "row")
        counter.update(1)

    threads = [threading.Thread(target=work, args=(name,)) for name in events]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [[event["stage"] for event in seen] for seen in events.values()] == [["a"], ["b"]]


def test_a_follower_gives_each_event_once_and_a_half_line_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "events"
    follower, writer = ProgressFollower(path), ProgressWriter(path)
    assert list(follower.read()) == []
    writer({"done": 1})
    writer({"done": 2})
    assert list(follower.read()) == [{"done": 1}, {"done": 2}]
    with open(path, "a") as file:
        file.write('{"do')
    assert list(follower.read()) == []
    with open(path, "a") as file:
        file.write('ne": 3}\n')
    assert list(follower.read()) == [{"done": 3}]


def test_a_reader_that_left_or_a_folder_that_is_not_there_stops_no_work(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    ProgressWriter(write)({"done": 1})
    os.close(write)
    ProgressWriter(tmp_path / "nowhere" / "events")({"done": 1})


def test_a_stage_says_how_far_it_is_off_a_terminal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "EVERY", 0.0)
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    out = io.StringIO()
    with display.drawn(display.open_display(Console(file=out, width=100))):
        counter = Progress("train", 4, "row")
        counter.update(1, loss=0.5)
        counter.update(3, loss=0.25)
    lines = out.getvalue().splitlines()
    assert [line.split() for line in lines[:2]] == [
        ["train", "25", "%", "loss", "0.5"],
        ["train", "100", "%", "loss", "0.25"],
    ]
    assert lines[2].startswith("train        succeeded in ")
