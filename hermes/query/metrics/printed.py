"""Metrics in what a job has printed: `key: value`, `key=value`, and the boxes of
Stable-Baselines3.

Only what is clearly one is taken, for programs print all kinds of things.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from .sinks import STEPS, Sink, number, step_name

LONGEST = 500
"""Characters of a line that may hold metrics."""

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf)\b"
_WORD = r"[A-Za-z_][\w/.-]*"
_END = r"(?=$|[\s,;|)\]}])"
_ALONE = re.compile(rf"\s*({_WORD}(?: {_WORD}){{0,2}})\s*[:=]\s*({_NUMBER})\s*$")
_PAIRS = re.compile(rf"(?:^|(?<=[\s,;|(\[{{]))({_WORD})\s*[:=]\s*({_NUMBER}){_END}")
_STEP = re.compile(rf"(?:^|(?<=[\s,;|(\[]))({'|'.join(STEPS)})\s*[:=#]?\s*(\d+)", re.IGNORECASE)
_CELL = re.compile(r"\|\s*(.*?)\s*\|\s*(.*?)\s*\|$")
_STYLE = re.compile(r"\x1b\[[\d;]*[A-Za-z]")


def read_printed(lines: Iterable[str], sink: Sink[Any]) -> None:
    """Reads lines as they were printed; a line may hold several that a carriage return parts.

    The step is what the line or the box says it is, else each metric counts its own values.
    """
    counts: dict[str, int] = {}
    box: dict[str, float] = {}
    heading = ""
    for line in lines:
        for part in line.rstrip("\n").split("\r"):
            if "\x1b" in part:
                part = _STYLE.sub("", part[: 2 * LONGEST])
            text = part.strip()
            if not text or len(text) > LONGEST:
                continue
            if text[0] == "|" and (cell := _CELL.match(text)):
                name, value = cell.groups()
                if not value:
                    heading = name if name.endswith("/") else ""
                elif (found := number(value)) is not None:
                    box[f"{heading}{name}"] = found
                continue
            if text[0] == "-" and not text.strip("-"):
                _put(box, sink, counts)
                box, heading = {}, ""
            elif marks := text.count(":") + text.count("="):
                _put(_pairs(text, marks), sink, counts)
    _put(box, sink, counts)


def _pairs(text: str, marks: int) -> dict[str, float]:
    """The metrics of a line with so many `:` and `=`."""
    if marks == 1 and (alone := _ALONE.match(text)):
        return {alone[1]: float(alone[2])}
    found = {name: float(value) for name, value in _PAIRS.findall(text)}
    if found and step_name(found) is None and (step := _STEP.search(text)):
        found[step[1].lower()] = float(step[2])
    return found


def _put(values: dict[str, float], sink: Sink[Any], counts: dict[str, int]) -> None:
    step = step_name(values)
    if step is not None:
        at = values.pop(step)
        for name, value in values.items():
            counts[name] = counts.get(name, 0) + 1
            sink.add(name, at, value)
        return
    for name, value in values.items():
        index = counts.get(name, 0)
        counts[name] = index + 1
        sink.add(name, float(index), value)
