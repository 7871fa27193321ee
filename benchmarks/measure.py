"""Taking turns: A B C A B C ..., each a whole process, and the medians of the ratios."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Rival:
    """One way to do the work. `command` runs in `folder`, which `reset` brings back to its beginning before every turn."""

    name: str
    command: Sequence[str]
    folder: Path
    reset: Callable[[], None] = lambda: None
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Figures:
    """Wall times in seconds of one rival, one a turn."""

    name: str
    seconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def ratio(self, other: Figures) -> float:
        """How many times as long this one took, the median over the turns."""
        return statistics.median(own / others for own, others in zip(self.seconds, other.seconds, strict=True))


def take_turns(rivals: Sequence[Rival], turns: int) -> list[Figures]:
    """One turn to warm up, then `turns` that count. Raises `CalledProcessError` if a rival fails."""
    seconds: dict[str, list[float]] = {rival.name: [] for rival in rivals}
    for turn in range(turns + 1):
        for rival in rivals:
            rival.reset()
            began = time.perf_counter()
            subprocess.run(
                rival.command,
                cwd=rival.folder,
                env={**os.environ, **rival.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=True,
            )
            if turn:
                seconds[rival.name].append(time.perf_counter() - began)
    return [Figures(name, taken) for name, taken in seconds.items()]
