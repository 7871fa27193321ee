"""How a run in progress is changed: by its program, and from outside by files in its folder, which
work on every machine and for every program.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

import anyio
from anyio.abc import TaskStatus

from ..blocking import in_thread
from ..storage.run_folder import RunFolder
from ..storage.wishes import Wishes, mark_pace, read_wishes, want_pause, want_threads
from ..timing import Timing


class Pace:
    """How many jobs of a run go on at once, and whether more are started at all."""

    def __init__(self, *, threads: int, is_paused: bool = False) -> None:
        self.threads = threads
        self.is_paused = is_paused
        self.is_written = True
        """Whether the files in the run's folder say so too."""

        self._change = anyio.Event()

    def change(self, *, threads: int, is_paused: bool) -> bool:
        """False if nothing changes."""
        if (threads, is_paused) == (self.threads, self.is_paused):
            return False
        self.threads, self.is_paused = threads, is_paused
        self.note()
        return True

    def note(self) -> None:
        """Has those who wait look again whether they may go on."""
        self._change.set()
        self._change = anyio.Event()

    async def wait(self) -> None:
        """Waits until something changes."""
        await self._change.wait()

    @property
    def next_change(self) -> anyio.Event:
        """Is set when something changes from now on."""
        return self._change


class Controlled(Protocol):
    """What of a run is controlled from outside."""

    @property
    def pace(self) -> Pace: ...

    def cancel(self, why: str | None = None) -> None: ...

    def warn(self, message: str) -> None: ...

    def set_pace(self, *, threads: int, is_paused: bool) -> None:
        """Changes how many jobs start."""
        ...

    async def take_in(self, count: int) -> None:
        """Adds the jobs of all but the first additions that are known; there are `count`."""
        ...


async def follow_wishes(
    run: Controlled,
    folder: RunFolder,
    timing: Timing,
    keep: Callable[[], None] = lambda: None,
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Changes a run as `hermes stop`, `set`, `pause`, `continue` and `add` ask for, until it is to
    end. What the program itself changes is written down, so that it holds when the run is resumed.
    Each time `keep` is called in a worker thread, for what is told of the run to be kept.
    """
    limiter, is_told, told = anyio.CapacityLimiter(1), False, ""
    watch = _Watch(folder.folder, timing.control_poll, keep)
    while True:
        change = run.pace.next_change
        if not run.pace.is_written:
            run.pace.is_written = True
            await in_thread(_write, folder.folder, run.pace, limiter=limiter)
        wishes = await watch.wishes(change, limiter)
        if wishes.is_stopped:
            run.warn("stopped by `hermes stop`")
            run.cancel("stopped by `hermes stop`")
            if not is_told:
                task_status.started()
            return
        # What the program has changed since they were read is newer
        if run.pace.is_written:
            threads = run.pace.threads if wishes.threads is None else wishes.threads
            run.set_pace(threads=threads, is_paused=wishes.is_paused)
            if wishes.pace != told:
                told = wishes.pace
                await in_thread(mark_pace, folder.folder, told, limiter=limiter)
        await run.take_in(wishes.count_added)
        if not is_told:
            # Nothing has started before: a paused run stays paused when it is resumed
            task_status.started()
            is_told = True
            # Most runs are over by then, and none ends while a thread has to be woken
            with anyio.move_on_after(timing.control_poll):
                await change.wait()


class _Watch:
    """Reads what is wanted of a run, again and again in one thread: five hops a second into one
    would take as much time as all else while a job just runs."""

    def __init__(self, folder: str, poll: float, keep: Callable[[], None]) -> None:
        self._folder = folder
        self._poll = poll
        self._keep = keep
        self._known: Wishes | None = None

    async def wishes(self, change: anyio.Event, limiter: anyio.CapacityLimiter) -> Wishes:
        """What is wanted, once that is something else than the last time, or `change` is set."""
        woken = threading.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_wake, change, woken)
            found = await in_thread(self._look, woken, limiter=limiter, abandon=woken.set)
            tasks.cancel_scope.cancel()
        self._known = found
        return found

    def _look(self, woken: threading.Event) -> Wishes:
        while True:
            self._keep()
            found = read_wishes(self._folder)
            if found != self._known or woken.wait(self._poll):
                return found
            if not threading.main_thread().is_alive():
                # The program ends without waiting for its event loop
                return found


async def _wake(change: anyio.Event, woken: threading.Event) -> None:
    await change.wait()
    woken.set()


def _write(folder: str, pace: Pace) -> None:
    try:
        want_threads(folder, pace.threads)
        want_pause(folder, pace.is_paused)
    except OSError:
        # Somebody has removed the folder, or the disk is full: this process goes on as it was told
        return
