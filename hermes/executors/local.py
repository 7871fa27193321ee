"""Jobs as processes of this machine: at most `threads` at a time, each from its directory to its final metadata.

    prepare -> start -> wait -> copies -> finish

One worker thread drives all jobs: whatever takes no time, with files or with processes, is done there, the most urgent first. What
may take its time, such as copies, has a task of its own in the event loop, whose blocking part is done in other worker threads. The
driving thread and the event loop's ask each other for what is the other's to do; each has a mailbox.
"""

from __future__ import annotations

import errno
import heapq
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import chain, islice
from typing import TypeVarTuple

import anyio

from ..blocking import Bell, Mailbox, in_thread, shielded
from ..collection.collector import Collector
from ..events import JobStarted
from ..experiments.files import FULL
from ..experiments.provenance import process_start
from ..experiments.store import now
from ..model import Outcome, Status
from .base import Executor, Leftover, Pending, Work
from .finishing import Finished, Finisher, left_behind, write
from .processes import POLL, Ends, Group, LocalProcess, processes_of
from .starting import RECORD_AFTER, Running, Starter, give_up

Ts = TypeVarTuple("Ts")

FINISHING = 256
"""Ended jobs that may wait to be finished before no more are started: the disk sets the pace then."""

TOGETHER = 8
"""Short jobs that are finished in one go while others are to be started: one look at the tree serves them all."""

LOOKING = 0.1
"""Share of the time that may go into looking at the tree for short jobs. In a large one that takes longer than such a job."""

TELLING = 16
"""Calls that the event loop's thread is asked for before it is woken: every change of threads takes as long as writing a file."""

SOON = 0.002
"""Seconds for which they wait for more, when there is nothing else to do."""

RETRY_FOR = 30.0
"""Seconds for which a system that is too busy to start a process is asked again."""


class LocalExecution:
    """Does the work of one run on this machine."""

    cancelling = "stopping: jobs get 10 s to end; once more to kill them"
    killing = "killing the jobs; once more to leave at once"
    left = 0

    def __init__(self, work: Work) -> None:
        self._work = work
        self._plan, self._folder = work.plan, work.folder
        self._scope = anyio.CancelScope()
        self._is_cancelled = False
        self._is_full = False
        # Own limiters: a host that is busy with threads of its own cannot hold up the jobs
        self._file_work = anyio.CapacityLimiter(4)
        self._collector = Collector(
            str(self._plan.working_directory),
            self._folder.experiments,
            self._collected_in_thread,
            self._warn_in_thread,
        )
        self._starter = Starter(self._folder, self._collector)
        self._finisher = Finisher(
            self._folder, self._collector, self._stop, lambda: self._is_cancelled
        )
        self._ends = Ends[Running]()

        # The driving thread's own
        self._driver = Mailbox(self._ends.wake)
        self._todo = chain[Leftover | Pending](work.leftovers, work.pending())
        self._next: deque[Leftover | Pending] = deque()
        """What comes before the rest of `_todo`."""

        self._is_more = True
        self._slots = list(range(min(self._plan.settings.threads, self._plan.count)))
        """Numbers of the slots that are free, a heap."""

        self._ready: Running | None = None
        """A job whose experiment is prepared, to be started when a slot gets free."""

        self._are_short = False
        """Whether jobs are over so soon that it pays to prepare the next one."""

        self._running: dict[str, Running] = {}
        """Jobs with a process that has not been seen to end, by identifier."""

        self._unrecorded: deque[Running] = deque()
        """Those of them whose process the metadata do not tell yet, the oldest first."""

        self._over: list[Running] = []
        """Short jobs that have ended and are to be finished, together if more follow soon."""

        self._look_after = 0.0
        """When the tree may be looked at again for short jobs."""

        self._tasks = 0
        """Tasks that have been asked for and are not over."""

        # The event loop's own
        self._bell = Bell()
        self._loop = Mailbox(self._bell.ring, TELLING)
        self._driven = anyio.Event()
        """Set when the driving thread has come to its end."""

        self._alive: dict[str, list[int]] = {}
        self._long: list[Running] = []
        """What has ended and is to be finished by itself, for that may take its time."""

        self._finished: list[Finished] = []
        self._all_over = False
        self._unwatched = anyio.Event()
        """Set when nobody watches for files any more."""

        self._is_silent = False
        """Whether nobody will ask the event loop's thread any more."""

        self._news = anyio.Event()

    async def run(self) -> None:
        try:
            async with anyio.create_task_group() as services:
                services.start_soon(shielded, self._listen)
                services.start_soon(shielded, self._watch)
                services.start_soon(shielded, self._finish_jobs)
                services.start_soon(shielded, self._drive_in_thread)
                try:
                    with self._scope:
                        await self._see_to_tasks()
                finally:
                    self._loop.do_asked()
                    self._long += self._over
                    self._all_over = True
                    self._news.set()
                    # To end watches takes as long as to finish a job; the final look finds what is made by now
                    self._collector.stop()
        finally:
            self._ends.close()
            self._bell.close()
            self._starter.close()

    def cancel(self) -> None:
        self._is_cancelled = True
        self._scope.cancel()

    def kill(self) -> None:
        self.cancel()
        for running in list(self._running.values()):
            assert running.process is not None
            running.cancelled |= not running.process.has_ended
            running.process.kill()

    # Between the driving thread and the event loop's

    async def _listen(self) -> None:
        while not self._is_silent:
            await self._bell.heard()
            self._loop.do_asked()

    async def _drive_in_thread(self) -> None:
        try:
            if self._work.leftovers:
                self._alive = await in_thread(
                    processes_of, "HERMES_IDENTIFIER", limiter=self._file_work
                )
            await in_thread(self._drive, limiter=anyio.CapacityLimiter(1))
        except BaseException:
            self.cancel()
            raise
        finally:
            self._loop.do_asked()
            self._driven.set()

    async def _see_to_tasks(self) -> None:
        """Waits for the driving thread, and gives tasks a place. What runs is ended if this is cancelled, or if that thread fails."""
        async with anyio.create_task_group() as self._place:
            try:
                await self._driven.wait()
            except anyio.get_cancelled_exc_class():
                self._is_cancelled = True
                self._ends.wake()
                raise
            finally:
                with anyio.CancelScope(shield=True):
                    await self._driven.wait()
                    await self._end_all()

    def _start_task(self, function: Callable[[*Ts], Awaitable[None]], *arguments: *Ts) -> None:
        """Starts what may take its time. Called by the driving thread."""

        async def run() -> None:
            try:
                await function(*arguments)
            finally:
                self._driver.ask(self._task_is_over)

        self._tasks += 1
        self._loop.ask_now(lambda: self._place.start_soon(run))

    def _task_is_over(self) -> None:
        self._tasks -= 1

    # The driving thread

    def _drive(self) -> None:
        try:
            while not self._is_cancelled:
                self._driver.do_asked()
                if (
                    self._finish_over(TOGETHER)
                    or self._begin_next()
                    or self._note_ends(0)
                    or self._record_due()
                    or self._prepare_next()
                    or self._finish_over(1)
                ):
                    continue
                if not (
                    self._running
                    or self._over
                    or self._tasks
                    or self._driver
                    or self._ready
                    or self._upcoming()
                ):
                    break
                self._rest()
        finally:
            self._discard()

    def _upcoming(self) -> Leftover | Pending | None:
        """What is to be begun next."""
        while True:
            if not self._next and self._is_more:
                self._next += islice(self._todo, 1)
                self._is_more = bool(self._next)
            if not self._next:
                return None
            if not (self._is_full and isinstance(self._next[0], Pending)):
                return self._next[0]
            # Not started; but what an earlier runner has left is still to be finished
            self._next.popleft()

    def _begin_next(self) -> bool:
        """Starts the next job if there is a slot for it."""
        if (
            not self._slots
            or len(self._over) + len(self._loop) + len(self._long) + len(self._finished) > FINISHING
        ):
            return False
        running, self._ready = self._ready, None
        if running is None:
            each = self._upcoming()
            if each is None:
                return False
            self._next.popleft()
            if isinstance(each, Leftover):
                self._start_task(self._take_up, each, heapq.heappop(self._slots))
            elif each.job.options.copy_before:
                self._start_task(self._begin_patiently, each, heapq.heappop(self._slots))
            else:
                running = self._prepare(each)
        if running is not None:
            running.slot = heapq.heappop(self._slots)
            if self._starter.start(running):
                self._follow(running)
            else:
                self._start_task(self._start_later, running)
        return True

    def _prepare_next(self) -> bool:
        """Makes the next experiment while jobs run, if those are short: then its job can be started the sooner."""
        each = self._upcoming()
        if (
            self._ready
            or not self._are_short
            or not isinstance(each, Pending)
            or each.job.options.copy_before
        ):
            return False
        self._next.popleft()
        self._ready = self._prepare(each)
        return True

    def _discard(self) -> None:
        """Takes away an experiment that was prepared too early; its job gets another."""
        running, self._ready = self._ready, None
        if running is not None:
            self._starter.discard(running)
            self._next.appendleft(running.todo)

    def _note_ends(self, at_most: float | None) -> bool:
        """Sees which jobs have ended; waits for that up to `at_most` seconds, if there is nothing else to do."""
        # Looked at after the bell was heard for the last time: what comes later rings it again
        ended = self._ends.wait(0 if self._driver or self._is_cancelled else at_most)
        for running in ended:
            assert isinstance(running.process, LocalProcess)
            running.exit = running.process.fetch()
            self._has_ended(running)
            if (
                running.experiment.job.options.copy_after
                or running.experiment.job.options.move_after
            ):
                self._start_task(self._copy_after, running)
            else:
                self._hand_over(running)
        return bool(ended)

    def _record_due(self) -> bool:
        """Records the processes of jobs that have run for some time."""
        due = False
        while self._unrecorded and (
            self._unrecorded[0].exit is not None
            or self._unrecorded[0].began + RECORD_AFTER <= time.monotonic()
        ):
            running = self._unrecorded.popleft()
            if running.exit is None:
                assert running.process is not None
                running.experiment.state["pid_start"] = process_start(running.process.pid)
                write(running.experiment, sync=False)
                due = True
        return due

    def _finish_over(self, at_least: int) -> bool:
        """Finishes the short jobs that have ended, if there are so many."""
        if len(self._over) < at_least or (self._running and time.monotonic() < self._look_after):
            return False
        lingering = [
            running
            for running in self._over
            if running.process is not None and running.process.left_behind()
        ]
        over, self._over = [running for running in self._over if running not in lingering], []
        self._loop.ask(self._take_in, self._finisher.finish(over) if over else [], lingering)
        self._look_after = time.monotonic() + self._collector.look_took / LOOKING
        return True

    def _rest(self) -> None:
        """Waits for whatever comes next."""
        if self._loop:
            if self._note_ends(SOON):
                return
            self._bell.ring()
        moments = [self._unrecorded[0].began + RECORD_AFTER] if self._unrecorded else []
        moments += [self._look_after] if self._over else []
        moments += [self._ready.prepared + RECORD_AFTER] if self._ready else []
        if self._slots and self._upcoming():
            # The disk does not keep up
            moments.append(time.monotonic() + POLL)
        self._note_ends(max(0.0, min(moments) - time.monotonic()) if moments else None)
        if self._ready and self._ready.prepared + RECORD_AFTER <= time.monotonic():
            self._are_short = False
            self._discard()

    def _no_room(self) -> None:
        """Starts nothing more. What runs goes on: it may need no room."""
        self._is_full = True
        self._discard()

    # Beginning

    def _prepare(self, pending: Pending) -> Running | None:
        """Makes the experiment of a job. None if that is not possible; why is told."""
        try:
            return self._starter.prepare(pending)
        except OSError as exc:
            if exc.errno in FULL:
                # The job is just not started
                self._stop()
            else:
                where = f" `{exc.filename}`" if exc.filename else ""
                problem = f"the experiment directory could not be made: {exc.strerror}{where}"
                self._loop.ask(
                    self._take_in,
                    [
                        Finished(
                            pending.index, Outcome.not_begun(pending.job, Status.FAILED, problem)
                        )
                    ],
                    [],
                )
            return None

    def _stop(self) -> None:
        self._loop.ask_now(self._work.stop)
        self._driver.ask(self._no_room)

    async def _begin_patiently(self, pending: Pending, slot: int) -> None:
        """Begins a job for which something is to be copied before."""
        with anyio.CancelScope(shield=True):
            running, is_started = await in_thread(
                self._begin_with_copies, pending, slot, limiter=self._file_work
            )
        if running is None:
            self._driver.ask(heapq.heappush, self._slots, slot)
        elif is_started:
            self._driver.ask(self._follow, running)
        else:
            await self._start_later(running)

    def _begin_with_copies(self, pending: Pending, slot: int) -> tuple[Running | None, bool]:
        running = self._prepare(pending)
        if running is None:
            return None, False
        running.slot = slot
        self._starter.copy_before(running)
        return running, self._starter.start(running)

    async def _start_later(self, running: Running) -> None:
        """Tries again and again to start a job for which the system was too busy."""
        ends, pause, is_started = time.monotonic() + RETRY_FOR, 0.05, False
        try:
            while not is_started and time.monotonic() < ends:
                await anyio.sleep(pause)
                pause = min(1.0, 2 * pause)
                with anyio.CancelScope(shield=True):
                    is_started = await in_thread(
                        self._starter.start, running, limiter=self._file_work
                    )
            if not is_started:
                give_up(running, OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)))
        finally:
            running.experiment.close_logs()
            self._driver.ask(self._follow, running)

    def _follow(self, running: Running) -> None:
        """Follows a job that has been started, or finishes one that could not be."""
        if isinstance(running.process, LocalProcess):
            self._unrecorded.append(running)
            self._ends.add(running.process, running)
            self._announce(running)
        else:
            self._hand_over(running)

    def _announce(self, running: Running) -> None:
        self._running[running.experiment.identifier] = running
        self._loop.ask(self._publish_start, running)

    def _publish_start(self, running: Running) -> None:
        experiment, job, process = running.experiment, running.experiment.job, running.process
        assert process is not None
        self._work.started(
            JobStarted(
                identifier=experiment.identifier, script=job.script, index=running.todo.index, slot=running.slot, pid=process.pid,
                argv=experiment.argv, arguments=job.arguments, directory=experiment.directory,
                line=job.line, log=job.options.log,
            )
        )  # fmt: skip

    # Ending

    def _has_ended(self, running: Running) -> None:
        running.duration = time.monotonic() - running.began
        running.experiment.state["end"] = now()
        self._running.pop(running.experiment.identifier)
        self._are_short = running.duration < RECORD_AFTER

    async def _copy_after(self, running: Running) -> None:
        with anyio.CancelScope(shield=True):
            await in_thread(self._starter.copy_after, running, limiter=self._file_work)
        self._driver.ask(self._hand_over, running)

    def _hand_over(self, running: Running) -> None:
        """Frees the slot of a job that has ended; it is still to be finished."""
        heapq.heappush(self._slots, running.slot)
        if "end" not in running.experiment.state:
            running.experiment.state["end"] = now()
        if running.duration < RECORD_AFTER and not running.adopted:
            # In so little time it cannot have left much to do
            self._over.append(running)
        else:
            self._loop.ask_now(self._take_in, [], [running])

    async def _end_all(self) -> None:
        """Ends what runs, and what tasks that are under way still start. The driving thread has come to its end."""
        known: set[str] = set()
        async with anyio.create_task_group() as ending:
            while True:
                self._driver.do_asked()
                for identifier, running in list(self._running.items()):
                    # Adopted jobs have tasks, which are told too
                    if identifier not in known and not running.adopted:
                        known.add(identifier)
                        ending.start_soon(self._end, running)
                if not self._tasks:
                    break
                await anyio.sleep(POLL)
        self._driver.do_asked()

    async def _end(self, running: Running) -> None:
        process = running.process
        assert process is not None
        # One that has come to its end just now has done so by itself
        running.cancelled |= not process.has_ended
        running.exit = await process.end(self._work.grace)
        self._has_ended(running)
        await self._copy_after(running)

    # Jobs of an earlier runner

    async def _take_up(self, leftover: Leftover, slot: int) -> None:
        """Goes on with a job of an earlier runner. If nobody can tell how it ended it is lost, and run again.

        So is one that failed for lack of room, if failed ones are to be run again.
        """
        with anyio.CancelScope(shield=True):
            running = await in_thread(
                self._starter.adopt, leftover, slot, self._alive, limiter=self._file_work
            )
        if running is None:
            self._driver.ask(self._next.appendleft, self._work.again(leftover))
            self._driver.ask(heapq.heappush, self._slots, slot)
            return
        try:
            if running.process is not None:
                self._driver.ask(self._announce, running)
                await self._wait_for(running, running.process)
            exit_ = running.exit
            again = exit_ is None or (leftover.failed and (exit_.code != 0 or exit_.no_room))
            running.replaced = again or not leftover.again
            if running.replaced and leftover.again:
                self._driver.ask(self._next.appendleft, self._work.again(leftover))
        finally:
            self._driver.ask(self._running.pop, running.experiment.identifier, None)
            if running.process is not None:
                await self._copy_after(running)
            else:
                self._driver.ask(self._hand_over, running)

    async def _wait_for(self, running: Running, process: Group) -> None:
        try:
            running.exit = await process.wait()
        except anyio.get_cancelled_exc_class():
            running.cancelled |= not process.has_ended
            with anyio.CancelScope(shield=True):
                running.exit = await process.end(self._work.grace)
            raise

    # Finishing

    async def _finish_jobs(self) -> None:
        """Publishes what is finished, and finishes what may take its time, all at once that has ended meanwhile."""
        while self._finished or self._long or not self._all_over:
            if not self._finished and not self._long:
                self._news = anyio.Event()
                await self._news.wait()
            finished, self._finished = self._finished, []
            for index, outcome, fresh, replaced in finished:
                if self._work.is_followed:
                    self._collected([(outcome.identifier, path) for path in fresh])
                await self._work.ended(index, outcome, replaced=replaced)
            batch, self._long = self._long, []
            if batch:
                finished = await in_thread(self._finish_patiently, batch, limiter=self._file_work)
                # What was collected before has been told before
                self._loop.do_asked()
                self._finished += finished
        await self._unwatched.wait()
        self._is_silent = True
        self._bell.ring()

    def _take_in(self, finished: list[Finished], long: list[Running]) -> None:
        self._finished += finished
        self._long += long
        self._news.set()

    def _finish_patiently(self, batch: list[Running]) -> list[Finished]:
        return self._finisher.finish(batch, left_behind(batch))

    # Collection

    async def _watch(self) -> None:
        try:
            await in_thread(self._collector.watch, limiter=anyio.CapacityLimiter(1))
        finally:
            self._unwatched.set()

    def _collected_in_thread(self, files: list[tuple[str, str]]) -> None:
        if self._work.is_followed:
            self._loop.ask_now(self._collected, files)

    def _warn_in_thread(self, message: str) -> None:
        self._loop.ask_now(self._work.warn, message)

    def _collected(self, files: list[tuple[str, str]]) -> None:
        for identifier, path in files:
            self._work.collected(identifier, path)


LOCAL = Executor(LocalExecution)
"""This machine."""
