"""What `hermes exec` shows where there is no terminal, and what jobs with `-l false` print."""

from __future__ import annotations

import json
import shlex
import sys
from typing import Protocol, TextIO

import hermes
from hermes import report


class Display(Protocol):
    """Shows a run to somebody."""

    async def show(self, run: hermes.Run) -> None:
        """Takes all events of a run."""
        ...

    def note(self, message: str) -> None:
        """Something that is not an event of the run."""
        ...

    def summary(self, result: hermes.RunResult) -> None: ...

    def leave(self) -> None:
        """Gives the terminal back, in the middle of `show`."""
        ...


class JsonDisplay:
    """One event a line on stdout."""

    def __init__(self) -> None:
        self._out = Writer(sys.stdout)

    async def show(self, run: hermes.Run) -> None:
        for warning in run.plan.warnings:
            self.note(f"warning: {warning}")
        async for event in run:
            self._out.line(json.dumps(event.as_json()))

    def note(self, message: str) -> None:
        Writer(sys.stderr).line(hermes.escape(message))

    def summary(self, result: hermes.RunResult) -> None:
        """The last event says it all."""

    def leave(self) -> None:
        """There is nothing to give back."""


class PlainDisplay:
    """One line a change on stderr; what jobs with `-l false` print on stdout and stderr."""

    def __init__(self, plan: hermes.Plan, *, quiet: bool, out: Lines | None = None, err: Lines | None = None) -> None:
        self.plan = plan
        self.progress = report.Progress(plan)
        self._quiet = quiet
        self._reason = ""
        self._err = err or Writer(sys.stderr)
        self._shown = Shown(plan, {"stdout": out or Writer(sys.stdout), "stderr": self._err})

    async def show(self, run: hermes.Run) -> None:
        for warning in self.plan.warnings:
            self.note(f"warning: {warning}")
        async for event in run:
            self.progress.take(event)
            self._shown.take(event)
            self._tell(run, event)

    def _tell(self, run: hermes.Run, event: hermes.Event) -> None:
        match event:
            case hermes.RunStarted():
                self._change(f"{event.name}: {report.jobs(event.total)}, at most {event.threads} at the same time")
            case hermes.JobStarted():
                self._change(f"started {event.script} {event.identifier}  {shlex.join(event.arguments)}".rstrip())
            case hermes.JobEnded(outcome=outcome) if not report.is_failure(outcome):
                counted = f"[{self.progress.done}/{self.progress.total}]"
                self._change(f"{counted} {outcome.how} {outcome.script} {outcome.identifier} after {report.duration(outcome.duration)}")
            case hermes.JobEnded(outcome=outcome):
                self.failure(report.failure(outcome, run.name, self.plan))
            case hermes.QueueChanged() if event.reason != self._reason:
                # Every change of the figures would be a line a job
                self._reason = event.reason
                if event.reason:
                    self._change(f"{event.pending} queued ({event.reason}), {event.running} running")
            case hermes.RunWarning():
                self.note(f"warning: {event.message}")

    def _change(self, line: str) -> None:
        if not self._quiet:
            self._err.line(hermes.escape(line))

    def failure(self, lines: list[str]) -> None:
        self._err.line("\n".join(lines))

    def note(self, message: str) -> None:
        self._err.line(hermes.escape(message))

    def summary(self, result: hermes.RunResult) -> None:
        if not self._quiet or not result.ok:
            self._err.line(report.summary(result, self.plan, self.progress.elapsed))

    def leave(self) -> None:
        """There is nothing to give back."""


class Lines(Protocol):
    """Takes whole lines of text, several at once too."""

    def line(self, text: str) -> None: ...


class Writer:
    """Writes lines for as long as somebody reads. A closed pipe or terminal must not end the run."""

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
    """What jobs with `-l false` print: whole lines, each with its job's name before it if there are several jobs."""

    def __init__(self, plan: hermes.Plan, writers: dict[str, Lines]) -> None:
        self._writers = writers
        self._several = plan.count > 1
        self._names: dict[str, str] = {}
        self._rests: dict[tuple[str, str], bytes] = {}

    def take(self, event: hermes.Event) -> None:
        match event:
            case hermes.JobStarted(log=False):
                self._names[event.identifier] = f"{event.script}#{event.index + 1} | " if self._several else ""
            case hermes.LogChunk():
                key = (event.identifier, event.stream)
                *lines, rest = (self._rests.get(key, b"") + event.data).split(b"\n")
                if len(rest) > report.TAIL_BYTES:
                    # Not a line in any useful sense
                    lines, rest = [*lines, rest], b""
                self._rests[key] = rest
                self._write(event.identifier, event.stream, lines)
            case hermes.JobEnded(outcome=outcome) if outcome.identifier in self._names:
                for stream in self._writers:
                    rest = self._rests.pop((outcome.identifier, stream), b"")
                    self._write(outcome.identifier, stream, [rest] if rest else [])
                del self._names[outcome.identifier]

    def _write(self, identifier: str, stream: str, lines: list[bytes]) -> None:
        if lines:
            name = hermes.escape(self._names.get(identifier, ""))
            self._writers[stream].line("\n".join(name + report.printable(line) for line in lines))
