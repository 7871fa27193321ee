"""`collect`: one job writes very many files that all have to be collected."""

from __future__ import annotations

from pathlib import Path

from .measure import TURNS, Contender, emptied, exec_file, python, take_turns
from .table import Row, Target, count

HERMES_EXEC, RENAMES, ALONE = (
    "hermes exec",
    "the job alone + a bare loop of renames",
    "the job alone",
)
MOST = 1.5
"""Times the job and the renames. Hermes also links each file while the job writes, and lists it."""

JOB = """\
import sys
identifier, count = sys.argv[1], int(sys.argv[2])
content = b"x" * 1000
for number in range(count):
    with open(f"result{number}_{identifier}.dat", "wb") as file:
        file.write(content)
"""

BARE = """\
import os, subprocess, sys
subprocess.run([sys.executable, "job.py", "some_id", sys.argv[1]], check=True)
for name in os.listdir():
    if "some_id" in name:
        os.rename(name, f"collected/{name}")
"""


def run(folder: Path, *, smoke: bool) -> Row:
    files, turns = (200, 1) if smoke else (20_000, TURNS)
    hermes = exec_file(
        folder / "hermes", HERMES_EXEC, f"[[{', '.join(python('job.py'))}, {files}]]"
    )
    bare, alone = folder / "bare", folder / "alone"
    for place in (folder / "hermes", bare, alone):
        place.mkdir(exist_ok=True)
        (place / "job.py").write_text(JOB)
    (bare / "bare.py").write_text(BARE)
    took = take_turns(
        [
            hermes,
            Contender(RENAMES, python("bare.py", str(files)), bare, emptied(bare / "collected")),
            Contender(
                ALONE,
                python("../job.py", "some_id", str(files)),
                alone / "place",
                emptied(alone / "place"),
            ),
        ],
        turns,
    )
    relative = took.relative(HERMES_EXEC, RENAMES)
    return Row(
        f"collect: one job writes {files:,} files of 1 kB; {count(turns)}",
        RENAMES,
        took.times(RENAMES),
        [Target("wall time / the job and the renames", "<=", MOST, relative)],
        raw=took.raw(),
    )
