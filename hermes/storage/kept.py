"""What is kept of a run's events, in the run's folder, for those who look at the run from outside.

One line is one event as JSON. The first one tells where the run stood: so the file is begun anew
when it has grown, and never long to read. All functions here block.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from ..events import (
    Event,
    JobEnded,
    JobStarted,
    QueueChanged,
    RunChanged,
    RunEnded,
    RunStanding,
    RunStarted,
    RunWarning,
    event_name,
)
from .files import open_regular, write_all, write_atomic
from .layout import FORMATS, PROGRESS

KINDS: dict[str, type[Event]] = {
    event_name(kind): kind
    for kind in (
        RunStanding,
        RunStarted,
        RunChanged,
        RunWarning,
        RunEnded,
        JobStarted,
        JobEnded,
        QueueChanged,
    )
}
"""The events that are kept, by their names. What jobs print and leave is in their directories."""

MOST = 64 * 1024
"""Bytes after which the file is begun anew, unless its first line is a large part of them: to read
so much takes 3 ms (`benchmarks` row `status`)."""

LARGE_PART = 4
"""Times the first line, which tells of all jobs that run; before that, nothing is begun anew."""


NAMES = {kind: name for name, kind in KINDS.items()}


class _Head(msgspec.Struct):
    event: str
    format: int = 1


def encoded(event: Event) -> bytes:
    """An event as a line, with its end."""
    name = NAMES[type(event)]
    head = f'{{"event":"{name}","format":{FORMATS[PROGRESS]},'.encode()
    try:
        return head + msgspec.json.encode(event)[1:] + b"\n"
    except UnicodeEncodeError:
        # A name that is not UTF-8 is kept by lone surrogates, which only `json` takes
        return head + json.dumps(msgspec.to_builtins(event)).encode()[1:] + b"\n"


def decoded(line: bytes) -> Event | None:
    """The event of a line; None for one that makes no sense, or was written by a newer Hermes."""
    try:
        try:
            head = msgspec.json.decode(line, type=_Head)
            kind = KINDS.get(head.event) if head.format <= FORMATS[PROGRESS] else None
            return None if kind is None else msgspec.json.decode(line, type=kind)
        except msgspec.ValidationError:
            return None
        except (UnicodeDecodeError, msgspec.DecodeError):
            values = json.loads(line)
            return msgspec.convert(values, KINDS[values["event"]])
    except (ValueError, KeyError, TypeError):
        return None


class KeptWriter:
    """Writes the events of a run into its folder. Never raises: only what others see depends on
    it."""

    def __init__(self, folder: str) -> None:
        self._path = f"{folder}/{PROGRESS}"
        self._size = 0
        self._most = MOST
        self._part = int(time.time() * 1000)
        """Other than that of any earlier runner of this run, and of the one after it."""

        self._is_whole = False
        """Whether all events so far are in the file, or told by its first line."""

    def write(self, events: Sequence[Event], standing: Callable[[int], RunStanding]) -> None:
        """Adds events. `standing` makes the first line of a file that is begun anew after them; it
        gets the number of that part."""
        if self._is_whole and self._append(b"".join(map(encoded, events))):
            if self._size <= self._most or isinstance(events[-1], RunEnded):
                return
            # Who has read so far goes on with the next part
            self._part += 1
        else:
            self._part += 2
        lines = [
            standing(self._part),
            *(each for each in events[-1:] if isinstance(each, RunEnded)),
        ]
        self._is_whole = self._replace(b"".join(map(encoded, lines)))

    def _append(self, data: bytes) -> bool:
        try:
            fd = open_regular(self._path, os.O_WRONLY | os.O_APPEND)
        except OSError:
            # The folder was removed, and perhaps made again
            return False
        try:
            write_all(fd, data)
        except OSError:
            return False
        finally:
            os.close(fd)
        self._size += len(data)
        return True

    def _replace(self, data: bytes) -> bool:
        try:
            write_atomic(self._path, data, sync=False)
        except OSError:
            return False
        self._size = len(data)
        self._most = max(MOST, LARGE_PART * self._size)
        return True


class KeptReader:
    """Follows the events of a run, in its folder. Raises `OSError` if there are none."""

    def __init__(self, folder: str) -> None:
        self._path = f"{folder}/{PROGRESS}"
        self._fd = open_regular(self._path, os.O_RDONLY)
        self._rest = b""
        self._part: int | None = None
        self.is_gone = False
        """Whether the run's folder is gone: there will be no more."""

    def read(self) -> list[Event]:
        """What has come since the last time. A `RunStanding` stands for all before it."""
        events = self._read()
        while not self.is_gone:
            try:
                there = os.stat(self._path)
                if os.path.samestat(there, os.fstat(self._fd)):
                    break
                fd = open_regular(self._path, os.O_RDONLY)
            except OSError:
                self.is_gone = True
                fd = None
            # Written before the file was replaced, or removed
            events += self._read()
            if fd is not None:
                os.close(self._fd)
                self._fd, self._rest = fd, b""
                events += self._read()
        return events

    def _read(self) -> list[Event]:
        data = self._rest
        with contextlib.suppress(OSError):
            while piece := os.read(self._fd, MOST):
                data += piece
        *lines, self._rest = data.split(b"\n")
        return list(self._new(filter(None, map(decoded, lines))))

    def _new(self, events: Iterable[Event]) -> Iterator[Event]:
        for event in events:
            if isinstance(event, RunStanding):
                before, self._part = self._part, event.part
                if before is not None and before + 1 == event.part:
                    # It tells what has been told
                    continue
            yield event

    def close(self) -> None:
        os.close(self._fd)
