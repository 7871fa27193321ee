"""`python -m benchmarks [NAME ...]`: runs the named benchmarks, all by default, and prints a table for each."""

from __future__ import annotations

import argparse
import platform
import tempfile
from pathlib import Path

from . import jobs, latency, startup

BENCHMARKS = {"jobs": jobs.run, "startup": startup.run, "latency": latency.run}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures Hermes side by side with its rivals.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(BENCHMARKS)}")
    parser.add_argument("--jobs", type=int, default=1000, help="jobs of each rival")
    parser.add_argument("--turns", type=int, default=5, help="turns that count")
    parser.add_argument("--smoke", action="store_true", help="only see that everything works: 20 jobs, one turn")
    chosen = parser.parse_args()
    unknown = set(chosen.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark `{sorted(unknown)[0]}`; there is {', '.join(BENCHMARKS)}")
    print(f"Python {platform.python_version()}, {platform.platform(terse=True)}", flush=True)
    for name in chosen.names or BENCHMARKS:
        with tempfile.TemporaryDirectory(prefix="hermes-bench-") as folder:
            turns, count = (1, 20) if chosen.smoke else (chosen.turns, chosen.jobs)
            for line in BENCHMARKS[name](Path(folder), jobs=count, turns=turns):
                print(line, flush=True)


if __name__ == "__main__":
    main()
