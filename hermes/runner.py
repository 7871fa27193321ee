"""Running a plan: the jobs go to an executor, and what that tells becomes events and a result. Nothing else publishes them."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import anyio

from .errors import HermesError, escape
from .events import Event, Feed, FileCollected, JobEnded, JobStarted, Listener, LogChunk, QueueChanged, RunEnded, RunStarted, RunWarning
from .executors import Executor, Pending
from .executors.local import LOCAL
from .logs import Follower, Stream
from .model import Keys, Outcome
from .plan import Plan, compile_file
from .records import STOP, Record, unfinished
from .resume import Leftover, Survey, survey_name, survey_run
from .settings import find_root, layered
from .store import RunFolder
from .syntax import Source
from .threads import in_thread, shielded

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


@dataclass(frozen=True, slots=True)
class RunResult:
    """What came of a run. `outcomes` are in the order in which the jobs ended."""

    run_id: str
    name: str
    outcomes: Sequence[Outcome]
    cancelled: bool
    warnings: tuple[str, ...]
    succeeded_before: int = 0
    """Jobs that were not started because they had succeeded before, in a resumed run."""

    failed_before: int = 0
    """Jobs that had failed before and were not started again, in a resumed run."""

    stopped: bool = False
    """Whether nothing more was started because the disk was full."""

    left: int = 0
    """Jobs that are with the cluster, queued or running, when the run was left."""

    replaced: tuple[str, ...] = ()
    """Identifiers of experiments that an earlier runner left unfinished and that came to nothing: their jobs were run again."""

    @property
    def ok(self) -> bool:
        """Whether all jobs ran and succeeded, without problems. A job that was lost and succeeded when it was run again did."""
        is_whole = not self.cancelled and not self.stopped and not self.failed_before
        return is_whole and all(outcome.ok for outcome in self.final)

    @property
    def final(self) -> list[Outcome]:
        """The outcomes of the jobs, without those that another has replaced."""
        return [outcome for outcome in self.outcomes if outcome.identifier not in self.replaced]

    @property
    def failures(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if not outcome.ok]


def _do_nothing() -> None:
    """What happens where nobody waits for the leftovers."""


class _Work:
    """Hands the jobs of a run to its executor, and makes events and a result of what that tells."""

    def __init__(self, plan: Plan, folder: RunFolder, survey: Survey, *, grace: float, follow: Follow, is_ending: bool = False) -> None:
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
            self.warn(f"the disk of `{escape(str(self.plan.experiments))}` is full: nothing more is started")

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
        self.feed.publish(RunEnded(run_id=self.folder.run_id, started=self._number_started, succeeded=succeeded, cancelled=self.cancelled))
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
        if await in_thread(self._is_told_to_stop, over, limiter=anyio.CapacityLimiter(1)) and not over.is_set():
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
async def open_run(
    file: str | os.PathLike[str] | Plan,
    name: str | None = None,
    *,
    threads: int | None = None,
    root: str | os.PathLike[str] | None = None,
    working_directory: str | os.PathLike[str] | None = None,
    comments: Sequence[str] = (),
    executor: Executor | str | None = None,
    grace: float = GRACE,
    follow_logs: FollowLogs = "all",
    follow_files: bool = True,
    only_missing: bool = False,
) -> AsyncIterator[Run]:
    """Executes a hermes file, or a plan, while the block runs; iterate over the run for its events.

    `name` groups the experiments; by default it is the file's stem. `threads`, `root`, `working_directory` and `comments` are as
    for `compile_file`, and are not used for a plan. With `only_missing`, jobs that have succeeded under this name already, in
    whatever run, are not started; they are told by their keys. `follow_logs` says which `LogChunk` events there are, `follow_files`
    whether there are `FileCollected` events, of which a job can cause very many. Leaving the block waits for the jobs; leaving it by an
    exception, or being cancelled, ends them first: SIGTERM to each process group, `grace` seconds, SIGKILL, and what they left is
    collected. `executor` is where jobs run: the name of a setting, or an executor of your own; by default what the settings say.

    Raises `HermesError` before anything is started if the file, the plan or the folder for experiments cannot be used.
    """
    place = executor if isinstance(executor, str) else None
    if isinstance(file, Plan):
        plan = file if place is None else file.at(place)
    else:
        options = partial(compile_file, working_directory=working_directory, root=root, comments=comments, threads=threads, executor=place)
        plan = await in_thread(options, file)
    name = plan.default_name if name is None else name
    executor = executor if isinstance(executor, Executor) else _executor_of(plan)
    await in_thread(plan.check, name)
    await in_thread(executor.check, plan)
    survey = await in_thread(survey_name, plan, name) if only_missing else Survey()
    folder = await in_thread(RunFolder.create, plan, name)
    async with _running(folder, survey, executor, grace, Follow(follow_logs, follow_files)) as run:
        yield run


@asynccontextmanager
async def open_resumed(
    run: str | None = None,
    *,
    failed: bool = False,
    root: str | os.PathLike[str] | None = None,
    working_directory: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    grace: float = GRACE,
    follow_logs: FollowLogs = "all",
    follow_files: bool = True,
) -> AsyncIterator[Run]:
    """Takes up the latest unfinished run of the working directory, or that of the name or id `run`, while the block runs.

    Jobs that are still alive are adopted and waited for; jobs that ended while nobody watched are finished with their true exit
    status, their files collected; jobs of which nobody can tell how they ended are lost, and run again like those that were cancelled or
    never started. What succeeded is not repeated; what failed only with `failed`. The plan and the settings are those with which the run
    began. Raises `HermesError` if there is no such run, or another process is at it.
    """
    record, plan = await in_thread(_find_unfinished, run, root, working_directory)
    folder = await in_thread(RunFolder.reopen, record, plan)
    with suppress(OSError):
        os.unlink(f"{folder.folder}/{STOP}")
    executor = executor or _executor_of(plan)
    survey = await in_thread(_survey, folder, executor, failed)
    async with _running(folder, survey, executor, grace, Follow(follow_logs, follow_files)) as resumed:
        yield resumed


@asynccontextmanager
async def open_stopped(
    run: str | None = None,
    *,
    root: str | os.PathLike[str] | None = None,
    working_directory: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    grace: float = GRACE,
    follow_logs: FollowLogs = "none",
    follow_files: bool = False,
) -> AsyncIterator[Run]:
    """Ends the latest unfinished run of the working directory, or that of the name or id `run`, while the block runs.

    Whoever is at the run, in whatever program, is told to end it. What still runs then, because its runner was killed or because it is
    with a cluster, is ended: SIGTERM, `grace` seconds, SIGKILL, or as the cluster does that. What it left is collected. The run can be
    resumed. Raises `HermesError` if there is no such run, or if its process does not answer.
    """
    record, plan = await in_thread(_find_unfinished, run, root, working_directory)
    stop = f"{record.folder}/{STOP}"
    try:
        folder = await _taken_over(record, plan, stop, grace + STOPPING)
        executor = executor or _executor_of(plan)
        survey = await in_thread(_survey, folder, executor, False)
        survey.leftovers = [replace(each, again=False) for each in survey.leftovers]
        async with _running(folder, survey, executor, grace, Follow(follow_logs, follow_files), is_ending=True) as ending:
            if not survey.held:
                ending._end_leftovers()
            yield ending
    finally:
        with suppress(OSError):
            os.unlink(stop)


async def _taken_over(record: Record, plan: Plan, stop: str, limit: float) -> RunFolder:
    """Waits until whoever is at the run has ended it."""
    ends = time.monotonic() + limit
    while True:
        try:
            await in_thread(Path(stop).touch)
        except OSError:
            raise HermesError(f"the run `{escape(record.run_id)}` has just come to its end") from None
        try:
            return await in_thread(RunFolder.reopen, record, plan)
        except HermesError:
            if time.monotonic() > ends:
                raise
        await anyio.sleep(HEED)


def _executor_of(plan: Plan) -> Executor:
    if plan.settings.executor == "slurm":
        from .executors.slurm import SLURM

        return SLURM
    return LOCAL


def _find_unfinished(
    run: str | None, root: str | os.PathLike[str] | None, working_directory: str | os.PathLike[str] | None
) -> tuple[Record, Plan]:
    base = Path(os.path.abspath(working_directory or "."))
    top = Path(os.path.abspath(base / root)) if root is not None else find_root(base)
    foreign: list[str] = []
    settings = layered(top, Source.of("", b""), (), {}, foreign.append)
    experiments = os.path.abspath(top / settings.path_to_experiments / "experiments")
    found = unfinished(experiments, str(base), run, foreign.append)
    if not found:
        named = f" `{escape(run)}`" if run else ""
        raise HermesError(f"there is no unfinished run{named} of `{escape(str(base))}`", hint="; ".join(foreign) or None)
    return found[0], found[0].plan()


def _survey(folder: RunFolder, executor: Executor, failed: bool) -> Survey:
    try:
        return survey_run(folder, failed=failed, held=executor.held(folder, failed))
    except BaseException:
        # Or this process would keep the run's lock
        folder.close(done=False)
        raise


@asynccontextmanager
async def _running(
    folder: RunFolder, survey: Survey, executor: Executor, grace: float, follow: Follow, *, is_ending: bool = False
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


async def run_file(
    file: str | os.PathLike[str] | Plan,
    name: str | None = None,
    *,
    threads: int | None = None,
    root: str | os.PathLike[str] | None = None,
    working_directory: str | os.PathLike[str] | None = None,
    comments: Sequence[str] = (),
    executor: Executor | str | None = None,
    grace: float = GRACE,
) -> RunResult:
    """Executes a hermes file, or a plan, to its end. A job that fails raises nothing: see the result.

    Arguments and errors are those of `open_run`. In a notebook the progress is shown below the cell.
    """
    async with open_run(
        file, name, threads=threads, root=root, working_directory=working_directory, comments=comments, executor=executor,
        grace=grace, follow_logs="none", follow_files=False,
    ) as run:  # fmt: skip
        await _to_its_end(run)
    return run.result


async def _to_its_end(run: Run) -> None:
    from .notebook import in_notebook, shown

    if in_notebook():
        async with shown(run):
            await run.ended.wait()
