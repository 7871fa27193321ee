"""What jobs have printed, as lines for people or as the bytes that it is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from ..storage.files import open_regular
from ..storage.layout import STDERR, STDOUT
from .text import TAIL_BYTES, printable

BLOCK = 65536
"""Bytes that are read at once."""

MARKS = {"stdout": "|", "stderr": "!"}
"""What stands between the name of a job and what it has printed on each stream."""

FILES = {"stdout": STDOUT, "stderr": STDERR}


class Lines:
    """Cuts what one job prints on one stream into lines that a terminal may get, each with `name`
    before it."""

    def __init__(self, name: str = "") -> None:
        self._name = name
        self._rest = b""

    def take(self, data: bytes) -> Iterator[str]:
        """The lines that are whole by now, as one text without its last line end."""
        whole, end, rest = (self._rest + data).rpartition(b"\n")
        if len(rest) > TAIL_BYTES:
            # Not a line in any useful sense
            whole, end, rest = whole + end + rest, b"\n", b""
        self._rest = rest
        if end:
            yield self._text(whole)

    def end(self) -> Iterator[str]:
        """The last line, if it lacks its end."""
        rest, self._rest = self._rest, b""
        if rest:
            yield self._text(rest)

    def _text(self, data: bytes) -> str:
        return "\n".join([self._name + printable(line) for line in data.split(b"\n")])


def blocks(directory: str, stream: str, lines: int | None = None) -> Iterator[bytes]:
    """What a job has printed on a stream so far, or the last `lines` of it, piece by piece; nothing
    if there is no such log. Blocks."""
    try:
        file = _opened(directory, stream)
    except OSError:
        return
    with file:
        file.seek(_start(file, lines))
        while data := file.read(BLOCK):
            yield data


def starts(directory: str, lines: int) -> tuple[int, int]:
    """The bytes of stdout and of stderr before their last `lines`. Blocks."""
    found = []
    for stream in FILES:
        try:
            with _opened(directory, stream) as file:
                found.append(_start(file, lines))
        except OSError:
            found.append(0)
    return found[0], found[1]


def names(shorts: Sequence[str], stream: str) -> list[str]:
    """What stands before the lines of several jobs, by their short names."""
    width = max(map(len, shorts), default=0)
    return [f"{short:<{width}} {MARKS[stream]} " for short in shorts]


def _opened(directory: str, stream: str) -> BinaryIO:
    return open(open_regular(f"{directory}/{FILES[stream]}", os.O_RDONLY), "rb")


def _start(file: BinaryIO, lines: int | None) -> int:
    """Where the last lines of a file begin. Only its end is read."""
    if lines is None:
        return 0
    size = place = file.seek(0, os.SEEK_END)
    # The end of the last line is none between two lines
    wanted = lines + 1
    while place > 0:
        before = max(0, place - BLOCK)
        file.seek(before)
        data = file.read(place - before)
        if place == size and not data.endswith(b"\n"):
            wanted -= 1
        found = data.count(b"\n")
        if found >= wanted:
            at = len(data)
            for _ in range(wanted):
                at = data.rindex(b"\n", 0, at)
            return before + at + 1
        wanted -= found
        place = before
    return 0
