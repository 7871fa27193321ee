"""How a process ended, and what that makes of its job. Nothing here asks the system."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import NamedTuple

from ..model import Problem, ProblemKind, Status

NO_ROOM = "no room"
"""The line of an exit file that says that the disk was full when the job ended."""

SIGNALS_WITHOUT_MESSAGE = frozenset({signal.SIGINT, signal.SIGPIPE})
"""A shell prints nothing when these end a job, so status 128+n alone is taken as the signal."""


LACKING = frozenset({ProblemKind.DISK_FULL, ProblemKind.INCOMPLETE})
"""Problems of a job that may lack output."""


class Exit(NamedTuple):
    """How a process ended: exactly one of `code` and `signal` is set.

    With `no_room` the disk was full then, so that its output may be incomplete.
    """

    code: int | None = None
    signal: int | None = None
    no_room: bool = False


def exit_of(status: int, *, has_message: bool) -> Exit:
    """What a shell's exit status means: 128 and a signal's number if that signal ended the job.

    A job can exit with such a code itself. `has_message` tells the two apart: a shell prints one
    when a signal has ended its child.
    """
    number = status - 128
    if number in signal.valid_signals() and (has_message or number in SIGNALS_WITHOUT_MESSAGE):
        return Exit(signal=number)
    return Exit(code=status)


def parse_exit_file(text: str) -> Exit | None:
    """The exit status in what a supervisor has written; None if it has not come to that.

    The lines are: the supervisor's process id, the shell's message if a signal ended the job, the
    status, and `NO_ROOM` if the disk was full. A line without its end was not written whole.
    """
    before, no_room, _ = text.partition(f"{NO_ROOM}\n")
    *said, status = before.splitlines() or [""]
    if not said or not before.endswith("\n") or not status.isdigit():
        return None
    return exit_of(int(status), has_message=len(said) > 1)._replace(no_room=bool(no_room))


def is_success(end: Exit) -> bool:
    """Whether a job that ended so has succeeded, with all of its output."""
    return end.code == 0 and not end.no_room


def parse_supervisor_pid(text: str) -> int | None:
    """The process id in an exit file; None if it has not come to that."""
    line, end, _ = text.partition("\n")
    return int(line) if end and line.isdigit() else None


def as_exit_file(pid: int, end: Exit) -> str:
    """What a supervisor would have written, for a job that had none."""
    status = f"{end.code}" if end.signal is None else f"signal\n{128 + end.signal}"
    return f"{pid}\n{status}\n"


def status_of(
    end: Exit | None, reason: Status | None, problems: Iterable[Problem], *, was_started: bool
) -> Status:
    """What has become of a job.

    `end` is None if nobody can tell how its process ended, or if there was none. `reason` is why
    the runner ended it. A job that exits with 0 and may lack output has failed.
    """
    kinds = {problem.kind for problem in problems}
    if reason is not None:
        return reason
    if end is None and was_started:
        return Status.LOST
    if end is None:
        # Its run was cancelled before it could start, unless something went wrong before
        return Status.FAILED if kinds else Status.CANCELLED
    if end.code == 0 and not kinds & LACKING:
        return Status.FINISHED
    return Status.FAILED
