"""`python -m benchmarks [NAME ...] [--json FILE]`: runs the named rows, all by default.

Prints a table for each. A target that is missed does not change the exit code: this measures, it
does not test. Only `week` ends with an error if a rule is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import (
    collect,
    compiling,
    control,
    curves,
    jobs,
    latency,
    peers,
    query,
    running,
    scale,
    startup,
    week,
)
from .measure import TMPFS
from .table import Row

ROWS: dict[str, Callable[..., Row]] = {
    "jobs": jobs.run,
    "startup": startup.run,
    "latency": latency.run,
    "collect": collect.run,
    "crowded": scale.crowded,
    "growth": scale.growth,
    "status": scale.status,
    "logs": running.logs,
    "live": running.live,
    "idle": running.idle,
    "compile": compiling.run,
    "query": query.run,
    "curves": curves.run,
    "control": control.run,
    "week": week.run,
}

ON_TMPFS = {"jobs"}
"""Rows that would tell of the disk rather than of Hermes, if their files were on one."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measures Hermes side by side with others."
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"what to measure: {', '.join(ROWS)}; all by default",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="only see that everything works: tiny figures, one turn",
    )
    chosen = parser.parse_args()
    unknown = [name for name in chosen.names if name not in ROWS]
    if unknown:
        parser.error(f"no benchmark `{unknown[0]}`; there is {', '.join(ROWS)}")
    told: dict[str, Any] = {**about(), "smoke": chosen.smoke, "rows": {}}
    print(
        f"Python {told['python']}, {told['machine']['cores']} cores, {told['machine']['system']}",
        flush=True,
    )
    for name in chosen.names or ROWS:
        began = time.perf_counter()
        place = TMPFS if name in ON_TMPFS else None
        with tempfile.TemporaryDirectory(prefix="hermes-bench-", dir=place) as folder:
            row = ROWS[name](Path(folder), smoke=chosen.smoke)
        took = time.perf_counter() - began
        # So few jobs as in a smoke run tell nothing of the targets
        lines = row.lines(judged=not chosen.smoke)
        print("", *lines, f"  (took {took:.0f} s)", sep="\n", flush=True)
        told["rows"][name] = {**row.as_json(), "took": took}
        if chosen.json:
            # After every row, so that an interrupted run has told something
            chosen.json.write_text(json.dumps(told, indent=1) + "\n")


def about() -> dict[str, Any]:
    """Where and when this was measured, and against what."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": {
            "system": platform.platform(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "load": os.getloadavg(),
        },
        "peers": peers.versions(),
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")),
        platform.processor(),
    )


if __name__ == "__main__":
    main()
