"""What `hermes exec` shows where there is no terminal, and what jobs with `-l false` print."""

from __future__ import annotations

import json
import os
import select
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol, TextIO, TypeAlias

import anyio

import hermes
from hermes.show import printed
from hermes.show import text as report

ROOM = 2**20
"""Characters that may wait for a slow reader; then events wait in the run, which makes the logs
wait on the disk."""


AnyRun: TypeAlias = hermes.Run | hermes.AttachedRun
"""One that this process executes, or another one."""


class Display(Protocol):
    """Shows a run to somebody. Nothing of it waits for the reader, but `drain`."""

    async def show(self, run: AnyRun) -> None:
        """Takes all events of a run."""
        ...

    def note(self, message: str) -> None:
        """Something that is not an event of the run."""
        ...

    def summary(self, result: hermes.RunResult) -> None: ...

    def summary_of(self, ended: hermes.RunEnded) -> None:
        """The summary of a run that another process has executed."""
        ...

    def leave(self) -> None:
        """Gives the terminal back, in the middle of `show`."""
        ...

    def enter(self) -> None:
        """Takes the terminal again, after `leave`."""
        ...

    def hang_up(self) -> None:
        """The terminal is gone: draws nothing more. Lines are written for as long as that works."""
        ...

    def drain(self, seconds: float | None = None) -> None:
        """Waits until everything is written; at most so many seconds, for as long as it takes
        without."""
        ...


class JsonDisplay:
    """One event a line on stdout."""

    def __init__(self) -> None:
        self._out, self._err = outputs()

    async def show(self, run: AnyRun) -> None:
        async for event in run:
            self._out.line(json.dumps(event.as_json()))
            await room(run, lambda: self._out.waiting)

    def note(self, message: str) -> None:
        self._err.line(report.bounded(hermes.escape(message)))

    def summary(self, result: hermes.RunResult) -> None:
        """The last event says it all."""

    def summary_of(self, ended: hermes.RunEnded) -> None:
        """The last event says it all."""

    def leave(self) -> None:
        """There is nothing to give back."""

    def enter(self) -> None:
        """There is nothing to take."""

    def hang_up(self) -> None:
        """Nothing is drawn, and who cannot be written to is left out by himself."""

    def drain(self, seconds: float | None = None) -> None:
        self._out.drain(seconds)
        self._err.drain(seconds)


class PlainDisplay:
    """One line a change on stderr; what jobs with `-l false` print on stdout and stderr."""

    def __init__(self, plan: hermes.Plan, *, quiet: bool) -> None:
        self.plan = plan
        self.progress = report.Progress(plan)
        self._failures = report.Failures(plan)
        self._quiet = quiet
        self._reason = self._name = ""
        self._out, self._err = outputs()
        self._shown = Shown(plan)

    async def show(self, run: AnyRun) -> None:
        async for event in run:
            # Jobs may have been added
            self.plan, self._name = run.plan, run.name
            self.progress.take(event)
            for stream, text in self._shown.take(event):
                self.print(stream, text)
            self._tell(run, event)
            await room(run, lambda: self.waiting)

    @property
    def waiting(self) -> int:
        """Characters that the slowest reader has yet to take."""
        return max(self._out.waiting, self._err.waiting)

    def print(self, stream: str, text: str) -> None:
        """Shows lines that jobs have printed."""
        (self._out if stream == "stdout" else self._err).line(text)

    def _tell(self, run: AnyRun, event: hermes.Event) -> None:
        match event:
            case hermes.RunStanding():
                self._change(report.stands(event))
                for job in event.running:
                    self._change_of(job, "running")
            case hermes.RunStarted():
                most = f"at most {event.threads} at the same time"
                self._change(f"{event.name}: {report.jobs(event.total)}, {most}")
            case hermes.JobStarted():
                self._change_of(event, "started")
            case hermes.JobEnded(outcome=outcome) if not report.is_failure(outcome):
                counted = f"[{self.progress.done}/{self.progress.total}]"
                what = f"{outcome.how} {outcome.script} {outcome.identifier}"
                self._change(f"{counted} {what} after {report.duration(outcome.duration)}")
            case hermes.JobEnded(outcome=outcome, tried_again_in=pause):
                self.failure(self._failures.lines(outcome, run.name, pause))
            case hermes.RunChanged():
                self._change(report.changed(event))
            case hermes.QueueChanged() if event.reason != self._reason:
                # Every change of the figures would be a line a job
                self._reason = event.reason
                if event.reason:
                    self._change(
                        f"{event.pending} queued ({event.reason}), {event.running} running"
                    )
            case hermes.RunWarning():
                self.note(f"warning: {event.message}")

    def _change_of(self, job: hermes.JobStarted, how: str) -> None:
        what = f"{how} {job.script} {job.identifier}{report.on_gpus(job)}"
        self._change(report.bounded(f"{what}  {shlex.join(job.arguments)}".rstrip()))

    def _change(self, line: str) -> None:
        if not self._quiet:
            self._err.line(hermes.escape(line))

    def failure(self, lines: list[str]) -> None:
        self._err.line("\n".join(lines))

    def note(self, message: str) -> None:
        self._err.line(hermes.escape(message))

    def summary(self, result: hermes.RunResult) -> None:
        self.last(report.summary(result, self.plan, self.progress.elapsed), ok=result.ok)

    def summary_of(self, ended: hermes.RunEnded) -> None:
        line = report.summary_of(
            self._name, ended.counts, ended.go_on, self.plan, self.progress.elapsed
        )
        self.last(line, ok=ended.ok)

    def last(self, line: str, *, ok: bool) -> None:
        """Tells what came of the run."""
        if not self._quiet or not ok:
            self._err.line(line)

    def leave(self) -> None:
        """There is nothing to give back."""

    def enter(self) -> None:
        """There is nothing to take."""

    def hang_up(self) -> None:
        """Nothing is drawn, and who cannot be written to is left out by himself."""

    def drain(self, seconds: float | None = None) -> None:
        self._out.drain(seconds)
        self._err.drain(seconds)


class Output:
    """Writes text from a thread of its own, in order: a reader who stalls holds up nobody, and one
    who is gone ends nothing."""

    def __init__(self, stream: TextIO | None) -> None:
        # Not through the stream, which is locked while it waits for a reader: then nobody could
        # flush it, nor leave
        self._fd = stream.fileno() if stream is not None else -1
        self._encoding = stream.encoding if stream is not None else "utf-8"
        self._gone = stream is None
        self._texts: list[str] = []
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self.waiting = 0
        """Characters that are not written yet."""

    def line(self, text: str) -> None:
        self.write(f"{text}\n")

    def write(self, text: str) -> None:
        with self._change:
            if self._gone:
                return
            self._texts.append(text)
            self.waiting += len(text)
            self._change.notify_all()
        self._start()

    def drain(self, seconds: float | None = None) -> None:
        if self._thread is None:
            self._write_waiting()
        with self._change:
            self._change.wait_for(lambda: not self.waiting, seconds)

    def _start(self) -> None:
        if self._thread is None:
            # Ends with the process, whether somebody reads or not
            thread = threading.Thread(target=self._keep_writing, daemon=True)
            # The system may have none to give just now
            with suppress(RuntimeError):
                thread.start()
                self._thread = thread

    def _keep_writing(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._texts)
            self._write_waiting()

    def _write_waiting(self) -> None:
        with self._change:
            text = "".join(self._texts)
            self._texts.clear()
        try:
            _write(self._fd, text.encode(self._encoding, "backslashreplace"))
        except OSError:
            self._gone = True
        with self._change:
            self.waiting -= len(text)
            self._change.notify_all()


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            # Another program has set the terminal so
            select.select([], [fd], [])


def outputs() -> tuple[Output, Output]:
    """For stdout and stderr; one for both if they lead to the same place, so that lines stay in
    order and whole."""
    err = Output(sys.stderr)
    try:
        same = os.path.sameopenfile(sys.stdout.fileno(), sys.stderr.fileno())
    except (AttributeError, OSError):
        # One of them was closed before Hermes began
        same = False
    return (err if same else Output(sys.stdout)), err


async def room(run: AnyRun, waiting: Callable[[], int]) -> None:
    """Waits while a slow reader has more before him than should be kept in memory; not when the run
    is to end."""
    # The thread that writes knows nothing of the loop, so there is no event to wait for
    while waiting() > ROOM and not run.cancelled:  # noqa: ASYNC110
        await anyio.sleep(0.02)


class Writer:
    """Writes lines at once, for as long as somebody reads."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._gone = False

    def line(self, text: str) -> None:
        if self._gone:
            return
        try:
            self._stream.write(f"{text}\n")
            self._stream.flush()
        except (OSError, ValueError):
            self._gone = True


class Shown:
    """What jobs with `-l false` print: whole lines, each with its job's name before it if there are
    several jobs."""

    def __init__(self, plan: hermes.Plan) -> None:
        self._several = plan.count > 1
        self._jobs: dict[str, _ShownJob] = {}

    def take(self, event: hermes.Event) -> Iterator[tuple[str, str]]:
        """Gives the streams and the lines that are to be shown now."""
        match event:
            case hermes.LogChunk() if event.identifier in self._jobs:
                yield from self._jobs[event.identifier].take(event.stream, event.data)
            case hermes.RunStanding():
                for job in event.running:
                    if not job.log and job.identifier not in self._jobs:
                        self._add(job, is_whole=False)
            case hermes.JobStarted(log=False):
                self._add(event, is_whole=True)
            case hermes.JobEnded(outcome=outcome) if outcome.identifier in self._jobs:
                yield from self._jobs.pop(outcome.identifier).end()

    def _add(self, job: hermes.JobStarted, *, is_whole: bool) -> None:
        name = f"{job.script}#{job.index + 1} | " if self._several else ""
        self._jobs[job.identifier] = _ShownJob(
            hermes.escape(name), job.directory, is_whole=is_whole
        )


class _ShownJob:
    """What one job prints, as it is shown; not all of it unless it `is_whole`."""

    def __init__(self, name: str, directory: str, *, is_whole: bool) -> None:
        self._name = name
        self._directory = directory
        self._is_whole = is_whole
        self._lines = {stream: printed.Lines(name) for stream in printed.FILES}
        self._bytes = dict.fromkeys(printed.FILES, 0)

    def take(self, stream: str, data: bytes) -> Iterator[tuple[str, str]]:
        self._bytes[stream] += len(data)
        for text in self._lines[stream].take(data):
            yield stream, text

    def end(self) -> Iterator[tuple[str, str]]:
        for stream, lines in self._lines.items():
            for text in lines.end():
                yield stream, text
            path, size = report.log(self._directory, stream)
            if self._is_whole and size > self._bytes[stream]:
                unread = size - self._bytes[stream]
                more = f"({unread} more bytes, which nobody read in time: {report.relative(path)})"
                yield stream, self._name + hermes.escape(more)
