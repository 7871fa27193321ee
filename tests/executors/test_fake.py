"""The executor without processes: for users' tests, too."""

from __future__ import annotations

import json

import anyio
import pytest

from hermes import Status
from hermes.executors.fake import FakeExecutor, FakeJob

from ..support import Project

pytestmark = pytest.mark.anyio


async def test_fake_jobs_are_experiments_like_any_other(project: Project) -> None:
    project.write("job.sh")

    async def train(job: FakeJob) -> int:
        job.write("stdout.log", "trained\n")
        job.write("model.txt", job.argv[-1])
        return 4

    result = await project.run("[[sh, job.sh, --lr 0.1]]", executor=FakeExecutor(train))
    (outcome,) = result.outcomes
    experiment = project.experiment()
    assert (experiment.status, experiment.exit_code) == (Status.FAILED, 4)
    assert (outcome.status, outcome.exit_code) == (Status.FAILED, 4)
    assert (experiment.stdout, experiment.stderr) == ("trained\n", "")
    assert (experiment.directory / "model.txt").read_text() == "0.1"
    assert experiment.argv == ("sh", "job.sh", experiment.identifier, "--lr", "0.1")
    assert 0 < outcome.duration == experiment.duration
    metadata = json.loads((experiment.directory / "hermes.json").read_bytes())
    assert (metadata["attempts"], metadata["pid"]) == (1, None)
    assert metadata["files"] == [{"path": "model.txt", "bytes": 3, "origin": "written"}]


async def test_cancel_is_seen_by_a_fake_job(project: Project) -> None:
    project.write("job.sh")
    seen: list[str] = []

    async def wait(job: FakeJob) -> int:
        try:
            await anyio.sleep_forever()
        finally:
            seen.append(job.identifier)
        return 0

    async with project.open("[[sh, job.sh]]", executor=FakeExecutor(wait)) as run:
        await project.until(lambda: project.experiments())
        run.cancel()
    (outcome,) = run.result.outcomes
    assert outcome.status is Status.CANCELLED
    assert outcome.exit_code is None
    assert seen in ([outcome.identifier], [])


async def test_by_default_fake_jobs_succeed(project: Project) -> None:
    project.write("job.sh")
    assert (await project.run(*["[[sh, job.sh]]"] * 3, executor=FakeExecutor())).ok


async def test_places_that_cannot_be_made_are_told_of_fake_jobs_too(project: Project) -> None:
    project.write("job.sh")
    project.write("experiments/job.sh", "in its place")
    (outcome,) = (await project.run("[[sh, job.sh]]", executor=FakeExecutor())).outcomes
    assert outcome.directory is None
    assert "could not be made" in outcome.problems[0].text
