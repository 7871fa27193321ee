"""`crowded`, `growth` and `status`: whether many files around, or many jobs, slow anything down."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .measure import (
    ENVIRONMENT,
    HERMES,
    THREADS,
    TURNS,
    Contender,
    differences,
    exec_file,
    exec_jobs,
    python,
    quotients,
    take_turns,
    write_script,
)
from .table import Figures, Row, Target, count

EMPTY, CROWDED = "in an empty place", "in a crowded place"
CROWDED_RATE = 0.8
"""At least. Directories that have not changed are asked about, but not read again."""

FEW, MANY, ONE = "hermes exec, few jobs", "hermes exec, many jobs", "hermes exec, one job"
MOST_TIME_PER_JOB = 1.15
"""Nothing may be done once more for each job that has ended; file systems grow slower a little."""

MOST_MORE_MEMORY = 40.0
"""In MB: 2 kB for each of the further jobs, which are in the result that the caller gets."""

STATUS = "hermes status"
MOST_STATUS = 0.3
"""Seconds, for a whole process: where a run stands is kept in its folder, and no experiment is
read."""


def crowded(folder: Path, *, smoke: bool) -> Row:
    jobs, folders, files, turns = (20, 10, 10, 1) if smoke else (2000, 500, 100, TURNS)
    for number in range(folders):
        unrelated = folder / "crowded" / f"data{number}"
        unrelated.mkdir(parents=True)
        for file in range(files):
            (unrelated / f"file{file}.dat").touch()
    took = take_turns(
        [exec_jobs(folder / "empty", EMPTY, jobs), exec_jobs(folder / "crowded", CROWDED, jobs)],
        turns,
    )
    rates = {name: [jobs / seconds for seconds in took.seconds(name)] for name in took.samples}
    relative = took.relative(EMPTY, CROWDED)
    return Row(
        f"crowded: {jobs:,} no-op jobs, {THREADS} at a time, "
        f"beside {folders * files:,} files in {folders} folders; {count(turns)}",
        f"the rate {EMPTY}",
        [
            Figures(EMPTY, rates[EMPTY], "jobs/s"),
            Figures(CROWDED, rates[CROWDED], "jobs/s", relative),
        ],
        [Target("rate, crowded / empty", ">=", CROWDED_RATE, relative)],
        raw=took.raw(),
    )


def growth(folder: Path, *, smoke: bool) -> Row:
    few, many, turns = (10, 40, 1) if smoke else (500, 20_000, TURNS)
    took = take_turns(
        [
            exec_jobs(folder / name, name, jobs)
            for name, jobs in ((ONE, 1), (FEW, few), (MANY, many))
        ],
        turns,
    )
    # Start-up would count for more with few jobs, and so hide growth
    per_job = {
        name: [
            1000 * seconds / (jobs - 1)
            for seconds in differences(took.seconds(name), took.seconds(ONE))
        ]
        for name, jobs in ((FEW, few), (MANY, many))
    }
    memory = {name: [sample.peak_memory for sample in took.samples[name]] for name in (FEW, MANY)}
    relative = quotients(per_job[MANY], per_job[FEW])
    return Row(
        f"growth: {many:,} no-op jobs against {few:,}, {THREADS} at a time, "
        f"without start-up (a run of one job); {count(turns)}",
        FEW,
        [
            Figures(f"{FEW}, time per job", per_job[FEW], "ms"),
            Figures(f"{MANY}, time per job", per_job[MANY], "ms", relative),
            Figures(f"{FEW}, peak memory", memory[FEW], "MB"),
            Figures(
                f"{MANY}, peak memory", memory[MANY], "MB", quotients(memory[MANY], memory[FEW])
            ),
        ],
        [
            Target("time per job, many / few", "<=", MOST_TIME_PER_JOB, relative),
            Target(
                "peak memory, many - few",
                "<=",
                MOST_MORE_MEMORY,
                differences(memory[MANY], memory[FEW]),
                "MB",
            ),
        ],
        raw=took.raw(),
    )


def status(folder: Path, *, smoke: bool) -> Row:
    runs, jobs, turns = (2, 10, 1) if smoke else (20, 500, TURNS)
    write_script(folder / "noop.sh")
    write_script(folder / "fails.sh", "exit 1")
    # One that fails leaves a run unfinished, and so listed
    entries = f"PROD([[./noop.sh, {{n}}]], n=RANGE[1, {jobs}])\n[[./fails.sh]]"
    run = exec_file(folder, "unfinished", entries, threads=THREADS)
    for _ in range(runs):
        subprocess.run(
            run.command, cwd=folder, env=ENVIRONMENT, stderr=subprocess.DEVNULL, check=False
        )
    took = take_turns(
        [
            Contender("python -c pass", python("-c", "pass"), folder),
            Contender(STATUS, [*HERMES, "status", "--root", "."], folder),
        ],
        turns,
        warm_up=True,
    )
    return Row(
        f"status: {runs} unfinished runs with {runs * jobs:,} experiments; {count(turns)}",
        "python -c pass",
        took.times("python -c pass"),
        [Target(STATUS, "<=", MOST_STATUS, took.seconds(STATUS), "s")],
        raw=took.raw(),
    )
