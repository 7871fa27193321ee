"""How a process ended, and what that makes of its job: tables of plain values."""

from __future__ import annotations

import itertools
import signal

import pytest

from hermes.executors.exits import (
    NO_ROOM,
    SIGNALS_WITHOUT_MESSAGE,
    Exit,
    as_exit_file,
    exit_of,
    parse_exit_file,
    parse_supervisor_pid,
    status_of,
)
from hermes.model import Problem, ProblemKind, Status

SIGNALS = sorted(signal.valid_signals())

NOT_SIGNALS = sorted(set(range(256)) - {128 + number for number in SIGNALS})
"""Exit statuses that no signal gives."""


def problem(kind: ProblemKind) -> Problem:
    return Problem(kind, "text")


@pytest.mark.parametrize("has_message", [True, False])
def test_exit_codes_that_no_signal_gives_are_codes(has_message: bool) -> None:
    for status in NOT_SIGNALS:
        assert exit_of(status, has_message=has_message) == Exit(code=status)


def test_signals_are_told_from_codes_by_the_shell_s_message() -> None:
    for number in SIGNALS:
        assert exit_of(128 + number, has_message=True) == Exit(signal=number)
        is_silent = number in SIGNALS_WITHOUT_MESSAGE
        expected = Exit(signal=number) if is_silent else Exit(code=128 + number)
        assert exit_of(128 + number, has_message=False) == expected


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("", None),
        ("4", None),
        ("4\n", None),
        ("4\n0", None),
        ("4\nKilled\n", None),
        ("4\nKilled\n137", None),
        ("4\nno room\n", None),
        ("4\n0\n", Exit(code=0)),
        ("4\n1\n", Exit(code=1)),
        ("4\n255\n", Exit(code=255)),
        ("4\n137\n", Exit(code=137)),
        ("4\nKilled\n137\n", Exit(signal=9)),
        ("4\nsh: 1: Segmentation fault\n139\n", Exit(signal=11)),
        ("4\nA message\nof two lines\n143\n", Exit(signal=15)),
        ("4\n130\n", Exit(signal=2)),
        ("4\n141\n", Exit(signal=13)),
        ("4\nA warning of the shell\n3\n", Exit(code=3)),
        ("4\n0\nno room\n", Exit(code=0, no_room=True)),
        ("4\nKilled\n137\nno room\n", Exit(signal=9, no_room=True)),
        ("4\n0\nno ro", None),
    ],
)
def test_exit_files_are_read(text: str, end: Exit | None) -> None:
    assert parse_exit_file(text) == end


@pytest.mark.parametrize("end", [Exit(code=0), Exit(code=3), Exit(signal=9), Exit(signal=2)])
def test_exit_files_cut_off_anywhere_say_nothing_wrong(end: Exit) -> None:
    whole = as_exit_file(1234, end)
    for length in range(len(whole)):
        assert parse_exit_file(whole[:length]) is None
        assert parse_supervisor_pid(whole[:length]) == (1234 if length > 4 else None)


@pytest.mark.parametrize("no_room", [True, False])
def test_exit_files_say_what_was_written(no_room: bool) -> None:
    ends = [*(Exit(code=code) for code in NOT_SIGNALS), *(Exit(signal=n) for n in SIGNALS)]
    for end in ends:
        text = as_exit_file(7, end) + (f"{NO_ROOM}\n" if no_room else "")
        assert parse_exit_file(text) == end._replace(no_room=no_room)
        assert parse_supervisor_pid(text) == 7


@pytest.mark.parametrize(
    ("text", "pid"), [("", None), ("12", None), ("12\n", 12), ("x\n", None), ("\n", None)]
)
def test_supervisors_are_known_by_their_first_line(text: str, pid: int | None) -> None:
    assert parse_supervisor_pid(text) == pid


ENDS = [None, Exit(code=0), Exit(code=1), Exit(code=127), Exit(signal=9), Exit(signal=15)]
REASONS = [None, Status.CANCELLED, Status.TIMEOUT]
KINDS = [(), *((kind,) for kind in ProblemKind)]

LACKING = {ProblemKind.DISK_FULL} | {kind for kind in ProblemKind if kind == "incomplete"}
"""Problems of a job that may lack output."""


@pytest.mark.parametrize("reason", [Status.CANCELLED, Status.TIMEOUT])
@pytest.mark.parametrize("was_started", [True, False])
def test_status_is_why_the_runner_ended_the_job(reason: Status, was_started: bool) -> None:
    for end, kinds in itertools.product(ENDS, KINDS):
        assert status_of(end, reason, map(problem, kinds), was_started=was_started) is reason


@pytest.mark.parametrize("kinds", KINDS)
def test_status_is_lost_where_nobody_can_tell(kinds: tuple[ProblemKind, ...]) -> None:
    assert status_of(None, None, map(problem, kinds), was_started=True) is Status.LOST


@pytest.mark.parametrize("kinds", KINDS)
def test_status_of_a_job_that_never_started(kinds: tuple[ProblemKind, ...]) -> None:
    expected = Status.FAILED if kinds else Status.CANCELLED
    assert status_of(None, None, map(problem, kinds), was_started=False) is expected


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("end", ENDS[1:])
def test_status_of_a_job_that_ended(end: Exit, kinds: tuple[ProblemKind, ...]) -> None:
    has_succeeded = end.code == 0 and not LACKING & set(kinds)
    expected = Status.FINISHED if has_succeeded else Status.FAILED
    for was_started in (True, False):
        assert status_of(end, None, map(problem, kinds), was_started=was_started) is expected
