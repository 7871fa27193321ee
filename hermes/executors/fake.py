"""An executor without processes: jobs are async functions. For tests of what a runner decides,
Hermes' own and users'.

Experiments are real: directories, logs and metadata are made as for any other job.

    async def behave(job: FakeJob) -> int:
        job.write("stdout.log", "trained\\n")
        return 0

    result = await hermes.run_file("sweep.hermes", executor=FakeExecutor(behave))
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Set
from contextlib import asynccontextmanager

import anyio

from ..blocking import in_thread
from ..events import JobStarted
from ..language.plan import Plan
from ..model import Outcome, Problem, ProblemKind, Status
from ..storage.metadata import now
from ..storage.run_folder import RunFolder
from ..storage.writer import Experiment
from .base import NotBegunError, OpenRun, Slot, Todo, outcome_of, start_event, time_limit
from .exits import Exit, status_of


class FakeJob:
    """A job that is executed by a function. `argv` are its words, `directory` its experiment's."""

    def __init__(self, todo: Todo, experiment: Experiment, slot: Slot, behave: Behaviour) -> None:
        self.todo = todo
        self.limit = time_limit(experiment.run.plan, todo.job)
        self.identifier = experiment.identifier
        self.argv = experiment.argv
        self.directory = experiment.directory
        self.reason: Status | None = None
        self.outcome: Outcome | None = None
        self.exit: Exit | None = None
        self.began = time.monotonic()
        self._experiment = experiment
        self._slot = slot
        self._behave = behave

    @property
    def started(self) -> JobStarted:
        return start_event(self.todo, self._experiment, self._slot, pid=0)

    @property
    def time_left(self) -> float:
        return self.began + self.limit - time.monotonic()

    async def wait(self) -> None:
        if self.todo.leftover is None:
            self.exit = Exit(code=await self._behave(self))

    def write(self, name: str, text: str) -> None:
        """Appends to a file of the experiment directory, as to the log `stdout.log`. Blocks."""
        with open(f"{self.directory}/{name}", "a") as file:
            file.write(text)


Behaviour = Callable[[FakeJob], Awaitable[int]]
"""Executes a job and returns its exit code. Cancelled when the job is ended."""


async def succeed(job: FakeJob) -> int:
    """Does nothing, successfully."""
    return 0


class FakeExecutor:
    """Executes every job by `behave`. `window`: how many may run at once, by default `threads`."""

    name = "fake"
    is_here = True
    cancelling = "stopping"
    killing = "stopping at once"

    def __init__(self, behave: Behaviour = succeed, *, window: int | None = None) -> None:
        self._behave = behave
        self._window = window

    async def check(self, plan: Plan) -> None:
        """Every plan can be executed here."""

    async def held(self, folder: RunFolder, *, failed: bool) -> Set[str]:
        """None: jobs end with the process that runs them."""
        return frozenset()

    @asynccontextmanager
    async def opened(self, run: OpenRun) -> AsyncIterator[FakePlace]:
        yield FakePlace(run, self._behave, self._window)


class FakePlace:
    """A fake executor at work on one run."""

    left = 0

    def __init__(self, run: OpenRun, behave: Behaviour, window: int | None) -> None:
        self._own_window = window
        self.window = window or run.plan.settings.threads
        self._run = run
        self._behave = behave

    def set_pace(self, *, threads: int, is_paused: bool) -> None:
        """Nothing waits here that was not started."""
        self.window = self._own_window or threads

    def start_no_more(self) -> None:
        """Nothing waits here that was not started."""

    def kill(self) -> None:
        """Nothing waits here."""

    @asynccontextmanager
    async def job(self, todo: Todo, slot: Slot) -> AsyncIterator[FakeJob]:
        experiment = await in_thread(self._prepare, todo, slot)
        job = FakeJob(todo, experiment, slot, self._behave)
        try:
            yield job
        finally:
            if job.exit is None and todo.leftover is None:
                job.reason = job.reason or Status.CANCELLED
            slot.release()
            with anyio.CancelScope(shield=True):
                job.outcome = await in_thread(_close, job, experiment)

    def _prepare(self, todo: Todo, slot: Slot) -> Experiment:
        folder = self._run.folder
        try:
            if todo.leftover is not None:
                directory, metadata = todo.leftover.directory, todo.leftover.metadata
                return Experiment.reopen(folder, todo.job, directory, metadata)
            experiment = folder.experiment(
                todo.job,
                todo.key,
                attempt=todo.attempt,
                index=todo.index,
                slot=slot.number,
                gpus=slot.gpus,
            )
        except OSError as exc:
            text = f"the experiment directory could not be made: {exc.strerror}"
            raise NotBegunError(Problem.of(ProblemKind.NO_DIRECTORY, text, exc)) from None
        experiment.close_logs()
        experiment.metadata.start = now()
        experiment.write(sync=False)
        return experiment


def _close(job: FakeJob, experiment: Experiment) -> Outcome:
    metadata = experiment.metadata
    metadata.end = now()
    metadata.duration = time.monotonic() - job.began
    metadata.status = status_of(job.exit, job.reason, metadata.problems, was_started=True)
    metadata.exit_code = job.exit.code if job.exit is not None else None
    experiment.complete()
    experiment.write(sync=False)
    return outcome_of(experiment)
