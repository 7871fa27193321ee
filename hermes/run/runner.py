"""Running a plan: the jobs go to an executor, and what that tells becomes events and a result. Nothing else publishes them."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple

import anyio

from ..blocking import in_thread, shielded
from ..errors import escape
from ..events import (
    Event,
    FileCollected,
    JobEnded,
    JobStarted,
    LogChunk,
    QueueChanged,
    RunEnded,
    RunStarted,
    RunWarning,
)
from ..executors.base import Executor, Leftover, Pending
from ..experiments.records import STOP
from ..experiments.store import RunFolder
from ..language.keys import Keys
from ..language.plan import Plan
from ..model import Outcome, RunResult
from .feed import Feed, Listener
from .logs import Follower, Stream
from .resume import Survey

GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL for the jobs of a cancelled run."""

UNREAD = 32
"""Events that a listener may leave waiting before log chunks, of 64 KiB each, wait for it; other events never do."""

PATIENCE = 5.0
"""Seconds after which a listener that takes nothing gets no more log chunks of a job."""

HEED = 0.5
"""Seconds between two looks at whether `hermes stop` was called."""

STOPPING = 30.0
"""Seconds, beyond the grace of its jobs, that a process gets to end its run when it is told to."""

FollowLogs = Literal["all", "shown", "none"]
"""Whose output is followed for `LogChunk` events: that of all jobs, of those with `-l false`, or nobody's."""


class Follow(NamedTuple):
    """What of a run is told beside the states of its jobs: pieces of logs, and files that have been collected."""

    logs: FollowLogs
    files: bool


def _do_nothing() -> None:
    """What happens where nobody waits for the leftovers."""


class _Work:
    """Hands the jobs of a run to its executor, and makes events and a result of what that tells."""

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        survey: Survey,
        *,
        grace: float,
        follow: Follow,
        is_ending: bool = False,
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.grace = grace
        self.feed = Feed()
        self.follower = Follower(self._chunk)
        self.outcomes: list[Outcome] = []
        self.replaced: list[str] = []
        self.warnings: list[str] = list(plan.warnings)
        self.cancelled = False
        self.stopped = False
        self.left = 0
        self.takes_chunks = False
        """Whether somebody iterates over the run, and so takes pieces of logs."""

        self.is_ending = is_ending
        """Whether nothing is to be started, and what runs is to be ended."""

        self.awaited: set[str] = set()
        """Leftovers of which it is not known yet whether they still run."""

        self.on_known: Callable[[], None] = _do_nothing
        self._survey = survey
        self._follow = follow
        self._number_started = 0
        self._running: set[str] = set()
        self._early: dict[str, list[str]] = {}

    @property
    def leftovers(self) -> Sequence[Leftover]:
        return self._survey.leftovers

    @property
    def is_followed(self) -> bool:
        return self._follow.files and self.feed.followed

    def pending(self) -> Iterator[Pending]:
        if self.is_ending:
            return
        keys = Keys()
        for index, job in enumerate(self.plan.jobs):
            key = keys.key(job)
            if key not in self._survey.settled:
                if self.stopped:
                    return
                yield Pending(index, job, key, self._survey.attempts.get(key, 0) + 1)

    def again(self, leftover: Leftover) -> Pending:
        key = leftover.metadata["key"]
        return Pending(leftover.index, leftover.job, key, self._survey.attempts[key] + 1)

    # What the executor tells

    def started(self, event: JobStarted) -> None:
        self._number_started += 1
        self._running.add(event.identifier)
        if self._follow.logs == "all" or (self._follow.logs == "shown" and not event.log):
            self.follower.add(event.identifier, event.directory)
        self.feed.publish(event)
        for path in self._early.pop(event.identifier, ()):
            self.collected(event.identifier, path)
        self._know(event.identifier)

    def _know(self, identifier: str) -> None:
        if identifier in self.awaited:
            self.awaited.discard(identifier)
            if not self.awaited:
                self.on_known()

    def collected(self, identifier: str, path: str) -> None:
        if identifier in self._running:
            self.feed.publish(FileCollected(identifier=identifier, path=path))
        else:
            # Quicker than the news of its job's start
            self._early.setdefault(identifier, []).append(path)

    async def ended(self, index: int, outcome: Outcome, *, replaced: bool = False) -> None:
        # Also those that were never announced as started
        self._running.add(outcome.identifier)
        await self.follower.finish(outcome.identifier)
        for path in self._early.pop(outcome.identifier, ()):
            self.collected(outcome.identifier, path)
        self._running.discard(outcome.identifier)
        self.outcomes.append(outcome)
        if replaced and not self.is_ending:
            self.replaced.append(outcome.identifier)
        self.feed.publish(JobEnded(index=index, outcome=outcome))
        self._know(outcome.identifier)

    def warn(self, message: str) -> None:
        self.warnings.append(message)
        self.feed.publish(RunWarning(message=message))

    def stop(self) -> None:
        # What runs goes on: it may need no room
        if not self.stopped:
            self.stopped = True
            self.warn(
                f"the disk of `{escape(str(self.plan.experiments))}` is full: nothing more is started"
            )

    def queued(self, pending: int, running: int, reason: str) -> None:
        self.feed.publish(QueueChanged(pending=pending, running=running, reason=reason))

    # The run's own

    def begin(self) -> None:
        self.feed.publish(
            RunStarted(
                run_id=self.folder.run_id, name=self.folder.name, threads=self.plan.settings.threads,
                total=self.plan.count - self._survey.succeeded - self._survey.failed, experiments=str(self.plan.experiments),
            )
        )  # fmt: skip

    def end(self) -> None:
        succeeded = sum(outcome.ok for outcome in self.outcomes)
        self.feed.publish(
            RunEnded(
                run_id=self.folder.run_id,
                started=self._number_started,
                succeeded=succeeded,
                cancelled=self.cancelled,
            )
        )
        self.feed.close()

    @property
    def result(self) -> RunResult:
        return RunResult(
            self.folder.run_id, self.folder.name, tuple(self.outcomes), self.cancelled, tuple(self.warnings), self._survey.succeeded,
            self._survey.failed, self.stopped, self.left, tuple(self.replaced),
        )  # fmt: skip

    async def _chunk(self, identifier: str, stream: Stream, data: bytes) -> bool:
        """Publishes a piece of a log, and waits for listeners that are behind, so that a fast job cannot fill the memory."""
        if not self.takes_chunks:
            return self.feed.followed
        self.feed.publish(LogChunk(identifier=identifier, stream=stream, data=data))
        ends, waiting = time.monotonic() + PATIENCE, math.inf
        while self.feed.waiting > UNREAD:
            if self.feed.waiting < waiting:
                ends, waiting = time.monotonic() + PATIENCE, self.feed.waiting
            elif time.monotonic() > ends:
                return False
            await anyio.sleep(0.01)
        return True


class Run:
    """A run in progress, as `open_run` gives it. Iterate over it for its events."""

    def __init__(self, work: _Work, executor: Executor) -> None:
        self.plan = work.plan
        self.name = work.folder.name
        self.run_id = work.folder.run_id
        self.ended = anyio.Event()
        """Set when all jobs have ended and the last event is published."""

        self._work = work
        self._execution = executor.execution(work)
        self._events: Listener | None = work.feed.listen()

    def __aiter__(self) -> AsyncIterator[Event]:
        """The events of the run to its end: for the first who asks from its very start, for others from now on."""
        self._work.takes_chunks = True
        events, self._events = self._events, None
        return events or self._work.feed.listen()

    def cancel(self) -> None:
        """Starts nothing more and ends what runs: SIGTERM to the groups, grace, SIGKILL. What the jobs left is collected.

        On a cluster the jobs stay queued or go on; a resumed run follows them again.
        """
        self._work.cancelled = True
        self._execution.cancel()

    def kill(self) -> None:
        """As `cancel`, without the grace."""
        self._work.cancelled = True
        # For jobs that are just being started
        self._work.grace = 0.0
        self._execution.kill()

    @property
    def cancelling(self) -> str:
        """What `cancel` does, for people."""
        return self._execution.cancelling

    @property
    def killing(self) -> str:
        """What `kill` does, for people."""
        return self._execution.killing

    @property
    def cancelled(self) -> bool:
        """Whether the run was told to end before its last job was done."""
        return self._work.cancelled

    @property
    def result(self) -> RunResult:
        """What has come of the run so far; of the whole run once its block is left."""
        return self._work.result

    async def _execute(self) -> None:
        work = self._work
        work.begin()
        over = threading.Event()
        try:
            async with anyio.create_task_group() as services:
                services.start_soon(shielded, work.follower.run)
                if not work.is_ending:
                    services.start_soon(self._heed, over)
                try:
                    await self._execution.run()
                except anyio.get_cancelled_exc_class():
                    work.cancelled = True
                    raise
                finally:
                    over.set()
                    work.left = self._execution.left
                    work.follower.stop()
                # Only what listens for `hermes stop` may still wait
                services.cancel_scope.cancel()
        finally:
            work.end()
            self.ended.set()

    def _end_leftovers(self) -> None:
        """Ends the jobs of an earlier process once all are taken up, or found to have ended."""
        self._work.awaited = {leftover.metadata["identifier"] for leftover in self._work.leftovers}
        self._work.on_known = self._execution.cancel

    async def _heed(self, over: threading.Event) -> None:
        """Cancels the run when `hermes stop` asks for that: by a file, which works on every machine and in every program.

        One thread looks for it all the time: to call one for every look would wake up the event loop, too, which costs five times as much.
        """
        await anyio.sleep(HEED)
        if (
            await in_thread(self._is_told_to_stop, over, limiter=anyio.CapacityLimiter(1))
            and not over.is_set()
        ):
            self._work.warn("stopped by `hermes stop`")
            self.cancel()

    def _is_told_to_stop(self, over: threading.Event) -> bool:
        """Whether that happens before the run is over. Blocks until then."""
        while not over.wait(HEED):
            if not self.cancelled and os.path.exists(f"{self._work.folder.folder}/{STOP}"):
                return True
        return False

    def _leave(self) -> None:
        """Whoever listens in another task may go on to the end; what nobody takes is not kept."""
        if not self._work.takes_chunks:
            self._work.feed.close()


@asynccontextmanager
async def running(
    folder: RunFolder,
    survey: Survey,
    executor: Executor,
    grace: float,
    follow: Follow,
    *,
    is_ending: bool = False,
) -> AsyncIterator[Run]:
    plan, done = folder.plan, False
    try:
        if is_ending:
            # All that runs has to be known before it is ended
            threads = max(plan.settings.threads, len(survey.leftovers))
            plan = replace(plan, settings=replace(plan.settings, threads=threads))
        work = _Work(plan, folder, survey, grace=grace, follow=follow, is_ending=is_ending)
        work.cancelled = is_ending
        run = Run(work, executor)
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run._execute)
            try:
                yield run
            except Exception as exc:
                # Raised outside of the group, which would wrap it
                failure = exc
                run.cancel()
            finally:
                run._leave()
        done = run.result.ok
        if failure is not None:
            raise failure
    finally:
        with anyio.CancelScope(shield=True):
            await in_thread(partial(folder.close, done=done))
