"""Jobs as processes of this machine, each the leader of its own session and process group."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio
import anyio.abc

from . import Exit, Launch

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

UNTOLD = frozenset({signal.SIGINT, signal.SIGPIPE})
"""Signals of which no shell gives a message; they are believed from the status alone."""

BUSY = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
"""Why a process cannot be started just now, though it may be in a moment."""

RETRY_FOR = 30.0
"""Seconds for which a busy system is asked again."""

POLL = 0.01
"""Seconds between two looks at whether a group is gone."""


class LocalExecutor:
    """Starts jobs with `anyio.open_process`, which has to happen in the event loop's thread."""

    async def start(self, launch: Launch) -> LocalProcess:
        command = list(launch.argv)
        if launch.exit_file is not None:
            command = ["/bin/sh", "-c", SUPERVISOR, launch.exit_file, *_around_shell(launch.environment), *command]
        with contextlib.suppress(TimeoutError), anyio.fail_after(RETRY_FOR):
            pause = 0.05
            while True:
                try:
                    return await self._open(command, launch)
                except OSError as exc:
                    if exc.errno not in BUSY:
                        raise
                await anyio.sleep(pause)
                pause = min(1.0, 2 * pause)
        return await self._open(command, launch)

    async def _open(self, command: Sequence[str], launch: Launch) -> LocalProcess:
        # Cancelled half-way, there might be a process that nobody knows of
        with anyio.CancelScope(shield=True):
            process = await anyio.open_process(
                command,
                stdin=subprocess.DEVNULL,
                stdout=launch.stdout,
                stderr=launch.stderr,
                cwd=launch.working_directory,
                env=launch.environment,
                start_new_session=True,
            )
        return LocalProcess(process, launch.exit_file)


class LocalProcess:
    """One job's process, or the shell that watches over it."""

    def __init__(self, process: anyio.abc.Process, exit_file: str | None) -> None:
        self._process = process
        self._exit_file = exit_file

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> Exit:
        return exit_of(await self._process.wait(), self._exit_file)

    async def end(self, grace: float) -> Exit:
        self._signal(signal.SIGTERM)
        # A stopped group would never get the signal
        self._signal(signal.SIGCONT)
        with anyio.move_on_after(grace):
            await self._process.wait()
            while len(await anyio.to_thread.run_sync(self.left_behind)) > 0:  # noqa: ASYNC110 (nothing tells when a group is gone)
                await anyio.sleep(POLL)
        self.kill()
        return await self.wait()

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def left_behind(self) -> list[int]:
        return group_members(self.pid) if self._signal(0) else []

    def _signal(self, number: int) -> bool:
        """Signals the group; False if there is none any more."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            # macOS says "not permitted" of a group of zombies
            return False
        return True


def exit_of(returncode: int, exit_file: str | None) -> Exit:
    """What a return code means. A shell's codes above 128 say that there may have been a signal; then its own words decide."""
    if returncode < 0:
        return Exit(signal=-returncode)
    number = returncode - 128
    if exit_file is None or number not in set(signal.Signals):
        return Exit(code=returncode)
    try:
        said = Path(exit_file).read_text(errors="replace").splitlines()
    except OSError:
        said = []
    return Exit(signal=number) if len(said) > 2 or number in UNTOLD else Exit(code=returncode)


def group_members(group: int) -> list[int]:
    """The processes of a group that have not ended; zombies that nobody has fetched yet do not count."""
    if os.path.isdir("/proc/self"):
        return sorted(pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is_alive_in(pid, group))
    listed = subprocess.run(["ps", "-A", "-o", "pid=,pgid=,stat="], capture_output=True, text=True, check=False).stdout
    rows = (line.split() for line in listed.splitlines())
    return sorted(int(row[0]) for row in rows if len(row) == 3 and int(row[1]) == group and not row[2].startswith("Z"))


def _is_alive_in(pid: int, group: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, _, its_group = file.read().rpartition(b")")[2].split()[:3]
    except (OSError, ValueError):
        return False
    return int(its_group) == group and state not in (b"Z", b"X")


def _around_shell(environment: Mapping[str, str]) -> list[str]:
    """Words that give the job the variables that a shell would change or not pass on, such as the functions that bash exports."""
    hidden = [f"{name}={value}" for name, value in environment.items() if name == "IFS" or not (name.isidentifier() and name.isascii())]
    return ["/usr/bin/env", *hidden] if hidden else []
