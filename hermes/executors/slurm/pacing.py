"""How many of the submitted tasks run at once, when that is changed: Slurm is told."""

from __future__ import annotations

import anyio

from ...blocking import in_thread
from ..base import OpenRun
from .commands import Commands, NoAnswerError
from .open_tasks import OpenTasks


class Pacer:
    """Tells Slurm how many tasks of this run may run at once, and holds those that wait."""

    def __init__(
        self,
        *,
        run: OpenRun,
        commands: Commands,
        tasks: OpenTasks,
        threads: anyio.CapacityLimiter,
    ) -> None:
        self.most = run.plan.settings.threads
        """Most tasks at the same time, of arrays that are submitted from now on."""

        self._run = run
        self._commands = commands
        self._tasks = tasks
        self._threads = threads
        self._is_paused = False
        self._work = anyio.Event()

    def set(self, *, threads: int, is_paused: bool) -> None:
        self.most, self._is_paused = threads, is_paused
        self._work.set()

    def note_submitted(self) -> None:
        """An array has come to Slurm, which has to wait too while the run is paused."""
        if self._is_paused:
            self._work.set()

    async def serve(self) -> None:
        """Tells every change. What Slurm does not take in is told again."""
        while True:
            await self._work.wait()
            self._work = anyio.Event()
            most, is_paused = self.most, self._is_paused
            names = [self._tasks.submissions[each].job_name for each in self._tasks.arrays]
            try:
                for name in names:
                    await in_thread(
                        self._commands.set_pace, name, most, is_paused, limiter=self._threads
                    )
            except NoAnswerError as exc:
                self._run.warn(f"Slurm was not told of the change yet, trying again: {exc}")
                self._work.set()
                await anyio.sleep(self._run.timing.slurm_first_ask)
