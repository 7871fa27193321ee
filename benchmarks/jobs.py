"""`jobs`: many jobs that do nothing, so that all the time is the runner's own."""

from __future__ import annotations

from pathlib import Path

from . import peers
from .measure import THREADS, TURNS, exec_jobs, take_turns
from .table import Figures, Row, Target, count

INSTALLED = "hermes exec"
UNSUPERVISED = "hermes exec, supervise: false"

AT_LEAST = {
    INSTALLED: {
        peers.BARE_LOOP: 0.55,
        peers.PARALLEL: 1.5,
        peers.HYPERQUEUE: 1.0,
        peers.RLMATE: 1.5,
    },
    UNSUPERVISED: {
        peers.BARE_LOOP: 0.80,
        peers.PARALLEL: 2.0,
        peers.HYPERQUEUE: 1.3,
        peers.RLMATE: 2.0,
        peers.TASK_SPOOLER: 1.0,
    },
}
"""The rate that must be reached, relative to the rate of others."""


def run(folder: Path, *, smoke: bool) -> Row:
    jobs, turns = (20, 1) if smoke else (2000, TURNS)
    ours = [
        exec_jobs(folder / "hermes", INSTALLED, jobs),
        exec_jobs(folder / "unsupervised", UNSUPERVISED, jobs, supervise=False),
    ]
    with peers.contenders(folder, jobs) as others:
        took = take_turns([*ours, *others], turns)

    def rates(name: str, reference: str) -> list[float] | None:
        return took.relative(reference, name) if reference in took.samples else None

    return Row(
        f"jobs: {jobs:,} no-op jobs, {THREADS} at a time, whole processes; {count(turns)}",
        f"the rate of the {peers.BARE_LOOP}",
        [
            Figures(
                name,
                [jobs / seconds for seconds in took.seconds(name)],
                "jobs/s",
                rates(name, peers.BARE_LOOP),
            )
            for name in took.samples
        ],
        [
            Target(f"{name} / {other.partition(',')[0]}", ">=", limit, rates(name, other))
            for name, limits in AT_LEAST.items()
            for other, limit in limits.items()
        ],
        [*peers.absent(), *took.failures],
        took.raw(),
    )
