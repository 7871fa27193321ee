"""Jobs on the Slurm cluster whose commands are on PATH. One job is one task of a job array.

Nodes tell what happens by files, see `tasks`. Slurm itself is asked only about tasks of which no
file tells enough. Four services do the work for all jobs of a run: they submit, ask, follow and
finish.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager, suppress
from functools import partial

import anyio
import anyio.lowlevel
import msgspec

from ...blocking import in_thread
from ...errors import HermesError, escape
from ...events import JobStarted
from ...language.plan import Plan
from ...model import Outcome, Status
from ...storage.metadata import amend
from ...storage.run_folder import RunFolder
from ..base import NotBegunError, OpenRun, RunningJob, Slot, Todo
from .asking import Asker
from .commands import Commands, Limits, NoAnswerError, require_slurm
from .finishing import Finisher
from .following import Follower
from .open_tasks import OpenTask, OpenTasks
from .pacing import Pacer
from .states import timed_out
from .submitting import Submitter
from .tasks import Submission, Task, TaskFolder, held

WINDOW = 5000
"""Most tasks that are submitted at the same time; half of what the cluster takes if that is
less."""

THREADS = 4
"""Worker threads for files and commands. They are Hermes' own: a busy host delays nothing."""

LEAVING = 1.0
"""Seconds that a command may take to end when the run is left. One that is killed while it
submits may have done so: whoever resumes the run finds out."""


class SlurmExecutor:
    """A Slurm cluster."""

    name = "slurm"
    is_here = False
    cancelling = (
        "leaving: the jobs stay with Slurm; `hermes resume` follows them again,"
        " `hermes stop` ends them"
    )
    killing = "leaving at once"

    async def check(self, plan: Plan) -> None:
        """Raises `HermesError` if Slurm would refuse a job of the plan."""
        commands = Commands()
        await in_thread(_check, plan, commands, abandon=commands.abandon)

    async def held(self, folder: RunFolder, *, failed: bool) -> Set[str]:
        """Keys of the jobs that are with Slurm, or have ended there and nobody was told."""
        await in_thread(require_slurm)
        return await in_thread(partial(held, TaskFolder(folder.folder), failed=failed))

    @asynccontextmanager
    async def opened(self, run: OpenRun) -> AsyncIterator[SlurmPlace]:
        place = await SlurmPlace.load(run)
        failure: Exception | None = None
        async with anyio.create_task_group() as services:
            services.start_soon(place.serve)
            try:
                yield place
            except Exception as exc:
                # Raised outside of the group, which would wrap it
                failure = exc
            finally:
                with anyio.CancelScope(shield=True):
                    await place.close()
        if failure is not None:
            raise failure


SLURM = SlurmExecutor()


def _check(plan: Plan, commands: Commands) -> None:
    require_slurm()
    for amount, line in plan.gpu_amounts():
        if amount.denominator != 1:
            raise HermesError(
                f"{plan.source_line(line)}: on Slurm a job cannot have {amount} of a GPU",
                hint="write `-g 1`, or how your cluster shares them into `slurm`",
            )
    for words, line in plan.sbatch_options():
        try:
            said = commands.test(words)
        except NoAnswerError as exc:
            raise HermesError(
                f"Slurm does not answer: {exc}",
                hint="`sinfo` and `scontrol ping` tell whether the cluster is there",
            ) from None
        if said is not None:
            options = f"`{escape(shlex.join(words))}`" if words else "jobs without options"
            raise HermesError(
                f"Slurm refuses {options}: {said}",
                hint=f"the job of line {line} has these options of `sbatch`",
            )


class SlurmJob(msgspec.Struct, eq=False):
    """A job that is with Slurm."""

    todo: Todo
    task: OpenTask
    reason: Status | None = None
    outcome: Outcome | None = None
    time_left = math.inf
    """Kept by the node, where the job waits for nothing."""

    @property
    def started(self) -> JobStarted | None:
        return self.task.event

    async def wait(self) -> None:
        await self.task.over.wait()


class FinishedJob(msgspec.Struct, eq=False):
    """A job that was over before anybody could follow it."""

    outcome: Outcome | None
    reason: Status | None = None
    started: JobStarted | None = None
    time_left = math.inf

    async def wait(self) -> None:
        await anyio.lowlevel.checkpoint()


class SlurmPlace:
    """A cluster at work on one run."""

    def __init__(
        self,
        *,
        run: OpenRun,
        folder: TaskFolder,
        commands: Commands,
        limits: Limits,
        tasks: OpenTasks,
        threads: anyio.CapacityLimiter,
    ) -> None:
        self.window = max(1, min(WINDOW, limits.jobs // 2))
        self._run = run
        self._folder = folder
        self._commands = commands
        self._tasks = tasks
        self._threads = threads
        self._finisher = Finisher(run)
        self._asker = Asker(run=run, commands=commands, tasks=tasks, threads=threads)
        self._pacer = Pacer(
            run=run,
            commands=commands,
            tasks=tasks,
            threads=threads,
            on_taken_back=self._asker.begin_anew,
        )
        self._submitter = Submitter(
            run=run,
            folder=folder,
            commands=commands,
            limits=limits,
            tasks=tasks,
            threads=threads,
            pacer=self._pacer,
            on_accepted=self._asker.begin_anew,
        )
        self._follower = Follower(
            run=run,
            folder=folder,
            commands=commands,
            tasks=tasks,
            submitter=self._submitter,
            pacer=self._pacer,
            finisher=self._finisher,
            threads=threads,
        )
        self._services = anyio.CancelScope(shield=True)
        """They end when the place is closed, not when the run is cancelled."""

        self._cancelling = anyio.CapacityLimiter(1)
        """Of calls for single jobs: many that hang must not keep all threads from the files."""

        self._served = anyio.Event()

    @classmethod
    async def load(cls, run: OpenRun) -> SlurmPlace:
        """Reads what earlier clients have submitted, and what the cluster takes.

        Raises `HermesError` without Slurm, and if the tasks cannot be read.
        """
        threads = anyio.CapacityLimiter(THREADS)
        folder, commands = TaskFolder(run.folder.folder), Commands()
        limits = await in_thread(commands.limits, limiter=threads, abandon=commands.abandon)
        submissions, earlier, names = await in_thread(_what_is_there, folder, limiter=threads)
        tasks = OpenTasks(submissions, earlier)
        for number in tasks.numbers:
            if f"{number}.job" in names or tasks.submissions[number].is_claimed(names):
                # Without their ids, which a controller that has forgotten them gives to others
                tasks.arrays[number] = set()
        return cls(
            run=run,
            folder=folder,
            commands=commands,
            limits=limits,
            tasks=tasks,
            threads=threads,
        )

    @property
    def left(self) -> int:
        return len(self._tasks)

    async def serve(self) -> None:
        """Submits, asks, follows and finishes, until the place is closed."""
        try:
            with self._services:
                async with anyio.create_task_group() as services:
                    services.start_soon(self._submitter.serve)
                    services.start_soon(self._pacer.serve)
                    for each in (self._asker, self._follower, self._finisher):
                        services.start_soon(each.serve)
        finally:
            self._served.set()

    async def close(self) -> None:
        self._services.cancel()
        with anyio.move_on_after(LEAVING):
            await self._served.wait()
        self._commands.abandon()

    def set_pace(self, *, threads: int, is_paused: bool) -> None:
        self._pacer.set(threads=threads, is_paused=is_paused)

    def start_no_more(self) -> None:
        self._pacer.take_back()
        self._submitter.take_back()

    def kill(self) -> None:
        self._commands.abandon()
        self._services.cancel()

    @asynccontextmanager
    async def job(self, todo: Todo, slot: Slot) -> AsyncIterator[RunningJob]:
        try:
            if todo.leftover is not None:
                yield await self._finish(todo)
                return
            task = await self._task_of(todo)
            try:
                await task.begun.wait()
                if isinstance(task.end, NotBegunError):
                    raise task.end
                job = SlurmJob(todo, task)
                try:
                    yield job
                finally:
                    job.outcome = await self._outcome_of(job)
            finally:
                with anyio.CancelScope(shield=True):
                    await self._let_go(task)
        finally:
            slot.release()

    async def _finish(self, todo: Todo) -> FinishedJob:
        """Finishes an experiment of the run that is no open task's."""
        finished = await self._finisher.finish(todo)
        if self._run.follow_files:
            for path in finished.collected:
                self._run.collected(finished.outcome.identifier, path)
        return FinishedJob(finished.outcome)

    async def _task_of(self, todo: Todo) -> OpenTask:
        """The task of a job: that of an earlier client, or a new one."""
        task = self._tasks.follow(todo)
        if task is not None:
            return task
        if todo.is_taken_up:
            # There is nothing of it any more
            raise NotBegunError(None)
        return await self._submitter.submit(todo)

    async def _outcome_of(self, job: SlurmJob) -> Outcome | None:
        """How a job has ended that the runner leaves, None if it goes on.

        If it is to be ended that is waited for, unless the run is cancelled.
        """
        is_late = job.reason is Status.TIMEOUT
        if not job.task.over.is_set() and (is_late or self._run.is_ending):
            if not self._run.is_ending:
                await self._cancel(job.task)
            await job.task.over.wait()
        end = job.task.end
        if isinstance(end, NotBegunError):
            problems = [end.problem] if end.problem is not None else []
            return Outcome.not_begun(job.todo.job, end.status, *problems)
        if end is None or not is_late or timed_out(end) == end:
            return end
        end = timed_out(end)
        if end.directory is not None:
            with anyio.CancelScope(shield=True), suppress(OSError, HermesError):
                await in_thread(
                    amend, end.directory, end.status, end.problems, limiter=self._threads
                )
        return end

    async def _cancel(self, task: OpenTask) -> None:
        """Has Slurm end one task that a node has begun."""
        while not task.over.is_set():
            # By the node's own word: an array's id may be that of another job by now
            job = await in_thread(self._folder.claimed_by, task.task, limiter=self._threads)
            if job is not None:
                commands = Commands()
                with suppress(NoAnswerError):
                    await in_thread(
                        commands.cancel_tasks,
                        [job],
                        limiter=self._cancelling,
                        abandon=commands.abandon,
                    )
                    return
            await anyio.sleep(self._run.timing.slurm_first_ask)

    async def _let_go(self, task: OpenTask) -> None:
        """Nobody follows a task any more."""
        task.todo = None
        if task.end is not None:
            self._tasks.remove(task)
            await in_thread(self._folder.mark_told, task.task, task.end, limiter=self._threads)


def _what_is_there(folder: TaskFolder) -> tuple[list[Submission], list[Task], set[str]]:
    return list(folder.submissions()), list(folder.open_tasks()), folder.names()
