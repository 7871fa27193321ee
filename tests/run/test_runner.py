"""What the runner decides and tells, with jobs that are functions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

import hermes
from hermes import Event, JobEnded, JobStarted, RunEnded, RunStarted, RunWarning, Status
from hermes.errors import HermesError
from hermes.events import FileCollected, LogChunk, QueueChanged
from hermes.executors.base import NotBegunError, OpenRun, Slot, Todo
from hermes.executors.fake import FakeExecutor, FakeJob, FakePlace
from hermes.model import Outcome, Problem, ProblemKind

from ..support import LIMIT, Project
from ..support.labs import Lab
from ..support.scripted import ScriptedExecutor

pytestmark = pytest.mark.anyio

FULL = Problem(ProblemKind.DISK_FULL, "the experiment directory could not be made: no room")
NO_DIRECTORY = Problem(ProblemKind.NO_DIRECTORY, "the experiment directory could not be made")


@pytest.fixture
def project(project: Project) -> Project:
    project.write("job.sh")
    return project


def jobs(count: int) -> str:
    return f"PROD([[sh, job.sh, {{n}}]], n=RANGE[0, {count}])"


async def events_of(project: Project, entry: str, **options: Any) -> list[Event]:
    with anyio.fail_after(LIMIT):
        async with project.open(entry, **options) as run:
            return [event async for event in run]


def told(events: list[Event]) -> list[str]:
    """The kinds of events that concern no job, in their order."""
    of_jobs = JobStarted | JobEnded | LogChunk | FileCollected
    return [type(event).__name__ for event in events if not isinstance(event, of_jobs)]


def told_of_jobs(events: list[Event]) -> dict[int, list[str]]:
    """The kinds of events of each job, in their order. The next job may start before the end of the
    last one is told.
    """
    indices = {event.identifier: event.index for event in events if isinstance(event, JobStarted)}
    found: dict[int, list[str]] = {}
    for event in events:
        if isinstance(event, JobStarted | JobEnded):
            found.setdefault(event.index, []).append(type(event).__name__)
        elif isinstance(event, LogChunk | FileCollected):
            found[indices[event.identifier]].append(type(event).__name__)
    return found


class Gate:
    """Jobs that wait until they are let go, and how many of them have met there."""

    def __init__(self) -> None:
        self.open = anyio.Event()
        self.inside: list[str] = []
        self.most = 0

    async def wait(self, job: FakeJob) -> int:
        self.inside.append(job.argv[-1])
        self.most = max(self.most, len(self.inside))
        try:
            await self.open.wait()
        finally:
            self.inside.remove(job.argv[-1])
        return 0


# Which job runs when


async def test_order_is_that_of_the_plan(project: Project) -> None:
    events = await events_of(project, jobs(6), executor=FakeExecutor())
    assert told(events) == ["RunStarted", "RunEnded"]
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunEnded)
    assert told_of_jobs(events) == {index: ["JobStarted", "JobEnded"] for index in range(6)}
    started = [event.index for event in events if isinstance(event, JobStarted)]
    assert started == [0, 1, 2, 3, 4, 5]


async def test_threads_are_how_many_run_at_once_and_slots_are_unique(project: Project) -> None:
    gate = Gate()
    async with project.open(jobs(7), threads=3, executor=FakeExecutor(gate.wait)) as run:
        await project.until(lambda: len(gate.inside) == 3)
        # Nobody else comes in, however long it takes
        await anyio.sleep(0.05)
        assert sorted(gate.inside) == ["0", "1", "2"]
        gate.open.set()
        slots = [event.slot async for event in run if isinstance(event, JobStarted)]
    # Trio starts tasks in any order
    assert sorted(slots[:3]) == [0, 1, 2]
    assert set(slots) == {0, 1, 2}
    assert gate.most == 3
    assert run.result.ok


async def test_window_of_an_executor_may_be_larger_than_threads(project: Project) -> None:
    gate = Gate()
    executor = FakeExecutor(gate.wait, window=5)
    async with project.open(jobs(7), threads=2, executor=executor):
        await project.until(lambda: len(gate.inside) == 5)
        gate.open.set()
    assert gate.most == 5


async def test_jobs_that_fail_stop_nothing(project: Project) -> None:
    async def fail(job: FakeJob) -> int:
        return int(job.argv[-1])

    result = await project.run(jobs(3), executor=FakeExecutor(fail))
    found = {each.exit_code: each.status for each in result.outcomes}
    assert found == {0: Status.FINISHED, 1: Status.FAILED, 2: Status.FAILED}
    assert not result.ok


async def test_a_million_jobs_stay_lazy(project: Project) -> None:
    executor = ScriptedExecutor()
    entry = "PROD([[sh, job.sh, {a} {b}]], a=RANGE[0, 1000], b=RANGE[0, 1000])"
    async with project.open(entry, executor=executor) as run:
        async for event in run:
            if isinstance(event, JobEnded) and event.index == 3:
                run.cancel()
    assert len(executor.todos) < 20


# How a run ends before its time


async def test_cancel_ends_what_runs_and_starts_nothing_more(project: Project) -> None:
    gate, executor = Gate(), ScriptedExecutor(Gate().wait)
    executor.behave = gate.wait
    async with project.open(jobs(5), threads=2, executor=executor) as run:
        await project.until(lambda: len(gate.inside) == 2)
        run.cancel()
        events = [event async for event in run]
    assert [each.status for each in run.result.outcomes] == [Status.CANCELLED] * 2
    assert run.result.cancelled
    assert len(executor.todos) == 2
    assert executor.killed == 0
    assert told_of_jobs(events) == {index: ["JobStarted", "JobEnded"] for index in (0, 1)}
    last = events[-1]
    assert isinstance(last, RunEnded)
    assert (last.started, last.succeeded, last.cancelled) == (2, 0, True)
    assert [each.status for each in project.experiments()] == [Status.CANCELLED] * 2


async def test_kill_tells_the_executor_and_ends_the_grace(project: Project) -> None:
    gate = Gate()
    executor = ScriptedExecutor(gate.wait)
    async with project.open(jobs(2), grace=1000, executor=executor) as run:
        await project.until(lambda: gate.inside)
        assert executor.run is not None
        assert executor.run.grace.seconds == 1000
        run.kill()
        assert executor.run.grace.over.is_set()
        assert executor.run.grace.seconds == 0
    assert executor.killed == 1
    assert [each.status for each in run.result.outcomes] == [Status.CANCELLED]


async def test_cancel_by_the_host_is_raised_and_every_end_is_told(project: Project) -> None:
    gate, returned = Gate(), False
    events: list[Event] = []
    with anyio.CancelScope() as host:
        async with project.open(jobs(3), threads=2, executor=FakeExecutor(gate.wait)) as run:
            listener = aiter(run)
            await project.until(lambda: len(gate.inside) == 2)
            host.cancel()
            await anyio.sleep(LIMIT)
        returned = True
    assert not returned
    assert run.result.cancelled
    events = [event async for event in listener]
    assert [event.outcome.status for event in events if isinstance(event, JobEnded)] == [
        Status.CANCELLED
    ] * 2
    assert isinstance(events[-1], RunEnded)


async def test_cancel_before_the_first_job_starts_none(project: Project) -> None:
    executor = ScriptedExecutor()
    async with project.open(jobs(3), executor=executor) as run:
        run.cancel()
        events = [event async for event in run]
    assert told(events) == ["RunStarted", "RunEnded"]
    assert executor.todos == []


async def test_an_executor_that_raises_ends_all_jobs(project: Project) -> None:
    gate = Gate()

    async def fail(job: FakeJob) -> int:
        if job.argv[-1] == "2":
            await project.until(lambda: len(gate.inside) == 2)
            raise ZeroDivisionError
        return await gate.wait(job)

    events: list[Event] = []
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        async with project.open(jobs(5), threads=3, executor=FakeExecutor(fail)) as run:
            async for event in run:
                events.append(event)
    # The one that has failed too: nobody knows how it would have ended
    statuses = [each.status for each in project.experiments()]
    assert set(statuses) == {Status.CANCELLED}
    assert [type(event) for event in events].count(JobEnded) == len(statuses)
    assert isinstance(events[-1], RunEnded)


async def test_an_executor_that_cannot_be_opened_runs_nothing(project: Project) -> None:
    class Closed(FakeExecutor):
        @asynccontextmanager
        async def opened(self, run: OpenRun) -> AsyncIterator[FakePlace]:
            raise HermesError("closed today")
            yield

    events: list[Event] = []
    with pytest.RaisesGroup(HermesError, flatten_subgroups=True):
        async with project.open(jobs(2), executor=Closed()) as run:
            async for event in run:
                events.append(event)
    assert told(events) == ["RunStarted", "RunEnded"]
    assert project.experiments() == []


# Jobs that are not begun, and full disks


async def test_jobs_that_are_not_begun_have_an_outcome_and_stop_nothing(project: Project) -> None:
    def refuse(todo: Todo) -> None:
        if todo.index == 1:
            raise NotBegunError(NO_DIRECTORY)

    events = await events_of(project, jobs(3), executor=ScriptedExecutor(before=refuse))
    assert told_of_jobs(events) == {
        0: ["JobStarted", "JobEnded"], 1: ["JobEnded"], 2: ["JobStarted", "JobEnded"],
    }  # fmt: skip
    (bad,) = [each.outcome for each in events if isinstance(each, JobEnded) and each.index == 1]
    assert (bad.identifier, bad.directory, bad.status) == ("", None, Status.FAILED)
    assert bad.problems == (NO_DIRECTORY,)


async def test_disk_full_when_a_job_is_to_begin_starts_nothing_more(project: Project) -> None:
    gate = Gate()

    def refuse(todo: Todo) -> None:
        if todo.index == 1:
            raise NotBegunError(FULL)

    executor = ScriptedExecutor(gate.wait, before=refuse)
    async with project.open(jobs(5), threads=2, executor=executor) as run:
        warnings = [each async for each in _until_warned(run)]
        gate.open.set()
    assert len(warnings) == 1
    assert "is full: nothing more is started" in warnings[0]
    # What runs goes on; nothing has become of the one that could not begin
    assert [each.status for each in run.result.outcomes] == [Status.FINISHED]
    assert run.result.disk_full
    assert not run.result.cancelled
    assert not run.result.ok
    assert [todo.index for todo in executor.todos] == [0, 1]


async def _until_warned(run: hermes.Run) -> AsyncIterator[str]:
    async for event in run:
        if isinstance(event, RunWarning):
            yield event.message
            return


@pytest.mark.parametrize("threads", [1, 3])
async def test_disk_full_when_a_job_ends_is_told_once_and_starts_nothing_more(
    project: Project, threads: int
) -> None:
    gate = Gate()

    async def end_when_told(job: FakeJob) -> int:
        if job.todo.index < threads:
            return await gate.wait(job)
        await project.until(lambda: run.result.warnings)
        return 0

    def fill(outcome: Outcome) -> Outcome:
        return replace(outcome, status=Status.FAILED, problems=(FULL,))

    executor = ScriptedExecutor(end_when_told, after=fill)
    async with project.open(jobs(20), threads=threads, executor=executor) as run:
        await project.until(lambda: len(gate.inside) == threads)
        gate.open.set()
        events = [event async for event in run]
    assert told(events) == ["RunStarted", "RunWarning", "RunEnded"]
    # Those that took the slots of the first ones were on their way
    assert threads < len(executor.todos) <= 2 * threads
    assert len(told_of_jobs(events)) == len(executor.todos) == len(run.result.outcomes)
    assert run.result.disk_full


# Again


async def test_again_what_an_earlier_runner_only_prepared(project: Project) -> None:
    tried: list[int] = []

    def prepared(todo: Todo) -> None:
        tried.append(todo.index)
        if tried == [0]:
            raise NotBegunError(None)

    executor = ScriptedExecutor(before=prepared)
    result = await project.run(jobs(2), executor=executor)
    assert result.ok
    assert sorted(tried) == [0, 0, 1]
    assert [todo.attempt for todo in executor.todos] == [1, 1, 1]


@pytest.fixture
def left(project: Project) -> list[str]:
    """A run whose runner is gone: of three jobs, the first has succeeded, the second was begun."""
    lab = Lab(project, 3)
    lab.experiment(0, Status.FINISHED)
    lost = lab.experiment(1)
    lab.close()
    return [lost.identifier]


async def test_again_what_was_lost_and_the_rest_of_the_plan(
    project: Project, left: list[str]
) -> None:
    executor = ScriptedExecutor()
    async with hermes.open_resumed(
        working_directory=project.path, root=project.path, executor=executor
    ) as run:
        events = [event async for event in run]
    found = [(todo.index, todo.attempt, todo.is_taken_up) for todo in executor.todos]
    assert found[0] == (1, 1, True)
    assert sorted(found[1:]) == [(1, 2, False), (2, 1, False)]
    first = events[0]
    assert isinstance(first, RunStarted)
    assert first.total == 2
    ended = [event.outcome for event in events if isinstance(event, JobEnded)]
    # A job gives its slot back before its end is told
    assert sorted(each.status for each in ended) == [
        Status.FINISHED,
        Status.FINISHED,
        Status.LOST,
    ]
    assert run.result.replaced == tuple(left)
    assert run.result.succeeded_before == 1
    assert run.result.ok


async def test_stopping_a_run_that_was_left_starts_nothing(
    project: Project, left: list[str]
) -> None:
    executor = ScriptedExecutor()
    async with hermes.open_stopped(
        working_directory=project.path, root=project.path, executor=executor
    ) as run:
        pass
    assert [(todo.index, todo.again) for todo in executor.todos] == [(1, False)]
    assert run.result.cancelled
    assert run.result.replaced == ()
    assert [each.identifier for each in run.result.outcomes] == left


# What executors tell


async def test_files_collected_before_a_job_s_start_is_told_are_told_after_it(
    project: Project,
) -> None:
    class Early(FakeExecutor):
        @asynccontextmanager
        async def opened(self, run: OpenRun) -> AsyncIterator[FakePlace]:
            yield _EarlyPlace(run)

    events = await events_of(project, jobs(2), executor=Early())
    expected = ["JobStarted", "FileCollected", "FileCollected", "JobEnded"]
    assert told_of_jobs(events) == {0: expected, 1: expected}
    for index in range(2):
        (own,) = [e.identifier for e in events if isinstance(e, JobStarted) and e.index == index]
        paths = [e.path for e in events if isinstance(e, FileCollected) and e.identifier == own]
        assert paths == ["early", "late"]


class _EarlyPlace(FakePlace):
    """Tells of one file before the runner knows the job, and of another after that."""

    def __init__(self, run: OpenRun) -> None:
        super().__init__(run, self._tell_late, 1)
        self.run = run

    async def _tell_late(self, job: FakeJob) -> int:
        self.run.collected(job.identifier, "late")
        return 0

    @asynccontextmanager
    async def job(self, todo: Todo, slot: Slot) -> AsyncIterator[FakeJob]:
        async with super().job(todo, slot) as job:
            self.run.collected(job.identifier, "early")
            yield job


async def test_queues_and_jobs_that_are_left_are_told(project: Project) -> None:
    async def queue(job: FakeJob) -> int:
        assert executor.run is not None
        executor.run.queued(3, 1, "Priority")
        return 0

    executor = ScriptedExecutor(queue, left=2)
    async with project.open(jobs(1), executor=executor) as run:
        events = [event async for event in run]
    (changed,) = [event for event in events if isinstance(event, QueueChanged)]
    assert (changed.pending, changed.running, changed.reason) == (3, 1, "Priority")
    assert run.result.left == 2


async def test_output_is_told_before_the_end_of_its_job(project: Project) -> None:
    async def speak(job: FakeJob) -> int:
        job.write("stdout.log", f"job {job.argv[-1]}\n")
        return 0

    events = await events_of(project, jobs(3), executor=FakeExecutor(speak))
    expected = ["JobStarted", "LogChunk", "JobEnded"]
    assert told_of_jobs(events) == dict.fromkeys(range(3), expected)
    said = {event.data for event in events if isinstance(event, LogChunk)}
    assert said == {b"job 0\n", b"job 1\n", b"job 2\n"}
