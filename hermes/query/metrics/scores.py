"""Scores of rlmate: a number a line, one an episode."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .sinks import Sink, number

SCORE = "score"
"""The metric that they are; the file has no name for it."""


def read_scores(lines: Iterable[str], sink: Sink[Any]) -> str | None:
    """Reads a number a line. Returns what is wrong, None if nothing is. The first line may be a
    heading."""
    wrong, index = 0, 0
    for place, line in enumerate(lines):
        value = number(line)
        if value is not None:
            sink.add(SCORE, float(index), value)
            index += 1
        elif place and line.strip():
            wrong += 1
    return f"{wrong} of its lines are no numbers, and left out" if wrong else None
