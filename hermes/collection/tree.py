"""Scanning the working directory, and remembering it, so that what has not changed is not read
again. All of this blocks.
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

from ..experiments.files import is_folder
from ..experiments.layout import EXPERIMENTS, METADATA, RUNS
from .claims import SHORTEST

NOT_SEARCHED = frozenset({".git", "node_modules", RUNS})
"""Directories that are never searched, beside those that Hermes made and virtual environments,
which have a `pyvenv.cfg`.
"""

CLOCK_GRAIN = 2.0
"""Seconds that a directory's last change must be old before its entries are remembered: time stamps
of file systems are coarse (2 s on FAT), so within this time an entry may be added without a new
stamp.
"""

Visit = Callable[[str, tuple[int, int], bool], bool | None]
"""Takes a path, its device and inode, and whether it is a directory. Returns whether a directory is
to be searched, None if the path belongs to no job.
"""


class _Folder(NamedTuple):
    """What a directory was when it was last read, at `read_at` nanoseconds since the epoch."""

    device: int
    inode: int
    modified: int
    changed: int
    read_at: int


class Tree:
    """The directories below `top`, as they were when they were last read.

    Paths are relative to `top`, which is the empty path. `visit` is called for every entry that may
    be a job's, while the directory that holds it is read. `is_owned` tells whether a directory
    belongs to a job: everything in it may be a job's then. `grown` is set when a directory is found
    that was not known. Not safe to be used by two threads at once.
    """

    def __init__(
        self,
        *,
        top: str,
        experiments: str,
        is_owned: Callable[[str], bool],
        visit: Visit,
        clock_grain: float = CLOCK_GRAIN,
    ) -> None:
        self.top = top
        self.grown = False
        self._experiments = experiments
        self._is_owned = is_owned
        self._visit = visit
        self._clock_grain = int(clock_grain * 1e9)
        self._folders: dict[str, _Folder] = {}

    def __contains__(self, path: str) -> bool:
        return path in self._folders

    def absolute(self, path: str) -> str:
        return f"{self.top}/{path}" if path else self.top

    def nearest(self, count: int) -> list[str]:
        """At most so many of the known directories, those near the top first."""
        return sorted(self._folders, key=lambda path: (depth(path), path))[:count]

    def __len__(self) -> int:
        return len(self._folders)

    def scan(self) -> None:
        """Visits what may have come. Directories that have not changed since they were read are not
        read again.
        """
        if "" not in self._folders:
            self.scan_below("")
            return
        for path, known in list(self._folders.items()):
            if path not in self._folders:
                continue
            try:
                status = os.lstat(self.absolute(path))
            except OSError:
                self.forget(path)
                continue
            is_settled = known.read_at - status.st_ctime_ns >= self._clock_grain
            if not is_settled or _stamp(status) != known[:4]:
                self.scan_below(path)

    def scan_below(self, start: str) -> None:
        """Reads a directory, and those below it that are not known yet."""
        pending = [start]
        while pending:
            for path, inode in self._read(pending.pop()):
                known = self._folders.get(path)
                if known is None or known.inode != inode:
                    pending.append(path)

    def is_searched(self, path: str) -> bool:
        """Whether a directory that is no job's is to be searched."""
        name = path.rpartition("/")[2]
        if name in NOT_SEARCHED or _is_of_another_run(self.absolute(path)):
            return False
        return (
            name != os.path.basename(self._excluded)
            or os.path.realpath(self.absolute(path)) != self._excluded
        )

    @cached_property
    def _excluded(self) -> str:
        # Not in the constructor, which may be called in a loop: a slow disk takes its time
        return os.path.realpath(self._experiments)

    def forget(self, path: str) -> bool:
        """Forgets a directory and those below it. False if it was not known."""
        if self._folders.pop(path, None) is None:
            return False
        below = f"{path}/" if path else ""
        for each in [each for each in self._folders if each.startswith(below)]:
            del self._folders[each]
        return True

    def forget_closed(self) -> bool:
        """Forgets the directories that are gone or may not be read. False if there are none."""
        closed = [path for path in self._folders if not self._is_open(path)]
        for path in closed:
            self.forget(path)
        return bool(closed)

    def _is_open(self, path: str) -> bool:
        absolute = self.absolute(path)
        # The top itself may be reached by a link
        return os.access(absolute, os.R_OK) and (is_folder(absolute) or not path)

    def _read(self, path: str) -> list[tuple[str, int]]:
        """Visits what is in one directory. Gives the directories in it that are to be read too,
        with their inodes.
        """
        read_at = time.time_ns()
        try:
            status, entries = self._entries(path)
        except OSError:
            # Gone, or not ours to read
            self.forget(path)
            return []
        is_owned = path != "" and self._is_owned(path)
        if path and not is_owned and any(name == "pyvenv.cfg" for name, *_ in entries):
            self.forget(path)
            return []
        known = self._folders.get(path)
        if known is None or known[:2] != (status.st_dev, status.st_ino):
            self.forget(path)
            self.grown = True
        self._folders[path] = _Folder(*_stamp(status), read_at)
        folders = []
        for name, inode, is_directory in entries:
            below = f"{path}/{name}" if path else name
            search = None
            if is_owned or len(name) >= SHORTEST:
                search = self._visit(below, (status.st_dev, inode), is_directory)
            if is_directory and (self.is_searched(below) if search is None else search):
                folders.append((below, inode))
        return folders

    def _entries(self, path: str) -> tuple[os.stat_result, list[tuple[str, int, bool]]]:
        """What a directory is, and name, inode and "is a directory" of each of its entries."""
        # Not through a link that has taken the place of the directory; the top may be reached by
        # one
        no_link = os.O_NOFOLLOW if path else 0
        fd = os.open(self.absolute(path), os.O_RDONLY | os.O_DIRECTORY | no_link)
        try:
            status = os.fstat(fd)
            with os.scandir(fd) as entries:
                return status, [
                    (entry.name, entry.inode(), entry.is_dir(follow_symlinks=False))
                    for entry in entries
                ]
        finally:
            os.close(fd)


def _is_of_another_run(path: str) -> bool:
    """Whether a directory holds the experiments of a script, those of a run with another root.

    They lie in a folder called `experiments`, which has Hermes' mark, but may be the user's too.
    """
    parent = os.path.dirname(path)
    if os.path.basename(parent) != EXPERIMENTS or not os.path.isdir(f"{parent}/{RUNS}"):
        return False
    return any(glob.iglob(f"{glob.escape(path)}/*/*/{METADATA}"))


def _stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    # Anybody can set the modification time; the system alone sets the time of the last change
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def depth(path: str) -> int:
    return path.count("/")
