"""Programs that give up a run: cancelled in every way, at every moment."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

import hermes
from hermes import Status

from ..support import (
    LIMIT,
    Desk,
    RecordProperty,
    check_always,
    times,
    until,
)

pytestmark = pytest.mark.every_python

Step = Callable[[], Coroutine[Any, Any, object]]


async def _cancelled_by_a_scope(work: Step, moment: Step) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        await moment()
        tasks.cancel_scope.cancel()


async def _cancelled_natively(work: Step, moment: Step) -> None:
    if anyio.get_cancelled_exc_class() is trio.Cancelled:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            await moment()
            nursery.cancel_scope.cancel()
        return
    task = asyncio.ensure_future(work())
    await moment()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _failed_beside_it(work: Step, moment: Step) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await moment()
            raise ZeroDivisionError
    assert [type(each) for each in caught.value.exceptions] == [ZeroDivisionError]


HOSTS = (_cancelled_by_a_scope, _cancelled_natively, _failed_beside_it, None)
"""How a host gives up; None for an exception in the body of `open_run`."""

SOME_END = """\
printf %s "$1" > "made_$1"
# To be seen by the test, and by nobody else
printf x >> "$3"
[ "$2" -lt 3 ] || exec sleep 1000
"""
"""The first three jobs end, the others do not."""


def children() -> set[int]:
    """Processes that this one has started, those too that have ended and were not fetched."""
    listed = subprocess.Popen(["ps", "-A", "-o", "pid=,ppid="], stdout=subprocess.PIPE, text=True)
    pairs = [line.split() for line in listed.communicate()[0].splitlines()]
    return {int(pid) for pid, parent in pairs if int(parent) == os.getpid()} - {listed.pid}


@pytest.mark.fault(23)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_cancel_by_the_host_at_any_moment_leaves_nothing(
    desk: Desk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: RecordProperty,
    backend: str,
) -> None:
    # trio keeps idle threads for another ten seconds
    monkeypatch.setattr("trio._core._thread_cache.IDLE_TIMEOUT", 0.05)
    chance = random.Random(3)
    tried = times(4, 60)
    record_property("tried", tried)
    desk.write("job.sh", SOME_END)
    options: dict[str, Any] = {"working_directory": desk.path, "root": desk.path, "grace": LIMIT}
    threads, processes = set(threading.enumerate()), children()
    for number in range(tried):
        seen = tmp_path / f"seen{number}"
        path = desk.hermes_file(
            f"PROD([[sh, job.sh, {{n}} {seen}]], n=RANGE[0, 8])", settings={"threads": 3}
        )
        # Before the first, between any two, or when no more come
        jobs = chance.randint(0, 6)

        async def moment(seen: Path = seen, jobs: int = jobs) -> None:
            await desk.until(lambda: jobs == 0 or (seen.exists() and seen.stat().st_size >= jobs))

        async def host(number: int = number, path: Path = path, moment: Step = moment) -> None:
            gives_up = HOSTS[number % len(HOSTS)]
            with anyio.fail_after(LIMIT):
                if gives_up is not None:
                    await gives_up(partial(hermes.run_file, path, "test", **options), moment)
                else:
                    with pytest.raises(ZeroDivisionError):
                        async with hermes.open_run(path, "test", **options) as run:
                            await moment()
                            raise ZeroDivisionError
                    assert run.result.cancelled
            assert anyio.to_thread.current_default_thread_limiter().borrowed_tokens == 0

        anyio.run(host, backend=backend)
        assert children() == processes
        until(lambda: set(threading.enumerate()) <= threads)
        for experiment in desk.experiments():
            own = experiment.identifier
            # A job may come to its end by itself just when it is told to
            assert experiment.status is Status.CANCELLED or (
                experiment.status,
                experiment.exit_code,
            ) == (Status.FINISHED, 0)
            assert desk.leftovers(own) == []
            # One that was cancelled before it came to that made nothing
            assert desk.tree(experiment.directory, own=True) in (
                {f"made_{own}": own},
                {f"made_{own}": ""},
                {},
            )
        made = list(desk.experiments_folder.glob("job.sh/test/*/made_*"))
        assert len(made) >= jobs
        check_always(desk)
        shutil.rmtree(desk.experiments_folder, ignore_errors=True)


SLOW_GIT = """\
#!/bin/sh
: > asked
sleep 0.3
exit 1
"""


@pytest.mark.fault(29)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("gives_up", [_cancelled_by_a_scope, _cancelled_natively])
def test_cancel_by_the_host_while_the_run_is_being_opened_leaves_nothing(
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    gives_up: Callable[[Step, Step], Coroutine[Any, Any, None]],
) -> None:
    desk.write("bin/git", SLOW_GIT)
    (desk.path / "bin" / "git").chmod(0o755)
    (desk.path / ".git").mkdir()
    monkeypatch.setenv("PATH", f"{desk.path}/bin:{os.environ['PATH']}")
    monkeypatch.chdir(desk.path)
    path = desk.hermes_file("[[true]]")

    async def asked() -> None:
        await desk.until(lambda: (desk.path / "asked").exists())

    async def host() -> None:
        with anyio.fail_after(LIMIT):
            await gives_up(partial(hermes.run_file, path), asked)

    anyio.run(host, backend=backend)
    assert desk.experiments() == []
    for lock in desk.experiments_folder.glob(".hermes/*/lock"):
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    check_always(desk)
