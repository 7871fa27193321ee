"""Progress below a notebook's cell, updated in place."""

from __future__ import annotations

import html
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from ..blocking import in_thread
from ..events import Event, JobEnded
from ..run.runner import Run
from . import text as report

REFRESH = 0.2
"""Seconds between two updates. An interrupted cell is noticed at the next one at the latest, for an
idle event loop does not wake up by the interrupt itself."""

ROWS = 32
"""Running jobs that are listed."""

FAILURES = 5
"""Failed jobs that are told in full; all are in the result."""


def in_notebook() -> bool:
    """Whether this process is a Jupyter kernel."""
    if "ipykernel" not in sys.modules:
        return False
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


@asynccontextmanager
async def shown(run: Run) -> AsyncIterator[None]:
    """Shows the progress of a run while the block waits for its end. Interrupting that ends the
    jobs, which is shown too."""
    board = _Board(run)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(board.listen)
        tasks.start_soon(board.keep_updating)
        try:
            yield
        except BaseException:
            run.cancel()
            with anyio.CancelScope(shield=True):
                await board.ended.wait()
            raise


class _Board:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._progress = report.Progress(run.plan)
        self._events: AsyncIterator[Event] = run.__aiter__()
        self._failures: list[str] = []
        self._alike = report.Failures(run.plan)
        self._handle: Any = None
        self.ended = anyio.Event()

    async def listen(self) -> None:
        """Takes the events up to the last one, also of a run that is cancelled."""
        with anyio.CancelScope(shield=True):
            async for event in self._events:
                self._progress.take(event)
                if (
                    isinstance(event, JobEnded)
                    and report.is_failure(event.outcome)
                    and len(self._failures) < FAILURES
                ):
                    told = self._alike.lines(event.outcome, self._run.name, event.tried_again_in)
                    self._failures.append("\n".join(told))
        self.ended.set()

    async def keep_updating(self) -> None:
        with anyio.CancelScope(shield=True):
            while not self.ended.is_set():
                self._update(await in_thread(self._progress.rows, ROWS))
                with anyio.move_on_after(REFRESH):
                    await self.ended.wait()
        self._update([])

    def _update(self, rows: list[report.Row]) -> None:
        from IPython.display import display

        bundle = {"text/plain": self._text(rows), "text/html": self._html(rows)}
        if self._handle is None:
            shown = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
            self._handle = shown
        else:
            self._handle.update(bundle, raw=True)

    def _status(self) -> str:
        progress = self._progress
        if progress.ended is not None:
            return report.summary(self._run.result, self._run.plan, progress.elapsed)
        left = (
            ""
            if progress.time_left is None
            else f", about {report.duration(progress.time_left)} left"
        )
        queued = (
            f", {progress.queue.pending} queued"
            if progress.queue is not None and progress.queue.pending
            else ""
        )
        running = f"{len(progress.running)} running{queued}, {progress.failures} failed"
        counts = f"{progress.done}/{progress.total} done, {running}"
        then = ", stopping" if self._run.cancelled else left
        return f"{counts}; {report.duration(progress.elapsed)}{then}"

    def _text(self, rows: list[report.Row]) -> str:
        lines = [
            "  ".join(filter(None, [row.script, row.differences, row.gpus, elapsed, row.line]))
            for row in rows
            for elapsed in [report.duration(row.elapsed)]
        ]
        return "\n".join([self._status(), *lines, *self._failures])

    def _html(self, rows: list[report.Row]) -> str:
        progress = self._progress
        cells = "".join(f"<tr>{_cells(row)}</tr>" for row in rows)
        failures = "".join(
            f"<pre style='color:#b00020'>{html.escape(failure)}</pre>" for failure in self._failures
        )
        reach = f"value='{progress.done}' max='{max(1, progress.total)}'"
        bar = f"<progress {reach} style='width:16em'></progress>"
        return f"<div>{bar} {html.escape(self._status())}</div><table>{cells}</table>{failures}"


def _cells(row: report.Row) -> str:
    elapsed = _cell(report.duration(row.elapsed), "right")
    job = f"{_cell(row.script)}{_cell(row.differences)}{_cell(row.gpus)}"
    return f"{job}{elapsed}{_cell(row.line)}"


def _cell(text: str, align: str = "left") -> str:
    return f"<td style='text-align:{align}'>{html.escape(text)}</td>"
