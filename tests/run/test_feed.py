"""Listeners: who comes late, leaves early, fails, or is slow."""

from __future__ import annotations

import gc
from collections import Counter

import anyio
import pytest

import hermes
from hermes import (
    Event,
    FileCollected,
    JobEnded,
    JobStarted,
    LogChunk,
    RunEnded,
    RunStarted,
    Status,
)
from hermes.events import RunWarning
from hermes.run import news
from hermes.run.feed import IN_A_ROW, Feed, Listener
from hermes.timing import Timing

from ..support import LIMIT, Project
from ..support.events import PRINT, told, written

pytestmark = pytest.mark.anyio


async def test_a_listener_that_leaves_early(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    # If somebody still waited for it to take what it will not take, the run would not end in time
    monkeypatch.setattr(news, "UNREAD", 3)
    project.write("print.py", PRINT)
    with anyio.fail_after(LIMIT):
        async with project.open(
            *[f"[[{project.PYTHON}, print.py, 300000]]"] * 4, timing=Timing(slow_reader=10 * LIMIT)
        ) as run:
            async for event in run:
                if isinstance(event, LogChunk):
                    break
    assert run.result.ok
    assert len(run.result.outcomes) == 4


async def test_a_listener_that_fails(project: Project) -> None:
    project.write("job.sh", ': > "a_$1"; while :; do sleep 0.01; done')

    async def fail() -> None:
        async with project.open("[[sh, job.sh]]", grace=20) as run:
            async for event in run:
                if isinstance(event, FileCollected):
                    raise KeyError("mine")

    with pytest.raises(KeyError):
        await fail()
    assert project.experiment().status is Status.CANCELLED
    assert [file.path for file in project.experiment().files] == [
        f"a_{project.experiment().identifier}"
    ]


async def test_a_slow_listener_gets_everything(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news, "UNREAD", 3)
    project.write("print.py", PRINT)
    events = []
    async with project.open(*[f"[[{project.PYTHON}, print.py, 500000]]"] * 3, threads=3) as run:
        async for event in run:
            events.append(event)
            await anyio.sleep(0.005)
    assert run.result.ok
    for stream in ("stdout", "stderr"):
        assert told(run, events, stream) == written(run, stream)


async def test_a_listener_that_stops_taking_holds_nobody_up(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news, "UNREAD", 3)
    project.write("print.py", PRINT)
    events: list[Event] = []
    async with project.open(
        *[f"[[{project.PYTHON}, print.py, 500000]]"] * 3, timing=Timing(slow_reader=0.05)
    ) as run:
        listener = aiter(run)
        events.append(await anext(listener))
        await project.until(lambda: len(run.result.outcomes) == 3)
        events += [event async for event in listener]
    assert run.result.ok
    # Chunks may be missing then, and nothing else; what there is of them is right
    counts = Counter(type(event) for event in events)
    assert (
        counts[RunStarted],
        counts[JobStarted],
        counts[FileCollected],
        counts[JobEnded],
        counts[RunEnded],
    ) == (1, 3, 3, 3, 1)
    logged = written(run, "stdout")
    for identifier, data in told(run, events, "stdout").items():
        assert logged[identifier].startswith(data)


async def test_a_listener_in_another_task_outlasts_the_block(project: Project) -> None:
    project.write("job.sh", 'echo "$2"; while [ ! -e go ]; do sleep 0.01; done; echo done')
    events: list[Event] = []

    async def listen(run: hermes.Run) -> None:
        async for event in run:
            events.append(event)
            if isinstance(event, JobStarted):
                project.write("go")

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks, project.open(*["[[sh, job.sh]]"] * 3) as run:
            tasks.start_soon(listen, run)
            await project.until(lambda: events)
    assert isinstance(events[-1], RunEnded)
    assert told(run, events, "stdout") == written(run, "stdout")


async def test_several_listeners(project: Project) -> None:
    project.write("job.sh", "echo out")
    heard: list[list[Event]] = [[], []]

    async def listen(run: hermes.Run, events: list[Event]) -> None:
        async for event in run:
            events.append(event)

    async with project.open(*["[[sh, job.sh]]"] * 3) as run, anyio.create_task_group() as tasks:
        for events in heard:
            tasks.start_soon(listen, run, events)
    # Trio starts tasks in any order
    second, first = sorted(heard, key=len)
    assert isinstance(first[0], RunStarted)
    assert isinstance(first[-1], RunEnded)
    # Who comes later hears what happens from then on
    assert second
    assert second == first[-len(second) :]


async def test_nobody_has_to_listen(project: Project) -> None:
    project.write("print.py", PRINT)
    async with project.open(*[f"[[{project.PYTHON}, print.py, 300000]]"] * 2) as run:
        pass
    assert run.result.ok
    # And nothing is to be heard when all is over
    with anyio.fail_after(LIMIT):
        assert all(
            isinstance(event, RunStarted | JobStarted) for event in [event async for event in run]
        )
        assert [event async for event in run] == []


WARNINGS = [RunWarning(message=f"{number}") for number in range(100)]


async def test_feed_gives_every_listener_what_is_published_from_then_on() -> None:
    feed = Feed()
    early = feed.listen()
    feed.publish(WARNINGS[0])
    late = feed.listen()
    feed.publish(WARNINGS[1])
    assert feed.waiting == 2
    feed.close()
    assert [event async for event in early] == WARNINGS[:2]
    assert [event async for event in late] == WARNINGS[1:2]
    # Who comes when all is over hears nothing
    assert [event async for event in feed.listen()] == []


async def test_feed_forgets_listeners_that_nobody_holds() -> None:
    feed = Feed()
    listener: Listener | None = feed.listen()
    assert feed.followed
    feed.publish(WARNINGS[0])
    assert feed.waiting == 1
    del listener
    gc.collect()
    assert not feed.followed
    assert feed.waiting == 0


async def test_feed_lets_others_get_their_turn() -> None:
    feed = Feed()
    listener, turns = feed.listen(), 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.sleep(0)

    for event in WARNINGS:
        feed.publish(event)
    feed.close()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        assert [event async for event in listener] == WARNINGS
        tasks.cancel_scope.cancel()
    assert turns > 0


async def test_cancel_reaches_a_listener_that_has_much_to_take() -> None:
    feed = Feed()
    listener, taken = feed.listen(), 0
    for event in WARNINGS:
        feed.publish(event)
    with anyio.CancelScope() as scope:
        async for _ in listener:
            taken += 1
            scope.cancel()
    assert taken < IN_A_ROW
