"""Following log files while jobs write them. Jobs write to the files themselves, so nobody who
follows can slow or stop them.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Literal, Protocol

import anyio
import msgspec

from ..blocking import in_thread, is_asyncio
from ..storage.files import open_regular
from ..storage.layout import STDERR, STDOUT

CHUNK = 65536
"""Bytes read at once: line by line, 8.6 MB took 16.2 s instead of 0.12 s."""

TICK = 0.1
"""Seconds between two checks of the sizes of the files that are followed."""

QUIET_TICK = 0.25
"""The same while nobody prints: a check that finds nothing costs as much as one that does."""

Stream = Literal["stdout", "stderr"]
Take = Callable[[str, Stream, bytes], Awaitable[bool]]
"""Gets identifier, stream and bytes, which it takes before it waits for anything; False if it wants
no more of this job."""


OPEN_FILES = 64
"""Log files that are kept open. Hundreds of jobs at once must not use up the file descriptors."""


class Readable(Protocol):
    """An open file, as aiofiles and anyio give it."""

    async def seek(self, offset: int, /) -> int: ...

    async def read(self, size: int, /) -> bytes: ...


Close = Callable[[], Awaitable[None]]


class _Log(msgspec.Struct, eq=False, kw_only=True):
    identifier: str
    path: str
    stream: Stream
    offset: int = 0
    """How many bytes have been passed on."""

    reading: anyio.Lock = msgspec.field(default_factory=anyio.Lock)
    """`run` and `finish` must not read the same."""


class Follower:
    """Follows the logs of any number of jobs with one task."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._logs: dict[str, tuple[_Log, _Log]] = {}
        self._files = _OpenFiles()
        self._limiter = anyio.CapacityLimiter(1)
        self._stopped = anyio.Event()
        self._wanted = anyio.Event()
        """Set when there is something to do."""

    def add(self, identifier: str, directory: str, starts: tuple[int, int] = (0, 0)) -> None:
        """From now on passes on what a job prints, behind so many bytes of stdout and of stderr."""
        out, err = (f"{directory}/{name}" for name in (STDOUT, STDERR))
        self._logs[identifier] = (
            _Log(identifier=identifier, path=out, stream="stdout", offset=starts[0]),
            _Log(identifier=identifier, path=err, stream="stderr", offset=starts[1]),
        )
        self._wanted.set()

    def follows(self, identifier: str) -> bool:
        return identifier in self._logs

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
            longest = await self._pass_on(logs)
            pause = 0 if longest == CHUNK else TICK if longest else QUIET_TICK
        await self._files.close_all()

    async def finish(self, identifier: str) -> None:
        """Passes on the rest of a job's logs; it is not followed any more then."""
        logs = self._logs.get(identifier, ())
        while await self._pass_on(logs):
            pass
        self._logs.pop(identifier, None)
        for log in logs:
            async with log.reading:
                await self._files.close(log.path)

    def stop(self) -> None:
        self._stopped.set()
        self._wanted.set()

    async def _pass_on(self, logs: Sequence[_Log]) -> int:
        """Passes on the next piece of each of these logs. Returns the length of the longest piece,
        0 if there is nothing new.
        """
        longest = 0
        for log in await in_thread(_grown, logs, limiter=self._limiter) if logs else ():
            async with log.reading:
                # A job may take away its own log
                with suppress(OSError):
                    longest = max(longest, await self._pass_on_piece(log))
        return longest

    async def _pass_on_piece(self, log: _Log) -> int:
        if log.identifier not in self._logs:
            return 0
        file = await self._files.get(log.path, log.offset)
        data = await file.read(CHUNK)
        log.offset += len(data)
        if data and not await self._take(log.identifier, log.stream, data):
            self._logs.pop(log.identifier, None)
        return len(data)


class _OpenFiles:
    """Log files, opened when they are read first and kept open for the next piece."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[Readable, Close]] = {}
        # Not asyncio's own: a host that is busy with threads of its own delays nothing
        self._executor: ThreadPoolExecutor | None = None

    async def get(self, path: str, offset: int) -> Readable:
        """The open file; its next byte to be read is the one at `offset`. Raises `OSError`."""
        if path not in self._files:
            file, _ = self._files[path] = await self._open(path)
            await file.seek(offset)
            for oldest in list(self._files)[:-OPEN_FILES]:
                await self.close(oldest)
        return self._files[path][0]

    async def _open(self, path: str) -> tuple[Readable, Close]:
        """With aiofiles, and under trio, which aiofiles does not know, with anyio."""
        if not is_asyncio():
            file = await anyio.open_file(path, "rb", buffering=0, opener=open_regular)
            return file, file.aclose
        # Imported here: most runs follow no logs
        import aiofiles

        if self._executor is None:
            self._executor = ThreadPoolExecutor(2, "hermes-logs")
        aiofile = await aiofiles.open(
            path, "rb", buffering=0, opener=open_regular, executor=self._executor
        )
        return aiofile, aiofile.close

    async def close(self, path: str) -> None:
        _, close = self._files.pop(path, (None, None))
        if close is not None:
            await close()

    async def close_all(self) -> None:
        for path in list(self._files):
            await self.close(path)
        if self._executor is not None:
            self._executor.shutdown(wait=False)


def _grown(logs: Iterable[_Log]) -> list[_Log]:
    """Those of the logs that hold more than has been passed on. Blocks."""
    grown = []
    for log in logs:
        with suppress(OSError):
            if os.lstat(log.path).st_size > log.offset:
                grown.append(log)
    return grown
