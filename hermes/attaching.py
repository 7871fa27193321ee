"""Looking on at a run that another process executes: `open_attached`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from msgspec.structs import replace

from .blocking import in_thread, shielded
from .errors import HermesError, escape
from .events import (
    Event,
    JobEnded,
    JobStarted,
    LogChunk,
    RunChanged,
    RunEnded,
    RunStanding,
    RunStarted,
)
from .language.plan import Plan
from .run import finding
from .run.finding import FoundRun, Purpose
from .run.logs import Follower, Stream
from .run.standing import Standing
from .storage.kept import KeptReader
from .storage.layout import STDERR, STDOUT
from .storage.run_record import is_locked
from .timing import TIMING, Timing

StrPath = str | os.PathLike[str]

WAITING = 16
"""Events that may wait for a slow reader; then the logs wait on the disk."""


class AttachedRun:
    """A run that another process executes, as `open_attached` gives it. Iterate over it for its
    events: first a `RunStanding` that says where it stands, and then those of the run itself up to
    its end, each with what it had when it was published but for the words of the command."""

    def __init__(self, found: FoundRun, plan: Plan, events: MemoryObjectReceiveStream[Event]):
        self.found = found
        self.plan = plan
        """What is executed, with all that was added to it so far."""

        self.ended: RunEnded | None = None
        """The last event of the run; None while it goes on, and if its runner was killed."""

        self.is_over = False
        """Whether no process executes the run any more."""

        self._events = events

    @property
    def run_id(self) -> str:
        return self.found.run_id

    @property
    def name(self) -> str:
        return self.found.name

    @property
    def cancelled(self) -> bool:
        """Whether the run was ended before its last job was done, as far as it is known here."""
        return self.ended is not None and self.ended.cancelled

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events.__aiter__()


@asynccontextmanager
async def open_attached(
    run: str | FoundRun | None = None,
    *,
    follow_logs: bool = False,
    root: StrPath | None = None,
    working_directory: StrPath | None = None,
    timing: Timing = TIMING,
) -> AsyncIterator[AttachedRun]:
    """Looks on at the latest run of the working directory that is in progress, or at that of the
    name or id `run`, wherever it was started. Leaving the block ends nothing.

    With `follow_logs` there are `LogChunk` events of jobs with `-l false`, from now on. A run that
    nobody executes any more tells where it stands, and how it has ended. Raises `HermesError` if
    there is no such run.
    """
    if not isinstance(run, FoundRun):
        find = partial(finding.find_run, root=root, working_directory=working_directory)
        run = await in_thread(find, run, Purpose.WATCH)
    folder = run.record.folder
    plan = await in_thread(run.record.plan)
    try:
        reader = await in_thread(KeptReader, folder)
    except OSError:
        raise HermesError(
            f"the run `{escape(run.run_id)}` has not told where it stands, or has just ended"
        ) from None
    send, receive = anyio.create_memory_object_stream[Event](WAITING)
    attached = AttachedRun(run, plan, receive)
    watcher = _Watcher(attached, reader, send, timing, follow_logs=follow_logs)
    failure: BaseException | None = None
    try:
        async with send, receive, anyio.create_task_group() as tasks:
            # Not cancelled in the middle of opening a file, which would stay open
            tasks.start_soon(shielded, watcher.follower.run)
            tasks.start_soon(watcher.watch)
            try:
                yield attached
            except (Exception, KeyboardInterrupt, SystemExit) as exc:
                # Raised outside of the group, which would wrap it
                failure = exc
            finally:
                # Nobody takes anything any more, so both end soon
                receive.close()
                watcher.follower.stop()
                tasks.cancel_scope.cancel()
    finally:
        reader.close()
    if failure is not None:
        raise failure


class _Watcher:
    """Passes on what is new in the folder of a run."""

    def __init__(
        self,
        run: AttachedRun,
        reader: KeptReader,
        send: MemoryObjectSendStream[Event],
        timing: Timing,
        *,
        follow_logs: bool,
    ) -> None:
        self._run = run
        self._reader = reader
        self._send = send
        self._timing = timing
        self._follow_logs = follow_logs
        self._has_looked = False
        self.follower = Follower(self._take)

    async def watch(self) -> None:
        """Ends when the run does."""
        async with self._send:
            while True:
                is_over, events = await in_thread(self._look)
                for event in events:
                    await self._pass_on(event)
                if is_over:
                    break
                await anyio.sleep(self._timing.attach_poll)
            self._run.is_over = True
            self.follower.stop()

    def _look(self) -> tuple[bool, list[Event]]:
        # Asked before: what was written until then is read after
        is_led = is_locked(self._run.found.record.folder)
        events = self._reader.read()
        if not self._has_looked:
            self._has_looked, events = True, _summed_up(events)
        has_ended = any(isinstance(event, RunEnded) for event in events[-1:])
        return has_ended or self._reader.is_gone or not is_led, events

    async def _pass_on(self, event: Event) -> None:
        match event:
            case RunStanding():
                self._run.ended = None
                await self._follow(event.running)
            case RunChanged():
                # If that cannot be read any more, it has just ended
                with suppress(HermesError):
                    self._run.plan = await in_thread(self._run.found.record.plan)
            case JobStarted(log=False) if self._follow_logs:
                self.follower.add(event.identifier, event.directory)
            case JobEnded(outcome=outcome) if self.follower.follows(outcome.identifier):
                await self.follower.finish(outcome.identifier)
            case RunStarted():
                self._run.ended = None
            case RunEnded():
                self._run.ended = event
        await self._send.send(event)

    async def _follow(self, running: Iterable[JobStarted]) -> None:
        """Follows jobs behind what they have printed so far."""
        for job in running:
            if self._follow_logs and not job.log and not self.follower.follows(job.identifier):
                starts = await in_thread(_sizes, job.directory)
                self.follower.add(job.identifier, job.directory, starts)

    async def _take(self, identifier: str, stream: Stream, data: bytes) -> bool:
        try:
            await self._send.send(LogChunk(identifier=identifier, stream=stream, data=data))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            # Nobody listens any more
            return False
        return True


def _summed_up(events: list[Event]) -> list[Event]:
    """Where a run stands after all that it has told so far, and its end if it has come to that."""
    standing, stands = Standing(), None
    for event in events:
        standing.take(event)
        stands = event if isinstance(event, RunStanding) else stands
    last = [event for event in events[-1:] if isinstance(event, RunEnded)]
    if stands is None:
        return events
    return [standing.as_event(replace(stands, whole=standing.whole)), *last]


def _sizes(directory: str) -> tuple[int, int]:
    """How many bytes of stdout and of stderr there are."""
    sizes = [0, 0]
    for place, name in enumerate((STDOUT, STDERR)):
        with suppress(OSError):
            sizes[place] = os.stat(f"{directory}/{name}").st_size
    return sizes[0], sizes[1]
