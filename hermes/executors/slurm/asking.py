"""Asking Slurm: one `squeue` for all tasks, and only while some task gives no sign of life."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

import anyio

from ...blocking import in_thread
from ..base import OpenRun
from .commands import Commands, NoAnswerError, Row
from .open_tasks import OpenTasks
from .states import GONE

POLL = 0.5
"""Seconds between two checks whether there is something to ask."""


class Asker:
    """Keeps up to date what Slurm says of the tasks of one run. That it does not answer, or does
    not know a task, says nothing yet.
    """

    def __init__(
        self,
        *,
        run: OpenRun,
        commands: Commands,
        tasks: OpenTasks,
        threads: anyio.CapacityLimiter,
    ) -> None:
        self._run = run
        self._timing = run.timing
        self._commands = commands
        self._tasks = tasks
        self._threads = threads
        self._pause = self._timing.slurm_first_ask
        self._ask_at = 0.0
        self._is_silent = False
        self._cancelled: set[str] = set()
        """Arrays that were submitted a second time, and have been cancelled."""

    def begin_anew(self) -> None:
        """Something has just been submitted: the first answer is wanted soon, the next ones
        later."""
        self._pause = self._timing.slurm_first_ask
        self._ask_at = time.monotonic() + self._pause

    async def serve(self) -> None:
        while True:
            now = time.monotonic()
            followed = self._tasks.followed
            is_silent = any(not each.signs.is_alive(now, self._timing) for each in followed)
            if is_silent and now >= self._ask_at:
                await self._ask()
            await anyio.sleep(min(POLL, self._timing.slurm_first_ask))

    async def _ask(self) -> None:
        numbers = sorted(self._tasks.numbers & self._tasks.arrays.keys())
        if not numbers:
            return
        names = [self._tasks.submissions[number].job_name for number in numbers]
        try:
            rows = await in_thread(self._commands.queue, names, limiter=self._threads)
        except NoAnswerError as exc:
            if not self._is_silent:
                self._run.warn(f"Slurm does not answer, asking again: {exc}")
            self._is_silent = True
        else:
            self._is_silent = False
            self._note(numbers, rows)
            await self._cancel_doubles(rows)
        self._pause = min(self._timing.slurm_last_ask, 2 * self._pause)
        self._ask_at = time.monotonic() + self._next_pause()

    def _next_pause(self) -> float:
        if self._run.is_ending:
            return self._timing.slurm_first_ask
        if any(each.signs.is_doubtful for each in self._tasks.followed):
            return min(self._pause, self._timing.slurm_lost_after / 3)
        return self._pause

    def _note(self, numbers: Sequence[int], rows: Sequence[Row]) -> None:
        found = self._tasks.note_arrays(rows)
        # Unless it has been forgotten meanwhile, and is being sent again
        now, asked = time.monotonic(), set(numbers) & self._tasks.arrays.keys()
        rows_of: dict[tuple[int, int | None], list[Row]] = {}
        for number, own in found.items():
            for row in own:
                rows_of.setdefault((number, row.task), []).append(row)
        for each in self._tasks.all:
            number = each.task.submission
            if number in asked:
                whole = rows_of.get((number, None), [])
                each.signs.note_rows(rows_of.get((number, each.task.number), whole), now)

    async def _cancel_doubles(self, rows: Sequence[Row]) -> None:
        """Cancels what was submitted twice, because an answer came too late. It starts nothing
        twice, but it would wait in the queue, and not keep to `threads`.
        """
        arrays: dict[str, set[str]] = {}
        for row in rows:
            if row.state not in GONE:
                arrays.setdefault(row.name, set()).add(row.array)
        doubles = [each for some in arrays.values() for each in sorted(some, key=int)[1:]]
        for array in doubles:
            if array not in self._cancelled:
                with suppress(NoAnswerError):
                    await in_thread(self._commands.cancel_pending, array, limiter=self._threads)
                    self._cancelled.add(array)
