"""A pytest plugin that takes out what some promise rests on, so that one can see whether the tests
of that promise notice.

`SABOTAGE=replace python -m pytest -p tests.faults.sabotage ...`; used by `test_checked.py` alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from hermes.collection.collector import Collected, Collector
from hermes.collection.tree import Tree
from hermes.executors import processes
from hermes.storage import metadata
from hermes.storage.files import Stamp


def replace() -> None:
    """Metadata is written over in place instead of being replaced whole."""

    def write(path: str, data: bytes, *, sync: bool, mode: int = 0o666) -> Stamp:
        half = len(data) // 2
        with open(path, "wb") as file:
            file.write(data[:half])
            file.flush()
            # As long as a busy disk may take
            time.sleep(0.005)
            file.write(data[half:])
        return Stamp.of(os.stat(path))

    metadata.write_atomic = write  # type: ignore[attr-defined]


def group() -> None:
    """Signals go to the job's first process instead of all of its processes, and nobody checks
    whether these are gone.
    """

    def signal(self: processes.Group, number: int) -> bool:
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def left_behind(self: processes.Group) -> list[int]:
        return []

    processes.Group.signal = signal  # type: ignore[method-assign]
    processes.Group.left_behind = left_behind  # type: ignore[method-assign]
    processes.Group._find_strays = lambda self: {}  # type: ignore[method-assign]
    processes.LocalProcess._oldest = lambda self: {}  # type: ignore[method-assign]


def scan() -> None:
    """A job's files are what notifications told of by its end; nobody reads the tree."""
    whole = Collector.finish

    def finish(self: Collector, identifiers: Sequence[str]) -> dict[str, Collected]:
        real = Tree.scan
        Tree.scan = lambda self: None  # type: ignore[method-assign]
        try:
            return whole(self, identifiers)
        finally:
            Tree.scan = real  # type: ignore[method-assign]

    Collector.finish = finish  # type: ignore[method-assign]


SABOTAGE: dict[str, Callable[[], None]] = {"replace": replace, "group": group, "scan": scan}


def pytest_configure() -> None:
    SABOTAGE[os.environ["SABOTAGE"]]()
