"""Jobs as processes of this machine: at most `threads` at a time, each from its directory to its final metadata.

    begin -> wait -> copies -> finish

One loop drives all jobs. What it has to do with files and processes goes to a worker thread, in one call for all that is due: the next
job is begun and the last one finished together. What may take its time, such as copies, has a task or a service of its own.
"""

from __future__ import annotations

import errno
import heapq
import os
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import chain, islice
from typing import TypeVarTuple

import anyio
import anyio.from_thread
import anyio.lowlevel
from anyio.abc import TaskGroup

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
from .processes import BUSY, POLL, Ends, Exit, Group, Launch, LocalProcess, Trace, adopt, hidden_from_shells, processes_of, start

Ts = TypeVarTuple("Ts")

RECORD_AFTER = 0.05
"""Seconds after which a job's process is recorded in its metadata. Replacing it costs more than starting a job that is over by then;
until then, and also after, the process can be told by its environment and by its supervisor's record."""

LINGER = 0.5
"""Seconds for processes that have outlived their job to end by themselves, as those of Python's `multiprocessing` do when they see that."""

FINISHING = 256
"""Ended jobs that may wait to be finished before no more are started: the disk sets the pace then."""

TOGETHER = 8
"""Jobs of no duration that are finished in one go while others are to be started."""

RETRY_FOR = 30.0
"""Seconds for which a system that is too busy to start a process is asked again."""

NO_ROOM = "the disk was full when it ended: its output may be incomplete"
FULL_MESSAGES = frozenset(map(os.strerror, FULL))
"""By what one can tell from a problem, wherever it comes from, that the disk is full."""


@dataclass(slots=True, eq=False)
class _Running:
    """A job between its start and its final metadata."""

    index: int
    job: Job
    experiment: Experiment
    stowage: Stowage
    slot: int
    launch: Launch | None = None
    """What is still to be started."""

    process: Group | None = None
    exit: Exit | None = None
    began: float = 0.0
    duration: float = 0.0
    cancelled: bool = False
    adopted: bool = False
    replaced: bool = False


_Finished = tuple[_Running, Outcome, Claim]


class LocalExecution:
    """Does the work of one run on this machine."""

    cancelling = "stopping: jobs get 10 s to end; once more to kill them"
    killing = "killing the jobs; once more to leave at once"
    left = 0

    def __init__(self, work: Work) -> None:
        self._work = work
        self._plan, self._folder = work.plan, work.folder
        self._slots = list(range(min(self._plan.settings.threads, self._plan.count)))
        """Numbers of the slots that are free, a heap."""

        self._scope = anyio.CancelScope()
        self._is_cancelled = False
        # Own limiters: a host that is busy with threads of its own cannot hold up the jobs
        self._file_work = anyio.CapacityLimiter(4)
        self._collector = Collector(
            str(self._plan.working_directory), str(self._plan.experiments), self._collected_in_thread, self._warn_in_thread
        )
        self._hidden = hidden_from_shells(self._folder.environment)
        self._ends = Ends[_Running]()
        self._running: dict[str, _Running] = {}
        """Jobs with a process that has not been seen to end, by identifier."""

        self._unrecorded: deque[_Running] = deque()
        """Those of them whose process the metadata do not tell yet, the oldest first."""

        self._tasks = 0
        self._alive: dict[str, list[int]] = {}
        self._over: list[_Running] = []
        """What has ended after no time, to be finished together with the next start."""

        self._long: list[_Running] = []
        """What has ended and is to be finished by itself, for that may take its time."""

        self._finished: list[_Finished] = []
        self._all_over = False
        self._news = anyio.Event()

    async def run(self) -> None:
        async with anyio.create_task_group() as services:
            services.start_soon(shielded, self._watch)
            services.start_soon(shielded, self._finish_jobs)
            try:
                with self._scope:
                    await self._drive()
            finally:
                self._long += self._over
                self._all_over = True
                self._news.set()
                self._ends.close()

    def cancel(self) -> None:
        self._is_cancelled = True
        self._scope.cancel()

    def kill(self) -> None:
        self.cancel()
        for running in self._running.values():
            assert running.process is not None
            running.cancelled |= not running.process.has_ended
            running.process.kill()

    # The loop

    async def _drive(self) -> None:
        todo: Iterator[Leftover | Pending] = chain(self._work.leftovers, self._work.pending())
        if self._work.leftovers:
            self._alive = await in_thread(processes_of, "HERMES_IDENTIFIER", limiter=self._file_work)
        is_more = True
        async with anyio.create_task_group() as tasks:
            try:
                while is_more or self._over or self._running or self._tasks:
                    await anyio.lowlevel.checkpoint_if_cancelled()
                    while len(self._long) + len(self._finished) > FINISHING:  # noqa: ASYNC110 (happens when the disk is slow)
                        await anyio.sleep(POLL)
                    next_ones = [(each, heapq.heappop(self._slots)) for each in islice(todo, len(self._slots) if is_more else 0)]
                    is_more = is_more and not self._slots
                    due = self._due()
                    if next_ones or due or self._over:
                        await self._round(tasks, next_ones, due)
                    elif self._running or self._tasks:
                        await self._wait(tasks)
            except anyio.get_cancelled_exc_class():
                self._is_cancelled = True
                with anyio.CancelScope(shield=True):
                    await self._end_all()
                raise

    async def _round(self, tasks: TaskGroup, next_ones: list[tuple[Leftover | Pending, int]], due: list[_Running]) -> None:
        """Begins the next jobs and finishes the last ones, in one call of a worker thread for all that takes no time."""
        at_once = []
        for each, slot in next_ones:
            if isinstance(each, Leftover):
                self._start_task(tasks, self._take_up, tasks, each, slot)
            elif each.job.options.copy_before:
                self._start_task(tasks, self._begin_alone, tasks, each, slot)
            else:
                at_once.append((each, slot))
        over: list[_Running] = []
        if not at_once or len(self._over) >= TOGETHER:
            # Starting comes first; whatever has ended meanwhile shares its final look
            over, self._over = self._over, over
        # A call that is under way is not given up: there would be processes that nobody knows of
        with anyio.CancelScope(shield=True):
            begun, finished, lingering = await in_thread(self._do, at_once, due, over, limiter=self._file_work)
        for (pending, slot), result in zip(at_once, begun, strict=True):
            self._take_in(tasks, pending, slot, result)
        self._finished += finished
        self._long += lingering
        self._news.set()

    def _do(
        self, pending: list[tuple[Pending, int]], due: list[_Running], over: list[_Running]
    ) -> tuple[list[_Running | OSError], list[_Finished], list[_Running]]:
        begun = [self._begin(each, slot) for each, slot in pending]
        for running in due:
            assert running.process is not None
            running.experiment.state["pid_start"] = process_start(running.process.pid)
            _write(running.experiment, sync=False)
        lingering = [running for running in over if running.process is not None and running.process.left_behind()]
        return begun, self._finish([running for running in over if running not in lingering], {}) if over else [], lingering

    def _due(self) -> list[_Running]:
        """The jobs whose process is to be recorded now."""
        due, now = [], time.monotonic()
        while self._unrecorded and (self._unrecorded[0].exit is not None or self._unrecorded[0].began + RECORD_AFTER <= now):
            running = self._unrecorded.popleft()
            if running.exit is None:
                due.append(running)
        return due

    async def _wait(self, tasks: TaskGroup) -> None:
        """Waits until a job has ended, is to be recorded, or a task has something new."""
        timeout = self._unrecorded[0].began + RECORD_AFTER - time.monotonic() if self._unrecorded else None
        for running in await self._ends.wait(timeout):
            assert isinstance(running.process, LocalProcess)
            running.exit = running.process.fetch()
            self._has_ended(running)
            if running.job.options.copy_after or running.job.options.move_after:
                self._start_task(tasks, self._copy_after, running)
            else:
                self._hand_over(running)

    def _start_task(self, tasks: TaskGroup, function: Callable[[*Ts], Awaitable[None]], *arguments: *Ts) -> None:
        """Starts what may take its time."""

        async def run() -> None:
            try:
                await function(*arguments)
            finally:
                self._tasks -= 1
                self._ends.wake()

        self._tasks += 1
        tasks.start_soon(run)

    # Beginning

    def _begin(self, pending: Pending, slot: int) -> _Running | OSError:
        """Makes the experiment and starts its job, unless one of the problems of the experiment tells why not."""
        if not self._folder.has_room:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        try:
            experiment = self._folder.experiment(pending.job, pending.key, pending.attempt)
        except OSError as exc:
            return exc
        self._collector.add(experiment.identifier, experiment.directory, adopted=experiment.is_continued)
        running = _Running(pending.index, pending.job, experiment, self._stowage(experiment), slot)
        try:
            if not experiment.is_continued:
                experiment.files += [stowed._asdict() for stowed in running.stowage.before()]
            if not experiment.problems:
                running.launch = self._launch(experiment, slot)
        except OSError as exc:
            experiment.problem(f"the job could not be started: {exc.strerror}")
        if running.launch is not None:
            self._start(running)
        return running

    async def _begin_alone(self, tasks: TaskGroup, pending: Pending, slot: int) -> None:
        with anyio.CancelScope(shield=True):
            begun = await in_thread(self._begin, pending, slot, limiter=self._file_work)
        self._take_in(tasks, pending, slot, begun)

    def _take_in(self, tasks: TaskGroup, pending: Pending, slot: int, begun: _Running | OSError) -> None:
        """Follows a job that has been begun, or tells why it has not."""
        if isinstance(begun, OSError):
            heapq.heappush(self._slots, slot)
            if begun.errno in FULL:
                # It is just not started
                self._work.stop()
            else:
                self._start_task(tasks, self._could_not_begin, pending, begun)
        elif begun.process is not None:
            self._has_started(begun)
        elif begun.launch is not None:
            self._start_task(tasks, self._start_later, begun)
        else:
            self._hand_over(begun)

    async def _could_not_begin(self, pending: Pending, exc: OSError) -> None:
        where = f" `{exc.filename}`" if exc.filename else ""
        problem = f"the experiment directory could not be made: {exc.strerror}{where}"
        job = pending.job
        outcome = Outcome("", job.script, None, Status.FAILED, problems=(problem,), argv=job.argv, line=job.line)
        await self._work.ended(pending.index, outcome)

    def _has_started(self, running: _Running) -> None:
        assert isinstance(running.process, LocalProcess)
        self._unrecorded.append(running)
        self._ends.add(running.process, running)
        self._announce(running)

    def _announce(self, running: _Running) -> None:
        experiment, job, process = running.experiment, running.job, running.process
        assert process is not None
        self._running[experiment.identifier] = running
        self._work.started(
            JobStarted(
                identifier=experiment.identifier, script=job.script, index=running.index, slot=running.slot, pid=process.pid,
                argv=tuple(job.command(experiment.identifier)), arguments=job.arguments, directory=experiment.directory,
                line=job.line, log=job.options.log,
            )
        )  # fmt: skip

    def _stowage(self, experiment: Experiment) -> Stowage:
        return Stowage(
            experiment.job.options, experiment.identifier, self._collector.top, experiment.directory, self._folder.experiments,
            partial(self._collector.owned, experiment.identifier), partial(self._collector.give_back, experiment.identifier),
            experiment.problem,
        )  # fmt: skip

    def _launch(self, experiment: Experiment, slot: int) -> Launch:
        argv = experiment.job.command(experiment.identifier)
        if argv[0] == "python":
            argv[0] = find_program("python", self._plan.working_directory) or "python"
        stdout, stderr = experiment.open_logs()
        exit_file = self._folder.exit_file(experiment.identifier) if self._plan.settings.supervise else None
        return Launch(argv, self._collector.top, experiment.environment(slot), stdout, stderr, exit_file, self._hidden)

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
                with anyio.CancelScope(shield=True):
                    await in_thread(self._start, running, limiter=self._file_work)
            if running.launch is not None:
                self._give_up(running, OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)))
        finally:
            if running.launch is not None:
                _close(running.launch)
            if running.process is not None:
                self._has_started(running)
            else:
                self._hand_over(running)

    # Ending

    def _has_ended(self, running: _Running) -> None:
        running.duration = time.monotonic() - running.began
        running.experiment.state["end"] = now()
        self._running.pop(running.experiment.identifier)

    async def _copy_after(self, running: _Running) -> None:
        with anyio.CancelScope(shield=True):
            stowed = await in_thread(running.stowage.after, limiter=self._file_work)
        running.experiment.files += [each._asdict() for each in stowed]
        self._hand_over(running)

    def _hand_over(self, running: _Running) -> None:
        """Frees the slot of a job that has ended; it is still to be finished."""
        heapq.heappush(self._slots, running.slot)
        running.experiment.state.setdefault("end", now())
        if running.duration < RECORD_AFTER and not running.adopted:
            # In so little time it cannot have left much to do
            self._over.append(running)
        else:
            self._long.append(running)
            self._news.set()

    async def _end_all(self) -> None:
        """Ends what runs, and what tasks that are under way still start."""
        known: set[str] = set()
        async with anyio.create_task_group() as ending:
            while True:
                for identifier, running in list(self._running.items()):
                    # Adopted jobs have tasks, which are told too
                    if identifier not in known and not running.adopted:
                        known.add(identifier)
                        ending.start_soon(self._end, running)
                if not self._tasks:
                    return
                await anyio.sleep(POLL)

    async def _end(self, running: _Running) -> None:
        process = running.process
        assert process is not None
        # One that has come to its end just now has done so by itself
        running.cancelled |= not process.has_ended
        running.exit = await process.end(self._work.grace)
        self._has_ended(running)
        if running.job.options.copy_after or running.job.options.move_after:
            await self._copy_after(running)
        else:
            self._hand_over(running)

    # Jobs of an earlier runner

    async def _take_up(self, tasks: TaskGroup, leftover: Leftover, slot: int) -> None:
        """Goes on with a job of an earlier runner. If nobody can tell how it ended it is lost, and run again.

        So is one that failed for lack of room, if failed ones are to be run again.
        """
        with anyio.CancelScope(shield=True):
            running = await in_thread(self._adopt, leftover, slot, limiter=self._file_work)
        try:
            if running.process is not None:
                self._announce(running)
                await self._wait_for(running, running.process)
            exit_ = running.exit
            again = exit_ is None or (leftover.failed and (exit_.code != 0 or exit_.no_room))
            running.replaced = again or not leftover.again
        finally:
            self._running.pop(running.experiment.identifier, None)
            if running.process is not None:
                await self._copy_after(running)
            else:
                self._hand_over(running)
        if running.replaced and leftover.again:
            # First of all that are waiting
            self._slots.remove(slot)
            heapq.heapify(self._slots)
            await self._begin_alone(tasks, self._work.again(leftover), slot)

    async def _wait_for(self, running: _Running, process: Group) -> None:
        try:
            running.exit = await process.wait()
        except anyio.get_cancelled_exc_class():
            running.cancelled |= not process.has_ended
            with anyio.CancelScope(shield=True):
                running.exit = await process.end(self._work.grace)
            raise

    def _adopt(self, leftover: Leftover, slot: int) -> _Running:
        metadata = leftover.metadata
        experiment = Experiment.reopen(self._folder, leftover.job, leftover.directory, metadata)
        exit_file = self._folder.exit_file(experiment.identifier)
        remove_parts(experiment.directory)
        self._collector.add(experiment.identifier, experiment.directory, adopted=True)
        running = _Running(leftover.index, leftover.job, experiment, self._stowage(experiment), slot, adopted=True)
        trace = Trace(experiment.identifier, metadata.get("pid"), metadata.get("pid_start"), metadata.get("boot_id"), exit_file)
        running.process = adopt(trace, self._alive)
        return running

    # Finishing

    async def _finish_jobs(self) -> None:
        """Publishes what is finished, and finishes what may take its time, all at once that has ended meanwhile."""
        while self._finished or self._long or not self._all_over:
            if not self._finished and not self._long:
                self._news = anyio.Event()
                await self._news.wait()
            finished, self._finished = self._finished, []
            for running, outcome, claim in finished:
                for path in claim.fresh:
                    self._work.collected(outcome.identifier, path)
                await self._work.ended(running.index, outcome, replaced=running.replaced)
            batch, self._long = self._long, []
            if batch:
                self._finished += await in_thread(self._finish_patiently, batch, limiter=self._file_work)
        self._collector.stop()

    def _finish_patiently(self, batch: list[_Running]) -> list[_Finished]:
        return self._finish(batch, self._left_behind(batch))

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

    def _finish(self, batch: list[_Running], left: dict[str, list[int]]) -> list[_Finished]:
        """Finishes jobs that have ended: they share the final look at the tree."""
        has_room = self._folder.has_room
        if not has_room:
            self._folder.use_reserve()
        claims = self._collector.finish([running.experiment.identifier for running in batch])
        finished = []
        for running in batch:
            claim = claims[running.experiment.identifier]
            if running.experiment.identifier in left:
                running.experiment.problem(f"left processes behind: {', '.join(map(str, left[running.experiment.identifier]))}")
            finished.append((running, self._finalize(running, claim, has_room=has_room), claim))
        return finished

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
        if self._is_cancelled and exit_.signal == signal.SIGINT:
            # The same Ctrl-C, which reached it before it was in a session of its own
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
                running.process.record(exit_file, exit_._replace(no_room=exit_.no_room or not has_room))
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
