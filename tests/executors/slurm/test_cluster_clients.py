"""Faults of the client, on a real cluster. What every executor has to do is tested by the
contract."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress

import pytest

from hermes import Status

from ...support import LONG, Desk, RecordProperty, times, until
from .clients import (
    JOB,
    WAIT,
    check_once,
    ended,
    held_client,
    lines,
    started,
    sweep,
)
from .cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]


@pytest.mark.fault(1)
@pytest.mark.timeout(times(150, 900))
def test_a_client_that_is_killed_again_and_again_loses_nothing_and_repeats_nothing(
    desk: Desk, own: Cluster, record_property: RecordProperty
) -> None:
    count, kills, restarts = times(16, 200), times(2, 10), times(1, 3)
    record_property("tried", kills)
    desk.write("job.sh", JOB.replace("while", "sleep 0.3\nwhile"))
    # Or the run might end before it is killed
    desk.write("hold0")
    sweep(desk, count, threads=4)
    moments = random.Random(5)
    restart_at = set(moments.sample(range(kills), restarts))
    arguments = ["exec", "-f", "x.hermes"]
    for number in range(kills):
        with desk.started(*arguments) as client:
            # No more than a moment to choose: whatever has happened by then, everything below must
            # hold
            with suppress(subprocess.TimeoutExpired):
                client.wait(timeout=moments.random() * times(3, 5) + (0.5 if number else 0.2))
            assert client.poll() is None, "not even killed"
            if number in restart_at:
                own.restart_controller()
            client.kill()
            client.wait()
        if list(desk.experiments_folder.glob(".hermes/*/run.json")):
            arguments = ["resume"]
    (desk.path / "hold0").unlink()
    desk.hermes(*arguments, timeout=times(100, 800))
    check_once(desk, count)


@pytest.mark.fault(3)
def test_ctrl_c_leaves_the_jobs_and_says_how_to_come_back(desk: Desk, cluster: Cluster) -> None:
    desk.write(".hermes_settings", "notify: command: sh -c 'cat >> message'\n")
    with held_client(desk, 3, threads=1) as client:
        client.send_signal(signal.SIGINT)
        _, told = client.communicate(timeout=WAIT)
    assert client.returncode == -signal.SIGINT
    assert not (desk.path / "message").exists()
    assert "`hermes resume` follows them again, `hermes stop` ends them" in told
    assert "3 still with the cluster; results in experiments; `hermes resume` goes on" in told
    assert desk.experiment().status == Status.RUNNING
    (desk.path / "hold0").unlink()
    # Nobody follows, and they come to their end
    until(lambda: ended(desk) == ["0", "1", "2"])
    told = desk.hermes("resume", timeout=WAIT).stderr
    assert told.count("finished job.sh") == 3
    # Its nodes send nothing, and the client once
    assert (desk.path / "message").read_text().count('"event":"done"') == 1
    assert "x: 3 jobs in" in told
    check_once(desk, 3)
    assert "no unfinished run" in desk.hermes("resume", code=2).stderr


@pytest.mark.fault(34)
@pytest.mark.parametrize("command", ["sbatch", "squeue"])
def test_ctrl_c_waits_for_no_command_that_hangs(
    desk: Desk, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    real, hangs = shutil.which(command), desk.path.parent / "hangs"
    # Its child holds the pipes
    check = f'case " $* " in *" --test-only "*) exec {real} "$@";; esac'
    desk.program("bin/" + command, f"#!/bin/sh\n{check}\ntouch {hangs}; sleep 300 & wait\n")
    monkeypatch.setenv("PATH", f"{desk.path}/bin{os.pathsep}{os.environ['PATH']}")
    sweep(desk, 1)
    with cluster.held(), desk.started("exec", "-f", "x.hermes") as client:
        until(hangs.exists)
        client.send_signal(signal.SIGINT)
        before = time.monotonic()
        _, told = client.communicate(timeout=WAIT)
        assert time.monotonic() - before < 2
    assert client.returncode == -signal.SIGINT
    assert "Traceback" not in told
    assert "1 still with the cluster" in told
    # Whether Slurm has the job or not, it runs once
    (desk.path / "bin" / command).unlink()
    desk.hermes("resume", timeout=WAIT)
    check_once(desk, 1)


@pytest.mark.fault(34)
def test_experiments_that_somebody_removes_while_jobs_are_queued(
    desk: Desk, cluster: Cluster
) -> None:
    sweep(desk, 2)
    with desk.started("exec", "-f", "x.hermes") as client:
        with cluster.held():
            until(lambda: list(desk.experiments_folder.glob(".hermes/*/slurm/0.job")))
            shutil.rmtree(desk.experiments_folder)
        _, told = client.communicate(timeout=WAIT)
    assert client.returncode == 1
    assert "Traceback" not in told
    assert told.count("the node could not start it") == 2, told
    assert started(desk) == []


@pytest.mark.skipif(not LONG, reason="takes two minutes: only in `nox -s faults`")
@pytest.mark.timeout(300)
def test_squeue_is_called_seldom(
    desk: Desk, own: Cluster, monkeypatch: pytest.MonkeyPatch, record_property: RecordProperty
) -> None:
    real = shutil.which("squeue")
    desk.program("bin/squeue", f'#!/bin/sh\necho >> {desk.path}/asked\nexec {real} "$@"\n')
    monkeypatch.setenv("PATH", f"{desk.path}/bin{os.pathsep}{os.environ['PATH']}")
    sweep(desk, 1000)
    with own.held(), desk.started("exec", "-f", "x.hermes") as client:
        until(lambda: lines(desk.path / "asked"))
        time.sleep(120)
        count = len(lines(desk.path / "asked"))
        client.send_signal(signal.SIGINT)
        client.communicate(timeout=WAIT)
    record_property("calls_in_two_minutes", count)
    assert count <= 8
    desk.hermes("stop", timeout=WAIT)
