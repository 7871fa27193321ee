"""What the system tells of processes, by `/proc` or, where there is none, by `ps`. All of this
blocks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ENDED = (b"Z", b"X")
"""States in which a process runs no more and only waits to be fetched by its parent."""

HAS_PROC = os.path.isdir("/proc/self")


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


def is_zombie(pid: int) -> bool:
    """Whether a process has ended and waits to be fetched. False where there is no `/proc`."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field, the name, may hold anything, so count from its end; see proc(5)
            return file.read().rpartition(b")")[2].split()[0] in ENDED
    except (OSError, IndexError):
        return False


def _is_alive_in(pid: int, group: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, _, its_group = file.read().rpartition(b")")[2].split()[:3]
    except (OSError, ValueError):
        return False
    return int(its_group) == group and state not in ENDED
