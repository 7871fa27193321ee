"""What people are told about a run, as plain text: the terminal, the notebook and pipes all show
the same.

What comes from jobs, files or arguments is escaped here: nothing in it can move a cursor or change
a colour.
"""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from ..errors import bounded as bounded
from ..errors import escape, shortened
from ..events import (
    Event,
    JobStarted,
    RunChanged,
    RunStanding,
)
from ..language.plan import Plan
from ..model import Outcome, RunResult, Status
from ..run.standing import Standing
from ..storage.files import open_regular
from ..storage.layout import STDERR, STDOUT
from ..storage.writer import rerun_command
from .amounts import duration as duration

TAIL_LINES = 10
"""Lines of stderr that are shown of a failed job."""

TAIL_BYTES = 8192
"""Bytes at the end of a log in which its last lines are looked for."""

SAMPLE = 1000
"""Jobs of the plan that are compared in advance to find in which arguments jobs differ; the others
are as they start."""

KEEP_AWAY = (
    "the script does not know the identifier that it gets as its first argument; write "
    "`{identifier}` where it belongs, or `identifier: none` in PRE (`--identifier none`): it is in "
    "HERMES_IDENTIFIER, too"
)

_UNKNOWN = re.compile(
    r"unrecogni[sz]ed|unknown|unexpected|invalid|extra|no such|not consume|not recogni[sz]ed"
    r"|overrides?\b|could not convert|no rule to make|too many|mismatched",
    re.IGNORECASE,
)
"""How programs say that they do not know an argument."""


class Row(NamedTuple):
    """A running job, as one line of a progress display. `gpus` names those that it has got, empty
    if it has none. `elapsed` is in seconds, `line` is what it printed last."""

    script: str
    differences: str
    gpus: str
    elapsed: float
    line: str


class EndedRow(NamedTuple):
    """A job that has ended, as one line of a progress display. `short` is a part of its identifier
    by which commands find it, `how` it ended, `seconds` how long it took."""

    short: str
    script: str
    differences: str
    how: str
    seconds: float
    ok: bool


class Progress(Standing):
    """Where a run stands, by its events, and its jobs as lines."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self._differences: Differences | None = None

    def take(self, event: Event) -> None:
        super().take(event)
        if isinstance(event, JobStarted) and self._differences is not None:
            self._differences.add(event.script, event.arguments)

    def rows(self, room: int) -> list[Row]:
        """Up to `room` running jobs, the oldest first. Reads the ends of their logs, so call it in
        a worker thread."""
        if self._differences is None:
            self._differences = Differences(self.plan)
        now = time.monotonic()
        rows = []
        for event, since in list(islice(self.running.values(), room)):
            differences = " ".join(self._differences.of(event.script, event.arguments))
            rows.append(
                Row(
                    escape(event.script),
                    escape(differences),
                    on_gpus(event).removeprefix(" on "),
                    now - since,
                    last_line(event.directory),
                )
            )
        return rows

    def ended_rows(self, room: int) -> list[EndedRow]:
        """Up to `room` jobs that ended last, the newest at the end. May make jobs of the plan, so
        call it in a worker thread."""
        if self._differences is None:
            self._differences = Differences(self.plan)
        return [
            EndedRow(
                short_identifier(outcome.identifier),
                escape(started.script),
                escape(" ".join(self._differences.of(started.script, started.arguments))),
                outcome.how,
                outcome.duration,
                outcome.ok,
            )
            for started, outcome in list(self.latest)[max(0, len(self.latest) - room) :]
        ]


def stands(event: RunStanding) -> str:
    """Where a run stands, in a line."""
    counts = f"{event.done} of {jobs(event.total)} done, {len(event.running)} running"
    pace = "paused" if event.is_paused else f"at most {event.threads} at the same time"
    return f"{event.name}: {counts}, {event.failed} failed; {pace}"


def changed(event: RunChanged) -> str:
    """How a run goes on after it was changed, in a line."""
    if event.is_paused:
        return "paused: nothing more is started until `hermes continue`"
    return f"going on: {jobs(event.total)}, at most {event.threads} at the same time"


def on_gpus(event: JobStarted) -> str:
    """Which GPUs a job has got, to stand behind its name; nothing if it has got none."""
    return f" on GPU {','.join(event.gpus)}" if event.gpus else ""


def short_identifier(identifier: str) -> str:
    """The part of an identifier that tells it from the others of a day: the time of day, down to
    the microsecond."""
    parts = identifier.split("_")
    return parts[3] if len(parts) > 3 else identifier


class Differences:
    """Finds the arguments in which a job differs from the others of the same script."""

    def __init__(self, plan: Plan) -> None:
        self._common: dict[str, frozenset[str]] = {}
        self._several: set[str] = set()
        for job in islice(plan.jobs, SAMPLE):
            self.add(job.script, job.arguments)

    def add(self, script: str, arguments: Sequence[str]) -> None:
        groups = frozenset(_grouped(arguments))
        common = self._common.setdefault(script, groups)
        if groups != common:
            self._several.add(script)
            self._common[script] = common & groups

    def of(self, script: str, arguments: Sequence[str]) -> list[str]:
        """The arguments, an option together with its values, that not all jobs have. All of them if
        the jobs do not differ."""
        groups = _grouped(arguments)
        return (
            [group for group in groups if group not in self._common.get(script, ())]
            if script in self._several
            else groups
        )


def _grouped(arguments: Iterable[str]) -> list[str]:
    groups: list[str] = []
    for word in arguments:
        is_value = not word.startswith("-") or word[1:2].isdigit()
        if is_value and groups and groups[-1].startswith("-"):
            groups[-1] += f" {word}"
        else:
            groups.append(word)
    return groups


def is_failure(outcome: Outcome) -> bool:
    """Whether somebody should be told: not of a job that was merely cancelled with its run."""
    return not outcome.ok and (outcome.status is not Status.CANCELLED or bool(outcome.problems))


def failure(
    outcome: Outcome, name: str, plan: Plan, tried_again_in: float | None = None
) -> list[str]:
    """All that somebody needs who comes back and sees that a job went wrong, line by line.

    `tried_again_in` are the seconds until it is started anew, None if it is not.
    """
    kind = "problems" if outcome.status is Status.FINISHED else outcome.status.value
    how = f": {outcome.how}," if outcome.how not in (kind, Status.FINISHED) else ""
    lines = [
        f"{kind}: {escape(outcome.script)} {outcome.identifier}{how}"
        f" after {duration(outcome.duration)}"
        + (f"; tried again in {tried_again_in:g} s" if tried_again_in else "")
    ]
    lines += [f"    problem: {escape(problem.text)}" for problem in outcome.problems]
    if outcome.status is Status.CANCELLED:
        return lines
    if tried_again_in is not None and outcome.directory is not None:
        return lines + _last_words(outcome.directory)
    lines.append(f"    command: {escape(shortened(shlex.join(outcome.argv)))}")
    if outcome.directory is not None:
        if outcome.status is not Status.FINISHED:
            last = _last_words(outcome.directory)
            lines += last
            if outcome.status is Status.FAILED and _is_unknown(outcome.identifier, last):
                lines.append(f"    hint: {KEEP_AWAY}")
        lines.append(f"    directory: {escape(relative(outcome.directory))}")
        # The command is for the run's working directory, which need not be this one
        elsewhere = relative(plan.working_directory)
        change = f"cd {shlex.quote(elsewhere)} && " if elsewhere != "." else ""
        lines.append(
            f"    run again: {escape(change + rerun_command(outcome.directory, name, plan))}"
        )
    return lines


class Failures:
    """The failures of one run, as they are told: of those that are alike only the first in full."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._told: dict[tuple[str, ...], str] = {}

    def lines(self, outcome: Outcome, name: str, tried_again_in: float | None = None) -> list[str]:
        """`failure`, or its first line alone, with the short identifier of one like it."""
        lines = failure(outcome, name, self._plan, tried_again_in)
        if outcome.directory is None or outcome.status is Status.CANCELLED:
            return lines
        last = [] if outcome.status is Status.FINISHED else _last_words(outcome.directory)[-1:]
        reasons = [*(problem.text for problem in outcome.problems), *last]
        # Numbers differ from job to job: identifiers, sizes, addresses
        alike = [_NUMBER.sub("#", reason) for reason in reasons]
        kind = (outcome.script, outcome.status.value, outcome.how, *alike)
        first = self._told.setdefault(kind, short_identifier(outcome.identifier))
        if first == short_identifier(outcome.identifier):
            return lines
        return [f"{lines[0]}, like {first}"]


_NUMBER = re.compile(r"\d[\d_.]*")


def _last_words(directory: str) -> list[str]:
    return [f"    stderr | {line}" for line in tail(f"{directory}/{STDERR}", TAIL_LINES)]


def _is_unknown(identifier: str, lines: Iterable[str]) -> bool:
    """Whether a script says that it does not know its identifier as an argument.

    There is nothing else to tell it by: scripts fail for this with any exit code.
    """
    # Not where it is part of a path: that is a file which the script itself has named
    word = re.compile(rf"(?<![\w/.-]){identifier}(?![\w/-]|\.\w)")
    return any(word.search(line) and _UNKNOWN.search(line) for line in lines)


def summary(result: RunResult, plan: Plan, seconds: float) -> str:
    """The last line: what came of the run, and where it is."""
    return summary_of(result.name, result.tally(plan.count), result.go_on, plan, seconds)


def summary_of(name: str, counts: Mapping[str, int], go_on: str, plan: Plan, seconds: float) -> str:
    """The same for a run of which only this is known: how many jobs ended how, and what goes on
    with it."""
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return escape(
        f"{name}: {jobs(plan.count)} in {duration(seconds)}: {told};"
        f" results in {relative(plan.experiments)}" + (f"; {go_on}" if go_on else "")
    )


def relative(path: str | os.PathLike[str]) -> str:
    """The path from the current directory, which is the shorter one to read and to type; the path
    itself if that is gone."""
    try:
        return os.path.relpath(path)
    except FileNotFoundError:
        return os.fspath(path)


def printable(line: bytes) -> str:
    """A line of a log as a terminal may get it: without control characters, and text only."""
    # A progress bar draws its line again and again, each time after a carriage return
    shown = line.rstrip(b"\r").rpartition(b"\r")[2]
    return escape(shown.decode("utf-8", "backslashreplace").expandtabs())


def tail(path: str, lines: int) -> list[str]:
    """The last lines of a log; none if there is no such log."""
    try:
        with open(open_regular(path, os.O_RDONLY), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            found = file.read().rstrip(b"\n").split(b"\n")
    except OSError:
        return []
    return [printable(line) for line in found[-lines:]] if found != [b""] else []


def log(directory: str, stream: str) -> tuple[str, int]:
    """The path of a job's log, and how many bytes it has by now."""
    path = f"{directory}/{STDOUT if stream == 'stdout' else STDERR}"
    try:
        return path, os.stat(path).st_size
    except OSError:
        return path, 0


def last_line(directory: str) -> str:
    """What the job of an experiment directory printed last, on stdout or stderr, whichever changed
    later."""
    logs = (f"{directory}/{STDOUT}", f"{directory}/{STDERR}")
    try:
        latest = max(
            (log for log in logs if os.path.getsize(log)), key=os.path.getmtime, default=None
        )
    except OSError:
        return ""
    return "".join(tail(latest, 1)) if latest else ""


def jobs(count: int) -> str:
    return f"{count} job" if count == 1 else f"{count} jobs"
