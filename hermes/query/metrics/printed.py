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
            text = _STYLE.sub("", part[: 2 * LONGEST]).strip()
            if not text or len(text) > LONGEST:
                continue
            if text.startswith("|") and (cell := _CELL.match(text)):
                name, value = cell.groups()
                if not value:
                    heading = name if name.endswith("/") else ""
                elif (found := number(value)) is not None:
                    box[f"{heading}{name}"] = found
                continue
            if set(text) == {"-"}:
                _put(box, sink, counts)
                box, heading = {}, ""
                continue
            _put(_pairs(text), sink, counts)
    _put(box, sink, counts)


def _pairs(text: str) -> dict[str, float]:
    if alone := _ALONE.match(text):
        return {alone[1]: float(alone[2])}
    found = {name: float(value) for name, value in _PAIRS.findall(text)}
    step = _STEP.search(text)
    if found and step and step_name(found) is None:
        found[step[1].lower()] = float(step[2])
    return found


def _put(values: dict[str, float], sink: Sink[Any], counts: dict[str, int]) -> None:
    step = step_name(values)
    for name, value in values.items():
        if name == step:
            continue
        index = counts.get(name, 0)
        counts[name] = index + 1
        sink.add(name, float(index) if step is None else values[step], value)
