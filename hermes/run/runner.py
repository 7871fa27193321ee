"""Running a plan: which job runs when, and what is told of it. Touches no process and no file of a
job.

slots -> todo -> executor -> events and result
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator
from functools import partial

import anyio

from ..blocking import in_thread
from ..errors import HermesError, escape
from ..events import Event, RunChanged, RunStarted
from ..executors.base import (
    Executor,
    Grace,
    NotBegunError,
    OpenRun,
    Place,
    RunningJob,
    Todo,
    wait_in_time,
)
from ..gpus.finding import Gpus
from ..language.kinds import DURATION
from ..language.plan import Plan
from ..model import FAILED, Outcome, ProblemKind, RunResult
from ..storage.layout import OUTPUT
from ..storage.run_folder import RunFolder
from ..storage.wishes import read_wishes
from .adding import added_to
from .control import Pace, follow_wishes
from .frozen import in_frozen_code
from .gpus import GpuDealer, HeldGpus, dealing
from .keeping import Keeper
from .limits import are_too_many, pause_before_retry
from .news import News
from .notify import GIVING_UP, Notifier
from .options import RunOptions, within_outer
from .slots import HeldSlot, Slots
from .starts import Starts
from .survey import Reason, Survey
from .todos import PENDING, Todos, anew, comes_to_nothing


class Run:
    """A run in progress, as `open_run` gives it. Iterate over it for its events."""

    def __init__(
        self,
        *,
        folder: RunFolder,
        survey: Survey,
        executor: Executor,
        gpus: Gpus | None = None,
        options: RunOptions,
        starts: Starts | None = None,
        is_ending: bool = False,
    ) -> None:
        self.name = folder.name
        self.run_id = folder.run_id
        self.output = f"{folder.folder}/{OUTPUT}"
        """Where a program that goes on without a terminal puts what it prints of this run."""

        self.killing = executor.killing
        """What `kill` does, for people."""

        self.cancelled = is_ending
        """Whether the run was asked to end before its last job was done."""

        self.ended = anyio.Event()
        """Set when all jobs have ended and the last event is published."""

        self.pace = Pace(threads=folder.plan.settings.threads)
        """How many jobs go on at once, and whether more are started."""

        self._folder = folder
        self._survey = survey
        self._starts = starts
        """What other runs of this name start; None if this one repeats what they have done."""

        self._executor = executor
        self._gpus = gpus
        """Those that jobs may use; None if no job needs one, or if another place gives them out."""

        self._timing = options.timing
        self._grace = Grace(within_outer(options.grace_of(self.plan), os.environ))
        grace = DURATION.write(self._grace.seconds)
        self._cancelling = executor.cancelling.replace("{grace}", grace)
        self._options = options
        self._is_ending = is_ending
        self._opening = anyio.CancelScope()
        """Around all; cancelled only while the executor is being opened."""

        self._scope = anyio.CancelScope()
        self._keeper = Keeper(folder, self._passed)
        self._news = News(options.follow_logs, options.timing, self._keeper.take)
        self._notifier = Notifier(self, self._news, options.timing, is_ending=is_ending)
        self._todos = Todos(self.plan, survey, is_ending=is_ending)
        self._place: Place | None = None
        self._slots: Slots | None = None
        self._taking_in = anyio.Lock()
        self._count_ended = 0
        self._count_failed = 0
        """Jobs that have come to their end in this call, and those that have failed for good."""

        self._disk_full = False
        self._too_many_failed = False
        self._replaced: list[str] = []
        self._may_be_alive: list[str] = []
        """Identifiers of experiments of this run that were left alone."""

        self._left = 0
        self.at_work = 0
        """Jobs that are being started, run, or are being finished."""

        self._one_less = anyio.Event()

    # What users call

    def __aiter__(self) -> AsyncIterator[Event]:
        """The events of the run to its end: for the first who asks from its very start, for others
        from now on.
        """
        return self._news.listen()

    @property
    def plan(self) -> Plan:
        """What is executed, with all that was added to it so far."""
        return self._folder.plan

    @property
    def threads(self) -> int:
        """Most jobs at the same time. May be set while the run goes on: more start at once, and of
        those that run too many none is ended.
        """
        return self.pace.threads

    @threads.setter
    def threads(self, most: int) -> None:
        if most < 1:
            raise ValueError("`threads` has to be at least 1")
        self.pace.is_written = False
        self.set_pace(threads=most, is_paused=self.pace.is_paused)

    def pause(self) -> None:
        """Starts nothing more until `continue_`. What runs goes on."""
        self.pace.is_written = False
        self.set_pace(threads=self.threads, is_paused=True)

    def continue_(self) -> None:
        """Starts jobs again after `pause`."""
        self.pace.is_written = False
        self.set_pace(threads=self.threads, is_paused=False)

    async def add(self, file: str | os.PathLike[str]) -> None:
        """Adds the jobs of a hermes file at the end of the run, with the run's settings.

        Raises `HermesError` if the file or its jobs cannot be used; nothing is added then.
        """
        addition, _ = await in_thread(added_to, self.plan, self.name, file, self._folder.folder)
        await in_thread(self._folder.want, addition)
        await self.take_in((await in_thread(read_wishes, self._folder.folder)).count_added)

    def cancel(self, why: str | None = None) -> None:
        """Starts nothing more and ends what runs: SIGTERM to the groups, grace, SIGKILL. What the
        jobs left is collected. With `why`, for people, `notify` sends word of it.

        On a cluster the jobs stay queued or go on; a resumed run follows them again.
        """
        if self._notifier.take_cancel(why):
            # All jobs have ended: there was only a message to be sent
            return
        self.cancelled = True
        (self._opening if self._place is None else self._scope).cancel()

    def kill(self) -> None:
        """As `cancel`, without the grace."""
        self._grace.end_now()
        self._notifier.give_up()
        if self._place is not None:
            self._place.kill()
        self.cancel()

    @property
    def cancelling(self) -> str:
        """What `cancel` does, for people."""
        return GIVING_UP if self._notifier.has_ended else self._cancelling

    @property
    def result(self) -> RunResult:
        """What has come of the run so far; of the whole run once its block is left."""
        return RunResult(
            run_id=self.run_id,
            name=self.name,
            outcomes=tuple(self._news.outcomes),
            cancelled=self.cancelled,
            warnings=(*self.plan.warnings, *self._news.warnings),
            succeeded_before=self._passed(Reason.SUCCEEDED),
            failed_before=self._passed(Reason.FAILED),
            removed_before=self._passed(Reason.REMOVED),
            running_elsewhere=self._passed(Reason.RUNNING),
            may_be_alive=(*self._may_be_alive, *self._todos.left_alone),
            disk_full=self._disk_full,
            too_many_failed=self._too_many_failed,
            left=self._left,
            replaced=tuple(self._replaced),
            forgotten=self._folder.is_forgotten,
        )

    def set_pace(self, *, threads: int, is_paused: bool) -> None:
        """Changes how many jobs go on at once, and whether more are started. Nothing is written."""
        if not self.pace.change(threads=threads, is_paused=is_paused):
            return
        self._folder.set_threads(threads)
        if self._place is not None:
            self._place.set_pace(threads=threads, is_paused=is_paused)
        if self._slots is not None and self._place is not None:
            self._slots.set_most(self._place.window)
        self._tell_change()

    async def take_in(self, count: int) -> None:
        """Takes in the jobs that were added to the run since: there are `count` additions."""
        async with self._taking_in:
            known = len(self.plan.parts) - 1
            if count <= known:
                return
            try:
                parts = await in_thread(self._folder.added_since, known)
            except HermesError as exc:
                self.warn(f"nothing was added: {exc.message}")
                return
            self._folder.add(parts)
            for part in parts:
                self._todos.extend(part)
            self._one_less.set()
            self._tell_change()
            await in_thread(self._folder.mark_taken, known + len(parts))

    def _passed(self, reason: Reason) -> int:
        # Jobs of a large plan are counted as they are passed
        return max(self._survey.counted[reason], self._todos.passed[reason])

    # Which job runs when

    async def execute(self) -> None:
        """Brings all jobs to their ends. Cancelled from outside, ends them before it raises."""
        self._tell_begin()
        try:
            async with anyio.create_task_group() as services:
                services.start_soon(self._news.follow_logs)
                services.start_soon(self._notifier.follow)
                try:
                    if not self._is_ending:
                        await services.start(
                            follow_wishes, self, self._folder, self._timing, self._keeper.write
                        )
                    with self._opening:
                        async with (
                            in_frozen_code(
                                self._folder, self.warn, self._timing, is_ending=self._is_ending
                            ),
                            self._executor.opened(self._open_run()) as place,
                        ):
                            self._place = place
                            if self.pace.is_paused:
                                place.set_pace(threads=self.threads, is_paused=True)
                            with self._scope:
                                await self._run_jobs(place)
                            self._left = place.left
                except anyio.get_cancelled_exc_class():
                    self.cancelled = True
                    raise
                finally:
                    self._news.stop_following()
                await self._notifier.end()
                services.cancel_scope.cancel()
        finally:
            self._news.close(self.result, self.plan.count)
            self.ended.set()

    def _open_run(self) -> OpenRun:
        return OpenRun(
            plan=self.plan,
            folder=self._folder,
            grace=self._grace,
            timing=self._timing,
            is_cancelled=lambda: self.cancelled,
            collected=self._news.collected,
            warn=self.warn,
            queued=self._news.queued,
            follow_files=self._options.follow_files,
            is_ending=self._is_ending,
        )

    async def _run_jobs(self, place: Place) -> None:
        async with dealing(self._folder, self._gpus, self._timing.gpu_poll) as dealer:
            await self._run_all(place, dealer)

    async def _run_all(self, place: Place, dealer: GpuDealer | None) -> None:
        # The next job must not start before it is known whether this one has failed
        slots = Slots(place.window, kept=self.plan.settings.max_failures is not None)
        self._slots = slots
        async with anyio.create_task_group() as jobs:
            while (todo := await self._next()) is not None:
                # Before the task exists: a million jobs stay lazy
                slot = await slots.take()
                await self._until_it_may_start(todo)
                if self._todos.is_closed and not todo.is_taken_up:
                    slot.free()
                    continue
                self.at_work += 1
                jobs.start_soon(self._run_job, place, todo, slot, dealer)

    async def _next(self) -> Todo | None:
        """The next job. Waits while no job is there but may come again; None when all is done."""
        while True:
            # Both before the question: a job may end, and come again, while that is answered
            self._one_less = anyio.Event()
            may_come_again = self.at_work > 0
            blocks = self._todos.may_block
            todo = await in_thread(self._todos.next) if blocks else self._todos.next()
            if todo is PENDING:
                continue
            pause = self._todos.pause
            if todo is not None:
                return todo
            if not (may_come_again or pause < math.inf):
                if await self._is_more_wanted():
                    continue
                return None
            with anyio.move_on_after(pause):
                await self._one_less.wait()

    async def _run_job(
        self, place: Place, todo: Todo, slot: HeldSlot, dealer: GpuDealer | None
    ) -> None:
        """Brings one job to its end. Told in every case, also when the run is cancelled."""
        job: RunningJob | None = None
        try:
            if dealer is not None:
                slot.hold(await self._gpus_for(todo, dealer))
                if self._todos.is_closed and not todo.is_taken_up:
                    return
            if await self._is_taken(todo):
                return
            async with place.job(todo, slot) as job:
                if job.started is not None:
                    self._news.start(job.started)
                if not self._is_ending:
                    await wait_in_time(job)
        except NotBegunError as exc:
            self._not_begun(todo, exc)
        finally:
            if job is not None and job.outcome is not None:
                await self._news.finish_log(job.outcome.identifier)
                self._job_ended(todo, job.outcome)
                if self._starts is not None:
                    with anyio.CancelScope(shield=True):
                        await in_thread(self._starts.end, todo.key, job.outcome.status)
            slot.free()
            self.at_work -= 1
            self._one_less.set()

    async def _until_it_may_start(self, todo: Todo) -> None:
        """Waits while the run is paused. What an earlier runner has begun is not held up."""
        while self.pace.is_paused and not todo.is_taken_up and not self._todos.is_closed:
            await self.pace.wait()

    async def _gpus_for(self, todo: Todo, dealer: GpuDealer) -> HeldGpus:
        while True:
            await self._until_it_may_start(todo)
            held = await dealer.take(todo)
            if not self.pace.is_paused or todo.is_taken_up or self._todos.is_closed:
                return held
            # Paused while it waited for them: others may have them meanwhile
            held.release()

    async def _is_more_wanted(self) -> bool:
        """Whether jobs were added since anybody looked; asked when all others are done."""
        if self._is_ending or self._todos.is_closed:
            return False
        known = self.plan.count
        await self.take_in((await in_thread(read_wishes, self._folder.folder)).count_added)
        return self.plan.count > known

    async def _is_taken(self, todo: Todo) -> bool:
        """Whether another run of this name has started the job since this one has looked."""
        if self._starts is None:
            return False
        if todo.is_taken_up:
            await in_thread(self._starts.go_on, todo.key)
            return False
        reason = await in_thread(self._starts.begin, todo.key)
        if reason is not None:
            self._todos.pass_by(reason)
        return reason is not None

    def _not_begun(self, todo: Todo, error: NotBegunError) -> None:
        if error.problem is None:
            if not self._is_ending:
                self._todos.add_again(anew(todo, was_begun=False))
        elif error.problem.kind is ProblemKind.DISK_FULL:
            # Not started, and to be started by a resumed run: nothing has become of it
            self._disk_is_full()
        else:
            if error.problem.kind is ProblemKind.MAY_BE_ALIVE and todo.leftover is not None:
                self._may_be_alive.append(todo.leftover.metadata.identifier)
            self._news.end(todo.index, Outcome.not_begun(todo.job, error.status, error.problem))

    def _job_ended(self, todo: Todo, outcome: Outcome) -> None:
        is_again = todo.again and comes_to_nothing(todo, outcome) and not self.cancelled
        if is_again:
            self._todos.add_again(anew(todo, was_begun=True))
        if any(problem.kind is ProblemKind.DISK_FULL for problem in outcome.problems):
            self._disk_is_full()
        pause = 0.0 if is_again else self._tried_again_in(todo, outcome)
        is_older = todo.is_taken_up and not self._is_ending and not todo.again
        if is_older or pause is not None:
            self._replaced.append(outcome.identifier)
        self._news.end(todo.index, outcome, pause)
        if pause is None:
            self._count_failures(outcome)

    def _tried_again_in(self, todo: Todo, outcome: Outcome) -> float | None:
        """Has a failed job tried again, after a pause in seconds; None if it is not."""
        is_latest = todo.again or not todo.is_taken_up
        if self.cancelled or self._todos.is_closed or not is_latest:
            return None
        pause = pause_before_retry(todo, outcome.status, self.plan.settings, self._timing)
        if pause is not None:
            self._todos.add_later(anew(todo, was_begun=True, has_failed=True), pause)
        return pause

    def _count_failures(self, outcome: Outcome) -> None:
        self._count_ended += 1
        self._count_failed += outcome.status in FAILED
        limit = self.plan.settings.max_failures
        if are_too_many(self._count_failed, self._count_ended, limit):
            self._too_many_failed = True
            self._start_nothing_more(f"{self._count_failed} failed: nothing more is started")

    def _disk_is_full(self) -> None:
        # What runs goes on: it may need no room
        self._disk_full = True
        where = escape(str(self.plan.experiments))
        self._start_nothing_more(f"the disk of `{where}` is full: nothing more is started")

    def _start_nothing_more(self, why: str) -> None:
        if not self._todos.is_closed:
            self._todos.is_closed = True
            if self._place is not None:
                self._place.start_no_more()
            self.pace.note()
            self.warn(why)
            self._notifier.stops(why)

    def close(self, is_done: bool) -> None:
        """Gives up what belongs to the run alone. Blocks."""
        if self._starts is not None:
            self._starts.close()
        self._keeper.write()
        self._folder.close(done=is_done)

    # What is told

    def warn(self, message: str) -> None:
        """Something that concerns the whole run and harms no result."""
        self._news.warn(message)

    def leave(self) -> None:
        """Nobody iterates in this block any more. Who listens in another task may go on to the end;
        what nobody takes is not kept.
        """
        self._news.leave()

    def _tell_begin(self) -> None:
        where = str(self.plan.experiments)
        begun = partial(RunStarted, run_id=self.run_id, name=self.name, experiments=where)
        self._news.publish(begun(total=self._total, threads=self.threads))
        for message in self._survey.warnings:
            self.warn(message)

    @property
    def _total(self) -> int:
        done = self._survey.counted.total() - self._survey.counted[Reason.TAKEN_UP]
        return self.plan.count - done

    def _tell_change(self) -> None:
        total, pace = self._total, self.pace
        changed = RunChanged(total=total, threads=pace.threads, is_paused=pace.is_paused)
        self._news.publish(changed)
