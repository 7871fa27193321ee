"""Following log files while jobs write them. Jobs write to the files themselves, so whoever follows can neither slow nor stop them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, Protocol

import anyio

from .store import STDERR, STDOUT
from .threads import in_thread

CHUNK = 65536
"""Bytes read at once: line by line, 8.6 MB took 16.2 s instead of 0.12 s."""

TICK = 0.1
"""Seconds between two looks at the sizes of the files that are followed."""

Stream = Literal["stdout", "stderr"]
Take = Callable[[str, Stream, bytes], Awaitable[bool]]
"""Gets identifier, stream and bytes; False if it wants no more of this job."""


class Readable(Protocol):
    async def seek(self, offset: int, /) -> int: ...

    async def read(self, size: int, /) -> bytes: ...


@dataclass(slots=True)
class _Log:
    path: str
    stream: Stream
    offset: int = 0
    lock: anyio.Lock = field(default_factory=anyio.Lock)


class Follower:
    """Follows the logs of any number of jobs with one task."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._logs: dict[str, tuple[_Log, _Log]] = {}
        self._stopped = anyio.Event()

    def add(self, identifier: str, directory: str) -> None:
        self._logs[identifier] = (_Log(f"{directory}/{STDOUT}", "stdout"), _Log(f"{directory}/{STDERR}", "stderr"))

    async def run(self) -> None:
        """Passes on what the logs gain until `stop`."""
        while not self._stopped.is_set():
            with anyio.move_on_after(TICK):
                await self._stopped.wait()
            if self._logs:
                grown = await in_thread(self._grown)
                for identifier, log in grown:
                    await self._catch_up(identifier, log)

    async def finish(self, identifier: str) -> None:
        """Passes on the rest of a job's logs; it is not followed any more then."""
        for log in self._logs.get(identifier, ()):
            await self._catch_up(identifier, log)
        self._logs.pop(identifier, None)

    def stop(self) -> None:
        self._stopped.set()

    def _grown(self) -> list[tuple[str, _Log]]:
        return [(identifier, log) for identifier, logs in list(self._logs.items()) for log in logs if _size(log.path) > log.offset]

    async def _catch_up(self, identifier: str, log: _Log) -> None:
        async with log.lock:
            if identifier not in self._logs or _size(log.path) <= log.offset:
                return
            # A job may take away its own log
            with suppress(OSError):
                async with open_async(log.path) as file:
                    await file.seek(log.offset)
                    while chunk := await file.read(CHUNK):
                        log.offset += len(chunk)
                        if not await self._take(identifier, log.stream, chunk):
                            self._logs.pop(identifier, None)
                            return


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


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
