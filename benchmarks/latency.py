"""`latency`: from a file's creation by a job until it is in the experiment directory."""

from __future__ import annotations

import json
import statistics
import subprocess
from pathlib import Path

from .measure import ENVIRONMENT, TURNS, emptied, end, exec_file, python, run_once
from .table import Figures, Row, Target, count

MOST_MS = {"quiet": (25, 40), "busy": (40, 100)}
"""The median, and what 95 % stay below.

watchfiles looks for changes every 10 ms, and waits up to 50 ms for more of them. In a quiet place
that makes 16 and 20 ms, beside unrelated files 22 and 40. The rest is for machines that are shared.
"""

UNRELATED = 500
"""Files a second that somebody else makes while it is busy."""

JOB = """\
import json, os, sys, time
identifier, count, told = sys.argv[1], int(sys.argv[2]), sys.argv[3]
seconds = []
time.sleep(0.3)
for number in range(count):
    name = f"file{number}_{identifier}"
    began = time.perf_counter()
    open(name, "w").close()
    while not os.path.exists(os.path.join(os.environ["HERMES_EXPERIMENT_DIR"], name)):
        time.sleep(0.0002)
    seconds.append(time.perf_counter() - began)
    # Not in step with whoever looks at the directory: some soon after the last, some after a while
    time.sleep(0.003 + 0.0047 * (number % 17))
with open(told, "w") as file:
    json.dump(seconds, file)
"""

NOISE = """\
import itertools, os, sys, time
rate = int(sys.argv[1])
for folder in range(10):
    os.makedirs(f"elsewhere/{folder}")
began = time.perf_counter()
for number in itertools.count():
    open(f"elsewhere/{number % 10}/unrelated{number}", "w").close()
    time.sleep(max(0, began + number / rate - time.perf_counter()))
"""


def run(folder: Path, *, smoke: bool) -> Row:
    files, turns = (10, 1) if smoke else (80, TURNS)
    (folder / "job.py").write_text(JOB)
    (folder / "noise.py").write_text(NOISE)
    contender = exec_file(
        folder, "latency", f"[[{', '.join(python('job.py'))}, {files} seconds.json]]"
    )
    raw: dict[str, list[list[float]]] = {"quiet": [], "busy": []}
    for _ in range(turns):
        for how, turns_of in raw.items():
            contender.reset()
            emptied(folder / "elsewhere")()
            noise = None
            if how == "busy":
                noise = subprocess.Popen(
                    python("noise.py", str(UNRELATED)),
                    cwd=folder,
                    env=ENVIRONMENT,
                    stdin=subprocess.DEVNULL,
                )
            try:
                run_once(contender)
            finally:
                if noise:
                    end(noise)
            turns_of.append(
                [1000 * seconds for seconds in json.loads((folder / "seconds.json").read_text())]
            )
    row = Row(
        f"latency: {files} files one after the other; "
        f"busy: {UNRELATED} unrelated files a second elsewhere; {count(turns)}"
    )
    row.raw = dict(raw)
    for how, turns_of in raw.items():
        medians, late = (
            [statistics.median(each) for each in turns_of],
            [_late(each) for each in turns_of],
        )
        for what, limit, values in zip(
            ("median", "95 % within"), MOST_MS[how], (medians, late), strict=True
        ):
            row.figures.append(Figures(f"{how}, {what}", values, "ms"))
            row.targets.append(Target(f"{how}, {what}", "<=", limit, values, "ms"))
    return row


def _late(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]
