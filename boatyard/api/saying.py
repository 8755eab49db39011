"""What functions that take long say while they work, unless told otherwise: sentences on standard error."""

from __future__ import annotations

import sys
import time


def say(sentence: str) -> None:
    """Print a sentence on standard error."""
    try:
        print(sentence, file=sys.stderr, flush=True)
    except BrokenPipeError:  # its reader has left, as `2>&1 | head` does: the work goes on
        from boatyard.running import display

        display.mute(sys.stderr)


def say_at(sentence: str) -> None:
    """Print a sentence with the time of day before it."""
    say(f"{time.strftime('%H:%M:%S')} {sentence}")
