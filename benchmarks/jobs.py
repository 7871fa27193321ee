"""`jobs`: many jobs that do nothing, so that all the time is the runner's own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .measure import Figures, Rival, take_turns

THREADS = 2

BARE_LOOP = """\
import sys
import subprocess
import anyio

async def main(jobs, threads):
    limiter = anyio.CapacityLimiter(threads)

    async def job(number):
        async with limiter:
            with open(f"logs/{number}.out", "wb") as out, open(f"logs/{number}.err", "wb") as err:
                process = await anyio.open_process(
                    ["./noop.sh", str(number)], stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
                )
            await process.wait()

    async with anyio.create_task_group() as tasks:
        for number in range(jobs):
            tasks.start_soon(job, number)

anyio.run(main, int(sys.argv[1]), int(sys.argv[2]))
"""
"""What `anyio.open_process` takes by itself, with files as stdout and stderr."""


def run(folder: Path, *, jobs: int, turns: int) -> Iterator[str]:
    """Yields the lines of the table."""
    rivals = [
        _hermes(folder / "hermes", "hermes exec", jobs, supervise=True),
        _hermes(folder / "unsupervised", "hermes exec, supervise: false", jobs, supervise=False),
        _bare_loop(folder / "bare", jobs),
    ]
    xargs = shutil.which("xargs")
    if xargs:
        rivals.append(_xargs(folder / "xargs", xargs, jobs))
    figures = take_turns(rivals, turns)
    bare = next(each for each in figures if each.name == "bare anyio.open_process loop")
    yield f"{jobs} jobs that do nothing, {THREADS} at a time; median of {turns} turns"
    yield f"{'':32} {'seconds':>8} {'jobs/s':>8} {'rate, bare loop = 1':>20}"
    yield from (_row(each, bare, jobs) for each in figures)
    if not xargs:
        yield "xargs is not installed"


def _row(figures: Figures, bare: Figures, jobs: int) -> str:
    return f"{figures.name:32} {figures.median:8.2f} {jobs / figures.median:8.0f} {bare.ratio(figures):20.2f}"


def _place(folder: Path) -> Path:
    folder.mkdir(parents=True)
    script = folder / "noop.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    return folder


def _hermes(folder: Path, name: str, jobs: int, *, supervise: bool) -> Rival:
    _place(folder)
    (folder / "jobs.hermes").write_text(
        f"PRE\nthreads: {THREADS}\nsupervise: {str(supervise).lower()}\nEXEC\nPROD([[./noop.sh, {{n}}]], n=RANGE[0, {jobs}])\n"
    )
    command = [sys.executable, "-m", "hermes", "exec", "-f", "jobs.hermes", "-n", "bench", "--root", ".", "--quiet"]
    return Rival(name, command, folder, partial(shutil.rmtree, folder / "experiments", ignore_errors=True))


def _bare_loop(folder: Path, jobs: int) -> Rival:
    (_place(folder) / "loop.py").write_text(BARE_LOOP)
    command = [sys.executable, "loop.py", str(jobs), str(THREADS)]
    return Rival("bare anyio.open_process loop", command, folder, partial(_empty, folder / "logs"))


def _xargs(folder: Path, xargs: str, jobs: int) -> Rival:
    _place(folder)
    command = ["sh", "-c", f"seq {jobs} | {xargs} -n 1 -P {THREADS} ./noop.sh"]
    return Rival(f"xargs -P{THREADS} (keeps nothing)", command, folder)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
