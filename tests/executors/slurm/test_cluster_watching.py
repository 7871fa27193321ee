"""A run on a real cluster goes on without a terminal, and is seen from elsewhere."""

from __future__ import annotations

import os
import signal

import pytest

import hermes

from ...support import Desk, is_alive, until
from .clients import WAIT, check_once, started, sweep
from .cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]


def test_status_and_attach_show_a_run_on_a_cluster(desk: Desk, cluster: Cluster) -> None:
    for number in range(3):
        desk.write(f"hold{number}")
    sweep(desk, 4, threads=2)
    desk.hermes("exec", "-f", "x.hermes", "-n", "t", "--detach")

    def stands(running: int, done: int) -> hermes.RunStatus | None:
        for run in hermes.runs(working_directory=desk.path):
            if (len(run.jobs), run.done) == (running, done):
                return run
        return None

    run = until(lambda: stands(2, 0))
    assert (run.state, run.total, run.left) == (hermes.RunState.IN_PROGRESS, 4, 2)
    assert started(desk) == ["0", "1"]
    # The client goes, and its jobs stay with the cluster
    assert run.pid is not None
    os.kill(run.pid, signal.SIGTERM)
    until(lambda: not is_alive(run.pid or 0))
    left = until(lambda: stands(2, 0))
    assert (left.state, left.command) == (
        hermes.RunState.UNFINISHED,
        f"hermes resume {run.run_id}",
    )
    assert "still with the cluster" in desk.hermes("attach", "t", code=1).stderr
    (desk.path / "hold0").unlink()
    until(lambda: stands(1, 0))
    desk.hermes("resume", "--detach")
    with desk.started("attach") as attached:
        until(lambda: stands(1, 1) or stands(2, 1))
        # It has found the run, which may end from now on
        assert attached.stderr
        assert attached.stderr.readline()
        (desk.path / "hold1").unlink()
        (desk.path / "hold2").unlink()
        _, told = attached.communicate(timeout=WAIT)
    assert attached.returncode == 0, told
    assert told.splitlines()[-1].startswith("t: 4 jobs in ")
    check_once(desk, 4)
