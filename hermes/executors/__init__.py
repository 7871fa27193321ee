"""Where a job's process runs. An executor starts one command and tells how it ended; all else is the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Launch:
    """One command to start. `stdout` and `stderr` are file descriptors that stay the caller's.

    The command leaves its exit status in the file `exit_file`, unless that is None.
    """

    argv: Sequence[str]
    working_directory: str
    environment: Mapping[str, str]
    stdout: int
    stderr: int
    exit_file: str | None


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: exactly one of `code` and `signal` is set. With `no_room` the disk was full then."""

    code: int | None = None
    signal: int | None = None
    no_room: bool = False


@dataclass(frozen=True, slots=True)
class Trace:
    """What is known of a job that an earlier runner started: process id and start as recorded, if it came to that."""

    identifier: str
    pid: int | None
    started: str | None
    boot_id: str | None
    exit_file: str


class Process(Protocol):
    """A started command, with all processes of its group."""

    @property
    def pid(self) -> int: ...

    @property
    def has_ended(self) -> bool:
        """Whether the command itself has ended already."""
        ...

    async def wait(self) -> Exit | None:
        """Returns when the command itself has ended, whatever others of its group still do. None if nobody can tell how."""
        ...

    async def end(self, grace: float) -> Exit | None:
        """Ends the whole group: SIGTERM, up to `grace` seconds, SIGKILL. Without grace SIGKILL at once. Call it in a shielded scope."""
        ...

    def kill(self) -> None:
        """SIGKILL for the whole group, at once."""
        ...

    def record(self, exit_file: str, exit_: Exit) -> None:
        """Leaves behind how the job ended, for a resumed run, if it has not done so itself. Blocks; does not fail."""
        ...

    def left_behind(self) -> list[int]:
        """Process ids of the group that are still alive after the command has ended. Blocks for some system calls."""
        ...


class Executor(Protocol):
    """Starts the commands of a run, in one place or another."""

    async def start(self, launch: Launch) -> Process:
        """Raises `OSError` if the command cannot be started."""
        ...

    def adopt(self, trace: Trace) -> Process | None:
        """The process of a job that an earlier runner started, dead or alive; None if it was never started. Blocks."""
        ...

    def strays(self) -> Mapping[str, Sequence[int]]:
        """Process ids, by the identifiers of their jobs, of all processes that jobs have started, in their groups or not. Blocks."""
        ...
