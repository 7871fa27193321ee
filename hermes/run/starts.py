"""What the runs of one name start, for those that must not start a job twice.

Each run that goes on with what is there (`--resume`, `hermes resume`) asks right before it starts a
job, and writes down that it does so: another one may have started the job since it has looked. The
file goes with the last of these runs.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from ..model import Status
from ..storage import layout
from ..storage.files import open_regular, write_all
from ..storage.run_record import is_locked
from .survey import Reason


class Start(NamedTuple):
    """The latest start of a job. `status` is how it ended, None before that."""

    run_id: str
    status: Status | None = None


class Starts:
    """The file of one name, for the run `run_id`. All of this blocks, while other runs write there.
    Making one raises `OSError`; if the file cannot be written later, nobody is told.

    `settled` tells of a job, by its key, why it need not be started, going by the experiments.
    """

    def __init__(
        self, experiments: str, name: str, run_id: str, settled: Callable[[str], Reason | None]
    ) -> None:
        self._experiments = experiments
        self._run_id = run_id
        self._settled = settled
        self._path = layout.starts_file(experiments, name)
        self._file = (0, 0)
        self._read = 0
        self._runs: set[str] = set()
        self._jobs: dict[str, Start] = {}
        # From here on no other run takes the file away
        with self._locked():
            pass

    def begin(self, key: str) -> Reason | None:
        """Writes down that this run starts a job; or returns why it must not."""
        reason = None
        with suppress(OSError), self._locked() as fd:
            reason = self._reason(key)
            if reason is None:
                self._write(fd, "start", key)
        return reason

    def go_on(self, key: str) -> None:
        """Writes down that this run brings a job to its end that it has started before."""
        with suppress(OSError), self._locked() as fd:
            self._write(fd, "start", key)

    def end(self, key: str, status: Status) -> None:
        """Writes down how a job of this run has ended."""
        with suppress(OSError), self._locked() as fd:
            if self._jobs.get(key, Start("")).run_id == self._run_id:
                self._write(fd, "end", key, status)

    def close(self) -> None:
        """Takes the file away if no other run needs it."""
        with suppress(OSError), self._locked() as fd:
            if any(map(self._is_live, self._runs - {self._run_id})):
                # One that looks before this run has given its own lock back must not wait for it
                self._write(fd, "gone")
            else:
                os.unlink(self._path)

    def _reason(self, key: str) -> Reason | None:
        last = self._jobs.get(key)
        if last is None or last.run_id == self._run_id:
            return None
        if last.status is not None:
            return Reason.SUCCEEDED if last.status is Status.FINISHED else None
        # Its run may have been killed; then the experiments tell what has come of the job
        return Reason.RUNNING if self._is_live(last.run_id) else self._settled(key)

    def _is_live(self, run_id: str) -> bool:
        return is_locked(layout.run_folder(self._experiments, run_id))

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The file, which nobody else reads or writes now, after all of it was taken in."""
        while True:
            fd = open_regular(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            try:
                with suppress(OSError):
                    # Where the file system has no locks everybody gets them
                    fcntl.flock(fd, fcntl.LOCK_EX)
                if os.fstat(fd).st_nlink:
                    self._take_in(fd)
                    yield fd
                    return
                # Else the last run has just taken it away
            finally:
                os.close(fd)

    def _take_in(self, fd: int) -> None:
        status = os.fstat(fd)
        file = (status.st_dev, status.st_ino)
        if self._file != file or status.st_size < self._read:
            # Somebody has taken it away, and another run has made it again
            self._file, self._read, self._runs = file, 0, set()
        data = os.pread(fd, status.st_size - self._read, self._read)
        self._read += len(data)
        # A run that was killed may have left half a line
        lines = data.decode("utf-8", "replace").split("\n")
        if lines.pop():
            write_all(fd, b"\n")
        for line in lines:
            self._add(line.split(" "))
        if self._run_id not in self._runs:
            self._write(fd, "run")

    def _write(self, fd: int, kind: str, *words: str) -> None:
        words = (kind, self._run_id, *words)
        write_all(fd, (" ".join(words) + "\n").encode())
        self._add(list(words))

    def _add(self, words: list[str]) -> None:
        match words:
            case ["run", run_id]:
                self._runs.add(run_id)
            case ["gone", run_id]:
                self._runs.discard(run_id)
            case ["start", run_id, key]:
                self._jobs[key] = Start(run_id)
            case ["end", run_id, key, status]:
                with suppress(ValueError):
                    self._jobs[key] = Start(run_id, Status(status))
