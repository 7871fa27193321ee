"""What the system tells of processes, by `/proc` or, where there is none, by `ps`. All of this
blocks."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ..storage.provenance import process_start

ENDED = (b"Z", b"X")
"""States in which a process runs no more and only waits to be fetched by its parent."""

EXITING = 0x4
"""The flag of a process that is at its end, PF_EXITING of Linux."""

HAS_PROC = os.path.isdir("/proc/self")

IDENTIFIER = "HERMES_IDENTIFIER"
"""The variable that names a process's job."""

OUTER = "HERMES_OUTER"
"""The variable that names, from the inside, the jobs in which a run was started: a job can execute
hermes itself."""


class Seen(NamedTuple):
    """A live process. `jobs` are the identifiers of its job and of those around it, from the
    inside."""

    parent: int
    group: int
    started: bytes
    jobs: tuple[str, ...]


class Census:
    """All live processes at one moment. Who asks while another asks gets the same answer, or many
    jobs that end together would ask for all of it once each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = -math.inf
        self._seen: Mapping[int, Seen] = {}

    def take(self) -> Mapping[int, Seen]:
        """Processes by id, as they are during this call. Empty without `/proc`. Blocks."""
        asked = time.monotonic()
        with self._lock:
            if self._began < asked:
                self._began = time.monotonic()
                self._seen = {pid: one for pid in pids() if (one := _seen(pid)) is not None}
            return self._seen


CENSUS = Census()


def strays_of(
    seen: Mapping[int, Seen], identifier: str, leader: int | None, known: Mapping[int, Seen]
) -> dict[int, Seen]:
    """The processes of a job that are not in its group: those that have its identifier in their
    environment, as that of an outer job too, and the descendants of all of its processes and of
    those `known` before.

    `leader` leads the group; None if it has ended, for its number may be another's by now. This
    process and those above it are never among them.
    """
    ours = _line_of(seen, os.getpid())
    found = {
        pid
        for pid, one in seen.items()
        if identifier in one.jobs
        or (leader is not None and leader in (pid, one.group))
        or (pid in known and known[pid].started == one.started)
    } - ours
    children: dict[int, list[int]] = {}
    for pid, one in seen.items():
        children.setdefault(one.parent, []).append(pid)
    waiting = list(found)
    while waiting:
        fresh = [pid for pid in children.get(waiting.pop(), ()) if pid not in found | ours]
        found.update(fresh)
        waiting += fresh
    return {pid: seen[pid] for pid in sorted(found) if pid in seen and seen[pid].group != leader}


def _line_of(seen: Mapping[int, Seen], pid: int) -> set[int]:
    """A process and all above it, the system's first process in any case."""
    line = {0, 1}
    while pid in seen and pid not in line:
        line.add(pid)
        pid = seen[pid].parent
    return line


def still_alive(known: Mapping[int, Seen]) -> list[int]:
    """Those of these processes that have not ended. Blocks."""
    return [pid for pid, one in known.items() if (now := _stat(pid)) and now[2] == one.started]


def by_job(seen: Mapping[int, Seen], identifiers: Iterable[str]) -> dict[str, list[int]]:
    """Live processes of these jobs, and of the runs in them."""
    found: dict[str, list[int]] = {identifier: [] for identifier in identifiers}
    for pid, one in seen.items():
        for identifier in one.jobs:
            if identifier in found:
                found[identifier].append(pid)
    return found


def processes_of(variable: str) -> dict[str, list[int]]:
    """Live processes by the value that an environment variable had when they started.

    Empty where there is no `/proc`. Processes of other users are not seen.
    """
    found: dict[str, list[int]] = {}
    start = f"\0{variable}=".encode()
    for pid in pids():
        try:
            with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
                _, is_there, after = (b"\0" + file.read()).partition(start)
        except OSError:
            continue
        if is_there:
            found.setdefault(os.fsdecode(after.partition(b"\0")[0]), []).append(pid)
    return found


def group_members(group: int) -> list[int]:
    """The processes of a group that have not ended."""
    if HAS_PROC:
        return [pid for pid in pids() if _is_alive_in(pid, group)]
    words = ["ps", "-A", "-o", "pid=,pgid=,stat="]
    listed = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    rows = [row for row in map(str.split, listed.splitlines()) if len(row) == 3]
    return sorted(
        int(pid) for pid, its_group, state in rows if int(its_group) == group and state[0] != "Z"
    )


def orphans_of(leader: int) -> list[int]:
    """The processes that are left of a session and group whose leader is gone.

    While any of them lives nobody else gets the leader's number; if somebody has it, none is left.
    """
    if process_start(leader) is not None and not is_zombie(leader):
        return []
    return [pid for pid in group_members(leader) if _session_of(pid) == leader]


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def pids() -> list[int]:
    """All processes; none where there is no `/proc`, or no file descriptor left to read it."""
    try:
        return sorted(map(int, filter(str.isdigit, os.listdir("/proc"))))
    except OSError:
        return []


def group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None


def command_of(pid: int) -> bytes:
    """The command line; empty if there is none, as for a moment between fork and execution."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def is_dying(pid: int) -> bool:
    """Whether a process was killed, and has only not been given the time to end. False where there
    is no `/proc`."""
    try:
        stat, status = Path(f"/proc/{pid}/stat"), Path(f"/proc/{pid}/status")
        flags = int(stat.read_bytes().rpartition(b")")[2].split()[6])
        waiting = re.findall(rb"^(?:Sig|Shd)Pnd:\s*(\w+)", status.read_bytes(), re.MULTILINE)
    except (OSError, ValueError, IndexError):
        return False
    killed = 1 << (signal.SIGKILL - 1)
    return bool(flags & EXITING) or any(int(mask, 16) & killed for mask in waiting)


def is_zombie(pid: int) -> bool:
    """Whether a process has ended and waits to be fetched. False where there is no `/proc`."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field, the name, may hold anything, so count from its end; see proc(5)
            return file.read().rpartition(b")")[2].split()[0] in ENDED
    except (OSError, IndexError):
        return False


def _is_alive_in(pid: int, group: int) -> bool:
    found = _stat(pid)
    return found is not None and found[1] == group


def _stat(pid: int) -> tuple[int, int, bytes] | None:
    """Parent, group and start of a process; None if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            # The second field, the name, may hold anything, so count from its end; see proc(5)
            words = file.read().rpartition(b")")[2].split()
        return None if words[0] in ENDED else (int(words[1]), int(words[2]), words[19])
    except (OSError, ValueError, IndexError):
        return None


def _seen(pid: int) -> Seen | None:
    found = _stat(pid)
    if found is None:
        return None
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            environment = b"\0" + file.read()
    except OSError:
        environment = b""
    jobs = [*_value(environment, IDENTIFIER).split(), *_value(environment, OUTER).split()]
    return Seen(*found, tuple(jobs))


def _value(environment: bytes, variable: str) -> str:
    _, is_there, after = environment.partition(f"\0{variable}=".encode())
    return os.fsdecode(after.partition(b"\0")[0]) if is_there else ""
