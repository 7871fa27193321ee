"""Failed jobs that are tried again, and runs that start nothing more because too many fail."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

import hermes
from hermes import JobEnded, Options, Settings, Status
from hermes.executors.base import Todo
from hermes.executors.fake import FakeExecutor, FakeJob
from hermes.language.compiling import compile_command
from hermes.run.limits import are_too_many, pause_before_retry
from hermes.timing import Timing

from ..support import Project
from ..support.labs import Lab
from ..support.scripted import ScriptedExecutor

pytestmark = pytest.mark.anyio

AT_ONCE = Timing(first_retry=0.0)


@pytest.fixture
def project(project: Project) -> Project:
    project.write("job.sh")
    return project


def jobs(count: int, options: str = "") -> str:
    return f"PROD([[sh, job.sh, {{n}}],[{options}]], n=RANGE[0, {count}])"


class Unlucky:
    """Jobs that fail as often as a test says, by their last word, and then succeed."""

    def __init__(self, **failures: int) -> None:
        self.failures = Counter({name[1:]: count for name, count in failures.items()})
        self.started: list[str] = []

    async def behave(self, job: FakeJob) -> int:
        name = job.argv[-1]
        self.started.append(name)
        self.failures[name] -= 1
        return int(self.failures[name] >= 0)


# Plain functions


@pytest.mark.parametrize(
    ("status", "setting", "option", "failures", "pause"),
    [
        (Status.FAILED, 0, None, 0, None),
        (Status.FAILED, 1, None, 0, 1.0),
        (Status.TIMEOUT, 1, None, 0, 1.0),
        (Status.FAILED, 1, None, 1, None),
        (Status.FAILED, 3, 0, 0, None),
        (Status.FAILED, 0, 3, 1, 2.0),
        (Status.FAILED, 9, None, 5, 32.0),
        (Status.FAILED, 9, None, 6, 60.0),
        (Status.FAILED, 10**6, None, 10**5, 60.0),
        (Status.FINISHED, 9, 9, 0, None),
        (Status.CANCELLED, 9, 9, 0, None),
        (Status.LOST, 9, 9, 0, None),
    ],
)
def test_retries_are_as_many_as_asked_for_and_each_waits_longer(
    status: Status, setting: int, option: int | None, failures: int, pause: float | None
) -> None:
    (job,) = compile_command("true").jobs
    job = replace(job, options=Options(retries=option))
    todo = Todo(index=0, job=job, key="k", attempt=failures + 1, failures=failures)
    assert pause_before_retry(todo, status, Settings(retries=setting), Timing()) == pause


@pytest.mark.parametrize(
    ("failed", "ended", "limit", "too_many"),
    [
        (5, 5, None, False),
        (0, 5, "1", False),
        (1, 1, "1", True),
        (2, 90, "3", False),
        (3, 90, "3", True),
        (4, 90, "3", True),
        (9, 9, "20%", False),
        (2, 10, "20%", True),
        (1, 10, "20%", False),
        (3, 16, "20%", False),
        (0, 100, "1%", False),
        (99, 100, "100%", False),
        (100, 100, "100%", True),
    ],
)
def test_too_many_failures(failed: int, ended: int, limit: str | None, too_many: bool) -> None:
    assert are_too_many(failed, ended, limit) is too_many


# Whole runs


async def _events(project: Project, *entries: str, **options: Any) -> tuple[Any, list[JobEnded]]:
    async with project.open(*entries, **({"timing": AT_ONCE} | options)) as run:
        ended = [event async for event in run if isinstance(event, JobEnded)]
    return run.result, ended


async def test_a_retried_job_is_a_new_experiment_and_the_earlier_one_stays(
    project: Project,
) -> None:
    unlucky = Unlucky(_1=2)
    result, ended = await _events(
        project, jobs(3), threads=2, retries=2, executor=FakeExecutor(unlucky.behave)
    )
    assert result.ok
    assert sorted(unlucky.started) == ["0", "1", "1", "1", "2"]
    found = [each for each in project.experiments() if each.argv[-1] == "1"]
    assert [(each.metadata.attempts, each.status) for each in found] == [
        (1, Status.FAILED),
        (2, Status.FAILED),
        (3, Status.FINISHED),
    ]
    assert len({each.metadata.key for each in found}) == 1
    assert result.replaced == tuple(each.identifier for each in found[:2])
    assert result.failures == []
    told = [each.tried_again_in for each in ended if each.outcome.argv[-1] == "1"]
    assert told == [0.0, 0.0, None]


async def test_retries_end_with_the_last_failure(project: Project) -> None:
    unlucky = Unlucky(_0=9, _1=9, _2=9)
    entries = [jobs(2, "-r 1"), "[[sh, job.sh, 2],[-r 0]]"]
    result, _ = await _events(project, *entries, retries=3, executor=FakeExecutor(unlucky.behave))
    assert Counter(unlucky.started) == {"0": 2, "1": 2, "2": 1}
    assert not result.ok
    assert len(result.failures) == 3


async def test_retries_wait_and_other_jobs_go_before_them(project: Project) -> None:
    unlucky = Unlucky(_0=1)
    executor = FakeExecutor(unlucky.behave)
    timing = Timing(first_retry=0.2)
    result, ended = await _events(project, jobs(4), retries=1, executor=executor, timing=timing)
    assert sorted(unlucky.started[:4]) == ["0", "1", "2", "3"]
    assert unlucky.started[4:] == ["0"]
    assert result.ok
    (failed,) = [each for each in ended if each.tried_again_in is not None]
    assert failed.tried_again_in == 0.2
    assert ended[-1].time - failed.time >= 0.19


async def test_cancelled_runs_try_nothing_again(project: Project) -> None:
    unlucky = Unlucky(_0=9)
    executor = FakeExecutor(unlucky.behave)
    timing = Timing(first_retry=1000.0, last_retry=1000.0)
    async with project.open(jobs(1), retries=5, executor=executor, timing=timing) as run:
        async for event in run:
            if isinstance(event, JobEnded):
                run.cancel()
    assert unlucky.started == ["0"]
    assert run.result.cancelled
    assert not run.result.ok


@pytest.mark.parametrize("limit", [1, "3", "20%"])
async def test_max_failures_starts_nothing_more_and_resume_goes_on(
    project: Project, limit: str | int
) -> None:
    unlucky = Unlucky(**{f"_{n}": 1 for n in range(30)})
    executor = FakeExecutor(unlucky.behave)
    result, _ = await _events(project, jobs(30), max_failures=limit, executor=executor)
    count = {1: 1, "3": 3, "20%": 10}[limit]
    assert len(unlucky.started) == count
    assert result.too_many_failed
    assert not result.ok
    assert result.warnings[-1] == f"{count} failed: nothing more is started"
    async with hermes.open_resumed(
        working_directory=project.path, root=project.path, executor=ScriptedExecutor()
    ) as run:
        pass
    assert run.result.failed_before == count
    assert len(run.result.outcomes) == 30 - count


async def test_max_failures_counts_jobs_and_not_attempts(project: Project) -> None:
    unlucky = Unlucky(_0=2, _1=9, _2=2)
    result, _ = await _events(
        project, jobs(5), retries=2, max_failures=2, executor=FakeExecutor(unlucky.behave)
    )
    assert not result.too_many_failed
    assert [each.argv[-1] for each in result.failures] == ["1"]
    assert len(result.final) == 5


@pytest.mark.parametrize(("failures", "starts"), [(0, 3), (1, 2), (2, 1), (3, 0)])
async def test_resume_goes_on_counting_retries(
    project: Project, failures: int, starts: int
) -> None:
    lab = Lab(project, 2, settings={"retries": 2})
    lab.experiment(0, Status.FINISHED)
    for _ in range(failures):
        lab.experiment(1, Status.FAILED)
    lab.close()
    unlucky = Unlucky(_1=9)
    async with hermes.open_resumed(
        working_directory=project.path,
        root=project.path,
        executor=FakeExecutor(unlucky.behave),
        timing=AT_ONCE,
    ) as run:
        pass
    assert unlucky.started == ["1"] * starts
    attempts = [each.metadata.attempts for each in project.experiments()]
    assert sorted(attempts) == sorted([1, *range(1, failures + starts + 1)])
    assert run.result.failed_before == (starts == 0)


async def test_resume_of_failed_jobs_counts_anew(project: Project) -> None:
    lab = Lab(project, 1, settings={"retries": 1})
    for _ in range(2):
        lab.experiment(0, Status.TIMEOUT)
    lab.close()
    unlucky = Unlucky(_0=1)
    async with hermes.open_resumed(
        failed=True,
        working_directory=project.path,
        root=project.path,
        executor=FakeExecutor(unlucky.behave),
        timing=AT_ONCE,
    ) as run:
        pass
    assert unlucky.started == ["0", "0"]
    assert run.result.ok
    assert [each.metadata.attempts for each in project.experiments()] == [1, 2, 3, 4]


@pytest.mark.parametrize("ends_late", [True, False])
async def test_timeout_ends_a_job_and_it_is_tried_again(project: Project, ends_late: bool) -> None:
    started: list[str] = []

    async def sleep(job: FakeJob) -> int:
        started.append(job.identifier)
        await anyio.sleep(1000 if ends_late else 0)
        return 0

    result, _ = await _events(
        project, jobs(1), timeout=0.05, retries=1, executor=FakeExecutor(sleep)
    )
    statuses = [each.status for each in result.outcomes]
    assert statuses == ([Status.TIMEOUT] * 2 if ends_late else [Status.FINISHED])
    assert [each.status for each in project.experiments()] == statuses
    assert len(started) == len(statuses)
