"""Scalars in TensorBoard's event files, without TensorBoard.

The files are TFRecords: each record has its length, a checksum of that, the data and a checksum of
these. The data are `Event` messages of protocol buffers (tensorflow/core/util/event.proto and
framework/summary.proto), of which only scalars are read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

from .crc import masked
from .sinks import Sink

LARGEST = 2**26
"""Bytes of a record: a longer one is damaged, or holds no scalar."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FLOAT, _DOUBLE, _INT32, _INT64, _HALF = 1, 2, 3, 9, 19
"""Types of tensors."""

_CONTENT = {_FLOAT: "<f", _DOUBLE: "<d", _INT32: "<i", _INT64: "<q", _HALF: "<e"}


def read_events(file: BinaryIO, sink: Sink[Any]) -> str | None:
    """Reads all whole records. A torn end belongs to a file that is still being written. Returns
    what is damaged, None if nothing is."""
    damaged = 0
    while len(head := file.read(12)) == 12:
        length, check = struct.unpack("<QI", head)
        if masked(head[:8]) != check or length > LARGEST:
            return "its records cannot be told apart after a damaged one"
        data, end = file.read(length), file.read(4)
        if len(data) < length or len(end) < 4:
            break
        if masked(data) != int.from_bytes(end, "little"):
            damaged += 1
            continue
        try:
            _read_event(data, sink)
        except (IndexError, ValueError, struct.error):
            damaged += 1
    return f"{damaged} of its records are damaged, and left out" if damaged else None


def _read_event(data: bytes, sink: Sink[Any]) -> None:
    step, summaries = 0, []
    for number, kind, value in _fields(data):
        if number == 2 and kind == _VARINT:
            step = value if value < 2**63 else value - 2**64
        elif number == 5 and kind == _BYTES:
            summaries.append(value)
    for summary in summaries:
        for number, kind, value in _fields(summary):
            if number == 1 and kind == _BYTES:
                _read_value(value, step, sink)


def _read_value(data: bytes, step: int, sink: Sink[Any]) -> None:
    tag, found = "", None
    for number, kind, value in _fields(data):
        if number == 1 and kind == _BYTES:
            tag = value.decode("utf-8", "replace")
        elif number == 2 and kind == _FIXED32:
            (found,) = struct.unpack("<f", value)
        elif number == 8 and kind == _BYTES:
            found = _scalar(value)
    if found is not None and tag:
        sink.add(tag, step, float(found))


def _scalar(data: bytes) -> float | None:
    """The value of a tensor that is a single number."""
    dtype, values = 0, b""
    for number, kind, value in _fields(data):
        if number == 1 and kind == _VARINT:
            dtype = value
        elif number == 2 and kind == _BYTES and any(size != 1 for size in _sizes(value)):
            return None
        elif number == 4 and kind == _BYTES:
            values = value
        elif (number, dtype) in ((5, _FLOAT), (6, _DOUBLE)) and kind != _VARINT:
            # Packed or not, these are the bytes of the numbers
            values = value
        elif (number, dtype) in ((7, _INT32), (10, _INT64)) and kind == _VARINT:
            return float(value if value < 2**63 else value - 2**64)
    layout = _CONTENT.get(dtype)
    if layout is None or len(values) != struct.calcsize(layout):
        return None
    (scalar,) = struct.unpack(layout, values)
    return float(scalar)


def _sizes(shape: bytes) -> Iterator[int]:
    for number, kind, value in _fields(shape):
        if number == 2 and kind == _BYTES:
            yield next((size for n, k, size in _fields(value) if (n, k) == (1, _VARINT)), 0)


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and value of each field of a message: an int for a varint, else bytes.

    Raises `IndexError` or `ValueError` for what is none.
    """
    position, end = 0, len(data)
    while position < end:
        key = data[position]
        position += 1
        if key > 127:
            key, position = _varint(data, position - 1)
        kind = key & 7
        if kind == _VARINT:
            value, position = _varint(data, position)
            yield key >> 3, kind, value
            continue
        if kind == _BYTES:
            size, position = _varint(data, position)
        elif kind == _FIXED32:
            size = 4
        elif kind == _FIXED64:
            size = 8
        else:
            raise ValueError(f"wire type {kind}")
        if position + size > end:
            raise ValueError("a field is longer than its message")
        yield key >> 3, kind, data[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A varint, and where it ends."""
    result = shift = 0
    while True:
        byte = data[position]
        position += 1
        result |= (byte & 127) << shift
        if byte < 128:
            return result, position
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
