"""Signals, jobs that do not obey them, and daemons that jobs leave behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

import anyio
import pytest

import hermes
from hermes.executors.proc import processes_of
from hermes.timing import Timing

from ..support import (
    LONG,
    PYTHON,
    Desk,
    MakeDesk,
    RecordProperty,
    Terminal,
    check_always,
    environment,
    is_alive,
    times,
    tries,
    until,
)

T = TypeVar("T")


pytestmark = pytest.mark.skipif(
    not os.path.isdir("/proc/self"), reason="looks for processes in /proc"
)

PATIENT = """\
trap 'printf %s TERM > "asked_$2_$1"' TERM
if [ "$2" = leader ]; then sh patient.sh "$1" child & fi
printf %s half > "partial_$2_$1"
while [ ! -e go ]; do sleep 0.01; done
printf %s whole > "late_$2_$1"
wait
"""
"""A job, and a child in its group, that save something when they are told to end, and end when
there is a file `go`.
"""

IGNORING = """\
trap '' TERM
if [ "$2" = leader ]; then sh ignoring.sh "$1" child & fi
printf %s half > "partial_$2_$1"
while :; do sleep 0.01; done
"""
"""A job that SIGTERM does not reach, and a child like it."""

FATHERLESS = """\
sh ignoring.sh "$1" child &
printf %s half > "partial_leader_$1"
wait
"""
"""A job that SIGTERM ends, with a child that it does not reach."""

SHORT = """\
printf %s half > "partial_$1"
sleep 0.02
printf %s whole > "late_$1"
"""
"""A job that soon ends by itself."""

LEAVING = """\
$2 sleep 1000 &
printf %s $! > daemon.pid
until [ "$(cat /proc/$!/comm)" = sleep ]; do sleep 0.01; done
sleep 0.1
"""
"""A job that ends when it has started a daemon through the command in its argument."""

TRACKED = """\
import multiprocessing.shared_memory
memory = multiprocessing.shared_memory.SharedMemory(create=True, size=1)
memory.close()
memory.unlink()
"""
"""A job that has a helper, which ends when it sees that the job has."""

SAVED = {"partial": "half", "asked": "TERM", "late": "whole"}
"""What is in the files that jobs save."""

PARTIAL = ("partial_leader", "partial_child")
ASKED = ("asked_leader", "asked_child")
LATE = ("late_leader", "late_child")

GRACEFUL = """\
import sys, hermes
from hermes.cli.run import run
run(lambda: hermes.open_run("x.hermes", "x", grace=float(sys.argv[1]), follow_logs="shown"))
"""
"""`hermes exec -f x.hermes` with another grace."""

ROWS = {"Ctrl-C": 3, "SIGINT": 3, "SIGTERM": 4}
"""How a run is told to end, and the row of the fault matrix that this is."""

ENDINGS = pytest.mark.parametrize(
    "ending", [pytest.param(ending, marks=pytest.mark.fault(row)) for ending, row in ROWS.items()]
)


@pytest.fixture
def make_desk(make_desk: MakeDesk) -> Iterator[MakeDesk]:
    """Makes a desk for every time that a fault is caused; no process of a job survives the test."""
    made = []

    def make(name: str) -> Desk:
        desk = make_desk(name)
        for name, content in (
            ("patient", PATIENT), ("ignoring", IGNORING), ("fatherless", FATHERLESS),
            ("short", SHORT), ("leaving", LEAVING),
        ):  # fmt: skip
            desk.write(f"{name}.sh", content)
        desk.write("graceful.py", GRACEFUL)
        made.append(desk)
        return desk

    yield make
    for desk in made:
        for pid in alive(desk):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def alive(desk: Desk) -> list[int]:
    """The processes of the jobs."""
    found = processes_of("HERMES_EXPERIMENT_DIR")
    own = [pids for folder, pids in found.items() if folder.startswith(f"{desk.path}/")]
    return [pid for pids in own for pid in pids]


def all_have(desk: Desk, word: str, jobs: int) -> bool:
    """Whether so many jobs and their children have written a file that begins with this word."""
    return all(
        sum(path.stat().st_size > 0 for path in desk.path.glob(f"{word}_{who}_*")) == jobs
        for who in ("leader", "child")
    )


def wait_for(terminal: Terminal, condition: Callable[[], T | None]) -> T:
    """As `until`, with the terminal being read, if it is still there."""
    return until(condition) if terminal.process.closed else terminal.until(condition)


def tell(terminal: Terminal, ending: str) -> None:
    if ending == "Ctrl-C":
        terminal.process.sendintr()
    else:
        os.kill(terminal.pid, signal.Signals[ending])


def exit_code(ending: str) -> int:
    return 128 + signal.Signals[{"Ctrl-C": "SIGINT"}.get(ending, ending)]


def check_cancelled(desk: Desk, ended: int, cancelled: int, *saved: str) -> None:
    """So many jobs ended before the signal, so many were ended by it, none was started after it;
    these words were saved by each.
    """
    experiments = desk.experiments()
    assert [each.status for each in experiments if each.script == "short.sh"] == [
        "finished"
    ] * ended
    told = [each for each in experiments if each.script != "short.sh"]
    assert [each.status for each in told] == ["cancelled"] * cancelled
    for each in told:
        left = desk.tree(each.directory, own=True)
        assert sorted(left) == sorted(f"{word}_{each.identifier}" for word in saved)
        assert all(
            left[f"{word}_{each.identifier}"] == SAVED[word.partition("_")[0]] for word in saved
        )
        assert desk.leftovers(each.identifier) == []
        assert each.problems == ()


# Rows 3 and 4: the run is told to end


@ENDINGS
@pytest.mark.timeout(times(60, 600))
def test_signal_once_lets_jobs_finish_what_they_are_at(
    make_desk: MakeDesk, ending: str, record_property: RecordProperty
) -> None:
    for number in tries(record_property, 1, 20):
        desk = make_desk(f"desk{number}")
        ended, threads = number % 4, 1 + number % 3
        entries = ["[[sh, short.sh]]"] * ended + ["[[sh, patient.sh, leader]]"] * (threads + 3)
        desk.hermes_file(*entries, settings={"threads": threads, "supervise": number % 5 > 0})
        tell_once(desk, ending, threads, at_once=number % 2 > 0)
        check_cancelled(desk, ended, threads, *PARTIAL, *ASKED, *LATE)


def tell_once(desk: Desk, ending: str, threads: int, *, at_once: bool) -> None:
    with desk.terminal("exec", "-f", "x.hermes") as terminal:
        terminal.until(lambda: all_have(desk, "partial", threads))
        if not at_once:
            # Otherwise perhaps before anything is shown
            terminal.shows(rf"{threads} running")
        tell(terminal, ending)
        # The whole group is asked, and nobody is in a hurry
        wait_for(terminal, lambda: all_have(desk, "asked", threads))
        assert list(desk.path.glob("late_*_*")) == []
        assert terminal.process.isalive()
        desk.write("go")
        assert terminal.end() == exit_code(ending)
    check_always(desk, terminal.screen.text)


@ENDINGS
@pytest.mark.timeout(times(60, 600))
def test_signal_twice_kills_the_jobs_at_once(
    make_desk: MakeDesk, ending: str, record_property: RecordProperty
) -> None:
    for number in tries(record_property, 1, 20):
        desk = make_desk(f"desk{number}")
        threads = 1 + number % 3
        desk.hermes_file(
            *["[[sh, patient.sh, leader]]"] * (threads + 3),
            settings={"threads": threads, "supervise": number % 5 > 0},
        )
        killed_after = tell_twice(desk, ending, threads)
        # The one figure of the matrix that is a time
        assert killed_after < 1 or not LONG
        check_cancelled(desk, 0, threads, *PARTIAL, *ASKED)
        assert {each.signal for each in desk.experiments()} == {signal.SIGKILL}


def tell_twice(desk: Desk, ending: str, threads: int) -> float:
    """Returns how many seconds after the second time no process was left."""
    # With this grace, whoever waited for its end would wait in vain
    with Terminal(
        [sys.executable, "graceful.py", "1000"], desk.path, environment(), 24, 100
    ) as terminal:
        terminal.until(lambda: all_have(desk, "partial", threads))
        terminal.shows(rf"{threads} running")
        tell(terminal, ending)
        wait_for(terminal, lambda: all_have(desk, "asked", threads))
        assert len(alive(desk)) >= 2 * threads
        # Sooner it would be the same request, as GNU `timeout` makes it
        time.sleep(0.3)
        began = time.monotonic()
        tell(terminal, ending)
        wait_for(terminal, lambda: not alive(desk))
        killed_after = time.monotonic() - began
        assert terminal.end() == exit_code(ending)
    check_always(desk, terminal.screen.text)
    return killed_after


@ENDINGS
@pytest.mark.timeout(times(60, 600))
def test_signal_at_any_moment_ends_the_run(
    make_desk: MakeDesk, ending: str, record_property: RecordProperty
) -> None:
    moments = random.Random(3)
    for number in tries(record_property, 1, 20):
        desk = make_desk(f"desk{number}")
        desk.hermes_file(
            *["[[sh, short.sh]]"] * 200,
            settings={"threads": 1 + number % 4, "supervise": number % 5 > 0},
        )
        tell_after(desk, ending, moments.random())
        experiments = desk.experiments()
        assert len(experiments) < 200
        assert {each.status for each in experiments} <= {"finished", "cancelled"}
        for each in experiments:
            left = desk.tree(each.directory, own=True)
            whole = {f"partial_{each.identifier}": "half", f"late_{each.identifier}": "whole"}
            # A job that is told to end may do so in the middle of its writing
            assert left == whole if each.status == "finished" else left.keys() <= whole.keys()
            assert desk.leftovers(each.identifier) == []
            assert each.problems == ()


def tell_after(desk: Desk, ending: str, seconds: float) -> None:
    with desk.terminal("exec", "-f", "x.hermes") as terminal:
        terminal.until(lambda: list(desk.experiments_folder.glob(".hermes/*/run.json")))
        # No more than a moment to choose: whatever has happened by then, everything has to hold
        time.sleep(seconds)
        tell(terminal, ending)
        assert terminal.end() == exit_code(ending)
    check_always(desk, terminal.screen.text)


# Row 5: jobs that do not obey


@pytest.mark.fault(5)
@pytest.mark.timeout(times(60, 300))
@pytest.mark.parametrize("script", ["patient", "ignoring", "fatherless"])
def test_no_process_of_a_group_outlives_the_grace(
    make_desk: MakeDesk, script: str, record_property: RecordProperty
) -> None:
    for number in tries(record_property, 2, 20):
        desk = make_desk(f"desk{number}")
        desk.hermes_file(f"[[sh, {script}.sh, leader]]", settings={"supervise": number % 2 == 0})
        told = terminate(desk)
        assert alive(desk) == []
        check_cancelled(desk, 0, 1, *PARTIAL, *(ASKED if script == "patient" else ()))
        assert desk.experiment().signal == (
            signal.SIGTERM if script == "fatherless" else signal.SIGKILL
        )
        check_always(desk, told)


def terminate(desk: Desk) -> str:
    """Runs jobs and ends the runner, which gives them little grace. Returns what it said."""
    command = [sys.executable, "graceful.py", "1"]
    with subprocess.Popen(
        command, cwd=desk.path, env=environment(), stderr=subprocess.PIPE, text=True
    ) as runner:
        until(lambda: all_have(desk, "partial", 1))
        assert len(alive(desk)) >= 2
        runner.terminate()
        _, told = runner.communicate()
    assert runner.returncode == -signal.SIGTERM
    return told


# Row 6: jobs that leave something behind


@pytest.mark.fault(6)
@pytest.mark.timeout(times(60, 300))
@pytest.mark.parametrize("through", ["nohup", "setsid"])
def test_a_daemon_does_not_hold_the_job_and_is_told_of(
    make_desk: MakeDesk, through: str, record_property: RecordProperty
) -> None:
    for number in tries(record_property, 2, 20):
        desk = make_desk(f"desk{number}")
        desk.hermes_file(
            f"[[sh, leaving.sh, {through}]]",
            "[[sh, short.sh]]",
            settings={"supervise": number % 2 == 0},
        )
        told = desk.hermes("exec", "-f", "x.hermes", code=1).stderr
        daemon = int((desk.path / "daemon.pid").read_text())
        leaving, short = desk.experiments()
        # It is told of, not ended
        assert is_alive(daemon)
        assert os.readlink(f"/proc/{daemon}/fd/1") == f"{leaving.directory}/stdout.log"
        assert (leaving.status, leaving.exit_code, short.status) == ("finished", 0, "finished")
        assert tuple(map(str, leaving.problems)) == (f"left processes behind: {daemon}",)
        assert leaving.problems[0].text in told
        assert short.problems == ()
        check_always(desk, told)
        os.kill(daemon, signal.SIGKILL)


@pytest.mark.fault(6)
def test_helpers_that_end_when_they_see_that_their_job_has_are_not_left_behind(
    make_desk: MakeDesk, record_property: RecordProperty
) -> None:
    record_property("tried", times(4, 20))
    desk = make_desk("desk")
    desk.write("tracked.py", TRACKED)
    desk.hermes_file(*[f"[[{PYTHON}, tracked.py]]"] * times(4, 20), settings={"threads": 2})

    async def run() -> hermes.RunResult:
        # A helper that is slow on a busy machine is not one that stays
        return await hermes.run_file(
            desk.path / "x.hermes",
            working_directory=desk.path,
            root=desk.path,
            timing=Timing(linger=30),
        )

    result = anyio.run(run)
    assert result.ok, result
    check_always(desk, "")
