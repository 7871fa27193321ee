"""What `hermes exec` shows on a terminal: a bar, and one line for every running job."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress

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

ECHO = 4
"""Columns that stay free on the right: the `^C` that a terminal itself shows must not open another line."""

BAR = 30
"""Characters of the bar, if there is room for them beside the figures."""


class ProgressDisplay(PlainDisplay):
    """Draws the bar and the running jobs below whatever else is printed."""

    def __init__(self, plan: hermes.Plan) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._above = _Above(self._console)
        # Changes are seen in the drawing, they need no line each
        super().__init__(plan, quiet=True, out=self._above if sys.stdout.isatty() else None, err=self._above)
        self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stdout=False)

    async def show(self, run: hermes.Run) -> None:
        # Without a terminal, when it was closed, the jobs go on
        with suppress(OSError):
            self._live.start()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep_drawing, run)
                await super().show(run)
                tasks.cancel_scope.cancel()
        finally:
            self.leave()

    def leave(self) -> None:
        with suppress(OSError):
            self._live.stop()

    @property
    def _width(self) -> int:
        return max(1, self._console.width - ECHO)

    async def _keep_drawing(self, run: hermes.Run) -> None:
        while True:
            # The lines above and below the jobs, and one that stays free
            room = max(1, self._console.height - 3)
            rows = await anyio.to_thread.run_sync(self.progress.rows, room)
            try:
                self._live.update(Group(self._bar(run), self._jobs(rows), *self._more(rows)), refresh=True)
            except OSError:
                return
            await anyio.sleep(REFRESH)

    def _bar(self, run: hermes.Run) -> Table:
        progress = self.progress
        figures = Text(f"{progress.done}/{progress.total} done  {len(progress.running)} running  ")
        if progress.queue is not None and progress.queue.pending:
            why = f" ({hermes.escape(progress.queue.reason)})" if progress.queue.reason else ""
            figures.append(f"{progress.queue.pending} queued{why}  ")
        figures.append(f"{progress.failed} failed", "bold red" if progress.failed else "dim")
        left = "" if progress.time_left is None or run.cancelled else f", about {report.duration(progress.time_left)} left"
        figures.append(f"  {report.duration(progress.elapsed)}{left}", "dim")
        figures.truncate(self._width, overflow="ellipsis")
        bar = Table.grid(padding=(0, 2))
        room = min(BAR, self._width - figures.cell_len - 2)
        if room < BAR / 3:
            bar.add_row(figures)
        else:
            bar.add_row(ProgressBar(total=max(1, progress.total), completed=progress.done, width=room), figures)
        return bar

    def _jobs(self, rows: Sequence[report.Row]) -> Table:
        width = self._width
        table = Table.grid(padding=(0, 2), expand=True)
        table.width = width
        table.add_column(style="cyan", no_wrap=True, overflow="ellipsis", max_width=max(8, width // 4))
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(8, width // 3))
        table.add_column(justify="right", no_wrap=True)
        table.add_column(style="dim", no_wrap=True, overflow="ellipsis", ratio=1)
        for row in rows:
            # As Text, so that nothing in it is taken for markup
            table.add_row(Text(row.script), Text(row.differences), Text(report.duration(row.elapsed)), Text(row.line))
        return table

    def _more(self, rows: Sequence[report.Row]) -> list[Text]:
        more = len(self.progress.running) - len(rows)
        return [Text(f"and {more} more running", "dim")] if more > 0 else []

    def failure(self, lines: list[str]) -> None:
        self._above.line(lines[0], "bold red")
        self._above.line("\n".join(lines[1:]))

    def note(self, message: str) -> None:
        self._above.line(hermes.escape(message), "yellow")

    def summary(self, result: hermes.RunResult) -> None:
        self._above.line(report.summary(result, self.plan, self.progress.elapsed), "green" if result.ok else "bold red")


class _Above:
    """Writes above the drawing, for as long as there is a terminal; others would write into it."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def line(self, text: str, style: str = "") -> None:
        if text:
            with suppress(OSError):
                self._console.print(Text(text, style), soft_wrap=True)
