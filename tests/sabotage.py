"""A pytest plugin that takes out what some promise rests on, so that one can see whether the tests of that promise notice.

`SABOTAGE=replace python -m pytest -p tests.sabotage ...`; used by `test_faults_checked.py` alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from hermes.collection import collector as collect
from hermes.executors import processes
from hermes.experiments import store


def replace() -> None:
    """Metadata is written over in place instead of being replaced whole."""

    def write(path: str, data: bytes, *, sync: bool) -> None:
        half = len(data) // 2
        with open(path, "wb") as file:
            file.write(data[:half])
            file.flush()
            # As long as a busy disk may take
            time.sleep(0.005)
            file.write(data[half:])

    store.write_atomic = write  # type: ignore[attr-defined]


def group() -> None:
    """Signals go to the job's first process instead of its group, and nobody looks whether the group is gone."""

    def signal(self: processes.Group, number: int) -> bool:
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def left_behind(self: processes.Group) -> list[int]:
        return []

    processes.Group._signal = signal  # type: ignore[method-assign]
    processes.Group.left_behind = left_behind  # type: ignore[method-assign]


def look() -> None:
    """A job's files are what notifications told of by its end; nobody looks at the tree."""
    whole = collect.Collector.finish

    def finish(self: collect.Collector, identifiers: Sequence[str]) -> dict[str, collect.Claim]:
        self._look = lambda: None  # type: ignore[method-assign]
        try:
            return whole(self, identifiers)
        finally:
            del self._look

    collect.Collector.finish = finish  # type: ignore[method-assign]


SABOTAGE: dict[str, Callable[[], None]] = {"replace": replace, "group": group, "look": look}


def pytest_configure() -> None:
    SABOTAGE[os.environ["SABOTAGE"]]()
