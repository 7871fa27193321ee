"""JSON: an object of final values, a list of objects, an object a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from .sinks import Sink, as_float, step_name


def read_lines(lines: Iterable[bytes], sink: Sink[Any]) -> str | None:
    """Reads one object a line. Returns what is wrong, None if nothing is. A line that is not whole
    yet is passed over."""
    wrong, index = 0, 0
    for line in lines:
        if not line.strip():
            continue
        try:
            _read_row(msgspec.json.decode(line), index, sink)
            index += 1
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            wrong += line.endswith(b"\n")
    return f"{wrong} of its lines are no JSON, and left out" if wrong else None


def read_object(data: bytes, sink: Sink[Any]) -> str | None:
    """Reads an object of values, of lists of values, or a list of objects. Returns what is wrong,
    None if nothing is."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "it is no JSON"
    if isinstance(found, list):
        for index, each in enumerate(found):
            _read_row(each, index, sink)
    else:
        _read_row(found, 0, sink)
        for name, value in _flat(found):
            if isinstance(value, list):
                for index, each in enumerate(value):
                    if _is_number(each):
                        sink.add(name, index, as_float(each))
    return None


def _read_row(row: object, index: int, sink: Sink[Any]) -> None:
    values = {name: value for name, value in _flat(row) if _is_number(value)}
    step = step_name(values)
    at = as_float(index if step is None else values[step])
    for name, value in values.items():
        if name != step:
            sink.add(name, at, as_float(value))


def _flat(found: object, before: str = "") -> Iterator[tuple[str, Any]]:
    """The values of an object, those of inner objects as `outer/inner`."""
    if isinstance(found, Mapping):
        for name, value in found.items():
            if isinstance(value, Mapping):
                yield from _flat(value, f"{before}{name}/")
            else:
                yield f"{before}{name}", value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
