"""Looking on at a run from outside, in a program."""

from __future__ import annotations

from functools import partial

import anyio
import pytest

import hermes
from hermes import JobEnded, JobStarted, LogChunk, RunEnded, RunStanding

from .support import Project
from .support.project import Puppet

pytestmark = pytest.mark.anyio


async def test_events_are_those_of_the_run(project: Project) -> None:
    seen: list[hermes.Event] = []
    attached: list[hermes.AttachedRun] = []

    def printed(puppet: Puppet) -> bytes:
        chunks = [event for event in seen if isinstance(event, LogChunk)]
        return b"".join(each.data for each in chunks if each.identifier == puppet.identifier)

    async with (
        anyio.create_task_group() as tasks,
        project.puppets(2, options=["-l false"]) as (one, two),
    ):

        async def look_on() -> None:
            async with hermes.open_attached(
                one.run.run_id, follow_logs=True, working_directory=project.path
            ) as other:
                attached.append(other)
                async for event in other:
                    seen.append(event)

        await one.do("os.write(1, b'before')")
        await project.until(lambda: len(hermes.runs(working_directory=project.path)[0].jobs) == 2)
        tasks.start_soon(look_on)
        await project.until(lambda: len(seen) > 0)
        await one.do("os.write(1, b'after')")
        await project.until(lambda: printed(one) == b"after")
        assert (attached[0].ended, attached[0].is_over) == (None, False)
        one.end()
        two.end("os._exit(3)")
    first, *_, last = seen
    assert isinstance(first, RunStanding)
    running = {each.identifier for each in first.running}
    assert running | {each.identifier for each in seen if isinstance(each, JobStarted)} == {
        one.identifier,
        two.identifier,
    }
    outcomes = {
        each.outcome.identifier: each.outcome for each in seen if isinstance(each, JobEnded)
    }
    assert outcomes[two.identifier] == two.outcome
    assert outcomes[one.identifier].ok
    assert isinstance(last, RunEnded)
    assert attached[0].ended == last
    assert (last.ok, last.counts) == (False, {"finished": 1, "failed": 1})
    assert attached[0].is_over


async def test_leaving_in_whatever_way_ends_nothing(project: Project) -> None:
    async with project.puppet() as job:
        look_on = partial(hermes.open_attached, working_directory=project.path)
        with pytest.raises(KeyError, match="mine"):
            async with look_on() as run:
                assert run.plan.count == 1
                async for event in run:
                    assert isinstance(event, RunStanding)
                    raise KeyError("mine")
        with anyio.move_on_after(0.2):
            async with look_on() as run:
                async for _ in run:
                    pass
            pytest.fail("it does not end by itself")
        async with look_on():
            # Nobody takes anything
            await job.do("os.write(1, b'x' * 200000)")
        await job.do("")
        job.end()
    assert job.outcome.ok
    with pytest.raises(hermes.HermesError, match="there is no unfinished run"):
        async with look_on():
            pass
