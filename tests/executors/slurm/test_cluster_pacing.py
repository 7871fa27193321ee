"""A run on a real cluster is changed while it goes on."""

from __future__ import annotations

import pytest

from ...support import Desk, until
from .clients import WAIT, check_once, ended, started, sweep
from .cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]


def hold(desk: Desk, count: int) -> None:
    for number in range(count):
        desk.write(f"hold{number}", "")


def let_go(desk: Desk, *numbers: int) -> None:
    for number in numbers:
        (desk.path / f"hold{number}").unlink()


def test_set_pause_and_continue_are_told_to_slurm(desk: Desk, cluster: Cluster) -> None:
    hold(desk, 4)
    sweep(desk, 4, threads=1)
    with desk.started("exec", "-f", "x.hermes", "-n", "t") as process:
        until(lambda: len(started(desk)) == 1)
        desk.hermes("set", "threads=2")
        until(lambda: len(started(desk)) == 2)
        desk.hermes("pause")
        until(lambda: "JobHeld" in cluster.call("squeue", "-h", "-o", "%r").stdout)
        let_go(desk, 0, 1)
        until(lambda: len(ended(desk)) == 2)
        assert len(started(desk)) == 2
        desk.hermes("continue")
        until(lambda: len(started(desk)) == 4)
        let_go(desk, 2, 3)
        _, told = process.communicate(timeout=WAIT)
    assert process.returncode == 0, told
    check_once(desk, 4)


def test_after_max_failures_what_waits_is_taken_back_and_resume_goes_on(
    desk: Desk, cluster: Cluster
) -> None:
    hold(desk, 2)
    desk.write("bad.sh", 'sh job.sh "$@" && [ ! -e "bad$2" ]\n')
    desk.write("bad0")
    sweep(desk, 6, threads=2)
    path = desk.path / "x.hermes"
    path.write_text(path.read_text().replace("job.sh", "bad.sh"))
    with desk.started("exec", "-f", "x.hermes", "-n", "t", "--max-failures", "1") as process:
        until(lambda: len(started(desk)) == 2)
        let_go(desk, 0)
        # One runs on, and nothing else waits
        until(lambda: cluster.call("squeue", "-h", "-r", "-o", "%t").stdout.split() == ["R"])
        let_go(desk, 1)
        _, told = process.communicate(timeout=WAIT)
    assert process.returncode == 1, told
    assert "1 failed: nothing more is started" in told
    assert "cancelled" not in told
    assert sorted(started(desk)) == ["0", "1"]
    (desk.path / "bad0").unlink()
    desk.hermes("resume", "--failed")
    assert ended(desk) == ["0", *map(str, range(6))]
