"""Jobs as processes of this machine. Every job takes one road, however it ends:

prepare -> spawn -> wait -> end -> copy -> final scan -> final metadata
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.lowlevel
from msgspec.structs import replace

from ..blocking import in_thread, shielded
from ..collection.both import collector_of
from ..collection.collector import Collected
from ..collection.copies import Copies
from ..language.plan import Plan
from ..model import Problem, ProblemKind, Status
from ..storage.files import remove_parts
from ..storage.identifiers import time_of
from ..storage.metadata import now
from ..storage.run_folder import RunFolder
from ..storage.writer import SYNC_AFTER, Experiment
from .adopt import adopt, adopted_end, left_alone
from .base import NotBegunError, OpenRun, Slot, Todo, outcome_of, start_event
from .closing import UNSUPERVISED, keep_exit, record_end, write
from .elsewhere import Elsewhere
from .local_job import LocalJob
from .memory import MemoryKills
from .proc import CENSUS, by_job, processes_of
from .processes import Launch, hidden_from_shells, start, why_not_started

UNFINISHED = 256
"""Jobs that may have ended and wait to be finished before no more start: the disk sets the pace."""

MAX_SCAN_SHARE = 0.1
"""At most this share of the time goes into scanning the working directory while jobs run. In a
large one a scan takes longer than a short job."""

BREAKS = 3
"""So often a host can break into the end of a job before the job is given up."""

THREADS = 4
"""Worker threads for the files of jobs. They are Hermes' own: a host that is busy with threads of
its own delays nothing."""


class LocalExecutor:
    """This machine."""

    name = "local"
    is_here = True
    cancelling = "stopping: jobs get {grace} to end; once more to kill them"
    killing = "killing the jobs; once more to leave at once"

    def __init__(self, memory_kills: Callable[[], MemoryKills] = MemoryKills.here) -> None:
        self._memory_kills = memory_kills

    async def check(self, plan: Plan) -> None:
        """Every plan can be executed here."""

    async def held(self, folder: RunFolder, *, failed: bool) -> Set[str]:
        """None: jobs end, or are taken up, with the process that runs them."""
        return frozenset()

    @asynccontextmanager
    async def opened(self, run: OpenRun) -> AsyncIterator[LocalPlace]:
        place = LocalPlace(run)
        place.memory_kills = await in_thread(self._memory_kills, limiter=place.threads)
        stop = anyio.Event()
        async with anyio.create_task_group() as services:
            services.start_soon(shielded, partial(place.collector.watch, stop))
            try:
                yield place
            finally:
                stop.set()
                place.close()


LOCAL = LocalExecutor()


class LocalPlace:
    """This machine, at work on one run."""

    left = 0

    def __init__(self, run: OpenRun) -> None:
        self.run = run
        self.window = run.plan.settings.threads
        self.collector = collector_of(
            run.folder.working_directory,
            str(run.plan.working_directory),
            experiments=run.folder.experiments,
            on_files=self._tell_collected,
            on_warning=run.warn,
            lives_elsewhere=Elsewhere(run.folder.experiments, run.folder.run_id).lives,
        )
        self.threads = anyio.CapacityLimiter(THREADS)
        self.memory_kills = MemoryKills(None)
        # An inner run, which a job starts, has to have ended its jobs before it is killed itself
        run.folder.environment[b"HERMES_GRACE"] = f"{run.grace.seconds:g}".encode()
        self._hidden = hidden_from_shells(run.folder.environment)
        self._has_told_unsupervised = False
        self._empty = os.open(os.devnull, os.O_RDONLY)
        """What all jobs read."""

        # Taken without a turn of the event loop where that is possible
        self._unfinished = anyio.Semaphore(UNFINISHED, fast_acquire=True)
        self._finishing = anyio.Lock(fast_acquire=True)
        self._ended: list[LocalJob] = []
        """Jobs that have ended and are not finished yet."""

        self._running = 0
        """Jobs whose processes have not ended."""

        self._alive: Mapping[str, Sequence[int]] | None = None
        self._alive_lock = threading.Lock()

    def close(self) -> None:
        os.close(self._empty)

    def set_pace(self, *, threads: int, is_paused: bool) -> None:
        """Nothing waits here that was not started."""
        self.window = threads

    def start_no_more(self) -> None:
        """Nothing waits here that was not started."""

    def kill(self) -> None:
        """Nothing waits here but the grace of jobs, which ends by itself."""

    @asynccontextmanager
    async def job(self, todo: Todo, slot: Slot) -> AsyncIterator[LocalJob]:
        prepare = self._prepare if todo.leftover is None else self._take_up
        job = await in_thread(prepare, todo, slot, limiter=self.threads)
        self._running += 1
        try:
            if job.launch is not None:
                await self._start(job, job.launch)
            if job.process is not None:
                job.started = start_event(todo, job.experiment, slot, job.process.pid)
            yield job
        except GeneratorExit:
            # The event loop is gone, or the task was dropped: nothing can be waited for
            job.abandon()
            raise
        finally:
            if not job.is_abandoned:
                await self._bring_to_end(job, slot)

    async def _bring_to_end(self, job: LocalJob, slot: Slot) -> None:
        """Ends a job if it has not ended, and finishes it.

        Where the host breaks the shield, as `asyncio.run` does after a second Ctrl-C, the job is
        killed without further grace; the host's exception is raised when that is done.
        """
        broken: BaseException | None = None
        for _ in range(BREAKS):
            try:
                with anyio.CancelScope(shield=True):
                    await self._end_and_finish(job, slot)
                break
            except GeneratorExit:
                job.abandon()
                raise
            except (asyncio.CancelledError, KeyboardInterrupt, SystemExit) as exc:
                self.run.grace.end_now()
                broken = exc
        else:
            job.abandon()
        if broken is not None:
            raise broken

    async def _end_and_finish(self, job: LocalJob, slot: Slot) -> None:
        """What has been done already is not done again."""
        if math.isnan(job.ended):
            await self._end(job)
            self._running -= 1
        options = job.experiment.job.options
        if (options.copy_after or options.move_after) and not job.is_copied:
            job.is_copied = True
            # Before the next job can write the same fixed name
            await in_thread(self._copy_after, job, limiter=self.threads)
        async with self._unfinished:
            slot.release()
            await self._finish(job)

    # Prepare

    def _prepare(self, todo: Todo, slot: Slot) -> LocalJob:
        """Makes the experiment, and copies what is to be copied before. Blocks."""
        try:
            if not self.run.folder.has_room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            experiment = self.run.folder.experiment(
                todo.job,
                todo.key,
                attempt=todo.attempt,
                index=todo.index,
                slot=slot.number,
                gpus=slot.gpus,
            )
        except OSError as exc:
            where = f" `{exc.filename}`" if exc.filename else ""
            text = f"the experiment directory could not be made: {exc.strerror}{where}"
            raise NotBegunError(Problem.of(ProblemKind.NO_DIRECTORY, text, exc)) from None
        self._collect_for(experiment, adopted=experiment.is_continued)
        if todo.job.options.copy_before and not experiment.is_continued:
            experiment.metadata.files += self._copies(experiment).before()
        launch = self._launch(experiment)
        return LocalJob(
            run=self.run, threads=self.threads, todo=todo, experiment=experiment, launch=launch
        )

    def _take_up(self, todo: Todo, slot: Slot) -> LocalJob:
        """Goes on with an experiment of an earlier runner. Blocks."""
        assert todo.leftover is not None
        directory, metadata = todo.leftover.directory, todo.leftover.metadata
        exit_file = self.run.folder.exit_file(metadata.identifier)
        if problem := left_alone(metadata.identifier, todo.leftover.machine, exit_file):
            raise NotBegunError(problem, Status.RUNNING)
        experiment = Experiment.reopen(self.run.folder, todo.job, directory, metadata)
        if experiment.home.is_there:
            remove_parts(directory)
        self._collect_for(experiment, adopted=True)
        poll = self.run.timing.adopted_poll
        process = adopt(metadata, exit_file, self._alive_processes(), poll)
        # The first that a supervisor does is to make its file
        supervised = self.run.plan.settings.supervise
        if process is None and todo.again and supervised and not os.path.exists(exit_file):
            collected = self.collector.finish([experiment.identifier])[experiment.identifier]
            is_unused = metadata.start is None and not collected.files
            if is_unused and experiment.is_untouched:
                experiment.discard()
                raise NotBegunError(None)
            self._collect_for(experiment, adopted=True)
        if metadata.start is None and (process is not None or os.path.exists(exit_file)):
            # Its runner was killed before it could write that down
            experiment.metadata.start = time_of(experiment.identifier)
        return LocalJob(
            run=self.run,
            threads=self.threads,
            todo=todo,
            experiment=experiment,
            process=process,
            reason=todo.leftover.reason,
        )

    def _collect_for(self, experiment: Experiment, *, adopted: bool) -> None:
        identifier = experiment.identifier
        record = self.run.folder.links_file(identifier)
        self.collector.add(identifier, experiment.home, record=record, adopted=adopted)

    def _alive_processes(self) -> Mapping[str, Sequence[int]]:
        """Live processes of jobs by identifier. Nobody starts jobs that are taken up, so once is
        enough."""
        with self._alive_lock:
            if self._alive is None:
                self._alive = processes_of("HERMES_IDENTIFIER")
            return self._alive

    # Spawn

    async def _start(self, job: LocalJob, launch: Launch) -> None:
        """Starts the process, unless the run is cancelled or a copy has failed."""
        try:
            process = await start(launch, self.run.timing.busy, partial(self._begins, job))
        except (OSError, ValueError) as exc:
            job.exit, text = why_not_started(exc)
            job.experiment.add_problem(Problem(ProblemKind.NOT_STARTED, text))
        else:
            if process is not None:
                job.process, job.experiment.metadata.pid = process, process.pid
                if launch.exit_file is not None and not process.is_supervised:
                    self._tell_unsupervised()
        finally:
            job.experiment.close_logs()

    def _begins(self, job: LocalJob) -> bool:
        if job.experiment.metadata.problems or _is_cancelled():
            return False
        job.began = time.monotonic()
        job.experiment.metadata.start = now()
        return True

    def _tell_unsupervised(self) -> None:
        if not self._has_told_unsupervised:
            self._has_told_unsupervised = True
            self.run.warn(UNSUPERVISED)

    def _launch(self, experiment: Experiment) -> Launch:
        program, *words = experiment.argv
        if program == "python":
            program = experiment.metadata.program or program
        supervised = self.run.plan.settings.supervise
        return Launch(
            identifier=experiment.identifier,
            argv=[program, *words],
            working_directory=experiment.working_directory,
            environment=experiment.environment(),
            stdin=self._empty,
            stdout=experiment.logs[0],
            stderr=experiment.logs[1],
            exit_file=self.run.folder.exit_file(experiment.identifier) if supervised else None,
            hidden=self._hidden,
        )

    # End and copy

    async def _end(self, job: LocalJob) -> None:
        """Ends the process if it has not ended, and notes when that was."""
        if job.process is not None and job.exit is None:
            if await job.process.has_ended():
                # By itself, whoever was about to end it
                job.reason = job.todo.leftover.reason if job.todo.leftover is not None else None
                job.exit = await job.process.wait()
            else:
                job.reason = job.reason or Status.CANCELLED
                # Before the first signal: a resumed run must not take the job for failed
                await in_thread(self._note_ending, job, limiter=self.threads)
                job.exit = await job.process.end(self.run.grace)
        job.ended = time.monotonic()
        job.experiment.metadata.end = now()
        if job.exit is not None and job.exit.code != 0 and not job.is_adopted:
            # Now, before another job can run and be killed
            kills = partial(self.memory_kills.since, job.began)
            job.memory_kills = await in_thread(kills, limiter=self.threads)

    def _note_ending(self, job: LocalJob) -> None:
        journal = self.run.folder.journal
        if journal is not None and job.reason is not None:
            journal.ending(job.experiment.identifier, job.reason)

    def _copy_after(self, job: LocalJob) -> None:
        job.experiment.metadata.files += self._copies(job.experiment).after()

    def _copies(self, experiment: Experiment) -> Copies:
        identifier = experiment.identifier
        return Copies(
            options=experiment.job.options,
            placeholders=experiment.placeholders,
            working_directory=self.run.folder.working_directory,
            original=str(self.run.plan.working_directory) if self.run.folder.frozen else None,
            home=experiment.home,
            experiments=self.run.folder.experiments,
            owned=partial(self.collector.owned, identifier),
            give_back=partial(self.collector.give_back, identifier),
            report=experiment.add_problem,
        )

    # Final scan and final metadata

    async def _finish(self, job: LocalJob) -> None:
        """Finishes a job that has ended. All that end at about the same time share one scan."""
        if job not in self._ended:
            self._ended.append(job)
        async with self._finishing:
            while job.outcome is None:
                await self._wait_for_more()
                batch, self._ended = self._ended, []
                try:
                    fresh = await in_thread(self._finish_all, batch, limiter=self.threads)
                finally:
                    # Those with processes that may end in a moment; all, if this has failed
                    self._ended += [each for each in batch if each.outcome is None]
                self._tell_collected(fresh)
                self.collector.tell()

    async def _wait_for_more(self) -> None:
        """Waits while further jobs run that may end soon, as long as that delays nobody."""
        pause = max(self.run.timing.settle, self.collector.scan_took / MAX_SCAN_SHARE)
        ends = time.monotonic() + pause
        # No event: a job that ends is no reason to wake up, only the last one is
        while self._running and time.monotonic() < ends:  # noqa: ASYNC110
            await anyio.sleep(self.run.timing.settle)

    def _finish_all(self, batch: Sequence[LocalJob]) -> list[tuple[str, str]]:
        """Finishes jobs, except those whose processes may end in a moment. Blocks.

        Returns the files of which nobody has been told yet, as identifier and path.
        """
        folder = self.run.folder
        left = self._left_processes(batch)
        over = [job for job in batch if not (left[job] and self._may_linger(job))]
        has_room = folder.has_room
        if not has_room:
            folder.use_reserve()
        collected = self.collector.finish([job.experiment.identifier for job in over])
        fresh = []
        for job in over:
            identifier = job.experiment.identifier
            if left[job]:
                pids = ", ".join(map(str, left[job]))
                text = f"left processes behind: {pids}"
                job.experiment.add_problem(Problem(ProblemKind.LEFT_PROCESSES, text))
            self._close(job, collected[identifier], has_room=has_room)
            fresh += [(identifier, path) for path in collected[identifier].fresh]
        return fresh

    def _may_linger(self, job: LocalJob) -> bool:
        return time.monotonic() < job.ended + self.run.timing.linger

    def _left_processes(self, batch: Sequence[LocalJob]) -> dict[LocalJob, list[int]]:
        """The processes that have outlived their jobs.

        Of jobs that took some time also those that have left the group: to ask for all processes
        takes longer than a job that is over in no time.
        """
        thorough = any(
            job.is_adopted or job.seconds > self.run.timing.record_after for job in batch
        )
        identifiers = [job.experiment.identifier for job in batch]
        strays = by_job(CENSUS.take(), identifiers) if thorough else {}
        left: dict[LocalJob, list[int]] = {job: [] for job in batch}
        for job in batch:
            if job.process is not None:
                found = strays.get(job.experiment.identifier, ())
                left[job] = sorted({*job.process.left_behind(), *found})
        return left

    def _close(self, job: LocalJob, collected: Collected, *, has_room: bool) -> None:
        """Writes the final metadata of one job. Blocks.

        For lack of room its exit status is left behind too: a resumed run finishes it.
        """
        experiment, metadata = job.experiment, job.experiment.metadata
        seconds = job.seconds
        if job.is_adopted:
            exit_file = self.run.folder.exit_file(experiment.identifier)
            metadata.end, seconds = adopted_end(exit_file, metadata.start)
        was_started = job.process is not None or job.is_adopted
        reason = job.reason
        if job.exit is not None and job.exit.signal == signal.SIGINT and self.run.is_cancelled():
            # The same Ctrl-C reached the job before it was in a session of its own
            reason = Status.CANCELLED
        record_end(
            experiment,
            collected,
            end=job.exit,
            reason=reason,
            seconds=seconds if was_started else None,
            has_room=has_room,
            memory_kills=job.memory_kills,
        )
        status = metadata.status
        is_written = write(experiment, sync=seconds > SYNC_AFTER, has_ended=True)
        if not is_written and status is not Status.CANCELLED:
            status = Status.FAILED
        if is_written and self.run.folder.journal is not None:
            self.run.folder.journal.end(experiment.identifier, status)
        exit_file = self.run.folder.exit_file(experiment.identifier)
        keep_exit(job.process, job.exit, exit_file, experiment, is_written, has_room)
        job.outcome = replace(outcome_of(experiment), status=status)

    def _tell_collected(self, files: Sequence[tuple[str, str]]) -> None:
        for identifier, path in files if self.run.follow_files else ():
            self.run.collected(identifier, path)


def _is_cancelled() -> bool:
    """Whether the task is about to be cancelled, at its next chance."""
    return anyio.current_effective_deadline() == -math.inf
