"""Jobs as processes of this machine: at most `threads` at a time, each from its directory to its final metadata.

begin (worker thread) -> wait -> copies (worker thread) -> finish (one worker-thread call for all that ended)
"""

from __future__ import annotations

import errno
import heapq
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial

import anyio
import anyio.from_thread

from ..collect import Claim, Collector, collected
from ..copies import Stowage
from ..events import JobStarted
from ..files import FULL, remove_parts
from ..model import Job, Outcome, Status
from ..plan import find_program
from ..provenance import process_start
from ..resume import Leftover
from ..store import SYNC_AFTER, Experiment, now
from ..threads import in_thread, shielded
from . import Executor, Pending, Work
from .processes import BUSY, POLL, Exit, Group, Launch, Trace, adopt, processes_of, start

RECORD_AFTER = 0.05
"""Seconds after which a job's process is recorded in its metadata. Replacing it costs more than starting a job that is over by then;
until then, and also after, the process can be told by its environment and by its supervisor's record."""

LINGER = 0.5
"""Seconds for processes that have outlived their job to end by themselves, as those of Python's `multiprocessing` do when they see that."""

FINISHING = 256
"""Ended jobs that may wait to be finished before no more are started: the disk sets the pace then."""

RETRY_FOR = 30.0
"""Seconds for which a system that is too busy to start a process is asked again."""

NO_ROOM = "the disk was full when it ended: its output may be incomplete"
FULL_MESSAGES = frozenset(map(os.strerror, FULL))
"""By what one can tell from a problem, wherever it comes from, that the disk is full."""


@dataclass(slots=True)
class _Running:
    """A job between its start and its final metadata."""

    index: int
    job: Job
    experiment: Experiment
    stowage: Stowage
    launch: Launch | None = None
    """What is still to be started."""

    process: Group | None = None
    exit: Exit | None = None
    began: float = 0.0
    duration: float = 0.0
    cancelled: bool = False
    adopted: bool = False
    replaced: bool = False


class LocalExecution:
    """Does the work of one run on this machine."""

    cancelling = "stopping: jobs get 10 s to end; once more to kill them"
    killing = "killing the jobs; once more to leave at once"
    left = 0

    def __init__(self, work: Work) -> None:
        self._work = work
        self._plan, self._folder = work.plan, work.folder
        threads = self._plan.settings.threads
        self._limiter = anyio.CapacityLimiter(threads)
        # One more than there are jobs: it is taken to see that there are no more
        self._slots = list(range(min(threads, self._plan.count + 1)))
        self._scope = anyio.CancelScope()
        # Own limiters: a host that is busy with threads of its own cannot hold up the jobs
        self._file_work = anyio.CapacityLimiter(4)
        self._collector = Collector(
            str(self._plan.working_directory), str(self._plan.experiments), self._collected_in_thread, self._warn_in_thread
        )
        self._running: dict[str, _Running] = {}
        self._over: list[_Running] = []
        self._all_over = False
        self._news = anyio.Event()

    async def run(self) -> None:
        async with anyio.create_task_group() as services:
            services.start_soon(shielded, self._watch)
            services.start_soon(shielded, self._finish_jobs)
            try:
                with self._scope:
                    await self._start_jobs()
            finally:
                self._all_over = True
                self._news.set()

    def cancel(self) -> None:
        self._scope.cancel()

    def kill(self) -> None:
        self.cancel()
        for running in self._running.values():
            if running.process is not None:
                running.cancelled |= not running.process.has_ended
                running.process.kill()

    # Starting

    async def _start_jobs(self) -> None:
        async with anyio.create_task_group() as jobs:
            if self._work.leftovers:
                alive = await in_thread(processes_of, "HERMES_IDENTIFIER", limiter=self._file_work)
                for leftover in self._work.leftovers:
                    jobs.start_soon(self._in_slot, await self._slot(), partial(self._take_up, leftover, alive))
            pending = self._work.pending()
            while True:
                # A slot first: whether there is more to do is known best when it could start
                slot = await self._slot()
                job = next(pending, None)
                if job is None:
                    self._free(slot)
                    return
                jobs.start_soon(self._in_slot, slot, partial(self._run_job, job))

    async def _slot(self) -> _Slot:
        """Waits until a job may start. Not done in the job's task: there is one task per running job, not per planned one."""
        borrower = object()
        await self._limiter.acquire_on_behalf_of(borrower)
        return _Slot(heapq.heappop(self._slots), borrower)

    def _free(self, slot: _Slot) -> None:
        heapq.heappush(self._slots, slot.number)
        self._limiter.release_on_behalf_of(slot.borrower)

    async def _in_slot(self, slot: _Slot, work: Callable[[int], Awaitable[None]]) -> None:
        try:
            await work(slot.number)
        finally:
            self._free(slot)

    async def _run_job(self, pending: Pending, slot: int) -> None:
        try:
            running = await in_thread(self._begin, pending, slot, limiter=self._file_work)
        except OSError as exc:
            await self._could_not_begin(pending, exc)
            return
        try:
            if running.launch is not None:
                await self._start_later(running)
            if running.process is not None:
                self._announce(running, slot)
                await self._wait(running)
        finally:
            with anyio.CancelScope(shield=True):
                await self._after(running)

    async def _could_not_begin(self, pending: Pending, exc: OSError) -> None:
        """Fails the job for which no directory could be made. On a full disk it is just not started."""
        if exc.errno in FULL:
            self._work.stop()
            return
        where = f" `{exc.filename}`" if exc.filename else ""
        problem = f"the experiment directory could not be made: {exc.strerror}{where}"
        job = pending.job
        outcome = Outcome("", job.script, None, Status.FAILED, problems=(problem,), argv=job.argv, line=job.line)
        await self._work.ended(pending.index, outcome)

    def _begin(self, pending: Pending, slot: int) -> _Running:
        """Makes the experiment and starts its job, unless one of the problems of the experiment tells why not."""
        if not self._folder.has_room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        experiment = self._folder.experiment(pending.job, pending.key, pending.attempt)
        self._collector.add(experiment.identifier, experiment.directory, adopted=experiment.is_continued)
        running = _Running(pending.index, pending.job, experiment, self._stowage(experiment))
        try:
            if not experiment.is_continued:
                experiment.files += [asdict(stowed) for stowed in running.stowage.before()]
            if not experiment.problems:
                running.launch = self._launch(experiment, slot)
        except OSError as exc:
            experiment.problem(f"the job could not be started: {exc.strerror}")
        if running.launch is not None:
            self._start(running)
        return running

    def _stowage(self, experiment: Experiment) -> Stowage:
        return Stowage(
            experiment.job.options, experiment.identifier, self._collector.top, experiment.directory, str(self._plan.experiments),
            partial(self._collector.owned, experiment.identifier), partial(self._collector.give_back, experiment.identifier),
            experiment.problem,
        )  # fmt: skip

    def _launch(self, experiment: Experiment, slot: int) -> Launch:
        argv = experiment.job.command(experiment.identifier)
        if argv[0] == "python":
            argv[0] = find_program("python", self._plan.working_directory) or "python"
        stdout, stderr = experiment.open_logs()
        exit_file = self._folder.exit_file(experiment.identifier) if self._plan.settings.supervise else None
        return Launch(argv, self._collector.top, experiment.environment(slot), stdout, stderr, exit_file)

    def _start(self, running: _Running) -> None:
        """Starts the job's process. If the system is too busy the launch remains; other errors are problems of the experiment."""
        launch, experiment = running.launch, running.experiment
        assert launch is not None
        running.began = time.monotonic()
        experiment.state["start"] = now()
        try:
            running.process = start(launch)
        except (OSError, ValueError) as exc:
            if isinstance(exc, OSError) and exc.errno in BUSY:
                return
            self._give_up(running, exc)
            return
        experiment.state |= {"pid": running.process.pid, "pid_start": None}
        running.launch = None
        _close(launch)

    def _give_up(self, running: _Running, exc: OSError | ValueError) -> None:
        assert running.launch is not None
        told = exc.strerror if isinstance(exc, OSError) else str(exc)
        running.exit = Exit(code=127 if isinstance(exc, FileNotFoundError) else 126)
        running.experiment.problem(f"the job could not be started: {told}")
        _close(running.launch)
        running.launch = None

    async def _start_later(self, running: _Running) -> None:
        """Tries again and again to start a job for which the system was too busy."""
        ends, pause = time.monotonic() + RETRY_FOR, 0.05
        try:
            while running.launch is not None and time.monotonic() < ends:
                await anyio.sleep(pause)
                pause = min(1.0, 2 * pause)
                await in_thread(self._start, running, limiter=self._file_work)
        finally:
            if running.launch is not None:
                self._give_up(running, OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)))

    def _announce(self, running: _Running, slot: int) -> None:
        experiment, job, process = running.experiment, running.job, running.process
        assert process is not None
        self._running[experiment.identifier] = running
        self._work.started(
            JobStarted(
                identifier=experiment.identifier, script=job.script, index=running.index, slot=slot, pid=process.pid,
                argv=tuple(job.command(experiment.identifier)), arguments=job.arguments, directory=experiment.directory,
                line=job.line, log=job.options.log,
            )
        )  # fmt: skip

    # Jobs of an earlier runner

    async def _take_up(self, leftover: Leftover, alive: dict[str, list[int]], slot: int) -> None:
        """Goes on with a job of an earlier runner. If nobody can tell how it ended it is lost, and run again.

        So is one that failed for lack of room, if failed ones are to be run again.
        """
        running = await in_thread(self._adopt, leftover, alive, limiter=self._file_work)
        again = True
        try:
            if running.process is not None:
                self._announce(running, slot)
                await self._wait(running)
            exit_ = running.exit
            again = exit_ is None or (leftover.failed and (exit_.code != 0 or exit_.no_room))
            running.replaced = again or not leftover.again
        finally:
            with anyio.CancelScope(shield=True):
                await self._after(running)
        if again and leftover.again:
            await self._run_job(self._work.again(leftover), slot)

    def _adopt(self, leftover: Leftover, alive: dict[str, list[int]]) -> _Running:
        metadata = leftover.metadata
        experiment = Experiment.reopen(self._folder, leftover.job, leftover.directory, metadata)
        exit_file = self._folder.exit_file(experiment.identifier)
        remove_parts(experiment.directory)
        self._collector.add(experiment.identifier, experiment.directory, adopted=True)
        running = _Running(leftover.index, leftover.job, experiment, self._stowage(experiment), adopted=True)
        trace = Trace(experiment.identifier, metadata.get("pid"), metadata.get("pid_start"), metadata.get("boot_id"), exit_file)
        running.process = adopt(trace, alive)
        return running

    # Waiting

    async def _wait(self, running: _Running) -> None:
        process = running.process
        assert process is not None
        try:
            with anyio.move_on_after(RECORD_AFTER) as soon:
                running.exit = await process.wait()
            if soon.cancelled_caught:
                await in_thread(self._record_process, running.experiment, process.pid, limiter=self._file_work)
                running.exit = await process.wait()
        except anyio.get_cancelled_exc_class():
            # One that has come to its end just now has done so by itself
            running.cancelled |= not process.has_ended
            with anyio.CancelScope(shield=True):
                running.exit = await process.end(self._work.grace)
            raise
        finally:
            running.duration = time.monotonic() - running.began

    def _record_process(self, experiment: Experiment, pid: int) -> None:
        experiment.state["pid_start"] = process_start(pid)
        _write(experiment, sync=False)

    async def _after(self, running: _Running) -> None:
        """What a job still does in its slot when its process has ended."""
        if not running.adopted:
            running.experiment.state["end"] = now()
        options = running.job.options
        if running.process is not None and (options.copy_after or options.move_after):
            stowed = await in_thread(running.stowage.after, limiter=self._file_work)
            running.experiment.files += [asdict(each) for each in stowed]
        self._over.append(running)
        self._news.set()
        while len(self._over) > FINISHING:  # noqa: ASYNC110 (happens when the disk is slow)
            await anyio.sleep(POLL)

    # Finishing

    async def _finish_jobs(self) -> None:
        """Finishes the jobs that have ended, all at once that have ended meanwhile: they share the final look at the tree."""
        while self._over or not self._all_over:
            if not self._over:
                self._news = anyio.Event()
                await self._news.wait()
                continue
            batch, self._over = self._over, []
            finished = await in_thread(self._finish, batch, limiter=self._file_work)
            for running, (outcome, claim) in zip(batch, finished, strict=True):
                for path in claim.fresh:
                    self._work.collected(outcome.identifier, path)
                self._running.pop(outcome.identifier, None)
                await self._work.ended(running.index, outcome, replaced=running.replaced)
        self._collector.stop()

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
            strays = processes_of("HERMES_IDENTIFIER") if thorough else {}
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
        written = _write(experiment, sync=running.duration > SYNC_AFTER)
        if not written and status is not Status.CANCELLED:
            status = Status.FAILED
        exit_file = self._folder.exit_file(experiment.identifier)
        if not has_room or _tell_of_a_full_disk(experiment.problems):
            anyio.from_thread.run_sync(self._work.stop)
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

    # Collection

    async def _watch(self) -> None:
        await in_thread(self._collector.watch, limiter=anyio.CapacityLimiter(1))

    def _collected_in_thread(self, files: list[tuple[str, str]]) -> None:
        if self._work.is_followed:
            anyio.from_thread.run_sync(self._collected, files)

    def _collected(self, files: list[tuple[str, str]]) -> None:
        for identifier, path in files:
            self._work.collected(identifier, path)

    def _warn_in_thread(self, message: str) -> None:
        anyio.from_thread.run_sync(self._work.warn, message)


@dataclass(frozen=True, slots=True)
class _Slot:
    """A place among the running jobs: its HERMES_SLOT, and who has borrowed it from the limiter."""

    number: int
    borrower: object


def _close(launch: Launch) -> None:
    os.close(launch.stdout)
    os.close(launch.stderr)


def _write(experiment: Experiment, *, sync: bool) -> bool:
    """Replaces the metadata; False, and a problem of the experiment, if that is not possible."""
    try:
        experiment.write(sync=sync)
    except OSError as exc:
        experiment.problem(f"the metadata could not be written: {exc.strerror}")
        return False
    return True


def _tell_of_a_full_disk(problems: Sequence[str]) -> bool:
    return any(message in problem for message in FULL_MESSAGES for problem in problems)


LOCAL = Executor(LocalExecution)
"""This machine."""
