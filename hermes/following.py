"""Following what jobs print, whoever executes them: `follow_logs`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from .blocking import in_thread, shielded
from .errors import HermesError
from .events import LogChunk
from .model import Status
from .query.reading import metadata_of
from .run.alive import Look, State
from .run.logs import Follower, Stream
from .storage.query import Experiment

POLL = 0.25
"""Seconds between two looks whether the jobs have ended. The list of all processes is needed only
for those whose run nobody executes."""

WAITING = 16
"""Chunks that may wait for a slow reader; then the logs wait on the disk."""


@asynccontextmanager
async def follow_logs(
    found: Iterable[Experiment], starts: Mapping[str, tuple[int, int]] | None = None
) -> AsyncIterator[AsyncIterator[LogChunk]]:
    """What the jobs of these experiments print, as it comes, until they have ended.

        async with hermes.follow_logs(hermes.experiments("status = running")) as chunks:
            async for chunk in chunks:
                print(chunk.identifier, chunk.stream, chunk.data)

    They may be those of any process; one that has ended gives what it has printed. `starts` are the
    bytes of stdout and of stderr, by identifier, that are passed over.
    """
    send, receive = anyio.create_memory_object_stream[LogChunk](WAITING)
    left = {str(each.directory): each.identifier for each in found}
    follower = Follower(partial(_take, send))
    for directory, identifier in left.items():
        follower.add(identifier, directory, (starts or {}).get(identifier, (0, 0)))
    is_left = anyio.Event()
    async with send, receive, anyio.create_task_group() as tasks:
        # Not cancelled in the middle of opening a file, which would stay open
        tasks.start_soon(shielded, follower.run)
        tasks.start_soon(shielded, partial(_watch, left, follower, send, is_left))
        try:
            yield receive
        finally:
            # Nobody takes anything any more, so both end soon
            receive.close()
            is_left.set()


async def _take(
    send: MemoryObjectSendStream[LogChunk], identifier: str, stream: Stream, data: bytes
) -> bool:
    try:
        await send.send(LogChunk(identifier=identifier, stream=stream, data=data))
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        # Nobody listens any more
        return False
    return True


async def _watch(
    left: dict[str, str],
    follower: Follower,
    send: MemoryObjectSendStream[LogChunk],
    is_left: anyio.Event,
) -> None:
    """Ends the following of jobs that have ended, and at last all of it."""
    while left and not is_left.is_set():
        for directory in await in_thread(_ended, list(left)):
            # Nothing more comes after its end, so what is there now is all
            await follower.finish(left.pop(directory))
        if left:
            with anyio.move_on_after(POLL):
                await is_left.wait()
    follower.stop()
    await send.aclose()


def _ended(directories: Iterable[str]) -> list[str]:
    """Those of the experiments whose jobs run no more. Blocks."""
    look = Look()
    return [each for each in directories if not _runs(look, each)]


def _runs(look: Look, directory: str) -> bool:
    try:
        metadata = metadata_of(directory)
    except HermesError:
        # Removed meanwhile
        return False
    # What has outlived its job is not waited for
    is_open = metadata.status is Status.RUNNING
    return is_open and look.at(directory, metadata).state is not State.LEFT
