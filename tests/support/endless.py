"""Jobs that do not end by themselves."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hermes import Status

from . import Project, is_alive

STUBBORN = """\
trap '' TERM
printf %s "$1" > "made_$1"
echo $$ > "$1.pid"
: > "ready_$1"
while :; do sleep 0.01; done
"""

STUBBORN_CHILD = """\
(trap '' TERM; : > child_ready; while :; do sleep 0.01; done) &
echo $! > "$1.pid"
printf %s "$1" > "made_$1"
while [ ! -e child_ready ]; do sleep 0.01; done
: > "ready_$1"
wait
"""

OBEDIENT = """\
trap 'echo "said $1"; printf %s late > "late_$1"; exit 5' TERM
echo $$ > "$1.pid"
printf %s "$1" > "made_$1"
: > "ready_$1"
while :; do sleep 0.01; done
"""


@contextmanager
def endless_jobs(project: Project) -> Iterator[Project]:
    """A project with jobs that do not end by themselves; none outlives the block."""
    project.write("stubborn.sh", STUBBORN)
    project.write("child.sh", STUBBORN_CHILD)
    project.write("obedient.sh", OBEDIENT)
    yield project
    for file in project.path.rglob("*.pid"):
        text = file.read_text().strip()
        if text and is_alive(int(text)):
            os.kill(int(text), signal.SIGKILL)


def ready(project: Project, count: int) -> Callable[[], bool]:
    return lambda: len(list(project.path.glob("ready_*"))) == count


def pids(project: Project) -> list[int]:
    # Those that are collected already are in two places
    return sorted({int(file.read_text()) for file in project.path.rglob("*.pid")})


def check_ended(project: Project, count: int) -> None:
    """Nothing is alive, and everything has come home."""
    experiments = project.experiments()
    assert len(experiments) == count
    assert len(pids(project)) == count
    assert not any(is_alive(pid) for pid in pids(project))
    for experiment in experiments:
        assert experiment.status is Status.CANCELLED
        assert (
            experiment.directory / f"made_{experiment.identifier}"
        ).read_text() == experiment.identifier
        assert project.leftovers(experiment.identifier) == []
        assert experiment.problems == ()
        assert experiment.end is not None
        assert experiment.duration is not None
