"""Reading experiments back: from their directories, which are the whole truth."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..model import Status
from .store import STDERR, STDOUT, read_metadata


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that came into the experiment directory. `path` is relative to it, `bytes` its size when the job had ended.

    `origin` is `copied-before`, `copied-after`, `moved` or `collected`.
    """

    path: str
    bytes: int
    origin: str


@dataclass(frozen=True)
class Experiment:
    """One job's execution, as its directory tells it. `metadata` is all of `hermes.json`."""

    directory: Path
    metadata: dict[str, Any]

    @property
    def identifier(self) -> str:
        return str(self.metadata["identifier"])

    @property
    def name(self) -> str:
        return str(self.metadata["name"])

    @property
    def script(self) -> str:
        return str(self.metadata["script"])

    @property
    def status(self) -> Status:
        return Status(self.metadata["status"])

    @property
    def exit_code(self) -> int | None:
        """None while the job runs, or if a signal ended it."""
        return self.metadata.get("exit_code")

    @property
    def signal(self) -> int | None:
        """The number of the signal that ended the job, if one did."""
        return self.metadata.get("signal")

    @property
    def argv(self) -> tuple[str, ...]:
        """The whole command, as it was executed."""
        return tuple(self.metadata["argv"])

    @property
    def arguments(self) -> tuple[str, ...]:
        """What came after the script word, in order, but for the identifier."""
        return tuple(self.metadata["arguments"])

    @property
    def comments(self) -> tuple[str, ...]:
        return tuple(self.metadata["comments"])

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(self.metadata["problems"])

    @property
    def start(self) -> datetime | None:
        """None if the job was never started."""
        return _time(self.metadata.get("start"))

    @property
    def end(self) -> datetime | None:
        """None while the job runs."""
        return _time(self.metadata.get("end"))

    @property
    def duration(self) -> float | None:
        """Seconds, by a clock that never steps; None while the job runs."""
        return self.metadata.get("duration")

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """What was copied, moved and collected; the list is complete when the job has ended."""
        return tuple(StoredFile(each["path"], each["bytes"], each["origin"]) for each in self.metadata["files"])

    @property
    def stdout(self) -> str:
        """The standard output so far; what is not UTF-8 is replaced."""
        return self._log(STDOUT)

    @property
    def stderr(self) -> str:
        """The standard error so far; what is not UTF-8 is replaced."""
        return self._log(STDERR)

    def _log(self, name: str) -> str:
        try:
            return (self.directory / name).read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""


def load_experiment(path: str | os.PathLike[str]) -> Experiment:
    """Loads an experiment from its directory. Raises `HermesError` if it is none, or was written by a newer Hermes."""
    return Experiment(Path(path), read_metadata(path))


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
