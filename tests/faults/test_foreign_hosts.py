"""Programs around a run that treat children and signals in ways of their own, and jobs whose
processes leave their group.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hermes import Status
from hermes.executors.proc import HAS_PROC

from ..support import Desk, RecordProperty, environment, is_alive, times, until

pytestmark = [
    pytest.mark.every_python,
    pytest.mark.skipif(not HAS_PROC, reason="looks for processes in /proc"),
]

HOST = """\
import os, signal, sys, threading, time
import anyio, hermes

def reap():
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.0005)

how, backend = sys.argv[1:]
if how == "ignores SIGCHLD":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
if how == "reaps all children":
    threading.Thread(target=reap, daemon=True).start()
if how == "blocks signals":
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
if how == "ignores SIGTERM":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

async def main():
    async with hermes.open_run("x.hermes", "x", grace=60) as run:
        while not os.path.exists("ready"):
            await anyio.sleep(0.01)
        if "signals" in how or "SIGTERM" in how:
            run.cancel()
        elif how == "forks":
            if os.fork() == 0:
                open("forked", "w").write(str(os.getpid()))
                time.sleep(60)
                os._exit(0)
            run.cancel()

anyio.run(main, backend=backend)
"""

GENERATOR = """\
import asyncio, gc, pathlib, hermes

async def events():
    async with hermes.open_run("x.hermes", "x", grace=0.2) as run:
        async for event in run:
            yield event

async def main():
    async for event in events():
        if isinstance(event, hermes.JobStarted):
            break
    gc.collect()
    while '"status": "running"' in metadata():
        await asyncio.sleep(0.05)

def metadata():
    [path] = pathlib.Path("experiments").glob("*/*/*/hermes.json")
    return path.read_text()

asyncio.run(main())
"""


FOREVER = "while :; do sleep 0.01; done"


def host(desk: Desk, *arguments: str, code: str = HOST) -> None:
    desk.write("host.py", code)
    subprocess.run(
        [sys.executable, "host.py", *arguments],
        cwd=desk.path, env=environment(), check=True, timeout=60,
    )  # fmt: skip


@pytest.mark.fault(29)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("how", ["ignores SIGCHLD", "reaps all children"])
def test_exit_codes_are_true_under_a_host_that_takes_its_children_away(
    desk: Desk, how: str, backend: str, record_property: RecordProperty
) -> None:
    codes = [0, 3, 255, 128][: times(2, 4)]
    record_property("tried", len(codes))
    for code in codes:
        desk.write("job.sh", f": > ready; sleep 0.05; exit {code}")
        desk.hermes_file("[[sh, job.sh]]")
        host(desk, how, backend)
        assert desk.experiments()[-1].exit_code == code


@pytest.mark.fault(29)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("how", ["blocks signals", "ignores SIGTERM"])
def test_jobs_hear_sigterm_whatever_their_host_blocks_or_ignores(
    desk: Desk, how: str, backend: str, record_property: RecordProperty
) -> None:
    record_property("tried", 2)
    for supervise in (True, False):
        desk.write("job.sh", "trap ': > heard; exit 1' TERM; : > ready; " + FOREVER)
        desk.hermes_file("[[sh, job.sh]]", settings={"supervise": supervise})
        host(desk, how, backend)
        assert desk.experiments()[-1].status is Status.CANCELLED
        (desk.path / "heard").unlink()
        (desk.path / "ready").unlink()


@pytest.mark.fault(29)
def test_a_forked_child_of_the_host_does_not_hold_the_lock(
    desk: Desk, record_property: RecordProperty
) -> None:
    record_property("tried", 1)
    desk.write("job.sh", ": > ready; exec sleep 60")
    desk.hermes_file("[[sh, job.sh]]")
    host(desk, "forks", "asyncio")
    child = int((desk.path / "forked").read_text())
    try:
        assert is_alive(child)
        for path in desk.experiments_folder.glob(".hermes/*/lock"):
            with path.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.fault(29)
def test_a_dropped_generator_ends_the_jobs(desk: Desk, record_property: RecordProperty) -> None:
    record_property("tried", 1)
    desk.write("job.sh", "trap '' TERM; echo $$ > pid; while :; do sleep 0.01; done")
    desk.hermes_file("[[sh, job.sh]]")
    host(desk, code=GENERATOR)
    pid = until(lambda: (desk.path / "pid").read_text())
    assert not is_alive(int(pid))
    assert desk.experiment().status is Status.CANCELLED


@pytest.mark.fault(30)
def test_a_job_that_survives_a_signal_to_its_group_tells_its_own_exit_code(
    desk: Desk, record_property: RecordProperty
) -> None:
    deadly = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP}
    numbers = sorted(deadly - {signal.SIGTTIN, signal.SIGTTOU})
    numbers = numbers[:: times(5, 1)]
    record_property("tried", len(numbers))
    desk.write("job.sh", "trap : $2; kill -$2 0; exit 4")
    desk.hermes_file(*[f"[[sh, job.sh, {int(number)}]]" for number in numbers])
    desk.hermes("exec", "-f", "x.hermes", code=1)
    assert {each.exit_code for each in desk.experiments()} == {4}


@pytest.mark.fault(30)
def test_how_a_job_ends_is_unknown_when_its_supervisor_was_killed(
    desk: Desk, record_property: RecordProperty
) -> None:
    record_property("tried", 1)
    desk.write("job.sh", "kill -9 $PPID; sleep 2; : > done")
    desk.hermes_file("[[sh, job.sh]]")
    desk.hermes("exec", "-f", "x.hermes", code=1)
    # It was waited for
    assert (desk.path / "done").exists()
    assert desk.experiment().status is Status.LOST


LEAVE = {
    "setsid": "exec setsid sh deaf.sh",
    "setsid beside it": "setsid sh deaf.sh & wait",
    "double fork": "(setsid sh deaf.sh &) & sleep 60",
    "nohup": "nohup sh deaf.sh & sleep 60",
    "no environment": "env -i setsid sh deaf.sh & sleep 60",
}


@pytest.mark.fault(30)
@pytest.mark.parametrize("way", LEAVE)
def test_processes_that_leave_the_group_end_with_their_cancelled_job(
    desk: Desk, way: str, record_property: RecordProperty
) -> None:
    # The leader of a group is no more when it is told `setsid`: the job has ended, and is not
    # cancelled, if nobody stands above it
    tried = times(1, 1 if way == "setsid" else 2)
    record_property("tried", tried)
    for supervise in (True, False)[:tried]:
        for name in ("pid", "ready"):
            (desk.path / name).unlink(missing_ok=True)
        desk.write("deaf.sh", "trap '' TERM; echo $$ > pid; : > ready; " + FOREVER)
        desk.write("job.sh", LEAVE[way])
        desk.hermes_file("[[sh, job.sh]]", settings={"supervise": supervise})
        host(desk, "blocks signals", "asyncio", code=HOST.replace("grace=60", "grace=0.3"))
        assert not is_alive(int(Path(desk.path / "pid").read_text()))
        assert desk.experiments()[-1].status is Status.CANCELLED
