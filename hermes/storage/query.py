"""Reading experiments back: from their directories, which are the whole truth."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ..errors import HermesError, escape
from ..model import Problem, Status, is_identifier
from .files import read_regular
from .layout import RUNS, STDERR, STDOUT
from .metadata import Metadata, StoredFile, read_metadata


@dataclass(frozen=True)
class Experiment:
    """One job's execution, as its directory tells it. `metadata` is all of `hermes.json`."""

    directory: Path
    metadata: Metadata

    @property
    def identifier(self) -> str:
        return self.metadata.identifier

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def script(self) -> str:
        return self.metadata.script

    @property
    def status(self) -> Status:
        return self.metadata.status

    @property
    def exit_code(self) -> int | None:
        """None while the job runs, or if a signal ended it."""
        return self.metadata.exit_code

    @property
    def signal(self) -> int | None:
        """The number of the signal that ended the job, if one did."""
        return self.metadata.signal

    @property
    def argv(self) -> tuple[str, ...]:
        """The whole command, as it was executed."""
        return self.metadata.argv

    @property
    def arguments(self) -> tuple[str, ...]:
        """What came after the script word, in order, but for the identifier."""
        return self.metadata.arguments

    @property
    def comments(self) -> tuple[str, ...]:
        return self.metadata.comments

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(self.metadata.problems)

    @property
    def start(self) -> datetime | None:
        """With its offset; None if the job was never started."""
        return self.metadata.start

    @property
    def end(self) -> datetime | None:
        """With its offset; None while the job runs."""
        return self.metadata.end

    @property
    def duration(self) -> float | None:
        """Seconds, by a clock that never steps; None while the job runs."""
        return self.metadata.duration

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """All that is in the directory but Hermes' own; complete when the job has ended."""
        return tuple(self.metadata.files)

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
            return read_regular(str(self.directory / name), sys.maxsize).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""


def load_experiment(path: str | os.PathLike[str]) -> Experiment:
    """Loads an experiment from its directory.

    Raises `HermesError` if it is none, or was written by a newer Hermes.
    """
    return Experiment(Path(path), read_metadata(path))


@dataclass(frozen=True, slots=True)
class Found:
    """A directory that may be an experiment's. `metadata` is None where it cannot be read or
    belongs to another directory; then `problem` says why.

    A directory whose name is no identifier is not found at all.
    """

    directory: str
    metadata: Metadata | None
    problem: str = ""

    @property
    def identifier(self) -> str:
        return os.path.basename(self.directory)


def find_named(experiments: str, name: str) -> list[Found]:
    """The directories of all experiments of a name, in the order of their starts."""
    directories = [
        each
        for script in _folders(experiments)
        for each in _folders(f"{script}/{name}")
        if os.path.basename(script) != RUNS and is_identifier(os.path.basename(each))
    ]
    return [_found(each) for each in sorted(directories, key=os.path.basename)]


def _found(directory: str) -> Found:
    try:
        metadata = read_metadata(directory)
    except HermesError as exc:
        return Found(directory, None, exc.message)
    if metadata.identifier != os.path.basename(directory):
        owner = escape(metadata.identifier)
        return Found(directory, None, f"`{escape(directory)}` holds the metadata of `{owner}`")
    return Found(directory, metadata)


def _folders(folder: str) -> list[str]:
    """The folders in a folder, hidden ones too, and those that links lead to."""
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if entry.is_dir()]
    except OSError:
        return []


def experiments_named(experiments: str, name: str) -> Iterator[tuple[str, Metadata]]:
    """Directory and metadata of all experiments of a name, in the order of their starts.

    Those that cannot be read are passed over.
    """
    for found in find_named(experiments, name):
        if found.metadata is not None:
            yield found.directory, found.metadata


def is_running(experiments: str, identifier: str, *, other_than: str) -> bool | None:
    """Whether an experiment of another run than `other_than` has not ended; None if there is no
    such experiment. One whose metadata cannot be read counts as running.
    """
    folders = [experiments]
    for _ in ("script", "name"):
        folders = [each for folder in folders for each in _folders(folder)]
    for folder in folders:
        if os.path.lexists(f"{folder}/{identifier}"):
            try:
                metadata = read_metadata(f"{folder}/{identifier}")
            except HermesError:
                return True
            return metadata.status is Status.RUNNING and metadata.run_id != other_than
    return None
