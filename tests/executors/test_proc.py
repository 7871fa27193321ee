"""What the system tells of processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hermes.executors import proc

from ..support import until

NEEDS_PROC = pytest.mark.skipif(not proc.HAS_PROC, reason="looks into /proc")

READY = "import time; print('ready', flush=True); time.sleep(1000)"


@contextmanager
def started(**environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process that leads a group of its own."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", READY],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_group_members_are_those_alive() -> None:
    with started() as process:
        assert proc.group_of(process.pid) == process.pid
        assert proc.group_members(process.pid) == [process.pid]
        process.send_signal(signal.SIGKILL)
        # Nobody has fetched it, so it is still there
        until(lambda: proc.group_members(process.pid) == [])
        assert proc.group_of(process.pid) == process.pid
        if proc.HAS_PROC:
            assert proc.is_zombie(process.pid)
    assert proc.group_of(process.pid) is None
    assert not proc.is_zombie(process.pid)


@NEEDS_PROC
def test_a_process_that_was_killed_is_dying_before_it_has_ended() -> None:
    with started() as process:
        assert not proc.is_dying(process.pid)
        process.send_signal(signal.SIGKILL)
        assert proc.is_dying(process.pid)
        until(lambda: proc.is_zombie(process.pid))
    assert not proc.is_dying(process.pid)


def test_orphans_are_what_is_left_of_a_group_without_its_leader() -> None:
    command = "sleep 1000 >/dev/null & echo $!; read -r _"
    with subprocess.Popen(
        ["sh", "-c", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as leader:
        assert leader.stdin is not None
        assert leader.stdout is not None
        orphan = int(leader.stdout.readline())
        assert proc.orphans_of(leader.pid) == []
        leader.stdin.close()
        leader.wait()
    assert proc.orphans_of(leader.pid) == [orphan]
    os.kill(orphan, signal.SIGKILL)
    until(lambda: proc.orphans_of(leader.pid) == [])


@NEEDS_PROC
def test_processes_are_known_by_a_variable() -> None:
    value = f"{os.getpid()}-value"
    with started(HERMES_TEST=value) as one, started(HERMES_TEST=f"{value}=more") as two:
        found = proc.processes_of("HERMES_TEST")
        assert (found[value], found[f"{value}=more"]) == ([one.pid], [two.pid])
        assert value not in proc.processes_of("TEST")
    assert value not in proc.processes_of("HERMES_TEST")


@NEEDS_PROC
def test_commands_are_told_as_they_were_given() -> None:
    with started() as process:
        assert proc.command_of(process.pid).split(b"\0")[1:4] == [b"-S", b"-c", READY.encode()]
    assert proc.command_of(process.pid) == b""
