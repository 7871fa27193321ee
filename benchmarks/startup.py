"""`startup`: what a person waits for before anything happens."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .measure import Rival, take_turns


def run(folder: Path, *, jobs: int, turns: int) -> Iterator[str]:
    """Yields the lines of the table. `jobs` does not matter here: it is always one."""
    noop = folder / "noop.sh"
    noop.write_text("#!/bin/sh\n")
    noop.chmod(0o755)
    hermes = [sys.executable, "-m", "hermes"]
    clean = partial(shutil.rmtree, folder / "experiments", ignore_errors=True)
    figures = take_turns(
        [
            Rival("python -c pass", [sys.executable, "-c", "pass"], folder),
            Rival("hermes --help", [*hermes, "--help"], folder),
            Rival("hermes exec of one job", [*hermes, "exec", "-e", "./noop.sh", "--root", ".", "--quiet"], folder, clean),
        ],
        max(turns, 11) if turns > 1 else turns,
    )
    yield f"start-up; median of {len(figures[0].seconds)} turns"
    yield f"{'':32} {'ms':>8} {'python -c pass = 1':>20}"
    for each in figures:
        yield f"{each.name:32} {each.median * 1000:8.0f} {each.ratio(figures[0]):20.1f}"
