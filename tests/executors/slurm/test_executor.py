"""The executor by its own protocol: what the runner does not ask for otherwise."""

from __future__ import annotations

import anyio
import pytest

import hermes
from hermes import Status
from hermes.executors.base import Grace, NotBegunError, OpenRun, Todo
from hermes.executors.slurm.executor import SLURM
from hermes.executors.slurm.finishing import NoSlot
from hermes.language.keys import Keys
from hermes.storage.run_folder import RunFolder
from hermes.timing import Timing

from ...support import Project
from .cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120), pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def new_run(project: Project, *entries: str) -> OpenRun:
    timing = Timing()
    path = project.hermes_file(*entries, settings={"executor": "slurm"})
    plan = hermes.compile_file(path, working_directory=project.path, root=project.path)
    return OpenRun(
        plan=plan,
        folder=RunFolder.create(plan, "test", timing),
        grace=Grace(10.0),
        timing=timing,
        is_cancelled=lambda: False,
        collected=lambda *_: None,
        warn=lambda message: pytest.fail(message),
        queued=lambda *_: None,
    )


def first_todo(run: OpenRun) -> Todo:
    job = next(iter(run.plan.jobs))
    return Todo(index=0, job=job, key=Keys(".").key(job), attempt=1)


async def test_a_job_whose_time_is_over_is_ended(project: Project, cluster: Cluster) -> None:
    project.write("job.sh", 'echo early > "early_$1"; touch begun; sleep 60\n')
    run = new_run(project, "[[sh, job.sh]]")
    with anyio.fail_after(60):
        async with SLURM.opened(run) as place:
            async with place.job(first_todo(run), NoSlot()) as job:
                await project.until((project.path / "begun").exists)
                job.reason = Status.TIMEOUT
            assert place.left == 0
    assert job.outcome is not None
    assert (job.outcome.status, job.outcome.problems) == (Status.TIMEOUT, ())
    experiment = project.experiment()
    assert (experiment.status, experiment.problems) == (Status.TIMEOUT, ())
    assert list(project.tree(experiment.directory, own=True)) == [f"early_{experiment.identifier}"]


async def test_a_job_that_is_left_goes_on(project: Project, cluster: Cluster) -> None:
    project.write("job.sh", "while [ -e hold ]; do sleep 0.02; done\n")
    project.write("hold")
    run = new_run(project, "[[sh, job.sh]]")
    todo = first_todo(run)
    with anyio.fail_after(60):
        async with SLURM.opened(run) as place:
            with anyio.CancelScope() as scope:
                async with place.job(todo, NoSlot()) as job:
                    scope.cancel()
                    await job.wait()
            assert (job.outcome, place.left) == (None, 1)
        assert await SLURM.held(run.folder, failed=False) == {todo.key}
        (project.path / "hold").unlink()
        async with SLURM.opened(run) as place, place.job(todo, NoSlot()) as job:
            await job.wait()
    assert job.outcome is not None
    assert job.outcome.status is Status.FINISHED
    assert len(project.experiments()) == 1
    assert await SLURM.held(run.folder, failed=False) == set()


async def test_a_job_of_an_earlier_client_of_which_there_is_nothing_is_to_be_started_anew(
    project: Project, cluster: Cluster
) -> None:
    run = new_run(project, "[[true]]")
    todo = first_todo(run)
    taken_up = Todo(index=0, job=todo.job, key=todo.key, attempt=1, is_taken_up=True)
    async with SLURM.opened(run) as place:
        with pytest.raises(NotBegunError) as caught:
            async with place.job(taken_up, NoSlot()):
                """Never entered."""
    assert caught.value.problem is None


async def test_an_exception_in_the_block_is_raised_as_it_is(
    project: Project, cluster: Cluster
) -> None:
    with pytest.raises(LookupError):
        async with SLURM.opened(new_run(project, "[[true]]")):
            raise LookupError
