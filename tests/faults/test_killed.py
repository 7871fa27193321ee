"""The runner is killed with SIGKILL at any moment; `hermes resume` takes up what it left."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from ..support import LONG, Desk, MakeDesk, RecordProperty, times, tries, until
from ..support.sweeps import check_all_done, sweep

pytestmark = [
    pytest.mark.fault(1),
    pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc"),
]

DIE_AT = """\
import os, signal, sys
step, last = 0, int(sys.argv.pop(1))
def counted(function):
    def call(*args, **kwargs):
        global step
        step += 1
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call
steps = "mkdir replace rename link symlink unlink rmdir pwrite fsync open"
for name in steps.split():
    setattr(os, name, counted(getattr(os, name)))
import subprocess
subprocess.Popen.__init__ = counted(subprocess.Popen.__init__)
from hermes.cli.main import main
main()
"""
"""Executes `hermes` and dies before its n-th change of a file or start of a process."""


@pytest.fixture
def make_desk(make_desk: MakeDesk) -> MakeDesk:
    """Makes desks with the job in them."""

    def make(name: str) -> Desk:
        desk = make_desk(name)
        desk.write("die.py", DIE_AT)
        return desk

    return make


@pytest.mark.fault(2)
def test_killed_during_resume_five_times(desk: Desk) -> None:
    sweep(desk, ", ".join(["0"] * 6))
    desk.write("hold0")
    for number in range(6):
        with desk.started(*(("exec", "-f", "s.hermes") if number == 0 else ("resume",))) as runner:
            until(lambda: len(list(desk.path.glob("early_*"))) == 2)
            until(lambda: list((desk.experiments_folder / ".hermes").glob("*/run.json")))
            runner.kill()
            runner.wait()
    (desk.path / "hold0").unlink()
    desk.hermes("resume")
    check_all_done(desk, 6)
    assert len(desk.experiments()) == 6


@pytest.mark.timeout(times(180, 1200))
def test_killed_at_any_step(
    desk: Desk, make_desk: MakeDesk, record_property: RecordProperty
) -> None:
    steps = steps_of_a_run(make_desk("counted"))
    assert steps > 60
    chosen = range(1, steps + 1) if LONG else random.Random(1).sample(range(1, steps + 1), 8)
    record_property("tried", len(chosen))
    for step in chosen:
        place = make_desk(f"step{step}")
        sweep(place, "0, 0, 0")
        subprocess.run(
            [sys.executable, "die.py", str(step), "exec", "-f", "s.hermes"],
            cwd=place.path,
            capture_output=True,
            check=False,
        )
        finish(place)
        check_all_done(place, 3)


@pytest.mark.timeout(times(180, 1200))
def test_killed_at_random_moments(make_desk: MakeDesk, record_property: RecordProperty) -> None:
    moments = random.Random(2)
    for number in tries(record_property, 8, 200):
        place = make_desk(f"moment{number}")
        sweep(place, "0, 0, 0")
        wait = moments.random()
        with place.started("exec", "-f", "s.hermes") as runner:
            # No more than a moment to choose: whatever has happened by then, everything below must
            # hold
            try:
                runner.wait(timeout=wait)
            except subprocess.TimeoutExpired:
                runner.kill()
                runner.wait()
        finish(place)
        check_all_done(place, 3)


def steps_of_a_run(desk: Desk) -> int:
    """How many steps a whole run takes, found by halving."""
    low, high = 1, 4000
    while low < high:
        middle = (low + high) // 2
        sweep(desk, "0, 0, 0")
        command = [
            sys.executable,
            "die.py",
            str(middle),
            "exec",
            "-f",
            "s.hermes",
            "-n",
            f"n{middle}",
        ]
        done = subprocess.run(command, cwd=desk.path, capture_output=True, check=False)
        low, high = (middle + 1, high) if done.returncode < 0 else (low, middle)
    return low - 1


def finish(desk: Desk) -> None:
    """Resumes a killed run; a run of which not even a record was written is begun again."""
    if list((desk.experiments_folder / ".hermes").glob("*/run.json")):
        desk.hermes("resume")
    elif not desk.experiments():
        desk.hermes("exec", "-f", "s.hermes")
