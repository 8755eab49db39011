"""Header blocks of HTTP/2: what a client sends is read and judged once, what the server sends needs no table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import hpack

LONGEST = 64 << 10  # bytes of a request's headers, packed or not
KEPT, SHORT = 64, 1024  # blocks that are remembered, and bytes of the longest, packed or not
NEEDED = frozenset((b":method", b":scheme", b":path"))
PSEUDO = NEEDED | {b":authority"}
NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
VALUE = re.compile(rb"[^\0\r\n]*")
CONNECTION = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))

Fields = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """One header block. A request has a method and a path, trailers have none; one that is malformed is neither."""

    method: bytes = b""
    path: bytes = b""
    fields: dict[bytes, bytes] | None = None
    length: int | None = None  # of the body, when it was said

    @property
    def malformed(self) -> bool:
        return self.fields is None

    @property
    def size(self) -> int:
        return len(self.path) + sum(len(name) + len(value) for name, value in (self.fields or {}).items())


class Reader:
    """Reads one connection's header blocks.

    While the table does not change, the same bytes mean the same, and a client that asks the same question again sends
    the same bytes: such a block is read once.
    """

    def __init__(self) -> None:
        self._decoder = hpack.Decoder(LONGEST)
        self._state = self._table()
        self._known: dict[bytes, Block] = {}

    def read(self, data: bytes) -> Block:
        """Return what a block says; raises hpack.HPACKError, after which the table is lost and the connection too."""
        if known := self._known.get(data):
            return known
        block = judged([(bytes(name), bytes(value)) for name, value in self._decoder.decode(data, raw=True)])
        state = self._table()
        changed = state[0] is not self._state[0] or state[1:] != self._state[1:]
        self._state = state
        if changed or len(self._known) == KEPT:
            self._known.clear()
        if not changed and len(data) <= SHORT and block.size <= SHORT:
            self._known[data] = block
        return block

    def _table(self) -> tuple[Any, int, int]:
        """Return what differs after any change: an entry comes first, all go at once, or the size is another."""
        table = self._decoder.header_table
        entries = table.dynamic_entries
        return entries[0] if entries else None, len(entries), table.maxsize


def judged(fields: Fields) -> Block:
    """Return what a list of fields is by RFC 9113, 8.2 and 8.3."""
    pseudo: dict[bytes, bytes] = {}
    plain: dict[bytes, bytes] = {}
    for name, value in fields:
        if name.startswith(b":"):
            if plain or name in pseudo or name not in PSEUDO:
                return Block()
            pseudo[name] = value
        elif not NAME.fullmatch(name) or name in CONNECTION or (name == b"te" and value != b"trailers"):
            return Block()
        else:
            plain[name] = plain[name] + b", " + value if name in plain else value
        if not VALUE.fullmatch(value):
            return Block()
    length = plain.get(b"content-length")
    if length is not None and not re.fullmatch(rb"[0-9]{1,18}", length):
        return Block()
    if pseudo and (not pseudo.keys() >= NEEDED or not pseudo[b":path"]):
        return Block()
    said = None if length is None else int(length)
    return Block(pseudo.get(b":method", b""), pseudo.get(b":path", b""), plain, said)


def write(fields: Fields) -> bytes:
    """Return a header block in which each field stands as it is: it means the same at any time."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)


def _text(value: bytes) -> bytes:
    """Return a string with its length before it (RFC 7541, 5.1 and 5.2)."""
    length = len(value)
    if length < 127:
        return bytes((length,)) + value
    found, length = b"\x7f", length - 127
    while length > 127:
        found += bytes((length & 127 | 128,))
        length >>= 7
    return found + bytes((length,)) + value
