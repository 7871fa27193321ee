"""Scanning the working directory, and remembering it, so that what has not changed is not read
again. All of this blocks.
"""

from __future__ import annotations

import errno
import glob
import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

from ..storage.files import is_folder
from ..storage.layout import EXPERIMENTS, METADATA, RUNS
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

GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""What reading a directory says that is none any more."""

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


class Entry(NamedTuple):
    """What a directory holds under one name."""

    name: str
    inode: int
    is_folder: bool
    is_link: bool


class Tree:
    """The directories below `top`, as they were when they were last read.

    Paths are relative to `top`, which is the empty path. `visit` is called for every entry that may
    be a job's, while the directory that holds it is read. `is_owned` tells whether a directory
    belongs to a job: everything in it may be a job's then. `grown` is set when a directory is found
    that was not known. `closed` are directories that could not be read. Not safe to be used by two
    threads at once.
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
        self._links: dict[str, dict[str, str | None]] = {}
        """The symbolic links in directories that are no job's: their names and, once they were
        asked for, their targets."""

        self.closed: dict[str, OSError] = {}

    def __contains__(self, path: str) -> bool:
        return path in self._folders

    def absolute(self, path: str) -> str:
        return f"{self.top}/{path}" if path else self.top

    def nearest(self, count: int) -> list[str]:
        """At most so many of the known directories, those near the top first."""
        return sorted(self._folders, key=lambda path: (depth(path), path))[:count]

    def __len__(self) -> int:
        return len(self._folders)

    def inodes(self) -> set[tuple[int, int]]:
        """Devices and inodes of the known directories."""
        return {(folder.device, folder.inode) for folder in self._folders.values()}

    def link_paths(self) -> list[str]:
        """The symbolic links, but for those in directories of jobs."""
        return [
            f"{folder}/{name}" if folder else name
            for folder, names in self._links.items()
            for name in names
        ]

    def links(self) -> Iterator[tuple[str, str, str]]:
        """The same links: the directory that holds each, its name and its target."""
        return links_in(self._links, self.absolute)

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
        for path in list(self.closed):
            # It may have been opened, which changes nothing in the directory that holds it
            if path not in self._folders:
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
        self._links.pop(path, None)
        below = f"{path}/" if path else ""
        for each in [each for each in self._folders if each.startswith(below)]:
            del self._folders[each]
            self._links.pop(each, None)
        return True

    def forget_closed(self) -> bool:
        """Forgets the directories that are gone or may not be read. False if there are none."""
        closed = [path for path in self._folders if not self._is_open(path)]
        for path in closed:
            self.forget(path)
            if is_folder(self.absolute(path)):
                self.closed[path] = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
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
            # Not through a link that has taken the place of the directory; the top may be reached
            # by one
            no_link = os.O_NOFOLLOW if path else 0
            status, entries = entries_and_status(self.absolute(path), no_link)
        except OSError as exc:
            self.forget(path)
            if exc.errno in GONE:
                self.closed.pop(path, None)
            else:
                self.closed[path] = exc
            return []
        self.closed.pop(path, None)
        is_owned = path != "" and self._is_owned(path)
        if path and not is_owned and any(entry.name == "pyvenv.cfg" for entry in entries):
            self.forget(path)
            return []
        known = self._folders.get(path)
        if known is None or known[:2] != (status.st_dev, status.st_ino):
            self.forget(path)
            self.grown = True
        self._folders[path] = _Folder(*_stamp(status), read_at)
        folders = []
        links: dict[str, str | None] = {}
        for name, inode, is_directory, is_link in entries:
            below = f"{path}/{name}" if path else name
            search = None
            if is_owned or len(name) >= SHORTEST:
                search = self._visit(below, (status.st_dev, inode), is_directory)
            if is_directory and (self.is_searched(below) if search is None else search):
                folders.append((below, inode))
            elif is_link and search is None:
                links[name] = None
        self._links.pop(path, None)
        if links:
            self._links[path] = links
        return folders


def entries_and_status(path: str, flags: int = 0) -> tuple[os.stat_result, list[Entry]]:
    """What a directory is, and what is in it. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | flags)
    try:
        status = os.fstat(fd)
        with os.scandir(fd) as entries:
            return status, [
                Entry(
                    entry.name,
                    entry.inode(),
                    entry.is_dir(follow_symlinks=False),
                    entry.is_symlink(),
                )
                for entry in entries
            ]
    finally:
        os.close(fd)


def links_in(
    links: Mapping[str, dict[str, str | None]], absolute: Callable[[str], str]
) -> Iterator[tuple[str, str, str]]:
    """Symbolic links: directory, name and target. Targets are read when they are first needed."""
    for folder, names in links.items():
        for name, target in names.items():
            if target is None:
                try:
                    target = names[name] = os.readlink(f"{absolute(folder)}/{name}")
                except OSError:
                    continue
            yield folder, name, target


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
