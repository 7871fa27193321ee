"""Process groups of jobs are ended: gently first, all of them, whoever asks for it."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

import hermes
from hermes import Status
from hermes.executors.base import Grace
from hermes.executors.exits import Exit
from hermes.executors.processes import Launch, spawn

from ..support import (
    LIMIT,
    Project,
    RecordProperty,
    is_alive,
    times,
)
from ..support.endless import check_ended, pids, ready
from ..support.jobs import SUPERVISED

pytestmark = pytest.mark.anyio


@pytest.mark.fault(5, 23)
@SUPERVISED
async def test_cancel_by_the_host_ends_all_groups(endless: Project, supervise: bool) -> None:
    entries = [
        "[[sh, stubborn.sh]]",
        "[[sh, child.sh]]",
        "[[sh, obedient.sh]]",
        "[[sh, obedient.sh, never started]]",
    ]
    path = endless.hermes_file(*entries, settings={"supervise": supervise, "threads": 3})
    options: dict[str, Any] = {
        "working_directory": endless.path,
        "root": endless.path,
        "grace": 0.3,
    }
    returned = False
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            nonlocal returned
            await hermes.run_file(path, "test", **options)
            returned = True

        tasks.start_soon(run)
        await endless.until(ready(endless, 3))
        tasks.cancel_scope.cancel()
    assert not returned
    check_ended(endless, 3)
    by_script = {experiment.script: experiment for experiment in endless.experiments()}
    assert by_script["stubborn.sh"].signal == signal.SIGKILL
    assert by_script["child.sh"].signal == signal.SIGTERM
    # An obedient job may do its last things, and they are kept
    obedient = by_script["obedient.sh"]
    assert obedient.exit_code == 5
    assert obedient.stdout == f"said {obedient.identifier}\n"
    assert (obedient.directory / f"late_{obedient.identifier}").read_text() == "late"
    # The loop is as good as before
    assert anyio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
    endless.write("next.sh", "")
    assert (await endless.run(*["[[sh, next.sh]]"] * 4, threads=3)).ok


async def test_cancel_by_the_run_ends_all_groups(endless: Project) -> None:
    events = []
    with anyio.fail_after(30):
        async with endless.open(*["[[sh, obedient.sh]]"] * 3, threads=2, grace=20) as run:
            await endless.until(ready(endless, 2))
            run.cancel()
            async for event in run:
                events.append(event)
    # Nothing is raised: the block asked for it
    assert run.result.cancelled
    check_ended(endless, 2)
    assert [outcome.status for outcome in run.result.outcomes] == [Status.CANCELLED] * 2
    ended = events[-1]
    assert isinstance(ended, hermes.RunEnded)
    assert (ended.cancelled, ended.started, ended.succeeded) == (True, 2, 0)


async def test_no_thread_starts_a_job_while_the_interpreter_ends(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = threading.Event()
    left.set()
    monkeypatch.setattr("hermes.executors.processes._left", left)
    project.write("job.sh", ": > started")
    async with project.open("[[sh, job.sh]]") as run:
        await run.ended.wait()
    assert "about to end" in project.experiment().problems[0].text
    assert not (project.path / "started").exists()


@SUPERVISED
async def test_cancel_leaves_a_job_that_has_just_ended(project: Project, supervise: bool) -> None:
    project.write("job.sh", "while [ ! -e go ]; do sleep 0.01; done")
    async with project.open("[[sh, job.sh]]", settings={"supervise": supervise}) as run:
        pid = await project.until(
            lambda: [
                each.metadata.pid for each in project.experiments() if each.metadata.pid is not None
            ]
        )
        project.write("go")
        # The loop is held up meanwhile, so the run has not heard of it
        while is_alive(pid[0]):
            time.sleep(0.005)  # noqa: ASYNC251
        run.cancel()
    assert project.experiment().status is Status.FINISHED


@SUPERVISED
async def test_kill_by_the_run_ends_all_groups_at_once(endless: Project, supervise: bool) -> None:
    with anyio.fail_after(30):
        async with endless.open(
            "[[sh, stubborn.sh]]",
            "[[sh, child.sh]]",
            threads=2,
            grace=1000,
            settings={"supervise": supervise},
        ) as run:
            await endless.until(ready(endless, 2))
            run.kill()
    check_ended(endless, 2)
    assert [outcome.signal for outcome in run.result.outcomes] == [signal.SIGKILL] * 2


async def test_kill_while_being_cancelled(endless: Project) -> None:
    with anyio.fail_after(30):
        async with endless.open("[[sh, stubborn.sh]]", grace=1000) as run:
            await endless.until(ready(endless, 1))
            run.cancel()
            await anyio.lowlevel.checkpoint()
            run.kill()
    check_ended(endless, 1)


async def test_kill_while_a_job_is_being_started(
    endless: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = anyio.open_process
    runs: list[hermes.Run] = []

    async def kill_meanwhile(*arguments: Any, **options: Any) -> Any:
        process = await real(*arguments, **options)
        await endless.until(ready(endless, 1))
        runs[0].kill()
        return process

    monkeypatch.setattr(anyio, "open_process", kill_meanwhile)
    with anyio.fail_after(30):
        async with endless.open("[[sh, stubborn.sh]]", grace=1000) as run:
            runs.append(run)
    check_ended(endless, 1)


@pytest.mark.fault(23)
async def test_exception_in_the_body_ends_all_groups(endless: Project) -> None:
    async def fail() -> None:
        async with endless.open("[[sh, obedient.sh]]", "[[sh, child.sh]]", threads=2, grace=0.3):
            await endless.until(ready(endless, 2))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    check_ended(endless, 2)
    endless.write("next.sh", "")
    assert (await endless.run("[[sh, next.sh]]")).ok


@pytest.mark.fault(23)
async def test_exception_in_a_sibling_task_ends_the_group(endless: Project) -> None:
    path = endless.hermes_file("[[sh, obedient.sh]]")

    async def run() -> None:
        await hermes.run_file(path, "test", working_directory=endless.path, root=endless.path)

    async def fail() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await endless.until(ready(endless, 1))
            raise ValueError("mine")

    with pytest.raises(ExceptionGroup) as caught:
        await fail()
    assert [type(each) for each in caught.value.exceptions] == [ValueError]
    check_ended(endless, 1)


async def test_cancel_ends_a_job_that_is_stopped_by_sigstop(endless: Project) -> None:
    async with endless.open("[[sh, obedient.sh]]", grace=20) as run:
        await endless.until(ready(endless, 1))
        (pid,) = pids(endless)
        os.kill(pid, signal.SIGSTOP)
        run.cancel()
    check_ended(endless, 1)


@pytest.mark.fault(23)
@pytest.mark.anyio
async def test_sigterm_just_when_a_job_starts_reaches_it(
    tmp_path: Path, record_property: RecordProperty
) -> None:
    # As long as its supervisor has not come to executing it, it is the supervisor that gets the
    # signal
    chance = random.Random(4)
    tried = times(30, 500)
    record_property("tried", tried)
    with open(os.devnull, "w") as null:
        for number in range(tried):
            launch = Launch(
                identifier="",
                argv=["/bin/sleep", "1000"],
                working_directory=str(tmp_path),
                environment=os.environb,
                stdin=null.fileno(),
                stdout=null.fileno(),
                stderr=null.fileno(),
                exit_file=str(tmp_path / str(number)),
            )
            process = await spawn(launch)
            await anyio.sleep(chance.random() * 0.003)
            assert await process.end(Grace(LIMIT)) == Exit(signal=signal.SIGTERM)
