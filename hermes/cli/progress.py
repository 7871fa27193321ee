"""What `hermes exec` shows on a terminal: a bar, and one line for every running job.

Drawn with a few control sequences: a general library took five times the time for the same, at
hundreds of lines a second.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence

import anyio
import anyio.to_thread
from rich.cells import cell_len, set_cell_size

import hermes
from hermes.show import text as report

from .display import AnyRun, Output, PlainDisplay

REFRESH = 0.25
"""Seconds between two looks at the jobs."""

TICK = 0.1
"""Seconds between two looks at whether something has to be written above the drawing."""

ECHO = 4
"""Columns that stay free on the right: the `^C` that a terminal itself shows must not open another
line."""

BAR = 30
"""Characters of the bar, if there is room for them beside the figures."""

ENDED = 8
"""Lines at most for the jobs that ended last, if there is room for them above the bar."""

GAP = "  "
"""Between two columns."""

BOLD, DIM, RED, GREEN, YELLOW, MAGENTA, CYAN = 1, 2, 31, 32, 33, 35, 36
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


class ProgressDisplay(PlainDisplay):
    """Draws the bar and the running jobs below whatever else is printed."""

    def __init__(self, plan: hermes.Plan) -> None:
        # Changes are seen in the drawing, they need no line each
        super().__init__(plan, quiet=True)
        self._screen = _Screen(self._err)
        self._is_colourful = not os.environ.get("NO_COLOR")
        self._line = "━" if (sys.stderr.encoding or "").lower().startswith("utf") else "-"

    async def show(self, run: AnyRun) -> None:
        self._screen.enter()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep_drawing, run)
                await super().show(run)
                tasks.cancel_scope.cancel()
        finally:
            self.leave()

    @property
    def waiting(self) -> int:
        return max(super().waiting, self._screen.waiting)

    def print(self, stream: str, text: str) -> None:
        if stream == "stdout" and not sys.stdout.isatty():
            super().print(stream, text)
        else:
            # Anything else would write into the drawing
            self._screen.line(text)

    def failure(self, lines: list[str]) -> None:
        self._screen.line("\n".join([self._styled(lines[0], BOLD, RED), *lines[1:]]))

    def note(self, message: str) -> None:
        self._screen.line(self._styled(hermes.escape(message), YELLOW))

    def last(self, line: str, *, ok: bool) -> None:
        self._screen.line(self._styled(line, *([GREEN] if ok else [BOLD, RED])))

    def leave(self) -> None:
        self._screen.leave()

    def enter(self) -> None:
        self._screen.enter()

    def hang_up(self) -> None:
        self.leave()

    async def _keep_drawing(self, run: AnyRun) -> None:
        next_look = 0.0
        while True:
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + REFRESH
                columns, lines = _size()
                # The lines above and below the jobs, and one that stays free
                rows = await anyio.to_thread.run_sync(self.progress.rows, max(1, lines - 3))
                room = min(ENDED, lines - 3 - len(rows))
                ended = await anyio.to_thread.run_sync(self.progress.ended_rows, max(0, room))
                self._screen.draw(self._drawing(run, ended, rows, max(1, columns - ECHO)))
            self._screen.show()
            await anyio.sleep(TICK)

    def _drawing(
        self,
        run: AnyRun,
        ended: Sequence[report.EndedRow],
        rows: Sequence[report.Row],
        width: int,
    ) -> list[str]:
        more = len(self.progress.running) - len(rows)
        return [
            *self._ended(ended, width),
            self._bar(run, width),
            *self._jobs(rows, width),
            *([self._styled(f"and {more} more running", DIM)] if more > 0 else []),
        ]

    def _bar(self, run: AnyRun, width: int) -> str:
        progress = self.progress
        left = (
            ""
            if progress.time_left is None or run.cancelled
            else f", about {report.duration(progress.time_left)} left"
        )
        parts = [
            (f"{progress.done}/{progress.total} done  {len(progress.running)} running  ", []),
            ("paused  " if progress.is_paused else "", [YELLOW]),
            (_queued(progress.queue), []),
            (f"{progress.failures} failed", [BOLD, RED] if progress.failures else [DIM]),
            (f"  {report.duration(progress.elapsed)}{left}", [DIM]),
        ]
        figures, free = "", width
        for text, codes in parts:
            figures += self._styled(_cut(text, free), *codes) if free else ""
            free -= min(free, len(text))
        room = min(BAR, free - len(GAP))
        if room < BAR / 3:
            return figures
        done = room * progress.done // max(1, progress.total)
        # Without colours, only what is done
        rest = (
            self._styled(self._line * (room - done), DIM)
            if self._is_colourful or not done
            else " " * (room - done)
        )
        return self._styled(self._line * done, MAGENTA) + rest + GAP + figures

    def _ended(self, rows: Sequence[report.EndedRow], width: int) -> list[str]:
        scripts = _column([row.script for row in rows], width // 4)
        lines = []
        for row, script in zip(rows, scripts, strict=True):
            how = self._styled(row.how, *([GREEN] if row.ok else [RED]))
            rest = GAP.join([row.short, script, report.duration(row.seconds), row.differences])
            room = width - cell_len(row.how) - len(GAP)
            lines.append(how + GAP + self._styled(_cut(rest.rstrip(), room), DIM))
        return lines

    def _jobs(self, rows: Sequence[report.Row], width: int) -> list[str]:
        scripts = _column([row.script for row in rows], width // 4)
        differences = _column([row.differences for row in rows], width // 3)
        gpus = _column([row.gpus for row in rows], width // 6)
        durations = [report.duration(row.elapsed) for row in rows]
        longest = max(map(len, durations), default=0)
        lines = []
        for row, script, difference, gpu, duration in zip(
            rows, scripts, differences, gpus, durations, strict=True
        ):
            # No column of GPUs where there are none
            on = [gpu] if gpu else []
            before = GAP.join([script, difference, *on, duration.rjust(longest)])
            room = width - cell_len(before) - len(GAP)
            end = GAP + self._styled(_cut(row.line, room), DIM) if room > 0 else ""
            lines.append(
                self._styled(script, CYAN)
                + _cut(before[len(script) :], width - cell_len(script))
                + end
            )
        return lines

    def _styled(self, text: str, *codes: int) -> str:
        if not self._is_colourful:
            codes = tuple(code for code in codes if code in (BOLD, DIM))
        return f"\x1b[{';'.join(map(str, codes))}m{text}\x1b[0m" if codes and text else text


class _Screen:
    """A drawing that stays below the lines that are written. What is new since the last time is
    written at once, or the redrawing for every line would take more time than all the rest.
    """

    def __init__(self, out: Output) -> None:
        self._out = out
        self._lines: list[str] = []
        self._drawing: list[str] = []
        self._drawn: list[str] | None = None
        """What stands there now; None if there is nothing, and lines go where they may."""
        self.waiting = 0
        """Characters of lines that are not on their way yet."""

    def enter(self) -> None:
        if self._drawn is None:
            self._out.write(HIDE_CURSOR)
            self._drawn = []

    def line(self, text: str) -> None:
        if not text:
            return
        if self._drawn is None:
            self._out.line(text)
        else:
            self._lines.append(f"{text}\n")
            self.waiting += len(text)

    def draw(self, lines: list[str]) -> None:
        """What is to stand below, from the next time on."""
        self._drawing = lines

    def show(self) -> None:
        # Who does not read this picture needs no other
        if (
            self._drawn is not None
            and not self._out.waiting
            and (self._lines or self._drawing != self._drawn)
        ):
            self._write(self._drawing)

    def leave(self) -> None:
        if self._drawn is not None:
            self._write([])
            self._out.write(SHOW_CURSOR)
            self._drawn = None

    def _write(self, drawing: list[str]) -> None:
        # The cursor stands at the end of the drawing's last line. A terminal that has become
        # narrower has broken the longer ones
        columns, _ = _size()
        rows = sum(max(1, -(-_width(line) // columns)) for line in self._drawn or ())
        erase = "\r\x1b[2K" + "\x1b[1A\x1b[2K" * (rows - 1)
        self._out.write("".join([erase, *self._lines, "\n".join(drawing)]))
        self._lines.clear()
        self.waiting = 0
        self._drawn = drawing


def _queued(queue: hermes.QueueChanged | None) -> str:
    """What a cluster still holds back, and why."""
    if queue is None or not queue.pending:
        return ""
    why = f" ({hermes.escape(queue.reason)})" if queue.reason else ""
    return f"{queue.pending} queued{why}  "


def _column(texts: Sequence[str], most: int) -> list[str]:
    """Texts made equally wide: as the widest, at most `most`, which counts as 8 at least."""
    width = min(max(map(cell_len, texts), default=0), max(8, most))
    return [set_cell_size(_cut(text, width), width) for text in texts]


def _cut(text: str, width: int) -> str:
    """So much of the text as there is room for; if that is not all, it says so."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1) + "…" if width > 0 else ""


def _width(line: str) -> int:
    """The columns of a line, without its colours."""
    return cell_len(_STYLE.sub("", line))


_STYLE = re.compile(r"\x1b\[[\d;]*m")


def _size() -> tuple[int, int]:
    """Columns and lines of the terminal."""
    try:
        columns, lines = os.get_terminal_size(sys.stderr.fileno())
    except OSError:
        # It was closed; the jobs go on
        columns, lines = 0, 0
    return columns or 80, lines or 24
