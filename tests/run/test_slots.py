"""Slots: as many at once as there are, the smallest free number, given back once."""

from __future__ import annotations

import random

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from hermes import JobEnded, Status
from hermes.run.slots import HeldSlot, Slots

from ..support import Project
from ..support.jobs import in_words

pytestmark = pytest.mark.anyio


async def test_slots_are_numbered_from_0_and_the_smallest_is_given() -> None:
    slots = Slots(3)
    held = [await slots.take() for _ in range(3)]
    assert [slot.number for slot in held] == [0, 1, 2]
    for freed in (2, 0, 1):
        held[freed].release()
    assert [(await slots.take()).number for _ in range(3)] == [0, 1, 2]


async def test_slots_released_twice_are_given_back_once() -> None:
    slots = Slots(2)
    first, _ = await slots.take(), await slots.take()
    first.release()
    first.release()
    assert slots.limiter.borrowed_tokens == 1
    again = await slots.take()
    assert again.number == 0
    # Not the present holder's
    first.release()
    assert slots.limiter.borrowed_tokens == 2


async def test_who_asks_first_gets_a_slot_first() -> None:
    slots = Slots(1)
    held = await slots.take()
    order: list[int] = []

    async def take(number: int) -> None:
        slot = await slots.take()
        order.append(number)
        slot.release()

    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(take, number)
            while slots.limiter.statistics().tasks_waiting <= number:  # noqa: ASYNC110
                await anyio.sleep(0)
        held.release()
    assert order == [0, 1, 2, 3]


async def test_cancel_while_waiting_for_a_slot_takes_none() -> None:
    slots = Slots(1)
    held = await slots.take()
    with anyio.move_on_after(0.01) as scope:
        await slots.take()
    assert scope.cancelled_caught
    held.release()
    assert slots.limiter.borrowed_tokens == 0
    assert (await slots.take()).number == 0


async def test_no_number_is_held_twice_whatever_comes_and_goes() -> None:
    slots, chance = Slots(4), random.Random(1)
    held: list[HeldSlot] = []
    for _ in range(500):
        if held and (len(held) == 4 or chance.random() < 0.5):
            held.pop(chance.randrange(len(held))).release()
        else:
            held.append(await slots.take())
        numbers = [slot.number for slot in held]
        assert len(set(numbers)) == len(numbers)
        assert set(numbers) <= set(range(4))
        assert slots.limiter.borrowed_tokens == len(held)


@pytest.mark.fault(18)
async def test_at_most_threads_jobs_are_alive_and_slots_are_unique(project: Project) -> None:
    # A slot's folder can be made only once, so a slot given twice or beyond the limit shows; all
    # wait until three have met
    project.write(
        "job.sh",
        """\
        mkdir "alive/$HERMES_SLOT" || exit 9
        [ "$(ls alive | wc -l)" -le 3 ] || exit 8
        [ "$(ls alive | wc -l)" -lt 3 ] || : > met
        while [ ! -e met ]; do sleep 0.01; done
        echo "$HERMES_SLOT" >> slots
        rmdir "alive/$HERMES_SLOT"
        """,
    )
    (project.path / "alive").mkdir()
    result = await project.run(*["[[sh, job.sh]]"] * 9, threads=3)
    assert [in_words(outcome) for outcome in result.outcomes] == [(Status.FINISHED, 0, None)] * 9
    assert set(
        project.write("slots", (project.path / "slots").read_bytes()).read_text().split()
    ) == {"0", "1", "2"}


async def test_one_at_a_time_is_the_default_and_jobs_start_in_order(project: Project) -> None:
    project.write("job.sh", 'mkdir alive && echo "$2" >> order && rmdir alive')
    result = await project.run("PROD([[sh, job.sh, {n}]], n=RANGE[0, 6])")
    assert result.ok
    assert (project.path / "order").read_text().split() == ["0", "1", "2", "3", "4", "5"]
    assert [experiment.argv[-1] for experiment in project.experiments()] == [
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
    ]


async def test_the_experiment_of_the_next_job_waits_for_no_long_job(project: Project) -> None:
    # While jobs are short the next one is prepared: not for longer than a moment, or its identifier
    # would tell of another time
    project.write(
        "job.sh", 'echo "$1" >> started; [ "$2" != long ] || while [ ! -e go ]; do sleep 0.01; done'
    )
    entries = [f"[[sh, job.sh, {word}]]" for word in ("a", "b", "c", "long", "d", "e")]

    def started() -> list[str]:
        return (
            (project.path / "started").read_text().split()
            if (project.path / "started").exists()
            else []
        )

    async with project.open(*entries) as run:
        await project.until(lambda: len(started()) == 4)
        await project.until(lambda: len(list(project.experiments_folder.glob("job.sh/*/*"))) == 4)
        project.write("go")
    assert run.result.ok
    experiments = project.experiments()
    assert [experiment.argv[-1] for experiment in experiments] == ["a", "b", "c", "long", "d", "e"]
    assert [experiment.identifier for experiment in experiments] == started()


async def test_a_large_sweep_starts_at_once(project: Project) -> None:
    project.write("job.sh", "")
    async with project.open(
        "PROD([[sh, job.sh, {a} {b}]], a=RANGE[0, 1000], b=RANGE[0, 1000])"
    ) as run:
        async for event in run:
            if isinstance(event, JobEnded):
                run.cancel()
    assert run.plan.count == 10**6
    assert run.result.cancelled
    assert len(run.result.outcomes) < 100
