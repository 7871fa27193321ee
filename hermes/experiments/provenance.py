"""Where a run comes from: commit, uncommitted changes, machine, person, versions."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from .metadata import GitState, Versions

PLAIN = {
    "core.fsmonitor": "false",
    "core.quotePath": "true",
    "diff.noprefix": "false",
    "diff.mnemonicPrefix": "false",
    "diff.srcPrefix": "a/",
    "diff.dstPrefix": "b/",
    "diff.relative": "false",
    "diff.submodule": "short",
}
"""Configuration that overrules the user's, so that git starts no daemon and `git apply` takes every
patch. Older ones ignore keys they do not know."""

NO_COMMIT = "00000"
"""Stands in an identifier for the last five characters of the commit, where there is none."""


class Git(NamedTuple):
    """The state of the working tree, and the content of `uncommitted.patch`, None if clean."""

    state: GitState
    patch: bytes | None = None

    @property
    def suffix(self) -> str:
        """The last five characters of the commit."""
        return self.state.commit[-5:] if self.state.commit else NO_COMMIT


def read_git(working_directory: Path, experiments: Path, limit: float) -> Git:
    """Asks git for commit, branch and uncommitted changes.

    Never raises; takes at most `limit` seconds.
    """
    folders = (working_directory, *working_directory.parents)
    if not any((folder / ".git").exists() for folder in folders):
        return Git(GitState(reason="not a git repository"))
    paths = ("--", ":/", *_without(working_directory, experiments))
    commands = (
        ("rev-parse", "HEAD"),
        ("symbolic-ref", "--quiet", "--short", "HEAD"),
        # Configuration must not change what the patch looks like.
        # Experiments alone do not make a tree dirty
        ("diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv", "--binary", *paths),
        ("ls-files", "--others", "--exclude-standard", "--full-name", *paths),
    )
    ends = time.monotonic() + limit
    try:
        with ThreadPoolExecutor(len(commands)) as pool:
            head, branch, diff, untracked = pool.map(
                lambda words: _git(working_directory, words, ends), commands
            )
    except FileNotFoundError:
        return Git(GitState(reason="git is not installed"))
    except subprocess.TimeoutExpired:
        return Git(GitState(reason=f"git took longer than {limit:g} s"))
    except OSError as exc:
        return Git(GitState(reason=f"git cannot be executed: {exc.strerror}"))
    if head.returncode:
        return Git(GitState(reason=_said(head)))
    commit = head.stdout.decode().strip()
    name = branch.stdout.decode("utf-8", "surrogateescape").strip() or None
    if diff.returncode:
        return Git(GitState(commit=commit, branch=name, reason=_said(diff)))
    patch = _patch(commit, diff.stdout, untracked.stdout) if diff.stdout else None
    return Git(GitState(commit=commit, branch=name, dirty=bool(diff.stdout)), patch)


def _without(working_directory: Path, experiments: Path) -> tuple[str, ...]:
    # git refuses paths outside the repository, and there nothing has to be left out
    folders = (working_directory, *working_directory.parents)
    top = next((folder for folder in folders if (folder / ".git").exists()), working_directory)
    if not experiments.is_relative_to(top):
        return ()
    return (f":(exclude,literal){os.path.relpath(experiments, working_directory)}",)


def _patch(commit: str, diff: bytes, untracked: bytes) -> bytes:
    # `git apply` skips whatever stands before the first `diff`
    lines = [f"# uncommitted changes on top of {commit}".encode()]
    lines += [b"# untracked: " + name for name in untracked.splitlines()]
    return b"\n".join(lines) + b"\n\n" + diff


def _git(folder: Path, words: tuple[str, ...], ends: float) -> subprocess.CompletedProcess[bytes]:
    configuration = [word for key, value in PLAIN.items() for word in ("-c", f"{key}={value}")]
    return subprocess.run(
        ["git", *configuration, *words],
        cwd=folder,
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=max(0.0, ends - time.monotonic()),
        check=False,
    )


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    text = done.stderr.decode("utf-8", "replace").strip()
    if "ambiguous argument 'HEAD'" in text or "unknown revision" in text:
        return "the repository has no commit"
    return text.splitlines()[0] if text else f"git ended with exit code {done.returncode}"


def boot_id() -> str | None:
    """Tells one start of this machine from the next, so that no process id is mistaken for an older
    one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return _boot_session()


def _boot_session() -> str | None:
    # macOS
    return _output("sysctl", "-n", "kern.bootsessionuuid")


def start_ticks(pid: int) -> str | None:
    """When a process started, in clock ticks since boot. Takes 20 us.

    None if it is gone, and where there is no `/proc`.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # Field 22 of proc(5). The second, the name, may hold anything: count from its end
            return file.read().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return None


def process_start(pid: int) -> str | None:
    """When a process started, in the system's own terms: `start_ticks`, or else what `ps` says.

    None if it is gone.
    """
    if os.path.isdir("/proc/self"):
        return start_ticks(pid)
    return _output("ps", "-o", "lstart=", "-p", str(pid))


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=2, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def versions(hermes: str) -> Versions:
    """The versions of what executes jobs, as they stand in the metadata."""
    # Not from `platform`, which reads the interpreter's file to find its C library: 3 ms
    system = os.uname()
    python = ".".join(map(str, sys.version_info[:3]))
    return Versions(hermes=hermes, python=python, platform=f"{system.sysname}-{system.release}")
