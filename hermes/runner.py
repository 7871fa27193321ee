"""Running a plan: at most `threads` jobs at a time, each from its directory to its final metadata.

    prepare (worker thread) -> start -> wait -> copies (worker thread) -> finish (one worker-thread call for all that ended)

Nothing else publishes what state a job is in.
"""

from __future__ import annotations

import errno
import heapq
import math
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal

import anyio
import anyio.from_thread

from .collect import Claim, Collector, collected
from .copies import Stowage
from .errors import HermesError, escape
from .events import Event, Feed, FileCollected, JobEnded, JobStarted, Listener, LogChunk, RunEnded, RunStarted, RunWarning
from .executors import Executor, Exit, Launch, Process, Trace
from .executors.local import POLL, LocalExecutor
from .files import FULL, remove_parts
from .logs import Follower, Stream
from .model import Job, Keys, Outcome, Status
from .plan import Plan, compile_file, find_program
from .provenance import process_start, start_ticks
from .records import Record, unfinished
from .resume import Leftover, Survey, survey_name, survey_run
from .settings import find_root, layered
from .store import SYNC_AFTER, Experiment, RunFolder, now
from .syntax import Source
from .threads import in_thread

GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL for the jobs of a cancelled run."""

RECORD_AFTER = 0.05
"""Seconds after which a job's process is recorded in its metadata. Replacing it costs more than starting a job that is over by then;
until then, and also after, the process can be told by its environment and by its supervisor's record."""

LINGER = 0.5
"""Seconds for processes that have outlived their job to end by themselves, as those of Python's `multiprocessing` do when they see that."""

FINISHING = 256
"""Ended jobs that may wait to be finished before no more are started: the disk sets the pace then."""

UNREAD = 128
"""Events that a listener may leave waiting before log chunks, of 64 KiB each, wait for it; other events never do."""

PATIENCE = 5.0
"""Seconds after which a listener that takes nothing gets no more log chunks of a job."""

NO_ROOM = "the disk was full when it ended: its output may be incomplete"
FULL_MESSAGES = frozenset(map(os.strerror, FULL))
"""By what one can tell from a problem, wherever it comes from, that the disk is full."""

FollowLogs = Literal["all", "shown", "none"]
"""Whose output is followed for `LogChunk` events: that of all jobs, of those with `-l false`, or nobody's."""


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


@dataclass(slots=True)
class _Running:
    """A job between its start and its final metadata."""

    index: int
    job: Job
    experiment: Experiment
    stowage: Stowage
    launch: Launch | None = None
    process: Process | None = None
    exit: Exit | None = None
    began: float = 0.0
    duration: float = 0.0
    cancelled: bool = False
    adopted: bool = False


class Run:
    """A run in progress, as `open_run` gives it. Iterate over it for its events."""

    def __init__(self, plan: Plan, folder: RunFolder, survey: Survey, *, executor: Executor, grace: float, follow_logs: FollowLogs) -> None:
        self.plan = plan
        self.name = folder.name
        self.run_id = folder.run_id
        self._folder = folder
        self._survey = survey
        self._executor = executor
        self._grace = grace
        self._follow_logs = follow_logs
        self._feed = Feed()
        self._events: Listener | None = self._feed.listen()
        self._iterated = False
        self._outcomes: list[Outcome] = []
        self._warnings: list[str] = list(plan.warnings)
        self._started = 0
        self._cancelled = False
        self._stopped = False
        self._replaced: list[str] = []
        self._running: dict[str, _Running] = {}
        self._early: dict[str, list[tuple[str, str]]] = {}
        self._limiter = anyio.CapacityLimiter(plan.settings.threads)
        self._slots = list(range(min(plan.settings.threads, plan.count)))
        self._starting = anyio.CancelScope()
        # Own limiters: a host that is busy with threads of its own cannot hold up the jobs
        self._file_work = anyio.CapacityLimiter(4)
        self._collector = Collector(
            str(plan.working_directory), str(plan.experiments), self._files_collected_in_thread, self._warn_in_thread
        )
        self._follower = Follower(self._chunk)
        self.ended = anyio.Event()
        """Set when all jobs have ended and the last event is published."""

        self._ended, self._to_finish = anyio.create_memory_object_stream[_Running](FINISHING)

    def __aiter__(self) -> AsyncIterator[Event]:
        """The events of the run to its end: for the first who asks from its very start, for others from now on."""
        self._iterated = True
        events, self._events = self._events, None
        return events or self._feed.listen()

    def cancel(self) -> None:
        """Starts nothing more and ends what runs: SIGTERM to the groups, grace, SIGKILL. What the jobs left is collected."""
        self._cancelled = True
        self._starting.cancel()

    def kill(self) -> None:
        """As `cancel`, without the grace."""
        self.cancel()
        # For jobs that are just being started
        self._grace = 0.0
        for running in self._running.values():
            if running.process is not None:
                running.cancelled |= not running.process.has_ended
                running.process.kill()

    @property
    def cancelled(self) -> bool:
        """Whether the run was told to end before its last job was done."""
        return self._cancelled

    @property
    def result(self) -> RunResult:
        """What has come of the run so far; of the whole run once its block is left."""
        survey = self._survey
        return RunResult(
            self.run_id, self.name, tuple(self._outcomes), self._cancelled, tuple(self._warnings), survey.succeeded, survey.failed,
            self._stopped, tuple(self._replaced),
        )  # fmt: skip

    # The flow

    async def _execute(self) -> None:
        total = self.plan.count - self._survey.succeeded - self._survey.failed
        threads, experiments = self.plan.settings.threads, str(self.plan.experiments)
        self._feed.publish(RunStarted(run_id=self.run_id, name=self.name, total=total, threads=threads, experiments=experiments))
        try:
            async with anyio.create_task_group() as services:
                services.start_soon(_shielded, self._watch)
                services.start_soon(_shielded, self._finish_jobs)
                services.start_soon(_shielded, self._follower.run)
                try:
                    await self._start_jobs()
                except anyio.get_cancelled_exc_class():
                    self._cancelled = True
                    raise
                finally:
                    self._ended.close()
        finally:
            succeeded = sum(outcome.ok for outcome in self._outcomes)
            self._feed.publish(RunEnded(run_id=self.run_id, started=self._started, succeeded=succeeded, cancelled=self._cancelled))
            self._feed.close()
            self.ended.set()

    async def _start_jobs(self) -> None:
        keys = Keys()
        with self._starting:
            async with anyio.create_task_group() as jobs:
                for leftover in self._survey.leftovers:
                    jobs.start_soon(self._in_slot, await self._slot(), partial(self._take_up, leftover))
                for index, job in enumerate(self.plan.jobs):
                    key = keys.key(job)
                    if key not in self._survey.settled:
                        slot = await self._slot()
                        if self._stopped:
                            break
                        jobs.start_soon(self._in_slot, slot, partial(self._run_job, index, job, key))

    async def _slot(self) -> _Slot:
        """Waits until a job may start. Not done in the job's task: there is one task per running job, not per planned one."""
        borrower = object()
        await self._limiter.acquire_on_behalf_of(borrower)
        return _Slot(heapq.heappop(self._slots), borrower)

    async def _in_slot(self, slot: _Slot, work: Callable[[int], Awaitable[None]]) -> None:
        try:
            await work(slot.number)
        finally:
            heapq.heappush(self._slots, slot.number)
            self._limiter.release_on_behalf_of(slot.borrower)

    async def _take_up(self, leftover: Leftover, slot: int) -> None:
        """Goes on with a job of an earlier runner. If nobody can tell how it ended it is lost, and run again.

        So is one that failed for lack of room, if failed ones are to be run again.
        """
        running = await in_thread(self._adopt, leftover, limiter=self._file_work)
        try:
            if running.process is not None:
                self._announce_start(running, slot, running.process.pid)
                await self._wait(running)
        finally:
            with anyio.CancelScope(shield=True):
                await self._after(running)
        exit_ = running.exit
        again = exit_ is None or (leftover.failed and (exit_.code != 0 or exit_.no_room))
        if again or not leftover.again:
            self._replaced.append(running.experiment.identifier)
        if again and leftover.again:
            await self._run_job(leftover.index, leftover.job, running.experiment.key, slot)

    def _adopt(self, leftover: Leftover) -> _Running:
        metadata = leftover.metadata
        experiment = Experiment.reopen(self._folder, leftover.job, leftover.directory, metadata)
        exit_file = self._folder.exit_file(experiment.identifier)
        remove_parts(experiment.directory)
        self._collector.add(experiment.identifier, experiment.directory, adopted=True)
        running = _Running(leftover.index, leftover.job, experiment, self._stowage(experiment), adopted=True)
        trace = Trace(experiment.identifier, metadata.get("pid"), metadata.get("pid_start"), metadata.get("boot_id"), exit_file)
        running.process = self._executor.adopt(trace)
        return running

    async def _run_job(self, index: int, job: Job, key: str, slot: int) -> None:
        running = await self._prepare(index, job, key, slot)
        if running is None:
            return
        try:
            if running.launch is not None and await self._start(running, running.launch, slot):
                await self._wait(running)
        finally:
            with anyio.CancelScope(shield=True):
                await self._after(running)

    async def _prepare(self, index: int, job: Job, key: str, slot: int) -> _Running | None:
        """Makes the experiment; None, with the job failed, if that is not possible. On a full disk it is just not started."""
        try:
            return await in_thread(self._make, index, job, key, slot, limiter=self._file_work)
        except OSError as exc:
            if exc.errno in FULL:
                self._stop()
                return None
            where = f" `{exc.filename}`" if exc.filename else ""
            problem = f"the experiment directory could not be made: {exc.strerror}{where}"
            outcome = Outcome("", job.script, None, Status.FAILED, problems=(problem,), argv=job.argv, line=job.line)
            self._publish_end(index, outcome)
            return None

    def _make(self, index: int, job: Job, key: str, slot: int) -> _Running:
        if not self._folder.has_room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        experiment = self._folder.experiment(job, key, self._survey.attempts.get(key, 0) + 1)
        self._collector.add(experiment.identifier, experiment.directory)
        running = _Running(index, job, experiment, self._stowage(experiment))
        try:
            running.launch = self._ready(running, slot)
        except OSError as exc:
            experiment.problem(f"the job could not be started: {exc.strerror}")
        return running

    def _stowage(self, experiment: Experiment) -> Stowage:
        return Stowage(
            experiment.job.options, experiment.identifier, self._collector.top, experiment.directory, str(self.plan.experiments),
            partial(self._collector.owned, experiment.identifier), partial(self._collector.give_back, experiment.identifier),
            experiment.problem,
        )  # fmt: skip

    def _ready(self, running: _Running, slot: int) -> Launch | None:
        """The last things before the start: copies, log files. None if a file to copy before is missing."""
        experiment = running.experiment
        experiment.files += [asdict(stowed) for stowed in running.stowage.before()]
        if experiment.problems:
            return None
        argv = running.job.command(experiment.identifier)
        if argv[0] == "python":
            argv[0] = find_program("python", self.plan.working_directory) or "python"
        stdout, stderr = experiment.open_logs()
        supervised = self.plan.settings.supervise
        exit_file = self._folder.exit_file(experiment.identifier) if supervised else None
        return Launch(argv, self._collector.top, experiment.environment(slot), stdout, stderr, exit_file)

    async def _start(self, running: _Running, launch: Launch, slot: int) -> bool:
        """Starts the job's process. False if it could not be started; then the experiment's problems tell why."""
        experiment = running.experiment
        running.began = time.monotonic()
        experiment.state["start"] = now()
        try:
            running.process = await self._executor.start(launch)
        except (OSError, ValueError) as exc:
            told = exc.strerror if isinstance(exc, OSError) else str(exc)
            running.exit = Exit(code=127 if isinstance(exc, FileNotFoundError) else 126)
            experiment.problem(f"the job could not be started: {told}")
            return False
        finally:
            os.close(launch.stdout)
            os.close(launch.stderr)
        experiment.state |= {"pid": running.process.pid, "pid_start": start_ticks(running.process.pid)}
        self._announce_start(running, slot, running.process.pid)
        return True

    def _announce_start(self, running: _Running, slot: int, pid: int) -> None:
        experiment, job = running.experiment, running.job
        self._started += 1
        self._running[experiment.identifier] = running
        if self._follow_logs == "all" or (self._follow_logs == "shown" and not job.options.log):
            self._follower.add(experiment.identifier, experiment.directory)
        self._feed.publish(
            JobStarted(
                identifier=experiment.identifier, script=job.script, index=running.index, slot=slot, pid=pid,
                argv=tuple(job.command(experiment.identifier)), arguments=job.arguments, directory=experiment.directory,
                line=job.line, log=job.options.log,
            )
        )  # fmt: skip
        self._files_collected(self._early.pop(experiment.identifier, []))

    async def _wait(self, running: _Running) -> None:
        process = running.process
        assert process is not None
        experiment = running.experiment
        try:
            with anyio.move_on_after(RECORD_AFTER) as soon:
                running.exit = await process.wait()
            if soon.cancelled_caught:
                await in_thread(self._record_process, experiment, process.pid, limiter=self._file_work)
                running.exit = await process.wait()
        except anyio.get_cancelled_exc_class():
            # One that has come to its end just now has done so by itself
            running.cancelled |= not process.has_ended
            with anyio.CancelScope(shield=True):
                running.exit = await process.end(self._grace)
            raise
        finally:
            running.duration = time.monotonic() - running.began

    def _record_process(self, experiment: Experiment, pid: int) -> None:
        if experiment.state["pid_start"] is None:
            experiment.state["pid_start"] = process_start(pid)
        self._write(experiment, sync=False)

    def _write(self, experiment: Experiment, *, sync: bool) -> bool:
        """Replaces the metadata; False, and a problem of the experiment, if that is not possible."""
        try:
            experiment.write(sync=sync)
        except OSError as exc:
            experiment.problem(f"the metadata could not be written: {exc.strerror}")
            return False
        return True

    async def _after(self, running: _Running) -> None:
        """What a job still does in its slot when its process has ended."""
        if not running.adopted:
            running.experiment.state["end"] = now()
        options = running.job.options
        if running.process is not None and (options.copy_after or options.move_after):
            stowed = await in_thread(running.stowage.after, limiter=self._file_work)
            running.experiment.files += [asdict(each) for each in stowed]
        await self._ended.send(running)

    # Finishing

    async def _finish_jobs(self) -> None:
        """Finishes the jobs that have ended, all at once that have ended meanwhile: they share the final look at the tree."""
        async with self._to_finish:
            async for running in self._to_finish:
                batch = [running]
                while True:
                    try:
                        batch.append(self._to_finish.receive_nowait())
                    except (anyio.WouldBlock, anyio.EndOfStream):
                        break
                finished = await in_thread(self._finish, batch, limiter=self._file_work)
                for each, (outcome, claim) in zip(batch, finished, strict=True):
                    # Also those that were never announced as started
                    self._running[outcome.identifier] = each
                    await self._follower.finish(outcome.identifier)
                    early = self._early.pop(outcome.identifier, [])
                    self._files_collected([*early, *((outcome.identifier, path) for path in claim.fresh)])
                    del self._running[outcome.identifier]
                    self._publish_end(each.index, outcome)
        self._collector.stop()
        self._follower.stop()

    def _finish(self, batch: list[_Running]) -> list[tuple[Outcome, Claim]]:
        has_room = self._folder.has_room
        if not has_room:
            self._folder.use_reserve()
        left = self._left_behind(batch)
        claims = self._collector.finish([running.experiment.identifier for running in batch])
        finished = []
        for running in batch:
            if running.experiment.identifier in left:
                running.experiment.problem(f"left processes behind: {', '.join(map(str, left[running.experiment.identifier]))}")
            claim = claims[running.experiment.identifier]
            finished.append((self._finalize(running, claim, has_room=has_room), claim))
        return finished

    def _left_behind(self, batch: list[_Running]) -> dict[str, list[int]]:
        """The processes that have outlived their jobs, by identifier; of jobs that took some time also those that have left the group."""
        processes = {running.experiment.identifier: running.process for running in batch if running.process is not None}
        ends = time.monotonic() + LINGER
        # To look at all processes takes longer than a job that is over in no time
        thorough = any(running.adopted or running.duration > RECORD_AFTER for running in batch)
        while True:
            strays = self._executor.strays() if thorough else {}
            left = {each: sorted({*process.left_behind(), *strays.get(each, ())}) for each, process in processes.items()}
            left = {each: pids for each, pids in left.items() if pids}
            if not left or time.monotonic() > ends:
                return left
            time.sleep(POLL)

    def _finalize(self, running: _Running, claim: Claim, *, has_room: bool) -> Outcome:
        """Writes the final metadata of one job. For lack of room its exit status is left behind too: a resumed run finishes it."""
        experiment, exit_ = running.experiment, running.exit or Exit()
        status = Status.FINISHED if exit_.code == 0 else Status.FAILED
        if running.adopted:
            running.duration = self._adopted_end(experiment)
            if running.exit is None:
                status = Status.LOST
        if running.cancelled or (not running.adopted and running.process is None and not experiment.problems):
            status = Status.CANCELLED
        for problem in claim.problems:
            experiment.problem(problem)
        if running.exit is not None and (exit_.no_room or not has_room):
            experiment.problem(NO_ROOM)
        if status is Status.FINISHED and (NO_ROOM in experiment.problems or _tell_of_a_full_disk(experiment.problems)):
            status = Status.FAILED
        experiment.files += [{"path": path, "bytes": size, "origin": "collected"} for path, size in collected(claim)]
        experiment.state |= {"status": status.value, "exit_code": exit_.code, "signal": exit_.signal, "duration": running.duration}
        written = self._write(experiment, sync=running.duration > SYNC_AFTER)
        if not written and status is not Status.CANCELLED:
            status = Status.FAILED
        exit_file = self._folder.exit_file(experiment.identifier)
        if not has_room or _tell_of_a_full_disk(experiment.problems):
            anyio.from_thread.run_sync(self._stop)
            if running.process is not None and running.exit is not None:
                running.process.record(exit_file, replace(exit_, no_room=exit_.no_room or not has_room))
        elif written:
            with suppress(OSError):
                os.unlink(exit_file)
        return Outcome(
            experiment.identifier, running.job.script, experiment.directory, status, exit_.code, exit_.signal, running.duration,
            tuple(experiment.problems), tuple(running.job.command(experiment.identifier)), running.job.line,
        )  # fmt: skip

    def _adopted_end(self, experiment: Experiment) -> float:
        """Sets when an adopted job ended, as its exit file tells. Returns how long it ran, by the clock of day for lack of a better."""
        try:
            end = datetime.fromtimestamp(os.stat(self._folder.exit_file(experiment.identifier)).st_mtime).astimezone()
        except OSError:
            end = datetime.now().astimezone()
        start = experiment.state["start"]
        experiment.state["end"] = end.isoformat(timespec="microseconds")
        return max(0.0, (end - datetime.fromisoformat(start)).total_seconds()) if start else 0.0

    def _publish_end(self, index: int, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        self._feed.publish(JobEnded(index=index, outcome=outcome))

    # From the services

    async def _watch(self) -> None:
        await in_thread(self._collector.watch, limiter=anyio.CapacityLimiter(1))

    def _files_collected_in_thread(self, files: list[tuple[str, str]]) -> None:
        if self._feed.followed:
            anyio.from_thread.run_sync(self._files_collected, files)

    def _files_collected(self, files: list[tuple[str, str]]) -> None:
        for identifier, path in files:
            if identifier in self._running:
                self._feed.publish(FileCollected(identifier=identifier, path=path))
            else:
                # Quicker than the news of its job's start
                self._early.setdefault(identifier, []).append((identifier, path))

    def _stop(self) -> None:
        """Starts nothing more, for lack of room. What runs goes on: it may need none."""
        if not self._stopped:
            self._stopped = True
            self._warn(f"the disk of `{escape(str(self.plan.experiments))}` is full: nothing more is started")

    def _warn_in_thread(self, message: str) -> None:
        anyio.from_thread.run_sync(self._warn, message)

    def _warn(self, message: str) -> None:
        self._warnings.append(message)
        self._feed.publish(RunWarning(message=message))

    async def _chunk(self, identifier: str, stream: Stream, data: bytes) -> bool:
        """Publishes a piece of a log, and waits for listeners that are behind, so that a fast job cannot fill the memory."""
        if not self._iterated:
            return self._feed.followed
        self._feed.publish(LogChunk(identifier=identifier, stream=stream, data=data))
        ends, waiting = time.monotonic() + PATIENCE, math.inf
        while self._feed.waiting > UNREAD:
            if self._feed.waiting < waiting:
                ends, waiting = time.monotonic() + PATIENCE, self._feed.waiting
            elif time.monotonic() > ends:
                return False
            await anyio.sleep(0.01)
        return True


@dataclass(frozen=True, slots=True)
class _Slot:
    """A place among the running jobs: its HERMES_SLOT, and who has borrowed it from the limiter."""

    number: int
    borrower: object


@asynccontextmanager
async def open_run(
    file: str | os.PathLike[str] | Plan,
    name: str | None = None,
    *,
    threads: int | None = None,
    root: str | os.PathLike[str] | None = None,
    working_directory: str | os.PathLike[str] | None = None,
    comments: Sequence[str] = (),
    executor: Executor | None = None,
    grace: float = GRACE,
    follow_logs: FollowLogs = "all",
    only_missing: bool = False,
) -> AsyncIterator[Run]:
    """Executes a hermes file, or a plan, while the block runs; iterate over the run for its events.

    `name` groups the experiments; by default it is the file's stem. `threads`, `root`, `working_directory` and `comments` are as
    for `compile_file`, and are not used for a plan. With `only_missing`, jobs that have succeeded under this name already, in
    whatever run, are not started; they are told by their keys. Leaving the block waits for the jobs; leaving it by an exception, or being
    cancelled, ends them first: SIGTERM to each process group, `grace` seconds, SIGKILL, and what they left is collected.

    Raises `HermesError` before anything is started if the file, the plan or the folder for experiments cannot be used.
    """
    if isinstance(file, Plan):
        plan = file
    else:
        options = partial(compile_file, working_directory=working_directory, root=root, comments=comments, threads=threads)
        plan = await in_thread(options, file)
    name = plan.default_name if name is None else name
    await in_thread(plan.check, name)
    survey = await in_thread(survey_name, plan, name) if only_missing else Survey()
    folder = await in_thread(RunFolder.create, plan, name)
    async with _running(plan, folder, survey, executor or LocalExecutor(), grace, follow_logs) as run:
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
) -> AsyncIterator[Run]:
    """Takes up the latest unfinished run of the working directory, or that of the name or id `run`, while the block runs.

    Jobs that are still alive are adopted and waited for; jobs that ended while nobody watched are finished with their true exit
    status, their files collected; jobs of which nobody can tell how they ended are lost, and run again like those that were cancelled or
    never started. What succeeded is not repeated; what failed only with `failed`. The plan and the settings are those with which the run
    began. Raises `HermesError` if there is no such run, or another process is at it.
    """
    record = await in_thread(_find_unfinished, run, root, working_directory)
    plan = await in_thread(record.plan)
    folder = await in_thread(RunFolder.reopen, record, plan)
    survey = await in_thread(partial(survey_run, folder, failed=failed))
    async with _running(plan, folder, survey, executor or LocalExecutor(), grace, follow_logs) as resumed:
        yield resumed


def _find_unfinished(run: str | None, root: str | os.PathLike[str] | None, working_directory: str | os.PathLike[str] | None) -> Record:
    base = Path(os.path.abspath(working_directory or "."))
    top = Path(os.path.abspath(base / root)) if root is not None else find_root(base)
    foreign: list[str] = []
    settings = layered(top, Source.of("", b""), (), {}, foreign.append)
    experiments = os.path.abspath(top / settings.path_to_experiments / "experiments")
    found = unfinished(experiments, str(base), run, foreign.append)
    if not found:
        named = f" `{escape(run)}`" if run else ""
        raise HermesError(f"there is no unfinished run{named} of `{escape(str(base))}`", hint="; ".join(foreign) or None)
    return found[0]


@asynccontextmanager
async def _running(
    plan: Plan, folder: RunFolder, survey: Survey, executor: Executor, grace: float, follow_logs: FollowLogs
) -> AsyncIterator[Run]:
    done = False
    try:
        run = Run(plan, folder, survey, executor=executor, grace=grace, follow_logs=follow_logs)
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
                # Who listens in another task may go on to the end
                if not run._iterated:
                    run._feed.close()
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
    executor: Executor | None = None,
    grace: float = GRACE,
) -> RunResult:
    """Executes a hermes file, or a plan, to its end. A job that fails raises nothing: see the result.

    Arguments and errors are those of `open_run`. In a notebook the progress is shown below the cell.
    """
    async with open_run(
        file, name, threads=threads, root=root, working_directory=working_directory, comments=comments, executor=executor,
        grace=grace, follow_logs="none",
    ) as run:  # fmt: skip
        await _to_its_end(run)
    return run.result


async def _to_its_end(run: Run) -> None:
    from .notebook import in_notebook, shown

    if in_notebook():
        async with shown(run):
            await run.ended.wait()


def _tell_of_a_full_disk(problems: Sequence[str]) -> bool:
    return any(message in problem for message in FULL_MESSAGES for problem in problems)


async def _shielded(service: Callable[[], Awaitable[object]]) -> None:
    """A service ends when it is told to, not when the run is cancelled: cancelled jobs are finished like all others."""
    with anyio.CancelScope(shield=True):
        await service()
