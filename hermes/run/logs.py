"""Following log files while jobs write them. Jobs write to the files themselves, so whoever follows can neither slow nor stop them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import anyio

from ..blocking import in_thread
from ..experiments.store import STDERR, STDOUT

CHUNK = 65536
"""Bytes read at once: line by line, 8.6 MB took 16.2 s instead of 0.12 s."""

TICK = 0.1
"""Seconds between two looks at the sizes of the files that are followed."""

QUIET_TICK = 0.25
"""The same while nobody prints: a look at nothing new costs as much as one at something."""

TOGETHER = 64
"""Files that are read in one call of a worker thread. More calls cost more time, and more files more memory: up to 4 MB now."""

Stream = Literal["stdout", "stderr"]
Take = Callable[[str, Stream, bytes], Awaitable[bool]]
"""Gets identifier, stream and bytes, which it takes before it waits for anything; False if it wants no more of this job."""


@dataclass(slots=True, eq=False)
class _Log:
    identifier: str
    path: str
    stream: Stream
    offset: int = 0
    """How many bytes have been passed on."""


class _Piece(NamedTuple):
    log: _Log
    offset: int
    data: bytes


class Follower:
    """Follows the logs of any number of jobs with one task."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._logs: dict[str, tuple[_Log, _Log]] = {}
        self._stopped = anyio.Event()
        self._wanted = anyio.Event()
        """Set when there is something to do."""

    def add(self, identifier: str, directory: str) -> None:
        self._logs[identifier] = (
            _Log(identifier, f"{directory}/{STDOUT}", "stdout"),
            _Log(identifier, f"{directory}/{STDERR}", "stderr"),
        )
        self._wanted.set()

    async def run(self) -> None:
        """Passes on what the logs gain until `stop`."""
        pause = TICK
        while not self._stopped.is_set():
            if not self._logs:
                self._wanted = anyio.Event()
                await self._wanted.wait()
            with anyio.move_on_after(pause):
                await self._stopped.wait()
            logs = [log for both in self._logs.values() for log in both]
            longest = 0
            for start in range(0, len(logs), TOGETHER):
                longest = max(longest, await self._pass_on(logs[start : start + TOGETHER]))
            pause = 0 if longest == CHUNK else TICK if longest else QUIET_TICK

    async def finish(self, identifier: str) -> None:
        """Passes on the rest of a job's logs; it is not followed any more then."""
        logs = self._logs.get(identifier, ())
        if await self._pass_on(logs) == CHUNK:
            for log in logs:
                await self._pass_on_whole(log)
        # Again also after a short piece: `run` may have had less of the same
        while await self._pass_on(self._logs.get(identifier, ())):
            pass
        self._logs.pop(identifier, None)

    def stop(self) -> None:
        self._stopped.set()
        self._wanted.set()

    async def _pass_on(self, logs: Sequence[_Log]) -> int:
        """Passes on the next piece of each of these logs. Returns the length of the longest one, 0 if there is nothing new."""
        pieces = await in_thread(_gained, logs) if logs else []
        for piece in pieces:
            await self._deliver(piece)
        return max((len(piece.data) for piece in pieces), default=0)

    async def _pass_on_whole(self, log: _Log) -> None:
        """Passes on all that is left of a long log of a job that has ended, opened once."""
        # The job may have taken away its own log
        with suppress(OSError):
            async with open_async(log.path) as file:
                offset = await file.seek(log.offset)
                while log.identifier in self._logs and (data := await file.read(CHUNK)):
                    await self._deliver(_Piece(log, offset, data))
                    offset += len(data)

    async def _deliver(self, piece: _Piece) -> None:
        log = piece.log
        # `run` and `finish` may have read the same
        if log.identifier in self._logs and log.offset == piece.offset:
            log.offset += len(piece.data)
            if not await self._take(log.identifier, log.stream, piece.data):
                self._logs.pop(log.identifier, None)


class Readable(Protocol):
    async def seek(self, offset: int, /) -> int: ...

    async def read(self, size: int, /) -> bytes: ...


@asynccontextmanager
async def open_async(path: str) -> AsyncIterator[Readable]:
    """Opens a file for reading bytes: with aiofiles, and under trio, which aiofiles does not know, with anyio."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        async with await anyio.open_file(path, "rb") as file:
            yield file
    else:
        import aiofiles

        async with aiofiles.open(path, "rb") as aiofile:
            yield aiofile


def _gained(logs: Sequence[_Log]) -> list[_Piece]:
    """The next piece of every log that has one. Blocks."""
    pieces = []
    for log in logs:
        offset = log.offset
        # A job may take away its own log
        try:
            if os.stat(log.path).st_size > offset and (data := _read(log.path, offset)):
                pieces.append(_Piece(log, offset, data))
        except OSError:
            continue
    return pieces


def _read(path: str, offset: int) -> bytes:
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        return file.read(CHUNK)
