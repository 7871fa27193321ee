"""Where a run comes from: commit, uncommitted changes, machine, person, versions. Read once per run."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

GIT_LIMIT = 5.0
"""Seconds that git may take in all. A run must not wait for a slow network file system or a huge index."""

PLAIN = {
    "core.fsmonitor": "false", "core.quotePath": "true", "diff.noprefix": "false", "diff.mnemonicPrefix": "false", "diff.srcPrefix": "a/",
    "diff.dstPrefix": "b/", "diff.relative": "false", "diff.submodule": "short",
}  # fmt: skip
"""Configuration that overrules the user's, so that git starts no daemon and `git apply` takes every patch. Older ones ignore keys they do
not know."""

NO_COMMIT = "00000"
"""Stands in an identifier for the last five characters of the commit, where there is none."""


class Git(NamedTuple):
    """The state of the working tree. `reason` says why there is no commit, or what could not be found out.

    `patch` is what `uncommitted.patch` will hold, None if the tree is clean.
    """

    commit: str | None = None
    branch: str | None = None
    dirty: bool | None = None
    reason: str | None = None
    patch: bytes | None = None

    def as_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {"commit": self.commit, "branch": self.branch, "dirty": self.dirty}
        return told | {"reason": self.reason} if self.reason else told

    @property
    def suffix(self) -> str:
        """The last five characters of the commit."""
        return self.commit[-5:] if self.commit else NO_COMMIT


def read_git(working_directory: Path, experiments: Path) -> Git:
    """Asks git for commit, branch and uncommitted changes. Never raises; takes at most `GIT_LIMIT` seconds."""
    if not any((folder / ".git").exists() for folder in (working_directory, *working_directory.parents)):
        return Git(reason="not a git repository")
    commands = (
        ("rev-parse", "HEAD"),
        ("symbolic-ref", "--quiet", "--short", "HEAD"),
        # Configuration must not change what the patch looks like. Experiments alone do not make a tree dirty
        ("diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv", "--binary", "--", ":/", *_without(working_directory, experiments)),
        ("ls-files", "--others", "--exclude-standard", "--full-name", "--", ":/", *_without(working_directory, experiments)),
    )
    ends = _Deadline(GIT_LIMIT)
    try:
        with ThreadPoolExecutor(len(commands)) as pool:
            head, branch, diff, untracked = pool.map(lambda words: _git(working_directory, words, ends), commands)
    except FileNotFoundError:
        return Git(reason="git is not installed")
    except subprocess.TimeoutExpired:
        return Git(reason=f"git took longer than {GIT_LIMIT:g} s")
    except OSError as exc:
        return Git(reason=f"git cannot be executed: {exc.strerror}")
    if head.returncode:
        return Git(reason=_said(head))
    commit = head.stdout.decode().strip()
    name = branch.stdout.decode("utf-8", "surrogateescape").strip() or None
    if diff.returncode:
        return Git(commit, name, reason=_said(diff))
    patch = _patch(commit, diff.stdout, untracked.stdout) if diff.stdout else None
    return Git(commit, name, bool(diff.stdout), patch=patch)


def _without(working_directory: Path, experiments: Path) -> tuple[str, ...]:
    relative = os.path.relpath(experiments, working_directory)
    # git refuses paths outside the repository, and there nothing has to be left out
    top = next((folder for folder in (working_directory, *working_directory.parents) if (folder / ".git").exists()), working_directory)
    return (f":(exclude,literal){relative}",) if experiments.is_relative_to(top) else ()


def _patch(commit: str, diff: bytes, untracked: bytes) -> bytes:
    # `git apply` skips whatever stands before the first `diff`
    lines = [f"# uncommitted changes on top of {commit}".encode()]
    lines += [b"# untracked: " + name for name in untracked.splitlines()]
    return b"\n".join(lines) + b"\n\n" + diff


class _Deadline:
    def __init__(self, seconds: float) -> None:
        import time

        self._now = time.monotonic
        self._end = self._now() + seconds

    @property
    def left(self) -> float:
        return max(0.0, self._end - self._now())


def _git(folder: Path, words: tuple[str, ...], ends: _Deadline) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["git", *(word for key, value in PLAIN.items() for word in ("-c", f"{key}={value}")), *words],
        cwd=folder,
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=ends.left,
        check=False,
    )


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    text = done.stderr.decode("utf-8", "replace").strip()
    if "ambiguous argument 'HEAD'" in text or "unknown revision" in text:
        return "the repository has no commit"
    return text.splitlines()[0] if text else f"git ended with exit code {done.returncode}"


def boot_id() -> str | None:
    """Tells one start of this machine from the next, so that a process id is not mistaken for an older one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return _boot_session()


def _boot_session() -> str | None:
    # macOS
    try:
        done = subprocess.run(["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, timeout=2, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def start_ticks(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; None where there is no `/proc`. Takes 20 us."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field, the name, may hold anything, so count from its end; field 22 of proc(5)
            return file.read().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return None


def process_start(pid: int) -> str | None:
    """When a process started, in the system's own terms: `start_ticks`, or else what `ps` says. None if it is gone."""
    if os.path.isdir("/proc/self"):
        return start_ticks(pid)
    try:
        done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=2, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def machine(version: str) -> dict[str, Any]:
    """Host, user and versions, as they stand in the metadata."""
    # Not from `platform`, which reads the interpreter's file to find its C library: 3 ms
    system = os.uname()
    python = ".".join(map(str, sys.version_info[:3]))
    return {
        "host": system.nodename,
        "user": user_name(),
        "versions": {"hermes": version, "python": python, "platform": f"{system.sysname}-{system.release}"},
    }
