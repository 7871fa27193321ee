"""Runs that are killed, or told a second time, while they end their jobs."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time

import pytest

from hermes.executors.proc import processes_of

from ..support import (
    LIMIT,
    Desk,
    MakeDesk,
    RecordProperty,
    check_always,
    environment,
    times,
    tries,
    until,
)

ENDED = """\
echo "$2" >> ledger
[ -e second ] && exit 0
trap 'echo >> asked; sleep 0.4; {}' TERM
echo >> ready
while :; do sleep 0.05; done
"""
"""A job that needs a while to end when it is told to, and the first time never ends by itself."""

MANNERS = ("exit 1", "kill -KILL $$", "exit 143")

SAVING = """\
trap 'sleep 0.4; echo state > "saved_$1"; exit 1' TERM
echo >> ready
while :; do sleep 0.05; done
"""

PAIRS = (
    (signal.SIGINT, signal.SIGINT),
    (signal.SIGTERM, signal.SIGTERM),
    (signal.SIGTERM, signal.SIGCONT),
    (signal.SIGINT, signal.SIGTERM),
    (signal.SIGTERM, signal.SIGINT),
)
"""What schedulers and GNU `timeout` send one right after the other."""


def wait_for_both(desk: Desk, name: str) -> None:
    """Until both jobs have written a line to this file."""
    path = desk.path / name
    until(lambda: path.exists() and len(path.read_text().splitlines()) == 2)


def wait_for_none_of(desk: Desk) -> None:
    """Until no process of a job is alive."""
    made = {each.identifier for each in desk.experiments()}
    until(lambda: made.isdisjoint(processes_of("HERMES_IDENTIFIER")))


@pytest.mark.fault(28)
@pytest.mark.timeout(times(60, 600))
def test_killed_while_it_ended_its_jobs_they_are_cancelled_and_run_again(
    make_desk: MakeDesk, record_property: RecordProperty
) -> None:
    for number in tries(record_property, 2, 24):
        desk = make_desk(f"desk{number}")
        desk.write("job.sh", ENDED.format(MANNERS[number % 3]))
        desk.hermes_file(
            *(f"[[sh, job.sh, {each}]]" for each in range(3)),
            settings={"threads": 2, "supervise": number % 4 > 0},
        )
        with desk.started("exec", "-f", "x.hermes") as runner:
            wait_for_both(desk, "ready")
            runner.send_signal((signal.SIGTERM, signal.SIGINT)[number % 2])
            wait_for_both(desk, "asked")
            runner.kill()
            runner.communicate()
        desk.write("second")
        if number % 5 >= 3:
            # This starts no job that is still alive, and leaves what was broken off as it is
            wait_for_none_of(desk)
            desk.hermes("exec", "-f", "x.hermes", "--resume")
        told = desk.hermes("resume")
        statuses = [each.status for each in desk.experiments()]
        assert sorted(statuses) == ["cancelled"] * 2 + ["finished"] * 3
        assert sorted((desk.path / "ledger").read_text().split()) == ["0", "0", "1", "1", "2"]
        check_always(desk, told.stderr)


@pytest.mark.fault(31)
@pytest.mark.timeout(times(60, 600))
def test_two_signals_within_a_moment_leave_the_jobs_their_grace(
    make_desk: MakeDesk, record_property: RecordProperty
) -> None:
    for number in tries(record_property, 2, 30):
        desk = make_desk(f"desk{number}")
        desk.write("job.sh", SAVING)
        desk.hermes_file("[[sh, job.sh]]", "[[sh, job.sh]]", settings={"threads": 2})
        with desk.started("exec", "-f", "x.hermes") as runner:
            wait_for_both(desk, "ready")
            for each in PAIRS[number % len(PAIRS)]:
                runner.send_signal(each)
                # None at all, or what another program needs to send the second
                time.sleep((0, 0.0001, 0.01)[number % 3])
            _, told = runner.communicate(timeout=LIMIT)
        check_saved(desk, told)


@pytest.mark.fault(31)
@pytest.mark.skipif(shutil.which("timeout") is None, reason="needs GNU timeout")
def test_the_command_timeout_leaves_the_jobs_their_grace(desk: Desk) -> None:
    desk.write("job.sh", SAVING)
    desk.hermes_file("[[sh, job.sh]]", "[[sh, job.sh]]", settings={"threads": 2})
    with subprocess.Popen(
        ["timeout", "1000", *desk.command("exec", "-f", "x.hermes")],
        cwd=desk.path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as both:
        wait_for_both(desk, "ready")
        # As at the end of its time: it signals Hermes, and then its whole group
        both.send_signal(signal.SIGALRM)
        _, told = both.communicate(timeout=LIMIT)
    assert both.returncode == 124
    check_saved(desk, told)


def check_saved(desk: Desk, told: str) -> None:
    for each in desk.experiments():
        assert each.status == "cancelled"
        assert desk.tree(each.directory, own=True) == {f"saved_{each.identifier}": "state\n"}
    assert len(desk.experiments()) == 2
    check_always(desk, told)
