"""What the tests of a real cluster share: jobs that wait, clients that run them, and what is to
be seen of both."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path

import pytest

import hermes
from hermes import Status
from hermes.storage.metadata import SlurmTask
from hermes.timing import Timing

from ...support import Desk, until
from .cluster import Cluster

WAIT = 90.0
"""Seconds for a whole run: Slurm itself takes up to 30 s to look at a time limit, and 6 s to
start a requeued job."""

JOB = """\
echo "$HERMES_IDENTIFIER $2" >> ledger
echo "attempt on $SLURMD_NODENAME"
[ -e "state_$1.txt" ] && echo "goes on"
echo early > "state_$1.txt"
while [ -e "hold$2" ]; do sleep 0.02; done
echo "$2" >> ended
exit "${3:-0}"
"""
"""A job that leaves a line when it starts and one when it comes to its end. In between it waits
as long as there is a file `hold` with its number."""


def use(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in cluster.env.items():
        monkeypatch.setenv(name, value)


def sweep(desk: Desk, count: int, threads: int = 4, options: str = "", extra: str = "") -> None:
    pre = f"PRE\nexecutor: slurm\nthreads: {threads}\nslurm: {options or '--time=60'}\n"
    desk.write("x.hermes", f"{pre}EXEC\nPROD([[sh, job.sh, {{n}} {extra}]], n=RANGE[0, {count}])\n")


def opened(desk: Desk, timing: Timing) -> AbstractAsyncContextManager[hermes.Run]:
    return hermes.open_run(
        desk.path / "x.hermes", working_directory=desk.path, root=desk.path, timing=timing
    )


def texts(experiment: hermes.Experiment) -> list[str]:
    """What is told of its problems."""
    return [problem.text for problem in experiment.problems]


def where(experiment: hermes.Experiment) -> SlurmTask:
    """Where on the cluster it was executed last."""
    assert experiment.metadata.slurm is not None
    return experiment.metadata.slurm


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def started(desk: Desk) -> list[str]:
    """The numbers of the jobs that were started, once for each start."""
    return sorted(line.split()[1] for line in lines(desk.path / "ledger"))


@contextmanager
def held_client(desk: Desk, count: int = 1, *, threads: int = 4) -> Iterator[subprocess.Popen[str]]:
    """A client of so many jobs, the first of which runs and waits until `hold0` is gone."""
    sweep(desk, count, threads)
    desk.write("hold0")
    with desk.started("exec", "-f", "x.hermes") as client:
        until(lambda: started(desk) == ["0"])
        until(lambda: desk.experiment().metadata.pid_start)
        yield client


def ended(desk: Desk) -> list[str]:
    return sorted(lines(desk.path / "ended"), key=int)


def arrays(desk: Desk, cluster: Cluster) -> set[str]:
    """The ids of all arrays that Slurm knows."""
    found = cluster.call("squeue", "-h", "-r", "-t", "all", "-o", "%F").stdout
    return set(found.split())


def check_once(desk: Desk, count: int) -> None:
    """Every job ran once, from its start to its end, and everything is where it belongs."""
    numbers = [str(number) for number in range(count)]
    assert ended(desk) == numbers
    assert sorted(started(desk), key=int) == numbers
    experiments = desk.experiments()
    assert sorted((each.argv[-1] for each in experiments), key=int) == numbers
    for each in experiments:
        assert (each.status, each.exit_code, each.problems) == (Status.FINISHED, 0, ())
        assert desk.tree(each.directory, own=True) == {f"state_{each.identifier}.txt": "early\n"}
        assert each.stdout.startswith("attempt on n")
        assert desk.leftovers(each.identifier) == []
