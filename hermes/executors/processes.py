"""Processes of this machine, each the leader of its own session and group: spawned, supervised,
ended.

Signals go to the whole group. A supervised job leaves its exit status on the disk.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import errno
import os
import re
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set

import anyio
import anyio.abc
import msgspec
from msgspec.structs import replace

from ..blocking import in_thread, is_asyncio
from ..storage.files import read_regular
from .base import Grace
from .exits import NO_ROOM, Exit, as_exit_file, exit_of, parse_exit_file
from .proc import (
    CENSUS,
    HAS_PROC,
    Seen,
    command_of,
    group_members,
    is_dying,
    still_alive,
    strays_of,
)

_HARMLESS = ("CHLD", "CONT", "TSTP", "TTIN", "TTOU", "URG", "WINCH", "INFO")
_ENDING = sorted(
    signal.valid_signals()
    - {signal.SIGKILL, signal.SIGSTOP}
    - {getattr(signal, f"SIG{name}", None) for name in _HARMLESS}
)
"""Signals that end a process, the real-time ones too."""

SUPERVISOR = f"""\
trap : {" ".join(str(int(number)) for number in _ENDING)}
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

RESET = """\
import os, signal, sys
signal.pthread_sigmask(signal.SIG_SETMASK, ())
for number in map(int, sys.argv[1].split()):
    signal.signal(number, signal.SIG_DFL)
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Gives a job the signals that its host blocks or ignores. For the fork alone the host itself must
not let them through: they may be pending."""

_owned: dict[int, str] = {}
"""Identifiers of the children that this process has to end, by process id."""

_left = threading.Event()
"""Set when the interpreter is about to end."""

DYING_TOGETHER = 0.2
"""A job that ends within so many seconds of its supervisor's death was killed with it."""

_VARIABLE = re.compile(rb"[A-Za-z_][A-Za-z_0-9]*")


class Launch(msgspec.Struct, frozen=True, kw_only=True):
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
    if _left.is_set():
        raise OSError(errno.ECANCELED, "the interpreter is about to end")
    command: list[str | bytes] = list(launch.argv)
    if launch.exit_file is not None:
        around = _around_shell(launch)
        command = ["/bin/sh", "-c", SUPERVISOR, launch.exit_file, *around, *command]
    held_back = _held_back()
    if held_back is not None:
        command = [sys.executable, "-I", "-S", "-c", RESET, held_back, *command]
    try:
        process = await _open_process(command, launch)
    except OSError as exc:
        if exc.errno != errno.ENOEXEC:
            raise
        # A script without `#!`: as `execvp` and every shell do
        process = await _open_process(["/bin/sh", "-c", 'exec "$@"', "sh", *command], launch)
    return LocalProcess(process, launch.identifier, launch.exit_file)


async def start(launch: Launch, busy: float, begins: Callable[[], bool]) -> LocalProcess | None:
    """As `spawn`, again for `busy` seconds while the system has no process to give just now.

    `begins` is asked before each try; None if it does not want the process any more. If command
    and environment are too large for a supervisor, which needs some of them twice, it has none.
    Raises `OSError` and `ValueError`.
    """
    ends, pause = time.monotonic() + busy, 0.05
    while begins():
        try:
            with anyio.CancelScope(shield=True):
                return await spawn(launch)
        except OSError as exc:
            if exc.errno == errno.E2BIG and launch.exit_file is not None:
                launch = replace(launch, exit_file=None, hidden=())
                continue
            if exc.errno not in BUSY or time.monotonic() > ends:
                raise
        with anyio.CancelScope(shield=True):
            await anyio.sleep(pause)
        pause = min(1.0, 2 * pause)
    return None


def why_not_started(error: OSError | ValueError) -> tuple[Exit, str]:
    """What a shell would exit with, and what people are told."""
    said = error.strerror if isinstance(error, OSError) else str(error)
    if isinstance(error, OSError) and error.errno == errno.E2BIG:
        said = (
            "its command and environment are larger than the system takes;"
            " put long arguments into a file"
        )
    code = 127 if isinstance(error, FileNotFoundError) else 126
    return Exit(code=code), f"the job could not be started: {said}"


def _held_back() -> str | None:
    """The signals that a job would ignore because this process does, separated by spaces; None if
    it ignores and blocks none of those that matter to a job.

    A job that ignores SIGCHLD does not get the exit statuses of its own children, nor does its
    supervisor. Those of a terminal stay ignored, as `nohup` and `&` want it.
    """
    numbers = (signal.SIGCHLD, signal.SIGTERM)
    ignored = [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN]
    if not ignored and not signal.pthread_sigmask(signal.SIG_BLOCK, ()):
        return None
    return " ".join(str(int(number)) for number in ignored)


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
    except (asyncio.CancelledError, KeyboardInterrupt):
        # By the host itself, in spite of the shield: asyncio kills the leader and not the group
        _kill_all_of({launch.identifier})
        raise
    except RuntimeError:
        # On Python 3.11 asyncio waits for each child in a thread of its own. Where none can be
        # started, the child is there, and nobody knows its process id
        await in_thread(_kill_all_of, {launch.identifier})
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None


def _kill_all_of(identifiers: Set[str]) -> None:
    """Kills all processes of these jobs, those that have left their group too. Blocks."""
    for pid, one in CENSUS.take().items():
        if not identifiers.isdisjoint(one.jobs):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _kill_owned() -> None:
    """Ends the jobs of runs whose event loop was left or goes on in a thread, later ones too."""
    _left.set()
    for pid in list(_owned):
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)
    if _owned:
        _kill_all_of(set(_owned.values()))


atexit.register(_kill_owned)
if hasattr(os, "register_at_fork"):
    # A forked child of the host owns none of them
    os.register_at_fork(after_in_child=_owned.clear)


class Group(ABC):
    """A process that leads a group, and the signals that go to all of the group."""

    def __init__(self, pid: int, identifier: str) -> None:
        self.pid = pid
        self.identifier = identifier
        self._strays: Mapping[int, Seen] = {}
        """Processes of the job outside its group that were signalled."""

        self._was_killed = False
        """Whether the runner has killed the whole group."""

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
        await in_thread(self.kill)
        exit_ = await self.wait()
        # Killed processes are dead in a moment; until then they would be taken for left behind
        with anyio.move_on_after(DYING):
            while await in_thread(self.left_behind):
                await in_thread(self.kill)
                await anyio.sleep(POLL)
        return exit_

    async def _terminate(self) -> None:
        early = await in_thread(self.is_early)
        await in_thread(self._tell_to_end)
        if early:
            while await in_thread(self.is_early):  # noqa: ASYNC110 (nothing tells that)
                await anyio.sleep(POLL)
            await in_thread(self.signal, signal.SIGTERM)
        await self.wait()
        await self._gone()
        # What is left are jobs of a run in this job whose runner has not ended them
        while await in_thread(self._tell_strays, True):
            await self._gone()

    async def _gone(self) -> None:
        while await in_thread(self.left_behind):  # noqa: ASYNC110 (nothing tells that)
            await anyio.sleep(POLL)

    def left_behind(self) -> list[int]:
        """Processes that are alive though the leader has ended: those of the group, and those
        outside of it that were signalled. Blocks."""
        members = group_members(self.pid) if self.signal(0) else []
        return [*members, *still_alive(self._strays)] if self._strays else members

    def kill(self) -> None:
        """Kills all processes of the job, and of runs in it. May block."""
        self._was_killed = True
        self._strays = {**self._strays, **self._find_strays()}
        self.signal(signal.SIGKILL)
        _signal_each(self._strays, signal.SIGKILL)

    def _tell_to_end(self) -> None:
        # Before that: who has another environment is known by its parent alone, while that lives
        self._tell_strays(False)
        self.signal(signal.SIGTERM)
        # A stopped group would never get the signal
        self.signal(signal.SIGCONT)

    def _tell_strays(self, of_inner_runs: bool) -> bool:
        """Tells the processes outside the group to end; whether there are any. The jobs of a run in
        this job are left to their own runner, at first.
        """
        found = self._find_strays()
        if not of_inner_runs:
            found = {pid: one for pid, one in found.items() if one.jobs[:1] in ((), self._own)}
        fresh = {pid: one for pid, one in found.items() if pid not in self._strays}
        self._strays = {**self._strays, **fresh}
        _signal_each(fresh, signal.SIGTERM)
        _signal_each(fresh, signal.SIGCONT)
        return bool(fresh)

    @property
    def _own(self) -> tuple[str]:
        return (self.identifier,)

    def _find_strays(self) -> dict[int, Seen]:
        return strays_of(CENSUS.take(), self.identifier, self._leader(), self._strays)

    @abstractmethod
    def _leader(self) -> int | None:
        """The id of the leader; None if it has ended."""

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


def _signal_each(processes: Mapping[int, Seen], number: int) -> None:
    for pid in still_alive(processes):
        # That of another user may not be signalled: it is told as left behind
        with contextlib.suppress(OSError):
            os.kill(pid, number)


async def _expire(grace: Grace, waiting: anyio.CancelScope) -> None:
    with anyio.move_on_after(grace.seconds):
        await grace.over.wait()
    waiting.cancel()


class LocalProcess(Group):
    """A child of this process: the job itself, or the shell that supervises it."""

    def __init__(self, process: anyio.abc.Process, identifier: str, exit_file: str | None) -> None:
        super().__init__(process.pid, identifier)
        self._process = process
        self._exit_file = exit_file
        self._is_fetched = False
        """Whether the child is gone. Threads ask, and Trio's processes may not be asked there."""

        self._end: tuple[Exit | None] | None = None
        """What `wait` has returned, which may be None. Asked again, when the processes that it has
        looked at are gone, it would not know better."""

        _owned[self.pid] = identifier

    @property
    def is_supervised(self) -> bool:
        return self._exit_file is not None

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

    async def wait(self) -> Exit | None:
        if self._end is None:
            self._end = (await self._wait(),)
        return self._end[0]

    async def _wait(self) -> Exit | None:
        returncode = await self._process.wait()
        self._is_fetched = True
        _owned.pop(self.pid, None)
        is_doubtful = _is_doubtful(returncode)
        is_unknown = is_doubtful and _others_may_reap()
        if self._exit_file is None:
            return None if is_unknown else _as_exit(returncode)
        if 0 <= returncode <= 128 and not is_doubtful:
            return Exit(code=returncode)
        # The supervisor's own words decide: it may have been killed itself, somebody else may have
        # fetched it, a code may look like a signal
        recorded = await in_thread(recorded_exit, self._exit_file)
        if recorded is not None:
            return recorded
        if returncode < 0 and HAS_PROC and not self._was_killed:
            # Its supervisor was killed, and nobody else is told how the job itself ends
            ended, oldest = time.monotonic(), await in_thread(self._oldest)
            while await in_thread(still_alive, oldest):  # noqa: ASYNC110 (nothing tells that)
                await anyio.sleep(POLL)
            if time.monotonic() > ended + DYING_TOGETHER:
                return None
        # Where it has left none, a signal is the likeliest
        return None if is_unknown else _as_exit(returncode, has_message=True)

    def _oldest(self) -> dict[int, Seen]:
        """The process of the group that was started first, if any is alive: the job's own."""
        seen = CENSUS.take()
        # Those that were killed with their supervisor may need a moment to end
        members = [pid for pid, one in seen.items() if one.group == self.pid and not is_dying(pid)]
        first = min(members, key=lambda pid: (int(seen[pid].started), pid), default=None)
        return {} if first is None else {first: seen[first]}

    def _leader(self) -> int | None:
        return None if self._is_fetched else self.pid

    def is_early(self) -> bool:
        if self._exit_file is None or not HAS_PROC:
            return False
        # Between its fork and its execution a job is a copy of the supervisor, and for a moment
        # has no command at all
        members, own = group_members(self.pid), command_of(self.pid)
        others = [command_of(pid) for pid in members if pid != self.pid]
        return self.pid in members and all(command in (own, b"") for command in others)


def _as_exit(returncode: int, *, has_message: bool = False) -> Exit:
    if returncode < 0:
        return Exit(signal=-returncode)
    return exit_of(returncode, has_message=True) if has_message else Exit(code=returncode)


def _is_doubtful(returncode: int) -> bool:
    """Whether this may stand for "nobody knows", as where somebody else has fetched the child: then
    asyncio says 255, and trio 0.
    """
    return returncode == (255 if is_asyncio() else 0)


def _others_may_reap() -> bool:
    return signal.getsignal(signal.SIGCHLD) is not signal.SIG_DFL


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
