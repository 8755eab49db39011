"""Waiting for what may come right by itself: tried again with pauses, and for no longer than was said.

tenacity does it. Where a loop has a state of its own (a rollout's progress, a run's steps), it is not made of these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def retry(
    work: Callable[[], T],
    errors: type[Exception] | tuple[type[Exception], ...],
    *,
    attempts: int,
    pause_s: Callable[[int], float],
    tell: Callable[[int, BaseException], None] | None = None,
) -> T:
    """Return what work does, tried at most `attempts` times; the last error of these is raised, others at once.

    `pause_s` says how long to wait after an attempt, counted from 1; `tell` is called before that.
    """
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

    def before(state: Any) -> None:
        if tell is not None:
            tell(state.attempt_number, state.outcome.exception())

    retrying = Retrying(
        retry=retry_if_exception_type(errors),
        stop=stop_after_attempt(attempts),
        # tenacity asks for the pause before it looks whether another attempt follows
        wait=lambda state: pause_s(state.attempt_number) if state.attempt_number < attempts else 0.0,
        before_sleep=before,
        reraise=True,
    )
    return retrying(work)


def poll(
    look: Callable[[], T | None],
    *,
    timeout_s: float,
    every_s: float,
    errors: type[Exception] | tuple[type[Exception], ...] = (),
) -> T | None:
    """Return the first look that sees something (is true), None when the time is over.

    `errors` are waited for as well; one in the last look is raised.
    """
    from tenacity import Retrying, retry_if_exception_type, retry_if_result, stop_after_delay, wait_fixed

    retrying = Retrying(
        retry=retry_if_exception_type(errors) | retry_if_result(lambda seen: not seen),
        stop=stop_after_delay(timeout_s),
        wait=wait_fixed(every_s),
        retry_error_callback=_last,
    )
    return retrying(look)


def _last(state: Any) -> None:
    """Raise the last look's error, if it had one."""
    state.outcome.result()
