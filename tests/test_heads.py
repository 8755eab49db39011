"""A head that comes again: what is taken without the parser is what the parser says, whatever else was sent."""

from __future__ import annotations

import random
from typing import Any

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serving.heads import Head

URL = b"/v1/models/insects:predict"
FIELDS = (b"Host: x", b"Content-Type: application/json", b"X-Request-Timeout-Ms: 50", b"Accept: */*")
PIECES = (
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b" ",
    b"0",
    b"5",
    b"+",
    b"content-length: 3\r\n",
    b"transfer-encoding: chunked\r\n",
)


class Reader:
    """One message as the server's own parser reads it."""

    def __init__(self, data: bytes) -> None:
        self.url, self.body, self.headers, self.ends = b"", b"", [], 0
        try:
            httptools.HttpRequestParser(self).feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.ends = -1

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.ends += 1

    def but_length(self) -> list[Any]:
        return [self.url, [field for field in self.headers if field[0] != b"content-length"]]


def request(size: bytes, body: bytes, before: int = 2, name: bytes = b"Content-Length") -> bytes:
    lines = [b"POST %b HTTP/1.1" % URL, *FIELDS[:before], b"%b: %b" % (name, size), *FIELDS[before:]]
    return b"\r\n".join([*lines, b"", body])


def kept(data: bytes) -> tuple[Head, Reader]:
    read = Reader(data)
    assert read.ends == 1
    head = Head.of(data, len(read.body), read.url, read.headers, None)
    assert head
    return head, read


BODY = st.binary(max_size=30)


@given(BODY, BODY, st.integers(0, 4), st.sampled_from([b"Content-Length", b"content-length", b"CONTENT-LENGTH"]))
def test_another_body_is_taken(first: bytes, second: bytes, before: int, name: bytes) -> None:
    head, _ = kept(request(b"%d" % len(first), first, before, name))
    data = request(b"%d" % len(second), second, before, name)
    assert head.body(data) == second == Reader(data).body
    for part in range(len(data)):
        assert head.body(data[:part]) is None
    assert head.body(data + b"P") is None


@given(BODY, BODY, st.randoms(use_true_random=False), st.integers(0, 4))
@example(b"abc", b"abc\r\n", random.Random(0), 4)
def test_what_is_taken_is_what_the_parser_says(first: bytes, second: bytes, chance: random.Random, before: int) -> None:
    head, read = kept(request(b"%d" % len(first), first, before))
    data = bytearray(request(b"%d" % (len(second) + chance.choice((0, 0, 0, 1, -1, 100000))), second, before))
    for _ in range(chance.randrange(3)):
        at, piece = chance.randrange(len(data)), chance.choice((*PIECES, bytes([chance.randrange(256)]), b""))
        data[at : at + chance.choice((0, 1, len(piece)))] = piece
    taken = head.body(bytes(data))
    if taken is not None:
        said = Reader(bytes(data))
        assert (said.ends, said.body, said.but_length()) == (1, taken, read.but_length())


@pytest.mark.parametrize(
    "size", [b"003", b"+3", b"3 ", b" 3", b"\t3", b"3_", b"", b"0x3", b"-3", b"3,3", b"1e0", b"\xb3"]
)
def test_a_length_is_taken_only_as_digits(size: bytes) -> None:
    head, _ = kept(request(b"5", b"12345"))
    data = request(size, b"123")
    said, taken = Reader(data), head.body(data)
    assert taken is None or (said.ends, said.body) == (1, taken)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (request(b"3", b"123") * 2, 3),  # two
        (request(b"3", b"12"), 2),  # not whole
        (b"x" + request(b"3", b"123"), 4),
        (request(b"3", b"123").replace(b"Accept", b"Content-Length: 3\r\nAccept"), 3),
        (request(b"3", b"123").replace(b"\r\n", b"\n"), 3),
        (request(b"3", b"123").replace(b"*/*", b"a" * 5000), 3),
        (b"", 0),
    ],
)  # fmt: skip
def test_no_other_head_is_kept(data: bytes, size: int) -> None:
    assert Head.of(data, size, URL, [], None) is None
