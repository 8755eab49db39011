"""Heads that come again: a client that keeps its connection sends the same one each time, but for a length."""

from __future__ import annotations

import re

LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)[ \t]*\r\n", re.IGNORECASE)
END = b"\r\n\r\n"
Headers = list[tuple[bytes, bytes]]
DIGITS = 7  # of a length that is looked at
LONGEST = 4096  # bytes of a head that is kept


class Head:
    """What the parser said of a request; one of the same bytes, another length and body apart, is the same to it.

    `url` is its target, `headers` are those of the request that was parsed, `within` the seconds that its client waits.
    """

    __slots__ = ("_after", "_before", "_first", "_width", "headers", "url", "within")

    def __init__(self, before: bytes, after: bytes, url: bytes, headers: Headers, within: float | None) -> None:
        """`before` ends where the digits of the length begin, `after` begins behind them and ends the headers."""
        self._before, self._after, self.url, self.headers, self.within = before, after, url, headers, within
        self._first, self._width = len(before), len(after)

    @classmethod
    def of(cls, data: bytes, size: int, url: bytes, headers: Headers, within: float | None) -> Head | None:
        """Return the head of `data`, which begins with a request that was parsed; None when it is more, or less."""
        end = data.find(END, 0, LONGEST) + len(END)
        lengths = list(LENGTH.finditer(data, 0, end))
        if end < len(END) or end + size != len(data) or len(lengths) != 1 or int(lengths[0][1]) != size:
            return None
        first, last = lengths[0].span(1)
        return cls(data[:first], data[last:end], url, headers, within)

    def body(self, data: bytes) -> bytes | None:
        """Return the body of a request that is whole and has this head, else None."""
        if not data.startswith(self._before):
            return None
        first, width = self._first, self._width
        last = data.find(self._after, first, first + DIGITS + width)
        digits = data[first:last]
        if last < 0 or not digits.isdigit() or len(data) - last - width != int(digits):
            return None
        return data[last + width :]
