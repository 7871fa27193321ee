"""`latency`: from a file's creation by a job until it is in the experiment directory."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FILES = 200

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
    # Not in step with whoever looks at the directory
    time.sleep(0.011 + 0.0007 * (number % 13))
with open(told, "w") as file:
    json.dump(seconds, file)
"""


def run(folder: Path, *, jobs: int, turns: int) -> Iterator[str]:
    """Yields the lines of the table. `jobs` and `turns` do not matter here, but that one turn is a smoke run."""
    files = FILES if turns > 1 else 20
    (folder / "job.py").write_text(JOB)
    (folder / "latency.hermes").write_text(f"EXEC\n[[{sys.executable}, job.py, {files} seconds.json]]\n")
    command = [sys.executable, "-m", "hermes", "exec", "-f", "latency.hermes", "--root", ".", "--quiet"]
    subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, check=True)
    seconds = sorted(json.loads((folder / "seconds.json").read_text()))
    middle, late = statistics.median(seconds), seconds[int(len(seconds) * 0.95)]
    yield f"{files} files, one after the other, from creation to the experiment directory"
    yield f"median {middle * 1000:.1f} ms, 95 % within {late * 1000:.1f} ms, all within {seconds[-1] * 1000:.1f} ms"
