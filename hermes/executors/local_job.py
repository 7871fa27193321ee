"""One job as a process of this machine: what is known of it from its experiment to its end."""

from __future__ import annotations

import math
import time

import anyio
import anyio.lowlevel
import msgspec

from ..blocking import in_thread
from ..events import JobStarted
from ..model import Outcome, Status
from ..storage.metadata import now
from ..storage.provenance import process_start
from ..storage.writer import Experiment
from .base import OpenRun, Todo, time_limit
from .closing import write
from .exits import Exit
from .processes import Group, Launch


class LocalJob(msgspec.Struct, eq=False, kw_only=True):
    """A job between the making of its experiment and its final metadata."""

    run: OpenRun
    threads: anyio.CapacityLimiter
    """For what blocks."""

    todo: Todo
    experiment: Experiment
    launch: Launch | None = None
    """What to start; None if an earlier runner has started the job."""

    process: Group | None = None
    exit: Exit | None = None
    """How the process ended; None before that, and if nobody can tell."""

    memory_kills: int | None = None
    """How many processes the kernel ended for lack of memory while it ran; None if it succeeded, or
    if that is not known."""

    reason: Status | None = None
    started: JobStarted | None = None
    outcome: Outcome | None = None
    is_copied: bool = False
    is_abandoned: bool = False
    """Whether nobody waits for it any more, nor for its files."""

    began: float = msgspec.field(default_factory=time.monotonic)
    ended: float = math.nan
    """By the same clock as `began`."""

    @property
    def is_adopted(self) -> bool:
        return self.todo.leftover is not None

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def time_left(self) -> float:
        limit = time_limit(self.run.plan, self.todo.job)
        start = self.experiment.metadata.start
        if self.is_adopted and start is not None:
            # Only the clock of day was there when it began
            return limit - (now() - start).total_seconds()
        return self.began + limit - time.monotonic()

    def abandon(self) -> None:
        """Kills the job at once, without waiting for anything. A resumed run finishes it."""
        self.is_abandoned = True
        self.experiment.close_logs()
        if self.process is not None and self.exit is None:
            self.process.kill()

    async def wait(self) -> None:
        if self.process is None:
            await anyio.lowlevel.checkpoint()
            return
        pause = math.inf if self.is_adopted else self.run.timing.record_after
        while True:
            with anyio.move_on_after(pause):
                self.exit = await self.process.wait()
                return
            await in_thread(self._record, limiter=self.threads)
            pause = self.run.timing.ask_poll if self.experiment.is_asking else math.inf

    def _record(self) -> None:
        """Writes down which process it is, and what has been told about its start meanwhile."""
        assert self.process is not None
        metadata = self.experiment.metadata
        if self.experiment.take_in() or metadata.pid_start is None:
            metadata.pid_start = process_start(self.process.pid)
            write(self.experiment, sync=False)
