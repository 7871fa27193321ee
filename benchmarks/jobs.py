"""`jobs`: many jobs that do nothing, so that all the time is the runner's own."""

from __future__ import annotations

import sys
from pathlib import Path

from . import peers
from .measure import THREADS, TMPFS, TURNS, exec_jobs, take_turns
from .table import Figures, Row, Target, count

INSTALLED = "hermes exec"
UNSUPERVISED = "hermes exec, supervise: false"

SHARES = {INSTALLED: 0.53, UNSUPERVISED: 0.73}
"""At least, of the rate of a bare, unsupervised loop over `anyio.open_process`, on Python 3.11.

The loop keeps nothing but logs. With the same supervisor below it, it reaches 0.66 itself; the rest
is the directory, the metadata and the final scan of each job, and three hops into a thread.
"""

SHARES_SINCE_312 = {INSTALLED: 0.35, UNSUPERVISED: 0.45}
"""The same from Python 3.12 on.

There asyncio waits for a process without a thread, so the bare loop is faster, while the work that
Hermes adds takes as long: it is more of the whole.
"""

OTHERS = {
    INSTALLED: {peers.PARALLEL: 1.2},
    UNSUPERVISED: {peers.PARALLEL: 1.6, peers.HYPERQUEUE: 1.0},
}
"""At least, of the rates of others, on Python 3.11.

These are what a user would pick instead, who would not wait longer for Hermes than for them.
HyperQueue and GNU parallel do not supervise jobs beyond their own death.
"""


def limits() -> list[tuple[str, str, float]]:
    """Who has to reach which share of whose rate, on this Python."""
    old = sys.version_info < (3, 12)
    shares = SHARES if old else SHARES_SINCE_312
    return [
        *((name, peers.BARE_LOOP, share) for name, share in shares.items()),
        *(
            (name, other, share)
            for name, rates in OTHERS.items()
            for other, share in rates.items()
            if old
        ),
    ]


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

    where = f"on a tmpfs ({TMPFS})" if TMPFS else "on a disk, because there is no tmpfs"
    return Row(
        f"jobs: {jobs:,} no-op jobs, {THREADS} at a time, {where}; {count(turns)}",
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
            for name, other, limit in limits()
        ],
        [*peers.absent(), *took.failures],
        took.raw(),
    )
