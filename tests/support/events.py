"""What events told of logs, and what the logs hold."""

from __future__ import annotations

from pathlib import Path

import hermes
from hermes import (
    Event,
    LogChunk,
)
from hermes.run.logs import CHUNK

PRINT = """\
import os, sys
identifier, size = sys.argv[1], int(sys.argv[2])
with open("a_" + identifier, "w"):
    pass
os.write(1, b"first\\n")
while size > 0:
    size -= os.write(1, bytes(range(256)) * min(400, size // 256 + 1))
os.write(2, b"\\xff error\\0")
"""


def told(run: hermes.Run, events: list[Event], stream: str) -> dict[str, bytes]:
    """What log chunks told, by identifier."""
    found = {outcome.identifier: b"" for outcome in run.result.outcomes}
    for event in events:
        if isinstance(event, LogChunk) and event.stream == stream:
            assert 0 < len(event.data) <= CHUNK
            found[event.identifier] += event.data
    return found


def written(run: hermes.Run, stream: str) -> dict[str, bytes]:
    """What the log files hold, by identifier."""
    return {
        outcome.identifier: Path(str(outcome.directory), f"{stream}.log").read_bytes()
        for outcome in run.result.outcomes
    }
