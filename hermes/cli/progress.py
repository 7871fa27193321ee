"""What `hermes exec` shows on a terminal: a bar, and one line for every running job."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import anyio.to_thread
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

import hermes
from hermes import report

from .display import PlainDisplay

REFRESH = 0.25
"""Seconds between two drawings."""


class ProgressDisplay(PlainDisplay):
    """Draws the bar and the running jobs below whatever else is printed."""

    def __init__(self, plan: hermes.Plan) -> None:
        # Changes are seen in the drawing, they need no line each
        super().__init__(plan, quiet=True)
        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    async def show(self, run: hermes.Run) -> None:
        with self._live:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep_drawing)
                await super().show(run)
                tasks.cancel_scope.cancel()

    async def _keep_drawing(self) -> None:
        while True:
            room = max(1, self._console.size.height - 3)
            rows = await anyio.to_thread.run_sync(self.progress.rows, room)
            try:
                self._live.update(Group(self._bar(), self._jobs(rows)), refresh=True)
            except OSError:
                # The terminal is gone; the jobs go on
                return
            await anyio.sleep(REFRESH)

    def _bar(self) -> Table:
        progress = self.progress
        counts = Text(f"{progress.done}/{progress.total} done  {len(progress.running)} running")
        counts.append(f"  {progress.failed} failed", "bold red" if progress.failed else "dim")
        left = "" if progress.time_left is None else f", about {report.duration(progress.time_left)} left"
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            ProgressBar(total=max(1, progress.total), completed=progress.done, width=30),
            counts,
            Text(f"{report.duration(progress.elapsed)}{left}", "dim"),
        )
        return bar

    def _jobs(self, rows: Sequence[report.Row]) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(20, self._console.width // 3))
        table.add_column(justify="right", no_wrap=True)
        table.add_column(style="dim", no_wrap=True, overflow="ellipsis", ratio=1)
        for row in rows:
            # As Text, so that nothing in it is taken for markup
            table.add_row(Text(row.script), Text(row.differences), Text(report.duration(row.elapsed)), Text(row.line))
        more = len(self.progress.running) - len(rows)
        if more > 0:
            table.add_row(Text(f"and {report.jobs(more)} more"))
        return table

    def failure(self, lines: list[str]) -> None:
        self._print(lines[0], "bold red")
        self._print("\n".join(lines[1:]))

    def note(self, message: str) -> None:
        self._print(hermes.escape(message), "yellow")

    def summary(self, result: hermes.RunResult) -> None:
        self._print(report.summary(result, self.plan, self.progress.elapsed), "green" if result.ok else "bold red")

    def _print(self, text: str, style: str = "") -> None:
        if not text:
            return
        try:
            self._console.print(Text(text, style), soft_wrap=True)
        except OSError:
            return
