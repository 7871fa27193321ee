"""How many of the submitted tasks run at once, when that is changed: Slurm is told."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import anyio

from ...blocking import in_thread
from ..base import OpenRun
from .commands import Commands, NoAnswerError
from .open_tasks import OpenTasks


class Pacer:
    """Tells Slurm how many tasks of this run may run at once; holds those that wait, or takes them
    back."""

    def __init__(
        self,
        *,
        run: OpenRun,
        commands: Commands,
        tasks: OpenTasks,
        threads: anyio.CapacityLimiter,
        on_taken_back: Callable[[], object],
    ) -> None:
        self.most = run.plan.settings.threads
        """Most tasks at the same time, of arrays that are submitted from now on."""

        self.is_taken_back = False
        """Whether what waits is cancelled: nothing of this run is to start any more."""

        self._run = run
        self._commands = commands
        self._tasks = tasks
        self._threads = threads
        self._on_taken_back = on_taken_back
        self._is_paused = False
        self._work = anyio.Event()

    def set(self, *, threads: int, is_paused: bool) -> None:
        self.most, self._is_paused = threads, is_paused
        self._work.set()

    def take_back(self) -> None:
        self.is_taken_back = True
        self._work.set()

    def note_submitted(self) -> None:
        """An array has come to Slurm, of which the same has to hold."""
        if self._is_paused or self.is_taken_back:
            self._work.set()

    async def serve(self) -> None:
        """Tells every change. What Slurm does not take in is told again."""
        while True:
            await self._work.wait()
            self._work = anyio.Event()
            most, is_paused, is_taken_back = self.most, self._is_paused, self.is_taken_back
            names = [self._tasks.submissions[each].job_name for each in self._tasks.arrays]
            call = (
                self._commands.cancel_pending_named
                if is_taken_back
                else partial(self._commands.set_pace, most=most, is_held=is_paused)
            )
            try:
                for name in names:
                    await in_thread(call, name, limiter=self._threads)
                if is_taken_back:
                    self._on_taken_back()
            except NoAnswerError as exc:
                self._run.warn(f"Slurm was not told of the change yet, trying again: {exc}")
                self._work.set()
                await anyio.sleep(self._run.timing.slurm_first_ask)
