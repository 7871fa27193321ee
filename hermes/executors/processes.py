"""Processes of this machine, each the leader of its own session and group: spawned, supervised,
ended.

Signals go to the whole group. A supervised job leaves its exit status on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import anyio
import anyio.abc

from ..blocking import in_thread
from ..experiments.files import read_regular
from .base import Grace
from .exits import NO_ROOM, Exit, as_exit_file, exit_of, parse_exit_file
from .proc import HAS_PROC, command_of, group_members, group_of, processes_of

SUPERVISOR = """\
trap : HUP INT QUIT ALRM TERM USR1 USR2
exec 3>&2 2>>"$0"
echo $$ >&2
(exec "$@" 2>&3 3>&-)
status=$?
echo $status >&2
exit $status
"""
"""Runs a job under `/bin/sh` so that its exit status is on the disk even if nobody waits for it.

The shell leads the job's group, so it catches what the group is sent and lives on to write; caught
signals, unlike ignored ones, are back at their defaults in the job. The file `$0` gets what
`exits.parse_exit_file` reads.
"""

BUSY = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
"""Why a process cannot be started just now, though it may be in a moment."""

POLL = 0.01
"""Seconds between two checks whether a group is gone: nothing tells that."""

DYING = 2.0
"""Seconds for which killed processes are waited for: the system can hold one longer, for instance
by a disk that does not answer."""

_VARIABLE = re.compile(rb"[A-Za-z_][A-Za-z_0-9]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One command to start.

    `stdin`, `stdout` and `stderr` are file descriptors that stay the caller's. The command leaves
    its exit status in the file `exit_file`, unless that is None. `hidden` are variables of the
    environment, as `name=value`, that a shell would change or not pass on: see
    `hidden_from_shells`.
    """

    identifier: str
    argv: Sequence[str]
    working_directory: str
    environment: Mapping[bytes, bytes]
    stdin: int
    stdout: int
    stderr: int
    exit_file: str | None
    hidden: Sequence[bytes] = ()


async def spawn(launch: Launch) -> LocalProcess:
    """Starts a command as the leader of its own session and group.

    Call it in a shielded scope: cancelled inside, anyio kills the leader and not the group. Raises
    `OSError` if the command cannot be started; with an error of `BUSY`, not just now.
    """
    command: list[str | bytes] = list(launch.argv)
    if launch.exit_file is not None:
        around = _around_shell(launch)
        command = ["/bin/sh", "-c", SUPERVISOR, launch.exit_file, *around, *command]
    try:
        process = await _open_process(command, launch)
    except OSError as exc:
        if exc.errno != errno.ENOEXEC:
            raise
        # A script without `#!`: as `execvp` and every shell do
        process = await _open_process(["/bin/sh", "-c", 'exec "$@"', "sh", *command], launch)
    return LocalProcess(process, launch.exit_file)


async def _open_process(command: Sequence[str | bytes], launch: Launch) -> anyio.abc.Process:
    try:
        return await anyio.open_process(
            command,
            stdin=launch.stdin,
            stdout=launch.stdout,
            stderr=launch.stderr,
            cwd=launch.working_directory,
            env=launch.environment,  # type: ignore[arg-type]  # bytes are encoded already
            start_new_session=True,
        )
    except RuntimeError:
        # On Python 3.11 asyncio waits for each child in a thread of its own. Where none can be
        # started, the child is there, and nobody knows its process id
        await in_thread(_kill_all_of, launch.identifier)
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None


def _kill_all_of(identifier: str) -> None:
    for pid in processes_of("HERMES_IDENTIFIER").get(identifier, ()):
        with contextlib.suppress(OSError):
            os.killpg(group_of(pid) or pid, signal.SIGKILL)


class Group(ABC):
    """A process that leads a group, and the signals that go to all of the group."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    @abstractmethod
    async def has_ended(self) -> bool:
        """Whether the leader has ended, whatever others of its group still do."""

    @abstractmethod
    async def wait(self) -> Exit | None:
        """Returns when the leader has ended. None if nobody can tell how."""

    @abstractmethod
    def is_early(self) -> bool:
        """Whether the job is not executed yet. Until then it sees no signal."""

    async def end(self, grace: Grace) -> Exit | None:
        """Ends the whole group: SIGTERM, the grace, SIGKILL. Without grace SIGKILL at once.

        Call it in a shielded scope.
        """
        if grace.seconds > 0:
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(_expire, grace, waiting.cancel_scope)
                await self._terminate()
                waiting.cancel_scope.cancel()
        await in_thread(self.signal, signal.SIGKILL)
        exit_ = await self.wait()
        # Killed processes are dead in a moment; until then they would be taken for left behind
        with anyio.move_on_after(DYING):
            await self._gone()
        return exit_

    async def _terminate(self) -> None:
        early = await in_thread(self.is_early)
        await in_thread(self.signal, signal.SIGTERM)
        # A stopped group would never get the signal
        await in_thread(self.signal, signal.SIGCONT)
        if early:
            while await in_thread(self.is_early):  # noqa: ASYNC110 (nothing tells that)
                await anyio.sleep(POLL)
            await in_thread(self.signal, signal.SIGTERM)
        await self.wait()
        await self._gone()

    async def _gone(self) -> None:
        while await in_thread(self.left_behind):  # noqa: ASYNC110 (nothing tells that)
            await anyio.sleep(POLL)

    def left_behind(self) -> list[int]:
        """Processes of the group that are alive though the leader has ended. Blocks."""
        return group_members(self.pid) if self.signal(0) else []

    def record(self, exit_file: str, end: Exit) -> None:
        """Leaves behind how the job ended, for a resumed run, if it has not done so. Blocks."""
        # So little that the block which the file has already is enough for it
        with contextlib.suppress(OSError), open(exit_file, "a") as file:
            if file.tell() == 0:
                file.write(as_exit_file(self.pid, end))
            if end.no_room:
                file.write(f"{NO_ROOM}\n")

    def signal(self, number: int) -> bool:
        """Signals the group; False if there is none any more. May block."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            # macOS says "not permitted" of a group of zombies
            return False
        return True


async def _expire(grace: Grace, waiting: anyio.CancelScope) -> None:
    with anyio.move_on_after(grace.seconds):
        await grace.over.wait()
    waiting.cancel()


class LocalProcess(Group):
    """A child of this process: the job itself, or the shell that supervises it."""

    def __init__(self, process: anyio.abc.Process, exit_file: str | None) -> None:
        super().__init__(process.pid)
        self._process = process
        self._exit_file = exit_file

    async def has_ended(self) -> bool:
        # The event loop may not know yet: on Python 3.11 a thread fetches the child first
        if self._process.returncode is not None:
            return True
        if not hasattr(os, "waitid"):
            return False
        try:
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            # Does not block
            return os.waitid(os.P_PID, self.pid, options) is not None  # noqa: ASYNC222
        except ChildProcessError:
            return True

    async def wait(self) -> Exit:
        returncode = await self._process.wait()
        if returncode < 0:
            return Exit(signal=-returncode)
        if self._exit_file is not None and returncode > 128:
            # A signal, or a code that looks like one, or somebody else has fetched the child: the
            # supervisor's own words decide. Where it has left none, a signal is the likeliest
            recorded = await in_thread(recorded_exit, self._exit_file)
            return recorded or exit_of(returncode, has_message=True)
        return Exit(code=returncode)

    def is_early(self) -> bool:
        if self._exit_file is None or not HAS_PROC:
            return False
        # Between its fork and its execution a job is a copy of the supervisor, and for a moment
        # has no command at all
        members, own = group_members(self.pid), command_of(self.pid)
        others = [command_of(pid) for pid in members if pid != self.pid]
        return self.pid in members and all(command in (own, b"") for command in others)


def recorded_exit(exit_file: str) -> Exit | None:
    """The exit status that a job has left behind; None if it has not come to that. Blocks."""
    try:
        return parse_exit_file(read_regular(exit_file).decode("utf-8", "replace"))
    except OSError:
        return None


def hidden_from_shells(environment: Mapping[bytes, bytes]) -> list[bytes]:
    """The variables that a shell would change or not pass on: functions exported by bash, IFS."""
    return [
        b"%s=%s" % item
        for item in environment.items()
        if item[0] == b"IFS" or not _VARIABLE.fullmatch(item[0])
    ]


def _around_shell(launch: Launch) -> list[str | bytes]:
    """Words that give the job the variables that its supervisor does not."""
    if not launch.hidden:
        return []
    # `env` would take a program with such a path for one more variable
    nice = ["/usr/bin/nice", "-n", "0"] if "=" in launch.argv[0] else []
    return ["/usr/bin/env", *launch.hidden, *nice]
