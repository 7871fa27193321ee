"""`compile`: a sweep of a million jobs, which neither delays the first job nor fills the memory."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from .measure import (
    ENVIRONMENT,
    HERMES,
    TURNS,
    Contender,
    end,
    exec_file,
    python,
    take_turns,
    wait_until,
    write_script,
)
from .table import Figures, Row, Target, count

MOST_TIME = 6.0
"""Times a bare loop that prints the same lines. Hermes also makes each job and quotes its words."""

BARE = """\
import itertools, sys
values = [str(number) for number in range(int(sys.argv[1]))]
for a, b, c in itertools.product(values, repeat=3):
    print(f"./job.sh {{identifier}} --a {a} --b {b} --c {c}")
"""

JOB = """\
[ -e started ] || : > started
"""


def run(folder: Path, *, smoke: bool) -> Row:
    side, turns = (20, 1) if smoke else (100, TURNS)
    place = folder / "place"
    write_script(place / "job.sh", JOB)
    (place / "bare.py").write_text(BARE)
    large = _sweep(place, "large", side)
    _sweep(place, "small", 10)
    one = exec_file(place, "one", "[[./job.sh]]")
    _check_same(place)
    ours, ours_small, bare = (
        f"hermes compile of {side**3:,} jobs",
        "hermes compile of 1,000 jobs",
        "bare itertools.product loop",
    )
    took = take_turns(
        [
            Contender(ours, [*HERMES, "compile", "large.hermes"], place),
            Contender(bare, python("bare.py", str(side)), place),
            Contender(ours_small, [*HERMES, "compile", "small.hermes"], place),
        ],
        turns,
    )
    first: dict[str, list[float]] = {large.name: [], one.name: []}
    for _ in range(turns):
        for contender in (large, one):
            first[contender.name].append(_first_start(contender))
    memory = {
        name: [sample.peak_memory for sample in took.samples[name]] for name in (ours, ours_small)
    }
    relative = took.relative(ours, bare)
    return Row(
        f"compile: a PROD of {side**3:,} jobs; {count(turns)}",
        bare,
        [
            *took.times(bare),
            Figures(f"{ours}, peak memory", memory[ours], "MB"),
            Figures(f"{ours_small}, peak memory", memory[ours_small], "MB"),
            Figures("hermes exec of it, until the first job runs", first[large.name]),
            Figures("hermes exec of one job, until it runs", first[one.name]),
        ],
        [Target("hermes compile / the bare loop", "<=", MOST_TIME, relative)],
        raw={**took.raw(), "until the first job runs": first},
    )


def _sweep(place: Path, name: str, side: int) -> Contender:
    values = f"RANGE[0, {side}]"
    return exec_file(
        place,
        name,
        f"PROD([[./job.sh, --a {{a}} --b {{b}} --c {{c}}]], a={values}, b={values}, c={values})",
    )


def _check_same(place: Path) -> None:
    """The loop has to print what Hermes prints, or their times would say nothing."""
    printed = [
        subprocess.run(
            command, cwd=place, env=ENVIRONMENT, stdout=subprocess.PIPE, check=True
        ).stdout
        for command in ([*HERMES, "compile", "small.hermes"], python("bare.py", "10"))
    ]
    if printed[0] != printed[1]:
        raise RuntimeError("the bare loop and `hermes compile` print different lines")


def _first_start(contender: Contender) -> float:
    """Seconds from the start of `hermes exec` until its first job runs; the run is then ended."""
    contender.reset()
    started = contender.folder / "started"
    started.unlink(missing_ok=True)
    began = time.perf_counter()
    process = subprocess.Popen(
        contender.command,
        cwd=contender.folder,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(started.exists, "the first job", pause=0.001)
        return time.perf_counter() - began
    finally:
        end(process)
        contender.reset()
