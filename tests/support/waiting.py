"""How long and how often: waiting for conditions, and causing faults many times."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

LIMIT = 90.0
"""Seconds after which a test stops to wait for something; on a busy machine some take 30."""

LONG = bool(os.environ.get("HERMES_LONG_TESTS"))
"""Whether faults are caused as often as `nox -s faults` does."""

RecordProperty = Callable[[str, object], None]
"""pytest's fixture `record_property`."""


def times(short: int, long: int) -> int:
    """How often a fault is caused: `short` in the default suite, `long` in `nox -s faults`."""
    return long if LONG else short


def tries(record_property: RecordProperty, short: int, long: int) -> range:
    """Counts the times that a fault is caused, of which the report of `nox -s faults` tells."""
    count = times(short, long)
    record_property("tried", count)
    return range(count)


def some(values: Iterable[T], count: int) -> list[T]:
    """So many of the variations of a fault in the default suite, always the same; all in
    `nox -s faults`."""
    found = list(values)
    return found if LONG else random.Random(count).sample(found, min(count, len(found)))


def until(condition: Callable[[], T | None]) -> T:
    """Waits until `condition` gives something true, and returns that."""
    ends = time.monotonic() + LIMIT
    while not (found := condition()):
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.005)
    return found


def is_alive(pid: int) -> bool:
    """Whether a process that is no child of the tests still runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return bool(state.strip()) and not state.startswith("Z")


def process_state(pid: int) -> str:
    """As in `/proc`: `T` if it is stopped, `Z` if it has ended."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
