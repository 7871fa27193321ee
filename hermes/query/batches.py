"""Reads experiments in batches, by several processes where they are many.

A batch comes back packed: the experiments of which nothing more is to be expected in one chunk, all
others in a second one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from queue import SimpleQueue
from typing import IO

import msgspec

from ..errors import HermesError, escape
from ..model import Status
from ..storage.layout import METADATA
from ..storage.metadata import Metadata, Summary
from . import rlmate
from .index import MADE_BY
from .metrics.files import as_kept, given_of, summed
from .packing import CHUNK, Record, Stamp, packed, record_of
from .reading import is_coming_or_going, metadata_of

SETTLED = 2.0
"""Seconds: what was changed later than that before it was read may have been changed once more
without getting another time, so it is read again."""

MANY = 2 * CHUNK
"""Experiments that are worth further processes: each of these takes a tenth of a second to start,
in which one process reads a thousand."""

MOST_PROCESSES = 4

TICK = 20_000_000
"""Nanoseconds in which two changes may get the same time, or times in the wrong order."""


class Batch(msgspec.Struct):
    """Experiments to be read: names of directories, by the folder in `folder` that they are in."""

    folder: str
    names: dict[str, list[str]]


class Packed(msgspec.Struct):
    """Experiments that were read. Both are the data of a chunk, None if there is none.

    `settled` are those of which nothing more is to be expected, `unsettled` all others.
    """

    settled: bytes | None
    unsettled: bytes | None
    warnings: list[str]


def batches_of(folder: str, names: Mapping[str, Sequence[str]]) -> Iterator[Batch]:
    """All names, in batches that make a chunk each."""
    batch, room = Batch(folder, {}), CHUNK
    for place, all_of_place in names.items():
        start = 0
        while start < len(all_of_place):
            batch.names[place] = list(all_of_place[start : start + room])
            start += len(batch.names[place])
            room -= len(batch.names[place])
            if not room:
                yield batch
                batch, room = Batch(folder, {}), CHUNK
    if batch.names:
        yield batch


def read_batches(batches: Sequence[Batch]) -> Iterator[Packed]:
    """Each batch as it was read, in their order."""
    count = sum(len(names) for batch in batches for names in batch.names.values())
    processes = min(_cores(), MOST_PROCESSES, len(batches))
    # A program that was frozen into one file would be started once more
    has_python = bool(sys.executable) and not getattr(sys, "frozen", False)
    if count < MANY or processes < 2 or not has_python:
        yield from map(read_batch, batches)
        return
    with ExitStack() as opened:
        free: SimpleQueue[_Reader | None] = SimpleQueue()
        for _ in range(processes):
            free.put(_opened(opened))

        def read(batch: Batch) -> Packed:
            reader = free.get()
            try:
                return reader.read(batch) if reader is not None else read_batch(batch)
            except (OSError, msgspec.DecodeError):
                # Somebody has killed it
                return read_batch(batch)
            finally:
                free.put(reader)

        # Left first, so that no batch is being read when the processes are ended
        yield from opened.enter_context(ThreadPoolExecutor(processes)).map(read, batches)


def _opened(opened: ExitStack) -> _Reader | None:
    """A process for as long as `opened`; None if the system gives none."""
    try:
        reader = _Reader()
    except OSError:
        return None
    opened.callback(reader.close)
    return reader


def read_batch(batch: Batch) -> Packed:
    """Reads a batch in this process."""
    settled: list[Record] = []
    unsettled: list[Record] = []
    warnings: list[str] = []
    for place, names in batch.names.items():
        inner = f"{batch.folder}/{place}" if place else batch.folder
        for name, stamp in zip(names, stamps_of(inner, names), strict=True):
            directory = f"{inner}/{name}"
            try:
                metadata = metadata_of(directory)
            except HermesError as exc:
                if not is_coming_or_going(directory):
                    warnings.append(exc.message)
                continue
            if metadata.identifier != name:
                owner = escape(metadata.identifier)
                warnings.append(f"`{directory}` holds the metadata of `{owner}`")
                continue
            metrics, changed = _metrics(directory, metadata, stamp)
            is_settled = stamp is not None and _is_settled(metadata, stamp, changed)
            record = record_of(place, stamp or NO_STAMP, metadata, metrics)
            (settled if is_settled else unsettled).append(record)
    return Packed(
        packed(settled) if settled else None, packed(unsettled) if unsettled else None, warnings
    )


def _metrics(
    directory: str, metadata: Metadata, stamp: Stamp | None
) -> tuple[Mapping[str, Summary], float]:
    """The metrics, and when the last of their files was changed, in seconds since 1970."""
    if metadata.metrics is not None and stamp is not None:
        # Of a file that has changed in place the time is later, of a new one that of its folder
        with suppress(OSError):
            written = os.stat(f"{directory}/{METADATA}").st_ctime_ns + TICK
            kept = as_kept(directory, metadata, written) if stamp[3] <= written else None
            if kept is not None:
                return kept, 0.0
    found = summed(directory, given_of(metadata))
    return found.found, found.changed


NO_STAMP: Stamp = (0, 0, 0, 0, 0)


def stamps_of(folder: str, names: Sequence[str]) -> Iterator[Stamp | None]:
    """By what one sees whether experiments in a folder have been left alone; None for what is no
    experiment."""
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield from (None for _ in names)
        return
    try:
        for name in names:
            # In an open folder the system finds them quicker
            try:
                try:
                    file = os.stat(f"{name}/{METADATA}", dir_fd=opened)
                except FileNotFoundError:
                    file = os.stat(f"{name}/{rlmate.INFO}", dir_fd=opened)
                home = os.stat(name, dir_fd=opened)
            except OSError:
                yield None
                continue
            yield (
                file.st_mtime_ns,
                file.st_size,
                file.st_ino,
                home.st_mtime_ns,
                home.st_ino,
            )
    finally:
        os.close(opened)


def _is_settled(metadata: Metadata, stamp: Stamp, changed: float) -> bool:
    """Whether nothing is to be expected of an experiment any more."""
    last = max(stamp[0] / 1e9, stamp[3] / 1e9, changed)
    return metadata.status is not Status.RUNNING and time.time() - last > SETTLED


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Reader:
    """A process that reads batches, one after the other."""

    def __init__(self) -> None:
        """Raises `OSError`."""
        # `-P`: not what lies in the folder of the user, and is called as one of our modules
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, MADE_BY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdin is not None, "it is a pipe"
        assert self._process.stdout is not None, "it is a pipe"
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def read(self, batch: Batch) -> Packed:
        """Raises `OSError` or `msgspec.DecodeError` if the process has ended."""
        _send(self._requests, msgspec.msgpack.encode(batch))
        return msgspec.msgpack.decode(_received(self._answers), type=Packed)

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        with suppress(OSError):
            self._requests.close()
        self._answers.close()
        self._process.wait()


def _send(pipe: IO[bytes], data: bytes) -> None:
    pipe.write(len(data).to_bytes(8, "little") + data)
    pipe.flush()


def _received(pipe: IO[bytes]) -> bytes:
    """The next message; empty if there is none any more."""
    return pipe.read(int.from_bytes(pipe.read(8), "little"))


def _serve() -> None:
    """What a `_Reader` does."""
    if sys.argv[1:] != [MADE_BY]:
        # Another Hermes, which packs other things
        sys.exit(1)
    while request := _received(sys.stdin.buffer):
        batch = msgspec.msgpack.decode(request, type=Batch)
        _send(sys.stdout.buffer, msgspec.msgpack.encode(read_batch(batch)))


if __name__ == "__main__":
    _serve()
