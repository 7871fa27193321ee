"""`control`: how soon a pause, and another number of threads, take effect in a run in progress."""

from __future__ import annotations

import subprocess
import time
from functools import partial
from pathlib import Path

import anyio

from hermes import change_run

from .measure import ENVIRONMENT, TURNS, end, exec_file, remove, wait_until, write_script
from .table import Figures, Row, Target, count
from .week import decided

MOST = 0.5
"""Seconds. The run looks every 0.2 s at what is wanted of it; the rest is for busy machines."""

THREADS = 8
SHORT, LONG = "date +%s.%N >> notes\n", "date +%s.%N >> notes\nexec sleep 600\n"
"""Jobs that note when they began. Of the first kind another one begins at nearly any moment."""


def run(folder: Path, *, smoke: bool) -> Row:
    turns = 1 if smoke else 2 * TURNS
    pauses = [_pause(folder / f"pause{turn}") for turn in range(turns)]
    threads = [_threads(folder / f"threads{turn}") for turn in range(turns)]
    paused = "from `pause` to the last start"
    more = f"from `set threads={THREADS}` to the start of the last of them"
    return Row(
        f"control: a run in progress is changed; {count(turns)}",
        figures=[Figures(paused, pauses), Figures(more, threads)],
        targets=[
            # None may be later
            Target(f"{paused}, at most", "<=", MOST, [max(pauses)], "s"),
            Target(f"{more}, at most", "<=", MOST, [max(threads)], "s"),
        ],
    )


def _pause(folder: Path) -> float:
    process = _started(folder, SHORT, threads=2)
    try:
        wait_until(lambda: len(_notes(folder)) > 20, "jobs run")
        called = time.time()
        anyio.run(partial(change_run, is_paused=True, working_directory=folder))
        time.sleep(1.0)
        made = [path.name for path in folder.glob("experiments/job.sh/*/*")]
        return max(0.0, decided(max(made)) - called)
    finally:
        end(process)


def _threads(folder: Path) -> float:
    process = _started(folder, LONG, threads=1)
    try:
        wait_until(lambda: len(_notes(folder)) == 1, "the first job runs")
        called = time.time()
        anyio.run(partial(change_run, threads=THREADS, working_directory=folder))
        wait_until(lambda: len(_notes(folder)) == THREADS, f"{THREADS} jobs run")
        return _notes(folder)[-1] - called
    finally:
        end(process)


def _started(folder: Path, job: str, *, threads: int) -> subprocess.Popen[bytes]:
    entry = "PROD([[./job.sh, {n}]], n=RANGE[0, 100000])"
    contender = exec_file(folder, "control", entry, threads=threads)
    write_script(folder / "job.sh", job)
    remove(folder / "notes")()
    return subprocess.Popen(
        contender.command,
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _notes(folder: Path) -> list[float]:
    """When the jobs began, in order: seconds since 1970."""
    path = folder / "notes"
    return sorted(map(float, path.read_text().split())) if path.exists() else []
