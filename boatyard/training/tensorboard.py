"""Scalars in TensorBoard's file format, without its 0.5 s of imports.

A file is records of length, masked CRC-32C, data, masked CRC-32C (TFRecord); data is an Event message of tensorflow's
event.proto, of which scalars need five fields.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

FILE = "events.out.tfevents.boatyard"
DOUBLE, BYTES, FLOAT = 1, 2, 5  # wire types of protobuf; 0 is an integer


def start(folder: Path) -> None:
    """Begin a file of scalars in a folder, in the place of the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_bytes(record(_field(1, DOUBLE, struct.pack("<d", 0.0)) + _text(3, "brain.Event:2")))


def append(folder: Path, step: int, time: float, scalars: Mapping[str, float]) -> None:
    """Add scalars of a step at a time in seconds since 1970."""
    values = b"".join(
        _message(1, _text(1, name) + _field(2, FLOAT, struct.pack("<f", value))) for name, value in scalars.items()
    )
    event = _field(1, DOUBLE, struct.pack("<d", time)) + _field(2, 0, _varint(step)) + _message(5, values)
    with (folder / FILE).open("ab") as file:
        file.write(record(event))


def record(data: bytes) -> bytes:
    """Frame data as a TFRecord."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", _masked(length)) + data + struct.pack("<I", _masked(data))


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)  # Castagnoli's polynomial, reversed
        table.append(byte)
    return table


_CRC = _table()


def _masked(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, wire: int, payload: bytes) -> bytes:
    return _varint(number << 3 | wire) + payload


def _message(number: int, payload: bytes) -> bytes:
    return _field(number, BYTES, _varint(len(payload)) + payload)


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode())
