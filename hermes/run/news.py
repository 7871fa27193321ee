"""What is told of a run: its events, in an order in which they make sense, and pieces of its jobs'
logs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Literal

import anyio

from ..blocking import shielded
from ..events import (
    Event,
    FileCollected,
    JobEnded,
    JobStarted,
    LogChunk,
    QueueChanged,
    RunEnded,
    RunWarning,
)
from ..model import Outcome, RunResult
from ..timing import Timing
from .feed import Feed, Listener
from .logs import Follower, Stream

UNREAD = 32
"""Events that a listener may leave waiting before log chunks, of 64 KiB each, wait for it. Other
events never do."""

FollowLogs = Literal["all", "shown", "none"]
"""Whose output is followed for `LogChunk` events: that of all jobs, of those with `-l false`, or
nobody's."""


class News:
    """What is told of one run, to all who listen."""

    def __init__(
        self, follow_logs: FollowLogs, timing: Timing, keep: Callable[[Event], object]
    ) -> None:
        self.warnings: list[str] = []
        """Those that were told so far."""

        self.outcomes: list[Outcome] = []
        """Of the jobs whose end was told."""

        self.count_started = 0
        """Jobs whose start was told."""

        self._follow_logs = follow_logs
        self._keep = keep
        """Gets all events but those of logs and files."""

        self._timing = timing
        self._feed = Feed()
        self._first_listener: Listener | None = self._feed.listen()
        self._takes_chunks = False
        """Whether somebody iterates over the run, and so takes pieces of logs."""

        self._follower = Follower(self._pass_on)
        self._started: set[str] = set()
        """Jobs of which the start has been told, and not the end."""

        self._early: dict[str, list[str]] = {}
        """Files that were collected before the start of their jobs was told."""

    @property
    def count_running(self) -> int:
        """Jobs whose start was told, and not their end."""
        return len(self._started)

    async def follow_logs(self) -> None:
        """Passes on what jobs print, until `stop_following`."""
        await shielded(self._follower.run)

    def stop_following(self) -> None:
        self._follower.stop()

    def listen(self) -> Listener:
        """The events of the run: for the first who asks from its very start, for others from now
        on.
        """
        self._takes_chunks = True
        listener, self._first_listener = self._first_listener, None
        return listener or self._feed.listen()

    def leave(self) -> None:
        """Nobody begins to listen any more. Who listens already may go on to the end; what nobody
        takes is not kept.
        """
        if not self._takes_chunks:
            self._feed.close()

    def publish(self, event: Event) -> None:
        self._feed.publish(event)
        self._keep(event)

    def warn(self, message: str) -> None:
        self.warnings.append(message)
        self.publish(RunWarning(message=message))

    def start(self, event: JobStarted) -> None:
        self.count_started += 1
        self._started.add(event.identifier)
        follow_logs = self._follow_logs
        if follow_logs == "all" or (follow_logs == "shown" and not event.log):
            self._follower.add(event.identifier, event.directory)
        self.publish(event)
        self._tell_early(event.identifier)

    def collected(self, identifier: str, path: str) -> None:
        if identifier in self._started:
            self._feed.publish(FileCollected(identifier=identifier, path=path))
        else:
            # Quicker than the news of its job's start
            self._early.setdefault(identifier, []).append(path)

    def _tell_early(self, identifier: str) -> None:
        for path in self._early.pop(identifier, ()):
            self._feed.publish(FileCollected(identifier=identifier, path=path))

    async def finish_log(self, identifier: str) -> None:
        """Passes on the rest of what a job has printed, before its end is told."""
        if self._follower.follows(identifier):
            with anyio.CancelScope(shield=True):
                await self._follower.finish(identifier)

    def end(self, index: int, outcome: Outcome, tried_again_in: float | None = None) -> None:
        # Also of jobs whose start was never told
        self._tell_early(outcome.identifier)
        self._started.discard(outcome.identifier)
        self.outcomes.append(outcome)
        self.publish(JobEnded(index=index, outcome=outcome, tried_again_in=tried_again_in))

    def queued(self, pending: int, running: int, reason: str) -> None:
        self.publish(QueueChanged(pending=pending, running=running, reason=reason))

    def close(self, result: RunResult, total: int) -> None:
        """Tells the end of a run of so many jobs."""
        self.publish(
            RunEnded(
                run_id=result.run_id,
                started=self.count_started,
                succeeded=sum(outcome.ok for outcome in result.outcomes),
                cancelled=result.cancelled,
                ok=result.ok,
                counts=result.tally(total),
                go_on=result.go_on,
            )
        )
        self._feed.close()

    async def _pass_on(self, identifier: str, stream: Stream, data: bytes) -> bool:
        """Publishes a piece of a log, and waits for listeners that are behind, so that a fast job
        cannot fill the memory. False if nobody takes more of this job.
        """
        if not self._takes_chunks:
            return self._feed.followed
        self._feed.publish(LogChunk(identifier=identifier, stream=stream, data=data))
        ends, waiting = time.monotonic() + self._timing.slow_reader, math.inf
        while self._feed.waiting > UNREAD:
            if self._feed.waiting < waiting:
                waiting = self._feed.waiting
                ends = time.monotonic() + self._timing.slow_reader
            elif time.monotonic() > ends:
                return False
            await anyio.sleep(0.01)
        return True
