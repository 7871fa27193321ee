"""Processes of this machine, each the leader of its own session and group: starting, waiting, signalling, adopting."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import anyio

from ..blocking import Bell, in_thread, wait_for
from ..experiments.provenance import boot_id, process_start

T = TypeVar("T")

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

The shell leads the job's group, so it catches what the group is sent and lives on to write; caught signals, unlike ignored ones,
are back at their defaults in the job. The file `$0` gets the shell's process id, the shell's own message if a signal killed the job
(which is how `exit 137` and signal 9 differ), and the status.
"""

_VARIABLE = re.compile(rb"[A-Za-z_][A-Za-z_0-9]*")

NO_ROOM = "no room"
"""The line that says that the disk was full when the job ended, after the status."""

UNTOLD = frozenset({signal.SIGINT, signal.SIGPIPE})
"""Signals of which no shell gives a message; they are believed from the status alone."""

BUSY = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
"""Why a process cannot be started just now, though it may be in a moment."""

ADOPTED_POLL = 0.05
"""Seconds between two looks at whether an adopted job has ended."""

POLL = 0.01
"""Seconds between two looks at whether a group is gone."""

DYING = 2.0
"""Seconds for which killed processes are waited for; the system can hold one longer, say by a disk that does not answer."""


class Launch(NamedTuple):
    """One command to start. `stdout` and `stderr` are file descriptors that stay the caller's.

    The command leaves its exit status in the file `exit_file`, unless that is None.
    """

    argv: Sequence[str]
    working_directory: str
    environment: Mapping[bytes, bytes]
    stdout: int
    stderr: int
    exit_file: str | None
    hidden: Sequence[bytes] = ()
    """Variables of the environment, as `name=value`, that a shell would change or not pass on: see `hidden_from_shells`."""

    stdin: int = subprocess.DEVNULL


class Exit(NamedTuple):
    """How a process ended: exactly one of `code` and `signal` is set. With `no_room` the disk was full then."""

    code: int | None = None
    signal: int | None = None
    no_room: bool = False


class Trace(NamedTuple):
    """What is known of a job that an earlier runner started: process id and start as recorded, if it came to that."""

    identifier: str
    pid: int | None
    started: str | None
    boot_id: str | None
    exit_file: str


def start(launch: Launch) -> LocalProcess:
    """Starts a command as the leader of its own session and group, with nothing to read. Blocks.

    Raises `OSError` if that is not possible.
    """
    command: list[str | bytes] = list(launch.argv)
    if launch.exit_file is not None:
        command = ["/bin/sh", "-c", SUPERVISOR, launch.exit_file, *_around_shell(launch), *command]
    try:
        return LocalProcess(_popen(command, launch), launch.exit_file)
    except OSError as exc:
        if exc.errno != errno.ENOEXEC:
            raise
    # A script without `#!`: as `execvp` and every shell do
    return LocalProcess(
        _popen(["/bin/sh", "-c", 'exec "$@"', "sh", *command], launch), launch.exit_file
    )


def _popen(command: Sequence[str | bytes], launch: Launch) -> subprocess.Popen[bytes]:
    # In the worker thread that prepared the job: `anyio.open_process` has to be called in the event loop's thread, and takes twice as long
    return subprocess.Popen(
        command,
        stdin=launch.stdin,
        stdout=launch.stdout,
        stderr=launch.stderr,
        cwd=launch.working_directory,
        env=launch.environment,
        start_new_session=True,
    )


def adopt(trace: Trace, alive: Mapping[str, Sequence[int]]) -> AdoptedProcess | None:
    """The process of a job that an earlier runner started, dead or alive; None if it was never started. Blocks.

    `alive` are the live processes of jobs by identifier, as `processes_of` gives them.
    """
    leaders = [pid for pid in alive.get(trace.identifier, ()) if _group_of(pid) == pid]
    if leaders:
        return AdoptedProcess(
            trace.identifier, leaders[0], process_start(leaders[0]), trace.exit_file
        )
    pid = trace.pid or recorded_pid(trace.exit_file)
    if pid is None:
        return None
    # After a restart of the machine, or without a recorded start, the number may be anybody's by now
    is_known = trace.started is not None and trace.boot_id == boot_id()
    return AdoptedProcess(trace.identifier, pid, trace.started if is_known else "", trace.exit_file)


class Group:
    """A process that leads a group, and the signals that go to all of it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    @property
    def has_ended(self) -> bool:
        """Whether the process itself has ended, whatever others of its group still do."""
        raise NotImplementedError

    async def wait(self) -> Exit | None:
        """Returns when the process itself has ended, whatever others of its group still do. None if nobody can tell how."""
        raise NotImplementedError

    async def end(self, grace: float) -> Exit | None:
        """Ends the whole group: SIGTERM, up to `grace` seconds, SIGKILL. Without grace SIGKILL at once. Call it in a shielded scope."""
        if grace > 0:
            early = await in_thread(self._is_early)
            self._signal(signal.SIGTERM)
            # A stopped group would never get the signal
            self._signal(signal.SIGCONT)
            with anyio.move_on_after(grace):
                if early:
                    while await in_thread(self._is_early):  # noqa: ASYNC110 (nothing tells when a shell has become a job)
                        await anyio.sleep(POLL)
                    self._signal(signal.SIGTERM)
                await self.wait()
                await self._gone()
        self.kill()
        ended = await self.wait()
        # Those killed are dead in a moment, and until then they would be taken for left behind
        with anyio.move_on_after(DYING):
            await self._gone()
        return ended

    def _is_early(self) -> bool:
        """Whether the job itself is not executed yet: what its supervisor gets until then, the job never sees."""
        return False

    async def _gone(self) -> None:
        while await in_thread(self.left_behind):  # noqa: ASYNC110 (nothing tells when a group is gone)
            await anyio.sleep(POLL)

    def kill(self) -> None:
        """SIGKILL for the whole group, at once."""
        self._signal(signal.SIGKILL)

    def left_behind(self) -> list[int]:
        """Process ids of the group that are still alive after the process has ended. Blocks for some system calls."""
        return group_members(self.pid) if self._signal(0) else []

    def record(self, exit_file: str, exit_: Exit) -> None:
        """Leaves behind how the job ended, for a resumed run, if it has not done so itself. Blocks; does not fail."""
        # So little that the block which the file has already is enough for it
        with contextlib.suppress(OSError), open(exit_file, "a") as file:
            if file.tell() == 0:
                # Without a supervisor, in the words that one would have left
                status = (
                    f"{exit_.code}" if exit_.signal is None else f"signal\n{128 + exit_.signal}"
                )
                file.write(f"{self.pid}\n{status}\n")
            if exit_.no_room:
                file.write(f"{NO_ROOM}\n")

    def _signal(self, number: int) -> bool:
        """Signals the group; False if there is none any more."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            # macOS says "not permitted" of a group of zombies
            return False
        return True


class LocalProcess(Group):
    """A child of this process: the job itself, or the shell that watches over it."""

    def __init__(self, process: subprocess.Popen[bytes], exit_file: str | None) -> None:
        super().__init__(process.pid)
        self._process = process
        self._exit_file = exit_file

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    async def wait(self) -> Exit:
        while not self.has_ended:  # noqa: ASYNC110 (waits for the end of one that was told to end; `Ends` waits for all others)
            await anyio.sleep(POLL)
        return self.fetch()

    def fetch(self) -> Exit:
        """How it ended; it has to have ended."""
        returncode = self._process.wait()
        if returncode < 0:
            return Exit(signal=-returncode)
        # Only then the shell's own words decide; where it could leave none, a signal is likelier than such a code
        if self._exit_file is not None and returncode > 128:
            return recorded_exit(self._exit_file) or exit_of(returncode, said=True)
        return Exit(code=returncode)

    def _is_early(self) -> bool:
        if self._exit_file is None or not os.path.isdir("/proc/self"):
            return False
        # Between its fork and its execution a job is a copy of the supervisor, and for a moment has no command at all
        members, own = group_members(self.pid), _command_of(self.pid)
        return self.pid in members and all(
            _command_of(pid) in (own, b"") for pid in members if pid != self.pid
        )


class Ends(Generic[T]):
    """Tells which of many processes have ended. One thread waits for them all together; others may wake it."""

    def __init__(self) -> None:
        self._epoll = (
            select.epoll() if hasattr(select, "epoll") and hasattr(os, "pidfd_open") else None
        )
        self._bell = Bell()
        self._by_fd: dict[int, T] = {}
        self._others: list[tuple[LocalProcess, T]] = []
        """Where the system tells nothing: these are looked at again and again."""

        if self._epoll is not None:
            self._epoll.register(self._bell, select.EPOLLIN)

    def add(self, process: LocalProcess, what: T) -> None:
        """Waits for one more process, and tells `what` when it has ended."""
        if self._epoll is not None:
            # No file descriptor left, or it has been fetched already
            with contextlib.suppress(OSError):
                fd = os.pidfd_open(process.pid)
                self._epoll.register(fd, select.EPOLLIN)
                self._by_fd[fd] = what
                return
        self._others.append((process, what))

    def wake(self) -> None:
        """Makes `wait` return, now or when it is called next."""
        self._bell.ring()

    def wait(self, at_most: float | None) -> list[T]:
        """What has ended since the last call; blocks until then, but for no more than `at_most` seconds and not if it is woken."""
        if self._others:
            at_most = POLL if at_most is None else min(POLL, at_most)
        if self._epoll is not None:
            told = [fd for fd, _ in self._epoll.poll(at_most)]
        else:
            told = wait_for(at_most, self._bell)
        if self._bell.fileno() in told:
            self._bell.clear()
        ended = [self._take(fd) for fd in told if fd in self._by_fd]
        if self._others:
            found = [(process, what, process.has_ended) for process, what in self._others]
            ended += [what for _, what, has_ended in found if has_ended]
            self._others = [(process, what) for process, what, has_ended in found if not has_ended]
        return ended

    def _take(self, fd: int) -> T:
        os.close(fd)
        return self._by_fd.pop(fd)

    def close(self) -> None:
        for fd in self._by_fd:
            os.close(fd)
        self._bell.close()
        if self._epoll is not None:
            self._epoll.close()


class AdoptedProcess(Group):
    """A job that another runner has started and that outlived it. Its exit status is known only by the record it leaves."""

    def __init__(self, identifier: str, pid: int, started: str | None, exit_file: str) -> None:
        super().__init__(pid)
        self._identifier = identifier
        self._started = started
        self._exit_file = exit_file

    @property
    def has_ended(self) -> bool:
        # A later process may have the same id
        return process_start(self.pid) != self._started or _is_zombie(self.pid)

    async def wait(self) -> Exit | None:
        """How it ended; None if nothing was left that tells."""
        while not await in_thread(lambda: self.has_ended):  # noqa: ASYNC110 (only a parent is told)
            await anyio.sleep(ADOPTED_POLL)
        return recorded_exit(self._exit_file)

    def left_behind(self) -> list[int]:
        own = set(processes_of("HERMES_IDENTIFIER").get(self._identifier, ()))
        return [pid for pid in group_members(self.pid) if pid in own]

    def _signal(self, number: int) -> bool:
        # Never to a group of the same number that belongs to somebody else
        return (not self.has_ended or bool(self.left_behind())) and super()._signal(number)


def recorded_exit(exit_file: str) -> Exit | None:
    """The exit status that a job has left behind; None if it has not come to that."""
    try:
        text = Path(exit_file).read_text(errors="replace")
    except OSError:
        return None
    before, mark, _ = text.partition(f"{NO_ROOM}\n")
    *said, status = before.splitlines() or [""]
    # The first line is the supervisor's process id, and a line without its end was not written whole
    if not said or not before.endswith("\n") or not status.isdigit():
        return None
    return exit_of(int(status), len(said) > 1)._replace(no_room=bool(mark))


def recorded_pid(exit_file: str) -> int | None:
    """The process id of a job's supervisor; None if it has not come to that."""
    try:
        line, end, _ = Path(exit_file).read_text(errors="replace").partition("\n")
    except OSError:
        return None
    return int(line) if end and line.isdigit() else None


def processes_of(variable: str) -> dict[str, list[int]]:
    """Live processes by the value that an environment variable had when they started. Empty where there is no `/proc`."""
    found: dict[str, list[int]] = {}
    start = f"\0{variable}=".encode()
    for pid in _pids():
        try:
            with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
                _, is_there, after = (b"\0" + file.read()).partition(start)
        except OSError:
            continue
        if is_there:
            found.setdefault(os.fsdecode(after.partition(b"\0")[0]), []).append(pid)
    return found


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None


def _pids() -> list[int]:
    try:
        return sorted(map(int, filter(str.isdigit, os.listdir("/proc"))))
    except OSError:
        # There is none, or no file descriptor left to read it
        return []


def _command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except OSError:
        return False


def exit_of(status: int, said: bool) -> Exit:
    """What a shell's exit status means. It is 128 and the signal's number if one ended the job, of which the shell has `said` something."""
    number = status - 128
    if number in signal.valid_signals() and (said or number in UNTOLD):
        return Exit(signal=number)
    return Exit(code=status)


def group_members(group: int) -> list[int]:
    """The processes of a group that have not ended; zombies that nobody has fetched yet do not count."""
    if os.path.isdir("/proc/self"):
        return [pid for pid in _pids() if _is_alive_in(pid, group)]
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,pgid=,stat="], capture_output=True, text=True, check=False
    ).stdout
    rows = (line.split() for line in listed.splitlines())
    return sorted(
        int(row[0])
        for row in rows
        if len(row) == 3 and int(row[1]) == group and not row[2].startswith("Z")
    )


def _is_alive_in(pid: int, group: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, _, its_group = file.read().rpartition(b")")[2].split()[:3]
    except (OSError, ValueError):
        return False
    return int(its_group) == group and state not in (b"Z", b"X")


def hidden_from_shells(environment: Mapping[bytes, bytes]) -> list[bytes]:
    """The variables that a shell would change or not pass on, such as the functions that bash exports."""
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
    return [
        "/usr/bin/env",
        *launch.hidden,
        *(["/usr/bin/nice", "-n", "0"] if "=" in launch.argv[0] else []),
    ]
