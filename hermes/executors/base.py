"""Where jobs run: the protocol of an executor, which brings one job from its start to its final
metadata.

Which job comes next, how many run at once, what is run again and what is told is decided by the
runner, once for all executors. A new executor is a module with three classes like those below, and
one more parameter of the tests of the contract in `tests/executors/test_contract.py`:

    async with executor.opened(run) as place:
        async with place.job(todo, slot) as job:      # the experiment is made, the process started
            await job.wait()
        job.outcome                                   # ended, collected, final metadata written
"""

from __future__ import annotations

import math
from collections.abc import Callable, Set
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import anyio
import msgspec

from ..events import JobStarted
from ..language.plan import Plan
from ..model import Job, Outcome, Problem, Status
from ..storage.journal import Machine
from ..storage.metadata import Metadata
from ..storage.run_folder import RunFolder
from ..storage.writer import Experiment
from ..timing import Timing


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment that an earlier runner has begun and not finished.

    `machine` is where it was started, `reason` why that runner was ending it; None if that is not
    known.
    """

    directory: str
    metadata: Metadata
    machine: Machine | None = None
    reason: Status | None = None


class Todo(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is to be brought to its end.

    `index` counts the jobs of the plan from 0, `attempt` the starts of this job in this run from 1.
    If it `is_taken_up`, an earlier runner has begun it: then it is waited for, or ended and
    finished, and never started. What is known of it is the experiment `leftover`, or the executor
    knows it by its `key`. `again` says whether the runner starts the job anew if nobody can tell
    how it ended; `rerun_failed` says so for a job that failed. `failures` are the earlier attempts
    that have failed or timed out.
    """

    index: int
    job: Job
    key: str
    attempt: int
    is_taken_up: bool = False
    leftover: Leftover | None = None
    again: bool = False
    rerun_failed: bool = False
    failures: int = 0


class Slot(Protocol):
    """The right to run one job. `number` is HERMES_SLOT: unique among the jobs that run. `gpus` are
    the job's GPUs as CUDA_VISIBLE_DEVICES calls them, None if nobody gives out any."""

    @property
    def number(self) -> int: ...

    @property
    def gpus(self) -> tuple[str, ...] | None: ...

    def release(self) -> None:
        """Gives it back; a second time does nothing."""
        ...


class Grace:
    """How long a job that is ended has between SIGTERM and SIGKILL. `end_now` ends that time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.over = anyio.Event()

    def end_now(self) -> None:
        self.seconds = 0.0
        self.over.set()


class OpenRun(msgspec.Struct, frozen=True, kw_only=True):
    """What an executor is told of the run that it works for. The functions are called in the loop's
    thread.

    `is_ending`: nothing will be started, and what an earlier runner has left is to be ended.
    `is_cancelled`: whether the run is being ended.
    `collected(identifier, path)`: a file came into that job's experiment directory, `path` relative
    to it; may come before the job's start is told. Needed only if `follow_files`. `warn`: something
    that concerns the whole run and harms no result. `queued(pending, running, reason)`: how many
    jobs wait in a queue that is not ours, how many run, and why most wait, in the queue's words.
    """

    plan: Plan
    folder: RunFolder
    grace: Grace
    timing: Timing
    is_cancelled: Callable[[], bool]
    collected: Callable[[str, str], object]
    warn: Callable[[str], object]
    queued: Callable[[int, int, str], object]
    follow_files: bool = True
    is_ending: bool = False


def start_event(todo: Todo, experiment: Experiment, slot: Slot, pid: int) -> JobStarted:
    """What is published when the process of a job exists."""
    job = todo.job
    return JobStarted(
        identifier=experiment.identifier,
        script=job.script,
        index=todo.index,
        slot=slot.number,
        gpus=experiment.metadata.gpus or (),
        pid=pid,
        argv=experiment.argv,
        arguments=job.arguments,
        directory=experiment.directory,
        line=job.line,
        log=job.options.log,
    )


def outcome_of(experiment: Experiment) -> Outcome:
    """How the job of an experiment ended, as its metadata tell."""
    metadata = experiment.metadata
    return Outcome(
        identifier=experiment.identifier,
        script=experiment.job.script,
        directory=experiment.directory,
        status=metadata.status,
        exit_code=metadata.exit_code,
        signal=metadata.signal,
        duration=metadata.duration or 0.0,
        problems=tuple(metadata.problems),
        argv=experiment.argv,
        line=experiment.job.line,
    )


class NotBegunError(Exception):
    """There is no experiment of this job, and there will be none.

    `problem` is why, None if the job is to be started anew: an earlier runner had only prepared it.
    """

    def __init__(self, problem: Problem | None, status: Status = Status.FAILED) -> None:
        super().__init__(problem.text if problem is not None else "never begun")
        self.problem = problem
        self.status = status


class RunningJob(Protocol):
    """A job between the making of its experiment and its final metadata.

    `started` is the event to publish, None if there is no process: the start has failed, or an
    earlier runner's job is over. `outcome` is known when the block of `Place.job` is left: None if
    the job goes on without this process.
    """

    reason: Status | None
    """Why the runner ends the job; set before the block is left while the job still runs."""

    @property
    def started(self) -> JobStarted | None: ...

    @property
    def outcome(self) -> Outcome | None: ...

    @property
    def time_left(self) -> float:
        """Seconds until its time is over; infinite if it has no limit, or one that the other place
        keeps where it runs."""
        ...

    async def wait(self) -> None:
        """Returns when the job's process has ended, whatever others of its group still do."""
        ...


def time_limit(plan: Plan, job: Job) -> float:
    """The longest time of a job in seconds, infinite without one."""
    own = job.options.timeout
    limit = plan.settings.timeout if own is None else own
    return math.inf if limit is None else limit


async def wait_in_time(job: RunningJob) -> None:
    """Waits until a job has ended, or its time is over: then it is to be ended."""
    with anyio.move_on_after(job.time_left) as scope:
        await job.wait()
    if scope.cancelled_caught:
        job.reason = Status.TIMEOUT


class Place(Protocol):
    """An executor at work on one run."""

    @property
    def window(self) -> int:
        """How many jobs may be with it at once: `threads`, or more where jobs wait in another
        queue."""
        ...

    @property
    def left(self) -> int:
        """Jobs that go on without this process once the place is closed."""
        ...

    def job(self, todo: Todo, slot: Slot) -> AbstractAsyncContextManager[RunningJob]:
        """Makes the experiment and starts the job; leaving the block ends it, if it has not ended,
        collects what it left and writes its final metadata; where jobs go on by themselves, being
        cancelled leaves the job alone. Gives the slot back as soon as the next job may start.

        Raises `NotBegunError` on entry if there is no experiment to be had. Errors of the job
        itself are raised by nobody: they are in its outcome.
        """
        ...

    def set_pace(self, *, threads: int, is_paused: bool) -> None:
        """From now on at most `threads` jobs run at the same time, and `window` says so; while
        `is_paused`, jobs that wait in another queue wait on. Never blocks, and ends nothing."""
        ...

    def start_no_more(self) -> None:
        """From now on nothing starts any more. Jobs that wait in another queue are taken back, and
        end with a `NotBegunError` that has no problem. Never blocks, and ends nothing."""
        ...

    def kill(self) -> None:
        """From now on nothing waits any more: not for another program, not for a queue."""
        ...


class Executor(Protocol):
    """A place where jobs can run, known by `name`.

    `is_here` says that jobs run on this machine, so that the runner gives out its GPUs.

    `cancelling` and `killing` tell people what cancelling and killing a run does there; in the
    former `{grace}` stands for the grace.
    """

    @property
    def name(self) -> str: ...

    @property
    def is_here(self) -> bool: ...

    @property
    def cancelling(self) -> str: ...

    @property
    def killing(self) -> str: ...

    async def check(self, plan: Plan) -> None:
        """Raises `HermesError` if a plan cannot be executed there. Nothing is made yet."""
        ...

    async def held(self, folder: RunFolder, *, failed: bool) -> Set[str]:
        """Keys of the jobs of a resumed run that go on without a runner, or have ended unnoticed.

        With `failed`, not those that failed: they are started again. The runner gives each of
        them to `Place.job` as a `Todo` without a leftover.
        """
        ...

    def opened(self, run: OpenRun) -> AbstractAsyncContextManager[Place]: ...
