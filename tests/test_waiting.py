"""Waiting: tried again with pauses, for no longer than was said; the last error is the one that is raised."""

from __future__ import annotations

import time

import pytest

from boatyard import waiting


class Flaky:
    """Fails a number of times, then works."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.failures, self.error, self.calls = failures, error, 0

    def __call__(self) -> str | None:
        self.calls += 1
        if self.calls <= self.failures:
            if self.error:
                raise self.error
            return None
        return "done"


def test_work_is_tried_again_as_often_as_was_said_with_longer_pauses() -> None:
    work, told = Flaky(2, KeyError("away")), list[int]()
    assert (
        waiting.retry(work, KeyError, attempts=3, pause_s=lambda n: n / 1000, tell=lambda n, _: told.append(n))
        == "done"
    )
    assert (work.calls, told) == (3, [1, 2])


def test_the_last_error_is_raised_and_another_at_once() -> None:
    for work, calls in ((Flaky(9, KeyError("away")), 3), (Flaky(9, ValueError("wrong")), 1)):
        with pytest.raises(type(work.error)):  # type: ignore[arg-type]
            waiting.retry(work, KeyError, attempts=3, pause_s=lambda n: 0)
        assert work.calls == calls


def test_what_is_waited_for_is_returned_or_none_when_the_time_is_over() -> None:
    assert waiting.poll(Flaky(3), timeout_s=10, every_s=0.001) == "done"
    assert waiting.poll(Flaky(3, KeyError()), timeout_s=10, every_s=0.001, errors=KeyError) == "done"
    started = time.monotonic()
    assert waiting.poll(Flaky(10**6), timeout_s=0.1, every_s=0.01) is None
    assert time.monotonic() - started < 5


def test_an_error_in_the_last_look_is_raised() -> None:
    with pytest.raises(KeyError):
        waiting.poll(Flaky(10**6, KeyError("away")), timeout_s=0.05, every_s=0.01, errors=KeyError)
    work = Flaky(1, ValueError("wrong"))
    with pytest.raises(ValueError, match="wrong"):
        waiting.poll(work, timeout_s=10, every_s=0.001, errors=KeyError)
