"""A run in progress is changed: by files in its folder, and by its own program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

import hermes
from hermes import JobEnded, JobStarted, RunChanged
from hermes.executors.fake import FakeExecutor, FakeJob
from hermes.run.control import Pace, follow_wishes
from hermes.storage.layout import stop_file
from hermes.storage.wishes import read_wishes, want_pause, want_threads
from hermes.timing import Timing

from ..support import LIMIT, Project
from ..support.labs import Lab

pytestmark = pytest.mark.anyio

SOON = Timing(control_poll=0.01)


async def reached(condition: Callable[[], bool]) -> None:
    """Waits until the condition holds, while the run goes on."""
    with anyio.fail_after(LIMIT):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.005)


class Controlled:
    """A run that notes what is done to it."""

    def __init__(self) -> None:
        self.pace = Pace(threads=1)
        self.done: list[str] = []

    def cancel(self, why: str | None = None) -> None:
        self.done.append(f"cancelled, {why}")

    def warn(self, message: str) -> None:
        self.done.append(message)

    def set_pace(self, *, threads: int, is_paused: bool) -> None:
        if self.pace.change(threads=threads, is_paused=is_paused):
            self.done.append(f"{threads}{' paused' if is_paused else ''}")

    async def take_in(self, count: int) -> None:
        if count:
            self.done.append(f"{count} added")


async def test_stop_file_cancels_the_run_once_and_says_why(project: Project) -> None:
    lab, run = Lab(project, 1), Controlled()
    try:
        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as tasks:
                await tasks.start(follow_wishes, run, lab.folder, SOON)
                await anyio.sleep(5 * SOON.control_poll)
                assert run.done == []
                Path(stop_file(lab.folder.folder)).touch()
        assert run.done == ["stopped by `hermes stop`", "cancelled, stopped by `hermes stop`"]
    finally:
        lab.close()


async def test_stop_file_of_another_run_means_nothing(project: Project) -> None:
    lab, run = Lab(project, 1), Controlled()
    other = Lab(project, 1, name="other")
    try:
        Path(stop_file(other.folder.folder)).touch()
        with anyio.move_on_after(10 * SOON.control_poll):
            await follow_wishes(run, lab.folder, SOON)
        assert run.done == []
    finally:
        lab.close()
        other.close()


async def test_files_change_threads_and_pause(project: Project) -> None:
    lab, run = Lab(project, 1), Controlled()
    folder = lab.folder.folder
    try:
        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as tasks:
                await tasks.start(follow_wishes, run, lab.folder, SOON)
                want_threads(folder, 8)
                await reached(lambda: run.done[-1:] == ["8"])
                want_pause(folder, True)
                await reached(lambda: run.done[-1:] == ["8 paused"])
                want_threads(folder, 2)
                await reached(lambda: run.done[-1:] == ["2 paused"])
                want_pause(folder, False)
                await reached(lambda: run.done[-1:] == ["2"])
                tasks.cancel_scope.cancel()
        assert run.done == ["8", "8 paused", "2 paused", "2"]
    finally:
        lab.close()


@pytest.mark.parametrize("text", ["", "many", "0", "-3", "2.5"])
async def test_a_number_of_threads_that_makes_no_sense_changes_nothing(
    project: Project, text: str
) -> None:
    lab = Lab(project, 1)
    try:
        Path(f"{lab.folder.folder}/threads").write_text(text)
        assert read_wishes(lab.folder.folder).threads is None
    finally:
        lab.close()


class Door:
    """Jobs that run until the test lets them out; counts how many run."""

    def __init__(self) -> None:
        self.inside = 0
        self.began = 0
        self.out = anyio.Semaphore(0)

    async def __call__(self, job: FakeJob) -> int:
        self.inside += 1
        self.began += 1
        try:
            await self.out.acquire()
        finally:
            self.inside -= 1
        return 0

    async def until(self, began: int, inside: int) -> None:
        await reached(lambda: (self.began, self.inside) == (began, inside))


def sweep(project: Project, count: int, name: str = "sweep.hermes") -> str:
    project.write(name, f"EXEC\nPROD([[true, {name} {{n}}]], n=RANGE[0, {count}])\n")
    return name


async def test_the_program_changes_how_many_run(project: Project) -> None:
    door = Door()
    file = project.path / sweep(project, 12)
    async with hermes.open_run(
        file, "t", working_directory=project.path, executor=FakeExecutor(door), timing=SOON
    ) as run:
        await door.until(began=1, inside=1)
        run.threads = 4
        await door.until(began=4, inside=4)
        run.threads = 2
        for _ in range(2):
            door.out.release()
        await door.until(began=4, inside=2)
        # Of those that ran too many none was ended, and none has come for them
        await anyio.sleep(5 * SOON.control_poll)
        assert (door.began, door.inside) == (4, 2)
        door.out.release()
        await door.until(began=5, inside=2)
        run.pause()
        door.out.release()
        await door.until(began=5, inside=1)
        await anyio.sleep(5 * SOON.control_poll)
        assert door.began == 5
        await project.until(lambda: read_wishes(run._folder.folder).is_paused)
        run.continue_()
        await door.until(began=6, inside=2)
        with pytest.raises(ValueError, match="at least 1"):
            run.threads = 0
        for _ in range(12):
            door.out.release()
    assert run.result.ok
    assert len(run.result.outcomes) == 12


async def test_jobs_are_added_at_the_end_and_told(project: Project) -> None:
    door = Door()
    first, more = project.path / sweep(project, 2), sweep(project, 3, "more.hermes")
    events = []
    async with hermes.open_run(
        first, "t", working_directory=project.path, executor=FakeExecutor(door), timing=SOON
    ) as run:
        await door.until(began=1, inside=1)
        await run.add(project.path / more)
        for _ in range(5):
            door.out.release()
        events = [event async for event in run]
    assert [event.total for event in events if isinstance(event, RunChanged)] == [5]
    started = [event for event in events if isinstance(event, JobStarted)]
    assert [event.index for event in started] == [0, 1, 2, 3, 4]
    # What has ended is finished beside the next one
    all_ended = [event for event in events if isinstance(event, JobEnded)]
    ended = [event.outcome for event in sorted(all_ended, key=lambda event: event.index)]
    metadata = [hermes.load_experiment(str(each.directory)).metadata for each in ended]
    files = [each.hermes_file.path for each in metadata if each.hermes_file]
    assert [str(file).rpartition("/")[2] for file in files] == ["sweep.hermes"] * 2 + [
        "more.hermes"
    ] * 3
    assert len({each.key for each in metadata}) == 5


async def test_a_file_that_cannot_be_used_adds_nothing(project: Project) -> None:
    door = Door()
    file = project.path / sweep(project, 1)
    project.write("wrong.hermes", "EXEC\n[[no-such-program]]\n")
    async with hermes.open_run(
        file, "t", working_directory=project.path, executor=FakeExecutor(door), timing=SOON
    ) as run:
        await door.until(began=1, inside=1)
        with pytest.raises(hermes.HermesError, match="no-such-program"):
            await run.add(project.path / "wrong.hermes")
        door.out.release()
    assert len(run.result.outcomes) == 1
    assert run.result.ok
