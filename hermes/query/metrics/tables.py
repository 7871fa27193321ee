"""Tables with a header: CSV, `progress.csv` and `monitor.csv` of Stable-Baselines3."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from itertools import chain
from typing import Any

from .sinks import MOST_NAMES, Sink, number, step_name


def read_table(lines: Iterable[str], sink: Sink[Any]) -> str | None:
    """Reads a table whose first line names its columns; others hold no metrics. Returns what is
    wrong with it, None if nothing is.

    A row's step is what its column of that meaning says, else its number. An empty cell is no
    value.
    """
    rest = iter(lines)
    first = next(rest, "")
    # Stable-Baselines3 writes JSON into the first line of `monitor.csv`
    is_monitor = first.startswith("#")
    if is_monitor:
        first = next(rest, "")
    delimiter = max(",;\t", key=first.count)
    try:
        rows = csv.reader(chain([first], rest), delimiter=delimiter)
        names = [name.strip() for name in next(rows, [])]
        if not 0 < len(names) <= MOST_NAMES or any(
            not name or number(name) is not None for name in names
        ):
            return None
        step = step_name(names)
        total = 0.0
        for index, row in enumerate(rows):
            if len(row) != len(names):
                # Empty, or not written whole yet
                continue
            values = {name: number(cell) for name, cell in zip(names, row, strict=True)}
            at = float(index) if step is None else values[step]
            if is_monitor:
                # The length of each episode is known, and no step
                total += values.get("l") or 0.0
                at = total
            for name, value in values.items():
                if value is not None and name != step:
                    sink.add(name, float(index) if at is None else at, value)
    except csv.Error as exc:
        return f"it is no table: {exc}"
    return None
